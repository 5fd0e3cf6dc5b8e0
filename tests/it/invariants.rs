//! The promises of the design that only a whole server can break.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::support::http::Connection;
use crate::support::program::Program;
use crate::support::project;
use crate::support::repository::Repository;
use crate::support::tensors::{fp32, rows_of_four, simple, with_parameter};
use crate::support::weir::{Weir, infer_path};

// ── INV-03: A batch's answers are those each request would have had alone ────────────────────────────────────────

const CLIENTS: usize = 32;
const REQUESTS_PER_CLIENT: usize = 6;

/// A request as its headers and body. All of one model have one shape, so that they may share batches.
struct Sent {
    model: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
}

impl Sent {
    fn ask(&self, connection: &mut Connection) -> Vec<u8> {
        connection.ask("POST", &infer_path(self.model), &self.headers, &self.body).expect(200).body
    }
}

/// The requests of one client: sums of integers, and floats of any bits, NaN and subnormal ones among them.
fn requests_of(client: usize) -> Vec<Sent> {
    let request = |i: usize| {
        let seed = client * REQUESTS_PER_CLIENT + i;
        if seed.is_multiple_of(2) {
            let body = with_parameter(simple(seed as i32), "binary_data_output", true);
            return Sent { model: "simple", headers: vec![], body: body.to_string().into_bytes() };
        }
        // Knuth's multiplicative hash scatters the bits.
        let bits = |x: u32| (seed as u32 * 16 + x).wrapping_mul(2_654_435_761);
        let body = (0..16).flat_map(|x| bits(x).to_le_bytes()).collect();
        // A raw body: the one input's bytes and nothing else.
        Sent { model: "identity", headers: vec![("inference-header-content-length", "0")], body }
    };
    (0..REQUESTS_PER_CLIENT).map(request).collect()
}

/// A server with both models, whose batches wait for company as long as `delay_us`.
fn batching(delay_us: u32) -> (Repository, Weir) {
    let repository = Repository::new();
    let config = format!(
        "max_batch_size: 8 dynamic_batching {{ max_queue_delay_microseconds: {delay_us} }} \
         instance_group [ {{ count: 2 kind: KIND_CPU }} ]"
    );
    repository.model("simple", "models/simple", &config);
    repository.model("identity", "tests/models/identity_fp32", &config);
    let weir = Weir::start(&repository, &[]);
    (repository, weir)
}

#[test]
fn inv_03_a_batchs_answers_are_those_each_request_would_have_had_alone() {
    let requests: Vec<Vec<Sent>> = (0..CLIENTS).map(requests_of).collect();
    let (_repository, weir) = batching(0);
    let mut connection = weir.connect();
    let alone: Vec<Vec<Vec<u8>>> =
        requests.iter().map(|own| own.iter().map(|sent| sent.ask(&mut connection)).collect()).collect();
    let page = weir.page();
    let total = (CLIENTS * REQUESTS_PER_CLIENT) as f64;
    assert_eq!(page.sum("weir_session_calls_total", &[]), total, "each ran alone");

    let (_repository, weir) = batching(50_000);
    std::thread::scope(|scope| {
        for (own, alone) in requests.iter().zip(&alone) {
            let mut connection = weir.connect();
            scope.spawn(move || {
                for (sent, expected) in own.iter().zip(alone) {
                    assert_eq!(&sent.ask(&mut connection), expected, "{}", sent.model);
                }
            });
        }
    });
    let page = weir.page();
    assert_eq!(page.sum("weir_batch_requests_sum", &[]), total);
    for model in ["simple", "identity"] {
        let calls = page.sum("weir_session_calls_total", &[("model", model)]);
        assert!(calls < total / 2.0, "nothing was batched: {calls} calls of {model}");
    }
}

