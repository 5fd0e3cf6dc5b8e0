//! A server for tests that answers what it was told to, and keeps what it was asked.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;

/// What one call looked like.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// Method, path and query: `GET /control/v1/models`.
    pub line: String,
    pub actor: Option<String>,
    pub if_match: Option<String>,
    /// `Null` when there was none.
    pub body: Value,
}

/// Runs until it is dropped.
pub struct Canned {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Canned {
    /// Answers the n-th call with the n-th status and body, and any further call with the last ones.
    pub fn new(answers: &[(u16, &str)]) -> Self {
        let answers: Vec<_> = answers.iter().map(|(status, body)| (*status, (*body).to_owned())).collect();
        let answers = Arc::new(answers);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&asked);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answers, kept) = (Arc::clone(&answers), Arc::clone(&kept));
                let service =
                    service_fn(move |request| answer(request, Arc::clone(&answers), Arc::clone(&kept)));
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, asked, _runtime: runtime }
    }

    /// For `--server`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All calls so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn answer(
    request: Request<Incoming>,
    answers: Arc<Vec<(u16, String)>>,
    kept: Arc<Mutex<Vec<Asked>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let header = |name: &str| Some(request.headers().get(name)?.to_str().ok()?.to_owned());
    let line = format!("{} {}", request.method(), request.uri());
    let (actor, if_match) = (header("weir-actor"), header("if-match"));
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let at = {
        let mut kept = kept.lock().unwrap();
        kept.push(Asked { line, actor, if_match, body });
        kept.len() - 1
    };
    let (status, body) = answers.get(at).or(answers.last()).cloned().unwrap();
    let response = Response::builder().status(status).body(Full::new(Bytes::from(body)));
    Ok(response.unwrap())
}
