//! A request as JSON, or as JSON followed by binary tensors: what `json::parse` reads.
//!
//! Not here: requests that ask for some outputs only, or carry parameters of their own.

use bytes::BufMut;
use smallvec::SmallVec;

use super::json_response::{Written, list, text, write_data};
use crate::error::{ServeError, excerpt};
use crate::infer::InputTensor;

/// Writes a request for every output, with tensors and answer in `binary` or as JSON.
///
/// Errors: strings that are not UTF-8 in a request that is not binary.
pub fn write_request(inputs: &[InputTensor], binary: bool) -> Result<Written, ServeError> {
    let mut out = Vec::new();
    out.put_slice(b"{\"inputs\":[");
    for (position, input) in inputs.iter().enumerate() {
        if position > 0 {
            out.put_u8(b',');
        }
        write_input(&mut out, input, binary)?;
    }
    out.put_u8(b']');
    if !binary {
        out.put_u8(b'}');
        return Ok(Written { chunks: SmallVec::from_iter([out.into()]), json_length: None });
    }
    out.put_slice(b",\"parameters\":{\"binary_data_output\":true}}");
    let json_length = Some(out.len());
    inputs.iter().for_each(|input| out.put_slice(input.tensor.data()));
    Ok(Written { chunks: SmallVec::from_iter([out.into()]), json_length })
}

fn write_input(out: &mut Vec<u8>, input: &InputTensor, binary: bool) -> Result<(), ServeError> {
    let tensor = &input.tensor;
    out.put_slice(b"{\"name\":");
    text(out, &input.name);
    out.put_slice(b",\"datatype\":\"");
    out.put_slice(tensor.datatype().name().as_bytes());
    out.put_slice(b"\",\"shape\":[");
    list(out, tensor.shape().dims(), |out, dim| out.put_slice(itoa::Buffer::new().format(*dim).as_bytes()));
    if binary {
        out.put_slice(b"],\"parameters\":{\"binary_data_size\":");
        out.put_slice(itoa::Buffer::new().format(tensor.data().len()).as_bytes());
        out.put_slice(b"}}");
        return Ok(());
    }
    out.put_slice(b"],\"data\":[");
    write_data(out, tensor).map_err(|()| {
        let name = excerpt(&input.name);
        ServeError::invalid(format!(
            "input '{name}' holds bytes that are not UTF-8, which JSON cannot carry; send it in binary"
        ))
    })?;
    out.put_slice(b"]}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::{RequestLimits, json};
    use super::*;
    use crate::infer::Inputs;
    use crate::tensor::{DataType, Shape, Tensor, strings};

    fn input(name: &str, datatype: DataType, dims: &[i64], data: Bytes) -> InputTensor {
        let shape = Shape::from_dims(dims.iter().copied()).unwrap();
        InputTensor { name: name.to_owned(), tensor: Tensor::new(datatype, shape, data).unwrap() }
    }

    #[test]
    fn what_is_written_reads_back() {
        let words = strings::pack([b"a \"b\"".as_slice(), b""]);
        let floats: Vec<u8> = [0.1f32, -3.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let inputs =
            [input("x", DataType::Fp32, &[1, 2], floats.into()), input("w \"", DataType::Bytes, &[2], words)];
        for binary in [false, true] {
            let written = write_request(&inputs, binary).unwrap();
            let body = Bytes::from(written.chunks.concat());
            let length = written.json_length.unwrap_or(body.len());
            let (request, form, _) =
                json::parse("m", &body, length, &RequestLimits::default()).unwrap().into_parts();
            assert_eq!(form.is_binary("any"), binary);
            let Inputs::Named(read) = request.inputs else { panic!("inputs are named") };
            for (read, input) in read.iter().zip(&inputs) {
                assert_eq!((&read.name, &read.tensor), (&input.name, &input.tensor));
            }
        }
    }

    #[test]
    fn bytes_that_are_not_text_need_binary() {
        let inputs = [input("x", DataType::Bytes, &[1], strings::pack([[0xff].as_slice()]))];
        assert!(write_request(&inputs, false).unwrap_err().message().contains("'x'"));
        assert!(write_request(&inputs, true).is_ok());
    }
}
