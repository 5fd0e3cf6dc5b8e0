//! Every metric of the server: names, help, buckets, handles.
//!
//! Always: this is the only place that knows a metric's name. Counters are there from the start, at zero.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::prediction::{Predictions, SCORE_BUCKETS, Series, VALUE_BUCKETS};
use super::statistics::{Statistics, Totals};
use crate::event::{BatchEvent, EventSink, InferEvent, Outcome, Protocol, ServableProfile, ServableSink};
use crate::id::ServableId;

const RECEIVED: &str = "weir_requests_received_total";
const REQUESTS: &str = "weir_requests_total";
const ROWS: &str = "weir_rows_total";
const SESSION_CALLS: &str = "weir_session_calls_total";
const BATCH_ROWS: &str = "weir_batch_rows";
const BATCH_REQUESTS: &str = "weir_batch_requests";
const QUEUE_DEPTH: &str = "weir_queue_depth";
const REQUEST_SECONDS: &str = "weir_request_duration_seconds";
const QUEUE_SECONDS: &str = "weir_queue_duration_seconds";
const ASSEMBLY_SECONDS: &str = "weir_batch_assembly_duration_seconds";
const SESSION_SECONDS: &str = "weir_session_duration_seconds";
const ENCODE_SECONDS: &str = "weir_encode_duration_seconds";
const PREDICTIONS: &str = "weir_predictions_total";
const PREDICTION_SCORE: &str = "weir_prediction_score";
const PREDICTION_VALUE: &str = "weir_prediction_value";
const PREDICTION_NONFINITE: &str = "weir_prediction_nonfinite_total";
const MODEL_READY: &str = "weir_model_ready";
const IN_FLIGHT: &str = "weir_requests_in_flight";
const CONNECTIONS: &str = "weir_connections";
const BUILD_INFO: &str = "weir_build_info";

const COUNTERS: &[(&str, &str)] = &[
    (RECEIVED, "Requests for a prediction that arrived, by protocol."),
    (REQUESTS, "Requests for a prediction that ended, by outcome; without a model where none was reached."),
    (ROWS, "Rows of requests that succeeded."),
    (SESSION_CALLS, "Calls of an ONNX Runtime session on behalf of requests, by outcome."),
    (PREDICTIONS, "Predictions by class, for outputs that name a class or score classes."),
    (PREDICTION_NONFINITE, "Predicted numbers that are NaN or infinite."),
];

const GAUGES: &[(&str, &str)] = &[
    (QUEUE_DEPTH, "Requests that wait for a session."),
    (MODEL_READY, "1 for a version that is ready, 0 for one that is not."),
    (IN_FLIGHT, "Requests for a prediction that are inside the server."),
    (CONNECTIONS, "Open connections, by port."),
    (BUILD_INFO, "Always 1; the labels tell the versions of Weir and of ONNX Runtime."),
];

const HISTOGRAMS: &[(&str, &str)] = &[
    (BATCH_ROWS, "Rows per session call."),
    (BATCH_REQUESTS, "Requests per session call."),
    (REQUEST_SECONDS, "From a request's arrival to its answer being written, successful ones."),
    (QUEUE_SECONDS, "From a request's entry into the queue to its batch being formed."),
    (ASSEMBLY_SECONDS, "Putting a batch together, per session call."),
    (SESSION_SECONDS, "The session call, joining and copying of inputs included."),
    (ENCODE_SECONDS, "Writing an answer in the protocol's form."),
    (PREDICTION_SCORE, "The winning score of each classified row."),
    (PREDICTION_VALUE, "Predicted values, for outputs of a few numbers per row."),
];

