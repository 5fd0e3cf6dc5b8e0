//! Do hits happen more often than a bound allows?

use super::ln_sum_exp;

// The alternatives: odds of a hit that are this much larger than the bound's, minus 1. Doubling covers from 2 % to
// elevenfold; between two of them the rate at which evidence grows drops by at most an eighth, and ln 10 is paid once.
const ODDS_EXCESS: [f64; 10] = [0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24];

/// The test of one bound, prepared for many counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Excess {
    bound: f64,
    /// Per alternative: ln of the factor per hit, and ln of the divisor per event.
    factors: [(f64, f64); ODDS_EXCESS.len()],
}

impl Excess {
    /// For the null "each event is a hit with conditional probability ≤ `bound`".
    pub fn over(bound: f64) -> Self {
        Self { bound, factors: ODDS_EXCESS.map(|e| (libm::log1p(e), libm::log1p(bound.clamp(0.0, 1.0) * e))) }
    }

    /// ln E; see [`exceeds_evidence`].
    ///
    /// Cost: ten exponentials.
    pub fn ln_e(&self, hits: u64, total: u64) -> f64 {
        let hits = hits.min(total);
        if self.bound >= 1.0 || total == 0 {
            return 0.0;
        }
        if self.bound <= 0.0 {
            return if hits > 0 { f64::INFINITY } else { 0.0 };
        }
        let (hits, total) = (hits as f64, total as f64);
        let ratios = self.factors.iter().map(|(per_hit, per_event)| hits * per_hit - total * per_event);
        ln_sum_exp(ratios) - libm::log(ODDS_EXCESS.len() as f64)
    }
}

/// ln E against "each event is a hit with conditional probability ≤ `bound`", whatever happened before it.
///
/// E is the mean, over a fixed grid of alternatives, of the likelihood ratio to the bound b. The alternative q whose
/// odds are r times b's gives a factor q/b on a hit and (1−q)/(1−b) otherwise, that is r^hits / (1−b+br)^total. For
/// q > b the expected factor p·q/b + (1−p)·(1−q)/(1−b) ascends in p and is 1 at p = b; so the product is a
/// supermartingale for all p ≤ b, even if p changes from event to event, and so is a mean of such products
/// (Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting", write it as a bet).
///
/// Odds less than about 1 % above the bound are never told. A bound ≥ 1 cannot be exceeded: 0. At a bound ≤ 0 the
/// first hit is +∞.
pub fn exceeds_evidence(hits: u64, total: u64, bound: f64) -> f64 {
    Excess::over(bound).ln_e(hits, total)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_false_alarm_is_as_rare_as_promised_though_one_looks_after_every_event() {
        let mut random = fastrand::Rng::with_seed(2);
        let (streams, alpha, threshold) = (2000, 0.05, libm::log(1.0 / 0.05));
        // At the bound; and below it with a probability that swings up to the bound.
        for (bound, swing) in [(0.05, 0.0), (0.5, 0.0), (0.6, 0.3)] {
            let test = Excess::over(bound);
            let alarmed = (0..streams)
                .filter(|_| {
                    let mut hits = 0;
                    (1..=500_u64).any(|total| {
                        let p = bound - swing * (total % 2) as f64;
                        hits += u64::from(random.f64() < p);
                        test.ln_e(hits, total) >= threshold
                    })
                })
                .count();
            assert!(alarmed as f64 <= alpha * f64::from(streams), "bound {bound}: {alarmed} of {streams}");
        }
    }

    #[test]
    fn the_expected_factor_of_one_event_is_one_at_the_bound_and_less_below() {
        for bound in [0.001, 0.05, 0.5, 0.99] {
            let (hit, miss) = (exceeds_evidence(1, 1, bound), exceeds_evidence(0, 1, bound));
            let expected = |p: f64| p * libm::exp(hit) + (1.0 - p) * libm::exp(miss);
            assert!((expected(bound) - 1.0).abs() < 1e-12, "{bound}");
            assert!(expected(bound / 2.0) < 1.0, "{bound}");
        }
    }

    #[test]
    fn bounds_without_a_choice_know_only_the_impossible() {
        for (hits, total, bound, ln_e) in
            [(5, 5, 1.0, 0.0), (0, 5, 0.0, 0.0), (1, 5, 0.0, f64::INFINITY), (0, 0, 0.5, 0.0)]
        {
            assert_eq!(exceeds_evidence(hits, total, bound), ln_e, "{hits} of {total} over {bound}");
        }
    }

    #[test]
    fn a_trillion_events_are_counted_without_overflow() {
        let n = 1_000_000_000_000;
        assert!(exceeds_evidence(n / 10 * 6, n, 0.5) > 1e10);
        assert!(exceeds_evidence(n / 10 * 4, n, 0.5) < -1e8);
    }

    proptest! {
        #[test]
        fn more_hits_are_more_evidence_and_a_higher_bound_is_less(
            total in 1_u64..1_000_000, part in 0.0..1.0_f64, bound in 0.001..0.9_f64,
        ) {
            let hits = (part * total as f64) as u64;
            let ln_e = exceeds_evidence(hits, total, bound);
            prop_assert!(exceeds_evidence(hits + 1, total, bound) > ln_e);
            prop_assert!(exceeds_evidence(hits, total, bound * 1.1) < ln_e);
        }
    }
}
