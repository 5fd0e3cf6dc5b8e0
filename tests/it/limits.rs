//! What happens at each limit: of queues, batches, bodies and time.

use std::io::Write;
use std::sync::mpsc::channel;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::Value;

use crate::support::http::{Answer, Connection};
use crate::support::http2::IdleChannel;
use crate::support::metrics::Page;
use crate::support::project;
use crate::support::repository::Repository;
use crate::support::tensors::{fp32, output0, rows_of_four, simple, with_parameter};
use crate::support::weir::{Weir, infer_path};

/// A session call of `slow` that lasts about a second: long enough for what a test does meanwhile.
const LONG: u64 = 40;

/// Half of that, where several must end.
const MEDIUM: u64 = 20;

/// A server with `slow`, whose config has these keys beside its own.
fn slow(factor: u64, keys: &str, flags: &[&str]) -> (Repository, Weir) {
    let repository = Repository::new();
    repository.slow(factor, keys);
    let weir = Weir::start(&repository, flags);
    (repository, weir)
}

/// Sends one request to `slow` and waits until its session has it: whatever comes next has to wait.
fn occupied(weir: &Weir) -> Connection {
    let request = weir.ask("slow", &rows_of_four(1));
    weir.until("its session has it", |page| page.sum("weir_session_calls_in_flight", &[]) == 1.0);
    request
}

/// Sends a request to `slow` and waits until it is in the queue behind `waiting` others.
fn queued(weir: &Weir, waiting: usize, body: &Value) -> Connection {
    let request = weir.ask("slow", body);
    let depth = waiting as f64 + 1.0;
    weir.until("the request is in the queue", |page| page.sum("weir_queue_depth", &[]) == depth);
    request
}

fn ended(page: &Page, outcome: &str) -> f64 {
    page.sum("weir_requests_total", &[("outcome", outcome)])
}

/// Session calls of a model, and the requests in them.
fn calls_and_requests(weir: &Weir, model: &str) -> (f64, f64) {
    let page = weir.page();
    let of_model = [("model", model)];
    let calls = page.sum("weir_session_calls_total", &of_model);
    assert_eq!(page.sum("weir_batch_requests_count", &of_model), calls, "{page:?}");
    (calls, page.sum("weir_batch_requests_sum", &of_model))
}

fn receive(mut connection: Connection) -> Answer {
    connection.receive().expect("the request is answered")
}

#[track_caller]
fn come_back_later(answer: Answer, part: &str) {
    let seconds = answer.header("retry-after").and_then(|value| value.parse::<u64>().ok());
    assert!(seconds.is_some_and(|seconds| seconds >= 1), "{answer:?}");
    let message = answer.error(429);
    assert!(message.contains(part), "{message}");
}

// ── The queue and the door ───────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_full_queue_refuses_at_once_while_the_model_is_busy() {
    let keys = "max_batch_size: 1 dynamic_batching { default_queue_policy { max_queue_size: 2 } }";
    let (_repository, weir) = slow(LONG, keys, &[]);
    let running = occupied(&weir);
    let waiting: Vec<_> = (0..2).map(|i| queued(&weir, i, &rows_of_four(1))).collect();
    come_back_later(weir.infer("slow", &rows_of_four(1)), "Exceeds maximum queue size (2)");
    // It did not wait for the session: nothing has ended but the refused request.
    assert_eq!(ended(&weir.page(), "ok"), 0.0);
    for accepted in [running].into_iter().chain(waiting) {
        receive(accepted).expect(200);
    }
    weir.until("all are counted", |page| ended(page, "ok") == 3.0 && ended(page, "overloaded") == 1.0);
    assert_eq!(calls_and_requests(&weir, "slow"), (3.0, 3.0));
}

#[test]
fn the_servers_own_queue_size_holds_where_the_config_has_none() {
    let (_repository, weir) = slow(LONG, "max_batch_size: 1", &["--max-queue-size", "1"]);
    let _running = occupied(&weir);
    let _waiting = queued(&weir, 0, &rows_of_four(1));
    come_back_later(weir.infer("slow", &rows_of_four(1)), "Exceeds maximum queue size (1)");
}

