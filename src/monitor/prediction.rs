//! Counts what a model predicted: classes, winning scores, values, and numbers that are none.
//!
//! Always: what an output means is `reading`'s word; here it is only counted. Class names are bounded: at most
//! [`CLASSES_MAX`] have a series of their own.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use metrics::Counter;

use super::histogram::RealHistogram;
use crate::event::ServableProfile;
use crate::reading::{
    CLASS_BYTES_MAX, Class, ELEMENTS_MAX, Meaning, OTHER, ReadOutput, Reader, class_name, named_classes,
    winners,
};
use crate::tensor::Tensor;

/// Classes with a series of their own; the rest is counted as `other`.
pub const CLASSES_MAX: usize = 100;

/// Outputs with series of their own. A model file names its outputs, each name may have a kilobyte and stands in up to two
/// hundred lines.
pub const OUTPUTS_MAX: usize = 32;

/// Makes the series of one output.
pub trait Series {
    fn class(&self, output: &str, class: &str) -> Counter;
    fn score(&self, output: &str) -> Arc<RealHistogram>;
    fn value(&self, output: &str) -> Arc<RealHistogram>;
    fn nonfinite(&self, output: &str, kind: &'static str) -> Counter;
}

/// What is counted of an output.
enum Counted {
    Label(Classes),
    /// The classes are counted here only if no output holds the predicted class.
    Scores {
        classes: Option<Classes>,
        score: Arc<RealHistogram>,
    },
    Values(Arc<RealHistogram>),
    /// Only its NaNs and infinities.
    Embedding,
}

struct Output {
    counted: Counted,
    /// NaNs and infinities; only for outputs of floats.
    nonfinite: Option<(Counter, Counter)>,
}

/// Reads the predictions of one version.
pub struct Predictions {
    /// By position in the signature, the first [`OUTPUTS_MAX`].
    outputs: Vec<Option<Output>>,
}

impl Predictions {
    pub fn new(profile: &ServableProfile, series: Arc<dyn Series + Send + Sync>) -> Self {
        let reader = Reader::new(profile);
        let any_label = reader.outputs().iter().any(|output| output.meaning == Meaning::Label);
        let output = |output: &ReadOutput| {
            let name = &*output.name;
            let classes = || Classes::new(name, Arc::clone(reader.labels()), Arc::clone(&series));
            let counted = match output.meaning {
                Meaning::Label => Counted::Label(classes()),
                Meaning::Scores => {
                    Counted::Scores { classes: (!any_label).then(classes), score: series.score(name) }
                }
                Meaning::Values => Counted::Values(series.value(name)),
                Meaning::Embedding => Counted::Embedding,
                Meaning::Plain => return None,
            };
            let is_float = output.datatype.is_float();
            let nonfinite = is_float.then(|| (series.nonfinite(name, "nan"), series.nonfinite(name, "inf")));
            Some(Output { counted, nonfinite })
        };
        Self { outputs: reader.outputs().iter().take(OUTPUTS_MAX).map(output).collect() }
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
        if let Counted::Label(classes) = &self.counted {
            return named_classes(tensor).for_each(|class| classes.count(class));
        }
        if let Some((nan, infinite)) = &self.nonfinite {
            let found = tensor.nonfinite(ELEMENTS_MAX);
            for (counter, count) in [(nan, found.nan), (infinite, found.infinite)] {
                if count > 0 {
                    counter.increment(count as u64);
                }
            }
        }
        match &self.counted {
            Counted::Values(histogram) => {
                let values = tensor.floats(ELEMENTS_MAX);
                values.iter().filter(|v| v.is_finite()).for_each(|v| histogram.record(*v));
            }
            Counted::Scores { classes, score } => {
                let values = tensor.floats(ELEMENTS_MAX);
                for (class, best) in winners(&values, tensor).flatten() {
                    score.record(best);
                    if let Some(classes) = classes {
                        classes.count(Class::Number(class as i64));
                    }
                }
            }
            Counted::Label(_) | Counted::Embedding => {}
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
    by_number: Mutex<BTreeMap<i64, Counter>>,
    by_text: Mutex<HashMap<Vec<u8>, Counter>>,
}

impl Classes {
    fn new(output: &str, labels: Arc<[String]>, series: Arc<dyn Series + Send + Sync>) -> Self {
        // Known classes are there from the start, at zero: a class that is never predicted shows too.
        let known = labels.iter().take(CLASSES_MAX).enumerate();
        let by_number = known.map(|(i, label)| (i as i64, series.class(output, label))).collect();
        Self {
            other: OnceLock::new(),
            output: output.to_owned(),
            labels,
            series,
            by_number: Mutex::new(by_number),
            by_text: Mutex::default(),
        }
    }

    fn count(&self, class: Class<'_>) {
        match class {
            Class::Number(number) => {
                let mut known = self.by_number.lock().unwrap_or_else(PoisonError::into_inner);
                let full = known.len() >= CLASSES_MAX;
                match known.get(&number) {
                    Some(counter) => counter.increment(1),
                    None if full => self.count_other(),
                    None => drop(known.insert(number, self.first(class))),
                }
            }
            Class::Text(text) => {
                let mut known = self.by_text.lock().unwrap_or_else(PoisonError::into_inner);
                let full = known.len() >= CLASSES_MAX || text.len() > CLASS_BYTES_MAX;
                match known.get(text) {
                    Some(counter) => counter.increment(1),
                    None if full => self.count_other(),
                    None => drop(known.insert(text.to_vec(), self.first(class))),
                }
            }
        }
    }

    /// The counter of a class that was not seen before, at one.
    fn first(&self, class: Class<'_>) -> Counter {
        let counter = self.series.class(&self.output, &class_name(&self.labels, class));
        counter.increment(1);
        counter
    }

    fn count_other(&self) {
        self.other.get_or_init(|| self.series.class(&self.output, OTHER)).increment(1);
    }
}
