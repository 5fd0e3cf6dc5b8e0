//! Unary calls of the inference service, message in and message out, over an h2 connection each.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use tokio::net::TcpStream;

/// Flag and length before each message.
const PREFIX: usize = 5;

/// Calls `inference.GRPCInferenceService/METHOD`. Panics with the server's words if the status is not OK.
#[track_caller]
pub fn call<A: Message + Default>(address: SocketAddr, method: &str, question: &impl Message) -> A {
    call_at(address, &format!("inference.GRPCInferenceService/{method}"), question)
}

/// Calls a method by its service and name. Panics with the server's words if the status is not OK.
#[track_caller]
pub fn call_at<A: Message + Default>(address: SocketAddr, path: &str, question: &impl Message) -> A {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (request, body) = request(address, path, question);
    let answer = runtime.block_on(exchange(address, request, body)).expect("the call is answered");
    A::decode(answer.get(PREFIX..).expect("an answer has a message"))
        .expect("the message is that of the protocol")
}

/// Calls a method that answers more than once, and tells each answer as it comes, up to so many.
pub fn stream<A: Message + Default>(
    address: SocketAddr,
    path: &str,
    question: &impl Message,
    most: usize,
    mut tell: impl FnMut(A),
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (request, body) = request(address, path, question);
    let answered = runtime.block_on(async {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        let (mut client, connection) = h2::client::handshake(stream).await?;
        tokio::spawn(connection);
        let (response, mut sender) = client.send_request(request, false)?;
        sender.send_data(body, true)?;
        let mut body = response.await?.into_body();
        let (mut bytes, mut told) = (Vec::new(), 0);
        while told < most
            && let Some(data) = body.data().await
        {
            bytes.extend_from_slice(&data?);
            while let Some(length) =
                bytes.get(1..PREFIX).map(|length| u32::from_be_bytes(length.try_into().unwrap()))
                && let Some(message) = bytes.get(PREFIX..PREFIX + length as usize)
            {
                tell(A::decode(message).expect("the message is that of the protocol"));
                bytes.drain(..PREFIX + length as usize);
                told += 1;
            }
        }
        Ok::<_, h2::Error>(())
    });
    answered.expect("the call is answered");
}

fn request(address: SocketAddr, path: &str, question: &impl Message) -> (http::Request<()>, Bytes) {
    let mut body = BytesMut::new();
    body.put_u8(0);
    body.put_u32(u32::try_from(question.encoded_len()).expect("messages of tests are small"));
    question.encode(&mut body).expect("the buffer grows");
    let request = http::Request::post(format!("http://{address}/{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("a valid request");
    (request, body.freeze())
}

async fn exchange(
    address: SocketAddr,
    request: http::Request<()>,
    body: Bytes,
) -> Result<Vec<u8>, h2::Error> {
    let stream = TcpStream::connect(address).await.expect("the server listens");
    let (mut client, connection) = h2::client::Builder::new()
        .initial_window_size(1 << 24)
        .initial_connection_window_size(1 << 24)
        .handshake::<_, Bytes>(stream)
        .await?;
    tokio::spawn(connection);
    let (response, mut sender) = client.send_request(request, false)?;
    sender.send_data(body, true)?;
    let (head, mut body) = response.await?.into_parts();
    let mut answer = Vec::new();
    while let Some(data) = body.data().await {
        answer.extend_from_slice(&data?);
    }
    // An error without a message tells its status in the head.
    let trailers = body.trailers().await?.unwrap_or(head.headers);
    let status = trailers.get("grpc-status").expect("a call ends with a status");
    assert_eq!(status, "0", "{:?}", trailers.get("grpc-message"));
    Ok(answer)
}
