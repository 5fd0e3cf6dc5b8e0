//! `--control watch`: what is served follows the folder of models as it changes.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::control::{
    arms, ask_digits, control, eight, ready_versions, route, served_by, set_route, versions,
};
use crate::support::http::Connection;
use crate::support::repository::Repository;
use crate::support::tensors::{rows_of_four, simple};
use crate::support::weir::Weir;
use crate::support::{eventually, project};

const LATEST: &str = "latest { num_versions: 1 }";

fn watching(repository: &Repository) -> Weir {
    Weir::start(repository, &["--control", "watch", "--settle-seconds", "0"])
}

#[track_caller]
fn until_ready(weir: &Weir, expected: &[u64]) {
    eventually(&format!("versions {expected:?} are ready, and no others"), || {
        (ready_versions(weir, "digits") == expected).then_some(())
    });
}

/// Asks `digits` until told to stop, and once more; gives the versions that answered, in order, each once. Any failure panics.
fn ask_until(stop: &AtomicBool, http: SocketAddr) -> Vec<u64> {
    let mut connection = Connection::open(http);
    let mut seen = Vec::new();
    loop {
        let last = stop.load(Ordering::Relaxed);
        seen.push(ask_digits(&mut connection, &[]));
        seen.dedup();
        if last {
            return seen;
        }
    }
}

#[test]
fn a_new_version_takes_over_under_load_and_the_old_one_goes() {
    let repository = Repository::new();
    repository.digits(&[1], LATEST);
    let weir = watching(&repository);
    let stop = AtomicBool::new(false);
    let (stop, http) = (&stop, weir.http);
    let seen: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3).map(|_| scope.spawn(move || ask_until(stop, http))).collect();
        for version in [2, 3] {
            repository.digits_version(version);
            until_ready(&weir, &[version]);
        }
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().expect("no request fails")).collect()
    });
    for seen in seen {
        assert_eq!(seen, [1, 2, 3]);
    }
    eventually("version 1 is gone", || {
        (weir.post("/v2/models/digits/versions/1/infer", &eight()).status == 404).then_some(())
    });
}

