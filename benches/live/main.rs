//! Changes what is live while requests come in, and measures what the requests notice of it.
//!
//!     cargo bench --bench live -- a [pairs=10] [seconds=10] [load=0.8]
//!     cargo bench --bench live -- b [swaps=200] [megabytes=90] [rate=1000]
//!     cargo bench --bench live -- c [pairs=10] [seconds=5] [load=0.8]
//!
//! a: versions swap every two seconds, routes change every second and a rollout runs, against stretches in which
//! nothing changes. b: a large model is swapped again and again; memory. c: shadows that are slow, wrong or broken,
//! against the same server without one. Whatever is compared is measured in turns, and the table gives medians of
//! ratios with their quartiles.
//!
//! It writes its models itself, starts the release binary on free ports, and needs Linux. The generator shares the
//! machine with the server; on two cores it takes about a quarter of them.

// A panic is how a benchmark says that there is nothing to measure.
#![allow(clippy::unwrap_used)]

mod changes;
mod load;
mod models;
mod reload;
mod shadows;
#[path = "../../tests/it/support/mod.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use load::{Generator, Sample};
use serde_json::{Value, json};
use support::http::{Answer, Connection};

/// Connections for good and bad times; the server has a thread for none of them.
const CONNECTIONS: usize = 512;

/// Connections that are kept busy to find out how much the server can take.
const BUSY_CONNECTIONS: usize = 32;

/// `name=value` on the command line.
struct Options(Vec<String>);

impl Options {
    fn get(&self, name: &str, default: f64) -> f64 {
        let value = self.0.iter().find_map(|option| option.strip_prefix(name)?.strip_prefix('='));
        value.map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
    }
}

fn main() {
    // Cargo adds `--bench`.
    let mut arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let scenario = if arguments.is_empty() { String::new() } else { arguments.remove(0) };
    let options = Options(arguments);
    match scenario.as_str() {
        "a" => changes::measure(&options),
        "b" => reload::measure(&options),
        "c" => shadows::measure(&options),
        _ => eprintln!("cargo bench --bench live -- a|b|c; see benches/live/main.rs"),
    }
}

/// Requests a second that the server answers when it is never idle, the middle one of five trials.
fn capacity(generator: &Generator) -> f64 {
    generator.closed_loop(BUSY_CONNECTIONS, Duration::from_secs(2));
    let time = Duration::from_secs(2);
    let trial = |_| generator.closed_loop(BUSY_CONNECTIONS, time).len() as f64 / time.as_secs_f64();
    let [_, middle, _] = load::quartiles((0..5).map(trial).collect());
    println!("capacity   {middle:.0} requests/s, {BUSY_CONNECTIONS} connections");
    middle
}

/// An open loop that lasts `time`.
fn stretch(generator: &Generator, rate: f64, time: Duration) -> Vec<Sample> {
    let until = Instant::now() + time;
    generator.open_loop(rate, || Instant::now() < until)
}

/// Asks the control API about a model.
fn ask(server: SocketAddr, method: &str, path: &str, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    Connection::open(server).ask(method, &format!("/control/v1/models/{path}"), &[], body.as_bytes())
}

/// Asks the control API; panics unless it does what it was asked to.
fn control(server: SocketAddr, method: &str, path: &str, body: &Value) -> Value {
    ask(server, method, path, body).expect(200).json()
}

/// The route that gives everything to one version.
fn only(version: u64) -> Value {
    json!({"arms": [{"version": version, "weight": 100}]})
}

/// How much of the machine was idle between two readings.
struct Processor([u64; 2]);

impl Processor {
    fn read() -> Self {
        let stat = std::fs::read_to_string("/proc/stat").unwrap();
        let ticks: Vec<u64> =
            stat.lines().next().unwrap().split(' ').filter_map(|t| t.parse().ok()).collect();
        Self([ticks[3], ticks.iter().take(8).sum()])
    }

    fn idle_since(&self) -> f64 {
        let Self([idle, all]) = Self::read();
        (idle - self.0[0]) as f64 / (all - self.0[1]).max(1) as f64
    }
}
