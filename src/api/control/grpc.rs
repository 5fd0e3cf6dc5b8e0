//! The control API's calls over gRPC: each is one line to the method that answers both protocols.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::actor::{Change, Peer, Who};
use super::{BODY_BYTES_MAX, call, measures};
use crate::api::questions::Gateway;
use crate::control::Control;
use crate::error::ServeError;
use crate::proto::control as pb;
use crate::proto::control::control_server::{Control as Calls, ControlServer};

/// `weir.control.v1.Control`.
pub struct ControlService {
    gateway: Arc<Gateway>,
}

type Answer<A> = Result<Response<A>, Status>;

/// A method of the control plane.
type Method<Q, A> = fn(&Control, Q) -> Result<A, ServeError>;

impl ControlService {
    /// The service, ready to be called. Requests must carry a [`Peer`].
    pub fn server(gateway: Arc<Gateway>) -> ControlServer<Self> {
        ControlServer::new(Self { gateway })
            .max_decoding_message_size(BODY_BYTES_MAX)
            .max_encoding_message_size(usize::MAX)
    }

    async fn ask<Q, A>(&self, request: Request<Q>, method: Method<Q, A>) -> Answer<A>
    where
        Q: Send + 'static,
        A: Send + 'static,
    {
        let request = request.into_inner();
        Ok(Response::new(call(&self.gateway, move |_, control| method(control, request)).await?))
    }

    async fn change<Q, A>(&self, request: Request<Q>, method: Method<Q, A>) -> Answer<A>
    where
        Q: Change + Send + 'static,
        A: Send + 'static,
    {
        let who = who(&request)?;
        let mut request = request;
        let actor = request.get_mut().actor();
        *actor = who.signed(actor)?;
        self.ask(request, method).await
    }
}

/// Whoever sent a call. Errors: the metadata hold no name, or the connection did not say where it came from.
pub fn who<Q>(request: &Request<Q>) -> Result<Who, ServeError> {
    let peer = request.extensions().get::<Peer>();
    let Peer(peer) = *peer.ok_or_else(|| ServeError::internal("nobody knows where this call came from"))?;
    Who::of(request.metadata().as_ref(), peer)
}

#[tonic::async_trait]
impl Calls for ControlService {
    async fn list_models(&self, _: Request<pb::ListModelsRequest>) -> Answer<pb::ListModelsResponse> {
        Ok(Response::new(call(&self.gateway, measures::list_models).await?))
    }

    async fn get_model(&self, request: Request<pb::ModelRequest>) -> Answer<pb::ModelStatus> {
        let request = request.into_inner();
        let work = move |gateway: &Gateway, control: &Control| measures::get_model(gateway, control, request);
        Ok(Response::new(call(&self.gateway, work).await?))
    }

    async fn get_route(&self, request: Request<pb::ModelRequest>) -> Answer<pb::Route> {
        self.ask(request, Control::get_route).await
    }

    async fn set_route(&self, mut request: Request<pb::SetRouteRequest>) -> Answer<pb::Route> {
        one_model(request.get_mut())?;
        self.change(request, Control::set_route).await
    }

    async fn clear_route(&self, request: Request<pb::ChangeRequest>) -> Answer<pb::Route> {
        self.change(request, Control::clear_route).await
    }

    async fn rollback(&self, request: Request<pb::ChangeRequest>) -> Answer<pb::Route> {
        self.change(request, Control::rollback).await
    }

    async fn set_label(&self, request: Request<pb::SetLabelRequest>) -> Answer<pb::Labels> {
        self.change(request, Control::set_label).await
    }

    async fn delete_label(&self, request: Request<pb::DeleteLabelRequest>) -> Answer<pb::Labels> {
        self.change(request, Control::delete_label).await
    }

    async fn load_version(&self, request: Request<pb::VersionRequest>) -> Answer<pb::VersionStatus> {
        self.change(request, Control::load_version).await
    }

    async fn unload_version(&self, request: Request<pb::VersionRequest>) -> Answer<pb::VersionStatus> {
        self.change(request, Control::unload_version).await
    }

    async fn start_rollout(&self, request: Request<pb::StartRolloutRequest>) -> Answer<pb::Rollout> {
        self.change(request, Control::start_rollout).await
    }

    async fn list_rollouts(&self, request: Request<pb::ModelRequest>) -> Answer<pb::ListRolloutsResponse> {
        self.ask(request, Control::list_rollouts).await
    }

    async fn get_rollout(&self, request: Request<pb::RolloutRequest>) -> Answer<pb::Rollout> {
        self.ask(request, Control::get_rollout).await
    }

    async fn pause_rollout(&self, request: Request<pb::RolloutRequest>) -> Answer<pb::Rollout> {
        self.change(request, Control::pause_rollout).await
    }

    async fn resume_rollout(&self, request: Request<pb::RolloutRequest>) -> Answer<pb::Rollout> {
        self.change(request, Control::resume_rollout).await
    }

    async fn promote_rollout(&self, request: Request<pb::RolloutRequest>) -> Answer<pb::Rollout> {
        self.change(request, Control::promote_rollout).await
    }

    async fn abort_rollout(&self, request: Request<pb::RolloutRequest>) -> Answer<pb::Rollout> {
        self.change(request, Control::abort_rollout).await
    }

    async fn get_shadows(&self, request: Request<pb::ModelRequest>) -> Answer<pb::ShadowReports> {
        let request = request.into_inner();
        let work = move |gateway: &Gateway, _: &Control| measures::get_shadows(gateway, &request);
        Ok(Response::new(call(&self.gateway, work).await?))
    }

    async fn record_feedback(&self, request: Request<pb::FeedbackRequest>) -> Answer<pb::FeedbackResponse> {
        self.ask(request, Control::record_feedback).await
    }

    async fn list_experiments(
        &self,
        request: Request<pb::ModelRequest>,
    ) -> Answer<pb::ListExperimentsResponse> {
        self.ask(request, Control::list_experiments).await
    }

    async fn list_audit(&self, request: Request<pb::ListAuditRequest>) -> Answer<pb::ListAuditResponse> {
        self.ask(request, Control::list_audit).await
    }
}

/// The route inside a request may name its model again, as a route that was read does. Errors: another model.
fn one_model(request: &mut pb::SetRouteRequest) -> Result<(), ServeError> {
    let Some(route) = request.route.as_ref().filter(|route| !route.model.is_empty()) else { return Ok(()) };
    if request.model.is_empty() {
        request.model.clone_from(&route.model);
    }
    match route.model == request.model {
        true => Ok(()),
        false => Err(ServeError::invalid("the request names one model and its route another")),
    }
}
