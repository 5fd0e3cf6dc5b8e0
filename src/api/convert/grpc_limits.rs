//! What a `ModelInferRequest` will take once it is decoded, read off its bytes before.
//!
//! Generated code makes a struct of several hundred bytes out of two on the wire, and 32 out of an empty string:
//! counting comes first. Nothing is allocated here, and what is malformed is left to the generated code to tell.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::RequestLimits;
use crate::error::ServeError;

/// Fields of `ModelInferRequest`.
mod request {
    pub const PARAMETERS: u32 = 4;
    pub const INPUTS: u32 = 5;
    pub const OUTPUTS: u32 = 6;
    pub const RAW_INPUT_CONTENTS: u32 = 7;
}

/// Fields of `InferInputTensor`.
mod input {
    pub const SHAPE: u32 = 3;
    pub const PARAMETERS: u32 = 4;
    pub const CONTENTS: u32 = 5;
}

/// Fields of `InferRequestedOutputTensor`.
mod output {
    pub const PARAMETERS: u32 = 2;
}

/// Bytes that a decoded string and its packed form take beside its own, twice.
const STRING_BYTES: usize = 40;

/// Bytes of memory for each byte of typed contents on the wire at the most, decoded and packed: a number is a byte
/// there at least. By field: bool, int, int64, uint, uint64, fp32, fp64, bytes.
const GROWTH: [usize; 8] = [2, 8, 16, 8, 16, 2, 2, 2];

/// The most memory that the typed contents of a message take, in bytes. Errors: there is more of something than the
/// limits allow.
pub fn check(message: &[u8], limits: &RequestLimits) -> Result<usize, ServeError> {
    let (mut inputs, mut outputs, mut parameters, mut raw) = (0, 0, 0, 0);
    let mut bytes = 0usize;
    for (field, payload) in Fields(message) {
        match field {
            request::INPUTS => {
                count(&mut inputs, limits.tensors_max, "inputs")?;
                bytes = bytes.saturating_add(check_input(payload, limits)?);
            }
            request::OUTPUTS => {
                count(&mut outputs, limits.tensors_max, "outputs")?;
                let mut parameters = 0;
                for (field, _) in Fields(payload) {
                    if field == output::PARAMETERS {
                        count(&mut parameters, limits.parameters_max, "parameters of an output")?;
                    }
                }
            }
            request::PARAMETERS => count(&mut parameters, limits.parameters_max, "parameters")?,
            request::RAW_INPUT_CONTENTS => count(&mut raw, limits.tensors_max, "raw_input_contents")?,
            _ => {}
        }
    }
    Ok(bytes)
}

fn check_input(message: &[u8], limits: &RequestLimits) -> Result<usize, ServeError> {
    let (mut parameters, mut dims, mut bytes) = (0, 0, 0usize);
    for (field, payload) in Fields(message) {
        match field {
            input::PARAMETERS => count(&mut parameters, limits.parameters_max, "parameters of an input")?,
            input::SHAPE => {
                // Packed or one by one; a number ends with a byte below 128.
                for _ in payload.iter().filter(|byte| **byte < 0x80) {
                    count(&mut dims, limits.rank_max, "dimensions in a shape")?;
                }
            }
            input::CONTENTS => {
                for (field, payload) in Fields(payload) {
                    let growth = (field as usize).checked_sub(1).and_then(|index| GROWTH.get(index));
                    let text = if field as usize == GROWTH.len() { STRING_BYTES } else { 0 };
                    bytes = bytes.saturating_add(growth.map_or(0, |growth| growth * payload.len() + text));
                }
            }
            _ => {}
        }
    }
    Ok(bytes)
}

fn count(so_far: &mut usize, most: usize, what: &str) -> Result<(), ServeError> {
    *so_far += 1;
    match *so_far > most {
        false => Ok(()),
        true => Err(ServeError::invalid(format!("the request has more than {most} {what}"))),
    }
}