#[test]
fn a_version_that_is_still_being_copied_is_not_touched() {
    let repository = Repository::new();
    repository.digits(&[1], LATEST);
    let weir = Weir::start(&repository, &["--control", "watch", "--settle-seconds", "2"]);
    let whole = std::fs::read(project("models/digits/2/model.onnx")).unwrap();
    repository.write("digits/2/model.onnx", b"");
    let mut file =
        std::fs::OpenOptions::new().append(true).open(repository.path("digits/2/model.onnx")).unwrap();
    let began = Instant::now();
    // It takes longer than a folder must stand still, and never stands still that long.
    for piece in whole.chunks(whole.len() / 25) {
        file.write_all(piece).unwrap();
        file.flush().unwrap();
        let known: Vec<u64> = versions(&weir, "digits").into_iter().map(|(version, ..)| version).collect();
        assert_eq!(known, [1], "after {:?}", began.elapsed());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(began.elapsed() > Duration::from_secs(2));
    until_ready(&weir, &[2]);
    assert!(!weir.errors().contains("unavailable"), "{}", weir.errors());
}

#[test]
fn a_broken_version_leaves_the_old_one_live_and_is_tried_again_when_it_is_corrected() {
    let repository = Repository::new();
    repository.digits(&[1], LATEST);
    let weir = watching(&repository);
    repository.write("digits/2/model.onnx", "no model");
    let reason = eventually("version 2 is refused", || {
        let found = versions(&weir, "digits").into_iter().find(|(version, ..)| *version == 2)?;
        (found.1 == "UNAVAILABLE").then_some(found.2)
    });
    assert!(reason.contains("not an ONNX model"), "{reason}");
    assert_eq!(served_by(weir.infer("digits", &eight())), 1);
    repository.digits_version(2);
    until_ready(&weir, &[2]);
    assert_eq!(served_by(weir.infer("digits", &eight())), 2);
}

#[test]
fn what_is_removed_is_unloaded_and_what_appears_is_loaded() {
    let repository = Repository::new();
    repository.digits(&[1, 2, 3], "all {}").copy("models/simple", "simple");
    let weir = watching(&repository);
    repository.remove("digits/3").copy("tests/models/identity_fp32", "new");
    until_ready(&weir, &[1, 2]);
    eventually("version 3 is gone", || (versions(&weir, "digits").len() == 2).then_some(()));
    eventually("the new model is ready", || (!ready_versions(&weir, "new").is_empty()).then_some(()));
    repository.remove("digits");
    eventually("digits is gone", || weir.index().iter().all(|[name, ..]| name != "digits").then_some(()));
    let refusal = weir.infer("digits", &eight()).error(400);
    assert!(refusal.contains("unknown model"), "{refusal}");
    weir.infer("simple", &simple(1)).expect(200);
}

#[test]
fn another_config_takes_effect_and_a_broken_one_leaves_everything_and_says_why() {
    let repository = Repository::new();
    repository.digits(&[1], LATEST);
    let weir = watching(&repository);
    let batch = || weir.get("/v2/models/digits/config").expect(200).json()["max_batch_size"].clone();
    assert_eq!(batch(), json!(64));
    repository.digits_config(LATEST, 16);
    eventually("the new config is in force", || (batch() == json!(16)).then_some(()));
    repository.write("digits/config.pbtxt", "max_batchsize: 8");
    let reason = eventually("the config is refused", || {
        let status = control(&weir, "GET", "models/digits", &serde_json::Value::Null).expect(200).json();
        status["reason"].as_str().filter(|reason| !reason.is_empty()).map(str::to_owned)
    });
    assert!(reason.contains("max_batchsize"), "{reason}");
    assert_eq!(served_by(weir.infer("digits", &eight())), 1);
    assert_eq!(batch(), json!(16));
    repository.digits_config(LATEST, 8);
    eventually("the corrected config is in force", || (batch() == json!(8)).then_some(()));
    let status = control(&weir, "GET", "models/digits", &serde_json::Value::Null).expect(200).json();
    assert_eq!(status["reason"], "");
}

#[test]
fn a_new_model_that_cannot_be_served_is_listed_with_its_reason() {
    let repository = Repository::new();
    repository.copy("models/simple", "simple");
    let weir = watching(&repository);
    repository.model("odd", "models/simple", "max_batchsize: 8");
    repository.write("hollow/config.pbtxt", "");
    for (model, part) in [("odd", "max_batchsize"), ("hollow", "no version folder")] {
        let reason = eventually(&format!("{model} is listed"), || {
            let line = weir.index().into_iter().find(|[name, ..]| name == model)?;
            (line[2] == "UNAVAILABLE").then(|| line[3].clone())
        });
        assert!(reason.contains(part), "{model}: {reason}");
    }
    repository.write("odd/config.pbtxt", "");
    eventually("it is corrected", || (!ready_versions(&weir, "odd").is_empty()).then_some(()));
    repository.remove("hollow");
    eventually("it is gone", || weir.index().iter().all(|[name, ..]| name != "hollow").then_some(()));
}

#[test]
fn a_model_file_that_is_overwritten_is_loaded_anew() {
    let repository = Repository::new();
    repository.digits(&[1], LATEST);
    let weir = watching(&repository);
    let label = || weir.infer("digits", &eight()).expect(200).json()["outputs"][0]["data"][0].clone();
    assert_eq!(label(), 1);
    repository.copy("models/digits/3/model.onnx", "digits/1/model.onnx");
    eventually("the other file answers", || (label() == 8).then_some(()));
    assert_eq!(ready_versions(&weir, "digits"), [1]);
}

#[test]
fn the_version_policy_is_followed_as_it_changes() {
    let repository = Repository::new();
    repository.digits(&[1, 2], "latest { num_versions: 2 }");
    let weir = watching(&repository);
    assert_eq!(ready_versions(&weir, "digits"), [1, 2]);
    repository.digits_version(3);
    until_ready(&weir, &[2, 3]);
    for (policy, expected) in
        [("all {}", &[1, 2, 3][..]), ("specific { versions: [ 1, 3 ] }", &[1, 3]), (LATEST, &[3])]
    {
        repository.digits_config(policy, 64);
        until_ready(&weir, expected);
    }
}

#[test]
fn versions_that_a_route_or_a_label_names_stay_and_new_ones_get_nothing() {
    let repository = Repository::new();
    repository.digits(&[1, 2], LATEST);
    let weir = watching(&repository);
    assert_eq!(ready_versions(&weir, "digits"), [2]);
    let mut wanted = arms(&[(2, 1.0)]);
    wanted["shadows"] = json!([{"version": 1, "share": 0.0}]);
    set_route(&weir, "digits", &wanted);
    assert_eq!(ready_versions(&weir, "digits"), [1, 2]);
    repository.digits_version(3);
    until_ready(&weir, &[1, 2, 3]);
    assert_eq!(served_by(weir.infer("digits", &eight())), 2);
    // What is live does not end because its files do.
    repository.remove("digits/2");
    repository.remove("digits/1");
    repository.digits_config(LATEST, 32);
    eventually("version 3 was loaded anew", || {
        let config = weir.get("/v2/models/digits/versions/3/config").expect(200).json();
        (config["max_batch_size"] == 32).then_some(())
    });
    assert_eq!(served_by(weir.infer("digits", &eight())), 2);
    assert_eq!(ready_versions(&weir, "digits"), [1, 2, 3]);
    assert_eq!(route(&weir, "digits")["arms"], wanted["arms"]);
}

#[test]
fn what_changes_while_the_server_starts_is_not_missed() {
    let repository = Repository::new();
    repository.slow(20, "max_batch_size: 1").digits(&[1], LATEST);
    let mut weir =
        Weir::begin(&repository, &["--control", "watch", "--settle-seconds", "0", "--load-threads", "1"]);
    eventually("digits is ready", || (ready_versions(&weir, "digits") == [1]).then_some(()));
    repository.digits_version(2);
    weir.ready();
    weir.infer("slow", &rows_of_four(1)).expect(200);
    until_ready(&weir, &[2]);
}

#[test]
fn a_repository_that_cannot_be_read_changes_nothing() {
    let repository = Repository::new();
    repository.copy("models/digits/1", "models/digits/1");
    let weir = Weir::start(repository.path("models"), &["--control", "watch", "--settle-seconds", "0"]);
    std::fs::rename(repository.path("models"), repository.path("aside")).unwrap();
    eventually("it is told", || weir.errors().contains("cannot be read").then_some(()));
    assert_eq!(served_by(weir.infer("digits", &eight())), 1);
    repository.copy("models/digits/2", "aside/digits/2");
    std::fs::rename(repository.path("aside"), repository.path("models")).unwrap();
    until_ready(&weir, &[2]);
}

#[test]
fn a_repository_that_loses_all_its_models_at_once_changes_nothing() {
    let repository = Repository::new();
    repository.copy("models/digits/1", "volume/digits/1").copy("models/simple", "volume/simple");
    repository.write("empty/README.md", "no model");
    let models = repository.path("models");
    let lead_to = |target: &str| {
        symlink(target, repository.path("next")).unwrap();
        std::fs::rename(repository.path("next"), &models).unwrap();
    };
    // A volume that is mounted, unmounted and mounted again, as far as the server can tell.
    lead_to("volume");
    let weir = Weir::start(&models, &["--control", "watch", "--settle-seconds", "0"]);
    let told = "the models folder is empty: what is live stays";
    for times in 1..=2 {
        lead_to("empty");
        eventually("it is told", || (weir.errors().matches(told).count() == times).then_some(()));
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(weir.errors().matches(told).count(), times, "{}", weir.errors());
        assert_eq!(served_by(weir.infer("digits", &eight())), 1);
        weir.infer("simple", &simple(1)).expect(200);
        lead_to("volume");
        std::thread::sleep(Duration::from_secs(1));
    }
    repository.copy("models/digits/2", "volume/digits/2");
    until_ready(&weir, &[2]);
    repository.remove("volume/digits");
    eventually("digits is gone", || weir.index().iter().all(|[name, ..]| name != "digits").then_some(()));
    // The last one goes by an operator's word.
    repository.remove("volume/simple");
    eventually("it is told", || (weir.errors().matches(told).count() == 3).then_some(()));
    control(&weir, "POST", "models/simple/versions/1/unload", &serde_json::Value::Null).expect(200);
    eventually("simple is gone", || weir.index().is_empty().then_some(()));
}

#[test]
fn what_an_operator_unloaded_stays_down_until_it_is_loaded_again() {
    let repository = Repository::new();
    repository.digits(&[1, 2], "all {}");
    let weir = watching(&repository);
    let none = serde_json::Value::Null;
    control(&weir, "POST", "models/digits/versions/2/unload", &none).expect(200);
    repository.digits_version(3);
    until_ready(&weir, &[1, 3]);
    control(&weir, "POST", "models/digits/versions/2/load", &none).expect(200);
    repository.digits_config(LATEST, 64);
    until_ready(&weir, &[2, 3]);
}
