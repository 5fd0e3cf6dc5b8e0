//! The rules that a queue is run by.

use std::time::Duration;

/// The part of the latency objective that the front end is allowed at the most.
const FRONT_END_MAX: f64 = 0.25;

/// What happens to an entry whose queue timeout has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimeoutAction {
    /// It is answered with an error and never runs.
    #[default]
    Reject,
    /// It runs once nothing else waits at its level.
    Delay,
}

/// Rules of one priority level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelPolicy {
    /// Entries that may wait at this level; one more is refused at once.
    pub size_max: usize,
    /// Queue time after which `timeout_action` applies; `None`: never.
    pub timeout: Option<Duration>,
    pub timeout_action: TimeoutAction,
    /// Whether a request's own timeout may shorten `timeout`. Without a `timeout` it always counts.
    pub timeout_override: bool,
}

impl LevelPolicy {
    /// The queue timeout of a request that asks for `own`.
    pub fn queue_timeout(&self, own: Option<Duration>) -> Option<Duration> {
        match (self.timeout, own) {
            (None, own) => own,
            (Some(limit), Some(own)) if self.timeout_override => Some(limit.min(own)),
            (limit, _) => limit,
        }
    }
}

/// How batches are formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchingPolicy {
    /// Rows in one batch at the most, ≥ 1.
    pub rows_max: usize,
    /// Whether requests may share a batch at all.
    pub merging: bool,
    /// How long the oldest entry may wait for company once an instance is free. Zero: not at all.
    pub delay_max: Duration,
    /// Batch sizes that are dispatched without waiting, ascending, each ≤ `rows_max`.
    pub preferred_rows: Vec<usize>,
    /// One policy per priority level, the highest (1) first; never empty.
    pub levels: Vec<LevelPolicy>,
    /// The level, counted from 1, of requests that name none.
    pub default_level: usize,
    /// Time from arrival to the answer that requests are admitted for. What is predicted to take longer is refused.
    /// `None`: whatever there is room for is admitted.
    pub objective: Option<Duration>,
    /// How long a session call may take before it is ended; `None`: by what calls of its size take.
    pub call_max: Option<Duration>,
}

impl BatchingPolicy {
    /// What the front end may take of the objective at the most.
    pub fn front_end_max(&self) -> Option<Duration> {
        self.objective.map(|objective| objective.mul_f64(FRONT_END_MAX))
    }

    /// Whether somebody chose the sizes of batches or how long they wait for company.
    pub fn sizes_chosen(&self) -> bool {
        !self.preferred_rows.is_empty() || !self.delay_max.is_zero()
    }
}
