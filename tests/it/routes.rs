//! Who gets which version: shares, sticky keys, rules, pins and labels, and how a route is changed.

use serde_json::{Value, json};

use crate::support::control::{
    arms, ask_digits, conditionally, control, eight, record, route, served_by, set_route,
};
use crate::support::project;
use crate::support::tensors::with_parameter;
use crate::support::weir::{Weir, infer_path};

fn start() -> Weir {
    Weir::start(project("models"), &[])
}

/// How many of `requests` requests each version of `digits` answered, by version.
fn spread(weir: &Weir, requests: usize) -> [usize; 4] {
    let mut connection = weir.connect();
    let mut counts = [0; 4];
    for _ in 0..requests {
        counts[ask_digits(&mut connection, &[]) as usize] += 1;
    }
    counts
}

/// The version that each of 40 users gets.
fn versions_of_users(weir: &Weir) -> Vec<u64> {
    let mut connection = weir.connect();
    (0..40).map(|user| ask_digits(&mut connection, &[("x-user-id", &format!("user-{user}"))])).collect()
}

/// Why the version answered that did.
#[track_caller]
fn reason(weir: &Weir, path: &str, headers: &[(&str, &str)], body: &Value) -> (u64, String) {
    let answer = weir.connect().ask("POST", path, headers, body.to_string().as_bytes());
    let reason = answer.header("weir-route").expect("the answer says why").to_owned();
    (served_by(answer), reason)
}

#[test]
fn shares_are_exact_at_nothing_and_all_and_binomial_between() {
    let weir = start();
    set_route(&weir, "digits", &arms(&[(1, 0.0), (2, 100.0)]));
    assert_eq!(spread(&weir, 300), [0, 0, 300, 0]);
    set_route(&weir, "digits", &arms(&[(1, 3.0), (2, 1.0)]));
    let [_, first, second, third] = spread(&weir, 2000);
    // Five standard deviations: one run in two million lies outside.
    let spread = 5.0 * (2000.0f64 * 0.25 * 0.75).sqrt();
    assert!((second as f64 - 500.0).abs() < spread, "{first} to {second}");
    assert_eq!(third, 0);
}

#[test]
fn a_sticky_key_gets_the_same_arm_on_two_servers_and_after_a_restart() {
    let state = tempfile::tempdir().unwrap();
    let flags = ["--state", state.path().to_str().unwrap()];
    let mut split = arms(&[(1, 50.0), (2, 30.0), (3, 20.0)]);
    split["sticky"] = json!("header:x-user-id");
    let other = start();
    set_route(&other, "digits", &split);
    let (before, revision) = {
        let mut weir = Weir::start(project("models"), &flags);
        set_route(&weir, "digits", &split);
        let before = versions_of_users(&weir);
        let revision = route(&weir, "digits")["revision"].clone();
        weir.signal("TERM");
        assert_eq!(weir.exit_code(crate::support::PATIENCE), Some(0));
        (before, revision)
    };
    assert_eq!(before, versions_of_users(&other));
    assert!([1, 2, 3].iter().all(|version| before.contains(version)), "{before:?}");
    let weir = Weir::start(project("models"), &flags);
    assert_eq!(before, versions_of_users(&weir));
    assert_eq!(route(&weir, "digits")["revision"], revision);
    // More for one arm moves nobody between the others.
    let mut grown = arms(&[(1, 50.0), (2, 30.0), (3, 80.0)]);
    grown["sticky"] = json!("header:x-user-id");
    set_route(&weir, "digits", &grown);
    for (was, is) in before.iter().zip(versions_of_users(&weir)) {
        assert!(*was == is || is == 3, "from {was} to {is}");
    }
}

#[test]
fn parameters_and_request_ids_are_sticky_too() {
    let weir = start();
    for sticky in ["parameter:user", "request_id"] {
        let mut split = arms(&[(1, 50.0), (2, 50.0)]);
        split["sticky"] = json!(sticky);
        set_route(&weir, "digits", &split);
        let ask = |user: usize| {
            let mut body = with_parameter(eight(), "user", format!("user-{user}"));
            body["id"] = json!(format!("user-{user}"));
            reason(&weir, &infer_path("digits"), &[], &body)
        };
        let once: Vec<_> = (0..20).map(ask).collect();
        let again: Vec<_> = (0..20).map(ask).collect();
        assert_eq!(once, again, "{sticky}");
        assert!(once.iter().all(|(_, reason)| reason == "sticky"), "{sticky}: {once:?}");
        assert!(once.iter().any(|(v, _)| *v == 1) && once.iter().any(|(v, _)| *v == 2), "{sticky}: {once:?}");
        // Without the key it is a draw.
        assert_eq!(reason(&weir, &infer_path("digits"), &[], &eight()).1, "weighted");
    }
}

