//! gRPC: the inference service, the control API, health and reflection.

mod connection;
mod health;
mod infer;
mod message;
mod service;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::{Body, Frame, SizeHint};
use tonic::codec::CompressionEncoding;
use tonic::codegen::Service;
use tonic_health::pb::FILE_DESCRIPTOR_SET as HEALTH_DESCRIPTORS;
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server::Builder;

use self::connection::{Answering, Connection};
use super::chunks::Chunks;
use super::control::{ControlPort, ControlService, Peer};
use super::landing::Arriving;
use super::listener::{Accepted, Drain, Heard, drive};
use super::questions::Gateway;
use crate::proto::control::control_server::ControlServer;
use crate::proto::inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use crate::proto::{CONTROL_DESCRIPTORS, DESCRIPTORS};
use health::Health;
use service::Inference;

/// Every service of a port.
pub struct Services {
    gateway: Arc<Gateway>,
    inference: Option<GrpcInferenceServiceServer<Inference>>,
    control: Option<ControlServer<ControlService>>,
    health: HealthServer<Health>,
    reflection: Handler,
    /// The older name, which grpcio's client library asks for.
    reflection_alpha: Handler,
    streams_max: u32,
}

/// The names of the services, as paths begin with them.
const INFERENCE: &str = "inference.GRPCInferenceService";
const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const CONTROL: &str = "weir.control.v1.Control";

/// What tonic's services take.
type TonicRequest = Request<tonic::body::Body>;

/// What tonic's services answer.
type TonicAnswer = Result<Response<tonic::body::Body>, Infallible>;

/// The body of an answer, whoever wrote it.
pub enum AnswerBody {
    Unary(Chunks),
    Tonic(tonic::body::Body),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        match self.get_mut() {
            Self::Unary(chunks) => match Pin::new(chunks).poll_frame(context) {
                Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(|never| match never {}))),
                Poll::Pending => Poll::Pending,
            },
            Self::Tonic(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Unary(chunks) => chunks.is_end_stream(),
            Self::Tonic(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Unary(chunks) => chunks.size_hint(),
            Self::Tonic(body) => body.size_hint(),
        }
    }
}

/// A service whose type cannot be named.
type Handler = Arc<dyn Fn(TonicRequest) -> Pin<Box<dyn Future<Output = TonicAnswer> + Send>> + Send + Sync>;

fn handler<S>(service: S) -> Handler
where
    S: Service<TonicRequest, Response = Response<tonic::body::Body>, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send,
{
    Arc::new(move |request| Box::pin(service.clone().call(request)))
}

impl Services {
    /// Those of the gRPC port: the control API only if it has no port of its own.
    pub fn new(gateway: &Arc<Gateway>) -> Self {
        let limits = gateway.limits;
        let inference = GrpcInferenceServiceServer::new(Inference::new(Arc::clone(gateway)))
            .max_decoding_message_size(limits.message_bytes_max)
            .max_encoding_message_size(usize::MAX)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Deflate);
        let services = match gateway.control.port() {
            ControlPort::Main => Self {
                control: Some(ControlService::server(Arc::clone(gateway))),
                ..Self::described(gateway, &[DESCRIPTORS, CONTROL_DESCRIPTORS])
            },
            ControlPort::Own => Self::described(gateway, &[DESCRIPTORS]),
        };
        Self { inference: Some(inference), ..services }
    }

    /// Those of a port for the control API alone.
    pub fn of_control(gateway: &Arc<Gateway>) -> Self {
        Self {
            control: Some(ControlService::server(Arc::clone(gateway))),
            ..Self::described(gateway, &[CONTROL_DESCRIPTORS])
        }
    }

    /// Health, and reflection of it and of what is in `descriptors`.
    fn described(gateway: &Arc<Gateway>, descriptors: &[&'static [u8]]) -> Self {
        let described = || {
            let builder = Builder::configure().register_encoded_file_descriptor_set(HEALTH_DESCRIPTORS);
            descriptors.iter().fold(builder, |builder, set| builder.register_encoded_file_descriptor_set(set))
        };
        Self {
            gateway: Arc::clone(gateway),
            inference: None,
            control: None,
            health: HealthServer::new(Health::new(Arc::clone(&gateway.readiness))),
            reflection: handler(described().build_v1().expect("the build wrote valid descriptors")),
            reflection_alpha: handler(
                described().build_v1alpha().expect("the build wrote valid descriptors"),
            ),
            streams_max: gateway.limits.streams_max,
        }
    }

    /// Answers on one connection until the client closes it, or the drain begins and the calls in flight are
    /// answered.
    pub async fn serve(self: Arc<Self>, accepted: Accepted, drain: Drain) {
        let Accepted { io, peer } = accepted;
        let heard = Heard::default();
        let first = heard.clone();
        let streams_max = self.streams_max;
        let connection =
            Connection::new(io.into_inner(), streams_max, move |request, answering: Answering| {
                first.request();
                let services = Arc::clone(&self);
                // In a box, because tokio moves what it runs several times.
                tokio::spawn(Box::pin(
                    async move { answering.with(pin!(services.answer(peer, request))).await },
                ));
            });
        drive(connection, Connection::shut_down, heard, drain).await;
    }

    /// Answers one call, whichever port it came by.
    pub async fn answer(
        &self,
        peer: SocketAddr,
        request: Request<impl Arriving + Send + 'static>,
    ) -> Response<AnswerBody> {
        if self.inference.is_some() && request.uri().path() == MODEL_INFER && infer::is_plain(&request) {
            let (head, body) = request.into_parts();
            return self.infer(&head.headers, body).await;
        }
        // A future of its own, so that a prediction's need not have room for it.
        Box::pin(self.hand_to_tonic(peer, request.map(tonic::body::Body::new))).await
    }

    async fn hand_to_tonic(&self, peer: SocketAddr, request: TonicRequest) -> Response<AnswerBody> {
        let mut names = request.uri().path().split('/').skip(1);
        let (service, method) = (names.next().unwrap_or_default(), names.next().unwrap_or_default());
        // Only what is signed with the peer's address carries it: it costs an allocation.
        let with_peer = |mut request: TonicRequest| {
            request.extensions_mut().insert(Peer(peer));
            request
        };
        let answered = match (service, &self.inference, &self.control) {
            (INFERENCE, Some(inference), _) => match method {
                "RepositoryModelLoad" | "RepositoryModelUnload" => {
                    inference.clone().call(with_peer(request)).await
                }
                _ => inference.clone().call(request).await,
            },
            (CONTROL, _, Some(control)) => control.clone().call(with_peer(request)).await,
            ("grpc.health.v1.Health", ..) => self.health.clone().call(request).await,
            ("grpc.reflection.v1.ServerReflection", ..) => (self.reflection)(request).await,
            ("grpc.reflection.v1alpha.ServerReflection", ..) => (self.reflection_alpha)(request).await,
            _ => Ok(tonic::Status::unimplemented("no such service").into_http()),
        };
        let Ok(answer) = answered;
        answer.map(AnswerBody::Tonic)
    }

    async fn infer(&self, headers: &HeaderMap, body: impl Arriving) -> Response<AnswerBody> {
        match infer::unary(&self.gateway, headers, body).await {
            Ok(chunks) => {
                let mut response = Response::new(AnswerBody::Unary(chunks));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                response
            }
            Err(error) => tonic::Status::from(error).into_http().map(AnswerBody::Tonic),
        }
    }
}