#[test]
fn what_would_be_later_than_the_models_objective_is_refused_at_once() {
    let keys =
        "max_batch_size: 1 parameters { key: \"latency_objective_ms\" value { string_value: \"100\" } }";
    let (_repository, weir) = slow(LONG, keys, &[]);
    // No call is that quick. An idle server lets one in all the same, for its measures may be wrong.
    let running = occupied(&weir);
    come_back_later(weir.infer("slow", &rows_of_four(1)), "latency objective of model 'slow' (100ms)");
    assert_eq!(ended(&weir.page(), "ok"), 0.0);
    receive(running).expect(200);
    weir.until("all are counted", |page| ended(page, "ok") == 1.0 && ended(page, "overloaded") == 1.0);
}

#[test]
fn the_servers_own_objective_holds_where_the_config_has_none() {
    let repository = Repository::new();
    repository.slow(LONG, "max_batch_size: 1");
    let weir = Weir::start(&repository, &["--latency-objective-ms", "100"]);
    let _running = occupied(&weir);
    come_back_later(weir.infer("slow", &rows_of_four(1)), "latency objective");
    drop(weir);
    let none = "max_batch_size: 1 parameters { key: \"latency_objective_ms\" value { string_value: \"0\" } }";
    repository.slow(MEDIUM, none);
    let weir = Weir::start(&repository, &["--latency-objective-ms", "100"]);
    let running = occupied(&weir);
    weir.infer("slow", &rows_of_four(1)).expect(200);
    receive(running).expect(200);
}

#[test]
fn more_requests_than_may_be_in_flight_are_refused_at_once() {
    let (_repository, weir) = slow(LONG, "max_batch_size: 1", &["--max-requests-in-flight", "1"]);
    let running = occupied(&weir);
    come_back_later(weir.infer("slow", &rows_of_four(1)), "Exceeds maximum requests in flight (1)");
    // Questions are no predictions.
    weir.get("/v2/models/slow").expect(200);
    receive(running).expect(200);
    weir.infer("slow", &rows_of_four(1)).expect(200);
}

// ── Time ─────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_timeout_ends_the_wait_and_the_request_never_reaches_the_session() {
    let (_repository, weir) = slow(LONG, "max_batch_size: 1", &[]);
    let running = occupied(&weir);
    let impatient = with_parameter(rows_of_four(1), "timeout", 50_000);
    let message = weir.infer("slow", &impatient).error(504);
    assert_eq!(message, "Request timeout expired");
    // It was told before the session was free.
    assert_eq!(ended(&weir.page(), "ok"), 0.0);
    receive(running).expect(200);
    weir.infer("slow", &rows_of_four(1)).expect(200);
    let page = weir.until("all are counted", |page| ended(page, "ok") == 2.0);
    assert_eq!(ended(&page, "deadline_exceeded"), 1.0);
    assert_eq!(page.sum("weir_rows_total", &[]), 2.0);
    assert_eq!(calls_and_requests(&weir, "slow"), (2.0, 2.0));
}

#[test]
fn a_timeout_that_is_long_enough_changes_nothing() {
    let (_repository, weir) = slow(1, "max_batch_size: 1", &[]);
    let patient = with_parameter(rows_of_four(1), "timeout", 60_000_000);
    weir.infer("slow", &patient).expect(200);
}

#[test]
fn the_configs_own_timeout_rejects_what_waits_too_long() {
    let policy = "default_queue_policy { default_timeout_microseconds: 50000 }";
    let (_repository, weir) = slow(LONG, &format!("max_batch_size: 1 dynamic_batching {{ {policy} }}"), &[]);
    let running = occupied(&weir);
    assert_eq!(weir.infer("slow", &rows_of_four(1)).error(504), "Request timeout expired");
    receive(running).expect(200);
}

#[test]
fn delayed_requests_run_once_nothing_else_waits() {
    let policy = "default_queue_policy { default_timeout_microseconds: 1000 timeout_action: DELAY }";
    let (_repository, weir) =
        slow(MEDIUM, &format!("max_batch_size: 1 dynamic_batching {{ {policy} }}"), &[]);
    let running = occupied(&weir);
    let late = queued(&weir, 0, &rows_of_four(1));
    receive(running).expect(200);
    receive(late).expect(200);
}

