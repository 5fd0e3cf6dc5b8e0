//! The promises of the design that only a whole server can break.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::support::control::{arms, ask_digits, control, set_route};
use crate::support::http::Connection;
use crate::support::program::Program;
use crate::support::project;
use crate::support::repository::Repository;
use crate::support::tensors::{fp32, rows_of_four, simple, with_parameter};
use crate::support::versions::{Client, Served, WHY};
use crate::support::weir::{Weir, infer_path};

// ── INV-01: One request sees one snapshot ────────────────────────────────────────────────────────────────────────

/// How long what is live is changed under load.
const CHANGING: Duration = Duration::from_secs(3);

#[test]
fn inv_01_one_request_sees_one_snapshot_while_routes_change_as_fast_as_they_can() {
    let weir = Weir::start(project("models"), &[]);
    let stop = AtomicBool::new(false);
    let (stop, http) = (&stop, weir.http);
    let answers = std::thread::scope(|scope| {
        let client = || {
            let mut connection = Connection::open(http);
            let mut answers = [0u64; 4];
            while !stop.load(Ordering::Relaxed) {
                // Panics unless the version that the answer names is the one that computed it.
                answers[ask_digits(&mut connection, &[]) as usize] += 1;
            }
            answers
        };
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(client)).collect();
        let mut connection = weir.connect();
        let until = Instant::now() + CHANGING;
        let mut changes = 0u64;
        while Instant::now() < until || changes < 10 {
            let version = 1 + changes % 3;
            set_route(&weir, "digits", &arms(&[(version, 1.0)]));
            // Whoever asks after the change gets what it says.
            assert_eq!(ask_digits(&mut connection, &[]), version);
            changes += 1;
        }
        stop.store(true, Ordering::Relaxed);
        let answers =
            clients.into_iter().map(|client| client.join().expect("every answer is of one version"));
        answers.fold([0; 4], |sum: [u64; 4], one| std::array::from_fn(|i| sum[i] + one[i]))
    });
    assert!(answers[1..].iter().all(|count| *count > 0), "{answers:?}");
}

// ── INV-02: A change of route, load or unload fails no request that was accepted ─────────────────────────────────

/// What may answer: the versions that each change of the route makes live, in order.
#[derive(Default)]
struct History {
    begun: AtomicUsize,
    done: AtomicUsize,
    live: Mutex<Vec<Vec<u64>>>,
}

impl History {
    /// Makes a change of the route; from its beginning on `live` may answer, from its end on nothing else.
    fn change(&self, live: &[u64], change: impl FnOnce()) {
        self.live.lock().unwrap().push(live.to_vec());
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        change();
        self.done.store(number, Ordering::SeqCst);
    }

    /// Holds that a version that answered was live at some time since `done` changes were done.
    fn check(&self, done: usize, version: u64) {
        let begun = self.begun.load(Ordering::SeqCst);
        let live = self.live.lock().unwrap();
        let possible = &live[done - 1..begun];
        assert!(possible.iter().flatten().any(|v| *v == version), "{version} is none of {possible:?}");
    }
}

#[test]
fn inv_02_swaps_loads_and_changes_of_routes_fail_no_request() {
    let repository = Repository::new();
    repository.digits(&[1, 2, 3], "all {}");
    let weir = Weir::start(&repository, &[]);
    let (history, stop) = (History::default(), AtomicBool::new(false));
    let post = |version: u64, verb: &str| {
        control(&weir, "POST", &format!("models/digits/versions/{version}/{verb}"), &Value::Null).expect(200);
    };
    let route = |shares: &[(u64, f64)]| {
        let live: Vec<u64> = shares.iter().map(|(version, _)| *version).collect();
        history.change(&live, || _ = set_route(&weir, "digits", &arms(shares)));
    };
    route(&[(3, 1.0)]);
    let (history, stop, http) = (&history, &stop, weir.http);
    let answered: u64 = std::thread::scope(|scope| {
        let client = || {
            let mut answered = 0;
            while !stop.load(Ordering::Relaxed) {
                let mut connection = Connection::open(http);
                for _ in 0..50 {
                    let done = history.done.load(Ordering::SeqCst);
                    // Panics on any answer but a prediction.
                    history.check(done, ask_digits(&mut connection, &[]));
                    answered += 1;
                }
            }
            answered
        };
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(client)).collect();
        let until = Instant::now() + CHANGING;
        let mut rounds = 0;
        while Instant::now() < until || rounds < 2 {
            // The arm that answers is loaded anew, in the place of itself;
            post(3, "load");
            route(&[(2, 1.0), (3, 1.0)]);
            route(&[(1, 1.0)]);
            // versions that requests were on a moment ago go,
            post(2, "unload");
            post(3, "unload");
            post(1, "load");
            // and come back by a route.
            route(&[(2, 3.0), (3, 1.0)]);
            post(2, "load");
            route(&[(3, 1.0)]);
            rounds += 1;
        }
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().expect("no request fails")).sum()
    });
    let page = weir.until("every request is counted", |page| {
        page.sum("weir_requests_total", &[]) == page.sum("weir_requests_received_total", &[])
    });
    assert_eq!(page.sum("weir_requests_total", &[("outcome", "ok")]), answered as f64, "{page:?}");
    assert_eq!(page.sum("weir_requests_total", &[]), answered as f64, "{page:?}");
}

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
    ("--max-header-bytes", "431", "heads_that_are_too_long_or_have_too_many_lines_are_refused"),
    ("--max-headers", "431", "heads_that_are_too_long_or_have_too_many_lines_are_refused"),
    ("--max-json-depth", "400", "what_is_too_deep_too_long_or_too_many_is_refused_with_the_limit"),
    ("--max-string-bytes", "400", "what_is_too_deep_too_long_or_too_many_is_refused_with_the_limit"),
    ("--max-tensors", "400", "what_is_too_deep_too_long_or_too_many_is_refused_with_the_limit"),
    ("--max-parameters", "400", "messages_that_would_grow_when_decoded_are_refused_before"),
    ("--max-rank", "400", "messages_that_would_grow_when_decoded_are_refused_before"),
    ("--max-decompression-ratio", "413", "a_small_body_that_unpacks_to_a_large_one_is_refused_by_its_ratio"),
    ("--max-answer-bytes", "413", "an_answer_that_would_be_too_long_is_refused"),
    ("--max-bytes-in-flight", "429", "bytes_in_flight_are_bounded_over_all_connections"),
    ("--max-connections", "closed", "connections_above_the_limit_are_closed_at_once_and_the_metrics_stay"),
    ("--header-seconds", "408", "slow_heads_and_bodies_are_refused_and_do_not_hold_others_up"),
    ("--body-gap-seconds", "408", "bodies_that_do_not_come_end_their_calls"),
    ("--body-bytes-per-second", "408", "a_body_that_drips_is_refused"),
    ("--write-seconds", "closed", "a_client_that_does_not_read_its_answers_is_hung_up_on"),
    ("--idle-seconds", "closed", "connections_that_rest_too_long_are_ended_gently"),
    ("--ping-seconds", "closed", "who_says_hello_too_slowly_or_half_a_head_is_hung_up_on"),
    ("--max-model-bytes", "UNAVAILABLE", "a_version_whose_files_are_too_large_is_unavailable"),
    ("--max-output-bytes", "400", "outputs_beyond_the_limit_are_refused_and_the_worker_goes_on"),
    ("--connection-seconds-max", "closed", "connections_that_grow_old_are_ended_after_their_requests"),
];

