//! One connection of the HTTP port, HTTP/1 or HTTP/2 as the client begins it.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Method, Request, Response};
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::reasoned::{Answers, Reasoned};
use crate::api::http2::{Allowance, Answering, Connection};
use crate::api::incoming::Incoming;
use crate::api::limits::HeadLimits;
use crate::api::listener::{Accepted, Drain};
use crate::api::stream::Stream;
use crate::api::watch::{Connected, Protocol, Vitals, WatchedIo, drive};

/// What an HTTP/2 client says first (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The answer to a request whose head does not come.
const SLOW_HEAD: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\ncontent-length: 49\r\n\
    connection: close\r\n\r\n{\"error\":\"the head of the request did not come\"}\n";

/// Number of headers that hyper has room for without an allocation for each request.
const HEADERS_ON_THE_STACK: usize = 100;

/// A body that can be sent by either protocol.
pub trait Sendable:
    hyper::body::Body<Data = Bytes, Error: Into<BoxError> + Send + Sync> + Send + Unpin + 'static
{
}

impl<B: hyper::body::Body<Data = Bytes, Error: Into<BoxError> + Send + Sync> + Send + Unpin + 'static>
    Sendable for B
{
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Drives one connection to its end. `serve` answers each request.
pub async fn connection<S, F, B>(accepted: Accepted, drain: Drain, allowance: Allowance, serve: S)
where
    S: Fn(Request<Incoming>) -> F + Send + Unpin + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Sendable,
{
    let begun_at = std::time::Instant::now();
    let mut stream = accepted.stream;
    let times = allowance.limits.times;
    let pace = times.body;
    let mut first = Vec::new();
    let mut draining = drain.clone();
    let protocol = tokio::select! {
        biased;
        told = timeout(times.head, protocol(&mut stream, &mut first)) => told,
        () = draining.silence_over() => return,
    };
    let vitals = Arc::new(Vitals::default());
    let io = WatchedIo::new(stream, Arc::clone(&vitals), first.into());
    let counted = Arc::clone(&vitals);
    match protocol {
        // Whoever says nothing at all is told nothing.
        Err(_) if io.is_untouched() => {}
        Err(_) => io.last_words(SLOW_HEAD),
        Ok(None) => {}
        Ok(Some(Protocol::Http1)) => {
            let io = io.half_closing();
            let answers = Answers::default();
            let under_way = answers.clone();
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let (call, ours) = (counted.call(), under_way.begin());
                let answer = serve(request.map(|body| Incoming::http1(body, pace)));
                Box::pin(async move {
                    let answer = answer.await.map(|body| ours.with(body));
                    drop(call);
                    Ok::<_, Infallible>(answer)
                })
            });
            let connection = Http1(
                builder(allowance.limits.head)
                    .serve_connection(TokioIo::new(Reasoned::new(io, answers)), service),
            );
            drive(connection, &vitals, Protocol::Http1, times, drain, begun_at).await;
        }
        Ok(Some(Protocol::Http2)) => {
            let connection = Connection::new(
                io.framed(),
                Arc::clone(&vitals),
                allowance,
                move |request, answering: Answering| {
                    let call = counted.call();
                    let head_alone = request.method() == Method::HEAD;
                    let answer = serve(request);
                    // In a box, because tokio moves what it runs several times.
                    tokio::spawn(Box::pin(async move {
                        let answer = async { for_http2(answer.await, head_alone) };
                        answering.with(pin!(answer)).await;
                        drop(call);
                    }));
                },
            );
            drive(connection, &vitals, Protocol::Http2, times, drain, begun_at).await;
        }
    }
}

/// What the client speaks, by its first bytes, which are put into `first`. `None`: it has gone.
async fn protocol(stream: &mut Stream, first: &mut Vec<u8>) -> Option<Protocol> {
    while first.len() < PREFACE.len() {
        let mut bytes = [0; PREFACE.len()];
        let room = PREFACE.len() - first.len();
        match stream.read(&mut bytes[..room]).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => first.extend_from_slice(&bytes[..read]),
        }
        if !PREFACE.starts_with(first) {
            return Some(Protocol::Http1);
        }
    }
    Some(Protocol::Http2)
}

fn builder(limits: HeadLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // The connection's own timer looks after slow heads; hyper's would be set for each request.
    builder.header_read_timeout(None).max_header_size(limits.bytes_max as usize);
    if limits.count_max != HEADERS_ON_THE_STACK {
        builder.max_headers(limits.count_max);
    }
    builder
}

/// What hyper does for HTTP/1 by itself: the length, and no body in an answer to HEAD.
fn for_http2<B: Sendable>(answer: Response<B>, head_alone: bool) -> Response<MaybeBody<B>> {
    let (mut head, body) = answer.into_parts();
    if let Some(length) = body.size_hint().exact() {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    Response::from_parts(head, MaybeBody((!head_alone).then_some(body)))
}

/// A body, or none.
struct MaybeBody<B>(Option<B>);

impl<B: Sendable> hyper::body::Body for MaybeBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, B::Error>>> {
        match &mut self.0 {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|body| body.is_end_stream())
    }
}

/// A connection of hyper's.
struct Http1<S: HttpService<hyper::body::Incoming>>(http1::Connection<TokioIo<Reasoned>, S>);

impl<S, B> Connected for Http1<S>
where
    S: HttpService<hyper::body::Incoming, ResBody = B> + Unpin,
    S::Future: Unpin,
    S::Error: Into<BoxError>,
    B: Sendable,
{
    fn shut_down(&mut self) {
        Pin::new(&mut self.0).graceful_shutdown();
    }

    fn give_up(self) {
        self.0.into_parts().io.into_inner().into_inner().last_words(SLOW_HEAD);
    }
}

impl<S, B> Future for Http1<S>
where
    S: HttpService<hyper::body::Incoming, ResBody = B> + Unpin,
    S::Future: Unpin,
    S::Error: Into<BoxError>,
    B: Sendable,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.get_mut().0).poll(context).map(drop)
    }
}
