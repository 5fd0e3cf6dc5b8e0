//! gRPC: the inference service, the control API, health and reflection.

mod health;
mod infer;
mod message;
mod service;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use hyper::body::{Body, Frame, SizeHint};
use tonic::codec::CompressionEncoding;
use tonic::codegen::Service;
use tonic_health::pb::FILE_DESCRIPTOR_SET as HEALTH_DESCRIPTORS;
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server::Builder;

use super::chunks::Chunks;
use super::control::{ControlPort, ControlService, Peer};
use super::http2::{Allowance, Answering, Connection};
use super::incoming::Incoming;
use super::landing::broken_body;
use super::listener::{Accepted, Drain};
use super::questions::Gateway;
use super::watch::{Protocol, Vitals, WatchedIo, drive};
use crate::proto::control::control_server::ControlServer;
use crate::proto::inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use crate::proto::{CONTROL_DESCRIPTORS, DESCRIPTORS};
use crate::serve::Held;
use health::Health;
use message::Form;
use service::Inference;

/// Every service of a port.
pub struct Services {
    gateway: Arc<Gateway>,
    inference: Option<InferenceServices>,
    control: Option<ControlServer<ControlService>>,
    health: HealthServer<Health>,
    reflection: Handler,
    /// The older name, which grpcio's client library asks for.
    reflection_alpha: Handler,
}

/// The inference service as tonic serves it: everything but predictions.
struct InferenceServices {
    /// Loads, which bring model files along.
    loads: GrpcInferenceServiceServer<Inference>,
    questions: GrpcInferenceServiceServer<Inference>,
}

/// Bytes of a message that asks something: names, and nothing else that is long.
const QUESTION_BYTES_MAX: usize = 64 << 10;

/// The names of the services, as paths begin with them.
const INFERENCE: &str = "inference.GRPCInferenceService";
const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const MODEL_STREAM_INFER: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
const CONTROL: &str = "weir.control.v1.Control";

/// What tonic's services take.
type TonicRequest = Request<tonic::body::Body>;

/// What tonic's services answer.
type TonicAnswer = Result<Response<tonic::body::Body>, Infallible>;

/// The body of an answer, whoever wrote it.
pub enum AnswerBody {
    Unary(Chunks),
    Stream(infer::Answers),
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
            Self::Stream(answers) => answers.as_mut().poll_next(context),
            Self::Tonic(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Unary(chunks) => chunks.is_end_stream(),
            Self::Stream(_) => false,
            Self::Tonic(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Unary(chunks) => chunks.size_hint(),
            Self::Stream(_) => SizeHint::default(),
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
        let inference = |bytes_max| {
            GrpcInferenceServiceServer::new(Inference::new(Arc::clone(gateway)))
                .max_decoding_message_size(bytes_max)
                .max_encoding_message_size(usize::MAX)
                .accept_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Deflate)
        };
        let message_bytes_max = gateway.limits.message_bytes_max;
        let inference = InferenceServices {
            loads: inference(message_bytes_max),
            questions: inference(message_bytes_max.min(QUESTION_BYTES_MAX)),
        };
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
            health: HealthServer::new(Health::new(Arc::clone(&gateway.readiness)))
                .max_decoding_message_size(QUESTION_BYTES_MAX),
            reflection: handler(
                described()
                    .build_v1()
                    .expect("the build wrote valid descriptors")
                    .max_decoding_message_size(QUESTION_BYTES_MAX),
            ),
            reflection_alpha: handler(
                described()
                    .build_v1alpha()
                    .expect("the build wrote valid descriptors")
                    .max_decoding_message_size(QUESTION_BYTES_MAX),
            ),
        }
    }

    /// Answers on one connection until the client closes it, or the drain begins and the calls in flight are
    /// answered.
    pub async fn serve(self: Arc<Self>, accepted: Accepted, drain: Drain) {
        let Accepted { stream, peer } = accepted;
        let vitals = Arc::new(Vitals::default());
        let counted = Arc::clone(&vitals);
        let limits = self.gateway.limits;
        let allowance = Allowance { streams_max: limits.streams_max, limits };
        let io = WatchedIo::new(stream, Arc::clone(&vitals), Bytes::new()).framed();
        let serve = move |request, answering: Answering| {
            let call = counted.call();
            let services = Arc::clone(&self);
            // In a box, because tokio moves what it runs several times.
            tokio::spawn(Box::pin(async move {
                answering.with(pin!(services.answer(peer, request))).await;
                drop(call);
            }));
        };
        let connection = Connection::new(io, Arc::clone(&vitals), allowance, serve);
        drive(connection, &vitals, Protocol::Http2, limits.times, drain, Instant::now()).await;
    }

    /// Answers one call, whichever port it came by.
    pub async fn answer(&self, peer: SocketAddr, request: Request<Incoming>) -> Response<AnswerBody> {
        let path = request.uri().path();
        if self.inference.is_some()
            && (path == MODEL_INFER || path == MODEL_STREAM_INFER)
            && let Some(form) = infer::form(&request, &self.gateway.limits)
        {
            let one = path == MODEL_INFER;
            let (head, body) = request.into_parts();
            if one {
                return self.infer(&head.headers, body, form).await;
            }
            let answers = infer::stream(Arc::clone(&self.gateway), head.headers, body, form);
            return in_grpc(AnswerBody::Stream(answers));
        }
        // A future of its own, so that a prediction's need not have room for it.
        let held = self.gateway.pipeline.hold();
        let request = request.map(|body| tonic::body::Body::new(Counted { body, held, bytes: 0 }));
        Box::pin(self.hand_to_tonic(peer, request)).await
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
                "RepositoryModelLoad" => inference.loads.clone().call(with_peer(request)).await,
                "RepositoryModelUnload" => inference.questions.clone().call(with_peer(request)).await,
                _ => inference.questions.clone().call(request).await,
            },
            (CONTROL, _, Some(control)) => {
                // What asks may be refused its answer; a change has been made by then.
                let asks = method.starts_with("List") || method.starts_with("Get");
                let held = self.gateway.pipeline.hold();
                let answered = control.clone().call(with_peer(request)).await;
                match asks {
                    true => answered
                        .map(|answer| answer.map(|body| tonic::body::Body::new(UntilSent { body, held }))),
                    false => answered,
                }
            }
            ("grpc.health.v1.Health", ..) => self.health.clone().call(request).await,
            ("grpc.reflection.v1.ServerReflection", ..) => (self.reflection)(request).await,
            ("grpc.reflection.v1alpha.ServerReflection", ..) => (self.reflection_alpha)(request).await,
            _ => Ok(tonic::Status::unimplemented("no such service").into_http()),
        };
        let Ok(mut answer) = answered;
        blame_the_message(answer.headers_mut());
        answer.map(AnswerBody::Tonic)
    }

    async fn infer(&self, headers: &HeaderMap, body: Incoming, form: Form) -> Response<AnswerBody> {
        match infer::unary(&self.gateway, headers, body, form).await {
            Ok(chunks) => in_grpc(AnswerBody::Unary(chunks)),
            Err(error) => tonic::Status::from(error).into_http().map(AnswerBody::Tonic),
        }
    }
}

