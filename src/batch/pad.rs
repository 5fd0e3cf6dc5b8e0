//! Texts of different lengths in one batch: inputs are padded to the longest, outputs cut back. Pure.
//!
//! Always: less than a quarter of a padded input is padding, because texts share a batch only within a bucket of
//! lengths; a batch of one length is not touched.
//! Not here: whether padding leaves a model's answers alone (`model::padding` proves it).

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use crate::infer::TensorRow;
use crate::tensor::{Shape, Tensor};

/// A text's length is the size of the first axis after the batch axis.
pub const LENGTH_AXIS: usize = 1;

/// One element, packed.
pub type Element = SmallVec<[u8; 8]>;

/// What is padded of a model's inputs, and cut of its outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Padding {
    /// Never empty.
    pub inputs: Vec<PaddedInput>,
    /// Outputs, by index, that have the length of the padded inputs.
    pub outputs: Vec<usize>,
    /// Tokens in one batch at the most, rows × the longest text; a request that has more runs alone.
    pub tokens_max: usize,
}

/// An input that is padded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaddedInput {
    /// Position among the graph's inputs.
    pub index: usize,
    pub value: Element,
}

impl Padding {
    fn input(&self, index: usize) -> Option<&PaddedInput> {
        self.inputs.iter().find(|input| input.index == index)
    }
}

/// A request that may share batches with others of about its length.
#[derive(Debug, Clone)]
pub struct Text {
    padding: Arc<Padding>,
    length: usize,
    /// The largest length in its bucket.
    longest: usize,
}

impl Text {
    /// `None` when the inputs to be padded differ in length: such a request runs with its like, or alone, and the
    /// model says what it makes of it.
    pub fn of(padding: &Arc<Padding>, inputs: &TensorRow) -> Option<Self> {
        let mut lengths = padding.inputs.iter().map(|input| {
            let dims = inputs.get(input.index)?.as_ref()?.shape().dims();
            usize::try_from(*dims.get(LENGTH_AXIS)?).ok()
        });
        let length = lengths.next()??;
        let agree = lengths.all(|other| other == Some(length));
        agree.then(|| Self { padding: Arc::clone(padding), length, longest: bucket(length) })
    }

    /// The same text under other rules for its outputs.
    pub fn under(&self, padding: &Arc<Padding>) -> Self {
        Self { padding: Arc::clone(padding), ..self.clone() }
    }

    /// The length that input `index` counts with in the request's key; `None` where it is not padded.
    pub fn length_in_key(&self, index: usize) -> Option<i64> {
        self.padding.input(index).map(|_| self.longest as i64)
    }

    /// Bytes of the inputs, padded to the end of the bucket: what the text adds to any batch at the most.
    pub fn bytes(&self, inputs: &TensorRow) -> usize {
        let padded = |index: usize, bytes: usize| match self.padding.input(index) {
            Some(_) => bytes / self.length.max(1) * self.longest,
            None => bytes,
        };
        let present = inputs.iter().enumerate().filter_map(|(index, input)| Some((index, input.as_ref()?)));
        present.map(|(index, tensor)| padded(index, tensor.data().len())).sum()
    }

    /// Rows at the most in a batch of its bucket.
    pub fn rows_max(&self) -> usize {
        (self.padding.tokens_max / self.longest.max(1)).max(1)
    }
}

/// The largest length in the bucket of `length`. Buckets end at 1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 22, …: by a third
/// longer than the one before at the most, so that any text is longer than three quarters of any other in its bucket.
pub fn bucket(length: usize) -> usize {
    let mut end = 0;
    while end < length {
        end += (end / 3).max(1);
    }
    end
}

/// A batch of texts whose lengths differ.
pub struct Padded<'a> {
    padding: &'a Padding,
    /// By request.
    lengths: SmallVec<[usize; 8]>,
    longest: usize,
}

/// An output that cannot be cut.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the longest text of the batch has length {longest}, but the output has shape {shape}")]
pub struct LengthMismatch {
    longest: usize,
    shape: Shape,
}

impl<'a> Padded<'a> {
    /// `None` when there is nothing to pad. Requests of one key are all texts, or none of them is.
    pub fn of(texts: impl Iterator<Item = Option<&'a Text>> + Clone) -> Option<Self> {
        let first = texts.clone().next()??;
        let lengths: SmallVec<[usize; 8]> = texts.flatten().map(|text| text.length).collect();
        let longest = lengths.iter().copied().max()?;
        let differ = lengths.iter().any(|length| *length != longest);
        differ.then(|| Self { padding: &first.padding, lengths, longest })
    }

