//! `ModelInferRequest` into our request, and our answer into `ModelInferResponse`.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};

use super::{Parameter, RequestParameters, datatype, no_shared_memory, pin, shape, tensor, unsigned};
use crate::api::questions::pinned;
use crate::error::{ServeError, excerpt};
use crate::infer::{InferRequest, InferResponse, InputTensor, Inputs, Limits, RequestedOutput};
use crate::proto::inference as pb;
use crate::tensor::{DataType, Shape, strings};

/// The parameters of a request, as the client wrote them.
pub type Parameters = HashMap<String, pb::InferParameter>;

/// Reads a request. Tensors are slices of the message; typed contents are packed. Errors: what is wrong, named.
pub fn parse(message: pb::ModelInferRequest) -> Result<(InferRequest, Parameters), ServeError> {
    let model = message.model_name;
    let mut parameters = RequestParameters::default();
    for (key, value) in &message.parameters {
        if let Some(value) = parameter(value) {
            parameters.set(key, &value)?;
        }
    }
    let inputs = read_inputs(&model, message.inputs, message.raw_input_contents)?;
    let outputs = message.outputs.into_iter().map(read_output).collect::<Result<_, _>>()?;
    let request = InferRequest {
        pin: pin(pinned(&message.model_version)?, parameters.label)?,
        model,
        inputs: Inputs::Named(inputs),
        outputs,
        limits: Limits { deadline: None, timeout: parameters.timeout, priority: parameters.priority },
    };
    Ok((request, message.parameters))
}

/// One parameter as text: a route may keep clients on their arm by it.
pub fn parameter_text<'a>(parameters: &'a Parameters, name: &str) -> Option<Cow<'a, str>> {
    parameters.get(name).and_then(parameter).map(Parameter::into_text)
}

fn read_inputs(
    model: &str,
    inputs: Vec<pb::model_infer_request::InferInputTensor>,
    raw: Vec<Bytes>,
) -> Result<Vec<InputTensor>, ServeError> {
    let uses_raw = !raw.is_empty();
    if uses_raw && raw.len() != inputs.len() {
        return Err(ServeError::invalid(format!(
            "model '{}' got {} inputs, but {} raw_input_contents; there must be one for each input",
            excerpt(model),
            inputs.len(),
            raw.len()
        )));
    }
    let mut raw = raw.into_iter();
    let read = |input: pb::model_infer_request::InferInputTensor| {
        let name = input.name;
        if input.parameters.contains_key("shared_memory_region") {
            return Err(no_shared_memory("input", &name));
        }
        let datatype = datatype(&name, &input.datatype)?;
        let shape = shape(&name, &input.shape)?;
        let data = match (raw.next(), input.contents) {
            (Some(_), Some(_)) => {
                return Err(ServeError::invalid(format!(
                    "contents field must not be specified when using raw_input_contents for '{}' for model '{}'",
                    excerpt(&name),
                    excerpt(model)
                )));
            }
            (Some(raw), None) => raw,
            (None, contents) => pack(model, &name, datatype, &shape, &contents.unwrap_or_default())?,
        };
        let tensor = tensor(model, &name, datatype, shape, data)?;
        Ok(InputTensor { name, tensor })
    };
    inputs.into_iter().map(read).collect()
}

