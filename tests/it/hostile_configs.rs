//! Configs and uploads that somebody made to do harm: each is refused with a reason, in little time, and leaves nothing.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::repository::Repository;
use crate::support::tensors::{fp32, output0};
use crate::support::weir::Weir;

/// Bytes of a config at the most.
const LARGEST: usize = 1 << 20;

fn parameter(key: &str, value: &str) -> String {
    format!("parameters {{ key: \"{key}\" value {{ string_value: \"{value}\" }} }}")
}

fn filled(piece: &str) -> Vec<u8> {
    piece.repeat(LARGEST / piece.len()).into_bytes()
}

/// Configs by the name of their model, and what their reasons say.
fn configs() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        ("braces", filled("{"), "more than 32 deep"),
        ("brackets", filled("["), "more than 32 deep"),
        ("angles", filled("input <"), "more than 32 deep"),
        ("deep_keys", filled("input { reshape "), "more than 32 deep"),
        ("closing", filled("}"), "line 1"),
        ("commas", filled(","), "line 1"),
        ("quotes", filled("\""), "line 1"),
        ("open_quote", [b"name: \"".to_vec(), filled("a")[..LARGEST - 10].to_vec()].concat(), "line 1"),
        ("comments", [filled("#\n,")[..LARGEST - 10].to_vec(), b" input ]".to_vec()].concat(), "line"),
        ("inputs", filled("input { } "), "entries; at most 1024"),
        ("groups", filled("instance_group { } "), "entries; at most 1024"),
        (
            "dims",
            [b"input { dims: [ ".to_vec(), filled("1,")[..LARGEST - 30].to_vec(), b"1 ] }".to_vec()].concat(),
            "at most 1024",
        ),
        ("one_too_many", vec![b'#'; LARGEST + 1], "larger than 1048576 bytes"),
        ("not_text", b"name: \"\xff\"".to_vec(), "not UTF-8 text: byte 7 is wrong"),
        ("wide_text", b"\xff\xfen\0a\0m\0e\0".to_vec(), "not UTF-8 text: byte 0 is wrong"),
        ("nul", b"name: \0".to_vec(), "line 1"),
        ("escape", text("name: \"\x1b[31mred\x1b[0m\""), "must be the folder's name"),
        ("lines", text("name: \"a\\nERROR all is lost\""), "must be the folder's name"),
        ("long_name", text(&format!("name: \"{}\"", "n".repeat(500_000))), "must be the folder's name"),
        ("long_key", text(&format!("{}: 1", "k".repeat(500_000))), "line 1"),
        ("batch", text("max_batch_size: 2147483647"), "max_batch_size"),
        ("batch_over", text("max_batch_size: 2147483648"), "line 1"),
        ("instances", text("instance_group { count: 2147483647 }"), "must be between 1 and 256"),
        (
            "delay",
            text("dynamic_batching { max_queue_delay_microseconds: 18446744073709551615 }"),
            "must be at most 3000000 (3 seconds)",
        ),
        ("levels", text("dynamic_batching { priority_levels: 18446744073709551615 }"), "more than 1000"),
        (
            "level",
            text("dynamic_batching { default_priority_level: 18446744073709551615 }"),
            "needs priority_levels",
        ),
        ("no_versions", text("version_policy { specific { } }"), "names no version"),
        ("runs", text("model_warmup { name: \"w\" count: 4294967295 }"), "more than 100000 runs"),
        (
            "rows",
            text(
                "model_warmup { name: \"w\" batch_size: 4294967295 inputs { key: \"INPUT0\" value { data_type: TYPE_FP32 dims: 4 zero_data: true } } }",
            ),
            "more than 67108864 bytes",
        ),
        (
            "elements",
            text(
                "model_warmup { name: \"w\" inputs { key: \"INPUT0\" value { data_type: TYPE_FP32 dims: [ 4294967296, 4294967296, 4294967296 ] random_data: true } } }",
            ),
            "more than 67108864 bytes",
        ),
        ("objective", text(&parameter("latency_objective_ms", "NaN")), "latency_objective_ms 'NaN'"),
        ("isolation", text(&parameter("isolation", "off")), "auto, process or none"),
        (
            "reads",
            text(&parameter("session.model_external_initializers_file_folder_path", "/etc")),
            "not passed on",
        ),
        ("writes", text(&parameter("session.optimized_model_filepath", "/tmp/x")), "not passed on"),
        ("profiles", text(&parameter("session.enable_profiling", "/tmp/x")), "not passed on"),
        ("caches", text(&parameter("ep.context_file_path", "/tmp/x")), "not passed on"),
        ("affinities", text(&parameter("session.intra_op_thread_affinities", "/tmp/x")), "must be a number"),
        ("custom", text("model_operations { op_library_filename: \"/tmp/x.so\" }"), "model_operations"),
        (
            "addresses",
            text(
                "instance_group { kind: KIND_GPU } optimization { execution_accelerators { gpu_execution_accelerator { name: \"cuda\" parameters { key: \"gpu_external_alloc\" value: \"1\" } } } }",
            ),
            "gpu_external_alloc",
        ),
        ("another_file", text("default_model_filename: \"../../good/1/model.onnx\""), "plain file name"),
        ("the_machine", text("default_model_filename: \"/etc/passwd\""), "plain file name"),
    ]
}

