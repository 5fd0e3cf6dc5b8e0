//! Experiments on the real server: outcomes find the arm that served, whatever comes first and whatever happens in
//! between.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::versions::{Client, Served, row, version_of};

fn halves() -> Value {
    json!({"arms": [{"version": 1, "weight": 50}, {"version": 2, "weight": 50}]})
}

fn served() -> Served {
    let served = Served::start(&[(1, "same"), (2, "double")]);
    served.put_route(&halves()).expect(200);
    served
}

/// Asks under a name of one's own; gives the version that served.
fn ask(client: &mut Client, id: &str, headers: &[(&str, &str)]) -> u64 {
    let mut body = row(1.0);
    body["id"] = json!(id);
    version_of(&client.ask(headers, &body).expect(200))
}

impl Served {
    fn tell(&self, id: &str, outcome: impl Into<Value>) -> Value {
        let feedback = json!({"request_id": id, "outcome": outcome.into()});
        self.change("POST", "feedback", &feedback).expect(200).json()
    }

    /// The newest experiment, once `condition` holds: assignments are written a moment after the answer.
    fn experiment(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || {
            let experiment = self.read("experiments")["experiments"][0].clone();
            condition(&experiment).then_some(experiment)
        })
    }
}

fn arm(experiment: &Value, version: u64) -> Value {
    let arms = experiment["arms"].as_array().expect("a list");
    arms.iter().find(|arm| arm["version"] == version).cloned().expect("an arm of that version")
}

fn total(experiment: &Value, what: &str) -> u64 {
    [1, 2].map(|version| arm(experiment, version)[what].as_u64().expect("a count")).iter().sum()
}

fn said(told: &Value) -> (bool, bool, bool) {
    let flag = |name: &str| told[name].as_bool().expect("yes or no");
    (flag("already"), flag("conflicting"), flag("joined"))
}

/// An estimate says that many, that much, and bounds around it.
#[track_caller]
fn check_estimate(estimate: &Value, count: usize, value: f64) {
    let number = |key: &str| estimate[key].as_f64().expect("a number");
    assert_eq!(number("count"), count as f64, "{estimate}");
    assert!((number("value") - value).abs() < 1e-9, "{estimate} is not {value}");
    assert!(number("lower") <= value && value <= number("upper"), "{estimate}");
}

#[test]
fn each_arm_has_the_counts_means_and_bounds_of_what_was_told() {
    let served = served();
    let mut client = served.client();
    let mut told: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for request in 0..450 {
        let id = format!("request-{request}");
        let version = ask(&mut client, &id, &[]);
        if request % 3 != 0 {
            // Version 2 does better by ten.
            let outcome = f64::from(request % 7) * 0.25 + if version == 2 { 10.0 } else { 0.0 };
            served.tell(&id, outcome);
            told.entry(version).or_default().push(outcome);
        }
    }
    let found = served.experiment("everything is there", |experiment| total(experiment, "requests") == 450);
    assert_eq!(total(&found, "outcomes"), 300, "{found}");
    assert_eq!(total(&found, "units"), 450);
    for (version, outcomes) in &told {
        let arm = arm(&found, *version);
        assert_eq!(arm["outcomes"], outcomes.len());
        check_estimate(&arm["mean"], outcomes.len(), outcomes.iter().sum::<f64>() / outcomes.len() as f64);
        assert_eq!(arm["rates"], json!({}));
    }
    let mean = |version| told[&version].iter().sum::<f64>() / told[&version].len() as f64;
    let [comparison] = found["comparisons"].as_array().unwrap().as_slice() else { panic!("{found}") };
    assert_eq!((&comparison["of"], &comparison["verdict"]), (&json!("mean"), &json!("differs")), "{found}");
    assert!((comparison["difference"].as_f64().unwrap() - (mean(2) - mean(1))).abs() < 1e-9);
    assert_eq!(found["sample_ratio"]["passed"], true, "{found}");
    assert_eq!(found["ended_ms"], 0);
}

