//! `--control explicit`: clients load and unload models through the inference protocol.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::control::{arms, control, eight, ready_versions, served_by, set_route};
use crate::support::http::Answer;
use crate::support::repository::Repository;
use crate::support::tensors::{output0, rows_of_four, simple};
use crate::support::weir::Weir;
use crate::support::{eventually, project};

const EXPLICIT: [&str; 2] = ["--control", "explicit"];

const LATEST: &str = "latest { num_versions: 1 }";

fn bundled(flags: &[&str]) -> Weir {
    Weir::start(project("models"), &[&EXPLICIT[..], flags].concat())
}

fn load(weir: &Weir, model: &str, parameters: &Value) -> Answer {
    weir.post(&format!("/v2/repository/models/{model}/load"), &json!({"parameters": parameters}))
}

fn unload(weir: &Weir, model: &str) -> Answer {
    weir.post(&format!("/v2/repository/models/{model}/unload"), &json!({}))
}

/// A file of the project as a client sends it.
fn file(path: &str) -> Value {
    json!(STANDARD.encode(std::fs::read(project(path)).unwrap()))
}

/// The config of a model that is sent: `digits` with this policy and batch size, without labels.
fn config(policy: &Value, max_batch_size: usize) -> String {
    json!({"name": "digits", "backend": "onnxruntime", "max_batch_size": max_batch_size, "version_policy": policy})
        .to_string()
}

#[test]
fn nothing_is_loaded_but_what_is_named() {
    let weir = bundled(&[]);
    weir.get("/v2/health/ready").expect(200);
    let states: Vec<_> =
        weir.index().into_iter().map(|[name, _, state, reason]| (name, state, reason)).collect();
    assert_eq!(states.len(), 4, "{states:?}");
    assert!(states.iter().all(|(_, state, reason)| state == "UNAVAILABLE" && reason == "not loaded"));
    weir.infer("simple", &simple(1)).error(404);
    let named = bundled(&["--load", "simple"]);
    named.infer("simple", &simple(1)).expect(200);
    assert!(ready_versions(&named, "digits").is_empty());
    let all = bundled(&["--load", "*"]);
    assert_eq!(all.index().iter().filter(|[_, _, state, _]| state == "READY").count(), 6);
}

#[test]
fn models_are_loaded_and_unloaded_and_a_restart_finds_them_so() {
    let state = tempfile::tempdir().unwrap();
    let flags = ["--state", state.path().to_str().unwrap()];
    let mut weir = bundled(&flags);
    assert_eq!(load(&weir, "digits", &json!({})).expect(200).body, b"");
    assert_eq!(ready_versions(&weir, "digits"), [1, 2, 3]);
    load(&weir, "simple", &json!({})).expect(200);
    load(&weir, "tickets", &json!({})).expect(200);
    unload(&weir, "tickets").expect(200);
    eventually("it is gone", || {
        (weir.state("tickets") == ("UNAVAILABLE".to_owned(), "unloaded".to_owned())).then_some(())
    });
    load(&weir, "nosuch", &json!({})).error(404);
    assert!(weir.index().iter().all(|[name, ..]| name != "nosuch"));
    weir.signal("TERM");
    assert_eq!(weir.exit_code(crate::support::PATIENCE), Some(0));
    drop(weir);
    let weir = bundled(&flags);
    assert_eq!(ready_versions(&weir, "digits"), [1, 2, 3]);
    weir.infer("simple", &simple(1)).expect(200);
    assert_eq!(weir.state("tickets").0, "UNAVAILABLE");
    assert_eq!(weir.state("breast_cancer").1, "not loaded");
}

#[test]
fn requests_in_flight_are_answered_when_their_model_is_unloaded() {
    let repository = Repository::new();
    repository.slow(10, "max_batch_size: 1");
    let weir = Weir::start(&repository, &[&EXPLICIT[..], &["--load", "slow"]].concat());
    let asked: Vec<_> = (0..3).map(|_| weir.ask("slow", &rows_of_four(1))).collect();
    weir.until("they arrive", |page| page.sum("weir_requests_received_total", &[]) == 3.0);
    unload(&weir, "slow").expect(200);
    let refused = weir.infer("slow", &rows_of_four(1));
    assert!(matches!(refused.status, 404 | 503), "{}", refused.text());
    for mut connection in asked {
        output0(connection.receive().expect("it is answered"));
    }
    eventually("it is gone", || (weir.state("slow").1 == "unloaded").then_some(()));
    weir.infer("slow", &rows_of_four(1)).error(404);
    load(&weir, "slow", &json!({})).expect(200);
    output0(weir.infer("slow", &rows_of_four(1)));
}

#[test]
fn a_load_that_fails_leaves_what_was_live() {
    let repository = Repository::new();
    repository.digits(&[1], LATEST);
    let weir = Weir::start(&repository, &[&EXPLICIT[..], &["--load", "digits"]].concat());
    let unharmed = || {
        assert_eq!(ready_versions(&weir, "digits"), [1]);
        assert_eq!(served_by(weir.infer("digits", &eight())), 1);
    };
    repository.write("digits/2/model.onnx", "no model");
    let refusal = load(&weir, "digits", &json!({})).error(400);
    assert!(refusal.contains("failed to load 'digits', version 2"), "{refusal}");
    unharmed();
    repository.remove("digits/2").write("digits/1/model.onnx", "no model");
    load(&weir, "digits", &json!({})).error(400);
    unharmed();
    for (parameters, part) in [
        (json!({"config": "{\"max_batchsize\": 1}"}), "max_batchsize"),
        (json!({"config": "{"}), "config"),
        (json!({"file:1/model.onnx": file("models/digits/2/model.onnx")}), "config"),
        (json!({"config": "{}", "file:../x": "AAAA"}), "inside the model's folder"),
        (json!({"config": "{}", "file:1/model.onnx": "AAAA"}), "not an ONNX model"),
        (json!({"config": "{}", "file:1/model.onnx": "?"}), "base64"),
        (json!({"confg": "{}"}), "confg"),
    ] {
        let refusal = load(&weir, "digits", &parameters).error(400);
        assert!(refusal.contains(part), "{parameters}: {refusal}");
        unharmed();
    }
    repository.digits_version(1).digits_version(2);
    load(&weir, "digits", &json!({})).expect(200);
    assert_eq!(ready_versions(&weir, "digits"), [2]);
}

