//! Connections: too many, too old, too idle, too slow to read; and descriptors that run out.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{IN_TIME, impatient, still_well};
use crate::support::http::Connection;
use crate::support::http2::IdleChannel;
use crate::support::metrics::Page;
use crate::support::program::Program;
use crate::support::tensors::{fp32, simple};
use crate::support::weir::{FREE_PORTS, Weir, infer_path};
use crate::support::{eventually, project};

fn open(page: &Page, port: &str) -> f64 {
    page.sum("weir_connections", &[("port", port)])
}

#[test]
fn connections_above_the_limit_are_closed_at_once_and_the_metrics_stay() {
    let weir = impatient(&["--max-connections", "4"]);
    let mut first: Vec<Connection> = (0..4).map(|_| weir.connect()).collect();
    for connection in &mut first {
        connection.ask("GET", "/v2", &[], b"").expect(200);
    }
    let begun = Instant::now();
    weir.connect().closed().expect("it is closed");
    assert!(begun.elapsed() < IN_TIME);
    assert_eq!(open(&weir.page(), "http"), 4.0);
    eventually("it is told of", || weir.errors().contains("--max-connections").then_some(()));
    // The gRPC port has its own.
    drop(IdleChannel::open(weir.grpc));
    first.clear();
    weir.until("they have gone", |page| open(page, "http") == 0.0);
    still_well(&weir);
}

#[test]
fn connections_that_rest_too_long_are_ended_gently() {
    let weir = impatient(&["--idle-seconds", "2"]);
    let mut connection = weir.connect();
    connection.ask("GET", "/v2", &[], b"").expect(200);
    assert!(IdleChannel::open(weir.grpc).told_to_go());
    assert!(IdleChannel::open(weir.http).told_to_go());
    connection.closed().expect("it is closed");
}

#[test]
fn connections_that_grow_old_are_ended_after_their_requests() {
    let weir = impatient(&["--connection-seconds-max", "2"]);
    let mut connection = weir.connect();
    let begun = Instant::now();
    let last = loop {
        assert!(begun.elapsed() < IN_TIME, "it never ends");
        std::thread::sleep(Duration::from_millis(50));
        connection.send("POST", &infer_path("simple"), &[], simple(1).to_string().as_bytes());
        match connection.receive() {
            Ok(answer) if answer.header("connection") == Some("close") => break Some(answer),
            Ok(answer) => drop(answer.expect(200)),
            // It ended between two requests.
            Err(_) => break None,
        }
    };
    if let Some(answer) = last {
        answer.expect(200);
    }
    assert!(begun.elapsed() > Duration::from_millis(1500), "{:?}", begun.elapsed());
    assert!(IdleChannel::open(weir.grpc).told_to_go());
    still_well(&weir);
}

