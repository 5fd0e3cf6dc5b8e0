//! Counts what rollouts are judged by, and notes which arm served what experiments are asked about.
//!
//! Always: only requests that chance gave to an arm count, and only those that the step's own route decided. Under a
//! sticky key the key is what chance assigned, so each key counts once in a step: its first request, its first error,
//! its first slow answer; what one heavy user does says nothing about versions. A key that an earlier step counted
//! comes back: that is told apart, because it is no second draw. Nothing is counted while no rollout runs.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::outcomes::{Assignment, Outcomes};
use super::rollout::{Arm, ArmCounts, Counts};
use crate::event::{
    BatchEvent, EventSink, InferEvent, Outcome, Protocol, ServableProfile, ServableSink, ShadowEvent,
};
use crate::id::{ModelName, ServableId, Version};
use crate::reading::Reader;

/// Sticky keys that are remembered, at 24 bytes or so; keys that come later do not count.
const KEYS_MAX: usize = 1 << 20;

/// What counts in one step of a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// The revision of the route that the step is.
    pub revision: u64,
    /// When the step began: tells one from another.
    pub step_began_ms: u64,
    pub current: Version,
    pub new: Version,
    /// A slower answer counts as slow.
    pub objective: Option<Duration>,
    /// Whether predictions are counted by category.
    pub categories: bool,
}

/// What is counted in one step of a rollout.
pub struct StepTally {
    counted: Counted,
    /// How many steps were counted up to this one.
    ordinal: u32,
    tallied: Mutex<Tallied>,
    /// Counted by threads of lowest priority, which must not hold a lock that the request path takes.
    compared: AtomicU64,
    disagreements: AtomicU64,
}

/// In which step, by its ordinal, a key was counted last; 0: in none.
#[derive(Debug, Clone, Copy, Default)]
struct LastCounted {
    request: u32,
    error: u32,
    slow: u32,
}

/// How something of a key counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Occurrence {
    /// For the first time in the rollout, or of a request without a key.
    First,
    /// For the first time in this step.
    Returning,
    /// Not again.
    Repeated,
}

impl Occurrence {
    /// Notes that something was seen in the step `ordinal`.
    fn note(last: &mut u32, ordinal: u32) -> Self {
        match std::mem::replace(last, ordinal) {
            0 => Self::First,
            before if before < ordinal => Self::Returning,
            _ => Self::Repeated,
        }
    }

    fn count(self, first: &mut u64, returning: &mut u64) {
        match self {
            Self::First => *first += 1,
            Self::Returning => *returning += 1,
            Self::Repeated => {}
        }
    }
}

#[derive(Debug, Default)]
struct Tallied {
    counts: Counts,
    /// Stays for the whole rollout.
    keys: HashMap<u64, LastCounted>,
}

impl StepTally {
    /// Begins a step. `counts` is what was counted of it before a restart; `previous` is the step before.
    pub fn begin(counted: Counted, counts: Counts, previous: Option<&StepTally>) -> Self {
        let keys = previous.map(|step| std::mem::take(&mut step.lock().keys)).unwrap_or_default();
        let ordinal = previous.map_or(1, |step| step.ordinal + 1);
        Self {
            counted,
            ordinal,
            compared: AtomicU64::new(counts.compared),
            disagreements: AtomicU64::new(counts.disagreements),
            tallied: Mutex::new(Tallied { counts, keys }),
        }
    }

    /// Whether this is the tally of that very step.
    pub fn is_of(&self, counted: &Counted) -> bool {
        self.counted == *counted
    }

