//! What counts and what does not, by requests written down.

use std::time::Instant;

use std::sync::Arc;

use super::*;
use crate::control::rollout::Returning;
use crate::infer::{RouteReason, Routing, Timings};
use crate::tensor::Signature;

const REVISION: u64 = 7;

fn version(number: u64) -> Version {
    Version::new(number).unwrap()
}

fn step(objective_ms: Option<u64>, previous: Option<&StepTally>) -> StepTally {
    let counted = Counted {
        revision: REVISION,
        step_began_ms: previous.map_or(1, |step| step.counted.step_began_ms + 1),
        current: version(1),
        new: version(2),
        objective: objective_ms.map(Duration::from_millis),
        categories: false,
    };
    StepTally::begin(counted, Counts::default(), previous)
}

/// A request as a tally hears of it.
#[derive(Clone, Copy)]
struct Heard {
    version: u64,
    reason: RouteReason,
    revision: u64,
    unit: Option<u64>,
    outcome: Outcome,
    total_ms: u64,
}

/// A request that counts.
const COUNTS: Heard = Heard {
    version: 2,
    reason: RouteReason::Weighted,
    revision: REVISION,
    unit: None,
    outcome: Outcome::Ok,
    total_ms: 1,
};

fn of(unit: u64, outcome: Outcome) -> Heard {
    Heard { reason: RouteReason::Sticky, unit: Some(unit), outcome, ..COUNTS }
}

fn hear(step: &StepTally, heard: Heard) {
    let Heard { version: number, reason, revision, unit, outcome, total_ms } = heard;
    let signature = Signature { inputs: vec![], outputs: vec![], max_batch_size: 0 };
    let profile = ServableProfile {
        signature: Arc::new(signature),
        class_scores: vec![],
        class_labels: vec![],
        cached: false,
    };
    let timings = Timings { total: Duration::from_millis(total_ms), ..Timings::default() };
    let routing = Routing { reason, revision, unit, experiment: None };
    let ended = Instant::now();
    let event =
        InferEvent { outcome, ended, timings, routing: &routing, rows: 1, lookup: None, predicted: &[] };
    step.infer(version(number), &Reader::new(&profile), &event);
}

fn counted(step: &StepTally) -> (ArmCounts, ArmCounts) {
    let Counts { current, new, .. } = step.counts();
    (current, new)
}

#[test]
fn only_what_chance_gave_to_an_arm_under_the_steps_own_route_counts() {
    let nothing = (ArmCounts::default(), ArmCounts::default());
    let one = ArmCounts { units: 1, requests: 1, ..ArmCounts::default() };
    let failed = ArmCounts { errors: 1, ..one };
    for (heard, expected) in [
        (COUNTS, (nothing.0, one)),
        (Heard { version: 1, ..COUNTS }, (one, nothing.1)),
        (Heard { outcome: Outcome::Internal, ..COUNTS }, (nothing.0, failed)),
        (Heard { outcome: Outcome::DeadlineExceeded, ..COUNTS }, (nothing.0, failed)),
        (Heard { version: 3, ..COUNTS }, nothing),
        (Heard { revision: REVISION - 1, ..COUNTS }, nothing),
        (Heard { revision: REVISION + 1, ..COUNTS }, nothing),
        (Heard { reason: RouteReason::Pinned, ..COUNTS }, nothing),
        (Heard { reason: RouteReason::Label, ..COUNTS }, nothing),
        (Heard { reason: RouteReason::Rule, ..COUNTS }, nothing),
        (Heard { reason: RouteReason::Fallback, ..COUNTS }, nothing),
        (Heard { outcome: Outcome::Cancelled, ..COUNTS }, nothing),
    ] {
        let step = step(None, None);
        hear(&step, heard);
        assert_eq!(counted(&step), expected, "{:?} {:?}", heard.reason, heard.outcome);
    }
}

#[test]
fn what_is_known_to_be_slow_counts_as_slow() {
    let slow = |outcome, total_ms| Heard { outcome, total_ms, ..COUNTS };
    for (heard, requests, errors, slow) in [
        (slow(Outcome::Ok, 10), 1, 0, 0),
        (slow(Outcome::Ok, 11), 1, 0, 1),
        (slow(Outcome::Internal, 1), 1, 1, 1),
        // A client that hung up at once says nothing of the version; one that hung up too late does.
        (slow(Outcome::Cancelled, 10), 0, 0, 0),
        (slow(Outcome::Cancelled, 11), 1, 0, 1),
    ] {
        let step = step(Some(10), None);
        hear(&step, heard);
        let (_, new) = counted(&step);
        assert_eq!((new.requests, new.errors, new.slow), (requests, errors, slow), "{:?}", heard.outcome);
    }
}

#[test]
fn a_key_counts_once_in_a_step_and_is_a_draw_once_in_the_rollout() {
    let first = step(None, None);
    for outcome in [Outcome::Ok, Outcome::Internal, Outcome::Internal, Outcome::Ok] {
        hear(&first, of(1, outcome));
        hear(&first, of(2, Outcome::Ok));
    }
    let expected = ArmCounts { units: 2, requests: 8, errors: 1, ..ArmCounts::default() };
    assert_eq!(counted(&first).1, expected);

    // Both come back, one new key comes; two fail, of which one had not failed before.
    let second = step(None, Some(&first));
    for (unit, outcome) in [
        (1, Outcome::Internal),
        (2, Outcome::Internal),
        (1, Outcome::Internal),
        (3, Outcome::Ok),
        (3, Outcome::Ok),
    ] {
        hear(&second, of(unit, outcome));
    }
    let returning = Returning { units: 2, errors: 1, slow: 0 };
    let expected = ArmCounts { units: 1, requests: 5, errors: 1, slow: 0, returning };
    assert_eq!(counted(&second).1, expected);
    assert_eq!((expected.seen(), expected.failed()), (3, 2));
    assert_eq!(counted(&first).1.requests, 8, "the step before is over");
}

#[test]
fn a_step_that_is_counted_already_is_known_again() {
    let first = step(None, None);
    assert!(first.is_of(&first.counted));
    assert!(!first.is_of(&step(None, Some(&first)).counted));
}
