//! Unary gRPC calls over HTTP/2, in clear text and without an upgrade.
//!
//! Always: a call succeeded only if its trailers say `grpc-status: 0`; head and body of a request leave in one write.
//! That is why h2 is used here and not hyper's client, which sends them apart: it cost the generator 17 µs a call, and
//! the server two reads of each.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use h2::RecvStream;
use h2::client::{Builder, ResponseFuture, SendRequest};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use percent_encoding::percent_decode_str;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::{CONNECT_TIME, INFER};
use crate::bench::tally::Failure;

/// Bytes that a server may send before it hears that they were read: large answers must not wait for that.
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;

/// A connection that carries many calls at once.
pub struct Channel {
    address: SocketAddr,
    uri: Uri,
    headers: HeaderMap,
    open: RefCell<Option<Open>>,
    /// Held while the connection is opened: others wait for it.
    opening: Mutex<()>,
    opened: Cell<bool>,
    reopened: Cell<u64>,
}

/// A connection that was opened.
#[derive(Clone)]
struct Open {
    sender: SendRequest<Bytes>,
    /// Whether it takes no more calls.
    closed: Arc<AtomicBool>,
}

impl Channel {
    /// For predictions; opened by the first of them.
    pub fn for_predictions(address: SocketAddr, host: &str) -> Self {
        Self::new(address, host, INFER)
    }

    /// For calls of one method.
    pub(super) fn new(address: SocketAddr, host: &str, method: &str) -> Self {
        let uri = Uri::builder().scheme("http").authority(host).path_and_query(method).build();
        let mut headers = HeaderMap::new();
        headers.insert("te", HeaderValue::from_static("trailers"));
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let agent = concat!("weir-bench/", env!("CARGO_PKG_VERSION"));
        headers.insert(http::header::USER_AGENT, HeaderValue::from_static(agent));
        Self {
            address,
            uri: uri.expect("hosts are checked and methods are ours"),
            headers,
            open: RefCell::default(),
            opening: Mutex::default(),
            opened: Cell::new(false),
            reopened: Cell::new(0),
        }
    }

    /// Sends a message behind its prefix and waits for the answer.
    pub async fn infer(&self, message: &Bytes) -> Result<(), Failure> {
        self.exchange(message, 0).await.map(|_| ())
    }

    /// Sends a message behind its prefix and gives the one that answers, the first `keep` bytes with its prefix.
    pub(super) async fn exchange(&self, message: &Bytes, keep: usize) -> Result<Bytes, Failure> {
        let response = self.send(message).await?.await.map_err(Failure::connection)?;
        if response.status() != 200 {
            return Err(Failure::new(
                response.status().as_str().to_owned(),
                "not the answer of a gRPC server",
            ));
        }
        // An error before the first message comes with the headers alone.
        if let Some(outcome) = status(response.headers()) {
            outcome?;
        }
        message_of(response.into_body(), keep).await
    }

    /// How often it was opened again since this was asked last.
    pub fn reopened(&self) -> u64 {
        self.reopened.take()
    }

    async fn send(&self, message: &Bytes) -> Result<ResponseFuture, Failure> {
        let Open { sender, closed } = self.connected().await?;
        let sent = async {
            // The server says how many calls it takes at once; the others wait here.
            let mut sender = sender.ready().await?;
            let mut request = Request::new(());
            *request.method_mut() = Method::POST;
            *request.uri_mut() = self.uri.clone();
            *request.version_mut() = Version::HTTP_2;
            *request.headers_mut() = self.headers.clone();
            let (response, mut body) = sender.send_request(request, false)?;
            // What the server has no room for yet waits in memory; it is a handle of bytes that are there anyway.
            body.send_data(message.clone(), true)?;
            Ok(response)
        };
        sent.await.map_err(|error: h2::Error| {
            closed.store(true, Ordering::Relaxed);
            Failure::connection(error)
        })
    }

    async fn connected(&self) -> Result<Open, Failure> {
        if let Some(open) = self.usable() {
            return Ok(open);
        }
        let _opening = self.opening.lock().await;
        // Somebody else may have opened it meanwhile.
        if let Some(open) = self.usable() {
            return Ok(open);
        }
        let open = self.connect().await?;
        self.reopened.set(self.reopened.get() + u64::from(self.opened.replace(true)));
        *self.open.borrow_mut() = Some(open.clone());
        Ok(open)
    }

    #[cfg(test)]
    pub(super) fn is_closed(&self) -> bool {
        self.usable().is_none()
    }

    fn usable(&self) -> Option<Open> {
        self.open.borrow().as_ref().filter(|open| !open.closed.load(Ordering::Relaxed)).cloned()
    }

    async fn connect(&self) -> Result<Open, Failure> {
        let connecting = tokio::time::timeout(CONNECT_TIME, TcpStream::connect(self.address)).await;
        let stream = connecting.map_err(Failure::connection)?.map_err(Failure::connection)?;
        stream.set_nodelay(true).map_err(Failure::connection)?;
        let (sender, connection) = Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .enable_push(false)
            .handshake(stream)
            .await
            .map_err(Failure::connection)?;
        let closed = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&closed);
        tokio::spawn(async move {
            // What it says of errors, the calls say too.
            let _ = connection.await;
            ended.store(true, Ordering::Relaxed);
        });
        Ok(Open { sender, closed })
    }
}

/// Reads a body up to its trailers; gives the message in it.
async fn message_of(mut body: RecvStream, keep: usize) -> Result<Bytes, Failure> {
    let mut received = 0;
    let mut kept = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(Failure::connection)?;
        body.flow_control().release_capacity(data.len()).map_err(Failure::connection)?;
        received += data.len();
        kept.extend_from_slice(&data[..data.len().min(keep.saturating_sub(kept.len()))]);
    }
    let trailers = body.trailers().await.map_err(Failure::connection)?;
    let outcome = trailers.as_ref().and_then(status);
    outcome.ok_or_else(|| Failure::connection("the answer ended without a grpc-status"))??;
    // One byte tells of compression, four of the length.
    if received < 5 {
        return Err(Failure::connection("the answer has no message"));
    }
    kept.drain(..kept.len().min(5));
    Ok(kept.into())
}

/// What headers say of how a call ended; none when they do not say.
fn status(headers: &HeaderMap) -> Option<Result<(), Failure>> {
    let code = headers.get("grpc-status")?;
    if code == "0" {
        return Some(Ok(()));
    }
    let message = headers.get("grpc-message").map_or(&b""[..], HeaderValue::as_bytes);
    let message = String::from_utf8_lossy(message);
    let message = percent_decode_str(&message).decode_utf8_lossy();
    Some(Err(Failure::new(name(code.to_str().unwrap_or("?")), &message)))
}

/// Names of the codes, in their order; source: grpc/doc/statuscodes.md.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

fn name(code: &str) -> &'static str {
    code.parse().ok().and_then(|code: usize| CODES.get(code)).unwrap_or(&"UNKNOWN")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn trailers_tell_how_a_call_ended() {
        assert!(status(&headers(&[("other", "1")])).is_none());
        assert!(status(&headers(&[("grpc-status", "0")])).unwrap().is_ok());
        for (code, message, expected) in [
            ("8", "queue%20is%20full", ("RESOURCE_EXHAUSTED", "queue is full")),
            ("99", "", ("UNKNOWN", "")),
            ("x", "a\tb", ("UNKNOWN", "a b")),
        ] {
            let failure = status(&headers(&[("grpc-status", code), ("grpc-message", message)])).unwrap();
            let failure = failure.unwrap_err();
            assert_eq!((failure.status.as_ref(), failure.message.as_str()), expected);
        }
    }
}
