//! States, transitions and verdicts, by counts written down.

use super::*;

fn rollout(plan: &str) -> Rollout {
    let start = Start { id: 7, model: "digits".into(), from: 1, by: "operator".into(), at_ms: 1000 };
    Rollout::begin(start, serde_json::from_str(plan).unwrap()).unwrap()
}

fn arm(units: u64, errors: u64) -> ArmCounts {
    ArmCounts { units, requests: units, errors, ..ArmCounts::default() }
}

fn counts(current: ArmCounts, new: ArmCounts) -> Counts {
    Counts { current, new, ..Counts::default() }
}

const FIVE_PER_CENT: &str = r#"{"target": 2, "steps": [5, 100]}"#;

#[test]
fn a_rollout_to_the_current_version_does_not_begin() {
    let start = Start { id: 1, model: "digits".into(), from: 2, by: "operator".into(), at_ms: 0 };
    assert!(Rollout::begin(start.clone(), Plan::to(2)).unwrap_err().contains("the current version"));
    assert!(
        Rollout::begin(start, Plan { steps: vec![], ..Plan::to(3) }).unwrap_err().contains("steps is empty")
    );
}

#[test]
fn the_verdict_follows_from_the_counts() {
    let healthy = counts(arm(190_000, 1900), arm(10_000, 100));
    for (counts, now_ms, decision) in [
        (Counts::default(), 1000, "Wait"),
        (healthy.clone(), 60_999, "Wait"),
        (healthy, 61_000, "Complete"),
        // Too few to rule out a rate 1 point higher.
        (counts(arm(1900, 19), arm(100, 1)), 61_000, "Wait"),
        (counts(arm(3040, 129), arm(160, 31)), 1000, "RollBack"),
        // Fewer errors than its part.
        (counts(arm(190_000, 1900), arm(10_000, 0)), 61_000, "Complete"),
        // A tenth of the traffic instead of a twentieth; the errors are not looked at.
        (counts(arm(1800, 18), arm(200, 100)), 1000, "Pause"),
    ] {
        let mut rollout = rollout(FIVE_PER_CENT);
        rollout.step.counts = counts;
        let verdict = rollout.judge(now_ms);
        assert!(format!("{:?}", verdict.decision).starts_with(decision), "{decision}: {verdict:?}");
    }
}

#[test]
fn reasons_name_counts_versions_and_evidence() {
    let mut rollout = rollout(FIVE_PER_CENT);
    rollout.step.counts = counts(arm(3040, 129), arm(160, 31));
    let Decision::RollBack { reason } = rollout.judge(1000).decision else { panic!("not rolled back") };
    let begins = "errors: 31 of 160 bad requests fell on version 2, which has 5 % of the traffic (evidence ";
    assert!(reason.starts_with(begins) && reason.ends_with(" ≥ 100)"), "{reason}");

    rollout.step.counts = counts(arm(190, 1), arm(10, 0));
    let Decision::Wait { why } = rollout.judge(2000).decision else { panic!("does not wait") };
    assert_eq!(why[0], "version 2 has answered 10 of 100 requests");
    assert_eq!(why[1], "the step has run 1 of 60 seconds");
    assert!(why[2].starts_with("errors: version 2's rate may still be "), "{why:?}");
}