/// The fields of a message, up to the first that is malformed: number, and the bytes of the value.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let (field, wire_type) = decode_key(&mut self.0).ok()?;
        if wire_type == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(&mut self.0).ok()?).ok()?;
            let (payload, rest) = self.0.split_at_checked(length)?;
            self.0 = rest;
            return Some((field, payload));
        }
        let before = self.0;
        skip_field(wire_type, field, &mut self.0, DecodeContext::default()).ok()?;
        Some((field, &before[..before.len() - self.0.len()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::inference as pb;
    use prost::Message as _;

    const LIMITS: RequestLimits = RequestLimits {
        json_depth_max: 9,
        string_bytes_max: 9,
        tensors_max: 3,
        parameters_max: 2,
        rank_max: 4,
    };

    fn input(shape: Vec<i64>) -> pb::model_infer_request::InferInputTensor {
        pb::model_infer_request::InferInputTensor { name: "x".into(), shape, ..Default::default() }
    }

    fn parameters(n: usize) -> std::collections::HashMap<String, pb::InferParameter> {
        (0..n).map(|i| (i.to_string(), pb::InferParameter::default())).collect()
    }

    #[test]
    fn what_is_too_much_is_named_before_it_is_decoded() {
        let request = pb::ModelInferRequest::default;
        let output = pb::model_infer_request::InferRequestedOutputTensor::default;
        for (message, part) in [
            (pb::ModelInferRequest { inputs: vec![input(vec![]); 4], ..request() }, "more than 3 inputs"),
            (pb::ModelInferRequest { outputs: vec![output(); 4], ..request() }, "more than 3 outputs"),
            (
                pb::ModelInferRequest { raw_input_contents: vec![Default::default(); 4], ..request() },
                "more than 3 raw_input_contents",
            ),
            (pb::ModelInferRequest { parameters: parameters(3), ..request() }, "more than 2 parameters"),
            (
                pb::ModelInferRequest { inputs: vec![input(vec![300; 5])], ..request() },
                "more than 4 dimensions",
            ),
        ] {
            let error = check(&message.encode_to_vec(), &LIMITS).unwrap_err();
            assert!(error.message().contains(part), "{part}: {error}");
        }
        let within = pb::ModelInferRequest {
            inputs: vec![input(vec![-1, 300, 0, 7]); 3],
            parameters: parameters(2),
            ..request()
        };
        assert_eq!(check(&within.encode_to_vec(), &LIMITS), Ok(0));
    }

    #[test]
    fn typed_contents_are_reckoned_with_what_they_grow_to() {
        let with = |contents| pb::ModelInferRequest {
            inputs: vec![pb::model_infer_request::InferInputTensor {
                contents: Some(contents),
                ..input(vec![])
            }],
            ..Default::default()
        };
        let strings =
            pb::InferTensorContents { bytes_contents: vec![Default::default(); 10], ..Default::default() };
        assert_eq!(check(&with(strings).encode_to_vec(), &LIMITS), Ok(10 * STRING_BYTES));
        let numbers = pb::InferTensorContents { int64_contents: vec![1; 10], ..Default::default() };
        assert_eq!(check(&with(numbers).encode_to_vec(), &LIMITS), Ok(160));
    }

    #[test]
    fn what_is_unknown_or_malformed_hides_nothing_from_the_count() {
        // A group, which is skipped whole, before inputs of nothing.
        let group = [0x7b, 0x08, 0x01, 0x7c];
        let inputs = [0x2a, 0x00].repeat(4);
        let error = check(&[&group[..], &inputs].concat(), &LIMITS).unwrap_err();
        assert!(error.message().contains("inputs"), "{error}");
        for malformed in [&[0x2a][..], &[0x2a, 0x05, 0x00], &[0xff; 12], &[0x7b; 300]] {
            assert_eq!(check(malformed, &LIMITS), Ok(0), "{malformed:?}");
        }
    }
}
