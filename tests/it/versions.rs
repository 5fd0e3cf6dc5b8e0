//! Single versions: loaded and unloaded by the control API, for a route, and where that API answers.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::control::{
    arms, ask_digits, control, eight, ready_versions, record, route, served_by, set_route, versions,
};
use crate::support::eventually;
use crate::support::http::Connection;
use crate::support::project;
use crate::support::repository::Repository;
use crate::support::tensors::{output0, rows_of_four};
use crate::support::weir::Weir;

const LATEST: &str = "latest { num_versions: 1 }";

/// A repository of which version 1 is served, and the server that does.
fn one_version() -> (Repository, Weir) {
    let repository = Repository::new();
    repository.digits(&[1], LATEST);
    let weir = Weir::start(&repository, &[]);
    (repository, weir)
}

fn change(weir: &Weir, version: u64, verb: &str) -> crate::support::http::Answer {
    control(weir, "POST", &format!("models/digits/versions/{version}/{verb}"), &Value::Null)
}

#[test]
fn a_version_is_loaded_and_unloaded_by_its_number() {
    let (repository, weir) = one_version();
    change(&weir, 2, "load").error(404);
    repository.digits_version(2);
    let status = change(&weir, 2, "load").expect(200).json();
    assert_eq!((&status["version"], &status["state"]), (&json!(2), &json!("READY")));
    assert_eq!(status["digest"].as_str().map(str::len), Some(64));
    assert_eq!(served_by(weir.infer("digits", &eight())), 2);
    change(&weir, 2, "unload").expect(200);
    eventually("version 2 is gone", || {
        (versions(&weir, "digits")[1] == (2, "UNAVAILABLE".to_owned(), "unloaded".to_owned())).then_some(())
    });
    assert_eq!(served_by(weir.infer("digits", &eight())), 1);
    weir.post("/v2/models/digits/versions/2/infer", &eight()).error(404);
    change(&weir, 2, "unload").error(404);
    change(&weir, 9, "unload").error(404);
    control(&weir, "POST", "models/nosuch/versions/1/load", &Value::Null).error(404);
    let told: Vec<String> = record(&weir).into_iter().map(|(action, _)| action).collect();
    assert_eq!(told, ["load", "load", "unload"]);
}

#[test]
fn what_was_loaded_and_unloaded_by_hand_is_so_after_a_restart() {
    let repository = Repository::new();
    repository.digits(&[1, 2, 3], LATEST);
    let state = tempfile::tempdir().unwrap();
    let flags = ["--state", state.path().to_str().unwrap()];
    let mut weir = Weir::start(&repository, &flags);
    change(&weir, 1, "load").expect(200);
    change(&weir, 3, "unload").expect(200);
    weir.signal("KILL");
    assert_eq!(weir.exit_code(crate::support::PATIENCE), None);
    drop(weir);
    let weir = Weir::start(&repository, &flags);
    assert_eq!(ready_versions(&weir, "digits"), [1]);
}

#[test]
fn a_load_that_fails_leaves_what_was_live() {
    let (repository, weir) = one_version();
    repository.write("digits/1/model.onnx", "no model").write("digits/2/model.onnx", "no model");
    for version in [1, 2] {
        let refusal = change(&weir, version, "load").error(400);
        assert!(refusal.contains("not an ONNX model"), "{refusal}");
        assert_eq!(served_by(weir.infer("digits", &eight())), 1);
    }
    assert_eq!(ready_versions(&weir, "digits"), [1]);
    let [_, (_, state, reason)] = &versions(&weir, "digits")[..] else { panic!("two versions are known") };
    assert!(state == "UNAVAILABLE" && reason.contains("not an ONNX model"), "{state}: {reason}");
}

#[test]
fn a_route_loads_the_versions_that_it_names() {
    let (repository, weir) = one_version();
    repository.digits_version(2).digits_version(3);
    let mut split = arms(&[(1, 1.0), (2, 1.0)]);
    split["shadows"] = json!([{"version": 3, "share": 1.0}]);
    set_route(&weir, "digits", &split);
    assert_eq!(ready_versions(&weir, "digits"), [1, 2, 3]);
    for version in [1, 2, 3] {
        let refusal = change(&weir, version, "unload").error(409);
        assert!(refusal.contains("in use"), "{refusal}");
    }
    set_route(&weir, "digits", &arms(&[(1, 1.0)]));
    change(&weir, 2, "unload").expect(200);
    control(&weir, "PUT", "models/digits/labels/next", &json!({"version": 3})).expect(200);
    change(&weir, 3, "unload").error(409);
}

