//! Between the control API's messages and rollouts.

use super::rollout::{
    ArmCounts, Decision, DisagreementGuard, ErrorGuard, Guards, LatencyGuard, Plan, Rollout, ShiftGuard,
    State, Verdict,
};
use crate::proto::control as pb;

/// JSON has no infinity: evidence is told up to this.
const EVIDENCE_MAX: f64 = 1e300;

/// A plan with its defaults filled in. Whether it makes sense is the plan's own question.
pub fn plan(request: &pb::StartRolloutRequest) -> Plan {
    let mut plan = Plan::to(request.target);
    if !request.steps.is_empty() {
        plan.steps.clone_from(&request.steps);
    }
    plan.step_requests_min = request.step_requests_min.unwrap_or(plan.step_requests_min);
    plan.step_seconds_min = request.step_seconds_min.unwrap_or(plan.step_seconds_min);
    plan.alpha = request.alpha.unwrap_or(plan.alpha);
    if let Some(guards) = &request.guards {
        plan.guards = self::guards(guards);
    }
    plan
}

fn guards(guards: &pb::Guards) -> Guards {
    let error = |guard: &pb::ErrorGuard| {
        let default = ErrorGuard::default();
        ErrorGuard { margin: guard.margin.unwrap_or(default.margin) }
    };
    let latency = |guard: &pb::LatencyGuard| LatencyGuard {
        objective_ms: guard.objective_ms,
        margin: guard.margin.unwrap_or(ErrorGuard::default().margin),
    };
    let shift = |guard: &pb::ShiftGuard| {
        let default = ShiftGuard::default();
        ShiftGuard { factor: guard.factor.unwrap_or(default.factor) }
    };
    let disagreement = |guard: &pb::DisagreementGuard| {
        let default = DisagreementGuard::default();
        DisagreementGuard {
            max: guard.max.unwrap_or(default.max),
            share: guard.share.unwrap_or(default.share),
        }
    };
    Guards {
        errors: guards.errors.as_ref().map(error),
        latency: guards.latency.as_ref().map(latency),
        shift: guards.shift.as_ref().map(shift),
        disagreement: guards.disagreement.as_ref().map(disagreement),
    }
}

/// A rollout as the API tells it, with its last verdict.
pub fn told(rollout: &Rollout, verdict: Option<&Verdict>) -> pb::Rollout {
    let (state, reason) = match &rollout.state {
        State::Running => ("running", String::new()),
        State::Paused { reason, by: None } => ("paused", reason.clone()),
        State::Paused { by: Some(by), .. } => ("paused", format!("by {by}")),
        State::Completed { by: None } => ("completed", String::new()),
        State::Completed { by: Some(by) } => ("completed", format!("promoted by {by}")),
        State::RolledBack { reason } => ("rolled_back", reason.clone()),
        State::Aborted { by: None } => ("aborted", String::new()),
        State::Aborted { by: Some(by) } => ("aborted", format!("by {by}")),
    };
    let waiting = match verdict.map(|verdict| &verdict.decision) {
        Some(Decision::Wait { why }) if !rollout.state.is_over() => why.clone(),
        _ => Vec::new(),
    };
    let arm = |counts: &ArmCounts| {
        Some(pb::ArmCounts { requests: counts.requests, errors: counts.failed(), slow: counts.slowed() })
    };
    pb::Rollout {
        id: rollout.start.id.to_string(),
        model: rollout.start.model.clone(),
        from: rollout.start.from,
        target: rollout.plan.target,
        state: state.to_owned(),
        reason,
        steps: rollout.plan.steps.clone(),
        step: u32::try_from(rollout.step.index).unwrap_or(u32::MAX),
        share: rollout.percent(),
        started_ms: rollout.start.at_ms,
        step_began_ms: rollout.step.began_ms,
        ended_ms: rollout.ended_ms.unwrap_or_default(),
        actor: rollout.start.by.clone(),
        current: arm(&rollout.step.counts.current),
        new: arm(&rollout.step.counts.new),
        guards: verdict.iter().flat_map(|verdict| &verdict.guards).map(reading).collect(),
        waiting,
        step_requests_min: rollout.plan.step_requests_min,
        step_seconds_min: rollout.plan.step_seconds_min,
    }
}

fn reading(reading: &super::rollout::GuardReading) -> pb::GuardReading {
    let evidence = |ln: f64| libm::exp(ln).min(EVIDENCE_MAX);
    pb::GuardReading {
        name: reading.guard.to_string(),
        evidence: evidence(reading.ln_e),
        threshold: evidence(reading.ln_threshold),
        current_rate: reading.current_rate.unwrap_or_default(),
        new_rate: reading.new_rate.unwrap_or_default(),
        difference_max: reading.difference_max.unwrap_or_default(),
        passed: reading.passed,
    }
}
