//! `ModelInfer` and `ModelStreamInfer`.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use hyper::body::Frame;
use prost::Message as _;
use tonic::Status;

use super::message::{self, Form, Messages};
use crate::api::chunks::Chunks;
use crate::api::convert::{PREFIX_BYTES, check_message, encode, grpc};
use crate::api::http::coding::{Coding, Unpacking};
use crate::api::incoming::Incoming;
use crate::api::limits::WireLimits;
use crate::api::questions::Gateway;
use crate::error::{ErrorKind, ServeError};
use crate::event::Protocol;
use crate::infer::{InferResponse, RequestKeys};
use crate::proto::inference as pb;
use crate::serve::{Held, Phase, Receipt};

/// Names of headers, read once: a name in a string is read anew for each look-up.
static GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// How the messages of a call are compressed, if at all; `None` in a way that is not read here.
pub fn form<B>(request: &http::Request<B>, limits: &WireLimits) -> Option<Form> {
    let coding = match request.headers().get(&GRPC_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => None,
        Some(b"gzip") => Some(Coding::Gzip),
        Some(b"deflate") => Some(Coding::Deflate),
        Some(_) => return None,
    };
    let bounds = Unpacking { bytes_max: limits.message_bytes_max, ratio_max: limits.unpacked_ratio_max };
    Some(Form { bounds, coding })
}

/// Answers one call by hand, which takes a quarter less of a processor than tonic's way (benches/RESULTS.md). Every
/// call that gets here is counted, whatever becomes of it.
pub async fn unary(
    gateway: &Gateway,
    headers: &HeaderMap,
    body: Incoming,
    form: Form,
) -> Result<Chunks, ServeError> {
    let mut receipt = gateway.pipeline.receive(Protocol::Grpc);
    let answer = run_unary(gateway, headers, body, form, &mut receipt).await;
    receipt.conclude(&answer);
    answer
}

async fn run_unary(
    gateway: &Gateway,
    headers: &HeaderMap,
    body: Incoming,
    form: Form,
    receipt: &mut Receipt,
) -> Result<Chunks, ServeError> {
    gateway.pipeline.admit(receipt)?;
    let read = message::read(body, form, receipt.held());
    let bytes = match deadline(headers) {
        None => read.await?,
        // A message that never comes must not outlive its call.
        Some(deadline) => tokio::time::timeout_at(deadline.into(), read)
            .await
            .map_err(|_| ServeError::new(ErrorKind::DeadlineExceeded, "Request timeout expired"))??,
    };
    let (response, id) = respond(gateway, bytes, headers, receipt).await?;
    let started = Instant::now();
    let chunks = encode(&response, &id)?;
    within(gateway, chunks.iter().map(Bytes::len).sum())?;
    let written = Chunks::new(receipt.held().until_sent(chunks)?).with_status();
    receipt.encoded(started.elapsed());
    Ok(written)
}

/// Errors: an answer of so many bytes is too long.
fn within(gateway: &Gateway, bytes: usize) -> Result<(), ServeError> {
    let bytes_max = gateway.limits.answer_bytes_max;
    match bytes > bytes_max {
        false => Ok(()),
        true => Err(ServeError::new(
            ErrorKind::TooLarge,
            format!("the answer has {bytes} bytes, the limit is {bytes_max}"),
        )),
    }
}

/// Answers one message of a stream. Every one that gets here is counted, whatever becomes of it.
async fn predict(
    gateway: &Gateway,
    message: Bytes,
    held: Held,
    headers: &HeaderMap,
) -> (Result<InferResponse, ServeError>, String) {
    let mut receipt = gateway.pipeline.receive(Protocol::Grpc);
    let mut id = String::new();
    let answer = run(gateway, message, held, headers, &mut receipt, &mut id).await;
    receipt.conclude(&answer);
    (answer, id)
}

async fn run(
    gateway: &Gateway,
    message: Bytes,
    held: Held,
    headers: &HeaderMap,
    receipt: &mut Receipt,
    id: &mut String,
) -> Result<InferResponse, ServeError> {
    gateway.pipeline.admit(receipt)?;
    receipt.held().absorb(held);
    let mut message = decode(gateway, message, receipt)?;
    *id = std::mem::take(&mut message.id);
    answer(gateway, message, id, headers, receipt).await
}

/// A message as the generated code reads it, once it is known to have bounds.
fn decode(
    gateway: &Gateway,
    message: Bytes,
    receipt: &mut Receipt,
) -> Result<pb::ModelInferRequest, ServeError> {
    match check_message(&message, &gateway.limits.request)? {
        0 => {}
        growth => receipt.held().cover(message.len().saturating_add(growth))?,
    }
    pb::ModelInferRequest::decode(message)
        .map_err(|e| ServeError::invalid(format!("the message is no ModelInferRequest: {e}")))
}

/// The prediction, and the client's name for the request.
async fn respond(
    gateway: &Gateway,
    message: Bytes,
    headers: &HeaderMap,
    receipt: &mut Receipt,
) -> Result<(InferResponse, String), ServeError> {
    let mut message = decode(gateway, message, receipt)?;
    let id = std::mem::take(&mut message.id);
    let response = answer(gateway, message, &id, headers, receipt).await?;
    Ok((response, id))
}

