//! HTTP/1.1 and HTTP/2 with JSON, binary tensors and raw bodies.
//!
//! Always: an answer that is not 200 is `{"error": "…"}` in plain JSON; only successful predictions are
//! compressed, because clients unpack nothing else.

pub mod coding;
mod connection;
mod infer;
mod json;
mod reasoned;
pub mod route;

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode, Version};

use super::chunks::Chunks;
use super::control::{self, ControlPort};
use super::http2::Allowance;
use super::incoming::Incoming;
use super::listener::{Accepted, Drain};
use super::questions::Gateway;
use super::status;
use crate::error::{ErrorKind, ServeError};
use crate::infer::VersionPin;
use crate::serve::Phase;
pub(super) use connection::connection;
pub(super) use infer::{read_body, unpacked};
use route::{Resource, Route};

pub(super) type Body = Chunks;

/// Answers on one connection until the client closes it, or the drain begins and the requests in flight are
/// answered.
pub async fn serve(gateway: Arc<Gateway>, accepted: Accepted, drain: Drain) {
    let peer = accepted.peer;
    let limits = gateway.limits;
    let allowance = Allowance { streams_max: limits.streams_max, limits };
    connection(accepted, drain, allowance, move |request| {
        let gateway = Arc::clone(&gateway);
        async move {
            let persistent = request.version() <= Version::HTTP_11;
            let mut answer = answer(&gateway, peer, request).await;
            // Who is told finds another server before this one closes its ports.
            if persistent && gateway.readiness.phase() == Phase::Draining {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            answer
        }
    })
    .await;
}

/// Streams at once on one connection for metrics: nobody asks for more than a page at a time.
const METRICS_STREAMS_MAX: u32 = 16;

/// Answers `GET /metrics` out of `render`, and the server's health: probes often cannot ask the ports that clients ask.
pub async fn serve_metrics(
    gateway: Arc<Gateway>,
    render: Arc<dyn Fn() -> String + Send + Sync>,
    accepted: Accepted,
    drain: Drain,
) {
    let allowance = Allowance { streams_max: METRICS_STREAMS_MAX, limits: gateway.limits };
    connection(accepted, drain, allowance, move |request: Request<Incoming>| {
        let (gateway, render) = (Arc::clone(&gateway), Arc::clone(&render));
        async move {
            let path = request.uri().path();
            if !["/metrics", "/v2/health/live", "/v2/health/ready"].contains(&path) {
                return failure(StatusCode::NOT_FOUND, "no such path; the metrics are at /metrics");
            }
            match (path, request.method()) {
                ("/metrics", &Method::GET | &Method::HEAD) => metrics_page(render()),
                ("/v2/health/live", &Method::GET | &Method::HEAD) => live(),
                (_, &Method::GET | &Method::HEAD) => ready(&gateway).unwrap_or_else(|error| refusal(&error)),
                _ => wrong_method("GET"),
            }
        }
    })
    .await;
}

fn metrics_page(page: String) -> Response<Body> {
    let mut response = Response::new(Body::from(page));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn live() -> Response<Body> {
    json(&serde_json::json!({"live": true}))
}

/// Errors: the server is not ready, for a reason.
fn ready(gateway: &Gateway) -> Result<Response<Body>, ServeError> {
    match gateway.readiness.reason() {
        None => Ok(json(&serde_json::json!({"ready": true}))),
        Some(reason) => Err(ServeError::new(ErrorKind::Unavailable, reason)),
    }
}

async fn answer(gateway: &Arc<Gateway>, peer: SocketAddr, request: Request<Incoming>) -> Response<Body> {
    if control::is_below(request.uri().path()) && gateway.control.port() == ControlPort::Main {
        return Box::pin(control::answer(gateway, peer, request)).await;
    }
    let route = match Route::parse(request.uri().path()) {
        Ok(route) => route,
        Err(status) => return failure(status, "no such path"),
    };
    let asked = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
    if let Some(allowed) = route.resource.method().filter(|allowed| *allowed != asked) {
        return wrong_method(allowed.as_str());
    }
    match respond(gateway, &route, peer, request).await {
        Ok(response) => response,
        Err(error) => refusal(&error),
    }
}

async fn respond(
    gateway: &Arc<Gateway>,
    route: &Route,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Body>, ServeError> {
    let (model, pin) = (route.model.as_str(), &route.pin);
    match route.resource {
        Resource::Server => Ok(json(&json::server_metadata(&gateway.server_metadata()))),
        Resource::Live => Ok(live()),
        Resource::Ready => ready(gateway),
        Resource::ModelMetadata => Ok(json(&json::model_metadata(&gateway.model_metadata(model, pin)?))),
        Resource::ModelReady => match gateway.model_ready(model, pin)? {
            true => Ok(Response::new(Body::default())),
            false => {
                let reason = gateway.why_not_ready(model, pin)?;
                Err(ServeError::invalid(format!("model '{model}' is not ready: {reason}")))
            }
        },
        Resource::ModelConfig => Ok(json(&crate::model::config::to_json(&gateway.model_config(model, pin)?))),
        Resource::ModelStatistics => Ok(json(&json::statistics(&gateway.statistics(model, pin)?))),
        Resource::AllStatistics => Ok(json(&json::statistics(&gateway.statistics("", &VersionPin::Routed)?))),
        // Futures of their own, so that a prediction's need not have room for them.
        Resource::RepositoryIndex => {
            let only_ready = Box::pin(infer::index_filter(gateway, request)).await?;
            Ok(json(&json::repository_index(&gateway.repository_index(only_ready))))
        }
        Resource::Repository(change) => {
            Box::pin(control::change_repository(gateway, change, route.model.clone(), peer, request)).await
        }
        Resource::Infer => {
            let (head, body) = request.into_parts();
            infer::infer(gateway, route, &head.headers, body).await
        }
        Resource::NotOffered(what) => {
            Ok(failure(StatusCode::NOT_FOUND, &format!("{what} is not offered by this server")))
        }
    }
}

fn json(value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::from(value.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(super) fn failure(status: StatusCode, message: &str) -> Response<Body> {
    let mut response = json(&serde_json::json!({"error": message}));
    *response.status_mut() = status;
    response
}

pub(super) fn wrong_method(allowed: &str) -> Response<Body> {
    let mut response = failure(StatusCode::METHOD_NOT_ALLOWED, &format!("use {allowed} here"));
    if let Ok(value) = HeaderValue::from_str(allowed) {
        response.headers_mut().insert(ALLOW, value);
    }
    response
}

pub(super) fn refusal(error: &ServeError) -> Response<Body> {
    let (status, _) = status::codes(error.kind());
    let mut response = failure(status, error.message());
    let headers = response.headers_mut();
    match error.kind() {
        // The rest of the body may still come; it is not read.
        ErrorKind::TooSlow => _ = headers.insert(CONNECTION, HeaderValue::from_static("close")),
        // Queues empty within a second or never: clients may come back soon.
        ErrorKind::Overloaded => _ = headers.insert(RETRY_AFTER, HeaderValue::from_static("1")),
        ErrorKind::UnsupportedEncoding => {
            headers.insert(http::header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate"));
        }
        _ => {}
    }
    response
}
