//! Tries settings and batch sizes in turns: closed loops with as many callers as instances.

use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use super::{Trials, TuneError};
use crate::backend::{BatchInput, RunError};
use crate::model::config::CpuSetting;

/// Rounds that there is time for where calls are short; each gives one value, and the middle one counts.
const ROUNDS: u32 = 7;

/// The longest that one setting and size is tried at a stretch. It bounds the memory that times take.
const STRETCH_MAX: Duration = Duration::from_millis(250);

/// Part of the time that the first round may take; sizes that it has not come to by then are left out.
const FIRST_ROUND: f64 = 0.5;

/// What came of one setting and batch size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    pub setting: CpuSetting,
    /// Rows of a call.
    pub rows: usize,
    /// Of all callers together.
    pub rows_per_second: f64,
    /// What half of the calls took at the most.
    pub call_seconds: f64,
}

/// What to try, and for how long.
pub struct Sweep<'a> {
    pub trials: &'a Trials,
    pub settings: &'a [CpuSetting],
    /// Rows of a call, ascending.
    pub sizes: &'a [usize],
    pub time: Duration,
}

/// One setting and size.
struct Case {
    setting: CpuSetting,
    rows: usize,
    inputs: Arc<[BatchInput]>,
    /// Rows a second and the middle call's seconds, by round.
    found: Vec<(f64, f64)>,
}

impl Sweep<'_> {
    /// Measures every setting at every size, by size and setting; `progress` hears which part of the time is over.
    ///
    /// Sizes that would take too much memory, or for which the time does not suffice, are left out, but for the
    /// smallest: with it every setting is tried once, however long that takes. Errors: a call fails.
    pub fn run(&self, progress: &mut dyn FnMut(f64)) -> Result<Vec<Measured>, TuneError> {
        let started = Instant::now();
        let mut cases = Vec::new();
        let part = || started.elapsed().as_secs_f64() / self.time.as_secs_f64();
        let expected = (self.settings.len() * self.sizes.len()).max(1) as u32;
        let stretch = (self.time / (expected * ROUNDS)).min(STRETCH_MAX);
        for &rows in self.sizes {
            let Some(inputs) = self.trials.inputs(rows)? else { break };
            let inputs: Arc<[BatchInput]> = inputs.into();
            let mut of_size = Vec::new();
            for &setting in self.settings {
                let mut case = Case { setting, rows, inputs: Arc::clone(&inputs), found: Vec::new() };
                case.measure(self.trials, stretch)?;
                of_size.push(case);
                progress(part());
            }
            // Settings are compared at sizes that all of them were tried at.
            cases.extend(of_size);
            if part() > FIRST_ROUND {
                break;
            }
        }
        'rounds: loop {
            // There and back, so that none is always tried after the same other one.
            cases.reverse();
            for case in &mut cases {
                if part() >= 1.0 {
                    break 'rounds;
                }
                case.measure(self.trials, stretch)?;
                progress(part());
            }
        }
        let mut measured: Vec<Measured> = cases.iter().map(Case::measured).collect();
        measured.sort_by_key(|m| (m.setting, m.rows));
        Ok(measured)
    }
}

impl Case {
    /// Calls for that long, at least once.
    fn measure(&mut self, trials: &Trials, stretch: Duration) -> Result<(), TuneError> {
        let CpuSetting { threads, instances } = self.setting;
        let ready = Barrier::new(instances);
        let call = || trials.call(threads, &self.inputs);
        let of_callers: Vec<Result<Vec<Duration>, RunError>> = std::thread::scope(|scope| {
            let callers: Vec<_> =
                (0..instances).map(|_| scope.spawn(|| calls(&ready, stretch, call))).collect();
            let joined = callers.into_iter().map(|caller| caller.join());
            joined.map(|times| times.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        });
        let failed = |e: RunError| TuneError::Failed { rows: self.rows, reason: e.to_string() };
        let of_callers: Vec<Vec<Duration>> =
            of_callers.into_iter().collect::<Result<_, _>>().map_err(failed)?;
        let rate = |times: &Vec<Duration>| {
            let took: Duration = times.iter().sum();
            times.len() as f64 / took.as_secs_f64().max(f64::MIN_POSITIVE)
        };
        let calls_per_second: f64 = of_callers.iter().map(rate).sum();
        let seconds = of_callers.iter().flatten().map(Duration::as_secs_f64).collect();
        self.found.push((calls_per_second * self.rows as f64, median(seconds)));
        Ok(())
    }

    fn measured(&self) -> Measured {
        let (rates, seconds) = self.found.iter().copied().unzip();
        Measured {
            setting: self.setting,
            rows: self.rows,
            rows_per_second: median(rates),
            call_seconds: median(seconds),
        }
    }
}

/// One caller's calls: the first does not count, because it may find cold caches and a small arena; the others
/// begin when every caller has got that far.
fn calls(
    ready: &Barrier,
    stretch: Duration,
    call: impl Fn() -> Result<(), RunError>,
) -> Result<Vec<Duration>, RunError> {
    let first = call();
    // Whoever failed must not keep the others waiting.
    ready.wait();
    first?;
    let mut times = Vec::new();
    let started = Instant::now();
    let mut last = started;
    while times.is_empty() || started.elapsed() < stretch {
        call()?;
        let now = Instant::now();
        times.push(now - last);
        last = now;
    }
    Ok(times)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
