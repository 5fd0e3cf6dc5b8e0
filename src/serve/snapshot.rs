//! The serving table of the whole server: immutable, swapped whole.
//!
//! Always: a reader sees one table from start to end; readers never wait for writers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::shadow::ShadowLane;
use crate::error::{ErrorKind, ServeError, excerpt, reason};
use crate::id::{ModelName, ServableId, Version};
use crate::infer::{RequestKeys, VersionPin};
use crate::model::{Servable, VersionState};
use crate::route::{self, Choice, NoRoute, Pin, Route, Standing};

/// One model: its versions and who gets them, or why it has none.
#[derive(Clone, Default)]
pub struct ModelEntry {
    pub versions: BTreeMap<Version, VersionState>,
    /// Why no version of the model could even be tried.
    pub reason: Option<String>,
    /// `None`: the highest version that is ready answers.
    pub route: Option<Arc<Route>>,
    /// Grows with every change of the route.
    pub revision: u64,
    /// By position in the route's shadows; `None` where the version is not ready.
    pub lanes: Vec<Option<Arc<ShadowLane>>>,
    pub labels: BTreeMap<String, Version>,
    /// Versions that were loaded for a route or a label alone: where no route decides, they answer only those who
    /// name them.
    pub reserved: BTreeSet<Version>,
    /// The experiment that the route's split is, if outcomes are told of it.
    pub experiment: Option<Arc<str>>,
}

impl ModelEntry {
    /// Who answers a request, and who gets a copy. `model` is for the words of a refusal.
    pub fn decide(
        &self,
        model: &str,
        pin: &VersionPin,
        keys: &dyn RequestKeys,
    ) -> Result<(&Arc<Servable>, Choice), ServeError> {
        let refused = |kind, message| Err(ServeError::new(kind, message));
        let unknown = |version: &dyn std::fmt::Display| {
            let message = format!("Request for unknown model: '{model}' version {version} is not found");
            ServeError::new(ErrorKind::NotFound, message)
        };
        let pinned = match pin {
            VersionPin::Routed => None,
            VersionPin::Version(version) => Some(Pin { version: *version, by_label: false }),
            VersionPin::Label(label) => {
                let no_label = || {
                    ServeError::new(
                        ErrorKind::NotFound,
                        format!(
                            "failed to get model version from specified version string '{}': it is no number, and \
                             model '{model}' has no label of that name",
                            excerpt(label)
                        ),
                    )
                };
                let version = *self.labels.get(label).ok_or_else(no_label)?;
                Some(Pin { version, by_label: true })
            }
        };
        let highest = match (pinned, &self.route) {
            (None, None) => self.latest(),
            _ => None,
        };
        let offered = |version: &Version| highest.is_none_or(|highest| *version <= highest);
        let versions = self.versions.iter().filter(|(version, _)| offered(version));
        let versions = versions.map(|(version, state)| (*version, standing(state)));
        match route::decide(self.route.as_deref(), pinned, keys, versions, fastrand::f64) {
            Ok(choice) => match self.versions.get(&choice.primary) {
                Some(VersionState::Ready(servable)) => Ok((servable, choice)),
                _ => Err(ServeError::internal("the route chose a version that is not ready")),
            },
            Err(NoRoute::UnknownVersion) => match pinned {
                Some(pin) => Err(unknown(&pin.version)),
                None => Err(ServeError::internal("the route refused a version that nobody named")),
            },
            Err(NoRoute::NotReady) => refused(
                ErrorKind::Unavailable,
                format!("Request for unknown model: '{model}' is not at ready state"),
            ),
            Err(NoRoute::Failed | NoRoute::NoneAvailable) => refused(
                ErrorKind::NotFound,
                format!(
                    "Request for unknown model: '{model}' has no available versions; POST /v2/repository/index tells why"
                ),
            ),
        }
    }

    /// Part of the requests that name no version, 0 to 1, that a version gets while every arm is ready.
    pub fn share(&self, version: Version) -> f64 {
        match &self.route {
            Some(route) => route.share(version),
            None => f64::from(u8::from(self.latest() == Some(version))),
        }
    }

    /// The version that answers where no route is set: the highest that is ready, reserved ones last.
    pub fn latest(&self) -> Option<Version> {
        let ready = || self.versions.iter().rev().filter(|(_, state)| state.is_ready()).map(|(v, _)| *v);
        ready().find(|version| !self.reserved.contains(version)).or_else(|| ready().next())
    }

    /// Whether any version is ready.
    pub fn is_ready(&self) -> bool {
        self.versions.values().any(VersionState::is_ready)
    }