#[test]
fn the_answer_tells_why_its_version_answered() {
    let weir = start();
    let plain = infer_path("digits");
    assert_eq!(reason(&weir, &plain, &[], &eight()), (3, "latest".to_owned()));
    let mut ruled = arms(&[(1, 100.0), (2, 0.0)]);
    ruled["rules"] = json!([{"header": "X-Tier", "equals": "gold", "version": 2}]);
    set_route(&weir, "digits", &ruled);
    control(&weir, "PUT", "models/digits/labels/canary", &json!({"version": 3})).expect(200);
    let labelled = with_parameter(eight(), "label", "canary");
    let pinned = "/v2/models/digits/versions/3/infer";
    for (path, headers, body, expected) in [
        (plain.as_str(), &[][..], &eight(), (1, "weighted")),
        (&plain, &[("x-tier", "gold")], &eight(), (2, "rule")),
        (&plain, &[("x-tier", "silver")], &eight(), (1, "weighted")),
        // What the request names wins over rules and weights.
        (pinned, &[("x-tier", "gold")], &eight(), (3, "pinned")),
        (&plain, &[("x-tier", "gold")], &labelled, (3, "label")),
        ("/v2/models/digits/versions/canary/infer", &[], &eight(), (3, "label")),
    ] {
        let (version, reason) = reason(&weir, path, headers, body);
        assert_eq!((version, reason.as_str()), expected, "{path} {headers:?}");
    }
}

#[test]
fn labels_that_nobody_gave_are_not_found_and_two_names_at_once_are_refused() {
    let weir = start();
    control(&weir, "PUT", "models/digits/labels/stable", &json!({"version": 2})).expect(200);
    let by_path = "/v2/models/digits/versions/stable";
    assert_eq!(weir.get(by_path).expect(200).json()["versions"], json!(["2"]));
    weir.get(&format!("{by_path}/ready")).expect(200);
    let refusal = weir.post("/v2/models/digits/versions/nosuch/infer", &eight()).error(404);
    assert!(refusal.contains("no label"), "{refusal}");
    let refusal = weir.infer("digits", &with_parameter(eight(), "label", "nosuch")).error(404);
    assert!(refusal.contains("'nosuch'"), "{refusal}");
    let both = weir.post("/v2/models/digits/versions/1/infer", &with_parameter(eight(), "label", "stable"));
    assert!(both.error(400).contains("name one of them"));
    // A label moves, and goes.
    control(&weir, "PUT", "models/digits/labels/stable", &json!({"version": 1})).expect(200);
    assert_eq!(served_by(weir.post(&format!("{by_path}/infer"), &eight())), 1);
    let left = control(&weir, "DELETE", "models/digits/labels/stable", &Value::Null).expect(200);
    assert_eq!(left.json()["labels"], json!({}));
    weir.post(&format!("{by_path}/infer"), &eight()).error(404);
    control(&weir, "DELETE", "models/digits/labels/stable", &Value::Null).error(404);
    control(&weir, "PUT", "models/digits/labels/stable", &json!({"version": 9})).error(404);
    control(&weir, "PUT", "models/digits/labels/7", &json!({"version": 1})).error(400);
}

#[test]
fn a_change_of_another_revision_than_the_current_one_is_refused() {
    let weir = start();
    let path = "models/digits/route";
    let tag = |answer: &crate::support::http::Answer| answer.header("etag").expect("a tag").to_owned();
    let none = control(&weir, "GET", path, &Value::Null).expect(200);
    assert_eq!((tag(&none), none.json()["owner"].clone()), ("\"0\"".to_owned(), json!("latest")));
    let first = conditionally(&weir, "PUT", path, &[("if-match", "\"0\"")], &arms(&[(1, 1.0)])).expect(200);
    assert_eq!(tag(&first), "\"1\"");
    let stale = conditionally(&weir, "PUT", path, &[("if-match", "\"0\"")], &arms(&[(2, 1.0)])).error(412);
    assert!(stale.contains("revision 1"), "{stale}");
    assert_eq!(served_by(weir.infer("digits", &eight())), 1);
    // A route that was read, changed and sent back carries its revision itself.
    let mut read = route(&weir, "digits");
    read["arms"] = arms(&[(2, 1.0)])["arms"].clone();
    assert_eq!(set_route(&weir, "digits", &read)["revision"], 2);
    control(&weir, "PUT", path, &read).error(412);
    conditionally(&weir, "PUT", path, &[("if-match", "\"2\"")], &read).error(400);
    for malformed in ["2", "W/\"2\"", "\"x\"", "\"1\", \"2\""] {
        conditionally(&weir, "PUT", path, &[("if-match", malformed)], &arms(&[(3, 1.0)])).error(400);
    }
    conditionally(&weir, "DELETE", path, &[("if-match", "\"1\"")], &Value::Null).error(412);
    conditionally(&weir, "POST", "models/digits/rollback", &[("if-match", "\"1\"")], &Value::Null).error(412);
    conditionally(&weir, "DELETE", path, &[("if-match", "\"2\"")], &Value::Null).expect(200);
    assert_eq!(served_by(weir.infer("digits", &eight())), 3);
}

