//! Puts requests together into one batch and takes the answers apart. Pure.
//!
//! Always: `split(run(merge(requests)))` gives each request what it would have got alone, as long as the model
//! treats rows alike.

use smallvec::SmallVec;

use super::pad::{Padded, Text};
use crate::backend::BatchInput;
use crate::infer::TensorRow;
use crate::tensor::{DataType, Shape, Tensor};

/// What must agree for two requests to share a batch: which inputs are there, and every dimension but the first;
/// of a padded input's length only the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeKey(SmallVec<[i64; 8]>);

impl ShapeKey {
    /// `batched` says whether the first axis is the batch axis.
    pub fn of(inputs: &TensorRow, batched: bool) -> Self {
        Self::with(inputs, usize::from(batched), |_| None)
    }

    /// The key of a batched request whose length may differ from that of its company.
    pub fn of_text(inputs: &TensorRow, text: &Text) -> Self {
        Self::with(inputs, 1, |index| text.length_in_key(index))
    }

    /// Of each input's dimensions the first `skipped` are left out; the next one is what `first` says, if it does.
    fn with(inputs: &TensorRow, skipped: usize, first: impl Fn(usize) -> Option<i64>) -> Self {
        let mut key = SmallVec::new();
        for (index, input) in inputs.iter().enumerate() {
            // A dimension is never negative, so -1 separates inputs and -2 marks an absent one.
            match input {
                None => key.push(-2),
                Some(tensor) => {
                    key.push(-1);
                    let start = key.len();
                    key.extend(tensor.shape().dims().iter().skip(skipped).copied());
                    if let Some(first) = first(index) {
                        key[start] = first;
                    }
                }
            }
        }
        Self(key)
    }
}

/// Joins the inputs of requests with equal [`ShapeKey`]s.
///
/// Shapes: input `i` of the batch is the requests' inputs `i` along the first axis, in order, padded where `padded`
/// says so. Cost: no copy; the parts are handed on for the backend to join.
pub fn merge(requests: &[&TensorRow], padded: Option<&Padded>) -> SmallVec<[BatchInput; 4]> {
    let Some(first) = requests.first() else { return SmallVec::new() };
    let columns = first.iter().enumerate();
    let present = columns.filter_map(|(index, tensor)| tensor.as_ref().map(|tensor| (index, tensor)));
    present
        .map(|(index, tensor)| {
            let column = requests.iter().filter_map(|request| request[index].as_ref());
            let datatype = tensor.datatype();
            let shape = match requests.len() {
                1 => tensor.shape().clone(),
                _ => tensor.shape().with_first(column.clone().map(rows_of).sum()),
            };
            let padded = padded.and_then(|padded| padded.column(index, rows_in(&shape), column.clone()));
            if let Some((shape, parts)) = padded {
                return BatchInput { index, datatype, shape, parts };
            }
            let parts = column.map(|tensor| tensor.data().clone()).collect();
            BatchInput { index, datatype, shape, parts }
        })
        .collect()
}

fn rows_of(tensor: &Tensor) -> i64 {
    rows_in(tensor.shape())
}

fn rows_in(shape: &Shape) -> i64 {
    shape.dims().first().copied().unwrap_or(1)
}

/// An output that cannot be taken apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the batch has {rows} rows, but the output has shape {shape} of {datatype}")]
pub struct RowMismatch {
    rows: usize,
    shape: Shape,
    datatype: DataType,
}

/// Splits a batch's outputs into one list per request, in order.
///
/// Shapes: each output is `[rows, …]`; request `i` gets `rows[i]` of them. Errors: `RowMismatch` if the first axis
/// is not the sum of the requests' rows. Cost: no copy; answers share the batch's buffers.
pub fn split(outputs: &[Tensor], rows: &[usize]) -> Result<Vec<Vec<Tensor>>, RowMismatch> {
    if rows.len() == 1 {
        return Ok(vec![outputs.to_vec()]);
    }
    let mut answers: Vec<Vec<Tensor>> = rows.iter().map(|_| Vec::with_capacity(outputs.len())).collect();
    for output in outputs {
        let pieces = output.split_rows(rows).ok_or_else(|| RowMismatch {
            rows: rows.iter().sum(),
            shape: output.shape().clone(),
            datatype: output.datatype(),
        })?;
        for (answer, piece) in answers.iter_mut().zip(pieces) {
            answer.push(piece);
        }
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::fake::joined;
    use crate::tensor::strings;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn tensor(datatype: DataType, dims: &[i64], data: Vec<u8>) -> Tensor {
        Tensor::new(datatype, Shape::from_dims(dims.iter().copied()).unwrap(), Bytes::from(data)).unwrap()
    }

    fn fixed(rows: usize, columns: usize, seed: u8) -> Tensor {
        let data = (0..rows * columns * 2).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect();
        tensor(DataType::Int16, &[rows as i64, columns as i64], data)
    }

    fn text(rows: usize, columns: usize, seed: u8) -> Tensor {
        let elements: Vec<Vec<u8>> = (0..rows * columns).map(|i| vec![seed; i % 5]).collect();
        let packed = strings::pack(elements.iter().map(Vec::as_slice));
        tensor(DataType::Bytes, &[rows as i64, columns as i64], packed.to_vec())
    }

    proptest! {
        /// INV-03: a batch's answers are those each request would have had alone.
        #[test]
        fn merge_then_split_is_identity(rows in prop::collection::vec(1usize..6, 1..8), columns in 0usize..4) {
            let requests: Vec<TensorRow> = rows.iter().enumerate().map(|(i, &r)| {
                [Some(fixed(r, columns, i as u8)), None, Some(text(r, columns, i as u8))].into_iter().collect()
            }).collect();
            let merged = merge(&requests.iter().collect::<Vec<_>>(), None);
            prop_assert_eq!(merged.iter().map(|m| m.index).collect::<Vec<_>>(), [0, 2]);
            let outputs: Vec<Tensor> = merged.iter().map(joined).collect();
            let answers = split(&outputs, &rows).unwrap();
            for (request, answer) in requests.iter().zip(answers) {
                let sent: Vec<Tensor> = request.iter().flatten().cloned().collect();
                prop_assert_eq!(sent, answer);
            }
        }
    }

    #[test]
    fn shapes_apart_from_rows_make_the_key() {
        let row = |tensors: Vec<Option<Tensor>>| tensors.into_iter().collect::<TensorRow>();
        let key = |columns, rows| ShapeKey::of(&row(vec![Some(fixed(rows, columns, 0)), None]), true);
        assert_eq!(key(3, 1), key(3, 5));
        assert_ne!(key(3, 1), key(4, 1));
        assert_ne!(key(3, 1), ShapeKey::of(&row(vec![Some(fixed(1, 3, 0)), Some(fixed(1, 3, 0))]), true));
    }

    #[test]
    fn outputs_without_the_batch_axis_are_refused() {
        let scalar = tensor(DataType::Int16, &[], vec![0; 2]);
        assert!(split(&[scalar], &[1, 1]).is_err());
        assert!(split(&[fixed(3, 1, 0)], &[1, 1]).is_err());
    }
}
