//! Requests and answers as bytes.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use smallvec::SmallVec;
use weir::api::convert::{RequestLimits, Written, encode, grpc, json, write_request, write_response};
use weir::id::{ModelName, ServableId, Version};
use weir::infer::{InferRequest, InferResponse, InputTensor, OutputTensor, RouteReason};
use weir::proto::inference as pb;
use weir::tensor::{DataType, Shape, Tensor};

use crate::served::MODEL;

/// By name, in numbers.
pub const SIZES: [(&str, usize); 3] = [("30 floats", 30), ("4096 floats", 4096), ("1 MiB", 1 << 18)];

/// One row of so many numbers, no two alike and none round.
pub fn tensor(numbers: usize) -> Tensor {
    let shape = Shape::from_dims([1, numbers as i64]).unwrap();
    let data: Vec<u8> = (0..numbers).flat_map(|i| ((i as f32 + 0.5) * 0.37).to_le_bytes()).collect();
    Tensor::new(DataType::Fp32, shape, data.into()).unwrap()
}

/// One request in each form.
pub struct Wire {
    grpc: Bytes,
    json: Bytes,
    binary: Bytes,
    binary_head: usize,
}

impl Wire {
    pub fn of(numbers: usize) -> Self {
        let input = InputTensor { name: "features".to_owned(), tensor: tensor(numbers) };
        let body = |written: Written| Bytes::from(written.chunks.concat());
        let inputs = [input];
        let binary = write_request(&inputs, true).unwrap();
        Self {
            grpc: message(&inputs[0]),
            json: body(write_request(&inputs, false).unwrap()),
            binary_head: binary.json_length.unwrap(),
            binary: body(binary),
        }
    }

    pub fn decode_grpc(&self) -> InferRequest {
        parse_message(self.grpc.clone())
    }

    pub fn decode_json(&self) -> InferRequest {
        json::parse(MODEL, &self.json, self.json.len(), &RequestLimits::default()).unwrap().into_parts().0
    }

    pub fn decode_binary(&self) -> InferRequest {
        json::parse(MODEL, &self.binary, self.binary_head, &RequestLimits::default()).unwrap().into_parts().0
    }
}

/// A `ModelInfer` message with one input.
pub fn message(input: &InputTensor) -> Bytes {
    let tensor = pb::model_infer_request::InferInputTensor {
        name: input.name.clone(),
        datatype: input.tensor.datatype().name().to_owned(),
        shape: input.tensor.shape().dims().to_vec(),
        ..Default::default()
    };
    let request = pb::ModelInferRequest {
        model_name: MODEL.to_owned(),
        inputs: vec![tensor],
        raw_input_contents: vec![input.tensor.data().clone()],
        ..Default::default()
    };
    request.encode_to_vec().into()
}

pub fn parse_message(bytes: Bytes) -> InferRequest {
    grpc::parse(pb::ModelInferRequest::decode(bytes).unwrap()).unwrap().0
}

/// An answer of one output.
pub fn answer(numbers: usize) -> InferResponse {
    let servable =
        ServableId { model: ModelName::parse(MODEL).unwrap(), version: Version::parse("1").unwrap() };
    let output = OutputTensor { name: Arc::from("OUTPUT0"), tensor: tensor(numbers) };
    InferResponse { servable, reason: RouteReason::Latest, outputs: vec![output] }
}

pub fn encode_grpc(response: &InferResponse) -> SmallVec<[Bytes; 2]> {
    encode(response, "").unwrap()
}

pub fn encode_json(response: &InferResponse) -> Written {
    write_response(response, None, usize::MAX, |_| false).unwrap()
}

pub fn encode_binary(response: &InferResponse) -> Written {
    write_response(response, None, usize::MAX, |_| true).unwrap()
}
