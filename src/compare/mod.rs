//! Holds a shadow's answer against the primary's.
//!
//! Always: pure and bounded: at most `reading::ELEMENTS_MAX` elements of each output, and the same two answers
//! always compare the same. NaN equals NaN, an infinity itself. Not here: who is compared and when, and what is
//! counted of it.

mod cosine;
mod difference;
#[cfg(test)]
mod tests;

use smallvec::SmallVec;

use crate::event::{Agreement, Comparison, Cosine, Incomparable, OutputDifference, Sides};
use crate::reading::{Class, Meaning, Reader, Row};
use crate::tensor::{DataType, Tensor};
use cosine::row_cosines;
use difference::{difference, incomparable};

/// Rows of one answer whose classes are told pair by pair.
pub const PAIRS_MAX: usize = 64;

/// Embeddings at least this close count as the same: some 8 degrees apart. A chosen bound: rounding each value to
/// half precision (an error of 2⁻¹¹ at the most) turns a vector by less than a hundredth of that.
const COSINE_MIN: f64 = 0.99;

/// The severity of a row with two classes where a version gives no scores.
const UNSCORED_SEVERITY: f64 = 1.0;

/// How a pair without a class is named: its scores are all NaN, or the other answer has fewer rows.
const NO_CLASS: &str = "none";

/// One version's answer and who understands it.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    pub reader: &'a Reader,
    /// Positions in the version's signature, and the model's own tensors.
    pub outputs: &'a [(usize, Tensor)],
}

/// Compares each output of the primary with the shadow's of the same name, and the predicted classes.
///
/// The answers disagree if an output cannot be compared (none of that name, another type or shape); else, if both
/// versions classify, if the class of any row differs; else if any output is out of tolerance, which for an
/// embedding means a row whose cosine is below 0.99 or a NaN or infinity on one side. Outputs that only the shadow
/// gives do not matter.
///
/// Severity of a disagreement: infinite where something cannot be compared or is NaN on one side; for classes, how
/// sure the less sure version was of the surest differing row (1 without scores); for embeddings 1 − cosine; for
/// other outputs the largest difference in units of what is tolerated.
pub fn compare(answers: Sides<Answer<'_>>) -> Comparison {
    let outputs: Vec<ComparedOutput> =
        answers.primary.outputs.iter().filter_map(|output| compared(output, &answers)).collect();
    let classes = compared_classes(&answers);
    let severity = match &classes {
        _ if outputs.iter().any(|output| output.difference.incomparable.is_some()) => f64::INFINITY,
        Some(classes) => classes.severity,
        None => outputs.iter().map(ComparedOutput::severity).fold(0.0, f64::max),
    };
    let (agreement, pairs) = match classes {
        Some(classes) => (Some(classes.agreement), classes.pairs),
        None => (None, SmallVec::new()),
    };
    Comparison {
        agreement,
        pairs,
        cosine: over_rows(outputs.iter().filter_map(|output| output.cosines.as_deref()).flatten()),
        differences: outputs.into_iter().map(|output| output.difference).collect(),
        disagrees: severity > 0.0,
        severity,
    }
}

struct ComparedOutput {
    difference: OutputDifference,
    /// Of each row of an embedding.
    cosines: Option<Vec<f64>>,
}

impl ComparedOutput {
    /// 0 for what is within tolerance.
    fn severity(&self) -> f64 {
        let difference = &self.difference;
        if difference.nonfinite_mismatches > 0 {
            return f64::INFINITY;
        }
        match &self.cosines {
            Some(cosines) => {
                let min = cosines.iter().copied().fold(1.0, f64::min);
                if min < COSINE_MIN { 1.0 - min } else { 0.0 }
            }
            None if difference.differing > 0 => difference.magnitude.tolerances_max.max(1.0),
            None => 0.0,
        }
    }
}

