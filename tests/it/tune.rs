//! `weir tune`: what it tries, what it prints, and that what it writes is served.

use serde_json::Value;

use crate::support::program::{Outcome, Program};
use crate::support::repository::Repository;

/// Tunes a model of the repository for a short while.
fn tune(repository: &Repository, words: &str) -> Outcome {
    let models = repository.as_ref().to_str().expect("paths of tests are UTF-8");
    let words: Vec<&str> = words.split_whitespace().collect();
    let unsaid = [["--models", models], ["--seconds", "0.3"]];
    let unsaid = unsaid.iter().filter(|pair| !words.contains(&pair[0])).flatten().copied();
    Program::new(&["tune"].into_iter().chain(unsaid).chain(words.iter().copied()).collect::<Vec<_>>()).run()
}

#[track_caller]
fn json(outcome: &Outcome) -> Value {
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
    serde_json::from_str(&outcome.stdout).unwrap()
}

#[track_caller]
fn config(repository: &Repository, model: &str) -> String {
    std::fs::read_to_string(repository.path(&format!("{model}/config.pbtxt"))).unwrap()
}

#[test]
fn what_is_recommended_is_written_beside_what_was_there_and_loads() {
    let repository = Repository::new();
    repository.digits(&[1, 2], "all { }");
    let before = config(&repository, "digits");
    let found = json(&tune(&repository, "digits --json --write"));
    assert_eq!((&found["version"], &found["written"]), (&2.into(), &true.into()), "{found}");

    let after = config(&repository, "digits");
    let added = after.strip_prefix(&before).expect("the text stays");
    assert_eq!(added, found["config"].as_str().unwrap());
    let models = repository.as_ref().to_str().unwrap();
    let check = Program::new(&["check-config", "--models", models]).run();
    assert!(check.stdout.contains("# digits: config ok, versions 1, 2\n"), "{check:?}");

    // What is in force now is what was recommended.
    let again = json(&tune(&repository, "digits --json --batch 1"));
    for key in ["threads", "instances"] {
        assert_eq!(again["now"][key], found["recommended"][key], "{again}");
    }
}

#[test]
fn every_setting_that_the_cores_hold_is_tried_with_every_size() {
    let repository = Repository::new();
    repository.digits(&[1], "all { }");
    let found = json(&tune(&repository, "digits --json --seconds 2 --batch 1,64"));
    let cores = found["cores"].as_u64().unwrap();
    let measured = found["measured"].as_array().unwrap();
    let number = |line: &Value, key: &str| line[key].as_u64().unwrap();
    assert!(
        measured.iter().all(|line| number(line, "threads") * number(line, "instances") <= cores),
        "{found}"
    );
    for (threads, instances) in [(1, 1), (1, cores), (cores, 1)] {
        let of = |line: &&Value| (number(line, "threads"), number(line, "instances")) == (threads, instances);
        let mut sizes: Vec<u64> = measured.iter().filter(of).map(|line| number(line, "batch")).collect();
        assert_eq!(found["batches_pay"].is_boolean(), sizes.len() == 2, "{found}");
        // A machine that stands still may leave no time for the larger one; then it says so.
        sizes.extend(found["batches_left_out"].as_array().unwrap().iter().filter_map(Value::as_u64));
        assert_eq!(sizes, [1, 64], "{found}");
    }
    assert_eq!(found["written"], false);
}

#[test]
fn a_model_without_a_config_gets_one() {
    let repository = Repository::new();
    repository.copy("models/breast_cancer", "breast_cancer");
    let outcome = tune(&repository, "breast_cancer --batch 1 --write");
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    for part in ["Recommended for breast_cancer/1: ", "recommended\n", "Written to config.pbtxt"] {
        assert!(outcome.stdout.contains(part), "{part}: {outcome:?}");
    }
    assert!(config(&repository, "breast_cancer").starts_with("instance_group [ { kind: KIND_CPU count: "));
}

#[test]
fn a_config_that_needs_a_person_is_left_and_the_keys_are_printed() {
    let repository = Repository::new();
    let text = "instance_group [\n  { count: 3 } # because\n]\n";
    repository.model("m", "models/breast_cancer", text);
    let outcome = tune(&repository, "m --batch 1 --write");
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stdout.contains("a comment stands inside instance_group, line 1"), "{outcome:?}");
    assert!(outcome.stdout.contains("\ninstance_group [ { kind: KIND_CPU count: "), "{outcome:?}");
    assert_eq!(config(&repository, "m"), text);
}

#[test]
fn a_model_that_is_not_batched_is_called_with_single_requests() {
    let repository = Repository::new();
    repository.copy("tests/models/cumsum_batch", "cumsum_batch");
    let found = json(&tune(&repository, "cumsum_batch --json"));
    assert!(found["measured"].as_array().unwrap().iter().all(|line| line["batch"] == 1), "{found}");
    assert_eq!(found["batches_pay"], Value::Null);
}

#[test]
fn what_stands_in_the_way_is_told_in_one_line() {
    let repository = Repository::new();
    repository.digits(&[1], "all { }").copy("tests/models_broken/not_onnx", "not_onnx");
    repository.model("gpu", "models/breast_cancer", "instance_group [ { kind: KIND_GPU } ]");
    repository.model("wrong", "models/breast_cancer", "max_batchsize: 8");
    for (words, part) in [
        ("nothing", "there is no model 'nothing' in"),
        ("nothing", "there is digits, gpu, not_onnx, wrong"),
        ("nothing --models /no/such/folder", "choose another with --models"),
        ("digits --version 7", "the version is not there; there is 1"),
        ("digits --batch 65", "the model takes 1 to 64 rows"),
        ("digits --shape picture:64", "no input 'picture'; it has image"),
        ("digits --shape image:63", "has shape [64], which [63] does not fit"),
        ("not_onnx", "not_onnx: it cannot be loaded: "),
        ("gpu", "chooses for the CPU"),
        ("wrong", "max_batchsize"),
    ] {
        let outcome = tune(&repository, words);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""), "{words}: {outcome:?}");
        assert!(outcome.stderr.starts_with("weir: ") && outcome.stderr.lines().count() == 1, "{outcome:?}");
        assert!(outcome.stderr.contains(part), "{words}: {}", outcome.stderr);
    }
}
