//! Rollouts on the real server: they go up while nothing speaks against it, come down when something does, and go on
//! where they were after any end of the server.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::http::Connection;
use crate::support::versions::{Client, MODEL, Reply, Served, row, version_of};
use crate::support::weir::infer_path;

/// A row that `fails` cannot answer.
const FATAL: f32 = 1000.0;

/// A plan to version 2 that ends a step as soon as anything is known. The evidence it takes to act without cause is
/// one in a million, so that chance fails no test.
fn quick(steps: &[f64]) -> Value {
    json!({
        "target": 2, "steps": steps, "step_requests_min": 20, "step_seconds_min": 0, "alpha": 1e-6,
        "guards": {"errors": {"margin": 0.6}},
    })
}

/// A plan to version 2 whose first step does not end, with these guards.
fn watching(guards: &Value) -> Value {
    json!({"target": 2, "steps": [50, 100], "step_seconds_min": 3600, "guards": guards})
}

fn state(rollout: &Value) -> &str {
    rollout["state"].as_str().expect("a state")
}

fn is(wanted: &str) -> impl Fn(&Value) -> bool + '_ {
    move |rollout| state(rollout) == wanted
}

fn count(rollout: &Value, arm: &str, what: &str) -> u64 {
    rollout[arm][what].as_u64().expect("a count")
}

/// Actions of the model's records, the oldest first.
fn actions(served: &Served) -> Vec<String> {
    let mut actions: Vec<String> =
        served.audit().iter().map(|record| record["action"].as_str().unwrap().to_owned()).collect();
    actions.reverse();
    actions
}

