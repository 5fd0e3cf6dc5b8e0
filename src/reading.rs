//! What an answer says: its predicted class, how sure the model is, and the one category it belongs to.
//!
//! Always: which output means what is decided once, from the version's profile: by the operator that computes it,
//! or by the label file that the config gives it. Reading is bounded: at most [`ELEMENTS_MAX`] elements of an
//! output. Not here: what is done with it; `monitor` counts, `compare` compares.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::event::ServableProfile;
use crate::tensor::{ANY, DataType, Tensor, strings};

/// Elements of one output of one answer that are read at the most.
pub const ELEMENTS_MAX: usize = 65_536;

/// Values per row up to which an output is a prediction to look at one by one; above, it is an embedding or an
/// image.
pub const VALUES_PER_ROW_MAX: usize = 16;

/// The longest class in bytes that is named by itself; longer ones are [`OTHER`].
pub const CLASS_BYTES_MAX: usize = 64;

/// The name of classes that have none of their own.
pub const OTHER: &str = "other";

/// The category of a first row that is not a number.
const NOT_A_NUMBER: &str = "NaN";

/// Upper bounds of score buckets: winning probabilities live in (0, 1].
pub const SCORE_BUCKETS: &[f64] =
    &[0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.975, 0.99, 1.0];

/// Upper bounds of value buckets: three to a decade on both sides of zero, since nothing is known of the scale.
pub const VALUE_BUCKETS: &[f64] = &[
    -1e6, -1e5, -1e4, -1e3, -500.0, -200.0, -100.0, -50.0, -20.0, -10.0, -5.0, -2.0, -1.0, -0.5, -0.2, -0.1,
    -0.01, 0.0, 0.01, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 1e4, 1e5,
    1e6,
];

/// What an output means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// The predicted class itself, one element per row.
    Label,
    /// A score for each class, by index on the last axis.
    Scores,
    /// A few floats per row.
    Values,
    /// Too many floats per row to mean anything one by one.
    Embedding,
    /// Whole numbers, truth values or strings that are no class.
    Plain,
}

/// One output of a version, understood.
#[derive(Debug, Clone)]
pub struct ReadOutput {
    pub name: Arc<str>,
    pub datatype: DataType,
    pub meaning: Meaning,
    /// Values that a classifying operator computes: the one value of a sigmoid is a probability, too.
    scored: bool,
}

/// A predicted class as the model gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class<'a> {
    /// A number, or the index of the winning score.
    Number(i64),
    Text(&'a [u8]),
}

/// The prediction of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row<'a> {
    /// `None` where every score is NaN.
    pub class: Option<Class<'a>>,
    /// The highest score; `None` without an output of scores.
    pub score: Option<f64>,
}

/// What kind of answer a request got: a class, or a range of values such as `≤0.5`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Category(String);

impl Category {
    /// At most [`CLASS_BYTES_MAX`] bytes of a class, or the name of a range.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Understands the answers of one version.
#[derive(Debug, Clone)]
pub struct Reader {
    outputs: Vec<ReadOutput>,
    labels: Arc<[String]>,
}

impl Reader {
    pub fn new(profile: &ServableProfile) -> Self {
        let specs = &profile.signature.outputs;
        let outputs = specs.iter().enumerate().map(|(index, spec)| {
            let scored = profile.class_scores.contains(&index);
            let classes = spec.dims.last().copied().unwrap_or(1);
            let ranks_classes = (classes == ANY || classes > 1) && (scored || !spec.labels.is_empty());
            let per_row: i64 =
                spec.dims.iter().map(|&d| if d == ANY { i64::MAX } else { d }).fold(1, i64::saturating_mul);
            let meaning = if profile.class_labels.contains(&index) {
                Meaning::Label
            } else if !spec.datatype.is_float() {
                Meaning::Plain
            } else if ranks_classes {
                Meaning::Scores
            } else if per_row <= VALUES_PER_ROW_MAX as i64 {
                Meaning::Values
            } else {
                Meaning::Embedding
            };
            ReadOutput { name: Arc::clone(&spec.name), datatype: spec.datatype, meaning, scored }
        });
        let labels = specs.iter().map(|spec| &spec.labels).find(|labels| !labels.is_empty());
        Self { outputs: outputs.collect(), labels: labels.cloned().unwrap_or_default() }
    }

