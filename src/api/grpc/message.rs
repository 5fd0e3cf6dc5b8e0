//! The message of a unary call, read by hand.
//!
//! Always: nothing is allocated by a length that a client named, beyond what [`Landing`] sets aside.

use bytes::{Buf, Bytes};
use prost::encoding::{WireType, decode_key, decode_varint};

use crate::api::convert::PREFIX_BYTES;
use crate::api::landing::{Arriving, Landing, next_frame};
use crate::error::{ErrorKind, ServeError};

/// Reads the only message of a call.
///
/// Cost: no copy of a message that came in one frame; one of any other, which lands so that its first raw tensor can
/// be run where it lies. Errors: it is over `bytes_max`, cut short, compressed, or there is more than one.
pub async fn read(mut body: impl Arriving, bytes_max: usize) -> Result<Bytes, ServeError> {
    let Some(first) = next_frame(&mut body).await? else { return Err(cut_short()) };
    if first.len() < PREFIX_BYTES {
        return read_slowly(first, body, bytes_max).await;
    }
    let length = length_of(&first, bytes_max)?;
    let first = first.slice(PREFIX_BYTES..);
    if first.len() >= length {
        return whole(first, length, &mut body).await;
    }
    let landing = Landing::new(length, raw_tensor_offset(&first));
    land(landing, first, body, length).await
}

/// For clients that send less than a prefix at a time.
async fn read_slowly(first: Bytes, mut body: impl Arriving, bytes_max: usize) -> Result<Bytes, ServeError> {
    let mut start = first.to_vec();
    while start.len() < PREFIX_BYTES {
        let Some(frame) = next_frame(&mut body).await? else { return Err(cut_short()) };
        start.extend_from_slice(&frame);
    }
    let length = length_of(&start, bytes_max)?;
    let first = Bytes::from(start).slice(PREFIX_BYTES..);
    match first.len() >= length {
        true => whole(first, length, &mut body).await,
        false => land(Landing::new(length, None), first, body, length).await,
    }
}

async fn land(
    mut landing: Landing,
    first: Bytes,
    mut body: impl Arriving,
    length: usize,
) -> Result<Bytes, ServeError> {
    landing.take(&first);
    while landing.len() < length {
        let Some(frame) = next_frame(&mut body).await? else { return Err(cut_short()) };
        landing.take(&frame);
    }
    whole(landing.finish(), length, &mut body).await
}

async fn whole(bytes: Bytes, length: usize, body: &mut impl Arriving) -> Result<Bytes, ServeError> {
    let more = bytes.len() > length || next_frame(body).await?.is_some();
    if more {
        return Err(ServeError::invalid("a unary call carries one message; there was more"));
    }
    Ok(bytes)
}

fn length_of(mut prefix: &[u8], bytes_max: usize) -> Result<usize, ServeError> {
    if prefix.get_u8() != 0 {
        return Err(ServeError::invalid("the message is compressed, but no grpc-encoding says how"));
    }
    let length = prefix.get_u32() as usize;
    if length > bytes_max {
        return Err(ServeError::new(
            ErrorKind::TooLarge,
            format!("the message has {length} bytes, the limit is {bytes_max}"),
        ));
    }
    Ok(length)
}

fn cut_short() -> ServeError {
    ServeError::invalid("the call ended before its message did")
}

/// The number of `raw_input_contents` in `ModelInferRequest`.
const RAW_INPUT_CONTENTS: u32 = 7;

/// Where the bytes of the first raw tensor begin, if the part of the message that is here tells.
fn raw_tensor_offset(part: &[u8]) -> Option<usize> {
    let mut rest = part;
    loop {
        let (field, wire_type) = decode_key(&mut rest).ok()?;
        let length = match wire_type {
            WireType::LengthDelimited => usize::try_from(decode_varint(&mut rest).ok()?).ok()?,
            _ => return None,
        };
        if field == RAW_INPUT_CONTENTS {
            return Some(part.len() - rest.len());
        }
        rest = rest.get(length..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::inference as pb;
    use prost::Message as _;

    #[test]
    fn the_first_raw_tensor_is_found_in_the_head_of_a_message() {
        let request = pb::ModelInferRequest {
            model_name: "m".into(),
            inputs: vec![pb::model_infer_request::InferInputTensor {
                name: "x".into(),
                shape: vec![1, 300],
                ..Default::default()
            }],
            raw_input_contents: vec![Bytes::from(vec![7; 1200]), Bytes::from(vec![8; 3])],
            ..Default::default()
        };
        let bytes = request.encode_to_vec();
        let offset = raw_tensor_offset(&bytes[..64]).unwrap();
        assert!(bytes[offset..offset + 1200].iter().all(|byte| *byte == 7));
        assert_ne!(bytes[offset - 1], 7);
        let typed = pb::ModelInferRequest { raw_input_contents: vec![], ..request };
        assert_eq!(raw_tensor_offset(&typed.encode_to_vec()), None);
        assert_eq!(raw_tensor_offset(&[0xff; 64]), None);
    }

    #[test]
    fn a_prefix_tells_the_length_within_the_limit() {
        assert_eq!(length_of(&[0, 0, 0, 1, 2], 258).unwrap(), 258);
        assert_eq!(length_of(&[0, 0, 0, 1, 2], 257).unwrap_err().kind(), ErrorKind::TooLarge);
        assert!(length_of(&[1, 0, 0, 0, 0], 9).unwrap_err().message().contains("compressed"));
    }
}