/// Regression: an output that is an input borrowed the request's bytes, which ended before the answer was written.
#[test]
fn an_output_that_is_an_input_carries_its_own_requests_bytes() {
    let weir = Weir::start(project("tests/models"), &[]);
    let floats = |outputs: &Value, i: usize| -> Vec<f32> {
        outputs[i]["data"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
    };
    let http = weir.http;
    std::thread::scope(|scope| {
        for client in 0..4 {
            scope.spawn(move || {
                let mut connection = Connection::open(http);
                for request in 0..10 {
                    let sent: Vec<f32> =
                        (0..4000).map(|i| (client * 1_000_000 + request * 10_000 + i) as f32).collect();
                    let body = fp32(&[1, sent.len()], &sent).to_string();
                    let answer = connection.ask("POST", &infer_path("echo_input"), &[], body.as_bytes());
                    let answer = answer.expect(200).json();
                    let negated: Vec<f32> = sent.iter().map(|v| -v).collect();
                    assert_eq!(floats(&answer["outputs"], 0), negated);
                    assert_eq!(floats(&answer["outputs"], 1), sent);
                }
            });
        }
    });
}

// ── INV-04: Every queue, body, batch and retry has a limit, and says what happens at it ──────────────────────────

/// Each limit by its flag or its key in config.pbtxt, what happens at it, and the test that goes there.
const LIMITS: &[(&str, &str, &str)] = &[
    ("--max-queue-size", "429", "the_servers_own_queue_size_holds_where_the_config_has_none"),
    ("max_queue_size", "429", "a_full_queue_refuses_at_once_while_the_model_is_busy"),
    ("--max-requests-in-flight", "429", "more_requests_than_may_be_in_flight_are_refused_at_once"),
    ("--max-batch-size", "400", "a_request_larger_than_a_batch_is_refused_with_the_limit"),
    ("max_batch_size", "400", "a_request_larger_than_a_batch_is_refused_with_the_limit"),
    ("--max-message-bytes", "413", "a_body_that_is_announced_too_large_is_refused_before_it_is_sent"),
    ("--max-message-bytes", "413", "a_body_of_unknown_length_is_refused_as_soon_as_it_is_too_large"),
    ("--max-message-bytes", "413", "a_body_that_unpacks_to_more_than_the_limit_is_refused"),
    ("--max-streams", "the client waits", "the_streams_of_a_connection_are_limited_on_both_ports"),
    ("--drain-seconds", "cut off", "a_client_that_stalls_within_a_request_is_cut_off_when_the_drain_is_over"),
    ("--drain-seconds", "cut off", "a_drain_without_time_cuts_requests_off_and_still_ends_with_success"),
    ("default_timeout_microseconds", "504", "the_configs_own_timeout_rejects_what_waits_too_long"),
    ("timeout", "504", "a_timeout_ends_the_wait_and_the_request_never_reaches_the_session"),
    ("max_queue_delay_microseconds", "runs", "a_batch_waits_for_company_until_its_delay_is_over"),
    ("nesting of JSON", "400", "json_that_is_nested_without_end_is_refused"),
    ("head of a request", "431", "a_head_that_has_no_end_is_refused"),
];

#[test]
fn inv_04_every_limit_has_its_test() {
    let tests = ["limits.rs", "lifecycle.rs"]
        .map(|file| std::fs::read_to_string(project("tests/it").join(file)).unwrap())
        .concat();
    for (limit, outcome, test) in LIMITS {
        assert!(tests.contains(&format!("#[test]\nfn {test}()")), "{limit}, {outcome}: no test '{test}'");
    }
    let help = Program::new(&["serve", "--help"]).run().stdout;
    let flags: Vec<&str> = help
        .split_whitespace()
        .filter(|word| word.starts_with("--max-") || *word == "--drain-seconds")
        .collect();
    assert!(flags.len() >= 6, "{flags:?}");
    for flag in flags {
        assert!(LIMITS.iter().any(|(limit, ..)| *limit == flag), "{flag} is not in the table");
    }
}

// ── INV-08: The sum of all outcomes counted equals the requests received ─────────────────────────────────────────

const STORM_CLIENTS: usize = 8;
const STORM_ROUNDS: usize = 6;

/// How a request of the storm is wrong, and the outcomes that it may have.
struct Case {
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    outcomes: &'static [&'static str],
}

fn case(path: &str, body: &Value, outcomes: &'static [&'static str]) -> Case {
    Case { path: path.to_owned(), headers: vec![], body: body.to_string().into_bytes(), outcomes }
}

/// Requests of every kind. Whatever is sent to `slow` may find its queue full.
fn storm() -> Vec<Case> {
    let good = simple(1);
    let to_simple = infer_path("simple");
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&vec![b' '; 1 << 20]).unwrap();
    let packed = packed.finish().unwrap();
    let as_gzip = |body: Vec<u8>| Case {
        headers: vec![("content-encoding", "gzip".to_owned())],
        body,
        ..case(&to_simple, &good, &["invalid_argument"])
    };
    vec![
        case(&to_simple, &good, &["ok"]),
        case(&to_simple, &json!({}), &["invalid_argument"]),
        case(&to_simple, &rows_of_four(1), &["invalid_argument"]),
        Case { body: b"{".to_vec(), ..case(&to_simple, &good, &["invalid_argument"]) },
        as_gzip(packed),
        as_gzip(b"no gzip".to_vec()),
        Case {
            headers: vec![("content-encoding", "br".to_owned())],
            ..case(&to_simple, &good, &["invalid_argument"])
        },
        case(&infer_path("unknown"), &good, &["not_found"]),
        case("/v2/models/simple/versions/9/infer", &good, &["not_found"]),
        case(&infer_path("broken"), &good, &["not_found"]),
        case(&infer_path("slow"), &rows_of_four(1), &["ok", "overloaded"]),
        case(
            &infer_path("slow"),
            &with_parameter(rows_of_four(1), "timeout", 1000),
            &["ok", "deadline_exceeded", "overloaded"],
        ),
    ]
}

