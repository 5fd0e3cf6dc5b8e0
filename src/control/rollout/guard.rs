//! The evidence of each guard in one step.
//!
//! Always: the step's E is that of an e-process under "the versions are equal" (for shift and disagreement: "differ by
//! no more than allowed"). Evidence in favour of the new version never counts against it.
//! Not here: evidence of other steps, thresholds, decisions.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::counts::{ArmCounts, CATEGORIES_MAX, Counts};
use super::plan::{Plan, ShiftGuard};
use crate::control::evidence::{
    Excess, exceeds_evidence, ln_sum_exp, proportion_lower, proportion_upper, split_evidence,
};

/// What is watched. The sample ratio is not a guard of the plan's: it watches the split, and pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guard {
    SampleRatio,
    Errors,
    Latency,
    Shift,
    Disagreement,
}

impl Guard {
    /// The sample ratio, then what the plan asks for.
    pub fn active(plan: &Plan) -> impl Iterator<Item = Guard> + use<> {
        let guards = &plan.guards;
        let active = [
            Some(Guard::SampleRatio),
            guards.errors.as_ref().map(|_| Guard::Errors),
            guards.latency.as_ref().map(|_| Guard::Latency),
            guards.shift.as_ref().map(|_| Guard::Shift),
            guards.disagreement.as_ref().map(|_| Guard::Disagreement),
        ];
        active.into_iter().flatten()
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Guard::SampleRatio => "sample ratio",
            Guard::Errors => "errors",
            Guard::Latency => "latency",
            Guard::Shift => "shift",
            Guard::Disagreement => "disagreement",
        })
    }
}

/// ln E of one guard in the step that runs; `share` of the traffic, in (0, 1), is the new version's.
pub(super) fn step_evidence(guard: Guard, plan: &Plan, share: f64, counts: &Counts) -> f64 {
    let (new, current) = (&counts.new, &counts.current);
    match guard {
        Guard::SampleRatio => split_evidence(new.units, new.units + current.units, share),
        Guard::Errors => against_new(new.errors, new.errors + current.errors, share),
        Guard::Latency => against_new(new.slow, new.slow + current.slow, share),
        Guard::Shift => plan.guards.shift.as_ref().map_or(0.0, |guard| shift(guard, share, counts).ln_e),
        Guard::Disagreement => plan
            .guards
            .disagreement
            .as_ref()
            .map_or(0.0, |guard| exceeds_evidence(counts.disagreements, counts.compared, guard.max)),
    }
}

/// ln E that bad events fall on the new version more often than traffic does.
///
/// Evidence of the opposite counts as none. That only lowers E, so it holds what [`split_evidence`] holds; and a
/// version that failed less in one step brings nothing into the next that would be held against it.
fn against_new(bad_on_new: u64, bad: u64, share: f64) -> f64 {
    let ln_e = split_evidence(bad_on_new, bad, share);
    if bad_on_new as f64 > share * bad as f64 { ln_e } else { ln_e.min(0.0) }
}

/// The shift guard's evidence, and where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shift<'a> {
    pub ln_e: f64,
    /// The category with the most evidence: label, and its units on the current and the new version.
    pub strongest: Option<(&'a str, (u64, u64))>,
}

/// Of the units that fell into a category, the new version's part is at most θf / (θf + 1−θ) if it puts them there up
/// to f times as often as the current version does, and the current version's at most (1−θ)f / ((1−θ)f + θ) if up to
/// f times more seldom. Both parts are tested for each category, whatever its own frequency and drift.
///
/// E is the mean of all tests. Categories that did not yet occur take part with E = 1: were the mean taken over
/// those seen, their number, which is chance too, would move it.
pub(super) fn shift<'a>(guard: &ShiftGuard, share: f64, counts: &'a Counts) -> Shift<'a> {
    let (theta, factor) = (share, guard.factor);
    let up = Excess::over(theta * factor / (theta * factor + 1.0 - theta));
    let down = Excess::over((1.0 - theta) * factor / ((1.0 - theta) * factor + theta));
    // One place for each category told apart, and one for the others; two tests each.
    let tests = 2 * (CATEGORIES_MAX + 1);
    let mut evidence = Vec::with_capacity(2 * counts.categories.len() + 1);
    let mut strongest = None;
    let mut most = f64::NEG_INFINITY;
    for (label, &(current, new)) in &counts.categories {
        let (more, fewer) = (up.ln_e(new, new + current), down.ln_e(current, new + current));
        evidence.extend([more, fewer]);
        if more.max(fewer) > most {
            most = more.max(fewer);
            strongest = Some((label.as_str(), (current, new)));
        }
    }
    let not_seen = tests.saturating_sub(evidence.len());
    if not_seen > 0 {
        evidence.push(libm::log(not_seen as f64));
    }
    Shift { ln_e: ln_sum_exp(evidence.iter().copied()) - libm::log(tests as f64), strongest }
}

/// The largest difference of rates, new less current, that the counts leave possible.
///
/// At all moments of a step at once with probability ≥ 1 − `alpha`: each rate leaves its interval with α/2.
pub(super) fn difference_max(
    new: &ArmCounts,
    current: &ArmCounts,
    bad: fn(&ArmCounts) -> u64,
    alpha: f64,
) -> f64 {
    let half = alpha / 2.0;
    proportion_upper(bad(new), new.seen(), half) - proportion_lower(bad(current), current.seen(), half)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::rollout::counts::Arm;

    #[test]
    fn a_version_that_fails_less_is_not_held_to_account() {
        assert!(split_evidence(0, 500, 0.5) > 100.0);
        assert!(against_new(0, 500, 0.5) <= 0.0);
        assert!(against_new(500, 500, 0.5) > 100.0);
    }

    #[test]
    fn a_shift_is_told_in_both_directions_and_by_its_category() {
        for (current, new) in [(1000, 3000), (3000, 1000)] {
            let mut counts = Counts::default();
            for label in ["a", "b", "c"] {
                counts.add_category(label, Arm::Current, 2000);
                counts.add_category(label, Arm::New, 2000);
            }
            let guard = ShiftGuard::default();
            assert!(shift(&guard, 0.5, &counts).ln_e < 0.0);
            counts.add_category("cat", Arm::Current, current);
            counts.add_category("cat", Arm::New, new);
            let found = shift(&guard, 0.5, &counts);
            assert!(found.ln_e > 20.0, "{found:?}");
            assert_eq!(found.strongest, Some(("cat", (current, new))));
        }
    }

    #[test]
    fn nothing_seen_is_no_evidence_and_rules_nothing_out() {
        let (plan, counts) = (Plan::to(2), Counts::default());
        for guard in Guard::active(&plan).chain([Guard::Shift, Guard::Disagreement]) {
            assert_eq!(step_evidence(guard, &plan, 0.05, &counts), 0.0, "{guard}");
        }
        assert!(shift(&ShiftGuard::default(), 0.05, &counts).ln_e.abs() < 1e-12);
        assert_eq!(difference_max(&counts.new, &counts.current, ArmCounts::failed, 0.01), 1.0);
    }
}