#[test]
fn each_guard_rolls_back_for_its_own_reason() {
    let units = arm(9500, 0);
    let new = arm(500, 0);
    let slow = Counts { new: ArmCounts { slow: 100, ..new }, ..counts(units, new) };
    let disagreeing = Counts { compared: 1000, disagreements: 150, ..counts(units, new) };
    let mut shifted = counts(units, new);
    shifted.add_category("cat", Arm::New, 300);
    shifted.add_category("cat", Arm::Current, 950);
    shifted.add_category("dog", Arm::New, 200);
    shifted.add_category("dog", Arm::Current, 8550);
    for (guards, counts, reason) in [
        (r#""latency": {"objective_ms": 9}"#, slow, "latency: 100 of 100 slow requests fell on version 2"),
        (r#""disagreement": {}"#, disagreeing, "disagreement: 150 of 1000 answers of version 2 differ from"),
        (
            r#""shift": {}"#,
            shifted,
            "shift: 'cat' makes up 60 % of version 2's answers and 10 % of version 1's",
        ),
    ] {
        let mut rollout = rollout(&format!(r#"{{"target": 2, "steps": [5], "guards": {{{guards}}}}}"#));
        rollout.step.counts = counts;
        match rollout.judge(1000).decision {
            Decision::RollBack { reason: found } => assert!(found.starts_with(reason), "{found}"),
            other => panic!("{reason}: {other:?}"),
        }
    }
}

#[test]
fn a_step_does_not_end_before_a_shadow_answer_was_compared() {
    let plan = r#"{"target": 2, "steps": [5, 100], "guards": {"errors": null, "disagreement": {}}}"#;
    let mut rollout = rollout(plan);
    rollout.step.counts = counts(arm(9500, 0), arm(500, 0));
    let why = vec!["disagreement: no answer of version 2 was compared with version 1's".to_owned()];
    assert_eq!(rollout.judge(61_000).decision, Decision::Wait { why });
    rollout.step.counts.compared = 1;
    assert_eq!(rollout.judge(61_000).decision, Decision::Complete);
}

#[test]
fn evidence_of_one_step_counts_in_the_next() {
    let mut once = rollout(r#"{"target": 2, "steps": [5, 25]}"#);
    let suspect = counts(arm(1900, 40), arm(100, 8));
    once.step.counts = suspect.clone();
    assert!(matches!(once.judge(1000).decision, Decision::Wait { .. }));
    let before = once.judge(1000).guards[1].ln_e;
    once.advance(2000).unwrap();
    assert!((once.judge(2000).guards[1].ln_e - before).abs() < 1e-9);
    once.step.counts = counts(arm(750, 15), arm(250, 20));
    assert!(matches!(once.judge(2000).decision, Decision::RollBack { .. }), "{:?}", once.judge(2000));
}

#[test]
fn keys_that_come_back_end_a_step_and_are_no_new_evidence() {
    let mut rollout = rollout(FIVE_PER_CENT);
    let back = |units, errors| Returning { units, errors, slow: 0 };
    let arm = |units, errors| ArmCounts { requests: units, returning: back(units, errors), ..arm(0, 0) };
    rollout.step.counts = counts(arm(190_000, 1900), arm(10_000, 100));
    assert_eq!(rollout.judge(61_000).decision, Decision::Complete);
    // Far too many of them on the new version, and all failing: chance had its say when they first came.
    rollout.step.counts = counts(arm(100, 0), arm(1000, 1000));
    let verdict = rollout.judge(61_000);
    assert!(matches!(verdict.decision, Decision::Wait { .. }), "{verdict:?}");
    assert!(verdict.guards.iter().all(|guard| guard.ln_e == 0.0), "{verdict:?}");
    assert_eq!(verdict.guards[1].new_rate, Some(1.0));
}

#[test]
fn a_last_step_below_100_waits_for_a_person() {
    let mut rollout = rollout(r#"{"target": 2, "steps": [5]}"#);
    rollout.step.counts = counts(arm(190_000, 1900), arm(10_000, 100));
    let why = vec!["every step passed: promote or abort by hand".to_owned()];
    assert_eq!(rollout.judge(61_000).decision, Decision::Wait { why });
    assert!(rollout.advance(61_000).unwrap_err().contains("promote or abort"));
    rollout.promote(Some("operator"), 62_000).unwrap();
    assert_eq!((rollout.percent(), rollout.ended_ms), (100.0, Some(62_000)));
}

#[test]
fn steps_lead_to_completion() {
    let mut rollout = rollout(r#"{"target": 2, "guards": {"disagreement": {}}}"#);
    for percent in [1.0, 5.0, 25.0, 50.0] {
        assert_eq!((rollout.percent(), rollout.shadow_share()), (percent, 0.1));
        rollout.step.counts.compared = 5;
        rollout.advance(2000).unwrap();
        assert!(rollout.state.is_over() || rollout.step.counts == Counts::default());
    }
    assert_eq!(rollout.state, State::Completed { by: None });
    assert_eq!((rollout.percent(), rollout.shadow_share(), rollout.ended_ms), (100.0, 0.0, Some(2000)));
}

#[test]
fn what_is_impossible_in_a_state_is_refused() {
    type Change = fn(&mut Rollout) -> Result<(), String>;
    let changes: [(&str, Change); 6] = [
        ("advance", |r| r.advance(5)),
        ("pause", |r| r.pause("lunch", Some("on-call"))),
        ("resume", |r| r.resume(5)),
        ("promote", |r| r.promote(None, 5)),
        ("abort", |r| r.abort(Some("on-call"), 5)),
        ("roll back", |r| r.roll_back("errors", 5)),
    ];
    for (state, possible) in [
        (State::Running, &["advance", "pause", "promote", "abort", "roll back"][..]),
        (State::Paused { reason: "x".into(), by: None }, &["resume", "promote", "abort", "roll back"]),
        (State::Completed { by: None }, &[]),
        (State::RolledBack { reason: "x".into() }, &[]),
        (State::Aborted { by: None }, &[]),
    ] {
        for (name, change) in changes {
            let mut rollout = Rollout { state: state.clone(), ..rollout(FIVE_PER_CENT) };
            let before = rollout.clone();
            match change(&mut rollout) {
                Ok(()) => assert!(possible.contains(&name), "{name} when {state}"),
                Err(refusal) => {
                    assert!(!possible.contains(&name), "{name} when {state}");
                    assert_eq!(refusal, format!("cannot {name}: the rollout is {state}"));
                    assert_eq!(rollout, before);
                }
            }
        }
    }
}

#[test]
fn a_paused_rollout_does_not_advance_but_is_still_guarded() {
    let mut rollout = rollout(FIVE_PER_CENT);
    rollout.step.counts = counts(arm(190_000, 1900), arm(10_000, 100));
    rollout.pause("lunch", Some("on-call")).unwrap();
    let why = vec!["paused by on-call: lunch".to_owned()];
    assert_eq!(rollout.judge(61_000).decision, Decision::Wait { why });
    assert_eq!(rollout.percent(), 5.0);
    let seen = rollout.step.counts.clone();
    rollout.step.counts.new.units *= 2;
    let Decision::Wait { why } = rollout.judge(61_000).decision else { panic!("does not wait") };
    assert!(why.len() == 2 && why[1].starts_with("sample ratio"), "{why:?}");
    rollout.step.counts = seen.clone();
    rollout.step.counts.new.errors = 400;
    assert!(matches!(rollout.judge(61_000).decision, Decision::RollBack { .. }));
    rollout.step.counts = seen.clone();
    rollout.resume(70_000).unwrap();
    assert_eq!((&rollout.step.counts, rollout.step.began_ms), (&seen, 1000));
}

#[test]
fn after_a_mismatch_nothing_is_decided_until_the_step_begins_anew() {
    let mut rollout = rollout(FIVE_PER_CENT);
    rollout.step.counts = counts(arm(1800, 18), arm(200, 100));
    let Decision::Pause { reason } = rollout.judge(1000).decision else { panic!("not paused") };
    assert!(reason.starts_with("sample ratio: 200 of 2000 units fell on version 2"), "{reason}");
    rollout.pause(&reason, None).unwrap();
    assert!(matches!(rollout.judge(1000).decision, Decision::Wait { .. }));
    rollout.resume(9000).unwrap();
    assert_eq!((&rollout.step.counts, rollout.step.began_ms), (&Counts::default(), 9000));
    assert!(rollout.judge(9000).guards.iter().all(|reading| reading.ln_e.abs() < 1e-9));
}

#[test]
fn a_rollout_is_the_same_after_it_was_stored() {
    let mut rollout = rollout(r#"{"target": 2, "guards": {"disagreement": {"max": 0}, "shift": {}}}"#);
    rollout.step.counts = counts(arm(9900, 40), arm(100, 8));
    rollout.step.counts.add_category("cat", Arm::New, 100);
    rollout.advance(2000).unwrap();
    (rollout.step.counts.compared, rollout.step.counts.disagreements) = (10, 1);
    rollout.pause("lunch", Some("on-call")).unwrap();
    let text = serde_json::to_string(&rollout).unwrap();
    assert_eq!(serde_json::from_str::<Rollout>(&text).unwrap(), rollout);
    let verdict = rollout.judge(3000);
    assert!(matches!(verdict.decision, Decision::RollBack { .. }));
    let text = serde_json::to_string(&verdict).unwrap();
    assert_eq!(serde_json::from_str::<Verdict>(&text).unwrap(), verdict);
}