fn all_by(version: u64, replies: &[Reply]) -> bool {
    replies.iter().all(|reply| *reply == Reply { status: 200, version })
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

#[test]
fn a_good_version_walks_all_steps_and_a_rollback_brings_the_old_one_back() {
    let served = Served::start(&[(1, "same"), (2, "double")]);
    let mut client = served.client();
    let id = served.begin(&quick(&[10.0, 50.0, 100.0]));
    assert_eq!(served.weights(), [(1, 90.0), (2, 10.0)]);
    let mut shares = vec![];
    let mut failed = 0;
    let send = || failed += client.send(20, &row(1.0)).iter().filter(|reply| reply.status != 200).count();
    let done = served.drive(&id, "it completes", send, |rollout| {
        let share = rollout["share"].as_f64().unwrap();
        assert!(matches!(state(rollout), "running" | "completed"), "{rollout}");
        share == 100.0
    });
    assert_eq!((state(&done), failed), ("completed", 0), "{done}");
    assert_eq!(served.weights(), [(2, 100.0)]);
    assert!(all_by(2, &served.client().send(50, &row(1.0))));

    // Each step is one record, from what was to what is.
    for record in served.audit().iter().rev().filter(|r| r["action"].as_str().unwrap().contains("rollout")) {
        let weight = |side: &str| {
            let arms = record[side]["arms"].as_array().unwrap().clone();
            arms.iter().find(|arm| arm["version"] == 2).map_or(0.0, |arm| arm["weight"].as_f64().unwrap())
        };
        shares.push((record["action"].as_str().unwrap().to_owned(), weight("from"), weight("to")));
    }
    let expected =
        [("rollout.start", 0.0, 10.0), ("rollout.step", 10.0, 50.0), ("rollout.complete", 50.0, 100.0)];
    assert_eq!(shares, expected.map(|(action, from, to)| (action.to_owned(), from, to)));

    let route = served.change("POST", "rollback", &json!({})).expect(200).json();
    assert_eq!(route["arms"], json!([{"version": 1, "weight": 100.0}]));
    assert!(all_by(1, &served.client().send(50, &row(1.0))));
}

#[test]
fn a_version_that_fails_on_some_requests_is_rolled_back_within_a_second() {
    let served = Served::start(&[(1, "same"), (2, "fails")]);
    let mut client = served.client();
    let id = served.begin(&watching(&json!({"errors": {}})));
    // Three of ten requests fail on the new version. Twenty failures that all fall on one half of the traffic are
    // evidence of more than 10,000 to 1.
    let mut failures = 0;
    for request in 0.. {
        let fatal = request % 10 < 3;
        let reply = client.reply(&[], &row(if fatal { FATAL } else { 1.0 }));
        assert!(reply.status == 200 || fatal && reply.status == 400 || reply.status == 500, "{reply:?}");
        failures += u32::from(reply.status != 200);
        if failures == 20 || state(&served.rollout(&id)) != "running" {
            break;
        }
    }
    let told = now_ms();
    let done = eventually("it is rolled back", || Some(served.rollout(&id)).filter(is("rolled_back")));
    let ended = done["ended_ms"].as_u64().unwrap();
    assert!(ended <= told + 1000, "{} ms after the last failure", ended - told);
    let reason = done["reason"].as_str().unwrap();
    assert!(reason.starts_with("errors: ") && reason.contains("fell on version 2"), "{reason}");

    assert_eq!(served.weights(), [(1, 100.0)]);
    assert!(all_by(1, &client.send(200, &row(FATAL))));
    let record = &served.audit()[0];
    assert_eq!((&record["action"], &record["actor"]), (&json!("rollout.rollback"), &json!("rollout")));
    assert_eq!(record["to"]["reason"], reason);
}

#[test]
fn each_guard_rolls_back_a_version_that_is_bad_in_its_way() {
    let cases = [
        ("same", "burns", json!({"latency": {"objective_ms": 250}}), row(300.0), "latency: "),
        ("highest", "first", json!({"shift": {}}), row(9.0), "shift: '"),
        ("highest", "first", json!({"disagreement": {"share": 1}}), row(9.0), "disagreement: "),
    ];
    std::thread::scope(|scope| {
        for (current, new, guards, body, reason) in &cases {
            scope.spawn(move || {
                let served = Served::start(&[(1, *current), (2, *new)]);
                let id = served.begin(&watching(guards));
                let mut client = served.client();
                let mut shadowed = false;
                let send = || {
                    shadowed |= !served.read("route")["shadows"].as_array().unwrap().is_empty();
                    client.send(10, body).iter().for_each(|reply| assert_eq!(reply.status, 200));
                };
                let done = served.drive(&id, reason, send, is("rolled_back"));
                let told = done["reason"].as_str().unwrap();
                assert!(told.starts_with(reason), "{told}");
                assert_eq!(shadowed, reason.starts_with("disagreement"), "who gets copies");
                let route = served.read("route");
                assert_eq!((served.weights(), &route["shadows"]), (vec![(1, 100.0)], &json!([])));
            });
        }
    });
}

#[test]
fn a_version_that_answers_alike_passes_every_guard() {
    let served = Served::start(&[(1, "highest"), (2, "highest")]);
    let mut plan = quick(&[20.0, 100.0]);
    plan["guards"] = json!({
        "errors": {"margin": 0.6}, "latency": {"objective_ms": 5000, "margin": 0.6}, "shift": {},
        "disagreement": {"share": 1},
    });
    let id = served.begin(&plan);
    let mut client = served.client();
    let send = || drop(client.send(20, &row(9.0)));
    let done = served.drive(&id, "it completes", send, |rollout| state(rollout) != "running");
    assert_eq!(state(&done), "completed", "{done}");
    let names: Vec<&str> =
        done["guards"].as_array().unwrap().iter().map(|guard| guard["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["sample ratio", "errors", "latency", "shift", "disagreement"]);
    assert_eq!(served.read("route")["shadows"], json!([]));
}

#[test]
fn operators_pause_resume_promote_and_abort_and_nobody_else_changes_the_route_meanwhile() {
    let served = Served::start(&[(1, "same"), (2, "double"), (3, "same")]);
    let nothing = json!({});
    let id = served.begin(&quick(&[50.0, 100.0]));
    let paused = served.change("POST", &format!("rollouts/{id}/pause"), &nothing).expect(200).json();
    assert_eq!(state(&paused), "paused");
    assert!(paused["reason"].as_str().unwrap().starts_with("by tester from 127.0.0.1"), "{paused}");
    // Far more than the step needs, and yet it stays.
    assert!(served.client().send(100, &row(1.0)).iter().all(|reply| reply.status == 200));
    let counted = eventually("all are counted", || {
        let rollout = served.rollout(&id);
        let requests = count(&rollout, "current", "requests") + count(&rollout, "new", "requests");
        (requests == 100).then_some(rollout)
    });
    assert_eq!((state(&counted), counted["share"].as_f64()), ("paused", Some(50.0)), "{counted}");

    let other = json!({"arms": [{"version": 3, "weight": 1}]});
    for refusal in [
        served.put_route(&other),
        served.change("DELETE", "route", &nothing),
        served.change("POST", "rollouts", &quick(&[50.0, 100.0])),
        served.change("POST", "versions/2/unload", &nothing),
        served.change("POST", &format!("rollouts/{id}/pause"), &nothing),
    ] {
        let reason = refusal.error(409);
        assert!(reason.contains("rollout") || reason.contains("in use"), "{reason}");
    }
    assert_eq!(served.weights(), [(1, 50.0), (2, 50.0)]);
    served.change("POST", &format!("rollouts/{}/pause", "77"), &nothing).error(404);

    served.change("POST", &format!("rollouts/{id}/resume"), &nothing).expect(200);
    let done = eventually("it goes on and completes", || Some(served.rollout(&id)).filter(is("completed")));
    assert_eq!(done["reason"], "");
    served.change("POST", &format!("rollouts/{id}/abort"), &nothing).error(409);
    served.put_route(&json!({"arms": [{"version": 1, "weight": 1}]})).expect(200);

    let id = served.begin(&watching(&json!({"errors": {}})));
    let promoted = served.change("POST", &format!("rollouts/{id}/promote"), &nothing).expect(200).json();
    assert!(promoted["reason"].as_str().unwrap().starts_with("promoted by tester"), "{promoted}");
    assert_eq!((state(&promoted), served.weights()), ("completed", vec![(2, 100.0)]));

    // Aborted by a rollback, and by its own word: either brings back what was live before it.
    for way in ["rollback", "abort"] {
        let id = served.begin(&json!({"target": 3}));
        assert_eq!(served.weights(), [(2, 99.0), (3, 1.0)]);
        let path = if way == "abort" { format!("rollouts/{id}/abort") } else { way.to_owned() };
        served.change("POST", &path, &nothing).expect(200);
        assert_eq!((state(&served.rollout(&id)), served.weights()), ("aborted", vec![(2, 100.0)]), "{way}");
    }
    let listed = served.read("rollouts");
    let states: Vec<&str> = listed["rollouts"].as_array().unwrap().iter().map(state).collect();
    assert_eq!(states, ["aborted", "aborted", "completed", "completed"]);
    let expected = [
        "rollout.start",
        "rollout.pause",
        "rollout.resume",
        "rollout.complete",
        "route",
        "rollout.start",
        "rollout.promote",
        "rollout.start",
        "rollout.abort",
        "rollout.start",
        "rollout.abort",
    ];
    let actions = actions(&served);
    assert_eq!(actions[actions.len() - expected.len()..], expected);
}

#[test]
fn a_plan_that_makes_no_sense_is_refused_with_its_fault_and_nothing_changes() {
    let served = Served::start(&[(1, "same"), (2, "double")]);
    let with = |key: &str, value: Value| {
        let mut plan = quick(&[50.0, 100.0]);
        plan[key] = value;
        plan
    };
    let before = served.read("route");
    for (plan, status, fault) in [
        (json!({}), 400, "version 0"),
        (with("target", json!(1)), 400, "target is 1, the current version"),
        (with("target", json!(9)), 404, "no version 9"),
        (with("steps", json!([50, 5])), 400, "steps has 5 after 50"),
        (with("steps", json!([0, 5])), 400, "steps holds 0"),
        (with("steps", json!([5, 101])), 400, "steps holds 101"),
        (with("steps", json!([100])), 400, "steps begins with 100"),
        (with("steps", json!("50")), 400, "expected a sequence"),
        (with("step_requests_min", json!(0)), 400, "step_requests_min is 0"),
        (with("step_seconds_min", json!(-1)), 400, "step_seconds_min is -1"),
        (with("alpha", json!(0.5)), 400, "alpha is 0.5"),
        (with("guards", json!({"errors": {"margin": 0}})), 400, "guards.errors.margin is 0"),
        (with("guards", json!({"latency": {"objective_ms": 0}})), 400, "guards.latency.objective_ms is 0"),
        (with("guards", json!({"shift": {"factor": 1}})), 400, "guards.shift.factor is 1"),
        (with("guards", json!({"disagreement": {"max": 1}})), 400, "guards.disagreement.max is 1"),
        (with("guards", json!({"disagreement": {"share": 0}})), 400, "guards.disagreement.share is 0"),
        (with("gards", json!({})), 400, "unknown field `gards`"),
    ] {
        let reason = served.change("POST", "rollouts", &plan).error(status);
        assert!(reason.contains(fault), "{plan}: {reason}");
    }
    served
        .put_route(&json!({"arms": [{"version": 1, "weight": 1}, {"version": 2, "weight": 1}]}))
        .expect(200);
    assert!(served.change("POST", "rollouts", &quick(&[50.0])).error(409).contains("several arms"));
    served.change("POST", "rollback", &json!({})).expect(200);
    assert_eq!(served.read("route")["arms"], before["arms"]);
    assert_eq!(served.read("rollouts"), json!({"rollouts": []}));
}

#[test]
fn of_two_rollouts_that_start_at_once_one_is_refused() {
    let served = Served::start(&[(1, "same"), (2, "double"), (3, "same")]);
    let start = |target: u64| {
        let http = served.weir.http;
        move || {
            let path = format!("/control/v1/models/{MODEL}/rollouts");
            let plan = json!({"target": target}).to_string();
            Connection::open(http).ask("POST", &path, &[], plan.as_bytes()).status
        }
    };
    for _ in 0..5 {
        let mut statuses = std::thread::scope(|scope| {
            let starts = [2, 3].map(|target| scope.spawn(start(target)));
            starts.map(|started| started.join().expect("asking does not panic"))
        });
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409]);
        served.change("POST", "rollback", &json!({})).expect(200);
    }
}

#[test]
fn a_rollout_goes_on_where_it_was_after_an_end_of_any_kind() {
    let mut served = Served::start(&[(1, "same"), (2, "double")]);
    let mut plan = quick(&[20.0, 50.0, 100.0]);
    plan["step_requests_min"] = json!(60);
    let id = served.begin(&plan);
    let mut client = served.client();
    let send = || drop(client.send(20, &row(1.0)));
    served.drive(&id, "the second step begins", send, |rollout| rollout["step"] == 1);
    served.change("POST", &format!("rollouts/{id}/pause"), &json!({})).expect(200);
    let requests =
        |rollout: &Value| count(rollout, "current", "requests") + count(rollout, "new", "requests");

    // Told to end, it loses nothing.
    client.send(50, &row(1.0));
    let before = eventually("they are counted", || Some(served.rollout(&id)).filter(|r| requests(r) >= 50));
    served.restart("TERM");
    let after = served.rollout(&id);
    for key in ["state", "reason", "step", "share", "step_began_ms", "steps", "current", "new", "actor"] {
        assert_eq!(after[key], before[key], "{key}: {after}");
    }
    assert_eq!(served.weights(), [(1, 50.0), (2, 50.0)]);

    // Killed, it loses a second or so: what was counted two seconds before is there.
    let mut client = served.client();
    let mut history = vec![];
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        client.send(10, &row(1.0));
        history.push((Instant::now(), requests(&served.rollout(&id))));
    }
    served.restart("KILL");
    let killed = history.last().expect("a second has moments").0;
    let old =
        history.iter().rev().find(|(at, _)| killed - *at >= Duration::from_secs(2)).expect("one is old").1;
    let after = served.rollout(&id);
    assert!(requests(&after) >= old && old > requests(&before), "{old} and then {after}");
    assert_eq!(
        (&after["state"], &after["step"], &after["share"]),
        (&json!("paused"), &json!(1), &json!(50.0))
    );

    served.change("POST", &format!("rollouts/{id}/resume"), &json!({})).expect(200);
    let mut client = served.client();
    let send = || drop(client.send(20, &row(1.0)));
    let done = served.drive(&id, "it completes", send, |rollout| state(rollout) != "running");
    assert_eq!(state(&done), "completed", "{done}");
    served.restart("KILL");
    assert_eq!((state(&served.rollout(&id)), served.weights()), ("completed", vec![(2, 100.0)]));
    served.change("POST", "rollback", &json!({})).expect(200);
    assert_eq!(served.weights(), [(1, 100.0)]);
}

