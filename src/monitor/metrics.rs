//! Every metric of the server: names, help, buckets.
//!
//! Always: this is the only place that knows a metric's name. Not here: what is counted when.

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

use crate::reading::{SCORE_BUCKETS, VALUE_BUCKETS};

pub const RECEIVED: &str = "weir_requests_received_total";
pub const REQUESTS: &str = "weir_requests_total";
pub const ROWS: &str = "weir_rows_total";
pub const CALLS_IN_FLIGHT: &str = "weir_session_calls_in_flight";
pub const SESSION_CALLS: &str = "weir_session_calls_total";
pub const CACHE_LOOKUPS: &str = "weir_response_cache_lookups_total";
pub const CACHE_BYTES: &str = "weir_response_cache_bytes";
pub const CACHE_ENTRIES: &str = "weir_response_cache_entries";
pub const CACHE_EVICTIONS: &str = "weir_response_cache_evictions_total";
pub const BATCH_ROWS: &str = "weir_batch_rows";
pub const BATCH_REQUESTS: &str = "weir_batch_requests";
pub const QUEUE_DEPTH: &str = "weir_queue_depth";
pub const REQUEST_SECONDS: &str = "weir_request_duration_seconds";
pub const QUEUE_SECONDS: &str = "weir_queue_duration_seconds";
pub const ASSEMBLY_SECONDS: &str = "weir_batch_assembly_duration_seconds";
pub const SESSION_SECONDS: &str = "weir_session_duration_seconds";
pub const ENCODE_SECONDS: &str = "weir_encode_duration_seconds";
pub const PREDICTIONS: &str = "weir_predictions_total";
pub const PREDICTION_SCORE: &str = "weir_prediction_score";
pub const PREDICTION_VALUE: &str = "weir_prediction_value";
pub const PREDICTION_NONFINITE: &str = "weir_prediction_nonfinite_total";
pub const SHADOW_REQUESTS: &str = "weir_shadow_requests_total";
pub const SHADOW_DISAGREEMENTS: &str = "weir_shadow_disagreements_total";
pub const SHADOW_AGREEMENT: &str = "weir_shadow_agreement_rows_total";
pub const SHADOW_CONFUSION: &str = "weir_shadow_confusion_rows_total";
pub const SHADOW_OUTPUTS: &str = "weir_shadow_outputs_total";
pub const SHADOW_ABSOLUTE: &str = "weir_shadow_absolute_difference";
pub const SHADOW_RELATIVE: &str = "weir_shadow_relative_difference";
pub const SHADOW_COSINE: &str = "weir_shadow_cosine";
pub const SHADOW_SECONDS: &str = "weir_shadow_duration_seconds";
pub const MODEL_READY: &str = "weir_model_ready";
pub const ROUTE_SHARE: &str = "weir_route_share";
pub const IN_FLIGHT: &str = "weir_requests_in_flight";
pub const BYTES_IN_FLIGHT: &str = "weir_bytes_in_flight";
pub const CONNECTIONS: &str = "weir_connections";
pub const WORKER_RESTARTS: &str = "weir_worker_restarts_total";
pub const CERTIFICATE_ENDS: &str = "weir_tls_certificate_expiry_timestamp_seconds";
pub const BUILD_INFO: &str = "weir_build_info";

const COUNTERS: &[(&str, &str)] = &[
    (RECEIVED, "Requests for a prediction that arrived, by protocol."),
    (REQUESTS, "Requests for a prediction that ended, by outcome; without a model where none was reached."),
    (ROWS, "Rows of requests that succeeded."),
    (SESSION_CALLS, "Calls of an ONNX Runtime session on behalf of requests, by outcome."),
    (CACHE_LOOKUPS, "Requests whose answer was looked for among those that are kept, by outcome."),
    (CACHE_EVICTIONS, "Kept answers that made room for others."),
    (PREDICTIONS, "Predictions by class, for outputs that name a class or score classes."),
    (PREDICTION_NONFINITE, "Predicted numbers that are NaN or infinite."),
    (WORKER_RESTARTS, "Starts of a version's worker process after it had ended."),
    (SHADOW_REQUESTS, "Requests of which a shadow was to get a copy, by what came of it."),
    (SHADOW_DISAGREEMENTS, "Requests that a shadow answered otherwise than the version it shadows."),
    (SHADOW_AGREEMENT, "Rows that both versions classified, by whether they chose the same class."),
    (SHADOW_CONFUSION, "Rows by the class of the version and of its shadow; 64 of an answer at the most."),
    (SHADOW_OUTPUTS, "Outputs compared, by whether the shadow's is within tolerance."),
];