/// Regression: between the load of an arm and the change of the route, the arm answered every request.
#[test]
fn a_version_that_is_loaded_for_a_route_answers_nothing_before_it() {
    let (repository, weir) = one_version();
    repository.digits_version(2).digits_version(3);
    let stop = AtomicBool::new(false);
    let (stop, http) = (&stop, weir.http);
    std::thread::scope(|scope| {
        let client = scope.spawn(move || {
            let mut connection = Connection::open(http);
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(ask_digits(&mut connection, &[]), 1);
            }
        });
        let mut canary = arms(&[(1, 100.0), (2, 0.0)]);
        canary["shadows"] = json!([{"version": 3, "share": 0.5}]);
        set_route(&weir, "digits", &canary);
        stop.store(true, Ordering::Relaxed);
        client.join().expect("version 1 answers alone");
    });
}

#[test]
fn a_route_or_label_that_cannot_be_brought_about_changes_nothing() {
    let (repository, weir) = one_version();
    repository.digits_version(2).write("digits/3/model.onnx", "no model");
    for (body, status) in [(arms(&[(2, 1.0), (3, 1.0)]), 400), (arms(&[(2, 1.0), (9, 1.0)]), 404)] {
        control(&weir, "PUT", "models/digits/route", &body).error(status);
        assert_eq!(served_by(weir.infer("digits", &eight())), 1);
        let stands = route(&weir, "digits");
        assert_eq!((&stands["owner"], &stands["revision"]), (&json!("latest"), &json!(0)));
        eventually("what was loaded for it is let go", || {
            (ready_versions(&weir, "digits") == [1]).then_some(())
        });
    }
    control(&weir, "PUT", "models/digits/labels/canary", &json!({"version": 3})).error(400);
    weir.post("/v2/models/digits/versions/canary/infer", &eight()).error(404);
}

#[test]
fn a_version_that_is_loaded_for_a_label_answers_those_alone_who_name_it() {
    let repository = Repository::new();
    repository.digits(&[1, 2], "specific { versions: 1 }");
    let state = tempfile::tempdir().unwrap();
    let flags = ["--state", state.path().to_str().unwrap()];
    let mut weir = Weir::start(&repository, &flags);
    control(&weir, "PUT", "models/digits/labels/canary", &json!({"version": 2})).expect(200);
    assert_eq!(served_by(weir.post("/v2/models/digits/versions/canary/infer", &eight())), 2);
    assert_eq!(served_by(weir.infer("digits", &eight())), 1);
    assert_eq!(route(&weir, "digits")["arms"], arms(&[(1, 100.0)])["arms"]);
    weir.signal("TERM");
    assert_eq!(weir.exit_code(crate::support::PATIENCE), Some(0));
    drop(weir);
    let weir = Weir::start(&repository, &flags);
    assert_eq!(served_by(weir.post("/v2/models/digits/versions/canary/infer", &eight())), 2);
    assert_eq!(served_by(weir.infer("digits", &eight())), 1);
    // By an operator's word it is as any other.
    change(&weir, 2, "load").expect(200);
    assert_eq!(served_by(weir.infer("digits", &eight())), 2);
}

#[test]
fn requests_in_flight_are_answered_when_their_version_is_unloaded() {
    let repository = Repository::new();
    repository.slow(10, "max_batch_size: 1");
    let weir = Weir::start(&repository, &[]);
    let asked: Vec<_> = (0..3).map(|_| weir.ask("slow", &rows_of_four(1))).collect();
    weir.until("they arrive", |page| page.sum("weir_requests_received_total", &[]) == 3.0);
    let status = control(&weir, "POST", "models/slow/versions/1/unload", &Value::Null).expect(200).json();
    assert_eq!(status["state"], "UNLOADING");
    for mut connection in asked {
        output0(connection.receive().expect("it is answered"));
    }
    eventually("it is gone", || (weir.state("slow").1 == "unloaded").then_some(()));
    // Its series end with it, but for the sum of outcomes.
    let page = weir.page();
    assert_eq!(page.sum("weir_rows_total", &[("model", "slow")]), 0.0);
    assert_eq!(page.sum("weir_requests_total", &[("outcome", "ok")]), 3.0);
}

#[test]
fn a_control_port_of_its_own_has_the_control_api_alone_and_nobody_else_has_it() {
    let mut weir = Weir::begin(project("models"), &["--control", "127.0.0.1:0", "--control", "explicit"]);
    let address = weir.line("control").parse().expect("an address");
    weir.ready();
    let ask = |method: &str, path: &str| Connection::open(address).ask(method, path, &[], b"");
    assert_eq!(ask("GET", "/control/v1/models").expect(200).json()["models"].as_array().unwrap().len(), 4);
    ask("POST", "/control/v1/models/digits/versions/2/load").expect(200);
    assert_eq!(ready_versions(&weir, "digits"), [2]);
    for (method, path) in [("GET", "/v2"), ("POST", "/v2/repository/index"), ("GET", "/metrics")] {
        ask(method, path).error(404);
    }
    for path in ["/control/v1/models", "/control/v1/audit", "/control/v1/nosuch"] {
        weir.get(path).error(404);
    }
    // The inference protocol's own calls stay where its clients look for them.
    weir.post("/v2/repository/models/simple/load", &json!({})).expect(200);
}
