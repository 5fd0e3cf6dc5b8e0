//! Where models run: in the server's own process if nothing speaks against it, else in a process of their own.

use std::path::Path;

use serde_json::json;

use crate::support::onnx::Graph;
use crate::support::repository::Repository;
use crate::support::weir::Weir;

/// Four floats in, four out.
fn body() -> serde_json::Value {
    json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]})
}

fn graph(operator: &str, dims: &[Option<u64>]) -> Vec<u8> {
    Graph::default().input("x", dims).node(operator, &["x", "x"], "y").output("y", dims).file()
}

/// A sum of four floats is harmless.
/// A file of a few kilobytes that holds 160 MB of constants once it is open: x + x.
fn constants() -> Vec<u8> {
    let dims = [Some(1), Some(4)];
    let graph = Graph::default().input("x", &dims).output("y", &dims).constant("zero", &[1], &[0.0]);
    let graph = (0..40).fold(graph.node("Add", &["x", "x"], "sum0"), |graph, i| {
        let [shape, all, moved, least, none, sum] =
            ["shape", "all", "moved", "least", "none", "sum"].map(|name| format!("{name}{i}"));
        let next = if i == 39 { "y".to_owned() } else { format!("sum{}", i + 1) };
        graph
            .integers(&shape, &[2], &[(1 << 18) - i, 4])
            .node("ConstantOfShape", &[&shape], &all)
            .node("Add", &[&all, "x"], &moved)
            .node("ReduceMin", &[&moved], &least)
            .node("Mul", &[&least, "zero"], &none)
            .node("Add", &[&sum, &none], &next)
    });
    graph.file()
}

fn harmless() -> Vec<u8> {
    graph("Add", &[None, Some(4)])
}

/// Worker processes of a server.
fn workers(weir: &Weir) -> Vec<u32> {
    let children = format!("/proc/{0}/task", weir.id());
    let tasks = std::fs::read_dir(children).expect("the server runs").filter_map(Result::ok);
    let of_task =
        |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
    let ids: Vec<String> = tasks.map(of_task).collect();
    let ids = ids.iter().flat_map(|text| text.split_whitespace());
    ids.filter_map(|id| id.parse().ok()).filter(|id| is_worker(*id)).collect()
}

fn is_worker(id: u32) -> bool {
    let line = std::fs::read(Path::new("/proc").join(id.to_string()).join("cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).nth(1) == Some(b"worker")
}

#[test]
fn a_model_runs_apart_only_where_something_speaks_for_it() {
    let config = |isolation: &str| {
        format!("parameters {{ key: \"isolation\" value {{ string_value: \"{isolation}\" }} }}")
    };
    for (model, file, config, apart) in [
        ("harmless", harmless(), String::new(), 0),
        ("asked", harmless(), config("process"), 1),
        // An operator of unknown harm, and sizes that requests choose.
        ("unknown", graph("BitShift", &[None, Some(4)]), String::new(), 0),
        ("open", graph("Add", &[None, None]), String::new(), 1),
        ("trusted", graph("Add", &[None, None]), config("none"), 0),
        ("constants", constants(), String::new(), 1),
    ] {
        let repository = Repository::new();
        repository.write(&format!("{model}/1/model.onnx"), file);
        repository.write(&format!("{model}/config.pbtxt"), config);
        let weir = Weir::start(&repository, &[]);
        let (state, reason) = weir.state(model);
        // ONNX Runtime has no BitShift of floats.
        let ready = model != "unknown";
        assert_eq!(state, if ready { "READY" } else { "UNAVAILABLE" }, "{model}: {reason}");
        assert_eq!(workers(&weir).len(), apart, "{model}");
        if ready {
            let answer = weir.infer(model, &body()).expect(200).json();
            assert_eq!(answer["outputs"][0]["data"], json!([2.0, 4.0, 6.0, 8.0]), "{model}");
        }
    }
}

#[test]
fn the_servers_own_setting_holds_where_the_config_has_none() {
    let repository = Repository::new();
    repository.write("m/1/model.onnx", harmless());
    let weir = Weir::start(&repository, &["--isolation", "process"]);
    assert_eq!(workers(&weir).len(), 1);
    weir.infer("m", &body()).expect(200);
}

#[test]
fn answers_of_any_size_come_out_of_a_worker_whole() {
    let repository = Repository::new();
    repository.write("m/1/model.onnx", graph("Add", &[None, None]));
    let weir = Weir::start(&repository, &[]);
    assert_eq!(workers(&weir).len(), 1);
    // Below and above what a call's memory has room for at first, and below it again.
    for columns in [1, 5, 50_000, 1_000_000, 3, 20_000] {
        let data: Vec<f32> = (0..columns).map(|i| (i % 1000) as f32).collect();
        let input = json!({"name": "x", "datatype": "FP32", "shape": [1, columns], "data": data});
        let answer = weir.infer("m", &json!({"inputs": [input]})).expect(200).json();
        let outputs = answer["outputs"][0]["data"].as_array().expect("numbers");
        assert_eq!(outputs.len(), columns);
        let doubled =
            |(i, value): (usize, &serde_json::Value)| value.as_f64() == Some(2.0 * (i % 1000) as f64);
        assert!(outputs.iter().enumerate().all(doubled), "{columns}");
    }
}

#[test]
fn outputs_beyond_the_limit_are_refused_and_the_worker_goes_on() {
    let repository = Repository::new();
    repository.write("m/1/model.onnx", graph("Add", &[None, None]));
    let weir = Weir::start(&repository, &["--max-output-bytes", "100000"]);
    let wide = |columns: usize| json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, columns], "data": vec![0; columns]}]});
    let before = workers(&weir);
    for _ in 0..3 {
        let message = weir.infer("m", &wide(100_000)).error(400);
        assert!(message.contains("--max-output-bytes"), "{}", &message[..message.len().min(300)]);
        weir.infer("m", &wide(10)).expect(200);
    }
    assert_eq!(workers(&weir), before, "nothing ended");
}

#[test]
fn a_version_that_is_unloaded_leaves_no_process() {
    let repository = Repository::new();
    repository.write("m/1/model.onnx", graph("Add", &[None, None]));
    let weir = Weir::start(&repository, &[]);
    let [worker] = workers(&weir)[..] else { panic!("there is one") };
    weir.post("/control/v1/models/m/versions/1/unload", &json!({})).expect(200);
    let until = std::time::Instant::now() + crate::support::PATIENCE;
    while is_worker(worker) {
        assert!(std::time::Instant::now() < until, "it lives on");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn a_version_whose_files_are_too_large_is_unavailable() {
    let repository = Repository::new();
    repository.write("m/1/model.onnx", harmless());
    let weir = Weir::start(&repository, &["--max-model-bytes", "50"]);
    let (state, reason) = weir.state("m");
    assert!(state == "UNAVAILABLE" && reason.contains("larger than 50 bytes"), "{reason}");
}
