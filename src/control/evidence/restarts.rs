//! Evidence over the steps of a rollout.

use serde::{Deserialize, Serialize};

use super::ln_sum_exp;

/// The evidence of several steps, each with an e-value of its own.
///
/// Overall E = Σ_k w_k · Π_{j ≥ k} E_j with w_k = 1 / steps; a step that has not begun counts as 1. Summand k is a
/// test martingale that begins with step k, so the sum is an e-process with mean 1; and what a harmless early step
/// took off its own product is not held against the summands that begin later. It costs ln(steps) at the most
/// against the best moment to begin (Shin, Ramdas, Rinaldo 2024, "E-detectors", start one at every moment).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restarts {
    /// Steps in all, ≥ 1.
    steps: usize,
    /// ln E_j of the steps that are over.
    ended: Vec<f64>,
}

impl Restarts {
    /// Before the first of `steps` steps; 0 is taken as 1.
    pub fn new(steps: usize) -> Self {
        Self { steps: steps.max(1), ended: Vec::new() }
    }

    /// ln E overall, where the step that runs has `ln_e` so far.
    ///
    /// Cost: one exponential for each step begun.
    pub fn ln_e(&self, ln_e: f64) -> f64 {
        // Products from the running step back to the first; each contains the one before it.
        let mut product = ln_e;
        let mut summands = vec![product];
        for ended in self.ended.iter().rev() {
            product += ended;
            summands.push(product);
        }
        let not_begun = self.steps.saturating_sub(summands.len());
        if not_begun > 0 {
            summands.push(libm::log(not_begun as f64));
        }
        ln_sum_exp(summands.into_iter()) - libm::log(self.steps as f64)
    }

    /// The step that runs ends with `ln_e`, and the next begins. Past the last step it only counts on as part of it.
    pub fn end_step(&mut self, ln_e: f64) {
        // JSON has no infinities.
        let ln_e = ln_e.clamp(-f64::MAX / 1e3, f64::MAX / 1e3);
        if self.ended.len() + 1 < self.steps {
            self.ended.push(ln_e);
        } else if let Some(last) = self.ended.last_mut() {
            *last += ln_e;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(steps: usize, ended: &[f64]) -> Restarts {
        let mut restarts = Restarts::new(steps);
        ended.iter().for_each(|ln_e| restarts.end_step(*ln_e));
        restarts
    }

    #[test]
    fn the_sum_over_starts_is_as_by_hand() {
        let ln = libm::log;
        for (steps, ended, running, e) in [
            (4, &[][..], 1.0, 1.0),
            (4, &[], 9.0, (9.0 + 3.0) / 4.0),
            (4, &[0.5], 8.0, (4.0 + 8.0 + 2.0) / 4.0),
            (2, &[0.5], 8.0, (4.0 + 8.0) / 2.0),
            (1, &[], 7.0, 7.0),
        ] {
            let ended: Vec<f64> = ended.iter().map(|e: &f64| ln(*e)).collect();
            let found = libm::exp(after(steps, &ended).ln_e(ln(running)));
            assert!((found - e).abs() < 1e-9, "{steps} {ended:?} {running}: {found} for {e}");
        }
    }

    #[test]
    fn a_quiet_beginning_does_not_hide_a_bad_step() {
        let (quiet, bad) = (-30.0, 20.0);
        let ln_e = after(4, &[quiet, quiet]).ln_e(bad);
        assert!(ln_e > bad - libm::log(4.0) - 1e-9, "{ln_e}");
    }

    #[test]
    fn evidence_without_bound_survives_being_stored() {
        let restarts = after(4, &[f64::INFINITY, 1.5]);
        let text = serde_json::to_string(&restarts).unwrap();
        assert_eq!(serde_json::from_str::<Restarts>(&text).unwrap(), restarts);
        assert!(restarts.ln_e(0.0).is_finite());
    }

    #[test]
    fn rollouts_of_coin_tosses_are_doubted_no_more_often_than_promised() {
        let mut random = fastrand::Rng::with_seed(3);
        let threshold = libm::log(1.0 / 0.05);
        let alarmed = (0..2000)
            .filter(|_| {
                let mut restarts = Restarts::new(4);
                (0..4).any(|_| {
                    // Bets a third of what it has on heads, and stops the step when it is ahead.
                    let mut ln_e: f64 = 0.0;
                    let alarm = (0..100).any(|_| {
                        if ln_e < 1.0 {
                            ln_e += if random.bool() { libm::log(4.0 / 3.0) } else { libm::log(2.0 / 3.0) };
                        }
                        restarts.ln_e(ln_e) >= threshold
                    });
                    restarts.end_step(ln_e);
                    alarm
                })
            })
            .count();
        assert!(alarmed <= 100, "{alarmed} of 2000");
    }

    proptest! {
        #[test]
        fn more_evidence_in_a_step_is_more_overall(
            ended in proptest::collection::vec(-50.0..50.0_f64, 0..4), running in -50.0..50.0_f64, more in 0.01..5.0_f64,
        ) {
            let restarts = after(5, &ended);
            prop_assert!(restarts.ln_e(running + more) > restarts.ln_e(running) - 1e-12);
        }
    }
}
