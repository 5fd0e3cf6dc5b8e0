//! Brings versions up and takes them down.
//!
//! Always: a version is loaded off to the side, on threads that give way to those that answer; it replaces what was
//! live only when it is ready and the record says so. A load that fails leaves everything as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::desired::{Desired, Explicit, MODEL};
use super::ledger::{Ledger, Writing, version_entry};
use super::open::Foundations;
use super::retire::Reaper;
use super::turns::Turns;
use crate::backend::{Folder, Loader, STACK_BYTES};
use crate::batch::Urgency;
use crate::cache::ResponseCache;
use crate::error::{ErrorKind, ServeError, reason as told};
use crate::event::EventSink;
use crate::id::{ModelName, ServableId, Version};
use crate::model::config::Defaults;
use crate::model::repository::{self, Candidate};
use crate::model::{LoadRequest, Loaded, VersionState, load, urgency};
use crate::serve::{ModelEntry, ShadowLane, Snapshot, Table, UNLOADED};

/// The kind of document that tells which artefact of a version is live, by `model/version`.
pub const LIVE: &str = "live";

/// Who decides what is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// The repository as it stands at the start.
    #[default]
    Static,
    /// The repository, as it changes.
    Watch,
    /// Clients, by `RepositoryModelLoad` and `RepositoryModelUnload`.
    Explicit,
}

/// What the control plane is told when it is made.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    pub models: PathBuf,
    pub defaults: Defaults,
    pub mode: Mode,
    /// Models that are loaded at the start in explicit mode; `*` is all of them.
    pub load: Vec<String>,
    /// Models that are loaded at once at the start.
    pub load_threads: usize,
    /// Where models that clients send are kept.
    pub uploads: PathBuf,
}

/// What is live, and the means to change it.
pub struct Live {
    pub config: ControlConfig,
    pub loader: Arc<dyn Loader>,
    pub sink: Arc<dyn EventSink>,
    pub cache: Arc<ResponseCache>,
    pub table: Arc<Table>,
    pub ledger: Ledger,
    pub reaper: Reaper,
    desired: Mutex<BTreeMap<ModelName, Desired>>,
    artefacts: Mutex<BTreeMap<ServableId, String>>,
    /// Why versions could not be loaded when it was last tried.
    failures: Mutex<BTreeMap<ServableId, String>>,
    /// Changes of one model take turns.
    changes: Turns<ModelName>,
    /// Loads of one version take turns, without holding up the model's other changes.
    loads: Turns<ServableId>,
    /// Clients' loads and unloads of one model take turns.
    pub requests: Turns<ModelName>,
}

/// The artefact of a version that is live, as it is on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Artefact {
    digest: String,
}

/// Why and how a version is loaded.
#[derive(Debug, Clone, Copy)]
pub struct Cause<'a> {
    /// By whose word.
    pub actor: &'a str,
    /// Load it even if it is ready: its files may have changed.
    pub again: bool,
    /// Nothing answers yet, so nothing needs to be spared.
    pub urgent: bool,
    /// It is for a route or a label alone; see [`ModelEntry::reserved`]. A version that is ready already stays what
    /// it is.
    pub reserved: bool,
}

impl Live {
    pub fn new(config: ControlConfig, foundations: Foundations) -> Self {
        let Foundations { loader, sink, cache, table, ledger, .. } = foundations;
        let named = |(key, desired): (String, Desired)| Some((ModelName::parse(&key)?, desired));
        let desired = ledger.documents(MODEL).into_iter().filter_map(named).collect();
        let artefact = |(key, artefact): (String, Artefact)| Some((servable_id(&key)?, artefact.digest));
        let artefacts = ledger.documents(LIVE).into_iter().filter_map(artefact).collect();
        Self {
            reaper: Reaper::start(Arc::clone(&table), Arc::clone(&sink)),
            config,
            loader,
            sink,
            cache,
            table,
            ledger,
            desired: Mutex::new(desired),
            artefacts: Mutex::new(artefacts),
            failures: Mutex::default(),
            changes: Turns::default(),
            loads: Turns::default(),
            requests: Turns::default(),
        }
    }

    /// What operators want of a model.
    pub fn desired(&self, model: &ModelName) -> Desired {
        self.all_desired().get(model).cloned().unwrap_or_default()
    }

