//! Signals at bad moments: a drain under full load, kills while models are loaded and exchanged, a terminal that goes.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{GOOD, ISOLATED, answers, record_is_whole, runs, whole, with_good, workers};
use crate::support::http::Connection;
use crate::support::program::Program;
use crate::support::tensors::{fp32, rows_of_four};
use crate::support::versions::{MODEL, Served, row};
use crate::support::weir::{FREE_PORTS, Weir, infer_path};
use crate::support::{PATIENCE, eventually};

/// Sends a request and waits for its answer. Errors: the server is gone, or lets this connection go.
fn try_ask(connection: &mut Connection, method: &str, path: &str, body: &str) -> io::Result<u16> {
    let head = format!("{method} {path} HTTP/1.1\r\nhost: weir\r\ncontent-length: {}\r\n\r\n", body.len());
    connection.try_write(format!("{head}{body}").as_bytes())?;
    connection.receive().map(|answer| answer.status)
}

/// Asks without a pause until the server lets the connection go: when each request was sent, and its answer.
fn ask_until_gone(http: SocketAddr) -> Vec<(Instant, io::Result<u16>)> {
    let mut connection = Connection::open(http);
    let body = rows_of_four(1).to_string();
    let mut asked = Vec::new();
    while asked.last().is_none_or(|(_, answer): &(_, io::Result<u16>)| answer.is_ok()) {
        asked.push((Instant::now(), try_ask(&mut connection, "POST", &infer_path("slow"), &body)));
    }
    asked
}

#[test]
fn a_signal_under_full_load_loses_no_request_that_came_before_it() {
    let repository = with_good();
    repository.slow(1, "max_batch_size: 8 dynamic_batching { }");
    let mut weir = Weir::start(&repository, &[]);
    let http = weir.http;
    let (signalled, asked) = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..12).map(|_| scope.spawn(move || ask_until_gone(http))).collect();
        weir.until("there is load", |page| page.sum("weir_requests_total", &[]) > 30.0);
        let signalled = Instant::now();
        weir.signal("TERM");
        assert_eq!(weir.exit_code(PATIENCE), Some(0), "{}", weir.errors());
        let asked = clients.into_iter().flat_map(|client| client.join().expect("a client asks"));
        (signalled, asked.collect::<Vec<_>>())
    });
    assert!(signalled.elapsed() < PATIENCE / 2, "{:?}", signalled.elapsed());
    for (sent, answer) in asked {
        match answer {
            Ok(status) => assert_eq!(status, 200),
            Err(error) => assert!(sent > signalled, "a request from before the signal was lost: {error}"),
        }
    }
}

#[test]
fn after_kills_while_models_load_a_restart_serves() {
    let repository = with_good();
    for i in 0..6 {
        repository.copy("models/tickets/1", &format!("tickets{i}/1"));
    }
    let state = tempfile::tempdir().unwrap();
    let folder = state.path().to_str().unwrap();
    for pause in [1, 60, 250] {
        let mut weir = Weir::begin(&repository, &["--state", folder]);
        std::thread::sleep(Duration::from_millis(pause));
        weir.signal("KILL");
        assert_eq!(weir.exit_code(PATIENCE), None);
        record_is_whole(folder);
    }
    let weir = Weir::start(&repository, &["--state", folder]);
    assert!(weir.index().iter().all(|[_, _, state, _]| state == "READY"), "{:?}", weir.index());
    whole(&weir);
    record_is_whole(folder);
}

/// Loads, unloads and routes version 2 until the server is gone.
fn exchange_until_gone(http: SocketAddr) {
    let mut connection = Connection::open(http);
    let versions = json!({"arms": [{"version": 1, "weight": 50}, {"version": 2, "weight": 50}]}).to_string();
    let only = json!({"arms": [{"version": 1, "weight": 1}]}).to_string();
    let changes = [
        ("PUT", "route", &only),
        ("POST", "versions/2/unload", &String::new()),
        ("POST", "versions/2/load", &String::new()),
        ("PUT", "route", &versions),
    ]
    .map(|(method, path, body)| (method, format!("/control/v1/models/{MODEL}/{path}"), body.clone()));
    for (method, path, body) in changes.iter().cycle() {
        match try_ask(&mut connection, method, path, body) {
            // What was unloaded when the server was killed is unloaded still.
            Ok(404) if path.ends_with("unload") => {}
            Ok(status) => assert_eq!(status, 200, "{method} {path}"),
            Err(_) => return,
        }
    }
}

