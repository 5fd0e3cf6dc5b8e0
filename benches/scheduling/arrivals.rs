//! When requests come, in milliseconds. The same seed gives the same times on every machine.

/// How requests are spread over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    Poisson,
    /// Two rates, one four times the other, each for 50 ms on average.
    Bursty,
}

/// Milliseconds that a rate lasts on average.
const DWELL: f64 = 50.0;

impl Pattern {
    /// `count` moments, ascending, of `rate` requests a millisecond on average.
    pub fn arrivals(self, rate: f64, count: usize, seed: u64) -> Vec<f64> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut pause = |rate: f64| -libm::log(1.0 - random.f64()) / rate;
        let (mut now, mut high) = (0.0, true);
        let mut turns = pause(1.0 / DWELL);
        let mut times = Vec::with_capacity(count);
        while times.len() < count {
            let factor = match (self, high) {
                (Self::Poisson, _) => 1.0,
                (Self::Bursty, true) => 1.6,
                (Self::Bursty, false) => 0.4,
            };
            let next = now + pause(rate * factor);
            if self == Self::Bursty && next > turns {
                // Pauses have no memory, so the rest of this one is drawn anew.
                now = turns;
                turns += pause(1.0 / DWELL);
                high = !high;
                continue;
            }
            now = next;
            times.push(now);
        }
        times
    }
}
