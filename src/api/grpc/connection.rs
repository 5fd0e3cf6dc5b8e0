//! One HTTP/2 connection of gRPC calls.
//!
//! Directly on h2: hyper's server above it takes a tenth of the processor time of a small prediction (benches/RESULTS.md).
//! Always: each call is a task of its own, which ends when its client resets it or is gone; one that panics takes no other
//! with it. An answer is taken from its body only as fast as the client reads.
//! Not here: what is answered.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::server::{Builder, Handshake, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use hyper::body::{Body, Frame};
use tokio::net::TcpStream;

/// Flow-control windows. HTTP/2's default of 64 KiB makes a tensor of a megabyte wait for sixteen round trips.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// Names and values of a call's headers, with 32 bytes for each, as HTTP/2 counts them.
const HEADER_BYTES_MAX: u32 = 16 << 10;

/// Bytes of answers that a connection takes from their bodies ahead of what its client reads, for each call.
const SEND_BUFFER_BYTES: usize = 400 << 10;

/// A connection: to be polled to its end.
pub struct Connection<S> {
    state: State,
    /// Is given each call.
    serve: S,
}

enum State {
    Beginning(Handshake<TcpStream, Bytes>),
    Open(h2::server::Connection<TcpStream, Bytes>),
    Over,
}

impl<S: FnMut(Call) + Unpin> Connection<S> {
    pub fn new(stream: TcpStream, streams_max: u32, serve: S) -> Self {
        let mut builder = Builder::new();
        builder
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(HEADER_BYTES_MAX)
            .max_send_buffer_size(SEND_BUFFER_BYTES)
            .max_concurrent_streams(streams_max)
            // A client that cancels many calls at once is hedging, not attacking, up to a full house of them.
            .max_pending_accept_reset_streams(streams_max as usize);
        Self { state: State::Beginning(builder.handshake(stream)), serve }
    }

    /// Lets it end after the calls in flight.
    pub fn shut_down(self: Pin<&mut Self>) {
        let this = self.get_mut();
        match &mut this.state {
            State::Open(open) => open.graceful_shutdown(),
            _ => this.state = State::Over,
        }
    }
}

impl<S: FnMut(Call) + Unpin> Future for Connection<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                State::Beginning(handshake) => match ready!(Pin::new(handshake).poll(context)) {
                    Ok(open) => this.state = State::Open(open),
                    Err(_) => return Poll::Ready(()),
                },
                State::Open(open) => match ready!(open.poll_accept(context)) {
                    Some(Ok((request, answer))) => (this.serve)(Call { request, answer }),
                    // A connection that breaks is the client's affair.
                    Some(Err(_)) | None => return Poll::Ready(()),
                },
                State::Over => return Poll::Ready(()),
            }
        }
    }
}

/// A call that has arrived.
pub struct Call {
    pub request: Request<RecvStream>,
    answer: SendResponse<Bytes>,
}

impl Call {
    /// Splits it into what was asked, and where the answer goes.
    pub fn split(self) -> (Request<Incoming>, Answering) {
        (self.request.map(Incoming), Answering(self.answer))
    }
}

/// Where the answer to a call goes. Dropped unanswered, it tells the client that the call was cancelled.
pub struct Answering(SendResponse<Bytes>);

impl Answering {
    /// Answers with what `work` comes to, and drops it when the client gives the call up.
    pub async fn with<B>(mut self, mut work: Pin<&mut impl Future<Output = Response<B>>>)
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let answer = poll_fn(|context| match self.0.poll_reset(context) {
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => work.as_mut().poll(context).map(Some),
        });
        if let Some(answer) = answer.await {
            // The client has gone; its answer interests nobody.
            let _ = send(answer, self.0).await;
        }
    }
}

async fn send<B>(answer: Response<B>, mut to: SendResponse<Bytes>) -> Result<(), h2::Error>
where
    B: Body<Data = Bytes> + Unpin,
{
    let (head, mut body) = answer.into_parts();
    let head = Response::from_parts(head, ());
    if body.is_end_stream() {
        return to.send_response(head, true).map(drop);
    }
    let mut stream = to.send_response(head, false)?;
    while let Some(frame) =
        unless_reset(&mut stream, |context| Pin::new(&mut body).poll_frame(context)).await?
    {
        let Ok(frame) = frame else {
            stream.send_reset(Reason::INTERNAL_ERROR);
            return Ok(());
        };
        match frame.into_data() {
            Ok(data) => send_data(&mut stream, data).await?,
            Err(frame) => return stream.send_trailers(frame.into_trailers().unwrap_or_default()),
        }
    }
    stream.send_data(Bytes::new(), true)
}

/// Sends as the client makes room.
async fn send_data(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while data.has_remaining() {
        stream.reserve_capacity(data.len());
        while stream.capacity() == 0 {
            poll_fn(|context| stream.poll_capacity(context)).await.ok_or(Reason::CANCEL)??;
        }
        let room = stream.capacity().min(data.len());
        stream.send_data(data.split_to(room), false)?;
    }
    Ok(())
}

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

/// The body of a call as it arrives.
pub struct Incoming(RecvStream);

impl Body for Incoming {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        match ready!(self.0.poll_data(context)) {
            Some(Ok(data)) => {
                // The client may send as much again. It fails only for more than was received.
                let _ = self.0.flow_control().release_capacity(data.len());
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            // The client has sent all that it wanted to.
            Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => Poll::Ready(None),
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => {
                let trailers: Option<HeaderMap> = ready!(self.0.poll_trailers(context))?;
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}