    fn all_desired(&self) -> MutexGuard<'_, BTreeMap<ModelName, Desired>> {
        self.desired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every model that operators have said something of.
    pub fn governed(&self) -> Vec<ModelName> {
        self.all_desired().keys().cloned().collect()
    }

    fn artefacts(&self) -> MutexGuard<'_, BTreeMap<ServableId, String>> {
        self.artefacts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Versions that were live by the record, whether they are now or not.
    pub fn on_record(&self) -> Vec<ServableId> {
        self.artefacts().keys().cloned().collect()
    }

    /// Changes what operators want of a model: reads it, writes the change to the record, publishes it. Nobody else
    /// changes the model meanwhile.
    ///
    /// `change` gives the new wish and what the record shall say, or refuses.
    pub fn change<T>(
        &self,
        model: &ModelName,
        change: impl FnOnce(&Desired) -> Result<(Desired, Writing, T), ServeError>,
    ) -> Result<T, ServeError> {
        let _turn = self.changes.take(model);
        let (desired, writing, told) = change(&self.desired(model))?;
        self.ledger.write(writing.with(MODEL, model.as_str(), &desired))?;
        self.all_desired().insert(model.clone(), desired.clone());
        self.table.publish(|snapshot| self.direct(snapshot, model, &desired));
        Ok(told)
    }

    /// Puts a model's route, labels and shadows into a table.
    pub fn direct(&self, snapshot: &mut Snapshot, model: &ModelName, desired: &Desired) {
        let route = desired.valid_route(model).map(Arc::new);
        let entry = snapshot.entry(model);
        entry.route = route;
        entry.revision = desired.revision;
        entry.labels = desired
            .labels
            .iter()
            .filter_map(|(label, number)| Some((label.clone(), Version::new(*number)?)))
            .collect();
        entry.experiment = desired.experiment.as_deref().map(Arc::from);
        self.connect_shadows(entry);
    }

    /// Gives each shadow that is ready a lane, the one it has if it is still the right one.
    fn connect_shadows(&self, entry: &mut ModelEntry) {
        let Some(route) = entry.route.clone() else { return entry.lanes.clear() };
        let arms: Vec<Version> = route.spec().arms.iter().map(|arm| arm.version).collect();
        let lanes = route.spec().shadows.iter().map(|shadow| {
            let servable = entry.ready(shadow.version)?;
            let existing = entry.lanes.iter().flatten().find(|lane| lane.serves(servable, &arms));
            let start = || {
                let (servable, arms) = (Arc::clone(servable), arms.clone());
                match ShadowLane::start(servable, arms, Arc::clone(&self.sink)) {
                    Ok(lane) => Some(Arc::new(lane)),
                    Err(error) => {
                        tracing::warn!("no copies for shadow {}: {error}", shadow.version);
                        None
                    }
                }
            };
            existing.cloned().or_else(start)
        });
        entry.lanes = lanes.collect();
    }

    /// The model as it can be loaded now. Errors: nothing of that name is there.
    pub fn candidate(&self, model: &ModelName) -> Result<Candidate, ServeError> {
        self.candidate_by(model, &self.desired(model).explicit.unwrap_or_default())
    }

    /// The model as it can be loaded by what a client asks for.
    pub fn candidate_by(&self, model: &ModelName, explicit: &Explicit) -> Result<Candidate, ServeError> {
        let config = &self.config;
        let folder = match &explicit.upload {
            Some(upload) => Folder::new(&config.uploads, upload),
            None => Folder::new(&config.models, model.as_str()),
        };
        // What is not there is no model; a link is one that cannot be served.
        if std::fs::symlink_metadata(folder.path()).is_ok_and(|found| found.is_dir() || found.is_symlink()) {
            return Ok(repository::found_at(folder, model, explicit.config.as_deref(), &config.defaults));
        }
        Err(ServeError::new(
            ErrorKind::NotFound,
            format!(
                "failed to load '{model}': failed to poll from model repository: it has no folder '{model}'"
            ),
        ))
    }