#[track_caller]
fn answers(weir: &Weir) {
    assert_eq!(output0(weir.infer("good", &fp32(&[1, 2], &[1.0, 2.0]))), (vec![1, 2], vec![1.0, 2.0]));
}

#[test]
fn hostile_configs_are_refused_in_little_time() {
    let repository = Repository::new();
    repository.copy("tests/models/identity_fp32", "good");
    let configs = configs();
    for (name, config, _) in &configs {
        repository.copy("tests/models/identity_fp32/1/model.onnx", &format!("{name}/1/model.onnx"));
        repository.write(&format!("{name}/config.pbtxt"), config);
    }
    let started = Instant::now();
    let weir = Weir::start(&repository, &[]);
    let took = started.elapsed();
    assert!(took < Duration::from_secs(40), "{took:?}");
    answers(&weir);
    for (name, _, part) in &configs {
        let (state, reason) = weir.state(name);
        assert_eq!(state, "UNAVAILABLE", "{name}");
        assert!(reason.contains(part), "{name}: '{reason}' does not say '{part}'");
        assert!(reason.chars().count() <= 1001 && !reason.contains(char::is_control), "{name}: {reason}");
    }
    assert!(!weir.errors().contains('\x1b'), "{}", weir.errors());
    assert!(weir.resident_bytes() < 1 << 30, "{} bytes", weir.resident_bytes());
}

#[test]
fn hostile_configs_that_clients_send_are_refused() {
    let repository = Repository::new();
    repository.copy("tests/models/identity_fp32", "good");
    let weir = Weir::start(&repository, &["--control", "explicit", "--load", "good"]);
    let nested = |piece: &str| piece.repeat(100_000);
    for (config, part) in [
        (nested("["), "the config's JSON"),
        (nested("{\"input\":["), "the config's JSON"),
        (nested("{\"parameters\":{\"a\":"), "the config's JSON"),
        (" ".repeat(LARGEST + 1), "larger than 1048576 bytes"),
        ("{\"max_batch_size\": 1e300}".to_owned(), "the config's JSON"),
        ("{\"instance_group\": [{\"count\": 1000}]}".to_owned(), "between 1 and 256"),
        (
            "{\"parameters\": {\"session.enable_profiling\": {\"string_value\": \"/tmp/x\"}}}".to_owned(),
            "not passed on",
        ),
        ("{\"default_model_filename\": \"../x\"}".to_owned(), "plain file name"),
    ] {
        let refusal = weir
            .post("/v2/repository/models/good/load", &json!({"parameters": {"config": config}}))
            .error(400);
        assert!(refusal.contains(part), "{refusal}");
        answers(&weir);
    }
}