#[test]
fn inv_04_every_limit_has_its_test() {
    let hostile = ["connections", "grpc", "http1", "http2", "json"].map(|file| format!("hostile/{file}.rs"));
    let tests = ["limits.rs", "lifecycle.rs", "isolation.rs"]
        .map(str::to_owned)
        .into_iter()
        .chain(hostile)
        .map(|file| std::fs::read_to_string(project("tests/it").join(file)).unwrap())
        .collect::<String>();
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

// ── INV-05: A shadow never delays, fails or alters an answer ────────────────────────────────────────────────────────

/// Milliseconds that each copy costs the shadow `burns`.
const SHADOW_MS: u32 = 2000;

const SHADOWED: usize = 40;

/// Status, headers and body of every answer, but for the headers that tell the time.
fn answers(client: &mut Client) -> Vec<(u16, Option<String>, Vec<u8>)> {
    let rows = |number: usize| {
        // Rows that make `fails` fail and `burns` burn; numbers of every size.
        let row = [number as f32, -0.0, 1e-30 * number as f32, SHADOW_MS as f32];
        with_parameter(fp32(&[1, 4], &row), "binary_data_output", number.is_multiple_of(2))
    };
    let ask = |number| {
        let answer = client.ask(&[], &rows(number));
        (answer.status, answer.header(WHY).map(str::to_owned), answer.body)
    };
    (0..SHADOWED).map(ask).collect()
}

#[test]
fn inv_05_a_shadow_never_delays_fails_or_alters_an_answer() {
    let shadows = [(2, "burns"), (3, "fails"), (4, "wide"), (5, "double"), (6, "first")];
    let served = Served::start(&[&[(1, "same")], &shadows[..]].concat());
    let mut client = served.client();
    let without = answers(&mut client);
    assert!(without.iter().all(|(status, why, _)| (*status, why.as_deref()) == (200, Some("weighted"))));

    let arms = json!([{"version": 1, "weight": 1}]);
    let shadows = shadows.map(|(version, _)| json!({"version": version, "share": 1}));
    served.put_route(&json!({"arms": arms, "shadows": shadows})).expect(200);
    let began = Instant::now();
    let with = answers(&mut client);
    let took = began.elapsed();
    assert!(with == without, "an answer is another with shadows than without");
    let if_awaited = Duration::from_millis(u64::from(SHADOW_MS)) * SHADOWED as u32;
    assert!(took < if_awaited / 8, "{SHADOWED} answers took {took:?}");
    // The others had the requests, and were as bad as they are.
    for (shadow, outcome) in [("3", "failed"), ("4", "refused"), ("5", "compared"), ("6", "compared")] {
        let labels = [("version", "1"), ("shadow", shadow), ("outcome", outcome)];
        served.weir.until("each copy came to its end", |page| {
            page.sum("weir_shadow_requests_total", &labels) == SHADOWED as f64
        });
    }
    let page = served.weir.page();
    let ended = page.sum("weir_requests_total", &[("version", "1"), ("outcome", "ok")]);
    assert_eq!(ended, 2.0 * SHADOWED as f64, "copies are no requests: {page:?}");
    assert_eq!(page.sum("weir_requests_total", &[]), ended);
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