/// The outcome that an answer's status tells.
fn outcome_of(status: u16, case: &Case) -> &'static str {
    match status {
        200 => "ok",
        // An unknown model is a bad request on the wire, and is counted as not found.
        400 if case.outcomes == ["not_found"] => "not_found",
        400 | 413 | 415 => "invalid_argument",
        404 => "not_found",
        429 => "overloaded",
        504 => "deadline_exceeded",
        other => panic!("nothing in the storm is answered {other}"),
    }
}

/// Sends the whole storm in an order of its own; gives how many answers had each outcome.
fn send_storm(http: SocketAddr, client: usize) -> BTreeMap<&'static str, f64> {
    let mut cases = storm();
    let mut outcomes = BTreeMap::new();
    for round in 0..STORM_ROUNDS {
        cases.rotate_left(client % 5 + round + 1);
        for case in &cases {
            let headers: Vec<_> = case.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let mut connection = Connection::open(http);
            connection.send("POST", &case.path, &headers, &case.body);
            let answer = connection.receive().expect("each request is answered");
            let outcome = outcome_of(answer.status, case);
            assert!(case.outcomes.contains(&outcome), "{}: {}", answer.status, answer.text());
            *outcomes.entry(outcome).or_default() += 1.0;
        }
        let path = infer_path("simple");
        // This client hangs up within the body,
        let mut connection = Connection::open(http);
        connection.head("POST", &path, &[("content-length", "1000")]);
        connection.write(b"{\"inputs\":");
        // and this one when its request may be answered already.
        let mut connection = Connection::open(http);
        connection.send("POST", &path, &[], simple(2).to_string().as_bytes());
    }
    outcomes
}

#[test]
fn inv_08_the_sum_of_all_outcomes_equals_the_requests_received() {
    let repository = Repository::new();
    repository.slow(3, "max_batch_size: 1 dynamic_batching { default_queue_policy { max_queue_size: 2 } }");
    repository.copy("models/simple", "simple").write("broken/1/model.onnx", "no model");
    let weir = Weir::start(&repository, &["--max-message-bytes", "100000"]);
    let mut seen: BTreeMap<&str, f64> = BTreeMap::new();
    let http = weir.http;
    std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..STORM_CLIENTS).map(|client| scope.spawn(move || send_storm(http, client))).collect();
        for client in clients {
            for (outcome, count) in client.join().expect("a client's storm goes as it should") {
                *seen.entry(outcome).or_default() += count;
            }
        }
    });
    let answered: f64 = seen.values().sum();
    let hung_up = (STORM_CLIENTS * STORM_ROUNDS) as f64;
    let page = weir.until("every request that arrived has ended, and is counted once", |page| {
        let received = page.sum("weir_requests_received_total", &[]);
        received >= answered + hung_up && page.sum("weir_requests_total", &[]) == received
    });
    // A client that is gone before its request is read has sent none.
    let received = page.sum("weir_requests_received_total", &[]);
    assert!(received <= answered + 2.0 * hung_up, "{page:?}");
    let ended = |outcome| page.sum("weir_requests_total", &[("outcome", outcome)]);
    // How those who hung up are counted is for `limits` to say; they add to no other outcome than these.
    let of_hung_up = ["ok", "cancelled", "invalid_argument"];
    for (outcome, count) in &seen {
        let exact = ended(outcome) == *count || (of_hung_up.contains(outcome) && ended(outcome) >= *count);
        assert!(exact, "{outcome} was answered {count} times: {page:?}");
    }
    for outcome in ["ok", "invalid_argument", "not_found", "overloaded", "deadline_exceeded"] {
        assert!(seen.contains_key(outcome), "the storm had no {outcome}");
    }
    weir.until("the server is empty", |page| {
        ["weir_requests_in_flight", "weir_queue_depth"].iter().all(|gauge| page.sum(gauge, &[]) == 0.0)
    });
}