    /// The requests' inputs `index`, padded: the shape of the whole with so many rows, and its parts. `None` where
    /// that input is not padded.
    ///
    /// Cost: no copy of the requests' data; one buffer of padding.
    pub fn column<'t>(
        &self,
        index: usize,
        rows: i64,
        column: impl Iterator<Item = &'t Tensor>,
    ) -> Option<(Shape, SmallVec<[Bytes; 4]>)> {
        let input = self.padding.input(index)?;
        let mut column = column.peekable();
        let shape = column.peek()?.shape().with_first(rows).with_axis(LENGTH_AXIS, self.longest as i64);
        let inner: i64 = shape.dims().iter().skip(LENGTH_AXIS + 1).product();
        let place = input.value.len() * usize::try_from(inner).ok()?;
        let shortest = self.lengths.iter().min()?;
        let padding = repeated(&input.value, (self.longest - shortest) * place);
        let mut parts = SmallVec::new();
        for (tensor, length) in column.zip(&self.lengths) {
            let (row, missing) = (length * place, (self.longest - length) * place);
            if missing == 0 {
                parts.push(tensor.data().clone());
                continue;
            }
            for start in (0..tensor.data().len()).step_by(row.max(1)) {
                parts.push(tensor.data().slice(start..start + row));
                parts.push(padding.slice(..missing));
            }
        }
        Some((shape, parts))
    }

    /// Cuts each request's answer back to its own length. `outputs` are the indices of an answer's tensors.
    ///
    /// Errors: `LengthMismatch` if an output does not have the length of the longest text. Cost: a request of
    /// several rows is copied; one of a single row shares the batch's buffer.
    pub fn cut(&self, answers: &mut [Vec<Tensor>], outputs: &[usize]) -> Result<(), LengthMismatch> {
        for (answer, &length) in answers.iter_mut().zip(&self.lengths) {
            let cut = |index: &usize| self.padding.outputs.contains(index);
            for (tensor, _) in answer.iter_mut().zip(outputs).filter(|(_, index)| cut(index)) {
                let whole = tensor.shape().dims().get(LENGTH_AXIS) == Some(&(self.longest as i64));
                *tensor = whole
                    .then(|| tensor.cut_second_axis(length))
                    .flatten()
                    .ok_or_else(|| LengthMismatch { longest: self.longest, shape: tensor.shape().clone() })?;
            }
        }
        Ok(())
    }
}