#[test]
fn labels_are_rates_and_arms_that_do_alike_stay_open() {
    let served = served();
    let mut client = served.client();
    let mut told: BTreeMap<u64, [usize; 2]> = BTreeMap::new();
    for request in 0..60 {
        let id = format!("request-{request}");
        let counts = told.entry(ask(&mut client, &id, &[])).or_default();
        // Each arm by turns.
        let kept = counts[0] > counts[1];
        counts[usize::from(kept)] += 1;
        served.tell(&id, if kept { "kept" } else { "returned" });
    }
    let found = served.experiment("everything is there", |experiment| total(experiment, "outcomes") == 60);
    for (version, [returned, kept]) in &told {
        let all = (returned + kept) as f64;
        let rates = &arm(&found, *version)["rates"];
        check_estimate(&rates["returned"], *returned, *returned as f64 / all);
        check_estimate(&rates["kept"], *kept, *kept as f64 / all);
    }
    let comparisons = found["comparisons"].as_array().unwrap();
    assert_eq!(comparisons.len(), 2);
    assert!(comparisons.iter().all(|comparison| comparison["verdict"] == "open"), "{found}");
}

#[test]
fn an_outcome_counts_once_and_finds_its_request_before_after_and_later() {
    let served = served();
    let mut client = served.client();
    // Before the request.
    assert_eq!(said(&served.tell("early", 1.0)), (false, false, false));
    ask(&mut client, "early", &[]);
    // After it, again, and otherwise.
    let first = ask(&mut client, "late", &[]);
    served.experiment("both are there", |experiment| total(experiment, "requests") == 2);
    assert_eq!(said(&served.tell("late", 3.0)), (false, false, true));
    assert_eq!(said(&served.tell("late", 3.0)), (true, false, true));
    assert_eq!(said(&served.tell("late", 4.0)), (true, true, true));
    assert_eq!(said(&served.tell("late", "kept")), (true, true, true));
    // A request under a name that was used is no other request.
    (0..5).for_each(|_| assert!(ask(&mut client, "late", &[]) > 0));
    // Requests without a name, or with a version, are not part of it.
    client.send(5, &row(1.0));
    let mut pinned = row(1.0);
    pinned["id"] = json!("pinned");
    client.ask_version(2, &pinned).expect(200);
    // Outcomes of requests that nobody ever sends wait for them.
    assert_eq!(said(&served.tell("never", 1.0)), (false, false, false));
    assert_eq!(said(&served.tell("pinned", 1.0)), (false, false, false));
    let found = served.experiment("the outcomes are joined", |experiment| total(experiment, "outcomes") == 2);
    assert_eq!(
        (total(&found, "requests"), arm(&found, first)["mean"]["count"].as_u64() >= Some(1)),
        (2, true),
        "{found}"
    );
    let sums: f64 = [1, 2]
        .map(|version| {
            let mean = arm(&found, version)["mean"].clone();
            mean["count"].as_f64().unwrap_or(0.0) * mean["value"].as_f64().unwrap_or(0.0)
        })
        .iter()
        .sum();
    assert_eq!(sums, 4.0, "{found}");
}

#[test]
fn outcomes_join_the_experiment_that_served_after_the_route_changed_and_after_any_end() {
    let mut served = served();
    let mut client = served.client();
    for request in 0..40 {
        ask(&mut client, &format!("request-{request}"), &[]);
    }
    let began = served.experiment("all are there", |experiment| total(experiment, "requests") == 40);
    (0..10).for_each(|request| drop(served.tell(&format!("request-{request}"), 1.0)));

    // Shadows and rules are no other split; other weights are.
    served
        .put_route(&json!({"arms": halves()["arms"], "shadows": [{"version": 2, "share": 0.1}]}))
        .expect(200);
    assert_eq!(served.read("experiments")["experiments"][0]["id"], began["id"]);
    served.put_route(&json!({"arms": [{"version": 1, "weight": 1}]})).expect(200);
    ask(&mut client, "unsplit", &[]);
    (10..20).for_each(|request| drop(served.tell(&format!("request-{request}"), 1.0)));
    for (signal, requests) in [("TERM", 20..30), ("KILL", 30..40)] {
        served.restart(signal);
        requests.for_each(|request| {
            let told = served.tell(&format!("request-{request}"), 1.0);
            assert_eq!(said(&told), (false, false, true), "after {signal}");
        });
    }
    assert_eq!(said(&served.tell("request-0", 2.0)), (true, true, true));
    served.put_route(&halves()).expect(200);
    let all = served.read("experiments")["experiments"].as_array().unwrap().clone();
    let [newer, older] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!(older["id"], began["id"]);
    assert!(older["ended_ms"].as_u64() > older["began_ms"].as_u64(), "{older}");
    assert_eq!((total(older, "requests"), total(older, "outcomes")), (40, 40), "{older}");
    assert_eq!((newer["ended_ms"].as_u64(), total(newer, "requests")), (Some(0), 0), "{newer}");
}

