//! From start to end: loading, draining, and the signals that begin it.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::http::Connection;
use crate::support::http2::IdleChannel;
use crate::support::repository::Repository;
use crate::support::tensors::{output0, rows_of_four, simple};
use crate::support::weir::Weir;
use crate::support::{PATIENCE, eventually, project};

/// Long enough for a busy machine, and much shorter than what would have to be waited for otherwise.
const SOON: Duration = Duration::from_secs(20);

/// A drain that nobody waits for.
const ENDLESS: [&str; 2] = ["--drain-seconds", "600"];

/// A server whose model `slow` takes 30 ms times `factor` for each request.
fn slow(factor: u64, flags: &[&str]) -> (Repository, Weir) {
    let repository = Repository::new();
    repository.slow(factor, "max_batch_size: 1");
    let weir = Weir::start(&repository, flags);
    (repository, weir)
}

/// Sends requests to `slow`, and waits until the server has them all.
fn in_flight(weir: &Weir, requests: usize) -> Vec<Connection> {
    let connections = (0..requests).map(|_| weir.ask("slow", &rows_of_four(1))).collect();
    let name = "weir_requests_received_total";
    weir.until("all requests arrive", |page| page.sum(name, &[]) == requests as f64);
    connections
}

/// Waits until the server says that it drains.
fn draining(weir: &Weir) {
    eventually("the server says that it drains", || weir.errors().contains("draining").then_some(()));
}

#[test]
fn while_a_model_loads_the_server_lives_and_is_not_ready() {
    let (repository, loading) = loading();
    let refusal = loading.get("/v2/health/ready").error(503);
    assert!(refusal.contains("loaded"), "{refusal}");
    loading.get("/v2/health/live").expect(200);
    assert_eq!(loading.state("slow"), ("LOADING".to_owned(), String::new()));
    assert!(loading.infer("slow", &rows_of_four(1)).error(503).contains("is not at ready state"));
    assert!(loading.get("/v2/models/slow/ready").error(400).contains("not ready"));
    drop(repository);
}

#[test]
fn a_model_that_is_ready_answers_while_another_still_loads() {
    let repository = Repository::new();
    endless_warmup(&repository);
    repository.copy("models/simple", "simple");
    let loading = Weir::begin(&repository, &[]);
    eventually("simple is ready", || (loading.state("simple").0 == "READY").then_some(()));
    loading.infer("simple", &simple(1)).expect(200);
    assert_eq!(loading.state("slow").0, "LOADING");
}

/// Adds a model that is not ready within any test's time.
fn endless_warmup(repository: &Repository) {
    repository.slow(
        1,
        "max_batch_size: 1 model_warmup { name: \"again\" batch_size: 1 count: 10000 \
         inputs { key: \"INPUT0\" value { data_type: TYPE_FP32 dims: 4 random_data: true } } }",
    );
}

/// A server that will not have loaded its model within any test's time.
fn loading() -> (Repository, Weir) {
    let repository = Repository::new();
    endless_warmup(&repository);
    let weir = Weir::begin(&repository, &[]);
    (repository, weir)
}

#[test]
fn a_signal_while_a_model_warms_up_ends_with_success() {
    let (_repository, mut weir) = loading();
    // Its session is made in a few milliseconds; warming it takes minutes.
    std::thread::sleep(Duration::from_millis(500));
    weir.signal("TERM");
    assert_eq!(weir.exit_code(SOON), Some(0), "{}", weir.errors());
}

#[test]
fn a_signal_while_sessions_are_made_ends_with_success() {
    // So many that some session is being made whenever the process ends: it must not fall over its own threads.
    let repository = Repository::new();
    for i in 0..200 {
        repository.copy("models/tickets/1", &format!("tickets{i}/1"));
    }
    for pause in [10, 30, 60, 100] {
        let mut weir = Weir::begin(&repository, &[]);
        std::thread::sleep(Duration::from_millis(pause));
        weir.signal("TERM");
        assert_eq!(weir.exit_code(SOON), Some(0), "after {pause} ms: {}", weir.errors());
    }
}

#[test]
fn a_session_call_that_outlasts_the_drain_does_not_keep_the_server() {
    // One call takes longer than the server waits for its sessions, unless it is ended.
    let (_repository, mut weir) = slow(150, &["--drain-seconds", "0"]);
    let _running = in_flight(&weir, 1);
    weir.signal("TERM");
    assert_eq!(weir.exit_code(SOON), Some(0), "{}", weir.errors());
}

#[test]
fn readiness_fails_at_once_and_requests_are_answered_until_the_drain_delay_is_over() {
    // What is asked below is asked within the delay, even on a machine that is busy.
    let mut weir = Weir::start(project("models"), &["--drain-delay-seconds", "5"]);
    weir.get("/v2/health/ready").expect(200);
    weir.signal("TERM");
    let refusal = eventually("readiness fails", || {
        let answer = weir.get("/v2/health/ready");
        (answer.status != 200).then(|| answer.error(503))
    });
    assert!(refusal.contains("draining"), "{refusal}");
    weir.get("/v2/health/live").expect(200);
    weir.infer("simple", &simple(3)).expect(200);
    assert_eq!(weir.exit_code(PATIENCE), Some(0), "{}", weir.errors());
}

