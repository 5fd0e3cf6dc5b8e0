//! The control API's calls, one method each. All of them block.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::forms;
use super::ledger::{Writing, entry};
use super::live::{Cause, Live, Mode};
use super::outcomes::Outcomes;
use super::rollouts::Rollouts;
use super::routes::{Past, RouteChange, owner, unknown};
use super::stop::Stop;
use super::watch::Prints;
use crate::error::{ErrorKind, ServeError};
use crate::id::{ModelName, ServableId, Version, is_label};
use crate::model::VersionState;
use crate::proto::control as pb;
use crate::serve::ModelEntry;

/// Changes what is live, and tells what is.
pub struct Control {
    pub(super) live: Arc<Live>,
    pub(super) rollouts: Rollouts,
    pub(super) outcomes: Option<Arc<Outcomes>>,
    pub(super) stop: Arc<Stop>,
    /// The repository as it was read at the start, until it is followed.
    pub(super) announced: Mutex<Prints>,
}

type Answered<T> = Result<T, ServeError>;

impl Control {
    /// Every model. Numbers of requests and times are not known here.
    pub fn list_models(&self) -> Answered<pb::ListModelsResponse> {
        let snapshot = self.live.table.snapshot();
        let models = snapshot.models.iter().map(|(model, entry)| self.status(model, entry)).collect();
        Ok(pb::ListModelsResponse { models })
    }

    pub fn get_model(&self, request: pb::ModelRequest) -> Answered<pb::ModelStatus> {
        let model = self.known(&request.model)?;
        let snapshot = self.live.table.snapshot();
        let entry = snapshot.models.get(&model).ok_or_else(|| unknown(&model))?;
        Ok(self.status(&model, entry))
    }

    pub fn get_route(&self, request: pb::ModelRequest) -> Answered<pb::Route> {
        let model = self.known(&request.model)?;
        Ok(self.live.told(&model, &self.live.desired(&model)))
    }

    pub fn set_route(&self, request: pb::SetRouteRequest) -> Answered<pb::Route> {
        let model = forms::model(&request.model)?;
        let route = request.route.unwrap_or_default();
        forms::spec(&route)
            .and_then(|spec| spec.short())
            .map_err(|reason| ServeError::invalid(format!("the route of '{model}': {reason}")))?;
        // A route that was read, changed and sent back carries the revision that it was read at.
        let if_revision = request.if_revision.or((route.revision > 0).then_some(route.revision));
        self.by_operator(&model, Some(route), "route", &request.actor, if_revision)
    }

    pub fn clear_route(&self, request: pb::ChangeRequest) -> Answered<pb::Route> {
        let model = self.known(&request.model)?;
        self.by_operator(&model, None, "route.clear", &request.actor, request.if_revision)
    }

    /// Brings back the route that was live before the last change; a rollout that is under way is ended, which
    /// does just that.
    pub fn rollback(&self, request: pb::ChangeRequest) -> Answered<pb::Route> {
        let model = self.known(&request.model)?;
        if let Some(id) = self.rollout_under_way(&model) {
            let ended = pb::RolloutRequest { model: request.model, id, actor: request.actor };
            self.abort_rollout(ended)?;
            return self.get_route(pb::ModelRequest { model: model.to_string() });
        }
        self.not_governed(&model)?;
        let before = self.live.desired(&model).history.last().cloned().ok_or_else(|| {
            ServeError::new(ErrorKind::Conflict, format!("nothing else was live of '{model}' before"))
        })?;
        self.live.change_route(
            &model,
            RouteChange {
                to: Some(before),
                owner: owner::API,
                actor: &request.actor,
                action: "rollback",
                if_revision: request.if_revision,
                past: Past::Return,
                of_rollout: false,
                why: "",
                along: Writing::default(),
            },
        )
    }

    fn by_operator(
        &self,
        model: &ModelName,
        to: Option<pb::Route>,
        action: &str,
        actor: &str,
        if_revision: Option<u64>,
    ) -> Answered<pb::Route> {
        self.not_governed(model)?;
        if let Some(id) = self.rollout_under_way(model) {
            return Err(ServeError::new(
                ErrorKind::Conflict,
                format!("rollout {id} of '{model}' is under way; promote or abort it first"),
            ));
        }
        let change = RouteChange {
            to,
            owner: owner::API,
            actor,
            action,
            if_revision,
            past: Past::Remember,
            of_rollout: false,
            why: "",
            along: Writing::default(),
        };
        self.live.change_route(model, change)
    }

    /// Errors: the model's route is what a file says.
    pub(super) fn not_governed(&self, model: &ModelName) -> Result<(), ServeError> {
        match self.live.desired(model).route {
            Some(route) if route.owner == owner::FILE => Err(ServeError::new(
                ErrorKind::Conflict,
                format!("the route of '{model}' is what the routes file says; change the file"),
            )),
            _ => Ok(()),
        }
    }

    pub fn set_label(&self, request: pb::SetLabelRequest) -> Answered<pb::Labels> {
        let model = forms::model(&request.model)?;
        if !is_label(&request.label) {
            return Err(ServeError::invalid(
                "a label is a letter or '_', then letters, digits, '_', '-' and '.', 64 in all",
            ));
        }
        let version = forms::version(request.version)?;
        self.live.change_label(&model, &request.label, Some(version), &request.actor)
    }