    /// Every output, in the order of the signature.
    pub fn outputs(&self) -> &[ReadOutput] {
        &self.outputs
    }

    /// Names of the classes by index, from the label file; empty when there is none.
    pub fn labels(&self) -> &Arc<[String]> {
        &self.labels
    }

    /// The predicted class and winning score of each row; `predicted` gives positions in the signature.
    ///
    /// `None` when no output that is there names or scores classes. The class itself goes before scores; the
    /// scores are left out where they have other rows. Cost: one pass over [`ELEMENTS_MAX`] elements at the most.
    pub fn classes<'a>(&self, predicted: &'a [(usize, Tensor)]) -> Option<Vec<Row<'a>>> {
        let best: Option<Vec<Option<(usize, f64)>>> =
            self.first(predicted, Meaning::Scores).map(|t| winners(&t.floats(ELEMENTS_MAX), t).collect());
        let named: Option<Vec<Class<'a>>> =
            self.first(predicted, Meaning::Label).map(|tensor| named_classes(tensor).collect());
        match (named.filter(|named| !named.is_empty()), best) {
            (Some(named), best) => {
                let best = best.filter(|best| best.len() == named.len()).unwrap_or_default();
                let score = |row: usize| best.get(row).copied().flatten().map(|(_, score)| score);
                let row = |(row, class)| Row { class: Some(class), score: score(row) };
                Some(named.into_iter().enumerate().map(row).collect())
            }
            (None, Some(best)) => Some(best.into_iter().map(row_of_winner).collect()),
            (None, None) => None,
        }
    }

    /// The class of the first row if the model classifies, else the bucket of its first number.
    ///
    /// Buckets are [`VALUE_BUCKETS`], and [`SCORE_BUCKETS`] for what a classifying operator computes. `None` when
    /// the answer has neither: embeddings, strings that are no class, no rows.
    pub fn category(&self, predicted: &[(usize, Tensor)]) -> Option<Category> {
        let name = match self.first_class(predicted) {
            Some(Some(class)) => self.short_name(class),
            Some(None) => NOT_A_NUMBER.to_owned(),
            None => self.first_bucket(predicted)?,
        };
        Some(Category(name))
    }

    /// What a class is called: its label if it is a number that has one.
    pub fn name<'a>(&'a self, class: Class<'a>) -> Cow<'a, str> {
        class_name(&self.labels, class)
    }

    /// As [`Self::name`], and [`OTHER`] for names over [`CLASS_BYTES_MAX`].
    pub fn short_name(&self, class: Class<'_>) -> String {
        match class {
            Class::Text(text) if text.len() > CLASS_BYTES_MAX => OTHER.to_owned(),
            class => self.name(class).into_owned(),
        }
    }

    fn first<'a>(&self, predicted: &'a [(usize, Tensor)], meaning: Meaning) -> Option<&'a Tensor> {
        let is = |index: usize| self.outputs.get(index).is_some_and(|output| output.meaning == meaning);
        predicted.iter().find(|(index, _)| is(*index)).map(|(_, tensor)| tensor)
    }

    /// The inner `None` is a row whose scores are all NaN.
    fn first_class<'a>(&self, predicted: &'a [(usize, Tensor)]) -> Option<Option<Class<'a>>> {
        let named = self.first(predicted, Meaning::Label).and_then(|tensor| named_classes(tensor).next());
        named.map(Some).or_else(|| {
            let tensor = self.first(predicted, Meaning::Scores)?;
            let first = winners(&tensor.floats(width(tensor).min(ELEMENTS_MAX)), tensor).next()?;
            Some(row_of_winner(first).class)
        })
    }

    fn first_bucket(&self, predicted: &[(usize, Tensor)]) -> Option<String> {
        predicted.iter().find_map(|(index, tensor)| {
            let output = self.outputs.get(*index)?;
            let bounds = match output.meaning {
                Meaning::Values if output.scored => SCORE_BUCKETS,
                Meaning::Values | Meaning::Plain => VALUE_BUCKETS,
                Meaning::Label | Meaning::Scores | Meaning::Embedding => return None,
            };
            first_number(tensor).map(|value| bucket_name(value, bounds))
        })
    }
}

