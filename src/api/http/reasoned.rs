//! Gives the answers a reason that hyper gives by itself.
//!
//! A request that hyper cannot read never comes to us: it answers with a status and nothing else. Every other refusal of
//! this server says why, and clients read it as JSON.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::api::watch::WatchedIo;

/// How an answer of hyper's own begins, but for its status, and what it has in place of a body.
const REFUSAL: &[u8] = b"HTTP/1.1 4";
const NO_BODY: &str = "content-length: 0\r\n";

/// Answers of ours that are under way on a connection: while there are any, nothing that is written is hyper's own, whatever
/// a client has had us write.
#[derive(Debug, Clone, Default)]
pub struct Answers(Arc<AtomicUsize>);

impl Answers {
    /// A request has come, and will be answered by us.
    pub fn begin(&self) -> Answer {
        self.0.fetch_add(1, Ordering::AcqRel);
        Answer(Arc::clone(&self.0))
    }

    fn any(&self) -> bool {
        self.0.load(Ordering::Acquire) > 0
    }
}

/// An answer of ours, until its body has been taken.
pub struct Answer(Arc<AtomicUsize>);

impl Answer {
    /// The body that it ends with.
    pub fn with<B>(self, body: B) -> Answered<B> {
        Answered { body, _answer: self }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The body of an answer of ours.
pub struct Answered<B> {
    body: B,
    _answer: Answer,
}

impl<B: Body + Unpin> Body for Answered<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What a connection of HTTP/1 is read from and written to.
pub struct Reasoned {
    io: WatchedIo,
    answers: Answers,
    /// Something of an answer of ours may wait in hyper: it was not all flushed since one was under way.
    ours: bool,
    /// Of an answer that was given a reason, what is still to be written.
    rest: Bytes,
}

impl Reasoned {
    pub fn new(io: WatchedIo, answers: Answers) -> Self {
        Self { io, answers, ours: false, rest: Bytes::new() }
    }

    /// What is to be written in place of these bytes, if they are an answer of hyper's own.
    fn own(&mut self, bytes: &[u8]) -> Option<Bytes> {
        self.ours |= self.answers.any();
        let own = if self.ours { None } else { with_reason(bytes) };
        // What else is written is ours, or the rest of it.
        self.ours |= own.is_none();
        own
    }

    pub fn into_inner(self) -> WatchedIo {
        self.io
    }

    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.rest.has_remaining() {
            let written = ready!(Pin::new(&mut self.io).poll_write(context, &self.rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.rest.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

/// The same answer with a reason, if it is one of hyper's own.
fn with_reason(answer: &[u8]) -> Option<Bytes> {
    if !answer.starts_with(REFUSAL) {
        return None;
    }
    let head = std::str::from_utf8(answer).ok().filter(|head| head.ends_with("\r\n\r\n"))?;
    let reason = match head.get(9..12)? {
        "414" => "the request's target is too long",
        "431" => {
            "the request's line and headers are larger, or more, than --max-header-bytes and --max-headers allow"
        }
        _ => "the request is not HTTP/1.1 as RFC 9112 has it: its line, a header, or how its length is told",
    };
    let body = format!("{{\"error\":\"{reason}\"}}");
    let told = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    let (before, after) = head.split_once(NO_BODY)?;
    Some(format!("{before}{told}{after}{body}").into())
}

impl AsyncRead for Reasoned {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for Reasoned {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_rest(context))?;
        match self.own(bytes) {
            None => Pin::new(&mut self.io).poll_write(context, bytes),
            // Taken as a whole; what has no room yet goes with the flush.
            Some(answer) => {
                self.rest = answer;
                Poll::Ready(Ok(bytes.len()))
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match slices {
            // An answer without a body is one piece.
            [only] if only.starts_with(REFUSAL) => self.poll_write(context, only),
            _ => {
                ready!(self.poll_rest(context))?;
                self.ours = true;
                Pin::new(&mut self.io).poll_write_vectored(context, slices)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rest(context))?;
        ready!(Pin::new(&mut self.io).poll_flush(context))?;
        // hyper asks for it when it has nothing left to write.
        self.ours = self.answers.any();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rest(context))?;
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::api::stream::Stream;

    #[test]
    fn answers_without_a_body_get_a_reason_and_others_stay() {
        let own = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        let told = String::from_utf8(with_reason(own.as_bytes()).unwrap().to_vec()).unwrap();
        let (head, body) = told.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("connection: close\r\ncontent-type: application/json\r\n"), "{head}");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
        assert!(body.starts_with(r#"{"error":"the request's line and headers"#), "{body}");
        for other in [
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 12\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK",
        ] {
            assert_eq!(with_reason(other.as_bytes()), None, "{other}");
        }
    }

    #[tokio::test]
    async fn while_an_answer_of_ours_is_under_way_nothing_is_hypers_own() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let io = WatchedIo::new(Stream::Plain(client.into()), Arc::default(), Bytes::new());
        let answers = Answers::default();
        let mut connection = Reasoned::new(io, answers.clone());
        // As an output may read that a client has chosen.
        let text = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
        let answer = answers.begin();
        assert_eq!(connection.own(text), None);
        drop(answer);
        assert_eq!(connection.own(text), None, "the rest of it may wait in hyper");
        connection.flush().await.unwrap();
        assert!(connection.own(text).is_some());
    }
}
