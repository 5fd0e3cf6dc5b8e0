//! An answer as JSON, or as JSON followed by binary tensors.

use bytes::{BufMut, Bytes};
use half::{bf16, f16};
use smallvec::SmallVec;

use super::COPIED_BYTES_MAX;
use crate::error::{ErrorKind, ServeError};
use crate::infer::{InferResponse, OutputTensor};
use crate::tensor::{DataType, Tensor, strings};

/// A body and, when tensors follow the JSON, the JSON's length.
#[derive(Debug)]
pub struct Written {
    pub chunks: SmallVec<[Bytes; 2]>,
    pub json_length: Option<usize>,
}

/// Writes an answer. `binary(name)` tells which outputs go behind the JSON.
///
/// Numbers are in their shortest form that reads back to the same bits. NaN is written as `null`, which every
/// client reads. JSON has no form for the infinities: `Infinity` and `-Infinity` are what Triton's clients read;
/// strict clients ask for binary. Errors: it takes more than `bytes_max`; strings that are not UTF-8 in an output that is not binary.
pub fn write_response(
    response: &InferResponse,
    id: Option<&str>,
    bytes_max: usize,
    binary: impl Fn(&str) -> bool,
) -> Result<Written, ServeError> {
    let is_binary: Vec<bool> = response.outputs.iter().map(|output| binary(&output.name)).collect();
    let binary_bytes: usize = response
        .outputs
        .iter()
        .zip(&is_binary)
        .filter(|(_, b)| **b)
        .map(|(o, _)| o.tensor.data().len())
        .sum();
    let json_guess: usize = response
        .outputs
        .iter()
        .zip(&is_binary)
        .filter(|(_, b)| !**b)
        .map(|(o, _)| o.tensor.elements() * 12)
        .sum();
    let fewest: usize = response
        .outputs
        .iter()
        .zip(&is_binary)
        .map(|(o, b)| if *b { o.tensor.data().len() } else { fewest_bytes(&o.tensor) })
        .sum();
    within(fewest, bytes_max)?;
    let json_guess = json_guess.min(bytes_max);
    let mut out = Vec::with_capacity(256 + json_guess + binary_bytes.min(COPIED_BYTES_MAX));
    out.put_slice(b"{\"model_name\":");
    text(&mut out, response.servable.model.as_str());
    out.put_slice(b",\"model_version\":\"");
    out.put_slice(itoa::Buffer::new().format(response.servable.version.number()).as_bytes());
    out.put_slice(b"\"");
    if let Some(id) = id {
        out.put_slice(b",\"id\":");
        text(&mut out, id);
    }
    out.put_slice(b",\"outputs\":[");
    for (position, (output, is_binary)) in response.outputs.iter().zip(&is_binary).enumerate() {
        if position > 0 {
            out.put_u8(b',');
        }
        write_output(&mut out, output, *is_binary)?;
        within(out.len() + binary_bytes, bytes_max)?;
    }
    out.put_slice(b"]}");
    // An output without bytes has nothing to put behind the JSON; clients then look for plain JSON.
    if binary_bytes == 0 {
        return Ok(Written { chunks: SmallVec::from_iter([out.into()]), json_length: None });
    }
    let json_length = Some(out.len());
    let mut chunks = SmallVec::new();
    for (output, _) in response.outputs.iter().zip(&is_binary).filter(|(_, b)| **b) {
        let data = output.tensor.data();
        if data.len() <= COPIED_BYTES_MAX {
            out.put_slice(data);
        } else {
            chunks.push(std::mem::take(&mut out).into());
            chunks.push(data.clone());
        }
    }
    chunks.push(out.into());
    Ok(Written { chunks, json_length })
}

/// The fewest bytes that a tensor can take as text: for each element a digit or two quotes, and a comma.
fn fewest_bytes(tensor: &Tensor) -> usize {
    match tensor.datatype() {
        DataType::Bytes => tensor.data().len().saturating_sub(tensor.elements()),
        _ => 2 * tensor.elements(),
    }
}