/// `None` for an output that the primary's signature does not have, which none of its answers gives.
fn compared((index, ours): &(usize, Tensor), answers: &Sides<Answer<'_>>) -> Option<ComparedOutput> {
    let output = answers.primary.reader.outputs().get(*index)?;
    let named = |index: usize| answers.shadow.reader.outputs().get(index).map(|output| &output.name);
    let theirs = answers.shadow.outputs.iter().find(|(index, _)| named(*index) == Some(&output.name));
    let reason = match theirs {
        None => Some(Incomparable::Missing),
        Some((_, theirs)) if theirs.datatype() != ours.datatype() => Some(Incomparable::Datatype),
        Some((_, theirs)) if theirs.shape() != ours.shape() => Some(Incomparable::Shape),
        Some(_) => None,
    };
    Some(match (theirs, reason) {
        (Some((_, theirs)), None) => ComparedOutput {
            difference: OutputDifference {
                numeric: ours.datatype() != DataType::Bytes && output.meaning != Meaning::Label,
                ..difference(&output.name, ours, theirs)
            },
            cosines: (output.meaning == Meaning::Embedding).then(|| row_cosines(ours, theirs)),
        },
        (_, reason) => ComparedOutput {
            difference: incomparable(&output.name, ours.datatype(), reason.unwrap_or(Incomparable::Missing)),
            cosines: None,
        },
    })
}

struct ComparedClasses {
    agreement: Agreement,
    pairs: SmallVec<[Sides<String>; 4]>,
    severity: f64,
}

/// `None` unless both answers classify. A row that only one answer has differs.
fn compared_classes(answers: &Sides<Answer<'_>>) -> Option<ComparedClasses> {
    let ours = answers.primary.reader.classes(answers.primary.outputs)?;
    let theirs = answers.shadow.reader.classes(answers.shadow.outputs)?;
    let readers = Sides { primary: answers.primary.reader, shadow: answers.shadow.reader };
    let absent = Row { class: None, score: None };
    let rows = ours.len().max(theirs.len());
    let mut agreeing = 0;
    let mut severity = 0f64;
    let mut pairs = SmallVec::new();
    for row in 0..rows {
        let pair =
            Sides { primary: *ours.get(row).unwrap_or(&absent), shadow: *theirs.get(row).unwrap_or(&absent) };
        if same_class(&readers, &pair) {
            agreeing += 1;
        } else {
            severity = severity.max(clash(&pair));
        }
        if row < PAIRS_MAX {
            let name = |reader: &Reader, row: Row<'_>| {
                row.class.map_or_else(|| NO_CLASS.to_owned(), |class| reader.short_name(class))
            };
            pairs.push(Sides {
                primary: name(readers.primary, pair.primary),
                shadow: name(readers.shadow, pair.shadow),
            });
        }
    }
    Some(ComparedClasses { agreement: Agreement { rows, agreeing }, pairs, severity })
}

/// Classes are the same when they are called the same: an index and a text may meet through a label file.
fn same_class(readers: &Sides<&Reader>, pair: &Sides<Row<'_>>) -> bool {
    match (pair.primary.class, pair.shadow.class) {
        (None, None) => true,
        (Some(Class::Text(ours)), Some(Class::Text(theirs))) => ours == theirs,
        (Some(ours), Some(theirs)) => readers.primary.name(ours) == readers.shadow.name(theirs),
        _ => false,
    }
}

/// How grave it is that a row got two classes. Two versions that are both sure are further apart than two that
/// waver; the floor keeps a disagreement above agreement whatever the scale of the scores.
fn clash(pair: &Sides<Row<'_>>) -> f64 {
    match (pair.primary.class, pair.shadow.class, pair.primary.score, pair.shadow.score) {
        (None, ..) | (_, None, ..) => f64::INFINITY,
        (_, _, Some(ours), Some(theirs)) => ours.min(theirs).max(f64::MIN_POSITIVE),
        _ => UNSCORED_SEVERITY,
    }
}

fn over_rows<'a>(cosines: impl Iterator<Item = &'a f64>) -> Option<Cosine> {
    let (mut rows, mut sum, mut min) = (0usize, 0.0, 1.0);
    for &cosine in cosines {
        rows += 1;
        sum += cosine;
        min = f64::min(min, cosine);
    }
    (rows > 0).then(|| Cosine { min, mean: sum / rows as f64 })
}
