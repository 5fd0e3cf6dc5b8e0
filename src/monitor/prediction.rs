//! What a model predicted: classes, winning scores, values, and numbers that are none.
//!
//! Which output means what is decided once, when a version is loaded: by the operator that computes it, or by the
//! label file that the config gives it. Reading is bounded: at most [`ELEMENTS_MAX`] elements of an answer count.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use metrics::{Counter, Histogram};
use ndarray::{ArrayView2, Axis};

use crate::event::ServableProfile;
use crate::tensor::{ANY, DataType, Tensor, strings};

/// Elements of one output of one answer that are read at the most.
const ELEMENTS_MAX: usize = 65_536;

/// Values per row up to which an output is a prediction to look at; above, it is an embedding or an image, and
/// only its NaNs and infinities count.
const VALUES_PER_ROW_MAX: usize = 16;

/// Classes with a series of their own; the rest is counted as `other`.
const CLASSES_MAX: usize = 100;

/// Upper bounds of score buckets: winning probabilities live in (0, 1].
pub const SCORE_BUCKETS: &[f64] =
    &[0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.975, 0.99, 1.0];

/// Upper bounds of value buckets: three to a decade on both sides of zero, since nothing is known of the scale.
pub const VALUE_BUCKETS: &[f64] = &[
    -1e6, -1e5, -1e4, -1e3, -500.0, -200.0, -100.0, -50.0, -20.0, -10.0, -5.0, -2.0, -1.0, -0.5, -0.2, -0.1,
    -0.01, 0.0, 0.01, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 1e4, 1e5,
    1e6,
];

/// Makes the series of one output.
pub trait Series {
    fn class(&self, output: &str, class: &str) -> Counter;
    fn score(&self, output: &str) -> Histogram;
    fn value(&self, output: &str) -> Histogram;
    fn nonfinite(&self, output: &str, kind: &'static str) -> Counter;
}

/// What an output means.
enum Meaning {
    /// The predicted class itself.
    Label(Classes),
    /// A score for each class, by index on the last axis; the classes are counted here only if no output holds
    /// the predicted class.
    Scores {
        classes: Option<Classes>,
        score: Histogram,
    },
    Values(Histogram),
    /// Too many values per row to mean anything one by one.
    Unread,
}

struct Output {
    meaning: Meaning,
    /// NaNs and infinities; only for outputs of floats.
    nonfinite: Option<(Counter, Counter)>,
}

/// Reads the predictions of one version.
pub struct Predictions {
    /// By position in the signature.
    outputs: Vec<Option<Output>>,
}

impl Predictions {
    pub fn new(profile: &ServableProfile, series: Arc<dyn Series + Send + Sync>) -> Self {
        let specs = &profile.signature.outputs;
        let is_label = |index: usize| profile.class_labels.contains(&index);
        let is_score = |index: usize| {
            let spec = &specs[index];
            let classes = spec.dims.last().copied().unwrap_or(1);
            spec.datatype.is_float()
                && (classes == ANY || classes > 1)
                && (profile.class_scores.contains(&index) || !spec.labels.is_empty())
        };
        let labels: Arc<[String]> = specs
            .iter()
            .map(|spec| &spec.labels)
            .find(|labels| !labels.is_empty())
            .cloned()
            .unwrap_or_default();
        let any_label = (0..specs.len()).any(is_label);
        let outputs = specs.iter().enumerate().map(|(index, spec)| {
            let name = &*spec.name;
            let classes = || Classes::new(name, Arc::clone(&labels), Arc::clone(&series));
            let per_row: i64 =
                spec.dims.iter().map(|&d| if d == ANY { i64::MAX } else { d }).fold(1, i64::saturating_mul);
            let meaning = if is_label(index) {
                Meaning::Label(classes())
            } else if is_score(index) {
                Meaning::Scores { classes: (!any_label).then(classes), score: series.score(name) }
            } else if spec.datatype.is_float() && per_row <= VALUES_PER_ROW_MAX as i64 {
                Meaning::Values(series.value(name))
            } else if spec.datatype.is_float() {
                Meaning::Unread
            } else {
                return None;
            };
            let nonfinite = spec
                .datatype
                .is_float()
                .then(|| (series.nonfinite(name, "nan"), series.nonfinite(name, "inf")));
            Some(Output { meaning, nonfinite })
        });
        Self { outputs: outputs.collect() }
    }

