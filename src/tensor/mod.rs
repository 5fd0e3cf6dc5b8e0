//! Tensors as they travel: a data type, a shape and packed little-endian bytes.
//!
//! Always: a [`Tensor`]'s bytes hold exactly as many elements as its shape says. Strings are packed as on the
//! wire: a u32 length, then the bytes, for each element; so one representation serves all thirteen types, and
//! joining tensors along the first axis is joining their bytes.

mod datatype;
mod shape;
mod signature;
pub mod strings;

pub use datatype::DataType;
pub use shape::Shape;
pub use signature::{ANY, Signature, TensorSpec, format_dims};

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

/// Why bytes are not a tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    #[error("shape {shape} has more elements than can be addressed")]
    TooManyElements { shape: Shape },
    #[error("byte size mismatch: shape {shape} of {datatype} needs {expected} bytes, got {actual}")]
    ByteSize { shape: Shape, datatype: DataType, expected: usize, actual: usize },
    #[error("a BOOL element is {0}; it must be 0 or 1")]
    Bool(u8),
    #[error("{0}")]
    Strings(#[from] strings::StringsError),
}

/// An immutable tensor. Cloning shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    datatype: DataType,
    shape: Shape,
    data: Bytes,
}

/// How many floats are no numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Nonfinite {
    pub nan: usize,
    pub infinite: usize,
}

impl Tensor {
    /// Checks that `data` holds exactly `shape`'s elements of `datatype`. Cost: none for numbers, one pass
    /// over the values of BOOL and over the length prefixes of strings; never a copy.
    pub fn new(datatype: DataType, shape: Shape, data: Bytes) -> Result<Self, TensorError> {
        let elements =
            shape.elements().ok_or_else(|| TensorError::TooManyElements { shape: shape.clone() })?;
        match datatype.size() {
            Some(size) => {
                let expected = elements
                    .checked_mul(size)
                    .ok_or_else(|| TensorError::TooManyElements { shape: shape.clone() })?;
                if data.len() != expected {
                    return Err(TensorError::ByteSize { shape, datatype, expected, actual: data.len() });
                }
            }
            None => strings::check(&data, elements)?,
        }
        // Another value in a C++ bool is undefined behaviour.
        if datatype == DataType::Bool
            && let Some(bad) = data.iter().find(|b| **b > 1)
        {
            return Err(TensorError::Bool(*bad));
        }
        Ok(Self { datatype, shape, data })
    }

    pub fn datatype(&self) -> DataType {
        self.datatype
    }

    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    pub fn data(&self) -> &Bytes {
        &self.data
    }

    pub fn elements(&self) -> usize {
        self.shape.elements().expect("checked when the tensor was made")
    }

    /// The first `elements_max` values of a tensor of floats, widened; none for other types.
    pub fn floats(&self, elements_max: usize) -> Vec<f64> {
        macro_rules! widened {
            ($type:ty, $widen:expr) => {
                self.data
                    .chunks_exact(size_of::<$type>())
                    .take(elements_max)
                    .map(|b| $widen(<$type>::from_le_bytes(b.try_into().expect("chunks have that size"))))
                    .collect()
            };
        }
        match self.datatype {
            DataType::Fp16 => widened!(half::f16, half::f16::to_f64),
            DataType::Bf16 => widened!(half::bf16, half::bf16::to_f64),
            DataType::Fp32 => widened!(f32, f64::from),
            DataType::Fp64 => widened!(f64, |v| v),
            _ => Vec::new(),
        }
    }

