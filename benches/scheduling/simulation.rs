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
    pub calls: Calls,
    /// How long after its arrival a request is still on time.
    pub objective: f64,
    pub instances: usize,
    /// Calls take up to this part less or more than `calls` says, one as likely as another.
    pub noise: f64,
}

/// The times of session calls of 1, 2, 3, … rows.
#[derive(Debug, Clone)]
pub struct Calls(pub Vec<f64>);

impl Calls {
    /// t0 + α·b for calls of up to `rows_max` rows.
    pub fn line(t0: f64, alpha: f64, rows_max: usize) -> Self {
        Self((1..=rows_max).map(|rows| t0 + alpha * rows as f64).collect())
    }

    /// Lines between the times of calls of 1, 2, 4, … rows.
    pub fn between(times: &[f64]) -> Self {
        let line = |(doubling, pair): (usize, &[f64])| {
            let (rows, first, step) = (1 << doubling, pair[0], pair[1] - pair[0]);
            (0..rows).map(move |row| first + step * row as f64 / rows as f64).collect::<Vec<f64>>()
        };
        Self(times.windows(2).enumerate().flat_map(line).chain(times.last().copied()).collect())
    }

    pub fn rows_max(&self) -> usize {
        self.0.len()
    }

    pub fn time(&self, rows: usize) -> f64 {
        self.0[rows - 1]
    }

    /// Requests a millisecond that one instance can answer if it is never idle.
    pub fn capacity(&self) -> f64 {
        (1..=self.rows_max()).map(|rows| rows as f64 / self.time(rows)).fold(0.0, f64::max)
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
    latency_sum: f64,
    /// From the first arrival to the last.
    time: f64,
}

impl Outcome {
    pub fn arrived(&self) -> usize {
        self.on_time + self.late + self.refused + self.dropped
    }

    /// Of all that arrived.
    pub fn on_time_share(&self) -> f64 {
        self.on_time as f64 / self.arrived() as f64
    }

    /// Of all that ran, in milliseconds.
    pub fn latency(&self) -> f64 {
        self.latency_sum / (self.on_time + self.late) as f64
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

/// A table that was measured, as a server's is before its first request.
fn costs(calls: &Calls) -> Arc<Costs> {
    let costs = Costs::new(calls.rows_max());
    let doublings = std::iter::successors(Some(1), |rows| Some(2 * rows));
    let sizes = doublings.take_while(|rows| *rows <= calls.rows_max());
    let measured: Vec<_> = sizes.map(|rows| (size(rows), milliseconds(calls.time(rows)))).collect();
    costs.seed(&measured);
    Arc::new(costs)
}

fn size(rows: usize) -> Size {
    Size { rows: rows as u64, bytes: rows as u64 }
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
        rows_max: setting.calls.rows_max(),
        merging: true,
        delay_max: Duration::ZERO,
        preferred_rows: vec![],
        levels: vec![level],
        default_level: 1,
        objective: promised.then(|| milliseconds(setting.objective)),
        call_max: None,
    };
    let costs = costs(&setting.calls);
    let queue = Queue::new(Batching { policy, costs: Arc::clone(&costs) }, setting.instances);
    let simulation = Simulation {
        setting,
        origin: Instant::now(),
        random: fastrand::Rng::with_seed(1),
        costs,
        queue,
        ends: BinaryHeap::new(),
        outcome: Outcome::default(),
    };
    simulation.run(arrivals)
}

struct Simulation<'a> {
    setting: &'a Setting,
    origin: Instant,
    random: fastrand::Rng,
    costs: Arc<Costs>,
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
        let noise = 1.0 + self.setting.noise * (2.0 * self.random.f64() - 1.0);
        let took = noise * self.setting.calls.time(batch.len());
        self.costs.observe(size(batch.len()), milliseconds(took));
        let end = now + took;
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
