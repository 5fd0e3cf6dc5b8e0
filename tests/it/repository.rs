//! What a folder of models is served as: good models, broken ones, and every way to lay them out.

use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::project;
use crate::support::repository::Repository;
use crate::support::tensors::{fp32, output0, rows_of_four, simple};
use crate::support::weir::Weir;

fn broken() -> Weir {
    Weir::start(project("tests/models_broken"), &[])
}

fn start(repository: &Repository) -> Weir {
    Weir::start(repository, &[])
}

/// Serves `repository` and holds that its model `m` is refused for a reason that contains `part`.
#[track_caller]
fn refused(repository: &Repository, part: &str) {
    let weir = start(repository);
    let (state, reason) = weir.state("m");
    assert_eq!(state, "UNAVAILABLE", "{reason}");
    assert!(reason.contains(part), "'{reason}' does not say '{part}'");
    assert_names_no_folder(&weir, repository.as_ref());
    let answer = weir.infer("m", &rows_of_four(1)).error(404);
    assert!(answer.contains("has no available versions"), "{answer}");
}

/// Holds that no reason tells where the repository is.
#[track_caller]
fn assert_names_no_folder(weir: &Weir, folder: &Path) {
    let folder = folder.to_str().unwrap();
    for [model, _, _, reason] in weir.index() {
        assert!(!reason.contains(folder), "{model}: {reason}");
    }
}

/// Serves `repository` and holds that its model `m` gives back what `identity_fp32` does.
#[track_caller]
fn echoes(repository: &Repository) -> Weir {
    let weir = start(repository);
    assert_eq!(weir.state("m"), ("READY".to_owned(), String::new()));
    assert_eq!(output0(weir.infer("m", &fp32(&[1, 2], &[1.0, 2.0]))), (vec![1, 2], vec![1.0, 2.0]));
    weir
}

/// A repository whose model `m` is `identity_fp32` with this config.
fn identity(config: &str) -> Repository {
    let repository = Repository::new();
    repository.model("m", "tests/models/identity_fp32", config);
    repository
}

fn metadata(weir: &Weir, model: &str) -> Value {
    weir.get(&format!("/v2/models/{model}")).expect(200).json()
}

fn config(weir: &Weir, model: &str) -> Value {
    weir.get(&format!("/v2/models/{model}/config")).expect(200).json()
}

// ── Broken models ────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn each_broken_model_is_unavailable_for_a_reason_that_names_the_fault() {
    let weir = broken();
    let mut index = weir.index();
    for (model, part) in [
        ("absolute_data", "/etc/passwd"),
        ("empty", "no version folder"),
        ("ensemble", "ensemble_scheduling"),
        ("escaping_data", "../../outside.bin"),
        ("gpu", "CUDA"),
        ("missing_input", "INPUT1"),
        ("not_onnx", "not an ONNX model"),
        ("sequence_batching", "sequence_batching"),
        ("sequence_output", "sequence"),
        ("truncated", "cut off"),
        ("unknown_key", "max_batchsize"),
        ("wrong_dims", "[-1,5]"),
        ("wrong_type", "INT32"),
        ("zipmap", "zipmap"),
    ] {
        let at = index.iter().position(|[name, ..]| name == model);
        let [_, _, state, reason] = index.remove(at.unwrap_or_else(|| panic!("{model} is not in the index")));
        assert_eq!(state, "UNAVAILABLE", "{model}");
        assert!(reason.contains(part), "{model}: '{reason}' does not say '{part}'");
    }
    // What is left is the good one.
    assert_eq!(index, [["ok", "1", "READY", ""].map(str::to_owned)]);
    assert_names_no_folder(&weir, &project(""));
}

#[test]
fn broken_models_leave_the_good_one_and_the_server_alone() {
    let weir = broken();
    weir.get("/v2/health/ready").expect(200);
    assert_eq!(output0(weir.infer("ok", &rows_of_four(2))).0, [2, 4]);
    for model in ["zipmap", "empty"] {
        weir.get(&format!("/v2/models/{model}/ready")).error(400);
        weir.get(&format!("/v2/models/{model}")).error(404);
        weir.infer(model, &rows_of_four(1)).error(404);
    }
    let only_ready = weir.post("/v2/repository/index", &json!({"ready": true})).expect(200).json();
    assert_eq!(only_ready, json!([{"name": "ok", "version": "1", "state": "READY", "reason": ""}]));
    let page = weir.page();
    let ready = |model| page.sum("weir_model_ready", &[("model", model), ("version", "1")]);
    assert_eq!((ready("ok"), ready("zipmap")), (1.0, 0.0));
}