    /// Makes a version ready. Blocks for as long as that takes.
    ///
    /// Errors: it cannot be loaded, or the record cannot be written; whatever was live still is.
    pub fn bring_up(
        &self,
        candidate: &Candidate,
        version: Version,
        cause: Cause<'_>,
    ) -> Result<(), ServeError> {
        let id = ServableId { model: candidate.name.clone(), version };
        let _turn = self.loads.take(&id);
        if self.is_ready(&id) && !cause.again {
            if !cause.reserved {
                self.offer(&id);
            }
            return Ok(());
        }
        if !self.is_ready(&id) {
            self.table.publish_version(&id, VersionState::Loading);
        }
        let made = match self.read(candidate, version, cause.urgent) {
            Ok(loaded) => self.make_live(&id, loaded, cause),
            Err(reason) => {
                let reason = told(reason);
                self.note_failure(&id, cause, &reason);
                let message = format!("failed to load '{}', version {version}: {reason}", id.model);
                Err((reason, ServeError::invalid(message)))
            }
        };
        made.map_err(|(reason, error)| {
            tracing::warn!(model = %id, "unavailable: {reason}");
            if !self.is_ready(&id) {
                self.table.publish_version(&id, VersionState::Unavailable { reason });
            }
            error
        })
    }

    /// A version that was reserved is everybody's from now on.
    fn offer(&self, id: &ServableId) {
        let snapshot = self.table.snapshot();
        if snapshot.models.get(&id.model).is_some_and(|entry| entry.reserved.contains(&id.version)) {
            self.table.publish(|snapshot| _ = snapshot.entry(&id.model).reserved.remove(&id.version));
        }
    }

    /// Somebody asked for a version that cannot be loaded: that is worth a record, and no reason to fail otherwise.
    fn note_failure(&self, id: &ServableId, cause: Cause<'_>, reason: &str) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let told = failures.insert(id.clone(), reason.to_owned());
        // Who tries again and again, such as a file of routes, fills no record with it.
        if cause.urgent || self.ledger.store().is_none() || told.as_deref() == Some(reason) {
            return;
        }
        drop(failures);
        let mut entry = version_entry(cause.actor, "load", id, None);
        entry.outcome = format!("failed: {reason}");
        let _ = self.ledger.write(Writing::of(entry));
    }

    fn is_ready(&self, id: &ServableId) -> bool {
        let snapshot = self.table.snapshot();
        snapshot.models.get(&id.model).is_some_and(|entry| entry.ready(id.version).is_some())
    }