    pub fn delete_label(&self, request: pb::DeleteLabelRequest) -> Answered<pb::Labels> {
        let model = self.known(&request.model)?;
        self.live.change_label(&model, &request.label, None, &request.actor)
    }

    /// Loads a version, or loads it anew: its files may have changed.
    pub fn load_version(&self, request: pb::VersionRequest) -> Answered<pb::VersionStatus> {
        let (model, version) = (forms::model(&request.model)?, forms::version(request.version)?);
        let candidate = self.live.candidate(&model)?;
        if !candidate.versions.contains_key(&version) {
            return Err(ServeError::new(
                ErrorKind::NotFound,
                format!("model '{model}' has no version {version} in the repository"),
            ));
        }
        let cause = Cause { actor: &request.actor, again: true, urgent: false, reserved: false };
        self.live.bring_up(&candidate, version, cause)?;
        self.live.remember(&model, |desired| _ = desired.by_hand.insert(version.number(), true))?;
        self.version_status(&model, version)
    }

    pub fn unload_version(&self, request: pb::VersionRequest) -> Answered<pb::VersionStatus> {
        let (model, version) = (self.known(&request.model)?, forms::version(request.version)?);
        self.live.unload_by_hand(&ServableId { model: model.clone(), version }, &request.actor)?;
        self.version_status(&model, version)
    }

    /// Whether loading and unloading models is the clients' business.
    pub fn explicit(&self) -> bool {
        self.live.config.mode == Mode::Explicit
    }

    /// `RepositoryModelUnload` of the inference protocol: every version, the route and the labels go.
    pub fn unload_model(&self, model: &str, actor: &str) -> Answered<()> {
        let model = self.known(model)?;
        let _turn = self.live.requests.take(&model);
        if let Some(id) = self.rollout_under_way(&model) {
            let ended = pb::RolloutRequest { model: model.to_string(), id, actor: actor.to_owned() };
            self.abort_rollout(ended)?;
        }
        let before = self.live.desired(&model);
        if before.route.is_some() {
            let change = RouteChange {
                to: None,
                owner: owner::API,
                actor,
                action: "route.clear",
                if_revision: None,
                past: Past::Forget,
                of_rollout: false,
                why: "",
                along: Writing::default(),
            };
            self.live.change_route(&model, change)?;
        }
        self.live.change(&model, |before| {
            let mut after = before.clone();
            let labels = std::mem::take(&mut after.labels);
            after.by_hand.clear();
            after.explicit = None;
            let writing = match labels.is_empty() {
                true => Writing::default(),
                false => Writing::of(entry(actor, "label", &model, json!(labels), Value::Null)),
            };
            Ok((after, writing, ()))
        })?;
        self.live.take_down_all_but(&model, &BTreeSet::new(), actor)?;
        self.clean_uploads(model.as_str(), None);
        Ok(())
    }

    /// The model's name, once it is known to the server.
    pub(super) fn known(&self, model: &str) -> Result<ModelName, ServeError> {
        let model = forms::model(model)?;
        match self.live.table.snapshot().models.contains_key(&model) {
            true => Ok(model),
            false => Err(unknown(&model)),
        }
    }

    fn version_status(&self, model: &ModelName, version: Version) -> Answered<pb::VersionStatus> {
        let status = self.get_model(pb::ModelRequest { model: model.to_string() })?;
        status.versions.into_iter().find(|status| status.version == version.number()).ok_or_else(|| {
            ServeError::new(ErrorKind::NotFound, format!("version {version} of '{model}' is gone"))
        })
    }

    fn status(&self, model: &ModelName, entry: &ModelEntry) -> pb::ModelStatus {
        let route = self.live.told(model, &self.live.desired(model));
        let total: f64 = route.arms.iter().map(|arm| arm.weight).sum();
        let versions = entry.versions.iter().map(|(version, state)| {
            let number = version.number();
            let arm = route.arms.iter().find(|arm| arm.version == number);
            let shadow = route.shadows.iter().find(|shadow| shadow.version == number);
            let labels = entry.labels.iter().filter(|(_, labelled)| *labelled == version);
            let (state, reason, digest) = match state {
                VersionState::Ready(servable) => ("READY", "", servable.digest()),
                VersionState::Loading => ("LOADING", "", ""),
                VersionState::Unloading => ("UNLOADING", "", ""),
                VersionState::Unavailable { reason } => ("UNAVAILABLE", reason.as_str(), ""),
            };
            pb::VersionStatus {
                version: number,
                state: state.to_owned(),
                reason: reason.to_owned(),
                digest: digest.to_owned(),
                labels: labels.map(|(label, _)| label.clone()).collect(),
                share: arm.map_or(0.0, |arm| 100.0 * arm.weight / total),
                shadow_share: shadow.map_or(0.0, |shadow| shadow.share),
                ..pb::VersionStatus::default()
            }
        });
        pb::ModelStatus {
            model: model.to_string(),
            versions: versions.collect(),
            rollout: self.rollout_under_way(model).and_then(|id| self.rollout(&id)),
            route: Some(route),
            reason: entry.reason.clone().unwrap_or_default(),
        }
    }
}
