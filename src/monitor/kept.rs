//! Tensors as reports show them.

use serde::Serialize;
use serde_json::Value;

use crate::tensor::{DataType, Tensor, strings};

/// Values of one tensor that are kept.
pub const VALUES_MAX: usize = 256;

/// Characters of one string that are kept.
const CHARACTERS_MAX: usize = 256;

/// The beginning of a tensor.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KeptTensor {
    pub name: String,
    pub datatype: &'static str,
    pub shape: Vec<i64>,
    /// The first 256. NaN and infinities are strings, since JSON has no such numbers; strings are cut.
    pub values: Vec<Value>,
}

/// Copies the beginning of a tensor: at most [`VALUES_MAX`] values, of strings 256 characters each.
pub fn kept(name: &str, tensor: &Tensor) -> KeptTensor {
    macro_rules! values {
        ($type:ty, $value:expr) => {
            tensor
                .data()
                .chunks_exact(size_of::<$type>())
                .take(VALUES_MAX)
                .map(|bytes| <$type>::from_le_bytes(bytes.try_into().expect("chunks have that size")))
                .map($value)
                .collect()
        };
    }
    let values = match tensor.datatype() {
        DataType::Bool => values!(u8, |v| Value::from(v != 0)),
        DataType::Uint8 => values!(u8, Value::from),
        DataType::Uint16 => values!(u16, Value::from),
        DataType::Uint32 => values!(u32, Value::from),
        DataType::Uint64 => values!(u64, Value::from),
        DataType::Int8 => values!(i8, Value::from),
        DataType::Int16 => values!(i16, Value::from),
        DataType::Int32 => values!(i32, Value::from),
        DataType::Int64 => values!(i64, Value::from),
        DataType::Fp32 => values!(f32, shortest),
        DataType::Fp16 | DataType::Bf16 | DataType::Fp64 => {
            tensor.floats(VALUES_MAX).into_iter().map(number).collect()
        }
        DataType::Bytes => strings::iter(tensor.data()).take(VALUES_MAX).map(text).collect(),
    };
    KeptTensor {
        name: name.to_owned(),
        datatype: tensor.datatype().name(),
        shape: tensor.shape().dims().to_vec(),
        values,
    }
}

/// Widened by way of its text: 0.1 stays 0.1.
fn shortest(value: f32) -> Value {
    number(value.to_string().parse().unwrap_or_else(|_| f64::from(value)))
}

fn number(value: f64) -> Value {
    if value.is_finite() {
        return Value::from(value);
    }
    let name = match value {
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => "NaN",
    };
    Value::from(name)
}

fn text(bytes: &[u8]) -> Value {
    // Four bytes to a character at the most, and one that the cut may break.
    let beginning = &bytes[..bytes.len().min(4 * CHARACTERS_MAX + 4)];
    let text: String = String::from_utf8_lossy(beginning).chars().take(CHARACTERS_MAX).collect();
    Value::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Shape;
    use serde_json::json;

    fn tensor(datatype: DataType, elements: usize, data: Vec<u8>) -> Tensor {
        Tensor::new(datatype, Shape::from_dims([elements as i64]).unwrap(), data.into()).unwrap()
    }

    #[test]
    fn values_are_those_a_reader_expects() {
        let floats = [0.1f32, f32::NAN, f32::INFINITY, -2.5].iter().flat_map(|v| v.to_le_bytes()).collect();
        let halves = half::f16::from_f32(0.5).to_le_bytes().to_vec();
        let packed = strings::pack([b"a".as_slice(), b"\xff"]).to_vec();
        for (tensor, expected) in [
            (tensor(DataType::Fp32, 4, floats), json!([0.1, "NaN", "Infinity", -2.5])),
            (tensor(DataType::Fp16, 1, halves), json!([0.5])),
            (tensor(DataType::Uint64, 1, u64::MAX.to_le_bytes().to_vec()), json!([u64::MAX])),
            (tensor(DataType::Bool, 2, vec![0, 1]), json!([false, true])),
            (tensor(DataType::Int8, 1, vec![255]), json!([-1])),
            (tensor(DataType::Bytes, 2, packed), json!(["a", "\u{fffd}"])),
        ] {
            assert_eq!(json!(kept("y", &tensor).values), expected);
        }
    }

    #[test]
    fn only_the_beginning_is_kept() {
        let many = kept("y", &tensor(DataType::Uint8, 1000, vec![7; 1000]));
        assert_eq!((many.values.len(), many.shape, many.datatype), (VALUES_MAX, vec![1000], "UINT8"));
        let long = strings::pack(["é".repeat(5000).as_bytes()]).to_vec();
        let long = kept("y", &tensor(DataType::Bytes, 1, long));
        assert_eq!(json!(long.values), json!(["é".repeat(CHARACTERS_MAX)]));
    }
}