#[test]
fn a_kill_never_parts_a_rollout_from_its_route() {
    let mut served = Served::start(&[(1, "same"), (2, "double")]);
    // A step ends as soon as it has answered a request.
    let steps: Vec<u32> = (50..=99).collect();
    let plan = json!({
        "target": 2, "steps": steps, "step_requests_min": 1, "step_seconds_min": 0, "guards": {"shift": {"factor": 1e6}},
    });
    let id = served.begin(&plan);
    let mut share = 0.0;
    for round in 0..4 {
        let mut client = served.client();
        let send = || drop(client.send(5, &row(1.0)));
        served.drive(&id, "it goes on", send, |rollout| rollout["share"].as_f64().unwrap() > share);
        // Anywhere between two ticks.
        std::thread::sleep(Duration::from_millis(fastrand::u64(..200)));
        served.restart("KILL");
        let rollout = served.rollout(&id);
        let now = rollout["share"].as_f64().unwrap();
        assert!(state(&rollout) == "running" && now > share, "round {round}: {rollout}");
        assert_eq!(served.weights(), [(1, 100.0 - now), (2, now)], "round {round}");
        let records = served.audit();
        let last = records.iter().find(|record| record["action"].as_str().unwrap().starts_with("rollout."));
        assert_eq!(last.unwrap()["to"]["arms"], served.read("route")["arms"], "round {round}");
        share = now;
    }
}

