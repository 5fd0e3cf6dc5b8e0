//! Whether what was measured has settled.

use std::time::Duration;

use super::tally::Tally;

/// Windows that must agree.
pub const AGREEING: usize = 3;

/// One stretch of a measurement.
#[derive(Debug)]
pub struct Window {
    pub tally: Tally,
    pub lasted: Duration,
}

impl Window {
    /// Successful answers a second.
    pub fn rate(&self) -> f64 {
        self.tally.latencies.len() as f64 / self.lasted.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// The highest percentile that this many answers still tell with some ten of them beyond it, in nanoseconds.
    fn tail(&self) -> f64 {
        let part = match self.tally.latencies.len() {
            1000.. => 0.99,
            100.. => 0.9,
            _ => 0.5,
        };
        self.tally.latencies.value_at_quantile(part) as f64
    }
}

/// Whether the last three windows lie within that part of their mean, in rate and in the tail of their latencies.
pub fn stable(windows: &[Window], part: f64) -> bool {
    let Some(last) = windows.last_chunk::<AGREEING>() else { return false };
    agree(last.each_ref().map(Window::rate), part) && agree(last.each_ref().map(Window::tail), part)
}

fn agree(values: [f64; AGREEING], part: f64) -> bool {
    let mean = values.iter().sum::<f64>() / AGREEING as f64;
    mean > 0.0 && values.iter().all(|value| (value - mean).abs() <= part * mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A window of a second with so many answers of that latency.
    fn window(answers: u64, nanos: u64) -> Window {
        let mut tally = Tally::default();
        tally.latencies.record_n(nanos, answers).unwrap();
        Window { tally, lasted: Duration::from_secs(1) }
    }

    fn check(windows: &[(u64, u64)], expected: bool) {
        let made: Vec<Window> = windows.iter().map(|(answers, nanos)| window(*answers, *nanos)).collect();
        assert_eq!(stable(&made, 0.1), expected, "{windows:?}");
    }

    #[test]
    fn the_last_three_windows_decide() {
        check(&[], false);
        check(&[(100, 1000), (100, 1000)], false);
        check(&[(100, 1000), (105, 1000), (95, 1000)], true);
        check(&[(5, 9), (100, 1000), (105, 1000), (95, 1000)], true);
        check(&[(100, 1000), (100, 1000), (150, 1000)], false);
        check(&[(100, 1000), (100, 1000), (100, 1500)], false);
    }

    #[test]
    fn windows_without_an_answer_are_not_stable() {
        check(&[(0, 1), (0, 1), (0, 1)], false);
    }
}
