//! One HTTP/2 connection, of gRPC calls or of requests to the HTTP port.
//!
//! Directly on h2: hyper's server above it takes a twentieth of the processor time of a small prediction
//! (benches/RESULTS.md).
//! Always: each call is a task of its own, which ends when its client resets it or is gone; one that panics takes no
//! other with it. The next part of an answer is taken from its body when the client has made room, and a client that
//! makes none for long enough is given up.
//! Not here: what is answered.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use h2::server::{Builder, Handshake, SendResponse};
use h2::{Ping, PingPong, Reason, SendStream};
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use hyper::body::Body;
use tokio::time::timeout;

use super::incoming::Incoming;
use super::limits::WireLimits;
use super::watch::{Connected, Vitals, WatchedIo};

/// Flow-control windows. HTTP/2's default of 64 KiB makes a tensor of a megabyte wait for sixteen round trips.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// Bytes of an answer that h2 counts as room even before the client has made any.
const SEND_BUFFER_BYTES: usize = 400 << 10;

/// What a connection allows its client.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    pub streams_max: u32,
    pub limits: WireLimits,
}

/// A connection: to be polled to its end.
pub struct Connection<S> {
    state: State,
    pings: Option<PingPong>,
    /// Whether a ping is under way.
    pinged: bool,
    vitals: Arc<Vitals>,
    limits: WireLimits,
    /// Is given each call.
    serve: S,
}

enum State {
    /// `closing`: it is to end after the calls that come with it.
    Beginning {
        handshake: Handshake<WatchedIo, Bytes>,
        closing: bool,
    },
    Open(h2::server::Connection<WatchedIo, Bytes>),
}

impl<S: FnMut(Request<Incoming>, Answering) + Unpin> Connection<S> {
    pub fn new(io: WatchedIo, vitals: Arc<Vitals>, allowance: Allowance, serve: S) -> Self {
        let Allowance { streams_max, limits } = allowance;
        let mut builder = Builder::new();
        builder
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(limits.head.bytes_max)
            .max_send_buffer_size(SEND_BUFFER_BYTES)
            .max_concurrent_streams(streams_max)
            // A client that cancels many calls at once is hedging, not attacking, up to a full house of them.
            .max_pending_accept_reset_streams(streams_max as usize);
        let handshake = builder.handshake(io);
        let state = State::Beginning { handshake, closing: false };
        Self { state, pings: None, pinged: false, vitals, limits, serve }
    }

    fn take(&mut self, request: Request<h2::RecvStream>, mut answer: SendResponse<Bytes>) {
        if request.headers().len() > self.limits.head.count_max {
            // The connection is the client's affair; it may have ended by now.
            let _ = refuse_head(&request, &mut answer, self.limits.head.count_max);
            return;
        }
        let pace = self.limits.times.body;
        let answering =
            Answering { to: answer, vitals: Arc::clone(&self.vitals), patience: self.limits.times.write };
        (self.serve)(request.map(|body| Incoming::http2(body, pace)), answering);
    }
}

