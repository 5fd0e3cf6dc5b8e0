//! Between which values a rate or a mean lies, at every moment of its stream at once.

use serde::{Deserialize, Serialize};

use super::{Moments, ln_beta};

// Newton's steps end at rounding after five to ten; this only bounds them.
const NEWTON_STEPS_MAX: usize = 64;

// The count at which the interval of a mean is at its tightest for the level asked.
const TIGHTEST_AT: f64 = 1000.0;

/// A confidence interval, ends included.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    pub lower: f64,
    pub upper: f64,
}

/// Where the rate of `hits` among `n` lies: the rates from [`proportion_lower`] to [`proportion_upper`].
///
/// Covers the true rate at all n at once with probability ≥ 1 − `alpha`: the rates at which the likelihood ratio of a
/// beta mixture, Beta(½, ½), stays below 1/α (Robbins 1970, "Statistical methods related to the law of the iterated
/// logarithm"; Ville's inequality). Supposes independent events of one rate. n = 0 gives [0, 1].
pub fn proportion_interval(hits: u64, n: u64, alpha: f64) -> Interval {
    Interval { lower: proportion_lower(hits, n, alpha), upper: proportion_upper(hits, n, alpha) }
}

/// The upper end of [`proportion_interval`], 1 for n = 0.
///
/// Cost: ten exponentials and logarithms, or so.
pub fn proportion_upper(hits: u64, n: u64, alpha: f64) -> f64 {
    upper_logit(hits, n, alpha).map_or(1.0, logistic)
}

/// The lower end of [`proportion_interval`], 0 for n = 0.
pub fn proportion_lower(hits: u64, n: u64, alpha: f64) -> f64 {
    // What is not a hit has one less the rate: logit(1 − p) = −logit(p).
    upper_logit(n - hits.min(n), n, alpha).map_or(0.0, |logit| logistic(-logit))
}

/// The logit of the upper end; `None` if that is 1.
///
/// As a function of the logit x the log-likelihood hits·x − n·ln(1 + eˣ) is concave, so Newton's steps, after the
/// first, come down on the end from above: were they cut short, the interval would be too wide, never too narrow.
fn upper_logit(hits: u64, n: u64, alpha: f64) -> Option<f64> {
    let hits = hits.min(n);
    if hits == n {
        return None;
    }
    let (k, n) = (hits as f64, n as f64);
    // B(½, ½) = π.
    let ln_mixture = ln_beta(k + 0.5, n - k + 0.5) - libm::log(std::f64::consts::PI);
    let end = ln_mixture + libm::log(alpha);
    let near = (k + 0.5) / (n + 1.0);
    let normal_spread = ((libm::log(n + 1.0) - 2.0 * libm::log(alpha)) / (n * near * (1.0 - near))).sqrt();
    // Not below the most likely rate, where the slope has the other sign.
    let mut x = libm::log(near / (1.0 - near)).max(libm::log(k / (n - k))) + normal_spread;
    for step in 0..NEWTON_STEPS_MAX {
        let value = k * x - n * softplus(x) - end;
        let slope = k - n * logistic(x);
        let next = x - value / slope;
        let done = step > 0 && next >= x - 1e-12 * x.abs().max(1.0);
        x = if done { x.max(next) } else { next };
        if done {
            break;
        }
    }
    Some(x)
}

/// 1 / (1 + e^−x).
fn logistic(x: f64) -> f64 {
    let e = libm::exp(-x.abs());
    if x > 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
}

/// ln(1 + eˣ).
fn softplus(x: f64) -> f64 {
    x.max(0.0) + libm::log1p(libm::exp(-x.abs()))
}

