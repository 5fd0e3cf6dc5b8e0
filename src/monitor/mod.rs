//! Measures the data plane from its events alone: Prometheus metrics, the protocol's statistics, predictions,
//! shadows.
//!
//! Always: handles are made when a servable is loaded, so that an event costs a few atomic additions and no
//! look-up. Label values come from closed or bounded sets. A version's series go when the version goes, all but
//! its outcomes: their sum is the requests received, for ever.

mod distribution;
mod histogram;
mod kept;
mod meters;
mod metrics;
mod page;
mod prediction;
mod shadows;
mod statistics;
mod tally;
#[cfg(test)]
mod tests;
mod versions;
mod window;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::metrics::Counter;
use metrics_exporter_prometheus::PrometheusRecorder;

use crate::cache::CacheUse;
use crate::event::{EventSink, Outcome, Protocol, ServableProfile, ServableSink, ShadowEvent};
use crate::id::ServableId;
use meters::ServableMeters;
use metrics::{
    BUILD_INFO, BYTES_IN_FLIGHT, CACHE_BYTES, CACHE_ENTRIES, CACHE_EVICTIONS, CALLS_IN_FLIGHT,
    CERTIFICATE_ENDS, CONNECTIONS, IN_FLIGHT, MODEL_READY, QUEUE_DEPTH, RECEIVED, REQUESTS, ROUTE_SHARE,
    WORKER_RESTARTS,
};
use metrics::{counter, gauge, recorder};
use shadows::Shadows;
use versions::Versions;

pub use distribution::{Bucket, Distribution};
pub use kept::KeptTensor;
pub use statistics::{BatchTotals, Total, Totals};
pub use tally::{BySide, ClassReport, Confusion, Disagreement, OutputReport, ShadowReport, VersionPair};
pub use window::Recent;

/// What is read when somebody looks, instead of being told as it changes.
#[derive(Debug, Clone, Default)]
pub struct Readings {
    pub queue_depths: Vec<(ServableId, usize)>,
    /// Session calls that run.
    pub calls_in_flight: Vec<(ServableId, usize)>,
    pub ready: Vec<(ServableId, bool)>,
    /// Part of the requests that name no version, 0 to 1.
    pub shares: Vec<(ServableId, f64)>,
    /// Of versions that run in a worker process.
    pub worker_restarts: Vec<(ServableId, u64)>,
    pub in_flight: usize,
    /// Of requests, and of answers that wait to be sent.
    pub bytes_in_flight: usize,
    /// Open connections by port's name.
    pub connections: Vec<(&'static str, usize)>,
    /// `None`: no version asked that its answers be kept.
    pub cache: Option<CacheUse>,
    /// When the TLS certificate ends, in seconds since 1970; `None`: there is none.
    pub certificate_ends: Option<i64>,
}

/// Listens to the server and answers with numbers.
pub struct Monitor {
    /// Of the server itself, and of what outlives a version.
    server: PrometheusRecorder,
    process: metrics_process::Collector,
    received: [Counter; Protocol::ALL.len()],
    stray: [Counter; Outcome::ALL.len()],
    versions: Versions,
    shadows: Shadows,
    runtime_version: String,
}

impl Monitor {
    pub fn new(runtime_version: &str) -> Self {
        let server = recorder();
        let process = metrics_process::Collector::default();
        ::metrics::with_local_recorder(&server, || process.describe());
        let received =
            Protocol::ALL.map(|protocol| counter(&server, RECEIVED, &[("protocol", protocol.name())]));
        // Empty labels are what Prometheus takes for absent ones.
        let stray = Outcome::ALL.map(|outcome| {
            counter(&server, REQUESTS, &[("model", ""), ("version", ""), ("outcome", outcome.name())])
        });
        Self {
            server,
            process,
            received,
            stray,
            versions: Versions::default(),
            shadows: Shadows::default(),
            runtime_version: runtime_version.to_owned(),
        }
    }

    /// The page that Prometheus reads.
    pub fn render(&self, readings: &Readings) -> String {
        let server = &self.server;
        let version = env!("CARGO_PKG_VERSION");
        gauge(server, BUILD_INFO, &[("version", version), ("onnxruntime", &self.runtime_version)]).set(1.0);
        gauge(server, IN_FLIGHT, &[]).set(readings.in_flight as f64);
        gauge(server, BYTES_IN_FLIGHT, &[]).set(readings.bytes_in_flight as f64);
        for (port, open) in &readings.connections {
            gauge(server, CONNECTIONS, &[("port", port)]).set(*open as f64);
        }
        if let Some(cache) = readings.cache {
            gauge(server, CACHE_BYTES, &[]).set(cache.bytes as f64);
            gauge(server, CACHE_ENTRIES, &[]).set(cache.entries as f64);
            counter(server, CACHE_EVICTIONS, &[]).absolute(cache.evicted);
        }
        if let Some(ends) = readings.certificate_ends {
            gauge(server, CERTIFICATE_ENDS, &[]).set(ends as f64);
        }
        ::metrics::with_local_recorder(server, || self.process.collect());
        let depths = readings.queue_depths.iter().map(|(id, depth)| (id, *depth));
        let calls = readings.calls_in_flight.iter().map(|(id, calls)| (id, *calls));
        let ready = readings.ready.iter().map(|(id, ready)| (id, usize::from(*ready)));
        let restarts = readings.worker_restarts.iter().map(|(id, restarts)| (id, *restarts));
        let shares = readings.shares.iter().map(|(id, share)| (id, *share));
        let read = [
            page::of_versions(QUEUE_DEPTH, "gauge", depths),
            page::of_versions(CALLS_IN_FLIGHT, "gauge", calls),
            page::of_versions(MODEL_READY, "gauge", ready),
            page::of_versions(ROUTE_SHARE, "gauge", shares),
            page::of_versions(WORKER_RESTARTS, "counter", restarts),
        ];
        let versions = self.versions.all().into_iter().map(|version| version.render());
        let shadows = self.shadows.all().into_iter().map(|pair| pair.render());
        let texts: Vec<String> =
            [server.handle().render()].into_iter().chain(read).chain(versions).chain(shadows).collect();
        page::merge(texts.iter().map(String::as_str))
    }

    /// Turns the windows, and moves what recorders buffer into their buckets. Call it every second or so: samples wait
    /// in memory till then.
    pub fn upkeep(&self) {
        self.server.handle().run_upkeep();
        let now = Instant::now();
        for version in self.versions.all() {
            version.statistics.window.turn(now);
        }
        self.shadows.all().iter().for_each(|pair| pair.upkeep());
    }

    /// How often [`Self::upkeep`] should run.
    pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

    /// The totals of every version that is live, in order.
    pub fn statistics(&self) -> Vec<(ServableId, Totals)> {
        let versions = self.versions.all().into_iter();
        versions.map(|version| (version.id.clone(), version.statistics.totals())).collect()
    }

    /// What is known of every shadow of one model, by version and shadow.
    pub fn shadow_report(&self, model: &str) -> Vec<ShadowReport> {
        let pairs = self.shadows.all().into_iter().filter(|pair| pair.model().as_str() == model);
        pairs.map(|pair| pair.report()).collect()
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
        Arc::new(ServableMeters::new(&self.server, self.versions.enter(id), profile))
    }

    fn retired(&self, id: &ServableId) {
        if self.versions.leave(id) {
            self.shadows.forget(id);
        }
    }

    fn shadow(&self, event: &ShadowEvent<'_>) {
        self.shadows.count(event, |id| self.versions.contains(id));
    }
}
