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