/// `bytes` bytes of an element over and over.
pub fn repeated(element: &[u8], bytes: usize) -> Bytes {
    let mut all = BytesMut::with_capacity(bytes);
    all.extend(element.iter().copied().cycle().take(bytes));
    all.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::fake::joined;
    use crate::batch::merge::{ShapeKey, merge, split};
    use crate::tensor::{DataType, strings};
    use proptest::prelude::*;

    const PAD: i16 = -1;

    fn padding() -> Arc<Padding> {
        let value = SmallVec::from_slice(&PAD.to_le_bytes());
        let inputs = vec![PaddedInput { index: 1, value }];
        Arc::new(Padding { inputs, outputs: vec![1], tokens_max: 100 })
    }

    /// One input that is not padded, and one that is, of `[rows, length, 2]`.
    fn request(rows: usize, length: usize, seed: i16) -> TensorRow {
        let tensor = |dims: [usize; 3]| {
            let numbers = (0..dims.iter().product::<usize>() as i16).map(|i| i * 7 + seed);
            let shape = Shape::from_dims(dims.map(|d| d as i64)).unwrap();
            let data: Vec<u8> = numbers.flat_map(i16::to_le_bytes).collect();
            Tensor::new(DataType::Int16, shape, data.into()).unwrap()
        };
        [Some(tensor([rows, 1, 3])), Some(tensor([rows, length, 2]))].into_iter().collect()
    }

    #[test]
    fn buckets_waste_less_than_a_quarter() {
        let mut ends = vec![];
        for length in 1..10_000 {
            let end = bucket(length);
            assert!(end >= length && bucket(end) == end && 4 * (end - length) < end, "{length}: {end}");
            ends.push(end);
        }
        assert!(ends.is_sorted());
        ends.dedup();
        assert_eq!(ends[..12], [1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 22, 29]);
        assert_eq!(bucket(0), 0);
    }

    #[test]
    fn lengths_of_a_bucket_share_a_key_and_disagreeing_ones_do_not_count_as_texts() {
        let key = |request: &TensorRow| ShapeKey::of_text(request, &Text::of(&padding(), request).unwrap());
        assert_eq!(key(&request(1, 11, 0)), key(&request(2, 13, 0)));
        assert_ne!(key(&request(1, 13, 0)), key(&request(1, 14, 0)));
        let two = Padding {
            inputs: [0, 1].map(|index| PaddedInput { index, ..padding().inputs[0].clone() }).into(),
            ..(*padding()).clone()
        };
        assert!(Text::of(&Arc::new(two.clone()), &request(1, 2, 0)).is_none());
        assert!(Text::of(&Arc::new(two), &request(1, 1, 0)).is_some());
    }

    #[test]
    fn sizes_count_padding_and_limit_the_rows() {
        let request = request(2, 11, 0);
        let text = Text::of(&padding(), &request).unwrap();
        assert_eq!(text.bytes(&request), 2 * 2 * (3 + 13 * 2));
        assert_eq!(text.rows_max(), 100 / 13);
    }

    #[test]
    fn a_batch_of_one_length_is_not_touched() {
        let requests = [request(1, 4, 0), request(2, 4, 1)];
        let texts: Vec<Text> = requests.iter().map(|r| Text::of(&padding(), r).unwrap()).collect();
        assert!(Padded::of(texts.iter().map(Some)).is_none());
        assert!(Padded::of([None, None].into_iter()).is_none());
    }

    #[test]
    fn an_output_of_another_length_is_refused() {
        let requests = [request(1, 4, 0), request(1, 3, 1)];
        let texts: Vec<Text> = requests.iter().map(|r| Text::of(&padding(), r).unwrap()).collect();
        let padded = Padded::of(texts.iter().map(Some)).unwrap();
        let mut answers: Vec<Vec<Tensor>> = requests.map(|r| vec![r[1].clone().unwrap()]).into();
        assert!(padded.cut(&mut answers, &[1]).is_err());
    }

    proptest! {
        /// INV-03: what was padded for company comes back as it would have come alone.
        #[test]
        fn pad_then_cut_is_identity(shapes in prop::collection::vec((1usize..4, 14usize..=17), 1..8)) {
            let requests: Vec<TensorRow> = shapes
                .iter().enumerate().map(|(i, &(rows, length))| request(rows, length, 100 * i as i16)).collect();
            let texts: Vec<Text> = requests.iter().map(|r| Text::of(&padding(), r).unwrap()).collect();
            let padded = Padded::of(texts.iter().map(Some));
            let merged = merge(&requests.iter().collect::<Vec<_>>(), padded.as_ref());
            let outputs: Vec<Tensor> = merged.iter().map(joined).collect();
            let longest = shapes.iter().map(|(_, length)| *length).max().unwrap();
            prop_assert_eq!(outputs[1].shape().dims()[1], longest as i64);
            let values = outputs[1].data().chunks_exact(2);
            let padding = values.filter(|value| *value == PAD.to_le_bytes()).count();
            let missing: usize = shapes.iter().map(|(rows, length)| 2 * rows * (longest - length)).sum();
            prop_assert_eq!(padding, missing);
            let rows: Vec<usize> = shapes.iter().map(|(rows, _)| *rows).collect();
            let mut answers = split(&outputs, &rows).unwrap();
            if let Some(padded) = padded {
                padded.cut(&mut answers, &[0, 1]).unwrap();
            }
            for (request, answer) in requests.iter().zip(answers) {
                let sent: Vec<Tensor> = request.iter().flatten().cloned().collect();
                prop_assert_eq!(sent, answer);
            }
        }
    }

    #[test]
    fn strings_are_cut_at_elements() {
        let packed = strings::pack([b"a".as_slice(), b"bc", b"", b"d", b"", b"ef"]);
        let tensor = Tensor::new(DataType::Bytes, Shape::from_dims([2, 3]).unwrap(), packed).unwrap();
        let cut = tensor.cut_second_axis(2).unwrap();
        assert_eq!(cut.shape().dims(), [2, 2]);
        assert_eq!(strings::iter(cut.data()).collect::<Vec<_>>(), [b"a".as_slice(), b"bc", b"d", b""]);
    }
}