    /// Whether it is meant to be served: neither was it left out nor taken down by somebody's word.
    pub fn is_asked_for(&self) -> bool {
        let taken_down = |state: &VersionState| match state {
            VersionState::Unavailable { reason } => reason == UNLOADED,
            VersionState::Unloading => true,
            VersionState::Loading | VersionState::Ready(_) => false,
        };
        match self.versions.is_empty() {
            true => self.reason.as_deref() != Some(NOT_LOADED),
            false => !self.versions.values().all(taken_down),
        }
    }

    /// Why the version asked for is not ready, or no version is, by the words of the versions themselves.
    pub fn reason_of(&self, pin: &VersionPin) -> String {
        let asked = match pin {
            VersionPin::Routed => None,
            VersionPin::Version(version) => Some(*version),
            VersionPin::Label(label) => self.labels.get(label).copied(),
        };
        let told = |(version, state): (&Version, &VersionState)| match state {
            VersionState::Ready(_) => None,
            VersionState::Loading => Some(format!("version {version} is loading")),
            VersionState::Unloading => Some(format!("version {version} is being unloaded")),
            VersionState::Unavailable { reason } => Some(format!("version {version}: {reason}")),
        };
        let versions = self.versions.iter().rev().filter(|(version, _)| asked.is_none_or(|v| v == **version));
        let reasons: Vec<String> = versions.filter_map(told).take(REASONS_TOLD_MAX).collect();
        match (reasons.is_empty(), asked) {
            (false, _) => reason(reasons.join("; ")),
            (true, Some(version)) => format!("there is no version {version}"),
            (true, None) if self.is_ready() => "its route names no version that is ready".to_owned(),
            (true, None) => self.reason.clone().unwrap_or_else(|| "no version is loaded".to_owned()),
        }
    }

    /// The servable of a version, if it is ready.
    pub fn ready(&self, version: Version) -> Option<&Arc<Servable>> {
        match self.versions.get(&version) {
            Some(VersionState::Ready(servable)) => Some(servable),
            _ => None,
        }
    }
}

/// Why a version is unavailable that was taken down by somebody's word.
pub const UNLOADED: &str = "unloaded";

/// Why a model has no version that nobody asked for.
pub const NOT_LOADED: &str = "not loaded";

/// Versions whose reasons are told at once.
const REASONS_TOLD_MAX: usize = 5;

/// The table.
#[derive(Clone, Default)]
pub struct Snapshot {
    pub models: BTreeMap<ModelName, Arc<ModelEntry>>,
}

impl Snapshot {
    /// The model of that name. Errors: it was never known.
    pub fn model(&self, model: &str) -> Result<&ModelEntry, ServeError> {
        self.models.get(model).map(|entry| &**entry).ok_or_else(|| {
            ServeError::new(
                ErrorKind::UnknownModel,
                format!("Request for unknown model: '{}' is not found", excerpt(model)),
            )
        })
    }

    /// The model's entry, to be changed before the table is published.
    pub fn entry(&mut self, model: &ModelName) -> &mut ModelEntry {
        Arc::make_mut(self.models.entry(model.clone()).or_default())
    }

    /// Every servable that is ready.
    pub fn ready(&self) -> impl Iterator<Item = &Arc<Servable>> {
        self.models.values().flat_map(|entry| entry.versions.values()).filter_map(|state| match state {
            VersionState::Ready(servable) => Some(servable),
            _ => None,
        })
    }
}

fn standing(state: &VersionState) -> Standing {
    match state {
        VersionState::Ready(_) => Standing::Ready,
        VersionState::Loading | VersionState::Unloading => Standing::InTransit,
        VersionState::Unavailable { .. } => Standing::Failed,
    }
}

/// Holds the current snapshot.
#[derive(Default)]
pub struct Table {
    current: ArcSwap<Snapshot>,
    /// Writers take turns; readers do not know of it.
    writer: Mutex<()>,
    /// Tells of every change.
    changed: watch::Sender<()>,
}

impl Table {
    /// The table as of now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Publishes a changed copy. Cannot fail.
    pub fn publish(&self, change: impl FnOnce(&mut Snapshot)) {
        let _turn = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Snapshot::clone(&self.current.load());
        change(&mut next);
        self.current.store(Arc::new(next));
        self.changed.send_replace(());
    }

    /// Hears of every table that is published from now on.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Publishes the state of one version.
    pub fn publish_version(&self, id: &ServableId, state: VersionState) {
        self.publish(|snapshot| {
            snapshot.entry(&id.model).versions.insert(id.version, state);
        });
    }
}
