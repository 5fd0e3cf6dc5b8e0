//! The serving table of the whole server: immutable, swapped whole.
//!
//! Always: a reader sees one table from start to end; readers never wait for writers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::error::{ErrorKind, ServeError, excerpt};
use crate::id::{ModelName, ServableId, Version};
use crate::model::{Servable, VersionState};
use crate::route::{self, NoRoute, Standing};

/// One model: its versions, or why it has none.
#[derive(Clone, Default)]
pub struct ModelEntry {
    pub versions: BTreeMap<Version, VersionState>,
    /// Why no version of the model could even be tried.
    pub reason: Option<String>,
}

/// The table.
#[derive(Clone, Default)]
pub struct Snapshot {
    pub models: BTreeMap<ModelName, ModelEntry>,
}

impl Snapshot {
    /// The servable that answers a request for `model`, pinned to a version or not.
    pub fn decide(&self, model: &str, pinned: Option<Version>) -> Result<&Arc<Servable>, ServeError> {
        let entry = self.model(model)?;
        let versions = entry.versions.iter().map(|(version, state)| (*version, standing(state)));
        let refused = |kind, message| Err(ServeError::new(kind, message));
        match route::decide(pinned, versions) {
            Ok(version) => match entry.versions.get(&version) {
                Some(VersionState::Ready(servable)) => Ok(servable),
                _ => Err(ServeError::internal("the route chose a version that is not ready")),
            },
            Err(NoRoute::UnknownVersion) => refused(
                ErrorKind::NotFound,
                match pinned {
                    Some(version) => {
                        format!("Request for unknown model: '{model}' version {version} is not found")
                    }
                    None => format!("Request for unknown model: '{model}' is not found"),
                },
            ),
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

    /// The model of that name. Errors: it was never known.
    pub fn model(&self, model: &str) -> Result<&ModelEntry, ServeError> {
        self.models.get(model).ok_or_else(|| {
            ServeError::new(
                ErrorKind::UnknownModel,
                format!("Request for unknown model: '{}' is not found", excerpt(model)),
            )
        })
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
        VersionState::Loading => Standing::InTransit,
        VersionState::Unavailable { .. } => Standing::Failed,
    }
}

/// Holds the current snapshot.
#[derive(Default)]
pub struct Table {
    current: ArcSwap<Snapshot>,
    /// Writers take turns; readers do not know of it.
    writer: Mutex<()>,
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
    }

    /// Publishes the state of one version.
    pub fn publish_version(&self, id: &ServableId, state: VersionState) {
        self.publish(|snapshot| {
            let entry = snapshot.models.entry(id.model.clone()).or_default();
            entry.versions.insert(id.version, state);
        });
    }
}
