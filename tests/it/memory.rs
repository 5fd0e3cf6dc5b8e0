//! What a replaced version leaves behind.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::onnx::Graph;
use crate::support::repository::Repository;
use crate::support::tensors::{output0, rows_of_four};
use crate::support::weir::Weir;

/// Width of the one large matrix: 20 MB.
const WIDTH: u64 = 2236;

/// After so many swaps the process is as large as it needs to be.
const WARM_AFTER: usize = 5;

/// By how much the process may have grown since, as a factor: swaps that leave something behind each would show at
/// once, 25 times 20 MB are several times the process.
const GROWTH_MAX: f64 = 1.10;

/// A model of 20 MB that answers every row with its version, four times.
fn large(version: u64) -> Vec<u8> {
    let rows = |width| [None, Some(width)];
    let quarter = vec![0.25; 16];
    Graph::default()
        .input("INPUT0", &rows(4))
        .output("OUTPUT0", &rows(4))
        .layers("INPUT0", &[4, WIDTH, WIDTH, 4], "random", version)
        .constant("zero", &[1], &[0.0])
        .constant("version", &[1], &[version as f32])
        .constant("quarter", &[4, 4], &quarter)
        .node("Mul", &["random", "zero"], "nothing")
        .node("Add", &["nothing", "version"], "four")
        .node("MatMul", &["four", "quarter"], "OUTPUT0")
        .file()
}

fn control(weir: &Weir, method: &str, path: &str, body: &str) -> Value {
    let path = format!("/control/v1/models/large/{path}");
    weir.connect().ask(method, &path, &[], body.as_bytes()).expect(200).json()
}

/// Loads a version, gives it everything, unloads the other one, and waits until that one is gone.
fn swap_to(weir: &Weir, version: u64) {
    control(weir, "POST", &format!("versions/{version}/load"), "");
    control(weir, "PUT", "route", &json!({"arms": [{"version": version, "weight": 1}]}).to_string());
    let unloaded = 3 - version;
    control(weir, "POST", &format!("versions/{unloaded}/unload"), "");
    eventually("the other version is gone", || {
        let model = weir.get("/control/v1/models/large").expect(200).json();
        let versions = model["versions"].as_array().cloned().unwrap_or_default();
        let gone = |v: &Value| v["version"] == unloaded && v["state"] == "UNAVAILABLE";
        versions.iter().any(gone).then_some(())
    });
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "the size of a process is read from /proc")]
fn inv_07_after_many_swaps_under_load_the_process_is_as_large_as_after_five() {
    let repository = Repository::new();
    for version in [1, 2] {
        repository.write(&format!("large/{version}/model.onnx"), large(version));
    }
    let weir = Weir::start(&repository, &[]);
    control(&weir, "PUT", "route", &json!({"arms": [{"version": 2, "weight": 1}]}).to_string());
    let done = AtomicBool::new(false);
    let mut sizes = Vec::new();
    std::thread::scope(|scope| {
        let mut connection = weir.connect();
        let done = &done;
        let load = scope.spawn(move || {
            let body = rows_of_four(1).to_string();
            let mut answers = 0;
            while !done.load(Ordering::Relaxed) {
                let answer = connection.ask("POST", "/v2/models/large/infer", &[], body.as_bytes());
                let served = output0(answer).1[0];
                assert!(served == 1.0 || served == 2.0, "{served}");
                answers += 1;
            }
            answers
        });
        for swap in 0..30 {
            swap_to(&weir, 1 + swap % 2);
            sizes.push(weir.resident_bytes());
        }
        done.store(true, Ordering::Relaxed);
        assert!(load.join().expect("every request is answered") > 0);
    });
    let (warm, end) = (sizes[WARM_AFTER - 1] as f64, sizes[sizes.len() - 1] as f64);
    assert!(end <= GROWTH_MAX * warm, "{:?} MB", sizes.iter().map(|bytes| bytes >> 20).collect::<Vec<_>>());
}