/// Typed contents, packed. Errors: the wrong field, a number out of range, more or fewer than the shape says.
fn pack(
    model: &str,
    input: &str,
    datatype: DataType,
    shape: &Shape,
    contents: &pb::InferTensorContents,
) -> Result<Bytes, ServeError> {
    let filled = [
        ("bool_contents", contents.bool_contents.len()),
        ("int_contents", contents.int_contents.len()),
        ("int64_contents", contents.int64_contents.len()),
        ("uint_contents", contents.uint_contents.len()),
        ("uint64_contents", contents.uint64_contents.len()),
        ("fp32_contents", contents.fp32_contents.len()),
        ("fp64_contents", contents.fp64_contents.len()),
        ("bytes_contents", contents.bytes_contents.len()),
    ];
    let expected = match datatype {
        DataType::Bool => "bool_contents",
        DataType::Int8 | DataType::Int16 | DataType::Int32 => "int_contents",
        DataType::Int64 => "int64_contents",
        DataType::Uint8 | DataType::Uint16 | DataType::Uint32 => "uint_contents",
        DataType::Uint64 => "uint64_contents",
        DataType::Fp32 => "fp32_contents",
        DataType::Fp64 => "fp64_contents",
        DataType::Bytes => "bytes_contents",
        DataType::Fp16 | DataType::Bf16 => "raw_input_contents",
    };
    let (input, model) = (excerpt(input), excerpt(model));
    if let Some((wrong, _)) = filled.iter().find(|(field, count)| *field != expected && *count > 0) {
        return Err(ServeError::invalid(format!(
            "input '{input}' for model '{model}' has type {datatype}, which goes into {expected}, not {wrong}"
        )));
    }
    let count = filled.iter().find(|(field, _)| *field == expected).map_or(0, |(_, count)| *count);
    let elements = shape.elements().unwrap_or(usize::MAX);
    if count != elements {
        return Err(ServeError::invalid(format!(
            "input byte size mismatch for input '{input}' for model '{model}'. Shape {shape} needs {elements} \
             elements, got {count} in {expected}"
        )));
    }
    let mut packed = BytesMut::with_capacity(elements * datatype.size().unwrap_or(8));
    let unfit = |value: &dyn std::fmt::Display| {
        ServeError::invalid(format!("input '{input}' for model '{model}': {value} does not fit {datatype}"))
    };
    macro_rules! narrow {
        ($values:expr, $type:ty) => {
            for &value in $values {
                packed.put_slice(&<$type>::try_from(value).map_err(|_| unfit(&value))?.to_le_bytes());
            }
        };
    }
    match datatype {
        DataType::Bool => contents.bool_contents.iter().for_each(|&b| packed.put_u8(u8::from(b))),
        DataType::Int8 => narrow!(&contents.int_contents, i8),
        DataType::Int16 => narrow!(&contents.int_contents, i16),
        DataType::Int32 => narrow!(&contents.int_contents, i32),
        DataType::Int64 => narrow!(&contents.int64_contents, i64),
        DataType::Uint8 => narrow!(&contents.uint_contents, u8),
        DataType::Uint16 => narrow!(&contents.uint_contents, u16),
        DataType::Uint32 => narrow!(&contents.uint_contents, u32),
        DataType::Uint64 => narrow!(&contents.uint64_contents, u64),
        DataType::Fp32 => contents.fp32_contents.iter().for_each(|&v| packed.put_f32_le(v)),
        DataType::Fp64 => contents.fp64_contents.iter().for_each(|&v| packed.put_f64_le(v)),
        DataType::Bytes => contents.bytes_contents.iter().for_each(|text| strings::push(&mut packed, text)),
        DataType::Fp16 | DataType::Bf16 => {}
    }
    Ok(packed.freeze())
}

fn read_output(
    output: pb::model_infer_request::InferRequestedOutputTensor,
) -> Result<RequestedOutput, ServeError> {
    if output.parameters.contains_key("shared_memory_region") {
        return Err(no_shared_memory("output", &output.name));
    }
    let classes = match output.parameters.get("classification").and_then(parameter) {
        None => 0,
        Some(value) => usize::try_from(unsigned("classification", &value)?).unwrap_or(usize::MAX),
    };
    Ok(RequestedOutput { name: output.name, classes })
}

/// The name of the answer's parameter that tells why its version answered.
pub const ROUTE_REASON: &str = "weir_route";

fn parameter(value: &pb::InferParameter) -> Option<Parameter<'_>> {
    use pb::infer_parameter::ParameterChoice as Choice;
    Some(match value.parameter_choice.as_ref()? {
        Choice::BoolParam(b) => Parameter::Bool(*b),
        Choice::Int64Param(n) => Parameter::Signed(*n),
        Choice::Uint64Param(n) => Parameter::Unsigned(*n),
        Choice::DoubleParam(v) => Parameter::Float(*v),
        Choice::StringParam(text) => Parameter::Text(text),
    })
}

