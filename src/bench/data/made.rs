//! Requests with values that nobody chose.
//!
//! Always: integers are 1 to 4 and floats 0 to 1, so that indices stay within range and nothing divides by zero.

use super::Request;
use crate::bench::{BenchError, Metadata, TensorMetadata};
use crate::infer::InputTensor;
use crate::model::prove::{Fill, sample};
use crate::tensor::{ANY, DataType, Shape, Tensor, format_dims};

/// Different requests that are made, if they fit in memory.
const REQUESTS: usize = 16;

/// Bytes of tensors that are made at the most; one request is made however large it is.
const BYTES_MAX: usize = 64 << 20;

/// Seeds from this on begin anew: the values repeat themselves beyond.
const SEEDS: u64 = 1 << 20;

/// What is made.
#[derive(Debug, Clone, Default)]
pub struct Made {
    /// Rows of a request, for models with a batch axis.
    pub batch: Option<usize>,
    /// Inputs whose open dimensions are not 1.
    pub shapes: Vec<(String, Vec<i64>)>,
    pub seed: u64,
}

/// Different requests for a model.
///
/// Errors: a shape for an input that the model does not have or that does not fit it; a batch for a model without
/// an axis for it.
pub fn made(metadata: &Metadata, what: &Made) -> Result<Vec<Request>, BenchError> {
    if let Some((name, _)) = what.shapes.iter().find(|(name, _)| metadata.input(name).is_none()) {
        return Err(metadata.no_input(name));
    }
    let mut inputs = Vec::new();
    for input in &metadata.inputs {
        let datatype = DataType::from_name(&input.datatype).ok_or_else(|| {
            BenchError::Data(format!("input '{}' has the unknown data type '{}'", input.name, input.datatype))
        })?;
        inputs.push((input, datatype, shape(input, what)?));
    }
    let size = |(_, datatype, shape): &(_, DataType, Shape)| {
        shape.elements().unwrap_or(usize::MAX).saturating_mul(datatype.size().unwrap_or(12))
    };
    let bytes = inputs.iter().map(size).fold(0, usize::saturating_add);
    if bytes > i32::MAX as usize {
        return Err(BenchError::Data(format!(
            "a request of {bytes} bytes is larger than any message; give smaller dimensions by --shape or --batch"
        )));
    }
    let requests = (BYTES_MAX / bytes.max(1)).clamp(1, REQUESTS);
    let first = (what.seed % SEEDS) as usize * REQUESTS;
    let request = |number: usize| {
        let tensor = |(input, datatype, shape): &(&TensorMetadata, DataType, Shape)| {
            let data = sample(*datatype, shape, Fill::Distinct(first + number));
            let tensor = Tensor::new(*datatype, shape.clone(), data).expect("made to that shape");
            InputTensor { name: input.name.clone(), tensor }
        };
        Request { inputs: inputs.iter().map(tensor).collect() }
    };
    Ok((0..requests).map(request).collect())
}

fn shape(input: &TensorMetadata, what: &Made) -> Result<Shape, BenchError> {
    let given = what.shapes.iter().find(|(name, _)| *name == input.name).map(|(_, dims)| dims.as_slice());
    let dims = dims(&input.shape, given, what.batch).map_err(|reason| {
        BenchError::Data(format!("input '{}' of shape {}: {reason}", input.name, format_dims(&input.shape)))
    })?;
    Shape::from_dims(dims).ok_or_else(|| {
        BenchError::Data(format!("input '{}': a dimension of --shape is negative", input.name))
    })
}

