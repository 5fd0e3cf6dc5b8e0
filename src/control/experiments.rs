//! Experiments: stretches of time in which chance splits a model's requests between arms.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use serde::{Deserialize, Serialize};

use super::desired::Desired;
use super::evidence::{
    Interval, Moments, difference_evidence, mean_interval, proportion_interval, split_evidence,
};
use super::ledger::Writing;
use super::live::Live;
use super::outcomes::{ArmTally, Outcome, OutcomesError};
use super::routes::owner;
use super::service::Control;
use crate::error::{ErrorKind, ServeError};
use crate::id::ModelName;
use crate::proto::control as pb;

/// Intervals hold at all moments at once with probability 1 − α.
const ALPHA: f64 = 0.05;

/// Evidence at which arms count as different: 1/α.
const EVIDENCE_MIN: f64 = 1.0 / ALPHA;

/// JSON has no infinity: evidence is told up to this.
const EVIDENCE_MAX: f64 = 1e300;

/// Labels whose rates are told, the most frequent first.
const LABELS_MAX: usize = 20;

/// Experiments of a model that are told, the newest ones. All are kept.
const TOLD_MAX: usize = 100;

/// Bytes of experiments that are told at once, as a message of gRPC: clients take 4 MiB unless they are told otherwise.
const TOLD_BYTES_MAX: usize = 2 << 20;

/// The kind of document that holds an [`ExperimentRecord`], by `model/id`.
pub const EXPERIMENT: &str = "experiment";

/// An experiment as it is kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExperimentRecord {
    pub id: String,
    pub model: String,
    pub arms: Vec<pb::Arm>,
    pub sticky: String,
    pub began_ms: u64,
    /// 0 while it runs.
    pub ended_ms: u64,
}

/// The id of the experiment that the route of that revision began. The revision orders experiments: two may begin
/// within a millisecond, and clocks go back.
fn id(revision: u64) -> String {
    format!("r{revision}")
}

impl Live {
    /// Ends the experiment that a change of route ends, and begins the one that it begins: a route that an operator
    /// splits between several arms is one. The steps of a rollout are not: they are judged as they go.
    pub fn experiment_change(&self, model: &ModelName, before: &Desired, after: &mut Desired) -> Writing {
        let arms = |desired: &Desired| {
            desired.route.as_ref().map(|route| (route.arms.clone(), route.sticky.clone()))
        };
        if arms(before) == arms(after) && before.experiment.is_some() {
            return Writing::default();
        }
        let now = super::now_ms();
        let mut writing = Writing::default();
        if let Some(id) = &before.experiment {
            let key = format!("{model}/{id}");
            if let Some(mut experiment) = self.ledger.document::<ExperimentRecord>(EXPERIMENT, &key) {
                experiment.ended_ms = now;
                writing = writing.with(EXPERIMENT, &key, &experiment);
            }
        }
        after.experiment = None;
        let splits = after.valid_route(model).is_some_and(|route| route.splits());
        if let Some(route) = after.route.as_ref().filter(|route| splits && route.owner != owner::ROLLOUT) {
            let id = id(after.revision);
            let experiment = ExperimentRecord {
                id: id.clone(),
                model: model.to_string(),
                arms: route.arms.clone(),
                sticky: route.sticky.clone(),
                began_ms: now,
                ended_ms: 0,
            };
            writing = writing.with(EXPERIMENT, &format!("{model}/{id}"), &experiment);
            after.experiment = Some(id);
        }
        writing
    }
}

impl Control {
    /// Takes down what became of a request. The request may be unknown yet; the first outcome of a request counts.
    pub fn record_feedback(&self, request: pb::FeedbackRequest) -> Result<pb::FeedbackResponse, ServeError> {
        use pb::feedback_request::Outcome as Told;
        let model = self.known(&request.model)?;
        let outcome = match request.outcome {
            Some(Told::Number(number)) => Outcome::Number(number),
            Some(Told::Label(label)) => Outcome::Label(label),
            None => {
                return Err(ServeError::invalid("the feedback has no \"outcome\": send a number or a label"));
            }
        };
        let outcomes = self.outcomes.as_ref().ok_or_else(not_kept)?;
        let taken = outcomes.feedback(model.as_str(), &request.request_id, outcome).map_err(|error| {
            let kind = match error {
                OutcomesError::Number | OutcomesError::Label(_) | OutcomesError::RequestId(_) => {
                    ErrorKind::InvalidArgument
                }
                _ => ErrorKind::Unavailable,
            };
            ServeError::new(kind, error.to_string())
        })?;
        Ok(pb::FeedbackResponse {
            already: taken.already,
            conflicting: taken.conflicting,
            joined: taken.joined,
        })
    }