/// What a class is called under these labels: its label if it is a number that has one.
pub fn class_name<'a>(labels: &'a [String], class: Class<'a>) -> Cow<'a, str> {
    match class {
        Class::Text(text) => String::from_utf8_lossy(text),
        Class::Number(number) => match usize::try_from(number).ok().and_then(|index| labels.get(index)) {
            Some(label) => Cow::Borrowed(label),
            None => Cow::Owned(number.to_string()),
        },
    }
}

/// The classes of an output that holds the predicted class: texts, 32- and 64-bit numbers, or floats cut to whole
/// ones; none for other types.
pub fn named_classes<'a>(tensor: &'a Tensor) -> Box<dyn Iterator<Item = Class<'a>> + 'a> {
    let data = tensor.data();
    match tensor.datatype() {
        DataType::Bytes => Box::new(strings::iter(data).take(ELEMENTS_MAX).map(Class::Text)),
        DataType::Int64 => Box::new(data.chunks_exact(8).take(ELEMENTS_MAX).map(|bytes| {
            Class::Number(i64::from_le_bytes(bytes.try_into().expect("chunks have that size")))
        })),
        DataType::Int32 => Box::new(data.chunks_exact(4).take(ELEMENTS_MAX).map(|bytes| {
            Class::Number(i32::from_le_bytes(bytes.try_into().expect("chunks have that size")).into())
        })),
        _ => Box::new(tensor.floats(ELEMENTS_MAX).into_iter().map(|value| Class::Number(value as i64))),
    }
}

/// Index and value of the highest score of each row; `None` for a row of NaNs. `values` are the first of `tensor`'s;
/// a row that they end in does not count.
pub fn winners<'a>(
    values: &'a [f64],
    tensor: &Tensor,
) -> impl Iterator<Item = Option<(usize, f64)>> + use<'a> {
    values.chunks_exact(width(tensor)).map(|row| {
        let numbers = row.iter().copied().enumerate().filter(|(_, value)| !value.is_nan());
        numbers.max_by(|a, b| a.1.total_cmp(&b.1))
    })
}

/// Elements on the last axis, at least 1.
fn width(tensor: &Tensor) -> usize {
    tensor.shape().dims().last().map_or(1, |&d| d as usize).max(1)
}

fn row_of_winner(winner: Option<(usize, f64)>) -> Row<'static> {
    Row { class: winner.map(|(index, _)| Class::Number(index as i64)), score: winner.map(|(_, score)| score) }
}

/// `None` for strings and for a tensor without elements.
fn first_number(tensor: &Tensor) -> Option<f64> {
    macro_rules! first {
        ($type:ty) => {
            tensor.data().first_chunk().map(|bytes| <$type>::from_le_bytes(*bytes) as f64)
        };
    }
    match tensor.datatype() {
        DataType::Bool | DataType::Uint8 => first!(u8),
        DataType::Uint16 => first!(u16),
        DataType::Uint32 => first!(u32),
        DataType::Uint64 => first!(u64),
        DataType::Int8 => first!(i8),
        DataType::Int16 => first!(i16),
        DataType::Int32 => first!(i32),
        DataType::Int64 => first!(i64),
        DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 => {
            tensor.floats(1).first().copied()
        }
        DataType::Bytes => None,
    }
}