#[test]
fn after_kills_while_versions_are_exchanged_a_restart_serves() {
    let mut served = Served::start(&[(1, "same"), (2, "double")]);
    for pause in [30, 200, 450] {
        let http = served.weir.http;
        std::thread::scope(|scope| {
            let exchange = scope.spawn(move || exchange_until_gone(http));
            std::thread::sleep(Duration::from_millis(pause));
            served.weir.signal("KILL");
            exchange.join().expect("each change is taken until the server is gone");
        });
        served.restart("KILL");
        record_is_whole(served.state());
        let replies = served.client().send(10, &row(1.0));
        assert!(replies.iter().all(|reply| reply.status == 200), "after {pause} ms: {replies:?}");
    }
}

#[test]
fn workers_go_with_a_server_that_is_killed() {
    let repository = with_good();
    repository.model("isolated", "tests/models/identity_fp32", ISOLATED);
    repository.model("other", "tests/models/identity_fp32", ISOLATED);
    let mut weir = Weir::start(&repository, &[]);
    weir.infer("isolated", &fp32(&[1, 2], &[1.0, 2.0])).expect(200);
    let processes = workers(&weir);
    assert!(processes.len() >= 2, "{processes:?}");
    weir.signal("KILL");
    assert_eq!(weir.exit_code(PATIENCE), None);
    let killed = Instant::now();
    eventually("no worker is left", || (!processes.iter().any(|process| runs(*process))).then_some(()));
    // They look within a second; the machine may be busy.
    assert!(killed.elapsed() < Duration::from_secs(10), "{:?}", killed.elapsed());
}

#[test]
fn workers_go_with_a_server_that_ends_by_itself() {
    let repository = with_good();
    repository.model("isolated", "tests/models/identity_fp32", ISOLATED);
    let mut weir = Weir::start(&repository, &[]);
    let processes = workers(&weir);
    assert!(!processes.is_empty());
    weir.signal("TERM");
    assert_eq!(weir.exit_code(PATIENCE), Some(0), "{}", weir.errors());
    eventually("no worker is left", || (!processes.iter().any(|process| runs(*process))).then_some(()));
}

#[test]
fn signals_that_mean_nothing_end_nothing() {
    let repository = with_good();
    let mut weir = Weir::start(&repository, &[]);
    for name in ["USR1", "USR2", "ALRM", "VTALRM", "PROF", "IO", "PIPE", "XFSZ"] {
        weir.signal(name);
        assert_eq!(weir.exit_code(Duration::from_millis(50)), None, "{name}: {}", weir.errors());
    }
    answers(&weir);
    whole(&weir);
}

#[test]
fn a_log_that_nobody_reads_or_can_write_stops_nothing() {
    let repository = with_good();
    for full in [true, false] {
        let (reader, writer) = io::pipe().unwrap();
        // What is not kept is a reader that has gone.
        let reader = full.then_some(reader);
        let mut beside = writer.try_clone().unwrap();
        std::thread::spawn(move || io::Write::write_all(&mut beside, &[b'x'; 1 << 20]));
        let models = repository.path("");
        let flags = ["serve", "--models", models.to_str().unwrap(), "--log", "trace"];
        let mut program = Program::new(&[&flags[..], &FREE_PORTS].concat());
        program.errors_to(writer);
        let mut weir = Weir::of(program);
        weir.ready();
        answers(&weir);
        for version in ["unload", "load"] {
            weir.post(&format!("/control/v1/models/{GOOD}/versions/1/{version}"), &json!({})).expect(200);
        }
        whole(&weir);
        weir.signal("TERM");
        assert_eq!(weir.exit_code(PATIENCE), Some(0), "{full}");
        drop(reader);
    }
}

#[test]
fn a_terminal_that_goes_away_ends_nothing() {
    let repository = with_good();
    let mut weir = Weir::start(&repository, &[]);
    for _ in 0..3 {
        weir.signal("HUP");
        assert_eq!(weir.exit_code(Duration::from_millis(300)), None, "{}", weir.errors());
        answers(&weir);
    }
    whole(&weir);
    weir.signal("TERM");
    assert_eq!(weir.exit_code(PATIENCE), Some(0), "{}", weir.errors());
}
