//! `POST …/infer` and the other bodies that clients send.

use std::borrow::Cow;
use std::time::Instant;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Request, Response};
use serde::Deserialize;

use super::Body;
use super::coding::{Coding, Unpacking};
use super::route::Route;
use crate::api::convert::json::{Parameters, parse, raw};
use crate::api::convert::{pin, write_response};
use crate::api::incoming::Incoming;
use crate::api::landing::{Landing, next_frame};
use crate::api::questions::Gateway;
use crate::error::{ErrorKind, ServeError};
use crate::event::Protocol;
use crate::infer::{RequestKeys, VersionPin};
use crate::serve::{Held, Receipt, off_the_loop};

/// How long the JSON before the binary tensors is.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Tells why the version that answered is the one that did.
const ROUTE_REASON: HeaderName = HeaderName::from_static("weir-route");

/// What a route may look at in a request.
struct Keys<'a> {
    headers: &'a HeaderMap,
    parameters: &'a Parameters,
    id: Option<&'a str>,
}

impl RequestKeys for Keys<'_> {
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.get(name).map(HeaderValue::as_bytes)
    }

    fn parameter(&self, name: &str) -> Option<Cow<'_, str>> {
        self.parameters.text(name)
    }

    fn request_id(&self) -> Option<&str> {
        self.id
    }
}

/// Answers a prediction. Every request that gets here is counted, whatever becomes of it.
pub async fn infer(
    gateway: &Gateway,
    route: &Route,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<Response<Body>, ServeError> {
    let mut receipt = gateway.pipeline.receive(Protocol::Http);
    let answer = predict(gateway, route, headers, body, &mut receipt).await;
    receipt.conclude(&answer);
    answer
}

async fn predict(
    gateway: &Gateway,
    route: &Route,
    headers: &HeaderMap,
    body: Incoming,
    receipt: &mut Receipt,
) -> Result<Response<Body>, ServeError> {
    gateway.pipeline.admit(receipt)?;
    let json_length = json_length(headers)?;
    let limits = gateway.limits;
    let bounds = Unpacking { bytes_max: limits.message_bytes_max, ratio_max: limits.unpacked_ratio_max };
    let body = read_tensors(headers, body, json_length, bounds, receipt.held()).await?;
    let parsed = match json_length {
        Some(0) => raw(&route.model, body),
        length => {
            let json_length = length.unwrap_or(body.len());
            let model = route.model.clone();
            let read = move || parse(&model, &body, json_length, &limits.request);
            off_the_loop(json_length, read).await??
        }
    };
    let (mut request, form, parameters) = parsed.into_parts();
    receipt.held().cover(request.inputs.bytes())?;
    if route.pin != VersionPin::Routed {
        let label = match request.pin {
            VersionPin::Label(label) => Some(label),
            _ => None,
        };
        request.pin = pin(route.pin.clone(), label)?;
    }
    let keys = Keys { headers, parameters: &parameters, id: form.id.as_deref() };
    let response = gateway.pipeline.infer(request, &keys, receipt).await?;
    let started = Instant::now();
    // Binary tensors go out as they are; writing numbers as text takes time.
    let as_text = response.outputs.iter().filter(|output| !form.is_binary(&output.name));
    let bytes = as_text.map(|output| output.tensor.data().len()).sum();
    let reason = response.reason;
    let write = move || {
        let bytes_max = limits.answer_bytes_max;
        write_response(&response, form.id.as_deref(), bytes_max, |output| form.is_binary(output))
    };
    let mut written = off_the_loop(bytes, write).await??;
    written.chunks = receipt.held().until_sent(written.chunks)?;
    receipt.encoded(started.elapsed());
    let mut answer = Response::new(Body::default());
    let told = answer.headers_mut();
    told.insert(ROUTE_REASON, HeaderValue::from_static(reason.name()));
    match written.json_length {
        None => told.insert(CONTENT_TYPE, HeaderValue::from_static("application/json")),
        Some(length) => {
            told.insert(JSON_LENGTH, HeaderValue::from(length));
            told.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))
        }
    };
    // Most clients offer to unpack whatever comes; most answers are too small to send to another thread for it.
    let length = written.chunks.iter().map(Bytes::len).sum();
    let coding = Coding::of_answer(headers).filter(|_| Coding::pays(length));
    *answer.body_mut() = match coding {
        None => Body::new(written.chunks),
        Some(coding) => match encoded(coding, written.chunks.concat().into()).await {
            None => Body::new(written.chunks),
            Some(packed) => {
                answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
                Body::from(packed)
            }
        },
    };
    Ok(answer)
}

