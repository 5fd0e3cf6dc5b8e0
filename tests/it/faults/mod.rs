//! Faults from outside: what the machine, its operators, models and clients do to a server. Each test injects one into
//! the real binary, and holds that a good request is answered afterwards and every request counted once (INV-08).
//!
//! Not here: a full disk and kills while the record is written (`record`), signals one at a time (`lifecycle`), a missing
//! or wrong ONNX Runtime (`cli`), hostile files and bytes (`hostile_models`, `clients`).

mod clients;
mod loads;
mod machine;
mod signals;
mod workers;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::http::Connection;
use crate::support::program::{Outcome, Program};
use crate::support::repository::Repository;
use crate::support::tensors::{fp32, output0};
use crate::support::weir::{Weir, infer_path};

/// A model that answers what it is asked.
const GOOD: &str = "good";

/// The config of a model that runs in a worker process, one call at a time.
const ISOLATED: &str = "parameters { key: \"isolation\" value { string_value: \"process\" } } \
                        instance_group [ { count: 1 kind: KIND_CPU } ]";

/// A repository with [`GOOD`].
fn with_good() -> Repository {
    let repository = Repository::new();
    repository.copy("tests/models/identity_fp32", GOOD);
    repository
}

/// Holds that a good request of a new client is answered.
#[track_caller]
fn answers(weir: &Weir) {
    good_on(&mut weir.connect());
}

/// Holds that a good request on a connection that is open is answered.
#[track_caller]
fn good_on(connection: &mut Connection) {
    let body = fp32(&[1, 2], &[1.0, 2.0]).to_string();
    let answer = connection.ask("POST", &infer_path(GOOD), &[], body.as_bytes());
    assert_eq!(output0(answer), (vec![1, 2], vec![1.0, 2.0]));
}

/// Holds that a good request is answered, nothing is left inside and each request received has one outcome.
#[track_caller]
fn whole(weir: &Weir) {
    answers(weir);
    weir.until("every request has one outcome, and none is left inside", |page| {
        let sum = |name| page.sum(name, &[]);
        sum("weir_requests_total") == sum("weir_requests_received_total")
            && sum("weir_requests_in_flight") == 0.0
            && sum("weir_queue_depth") == 0.0
    });
}

/// Holds that the record in a state folder was not broken.
#[track_caller]
fn record_is_whole(state: &str) {
    let outcome = Program::new(&["audit", "verify", "--state", state]).run();
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stdout.starts_with("the record is whole: "), "{outcome:?}");
}

/// Holds that the program ended with an error of one line that says `word`.
#[track_caller]
fn one_line_error(outcome: &Outcome, word: &str) {
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    assert!(lines.len() == 1 && lines[0].contains(word), "{outcome:?}");
}

fn signal(process: u32, name: &str) {
    let kill = format!("kill -{name} {process}");
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

/// The fields of a process's status from its state on (proc_pid_stat(5)); `None` once it is gone.
fn stat(process: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// Whether a process runs: one that has ended and that nobody has asked for yet does not.
fn runs(process: u32) -> bool {
    stat(process).is_some_and(|fields| fields[0] != "Z")
}

/// Processor time that a process has taken so far.
#[track_caller]
fn processor_time(process: u32) -> Duration {
    let fields = stat(process).expect("it runs");
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    // Linux tells it in hundredths of a second.
    Duration::from_millis(10 * ticks)
}

/// The worker processes of a server, by their numbers.
fn workers(weir: &Weir) -> Vec<u32> {
    let processes = Path::new("/proc").read_dir().unwrap().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let server = weir.id().to_string();
    let of_server = |process: &u32| stat(*process).is_some_and(|fields| fields[1] == server);
    numbers.filter(of_server).filter(|process| runs(*process)).collect()
}

/// Whether this user may have mounts of its own; says so if not.
fn may_mount() -> bool {
    let may = Command::new("unshare").args(["-rm", "true"]).output();
    let may = may.is_ok_and(|output| output.status.success());
    if !may {
        eprintln!("skipped: this user may mount nothing");
    }
    may
}