#[test]
fn a_body_that_is_no_route_is_refused_and_changes_nothing() {
    let weir = start();
    set_route(&weir, "digits", &arms(&[(1, 1.0)]));
    let before = (route(&weir, "digits"), record(&weir));
    let mut sticky = arms(&[(1, 1.0)]);
    sticky["sticky"] = json!("cookie:x");
    let mut shadow = arms(&[(1, 1.0)]);
    shadow["shadows"] = json!([{"version": 2, "share": 1.5}]);
    let mut rule = arms(&[(1, 1.0)]);
    rule["rules"] = json!([{"header": "a", "equals": "b", "version": 2}]);
    let mut other = arms(&[(2, 1.0)]);
    other["model"] = json!("simple");
    for (body, part) in [
        (json!({}), "needs an arm"),
        (json!([]), "object"),
        (arms(&[(0, 1.0)]), "versions are numbers from 1"),
        (arms(&[(1, -1.0)]), "0 or more"),
        (arms(&[(1, 0.0)]), "more than 0"),
        (arms(&[(1, 1.0), (1, 1.0)]), "twice"),
        (json!({"arms": [{"version": "1", "weight": 1}]}), "expected u64"),
        (json!({"arms": [{"version": 1, "wait": 1}]}), "wait"),
        (json!({"arm": []}), "arm"),
        (sticky, "sticky"),
        (shadow, "between 0 and 1"),
        (rule, "no arm"),
        (other, "model"),
    ] {
        let refusal = control(&weir, "PUT", "models/digits/route", &body).error(400);
        assert!(refusal.contains(part), "{body}: {refusal}");
    }
    weir.connect().ask("PUT", "/control/v1/models/digits/route", &[], b"{\"arms\":").error(400);
    weir.connect().ask("PUT", "/control/v1/models/digits/route", &[], b"").error(400);
    control(&weir, "PUT", "models/nosuch/route", &arms(&[(1, 1.0)])).error(404);
    control(&weir, "GET", "models/nosuch/route", &Value::Null).error(404);
    control(&weir, "DELETE", "models/nosuch/route", &Value::Null).error(404);
    control(&weir, "POST", "models/digits/route", &Value::Null).error(405);
    assert_eq!((route(&weir, "digits"), record(&weir)), before);
}

#[test]
fn a_model_takes_so_many_labels_and_no_more() {
    let weir = start();
    let label =
        |name: &str| control(&weir, "PUT", &format!("models/digits/labels/{name}"), &json!({"version": 1}));
    for n in 0..256 {
        label(&format!("l{n}")).expect(200);
    }
    let refusal = label("another").error(400);
    assert!(refusal.contains("'another' is one label too many: a model takes 256"), "{refusal}");
    label("l7").expect(200);
    control(&weir, "DELETE", "models/digits/labels/l7", &Value::Null).expect(200);
    label("another").expect(200);
}

#[test]
fn rollback_returns_step_by_step_to_what_was_live_before() {
    let weir = start();
    let rollback = || control(&weir, "POST", "models/digits/rollback", &Value::Null);
    assert!(rollback().error(409).contains("nothing else was live"));
    for version in [1, 2] {
        set_route(&weir, "digits", &arms(&[(version, 1.0)]));
    }
    assert_eq!(served_by(weir.infer("digits", &eight())), 2);
    rollback().expect(200);
    assert_eq!(served_by(weir.infer("digits", &eight())), 1);
    // Before the first route the highest version had everything.
    rollback().expect(200);
    assert_eq!(served_by(weir.infer("digits", &eight())), 3);
    assert!(rollback().error(409).contains("nothing else was live"));
}

#[test]
fn who_changed_what_is_on_the_record() {
    let weir = start();
    let headers = [("weir-actor", "alice")];
    conditionally(&weir, "PUT", "models/digits/route", &headers, &arms(&[(1, 1.0)])).expect(200);
    let label = json!({"version": 1, "actor": "bob"});
    control(&weir, "PUT", "models/digits/labels/stable", &label).expect(200);
    control(&weir, "DELETE", "models/digits/route", &Value::Null).expect(200);
    let changes: Vec<_> =
        record(&weir).into_iter().filter(|(action, _)| action != "load" && action != "start").collect();
    let told: Vec<(&str, &str)> = changes
        .iter()
        .map(|(action, actor)| (action.as_str(), actor.split(" from ").next().unwrap_or_default()))
        .collect();
    assert_eq!(told, [("route", "alice"), ("label", "bob"), ("route.clear", "unnamed")]);
    assert!(changes.iter().all(|(_, actor)| actor.contains(" from 127.0.0.1:")), "{changes:?}");
}