#[test]
fn a_client_that_hangs_up_while_it_waits_never_reaches_the_session() {
    let (_repository, weir) = slow(LONG, "max_batch_size: 1", &[]);
    let running = occupied(&weir);
    drop(queued(&weir, 0, &rows_of_four(1)));
    let page = weir.until("the request is cancelled", |page| ended(page, "cancelled") == 1.0);
    assert_eq!(ended(&page, "ok"), 0.0, "{page:?}");
    receive(running).expect(200);
    receive(occupied(&weir)).expect(200);
    weir.until("all are counted", |page| ended(page, "ok") == 2.0);
    assert_eq!(calls_and_requests(&weir, "slow"), (2.0, 2.0));
}

#[test]
fn a_client_that_hangs_up_within_its_body_is_counted_as_cancelled() {
    let weir = Weir::start(project("models"), &[]);
    let mut connection = weir.connect();
    connection.head("POST", &infer_path("simple"), &[("content-length", "1000")]);
    connection.write(b"{\"inputs\":");
    drop(connection);
    let all = |page: &Page| page.sum("weir_requests_total", &[]);
    let page = weir.until("the request ends", |page| all(page) == 1.0);
    assert_eq!(ended(&page, "cancelled"), 1.0, "{page:?}");
}

#[test]
fn a_client_that_hangs_up_while_its_batch_runs_leaves_the_others_alone() {
    let (_repository, weir) = slow(LONG, "max_batch_size: 8 dynamic_batching { }", &[]);
    let running = occupied(&weir);
    let leaving = queued(&weir, 0, &rows_of_four(1));
    let staying = queued(&weir, 1, &rows_of_four(2));
    receive(running).expect(200);
    // Both are in one batch now.
    drop(leaving);
    assert_eq!(output0(receive(staying)).0, [2, 4]);
    weir.until("all are counted", |page| ended(page, "ok") == 2.0 && ended(page, "cancelled") == 1.0);
}

#[test]
fn higher_priority_levels_go_first() {
    let keys = "max_batch_size: 1 dynamic_batching { priority_levels: 2 default_priority_level: 2 }";
    let (_repository, weir) = slow(LONG, keys, &[]);
    let running = occupied(&weir);
    let of_level = |level: u64| with_parameter(rows_of_four(1), "priority", level);
    // Low, default (which is low) and high, in this order.
    let order =
        [("low", of_level(2)), ("low", rows_of_four(1)), ("high", of_level(1)), ("high", of_level(1))];
    let requests: Vec<_> =
        order.iter().enumerate().map(|(i, (name, body))| (*name, queued(&weir, i, body))).collect();
    let (tell, told) = channel();
    std::thread::scope(|scope| {
        for (name, request) in requests {
            let tell = tell.clone();
            scope.spawn(move || {
                receive(request).expect(200);
                tell.send(name)
            });
        }
    });
    drop(tell);
    receive(running).expect(200);
    assert_eq!(told.iter().collect::<Vec<_>>(), ["high", "high", "low", "low"]);
}

// ── Batches ──────────────────────────────────────────────────────────────────────────────────────────────────────

/// A server with `identity_fp32` in batches of up to 8 rows; `batching` are the keys of its `dynamic_batching`.
fn identity(batching: &str) -> (Repository, Weir) {
    let repository = Repository::new();
    let config = format!("max_batch_size: 8 dynamic_batching {{ {batching} }}");
    repository.model("identity", "tests/models/identity_fp32", &config);
    let weir = Weir::start(&repository, &[]);
    (repository, weir)
}

/// Sends one row of each width at once and holds that each comes back.
fn echo_rows(weir: &Weir, widths: &[usize]) {
    let row = |i: usize, width: usize| (0..width).map(|x| (i * 100 + x) as f32).collect::<Vec<_>>();
    let requests: Vec<_> = widths
        .iter()
        .enumerate()
        .map(|(i, &width)| (row(i, width), weir.ask("identity", &fp32(&[1, width], &row(i, width)))))
        .collect();
    for (sent, request) in requests {
        assert_eq!(output0(receive(request)), (vec![1, sent.len()], sent));
    }
}

