//! Requests and answers on the wire, with as little work as they allow: what is measured is the server.
//!
//! Always: an answer is read to its end; a connection that broke is opened again by the next request.
//! Not here: when requests are sent, what they say.

mod grpc;
mod http;

pub use grpc::Channel;
pub use http::Connection;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::encode::framed;
use super::tally::Failure;

/// A server that does not take a connection in this time is taken for one that is not there.
pub const CONNECT_TIME: Duration = Duration::from_secs(5);

/// Bytes kept of an answer that is no success: enough for its message.
const FAILURE_BYTES: usize = 4096;

/// Bytes of an answer to a question: the statistics of a model with many versions are some kilobytes.
const QUESTION_BYTES_MAX: usize = 16 << 20;

/// The method that is called for predictions.
const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// What can carry one request at a time.
pub enum Line {
    Http(Connection),
    /// A stream of a connection that others use too.
    Grpc(Rc<Channel>),
}

impl Line {
    /// Sends a request and reads its answer, within `timeout`.
    pub async fn ask(&mut self, body: &Bytes, timeout: Duration) -> Result<(), Failure> {
        let answered = match self {
            Self::Http(connection) => tokio::time::timeout(timeout, connection.post(body)).await,
            Self::Grpc(channel) => tokio::time::timeout(timeout, channel.infer(body)).await,
        };
        answered.unwrap_or_else(|_| {
            // The answer may still come, and would be taken for that of the next request. A stream ends by itself.
            if let Self::Http(connection) = self {
                connection.close();
            }
            Err(Failure::new("timeout", &format!("no answer within {} s", timeout.as_secs_f64())))
        })
    }

    /// Connections that were opened again since this was asked last.
    pub fn reopened(&mut self) -> u64 {
        match self {
            Self::Http(connection) => connection.reopened(),
            Self::Grpc(channel) => channel.reopened(),
        }
    }
}

/// Asks for something over HTTP; gives the body of the answer.
pub async fn get(address: SocketAddr, host: &str, path: &str) -> Result<Vec<u8>, Failure> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
    Connection::new(address).exchange(request.as_bytes(), QUESTION_BYTES_MAX).await
}

/// Asks for something over gRPC; gives the bytes of the message that answers.
pub async fn call(
    address: SocketAddr,
    host: &str,
    method: &str,
    message: &impl prost::Message,
) -> Result<Bytes, Failure> {
    let method = format!("/inference.GRPCInferenceService/{method}");
    let channel = Channel::new(address, host, &method);
    channel.exchange(&framed(message), QUESTION_BYTES_MAX).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::{HeaderMap, HeaderName, HeaderValue, Response};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn an_answer_that_does_not_come_is_a_timeout_and_costs_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut line = Line::Http(Connection::new(listener.local_addr().unwrap()));
        // One answer on each connection.
        let server = tokio::spawn(async move {
            let mut open = Vec::new();
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.read_exact(&mut [0]).await.unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                open.push(stream);
            }
            open
        });
        let body = Bytes::from_static(b"?");
        assert!(line.ask(&body, PATIENCE).await.is_ok());
        assert_eq!(line.ask(&body, Duration::from_millis(1)).await.unwrap_err().status, "timeout");
        assert!(line.ask(&body, PATIENCE).await.is_ok());
        assert_eq!(line.reopened(), 1);
        server.await.unwrap();
    }

    /// Answers each call on a connection of its own, with that status in its trailers.
    async fn serve(listener: TcpListener, statuses: &'static [&'static str]) {
        for status in statuses {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let (request, mut respond) = connection.accept().await.unwrap().unwrap();
            assert_eq!(
                (request.uri().path(), &request.headers()["te"]),
                (INFER, &HeaderValue::from_static("trailers"))
            );
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data(Bytes::from_static(&[0, 0, 0, 0, 0]), false).unwrap();
            let trailers = [("grpc-status", *status), ("grpc-message", "so%20it%20is")];
            let trailers = trailers
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            body.send_trailers(HeaderMap::from_iter(trailers)).unwrap();
            connection.graceful_shutdown();
            while connection.accept().await.is_some() {}
        }
    }

    #[tokio::test]
    async fn a_channel_that_was_closed_is_opened_again_and_trailers_decide() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, &["0", "8", "0"]));
        let channel = Rc::new(Channel::for_predictions(address, "h:1"));
        let mut line = Line::Grpc(Rc::clone(&channel));
        let mut outcomes = Vec::new();
        for _ in 0..3 {
            outcomes.push(line.ask(&Bytes::from_static(&[0, 0, 0, 0, 0]), PATIENCE).await);
            // Until the server has closed it, a call may still be sent on it, and fails.
            while !channel.is_closed() {
                tokio::task::yield_now().await;
            }
        }
        assert!(outcomes[0].is_ok() && outcomes[2].is_ok(), "{outcomes:?}");
        let failure = outcomes[1].as_ref().unwrap_err();
        assert_eq!((failure.status.as_ref(), failure.message.as_str()), ("RESOURCE_EXHAUSTED", "so it is"));
        assert_eq!(line.reopened(), 2);
        server.await.unwrap();
    }
}
