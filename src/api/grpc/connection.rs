//! One HTTP/2 connection of gRPC calls.
//!
//! Directly on h2: hyper's server above it takes a twentieth of the processor time of a small prediction
//! (benches/RESULTS.md).
//! Always: each call is a task of its own, which ends when its client resets it or is gone; one that panics takes no
//! other with it. The next part of an answer is taken from its body when the client has made room.
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

/// Bytes of an answer that h2 counts as room even before the client has made any.
const SEND_BUFFER_BYTES: usize = 400 << 10;

/// A connection: to be polled to its end.
pub struct Connection<S> {
    state: State,
    /// Is given each call.
    serve: S,
}

enum State {
    /// `closing`: it is to end after the calls that come with it.
    Beginning {
        handshake: Handshake<TcpStream, Bytes>,
        closing: bool,
    },
    Open(h2::server::Connection<TcpStream, Bytes>),
}

impl<S: FnMut(Request<Incoming>, Answering) + Unpin> Connection<S> {
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
        let handshake = builder.handshake(stream);
        Self { state: State::Beginning { handshake, closing: false }, serve }
    }

    /// Lets it end after the calls in flight.
    pub fn shut_down(self: Pin<&mut Self>) {
        match &mut self.get_mut().state {
            State::Beginning { closing, .. } => *closing = true,
            State::Open(open) => open.graceful_shutdown(),
        }
    }
}

impl<S: FnMut(Request<Incoming>, Answering) + Unpin> Future for Connection<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                State::Beginning { handshake, closing } => match ready!(Pin::new(handshake).poll(context)) {
                    Ok(mut open) => {
                        if *closing {
                            open.graceful_shutdown();
                        }
                        this.state = State::Open(open);
                    }
                    Err(_) => return Poll::Ready(()),
                },
                State::Open(open) => match ready!(open.poll_accept(context)) {
                    Some(Ok((request, answer))) => (this.serve)(request.map(Incoming), Answering(answer)),
                    // A connection that breaks is the client's affair.
                    Some(Err(_)) | None => return Poll::Ready(()),
                },
            }
        }
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
        if let Some(answer) = answer.await
            && let Err(error) = send(answer, self.0).await
        {
            // Mostly the client has gone; its answer interests nobody.
            tracing::debug!("an answer was not sent: {error}");
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

/// h2 takes no more than 2^31 - 1 bytes at a time.
const PIECE_BYTES_MAX: usize = 1 << 30;

/// Hands data on once the client has made some room, and leaves it to h2 to go on as there is more: the data is in
/// memory anyway.
async fn send_data(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while data.has_remaining() {
        stream.reserve_capacity(1);
        while stream.capacity() == 0 {
            poll_fn(|context| stream.poll_capacity(context)).await.ok_or(Reason::CANCEL)??;
        }
        stream.send_data(data.split_to(data.len().min(PIECE_BYTES_MAX)), false)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::chunks::Chunks;
    use std::sync::Arc;
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    /// What a client is answered, in two chunks and a trailer.
    const CHUNK: usize = 100_000;

    async fn answer(_: Request<Incoming>) -> Response<Chunks> {
        let chunk = |byte| Bytes::from(vec![byte; CHUNK]);
        Response::new(Chunks::new([chunk(1), chunk(2)]).with_status())
    }

    /// A served connection, a client of it with windows of so many bytes, and word of each call that ended.
    async fn client(window: u32) -> (h2::client::SendRequest<Bytes>, mpsc::UnboundedReceiver<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (told, ended) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let told = Arc::new(told);
            Connection::new(stream, 8, move |request, answering: Answering| {
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
        let mut connection = Box::pin(Connection::new(accepted, 8, |request, answering: Answering| {
            tokio::spawn(async move { answering.with(std::pin::pin!(answer(request))).await });
        }));
        connection.as_mut().shut_down();
        let served = tokio::spawn(connection);
        let (mut client, driven) = h2::client::handshake(stream).await.unwrap();
        let (response, _) = client.send_request(request(), true).unwrap();
        tokio::spawn(driven);
        assert_eq!(response.await.unwrap().status(), 200);
        drop(client);
        served.await.unwrap();
    }
}
