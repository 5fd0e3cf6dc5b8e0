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

/// Collects the totals of one version.
#[derive(Default)]
pub struct Statistics {
    last_inference_ms: AtomicU64,
    inference_count: AtomicU64,
    execution_count: AtomicU64,
    success: Cell,
    fail: Cell,
    queue: Cell,
    compute_input: Cell,
    compute_infer: Cell,
    compute_output: Cell,
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
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.last_inference_ms.store(now_ms, Ordering::Relaxed);
        self.success.add(timings.total);
        self.queue.add(timings.queue);
        // As in Triton, a hit counts as a success that waited for nothing, and as no inference.
        if event.lookup.is_some_and(|lookup| lookup.hit) {
            return;
        }
        self.inference_count.fetch_add(event.rows as u64, Ordering::Relaxed);
        self.compute_input.add(timings.assembly);
        self.compute_infer.add(timings.session);
        self.compute_output.add(timings.split + timings.encode);
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
        Totals {
            last_inference_ms: self.last_inference_ms.load(Ordering::Relaxed),
            inference_count: self.inference_count.load(Ordering::Relaxed),
            execution_count: self.execution_count.load(Ordering::Relaxed),
            success: self.success.total(),
            fail: self.fail.total(),
            queue: self.queue.total(),
            compute_input: self.compute_input.total(),
            compute_infer: self.compute_infer.total(),
            compute_output: self.compute_output.total(),
            cache_hit: self.cache_hit.total(),
            cache_miss: self.cache_miss.total(),
            batches: self.batches.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            recent: self.window.recent(Instant::now()),
        }
    }
}
