//! What the machine does: it runs out of descriptors, its disk cannot be written, its clock is set.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use serde_json::{Value, json};

use super::{
    GOOD, answers, good_on, may_mount, one_line_error, processor_time, record_is_whole, whole, with_good,
};
use crate::support::control::{arms, control};
use crate::support::http::Connection;
use crate::support::program::Program;
use crate::support::repository::Repository;
use crate::support::tensors::{fp32, rows_of_four, simple, with_parameter};
use crate::support::weir::{FREE_PORTS, Weir};
use crate::support::{PATIENCE, eventually};

fn arguments<'a>(repository: &'a Repository, more: &[&'a str]) -> Vec<&'a str> {
    [&["serve", "--models", repository.as_ref().to_str().unwrap()], &FREE_PORTS[..], more].concat()
}

/// A change that needs to be recorded.
fn change(weir: &Weir) -> crate::support::http::Answer {
    control(weir, "PUT", &format!("models/{GOOD}/route"), &arms(&[(1, 1.0)]))
}

#[test]
fn without_descriptors_open_connections_go_on_and_new_ones_come_once_others_close() {
    let repository = with_good();
    repository.copy("models/simple", "simple");
    let weir = Weir::start(&repository, &["--control", "explicit", "--load", GOOD]);
    let mut open = weir.connect();
    good_on(&mut open);
    let in_use = Path::new(&format!("/proc/{}/fd", weir.id())).read_dir().unwrap().count() as u64;
    let limit = Rlimit { current: Some(in_use + 8), maximum: Some(in_use + 100) };
    let server = Pid::from_raw(weir.id() as i32);
    prlimit(server, Resource::Nofile, limit).unwrap();
    let crowd: Vec<Connection> = (0..32).map(|_| weir.connect()).collect();
    let refusal = "connections were not accepted";
    eventually("descriptors run out", || weir.errors().contains(refusal).then_some(()));

    let before = processor_time(weir.id());
    std::thread::sleep(Duration::from_secs(1));
    let spent = processor_time(weir.id()) - before;
    assert!(spent < Duration::from_millis(600), "{spent:?} of processor time in a second of waiting");
    good_on(&mut open);
    // To load a model takes a process, a socket and files.
    let answer = open.ask("POST", "/v2/repository/models/simple/load", &[], b"{}");
    assert!((400..600).contains(&answer.status), "{answer:?}");
    assert!(answer.json()["error"].as_str().is_some_and(|reason| reason.len() > 20), "{}", answer.text());
    good_on(&mut open);

    drop(crowd);
    answers(&weir);
    weir.post("/v2/repository/models/simple/load", &json!({})).expect(200);
    weir.infer("simple", &simple(1)).expect(200);
    whole(&weir);
}

#[test]
fn two_thousand_idle_connections_keep_nobody_from_being_served() {
    let most = getrlimit(Resource::Nofile);
    if most.maximum.is_some_and(|most| most < 2500) {
        eprintln!("skipped: a process may have {:?} descriptors", most.maximum);
        return;
    }
    // The server takes it over.
    setrlimit(Resource::Nofile, Rlimit { current: most.maximum, maximum: most.maximum }).unwrap();
    let repository = with_good();
    let weir = Weir::start(&repository, &[]);
    let mut idle: Vec<Connection> = (0..2000).map(|_| weir.connect()).collect();
    weir.until("all are accepted", |page| page.sum("weir_connections", &[("port", "http")]) >= 2000.0);
    (0..20).for_each(|_| answers(&weir));
    idle.iter_mut().step_by(100).for_each(good_on);
    drop(idle);
    weir.until("all are gone", |page| page.sum("weir_connections", &[("port", "http")]) == 0.0);
    whole(&weir);
}

#[test]
fn a_state_folder_that_cannot_be_written_is_told_and_does_not_keep_models_from_being_served() {
    if !may_mount() {
        return;
    }
    let repository = with_good();
    let state = tempfile::tempdir().unwrap();
    let folder = state.path().to_str().unwrap();
    let mount =
        format!("mount --bind '{folder}' '{folder}' && mount -o remount,ro,bind '{folder}' && exec \"$@\"");
    let read_only = ["unshare", "-rm", "sh", "-c", &mount, "sh"];
    let named = Program::within(&read_only, &arguments(&repository, &["--state", folder])).run();
    one_line_error(&named, "--state");

    let program =
        Program::within(&read_only, &arguments(&repository, &[])).env("XDG_STATE_HOME", state.path());
    let mut weir = Weir::of(program);
    weir.ready();
    let refusal = change(&weir).error(503);
    assert!(refusal.contains("nothing was changed"), "{refusal}");
    whole(&weir);
}

#[test]
fn files_of_the_state_that_are_cut_off_or_gone_end_nothing_and_refuse_changes() {
    type Harm = fn(&Path);
    let cut: Harm = |state| {
        for file in state.read_dir().unwrap() {
            std::fs::File::options().write(true).open(file.unwrap().path()).unwrap().set_len(0).unwrap();
        }
    };
    let removed: Harm = |state| std::fs::remove_dir_all(state).unwrap();
    let replaced: Harm = |state| {
        std::fs::rename(state, state.with_extension("away")).unwrap();
        std::fs::create_dir(state).unwrap();
    };
    let repository = with_good();
    for harm in [cut, removed, replaced] {
        let top = tempfile::tempdir().unwrap();
        let state = top.path().join("state");
        let mut weir = Weir::start(&repository, &["--state", state.to_str().unwrap()]);
        change(&weir).expect(200);
        let outcome = |id: &str| {
            weir.post(
                &format!("/control/v1/models/{GOOD}/feedback"),
                &json!({"request_id": id, "outcome": 1}),
            )
        };
        outcome("before").expect(200);
        harm(&state);
        for _ in 0..3 {
            let refusal = change(&weir).error(503);
            assert!(refusal.contains("nothing was changed") && !refusal.contains("/"), "{refusal}");
            let answer = outcome("after");
            assert!(answer.status == 200 || !answer.error(503).contains("/"));
        }
        whole(&weir);
        let errors = weir.errors();
        assert_eq!(errors.matches("ERROR").count(), 1, "{errors}");
        assert!(errors.contains("changes are refused until the files of the state are back"), "{errors}");
        weir.signal("TERM");
        assert_eq!(weir.exit_code(PATIENCE), Some(0), "{}", weir.errors());
    }
}

#[test]
fn what_is_no_regular_file_in_the_state_folder_is_refused_at_once() {
    let repository = with_good();
    for name in ["lock", "weir.sqlite", "weir.sqlite-wal"] {
        let state = tempfile::tempdir().unwrap();
        let made = std::process::Command::new("mkfifo").arg(state.path().join(name)).status().unwrap();
        assert!(made.success());
        let flags = ["--state", state.path().to_str().unwrap()];
        let outcome = Program::new(&arguments(&repository, &flags)).run();
        one_line_error(&outcome, &format!("'{name}' is no regular file: move it away"));
    }
}

#[test]
fn a_limit_on_the_size_of_files_refuses_changes_and_ends_nothing() {
    let repository = with_good();
    let state = tempfile::tempdir().unwrap();
    let folder = state.path().to_str().unwrap();
    let mut weir = Weir::start(&repository, &["--state", folder]);
    change(&weir).expect(200);
    let largest =
        |path: &Path| path.read_dir().unwrap().map(|file| file.unwrap().metadata().unwrap().len()).max();
    let size = largest(state.path()).unwrap() + 8192;
    let server = Pid::from_raw(weir.id() as i32);
    let unlimited = prlimit(server, Resource::Fsize, Rlimit { current: Some(size), maximum: None }).unwrap();
    let refusal = eventually("no file may grow any more", || {
        let answer = change(&weir);
        (answer.status != 200).then(|| answer.error(503))
    });
    assert!(refusal.contains("nothing was changed"), "{refusal}");
    answers(&weir);
    prlimit(server, Resource::Fsize, unlimited).unwrap();
    eventually("changes are taken again", || (change(&weir).status == 200).then_some(()));
    whole(&weir);
    weir.signal("TERM");
    assert_eq!(weir.exit_code(crate::support::PATIENCE), Some(0), "{}", weir.errors());
    record_is_whole(folder);
}

/// The library that tells a program another time, where it is installed.
fn clock_library() -> Option<String> {
    let folders = ["x86_64-linux-gnu", "aarch64-linux-gnu"].map(|name| format!("/usr/lib/{name}/faketime"));
    let library = folders.iter().map(|folder| format!("{folder}/libfaketimeMT.so.1"));
    library.into_iter().find(|path| Path::new(path).is_file())
}

#[test]
fn a_clock_that_is_set_back_and_forth_changes_neither_deadlines_nor_the_record() {
    let Some(library) = clock_library() else {
        eprintln!("skipped: libfaketime is not installed");
        return;
    };
    let repository = with_good();
    repository.slow(30, "max_batch_size: 1");
    let state = tempfile::tempdir().unwrap();
    let folder = state.path().to_str().unwrap();
    let clock = tempfile::NamedTempFile::new().unwrap();
    let set = |offset: &str| std::fs::write(clock.path(), offset).unwrap();
    set("+0");
    let program = Program::new(&arguments(&repository, &["--state", folder, "--load-seconds-max", "60"]))
        .env("LD_PRELOAD", &library)
        .env("FAKETIME_TIMESTAMP_FILE", clock.path())
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let mut weir = Weir::of(program);
    weir.ready();
    assert_eq!(weir.state("slow"), ("READY".to_owned(), String::new()));
    let moment = || {
        change(&weir).expect(200);
        let page = control(&weir, "GET", "audit?limit=1", &Value::Null).expect(200).json();
        page["records"][0]["at_ms"].as_i64().unwrap()
    };
    let started = moment();
    for (offset, hours) in [("-7200", -2), ("+86400", 24), ("-864000", -240)] {
        set(offset);
        // The clock is set for the server, or the test tells nothing.
        let moved = (moment() - started + 1_800_000).div_euclid(3_600_000);
        assert_eq!(moved, hours, "{offset}");
        answers(&weir);
        // In microseconds: far longer than the answer takes, far shorter than the clock has moved.
        weir.infer(GOOD, &with_parameter(fp32(&[1, 2], &[1.0, 2.0]), "timeout", 30_000_000)).expect(200);
        let mut running = weir.ask("slow", &rows_of_four(1));
        weir.until("its session has it", |page| page.sum("weir_session_calls_in_flight", &[]) == 1.0);
        weir.infer("slow", &with_parameter(rows_of_four(1), "timeout", 20_000)).error(504);
        running.receive().unwrap().expect(200);
    }
    whole(&weir);
    weir.signal("TERM");
    assert_eq!(weir.exit_code(crate::support::PATIENCE), Some(0), "{}", weir.errors());
    record_is_whole(folder);
}