/// Every file and folder below one, by its path there.
fn below(folder: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries
        .flat_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let inner =
                below(&entry.path()).into_iter().map(|inner| format!("{name}/{inner}")).collect::<Vec<_>>();
            if inner.is_empty() { vec![name] } else { inner }
        })
        .collect()
}

#[test]
fn uploads_stay_in_their_folder_and_leave_nothing_when_they_fail() {
    let repository = Repository::new();
    repository.copy("tests/models/identity_fp32", "good");
    let state = tempfile::tempdir().unwrap();
    let folder = state.path().join("a/b/state");
    std::fs::create_dir_all(&folder).unwrap();
    let flags = ["--control", "explicit", "--load", "good", "--state", folder.to_str().unwrap()];
    let weir = Weir::start(&repository, &flags);
    let load = |body: &Value| weir.post("/v2/repository/models/sent/load", body);
    let sent = |path: &str| json!({"parameters": {"config": "{}", format!("file:{path}"): "AAAA"}});
    for path in [
        "/etc/weir-was-here",
        "../x",
        "../../../x",
        "1/../../x",
        "1/..",
        "..",
        ".",
        "./1/model.onnx",
        "1//model.onnx",
        "1/./model.onnx",
        "1/",
        "%2e%2e/x",
        "..%2fx",
        "%252e%252e%252fx",
        "..\\x",
        "1/mo\0del.onnx",
        "1/mo\ndel.onnx",
        &"a".repeat(256),
        &"a/".repeat(100),
        "1/a/b/c/d/model.onnx",
        &format!("1/{}", "a".repeat(100_000)),
    ] {
        let refusal = load(&sent(path)).error(400);
        assert!(refusal.contains("must be a path inside the model's folder"), "{path:?}: {refusal}");
    }
    let many: serde_json::Map<String, Value> =
        (0..2000).map(|i| (format!("file:1/{i}"), json!(""))).collect();
    let mut too_many = json!({"parameters": many});
    too_many["parameters"]["config"] = json!("{}");
    let scattered: serde_json::Map<String, Value> =
        (0..257).map(|i| (format!("file:{i}/x"), json!(""))).collect();
    let mut too_scattered = json!({"parameters": scattered});
    too_scattered["parameters"]["config"] = json!("{}");
    let both = json!({"parameters": {"config": "{}", "file:1": "AAAA", "file:1/model.onnx": "AAAA"}});
    let broken = json!({"parameters": {"config": "{}", "file:1/model.onnx": STANDARD.encode("no model")}});
    for (body, part) in [
        (&too_many, "2000 files were sent; at most 1024"),
        (&too_scattered, "lie in 257 folders; at most 256"),
        (&both, "lies in something that was sent as a file"),
        (&broken, "not an ONNX model"),
        (&json!({"parameters": {"config": "{}", "file:1/model.onnx": "A*=="}}), "base64"),
        (&json!({"parameters": {"config": "{}", "file:1/model.onnx": "AAA"}}), "base64"),
        (&json!({"parameters": {"config": "{}", "file:": "AAAA"}}), "unknown parameter 'file:'"),
    ] {
        let refusal = load(body).error(400);
        assert!(refusal.contains(part), "{refusal}");
    }
    let twice =
        br#"{"parameters": {"config": "{}", "file:1/model.onnx": "AAAA", "file:1/model.onnx": "BBBB"}}"#;
    let refusal = weir.connect().ask("POST", "/v2/repository/models/sent/load", &[], twice).error(400);
    assert!(refusal.contains("is there twice"), "{refusal}");
    let left = below(&folder.join("uploads"));
    assert!(left.iter().all(|path| path == "sent"), "{left:?}");
    let outside: Vec<String> =
        below(state.path()).into_iter().filter(|path| !path.starts_with("a/b/state/")).collect();
    assert!(outside.is_empty(), "{outside:?}");
    answers(&weir);
}
