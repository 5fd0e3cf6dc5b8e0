//! What is kept of each live version, and when it goes.
//!
//! Always: a version's series and totals are there from its first load until as many loads of it have gone as have
//! come; then they go at once. Requests that are still under way keep counting where nobody looks any more.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use metrics_exporter_prometheus::PrometheusRecorder;

use super::histogram::Histograms;
use super::meters::PredictionSeries;
use super::metrics::recorder;
use super::statistics::Statistics;
use crate::id::ServableId;

/// The numbers of one version, shared by all loads of it that overlap.
pub struct LiveVersion {
    pub id: ServableId,
    /// A recorder cannot forget a series, so each version has its own to be dropped.
    pub recorder: Arc<PrometheusRecorder>,
    pub statistics: Statistics,
    pub predictions: Arc<PredictionSeries>,
    pub histograms: Arc<Histograms>,
}

impl LiveVersion {
    fn new(id: ServableId) -> Self {
        let recorder = Arc::new(recorder());
        let histograms = Arc::new(Histograms::default());
        let predictions =
            Arc::new(PredictionSeries::new(Arc::clone(&recorder), Arc::clone(&histograms), id.clone()));
        Self { id, recorder, statistics: Statistics::default(), predictions, histograms }
    }

    /// The version's series as Prometheus reads them.
    pub fn render(&self) -> String {
        self.recorder.handle().render() + &self.histograms.render()
    }
}

/// All live versions.
#[derive(Default)]
pub struct Versions {
    live: RwLock<BTreeMap<ServableId, (usize, Arc<LiveVersion>)>>,
}

impl Versions {
    /// Counts a load of `id`.
    pub fn enter(&self, id: &ServableId) -> Arc<LiveVersion> {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        let fresh = || (0, Arc::new(LiveVersion::new(id.clone())));
        let (users, version) = live.entry(id.clone()).or_insert_with(fresh);
        *users += 1;
        Arc::clone(version)
    }

    /// Counts that a load of `id` went. True when it was the last, and nothing is kept of the version any more.
    pub fn leave(&self, id: &ServableId) -> bool {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        let Some((users, _)) = live.get_mut(id) else { return false };
        *users -= 1;
        let gone = if *users == 0 { live.remove(id) } else { None };
        // Dropping its series takes a while: not while others wait for the lock.
        drop(live);
        gone.is_some()
    }

    pub fn contains(&self, id: &ServableId) -> bool {
        self.live.read().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }

    /// In order of their ids.
    pub fn all(&self) -> Vec<Arc<LiveVersion>> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        live.values().map(|(_, version)| Arc::clone(version)).collect()
    }
}
