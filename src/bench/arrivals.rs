//! When requests are due in an open loop.
//!
//! Always: the same seed gives the same moments, on any number of threads.
//! Not here: clocks. Moments are counted from the beginning of the load.

use std::time::Duration;

/// How arrivals are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// Independent of each other.
    Poisson,
    /// Poisson at a rate that jumps between a trough and a peak four times as high.
    Bursty,
    /// One like the other.
    Constant,
}

impl Process {
    pub const ALL: [Self; 3] = [Self::Poisson, Self::Bursty, Self::Constant];

    pub fn name(self) -> &'static str {
        match self {
            Self::Poisson => "poisson",
            Self::Bursty => "bursty",
            Self::Constant => "constant",
        }
    }

    /// The process of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|process| process.name() == name)
    }
}

/// How long peak and trough last on average. A window of measurement sees some twenty of them.
const DWELL: Duration = Duration::from_millis(100);

/// Peak and trough as parts of the mean: one is four times the other, and both last equally long.
const PEAK: f64 = 1.6;
const TROUGH: f64 = 0.4;

/// Moments without end, in nanoseconds and never falling.
#[derive(Debug, Clone)]
pub struct Schedule {
    random: fastrand::Rng,
    process: Process,
    /// Requests a nanosecond.
    rate: f64,
    now: f64,
    /// Of the bursty process: whether it is at its peak, and until when.
    peak: bool,
    state_ends: f64,
}

impl Schedule {
    /// `rate` is in requests a second.
    pub fn new(process: Process, rate: f64, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let peak = random.bool();
        let state_ends = exponential(&mut random, DWELL.as_nanos() as f64);
        Self { random, process, rate: rate / 1e9, now: 0.0, peak, state_ends }
    }

    fn bursty(&mut self) {
        loop {
            let part = if self.peak { PEAK } else { TROUGH };
            let gap = exponential(&mut self.random, 1.0 / (self.rate * part));
            if self.now + gap <= self.state_ends {
                self.now += gap;
                return;
            }
            // What is left of a gap when the rate changes is drawn anew: exponential gaps do not remember.
            self.now = self.state_ends;
            self.peak = !self.peak;
            self.state_ends += exponential(&mut self.random, DWELL.as_nanos() as f64);
        }
    }
}

impl Iterator for Schedule {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        match self.process {
            Process::Poisson => self.now += exponential(&mut self.random, 1.0 / self.rate),
            Process::Constant => self.now += 1.0 / self.rate,
            Process::Bursty => self.bursty(),
        }
        Some(self.now as u64)
    }
}

fn exponential(random: &mut fastrand::Rng, mean: f64) -> f64 {
    -(1.0 - random.f64()).ln() * mean
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Arrivals in each tenth of a second.
    fn counts(process: Process, rate: f64, seconds: u64, seed: u64) -> Vec<f64> {
        let mut counts = vec![0.0; 10 * seconds as usize];
        let moments = Schedule::new(process, rate, seed).take_while(|at| *at < seconds * SECOND);
        moments.for_each(|at| counts[(at / (SECOND / 10)) as usize] += 1.0);
        counts
    }

    /// Mean and index of dispersion, which is 1 for Poisson counts.
    fn spread(counts: &[f64]) -> (f64, f64) {
        let mean = counts.iter().sum::<f64>() / counts.len() as f64;
        let variance = counts.iter().map(|c| (c - mean).powi(2)).sum::<f64>() / (counts.len() - 1) as f64;
        (mean, variance / mean)
    }

    #[test]
    fn every_process_has_the_rate_asked_for() {
        for process in Process::ALL {
            let (mean, _) = spread(&counts(process, 2000.0, 200, 3));
            assert!((mean - 200.0).abs() < 10.0, "{}: {mean}", process.name());
        }
    }

    #[test]
    fn bursts_are_more_uneven_than_chance_and_a_beat_is_even() {
        let dispersion = |process| spread(&counts(process, 2000.0, 200, 5)).1;
        assert!((dispersion(Process::Poisson) - 1.0).abs() < 0.15);
        assert!(dispersion(Process::Bursty) > 10.0);
        assert!(dispersion(Process::Constant) < 0.01);
    }

    #[test]
    fn the_seed_decides() {
        let first = |seed| Schedule::new(Process::Bursty, 100.0, seed).take(50).collect::<Vec<_>>();
        assert_eq!(first(1), first(1));
        assert_ne!(first(1), first(2));
        assert!(first(1).is_sorted());
    }

    #[test]
    fn names_read_back() {
        for process in Process::ALL {
            assert_eq!(Process::from_name(process.name()), Some(process));
        }
    }
}
