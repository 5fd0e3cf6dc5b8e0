//! An answer as the bytes of a `ModelInferResponse`, framed for gRPC.
//!
//! The names, versions and types go from where they stand straight into the message: building the generated struct
//! first takes an allocation for each of them. A test holds the bytes against the generated code.

use bytes::Bytes;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use smallvec::SmallVec;

use super::COPIED_BYTES_MAX;
use super::grpc::ROUTE_REASON;
use crate::error::{ErrorKind, ServeError};
use crate::infer::{InferResponse, OutputTensor};

/// Fields of `ModelInferResponse`.
mod response {
    pub const MODEL_NAME: u32 = 1;
    pub const MODEL_VERSION: u32 = 2;
    pub const ID: u32 = 3;
    pub const PARAMETERS: u32 = 4;
    pub const OUTPUTS: u32 = 5;
    pub const RAW_OUTPUT_CONTENTS: u32 = 6;
}

/// Fields of `InferOutputTensor`.
mod output {
    pub const NAME: u32 = 1;
    pub const DATATYPE: u32 = 2;
    pub const SHAPE: u32 = 3;
}

/// Fields of an entry of a map, and of `InferParameter`.
mod parameter {
    pub const KEY: u32 = 1;
    pub const VALUE: u32 = 2;
    pub const STRING: u32 = 3;
}

/// Bytes before a message: whether it is compressed, and its length (gRPC over HTTP/2, "Length-Prefixed-Message").
pub const PREFIX_BYTES: usize = 5;

/// Writes an answer as one framed message, in one chunk or more. Errors: it is longer than the frame can tell.
///
/// Cost: outputs above 16 KiB are not copied.
pub fn encode(response: &InferResponse, id: &str) -> Result<SmallVec<[Bytes; 2]>, ServeError> {
    // What is written is a few bytes at a time, which a vector takes with less ado than a `BytesMut`.
    let mut out = Vec::with_capacity(256);
    out.resize(PREFIX_BYTES, 0);
    bytes(&mut out, response::MODEL_NAME, response.servable.model.as_str().as_bytes());
    let mut digits = itoa::Buffer::new();
    bytes(&mut out, response::MODEL_VERSION, digits.format(response.servable.version.number()).as_bytes());
    if !id.is_empty() {
        bytes(&mut out, response::ID, id.as_bytes());
    }
    route_reason(&mut out, response.reason.name());
    for output in &response.outputs {
        described(&mut out, output);
    }
    let tensors = || response.outputs.iter().map(|output| output.tensor.data());
    let length = out.len() - PREFIX_BYTES + tensors().map(|data| bytes_length(data.len())).sum::<usize>();
    let told = u32::try_from(length).map_err(|_| {
        ServeError::new(
            ErrorKind::TooLarge,
            format!("the answer has {length} bytes, more than gRPC can carry"),
        )
    })?;
    out[1..PREFIX_BYTES].copy_from_slice(&told.to_be_bytes());
    let mut chunks = SmallVec::new();
    for data in tensors() {
        encode_key(response::RAW_OUTPUT_CONTENTS, WireType::LengthDelimited, &mut out);
        encode_varint(data.len() as u64, &mut out);
        if data.len() <= COPIED_BYTES_MAX {
            out.extend_from_slice(data);
        } else {
            chunks.push(Bytes::from(std::mem::take(&mut out)));
            chunks.push(data.clone());
        }
    }
    if !out.is_empty() {
        chunks.push(Bytes::from(out));
    }
    Ok(chunks)
}

fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// Length of [`bytes()`] for fields below 16.
fn bytes_length(value: usize) -> usize {
    1 + encoded_len_varint(value as u64) + value
}