/// Answers a request that has more headers than are read. A gRPC client is told in its own way.
fn refuse_head<B>(
    request: &Request<B>,
    to: &mut SendResponse<Bytes>,
    count_max: usize,
) -> Result<(), h2::Error> {
    let message = format!("the request has more than {count_max} headers");
    let kind = request.headers().get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let (mut answer, body) = (Response::new(()), format!(r#"{{"error":"{message}"}}"#));
    let headers = answer.headers_mut();
    if kind.starts_with(b"application/grpc") {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(GRPC_STATUS, HeaderValue::from(tonic::Code::InvalidArgument as i32));
        headers.insert(GRPC_MESSAGE, HeaderValue::try_from(message).expect("it is plain ASCII"));
        return to.send_response(answer, true).map(drop);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *answer.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    to.send_response(answer, false)?.send_data(body.into(), true)
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

impl<S: FnMut(Request<Incoming>, Answering) + Unpin> Connected for Connection<S> {
    fn shut_down(&mut self) {
        match &mut self.state {
            State::Beginning { closing, .. } => *closing = true,
            State::Open(open) => open.graceful_shutdown(),
        }
    }

    fn ping(&mut self) {
        // One that cannot be sent is not answered either, which is noticed.
        self.pinged = self.pings.as_mut().is_some_and(|pings| pings.send_ping(Ping::opaque()).is_ok());
    }

    fn give_up(self) {}
}

impl<S: FnMut(Request<Incoming>, Answering) + Unpin> Future for Connection<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                State::Beginning { handshake, closing } => match ready!(Pin::new(handshake).poll(context)) {
                    Ok(mut open) => {
                        this.pings = open.ping_pong();
                        if *closing {
                            open.graceful_shutdown();
                        }
                        this.vitals.open();
                        this.state = State::Open(open);
                    }
                    Err(_) => return Poll::Ready(()),
                },
                State::Open(open) => match open.poll_accept(context) {
                    Poll::Ready(Some(Ok((request, answer)))) => this.take(request, answer),
                    // A connection that breaks is the client's affair.
                    Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                    Poll::Pending => break,
                },
            }
        }
        if this.pinged
            && let Some(pings) = &mut this.pings
            && let Poll::Ready(Ok(_)) = pings.poll_pong(context)
        {
            this.pinged = false;
            this.vitals.pong();
        }
        Poll::Pending
    }
}

/// Where the answer to a call goes. Dropped unanswered, it tells the client that the call was cancelled.
pub struct Answering {
    to: SendResponse<Bytes>,
    vitals: Arc<Vitals>,
    /// How long the client may make no room for its answer.
    patience: Duration,
}

impl Answering {
    /// Answers with what `work` comes to, and drops it when the client gives the call up.
    pub async fn with<B>(mut self, mut work: Pin<&mut impl Future<Output = Response<B>>>)
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let answer = poll_fn(|context| match self.to.poll_reset(context) {
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => work.as_mut().poll(context).map(Some),
        });
        if let Some(answer) = answer.await
            && let Err(error) = self.send(answer).await
        {
            // Mostly the client has gone; its answer interests nobody.
            tracing::debug!("an answer was not sent: {error}");
        }
    }

    async fn send<B>(mut self, answer: Response<B>) -> Result<(), h2::Error>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (head, mut body) = answer.into_parts();
        let head = Response::from_parts(head, ());
        if body.is_end_stream() {
            return self.to.send_response(head, true).map(drop);
        }
        let mut stream = self.to.send_response(head, false)?;
        while let Some(frame) =
            unless_reset(&mut stream, |context| Pin::new(&mut body).poll_frame(context)).await?
        {
            let Ok(frame) = frame else {
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Ok(());
            };
            match frame.into_data() {
                Ok(data) => self.send_data(&mut stream, data).await?,
                Err(frame) => return stream.send_trailers(frame.into_trailers().unwrap_or_default()),
            }
        }
        stream.send_data(Bytes::new(), true)
    }

    /// Hands data on once the client has made some room, and leaves it to h2 to go on as there is more: the data is
    /// in memory anyway. Errors: the client made none in time, or gave the call up.
    async fn send_data(&self, stream: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
        while data.has_remaining() {
            let piece = data.len().min(PIECE_BYTES_MAX);
            stream.reserve_capacity(piece);
            while stream.capacity() == 0 {
                let Ok(room) = timeout(self.patience, poll_fn(|context| stream.poll_capacity(context))).await
                else {
                    stream.send_reset(Reason::CANCEL);
                    return Err(Reason::CANCEL.into());
                };
                room.ok_or(Reason::CANCEL)??;
            }
            let whole = stream.capacity() >= piece;
            let piece = data.split_to(piece);
            // What the client has no room for yet is kept an eye on.
            let piece = if whole { piece } else { self.vitals.unsent(piece) };
            stream.send_data(piece, false)?;
        }
        Ok(())
    }
}