    pub fn counts(&self) -> Counts {
        let disagreements = self.disagreements.load(Ordering::Acquire);
        let compared = self.compared.load(Ordering::Relaxed);
        Counts { compared, disagreements, ..self.lock().counts.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Tallied> {
        self.tallied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn infer(&self, version: Version, reader: &Reader, event: &InferEvent<'_>) {
        let Counted { revision, current, new, objective, categories, .. } = self.counted;
        let routing = event.routing;
        let is_new = version == new;
        let counts = routing.reason.by_weight() && routing.revision == revision;
        if !counts || !(is_new || version == current) {
            return;
        }
        // How a request would have ended whose client went away is not known; that it was slow by then is.
        let over = objective.is_some_and(|objective| event.timings.total > objective);
        let cancelled = event.outcome == Outcome::Cancelled;
        if cancelled && !over {
            return;
        }
        let error = event.outcome != Outcome::Ok && !cancelled;
        let slow = over || (error && objective.is_some());
        // Reading an answer takes longer than counting it.
        let answered = event.outcome == Outcome::Ok;
        let category = (categories && answered).then(|| reader.category(event.predicted)).flatten();
        let mut tallied = self.lock();
        let Tallied { counts, keys } = &mut *tallied;
        let arm = if is_new { &mut counts.new } else { &mut counts.current };
        arm.requests += 1;
        let mut keyless = LastCounted::default();
        let last = match routing.unit {
            None => &mut keyless,
            Some(unit) if keys.len() < KEYS_MAX || keys.contains_key(&unit) => keys.entry(unit).or_default(),
            Some(_) => return,
        };
        let ArmCounts { units, errors, slow: slow_ones, returning, .. } = arm;
        let unit = Occurrence::note(&mut last.request, self.ordinal);
        unit.count(units, &mut returning.units);
        if error {
            Occurrence::note(&mut last.error, self.ordinal).count(errors, &mut returning.errors);
        }
        if slow {
            Occurrence::note(&mut last.slow, self.ordinal).count(slow_ones, &mut returning.slow);
        }
        if let Some(category) = category.filter(|_| unit == Occurrence::First) {
            counts.add_category(category.as_str(), if is_new { Arm::New } else { Arm::Current }, 1);
        }
    }

    fn shadow(&self, event: &ShadowEvent<'_>) {
        let Counted { current, new, .. } = self.counted;
        let ours = event.versions.primary == current && event.versions.shadow == new;
        if let Some(comparison) = event.comparison.filter(|_| ours) {
            // In this order: disagreements are never more than what was compared.
            self.compared.fetch_add(1, Ordering::Relaxed);
            self.disagreements.fetch_add(u64::from(comparison.disagrees), Ordering::Release);
        }
    }
}

/// Where a model's events find the step that counts them.
#[derive(Default)]
struct Slot(ArcSwapOption<StepTally>);

/// Listens for every model.
#[derive(Default)]
pub struct Tallies {
    slots: Mutex<BTreeMap<ModelName, Arc<Slot>>>,
    outcomes: Arc<OnceLock<Arc<Outcomes>>>,
}

impl Tallies {
    /// Notes from now on which arm served the requests of experiments.
    pub fn note_into(&self, outcomes: Arc<Outcomes>) {
        let _ = self.outcomes.set(outcomes);
    }

    fn slot(&self, model: &ModelName) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(model.clone()).or_default())
    }

    /// Counts a model's requests into that step from now on; `None`: into nothing.
    pub fn watch(&self, model: &ModelName, step: Option<Arc<StepTally>>) {
        self.slot(model).0.store(step);
    }
}

/// Listens for one version.
struct ServableTally {
    id: ServableId,
    slot: Arc<Slot>,
    reader: Reader,
    outcomes: Arc<OnceLock<Arc<Outcomes>>>,
}

impl ServableSink for ServableTally {
    fn infer(&self, event: &InferEvent<'_>) {
        if let Some(step) = &*self.slot.0.load() {
            step.infer(self.id.version, &self.reader, event);
        }
        let routing = event.routing;
        if let (Some(enrolled), Some(outcomes)) = (&routing.experiment, self.outcomes.get())
            && event.outcome == Outcome::Ok
        {
            outcomes.served(Assignment {
                model: self.id.model.to_string(),
                request_id: enrolled.request_id.to_string(),
                experiment: enrolled.experiment.to_string(),
                version: self.id.version.number(),
                unit: routing.unit,
            });
        }
    }

    fn batch(&self, _: &BatchEvent) {}
}

impl EventSink for Tallies {
    fn received(&self, _: Protocol) {}

    fn stray(&self, _: Outcome) {}

    fn servable(&self, id: &ServableId, profile: &ServableProfile) -> Arc<dyn ServableSink> {
        Arc::new(ServableTally {
            id: id.clone(),
            slot: self.slot(&id.model),
            reader: Reader::new(profile),
            outcomes: Arc::clone(&self.outcomes),
        })
    }

    fn retired(&self, _: &ServableId) {}

    fn shadow(&self, event: &ShadowEvent<'_>) {
        if let Some(step) = &*self.slot(event.model).0.load() {
            step.shadow(event);
        }
    }
}

impl std::fmt::Debug for StepTally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StepTally").field("counted", &self.counted).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