    /// The newest experiments of a model, the newest first: 100 at most, and no more than two mebibytes of them, but the
    /// newest in any case.
    pub fn list_experiments(
        &self,
        request: pb::ModelRequest,
    ) -> Result<pb::ListExperimentsResponse, ServeError> {
        let model = self.known(&request.model)?;
        let outcomes = self.outcomes.as_ref().ok_or_else(not_kept)?;
        let (mut experiments, mut bytes) = (Vec::new(), 0);
        for record in self.live.ledger.highest::<ExperimentRecord>(EXPERIMENT, model.as_str(), TOLD_MAX) {
            let tally = outcomes.tally(model.as_str(), &record.id).map_err(|error| {
                ServeError::new(ErrorKind::Unavailable, format!("the outcomes cannot be read: {error}"))
            })?;
            let experiment = told(record, &tally);
            bytes += experiment.encoded_len();
            if bytes > TOLD_BYTES_MAX && !experiments.is_empty() {
                break;
            }
            experiments.push(experiment);
        }
        Ok(pb::ListExperimentsResponse { experiments })
    }
}

fn not_kept() -> ServeError {
    ServeError::new(ErrorKind::Unavailable, "this server keeps no outcomes; start it with --state DIR")
}

fn told(record: ExperimentRecord, tally: &[ArmTally]) -> pb::Experiment {
    let of =
        |arm: &pb::Arm| tally.iter().find(|tally| tally.version == arm.version).cloned().unwrap_or_default();
    let arms: Vec<(pb::Arm, ArmTally)> =
        record.arms.iter().filter(|arm| arm.weight > 0.0).map(|arm| (*arm, of(arm))).collect();
    let labels = frequent_labels(&arms);
    pb::Experiment {
        id: record.id,
        model: record.model,
        began_ms: record.began_ms,
        ended_ms: record.ended_ms,
        sticky: record.sticky,
        sample_ratio: Some(sample_ratio(&arms)),
        comparisons: comparisons(&arms, &labels),
        arms: arms
            .iter()
            .map(|(arm, tally)| pb::ExperimentArm {
                version: arm.version,
                weight: arm.weight,
                requests: tally.requests,
                units: tally.units,
                outcomes: tally.outcomes,
                mean: numbers(tally).map(mean),
                rates: labels.iter().map(|label| (label.clone(), rate(tally, label))).collect(),
            })
            .collect(),
    }
}

fn frequent_labels(arms: &[(pb::Arm, ArmTally)]) -> BTreeSet<String> {
    let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
    for (label, count) in arms.iter().flat_map(|(_, tally)| &tally.labels) {
        *totals.entry(label).or_default() += count;
    }
    let mut totals: Vec<(&str, u64)> = totals.into_iter().collect();
    totals.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    totals.into_iter().take(LABELS_MAX).map(|(label, _)| label.to_owned()).collect()
}

fn numbers(tally: &ArmTally) -> Option<Moments> {
    let numbers = tally.numbers?;
    Some(Moments { count: numbers.n, sum: numbers.sum, sum_of_squares: numbers.sum_of_squares })
}

fn mean(moments: Moments) -> pb::Estimate {
    // A rate has an exact interval, other means an asymptotic one.
    let interval = match hits(moments) {
        Some(hits) => proportion_interval(hits, moments.count, ALPHA),
        None => mean_interval(moments, ALPHA),
    };
    estimate(moments.count, moments.mean().unwrap_or_default(), interval)
}

/// How many of the values are 1, if the others are 0: such values are their own squares. `None` for other values.
fn hits(moments: Moments) -> Option<u64> {
    let Moments { count, sum, sum_of_squares } = moments;
    let is_rate = sum == sum_of_squares && sum.fract() == 0.0 && (0.0..=count as f64).contains(&sum);
    is_rate.then_some(sum as u64)
}

/// ln E that two means differ.
///
/// Rates are compared with one hit and one miss more on either side (Agresti and Caffo 2000, "Simple and effective
/// confidence intervals for proportions and differences of proportions result from adding two successes and two
/// failures"): an arm that never hits has no variance of its own, and would never count as different from any other.
fn evidence(a: Moments, b: Moments) -> f64 {
    let more = |moments: Moments, hits: u64| Moments::of_proportion(hits + 1, moments.count + 2);
    match (hits(a), hits(b)) {
        (Some(hits_a), Some(hits_b)) => difference_evidence(more(a, hits_a), more(b, hits_b)),
        _ => difference_evidence(a, b),
    }
}

fn rate(tally: &ArmTally, label: &str) -> pb::Estimate {
    let labelled = labelled(tally);
    let hits = tally.labels.get(label).copied().unwrap_or_default();
    let value = if labelled == 0 { 0.0 } else { hits as f64 / labelled as f64 };
    estimate(hits, value, proportion_interval(hits, labelled, ALPHA))
}

/// Outcomes that are labels.
fn labelled(tally: &ArmTally) -> u64 {
    tally.labels.values().sum()
}

