//! The body of an answer whose bytes are all there: one chunk, or several, so that large tensors go out from where they
//! lie.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use hyper::body::{Body, Frame, SizeHint};
use smallvec::SmallVec;

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Chunks, and after them the trailer that tells a gRPC client that its call went well.
#[derive(Debug, Default)]
pub struct Chunks {
    /// In reverse.
    waiting: SmallVec<[Bytes; 3]>,
    bytes: u64,
    status: bool,
}

impl Chunks {
    pub fn new(chunks: impl IntoIterator<Item = Bytes>) -> Self {
        let mut waiting: SmallVec<[Bytes; 3]> =
            chunks.into_iter().filter(|chunk| !chunk.is_empty()).collect();
        waiting.reverse();
        let bytes = waiting.iter().map(|chunk| chunk.len() as u64).sum();
        Self { waiting, bytes, status: false }
    }

    /// With the trailer of a gRPC call that went well.
    pub fn with_status(self) -> Self {
        Self { status: true, ..self }
    }
}

impl From<Bytes> for Chunks {
    fn from(bytes: Bytes) -> Self {
        Self::new([bytes])
    }
}

impl From<String> for Chunks {
    fn from(text: String) -> Self {
        Self::new([Bytes::from(text)])
    }
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(chunk) = self.waiting.pop() {
            self.bytes -= chunk.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        if !std::mem::take(&mut self.status) {
            return Poll::Ready(None);
        }
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(&GRPC_STATUS, HeaderValue::from_static("0"));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_empty() && !self.status
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn chunks_come_in_order_and_the_status_last() {
        let body = Chunks::new(["ab", "", "c"].map(Bytes::from)).with_status();
        assert_eq!(body.size_hint().exact(), Some(3));
        let collected = body.collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(collected.to_bytes(), "abc");
        assert!(Chunks::default().is_end_stream());
        assert!(Chunks::from(Bytes::from_static(b"x")).collect().await.unwrap().trailers().is_none());
    }
}
