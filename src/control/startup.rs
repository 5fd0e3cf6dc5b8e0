//! Brings the server to where it is wanted when it starts.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::live::{Cause, Live, Mode};
use super::service::Control;
use super::watch::look;
use crate::id::{ModelName, Version};
use crate::model::VersionState;
use crate::model::repository::{Candidate, scan};
use crate::serve::{ModelEntry, NOT_LOADED};

/// Who changes things while the server starts.
const STARTUP: &str = "startup";

/// What a start came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    pub ready: usize,
    pub unavailable: usize,
}

/// What is to be loaded.
#[derive(Debug, Default)]
pub struct Work {
    /// Each version, and whether it is for a route or a label alone.
    versions: Vec<(Candidate, Version, bool)>,
    /// Models of which nothing can be tried.
    refused: usize,
}

impl Control {
    /// Reads the repository and publishes every model as loading, or with the reason why it cannot be.
    ///
    /// Errors: the folder cannot be read.
    pub fn announce(&self) -> io::Result<Work> {
        let config = &self.live.config;
        if config.mode == Mode::Watch {
            // Before the repository is read, so that no change falls between the two.
            let prints = look(&config.models).unwrap_or_default();
            *self.announced.lock().unwrap_or_else(PoisonError::into_inner) = prints;
        }
        let scan = scan(&config.models, &config.defaults)?;
        for name in &scan.misnamed {
            tracing::warn!(
                "the folder '{}' is passed over: its name cannot be a model's",
                name.escape_debug()
            );
        }
        if scan.left_out > 0 {
            tracing::error!("{} models are left out: the models folder has too many", scan.left_out);
        }
        let mut work = Work::default();
        let mut entries: Vec<(ModelName, ModelEntry)> = Vec::new();
        let uploaded =
            self.live.governed().into_iter().filter(|model| self.live.desired(model).explicit.is_some());
        let names: BTreeSet<ModelName> =
            scan.candidates.iter().map(|candidate| candidate.name.clone()).chain(uploaded).collect();
        for name in names {
            let Ok(candidate) = self.live.candidate(&name) else { continue };
            let entry = announced(&self.live, &candidate, self.begins(&name));
            let loading = entry.versions.iter().filter(|(_, state)| matches!(state, VersionState::Loading));
            let offered = self.live.desired(&name).offered(&candidate, self.begins(&name));
            let reserved = |version: &Version| !offered.contains(version);
            work.versions
                .extend(loading.map(|(version, _)| (candidate.clone(), *version, reserved(version))));
            work.refused += usize::from(entry.reason.is_some() && self.begins(&name));
            entries.push((name, entry));
        }
        self.live.table.publish(|snapshot| {
            for (name, entry) in entries {
                snapshot.models.insert(name.clone(), Arc::new(entry));
                self.live.direct(snapshot, &name, &self.live.desired(&name));
            }
        });
        Ok(work)
    }

    /// Whether a model is loaded at the start, as far as the mode goes.
    fn begins(&self, model: &ModelName) -> bool {
        let config = &self.live.config;
        config.mode != Mode::Explicit
            || config.load.iter().any(|name| name == "*" || name == model.as_str())
            || self.live.desired(model).explicit.is_some_and(|explicit| explicit.loaded)
    }

    /// Loads what was announced and publishes each version as soon as it is ready. Blocks. Once `stop` is true, no
    /// further version is begun.
    pub fn load(&self, work: &Work, stop: &AtomicBool) -> Summary {
        let summary = Mutex::new(Summary { ready: 0, unavailable: work.refused });
        let next = AtomicUsize::new(0);
        let threads = self.live.config.load_threads.clamp(1, work.versions.len().max(1));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some((candidate, version, reserved)) =
                        work.versions.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let cause = Cause { actor: STARTUP, again: false, urgent: true, reserved: *reserved };
                        let ready = self.live.bring_up(candidate, *version, cause).is_ok();
                        let mut summary = summary.lock().expect("no thread panics while it counts");
                        if ready { summary.ready += 1 } else { summary.unavailable += 1 }
                    }
                });
            }
        });
        if !stop.load(Ordering::Relaxed) {
            self.note_what_is_gone();
        }
        summary.into_inner().expect("no thread panics while it counts")
    }

    /// Versions that were live when the server ended and are not now go off the record's list of what is live.
    fn note_what_is_gone(&self) {
        for id in self.live.on_record() {
            if !self.live.ready_versions(&id.model).contains(&id.version)
                && let Err(error) = self.live.note_gone(&id, STARTUP)
            {
                tracing::error!(model = %id, "{error}");
                return;
            }
        }
    }
}

/// How a model stands in the table before it is loaded.
fn announced(live: &Live, candidate: &Candidate, policy: bool) -> ModelEntry {
    match live.desired(&candidate.name).wanted(candidate, policy) {
        Ok(wanted) if wanted.is_empty() && !policy => {
            ModelEntry { reason: Some(NOT_LOADED.to_owned()), ..ModelEntry::default() }
        }
        Ok(wanted) => ModelEntry {
            versions: wanted.into_iter().map(|version| (version, VersionState::Loading)).collect(),
            ..ModelEntry::default()
        },
        Err(reason) => {
            tracing::warn!(model = %candidate.name, "unavailable: {reason}");
            // Every version that is there shares the reason; without any, the model itself has it.
            let unavailable =
                |version: &Version| (*version, VersionState::Unavailable { reason: reason.clone() });
            let versions = candidate.versions.keys().map(unavailable).collect();
            ModelEntry { versions, reason: Some(reason), ..ModelEntry::default() }
        }
    }
}