/// An answer that begins well; its status comes after its body.
fn in_grpc(body: AnswerBody) -> Response<AnswerBody> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// How tonic's own words begin for a message that it cannot read, in the form of a header.
const UNREADABLE: [&str; 6] = [
    "Missing%20request%20message",
    "Unexpected%20EOF%20decoding%20stream",
    "failed%20to%20decode%20Protobuf%20message",
    "protocol%20error:%20received%20message%20with",
    "Error%20decompressing",
    "Error%20deserializing",
];

/// A message that cannot be read is its client's fault; tonic takes it for ours (INTERNAL).
fn blame_the_message(headers: &mut HeaderMap) {
    const STATUS: HeaderName = HeaderName::from_static("grpc-status");
    let internal = headers.get(&STATUS).is_some_and(|status| status == "13");
    let words = headers.get("grpc-message").and_then(|message| message.to_str().ok()).unwrap_or_default();
    if internal && UNREADABLE.iter().any(|beginning| words.starts_with(beginning)) {
        headers.insert(STATUS, HeaderValue::from_static("3"));
    }
}

/// An answer of tonic's, which is counted until it is sent.
struct UntilSent {
    body: tonic::body::Body,
    held: Held,
}

impl Body for UntilSent {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)) else {
            return Poll::Ready(None);
        };
        let counted = frame.map(|frame| match frame.into_data() {
            Ok(bytes) => match self.held.until_sent([bytes]) {
                Ok([bytes]) => Frame::data(bytes),
                // The head has gone; what ends the answer says why it is none.
                Err(error) => {
                    self.body = tonic::body::Body::empty();
                    let mut trailers = HeaderMap::new();
                    let told = tonic::Status::from(error).add_header(&mut trailers);
                    told.expect("a status is made of what headers may hold");
                    Frame::trailers(trailers)
                }
            },
            Err(trailers) => trailers,
        });
        Poll::Ready(Some(counted))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// A body for tonic, which is counted as it comes and whose faults are told as we tell them.
struct Counted {
    body: Incoming,
    held: Held,
    bytes: usize,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)) else {
            return Poll::Ready(None);
        };
        let this = self.get_mut();
        let counted = frame.map_err(|error| broken_body(&error)).and_then(|frame| {
            this.bytes += frame.data_ref().map_or(0, Bytes::len);
            this.held.cover(this.bytes)?;
            Ok(frame)
        });
        Poll::Ready(Some(counted.map_err(tonic::Status::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};

    use super::*;
    use crate::serve::Admission;

    #[tokio::test]
    async fn an_answer_of_tonics_counts_until_it_is_sent_and_is_refused_where_there_is_no_room() {
        let admission = Admission::new(1, 1 << 20);
        let answer = |bytes: usize| UntilSent {
            body: tonic::body::Body::new(Full::new(Bytes::from(vec![7; bytes]))),
            held: admission.hold(),
        };
        let frame = answer(100_000).frame().await.unwrap().unwrap();
        assert_eq!(admission.bytes_in_flight(), 100_000);
        drop(frame);
        assert_eq!(admission.bytes_in_flight(), 0);
        let mut refused = answer((1 << 20) + 1);
        let trailers = refused.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "8");
        assert!(trailers["grpc-message"].to_str().unwrap().contains("in%20flight"), "{trailers:?}");
        assert!(refused.frame().await.is_none());
    }
}
