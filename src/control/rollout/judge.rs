//! What is to be done next with a rollout, and why.
//!
//! Always: of equal versions a rollout, however long and however often judged, is rolled back with probability ≤ α, and
//! paused for its split with probability ≤ α. Texts are for people and for the record of changes.
//! Not here: doing it; see the transitions of [`Rollout`].

use serde::{Deserialize, Serialize};

use super::counts::ArmCounts;
use super::guard::{Guard, difference_max, shift, step_evidence};
use super::{Rollout, State};

/// What to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    /// Nothing; `why` names all that is missing.
    Wait { why: Vec<String> },
    /// Enter the next step.
    Advance,
    /// Enter the last step, of 100 per cent.
    Complete,
    /// Give all traffic back to the current version.
    RollBack { reason: String },
    /// Leave traffic as it is until a person has looked.
    Pause { reason: String },
}

/// What one guard shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuardReading {
    pub guard: Guard,
    /// ln of the evidence over all steps; finite.
    pub ln_e: f64,
    /// ln of the evidence at which the guard acts.
    pub ln_threshold: f64,
    /// In this step, of the current version: errors or slow ones per unit, or the category's part of its answers.
    pub current_rate: Option<f64>,
    /// The same of the new version; disagreements per comparison; or, of the sample ratio, its part of all units.
    pub new_rate: Option<f64>,
    /// Errors and latency: the largest difference of rates, new less current, that the counts leave possible.
    pub difference_max: Option<f64>,
    /// Shift: the category with the most evidence in this step.
    pub category: Option<String>,
    /// Whether the step may end, as far as this guard goes.
    pub passed: bool,
}

/// The judgement at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    pub decision: Decision,
    /// The sample ratio first, then the guards that are on.
    pub guards: Vec<GuardReading>,
}

impl Rollout {
    /// Judges the counts of the running step and the evidence of those before. `now_ms`: milliseconds since 1970.
    ///
    /// A mismatch of the sample ratio comes first, for it makes all other counts doubtful. A rollout that a person
    /// paused does not advance but is still rolled back; one that was paused for its split only waits.
    /// Cost: microseconds; with the shift guard on, a few more for each ten categories.
    pub fn judge(&self, now_ms: u64) -> Verdict {
        let guards: Vec<_> = Guard::active(&self.plan).map(|guard| self.read(guard)).collect();
        Verdict { decision: self.decide(now_ms, &guards), guards }
    }

    fn decide(&self, now_ms: u64, guards: &[GuardReading]) -> Decision {
        let wait = |why: String| Decision::Wait { why: vec![why] };
        let paused = match &self.state {
            State::Running => None,
            State::Paused { reason, by: Some(by) } => Some(format!("paused by {by}: {reason}")),
            State::Paused { reason, by: None } => return wait(format!("paused: {reason}")),
            over => return wait(format!("the rollout is {over}")),
        };
        // The sample ratio is the first of them.
        if let Some(reading) = guards.iter().find(|reading| reading.ln_e >= reading.ln_threshold) {
            let reason = self.reason(reading);
            return match (reading.guard, paused) {
                (Guard::SampleRatio, None) => Decision::Pause { reason },
                (Guard::SampleRatio, Some(paused)) => Decision::Wait { why: vec![paused, reason] },
                _ => Decision::RollBack { reason },
            };
        }
        if let Some(paused) = paused {
            return wait(paused);
        }
        let why = self.missing(now_ms, guards);
        match self.plan.steps.get(self.step.index + 1) {
            _ if !why.is_empty() => Decision::Wait { why },
            None => wait("every step passed: promote or abort by hand".into()),
            Some(next) if *next >= 100.0 => Decision::Complete,
            Some(_) => Decision::Advance,
        }
    }

    /// What the step still needs before it can end.
    fn missing(&self, now_ms: u64, guards: &[GuardReading]) -> Vec<String> {
        let mut why = Vec::new();
        let (requests, least) = (self.step.counts.new.requests, self.plan.step_requests_min);
        if requests < least {
            why.push(format!("version {} has answered {requests} of {least} requests", self.plan.target));
        }
        let seconds = now_ms.saturating_sub(self.step.began_ms) as f64 / 1e3;
        let least = self.plan.step_seconds_min;
        if seconds < least {
            why.push(format!("the step has run {seconds:.0} of {least} seconds"));
        }
        let guard = self.plan.guards.disagreement.as_ref();
        if guard.is_some() && self.step.counts.compared == 0 {
            let (target, from) = (self.plan.target, self.start.from);
            why.push(format!(
                "disagreement: no answer of version {target} was compared with version {from}'s"
            ));
        }
        for reading in guards.iter().filter(|reading| !reading.passed) {
            let margin = self.margin(reading.guard);
            if let (Some(difference), Some(margin)) = (reading.difference_max, margin) {
                why.push(format!(
                    "{}: version {}'s rate may still be {} points above version {}'s; the margin is {}",
                    reading.guard,
                    self.plan.target,
                    percent(difference),
                    self.start.from,
                    percent(margin),
                ));
            }
        }
        why
    }