    /// Floats among the first `elements_max` elements that are no numbers. Cost: a quick pass where there are none.
    pub fn nonfinite(&self, elements_max: usize) -> Nonfinite {
        macro_rules! counted {
            ($type:ty, $infinity:expr) => {{
                // All bits of the exponent are set, and no other one but the sign if it is infinite.
                const INFINITY: $type = $infinity;
                let values = || {
                    let bytes = self.data.chunks_exact(size_of::<$type>()).take(elements_max);
                    let bits =
                        bytes.map(|b| <$type>::from_le_bytes(b.try_into().expect("chunks have that size")));
                    bits.map(|bits| bits & (<$type>::MAX >> 1))
                };
                match values().fold(false, |any, bits| any | (bits >= INFINITY)) {
                    false => Nonfinite::default(),
                    true => Nonfinite {
                        nan: values().filter(|bits| *bits > INFINITY).count(),
                        infinite: values().filter(|bits| *bits == INFINITY).count(),
                    },
                }
            }};
        }
        match self.datatype {
            DataType::Fp16 => counted!(u16, half::f16::INFINITY.to_bits()),
            DataType::Bf16 => counted!(u16, half::bf16::INFINITY.to_bits()),
            DataType::Fp32 => counted!(u32, f32::INFINITY.to_bits()),
            DataType::Fp64 => counted!(u64, f64::INFINITY.to_bits()),
            _ => Nonfinite::default(),
        }
    }

    /// The same bytes under another shape, or `None` when the element counts differ.
    pub fn with_shape(&self, shape: Shape) -> Option<Self> {
        (shape.elements() == Some(self.elements())).then(|| Self {
            datatype: self.datatype,
            shape,
            data: self.data.clone(),
        })
    }

    /// The same tensor in memory of its own, which keeps no larger buffer alive. Cost: a copy of the bytes.
    pub fn detached(&self) -> Self {
        let data = Bytes::copy_from_slice(&self.data);
        Self { datatype: self.datatype, shape: self.shape.clone(), data }
    }

    /// Cuts the tensor along its first axis into pieces of `rows[i]` rows.
    ///
    /// Returns `None` when the first axis is not the sum of `rows` (a scalar has no axis). Cost: no copy; the
    /// pieces share the bytes. Strings need one pass over their lengths.
    pub fn split_rows(&self, rows: &[usize]) -> Option<Vec<Tensor>> {
        let (&first, rest) = self.shape.dims().split_first()?;
        if usize::try_from(first).ok()? != rows.iter().sum::<usize>() {
            return None;
        }
        let row_elements = Shape::from_dims(rest.iter().copied())?.elements()?;
        let mut cuts = strings::Cursor::new(&self.data);
        let mut start = 0;
        let pieces = rows.iter().map(|&count| {
            let end = match self.datatype.size() {
                Some(size) => start + count * row_elements * size,
                None => cuts.skip(count * row_elements),
            };
            let shape = self.shape.with_first(count as i64);
            let piece = Tensor { datatype: self.datatype, shape, data: self.data.slice(start..end) };
            start = end;
            piece
        });
        Some(pieces.collect())
    }

