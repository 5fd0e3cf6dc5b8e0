//! What was measured, in the form that `--json` writes. Times are microseconds.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::measure::Phase;
use super::plan::{Load, Protocol};
use super::tally::Tally;

/// Requests that are sent later than this on average of the worst hundredth make a table untrue.
const LAG_US_MAX: f64 = 1000.0;

/// All that a run of `weir bench` measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub model: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    pub seed: u64,
    pub threads: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objective_ms: Option<f64>,
    pub rows: Vec<Row>,
    /// The outcome of `--find-rate`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<Found>,
    /// Whether it was ended before its time.
    pub interrupted: bool,
}

/// The highest rate that was found for a protocol.
#[derive(Debug, Clone, Serialize)]
pub struct Found {
    pub protocol: &'static str,
    /// None: not even the lowest rate that was tried had enough on time.
    pub requests_per_second: Option<f64>,
}

/// One protocol under one load.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub protocol: &'static str,
    /// Of a closed loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<usize>,
    /// Of an open loop: what was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arrivals: Option<&'static str>,
    /// Windows that were measured; the last three of them count.
    pub windows: usize,
    pub stable: bool,
    /// How long those that count took.
    pub seconds: f64,
    pub requests_per_second: f64,
    pub answered: u64,
    pub errors: u64,
    pub failures: Vec<Failed>,
    /// None without any success.
    pub latency_us: Option<LatencyMicros>,
    /// Of answers that were no success; none where there were none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal_us: Option<LatencyMicros>,
    /// The share of requests that were answered within the objective.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_time: Option<f64>,
    /// 99 of 100 requests of an open loop were sent no later than this after they were due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_us_p99: Option<f64>,
    /// Requests of an open loop that waited for a connection.
    pub queued: u64,
    pub reopened: u64,
    /// What the server says of itself; none where it has no statistics.
    pub server: Option<ServerSide>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cpu_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generator_cpu_us: Option<f64>,
}

/// Requests that failed in one way.
#[derive(Debug, Clone, Serialize)]
pub struct Failed {
    pub status: String,
    pub count: u64,
    /// Of the first.
    pub message: String,
}

/// How long answers took.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct LatencyMicros {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// Where the server spent a request's time, on average.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ServerSide {
    pub queue_us: f64,
    /// Until the batch stood ready for the session.
    pub assembly_us: f64,
    pub session_us: f64,
    /// From the session's end until the answer was encoded.
    pub split_us: f64,
    /// Rows of a session call.
    pub batch_size: f64,
}

impl Row {
    /// What the tally of so many seconds says.
    pub fn new(protocol: Protocol, load: Load, phase: Phase, tally: &Tally, seconds: f64) -> Self {
        let (concurrency, rate, arrivals) = match load {
            Load::Closed { concurrency } => (Some(concurrency), None, None),
            Load::Open { rate, process } => (None, Some(rate), Some(process.name())),
        };
        let micros = |nanos: u64| nanos as f64 / 1e3;
        let failed =
            |(status, failures): (&std::borrow::Cow<'static, str>, &super::tally::Failures)| Failed {
                status: status.clone().into_owned(),
                count: failures.count,
                message: failures.message.clone(),
            };
        Self {
            protocol: protocol.name(),
            concurrency,
            rate,
            arrivals,
            windows: phase.windows,
            stable: phase.stable,
            seconds,
            requests_per_second: tally.latencies.len() as f64 / seconds.max(f64::MIN_POSITIVE),
            answered: tally.latencies.len(),
            errors: tally.errors(),
            failures: tally.failures.iter().map(failed).collect(),
            latency_us: LatencyMicros::of(&tally.latencies),
            refusal_us: LatencyMicros::of(&tally.refusals),
            on_time: None,
            lag_us_p99: rate.map(|_| micros(tally.lag.value_at_quantile(0.99))),
            queued: tally.queued,
            reopened: tally.reopened,
            server: None,
            server_cpu_us: None,
            generator_cpu_us: None,
        }
    }

    /// Whether the generator sent too late for its latencies to be the server's.
    pub fn lags(&self) -> bool {
        self.lag_us_p99.is_some_and(|lag| lag > LAG_US_MAX)
    }
}

impl LatencyMicros {
    fn of(latencies: &Histogram<u64>) -> Option<Self> {
        let part = |part| latencies.value_at_quantile(part) as f64 / 1e3;
        (!latencies.is_empty()).then(|| Self {
            mean: latencies.mean() / 1e3,
            p50: part(0.5),
            p90: part(0.9),
            p99: part(0.99),
            p999: part(0.999),
            max: latencies.max() as f64 / 1e3,
        })
    }
}
