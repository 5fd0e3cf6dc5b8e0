//! A histogram that can be read back.

use serde::Serialize;

/// Samples count as no further from zero than this: more of them than a counter can tell still have a finite sum. JSON has
/// no infinity, and a sum that was infinite once would stay so.
const SAMPLE_MAX: f64 = 1e280;

/// A sample as it is summed up.
pub fn summable(value: f64) -> f64 {
    value.clamp(-SAMPLE_MAX, SAMPLE_MAX)
}

/// How many samples lie where.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Distribution {
    pub count: u64,
    pub sum: f64,
    /// The smallest and the largest sample; 0 when there was none.
    pub min: f64,
    pub max: f64,
    /// In ascending order; the last has no bound.
    pub buckets: Vec<Bucket>,
}

/// Samples above the bound of the bucket before, up to this one's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bucket {
    /// `None` for the samples above every bound.
    pub le: Option<f64>,
    pub count: u64,
}

impl Distribution {
    /// Without samples. `bounds` ascend.
    pub fn new(bounds: &[f64]) -> Self {
        let bounds = bounds.iter().copied().map(Some).chain([None]);
        let buckets = bounds.map(|le| Bucket { le, count: 0 }).collect();
        Self { count: 0, sum: 0.0, min: 0.0, max: 0.0, buckets }
    }

    /// Counts a sample, which is not NaN.
    pub fn record(&mut self, value: f64) {
        let value = summable(value);
        let first = self.count == 0;
        self.min = if first { value } else { self.min.min(value) };
        self.max = if first { value } else { self.max.max(value) };
        self.count += 1;
        self.sum += value;
        let fits = |bucket: &&mut Bucket| bucket.le.is_none_or(|le| value <= le);
        self.buckets.iter_mut().find(fits).expect("the last bucket has no bound").count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_fall_below_or_on_their_bound() {
        let mut distribution = Distribution::new(&[0.0, 1.0]);
        for value in [0.5, 0.0, 1.0, 1.5, -2.0] {
            distribution.record(value);
        }
        let counts: Vec<_> = distribution.buckets.iter().map(|bucket| (bucket.le, bucket.count)).collect();
        assert_eq!(counts, [(Some(0.0), 2), (Some(1.0), 2), (None, 1)]);
        let Distribution { count, sum, min, max, .. } = distribution;
        assert_eq!((count, sum, min, max), (5, 1.0, -2.0, 1.5));
    }

    #[test]
    fn the_sum_of_the_largest_samples_is_finite() {
        let mut distribution = Distribution::new(&[0.0, 1.0]);
        for value in [f64::MAX, f64::MAX, f64::INFINITY, 1.0] {
            distribution.record(value);
        }
        let Distribution { count, sum, min, max, .. } = distribution;
        assert_eq!((count, sum, min, max), (4, 3.0 * SAMPLE_MAX, 1.0, SAMPLE_MAX));
        assert!((u64::MAX as f64 * SAMPLE_MAX).is_finite());
    }
}
