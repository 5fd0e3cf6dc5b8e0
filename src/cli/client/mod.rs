//! Asks a server's control API over HTTP/1.1, in the clear or over TLS, one call after the other.
//!
//! Always: a call has a time limit; what a server says is read within a size limit, and cannot steer the terminal.
//! Not here: retries, what the answers mean.

mod address;
mod answer;
#[cfg(test)]
pub mod canned;
mod tls;

pub use address::Address;
pub use answer::Answer;
pub use tls::TlsArguments;

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde_json::Value;

/// A machine that does not take a connection in this time is taken for one that is not there.
const CONNECT_SECONDS: u64 = 5;

/// Questions are answered from memory.
const QUESTION_SECONDS: u64 = 30;

/// A change waits for the versions that it names to be loaded and warmed.
const CHANGE_SECONDS: u64 = 600;

/// Bytes of one answer. The largest one, the disagreements of a model's shadows, is a few megabytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Everything but these is escaped in a path's segments.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// Why a call has no answer to show.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no weir answers at {0}; is it running, and is --server right?")]
    Nobody(Address),
    #[error(
        "there is no TLS with {address}: {cause}; is --server right, and does --ca hold the server's authority?"
    )]
    Untrusted { address: Address, cause: String },
    #[error("{address} has not answered within {seconds} s{consequence}")]
    Late { address: Address, seconds: u64, consequence: &'static str },
    #[error("the connection to {address} broke before the answer was there{consequence}: {cause}")]
    Broken { address: Address, consequence: &'static str, cause: String },
    #[error("{sentence}")]
    Refused { status: StatusCode, sentence: String },
    #[error("{address} answers as no control API does ({status} without {missing}); is --server right?")]
    Foreign { address: Address, status: StatusCode, missing: &'static str },
}

impl ClientError {
    /// Whether the server may answer when it is asked again later.
    pub fn passes(&self) -> bool {
        match self {
            Self::Nobody(_) | Self::Late { .. } | Self::Broken { .. } => true,
            Self::Untrusted { .. } => false,
            // What a server says while it starts, and a proxy while nobody is behind it.
            Self::Refused { status, .. } | Self::Foreign { status, .. } => matches!(
                *status,
                StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
            ),
        }
    }
}

/// One call, before it is made.
#[derive(Debug, Clone)]
pub struct Call {
    method: Method,
    path: String,
    body: Option<Value>,
    actor: Option<String>,
    if_revision: Option<u64>,
}

impl Call {
    /// A question. `segments` follow `/control/v1`, unescaped.
    pub fn get(segments: &[&str]) -> Self {
        Self { method: Method::GET, path: path(segments), body: None, actor: None, if_revision: None }
    }

    /// A POST: something is done.
    pub fn post(segments: &[&str]) -> Self {
        Self { method: Method::POST, ..Self::get(segments) }
    }

    /// A PUT: something is replaced.
    pub fn put(segments: &[&str]) -> Self {
        Self { method: Method::PUT, ..Self::get(segments) }
    }

    /// A DELETE: something is removed.
    pub fn delete(segments: &[&str]) -> Self {
        Self { method: Method::DELETE, ..Self::get(segments) }
    }

    /// With a query; of each pair the name stands as it is and the value is escaped.
    pub fn query(mut self, pairs: &[(&str, String)]) -> Self {
        for (at, (name, value)) in pairs.iter().enumerate() {
            let sign = if at == 0 { '?' } else { '&' };
            self.path.push_str(&format!("{sign}{name}={}", utf8_percent_encode(value, KEPT)));
        }
        self
    }

    /// With a body. Fields that are empty or absent are left out: that is what their defaults mean.
    pub fn body(mut self, message: &impl Serialize) -> Self {
        let mut body = serde_json::to_value(message).expect("messages of the control API are JSON");
        answer::drop_absent(&mut body);
        self.body = Some(body);
        self
    }

    /// In whose name.
    pub fn by(mut self, actor: String) -> Self {
        self.actor = Some(actor);
        self
    }

    /// Only if the route's revision is this one.
    pub fn if_revision(mut self, revision: Option<u64>) -> Self {
        self.if_revision = revision;
        self
    }

    fn changes(&self) -> bool {
        self.method != Method::GET
    }

    fn seconds_max(&self) -> u64 {
        if self.changes() { CHANGE_SECONDS } else { QUESTION_SECONDS }
    }

    /// What is not known when a call ends without an answer.
    fn consequence(&self) -> &'static str {
        if self.changes() { "; whether the change was made is not known" } else { "" }
    }
}

fn path(segments: &[&str]) -> String {
    let mut path = "/control/v1".to_owned();
    for segment in segments {
        path.push('/');
        path.extend(utf8_percent_encode(segment, KEPT));
    }
    path
}

/// Makes calls of one server.
pub struct Client {
    address: Address,
    http: hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    /// Connects to nothing yet.
    ///
    /// Errors: the operating system gives this process no more files, or what TLS needs cannot be read.
    pub fn new(address: Address, tls: &TlsArguments) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("the network cannot be used")?;
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(Duration::from_secs(CONNECT_SECONDS)));
        connector.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls.config(address.is_secure())?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            // Between calls nothing runs here that would see a connection close, so none is kept.
            .pool_max_idle_per_host(0)
            .build(connector);
        Ok(Self { address, http, runtime })
    }

    /// Makes a call and waits for its answer; blocks, for the time limit at most.
    ///
    /// Errors: [`ClientError`]; a refusal carries the server's own sentence.
    pub fn ask(&self, call: Call) -> Result<Answer, ClientError> {
        let (seconds, consequence) = (call.seconds_max(), call.consequence());
        let late = || ClientError::Late { address: self.address.clone(), seconds, consequence };
        let exchange = self.exchange(call);
        let limited = async { tokio::time::timeout(Duration::from_secs(seconds), exchange).await };
        self.runtime.block_on(limited).unwrap_or_else(|_| Err(late()))
    }

    async fn exchange(&self, call: Call) -> Result<Answer, ClientError> {
        let consequence = call.consequence();
        let broken = |cause| ClientError::Broken { address: self.address.clone(), consequence, cause };
        let response = self.http.request(self.request(call)).await.map_err(|error| {
            if error.is_connect() {
                let address = self.address.clone();
                return match tls_error(&error) {
                    Some(cause) => ClientError::Untrusted { address, cause },
                    None => ClientError::Nobody(address),
                };
            }
            broken(innermost(&error))
        })?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| broken(innermost(error.as_ref())))?.to_bytes();
        self.judge(status, &body)
    }

    fn request(&self, call: Call) -> Request<Full<Bytes>> {
        let mut request = Request::builder().method(call.method).uri(self.address.uri(&call.path));
        if let Some(actor) = call.actor {
            let actor = HeaderValue::try_from(actor).expect("actors are printable ASCII");
            request = request.header("weir-actor", actor);
        }
        if let Some(revision) = call.if_revision {
            request = request.header(header::IF_MATCH, format!("\"{revision}\""));
        }
        let body = call.body.map(|body| Bytes::from(body.to_string()));
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(body.unwrap_or_default())).expect("paths are escaped and headers checked")
    }

    fn judge(&self, status: StatusCode, body: &[u8]) -> Result<Answer, ClientError> {
        let foreign = |missing| ClientError::Foreign { address: self.address.clone(), status, missing };
        let json = serde_json::from_slice::<Value>(body);
        if status.is_success() {
            return json.map(|json| Answer::new(body, json)).map_err(|_| foreign("JSON"));
        }
        let sentence = json.ok().and_then(Answer::refusal).ok_or_else(|| foreign("a reason"))?;
        Err(ClientError::Refused { status, sentence })
    }
}

/// What keeps two sides from TLS, if that is what an error is about.
fn tls_error(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(cause) = error.downcast_ref::<rustls::Error>() {
            return Some(cause.to_string());
        }
        // What an I/O error holds is not among its sources.
        let held = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = held.map(|held| held as _).or_else(|| error.source());
    }
    None
}

/// The cause behind all others: the layers above it only say that something went wrong.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .last()
        .map_or_else(String::new, ToString::to_string)
}

#[cfg(test)]
mod tests;
