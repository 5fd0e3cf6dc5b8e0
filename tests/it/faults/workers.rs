//! What happens to the processes that models run in: they are killed, stopped, or ended by a request.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{GOOD, ISOLATED, good_on, signal, stat, whole, with_good, workers};
use crate::support::eventually;
use crate::support::http::Connection;
use crate::support::onnx::{Graph, INT32, INT64};
use crate::support::repository::Repository;
use crate::support::tensors::{fp32, tensor};
use crate::support::weir::{Weir, infer_path};

/// What the server writes each time that it starts a worker again.
const RESTART: &str = "it is started again";

/// Longer than a call may take that is ended after a second, a worker to start again, and a busy machine in between.
const SOON: Duration = Duration::from_secs(15);

fn isolated() -> (Repository, Weir) {
    let repository = with_good();
    repository.model("isolated", "tests/models/identity_fp32", ISOLATED);
    let weir = Weir::start(&repository, &["--session-seconds-max", "1"]);
    (repository, weir)
}

#[track_caller]
fn only_worker(weir: &Weir) -> u32 {
    let workers = workers(weir);
    assert_eq!(workers.len(), 1, "{workers:?}");
    workers[0]
}

fn ask(weir: &Weir, model: &str) -> u16 {
    weir.infer(model, &fp32(&[1, 2], &[1.0, 2.0])).status
}

#[test]
fn a_worker_that_is_killed_while_idle_is_not_missed() {
    let (_repository, weir) = isolated();
    for round in 1..=3 {
        let worker = only_worker(&weir);
        signal(worker, "KILL");
        eventually("the server has noticed", || stat(worker).is_none().then_some(()));
        assert_eq!(ask(&weir, "isolated"), 200, "round {round}: {}", weir.errors());
        assert_ne!(only_worker(&weir), worker);
        assert_eq!(weir.errors().matches(RESTART).count(), round);
    }
    whole(&weir);
}

#[test]
fn a_worker_that_is_killed_under_load_fails_the_call_that_it_ran_and_no_other() {
    const KILLS: usize = 2;
    let repository = with_good();
    repository.slow(1, &format!("max_batch_size: 1 {}", ISOLATED.split(" instance_group").next().unwrap()));
    let weir = Weir::start(&repository, &[]);
    let (http, stop) = (weir.http, AtomicBool::new(false));
    let answers = std::thread::scope(|scope| {
        let client = || {
            let mut connection = Connection::open(http);
            let body = crate::support::tensors::rows_of_four(1).to_string();
            let mut answers = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let answer = connection.ask("POST", &infer_path("slow"), &[], body.as_bytes());
                answers.push(answer.status);
            }
            answers
        };
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(client)).collect();
        for kill in 1..=KILLS {
            std::thread::sleep(Duration::from_millis(300));
            signal(only_worker(&weir), "KILL");
            eventually("it is started again", || {
                (weir.errors().matches(RESTART).count() == kill && workers(&weir).len() == 1).then_some(())
            });
            let served = weir.page().sum("weir_requests_total", &[("outcome", "ok")]);
            weir.until("it serves", |page| {
                page.sum("weir_requests_total", &[("outcome", "ok")]) > served + 3.0
            });
        }
        stop.store(true, Ordering::Relaxed);
        clients
            .into_iter()
            .flat_map(|client| client.join().expect("each request is answered"))
            .collect::<Vec<_>>()
    });
    let mut by_status = BTreeMap::<u16, usize>::new();
    answers.iter().for_each(|status| *by_status.entry(*status).or_default() += 1);
    let count = |status| by_status.get(&status).copied().unwrap_or(0);
    assert!(count(400) <= KILLS, "{by_status:?}");
    // A client is told to come back when the machine takes long to start a worker.
    assert_eq!(count(200) + count(400) + count(503), answers.len(), "{by_status:?}");
    assert!(count(200) > count(503), "{by_status:?}");
    whole(&weir);
}

#[test]
fn a_worker_that_stands_still_is_replaced_once_its_call_has_had_its_time() {
    let (_repository, weir) = isolated();
    let worker = only_worker(&weir);
    signal(worker, "STOP");
    let asked = Instant::now();
    let reason = weir.infer("isolated", &fp32(&[1, 2], &[1.0, 2.0])).error(400);
    assert!(reason.contains("did not come to an end"), "{reason}");
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    eventually("it is gone", || stat(worker).is_none().then_some(()));
    assert_eq!(ask(&weir, "isolated"), 200);
    whole(&weir);
}

/// A repository with `divide`, which divides integers and crashes at what no processor divides.
fn with_division() -> Repository {
    let repository = with_good();
    let any = [None];
    let graph = Graph::default().input_of(INT32, "a", &any).input_of(INT32, "b", &any);
    let graph = graph.output_of(INT32, "y", &any).node("Div", &["a", "b"], "y");
    repository.write("divide/1/model.onnx", graph.file());
    repository
}