#[test]
fn requests_in_flight_are_answered_before_the_server_ends() {
    for signal in ["TERM", "INT"] {
        let (_repository, mut weir) = slow(3, &ENDLESS);
        let requests = in_flight(&weir, 20);
        weir.signal(signal);
        for mut request in requests {
            let (shape, data) = output0(request.receive().expect("a request in flight is answered"));
            assert_eq!((shape, data), (vec![1, 4], vec![0.0, 1.0, 2.0, 3.0]));
        }
        assert_eq!(weir.exit_code(SOON), Some(0), "{}", weir.errors());
    }
}

#[test]
fn a_drain_without_time_cuts_requests_off_and_still_ends_with_success() {
    let (_repository, mut weir) = slow(30, &["--drain-seconds", "0"]);
    // Half a minute of work.
    let requests = in_flight(&weir, 40);
    weir.signal("TERM");
    assert_eq!(weir.exit_code(SOON), Some(0), "{}", weir.errors());
    let answered = requests.into_iter().filter_map(|mut request| request.receive().ok()).count();
    assert!(answered < 40, "all were answered");
}

#[test]
fn a_second_signal_ends_the_server_at_once() {
    let (_repository, mut weir) = slow(30, &ENDLESS);
    let _requests = in_flight(&weir, 40);
    weir.signal("TERM");
    draining(&weir);
    // A repetition within half a second counts as an echo of the first.
    std::thread::sleep(std::time::Duration::from_millis(600));
    weir.signal("TERM");
    assert_eq!(weir.exit_code(SOON), Some(1), "{}", weir.errors());
}

#[test]
fn a_client_that_stalls_within_a_request_is_cut_off_when_the_drain_is_over() {
    let mut weir = Weir::start(project("models"), &["--drain-seconds", "1"]);
    let mut stalled = weir.connect();
    stalled.head("POST", "/v2/models/simple/infer", &[("content-length", "1000")]);
    stalled.write(b"{");
    let name = "weir_requests_received_total";
    weir.until("the request arrives", |page| page.sum(name, &[]) == 1.0);
    weir.signal("TERM");
    assert_eq!(weir.exit_code(SOON), Some(0), "{}", weir.errors());
}

#[test]
fn an_idle_connection_does_not_hold_the_drain_up() {
    let mut weir = Weir::start(project("models"), &ENDLESS);
    let mut idle = [weir.http, weir.metrics].map(Connection::open);
    idle[0].ask("GET", "/v2/health/live", &[], b"").expect(200);
    idle[1].ask("GET", "/metrics", &[], b"").expect(200);
    weir.signal("TERM");
    assert_eq!(weir.exit_code(SOON), Some(0), "{}", weir.errors());
    for mut connection in idle {
        connection.closed().expect("nothing more is said on it");
    }
}

/// Opens a connection to one port, says nothing, and holds that the server ends all the same.
fn silence_does_not_hold_the_drain_up(port: impl Fn(&Weir) -> SocketAddr, name: &str) {
    let mut weir = Weir::start(project("models"), &ENDLESS);
    let _silent = Connection::open(port(&weir));
    weir.until("the connection is accepted", |page| {
        // The page's own connection counts on its port.
        let own = f64::from(u8::from(name == "metrics"));
        page.sum("weir_connections", &[("port", name)]) == 1.0 + own
    });
    weir.signal("TERM");
    assert_eq!(weir.exit_code(SOON), Some(0), "{}", weir.errors());
}

#[test]
fn a_silent_connection_to_the_http_port_does_not_hold_the_drain_up() {
    silence_does_not_hold_the_drain_up(|weir| weir.http, "http");
}

#[test]
fn a_silent_connection_to_the_grpc_port_does_not_hold_the_drain_up() {
    silence_does_not_hold_the_drain_up(|weir| weir.grpc, "grpc");
}

#[test]
fn a_silent_connection_to_the_metrics_port_does_not_hold_the_drain_up() {
    silence_does_not_hold_the_drain_up(|weir| weir.metrics, "metrics");
}

#[test]
fn an_idle_http2_channel_does_not_hold_the_drain_up() {
    for port in [|weir: &Weir| weir.grpc, |weir: &Weir| weir.http] {
        let mut weir = Weir::start(project("models"), &ENDLESS);
        let channel = IdleChannel::open(port(&weir));
        weir.signal("TERM");
        assert_eq!(weir.exit_code(SOON), Some(0), "{}", weir.errors());
        assert!(channel.told_to_go(), "the client was not told that the server goes away");
    }
}
