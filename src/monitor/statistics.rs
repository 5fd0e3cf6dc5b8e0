//! The protocol's per-version statistics: running totals since the version went live. Loads of one version that
//! overlap share them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::window::{Recent, Window};
use crate::event::{BatchEvent, InferEvent, Outcome};
use crate::infer::CacheLookup;

/// How often and for how long in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Total {
    pub count: u64,
    pub ns: u64,
}

/// Totals of session calls of one size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchTotals {
    pub compute_input: Total,
    pub compute_infer: Total,
    pub compute_output: Total,
}

/// All totals of one version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Milliseconds since 1970; 0 when there was none.
    pub last_inference_ms: u64,
    /// Rows of requests that succeeded by a session call.
    pub inference_count: u64,
    /// Session calls.
    pub execution_count: u64,
    pub success: Total,
    pub fail: Total,
    pub queue: Total,
    pub compute_input: Total,
    pub compute_infer: Total,
    pub compute_output: Total,
    pub cache_hit: Total,
    pub cache_miss: Total,
    /// By rows in the batch.
    pub batches: BTreeMap<usize, BatchTotals>,
    /// Of the last half minute alone.
    pub recent: Recent,
}

/// A total that many threads add to.
#[derive(Default)]
struct Cell {
    count: AtomicU64,
    ns: AtomicU64,
}

impl Cell {
    fn add(&self, duration: Duration) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.ns.fetch_add(nanoseconds(duration), Ordering::Relaxed);
    }

    fn total(&self) -> Total {
        Total { count: self.count.load(Ordering::Relaxed), ns: self.ns.load(Ordering::Relaxed) }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Tells the time of day without asking for it: by that at which it was made.
struct Clock {
    made: Instant,
    /// Milliseconds since 1970.
    made_ms: u64,
}

impl Default for Clock {
    fn default() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { made: Instant::now(), made_ms: milliseconds(since_1970) }
    }
}

impl Clock {
    /// Milliseconds since 1970.
    fn at(&self, moment: Instant) -> u64 {
        self.made_ms.saturating_add(milliseconds(moment.saturating_duration_since(self.made)))
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Collects the totals of one version. What is counted equally often is counted once.
#[derive(Default)]
pub struct Statistics {
    clock: Clock,
    last_inference_ms: AtomicU64,
    inference_count: AtomicU64,
    execution_count: AtomicU64,
    success: Cell,
    fail: Cell,
    /// Of those that succeeded.
    queue_ns: AtomicU64,
    /// Requests that succeeded by a session call.
    computed: AtomicU64,
    compute_input_ns: AtomicU64,
    compute_infer_ns: AtomicU64,
    compute_output_ns: AtomicU64,
    cache_hit: Cell,
    cache_miss: Cell,
    batches: Mutex<BTreeMap<usize, BatchTotals>>,
    pub window: Window,
}

impl Statistics {
    pub fn infer(&self, event: &InferEvent<'_>) {
        let timings = &event.timings;
        self.window.record((event.outcome == Outcome::Ok).then_some(timings.total));
        if let Some(CacheLookup { hit, took }) = event.lookup {
            if hit { &self.cache_hit } else { &self.cache_miss }.add(took);
        }
        if event.outcome != Outcome::Ok {
            self.fail.add(timings.total);
            return;
        }
        self.last_inference_ms.store(self.clock.at(event.ended), Ordering::Relaxed);
        self.success.add(timings.total);
        let add = |total: &AtomicU64, time| total.fetch_add(nanoseconds(time), Ordering::Relaxed);
        add(&self.queue_ns, timings.queue);
        // As in Triton, a hit counts as a success that waited for nothing, and as no inference.
        if event.lookup.is_some_and(|lookup| lookup.hit) {
            return;
        }
        self.inference_count.fetch_add(event.rows as u64, Ordering::Relaxed);
        self.computed.fetch_add(1, Ordering::Relaxed);
        add(&self.compute_input_ns, timings.assembly);
        add(&self.compute_infer_ns, timings.session);
        add(&self.compute_output_ns, timings.split + timings.encode);
    }

    pub fn batch(&self, event: &BatchEvent) {
        self.execution_count.fetch_add(1, Ordering::Relaxed);
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        let totals = batches.entry(event.rows).or_default();
        for (total, duration) in [
            (&mut totals.compute_input, event.assembly),
            (&mut totals.compute_infer, event.session),
            (&mut totals.compute_output, event.split),
        ] {
            total.count += 1;
            total.ns = total.ns.saturating_add(nanoseconds(duration));
        }
    }

    pub fn totals(&self) -> Totals {
        let success = self.success.total();
        let computed = self.computed.load(Ordering::Relaxed);
        let total = |count, ns: &AtomicU64| Total { count, ns: ns.load(Ordering::Relaxed) };
        Totals {
            last_inference_ms: self.last_inference_ms.load(Ordering::Relaxed),
            inference_count: self.inference_count.load(Ordering::Relaxed),
            execution_count: self.execution_count.load(Ordering::Relaxed),
            success,
            fail: self.fail.total(),
            queue: total(success.count, &self.queue_ns),
            compute_input: total(computed, &self.compute_input_ns),
            compute_infer: total(computed, &self.compute_infer_ns),
            compute_output: total(computed, &self.compute_output_ns),
            cache_hit: self.cache_hit.total(),
            cache_miss: self.cache_miss.total(),
            batches: self.batches.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            recent: self.window.recent(Instant::now()),
        }
    }
}