/// Bytes of the body of a question about the repository: it holds one member.
const INDEX_BYTES_MAX: usize = 64 << 10;

/// The `ready` filter of a repository index; an empty body asks for everything.
pub async fn index_filter(gateway: &Gateway, request: Request<Incoming>) -> Result<bool, ServeError> {
    #[derive(Deserialize)]
    struct Filter {
        ready: Option<bool>,
    }
    let (head, body) = request.into_parts();
    let body = read_body(gateway, &head.headers, body, INDEX_BYTES_MAX).await?.0;
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(false);
    }
    let filter: Filter = serde_json::from_slice(&body)
        .map_err(|e| ServeError::invalid(format!("failed to parse the request JSON: {e}")))?;
    Ok(filter.ready.unwrap_or(false))
}

/// Reads a whole body and unpacks it; it counts as in flight until what comes with it is dropped. Errors: over the
/// limit, in another coding, or the client went away.
pub async fn read_body(
    gateway: &Gateway,
    headers: &HeaderMap,
    body: Incoming,
    bytes_max: usize,
) -> Result<(Bytes, Held), ServeError> {
    let mut held = gateway.pipeline.hold();
    let bounds = Unpacking { bytes_max, ratio_max: gateway.limits.unpacked_ratio_max };
    let body = read_tensors(headers, body, None, bounds, &mut held).await?;
    Ok((body, held))
}

/// A whole body, unpacked; a tensor begins at `tensor_offset` and had best be run where it lands.
async fn read_tensors(
    headers: &HeaderMap,
    body: Incoming,
    tensor_offset: Option<usize>,
    bounds: Unpacking,
    held: &mut Held,
) -> Result<Bytes, ServeError> {
    let bytes_max = bounds.bytes_max;
    let too_large =
        || ServeError::new(ErrorKind::TooLarge, format!("the body is larger than {bytes_max} bytes"));
    let announced =
        headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    if announced.is_some_and(|length| length > bytes_max as u64) {
        return Err(too_large());
    }
    let coding = Coding::of_request(headers)?;
    let announced = announced.map_or(0, |length| length as usize);
    let body = landed(body, announced, tensor_offset, bytes_max, held).await?.ok_or_else(too_large)?;
    match coding {
        None => Ok(body),
        Some(coding) => unpacked(coding, body, bounds, held).await,
    }
}

/// What a body unpacks to, on a thread that may take its time.
pub async fn unpacked(
    coding: Coding,
    body: Bytes,
    bounds: Unpacking,
    held: &mut Held,
) -> Result<Bytes, ServeError> {
    let mut growing = held.another();
    let work = move || coding.decode(&body, bounds, &mut growing).map(|unpacked| (unpacked, growing));
    let (unpacked, grown) = tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(ServeError::internal("unpacking the body failed")))?;
    held.absorb(grown);
    Ok(unpacked)
}

/// A whole body; `None` if it is larger than `bytes_max`. Cost: no copy of one that came in one piece.
async fn landed(
    mut body: Incoming,
    announced: usize,
    tensor_offset: Option<usize>,
    bytes_max: usize,
    held: &mut Held,
) -> Result<Option<Bytes>, ServeError> {
    let Some(first) = next_frame(&mut body).await? else { return Ok(Some(Bytes::new())) };
    held.cover(first.len())?;
    let Some(mut next) = next_frame(&mut body).await? else {
        return Ok((first.len() <= bytes_max).then_some(first));
    };
    let mut landing = Landing::new(announced, tensor_offset);
    landing.take(&first);
    loop {
        held.cover(landing.len() + next.len())?;
        landing.take(&next);
        if landing.len() > bytes_max {
            return Ok(None);
        }
        match next_frame(&mut body).await? {
            Some(frame) => next = frame,
            None => return Ok(Some(landing.finish())),
        }
    }
}

async fn encoded(coding: Coding, body: Bytes) -> Option<Bytes> {
    tokio::task::spawn_blocking(move || coding.encode(&body)).await.ok().flatten()
}

/// The length of the JSON, if the client says it: then binary tensors may follow.
fn json_length(headers: &HeaderMap) -> Result<Option<usize>, ServeError> {
    let Some(value) = headers.get(JSON_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().map(str::trim).filter(|v| v.bytes().all(|b| b.is_ascii_digit()));
    length.and_then(|v| v.parse().ok()).map(Some).ok_or_else(|| {
        ServeError::invalid("Inference-Header-Content-Length must be the number of bytes of the JSON")
    })
}
