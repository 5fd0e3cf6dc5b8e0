//! Requests, instances and clocks made up; the queue is the real one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir::batch::{
    Batching, BatchingPolicy, Costs, Dropped, LevelPolicy, Queue, Size, Taken, TimeoutAction, Waiting,
};

/// What is simulated. Times are in milliseconds.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The time of a session call of so many rows.
    pub call: Line,
    /// How long after its arrival a request is still on time.
    pub objective: f64,
    pub instances: usize,
    pub rows_max: usize,
}

/// t0 + α·b.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    pub t0: f64,
    pub alpha: f64,
}

impl Line {
    pub fn of(self, rows: usize) -> f64 {
        self.t0 + self.alpha * rows as f64
    }
}

/// What became of the requests.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    pub on_time: usize,
    pub late: usize,
    /// Told at the door.
    pub refused: usize,
    /// Admitted, and given up before they ran.
    pub dropped: usize,
    /// Of all that ran.
    pub latency_sum: f64,
    /// From the first arrival to the last.
    pub time: f64,
}

impl Outcome {
    pub fn arrived(&self) -> usize {
        self.on_time + self.late + self.refused + self.dropped
    }

    /// Of all that arrived.
    pub fn on_time_share(&self) -> f64 {
        self.on_time as f64 / self.arrived() as f64
    }

    /// Answers on time in each millisecond.
    pub fn goodput(&self) -> f64 {
        self.on_time as f64 / self.time
    }
}

struct Request {
    arrived: f64,
}

impl Waiting for Request {
    type Key = ();

    fn key(&self) -> &() {
        &()
    }
    fn rows(&self) -> usize {
        1
    }
    fn bytes(&self) -> usize {
        1
    }
    fn cancelled(&self) -> bool {
        false
    }
    fn deadline(&self) -> Option<Instant> {
        None
    }
}

/// A table that knows the line.
fn costs(setting: &Setting) -> Arc<Costs> {
    let costs = Costs::new(setting.rows_max);
    let call = |rows: usize| {
        let size = Size { rows: rows as u64, bytes: rows as u64 };
        (size, milliseconds(setting.call.of(rows)))
    };
    costs.seed(&[call(1), call(2)]);
    Arc::new(costs)
}

fn milliseconds(time: f64) -> Duration {
    Duration::from_secs_f64(time / 1e3)
}

/// Lets requests arrive at `arrivals`; with `promised` the queue knows the objective, without it takes all that waits.
pub fn simulate(setting: &Setting, promised: bool, arrivals: &[f64]) -> Outcome {
    let level = LevelPolicy {
        size_max: usize::MAX,
        timeout: None,
        timeout_action: TimeoutAction::Reject,
        timeout_override: true,
    };
    let policy = BatchingPolicy {
        rows_max: setting.rows_max,
        merging: true,
        delay_max: Duration::ZERO,
        preferred_rows: vec![],
        levels: vec![level],
        default_level: 1,
        objective: promised.then(|| milliseconds(setting.objective)),
    };
    let queue = Queue::new(Batching { policy, costs: costs(setting) }, setting.instances);
    Simulation { setting, origin: Instant::now(), queue, ends: BinaryHeap::new(), outcome: Outcome::default() }
        .run(arrivals)
}

struct Simulation<'a> {
    setting: &'a Setting,
    origin: Instant,
    queue: Queue<Request>,
    /// When instances are done, in nanoseconds, which order as whole numbers do.
    ends: BinaryHeap<Reverse<u64>>,
    outcome: Outcome,
}

impl Simulation<'_> {
    fn run(mut self, arrivals: &[f64]) -> Outcome {
        for &arrived in arrivals {
            while let Some(&Reverse(end)) = self.ends.peek()
                && end as f64 / 1e6 <= arrived
            {
                self.end();
            }
            match self.queue.push(Request { arrived }, 0, None, self.origin + milliseconds(arrived)) {
                Ok(_) if self.ends.len() < self.setting.instances => self.begin(arrived),
                Ok(_) => {}
                Err(_) => self.outcome.refused += 1,
            }
        }
        while !self.ends.is_empty() {
            self.end();
        }
        self.outcome.time = arrivals.last().unwrap_or(&0.0) - arrivals.first().unwrap_or(&0.0);
        self.outcome
    }

    /// The call that ends next ends, and its instance takes what waits.
    fn end(&mut self) {
        let Some(Reverse(end)) = self.ends.pop() else { return };
        self.queue.ended();
        self.begin(end as f64 / 1e6);
    }

    fn begin(&mut self, now: f64) {
        let mut dropped: Vec<Dropped<Request>> = Vec::new();
        let taken = self.queue.take(self.origin + milliseconds(now), &mut dropped);
        self.outcome.dropped += dropped.len();
        let Taken::Batch(batch) = taken else { return };
        let end = now + self.setting.call.of(batch.len());
        self.ends.push(Reverse((end * 1e6) as u64));
        for request in batch {
            let latency = end - request.arrived;
            self.outcome.latency_sum += latency;
            // The queue's clock counts whole nanoseconds.
            match latency <= self.setting.objective + 1e-5 {
                true => self.outcome.on_time += 1,
                false => self.outcome.late += 1,
            }
        }
    }
}
