//! The arguments that make a rollout's plan.

use clap::Args;

use crate::cli::client::Call;
use crate::cli::options::{self, ActorArguments};
use crate::proto::control::{
    DisagreementGuard, ErrorGuard, Guards, LatencyGuard, ShiftGuard, StartRolloutRequest,
};

/// Arguments of `weir rollout start`.
#[derive(Debug, Args)]
pub struct StartArguments {
    /// Whose version changes
    #[arg(value_parser = options::model)]
    pub model: String,
    /// The version that shall answer in the end
    #[arg(value_name = "TARGET", value_parser = options::version)]
    target: u64,
    /// Percent of the requests at each step, ascending [default: 1,5,25,50,100]
    #[arg(long, value_name = "PERCENT,…", value_delimiter = ',', value_parser = step)]
    steps: Vec<f64>,
    /// Requests that the target answers in a step before the next one [default: 100]
    #[arg(long, value_name = "N")]
    min_requests: Option<u64>,
    /// Seconds that a step lasts at least [default: 60]
    #[arg(long, value_name = "S", value_parser = options::amount)]
    min_seconds: Option<f64>,
    /// The chance that a rollout between equal versions is rolled back [default: 0.01]
    #[arg(long, value_name = "A", value_parser = options::part)]
    alpha: Option<f64>,
    /// How much higher the target's error rate may be, as a difference from 0 to 1; this guard is always on [default: 0.01]
    #[arg(long, value_name = "M", value_parser = options::part)]
    error_margin: Option<f64>,
    /// Guard latency: answers that take longer than this count as bad
    #[arg(long, value_name = "MS", value_parser = options::amount)]
    latency_objective_ms: Option<f64>,
    /// Guard predictions: how many times more or less often a class, or a range of scores, may be predicted
    #[arg(long, value_name = "FACTOR", value_parser = options::amount)]
    shift: Option<f64>,
    /// Guard answers: part of them, 0 to 1, that may differ from the current version's on the same request
    #[arg(long, value_name = "MAX", value_parser = options::part)]
    disagreement: Option<f64>,
    /// Watch it to its end
    #[arg(long)]
    pub watch: bool,
    #[command(flatten)]
    actor: ActorArguments,
}

impl StartArguments {
    /// The call that begins it.
    pub fn call(&self) -> Call {
        let request = StartRolloutRequest {
            target: self.target,
            steps: self.steps.clone(),
            step_requests_min: self.min_requests,
            step_seconds_min: self.min_seconds,
            guards: self.guards(),
            alpha: self.alpha,
            ..StartRolloutRequest::default()
        };
        Call::post(&["models", &self.model, "rollouts"]).body(&request).by(self.actor.name())
    }

    /// `None` leaves them to the server, which then guards errors. Naming any guard turns off those that are not
    /// named, so errors are always named here: another guard adds to it, as whoever types it expects.
    fn guards(&self) -> Option<Guards> {
        let guards = Guards {
            errors: self.error_margin.map(|margin| ErrorGuard { margin: Some(margin) }),
            latency: self
                .latency_objective_ms
                .map(|objective_ms| LatencyGuard { objective_ms, margin: None }),
            shift: self.shift.map(|factor| ShiftGuard { factor: Some(factor) }),
            disagreement: self.disagreement.map(|max| DisagreementGuard { max: Some(max), share: None }),
        };
        if guards == Guards::default() {
            return None;
        }
        Some(Guards { errors: guards.errors.or(Some(ErrorGuard { margin: None })), ..guards })
    }
}

/// A step's percentage.
fn step(text: &str) -> Result<f64, String> {
    let percent = text.trim().parse().ok().filter(|percent| *percent > 0.0 && *percent <= 100.0);
    percent.ok_or_else(|| format!("'{text}' is not a percentage above 0 and up to 100"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        start: StartArguments,
    }

    #[test]
    fn steps_are_percentages() {
        let start = |steps: &str| Line::try_parse_from(["x", "digits", "3", "--steps", steps]);
        assert_eq!(start("1,5,25.5, 100").unwrap().start.steps, [1.0, 5.0, 25.5, 100.0]);
        for wrong in ["", "0", "101", "1,,5", "1;5", "5%", "nan", "-1"] {
            assert!(start(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn another_guard_does_not_turn_the_error_guard_off() {
        let guards =
            |words: &[&str]| Line::parse_from([&["x", "digits", "3"], words].concat()).start.guards();
        assert_eq!(guards(&[]), None);
        let shift = guards(&["--shift", "2"]).unwrap();
        assert_eq!(shift.errors, Some(ErrorGuard { margin: None }));
        assert_eq!(shift.shift, Some(ShiftGuard { factor: Some(2.0) }));
        assert_eq!((shift.latency, shift.disagreement), (None, None));
        let errors = guards(&["--error-margin", "0.02"]).unwrap();
        assert_eq!(errors, Guards { errors: Some(ErrorGuard { margin: Some(0.02) }), ..Guards::default() });
    }
}