async fn answer(
    gateway: &Gateway,
    message: pb::ModelInferRequest,
    id: &str,
    headers: &HeaderMap,
    receipt: &mut Receipt,
) -> Result<InferResponse, ServeError> {
    let (mut request, parameters) = grpc::parse(message)?;
    request.limits.deadline = deadline(headers);
    let keys = Keys { headers, parameters: &parameters, id };
    gateway.pipeline.infer(request, &keys, receipt).await
}

/// What a route may look at in a call.
struct Keys<'a> {
    headers: &'a HeaderMap,
    parameters: &'a grpc::Parameters,
    id: &'a str,
}

impl RequestKeys for Keys<'_> {
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.get(name).map(HeaderValue::as_bytes)
    }

    fn parameter(&self, name: &str) -> Option<Cow<'_, str>> {
        grpc::parameter_text(self.parameters, name)
    }

    fn request_id(&self) -> Option<&str> {
        Some(self.id).filter(|id| !id.is_empty())
    }
}

/// The body of the answer to a stream: messages and, at its end, its status.
pub type Answers = Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Status>> + Send>>;

/// Answers the requests of a stream in their order, several at once. An error is an answer; the stream goes on,
/// unless the client asked for real statuses with the metadata `triton_grpc_error: true`.
///
/// No more is read than is answered: a client that takes no answers is not listened to.
pub fn stream(gateway: Arc<Gateway>, headers: HeaderMap, body: Incoming, form: Form) -> Answers {
    let real_statuses = headers.get("triton_grpc_error").is_some_and(|value| value.as_bytes() == b"true");
    let at_once = gateway.limits.stream_requests_max;
    // An open stream must not hold a drain up: what was asked is answered, no more is read.
    let mut phases = gateway.readiness.watch();
    let draining = Box::pin(async move {
        let _ = phases.wait_for(|phase| *phase == Phase::Draining).await;
    });
    let headers = Arc::new(headers);
    let reading = Some((Messages::new(body, form), gateway.pipeline.clone()));
    let messages = stream::unfold(reading, |reading| async move {
        let (mut messages, pipeline) = reading?;
        let mut held = pipeline.hold();
        match messages.next(&mut held).await {
            Ok(None) => None,
            Ok(Some(message)) => Some((Ok((message, held)), Some((messages, pipeline)))),
            // Where the next message would begin is not known.
            Err(error) => Some((Err(error), None)),
        }
    });
    let answers = Box::pin(messages)
        .take_until(draining)
        .map(move |message| {
            let (gateway, headers) = (Arc::clone(&gateway), Arc::clone(&headers));
            async move {
                let (message, held) = message?;
                let (answer, id) = predict(&gateway, message, held, &headers).await;
                let answer = match answer {
                    Ok(response) => final_response(grpc::write(response, id)),
                    Err(error) if real_statuses => return Err(error),
                    Err(error) => error_response(&error, id),
                };
                within(&gateway, answer.encoded_len())?;
                let [framed] = gateway.pipeline.hold().until_sent([framed(&answer)])?;
                Ok(framed)
            }
        })
        .buffered(at_once);
    // A status ends a gRPC stream; nothing may follow it.
    let ended = stream::unfold(Some(Box::pin(answers)), |answers| async move {
        let mut answers = answers?;
        match answers.next().await {
            Some(Ok(message)) => Some((Ok(Frame::data(message)), Some(answers))),
            Some(Err(error)) => Some((Ok(trailers(error.into())), None)),
            None => Some((Ok(trailers(Status::ok(""))), None)),
        }
    });
    Box::pin(ended)
}

/// A status as it ends a body.
fn trailers(status: Status) -> Frame<Bytes> {
    let mut headers = status.into_http::<()>().into_parts().0.headers;
    headers.remove(CONTENT_TYPE);
    Frame::trailers(headers)
}

/// A message with its prefix.
fn framed(message: &pb::ModelStreamInferResponse) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + length);
    out.put_u8(0);
    out.put_u32(u32::try_from(length).expect("an answer's length is bounded below 4 GiB"));
    message.encode(&mut out).expect("the buffer grows");
    out.freeze()
}

/// One request has one answer here, so each is the final one of its request.
fn final_response(mut response: pb::ModelInferResponse) -> pb::ModelStreamInferResponse {
    let choice = pb::infer_parameter::ParameterChoice::BoolParam(true);
    let parameter = pb::InferParameter { parameter_choice: Some(choice) };
    response.parameters.insert("triton_final_response".to_owned(), parameter);
    pb::ModelStreamInferResponse { error_message: String::new(), infer_response: Some(response) }
}

fn error_response(error: &ServeError, id: String) -> pb::ModelStreamInferResponse {
    pb::ModelStreamInferResponse {
        error_message: error.message().to_owned(),
        infer_response: Some(pb::ModelInferResponse { id, ..Default::default() }),
    }
}

/// The moment at which the client gives up, by its `grpc-timeout`: up to eight digits and a unit.
fn deadline(headers: &HeaderMap) -> Option<Instant> {
    let text = headers.get(&GRPC_TIMEOUT)?.to_str().ok()?;
    Instant::now().checked_add(parse_timeout(text)?)
}

fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_protocol_writes_them() {
        assert_eq!(parse_timeout("100m"), Some(Duration::from_millis(100)));
        assert_eq!(parse_timeout("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(parse_timeout("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for bad in ["", "m", "1", "1x", "-1m", "999999999m", "1é"] {
            assert_eq!(parse_timeout(bad), None, "{bad}");
        }
    }
}