fn divide(a: i32, b: i32) -> Value {
    let input = |name, value| tensor(name, "INT32", &[1], &json!([value]));
    json!({"inputs": [input("a", a), input("b", b)]})
}

#[test]
fn a_request_that_ends_its_worker_is_told_and_nobody_else_notices() {
    let repository = with_division();
    let weir = Weir::start(&repository, &[]);
    assert_eq!(weir.state("divide"), ("READY".to_owned(), String::new()));
    let (http, stop) = (weir.http, AtomicBool::new(false));
    std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            let mut connection = Connection::open(http);
            while !stop.load(Ordering::Relaxed) {
                good_on(&mut connection);
            }
        });
        for _ in 0..2 {
            let reason = weir.infer("divide", &divide(i32::MIN, -1)).error(400);
            assert!(reason.contains("it crashed") && !reason.contains("SIG"), "{reason}");
            let answer = weir.infer("divide", &divide(42, 7)).expect(200).json();
            assert_eq!(answer["outputs"][0]["data"], json!([6]));
        }
        stop.store(true, Ordering::Relaxed);
        others.join().expect("other models answer all the while");
    });
    whole(&weir);
}

#[test]
fn requests_beside_one_that_ends_their_worker_are_answered() {
    let repository = with_division();
    repository.write("divide/config.pbtxt", "instance_group [ { count: 3 kind: KIND_CPU } ]");
    let weir = Weir::start(&repository, &[]);
    let (http, stop) = (weir.http, AtomicBool::new(false));
    let answers = std::thread::scope(|scope| {
        let client = || {
            let mut connection = Connection::open(http);
            let body = divide(42, 7).to_string();
            let mut answers = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                answers.push(connection.ask("POST", &infer_path("divide"), &[], body.as_bytes()));
            }
            answers
        };
        let clients: Vec<_> = (0..3).map(|_| scope.spawn(client)).collect();
        for _ in 0..6 {
            let refused = weir.infer("divide", &divide(i32::MIN, -1));
            // With others all the while, a machine may take long to start a worker for it.
            assert!([400, 503].contains(&refused.status), "{refused:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    let blamed: Vec<_> = answers.iter().filter(|answer| ![200, 503].contains(&answer.status)).collect();
    assert!(blamed.is_empty(), "{} of {}: {:?}", blamed.len(), answers.len(), blamed[0]);
    let answered = answers.iter().filter(|answer| answer.status == 200).count();
    assert!(answered > answers.len() / 2, "{answered} of {}", answers.len());
    whole(&weir);
}

/// A server with `loop`, which runs as often as a request says.
fn looping(seconds_max: &str) -> (Repository, Weir) {
    let repository = with_good();
    let graph = Graph::default().input_of(INT64, "n", &[]).input("x", &[None]).output("y", &[None]);
    repository.write("loop/1/model.onnx", graph.negating_loop("n", "x", "y").file());
    repository.write("loop/config.pbtxt", "instance_group [ { count: 1 kind: KIND_CPU } ]");
    let weir = Weir::start(&repository, &["--session-seconds-max", seconds_max]);
    assert_eq!(weir.state("loop"), ("READY".to_owned(), String::new()));
    (repository, weir)
}

fn times(count: i64) -> Value {
    json!({"inputs": [tensor("n", "INT64", &[], &json!([count])), tensor("x", "FP32", &[1], &json!([1.5]))]})
}

/// Holds that `loop` answers, and soon.
#[track_caller]
fn loops(weir: &Weir) {
    let asked = Instant::now();
    let answer = weir.infer("loop", &times(3)).expect(200).json();
    assert_eq!(answer["outputs"][0]["data"], json!([-1.5]));
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    eprintln!("the next request was answered in {:?}", asked.elapsed());
}

#[test]
fn a_request_that_never_ends_is_ended_and_told() {
    let (_repository, weir) = looping("1");
    let asked = Instant::now();
    let reason = weir.infer("loop", &times(i64::MAX)).error(400);
    assert!(reason.contains("did not come to an end"), "{reason}");
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    loops(&weir);
    whole(&weir);
}

#[test]
fn a_request_that_never_ends_goes_with_its_client() {
    // Only the client's going can end it.
    let (_repository, weir) = looping("600");
    let mut connection = weir.connect();
    connection.send("POST", &infer_path("loop"), &[], times(i64::MAX).to_string().as_bytes());
    weir.until("it runs", |page| page.sum("weir_session_calls_in_flight", &[]) == 1.0);
    assert_eq!(ask(&weir, GOOD), 200);
    drop(connection);
    loops(&weir);
    whole(&weir);
}