fn estimate(count: u64, value: f64, interval: Interval) -> pb::Estimate {
    // JSON has no infinities: an interval that says nothing yet is as wide as numbers go.
    let finite = |bound: f64| bound.clamp(f64::MIN, f64::MAX);
    pb::Estimate { count, value, lower: finite(interval.lower), upper: finite(interval.upper) }
}

/// Whether the units were split as the weights say: the mean of each arm's evidence against its own share.
fn sample_ratio(arms: &[(pb::Arm, ArmTally)]) -> pb::GuardReading {
    let total: u64 = arms.iter().map(|(_, tally)| tally.units).sum();
    let weights: f64 = arms.iter().map(|(arm, _)| arm.weight).sum();
    let evidence = |(arm, tally): &(pb::Arm, ArmTally)| {
        libm::exp(split_evidence(tally.units, total, arm.weight / weights)).min(EVIDENCE_MAX)
    };
    let mean = arms.iter().map(evidence).sum::<f64>() / arms.len().max(1) as f64;
    pb::GuardReading {
        name: "sample_ratio".to_owned(),
        evidence: mean,
        threshold: EVIDENCE_MIN,
        passed: mean < EVIDENCE_MIN,
        ..pb::GuardReading::default()
    }
}

/// Each arm against the first, by the mean of its numbers and the rate of each label.
fn comparisons(arms: &[(pb::Arm, ArmTally)], labels: &BTreeSet<String>) -> Vec<pb::ExperimentComparison> {
    let Some(((base, base_tally), others)) = arms.split_first() else { return Vec::new() };
    let compared = |other: u64, of: &str, a: Moments, b: Moments| {
        let evidence = libm::exp(evidence(a, b)).min(EVIDENCE_MAX);
        pb::ExperimentComparison {
            base: base.version,
            other,
            of: of.to_owned(),
            difference: b.mean().unwrap_or_default() - a.mean().unwrap_or_default(),
            evidence,
            verdict: if evidence >= EVIDENCE_MIN { "differs" } else { "open" }.to_owned(),
        }
    };
    let mut comparisons = Vec::new();
    for (arm, tally) in others {
        if let (Some(a), Some(b)) = (numbers(base_tally), numbers(tally)) {
            comparisons.push(compared(arm.version, "mean", a, b));
        }
        for label in labels {
            let rate = |tally: &ArmTally| {
                Moments::of_proportion(tally.labels.get(label).copied().unwrap_or_default(), labelled(tally))
            };
            comparisons.push(compared(arm.version, label, rate(base_tally), rate(tally)));
        }
    }
    comparisons
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arm_that_never_hits_can_differ() {
        let rate = Moments::of_proportion;
        for (a, b, differs) in [
            (rate(0, 500), rate(80, 500), true),
            (rate(80, 500), rate(0, 500), true),
            (rate(500, 500), rate(0, 500), true),
            (rate(0, 500), rate(3, 500), false),
            (rate(0, 500), rate(0, 500), false),
            (rate(100, 500), rate(180, 500), true),
            (rate(0, 0), rate(500, 500), false),
        ] {
            assert_eq!(libm::exp(evidence(a, b)) >= EVIDENCE_MIN, differs, "{a:?} {b:?}");
        }
    }

    /// Looked at after each pair of outcomes, up to 1,000.
    #[test]
    fn arms_of_one_rate_are_seldom_told_apart_however_often_one_looks() {
        let mut random = fastrand::Rng::with_seed(11);
        let streams = 300;
        for true_rate in [0.005, 0.05, 0.5] {
            let told_apart = (0..streams)
                .filter(|_| {
                    let mut hits = [0; 2];
                    (1..=1000).any(|count| {
                        hits.iter_mut().for_each(|hits| *hits += u64::from(random.f64() < true_rate));
                        let [a, b] = hits.map(|hits| Moments::of_proportion(hits, count));
                        libm::exp(evidence(a, b)) >= EVIDENCE_MIN
                    })
                })
                .count();
            assert!(
                told_apart as f64 <= ALPHA * f64::from(streams),
                "{true_rate}: {told_apart} of {streams}"
            );
        }
    }

    #[test]
    fn zeros_and_ones_are_a_rate_and_other_numbers_are_not() {
        let of = |values: &[f64]| {
            let mut moments = Moments::default();
            values.iter().for_each(|value| moments.add(*value));
            hits(moments)
        };
        for (values, expected) in [
            (&[][..], Some(0)),
            (&[0.0, 1.0, 1.0], Some(2)),
            (&[1.0; 7], Some(7)),
            (&[0.5, 0.5], None),
            (&[-1.0, 1.0], None),
            (&[2.0, 0.0], None),
        ] {
            assert_eq!(of(values), expected, "{values:?}");
        }
    }
}
