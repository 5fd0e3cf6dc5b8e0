//! Model files that do harm while they are loaded, and files that change under a server: what was live stays.

use std::fs::OpenOptions;

use serde_json::json;

use super::{GOOD, whole, with_good};
use crate::support::control::versions;
use crate::support::onnx::{Graph, INT64};
use crate::support::repository::Repository;
use crate::support::tensors::{fp32, output0, tensor};
use crate::support::weir::Weir;
use crate::support::{eventually, project};

const MODEL_FILE: &str = "good/1/model.onnx";

fn watching(repository: &Repository) -> Weir {
    Weir::start(repository, &["--control", "watch", "--settle-seconds", "0", "--load-seconds-max", "1"])
}

/// Adds a version of [`GOOD`] and holds that it is refused for a reason, and the version before it stays.
#[track_caller]
fn is_refused_and_the_live_version_stays(file: Vec<u8>, reasons: &[&str]) {
    let repository = with_good();
    let weir = watching(&repository);
    repository.write("good/2/model.onnx", file);
    let reason = eventually("it is refused", || {
        let (_, _, reason) = versions(&weir, GOOD)
            .into_iter()
            .find(|(version, state, _)| *version == 2 && state == "UNAVAILABLE")?;
        Some(reason)
    });
    eprintln!("refused: {reason}");
    assert!(reasons.iter().any(|word| reason.contains(word)), "{reason}");
    let (_, state, _) = versions(&weir, GOOD).into_iter().find(|(version, ..)| *version == 1).unwrap();
    assert_eq!(state, "READY");
    whole(&weir);
}

#[test]
fn a_model_whose_constants_take_more_memory_than_a_load_may_harms_itself_alone() {
    // Constants are worked out at the load: here 16 GiB of them.
    let graph = Graph::default()
        .input("x", &[None])
        .output("y", &[None])
        .integers("shape", &[1], &[1 << 32])
        .node("ConstantOfShape", &["shape"], "all")
        .node("ReduceMax", &["all"], "largest")
        .node("Add", &["x", "largest"], "y");
    let repository = with_good();
    repository.write("large/1/model.onnx", graph.file());
    let weir = Weir::start(&repository, &[]);
    // ONNX Runtime leaves what it cannot work out to the requests, which are refused one by one.
    let reason = match weir.state("large") {
        (state, reason) if state == "UNAVAILABLE" => reason,
        _ => {
            let body = json!({"inputs": [tensor("x", "FP32", &[1], &json!([1.0]))]});
            weir.infer("large", &body).error(400)
        }
    };
    assert!(["memory", "ended"].iter().any(|word| reason.contains(word)), "{reason}");
    assert!(weir.resident_bytes() < 1 << 30, "{} bytes", weir.resident_bytes());
    whole(&weir);
}

#[test]
fn a_model_that_never_ends_loading_is_refused() {
    let graph = Graph::default().input("x", &[None]).output("y", &[None]).integers("n", &[], &[i64::MAX]);
    is_refused_and_the_live_version_stays(
        graph.negating_loop("n", "x", "y").file(),
        &["processor time", "too long", "did not come to an end"],
    );
}

#[test]
fn trees_of_any_depth_leave_the_server_standing() {
    let repository = with_good();
    // ONNX Runtime walks a tree by calls of calls: some of these the trial's stack holds, some it does not.
    let depths = [100, 1500, 3000, 5000, 20_000];
    for levels in depths {
        let graph = Graph::default().input("x", &[Some(1), Some(2)]).output("y", &[Some(1), Some(1)]);
        repository.write(&format!("tree{levels}/1/model.onnx"), graph.deep_tree(levels, "x", "y").file());
    }
    let weir = Weir::start(&repository, &[]);
    let states: Vec<_> = depths.iter().map(|levels| weir.state(&format!("tree{levels}"))).collect();
    assert_eq!(states[0].0, "READY", "{states:?}");
    assert_eq!(states[4].0, "UNAVAILABLE", "{states:?}");
    for (levels, _) in depths.iter().zip(&states).filter(|(_, (state, _))| state == "READY") {
        let body = json!({"inputs": [tensor("x", "FP32", &[1, 2], &json!([0.0, 0.0]))]});
        weir.infer(&format!("tree{levels}"), &body).expect(200);
    }
    whole(&weir);
}

#[test]
fn a_model_that_crashes_what_loads_it_is_refused() {
    let graph = Graph::default()
        .input_of(INT64, "x", &[None])
        .output_of(INT64, "y", &[None])
        .integers("least", &[1], &[i64::MIN])
        .integers("minus_one", &[1], &[-1])
        .node("Div", &["least", "minus_one"], "none")
        .node("Add", &["x", "none"], "y");
    is_refused_and_the_live_version_stays(graph.file(), &["it crashed"]);
}

/// The numbers that [`GOOD`] makes of 3 1 2 1.
fn answered(weir: &Weir) -> Vec<f32> {
    output0(weir.infer(GOOD, &fp32(&[1, 4], &[3.0, 1.0, 2.0, 1.0]))).1
}

#[test]
fn a_model_file_that_changes_under_a_server_leaves_it_serving_what_was_live() {
    let repository = Repository::new();
    repository
        .copy("tests/versions/same.onnx", MODEL_FILE)
        .copy("tests/versions/same.onnx", "other/1/model.onnx");
    // Served here and served by a worker.
    for config in ["", super::ISOLATED] {
        repository.copy("tests/versions/same.onnx", MODEL_FILE).write("good/config.pbtxt", config);
        let weir = watching(&repository);
        let live = answered(&weir);
        // In place, as a copy that fails half way leaves it.
        let file = OpenOptions::new().write(true).open(repository.path(MODEL_FILE)).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        drop(file);
        let told = eventually("the reason is told", || {
            assert_eq!(answered(&weir), live);
            let log = weir.errors();
            log.lines().find(|line| line.contains(GOOD) && line.contains("unavailable")).map(str::to_owned)
        });
        eprintln!("told: {told}");
        // To nothing, and to what is no model.
        for contents in [&b""[..], b"no model"] {
            std::fs::write(repository.path(MODEL_FILE), contents).unwrap();
            for _ in 0..30 {
                assert_eq!(answered(&weir), live);
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
        std::fs::copy(project("tests/versions/double.onnx"), repository.path(MODEL_FILE)).unwrap();
        eventually("the new file is served", || (answered(&weir) != live).then_some(()));
        weir.until("every request has one outcome", |page| {
            page.sum("weir_requests_total", &[]) == page.sum("weir_requests_received_total", &[])
        });
    }
}
