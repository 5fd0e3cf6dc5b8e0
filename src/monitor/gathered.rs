//! Samples that are gathered on the request path and handed on once a second.
//!
//! Prometheus' recorder keeps every sample in a list until its upkeep, which costs a request more than the rest of its
//! accounting. Here a sample is two additions to the bucket it falls into; the upkeep hands on each bucket's count and
//! mean, so that the recorder's own buckets and sums are what they would have been.
//! Always: nothing is lost: what is gathered last is handed on when the last handle goes.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use metrics::Histogram;

/// What gathers samples.
pub trait Gathers: Send + Sync {
    /// Hands on what was gathered.
    fn hand_on(&self);
}

/// Everything that gathers for one version.
#[derive(Default)]
pub struct Gatherers(Mutex<Vec<Weak<dyn Gathers>>>);

impl Gatherers {
    /// Takes care that what it gathers is handed on.
    pub fn add<G: Gathers + 'static>(&self, gathers: G) -> Arc<G> {
        let gathers = Arc::new(gathers);
        let weak: Weak<G> = Arc::downgrade(&gathers);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(weak);
        gathers
    }

    /// Those that are gone have handed on what they had.
    pub fn hand_on(&self) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|gathers| gathers.upgrade().inspect(|gathers| gathers.hand_on()).is_some());
    }
}

/// Samples of one bucket.
#[derive(Default)]
struct Bucket {
    count: AtomicU64,
    /// In units, or the bits of a float.
    sum: AtomicU64,
}

/// One bucket more than there are bounds.
fn buckets(bounds: &[impl Sized]) -> Box<[Bucket]> {
    (0..=bounds.len()).map(|_| Bucket::default()).collect()
}

/// A histogram of whole numbers of units, such as nanoseconds.
pub struct Gathered {
    /// Upper bounds in units, ascending; a sample on a bound is below it.
    bounds: Box<[u64]>,
    buckets: Box<[Bucket]>,
    /// What one unit is in the metric's own.
    unit: f64,
    into: Histogram,
}

impl Gathered {
    /// Of durations; `bounds` in seconds.
    pub fn durations(bounds: &[f64], into: Histogram) -> Self {
        Self::new(bounds, 1e-9, into)
    }

    /// Of counts.
    pub fn counts(bounds: &[f64], into: Histogram) -> Self {
        Self::new(bounds, 1.0, into)
    }

    fn new(bounds: &[f64], unit: f64, into: Histogram) -> Self {
        let in_units = bounds.iter().map(|bound| (bound / unit).round() as u64);
        Self { bounds: in_units.collect(), buckets: buckets(bounds), unit, into }
    }

    pub fn record(&self, units: u64) {
        let bucket = &self.buckets[self.bounds.partition_point(|bound| *bound < units)];
        bucket.sum.fetch_add(units, Ordering::Relaxed);
        bucket.count.fetch_add(1, Ordering::Relaxed);
    }

    pub fn took(&self, duration: Duration) {
        self.record(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }
}

impl Gathers for Gathered {
    fn hand_on(&self) {
        for (index, bucket) in self.buckets.iter().enumerate() {
            let count = bucket.count.swap(0, Ordering::Relaxed);
            if count == 0 {
                continue;
            }
            let sum = bucket.sum.swap(0, Ordering::Relaxed) as f64;
            let least = index.checked_sub(1).map_or(0, |below| self.bounds[below] + 1) as f64;
            let most = self.bounds.get(index).map_or(f64::INFINITY, |bound| *bound as f64);
            tell(&self.into, count, sum, least..=most, self.unit);
        }
    }
}

impl Drop for Gathered {
    fn drop(&mut self) {
        self.hand_on();
    }
}

/// A histogram of finite numbers.
pub struct GatheredValues {
    /// Upper bounds, ascending; a sample on a bound is below it.
    bounds: &'static [f64],
    buckets: Box<[Bucket]>,
    into: Histogram,
}

impl GatheredValues {
    pub fn new(bounds: &'static [f64], into: Histogram) -> Self {
        Self { bounds, buckets: buckets(bounds), into }
    }