/// The dimensions of a tensor that a model may be sent: those that are given, all of them or without the batch
/// axis, else its own, with 1 where they are open.
fn dims(own: &[i64], given: Option<&[i64]>, batch: Option<usize>) -> Result<Vec<i64>, String> {
    let batched = own.first() == Some(&ANY);
    if !batched && batch.is_some_and(|batch| batch > 1) {
        return Err("it has no open first dimension for --batch".to_owned());
    }
    let rows = batch.unwrap_or(1) as i64;
    let mut dims: Vec<i64> = match given {
        None => own.iter().map(|dim| if *dim == ANY { 1 } else { *dim }).collect(),
        Some(given) if given.len() == own.len() => given.to_vec(),
        Some(given) if batched && given.len() + 1 == own.len() => [&[rows], given].concat(),
        Some(given) => return Err(format!("--shape has {} dimensions", given.len())),
    };
    if batched && batch.is_some() {
        dims[0] = rows;
    }
    match dims.iter().zip(own).find(|(dim, own)| **own != ANY && dim != own) {
        Some((dim, own)) => Err(format!("--shape says {dim} where the model has {own}")),
        None => Ok(dims),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(inputs: &[(&str, &str, &[i64])]) -> Metadata {
        let input = |(name, datatype, shape): &(&str, &str, &[i64])| TensorMetadata {
            name: (*name).to_owned(),
            datatype: (*datatype).to_owned(),
            shape: shape.to_vec(),
        };
        Metadata { inputs: inputs.iter().map(input).collect() }
    }

    #[test]
    fn open_dimensions_are_one_unless_said_otherwise() {
        for (own, given, batch, expected) in [
            (&[-1, 30][..], None, None, Ok(vec![1, 30])),
            (&[-1, 30], None, Some(8), Ok(vec![8, 30])),
            (&[-1, -1, 3], Some(&[5, 3][..]), Some(2), Ok(vec![2, 5, 3])),
            (&[-1, -1, 3], Some(&[4, 5, 3]), None, Ok(vec![4, 5, 3])),
            (&[-1, -1, 3], Some(&[4, 5, 3]), Some(2), Ok(vec![2, 5, 3])),
            (&[3, -1], Some(&[3, 9]), None, Ok(vec![3, 9])),
            (&[], None, None, Ok(vec![])),
            (&[3], None, Some(2), Err("no open first dimension")),
            (&[-1, 30], Some(&[31]), None, Err("says 31 where the model has 30")),
            (&[3, 4], Some(&[4]), None, Err("has 1 dimensions")),
        ] {
            match (dims(own, given, batch), expected) {
                (Ok(dims), Ok(expected)) => assert_eq!(dims, expected, "{own:?} {given:?}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
                (got, expected) => panic!("{own:?} {given:?}: {got:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn requests_differ_and_the_seed_decides() {
        let metadata = metadata(&[("x", "FP32", &[-1, 3]), ("w", "BYTES", &[-1, 8])]);
        let make = |seed| made(&metadata, &Made { seed, ..Made::default() }).unwrap();
        let bytes =
            |request: &Request| request.inputs.iter().map(|i| i.tensor.data().to_vec()).collect::<Vec<_>>();
        let (one, again, other) = (make(1), make(1), make(2));
        assert_eq!(one.len(), REQUESTS);
        assert_eq!(bytes(&one[3]), bytes(&again[3]));
        assert_ne!(bytes(&one[0]), bytes(&one[1]));
        assert_ne!(bytes(&one[0]), bytes(&other[0]));
    }

    #[test]
    fn large_requests_are_few() {
        let large = metadata(&[("x", "FP32", &[-1, 4 << 20])]);
        assert_eq!(made(&large, &Made::default()).unwrap().len(), 4);
        let vast = Made { batch: Some(1 << 20), ..Made::default() };
        assert!(made(&large, &vast).unwrap_err().to_string().contains("smaller dimensions"));
    }

    #[test]
    fn what_the_model_does_not_have_is_named() {
        let metadata = metadata(&[("x", "FP32", &[-1, 3])]);
        let what = Made { shapes: vec![("y".to_owned(), vec![1])], ..Made::default() };
        assert_eq!(made(&metadata, &what).unwrap_err().to_string(), "the model has no input 'y'; it has 'x'");
    }
}