/// The parameter that tells why the version answered.
fn route_reason(out: &mut Vec<u8>, reason: &str) {
    let choice = bytes_length(reason.len());
    encode_key(response::PARAMETERS, WireType::LengthDelimited, out);
    encode_varint((bytes_length(ROUTE_REASON.len()) + bytes_length(choice)) as u64, out);
    bytes(out, parameter::KEY, ROUTE_REASON.as_bytes());
    encode_key(parameter::VALUE, WireType::LengthDelimited, out);
    encode_varint(choice as u64, out);
    bytes(out, parameter::STRING, reason.as_bytes());
}

/// Name, type and shape of an output.
fn described(out: &mut Vec<u8>, tensor: &OutputTensor) {
    let (name, datatype) = (tensor.name.as_bytes(), tensor.tensor.datatype().name().as_bytes());
    let dims = tensor.tensor.shape().dims();
    let shape: usize = dims.iter().map(|dim| encoded_len_varint(*dim as u64)).sum();
    let shape_field = if dims.is_empty() { 0 } else { bytes_length(shape) };
    encode_key(response::OUTPUTS, WireType::LengthDelimited, out);
    encode_varint((bytes_length(name.len()) + bytes_length(datatype.len()) + shape_field) as u64, out);
    bytes(out, output::NAME, name);
    bytes(out, output::DATATYPE, datatype);
    if !dims.is_empty() {
        encode_key(output::SHAPE, WireType::LengthDelimited, out);
        encode_varint(shape as u64, out);
        dims.iter().for_each(|dim| encode_varint(*dim as u64, out));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::convert::grpc::write;
    use crate::id::{ModelName, ServableId, Version};
    use crate::infer::RouteReason;
    use crate::proto::inference as pb;
    use crate::tensor::{DataType, Shape, Tensor};
    use prost::Message as _;

    fn answer(outputs: &[(&str, DataType, &[i64])]) -> InferResponse {
        let outputs = outputs.iter().map(|(name, datatype, dims)| {
            let shape = Shape::from_dims(dims.iter().copied()).unwrap();
            let bytes = shape.elements().unwrap() * datatype.size().unwrap();
            let data: Vec<u8> = (0..bytes).map(|i| i as u8).collect();
            OutputTensor { name: (*name).into(), tensor: Tensor::new(*datatype, shape, data.into()).unwrap() }
        });
        InferResponse {
            servable: ServableId {
                model: ModelName::parse("a_model").unwrap(),
                version: Version::parse("12").unwrap(),
            },
            reason: RouteReason::Sticky,
            outputs: outputs.collect(),
        }
    }

    #[test]
    fn the_bytes_are_what_the_generated_code_reads() {
        let long = "x".repeat(300);
        for (outputs, id) in [
            (&[][..], ""),
            (&[("scalar", DataType::Fp32, &[][..])], "id-1"),
            (&[("y", DataType::Int64, &[1, 3]), ("empty", DataType::Uint8, &[0, 4])], long.as_str()),
            (
                &[
                    (long.as_str(), DataType::Uint8, &[1, 70_000]),
                    ("small", DataType::Fp16, &[200, 2]),
                    ("large", DataType::Fp64, &[9_000]),
                ],
                "id",
            ),
        ] {
            let joined = encode(&answer(outputs), id).unwrap().concat();
            let length = u32::from_be_bytes(joined[1..5].try_into().unwrap());
            assert_eq!((joined[0], length as usize), (0, joined.len() - 5));
            let read = pb::ModelInferResponse::decode(&joined[5..]).unwrap();
            assert_eq!(read, write(answer(outputs), id.to_owned()), "{outputs:?}");
        }
    }

    #[test]
    fn large_outputs_are_not_copied() {
        let answer = answer(&[("y", DataType::Uint8, &[1, 70_000]), ("z", DataType::Uint8, &[1])]);
        let chunks = encode(&answer, "").unwrap();
        assert_eq!(chunks.len(), 3);
        assert_eq!(chunks[1].as_ptr(), answer.outputs[0].tensor.data().as_ptr());
    }
}