/// h2 takes no more than 2^31 - 1 bytes at a time.
const PIECE_BYTES_MAX: usize = 1 << 30;

/// What `poll` comes to. Errors: the client gives the call up first.
async fn unless_reset<T>(
    stream: &mut SendStream<Bytes>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Result<T, h2::Error> {
    poll_fn(|context| match poll(context) {
        Poll::Ready(value) => Poll::Ready(Ok(value)),
        Poll::Pending => stream.poll_reset(context).map(|reason| Err(reason?.into())),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::chunks::Chunks;
    use crate::api::stream::Stream;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;

    /// What a client is answered, in two chunks and a trailer.
    const CHUNK: usize = 100_000;

    async fn answer(_: Request<Incoming>) -> Response<Chunks> {
        let chunk = |byte| Bytes::from(vec![byte; CHUNK]);
        Response::new(Chunks::new([chunk(1), chunk(2)]).with_status())
    }

    fn connection<S: FnMut(Request<Incoming>, Answering) + Unpin>(
        stream: TcpStream,
        serve: S,
    ) -> Connection<S> {
        let vitals = Arc::new(Vitals::default());
        let io = WatchedIo::new(Stream::Plain(stream.into()), Arc::clone(&vitals), Bytes::new());
        Connection::new(io, vitals, Allowance { streams_max: 8, limits: WireLimits::ample() }, serve)
    }

    /// A served connection, a client of it with windows of so many bytes, and word of each call that ended.
    async fn client(window: u32) -> (h2::client::SendRequest<Bytes>, mpsc::UnboundedReceiver<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (told, ended) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let told = Arc::new(told);
            connection(stream, move |request, answering: Answering| {
                let told = Arc::clone(&told);
                tokio::spawn(async move {
                    answering.with(std::pin::pin!(answer(request))).await;
                    let _ = told.send(());
                });
            })
            .await;
        });
        let stream = TcpStream::connect(address).await.unwrap();
        let mut builder = h2::client::Builder::new();
        let handshake = builder.initial_window_size(window).handshake(stream);
        let (client, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        (client, ended)
    }

    fn request() -> Request<()> {
        Request::post("http://weir/call").body(()).unwrap()
    }

    #[tokio::test]
    async fn a_client_with_a_small_window_is_answered_bit_by_bit() {
        let (mut client, mut ended) = client(7_000).await;
        // The request's body never ends, and nobody reads it.
        let (response, _body) = client.send_request(request(), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        let mut received = Vec::new();
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            received.extend_from_slice(&data);
        }
        assert!(received == [vec![1; CHUNK], vec![2; CHUNK]].concat(), "{} bytes", received.len());
        assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
        ended.recv().await.unwrap();
    }

    #[tokio::test]
    async fn a_call_that_is_given_up_while_its_answer_waits_for_room_ends() {
        let (mut client, mut ended) = client(7_000).await;
        let (response, _) = client.send_request(request(), true).unwrap();
        let body = response.await.unwrap().into_body();
        // The first chunk is on its way, the second waits.
        tokio::time::timeout(std::time::Duration::from_millis(50), ended.recv()).await.unwrap_err();
        drop(body);
        ended.recv().await.unwrap();
        // The connection goes on.
        let (response, _) = client.send_request(request(), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
    }

    #[tokio::test]
    async fn a_connection_that_is_to_end_while_it_begins_answers_what_comes_with_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let mut connection = connection(accepted, |request, answering: Answering| {
            tokio::spawn(async move { answering.with(std::pin::pin!(answer(request))).await });
        });
        connection.shut_down();
        let served = tokio::spawn(connection);
        let (mut client, driven) = h2::client::handshake(stream).await.unwrap();
        let (response, _) = client.send_request(request(), true).unwrap();
        tokio::spawn(driven);
        assert_eq!(response.await.unwrap().status(), 200);
        drop(client);
        served.await.unwrap();
    }
}