#[test]
fn only_requests_that_the_split_decided_count_and_those_of_clients_that_left_do_not() {
    let served = Served::start(&[(1, "same"), (2, "burns")]);
    served
        .put_route(&json!({
            "arms": [{"version": 1, "weight": 100}, {"version": 2, "weight": 0}],
            "rules": [{"header": "x-beta", "equals": "yes", "version": 2}],
        }))
        .expect(200);
    served.change("PUT", "labels/next", &json!({"version": 2})).expect(200);
    let id = served.begin(&json!({"target": 2, "steps": [99.99, 100], "step_seconds_min": 3600}));
    let mut client = served.client();
    for _ in 0..10 {
        for version in [1, 2] {
            assert_eq!(version_of(&client.ask_version(version, &row(1.0)).expect(200)), version);
        }
        assert_eq!(client.reply(&[("x-beta", "yes")], &row(1.0)), Reply { status: 200, version: 2 });
        let mut by_label = row(1.0);
        by_label["parameters"] = json!({"label": "next"});
        assert_eq!(client.reply(&[], &by_label), Reply { status: 200, version: 2 });
    }
    // This client leaves while its request runs.
    let cancelled = |page: &crate::support::metrics::Page| {
        page.sum("weir_requests_total", &[("outcome", "cancelled")]) >= 1.0
    };
    eventually("a request of a client that left reaches the new version", || {
        let mut leaving = served.weir.connect();
        leaving.send("POST", &infer_path(MODEL), &[], row(1500.0).to_string().as_bytes());
        let page = served.weir.page();
        let running = page.sum("weir_requests_in_flight", &[]) > 0.0;
        drop(leaving);
        running.then_some(())
    });
    served.weir.until("it is counted as cancelled", cancelled);
    client.send(3, &row(1.0));
    let requests =
        |rollout: &Value| count(rollout, "current", "requests") + count(rollout, "new", "requests");
    let rollout = eventually("they count", || Some(served.rollout(&id)).filter(|r| requests(r) > 2));
    assert_eq!((requests(&rollout), count(&rollout, "new", "errors")), (3, 0), "{rollout}");
}

