//! What a rollout is to do, and by what it is judged.

use serde::{Deserialize, Serialize};

// A day: no answer is waited for that long.
const OBJECTIVE_MS_MAX: f64 = 86_400_000.0;

// One for each per cent; each step needs its own evidence, so even a tenth of that takes long.
const STEPS_MAX: usize = 100;

/// How one version takes over from another, as an operator writes it down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Number of the new version.
    pub target: u64,
    /// Shares of the traffic in per cent, ascending, in (0, 100]; the first below 100. Entering 100 ends the rollout.
    #[serde(default = "default_steps")]
    pub steps: Vec<f64>,
    /// Requests that the new version must have answered before a step can end, ≥ 1. More finds smaller faults.
    #[serde(default = "default_step_requests_min")]
    pub step_requests_min: u64,
    /// Seconds that a step lasts at the least.
    #[serde(default = "default_step_seconds_min")]
    pub step_seconds_min: f64,
    #[serde(default)]
    pub guards: Guards,
    /// Probability, in (0, 0.5), that a rollout between equal versions is rolled back; and, apart from it, that a
    /// sound split of the traffic is taken for a mismatch. Smaller waits longer for a verdict.
    #[serde(default = "default_alpha")]
    pub alpha: f64,
}

fn default_steps() -> Vec<f64> {
    vec![1.0, 5.0, 25.0, 50.0, 100.0]
}

fn default_step_requests_min() -> u64 {
    100
}

fn default_step_seconds_min() -> f64 {
    60.0
}

fn default_alpha() -> f64 {
    0.01
}

/// What a rollout watches; `None` is not watched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Guards {
    pub errors: Option<ErrorGuard>,
    pub latency: Option<LatencyGuard>,
    pub shift: Option<ShiftGuard>,
    pub disagreement: Option<DisagreementGuard>,
}

impl Default for Guards {
    fn default() -> Self {
        Self { errors: Some(ErrorGuard::default()), latency: None, shift: None, disagreement: None }
    }
}

impl Guards {
    /// How many are on.
    pub fn count(&self) -> usize {
        let on = [
            self.errors.is_some(),
            self.latency.is_some(),
            self.shift.is_some(),
            self.disagreement.is_some(),
        ];
        on.into_iter().filter(|on| *on).count()
    }
}

/// Failed requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ErrorGuard {
    /// By how much the new version's error rate may be higher and still count as not inferior: a difference of
    /// rates, in (0, 1). A step ends only when a larger difference is ruled out.
    pub margin: f64,
}

impl Default for ErrorGuard {
    fn default() -> Self {
        Self { margin: default_margin() }
    }
}

/// Requests slower than an objective.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatencyGuard {
    /// A request that takes longer is slow, in milliseconds.
    pub objective_ms: f64,
    /// As [`ErrorGuard::margin`], for the rate of slow requests.
    #[serde(default = "default_margin")]
    pub margin: f64,
}

fn default_margin() -> f64 {
    0.01
}

/// Predictions that are made more often, or more seldom, than before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShiftGuard {
    /// By what factor, > 1, a category's frequency may differ between the versions, up or down.
    pub factor: f64,
}

impl Default for ShiftGuard {
    fn default() -> Self {
        Self { factor: 1.5 }
    }
}

/// Predictions of which the new version, asked as a shadow, thinks otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DisagreementGuard {
    /// Part of the compared answers that may disagree, in [0, 1).
    pub max: f64,
    /// Part of the current version's traffic that is copied to the new one, in (0, 1].
    pub share: f64,
}

impl Default for DisagreementGuard {
    fn default() -> Self {
        Self { max: 0.05, share: 0.1 }
    }
}

impl Plan {
    /// To `target`, all else by default.
    pub fn to(target: u64) -> Self {
        Self {
            target,
            steps: default_steps(),
            step_requests_min: default_step_requests_min(),
            step_seconds_min: default_step_seconds_min(),
            guards: Guards::default(),
            alpha: default_alpha(),
        }
    }

    /// Errors: a sentence that names the field, what it is, and what it should be.
    pub fn validate(&self) -> Result<(), String> {
        if self.target == 0 {
            return Err("target is 0; versions are numbered from 1".into());
        }
        self.validate_steps()?;
        if self.step_requests_min == 0 {
            return Err("step_requests_min is 0; a step must see at least 1 request".into());
        }
        let seconds = self.step_seconds_min;
        if !(seconds >= 0.0 && seconds.is_finite()) {
            return Err(format!("step_seconds_min is {seconds}; it must be 0 or more"));
        }
        between("alpha", self.alpha, 0.0, 0.5)?;
        self.validate_guards()
    }

