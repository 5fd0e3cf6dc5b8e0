//! The handles of one servable: its events become numbers.
//!
//! Always: made when the servable is loaded, so that an event costs a few atomic additions and no look-up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Counter, Histogram};
use metrics_exporter_prometheus::PrometheusRecorder;

use super::metrics::{
    ASSEMBLY_SECONDS, BATCH_REQUESTS, BATCH_ROWS, ENCODE_SECONDS, PREDICTION_NONFINITE, PREDICTION_SCORE,
    PREDICTION_VALUE, PREDICTIONS, QUEUE_SECONDS, REQUEST_SECONDS, REQUESTS, ROWS, SESSION_CALLS,
    SESSION_SECONDS, counter, histogram,
};
use super::prediction::{CLASSES_MAX, Predictions, Series};
use super::versions::LiveVersion;
use crate::event::{BatchEvent, InferEvent, Outcome, ServableProfile, ServableSink};
use crate::id::ServableId;
use crate::reading::OTHER;

/// Listens to one servable.
pub struct ServableMeters {
    /// In the server's recorder: they outlive the version.
    outcomes: [Counter; Outcome::ALL.len()],
    rows: Counter,
    calls_ok: Counter,
    calls_failed: Counter,
    batch_rows: Histogram,
    batch_requests: Histogram,
    durations: Durations,
    predictions: Predictions,
    version: Arc<LiveVersion>,
}

struct Durations {
    request: Histogram,
    queue: Histogram,
    assembly: Histogram,
    session: Histogram,
    encode: Histogram,
}

impl ServableMeters {
    /// Handles of a version that is live, for one load of it.
    pub fn new(server: &PrometheusRecorder, version: Arc<LiveVersion>, profile: &ServableProfile) -> Self {
        let own = &version.recorder;
        let number = version.id.version.to_string();
        let labels = [("model", version.id.model.as_str()), ("version", number.as_str())];
        let with = |key, value| [labels[0], labels[1], (key, value)];
        Self {
            outcomes: Outcome::ALL.map(|outcome| counter(server, REQUESTS, &with("outcome", outcome.name()))),
            rows: counter(own, ROWS, &labels),
            calls_ok: counter(own, SESSION_CALLS, &with("outcome", "ok")),
            calls_failed: counter(own, SESSION_CALLS, &with("outcome", "failed")),
            batch_rows: histogram(own, BATCH_ROWS, &labels),
            batch_requests: histogram(own, BATCH_REQUESTS, &labels),
            durations: Durations {
                request: histogram(own, REQUEST_SECONDS, &labels),
                queue: histogram(own, QUEUE_SECONDS, &labels),
                assembly: histogram(own, ASSEMBLY_SECONDS, &labels),
                session: histogram(own, SESSION_SECONDS, &labels),
                encode: histogram(own, ENCODE_SECONDS, &labels),
            },
            predictions: Predictions::new(profile, Arc::clone(&version.predictions) as _),
            version,
        }
    }
}

impl ServableSink for ServableMeters {
    fn infer(&self, event: &InferEvent<'_>) {
        self.outcomes[event.outcome as usize].increment(1);
        self.version.statistics.infer(event);
        if event.outcome == Outcome::Ok {
            self.rows.increment(event.rows as u64);
            self.durations.request.record(event.timings.total);
            self.durations.queue.record(event.timings.queue);
            self.durations.encode.record(event.timings.encode);
            self.predictions.read(event.predicted);
            self.version.touch();
        }
    }

    fn batch(&self, event: &BatchEvent) {
        self.version.statistics.batch(event);
        if event.succeeded {
            self.calls_ok.increment(1)
        } else {
            self.calls_failed.increment(1)
        }
        self.batch_rows.record(event.rows as f64);
        self.batch_requests.record(event.requests as f64);
        self.durations.assembly.record(event.assembly);
        self.durations.session.record(event.session);
        self.version.touch();
    }
}

/// Makes prediction series as classes and outputs appear, for every load of one version.
pub struct PredictionSeries {
    recorder: Arc<PrometheusRecorder>,
    id: ServableId,
    /// Names by output. A version that is loaded anew while it is live keeps its series, so the bound is here, too.
    classes: Mutex<BTreeMap<String, BTreeSet<String>>>,
}

impl PredictionSeries {
    pub fn new(recorder: Arc<PrometheusRecorder>, id: ServableId) -> Self {
        Self { recorder, id, classes: Mutex::default() }
    }

    fn labelled<T>(&self, output: &str, make: impl FnOnce([(&'static str, &str); 3]) -> T) -> T {
        let version = self.id.version.to_string();
        make([("model", self.id.model.as_str()), ("version", &version), ("output", output)])
    }

    /// `class` itself while there is room, then [`OTHER`]. Twice the classes of one load: a model may name them by
    /// text and by number.
    fn bounded<'a>(&self, output: &str, class: &'a str) -> &'a str {
        if class == OTHER {
            return OTHER;
        }
        let mut classes = self.classes.lock().unwrap_or_else(PoisonError::into_inner);
        let known = classes.entry(output.to_owned()).or_default();
        if known.len() >= 2 * CLASSES_MAX && !known.contains(class) {
            return OTHER;
        }
        known.insert(class.to_owned());
        class
    }
}

impl Series for PredictionSeries {
    fn class(&self, output: &str, class: &str) -> Counter {
        let class = self.bounded(output, class);
        self.labelled(output, |[m, v, o]| counter(&self.recorder, PREDICTIONS, &[m, v, o, ("class", class)]))
    }

    fn score(&self, output: &str) -> Histogram {
        self.labelled(output, |labels| histogram(&self.recorder, PREDICTION_SCORE, &labels))
    }

    fn value(&self, output: &str) -> Histogram {
        self.labelled(output, |labels| histogram(&self.recorder, PREDICTION_VALUE, &labels))
    }

    fn nonfinite(&self, output: &str, kind: &'static str) -> Counter {
        self.labelled(output, |[m, v, o]| {
            counter(&self.recorder, PREDICTION_NONFINITE, &[m, v, o, ("kind", kind)])
        })
    }
}