// ── Whether a model is batched ───────────────────────────────────────────────────────────────────────────────────

#[test]
fn models_whose_rows_depend_on_each_other_are_served_without_batches() {
    let weir = Weir::start(project("tests/models"), &[]);
    for (model, answer) in [
        ("cumsum_batch", [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0]),
        ("mean_batch", [-2.0, -2.0, -2.0, -2.0, 2.0, 2.0, 2.0, 2.0]),
    ] {
        assert_eq!(config(&weir, model)["max_batch_size"], 0, "{model}");
        // The shape of the file: with a batch axis beside it there would be three.
        assert_eq!(metadata(&weir, model)["inputs"][0]["shape"], json!([-1, 4]), "{model}");
        assert_eq!(output0(weir.infer(model, &rows_of_four(2))), (vec![2, 4], answer.to_vec()), "{model}");
    }
}

#[test]
fn models_whose_rows_are_independent_are_batched_without_a_config() {
    let weir = Weir::start(project("tests/models"), &[]);
    let index = weir.index();
    let identities: Vec<&String> =
        index.iter().map(|[name, ..]| name).filter(|name| name.starts_with("identity_")).collect();
    assert_eq!(identities.len(), 14, "{identities:?}");
    for model in identities {
        let config = config(&weir, model);
        assert_eq!(config["max_batch_size"], 32, "{model}");
        assert!(config["dynamic_batching"].is_object(), "{model}: {config}");
        assert_eq!(config["input"][0]["dims"], json!([-1]), "{model}");
        assert_eq!(metadata(&weir, model)["inputs"][0]["shape"], json!([-1, -1]), "{model}");
    }
}

#[test]
fn a_model_without_an_open_first_axis_is_not_batched() {
    let weir = Weir::start(project("tests/models"), &[]);
    assert_eq!(config(&weir, "scalar_fp32")["max_batch_size"], 0);
    assert_eq!(metadata(&weir, "scalar_fp32")["inputs"][0]["shape"], json!([]));
    assert_eq!(output0(weir.infer("scalar_fp32", &fp32(&[], &[5.0]))), (vec![], vec![5.0]));
}

#[test]
fn the_operators_word_on_batches_is_final() {
    // The proof would allow 32; the config wants none, or another number.
    let output = "output { name: \"OUTPUT0\" data_type: TYPE_FP32 dims: [ -1, -1 ] }";
    let weir = echoes(&identity(output));
    assert_eq!(config(&weir, "m")["max_batch_size"], 0);
    let weir = echoes(&identity("max_batch_size: 5"));
    assert_eq!(config(&weir, "m")["max_batch_size"], 5);
}

// ── Files ────────────────────────────────────────────────────────────────────────────────────────────────────────

/// A repository whose model `m` reads its weights from a file.
fn with_external_data() -> Repository {
    let repository = Repository::new();
    repository.copy("tests/models/external_data", "m");
    repository
}

/// Holds that row 0, 1, 2, 3 times the matrix 0, 1, … 15 is what it is.
#[track_caller]
fn multiplies(repository: &Repository) {
    let answer = output0(start(repository).infer("m", &rows_of_four(1)));
    assert_eq!(answer, (vec![1, 4], vec![56.0, 62.0, 68.0, 74.0]));
}

#[test]
fn weights_in_a_file_beside_the_model_are_read() {
    multiplies(&with_external_data());
}

#[test]
fn weights_behind_a_link_are_refused_wherever_it_leads() {
    let repository = with_external_data();
    std::fs::rename(repository.path("m/1/weights.bin"), repository.path("m/1/other.bin")).unwrap();
    symlink("other.bin", repository.path("m/1/weights.bin")).unwrap();
    refused(&repository, "is a link; copy it");
    std::fs::remove_file(repository.path("m/1/weights.bin")).unwrap();
    std::fs::rename(repository.path("m/1/other.bin"), repository.path("outside.bin")).unwrap();
    symlink("../../outside.bin", repository.path("m/1/weights.bin")).unwrap();
    refused(&repository, "is a link; copy it");
}

#[test]
fn weights_that_are_not_there_are_named() {
    let repository = with_external_data();
    std::fs::remove_file(repository.path("m/1/weights.bin")).unwrap();
    refused(&repository, "'weights.bin' is not there");
}

#[test]
fn weights_that_are_cut_off_are_refused() {
    let repository = with_external_data();
    repository.write("m/1/weights.bin", [0; 10]);
    refused(&repository, "weight");
}

