//! Servers that answer with what they were sent: what the libraries and the protocol cost without a model.
//!
//! Always: a connection has a task, as in Weir; answers name their outputs after the inputs.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io::Write;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tonic::server::{Grpc, UnaryService};
use tonic_prost::ProstCodec;
use weir::proto::inference as pb;

use super::children::Child;
use super::options::Options;

/// The role on the command line.
pub const CHILD: &str = "echo";

/// Flow-control windows as large as Weir's.
const WINDOW: u32 = 8 << 20;

/// An echo server under way.
pub struct Echo {
    child: Child,
    pub address: SocketAddr,
}

impl Echo {
    /// tonic; `all` threads or one.
    pub fn tonic(options: &Options, all: bool) -> Self {
        Self::start(options, if all { "tonic-all" } else { "tonic" })
    }

    /// hyper, with JSON read into typed structs and written from them.
    pub fn json(options: &Options) -> Self {
        Self::start(options, "json")
    }

    /// hyper, with bodies as bytes.
    pub fn bytes(options: &Options) -> Self {
        Self::start(options, "bytes")
    }

    fn start(options: &Options, kind: &str) -> Self {
        let mut child = Child::start(options, &[CHILD, kind]);
        let address = child.line().parse().expect("it says where it listens");
        Self { child, address }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

/// Serves until it is killed.
pub fn serve(arguments: &[String]) {
    let kind = arguments.first().map(String::as_str).unwrap_or_default();
    let mut threads =
        if kind == "tonic-all" { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    let runtime = threads.enable_all().build().expect("there is epoll");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a port");
        println!("{}", listener.local_addr().expect("it is bound"));
        std::io::stdout().flush().expect("somebody reads");
        loop {
            let (stream, _) = listener.accept().await.expect("connections are taken");
            stream.set_nodelay(true).expect("a socket takes the option");
            match kind {
                "json" => tokio::spawn(http1_connection(stream, json)),
                "bytes" => tokio::spawn(http1_connection(stream, |body| body)),
                _ => tokio::spawn(grpc_connection(stream)),
            };
        }
    });
}

async fn grpc_connection(stream: TcpStream) {
    let service = service_fn(|request: Request<Incoming>| async {
        let codec = ProstCodec::<pb::ModelInferResponse, pb::ModelInferRequest>::default();
        let mut grpc = Grpc::new(codec).max_decoding_message_size(usize::MAX);
        Ok::<_, Infallible>(grpc.unary(Echoing, request).await)
    });
    let _ = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

struct Echoing;

impl UnaryService<pb::ModelInferRequest> for Echoing {
    type Response = pb::ModelInferResponse;
    type Future = Ready<Result<tonic::Response<pb::ModelInferResponse>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<pb::ModelInferRequest>) -> Self::Future {
        let request = request.into_inner();
        let output =
            |input: pb::model_infer_request::InferInputTensor| pb::model_infer_response::InferOutputTensor {
                name: input.name,
                datatype: input.datatype,
                shape: input.shape,
                ..Default::default()
            };
        ready(Ok(tonic::Response::new(pb::ModelInferResponse {
            model_name: request.model_name,
            model_version: request.model_version,
            id: request.id,
            outputs: request.inputs.into_iter().map(output).collect(),
            raw_output_contents: request.raw_input_contents,
            ..Default::default()
        })))
    }
}

async fn http1_connection(stream: TcpStream, answer: fn(Bytes) -> Bytes) {
    let service = service_fn(move |request: Request<Incoming>| async move {
        let body = request.into_body().collect().await?.to_bytes();
        Ok::<_, hyper::Error>(Response::new(Full::new(answer(body))))
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

#[derive(Deserialize)]
struct Body {
    inputs: Vec<Tensor>,
}

#[derive(Serialize)]
struct Answer {
    model_name: &'static str,
    model_version: &'static str,
    outputs: Vec<Tensor>,
}

#[derive(Deserialize, Serialize)]
struct Tensor {
    name: String,
    datatype: String,
    shape: Vec<i64>,
    data: Vec<f32>,
}

fn json(body: Bytes) -> Bytes {
    // A question about statistics has no body and gets none.
    let Ok(body) = serde_json::from_slice::<Body>(&body) else { return Bytes::new() };
    let answer = Answer { model_name: "m", model_version: "1", outputs: body.inputs };
    serde_json::to_vec(&answer).expect("floats are finite").into()
}