fn user(client: &mut Client, user: usize, fourth: f32) -> Reply {
    client.reply(&[("x-user", &format!("user-{user}"))], &row(fourth))
}

#[test]
fn keys_keep_their_arm_while_the_share_grows_and_users_that_come_back_are_enough() {
    const USERS: usize = 150;
    let served = Served::start(&[(1, "same"), (2, "double")]);
    let sticky = json!({"arms": [{"version": 1, "weight": 1}], "sticky": "header:x-user"});
    served.put_route(&sticky).expect(200);
    let mut plan = quick(&[30.0, 60.0, 90.0, 100.0]);
    plan["step_requests_min"] = json!(50);
    let id = served.begin(&plan);
    let mut client = served.client();
    let mut arms = [1; USERS];
    // The same users again and again: no step but the first sees anybody new.
    let send = || {
        for (number, arm) in arms.iter_mut().enumerate() {
            let Reply { status, version } = user(&mut client, number, 1.0);
            assert_eq!(status, 200);
            assert!(*arm == version || version == 2, "user {number} went back from {arm} to {version}");
            *arm = version;
        }
    };
    let done = served.drive(&id, "it completes", send, |rollout| state(rollout) != "running");
    assert_eq!(state(&done), "completed", "{done}");
    assert_eq!(served.read("route")["sticky"], "header:x-user");
}

