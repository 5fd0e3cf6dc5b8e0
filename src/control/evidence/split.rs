//! Do events fall on two sides in the proportion in which traffic does?

use super::ln_beta;

// Events that the alternative is worth before the first is seen. Small: an alternative near the null wins late but
// clearly; large: differences of a few per cent are found sooner, gross ones later. 20 lets a share of 5 % grow to
// 20 % be told after some 40 events.
const PRIOR_WEIGHT: f64 = 20.0;

/// ln E against "each event falls on the new version with probability `share`".
///
/// `on_new` of `total` events fell on it. E is the likelihood ratio of a beta-binomial, Beta(κθ, κ(1−θ)) with κ = 20,
/// to the binomial with θ = `share`; a martingale with mean 1 under the null (Robbins 1970; Lindon and Malek 2022,
/// "Anytime-valid inference for multinomial count data"). It grows with deviations to either side.
///
/// How often events happen does not matter, so a rate that drifts does no harm.
/// A share ≤ 0 or ≥ 1 leaves nothing to learn: 0, or +∞ once the impossible has happened.
/// Accuracy: 1e-9 up to 1e6 events, 0.05 at 1e12.
pub fn split_evidence(on_new: u64, total: u64, share: f64) -> f64 {
    let on_new = on_new.min(total);
    if share <= 0.0 || share >= 1.0 {
        let impossible = if share <= 0.0 { on_new > 0 } else { on_new < total };
        return if impossible { f64::INFINITY } else { 0.0 };
    }
    if total == 0 {
        return 0.0;
    }
    let (new, old) = (on_new as f64, (total - on_new) as f64);
    let (a, b) = (PRIOR_WEIGHT * share, PRIOR_WEIGHT * (1.0 - share));
    ln_beta(a + new, b + old) - ln_beta(a, b) - new * libm::log(share) - old * libm::log1p(-share)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_false_alarm_is_as_rare_as_promised_though_one_looks_after_every_event() {
        let mut random = fastrand::Rng::with_seed(1);
        let (streams, alpha, threshold) = (2000, 0.05, libm::log(1.0 / 0.05));
        for share in [0.01, 0.05, 0.5] {
            let alarmed = (0..streams)
                .filter(|_| {
                    let mut on_new = 0;
                    (1..=500).any(|total| {
                        on_new += u64::from(random.f64() < share);
                        split_evidence(on_new, total, share) >= threshold
                    })
                })
                .count();
            assert!(alarmed as f64 <= alpha * f64::from(streams), "share {share}: {alarmed} of {streams}");
        }
    }

    #[test]
    fn one_event_tells_what_the_prior_says() {
        // The prior's mean is the share, so the first event is as likely under either.
        for (on_new, share) in [(0, 0.05), (1, 0.05), (1, 0.5)] {
            assert!(split_evidence(on_new, 1, share).abs() < 1e-12);
        }
        // Two on the new side: (κθ)(κθ+1) / (κ(κ+1)) against θ², with θ = 0.05.
        let two = libm::log((1.0 * 2.0) / (20.0 * 21.0) / (0.05 * 0.05));
        assert!((split_evidence(2, 2, 0.05) - two).abs() < 1e-12);
    }

    #[test]
    fn shares_without_a_choice_know_only_the_impossible() {
        for (on_new, total, share, ln_e) in [
            (0, 10, 0.0, 0.0),
            (1, 10, 0.0, f64::INFINITY),
            (10, 10, 1.0, 0.0),
            (9, 10, 1.0, f64::INFINITY),
            (0, 0, 0.3, 0.0),
        ] {
            assert_eq!(split_evidence(on_new, total, share), ln_e, "{on_new} of {total} at {share}");
        }
    }

    #[test]
    fn a_trillion_events_are_counted_without_overflow() {
        let n = 1_000_000_000_000;
        // By Stirling, at the share itself: ½ ln(κ/n) and a constant near 0.
        let even = split_evidence(n / 2, n, 0.5);
        assert!((even - 0.5 * libm::log(20.0 / n as f64)).abs() < 0.1, "{even}");
        // n · KL(0.6 ‖ 0.5) = 2.01e10.
        let far = split_evidence(n / 10 * 6, n, 0.5);
        assert!((far / n as f64 - 0.020_135_5).abs() < 1e-6, "{far}");
    }

    proptest! {
        #[test]
        fn more_events_above_the_share_are_more_evidence(total in 1_u64..100_000, share in 0.01..0.99_f64) {
            let from = (share * total as f64).ceil() as u64;
            let stride = (total / 50).max(1) as usize;
            let mut before = f64::NEG_INFINITY;
            for on_new in (from..=total).step_by(stride) {
                let ln_e = split_evidence(on_new, total, share);
                // Up to one event from the share, the discrete optimum may lie on either side.
                prop_assert!(ln_e >= before - 1e-6 || on_new <= from + 1, "{on_new}: {ln_e} < {before}");
                before = ln_e;
            }
        }

        #[test]
        fn the_versions_may_change_places(total in 0_u64..1_000_000, part in 0.0..=1.0_f64, share in 0.001..0.999_f64) {
            let on_new = (part * total as f64) as u64;
            let one = split_evidence(on_new, total, share);
            let other = split_evidence(total - on_new, total, 1.0 - share);
            prop_assert!((one - other).abs() <= 1e-6 * (1.0 + one.abs()), "{one} {other}");
        }
    }
}