/// Writes an answer: one raw content per output, at the same index, even if it is empty. Cost: no copy.
pub fn write(response: InferResponse, id: String) -> pb::ModelInferResponse {
    let mut outputs = Vec::with_capacity(response.outputs.len());
    let mut raw_output_contents = Vec::with_capacity(response.outputs.len());
    for output in response.outputs {
        outputs.push(pb::model_infer_response::InferOutputTensor {
            name: output.name.to_string(),
            datatype: output.tensor.datatype().name().to_owned(),
            shape: output.tensor.shape().dims().to_vec(),
            parameters: HashMap::new(),
            contents: None,
        });
        raw_output_contents.push(output.tensor.data().clone());
    }
    let reason = pb::infer_parameter::ParameterChoice::StringParam(response.reason.name().to_owned());
    let reason = pb::InferParameter { parameter_choice: Some(reason) };
    pb::ModelInferResponse {
        model_name: response.servable.model.to_string(),
        model_version: response.servable.version.to_string(),
        id,
        parameters: HashMap::from([(ROUTE_REASON.to_owned(), reason)]),
        outputs,
        raw_output_contents,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(
        datatype: &str,
        dims: &[i64],
        contents: Option<pb::InferTensorContents>,
        raw: Vec<Bytes>,
    ) -> pb::ModelInferRequest {
        let input = pb::model_infer_request::InferInputTensor {
            name: "x".into(),
            datatype: datatype.into(),
            shape: dims.to_vec(),
            contents,
            ..Default::default()
        };
        pb::ModelInferRequest {
            model_name: "m".into(),
            inputs: vec![input],
            raw_input_contents: raw,
            ..Default::default()
        }
    }

    fn data(message: pb::ModelInferRequest) -> Result<Bytes, ServeError> {
        match parse(message)?.0.inputs {
            Inputs::Named(inputs) => Ok(inputs[0].tensor.data().clone()),
            Inputs::Raw(_) => panic!("gRPC has named inputs"),
        }
    }

    #[test]
    fn typed_contents_are_packed() {
        let ints = |values: &[i32]| {
            Some(pb::InferTensorContents { int_contents: values.to_vec(), ..Default::default() })
        };
        assert_eq!(data(request("INT8", &[2], ints(&[-1, 2]), vec![])).unwrap().as_ref(), [255, 2]);
        assert_eq!(data(request("INT16", &[1], ints(&[-2]), vec![])).unwrap().as_ref(), [254, 255]);
        let text = pb::InferTensorContents {
            bytes_contents: vec![Bytes::from_static(b"\xff\0")],
            ..Default::default()
        };
        assert_eq!(data(request("BYTES", &[1], Some(text), vec![])).unwrap().as_ref(), b"\x02\0\0\0\xff\0");
        assert_eq!(data(request("FP32", &[0], None, vec![])).unwrap().len(), 0);
    }

    #[test]
    fn raw_contents_are_not_copied() {
        let raw = Bytes::from(vec![1u8; 8]);
        let read = data(request("FP64", &[1], None, vec![raw.clone()])).unwrap();
        assert_eq!(read.as_ptr(), raw.as_ptr());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let ints = |values: &[i32]| {
            Some(pb::InferTensorContents { int_contents: values.to_vec(), ..Default::default() })
        };
        for (message, part) in [
            (
                request("INT8", &[1], ints(&[1]), vec![Bytes::from_static(b"\x01")]),
                "contents field must not be specified",
            ),
            (request("INT8", &[1], ints(&[300]), vec![]), "300 does not fit INT8"),
            (request("INT8", &[2], ints(&[1]), vec![]), "needs 2 elements, got 1"),
            (request("INT64", &[1], ints(&[1]), vec![]), "int64_contents, not int_contents"),
            (request("FP16", &[1], None, vec![]), "got 0 in raw_input_contents"),
            (request("FP32", &[1], None, vec![Bytes::new()]), "Expected 4, got 0"),
            (request("FP32", &[1], None, vec![Bytes::new(), Bytes::new()]), "one for each input"),
            (request("F32", &[1], None, vec![]), "unknown data-type"),
            (
                pb::ModelInferRequest { model_version: "1.0".into(), ..request("FP32", &[0], None, vec![]) },
                "failed to get model version",
            ),
        ] {
            let error = data(message).unwrap_err();
            assert!(error.message().contains(part), "{part}: {error}");
        }
    }
}
