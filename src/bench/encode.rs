//! Requests in the bytes that travel: made once, sent again and again.

use bytes::{BufMut, Bytes, BytesMut};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use prost::Message;

use super::BenchError;
use super::data::Request;
use super::plan::Protocol;
use super::target::Target;
use crate::api::convert::write_request;
use crate::proto::inference as pb;

/// What stands in a path as it is: some servers look at it before they unescape it.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// Encoded requests of one protocol. Cloning shares the bytes.
#[derive(Debug, Clone)]
pub struct Calls {
    pub protocol: Protocol,
    /// Over HTTP head and body; over gRPC a message behind its prefix.
    pub bodies: Vec<Bytes>,
}

impl Calls {
    /// Encodes requests for a model, and the version of it that is named.
    ///
    /// Errors: strings that JSON cannot carry.
    pub fn encode(protocol: Protocol, target: &Target, requests: &[Request]) -> Result<Self, BenchError> {
        let encode = |request: &Request| match protocol {
            Protocol::Grpc => Ok(message(target, request)),
            Protocol::Json => post(target, request, false),
            Protocol::Binary => post(target, request, true),
        };
        let bodies = requests.iter().map(encode).collect::<Result<_, _>>()?;
        Ok(Self { protocol, bodies })
    }
}

/// A path below the model's own over HTTP, such as `/infer`.
pub fn path(model: &str, version: &str, below: &str) -> String {
    let model = utf8_percent_encode(model, KEPT);
    match version {
        "" => format!("/v2/models/{model}{below}"),
        version => format!("/v2/models/{model}/versions/{}{below}", utf8_percent_encode(version, KEPT)),
    }
}

/// A message as gRPC sends it: not compressed, its length, then itself.
pub fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(5 + length);
    out.put_u8(0);
    out.put_u32(u32::try_from(length).expect("requests are far below 4 GiB"));
    message.encode(&mut out).expect("there is room");
    out.freeze()
}

fn message(target: &Target, request: &Request) -> Bytes {
    let input = |input: &crate::infer::InputTensor| pb::model_infer_request::InferInputTensor {
        name: input.name.clone(),
        datatype: input.tensor.datatype().name().to_owned(),
        shape: input.tensor.shape().dims().to_vec(),
        ..Default::default()
    };
    framed(&pb::ModelInferRequest {
        model_name: target.model.clone(),
        model_version: target.version.clone(),
        inputs: request.inputs.iter().map(input).collect(),
        raw_input_contents: request.inputs.iter().map(|input| input.tensor.data().clone()).collect(),
        ..Default::default()
    })
}

fn post(target: &Target, request: &Request, binary: bool) -> Result<Bytes, BenchError> {
    let written = write_request(&request.inputs, binary)
        .map_err(|error| BenchError::Data(error.message().to_owned()))?;
    let kind = match written.json_length {
        None => "content-type: application/json".to_owned(),
        Some(length) => {
            format!("content-type: application/octet-stream\r\ninference-header-content-length: {length}")
        }
    };
    let body = written.chunks.concat();
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: {}\r\n{kind}\r\ncontent-length: {}\r\n\r\n",
        path(&target.model, &target.version, "/infer"),
        target.http,
        body.len()
    );
    Ok([head.as_bytes(), &body].concat().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::data::{Made, made};
    use crate::bench::{Metadata, TensorMetadata};

    fn calls(protocol: Protocol) -> Calls {
        let target = Target::new("a b", "3");
        let input = TensorMetadata { name: "x".to_owned(), datatype: "FP32".to_owned(), shape: vec![-1, 2] };
        let requests = made(&Metadata { inputs: vec![input] }, &Made::default()).unwrap();
        Calls::encode(protocol, &target, &requests[..2]).unwrap()
    }

    #[test]
    fn a_message_names_model_and_version_and_carries_raw_tensors() {
        let calls = calls(Protocol::Grpc);
        let body = &calls.bodies[1];
        assert_eq!(body[..5], [0, 0, 0, 0, (body.len() - 5) as u8]);
        let message = pb::ModelInferRequest::decode(&body[5..]).unwrap();
        assert_eq!((message.model_name.as_str(), message.model_version.as_str()), ("a b", "3"));
        assert_eq!(
            (message.inputs[0].shape.as_slice(), message.raw_input_contents[0].len()),
            (&[1, 2][..], 8)
        );
    }

    #[test]
    fn a_post_tells_its_lengths() {
        for (protocol, behind) in [(Protocol::Json, 0), (Protocol::Binary, 8)] {
            let calls = calls(protocol);
            let text = String::from_utf8_lossy(&calls.bodies[0]).into_owned();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("POST /v2/models/a%20b/versions/3/infer HTTP/1.1\r\n"), "{head}");
            let length = calls.bodies[0].len() - head.len() - 4;
            assert!(head.contains(&format!("content-length: {length}")), "{head}");
            let json = length - behind;
            assert_eq!(head.contains(&format!("header-content-length: {json}")), behind > 0, "{head} {body}");
        }
    }
}