#[test]
fn a_config_and_files_that_were_sent_are_served_and_survive_a_restart() {
    let state = tempfile::tempdir().unwrap();
    let flags = ["--state", state.path().to_str().unwrap()];
    let batch =
        |weir: &Weir| weir.get("/v2/models/digits/config").expect(200).json()["max_batch_size"].clone();
    let only_two = json!({"specific": {"versions": [2]}});
    let check = |weir: &Weir| {
        assert_eq!(ready_versions(weir, "digits"), [2]);
        assert_eq!((served_by(weir.infer("digits", &eight())), batch(weir)), (2, json!(16)));
        // A model that the repository does not have.
        let label = weir.infer("sent", &eight()).expect(200).json();
        assert_eq!((&label["outputs"][0]["data"][0], &label["model_version"]), (&json!(8), &json!("7")));
    };
    let mut weir = bundled(&flags);
    load(&weir, "digits", &json!({"config": config(&only_two, 16)})).expect(200);
    let sent =
        json!({"config": "{\"max_batch_size\": 4}", "file:7/model.onnx": file("models/digits/3/model.onnx")});
    load(&weir, "sent", &sent).expect(200);
    check(&weir);
    weir.signal("KILL");
    assert_eq!(weir.exit_code(crate::support::PATIENCE), None);
    drop(weir);
    let weir = bundled(&flags);
    check(&weir);
    // Without anything it is the repository's again.
    load(&weir, "digits", &json!({})).expect(200);
    assert_eq!((ready_versions(&weir, "digits"), batch(&weir)), (vec![1, 2, 3], json!(64)));
    unload(&weir, "sent").expect(200);
    eventually("it is gone", || ready_versions(&weir, "sent").is_empty().then_some(()));
    let uploads = std::fs::read_dir(state.path().join("uploads/sent")).into_iter().flatten();
    assert_eq!(uploads.count(), 0, "what was sent goes with the model");
    load(&weir, "sent", &json!({})).error(404);
}

#[test]
fn loads_of_one_model_at_once_take_turns() {
    let weir = bundled(&[]);
    let sent = |version: u64| {
        let name = format!("file:{version}/model.onnx");
        json!({"config": "{}", name: file(&format!("models/digits/{version}/model.onnx"))})
    };
    std::thread::scope(|scope| {
        for round in 0..6 {
            let (mut connection, parameters) = (weir.connect(), sent(1 + round % 3));
            scope.spawn(move || {
                let body = json!({"parameters": parameters}).to_string();
                connection.ask("POST", "/v2/repository/models/sent/load", &[], body.as_bytes()).expect(200);
            });
        }
    });
    let ready = ready_versions(&weir, "sent");
    assert_eq!(ready.len(), 1, "{ready:?}");
    assert_eq!(served_by(weir.infer("sent", &eight())), ready[0]);
}

#[test]
fn an_unload_takes_the_route_and_the_labels_along() {
    let weir = bundled(&["--load", "digits"]);
    set_route(&weir, "digits", &arms(&[(1, 1.0)]));
    control(&weir, "PUT", "models/digits/labels/stable", &json!({"version": 2})).expect(200);
    unload(&weir, "digits").expect(200);
    eventually("it is gone", || ready_versions(&weir, "digits").is_empty().then_some(()));
    load(&weir, "digits", &json!({})).expect(200);
    assert_eq!(served_by(weir.infer("digits", &eight())), 3);
    let refusal = weir.post("/v2/models/digits/versions/stable/infer", &eight()).error(404);
    assert!(refusal.contains("no label"), "{refusal}");
}

#[test]
fn what_a_route_names_is_loaded_without_a_client_and_again_after_a_restart() {
    let state = tempfile::tempdir().unwrap();
    let flags = ["--state", state.path().to_str().unwrap()];
    let mut weir = bundled(&flags);
    set_route(&weir, "digits", &arms(&[(2, 1.0)]));
    assert_eq!(served_by(weir.infer("digits", &eight())), 2);
    weir.signal("KILL");
    assert_eq!(weir.exit_code(crate::support::PATIENCE), None);
    drop(weir);
    let weir = bundled(&flags);
    assert_eq!(ready_versions(&weir, "digits"), [2]);
    assert_eq!(served_by(weir.infer("digits", &eight())), 2);
}

#[test]
fn where_clients_may_not_load_they_are_told_so_in_tritons_words() {
    for flags in [&[][..], &["--control", "watch"]] {
        let weir = Weir::start(project("models"), flags);
        for answer in [load(&weir, "simple", &json!({})), unload(&weir, "simple")] {
            let refusal = answer.error(503);
            assert!(refusal.starts_with("explicit model load / unload is not allowed"), "{refusal}");
        }
        weir.infer("simple", &simple(1)).expect(200);
    }
}