    fn read(&self, guard: Guard) -> GuardReading {
        let counts = &self.step.counts;
        let (new, current) = (&counts.new, &counts.current);
        let (ln_e, ln_threshold) = (self.ln_e(guard), self.ln_threshold(guard));
        let mut reading = GuardReading {
            guard,
            ln_e,
            ln_threshold,
            current_rate: None,
            new_rate: None,
            difference_max: None,
            category: None,
            passed: ln_e < ln_threshold,
        };
        match guard {
            Guard::SampleRatio => reading.new_rate = part(new.units, new.units + current.units),
            Guard::Errors => self.read_rates(&mut reading, ArmCounts::failed),
            Guard::Latency => self.read_rates(&mut reading, ArmCounts::slowed),
            Guard::Shift => self.read_shift(&mut reading),
            Guard::Disagreement => {
                reading.new_rate = part(counts.disagreements, counts.compared);
                // A guard that has seen nothing has nothing to say for the version.
                reading.passed &= counts.compared > 0;
            }
        }
        reading
    }

    fn read_rates(&self, reading: &mut GuardReading, bad: fn(&ArmCounts) -> u64) {
        let (new, current) = (&self.step.counts.new, &self.step.counts.current);
        let difference = difference_max(new, current, bad, self.plan.alpha);
        reading.current_rate = part(bad(current), current.seen());
        reading.new_rate = part(bad(new), new.seen());
        reading.difference_max = Some(difference);
        reading.passed &= self.margin(reading.guard).is_none_or(|margin| difference <= margin);
    }

    fn read_shift(&self, reading: &mut GuardReading) {
        let counts = &self.step.counts;
        let guard = self.plan.guards.shift.as_ref();
        let strongest = guard.and_then(|guard| shift(guard, self.step_share(), counts).strongest);
        if let Some((label, (on_current, on_new))) = strongest {
            let all = counts.categories.values().fold((0, 0), |sum, add| (sum.0 + add.0, sum.1 + add.1));
            reading.current_rate = part(on_current, all.0);
            reading.new_rate = part(on_new, all.1);
            reading.category = Some(label.to_owned());
        }
    }

    /// Over all steps. Finite, since JSON has no infinities.
    fn ln_e(&self, guard: Guard) -> f64 {
        let step = step_evidence(guard, &self.plan, self.step_share(), &self.step.counts);
        self.past.get(&guard).map_or(step, |past| past.ln_e(step)).min(f64::MAX)
    }

    /// A guard's part of α is α / guards, by the union bound; the sample ratio has an α of its own.
    fn ln_threshold(&self, guard: Guard) -> f64 {
        let tests = if guard == Guard::SampleRatio { 1 } else { self.plan.guards.count() };
        libm::log(tests as f64 / self.plan.alpha)
    }

    fn margin(&self, guard: Guard) -> Option<f64> {
        match guard {
            Guard::Errors => self.plan.guards.errors.as_ref().map(|guard| guard.margin),
            Guard::Latency => self.plan.guards.latency.as_ref().map(|guard| guard.margin),
            Guard::SampleRatio | Guard::Shift | Guard::Disagreement => None,
        }
    }

    /// Why a guard acts, in one sentence.
    fn reason(&self, reading: &GuardReading) -> String {
        let (counts, target, from) = (&self.step.counts, self.plan.target, self.start.from);
        let (new, current) = (&counts.new, &counts.current);
        let share = self.plan.steps[self.step.index];
        let fell = |bad: u64, all: u64, what: &str| {
            format!("{bad} of {all} {what} fell on version {target}, which has {share} % of the traffic")
        };
        let rate = |rate: Option<f64>| percent(rate.unwrap_or(0.0));
        let fact = match reading.guard {
            Guard::SampleRatio => fell(new.units, new.units + current.units, "units"),
            Guard::Errors => fell(new.errors, new.errors + current.errors, "bad requests"),
            Guard::Latency => fell(new.slow, new.slow + current.slow, "slow requests"),
            Guard::Shift => format!(
                "'{}' makes up {} of version {target}'s answers and {} of version {from}'s",
                reading.category.as_deref().unwrap_or_default(),
                rate(reading.new_rate),
                rate(reading.current_rate),
            ),
            Guard::Disagreement => format!(
                "{} of {} answers of version {target} differ from version {from}'s",
                counts.disagreements, counts.compared,
            ),
        };
        let (evidence, threshold) = (magnitude(reading.ln_e), magnitude(reading.ln_threshold));
        format!("{}: {fact} (evidence {evidence} ≥ {threshold})", reading.guard)
    }
}

fn part(of: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| of as f64 / all as f64)
}

/// 0.0312 as "3.12 %".
fn percent(rate: f64) -> String {
    let text = format!("{:.2}", rate * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// e to the power of `ln`: "100", "4.1e3".
fn magnitude(ln: f64) -> String {
    let value = libm::exp(ln);
    match value {
        _ if ln > 690.0 => "1e300 and more".into(),
        value if value < 1000.5 => format!("{}", (value * 10.0).round() / 10.0),
        value => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        for (ln, text) in
            [(libm::log(100.0), "100"), (libm::log(4123.0), "4.1e3"), (0.0, "1"), (1e9, "1e300 and more")]
        {
            assert_eq!(magnitude(ln), text);
        }
        for (rate, text) in [(0.0312, "3.12 %"), (0.01, "1 %"), (1.0, "100 %"), (-0.005, "-0.5 %")] {
            assert_eq!(percent(rate), text);
        }
    }
}
