//! Where a body comes together that arrives in pieces.
//!
//! Always: nothing is allocated by a length that a client named, beyond [`AHEAD_BYTES`].

use std::io::ErrorKind as ErrorKindOfIo;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body;

use super::incoming::BodyError;
use crate::error::{ErrorKind, ServeError};

/// A body that arrives in pieces, whatever brings it.
pub trait Arriving:
    Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin
{
}

impl<B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin> Arriving for B {}

/// The next bytes of a body; none are empty. Errors: the client went away, or what it sent is malformed.
pub async fn next_frame(body: &mut impl Arriving) -> Result<Option<Bytes>, ServeError> {
    while !body.is_end_stream() {
        match body.frame().await {
            None => return Ok(None),
            Some(Err(error)) => return Err(broken_body(&*error.into())),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if !data.is_empty() => return Ok(Some(data)),
                Ok(_) | Err(_) => {}
            },
        }
    }
    Ok(None)
}

/// Session calls want tensors on addresses that are a multiple of this; see `backend::onnx`.
const ALIGNMENT: usize = 64;

/// Bytes that are set aside before any has come. A tensor of a megabyte then lands where it stays.
const AHEAD_BYTES: usize = 2 << 20;

/// A buffer that grows with what arrives.
pub struct Landing {
    buffer: Vec<u8>,
    /// Unused bytes at the front, so that the tensor is aligned.
    margin: usize,
}

impl Landing {
    /// For a body that is said to be `length` bytes long, with a tensor at `tensor_offset`: unless the buffer has to
    /// move as it grows, that tensor can be run where it lies.
    pub fn new(length: usize, tensor_offset: Option<usize>) -> Self {
        let mut buffer: Vec<u8> = Vec::with_capacity(length.min(AHEAD_BYTES) + ALIGNMENT);
        let tensor = buffer.as_ptr() as usize + tensor_offset.unwrap_or(0) % ALIGNMENT;
        let margin = tensor.next_multiple_of(ALIGNMENT) - tensor;
        buffer.resize(margin, 0);
        Self { buffer, margin }
    }

    pub fn take(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that have arrived.
    pub fn len(&self) -> usize {
        self.buffer.len() - self.margin
    }

    /// The body. Cost: no copy.
    pub fn finish(self) -> Bytes {
        Bytes::from(self.buffer).slice(self.margin..)
    }
}

/// A body that ended early was given up by its client; any other fault in it is the client's mistake.
pub fn broken_body(error: &(dyn std::error::Error + 'static)) -> ServeError {
    if let Some(slow @ BodyError::TooSlow(_)) = error.downcast_ref() {
        return ServeError::new(ErrorKind::TooSlow, slow.to_string());
    }
    let gone = std::iter::successors(Some(error), |error| error.source()).any(|error| {
        let http = error.downcast_ref::<hyper::Error>();
        let http2 = error.downcast_ref::<h2::Error>();
        let io = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        http.is_some_and(|e| e.is_incomplete_message() || e.is_closed() || e.is_canceled())
            || http2.is_some_and(|e| e.is_io() || e.is_remote())
            || matches!(
                io,
                Some(
                    ErrorKindOfIo::UnexpectedEof | ErrorKindOfIo::ConnectionReset | ErrorKindOfIo::BrokenPipe
                )
            )
    });
    match gone {
        true => ServeError::new(ErrorKind::Cancelled, "the request's body ended early"),
        false => ServeError::invalid("the request's body is malformed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_lands_aligned_and_whole() {
        for (offset, length) in [(0, 200), (1, 200), (63, 4096), (64, 65), (129, 1_000_000)] {
            let sent: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let mut landing = Landing::new(length, Some(offset));
            sent.chunks(77).for_each(|chunk| landing.take(chunk));
            assert_eq!(landing.len(), length);
            let landed = landing.finish();
            assert_eq!(landed, sent);
            assert_eq!(landed[offset..].as_ptr() as usize % ALIGNMENT, 0, "offset {offset}");
        }
    }

    #[test]
    fn a_length_that_a_client_names_is_not_set_aside() {
        assert!(Landing::new(usize::MAX - ALIGNMENT, None).buffer.capacity() < 2 * AHEAD_BYTES);
    }
}