/// The config of `identity_fp32` whose labels are in `file`.
fn labelled(file: &str) -> String {
    format!(
        "max_batch_size: 4 output {{ name: \"OUTPUT0\" data_type: TYPE_FP32 dims: -1 label_filename: \"{file}\" }}"
    )
}

#[test]
fn labels_are_read_from_the_models_folder() {
    let repository = identity(&labelled("names.txt"));
    repository.write("m/names.txt", "cat\ndog\r\n");
    let mut body = fp32(&[1, 2], &[0.25, 0.75]);
    body["outputs"] = json!([{"name": "OUTPUT0", "parameters": {"classification": 1}}]);
    let answer = start(&repository).infer("m", &body).expect(200).json();
    assert_eq!(answer["outputs"][0]["data"], json!(["0.750000:1:dog"]));
}

#[test]
fn labels_outside_the_models_folder_are_refused() {
    for (file, reason) in [
        ("../names.txt", "leaves its folder"),
        ("/etc/hostname", "leaves its folder"),
        ("a/../../names.txt", "leaves its folder"),
        ("link.txt", "'link.txt' is a link"),
    ] {
        let repository = identity(&labelled(file));
        repository.write("names.txt", "cat\n").write("m/a/b", "");
        symlink("../names.txt", repository.path("m/link.txt")).unwrap();
        refused(&repository, reason);
    }
    refused(&identity(&labelled("names.txt")), "'names.txt' is not there");
}

#[test]
fn a_model_file_that_is_a_folder_holds_the_file() {
    let repository = Repository::new();
    repository.copy("tests/models/identity_fp32/1/model.onnx", "m/1/model.onnx/model.onnx");
    echoes(&repository);
}

#[test]
fn a_model_file_may_have_another_name() {
    let repository = Repository::new();
    repository.copy("tests/models/identity_fp32/1/model.onnx", "m/1/net.onnx");
    refused(&repository, "1/model.onnx is not there");
    repository.write("m/config.pbtxt", "default_model_filename: \"net.onnx\"");
    echoes(&repository);
    repository.write("m/config.pbtxt", "default_model_filename: \"../1/net.onnx\"");
    refused(&repository, "default_model_filename");
}

#[test]
fn a_model_that_is_a_link_is_not_served_but_a_repository_that_is_one_is() {
    let repository = Repository::new();
    symlink(project("tests/models/identity_fp32"), repository.path("m")).unwrap();
    refused(&repository, "its folder is a link; copy it into the repository");
    repository.remove_link("m").copy("tests/models/identity_fp32", "real/m");
    // As volumes are that are switched from one state to the next.
    symlink("real", repository.path("current")).unwrap();
    let answer =
        output0(Weir::start(repository.path("current"), &[]).infer("m", &fp32(&[1, 2], &[1.5, 2.5])));
    assert_eq!(answer, (vec![1, 2], vec![1.5, 2.5]));
}

#[test]
fn files_and_dot_folders_are_no_models_and_a_name_that_cannot_be_one_is_reported() {
    let repository = Repository::new();
    repository.copy("models/simple", "simple").write("README.md", "").write("simple/notes.txt", "");
    repository.copy("models/simple", ".git").copy("models/simple", "not a name");
    // Neither files nor other folders are versions.
    repository.copy("models/simple/1", "simple/old").copy("models/simple/1", "simple/02");
    repository.write("simple/3", "");
    let weir = start(&repository);
    assert_eq!(weir.index(), [["simple", "1", "READY", ""].map(str::to_owned)]);
    assert!(weir.errors().contains("'not a name'"), "{}", weir.errors());
    weir.infer("simple", &simple(1)).expect(200);
}

#[test]
fn an_empty_repository_is_served() {
    let weir = start(&Repository::new());
    weir.get("/v2/health/ready").expect(200);
    assert_eq!(weir.index(), [[""; 4]; 0]);
    weir.infer("m", &rows_of_four(1)).error(400);
}

// ── Versions ─────────────────────────────────────────────────────────────────────────────────────────────────────

/// Holds which of three versions a policy serves, the last of them being the one that answers by default.
#[track_caller]
fn serves(policy: &str, versions: &[&str]) {
    let repository = Repository::new();
    for version in ["1", "2", "10"] {
        repository.copy("tests/models/identity_fp32/1", &format!("m/{version}"));
    }
    repository.write("m/config.pbtxt", policy);
    let weir = start(&repository);
    assert_eq!(metadata(&weir, "m")["versions"], json!(versions), "{policy}");
    let infer = |path: &str| weir.post(&format!("/v2/models/m{path}/infer"), &fp32(&[1, 1], &[1.0]));
    let default = infer("").expect(200).json();
    assert_eq!(default["model_version"], *versions.last().unwrap(), "{policy}");
    for version in ["1", "2", "10"] {
        let answer = infer(&format!("/versions/{version}"));
        if versions.contains(&version) {
            assert_eq!(answer.expect(200).json()["model_version"], version, "{policy}");
        } else {
            let message = answer.error(404);
            assert!(message.contains(&format!("version {version} is not found")), "{policy}: {message}");
        }
    }
}

