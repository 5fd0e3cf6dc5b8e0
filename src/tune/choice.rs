//! Which of what was measured to recommend, and why. Pure.

use super::Measured;
use crate::model::config::CpuSetting;

/// Measurements that differ by less do not differ.
const TIE: f64 = 0.03;

/// A row has to cost this part less in a batch than alone for batches to pay.
const GAIN_MIN: f64 = 0.05;

/// What decided between settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Nothing else came near its rows a second.
    MostRows,
    /// Of those with the most rows a second it answered soonest.
    LowestLatency,
    /// Of those with the most rows a second and the lowest latency it takes the fewest threads.
    FewestThreads,
}

/// Whether rows cost less together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Batches {
    /// One size was measured.
    Unknown,
    /// Seconds for each row: alone, and in batches of `rows`.
    Pay {
        alone: f64,
        together: f64,
        rows: usize,
    },
    DoNotPay {
        alone: f64,
        together: f64,
        rows: usize,
    },
}

/// What is recommended.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    pub best: Measured,
    pub reason: Reason,
    /// With the recommended setting.
    pub batches: Batches,
}

/// Chooses the most rows a second; of what comes within 3 % of that, the lowest latency; of what comes within 3 % of
/// that too, the fewest threads. `None`: nothing was measured.
pub fn choose(measured: &[Measured]) -> Option<Choice> {
    let most = measured.iter().map(|m| m.rows_per_second).reduce(f64::max)?;
    let quick: Vec<&Measured> = measured.iter().filter(|m| m.rows_per_second >= (1.0 - TIE) * most).collect();
    let soonest = quick.iter().map(|m| m.call_seconds).reduce(f64::min)?;
    let prompt: Vec<&Measured> =
        quick.iter().copied().filter(|m| m.call_seconds <= (1.0 + TIE) * soonest).collect();
    let by_threads = |m: &&&Measured| {
        let CpuSetting { threads, instances } = m.setting;
        (threads * instances, threads, m.rows)
    };
    let best = **prompt.iter().min_by_key(by_threads)?;
    let other_settings = |found: &[&Measured]| found.iter().any(|m| m.setting != best.setting);
    let reason = match (other_settings(&quick), other_settings(&prompt)) {
        (false, _) => Reason::MostRows,
        (true, false) => Reason::LowestLatency,
        (true, true) => Reason::FewestThreads,
    };
    Some(Choice { best, reason, batches: batches(measured, best.setting) })
}

fn batches(measured: &[Measured], setting: CpuSetting) -> Batches {
    let cost = |m: &Measured| m.call_seconds / m.rows as f64;
    let own: Vec<&Measured> = measured.iter().filter(|m| m.setting == setting).collect();
    let Some((smallest, larger)) = own.split_first() else { return Batches::Unknown };
    let cheapest = larger.iter().min_by(|a, b| cost(a).total_cmp(&cost(b)));
    let Some(cheapest) = cheapest.filter(|_| smallest.rows == 1) else { return Batches::Unknown };
    let (alone, together, rows) = (cost(smallest), cost(cheapest), cheapest.rows);
    if together <= (1.0 - GAIN_MIN) * alone {
        Batches::Pay { alone, together, rows }
    } else {
        Batches::DoNotPay { alone, together, rows }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Threads, instances, rows, rows a second, milliseconds of a call.
    type Line = (usize, usize, usize, f64, f64);

    fn measured(lines: &[Line]) -> Vec<Measured> {
        let line = |&(threads, instances, rows, rows_per_second, ms): &Line| Measured {
            setting: CpuSetting { threads, instances },
            rows,
            rows_per_second,
            call_seconds: ms / 1e3,
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn the_most_rows_win_then_latency_then_threads() {
        fn check(lines: &[Line], best: (usize, usize, usize), reason: Reason) {
            let choice = choose(&measured(lines)).unwrap();
            let CpuSetting { threads, instances } = choice.best.setting;
            assert_eq!((threads, instances, choice.best.rows), best, "{lines:?}");
            assert_eq!(choice.reason, reason, "{lines:?}");
        }
        check(&[(1, 2, 8, 100.0, 9.0), (2, 1, 8, 96.0, 1.0)], (1, 2, 8), Reason::MostRows);
        check(&[(1, 2, 8, 100.0, 9.0), (2, 1, 8, 98.0, 5.0)], (2, 1, 8), Reason::LowestLatency);
        check(&[(1, 2, 8, 100.0, 5.0), (1, 1, 8, 98.0, 5.1)], (1, 1, 8), Reason::FewestThreads);
        check(&[(2, 1, 8, 100.0, 5.0), (1, 2, 8, 98.0, 5.1)], (1, 2, 8), Reason::FewestThreads);
        // Two sizes of one setting are no choice between settings.
        check(&[(1, 2, 16, 100.0, 9.0), (1, 2, 8, 99.0, 5.0)], (1, 2, 8), Reason::MostRows);
        assert_eq!(choose(&[]), None);
    }

    #[test]
    fn batches_pay_where_a_row_costs_less_in_them() {
        let batches = |lines: &[Line]| choose(&measured(lines)).unwrap().batches;
        assert!(matches!(
            batches(&[(1, 1, 1, 10.0, 100.0), (1, 1, 4, 30.0, 120.0), (1, 1, 8, 20.0, 400.0)]),
            Batches::Pay { rows: 4, together, .. } if together == 0.03
        ));
        assert!(matches!(
            batches(&[(1, 1, 1, 10.0, 100.0), (1, 1, 4, 10.0, 390.0)]),
            Batches::DoNotPay { rows: 4, .. }
        ));
        assert_eq!(batches(&[(1, 1, 1, 10.0, 100.0)]), Batches::Unknown);
        assert_eq!(batches(&[(1, 1, 2, 10.0, 100.0), (1, 1, 4, 10.0, 390.0)]), Batches::Unknown);
        // Another setting's sizes say nothing of this one's.
        assert_eq!(batches(&[(1, 1, 1, 10.0, 100.0), (1, 2, 4, 1.0, 9.0)]), Batches::Unknown);
    }
}
