//! A port for the control API alone, with both of its protocols.

use std::sync::Arc;

use http::Request;
use http::header::CONTENT_TYPE;

use super::http::answer;
use crate::api::grpc::{AnswerBody, Services};
use crate::api::http::connection;
use crate::api::http2::Allowance;
use crate::api::incoming::Incoming;
use crate::api::listener::{Accepted, Drain};
use crate::api::questions::Gateway;

/// Answers on one connection: gRPC out of `services` ([`Services::of_control`]) where a request says that it is
/// gRPC, JSON otherwise; HTTP/1.1 or HTTP/2. Ends as the other ports' connections do.
pub async fn serve(gateway: Arc<Gateway>, services: Arc<Services>, accepted: Accepted, drain: Drain) {
    let peer = accepted.peer;
    let limits = gateway.limits;
    let allowance = Allowance { streams_max: limits.streams_max, limits };
    connection(accepted, drain, allowance, move |request: Request<Incoming>| {
        let (gateway, services) = (Arc::clone(&gateway), Arc::clone(&services));
        async move {
            match is_grpc(&request) {
                true => services.answer(peer, request).await,
                false => {
                    let answer = answer(&gateway, peer, request).await;
                    answer.map(|body| AnswerBody::Tonic(tonic::body::Body::new(body)))
                }
            }
        }
    })
    .await;
}

/// `application/grpc`, alone or with the coding of its messages: `application/grpc+proto`.
fn is_grpc<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.strip_prefix("application/grpc")
        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_grpc_by_its_content_type() {
        for (kind, grpc) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/json", false),
            ("", false),
        ] {
            let request = Request::builder().header(CONTENT_TYPE, kind).body(()).unwrap();
            assert_eq!(is_grpc(&request), grpc, "{kind}");
        }
        assert!(!is_grpc(&Request::new(())));
    }
}
