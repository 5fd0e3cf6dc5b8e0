//! What came of shadows, by pair of versions.
//!
//! Always: memory is bounded for each pair (see `tally`), and what is known of a pair goes when either version
//! goes. A copy that was dropped or refused is counted without the lock that comparisons hold.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use metrics::{Counter, Histogram};
use metrics_exporter_prometheus::PrometheusRecorder;

use super::metrics::{Labels, SHADOW_REQUESTS, counter, histogram, recorder};
use super::tally::{ShadowReport, Tally, VersionPair};
use crate::event::{ShadowEvent, ShadowOutcome, Sides};
use crate::id::{ModelName, ServableId, Version};

/// Makes the series of one pair.
pub struct PairSeries {
    recorder: PrometheusRecorder,
    model: ModelName,
    /// As labels show them.
    versions: Sides<String>,
}

impl PairSeries {
    pub fn counter(&self, name: &'static str, labels: &Labels<'_>) -> Counter {
        counter(&self.recorder, name, &self.with(labels))
    }

    pub fn histogram(&self, name: &'static str, labels: &Labels<'_>) -> Histogram {
        histogram(&self.recorder, name, &self.with(labels))
    }

    fn with<'a>(&'a self, labels: &Labels<'a>) -> Vec<(&'static str, &'a str)> {
        let pair = [
            ("model", self.model.as_str()),
            ("version", self.versions.primary.as_str()),
            ("shadow", self.versions.shadow.as_str()),
        ];
        pair.into_iter().chain(labels.iter().copied()).collect()
    }
}

/// One version and its shadow.
pub struct Pair {
    series: PairSeries,
    versions: Sides<Version>,
    outcomes: [(AtomicU64, Counter); ShadowOutcome::ALL.len()],
    tally: Mutex<Tally>,
    /// Samples came since the last upkeep.
    touched: AtomicBool,
}

impl Pair {
    fn new(model: &ModelName, versions: Sides<Version>) -> Self {
        let shown = Sides { primary: versions.primary.to_string(), shadow: versions.shadow.to_string() };
        let series = PairSeries { recorder: recorder(), model: model.clone(), versions: shown };
        let outcomes = ShadowOutcome::ALL.map(|outcome| {
            (AtomicU64::new(0), series.counter(SHADOW_REQUESTS, &[("outcome", outcome.name())]))
        });
        let tally = Mutex::new(Tally::new(&series));
        Self { series, versions, outcomes, tally, touched: AtomicBool::new(false) }
    }

    pub fn model(&self) -> &ModelName {
        &self.series.model
    }

    fn count(&self, event: &ShadowEvent<'_>) {
        let (total, counter) = &self.outcomes[event.outcome as usize];
        total.fetch_add(event.requests, Ordering::Relaxed);
        counter.increment(event.requests);
        if let Some(comparison) = event.comparison {
            let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
            tally.add(&self.series, event, comparison);
            self.touched.store(true, Ordering::Release);
        }
    }

    /// The pair's part of the page.
    pub fn render(&self) -> String {
        self.series.recorder.handle().render()
    }

    /// Moves buffered samples into their buckets, if there are any.
    pub fn upkeep(&self) {
        if self.touched.swap(false, Ordering::AcqRel) {
            self.series.recorder.handle().run_upkeep();
        }
    }

    pub fn report(&self) -> ShadowReport {
        let requests = ShadowOutcome::ALL.iter().zip(&self.outcomes);
        let requests = requests.map(|(outcome, (total, _))| (outcome.name(), total.load(Ordering::Relaxed)));
        let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let versions = VersionPair {
            model: self.series.model.to_string(),
            version: self.versions.primary.number(),
            shadow: self.versions.shadow.number(),
        };
        tally.report(versions, requests.collect())
    }
}

type Pairs = BTreeMap<(ModelName, Sides<Version>), Arc<Pair>>;

/// All pairs of live versions that a request was copied for.
#[derive(Default)]
pub struct Shadows {
    pairs: RwLock<Pairs>,
}

impl Shadows {
    /// Counts the event, unless one of its versions is not live any more: nobody would ever clear it away.
    pub fn count(&self, event: &ShadowEvent<'_>, live: impl Fn(&ServableId) -> bool) {
        let key = (event.model.clone(), event.versions);
        let known = self.pairs.read().unwrap_or_else(PoisonError::into_inner).get(&key).map(Arc::clone);
        let pair = known.or_else(|| {
            // Asked under the lock: a version that goes after this is forgotten after this.
            let mut pairs = self.pairs.write().unwrap_or_else(PoisonError::into_inner);
            let versions = [event.versions.primary, event.versions.shadow];
            let all_live =
                versions.into_iter().all(|version| live(&ServableId { model: event.model.clone(), version }));
            let pair = || Arc::new(Pair::new(event.model, event.versions));
            all_live.then(|| Arc::clone(pairs.entry(key).or_insert_with(pair)))
        });
        if let Some(pair) = pair {
            pair.count(event);
        }
    }

    /// Drops every pair of which `id` is a side.
    pub fn forget(&self, id: &ServableId) {
        let mut pairs = self.pairs.write().unwrap_or_else(PoisonError::into_inner);
        pairs.retain(|(model, versions), _| {
            *model != id.model || (versions.primary != id.version && versions.shadow != id.version)
        });
    }

    /// By model, version and shadow.
    pub fn all(&self) -> Vec<Arc<Pair>> {
        self.pairs.read().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect()
    }
}