fn within(bytes: usize, bytes_max: usize) -> Result<(), ServeError> {
    match bytes > bytes_max {
        false => Ok(()),
        true => Err(ServeError::new(
            ErrorKind::TooLarge,
            format!("the answer takes more than {bytes_max} bytes; ask for it in binary, or for less"),
        )),
    }
}

fn write_output(out: &mut Vec<u8>, output: &OutputTensor, is_binary: bool) -> Result<(), ServeError> {
    let tensor = &output.tensor;
    out.put_slice(b"{\"name\":");
    text(out, &output.name);
    out.put_slice(b",\"datatype\":\"");
    out.put_slice(tensor.datatype().name().as_bytes());
    out.put_slice(b"\",\"shape\":[");
    list(out, tensor.shape().dims(), |out, dim| out.put_slice(itoa::Buffer::new().format(*dim).as_bytes()));
    if is_binary {
        out.put_slice(b"],\"parameters\":{\"binary_data_size\":");
        out.put_slice(itoa::Buffer::new().format(tensor.data().len()).as_bytes());
        out.put_slice(b"}}");
        return Ok(());
    }
    out.put_slice(b"],\"data\":[");
    write_data(out, tensor).map_err(|()| {
        ServeError::invalid(format!(
            "output '{}' holds bytes that are not UTF-8, which JSON cannot carry; ask for it with \
             \"parameters\":{{\"binary_data\":true}}",
            output.name
        ))
    })?;
    out.put_slice(b"]}");
    Ok(())
}

/// A tensor's elements, without the brackets around them. Errors: a string is not UTF-8.
pub(super) fn write_data(out: &mut Vec<u8>, tensor: &Tensor) -> Result<(), ()> {
    let data = tensor.data();
    macro_rules! numbers {
        ($type:ty, $write:expr) => {
            list(out, data.chunks_exact(size_of::<$type>()), |out, chunk| {
                $write(out, <$type>::from_le_bytes(chunk.try_into().expect("chunks have that size")));
            })
        };
    }
    macro_rules! integers {
        ($type:ty) => {
            numbers!($type, |out: &mut Vec<u8>, n| out.put_slice(itoa::Buffer::new().format(n).as_bytes()))
        };
    }
    match tensor.datatype() {
        DataType::Bool => {
            list(out, data.iter(), |out, b| out.put_slice(if *b == 0 { b"false" } else { b"true" }))
        }
        DataType::Uint8 => integers!(u8),
        DataType::Uint16 => integers!(u16),
        DataType::Uint32 => integers!(u32),
        DataType::Uint64 => integers!(u64),
        DataType::Int8 => integers!(i8),
        DataType::Int16 => integers!(i16),
        DataType::Int32 => integers!(i32),
        DataType::Int64 => integers!(i64),
        DataType::Fp16 => numbers!(f16, |out: &mut Vec<u8>, v: f16| float32(out, v.to_f32())),
        DataType::Bf16 => numbers!(bf16, |out: &mut Vec<u8>, v: bf16| float32(out, v.to_f32())),
        DataType::Fp32 => numbers!(f32, float32),
        DataType::Fp64 => numbers!(f64, float64),
        DataType::Bytes => {
            for (position, element) in strings::iter(data).enumerate() {
                if position > 0 {
                    out.put_u8(b',');
                }
                text(out, std::str::from_utf8(element).map_err(|_| ())?);
            }
        }
    }
    Ok(())
}

pub(super) fn list<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    write: impl Fn(&mut Vec<u8>, T),
) {
    for (position, item) in items.into_iter().enumerate() {
        if position > 0 {
            out.put_u8(b',');
        }
        write(out, item);
    }
}

fn float32(out: &mut Vec<u8>, value: f32) {
    match nonfinite(f64::from(value)) {
        Some(literal) => out.put_slice(literal),
        None => out.put_slice(ryu::Buffer::new().format_finite(value).as_bytes()),
    }
}