/// The bucket of `value` among ascending upper `bounds`, as Prometheus counts: a bound belongs to the bucket below.
fn bucket_name(value: f64, bounds: &[f64]) -> String {
    if value.is_nan() {
        return NOT_A_NUMBER.to_owned();
    }
    match (bounds.iter().find(|bound| value <= **bound), bounds.last()) {
        (Some(bound), _) => format!("≤{bound}"),
        (None, Some(last)) => format!(">{last}"),
        (None, None) => "any".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Shape, Signature, TensorSpec};

    const NAN: f32 = f32::NAN;

    fn spec(name: &str, datatype: DataType, dims: &[i64], labels: &[&str]) -> TensorSpec {
        let labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
        TensorSpec {
            name: name.into(),
            datatype,
            dims: dims.to_vec(),
            any_rank: false,
            reshape: None,
            optional: false,
            labels: labels.into(),
        }
    }

    fn reader(outputs: Vec<TensorSpec>, class_scores: &[usize], class_labels: &[usize]) -> Reader {
        let signature = Arc::new(Signature { inputs: Vec::new(), outputs, max_batch_size: 8 });
        let (class_scores, class_labels) = (class_scores.to_vec(), class_labels.to_vec());
        Reader::new(&ServableProfile { signature, class_scores, class_labels, cached: false })
    }

    fn tensor(datatype: DataType, dims: &[i64], data: Vec<u8>) -> Tensor {
        Tensor::new(datatype, Shape::from_dims(dims.iter().copied()).unwrap(), data.into()).unwrap()
    }

    fn floats(dims: &[i64], values: &[f32]) -> Tensor {
        tensor(DataType::Fp32, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    fn integers(values: &[i64]) -> Tensor {
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        tensor(DataType::Int64, &[values.len() as i64], data)
    }

    fn texts(values: &[&[u8]]) -> Tensor {
        tensor(DataType::Bytes, &[values.len() as i64], strings::pack(values.iter().copied()).to_vec())
    }

    fn names(reader: &Reader, predicted: &[(usize, Tensor)]) -> Vec<(String, Option<f64>)> {
        let rows = reader.classes(predicted).unwrap();
        rows.iter()
            .map(|r| (r.class.map_or("none".into(), |c| reader.name(c).into_owned()), r.score))
            .collect()
    }

    #[test]
    fn an_outputs_meaning_follows_its_operator_its_labels_and_its_size() {
        let meaning = |spec: TensorSpec, scores: &[usize], labels: &[usize]| {
            reader(vec![spec], scores, labels).outputs()[0].meaning
        };
        let float = |dims: &[i64]| spec("y", DataType::Fp32, dims, &[]);
        for (spec, scores, labels, expected) in [
            (spec("y", DataType::Int64, &[], &[]), &[][..], &[0][..], Meaning::Label),
            (spec("y", DataType::Fp32, &[1], &[]), &[0], &[0], Meaning::Label),
            (float(&[3]), &[0], &[], Meaning::Scores),
            (float(&[ANY]), &[0], &[], Meaning::Scores),
            (spec("y", DataType::Fp32, &[3], &["a"]), &[], &[], Meaning::Scores),
            (float(&[1]), &[0], &[], Meaning::Values),
            (float(&[]), &[], &[], Meaning::Values),
            (float(&[4, 4]), &[], &[], Meaning::Values),
            (float(&[17]), &[], &[], Meaning::Embedding),
            (float(&[ANY]), &[], &[], Meaning::Embedding),
            (spec("y", DataType::Int64, &[3], &["a"]), &[0], &[], Meaning::Plain),
        ] {
            assert_eq!(meaning(spec.clone(), scores, labels), expected, "{spec:?}");
        }
    }

    #[test]
    fn rows_get_the_class_of_the_highest_score_by_its_label() {
        let classifier = reader(vec![spec("p", DataType::Fp32, &[3], &["ant", "bee"])], &[0], &[]);
        let scores = floats(&[4, 3], &[0.1, 0.7, 0.2, 0.5, NAN, 0.25, 0.0, 0.25, 0.75, NAN, NAN, NAN]);
        let found = names(&classifier, &[(0, scores)]);
        let expected = [("bee", Some(0.7f32)), ("ant", Some(0.5)), ("2", Some(0.75)), ("none", None)];
        assert_eq!(found, expected.map(|(name, score)| (name.to_owned(), score.map(f64::from))));
    }

    #[test]
    fn an_output_that_names_the_class_goes_before_the_scores() {
        let outputs = vec![spec("p", DataType::Fp32, &[2], &[]), spec("label", DataType::Int64, &[], &[])];
        let classifier = reader(outputs, &[0], &[1]);
        let scores = floats(&[2, 2], &[0.25, 0.75, 1.0, 0.0]);
        let both = [(0, scores.clone()), (1, integers(&[7, -3]))];
        assert_eq!(names(&classifier, &both), [("7".into(), Some(0.75)), ("-3".into(), Some(1.0))]);
        let uneven = [(0, scores.clone()), (1, integers(&[7]))];
        assert_eq!(names(&classifier, &uneven), [("7".into(), None)], "scores of other rows say nothing");
        assert_eq!(names(&classifier, &[(0, scores)]), [("1".into(), Some(0.75)), ("0".into(), Some(1.0))]);
        assert_eq!(classifier.classes(&[]), None);
    }

    #[test]
    fn the_category_is_the_first_rows_class() {
        let by_text = reader(vec![spec("label", DataType::Bytes, &[], &[])], &[], &[0]);
        let by_score = reader(vec![spec("p", DataType::Fp32, &[2], &["no", "yes"])], &[0], &[]);
        let long = [b'x'; CLASS_BYTES_MAX + 1];
        for (reader, output, expected) in [
            (&by_text, texts(&[b"spam", b"ham"]), Some("spam")),
            (&by_text, texts(&[&long]), Some(OTHER)),
            (&by_text, texts(&[]), None),
            (&by_score, floats(&[2, 2], &[0.25, 0.75, 0.5, 0.25]), Some("yes")),
            (&by_score, floats(&[1, 2], &[NAN, NAN]), Some("NaN")),
            (&by_score, floats(&[0, 2], &[]), None),
        ] {
            let category = reader.category(&[(0, output)]);
            assert_eq!(category.as_ref().map(Category::as_str), expected);
        }
    }

    #[test]
    fn without_classes_the_category_is_the_bucket_of_the_first_number() {
        let value = reader(vec![spec("y", DataType::Fp32, &[1], &[])], &[], &[]);
        let probability = reader(vec![spec("y", DataType::Fp32, &[1], &[])], &[0], &[]);
        let number = reader(vec![spec("y", DataType::Int64, &[1], &[])], &[], &[]);
        let embedding = reader(vec![spec("y", DataType::Fp32, &[17], &[])], &[], &[]);
        let text = reader(vec![spec("y", DataType::Bytes, &[1], &[])], &[], &[]);
        for (reader, output, expected) in [
            (&value, floats(&[2, 1], &[0.4, 9.0]), Some("≤0.5")),
            (&value, floats(&[1, 1], &[0.5]), Some("≤0.5")),
            (&value, floats(&[1, 1], &[-2e6]), Some("≤-1000000")),
            (&value, floats(&[1, 1], &[2e6]), Some(">1000000")),
            (&value, floats(&[1, 1], &[NAN]), Some("NaN")),
            (&probability, floats(&[1, 1], &[0.62]), Some("≤0.65")),
            (&number, integers(&[-7]), Some("≤-5")),
            (&embedding, floats(&[1, 17], &[0.5; 17]), None),
            (&text, texts(&[b"a"]), None),
        ] {
            let category = reader.category(&[(0, output)]);
            assert_eq!(category.as_ref().map(Category::as_str), expected);
        }
    }

    #[test]
    fn reading_stops_at_the_bound() {
        let classifier = reader(vec![spec("p", DataType::Fp32, &[2], &[])], &[0], &[]);
        let rows = ELEMENTS_MAX / 2 + 5;
        let scores = floats(&[rows as i64, 2], &vec![0.5; rows * 2]);
        assert_eq!(classifier.classes(&[(0, scores)]).unwrap().len(), ELEMENTS_MAX / 2);
        let wide = floats(&[1, ELEMENTS_MAX as i64 + 1], &vec![0.5; ELEMENTS_MAX + 1]);
        assert_eq!(classifier.classes(&[(0, wide)]).unwrap(), [], "a row that is cut off has no winner");
    }
}