#[test]
fn under_a_sticky_key_a_user_is_one_unit_with_one_outcome() {
    let served = served();
    let mut sticky = halves();
    sticky["sticky"] = json!("header:x-user");
    served.put_route(&sticky).expect(200);
    let mut client = served.client();
    let mut arms: BTreeMap<String, u64> = BTreeMap::new();
    for visit in 0..4 {
        for user in 0..20 {
            let (id, user) = (format!("{user}-{visit}"), format!("user-{user}"));
            let version = ask(&mut client, &id, &[("x-user", &user)]);
            assert_eq!(*arms.entry(user).or_insert(version), version, "a user keeps their arm");
        }
    }
    served.experiment("all are there", |experiment| total(experiment, "requests") == 80);
    // Everybody tells of each visit; the first word counts.
    for visit in [3, 0, 1, 2] {
        for user in 0..20 {
            served.tell(&format!("{user}-{visit}"), f64::from(visit));
        }
    }
    let found = served.read("experiments")["experiments"][0].clone();
    assert_eq!((total(&found, "units"), total(&found, "outcomes")), (20, 20), "{found}");
    for version in arms.values() {
        assert_eq!(arm(&found, *version)["mean"]["value"], 3.0, "{found}");
    }
    assert_eq!(found["sticky"], "header:x-user");
}

#[test]
fn a_split_that_is_not_as_the_weights_say_is_told() {
    let served = Served::start(&[(1, "same"), (2, "double")]);
    let weights = json!({"arms": [{"version": 1, "weight": 1}, {"version": 2, "weight": 1}], "sticky": "header:x-user"});
    served.put_route(&weights).expect(200);
    let mut client = served.client();
    // Whoever is on version 2 stays away: what a bug in a client's own caching looks like.
    let mut asked = 0;
    for user in 0.. {
        let user = format!("user-{user}");
        let on_the_first = client.reply(&[("x-user", &user)], &row(1.0)).version == 1;
        if on_the_first {
            ask(&mut client, &user, &[("x-user", &user)]);
            asked += 1;
        }
        if asked == 60 {
            break;
        }
    }
    let found = served.experiment("all are there", |experiment| total(experiment, "requests") == 60);
    assert_eq!(found["sample_ratio"]["passed"], false, "{found}");
    assert!(found["sample_ratio"]["evidence"].as_f64() > found["sample_ratio"]["threshold"].as_f64());
}

#[test]
fn feedback_that_cannot_be_kept_is_refused_with_its_fault() {
    let served = served();
    let long = "x".repeat(257);
    for (body, fault) in [
        (json!({"request_id": "a"}), "outcome"),
        (json!({"request_id": "a", "outcome": null}), "outcome must be a number or a string"),
        (json!({"request_id": "a", "outcome": true}), "outcome must be a number or a string"),
        (json!({"request_id": "a", "outcome": [1]}), "outcome must be a number or a string"),
        (json!({"request_id": "a", "outcome": 1e101}), "magnitude"),
        (json!({"request_id": "a", "outcome": long}), "label"),
        (json!({"request_id": "", "outcome": 1}), "request id"),
        (json!({"request_id": long, "outcome": 1}), "request id"),
        (json!({"request_id": 7, "outcome": 1}), "expected a string"),
        (json!({"outcome": 1}), "request_id"),
        (json!({"request_id": "a", "outcome": 1, "weight": 1}), "weight"),
        (json!({"model": "other", "request_id": "a", "outcome": 1}), "model"),
    ] {
        let reason = served.change("POST", "feedback", &body).error(400);
        assert!(reason.contains(fault), "{body}: {reason}");
    }
    let path = "/control/v1/models/unknown/feedback";
    served.weir.post(path, &json!({"request_id": "a", "outcome": 1})).error(404);
    let found = served.read("experiments")["experiments"][0].clone();
    assert_eq!((total(&found, "requests"), total(&found, "outcomes")), (0, 0));
}

#[test]
fn the_newest_experiments_are_told() {
    let served = served();
    for weight in 1..=101 {
        served
            .put_route(&json!({"arms": [{"version": 1, "weight": weight}, {"version": 2, "weight": 1}]}))
            .expect(200);
    }
    let told = served.read("experiments")["experiments"].as_array().unwrap().clone();
    let weights: Vec<f64> = told.iter().map(|told| told["arms"][0]["weight"].as_f64().unwrap()).collect();
    assert_eq!(weights, (2..=101).rev().map(f64::from).collect::<Vec<f64>>());
    let running: Vec<usize> = (0..told.len()).filter(|n| told[*n]["ended_ms"] == json!(0)).collect();
    assert_eq!(running, [0]);
}
