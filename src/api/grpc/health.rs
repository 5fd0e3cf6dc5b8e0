//! `grpc.health.v1`: the server's readiness, asked for once or watched.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::stream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::serve::{Phase, Readiness};

/// Names that stand for the whole server.
const KNOWN: [&str; 2] = ["", "inference.GRPCInferenceService"];

pub struct Health {
    readiness: Arc<Readiness>,
}

impl Health {
    pub fn new(readiness: Arc<Readiness>) -> Self {
        Self { readiness }
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status as i32 }
}

fn of_phase(phase: Phase) -> HealthCheckResponse {
    response(match phase {
        Phase::Ready => ServingStatus::Serving,
        Phase::Starting | Phase::Draining => ServingStatus::NotServing,
    })
}

#[tonic::async_trait]
impl health_server::Health for Health {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !KNOWN.contains(&request.get_ref().service.as_str()) {
            return Err(Status::not_found("unknown service"));
        }
        Ok(Response::new(of_phase(self.readiness.phase())))
    }

    /// Sends the status at once and then at every change. Ends once the server drains: a watch must not hold the
    /// drain up.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let mut phases = self.readiness.watch();
        if !KNOWN.contains(&request.get_ref().service.as_str()) {
            // The protocol keeps such a stream open, in case the service appears.
            let unknown = stream::once(async { Ok(response(ServingStatus::ServiceUnknown)) });
            let until_drained = stream::once(async move {
                let _ = phases.wait_for(|phase| *phase == Phase::Draining).await;
            });
            let silent = futures_util::StreamExt::filter_map(until_drained, |()| async { None });
            return Ok(Response::new(Box::pin(futures_util::StreamExt::chain(unknown, silent))));
        }
        phases.mark_changed();
        let statuses = stream::unfold(Some(phases), |phases| async move {
            let mut phases = phases?;
            phases.changed().await.ok()?;
            let phase = *phases.borrow_and_update();
            let next = (phase != Phase::Draining).then_some(phases);
            Some((Ok(of_phase(phase)), next))
        });
        Ok(Response::new(Box::pin(statuses)))
    }
}