const GAUGES: &[(&str, &str)] = &[
    (QUEUE_DEPTH, "Requests that wait for a session."),
    (CALLS_IN_FLIGHT, "Session calls that run now, of a version's instances at the most."),
    (CACHE_BYTES, "Bytes that kept answers take."),
    (CACHE_ENTRIES, "Answers that are kept for requests that come again."),
    (ROUTE_SHARE, "Part of the requests that name no version, 0 to 1, that the route gives a version."),
    (MODEL_READY, "1 for a version that is ready, 0 for one that is not."),
    (IN_FLIGHT, "Requests for a prediction that are inside the server."),
    (
        BYTES_IN_FLIGHT,
        "Bytes of requests inside the server and of answers that wait to be sent; small ones are not counted.",
    ),
    (CONNECTIONS, "Open connections, by port."),
    (CERTIFICATE_ENDS, "When the TLS certificate in force ends, in seconds since 1970."),
    (BUILD_INFO, "Always 1; the labels tell the versions of Weir and of ONNX Runtime."),
];

const HISTOGRAMS: &[(&str, &str, &[f64])] = &[
    (BATCH_ROWS, "Rows per session call.", BATCH_BUCKETS),
    (BATCH_REQUESTS, "Requests per session call.", BATCH_BUCKETS),
    (
        REQUEST_SECONDS,
        "From a request's arrival to its answer being written, successful ones.",
        SECONDS_BUCKETS,
    ),
    (QUEUE_SECONDS, "From a request's entry into the queue to its batch being formed.", SECONDS_BUCKETS),
    (ASSEMBLY_SECONDS, "Putting a batch together, per session call.", SECONDS_BUCKETS),
    (SESSION_SECONDS, "The session call, joining and copying of inputs included.", SECONDS_BUCKETS),
    (ENCODE_SECONDS, "Writing an answer in the protocol's form.", SECONDS_BUCKETS),
    (PREDICTION_SCORE, "The winning score of each classified row.", SCORE_BUCKETS),
    (PREDICTION_VALUE, "Predicted values, for outputs of a few numbers per row.", VALUE_BUCKETS),
    (SHADOW_ABSOLUTE, "The largest absolute difference in each output compared.", ABSOLUTE_BUCKETS),
    (SHADOW_RELATIVE, "The largest relative difference in each output compared, 0 to 2.", RELATIVE_BUCKETS),
    (SHADOW_COSINE, "The lowest cosine over the rows of each answer's embeddings.", COSINE_BUCKETS),
    (SHADOW_SECONDS, "How long the version and its shadow took over compared requests.", SECONDS_BUCKETS),
];

/// Upper bounds in seconds: from a session call of a small model to a request that nobody waits for any more.
pub const SECONDS_BUCKETS: &[f64] = &[
    25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// Upper bounds, as batches double.
pub const BATCH_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// Upper bounds: the same bits first, then decades, since nothing is known of the scale.
pub const ABSOLUTE_BUCKETS: &[f64] =
    &[0.0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6];

/// Upper bounds: a 32-bit float's step is 1.2e-7; numbers of opposite sign are up to 2 apart.
pub const RELATIVE_BUCKETS: &[f64] =
    &[0.0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0];

/// Upper bounds, close together near 1, where embeddings of one meaning lie.
pub const COSINE_BUCKETS: &[f64] =
    &[0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9999, 0.99999, 1.0];

/// A recorder that knows every histogram's buckets and no help: pages take that from [`help`].
pub fn recorder() -> PrometheusRecorder {
    let builder = HISTOGRAMS.iter().fold(PrometheusBuilder::new(), |builder, (name, _, buckets)| {
        builder
            .set_buckets_for_metric(Matcher::Full((*name).to_owned()), buckets)
            .expect("bucket lists are not empty")
    });
    builder.build_recorder()
}

/// The buckets' upper bounds of a histogram of ours.
pub fn bounds(name: &str) -> &'static [f64] {
    let found = HISTOGRAMS.iter().find(|(known, ..)| *known == name);
    found.map(|(_, _, bounds)| *bounds).expect("every histogram stands in the list")
}

/// What a metric's help says; `None` for metrics of other makers.
pub fn help(name: &str) -> Option<&'static str> {
    let all = COUNTERS.iter().chain(GAUGES).copied();
    let mut all = all.chain(HISTOGRAMS.iter().map(|(known, help, _)| (*known, *help)));
    all.find_map(|(known, help)| (known == name).then_some(help))
}

/// Labels of one series.
pub type Labels<'a> = [(&'static str, &'a str)];

/// A series of counts, which is there from now on, at zero. The same labels give the same series again.
pub fn counter(recorder: &PrometheusRecorder, name: &'static str, labels: &Labels<'_>) -> Counter {
    recorder.register_counter(&key(name, labels), &METADATA)
}

/// As [`counter`], of a value that rises and falls.
pub fn gauge(recorder: &PrometheusRecorder, name: &'static str, labels: &Labels<'_>) -> Gauge {
    recorder.register_gauge(&key(name, labels), &METADATA)
}

/// As [`counter`], of samples.
pub fn histogram(recorder: &PrometheusRecorder, name: &'static str, labels: &Labels<'_>) -> Histogram {
    recorder.register_histogram(&key(name, labels), &METADATA)
}

const METADATA: Metadata<'static> = Metadata::new("weir", Level::INFO, None);

fn key(name: &'static str, labels: &Labels<'_>) -> Key {
    let labels: Vec<Label> =
        labels.iter().map(|(key, value)| Label::new(*key, (*value).to_owned())).collect();
    Key::from_parts(name, labels)
}