#[test]
fn the_version_policy_chooses_what_is_served() {
    serves("", &["10"]);
    serves("version_policy { latest { num_versions: 2 } }", &["2", "10"]);
    serves("version_policy { latest { num_versions: 9 } }", &["1", "2", "10"]);
    serves("version_policy { all { } }", &["1", "2", "10"]);
    serves("version_policy { specific { versions: [ 1, 2 ] } }", &["1", "2"]);
}

#[test]
fn a_version_policy_that_names_what_is_not_there_is_refused() {
    refused(&identity("version_policy { specific { versions: [ 1, 5 ] } }"), "5");
}

#[test]
fn a_broken_version_leaves_the_others_alone() {
    let repository = Repository::new();
    repository.copy("tests/models/identity_fp32/1", "m/1").write("m/2/model.onnx", "not a model");
    repository.write("m/config.pbtxt", "version_policy { all { } }");
    let weir = start(&repository);
    let states: Vec<_> = weir.index().into_iter().map(|[_, version, state, _]| (version, state)).collect();
    let expected = [("1", "READY"), ("2", "UNAVAILABLE")].map(|(v, s)| (v.to_owned(), s.to_owned()));
    assert_eq!(states, expected);
    assert_eq!(weir.infer("m", &fp32(&[1, 1], &[1.0])).expect(200).json()["model_version"], "1");
    weir.post("/v2/models/m/versions/2/infer", &fp32(&[1, 1], &[1.0])).error(404);
}

// ── Warm-up and hints ────────────────────────────────────────────────────────────────────────────────────────────

/// A config whose warm-up gives INPUT0 a row of two, filled as `data` says.
fn warmed(data: &str) -> String {
    format!(
        "max_batch_size: 4 model_warmup {{ name: \"first\" batch_size: 2 count: 2 inputs {{ key: \"INPUT0\" value {{ \
         data_type: TYPE_FP32 dims: 2 {data} }} }} }}"
    )
}

#[test]
fn a_model_is_warmed_with_zeros_random_numbers_or_a_file() {
    for data in ["zero_data: true", "random_data: true", "input_data_file: \"row\""] {
        let repository = identity(&warmed(data));
        repository.write("m/warmup/row", [0; 8]);
        echoes(&repository);
    }
}

#[test]
fn a_warm_up_that_does_not_suit_the_model_keeps_it_from_being_ready() {
    let of = |data: &str| {
        let repository = identity(&warmed(data));
        repository.write("m/warmup/short", [0; 7]).write("secret", [0; 8]);
        repository
    };
    refused(&of("input_data_file: \"short\""), "model_warmup 'first'");
    refused(&of("input_data_file: \"../../secret\""), "input_data_file");
    refused(&of("input_data_file: \"missing\""), "input_data_file");
    let zero = warmed("zero_data: true");
    for (wrong, part) in [
        (zero.replace("TYPE_FP32", "TYPE_INT32"), "type"),
        (zero.replace("INPUT0", "INPUT9"), "INPUT0"),
        (zero.replace("batch_size: 2", "batch_size: 5"), "max_batch_size"),
        (zero.replace("dims: 2", "dims: -1"), "dimension -1"),
    ] {
        refused(&identity(&wrong), part);
    }
}

#[test]
fn a_warm_up_runs_the_model() {
    let repository = Repository::new();
    repository.slow(20, "max_batch_size: 1");
    let mut weir = start(&repository);
    weir.line("try");
    let took = weir.said().lines().find_map(|line| line.strip_prefix("ready").map(str::to_owned)).unwrap();
    let seconds: f64 = took.split(" in ").nth(1).and_then(|s| s.split(' ').next()).unwrap().parse().unwrap();
    // A call lasts 0.6 s on the machine that it was made for; loading alone takes a hundredth.
    assert!(seconds > 0.2, "{took}");
}

#[test]
fn a_hint_without_effect_is_told_and_the_model_served() {
    let weir = echoes(&identity("max_batch_size: 4 optimization { input_pinned_memory { enable: true } }"));
    let log = weir.errors();
    assert!(log.contains("optimization.input_pinned_memory.enable has no effect"), "{log}");
}
