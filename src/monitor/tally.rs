//! What the comparisons of one pair of versions add up to.
//!
//! Always: bounded: [`CLASSES_MAX`] classes a side, [`WORST_MAX`] disagreements with a few values each. Each number
//! is counted where Prometheus reads it and where a report does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use metrics::{Counter, Histogram};
use serde::Serialize;

use super::distribution::{Distribution, summable};
use super::kept::{KeptTensor, kept};
use super::metrics::{
    ABSOLUTE_BUCKETS, COSINE_BUCKETS, RELATIVE_BUCKETS, SECONDS_BUCKETS, SHADOW_ABSOLUTE, SHADOW_AGREEMENT,
    SHADOW_CONFUSION, SHADOW_COSINE, SHADOW_DISAGREEMENTS, SHADOW_OUTPUTS, SHADOW_RELATIVE, SHADOW_SECONDS,
};
use super::prediction::CLASSES_MAX;
use super::shadows::PairSeries;
use crate::event::{Comparison, OutputDifference, ShadowEvent, Sides};
use crate::reading::OTHER;
use crate::tensor::Tensor;

/// Disagreements that are kept, the gravest.
pub const WORST_MAX: usize = 32;

/// Outputs of one answer that a kept disagreement shows.
const OUTPUTS_MAX: usize = 16;

/// What came of one version and its shadow while both were live.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShadowReport {
    pub versions: VersionPair,
    /// Requests by outcome: `compared`, `failed`, `refused`, `dropped`, `unanswered`.
    pub requests: BTreeMap<&'static str, u64>,
    /// Of the requests compared.
    pub disagreements: u64,
    /// Rows that both versions classified.
    pub classes: ClassReport,
    /// By name.
    pub outputs: BTreeMap<String, OutputReport>,
    /// The lowest cosine of each answer; `None` while none had embeddings.
    pub cosine: Option<Distribution>,
    /// How long compared requests took, in seconds.
    pub seconds: BySide<Distribution>,
    /// The gravest first, at most 32.
    pub worst: Vec<Disagreement>,
}

/// Which versions a report is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VersionPair {
    pub model: String,
    /// The version that answers clients.
    pub version: u64,
    pub shadow: u64,
}

/// The same thing of the version and of its shadow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BySide<T> {
    pub primary: T,
    pub shadow: T,
}

/// How the rows fell that both versions classified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClassReport {
    pub rows: u64,
    pub agreeing: u64,
    /// Without pairs that never came; by class.
    pub confusion: Vec<Confusion>,
}

/// Rows that got one class from the version and one from its shadow. The first 64 rows of an answer count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Confusion {
    pub predicted: String,
    pub shadow_predicted: String,
    pub rows: u64,
}

/// How one output's answers compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OutputReport {
    pub within_tolerance: u64,
    pub out_of_tolerance: u64,
    /// The shadow's output is missing, or has another type or shape.
    pub incomparable: u64,
    /// The largest absolute difference in each answer.
    pub absolute: Distribution,
    /// The largest relative difference in each answer.
    pub relative: Distribution,
}

/// One request that the shadow answered otherwise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Disagreement {
    /// When it was compared, in milliseconds since 1970.
    pub at_ms: u64,
    /// sha256 of the request's inputs in hexadecimal.
    pub digest: Option<String>,
    /// Larger is worse; `None` for what cannot be compared at all, the worst.
    pub severity: Option<f64>,
    pub outputs: BySide<Vec<KeptTensor>>,
}

/// A number that goes up.
struct Count {
    total: u64,
    counter: Counter,
}

impl Count {
    fn new(counter: Counter) -> Self {
        Self { total: 0, counter }
    }

    fn add(&mut self, count: usize) {
        self.total += count as u64;
        self.counter.increment(count as u64);
    }
}

struct Samples {
    distribution: Distribution,
    histogram: Histogram,
}

impl Samples {
    fn new(bounds: &[f64], histogram: Histogram) -> Self {
        Self { distribution: Distribution::new(bounds), histogram }
    }

    fn record(&mut self, value: f64) {
        self.distribution.record(value);
        self.histogram.record(summable(value));
    }
}

struct OutputTally {
    within: Count,
    out: Count,
    incomparable: Count,
    absolute: Samples,
    relative: Samples,
}

/// Running totals of one pair.
pub struct Tally {
    disagreements: Count,
    agreeing: Count,
    differing: Count,
    confusion: BTreeMap<Sides<String>, Count>,
    /// Classes that have a name of their own.
    classes: Sides<BTreeSet<String>>,
    outputs: BTreeMap<Arc<str>, OutputTally>,
    /// Made with the first embedding, so that other models have no empty series.
    cosine: Option<Samples>,
    seconds: Sides<Samples>,
    worst: Vec<(f64, Disagreement)>,
}

impl Tally {
    pub fn new(series: &PairSeries) -> Self {
        let rows = |agree| Count::new(series.counter(SHADOW_AGREEMENT, &[("agree", agree)]));
        let seconds =
            |side| Samples::new(SECONDS_BUCKETS, series.histogram(SHADOW_SECONDS, &[("side", side)]));
        Self {
            disagreements: Count::new(series.counter(SHADOW_DISAGREEMENTS, &[])),
            agreeing: rows("true"),
            differing: rows("false"),
            confusion: BTreeMap::new(),
            classes: Sides { primary: BTreeSet::new(), shadow: BTreeSet::new() },
            outputs: BTreeMap::new(),
            cosine: None,
            seconds: Sides { primary: seconds("primary"), shadow: seconds("shadow") },
            worst: Vec::new(),
        }
    }