/// Where a mean lies, at all n at once with probability near 1 − `alpha`.
///
/// An asymptotic confidence sequence: mean ± s·√(2(nρ²+1)/(n²ρ²) · ln(√(nρ²+1)/α)), s the standard deviation
/// (Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas 2024, "Time-uniform central limit theory and asymptotic confidence
/// sequences", Annals of Statistics; ρ = √((−2 ln α + ln(−2 ln α) + 1)/n*), which makes it tightest near n* = 1,000).
/// Asymptotic in the count at which one begins to look: without bounds until [`Moments::COUNT_MIN`] values are
/// there and not all are equal.
pub fn mean_interval(moments: Moments, alpha: f64) -> Interval {
    let Some((mean, variance)) = moments.mean_and_variance() else {
        return Interval { lower: f64::NEG_INFINITY, upper: f64::INFINITY };
    };
    let n = moments.count as f64;
    let twice = -2.0 * libm::log(alpha);
    let rho_squared = (twice + libm::log(twice) + 1.0) / TIGHTEST_AT;
    let grown = n * rho_squared + 1.0;
    let ln_ratio = 0.5 * libm::log(grown) - libm::log(alpha);
    let half_width = (variance * 2.0 * grown / (n * n * rho_squared) * ln_ratio).sqrt();
    Interval { lower: mean - half_width, upper: mean + half_width }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rate_leaves_its_interval_as_seldom_as_promised_though_one_looks_after_every_event() {
        let mut random = fastrand::Rng::with_seed(4);
        let (streams, alpha) = (1000, 0.05);
        for rate in [0.01, 0.3] {
            let missed = (0..streams)
                .filter(|_| {
                    let mut hits = 0;
                    (1..=300).any(|n| {
                        hits += u64::from(random.f64() < rate);
                        let interval = proportion_interval(hits, n, alpha);
                        rate < interval.lower || rate > interval.upper
                    })
                })
                .count();
            assert!(missed as f64 <= alpha * f64::from(streams), "rate {rate}: {missed} of {streams}");
        }
    }

    #[test]
    fn the_ends_are_where_the_mixture_outweighs_the_rate_by_one_over_alpha() {
        for (hits, n) in [(1, 2), (3, 100), (99, 100), (500, 1000), (12, 1_000_000), (1 << 39, 1 << 40)] {
            let Interval { lower, upper } = proportion_interval(hits, n, 0.01);
            let (k, n) = (hits as f64, n as f64);
            for end in [lower, upper] {
                let ln_ratio = ln_beta(k + 0.5, n - k + 0.5)
                    - libm::log(std::f64::consts::PI)
                    - k * libm::log(end)
                    - (n - k) * libm::log1p(-end);
                assert!(
                    (ln_ratio - libm::log(100.0)).abs() < 1e-6 + 1e-13 * n,
                    "{hits} of {n}: {end} {ln_ratio}"
                );
            }
            assert!(lower < k / n && k / n < upper);
        }
    }

    #[test]
    fn extremes_have_their_bounds() {
        assert_eq!(proportion_interval(0, 0, 0.01), Interval { lower: 0.0, upper: 1.0 });
        // One miss: (1 − u) = α · B(½, 1½) / π = α/2.
        let one = proportion_interval(0, 1, 0.01);
        assert_eq!(one.lower, 0.0);
        assert!((one.upper - 0.995).abs() < 1e-9, "{one:?}");
        assert_eq!(proportion_upper(7, 7, 0.01), 1.0);
        let vast = proportion_interval(0, 1_000_000_000_000, 0.01);
        assert!(vast.upper > 0.0 && vast.upper < 1e-10, "{vast:?}");
        assert_eq!(proportion_interval(9, 7, 0.01), proportion_interval(7, 7, 0.01));
    }

    #[test]
    fn a_mean_leaves_its_interval_as_seldom_as_promised() {
        let mut random = fastrand::Rng::with_seed(5);
        let (streams, alpha) = (1000, 0.05);
        let missed = (0..streams)
            .filter(|_| {
                let mut moments = Moments::default();
                (0..2000).any(|_| {
                    // Exponential, mean 1: skewed as latencies are.
                    moments.add(-libm::log(1.0 - random.f64()));
                    let interval = mean_interval(moments, alpha);
                    interval.lower > 1.0 || interval.upper < 1.0
                })
            })
            .count();
        assert!(missed as f64 <= alpha * f64::from(streams), "{missed} of {streams}");
    }

    #[test]
    fn too_few_or_equal_values_bound_no_mean() {
        let mut moments = Moments::default();
        for _ in 0..2 * Moments::COUNT_MIN {
            moments.add(3.0);
            assert_eq!(mean_interval(moments, 0.05).upper, f64::INFINITY);
        }
        moments.add(5.0);
        let interval = mean_interval(moments, 0.05);
        assert!(interval.lower > 2.5 && interval.upper < 3.5, "{interval:?}");
    }

    proptest! {
        #[test]
        fn intervals_are_ordered_and_move_with_the_hits(
            n in 1_u64..10_000_000, part in 0.0..1.0_f64, alpha in 0.0001..0.4_f64,
        ) {
            let hits = (part * n as f64) as u64;
            let interval = proportion_interval(hits, n, alpha);
            let rate = hits as f64 / n as f64;
            prop_assert!(0.0 <= interval.lower && interval.lower <= rate && rate <= interval.upper);
            prop_assert!(interval.upper <= 1.0);
            let more = proportion_interval(hits + 1, n, alpha);
            prop_assert!(more.lower >= interval.lower && more.upper >= interval.upper);
            let surer = proportion_interval(hits, n, alpha / 2.0);
            prop_assert!(surer.lower <= interval.lower && surer.upper >= interval.upper);
        }
    }
}