#[test]
fn a_user_counts_once_however_often_they_ask() {
    let served = Served::start(&[(1, "fails"), (2, "fails")]);
    let sticky = json!({"arms": [{"version": 1, "weight": 1}], "sticky": "header:x-user"});
    served.put_route(&sticky).expect(200);
    let id = served.begin(&watching(&json!({"errors": {}})));
    let mut client = served.client();
    let users = 40;
    for number in 0..users {
        // One in four fails, four times over.
        for _ in 0..4 {
            user(&mut client, number, if number % 4 == 0 { FATAL } else { 1.0 });
        }
    }
    let total = |rollout: &Value, what: &str| count(rollout, "current", what) + count(rollout, "new", what);
    let rollout =
        eventually("all are counted", || Some(served.rollout(&id)).filter(|r| total(r, "requests") == 160));
    assert_eq!(total(&rollout, "errors"), 10, "{rollout}");
}

#[test]
fn the_newest_rollouts_are_listed_and_older_ones_are_known_by_their_number() {
    let mut served = Served::start(&[(1, "same"), (2, "double")]);
    for n in 1..=102 {
        let id = served.begin(&json!({"target": 2}));
        assert_eq!(id, n.to_string());
        served.change("POST", &format!("rollouts/{id}/abort"), &json!({})).expect(200);
    }
    for _ in 0..2 {
        let listed = served.read("rollouts")["rollouts"].as_array().unwrap().clone();
        let ids: Vec<&str> = listed.iter().map(|rollout| rollout["id"].as_str().unwrap()).collect();
        let newest: Vec<String> = (3..=102).rev().map(|id: u64| id.to_string()).collect();
        assert_eq!(ids, newest);
        let first = served.read("rollouts/1");
        assert_eq!((state(&first), &first["id"]), ("aborted", &json!("1")), "{first}");
        served.change("POST", "rollouts/1/resume", &json!({})).error(409);
        served.restart("TERM");
    }
    assert_eq!(served.begin(&json!({"target": 2})), "103");
}