/// Upper bounds in seconds: from a session call of a small model to a request that nobody waits for any more.
const SECONDS_BUCKETS: &[f64] = &[
    25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

const BATCH_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// What is read when somebody looks, instead of being told as it changes.
#[derive(Debug, Clone, Default)]
pub struct Readings {
    pub queue_depths: Vec<(ServableId, usize)>,
    pub ready: Vec<(ServableId, bool)>,
    pub in_flight: usize,
    /// Open connections by port's name.
    pub connections: Vec<(&'static str, usize)>,
}

/// Listens to the server and answers with numbers.
pub struct Monitor {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
    process: metrics_process::Collector,
    received: [Counter; Protocol::ALL.len()],
    stray: [Counter; Outcome::ALL.len()],
    statistics: RwLock<BTreeMap<ServableId, Arc<Statistics>>>,
    runtime_version: String,
}

impl Monitor {
    pub fn new(runtime_version: &str) -> Self {
        let buckets = |name: &str, values: &[f64], builder: PrometheusBuilder| {
            builder
                .set_buckets_for_metric(Matcher::Full(name.to_owned()), values)
                .expect("bucket lists are not empty")
        };
        let mut builder = PrometheusBuilder::new();
        for name in [REQUEST_SECONDS, QUEUE_SECONDS, ASSEMBLY_SECONDS, SESSION_SECONDS, ENCODE_SECONDS] {
            builder = buckets(name, SECONDS_BUCKETS, builder);
        }
        for name in [BATCH_ROWS, BATCH_REQUESTS] {
            builder = buckets(name, BATCH_BUCKETS, builder);
        }
        builder = buckets(PREDICTION_SCORE, SCORE_BUCKETS, builder);
        builder = buckets(PREDICTION_VALUE, VALUE_BUCKETS, builder);
        let recorder = Arc::new(builder.build_recorder());
        describe(&*recorder);
        let process = metrics_process::Collector::default();
        metrics::with_local_recorder(&*recorder, || process.describe());
        let received =
            Protocol::ALL.map(|protocol| counter(&*recorder, RECEIVED, &[("protocol", protocol.name())]));
        // Empty labels are what Prometheus takes for absent ones.
        let stray = Outcome::ALL.map(|outcome| {
            counter(&*recorder, REQUESTS, &[("model", ""), ("version", ""), ("outcome", outcome.name())])
        });
        Self {
            handle: recorder.handle(),
            recorder,
            process,
            received,
            stray,
            statistics: RwLock::default(),
            runtime_version: runtime_version.to_owned(),
        }
    }

    /// The page that Prometheus reads.
    pub fn render(&self, readings: &Readings) -> String {
        let recorder = &*self.recorder;
        let version = env!("CARGO_PKG_VERSION");
        gauge(recorder, BUILD_INFO, &[("version", version), ("onnxruntime", &self.runtime_version)]).set(1.0);
        gauge(recorder, IN_FLIGHT, &[]).set(readings.in_flight as f64);
        for (port, open) in &readings.connections {
            gauge(recorder, CONNECTIONS, &[("port", port)]).set(*open as f64);
        }
        for (id, depth) in &readings.queue_depths {
            of_servable(id, |labels| gauge(recorder, QUEUE_DEPTH, labels)).set(*depth as f64);
        }
        for (id, ready) in &readings.ready {
            of_servable(id, |labels| gauge(recorder, MODEL_READY, labels)).set(f64::from(u8::from(*ready)));
        }
        metrics::with_local_recorder(recorder, || self.process.collect());
        self.handle.render()
    }

    /// Moves buffered samples into their buckets. Call it every second or so: samples wait in memory till then.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// How often [`Self::upkeep`] should run.
    pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

    /// The totals of every version that was loaded since the start, in order.
    pub fn statistics(&self) -> Vec<(ServableId, Totals)> {
        let statistics = self.statistics.read().unwrap_or_else(PoisonError::into_inner);
        statistics.iter().map(|(id, statistics)| (id.clone(), statistics.totals())).collect()
    }
}

impl EventSink for Monitor {
    fn received(&self, protocol: Protocol) {
        self.received[protocol as usize].increment(1);
    }

    fn stray(&self, outcome: Outcome) {
        self.stray[outcome as usize].increment(1);
    }

    fn servable(&self, id: &ServableId, profile: &ServableProfile) -> Arc<dyn ServableSink> {
        let statistics = Arc::new(Statistics::default());
        let mut all = self.statistics.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(id.clone(), Arc::clone(&statistics));
        Arc::new(ServableMeters::new(&self.recorder, id, profile, statistics))
    }
}

/// The handles of one servable.
struct ServableMeters {
    outcomes: [Counter; Outcome::ALL.len()],
    rows: Counter,
    calls_ok: Counter,
    calls_failed: Counter,
    batch_rows: Histogram,
    batch_requests: Histogram,
    durations: Durations,
    predictions: Predictions,
    statistics: Arc<Statistics>,
}

struct Durations {
    request: Histogram,
    queue: Histogram,
    assembly: Histogram,
    session: Histogram,
    encode: Histogram,
}

impl ServableMeters {
    fn new(
        recorder: &Arc<PrometheusRecorder>,
        id: &ServableId,
        profile: &ServableProfile,
        statistics: Arc<Statistics>,
    ) -> Self {
        let r = &**recorder;
        let version = id.version.to_string();
        let own = [("model", id.model.as_str()), ("version", version.as_str())];
        let with = |key, value| [own[0], own[1], (key, value)];
        let series = ServableSeries { recorder: Arc::clone(recorder), id: id.clone() };
        Self {
            outcomes: Outcome::ALL.map(|outcome| counter(r, REQUESTS, &with("outcome", outcome.name()))),
            rows: counter(r, ROWS, &own),
            calls_ok: counter(r, SESSION_CALLS, &with("outcome", "ok")),
            calls_failed: counter(r, SESSION_CALLS, &with("outcome", "failed")),
            batch_rows: histogram(r, BATCH_ROWS, &own),
            batch_requests: histogram(r, BATCH_REQUESTS, &own),
            durations: Durations {
                request: histogram(r, REQUEST_SECONDS, &own),
                queue: histogram(r, QUEUE_SECONDS, &own),
                assembly: histogram(r, ASSEMBLY_SECONDS, &own),
                session: histogram(r, SESSION_SECONDS, &own),
                encode: histogram(r, ENCODE_SECONDS, &own),
            },
            predictions: Predictions::new(profile, Arc::new(series)),
            statistics,
        }
    }
}

impl ServableSink for ServableMeters {
    fn infer(&self, event: &InferEvent<'_>) {
        self.outcomes[event.outcome as usize].increment(1);
        self.statistics.infer(event);
        if event.outcome == Outcome::Ok {
            self.rows.increment(event.rows as u64);
            self.durations.request.record(event.timings.total);
            self.durations.queue.record(event.timings.queue);
            self.durations.encode.record(event.timings.encode);
            self.predictions.read(event.predicted);
        }
    }

    fn batch(&self, event: &BatchEvent) {
        self.statistics.batch(event);
        if event.succeeded {
            self.calls_ok.increment(1)
        } else {
            self.calls_failed.increment(1)
        }
        self.batch_rows.record(event.rows as f64);
        self.batch_requests.record(event.requests as f64);
        self.durations.assembly.record(event.assembly);
        self.durations.session.record(event.session);
    }
}

/// Makes prediction series as classes and outputs appear.
struct ServableSeries {
    recorder: Arc<PrometheusRecorder>,
    id: ServableId,
}

impl Series for ServableSeries {
    fn class(&self, output: &str, class: &str) -> Counter {
        of_servable(&self.id, |own| {
            counter(&*self.recorder, PREDICTIONS, &[own[0], own[1], ("output", output), ("class", class)])
        })
    }

    fn score(&self, output: &str) -> Histogram {
        of_servable(&self.id, |own| {
            histogram(&*self.recorder, PREDICTION_SCORE, &[own[0], own[1], ("output", output)])
        })
    }

    fn value(&self, output: &str) -> Histogram {
        of_servable(&self.id, |own| {
            histogram(&*self.recorder, PREDICTION_VALUE, &[own[0], own[1], ("output", output)])
        })
    }

    fn nonfinite(&self, output: &str, kind: &'static str) -> Counter {
        of_servable(&self.id, |own| {
            counter(
                &*self.recorder,
                PREDICTION_NONFINITE,
                &[own[0], own[1], ("output", output), ("kind", kind)],
            )
        })
    }
}

type Labels<'a> = [(&'static str, &'a str)];

fn of_servable<T>(id: &ServableId, make: impl FnOnce(&Labels<'_>) -> T) -> T {
    make(&[("model", id.model.as_str()), ("version", &id.version.to_string())])
}

fn key(name: &'static str, labels: &Labels<'_>) -> Key {
    let labels: Vec<Label> =
        labels.iter().map(|(key, value)| Label::new(*key, (*value).to_owned())).collect();
    Key::from_parts(name, labels)
}

const METADATA: Metadata<'static> = Metadata::new("weir", Level::INFO, None);

fn counter(recorder: &dyn Recorder, name: &'static str, labels: &Labels<'_>) -> Counter {
    recorder.register_counter(&key(name, labels), &METADATA)
}

fn gauge(recorder: &dyn Recorder, name: &'static str, labels: &Labels<'_>) -> Gauge {
    recorder.register_gauge(&key(name, labels), &METADATA)
}

fn histogram(recorder: &dyn Recorder, name: &'static str, labels: &Labels<'_>) -> Histogram {
    recorder.register_histogram(&key(name, labels), &METADATA)
}

fn describe(recorder: &dyn Recorder) {
    let unit = |name: &str| if name.ends_with("_seconds") { Unit::Seconds } else { Unit::Count };
    let with = |name: &'static str| (KeyName::from_const_str(name), Some(unit(name)));
    for (name, help) in COUNTERS {
        let (key, unit) = with(name);
        recorder.describe_counter(key, unit, (*help).into());
    }
    for (name, help) in GAUGES {
        let (key, unit) = with(name);
        recorder.describe_gauge(key, unit, (*help).into());
    }
    for (name, help) in HISTOGRAMS {
        let (key, unit) = with(name);
        recorder.describe_histogram(key, unit, (*help).into());
    }
}
