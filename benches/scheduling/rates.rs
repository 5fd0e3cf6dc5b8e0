//! The highest rates at which requests are on time, and what comes beyond them.

use super::arrivals::Pattern;
use super::optimum::{can_serve, highest};
use super::simulation::{Calls, Outcome, Setting, simulate};

/// The share of requests that must be on time.
const SHARE: f64 = 0.99;

/// A setting and a pattern of arrivals, with the length of its traces.
#[derive(Debug, Clone)]
pub struct Trial {
    pub setting: Setting,
    pub pattern: Pattern,
    pub requests: usize,
    pub seeds: u64,
}

/// Highest rates, in requests a millisecond, the mean over the seeds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rates {
    pub optimum: f64,
    /// Of the optimum's.
    pub take_all: f64,
    /// Of the optimum's.
    pub promised: f64,
}

/// The settings that the design was chosen by: t0, α and the objective, in milliseconds.
pub const CHOSEN_BY: [(f64, f64, f64); 3] = [(1.0, 0.1, 10.0), (1.0, 0.1, 5.0), (0.3, 1.0, 20.0)];

impl Setting {
    /// One instance whose calls take t0 + α·b, exactly.
    pub fn line((t0, alpha, objective): (f64, f64, f64)) -> Self {
        Self { calls: Calls::line(t0, alpha, 1024), objective, instances: 1, noise: 0.0 }
    }
}

impl Trial {
    /// The optimum is that of one instance, and knows nothing of noise.
    pub fn rates(&self) -> Rates {
        let mut sum = Rates::default();
        for seed in 0..self.seeds {
            let late_max = ((1.0 - SHARE) * self.requests as f64) as usize;
            let optimum = self.highest(seed, |trace| {
                can_serve(trace, &self.setting.calls, self.setting.objective, late_max)
            });
            sum.optimum += optimum;
            sum.take_all += self.highest_simulated(seed, false) / optimum;
            sum.promised += self.highest_simulated(seed, true) / optimum;
        }
        let mean = |sum: f64| sum / self.seeds as f64;
        Rates { optimum: mean(sum.optimum), take_all: mean(sum.take_all), promised: mean(sum.promised) }
    }

    /// The highest rate at which enough requests are on time, with the objective known to the queue or not.
    pub fn highest_simulated(&self, seed: u64, promised: bool) -> f64 {
        self.highest(seed, |trace| simulate(&self.setting, promised, trace).on_time_share() >= SHARE)
    }

    /// What becomes of requests at that rate.
    pub fn at(&self, rate: f64, promised: bool) -> Outcome {
        simulate(&self.setting, promised, &self.pattern.arrivals(rate, self.requests, 9))
    }

    /// The highest rate whose trace is good, to a thousandth of what all instances can do.
    fn highest(&self, seed: u64, good: impl Fn(&[f64]) -> bool) -> f64 {
        let max = self.setting.calls.capacity() * self.setting.instances as f64;
        highest(max, max / 1000.0, |rate| good(&self.pattern.arrivals(rate, self.requests, seed)))
    }
}

/// Mean latency of take-all on one instance, with Poisson arrivals and no limit to a call: an upper bound that is
/// close (Inoue, Performance Evaluation 152, 2021). `rate` and times as everywhere.
pub fn inoue(t0: f64, alpha: f64, rate: f64) -> f64 {
    let load = rate * alpha;
    let general =
        (alpha + t0) / (2.0 * (1.0 - load)) * (1.0 + 2.0 * rate * t0 + (1.0 - rate * t0) / (1.0 + load));
    let busy = 1.5 * t0 / (1.0 - load) + alpha / 2.0 * (load + 2.0) / (1.0 - load * load);
    general.min(busy)
}