    fn validate_steps(&self) -> Result<(), String> {
        let steps = &self.steps;
        let Some(first) = steps.first() else {
            return Err("steps is empty; name shares in per cent, such as [1, 5, 25, 50, 100]".into());
        };
        if steps.len() > STEPS_MAX {
            return Err(format!("steps has {} entries; {STEPS_MAX} are the most", steps.len()));
        }
        if let Some(step) = steps.iter().find(|step| !(**step > 0.0 && **step <= 100.0)) {
            return Err(format!("steps holds {step}; each must be above 0 and at most 100 per cent"));
        }
        if let Some(pair) = steps.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(format!("steps has {} after {}; they must ascend", pair[1], pair[0]));
        }
        if *first >= 100.0 {
            return Err(
                "steps begins with 100; begin below it, or change the route at once without a rollout".into(),
            );
        }
        Ok(())
    }

    fn validate_guards(&self) -> Result<(), String> {
        if let Some(errors) = &self.guards.errors {
            between("guards.errors.margin", errors.margin, 0.0, 1.0)?;
        }
        if let Some(latency) = &self.guards.latency {
            let objective = latency.objective_ms;
            if !(objective > 0.0 && objective <= OBJECTIVE_MS_MAX) {
                return Err(format!(
                    "guards.latency.objective_ms is {objective}; it must be above 0 and at most \
                     {OBJECTIVE_MS_MAX} milliseconds"
                ));
            }
            between("guards.latency.margin", latency.margin, 0.0, 1.0)?;
        }
        if let Some(shift) = &self.guards.shift
            && !(shift.factor > 1.0 && shift.factor.is_finite())
        {
            return Err(format!("guards.shift.factor is {}; it must be above 1, such as 1.5", shift.factor));
        }
        if let Some(disagreement) = &self.guards.disagreement {
            let (max, share) = (disagreement.max, disagreement.share);
            if !(0.0..1.0).contains(&max) {
                return Err(format!("guards.disagreement.max is {max}; it must be at least 0 and below 1"));
            }
            if !(share > 0.0 && share <= 1.0) {
                return Err(format!(
                    "guards.disagreement.share is {share}; it must be above 0 and at most 1"
                ));
            }
        }
        Ok(())
    }

    /// Steps with traffic on both versions: those below 100 per cent.
    pub fn steps_compared(&self) -> usize {
        self.steps.iter().filter(|step| **step < 100.0).count()
    }
}

fn between(name: &str, value: f64, low: f64, high: f64) -> Result<(), String> {
    if value > low && value < high {
        return Ok(());
    }
    Err(format!("{name} is {value}; it must lie between {low} and {high}, both excluded"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_written_has_its_default() {
        let plan: Plan = serde_json::from_str(r#"{"target": 2}"#).unwrap();
        assert_eq!(plan, Plan::to(2));
        assert_eq!(plan.validate(), Ok(()));
        assert_eq!((plan.steps_compared(), plan.guards.count()), (4, 1));
        let text = r#"{"target": 2, "guards": {"errors": null, "latency": {"objective_ms": 50}, "shift": {},
            "disagreement": {"max": 0}}}"#;
        let guards = serde_json::from_str::<Plan>(text).unwrap().guards;
        assert_eq!(guards.errors, None);
        assert_eq!(guards.latency, Some(LatencyGuard { objective_ms: 50.0, margin: 0.01 }));
        assert_eq!(guards.shift, Some(ShiftGuard { factor: 1.5 }));
        assert_eq!(guards.disagreement, Some(DisagreementGuard { max: 0.0, share: 0.1 }));
    }

    #[test]
    fn keys_that_mean_nothing_are_refused() {
        for text in [
            r#"{"target": 2, "step": [1]}"#,
            r#"{"target": 2, "guards": {"error": {}}}"#,
            r#"{"target": 2, "guards": {"errors": {"max": 1}}}"#,
            r#"{"target": 2, "guards": {"latency": {}}}"#,
            r#"{}"#,
        ] {
            assert!(serde_json::from_str::<Plan>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_mistake_is_named_with_its_value() {
        for (text, fault) in [
            (r#"{"target": 0}"#, "target is 0"),
            (r#"{"target": 2, "steps": []}"#, "steps is empty"),
            (r#"{"target": 2, "steps": [0, 5]}"#, "steps holds 0"),
            (r#"{"target": 2, "steps": [5, 101]}"#, "steps holds 101"),
            (r#"{"target": 2, "steps": [5, 5]}"#, "steps has 5 after 5"),
            (r#"{"target": 2, "steps": [5, 1]}"#, "steps has 1 after 5"),
            (r#"{"target": 2, "steps": [100]}"#, "steps begins with 100"),
            (r#"{"target": 2, "step_requests_min": 0}"#, "step_requests_min is 0"),
            (r#"{"target": 2, "step_seconds_min": -1}"#, "step_seconds_min is -1"),
            (r#"{"target": 2, "alpha": 0}"#, "alpha is 0"),
            (r#"{"target": 2, "guards": {"errors": {"margin": 0}}}"#, "guards.errors.margin is 0"),
            (
                r#"{"target": 2, "guards": {"latency": {"objective_ms": 0}}}"#,
                "guards.latency.objective_ms is 0",
            ),
            (r#"{"target": 2, "guards": {"shift": {"factor": 1}}}"#, "guards.shift.factor is 1"),
            (r#"{"target": 2, "guards": {"disagreement": {"max": 1}}}"#, "guards.disagreement.max is 1"),
            (r#"{"target": 2, "guards": {"disagreement": {"share": 0}}}"#, "guards.disagreement.share is 0"),
        ] {
            let found = serde_json::from_str::<Plan>(text).unwrap().validate().unwrap_err();
            assert!(found.starts_with(fault), "{text}: {found}");
        }
    }
}