/// Holds that no request waited for a delay of three seconds, by the server's own word: a busy machine answers late, too.
fn nobody_waited_for_the_delay(weir: &Weir) {
    let page = weir.page();
    let (waited, requests) =
        ["sum", "count"].map(|part| page.sum(&format!("weir_queue_duration_seconds_{part}"), &[])).into();
    assert!(requests > 0.0 && waited / requests < 1.5, "{}", page.text);
}

#[test]
fn a_batch_leaves_at_a_preferred_size_without_waiting_for_its_delay() {
    let (_repository, weir) = identity("preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 3000000");
    echo_rows(&weir, &[3; 4]);
    nobody_waited_for_the_delay(&weir);
    assert_eq!(calls_and_requests(&weir, "identity"), (1.0, 4.0));
    let page = weir.page();
    assert_eq!(page.sum("weir_batch_rows_sum", &[]), 4.0);
    let at_most = |rows| page.sum("weir_batch_rows_bucket", &[("le", rows)]);
    assert_eq!((at_most("2"), at_most("4")), (0.0, 1.0), "{}", page.text);
}

#[test]
fn a_batch_leaves_when_it_is_full_without_waiting_for_its_delay() {
    let (_repository, weir) = identity("max_queue_delay_microseconds: 3000000");
    echo_rows(&weir, &[3; 8]);
    nobody_waited_for_the_delay(&weir);
    assert_eq!(calls_and_requests(&weir, "identity"), (1.0, 8.0));
}

#[test]
fn a_batch_waits_for_company_until_its_delay_is_over() {
    let (_repository, weir) = identity("max_queue_delay_microseconds: 3000000");
    echo_rows(&weir, &[3; 5]);
    assert_eq!(calls_and_requests(&weir, "identity"), (1.0, 5.0));
}

#[test]
fn requests_of_different_shapes_never_share_a_batch() {
    let (_repository, weir) = identity("max_queue_delay_microseconds: 3000000");
    echo_rows(&weir, &[3, 5, 3, 5, 3]);
    assert_eq!(calls_and_requests(&weir, "identity"), (2.0, 5.0));
}

#[test]
fn requests_that_wait_for_a_busy_model_share_a_batch_up_to_its_size() {
    let (_repository, weir) = slow(MEDIUM, "max_batch_size: 8 dynamic_batching { }", &[]);
    let running = occupied(&weir);
    let waiting: Vec<_> = (0..5).map(|i| queued(&weir, i, &rows_of_four(2))).collect();
    for request in [running].into_iter().chain(waiting) {
        receive(request).expect(200);
    }
    // One alone, then four of two rows each, then the fifth.
    assert_eq!(calls_and_requests(&weir, "slow"), (3.0, 6.0));
}

#[test]
fn without_dynamic_batching_requests_run_one_by_one() {
    let (_repository, weir) = slow(MEDIUM, "max_batch_size: 8", &[]);
    let running = occupied(&weir);
    let waiting: Vec<_> = (0..3).map(|i| queued(&weir, i, &rows_of_four(2))).collect();
    for request in [running].into_iter().chain(waiting) {
        receive(request).expect(200);
    }
    assert_eq!(calls_and_requests(&weir, "slow"), (4.0, 4.0));
}

#[test]
fn a_request_larger_than_a_batch_is_refused_with_the_limit() {
    let weir = Weir::start(project("tests/models"), &["--max-batch-size", "16"]);
    for (model, limit) in [("slow", 8), ("external_data", 16)] {
        weir.infer(model, &rows_of_four(limit)).expect(200);
        let message = weir.infer(model, &rows_of_four(limit + 1)).error(400);
        assert!(message.contains(&format!("batch-size must be <= {limit}")), "{message}");
    }
    // A model that is not batched takes any number.
    assert_eq!(output0(weir.infer("mean_batch", &rows_of_four(100))).0, [100, 4]);
}

// ── Bodies ───────────────────────────────────────────────────────────────────────────────────────────────────────

const MESSAGE_BYTES_MAX: usize = 100_000;

fn with_small_bodies() -> Weir {
    Weir::start(project("models"), &["--max-message-bytes", &MESSAGE_BYTES_MAX.to_string()])
}

