//! Histograms that requests write into.
//!
//! Prometheus' recorder keeps every sample in a list until somebody sorts it into its bucket, which costs a request
//! more than the rest of its accounting. Here a sample is two additions, and the page is written from the buckets.
//! Always: the same name and labels give the same series again, so that loads of one version share theirs.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics_exporter_prometheus::formatting::sanitize_label_value;

use super::distribution::summable;
use super::metrics::{Labels, bounds};

/// The histograms of one version.
#[derive(Default)]
pub struct Histograms {
    whole: Registry<WholeHistogram>,
    real: Registry<RealHistogram>,
}

/// By name and labels as the page has them.
type Registry<H> = Mutex<BTreeMap<(&'static str, String), Arc<H>>>;

impl Histograms {
    /// A histogram of durations, shown in seconds.
    pub fn durations(&self, name: &'static str, labels: &Labels<'_>) -> Arc<WholeHistogram> {
        series(&self.whole, name, labels, || WholeHistogram::new(bounds(name), 1e-9))
    }

    /// A histogram of counts.
    pub fn counts(&self, name: &'static str, labels: &Labels<'_>) -> Arc<WholeHistogram> {
        series(&self.whole, name, labels, || WholeHistogram::new(bounds(name), 1.0))
    }

    /// A histogram of numbers of any kind.
    pub fn values(&self, name: &'static str, labels: &Labels<'_>) -> Arc<RealHistogram> {
        series(&self.real, name, labels, || RealHistogram::new(bounds(name)))
    }

    /// Their series as Prometheus reads them.
    pub fn render(&self) -> String {
        let mut page = String::new();
        for ((name, labels), histogram) in &*lock(&self.whole) {
            write(&mut page, name, labels, &histogram.buckets, histogram.sum());
        }
        for ((name, labels), histogram) in &*lock(&self.real) {
            write(&mut page, name, labels, &histogram.buckets, histogram.sum());
        }
        page
    }
}

fn lock<H>(registry: &Registry<H>) -> std::sync::MutexGuard<'_, BTreeMap<(&'static str, String), Arc<H>>> {
    registry.lock().unwrap_or_else(PoisonError::into_inner)
}

fn series<H>(
    registry: &Registry<H>,
    name: &'static str,
    labels: &Labels<'_>,
    make: impl FnOnce() -> H,
) -> Arc<H> {
    let text = |(key, value): &(&str, &str)| format!("{key}=\"{}\"", sanitize_label_value(value));
    let labels = labels.iter().map(text).collect::<Vec<_>>().join(",");
    Arc::clone(lock(registry).entry((name, labels)).or_insert_with(|| Arc::new(make())))
}

/// Samples by the bucket that they fall into.
struct Buckets {
    /// Upper bounds, ascending; a sample on a bound is below it.
    bounds: &'static [f64],
    /// One more than there are bounds.
    counts: Box<[AtomicU64]>,
}

impl Buckets {
    fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect() }
    }

    fn add(&self, bucket: usize) {
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
    }
}

/// A histogram of whole numbers of units, such as nanoseconds.
pub struct WholeHistogram {
    buckets: Buckets,
    /// The bounds in units.
    in_units: Box<[u64]>,
    /// What one unit is in the metric's own.
    unit: f64,
    sum: AtomicU64,
}

impl WholeHistogram {
    fn new(bounds: &'static [f64], unit: f64) -> Self {
        let in_units = bounds.iter().map(|bound| (bound / unit).round() as u64).collect();
        Self { buckets: Buckets::new(bounds), in_units, unit, sum: AtomicU64::new(0) }
    }

    pub fn record(&self, units: u64) {
        self.buckets.add(self.in_units.partition_point(|bound| *bound < units));
        self.sum.fetch_add(units, Ordering::Relaxed);
    }

    pub fn took(&self, duration: Duration) {
        self.record(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    fn sum(&self) -> f64 {
        self.sum.load(Ordering::Relaxed) as f64 * self.unit
    }
}

/// A histogram of numbers that are not NaN.
pub struct RealHistogram {
    buckets: Buckets,
    /// The bits of a float.
    sum: AtomicU64,
}

impl RealHistogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self { buckets: Buckets::new(bounds), sum: AtomicU64::new(0) }
    }