    /// Reads a version on a thread of its own, so that its priority can be lowered.
    fn read(&self, candidate: &Candidate, version: Version, urgent: bool) -> Result<Loaded, String> {
        let request = LoadRequest { candidate, version, loader: &*self.loader };
        let urgency = match &candidate.config {
            Ok(config) if !urgent => urgency(config),
            _ => Urgency::Answering,
        };
        let read = move || {
            urgency.take();
            catch_unwind(AssertUnwindSafe(|| load(&request)))
                .unwrap_or_else(|_| Err("loading it ended in a panic".to_owned()))
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("load".to_owned()).stack_size(STACK_BYTES);
            match thread.spawn_scoped(scope, read) {
                Ok(thread) => thread.join().unwrap_or_else(|_| Err("loading it ended in a panic".to_owned())),
                Err(error) => Err(format!("there is no thread to load it: {error}")),
            }
        })
    }

    /// Puts a loaded version in the place of whatever was there. An artefact that the record has as live needs no
    /// new record: nothing changes.
    fn make_live(
        &self,
        id: &ServableId,
        loaded: Loaded,
        cause: Cause<'_>,
    ) -> Result<(), (String, ServeError)> {
        let _turn = self.changes.take(&id.model);
        let digest = loaded.digest().to_owned();
        let before = self.artefacts().get(id).cloned();
        // Without a record a server still answers with what it finds when it starts, and with nothing else.
        let unrecorded = cause.urgent && self.ledger.store().is_none();
        if !unrecorded && (before.as_ref() != Some(&digest) || self.is_ready(id)) {
            let mut entry = version_entry(cause.actor, "load", id, Some(&digest));
            entry.from = before.map_or(serde_json::Value::Null, |digest| json!({ "digest": digest }));
            entry.to = json!({ "digest": digest });
            let artefact = Artefact { digest: digest.clone() };
            let writing = Writing::of(entry).with(LIVE, &id.to_string(), &artefact);
            self.ledger.write(writing).map_err(|error| (error.message().to_owned(), error))?;
        }
        self.artefacts().insert(id.clone(), digest.clone());
        let servable = loaded
            .start(&*self.sink, &self.cache)
            .map_err(|reason| (reason.clone(), ServeError::new(ErrorKind::Unavailable, reason)))?;
        let servable = Arc::new(servable);
        let mut replaced = None;
        // The model may have been out of the table: its route and labels come back with it.
        let desired = self.desired(&id.model);
        self.table.publish(|snapshot| {
            let entry = snapshot.entry(&id.model);
            entry.reason = None;
            replaced = entry.versions.insert(id.version, VersionState::Ready(Arc::clone(&servable)));
            let replaces = matches!(replaced, Some(VersionState::Ready(_)));
            match cause.reserved {
                true if !replaces => _ = entry.reserved.insert(id.version),
                true => {}
                false => _ = entry.reserved.remove(&id.version),
            }
            self.direct(snapshot, &id.model, &desired);
        });
        tracing::info!(model = %id, digest, "ready");
        if let Some(VersionState::Ready(old)) = replaced {
            self.reaper.retire(old);
        }
        Ok(())
    }

    /// Writes that a version is no longer live. How it stands in the table is not touched.
    pub fn note_gone(&self, id: &ServableId, actor: &str) -> Result<(), ServeError> {
        let _turn = self.changes.take(&id.model);
        self.write_gone(id, actor, Writing::default())
    }

    fn write_gone(&self, id: &ServableId, actor: &str, along: Writing) -> Result<(), ServeError> {
        let digest = self.artefacts().get(id).cloned();
        let mut entry = version_entry(actor, "unload", id, digest.as_deref());
        entry.from = digest.map_or(serde_json::Value::Null, |digest| json!({ "digest": digest }));
        self.ledger.write(Writing::of(entry).without(LIVE, &id.to_string()).and(along))?;
        self.artefacts().remove(id);
        Ok(())
    }

    /// Takes a version out of service: it gets no new requests, answers those that it has, and is dropped.
    ///
    /// `along` is written with it. Errors: the record cannot be written; then the version stays.
    fn take_down_in_turn(&self, id: &ServableId, actor: &str, along: Writing) -> Result<(), ServeError> {
        self.write_gone(id, actor, along)?;
        let mut removed = None;
        self.table.publish(|snapshot| {
            let entry = snapshot.entry(&id.model);
            entry.reserved.remove(&id.version);
            removed = entry.versions.insert(id.version, VersionState::Unloading);
            if !matches!(removed, Some(VersionState::Ready(_))) {
                entry.versions.insert(id.version, unloaded());
            }
            self.connect_shadows(entry);
        });
        tracing::info!(model = %id, "unloaded");
        if let Some(VersionState::Ready(old)) = removed {
            self.reaper.retire(old);
        }
        Ok(())
    }

    /// Takes a version down by an operator's word, and keeps it down.
    ///
    /// Errors: a route or a label names it; it is not there; the record cannot be written.
    pub fn unload_by_hand(&self, id: &ServableId, actor: &str) -> Result<(), ServeError> {
        let _turn = self.changes.take(&id.model);
        let mut desired = self.desired(&id.model);
        if desired.named().contains(&id.version) {
            return Err(ServeError::new(
                ErrorKind::Conflict,
                format!(
                    "version {} of '{}' is in use by its route or a label; change that first",
                    id.version, id.model
                ),
            ));
        }
        if !self.is_ready(id) {
            return Err(ServeError::new(
                ErrorKind::NotFound,
                format!("version {} of '{}' is not loaded", id.version, id.model),
            ));
        }
        desired.by_hand.insert(id.version.number(), false);
        let along = Writing::default().with(MODEL, id.model.as_str(), &desired);
        self.take_down_in_turn(id, actor, along)?;
        self.all_desired().insert(id.model.clone(), desired);
        Ok(())
    }

    /// Takes down versions that were loaded for a change that did not come about, unless somebody wants them by now.
    pub fn let_go(&self, model: &ModelName, versions: &[Version], actor: &str) {
        let _turn = self.changes.take(model);
        let named = self.desired(model).named();
        let snapshot = self.table.snapshot();
        let Some(entry) = snapshot.models.get(model) else { return };
        for version in versions.iter().filter(|version| entry.reserved.contains(version)) {
            let id = ServableId { model: model.clone(), version: *version };
            if !named.contains(version)
                && let Err(error) = self.take_down_in_turn(&id, actor, Writing::default())
            {
                tracing::warn!(model = %id, "stays loaded: {error}");
            }
        }
    }

    /// Remembers what operators want without changing what is live: the change itself is on the record.
    pub fn remember(&self, model: &ModelName, wish: impl FnOnce(&mut Desired)) -> Result<(), ServeError> {
        let _turn = self.changes.take(model);
        let mut desired = self.desired(model);
        wish(&mut desired);
        self.ledger.write(Writing::default().with(MODEL, model.as_str(), &desired))?;
        self.all_desired().insert(model.clone(), desired);
        Ok(())
    }

    /// Brings a model to `desired`: loads what is missing, and `again` anew, then takes down what is no longer wanted. Nothing is taken down while something wanted cannot be loaded.
    ///
    /// Errors: the first thing that could not be done; the rest was still tried.
    pub fn reconcile(
        &self,
        candidate: &Candidate,
        desired: &Desired,
        again: &BTreeSet<Version>,
        policy: bool,
        actor: &str,
    ) -> Result<(), ServeError> {
        let model = &candidate.name;
        let wanted = desired
            .wanted(candidate, policy)
            .map_err(|reason| ServeError::invalid(format!("failed to load '{model}': {reason}")))?;
        let offered = desired.offered(candidate, policy);
        let mut failed = None;
        for version in &wanted {
            let (again, reserved) = (again.contains(version), !offered.contains(version));
            let cause = Cause { actor, again, urgent: false, reserved };
            if let Err(error) = self.bring_up(candidate, *version, cause) {
                failed.get_or_insert(error);
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        self.take_down_all_but(model, &wanted, actor)
    }

    /// Takes down every version of a model that is not in `wanted`.
    pub fn take_down_all_but(
        &self,
        model: &ModelName,
        wanted: &BTreeSet<Version>,
        actor: &str,
    ) -> Result<(), ServeError> {
        for version in self.ready_versions(model) {
            let _turn = self.changes.take(model);
            // Looked at in our turn: a change that came before may have named it.
            if !wanted.contains(&version) && !self.desired(model).named().contains(&version) {
                let id = ServableId { model: model.clone(), version };
                self.take_down_in_turn(&id, actor, Writing::default())?;
            }
        }
        Ok(())
    }

    /// Publishes why nothing of a model can be tried, or with `None` that something can. What is live stays.
    pub fn note_refusal(&self, candidate: &Candidate, reason: Option<&str>) {
        self.table.publish(|snapshot| {
            let entry = snapshot.entry(&candidate.name);
            let before = std::mem::replace(&mut entry.reason, reason.map(str::to_owned));
            let shared = |state: &VersionState| {
                matches!(state, VersionState::Unavailable { reason } if before.as_ref() == Some(reason))
            };
            entry.versions.retain(|_, state| !shared(state));
            let Some(reason) = reason else { return };
            for version in candidate.versions.keys() {
                let unavailable = || VersionState::Unavailable { reason: reason.to_owned() };
                let state = entry.versions.entry(*version).or_insert_with(unavailable);
                if matches!(state, VersionState::Unavailable { .. }) {
                    *state = unavailable();
                }
            }
        });
    }

    /// Forgets the versions of a model that are neither in its folder nor live, and the model once it has neither.
    /// Gives whether one that is on its way out is yet to be forgotten.
    pub fn forget_gone(&self, model: &ModelName) -> bool {
        let candidate = self.candidate(model).ok();
        let exists = candidate.is_some();
        let present = candidate.map(|candidate| candidate.versions).unwrap_or_default();
        let mut left = false;
        self.table.publish(|snapshot| {
            let entry = snapshot.entry(model);
            let live =
                |state: &VersionState| matches!(state, VersionState::Ready(_) | VersionState::Unloading);
            entry.versions.retain(|version, state| live(state) || present.contains_key(version));
            left = entry.versions.values().any(|state| matches!(state, VersionState::Unloading));
            if entry.versions.is_empty() && !exists {
                snapshot.models.remove(model);
            }
        });
        left
    }

    /// The versions of a model that are ready, ascending.
    pub fn ready_versions(&self, model: &ModelName) -> Vec<Version> {
        let snapshot = self.table.snapshot();
        let Some(entry) = snapshot.models.get(model) else { return Vec::new() };
        entry.versions.iter().filter(|(_, state)| state.is_ready()).map(|(version, _)| *version).collect()
    }
}

/// How a version stands that was taken down.
pub fn unloaded() -> VersionState {
    VersionState::Unavailable { reason: UNLOADED.to_owned() }
}

fn servable_id(key: &str) -> Option<ServableId> {
    let (model, version) = key.rsplit_once('/')?;
    Some(ServableId { model: ModelName::parse(model)?, version: Version::parse(version)? })
}