/// Holds that a request was refused for its size, counted, and that the server goes on.
fn refused_for_its_size(weir: &Weir, mut connection: Connection) {
    let message = connection.receive().expect("the refusal comes through").error(413);
    assert!(message.contains(&MESSAGE_BYTES_MAX.to_string()), "{message}");
    weir.until("it is counted", |page| ended(page, "invalid_argument") == 1.0);
    weir.infer("simple", &simple(1)).expect(200);
}

#[test]
fn a_body_of_the_largest_size_is_read() {
    let weir = with_small_bodies();
    let mut body = simple(1).to_string();
    body.push_str(&" ".repeat(MESSAGE_BYTES_MAX - body.len()));
    weir.connect().ask("POST", &infer_path("simple"), &[], body.as_bytes()).expect(200);
}

#[test]
fn a_body_that_is_announced_too_large_is_refused_before_it_is_sent() {
    let weir = with_small_bodies();
    let mut connection = weir.connect();
    let length = (MESSAGE_BYTES_MAX + 1).to_string();
    connection.head("POST", &infer_path("simple"), &[("content-length", &length)]);
    refused_for_its_size(&weir, connection);
}

#[test]
fn a_body_of_unknown_length_is_refused_as_soon_as_it_is_too_large() {
    let weir = with_small_bodies();
    let mut connection = weir.connect();
    connection.head("POST", &infer_path("simple"), &[("transfer-encoding", "chunked")]);
    let size = MESSAGE_BYTES_MAX + 1;
    connection.write(format!("{size:x}\r\n").as_bytes());
    connection.write(&vec![b' '; size]);
    // It is refused although its end has not come.
    refused_for_its_size(&weir, connection);
}

#[test]
fn a_body_that_unpacks_to_more_than_the_limit_is_refused() {
    let bomb = vec![b' '; 64 << 20];
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(&bomb).unwrap();
    let mut deflate = ZlibEncoder::new(Vec::new(), Compression::best());
    deflate.write_all(&bomb).unwrap();
    for (coding, packed) in [("gzip", gzip.finish().unwrap()), ("deflate", deflate.finish().unwrap())] {
        assert!(packed.len() < MESSAGE_BYTES_MAX, "{} bytes", packed.len());
        let weir = with_small_bodies();
        let mut connection = weir.connect();
        connection.send("POST", &infer_path("simple"), &[("content-encoding", coding)], &packed);
        refused_for_its_size(&weir, connection);
    }
}

#[test]
fn json_that_is_nested_without_end_is_refused() {
    let weir = Weir::start(project("models"), &[]);
    let nested = "[".repeat(1_000_000);
    let input = |rest: &str| format!(r#"{{"inputs":[{{"name":"INPUT0","datatype":"INT32",{rest}"#);
    for body in [
        nested.clone(),
        input(&format!(r#""shape":[1,16],"data":{nested}"#)),
        input(&format!(r#""shape":{nested}"#)),
        input(&format!(r#""parameters":{nested}"#)),
        format!(r#"{{"unknown":{nested}"#),
        format!(r#"{{"inputs":[],"parameters":{{"a":{nested}{}}}}}"#, "]".repeat(1_000_000)),
    ] {
        weir.connect().ask("POST", &infer_path("simple"), &[], body.as_bytes()).error(400);
    }
    weir.infer("simple", &simple(1)).expect(200);
}

#[test]
fn a_head_that_has_no_end_is_refused() {
    let weir = Weir::start(project("models"), &[]);
    let mut connection = weir.connect();
    connection.write(b"GET /v2 HTTP/1.1\r\nhost: weir\r\n");
    let line = format!("x-{}: y\r\n", "a".repeat(1000));
    // The server answers or hangs up; it never takes a megabyte of head.
    let refused = (0..1000).any(|_| connection.try_write(line.as_bytes()).is_err())
        || connection.receive().is_ok_and(|answer| answer.status == 431);
    assert!(refused);
    weir.infer("simple", &simple(1)).expect(200);
}

// ── Connections ──────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn the_streams_of_a_connection_are_limited_on_both_ports() {
    let weir = Weir::start(project("models"), &["--max-streams", "7"]);
    for (port, address) in [("grpc", weir.grpc), ("http", weir.http)] {
        assert_eq!(IdleChannel::open(address).streams_max(), Some(7), "{port}");
    }
}