#[test]
fn a_client_that_does_not_read_its_answers_is_hung_up_on() {
    let weir = Weir::start(project("tests/models"), &["--write-seconds", "1"]);
    // Answers of a megabyte or so each, of which none is read.
    let values = vec![0.123_456_79f32; 100_000];
    let body = fp32(&[1, values.len()], &values).to_string();
    let path = infer_path("identity_fp32");
    let request =
        format!("POST {path} HTTP/1.1\r\nhost: weir\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let mut stream = TcpStream::connect(weir.http).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let begun = Instant::now();
    let mut rest = request.as_bytes();
    loop {
        assert!(begun.elapsed() < 2 * IN_TIME, "the server waits for ever");
        match stream.write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
        if rest.is_empty() {
            rest = request.as_bytes();
        }
    }
    weir.until("it has gone", |page| open(page, "http") == 0.0);
    weir.until("nothing is held for it", |page| page.sum("weir_bytes_in_flight", &[]) == 0.0);
}

#[test]
fn bytes_in_flight_are_bounded_over_all_connections() {
    let limit = 1 << 20;
    let text = limit.to_string();
    let weir = impatient(&[
        "--max-message-bytes",
        &text,
        "--max-bytes-in-flight",
        &text,
        "--body-gap-seconds",
        "30",
    ]);
    let half = vec![b' '; 600 << 10];
    let begin = || {
        let mut connection = weir.connect();
        connection.head("POST", &infer_path("simple"), &[("content-length", &text)]);
        // One that is refused early may be hung up on within it.
        let _ = connection.try_write(&half);
        connection
    };
    let first = begin();
    weir.until("the first half is there", |page| page.sum("weir_bytes_in_flight", &[]) > 500_000.0);
    // What was announced is not counted, what has come is.
    let refusal = begin().receive().unwrap();
    assert_eq!(refusal.header("retry-after"), Some("1"));
    let message = refusal.error(429);
    assert!(message.contains("bytes in flight (1048576)"), "{message}");
    // Small requests go on.
    still_well(&weir);
    drop(first);
    weir.until("it has gone", |page| page.sum("weir_bytes_in_flight", &[]) == 0.0);
}

#[test]
fn descriptors_that_run_out_neither_end_nor_spin_the_server() {
    let state = tempfile::tempdir().unwrap();
    let models = project("models");
    let arguments = [
        &["serve", "--models", models.to_str().unwrap(), "--state", state.path().to_str().unwrap()],
        &FREE_PORTS[..],
    ];
    // As the shell's own limit, soft and hard: the server cannot raise it.
    let limited = ["sh", "-c", "ulimit -n 96 && exec \"$0\" \"$@\""];
    let mut weir = Weir::of(Program::within(&limited, &arguments.concat()));
    weir.ready();
    let mut held = weir.connect();
    held.ask("GET", "/v2", &[], b"").expect(200);
    let many: Vec<TcpStream> = (0..200).filter_map(|_| TcpStream::connect(weir.http).ok()).collect();
    // The one that was accepted before goes on meanwhile.
    for _ in 0..20 {
        held.ask("POST", &infer_path("simple"), &[], simple(1).to_string().as_bytes()).expect(200);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(weir.errors().matches("was not accepted").count() < 2000, "it spins");
    drop(many);
    still_well(&weir);
}

#[test]
fn connections_at_rest_take_little_memory() {
    const CONNECTIONS: usize = 400;
    let weir = Weir::start(project("models"), &[]);
    let rest = |connections: usize| -> Vec<Connection> {
        let body = simple(1).to_string();
        let one = |_| {
            let mut connection = weir.connect();
            connection.ask("POST", &infer_path("simple"), &[], body.as_bytes()).expect(200);
            connection
        };
        (0..connections).map(one).collect()
    };
    // What is allocated once is not the connections'.
    drop(rest(40));
    let before = weir.resident_bytes();
    let resting = rest(CONNECTIONS);
    let each = weir.resident_bytes().saturating_sub(before) / CONNECTIONS as u64;
    assert!(each <= 32 << 10, "{each} bytes for each");
    drop(resting);
    drop((0..40).map(|_| IdleChannel::open(weir.grpc)).collect::<Vec<_>>());
    let before = weir.resident_bytes();
    let resting: Vec<IdleChannel> = (0..CONNECTIONS).map(|_| IdleChannel::open(weir.grpc)).collect();
    let each = weir.resident_bytes().saturating_sub(before) / CONNECTIONS as u64;
    assert!(each <= 32 << 10, "{each} bytes for each of gRPC");
    drop(resting);
}

#[test]
fn an_id_cannot_forge_a_line_of_the_log() {
    let weir = Weir::start(project("models"), &["--log", "trace"]);
    let evil = "x\n2026-01-01T00:00:00Z ERROR forged\u{1b}[31m";
    let mut body = simple(1);
    body["id"] = evil.into();
    weir.infer("simple", &body).expect(200);
    body["model"] = evil.into();
    let path = "/v2/models/%0a2026-01-01T00:00:00Z%20ERROR%20forged%1b/infer";
    weir.post(path, &body).error(400);
    let mut stream = TcpStream::connect(weir.http).unwrap();
    stream.write_all(b"GET /v2 HTTP/1.1\r\nweir-actor: a\x1b[31mb\r\n\r\n").unwrap();
    let _ = stream.read(&mut [0; 100]);
    still_well(&weir);
    let log = weir.errors();
    assert!(!log.contains('\u{1b}'), "an escape code is in the log");
    assert!(!log.lines().any(|line| line.starts_with("2026-01-01T00:00:00Z ERROR forged")), "{log}");
}
