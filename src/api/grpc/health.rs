//! `grpc.health.v1`: the readiness of the server, or of a model by its name, asked for once or watched.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::stream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::serve::{Changes, Phase, Readiness};

/// Names that stand for the whole server. Any other may be a model's.
const KNOWN: [&str; 2] = ["", "inference.GRPCInferenceService"];

pub struct Health {
    readiness: Arc<Readiness>,
}

impl Health {
    pub fn new(readiness: Arc<Readiness>) -> Self {
        Self { readiness }
    }
}

/// How the server or a model stands; `None`: there is neither of that name.
fn status(readiness: &Readiness, service: &str) -> Option<ServingStatus> {
    let ready = match KNOWN.contains(&service) {
        true => readiness.is_ready(),
        false => readiness.of_model(service)?,
    };
    Some(if ready { ServingStatus::Serving } else { ServingStatus::NotServing })
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status as i32 }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let status = status(&self.readiness, &request.get_ref().service);
        status
            .map(|status| Response::new(response(status)))
            .ok_or_else(|| Status::not_found("unknown service"))
    }

    /// Sends the status at once and then at every change; that of a name that is not known yet is so, in case it
    /// appears. Ends once the server drains: a watch must not hold the drain up.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let watched = Watched {
            changes: self.readiness.changes(),
            readiness: Arc::clone(&self.readiness),
            service: request.into_inner().service,
            told: None,
        };
        let statuses = stream::unfold(Some(watched), |watched| async move {
            let mut watched = watched?;
            let (told, last) = watched.next().await?;
            Some((Ok(response(told)), (!last).then_some(watched)))
        });
        Ok(Response::new(Box::pin(statuses)))
    }
}

/// One watch.
struct Watched {
    readiness: Arc<Readiness>,
    changes: Changes,
    service: String,
    told: Option<ServingStatus>,
}

impl Watched {
    /// The next status that was not told yet, and whether it is the last. `None`: the server drains, and all is told.
    async fn next(&mut self) -> Option<(ServingStatus, bool)> {
        loop {
            // Looked at first: what changes afterwards is told by the next round.
            let draining = self.readiness.phase() == Phase::Draining;
            let status = status(&self.readiness, &self.service).unwrap_or(ServingStatus::ServiceUnknown);
            if self.told != Some(status) {
                self.told = Some(status);
                return Some((status, draining));
            }
            if draining {
                return None;
            }
            self.changes.next().await?;
        }
    }
}
