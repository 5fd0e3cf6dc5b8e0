//! The handles of one servable: its events become numbers.
//!
//! Always: made when the servable is loaded, so that an event costs a few atomic additions and no look-up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::Counter;
use metrics_exporter_prometheus::PrometheusRecorder;

use super::histogram::{Histograms, RealHistogram, WholeHistogram};
use super::metrics::{
    ASSEMBLY_SECONDS, BATCH_REQUESTS, BATCH_ROWS, CACHE_LOOKUPS, ENCODE_SECONDS, PREDICTION_NONFINITE,
    PREDICTION_SCORE, PREDICTION_VALUE, PREDICTIONS, QUEUE_SECONDS, REQUEST_SECONDS, REQUESTS, ROWS,
    SESSION_CALLS, SESSION_SECONDS, counter,
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
    /// Hits and misses; `None` where answers are not kept.
    lookups: Option<[Counter; 2]>,
    calls_ok: Counter,
    calls_failed: Counter,
    batch_rows: Arc<WholeHistogram>,
    batch_requests: Arc<WholeHistogram>,
    durations: Durations,
    predictions: Predictions,
    version: Arc<LiveVersion>,
}

struct Durations {
    request: Arc<WholeHistogram>,
    queue: Arc<WholeHistogram>,
    assembly: Arc<WholeHistogram>,
    session: Arc<WholeHistogram>,
    encode: Arc<WholeHistogram>,
}

impl ServableMeters {
    /// Handles of a version that is live, for one load of it.
    pub fn new(server: &PrometheusRecorder, version: Arc<LiveVersion>, profile: &ServableProfile) -> Self {
        let own = &version.recorder;
        let number = version.id.version.to_string();
        let labels = [("model", version.id.model.as_str()), ("version", number.as_str())];
        let with = |key, value| [labels[0], labels[1], (key, value)];
        let counts = |name| version.histograms.counts(name, &labels);
        let seconds = |name| version.histograms.durations(name, &labels);
        Self {
            outcomes: Outcome::ALL.map(|outcome| counter(server, REQUESTS, &with("outcome", outcome.name()))),
            rows: counter(own, ROWS, &labels),
            lookups: profile.cached.then(|| {
                ["hit", "miss"].map(|outcome| counter(own, CACHE_LOOKUPS, &with("outcome", outcome)))
            }),
            calls_ok: counter(own, SESSION_CALLS, &with("outcome", "ok")),
            calls_failed: counter(own, SESSION_CALLS, &with("outcome", "failed")),
            batch_rows: counts(BATCH_ROWS),
            batch_requests: counts(BATCH_REQUESTS),
            durations: Durations {
                request: seconds(REQUEST_SECONDS),
                queue: seconds(QUEUE_SECONDS),
                assembly: seconds(ASSEMBLY_SECONDS),
                session: seconds(SESSION_SECONDS),
                encode: seconds(ENCODE_SECONDS),
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
        if let (Some([hits, misses]), Some(lookup)) = (&self.lookups, event.lookup) {
            if lookup.hit { hits } else { misses }.increment(1);
        }
        if event.outcome == Outcome::Ok {
            self.rows.increment(event.rows as u64);
            self.durations.request.took(event.timings.total);
            if !event.lookup.is_some_and(|lookup| lookup.hit) {
                self.durations.queue.took(event.timings.queue);
            }
            self.durations.encode.took(event.timings.encode);
            self.predictions.read(event.predicted);
        }
    }

    fn batch(&self, event: &BatchEvent) {
        self.version.statistics.batch(event);
        if event.succeeded {
            self.calls_ok.increment(1)
        } else {
            self.calls_failed.increment(1)
        }
        self.batch_rows.record(event.rows as u64);
        self.batch_requests.record(event.requests as u64);
        self.durations.assembly.took(event.assembly);
        self.durations.session.took(event.session);
    }
}

/// Makes prediction series as classes and outputs appear, for every load of one version.
pub struct PredictionSeries {
    recorder: Arc<PrometheusRecorder>,
    histograms: Arc<Histograms>,
    id: ServableId,
    /// Names by output. A version that is loaded anew while it is live keeps its series, so the bound is here, too.
    classes: Mutex<BTreeMap<String, BTreeSet<String>>>,
}

impl PredictionSeries {
    pub fn new(recorder: Arc<PrometheusRecorder>, histograms: Arc<Histograms>, id: ServableId) -> Self {
        Self { recorder, histograms, id, classes: Mutex::default() }
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

    fn score(&self, output: &str) -> Arc<RealHistogram> {
        self.labelled(output, |labels| self.histograms.values(PREDICTION_SCORE, &labels))
    }

    fn value(&self, output: &str) -> Arc<RealHistogram> {
        self.labelled(output, |labels| self.histograms.values(PREDICTION_VALUE, &labels))
    }

    fn nonfinite(&self, output: &str, kind: &'static str) -> Counter {
        self.labelled(output, |[m, v, o]| {
            counter(&self.recorder, PREDICTION_NONFINITE, &[m, v, o, ("kind", kind)])
        })
    }
}