    /// Keeps the first `length` places of the second axis.
    ///
    /// Returns `None` when there are fewer. Cost: none for a single row, which shares the bytes; a copy otherwise.
    /// Strings need one pass over their lengths.
    pub fn cut_second_axis(&self, length: usize) -> Option<Tensor> {
        let [rows, places, rest @ ..] = self.shape.dims() else { return None };
        let skipped = usize::try_from(*places).ok()?.checked_sub(length)?;
        let inner = Shape::from_dims(rest.iter().copied())?.elements()?;
        let mut cuts = strings::Cursor::new(&self.data);
        let mut start = 0;
        let mut after = |elements: usize| {
            start = match self.datatype.size() {
                Some(size) => start + elements * size,
                None => cuts.skip(elements),
            };
            start
        };
        let kept = (0..*rows).map(|_| {
            let from = after(0);
            let to = after(length * inner);
            after(skipped * inner);
            from..to
        });
        let kept: SmallVec<[_; 4]> = kept.collect();
        let data = match kept.as_slice() {
            [one] => self.data.slice(one.clone()),
            several => {
                let mut copy = BytesMut::with_capacity(several.iter().map(ExactSizeIterator::len).sum());
                several.iter().for_each(|range| copy.extend_from_slice(&self.data[range.clone()]));
                copy.freeze()
            }
        };
        let shape = self.shape.with_axis(1, length as i64);
        Some(Tensor { datatype: self.datatype, shape, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(datatype: DataType, dims: &[i64], data: &[u8]) -> Result<Tensor, TensorError> {
        let shape = Shape::from_dims(dims.iter().copied()).unwrap();
        Tensor::new(datatype, shape, Bytes::copy_from_slice(data))
    }

    #[test]
    fn what_is_no_number_is_counted() {
        let values =
            [1.0, f32::NAN, -f32::NAN, f32::INFINITY, 0.0, f32::NEG_INFINITY, -1.5, f32::MAX, f32::NAN];
        let floats: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let doubles: Vec<u8> = values.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect();
        let halves: Vec<u8> = values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
        let brains: Vec<u8> = values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect();
        let count = |datatype, data: &[u8], most| tensor(datatype, &[9], data).unwrap().nonfinite(most);
        assert_eq!(count(DataType::Fp32, &floats, 9), Nonfinite { nan: 3, infinite: 2 });
        assert_eq!(count(DataType::Fp32, &floats, 4), Nonfinite { nan: 2, infinite: 1 });
        assert_eq!(count(DataType::Fp32, &floats, 1), Nonfinite::default());
        assert_eq!(count(DataType::Fp64, &doubles, 9), Nonfinite { nan: 3, infinite: 2 });
        // The largest float is beyond those types.
        assert_eq!(count(DataType::Fp16, &halves, 9), Nonfinite { nan: 3, infinite: 3 });
        assert_eq!(count(DataType::Bf16, &brains, 9), Nonfinite { nan: 3, infinite: 3 });
        assert_eq!(tensor(DataType::Int8, &[1], &[255]).unwrap().nonfinite(9), Nonfinite::default());
    }

    #[test]
    fn bytes_must_match_the_shape() {
        assert!(tensor(DataType::Fp32, &[2], &[0; 8]).is_ok());
        assert!(tensor(DataType::Fp32, &[2], &[0; 7]).is_err());
        assert!(tensor(DataType::Fp32, &[], &[0; 4]).is_ok(), "a scalar is one element");
        assert!(tensor(DataType::Fp32, &[0, 4], &[]).is_ok(), "an empty axis means no bytes");
        assert!(
            tensor(DataType::Bool, &[2], &[0, 1]).is_ok() && tensor(DataType::Bool, &[2], &[0, 2]).is_err()
        );
        assert!(tensor(DataType::Int64, &[i64::MAX, 2], &[]).is_err());
        assert!(tensor(DataType::Int64, &[1 << 61], &[]).is_err());
    }

    #[test]
    fn rows_are_cut_without_copying() {
        let t = tensor(DataType::Int16, &[3, 1], &[1, 0, 2, 0, 3, 0]).unwrap();
        let parts = t.split_rows(&[1, 0, 2]).unwrap();
        assert_eq!(parts[0].data().as_ref(), [1, 0]);
        assert_eq!(parts[1].data().len(), 0);
        assert_eq!(parts[2].data().as_ref(), [2, 0, 3, 0]);
        assert_eq!(parts[2].data().as_ptr(), t.data()[2..].as_ptr());
        assert_eq!(t.split_rows(&[1, 1]), None);
    }

    #[test]
    fn rows_of_strings_are_cut_at_elements() {
        let packed = strings::pack([b"a".as_slice(), b"", b"bcd"]);
        let t = tensor(DataType::Bytes, &[3], &packed).unwrap();
        let parts = t.split_rows(&[2, 1]).unwrap();
        assert_eq!(strings::iter(parts[0].data()).collect::<Vec<_>>(), [b"a".as_slice(), b""]);
        assert_eq!(strings::iter(parts[1].data()).collect::<Vec<_>>(), [b"bcd".as_slice()]);
    }
}
