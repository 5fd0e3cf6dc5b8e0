//! What a version takes and gives: names, types and shapes of its inputs and outputs.

use std::sync::Arc;

use super::{DataType, Shape};

/// A dimension that may have any size.
pub const ANY: i64 = -1;

/// One input or output as clients see it.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorSpec {
    pub name: Arc<str>,
    pub datatype: DataType,
    /// Dimensions of one row when the signature is batched, of the whole tensor otherwise; [`ANY`] is open.
    pub dims: Vec<i64>,
    /// The file does not say how many dimensions there are: any shape fits, and `dims` is only for show.
    pub any_rank: bool,
    /// The model's own dimensions when they differ from `dims`; the element counts agree.
    pub reshape: Option<Vec<i64>>,
    /// An input that a request may leave out.
    pub optional: bool,
    /// Names of an output's classes, by index; empty when there are none.
    pub labels: Arc<[String]>,
}

/// The inputs and outputs of a version, in the order of its file.
#[derive(Debug, Clone, PartialEq)]
pub struct Signature {
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
    /// The most rows in one session call; 0 when the first axis is no batch axis.
    pub max_batch_size: usize,
}

impl Signature {
    pub fn batched(&self) -> bool {
        self.max_batch_size > 0
    }

    /// The shape that clients are told: dimensions with the open batch axis before them.
    pub fn wire_dims(&self, spec: &TensorSpec) -> Vec<i64> {
        let batch = self.batched().then_some(ANY);
        batch.into_iter().chain(spec.dims.iter().copied()).collect()
    }

    pub fn input(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|spec| &*spec.name == name)
    }

    pub fn output(&self, name: &str) -> Option<usize> {
        self.outputs.iter().position(|spec| &*spec.name == name)
    }
}

impl TensorSpec {
    /// Whether `dims`, without the batch axis, fit this spec.
    pub fn fits(&self, dims: &[i64]) -> bool {
        self.any_rank
            || dims.len() == self.dims.len()
                && self.dims.iter().zip(dims).all(|(&want, &have)| want == ANY || want == have)
    }

    /// The model's own shape for a tensor of `dims`, row axis excluded in both.
    ///
    /// Open dimensions of the reshape take, in order, the sizes of the open dimensions of `dims` (the rule of
    /// config.pbtxt). `None` when the reshape has more open dimensions than `dims`.
    pub fn model_dims(&self, dims: &[i64]) -> Option<Shape> {
        match &self.reshape {
            None => Shape::from_dims(dims.iter().copied()),
            Some(reshape) => fill_open(&self.dims, dims, reshape),
        }
    }

    /// The client's shape for a model's tensor of `dims`, row axis excluded in both: the reverse of
    /// [`Self::model_dims`].
    pub fn client_dims(&self, dims: &[i64]) -> Option<Shape> {
        match &self.reshape {
            None => Shape::from_dims(dims.iter().copied()),
            Some(reshape) => fill_open(reshape, dims, &self.dims),
        }
    }
}

/// `target` with its open dimensions filled by the sizes that `actual` has where `pattern` is open.
fn fill_open(pattern: &[i64], actual: &[i64], target: &[i64]) -> Option<Shape> {
    let mut sizes = pattern.iter().zip(actual).filter(|(p, _)| **p == ANY).map(|(_, &size)| size);
    let dims: Option<Vec<i64>> =
        target.iter().map(|&d| if d == ANY { sizes.next() } else { Some(d) }).collect();
    Shape::from_dims(dims?)
}

/// Dimensions as messages show them: `[-1,16]`.
pub fn format_dims(dims: &[i64]) -> String {
    let dims: Vec<String> = dims.iter().map(i64::to_string).collect();
    format!("[{}]", dims.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_dimensions_keep_their_sizes_through_a_reshape() {
        let spec = TensorSpec {
            name: "x".into(),
            datatype: DataType::Fp32,
            dims: vec![ANY, 4],
            any_rank: false,
            reshape: Some(vec![2, ANY, 2]),
            optional: false,
            labels: Arc::default(),
        };
        assert_eq!(spec.model_dims(&[7, 4]).unwrap().dims(), [2, 7, 2]);
        assert_eq!(spec.client_dims(&[2, 7, 2]).unwrap().dims(), [7, 4]);
        assert!(spec.fits(&[0, 4]) && !spec.fits(&[4]) && !spec.fits(&[1, 5]));
    }
}