    pub fn record(&self, value: f64) {
        let value = summable(value);
        self.buckets.add(self.buckets.bounds.partition_point(|bound| *bound < value));
        let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
        // It never fails: `add` always has a sum.
        let _ = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    fn sum(&self) -> f64 {
        f64::from_bits(self.sum.load(Ordering::Relaxed))
    }
}

/// One series as a block of a page.
fn write(page: &mut String, name: &str, labels: &str, buckets: &Buckets, sum: f64) {
    // Writing to a string does not fail.
    let _ = writeln!(page, "# TYPE {name} histogram");
    let mut count = 0;
    for (index, bucket) in buckets.counts.iter().enumerate() {
        count += bucket.load(Ordering::Relaxed);
        let bound: &dyn Display = match buckets.bounds.get(index) {
            Some(bound) => bound,
            None => &"+Inf",
        };
        let _ = writeln!(page, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
    }
    let _ = writeln!(page, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::metrics::{BATCH_ROWS, PREDICTION_SCORE, SESSION_SECONDS, histogram, recorder};

    const LABELS: [(&str, &str); 2] = [("model", "m"), ("output", "a \"b\"\\ c\nd")];

    /// A page's samples, in order of name.
    fn samples(page: &str) -> BTreeMap<String, f64> {
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        let sample = |(name, value): (&str, &str)| (name.to_owned(), value.parse().unwrap());
        lines.filter_map(|line| line.rsplit_once(' ')).map(sample).collect()
    }

    #[test]
    fn samples_read_as_those_of_prometheus_own_recorder() {
        let nanoseconds = [0, 1, 24_999, 25_000, 25_001, 99_999, 3_000_000, 10_000_000_000, 70_000_000_000];
        let rows = [1, 2, 3, 32, 33, 5000];
        let scores = [0.25, 0.5, 0.500_001, 0.99, 1.0, 3.5, -2.0, 1e9, 0.0];
        let recorder = recorder();
        let record = |name, value| histogram(&recorder, name, &LABELS).record(value);
        nanoseconds.iter().for_each(|ns| record(SESSION_SECONDS, *ns as f64 * 1e-9));
        rows.iter().for_each(|n| record(BATCH_ROWS, f64::from(*n)));
        scores.iter().for_each(|score| record(PREDICTION_SCORE, *score));
        let ours = Histograms::default();
        for ns in nanoseconds {
            ours.durations(SESSION_SECONDS, &LABELS).took(Duration::from_nanos(ns));
        }
        rows.iter().for_each(|n| ours.counts(BATCH_ROWS, &LABELS).record(*n as u64));
        scores.iter().for_each(|score| ours.values(PREDICTION_SCORE, &LABELS).record(*score));
        let (theirs, ours) = (samples(&recorder.handle().render()), samples(&ours.render()));
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
        for ((name, ours), theirs) in ours.iter().zip(theirs.values()) {
            assert!((ours - theirs).abs() <= 1e-9 * theirs.abs(), "{name}: {ours} {theirs}");
        }
    }

    #[test]
    fn the_sum_of_the_largest_numbers_is_finite() {
        let histograms = Histograms::default();
        let largest = histograms.values(PREDICTION_SCORE, &LABELS);
        [f64::MAX, f64::INFINITY].iter().for_each(|value| largest.record(*value));
        let sum = samples(&histograms.render()).into_iter().find(|(name, _)| name.contains("_sum{"));
        assert_eq!(sum.map(|(_, sum)| sum), Some(2e280));
    }

    #[test]
    fn what_two_loads_record_is_one_series() {
        let histograms = Histograms::default();
        histograms.counts(BATCH_ROWS, &LABELS).record(1);
        histograms.counts(BATCH_ROWS, &LABELS).record(2);
        histograms.counts(BATCH_ROWS, &[("model", "n")]).record(3);
        let page = histograms.render();
        assert_eq!(page.lines().filter(|line| line.starts_with("# TYPE")).count(), 2, "{page}");
        assert!(page.contains("\nweir_batch_rows_count{model=\"n\"} 1\n"), "{page}");
        let both = samples(&page).into_iter().find(|(name, _)| name.contains("_sum{model=\"m\""));
        assert_eq!(both.map(|(_, sum)| sum), Some(3.0));
    }
}