    /// Adds what came of one comparison.
    pub fn add(&mut self, series: &PairSeries, event: &ShadowEvent<'_>, comparison: &Comparison) {
        if let Some(latency) = event.latency {
            self.seconds.primary.record(latency.primary.as_secs_f64());
            self.seconds.shadow.record(latency.shadow.as_secs_f64());
        }
        if let Some(agreement) = comparison.agreement {
            self.agreeing.add(agreement.agreeing);
            self.differing.add(agreement.rows - agreement.agreeing);
        }
        for pair in &comparison.pairs {
            self.add_pair(series, pair);
        }
        for difference in &comparison.differences {
            self.add_output(series, difference);
        }
        if let Some(cosine) = comparison.cosine {
            let fresh = || Samples::new(COSINE_BUCKETS, series.histogram(SHADOW_COSINE, &[]));
            self.cosine.get_or_insert_with(fresh).record(cosine.min);
        }
        if comparison.disagrees {
            self.disagreements.add(1);
            self.keep(event, comparison.severity);
        }
    }

    fn add_pair(&mut self, series: &PairSeries, pair: &Sides<String>) {
        let pair = Sides {
            primary: bounded(&mut self.classes.primary, &pair.primary),
            shadow: bounded(&mut self.classes.shadow, &pair.shadow),
        };
        let count = || {
            let labels = [("predicted", pair.primary), ("shadow_predicted", pair.shadow)];
            Count::new(series.counter(SHADOW_CONFUSION, &labels))
        };
        let key = Sides { primary: pair.primary.to_owned(), shadow: pair.shadow.to_owned() };
        self.confusion.entry(key).or_insert_with(count).add(1);
    }

    fn add_output(&mut self, series: &PairSeries, difference: &OutputDifference) {
        let name = &*difference.output;
        let fresh = || {
            let outputs = |tolerance| {
                Count::new(series.counter(SHADOW_OUTPUTS, &[("output", name), ("tolerance", tolerance)]))
            };
            let samples =
                |bounds, metric| Samples::new(bounds, series.histogram(metric, &[("output", name)]));
            OutputTally {
                within: outputs("within"),
                out: outputs("out"),
                incomparable: outputs("incomparable"),
                absolute: samples(ABSOLUTE_BUCKETS, SHADOW_ABSOLUTE),
                relative: samples(RELATIVE_BUCKETS, SHADOW_RELATIVE),
            }
        };
        let tally = self.outputs.entry(Arc::clone(&difference.output)).or_insert_with(fresh);
        if difference.incomparable.is_some() {
            return tally.incomparable.add(1);
        }
        if difference.within_tolerance() {
            tally.within.add(1)
        } else {
            tally.out.add(1)
        }
        if difference.numeric {
            tally.absolute.record(difference.magnitude.absolute_max);
            tally.relative.record(difference.magnitude.relative_max);
        }
    }

    /// Keeps a disagreement that is graver than one of those kept; of equals, the older stays.
    fn keep(&mut self, event: &ShadowEvent<'_>, severity: f64) {
        if self.worst.len() == WORST_MAX {
            match self.worst.last() {
                Some((mildest, _)) if severity > *mildest => drop(self.worst.pop()),
                _ => return,
            }
        }
        let beginning = |outputs: &[(Arc<str>, Tensor)]| {
            outputs.iter().take(OUTPUTS_MAX).map(|(name, tensor)| kept(name, tensor)).collect()
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let disagreement = Disagreement {
            at_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            digest: event.digest.map(|digest| digest.iter().map(|byte| format!("{byte:02x}")).collect()),
            severity: severity.is_finite().then_some(severity),
            outputs: BySide {
                primary: beginning(event.outputs.primary),
                shadow: beginning(event.outputs.shadow),
            },
        };
        let place = self.worst.partition_point(|(kept, _)| *kept >= severity);
        self.worst.insert(place, (severity, disagreement));
    }

    /// All of it, with what is counted elsewhere: the pair's versions and its requests by outcome.
    pub fn report(&self, versions: VersionPair, requests: BTreeMap<&'static str, u64>) -> ShadowReport {
        let confusion = self.confusion.iter().map(|(pair, count)| Confusion {
            predicted: pair.primary.clone(),
            shadow_predicted: pair.shadow.clone(),
            rows: count.total,
        });
        let outputs = self.outputs.iter().map(|(name, tally)| {
            let report = OutputReport {
                within_tolerance: tally.within.total,
                out_of_tolerance: tally.out.total,
                incomparable: tally.incomparable.total,
                absolute: tally.absolute.distribution.clone(),
                relative: tally.relative.distribution.clone(),
            };
            (name.to_string(), report)
        });
        ShadowReport {
            versions,
            requests,
            disagreements: self.disagreements.total,
            classes: ClassReport {
                rows: self.agreeing.total + self.differing.total,
                agreeing: self.agreeing.total,
                confusion: confusion.collect(),
            },
            outputs: outputs.collect(),
            cosine: self.cosine.as_ref().map(|cosine| cosine.distribution.clone()),
            seconds: BySide {
                primary: self.seconds.primary.distribution.clone(),
                shadow: self.seconds.shadow.distribution.clone(),
            },
            worst: self.worst.iter().map(|(_, disagreement)| disagreement.clone()).collect(),
        }
    }
}

/// `class` itself while there is room among the known ones, then [`OTHER`].
fn bounded<'a>(known: &mut BTreeSet<String>, class: &'a str) -> &'a str {
    if known.contains(class) {
        return class;
    }
    if known.len() >= CLASSES_MAX {
        return OTHER;
    }
    known.insert(class.to_owned());
    class
}
