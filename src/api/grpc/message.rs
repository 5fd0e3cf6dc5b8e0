//! The messages of a call, read by hand: the only one of a unary call, or those of a stream.
//!
//! Always: nothing is allocated by a length that a client named, beyond what [`Landing`] sets aside.

use bytes::{Buf, Bytes};
use prost::encoding::{WireType, decode_key, decode_varint};

use crate::api::convert::PREFIX_BYTES;
use crate::api::http::coding::{Coding, Unpacking};
use crate::api::http::unpacked;
use crate::api::incoming::Incoming;
use crate::api::landing::{Landing, next_frame};
use crate::error::{ErrorKind, ServeError};
use crate::serve::Held;

/// What messages may be, and how those that say so are compressed.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    pub bounds: Unpacking,
    pub coding: Option<Coding>,
}

/// Reads the only message of a call.
///
/// Cost: no copy of a message that came in one frame; one of any other, which lands so that its first raw tensor can
/// be run where it lies. Errors: it is too long, cut short, compressed in a way that was not told, there is more than
/// one, or too much is in flight as it is counted into `held`.
pub async fn read(mut body: Incoming, form: Form, held: &mut Held) -> Result<Bytes, ServeError> {
    let Some(first) = next_frame(&mut body).await? else { return Err(cut_short()) };
    let (message, rest) = read_from(first, &mut body, form, held).await?;
    let more = !rest.is_empty() || next_frame(&mut body).await?.is_some();
    if more {
        return Err(ServeError::invalid("a unary call carries one message; there was more"));
    }
    Ok(message)
}

/// The messages of a stream, one after the other.
pub struct Messages {
    body: Incoming,
    form: Form,
    /// What came of the next message.
    rest: Bytes,
}

impl Messages {
    pub fn new(body: Incoming, form: Form) -> Self {
        Self { body, form, rest: Bytes::new() }
    }

    /// The next message, `None` after the last one; as [`read`] otherwise. A client may let us wait between messages,
    /// not within one.
    pub async fn next(&mut self, held: &mut Held) -> Result<Option<Bytes>, ServeError> {
        if self.rest.is_empty() {
            self.body.set_unhurried(true);
            let Some(frame) = next_frame(&mut self.body).await? else { return Ok(None) };
            self.rest = frame;
        }
        self.body.set_unhurried(false);
        let first = std::mem::take(&mut self.rest);
        let (message, rest) = read_from(first, &mut self.body, self.form, held).await?;
        self.rest = rest;
        Ok(Some(message))
    }
}

/// A message, and what came after it in its last frame.
async fn read_from(
    first: Bytes,
    body: &mut Incoming,
    form: Form,
    held: &mut Held,
) -> Result<(Bytes, Bytes), ServeError> {
    let mut first = first;
    // Some clients send less than a prefix at a time.
    while first.len() < PREFIX_BYTES {
        let Some(frame) = next_frame(body).await? else { return Err(cut_short()) };
        first = [&first[..], &frame].concat().into();
    }
    let (compressed, length) = prefix(&first, form.bounds.bytes_max)?;
    let coding = match (compressed, form.coding) {
        (false, _) => None,
        (true, Some(coding)) => Some(coding),
        (true, None) => {
            return Err(ServeError::invalid("the message is compressed, but no grpc-encoding says how"));
        }
    };
    first.advance(PREFIX_BYTES);
    let (message, rest) = match first.len() >= length {
        true => {
            held.cover(length)?;
            let message = first.split_to(length);
            (message, first)
        }
        false => land(first, body, length, held).await?,
    };
    match coding {
        None => Ok((message, rest)),
        Some(coding) => Ok((unpacked(coding, message, form.bounds, held).await?, rest)),
    }
}

async fn land(
    first: Bytes,
    body: &mut Incoming,
    length: usize,
    held: &mut Held,
) -> Result<(Bytes, Bytes), ServeError> {
    let mut landing = Landing::new(length, raw_tensor_offset(&first));
    held.cover(first.len())?;
    landing.take(&first);
    loop {
        let Some(mut frame) = next_frame(body).await? else { return Err(cut_short()) };
        held.cover(landing.len() + frame.len())?;
        let missing = length - landing.len();
        if frame.len() >= missing {
            landing.take(&frame.split_to(missing));
            return Ok((landing.finish(), frame));
        }
        landing.take(&frame);
    }
}

/// Whether a message is compressed, and its length.
fn prefix(mut prefix: &[u8], bytes_max: usize) -> Result<(bool, usize), ServeError> {
    let compressed = match prefix.get_u8() {
        0 => false,
        1 => true,
        other => {
            return Err(ServeError::invalid(format!(
                "a message begins with 0 or 1, which tells whether it is compressed, not with {other}"
            )));
        }
    };
    let length = prefix.get_u32() as usize;
    if length > bytes_max {
        return Err(ServeError::new(
            ErrorKind::TooLarge,
            format!("the message has {length} bytes, the limit is {bytes_max}"),
        ));
    }
    Ok((compressed, length))
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
        assert_eq!(prefix(&[0, 0, 0, 1, 2], 258).unwrap(), (false, 258));
        assert_eq!(prefix(&[1, 0, 0, 0, 0], 9).unwrap(), (true, 0));
        assert_eq!(prefix(&[0, 0, 0, 1, 2], 257).unwrap_err().kind(), ErrorKind::TooLarge);
        assert!(prefix(&[2, 0, 0, 0, 0], 9).unwrap_err().message().contains("not with 2"));
    }
}
