//! Do two arms have the same mean?

use serde::{Deserialize, Serialize};

// Differences that the alternative expects, in standard deviations of a single value: a small effect by Cohen's scale
// is 0.2. Smaller finds smaller differences sooner and large ones later.
const EFFECT_EXPECTED: f64 = 0.1;

/// Count, sum and sum of squares of an arm's values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moments {
    pub count: u64,
    pub sum: f64,
    pub sum_of_squares: f64,
}

impl Moments {
    /// Values below which nothing asymptotic is said.
    pub const COUNT_MIN: u64 = 100;

    /// Takes in one value; what is not finite is left out.
    pub fn add(&mut self, value: f64) {
        if value.is_finite() {
            self.count += 1;
            self.sum += value;
            self.sum_of_squares += value * value;
        }
    }

    /// Of values of which `hits` are 1 and the others 0.
    pub fn of_proportion(hits: u64, count: u64) -> Self {
        Self { count, sum: hits as f64, sum_of_squares: hits as f64 }
    }

    /// The mean, once there is a value.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// Mean and variance of the values; `None` below [`Self::COUNT_MIN`] values, or while all are equal.
    pub(super) fn mean_and_variance(&self) -> Option<(f64, f64)> {
        let n = self.count as f64;
        let mean = self.mean().filter(|_| self.count >= Self::COUNT_MIN)?;
        let mean_of_squares = self.sum_of_squares / n;
        let variance = (mean_of_squares - mean * mean) * n / (n - 1.0);
        // Below this, what is left of the difference is rounding.
        (variance > 1e-12 * mean_of_squares).then_some((mean, variance))
    }
}

/// ln E against "the means of both arms are equal".
///
/// The mixture sequential probability ratio test with a normal mixture N(0, τ²) over the difference, its variances
/// estimated: E = √(v/(v+τ²)) · exp(τ²d²/(2v(v+τ²))), d the difference of the means, v = v₁/n₁ + v₂/n₂ its variance
/// (Johari, Koomen, Pekelis, Walsh 2017, "Peeking at A/B tests", for two streams). τ is a tenth of the arms'
/// standard deviation. Asymptotic: valid for many values and arms whose traffic keeps its proportion; 0 while either
/// arm has fewer than [`Moments::COUNT_MIN`] values or only equal ones. For rates use [`Moments::of_proportion`].
pub fn difference_evidence(a: Moments, b: Moments) -> f64 {
    let (Some((mean_a, variance_a)), Some((mean_b, variance_b))) =
        (a.mean_and_variance(), b.mean_and_variance())
    else {
        return 0.0;
    };
    let difference = mean_a - mean_b;
    let variance = variance_a / a.count as f64 + variance_b / b.count as f64;
    let tau_squared = EFFECT_EXPECTED * EFFECT_EXPECTED * (variance_a + variance_b) / 2.0;
    let total = variance + tau_squared;
    0.5 * libm::log(variance / total) + tau_squared * difference * difference / (2.0 * variance * total)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The moment of the first alarm, if any, over `n` values per arm that differ by `effect` deviations.
    fn alarm(random: &mut fastrand::Rng, effect: f64, n: u64) -> Option<u64> {
        let (mut a, mut b) = (Moments::default(), Moments::default());
        let mut normal = || (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
        (0..n).find(|_| {
            a.add(normal());
            b.add(normal() + effect);
            difference_evidence(a, b) >= libm::log(1.0 / 0.05)
        })
    }

    #[test]
    fn equal_arms_are_told_apart_no_more_often_than_promised() {
        let mut random = fastrand::Rng::with_seed(6);
        let alarmed = (0..500).filter(|_| alarm(&mut random, 0.0, 1000).is_some()).count();
        assert!(alarmed <= 25, "{alarmed} of 500");
    }

    #[test]
    fn a_difference_is_found() {
        let mut random = fastrand::Rng::with_seed(7);
        let alarmed = (0..50).filter(|_| alarm(&mut random, 0.2, 2000).is_some()).count();
        assert!(alarmed >= 49, "{alarmed} of 50");
    }

    #[test]
    fn scale_and_order_do_not_matter() {
        let arm = |scale: f64, rate: f64| {
            let n = 1000.0;
            Moments { count: 1000, sum: scale * rate * n, sum_of_squares: scale * scale * rate * n }
        };
        let ln_e = difference_evidence(arm(1.0, 0.1), arm(1.0, 0.2));
        assert!(ln_e > 5.0, "{ln_e}");
        assert!((difference_evidence(arm(1e6, 0.2), arm(1e6, 0.1)) - ln_e).abs() < 1e-9);
        let rates = difference_evidence(Moments::of_proportion(100, 1000), Moments::of_proportion(200, 1000));
        assert!((rates - ln_e).abs() < 1e-9);
    }

    #[test]
    fn few_or_equal_values_are_no_evidence() {
        let few = Moments::of_proportion(50, Moments::COUNT_MIN - 1);
        let equal = Moments::of_proportion(1000, 1000);
        let many = Moments::of_proportion(500, 1000);
        for (a, b) in [(few, many), (equal, many), (Moments::default(), many)] {
            assert_eq!(difference_evidence(a, b), 0.0);
        }
    }
}