    /// Reads one answer; `predicted` gives positions in the signature.
    pub fn read(&self, predicted: &[(usize, Tensor)]) {
        for (index, tensor) in predicted {
            if let Some(Some(output)) = self.outputs.get(*index) {
                output.read(tensor);
            }
        }
    }
}

impl Output {
    fn read(&self, tensor: &Tensor) {
        if let Meaning::Label(classes) = &self.meaning {
            return classes.count_labels(tensor);
        }
        let values = tensor.floats(ELEMENTS_MAX);
        if values.is_empty() {
            return;
        }
        if let Some((nan, infinite)) = &self.nonfinite {
            let count = |is: fn(f64) -> bool| values.iter().filter(|v| is(**v)).count() as u64;
            nan.increment(count(f64::is_nan));
            infinite.increment(count(f64::is_infinite));
        }
        match &self.meaning {
            Meaning::Values(histogram) => {
                values.iter().filter(|v| v.is_finite()).for_each(|v| histogram.record(*v));
            }
            Meaning::Scores { classes, score } => {
                let width = tensor.shape().dims().last().map_or(1, |&d| d as usize).max(1);
                let rows = values.len() / width;
                let Ok(table) = ArrayView2::from_shape((rows, width), &values[..rows * width]) else {
                    return;
                };
                for row in table.axis_iter(Axis(0)) {
                    let best =
                        row.iter().enumerate().filter(|(_, v)| !v.is_nan()).max_by(|a, b| a.1.total_cmp(b.1));
                    if let Some((class, best)) = best {
                        score.record(*best);
                        if let Some(classes) = classes {
                            classes.count_index(class);
                        }
                    }
                }
            }
            Meaning::Label(_) | Meaning::Unread => {}
        }
    }
}

/// Counters of predicted classes, made as classes appear.
struct Classes {
    output: String,
    labels: Arc<[String]>,
    series: Arc<dyn Series + Send + Sync>,
    /// Made when there are too many classes.
    other: OnceLock<Counter>,
    by_index: Mutex<HashMap<i64, Counter>>,
    by_text: Mutex<HashMap<Vec<u8>, Counter>>,
}

impl Classes {
    fn new(output: &str, labels: Arc<[String]>, series: Arc<dyn Series + Send + Sync>) -> Self {
        // Known classes are there from the start, at zero: a class that is never predicted shows too.
        let known = labels.iter().take(CLASSES_MAX).enumerate();
        let by_index = known.map(|(i, label)| (i as i64, series.class(output, label))).collect();
        Self {
            other: OnceLock::new(),
            output: output.to_owned(),
            labels,
            series,
            by_index: Mutex::new(by_index),
            by_text: Mutex::default(),
        }
    }

    fn count_other(&self) {
        self.other.get_or_init(|| self.series.class(&self.output, "other")).increment(1);
    }

    fn count_index(&self, class: usize) {
        self.count_number(class as i64);
    }

    fn count_labels(&self, tensor: &Tensor) {
        match tensor.datatype() {
            DataType::Bytes => {
                strings::iter(tensor.data()).take(ELEMENTS_MAX).for_each(|text| self.count_text(text))
            }
            DataType::Int64 => {
                let numbers = tensor.data().chunks_exact(8).take(ELEMENTS_MAX);
                numbers
                    .for_each(|b| self.count_number(i64::from_le_bytes(b.try_into().expect("eight bytes"))));
            }
            DataType::Int32 => {
                let numbers = tensor.data().chunks_exact(4).take(ELEMENTS_MAX);
                numbers.for_each(|b| {
                    self.count_number(i64::from(i32::from_le_bytes(b.try_into().expect("four bytes"))));
                });
            }
            _ => tensor.floats(ELEMENTS_MAX).iter().for_each(|v| self.count_number(*v as i64)),
        }
    }

    fn count_number(&self, class: i64) {
        let mut known = self.by_index.lock().unwrap_or_else(PoisonError::into_inner);
        let full = known.len() >= CLASSES_MAX;
        match known.get(&class) {
            Some(counter) => counter.increment(1),
            None if full => self.count_other(),
            None => {
                let label = usize::try_from(class).ok().and_then(|i| self.labels.get(i));
                let name = label.cloned().unwrap_or_else(|| class.to_string());
                let counter = self.series.class(&self.output, &name);
                counter.increment(1);
                known.insert(class, counter);
            }
        }
    }

    fn count_text(&self, class: &[u8]) {
        let mut known = self.by_text.lock().unwrap_or_else(PoisonError::into_inner);
        let full = known.len() >= CLASSES_MAX || class.len() > 64;
        match known.get(class) {
            Some(counter) => counter.increment(1),
            None if full => self.count_other(),
            None => {
                let counter = self.series.class(&self.output, &String::from_utf8_lossy(class));
                counter.increment(1);
                known.insert(class.to_vec(), counter);
            }
        }
    }
}
