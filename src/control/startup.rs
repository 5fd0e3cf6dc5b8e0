//! Loads a repository once, on threads of its own.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::backend::Loader;
use crate::event::EventSink;
use crate::id::{ServableId, Version};
use crate::model::config::Defaults;
use crate::model::repository::{Candidate, Scan, scan};
use crate::model::{LoadRequest, VersionState, load};
use crate::serve::{ModelEntry, Table};

/// What a load of the whole repository needs.
pub struct Startup {
    pub root: PathBuf,
    pub defaults: Defaults,
    /// Models that are loaded at once.
    pub threads: usize,
    pub loader: Arc<dyn Loader>,
    pub sink: Arc<dyn EventSink>,
    pub table: Arc<Table>,
    /// Set to true, no further model is begun.
    pub stop: Arc<AtomicBool>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    pub ready: usize,
    pub unavailable: usize,
}

impl Startup {
    /// Reads the repository and publishes every model as loading, or with the reason why it cannot be.
    ///
    /// Errors: the folder cannot be read.
    pub fn scan(&self) -> io::Result<Scan> {
        let scan = scan(&self.root, &self.defaults)?;
        for name in &scan.misnamed {
            tracing::warn!("the folder '{name}' is passed over: its name cannot be a model's");
        }
        self.table.publish(|snapshot| {
            for candidate in &scan.candidates {
                snapshot.models.insert(candidate.name.clone(), announced(candidate));
            }
        });
        Ok(scan)
    }

    /// Loads every version of `scan` that its policy chooses, and publishes each as soon as it is ready. Blocks.
    pub fn load(&self, scan: &Scan) -> Summary {
        let mut work: Vec<(&Candidate, Version)> = Vec::new();
        let mut refused = 0;
        for candidate in &scan.candidates {
            match candidate.chosen() {
                Ok(versions) => work.extend(versions.into_iter().map(|version| (candidate, version))),
                Err(_) => refused += 1,
            }
        }
        let summary = Mutex::new(Summary { ready: 0, unavailable: refused });
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..self.threads.clamp(1, work.len().max(1)) {
                scope.spawn(|| {
                    while let Some((candidate, version)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if self.stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let ready = self.load_one(candidate, *version);
                        let mut summary = summary.lock().expect("no thread panics while it counts");
                        if ready { summary.ready += 1 } else { summary.unavailable += 1 }
                    }
                });
            }
        });
        summary.into_inner().expect("no thread panics while it counts")
    }

    fn load_one(&self, candidate: &Candidate, version: Version) -> bool {
        let id = ServableId { model: candidate.name.clone(), version };
        let request = LoadRequest { candidate, version, loader: &*self.loader, sink: &*self.sink };
        let loaded = catch_unwind(AssertUnwindSafe(|| load(&request)))
            .unwrap_or_else(|_| Err("loading it ended in a panic".to_owned()));
        match loaded {
            Ok(servable) => {
                tracing::info!(model = %id, digest = servable.digest(), "ready");
                self.table.publish_version(&id, VersionState::Ready(Arc::new(servable)));
                true
            }
            Err(reason) => {
                tracing::warn!(model = %id, "unavailable: {reason}");
                self.table.publish_version(&id, VersionState::Unavailable { reason });
                false
            }
        }
    }
}

/// How a model stands in the table before it is loaded.
fn announced(candidate: &Candidate) -> ModelEntry {
    match candidate.chosen() {
        Ok(versions) => ModelEntry {
            versions: versions.into_iter().map(|version| (version, VersionState::Loading)).collect(),
            reason: None,
        },
        Err(reason) => {
            tracing::warn!(model = %candidate.name, "unavailable: {reason}");
            // Every version that is there shares the reason; without any, the model itself has it.
            let versions: BTreeMap<Version, VersionState> = candidate
                .versions
                .keys()
                .map(|version| (*version, VersionState::Unavailable { reason: reason.clone() }))
                .collect();
            ModelEntry { versions, reason: Some(reason) }
        }
    }
}