fn float64(out: &mut Vec<u8>, value: f64) {
    match nonfinite(value) {
        Some(literal) => out.put_slice(literal),
        None => out.put_slice(ryu::Buffer::new().format_finite(value).as_bytes()),
    }
}

fn nonfinite(value: f64) -> Option<&'static [u8]> {
    match value {
        v if v.is_nan() => Some(b"null"),
        f64::INFINITY => Some(b"Infinity"),
        f64::NEG_INFINITY => Some(b"-Infinity"),
        _ => None,
    }
}

/// A JSON string, quoted and escaped.
pub(super) fn text(out: &mut Vec<u8>, value: &str) {
    serde_json::to_writer(&mut *out, value).expect("writing to memory cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ModelName, ServableId, Version};
    use crate::tensor::Shape;

    fn response(outputs: Vec<(&str, Tensor)>) -> InferResponse {
        let servable =
            ServableId { model: ModelName::parse("m").unwrap(), version: Version::parse("3").unwrap() };
        let outputs =
            outputs.into_iter().map(|(name, tensor)| OutputTensor { name: name.into(), tensor }).collect();
        InferResponse { servable, reason: crate::infer::RouteReason::Latest, outputs }
    }

    fn tensor(datatype: DataType, dims: &[i64], data: &[u8]) -> Tensor {
        let shape = Shape::from_dims(dims.iter().copied()).unwrap();
        Tensor::new(datatype, shape, Bytes::copy_from_slice(data)).unwrap()
    }

    #[test]
    fn json_and_binary_outputs_stand_side_by_side() {
        let x = tensor(DataType::Uint8, &[1, 2], &[7, 8]);
        let y = tensor(DataType::Fp32, &[1], &0.1f32.to_le_bytes());
        let written =
            write_response(&response(vec![("x", x), ("y", y)]), Some("a\"b"), 1 << 20, |name| name == "x")
                .unwrap();
        let length = written.json_length.unwrap();
        let body = written.chunks.concat();
        assert_eq!(body[length..], [7, 8]);
        assert_eq!(
            std::str::from_utf8(&body[..length]).unwrap(),
            r#"{"model_name":"m","model_version":"3","id":"a\"b","outputs":[{"name":"x","datatype":"UINT8","shape":[1,2],"parameters":{"binary_data_size":2}},{"name":"y","datatype":"FP32","shape":[1],"data":[0.1]}]}"#
        );
    }

    #[test]
    fn numbers_that_json_lacks_are_written_as_clients_read_them() {
        let values = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300];
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let written = write_response(
            &response(vec![("y", tensor(DataType::Fp64, &[4], &data))]),
            None,
            1 << 20,
            |_| false,
        );
        let body = written.unwrap().chunks.concat();
        assert!(body.ends_with(b"\"data\":[null,Infinity,-Infinity,1e300]}]}"), "{body:?}");
    }

    #[test]
    fn bytes_that_are_not_text_need_binary() {
        let raw = tensor(DataType::Bytes, &[1], b"\x01\0\0\0\xff");
        assert!(write_response(&response(vec![("y", raw.clone())]), None, 1 << 20, |_| false).is_err());
        assert!(write_response(&response(vec![("y", raw)]), None, 1 << 20, |_| true).is_ok());
    }

    #[test]
    fn an_answer_of_more_bytes_than_allowed_is_refused() {
        let many = tensor(DataType::Uint8, &[1, 1000], &[200; 1000]);
        for (bytes_max, binary, fits) in [
            (1000, false, false),
            (3000, false, false),
            (5000, false, true),
            (500, true, false),
            (2000, true, true),
        ] {
            let written = write_response(&response(vec![("y", many.clone())]), None, bytes_max, |_| binary);
            assert_eq!(written.is_ok(), fits, "{bytes_max} {binary}");
        }
    }
}
