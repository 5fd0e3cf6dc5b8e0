//! `ModelInfer` and `ModelStreamInfer`.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message as _;
use tonic::{Request, Status, Streaming};

use super::message;
use crate::api::chunks::Chunks;
use crate::api::convert::{encode, grpc};
use crate::api::landing::Arriving;
use crate::api::questions::Gateway;
use crate::error::ServeError;
use crate::event::Protocol;
use crate::infer::{InferResponse, RequestKeys};
use crate::proto::inference as pb;
use crate::serve::{Phase, Receipt};

/// Names of headers, read once: a name in a string is read anew for each look-up.
static GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The answers of one inference stream.
pub type Answers = Pin<Box<dyn Stream<Item = Result<pb::ModelStreamInferResponse, Status>> + Send>>;

/// Whether [`unary`] can read the call: its message is not compressed.
pub fn is_plain<B>(request: &http::Request<B>) -> bool {
    request.headers().get(&GRPC_ENCODING).is_none_or(|encoding| encoding == "identity")
}

/// Answers one call by hand, which takes a quarter less of a processor than tonic's way (benches/RESULTS.md). Every
/// call that gets here is counted, whatever becomes of it.
pub async fn unary(
    gateway: &Gateway,
    headers: &HeaderMap,
    body: impl Arriving,
) -> Result<Chunks, ServeError> {
    let mut receipt = gateway.pipeline.receive(Protocol::Grpc);
    let answer = run_unary(gateway, headers, body, &mut receipt).await;
    receipt.conclude(&answer);
    answer
}

async fn run_unary(
    gateway: &Gateway,
    headers: &HeaderMap,
    body: impl Arriving,
    receipt: &mut Receipt,
) -> Result<Chunks, ServeError> {
    gateway.pipeline.admit(receipt)?;
    let bytes = message::read(body, gateway.limits.message_bytes_max).await?;
    let message = pb::ModelInferRequest::decode(bytes)
        .map_err(|e| ServeError::invalid(format!("the message is no ModelInferRequest: {e}")))?;
    let (response, id) = respond(gateway, message, headers, receipt).await?;
    let started = Instant::now();
    let written = Chunks::new(encode(&response, &id)?).with_status();
    receipt.encoded(started.elapsed());
    Ok(written)
}

/// Answers one request that tonic has read, of a stream or compressed. Every request that gets here is counted,
/// whatever becomes of it.
pub async fn predict(
    gateway: &Gateway,
    message: pb::ModelInferRequest,
    headers: &HeaderMap,
) -> Result<pb::ModelInferResponse, ServeError> {
    let mut receipt = gateway.pipeline.receive(Protocol::Grpc);
    let answer = run(gateway, message, headers, &mut receipt).await;
    receipt.conclude(&answer);
    answer
}

async fn run(
    gateway: &Gateway,
    message: pb::ModelInferRequest,
    headers: &HeaderMap,
    receipt: &mut Receipt,
) -> Result<pb::ModelInferResponse, ServeError> {
    gateway.pipeline.admit(receipt)?;
    let (response, id) = respond(gateway, message, headers, receipt).await?;
    let started = Instant::now();
    let written = grpc::write(response, id);
    receipt.encoded(started.elapsed());
    Ok(written)
}

/// The prediction, and the client's name for the request.
async fn respond(
    gateway: &Gateway,
    mut message: pb::ModelInferRequest,
    headers: &HeaderMap,
    receipt: &mut Receipt,
) -> Result<(InferResponse, String), ServeError> {
    let id = std::mem::take(&mut message.id);
    let (mut request, parameters) = grpc::parse(message)?;
    request.limits.deadline = deadline(headers);
    let keys = Keys { headers, parameters: &parameters, id: &id };
    let response = gateway.pipeline.infer(request, &keys, receipt).await?;
    Ok((response, id))
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

/// Answers the requests of a stream in their order, several at once. An error is an answer; the stream goes on,
/// unless the client asked for real statuses with the metadata `triton_grpc_error: true`.
pub fn stream(gateway: Arc<Gateway>, request: Request<Streaming<pb::ModelInferRequest>>) -> Answers {
    let real_statuses =
        request.metadata().get("triton_grpc_error").is_some_and(|value| value.as_bytes() == b"true");
    let at_once = gateway.limits.stream_requests_max;
    // An open stream must not hold a drain up: what was asked is answered, no more is read.
    let mut phases = gateway.readiness.watch();
    let draining = Box::pin(async move {
        let _ = phases.wait_for(|phase| *phase == Phase::Draining).await;
    });
    let (metadata, _, messages) = request.into_parts();
    let headers = Arc::new(metadata.into_headers());
    let messages = messages.take_until(draining);
    let answers = messages
        .map(move |message| {
            let (gateway, headers) = (Arc::clone(&gateway), Arc::clone(&headers));
            async move {
                let message = message?;
                let id = message.id.clone();
                match predict(&gateway, message, &headers).await {
                    Ok(response) => Ok(final_response(response)),
                    Err(error) if real_statuses => Err(error.into()),
                    Err(error) => Ok(error_response(&error, id)),
                }
            }
        })
        .buffered(at_once);
    // A status ends a gRPC stream; nothing may follow it.
    let ended = stream::unfold((Box::pin(answers), false), |(mut answers, failed)| async move {
        if failed {
            return None;
        }
        let answer = answers.next().await?;
        let failed = answer.is_err();
        Some((answer, (answers, failed)))
    });
    Box::pin(ended)
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
