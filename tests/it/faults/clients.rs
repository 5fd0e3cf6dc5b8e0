//! What clients do: they do not read, they hang up, and they ask for ten times what there is.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::TcpStream;

use super::{GOOD, answers, whole, with_good};
use crate::support::http::Connection;
use crate::support::tensors::rows_of_four;
use crate::support::weir::{Weir, infer_path};

#[test]
fn clients_that_never_read_their_answers_hold_nobody_up() {
    let repository = with_good();
    let weir = Weir::start(&repository, &[]);
    // An answer is larger than what the system keeps for a client that does not read.
    let numbers = 2_000_000;
    let data = vec!["1.25"; numbers].join(",");
    let body = format!(
        "{{\"inputs\":[{{\"name\":\"INPUT0\",\"datatype\":\"FP32\",\"shape\":[1,{numbers}],\"data\":[{data}]}}]}}"
    );
    let readers: Vec<Connection> = (0..3)
        .map(|_| {
            let mut connection = weir.connect();
            connection.send("POST", &infer_path(GOOD), &[], body.as_bytes());
            connection
        })
        .collect();
    weir.until("all have asked", |page| page.sum("weir_requests_received_total", &[]) == 3.0);
    (0..20).for_each(|_| answers(&weir));
    drop(readers);
    whole(&weir);
}

/// Sends requests and hangs up within each or right after it.
fn hang_up(http: SocketAddr, count: usize) {
    let body = rows_of_four(1).to_string();
    let length = (body.len() + 10).to_string();
    for i in 0..count {
        let mut connection = Connection::open(http);
        match i % 3 {
            0 => connection.send("POST", &infer_path("slow"), &[], body.as_bytes()),
            1 => connection.write(b"POST /v2/models/slow/infer HTTP/1.1\r\nhost: we"),
            _ => {
                connection.head("POST", &infer_path("slow"), &[("content-length", &length)]);
                connection.write(body.as_bytes());
            }
        }
    }
}

/// Opens streams and resets each, half of them after the whole request. The server may have enough and hang up.
async fn reset(http: SocketAddr, count: usize) -> Result<(), h2::Error> {
    let stream = TcpStream::connect(http).await.expect("the server listens");
    let (client, connection) = h2::client::handshake(stream).await?;
    let driver = tokio::spawn(connection);
    let body = Bytes::from(rows_of_four(1).to_string());
    for i in 0..count {
        let mut client = client.clone().ready().await?;
        let request = http::Request::post(format!("http://{http}{}", infer_path("slow"))).body(()).unwrap();
        let (_response, mut sender) = client.send_request(request, false)?;
        let whole = i % 2 == 0;
        sender.send_data(if whole { body.clone() } else { body.slice(..10) }, whole)?;
        tokio::task::yield_now().await;
        sender.send_reset(h2::Reason::CANCEL);
        // Some are read by the server before they are taken back.
        if i % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    driver.abort();
    Ok(())
}

#[test]
fn a_storm_of_cancelled_requests_leaves_nothing_behind() {
    let repository = with_good();
    repository.slow(1, "max_batch_size: 8 dynamic_batching { }");
    let weir = Weir::start(&repository, &[]);
    let http = weir.http;
    std::thread::scope(|scope| {
        (0..4).for_each(|_| _ = scope.spawn(move || hang_up(http, 300)));
        scope.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            (0..20).for_each(|_| _ = runtime.block_on(reset(http, 60)));
        });
        (0..20).for_each(|_| answers(&weir));
    });
    let page =
        weir.until("no connection is left", |page| page.sum("weir_connections", &[("port", "http")]) == 0.0);
    let cancelled = page.sum("weir_requests_total", &[("outcome", "cancelled")]);
    assert!(cancelled > 100.0, "{page:?}");
    weir.infer("slow", &rows_of_four(1)).expect(200);
    whole(&weir);
}

/// Asks `slow` at fixed times, whatever comes back; each status, and how long it took.
fn ask_at(http: SocketAddr, first: Instant, every: Duration, until: Instant) -> Vec<(u16, bool, Duration)> {
    let mut connection = Connection::open(http);
    let body = rows_of_four(1).to_string();
    let mut answers = Vec::new();
    let mut due = first;
    while due < until && Instant::now() < until {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let asked = Instant::now();
        let answer = connection.ask("POST", &infer_path("slow"), &[], body.as_bytes());
        answers.push((answer.status, answer.header("retry-after").is_some(), asked.elapsed()));
        due += every;
    }
    answers
}

#[test]
fn ten_times_what_a_model_can_do_is_refused_quickly_and_the_model_stays_busy() {
    const CLIENTS: u32 = 48;
    const LASTING: Duration = Duration::from_secs(3);
    let repository = with_good();
    repository.slow(1, "max_batch_size: 1 dynamic_batching { default_queue_policy { max_queue_size: 8 } }");
    let weir = Weir::start(&repository, &[]);
    // Capacity: what clients get that wait for each answer.
    let http = weir.http;
    let storm = |clients: u32, every: Duration| {
        let begin = Instant::now();
        let answers: Vec<_> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..clients)
                .map(|i| {
                    let first = begin + every * i / clients;
                    scope.spawn(move || ask_at(http, first, every, begin + LASTING))
                })
                .collect();
            clients.into_iter().flat_map(|client| client.join().expect("all are answered")).collect()
        });
        (answers, begin.elapsed())
    };
    let rate = |answers: &[(u16, bool, Duration)], took: Duration| {
        answers.iter().filter(|(status, ..)| *status == 200).count() as f64 / took.as_secs_f64()
    };
    let (alone, took) = storm(2, Duration::from_micros(1));
    let capacity = rate(&alone, took);
    let (answers, took) = storm(CLIENTS, Duration::from_secs_f64(f64::from(CLIENTS) / (10.0 * capacity)));
    let goodput = rate(&answers, took);
    let mut refused: Vec<Duration> =
        answers.iter().filter(|(status, ..)| *status == 429).map(|(.., took)| *took).collect();
    refused.sort_unstable();
    let middle = refused.get(refused.len() / 2).copied().unwrap_or_default();
    eprintln!(
        "capacity {capacity:.1}/s, asked {:.0}/s, goodput {goodput:.1}/s, {} refused, half of them in {middle:?}",
        answers.len() as f64 / took.as_secs_f64(),
        refused.len()
    );
    assert!(
        answers.iter().all(|(status, again, _)| *status == 200 || (*status == 429 && *again)),
        "{answers:?}"
    );
    assert!(goodput >= capacity / 2.0, "{goodput:.1} of {capacity:.1} requests in a second");
    assert!(refused.len() > answers.len() / 4, "{} of {}", refused.len(), answers.len());
    assert!(middle < Duration::from_millis(500), "{middle:?}");
    whole(&weir);
}
