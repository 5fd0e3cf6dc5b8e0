//! The control API's calls over HTTP, as JSON.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use serde::Serialize;

use super::actor::Who;
use super::audit::Page;
use super::path::Path;
use super::read::{Asked, Call};
use super::repository::RepositoryChange;
use super::{BODY_BYTES_MAX, call, measures, repository};
use crate::api::http::{Body, failure, read_body, refusal, wrong_method};
use crate::api::incoming::Incoming;
use crate::api::questions::Gateway;
use crate::control::Control;
use crate::error::ServeError;
use crate::proto::control as pb;
use crate::serve::{Held, off_the_loop};

/// Answers a request for a path below `/control/v1/`.
pub async fn answer(gateway: &Arc<Gateway>, peer: SocketAddr, request: Request<Incoming>) -> Response<Body> {
    let Some(path) = Path::parse(request.uri().path()) else {
        return failure(StatusCode::NOT_FOUND, "no such path; the control API is below /control/v1/");
    };
    let allow = path.resource.methods();
    let asked = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
    if !allow.split(", ").any(|method| method == asked.as_str()) {
        return wrong_method(allow);
    }
    respond(gateway, peer, path, request).await.unwrap_or_else(|error| refusal(&error))
}

async fn respond(
    gateway: &Arc<Gateway>,
    peer: SocketAddr,
    path: Path,
    request: Request<Incoming>,
) -> Result<Response<Body>, ServeError> {
    let (head, body) = request.into_parts();
    let who = Who::of(&head.headers, peer)?;
    let (body, _held) = read_body(gateway, &head.headers, body, BODY_BYTES_MAX).await?;
    let asked = Asked {
        method: &head.method,
        query: head.uri.query(),
        headers: &head.headers,
        body: &body,
        who: &who,
    };
    let wanted = asked.call(path)?;
    let changes = ![Method::GET, Method::HEAD].contains(&head.method);
    let answer = call(gateway, move |gateway, control| perform(gateway, control, wanted)).await?;
    answer.into_response(changes, &gateway.pipeline.hold())
}

/// What came of a call.
struct Answer {
    json: String,
    /// Of the route that the answer is.
    revision: Option<u64>,
}

impl Answer {
    fn of(message: &impl Serialize) -> Result<Self, ServeError> {
        let json = serde_json::to_string(message)
            .map_err(|error| ServeError::internal(format!("the answer cannot be written: {error}")))?;
        Ok(Self { json, revision: None })
    }

    fn of_route(route: &pb::Route) -> Result<Self, ServeError> {
        Ok(Self { revision: Some(route.revision), ..Self::of(route)? })
    }

    /// Counted until it is sent. Errors: `Overloaded`, for want of room; never after a change, which has been made.
    fn into_response(self, changes: bool, held: &Held) -> Result<Response<Body>, ServeError> {
        let json = Bytes::from(self.json);
        let [json] = match changes {
            true => [json],
            false => held.until_sent([json])?,
        };
        let mut response = Response::new(Body::from(json));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(revision) = self.revision {
            headers.insert(ETAG, etag(revision));
        }
        Ok(response)
    }
}

/// The entity tag by which a client names a route's revision in `If-Match`.
fn etag(revision: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{revision}\"")).expect("digits in quotes are a header's value")
}

fn perform(gateway: &Gateway, control: &Control, call: Call) -> Result<Answer, ServeError> {
    match call {
        Call::ListModels => Answer::of(&measures::list_models(gateway, control)?),
        Call::GetModel(request) => Answer::of(&measures::get_model(gateway, control, request)?),
        Call::GetRoute(request) => Answer::of_route(&control.get_route(request)?),
        Call::SetRoute(request) => Answer::of_route(&control.set_route(request)?),
        Call::ClearRoute(request) => Answer::of_route(&control.clear_route(request)?),
        Call::Rollback(request) => Answer::of_route(&control.rollback(request)?),
        Call::SetLabel(request) => Answer::of(&control.set_label(request)?),
        Call::DeleteLabel(request) => Answer::of(&control.delete_label(request)?),
        Call::LoadVersion(request) => Answer::of(&control.load_version(request)?),
        Call::UnloadVersion(request) => Answer::of(&control.unload_version(request)?),
        Call::StartRollout(request) => Answer::of(&control.start_rollout(request)?),
        Call::ListRollouts(request) => Answer::of(&control.list_rollouts(request)?),
        Call::GetRollout(request) => Answer::of(&control.get_rollout(request)?),
        Call::PauseRollout(request) => Answer::of(&control.pause_rollout(request)?),
        Call::ResumeRollout(request) => Answer::of(&control.resume_rollout(request)?),
        Call::PromoteRollout(request) => Answer::of(&control.promote_rollout(request)?),
        Call::AbortRollout(request) => Answer::of(&control.abort_rollout(request)?),
        Call::GetShadows(request) => Answer::of(&measures::get_shadows(gateway, &request)?),
        Call::RecordFeedback(request) => Answer::of(&control.record_feedback(request)?),
        Call::ListExperiments(request) => Answer::of(&control.list_experiments(request)?),
        Call::ListAudit(request) => Answer::of(&Page::of(&control.list_audit(request)?)),
    }
}

/// `POST /v2/repository/models/{m}/load` and `…/unload`. Says nothing when it is done, as the protocol has it.
pub async fn change_repository(
    gateway: &Arc<Gateway>,
    change: RepositoryChange,
    model: String,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Body>, ServeError> {
    repository::allowed(gateway)?;
    let (head, body) = request.into_parts();
    let actor = Who::of(&head.headers, peer)?.signed("")?;
    let (body, _held) = read_body(gateway, &head.headers, body, gateway.limits.message_bytes_max).await?;
    match change {
        RepositoryChange::Load => {
            let parameters = off_the_loop(body.len(), move || repository::load_of_json(&body)).await??;
            repository::load(gateway, model, parameters, actor).await?;
        }
        RepositoryChange::Unload => {
            repository::check_unload_json(&body)?;
            repository::unload(gateway, model, actor).await?;
        }
    }
    Ok(Response::new(Body::default()))
}