    pub fn record(&self, value: f64) {
        let bucket = &self.buckets[self.bounds.partition_point(|bound| *bound < value)];
        let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
        // It never fails: `add` always has a sum.
        let _ = bucket.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        bucket.count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Gathers for GatheredValues {
    fn hand_on(&self) {
        for (index, bucket) in self.buckets.iter().enumerate() {
            let count = bucket.count.swap(0, Ordering::Relaxed);
            if count == 0 {
                continue;
            }
            let sum = f64::from_bits(bucket.sum.swap(0, Ordering::Relaxed));
            let least = index.checked_sub(1).map_or(f64::NEG_INFINITY, |below| self.bounds[below].next_up());
            let most = self.bounds.get(index).copied().unwrap_or(f64::INFINITY);
            tell(&self.into, count, sum, least..=most, 1.0);
        }
    }
}

impl Drop for GatheredValues {
    fn drop(&mut self) {
        self.hand_on();
    }
}

/// Tells of a bucket's samples as if each had been their mean.
fn tell(into: &Histogram, count: u64, sum: f64, within: RangeInclusive<f64>, unit: f64) {
    // A sample that is just being added may have left its value and not its count, or the other way round.
    let mean = (sum / count as f64).clamp(*within.start(), *within.end());
    into.record_many(mean * unit, usize::try_from(count).unwrap_or(usize::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::metrics::{
        BATCH_BUCKETS, BATCH_ROWS, PREDICTION_SCORE, SECONDS_BUCKETS, SESSION_SECONDS,
    };
    use crate::monitor::metrics::{histogram, recorder};
    use crate::reading::SCORE_BUCKETS;

    /// The page's samples, without what the sums have in their last digits.
    fn page(fill: impl FnOnce(Histogram, Histogram)) -> Vec<(String, f64)> {
        let recorder = recorder();
        fill(histogram(&recorder, SESSION_SECONDS, &[]), histogram(&recorder, BATCH_ROWS, &[]));
        let text = recorder.handle().render();
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|l| l.rsplit_once(' '));
        let mut samples: Vec<(String, f64)> =
            samples.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect();
        // A recorder writes its metrics in any order, and the samples of each in theirs.
        samples.sort_by(|(one, _), (other, _)| one.cmp(other));
        samples
    }

    #[test]
    fn gathered_samples_read_as_if_each_had_been_recorded() {
        let nanoseconds = [0, 1, 24_999, 25_000, 25_001, 99_999, 3_000_000, 10_000_000_000, 70_000_000_000];
        let rows = [1, 2, 3, 32, 33, 5000];
        let recorded = page(|seconds, batch| {
            nanoseconds.iter().for_each(|ns| seconds.record(*ns as f64 * 1e-9));
            rows.iter().for_each(|n| batch.record(*n as f64));
        });
        let gathered = page(|seconds, batch| {
            let seconds = Gathered::durations(SECONDS_BUCKETS, seconds);
            let batch = Gathered::counts(BATCH_BUCKETS, batch);
            nanoseconds.iter().for_each(|ns| seconds.took(Duration::from_nanos(*ns)));
            seconds.hand_on();
            rows.iter().for_each(|n| batch.record(*n));
        });
        assert_eq!(recorded.len(), gathered.len());
        for ((name, recorded), (same, gathered)) in recorded.iter().zip(&gathered) {
            assert_eq!(name, same);
            assert!((recorded - gathered).abs() <= 1e-9 * recorded.abs(), "{name}: {recorded} {gathered}");
        }
    }

    #[test]
    fn gathered_values_read_as_if_each_had_been_recorded() {
        let values = [0.25, 0.5, 0.500_001, 0.99, 1.0, 3.5, -2.0, -1e300, 1e300, 0.0];
        let page = |fill: &dyn Fn(Histogram)| {
            let recorder = recorder();
            fill(histogram(&recorder, PREDICTION_SCORE, &[]));
            let text = recorder.handle().render();
            let mut lines: Vec<String> =
                text.lines().filter(|line| !line.contains("_sum")).map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let recorded = page(&|score| values.iter().for_each(|value| score.record(*value)));
        let gathered = page(&|score| {
            let score = GatheredValues::new(SCORE_BUCKETS, score);
            values.iter().for_each(|value| score.record(*value));
        });
        assert_eq!(recorded, gathered);
        assert!(recorded.iter().any(|line| line.ends_with(" 10")), "{recorded:?}");
    }
}
