//! A stepwise, guarded change from one version of a model to another: plan, state, verdict.
//!
//! Always: pure, and the same verdict for the same counts on every machine; what is over stays over; the whole
//! state is in [`Rollout`], which can be stored and read again at any moment.
//! Not here: clocks, counting, routes, the store. The time is an argument, in milliseconds since 1970.

mod counts;
mod guard;
mod judge;
mod plan;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::evidence::Restarts;
pub use counts::{Arm, ArmCounts, CATEGORIES_MAX, Counts, OTHER, Returning};
pub use guard::Guard;
pub use judge::{Decision, GuardReading, Verdict};
pub use plan::{DisagreementGuard, ErrorGuard, Guards, LatencyGuard, Plan, ShiftGuard};

/// Where a rollout stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    Running,
    /// The traffic stays as it is. `by` a person, or, if `None`, because the split cannot be trusted.
    Paused {
        reason: String,
        by: Option<String>,
    },
    /// The new version has all traffic; `by` a person before the last step, if not `None`.
    Completed {
        by: Option<String>,
    },
    /// The current version has all traffic again, for a guard's reason.
    RolledBack {
        reason: String,
    },
    /// The current version has all traffic again, by a person's word.
    Aborted {
        by: Option<String>,
    },
}

impl State {
    /// Whether nothing can happen any more.
    pub fn is_over(&self) -> bool {
        !matches!(self, State::Running | State::Paused { .. })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Running => "running",
            State::Paused { .. } => "paused",
            State::Completed { .. } => "completed",
            State::RolledBack { .. } => "rolled back",
            State::Aborted { .. } => "aborted",
        })
    }
}

/// What a rollout begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    pub id: u64,
    pub model: String,
    /// Number of the current version.
    pub from: u64,
    pub by: String,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

/// The step that runs, or ran last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Into [`Plan::steps`].
    pub index: usize,
    pub began_ms: u64,
    /// What was seen since; whoever counts adds to it.
    pub counts: Counts,
}

impl Step {
    fn begun(index: usize, now_ms: u64) -> Self {
        Self { index, began_ms: now_ms, counts: Counts::default() }
    }
}

/// One rollout, whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    pub start: Start,
    pub plan: Plan,
    pub state: State,
    pub step: Step,
    /// The evidence of the steps that are over.
    past: BTreeMap<Guard, Restarts>,
    /// Once it is over, since when.
    pub ended_ms: Option<u64>,
}

impl Rollout {
    /// In its first step.
    ///
    /// Errors: what is wrong with the plan, in a sentence.
    pub fn begin(start: Start, plan: Plan) -> Result<Self, String> {
        plan.validate()?;
        if plan.target == start.from {
            return Err(format!("target is {}, the current version; name another", plan.target));
        }
        let steps = plan.steps_compared();
        let past = Guard::active(&plan).map(|guard| (guard, Restarts::new(steps))).collect();
        let step = Step::begun(0, start.at_ms);
        Ok(Self { start, plan, state: State::Running, step, past, ended_ms: None })
    }

    /// What the new version gets of the traffic now, in per cent: as the plan has it, to the last digit.
    pub fn percent(&self) -> f64 {
        match self.state {
            State::Running | State::Paused { .. } => self.plan.steps[self.step.index],
            State::Completed { .. } => 100.0,
            State::RolledBack { .. } | State::Aborted { .. } => 0.0,
        }
    }

    /// Part of the current version's traffic that is copied to the new one, in [0, 1].
    pub fn shadow_share(&self) -> f64 {
        let guard = self.plan.guards.disagreement.as_ref();
        guard.filter(|_| !self.state.is_over()).map_or(0.0, |guard| guard.share)
    }

    fn step_share(&self) -> f64 {
        self.plan.steps[self.step.index] / 100.0
    }

    /// Enters the next step; one of 100 per cent completes the rollout.
    ///
    /// Errors: it does not run, or there is no further step.
    pub fn advance(&mut self, now_ms: u64) -> Result<(), String> {
        self.must_run("advance")?;
        let next = self.step.index + 1;
        match self.plan.steps.get(next) {
            None => Err("cannot advance: this is the last step; promote or abort".into()),
            Some(percent) if *percent >= 100.0 => {
                self.end(State::Completed { by: None }, now_ms);
                Ok(())
            }
            Some(_) => {
                let (plan, share) = (&self.plan, self.step_share());
                for (guard, past) in &mut self.past {
                    past.end_step(guard::step_evidence(*guard, plan, share, &self.step.counts));
                }
                self.step = Step::begun(next, now_ms);
                Ok(())
            }
        }
    }

    /// Stops advancing; `by` a person, or `None` for the verdict's own reason.
    ///
    /// Errors: it does not run.
    pub fn pause(&mut self, reason: &str, by: Option<&str>) -> Result<(), String> {
        self.must_run("pause")?;
        self.state = State::Paused { reason: reason.into(), by: by.map(Into::into) };
        Ok(())
    }

    /// Runs on. After a pause for the split the step begins anew, and so does the sample ratio's evidence: whoever
    /// resumes says that the cause is gone, and what was counted until then is worth nothing.
    ///
    /// Errors: it is not paused.
    pub fn resume(&mut self, now_ms: u64) -> Result<(), String> {
        match &self.state {
            State::Paused { by: Some(_), .. } => {}
            State::Paused { by: None, .. } => {
                self.step = Step::begun(self.step.index, now_ms);
                self.past.insert(Guard::SampleRatio, Restarts::new(self.plan.steps_compared()));
            }
            other => return Err(format!("cannot resume: the rollout is {other}")),
        }
        self.state = State::Running;
        Ok(())
    }

    /// Gives the new version all traffic now, by a person's word.
    ///
    /// Errors: it is over.
    pub fn promote(&mut self, by: Option<&str>, now_ms: u64) -> Result<(), String> {
        self.must_not_be_over("promote")?;
        self.end(State::Completed { by: by.map(Into::into) }, now_ms);
        Ok(())
    }

    /// Gives the current version all traffic again, by a person's word.
    ///
    /// Errors: it is over.
    pub fn abort(&mut self, by: Option<&str>, now_ms: u64) -> Result<(), String> {
        self.must_not_be_over("abort")?;
        self.end(State::Aborted { by: by.map(Into::into) }, now_ms);
        Ok(())
    }

    /// Gives the current version all traffic again, for a guard's reason.
    ///
    /// Errors: it is over.
    pub fn roll_back(&mut self, reason: &str, now_ms: u64) -> Result<(), String> {
        self.must_not_be_over("roll back")?;
        self.end(State::RolledBack { reason: reason.into() }, now_ms);
        Ok(())
    }

    fn end(&mut self, state: State, now_ms: u64) {
        self.state = state;
        self.ended_ms = Some(now_ms);
    }

    fn must_run(&self, what: &str) -> Result<(), String> {
        match self.state {
            State::Running => Ok(()),
            ref other => Err(format!("cannot {what}: the rollout is {other}")),
        }
    }

    fn must_not_be_over(&self, what: &str) -> Result<(), String> {
        if self.state.is_over() {
            return Err(format!("cannot {what}: the rollout is {}", self.state));
        }
        Ok(())
    }
}
