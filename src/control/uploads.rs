//! Models that clients load through the inference protocol, with their own config or their own files.
//!
//! Always: a client's path stays inside the model's folder; what is uploaded is on disk before it is loaded, so that
//! a restart finds it; a load that fails leaves nothing behind.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

use super::desired::Explicit;
use super::forms;
use super::service::Control;
use crate::error::{ErrorKind, ServeError};
use crate::id::ModelName;
use crate::model::VersionState;

/// What `RepositoryModelLoad` may bring along.
#[derive(Debug, Default)]
pub struct LoadParameters {
    /// A model config as JSON, instead of the one in the repository.
    pub config: Option<String>,
    /// Files by path inside the model's folder, instead of those in the repository.
    pub files: Vec<(String, Bytes)>,
}

impl Control {
    /// `RepositoryModelLoad` of the inference protocol: loads the versions that the model's policy asks for, anew if
    /// they are loaded, and takes down the others.
    ///
    /// Errors: clients do not decide what is loaded here; the model is not there; a version cannot be loaded. What
    /// was live still is.
    pub fn load_model(&self, model: &str, parameters: LoadParameters, actor: &str) -> Result<(), ServeError> {
        let model = forms::model(model)?;
        let LoadParameters { config, files } = parameters;
        if !files.is_empty() && config.is_none() {
            return Err(ServeError::invalid(format!(
                "failed to load '{model}': files were sent without a config; send the parameter 'config' too"
            )));
        }
        let _turn = self.live.requests.take(&model);
        let upload = match files.is_empty() {
            true => None,
            false => Some(self.keep_upload(model.as_str(), &files).inspect_err(|_| self.clean(&model))?),
        };
        let explicit = Explicit { loaded: true, config, upload };
        let outcome = self.bring_about(&model, explicit, actor);
        if outcome.is_err() {
            self.forget_if_unknown(&model);
        }
        self.clean(&model);
        outcome
    }

    /// Removes what was uploaded for a model and is not what it is loaded from.
    fn clean(&self, model: &ModelName) {
        let kept = self.live.desired(model).explicit.and_then(|explicit| explicit.upload);
        self.clean_uploads(model.as_str(), kept.as_deref());
    }

    /// Loads what a client asks for, and remembers it once it is live.
    fn bring_about(&self, model: &ModelName, explicit: Explicit, actor: &str) -> Result<(), ServeError> {
        let candidate = self.live.candidate_by(model, &explicit)?;
        let mut wish = self.live.desired(model);
        wish.by_hand.clear();
        let again: BTreeSet<_> = self.live.ready_versions(model).into_iter().collect();
        self.live.reconcile(&candidate, &wish, &again, true, actor)?;
        self.live.remember(model, |desired| {
            desired.explicit = Some(explicit);
            desired.by_hand.clear();
        })
    }

    /// A name that came with a failed load and that the repository does not have is no model.
    fn forget_if_unknown(&self, model: &ModelName) {
        if self.live.candidate(model).is_ok() {
            return;
        }
        self.live.table.publish(|snapshot| {
            let answers =
                |state: &VersionState| matches!(state, VersionState::Ready(_) | VersionState::Unloading);
            if snapshot.models.get(model).is_some_and(|entry| !entry.versions.values().any(answers)) {
                snapshot.models.remove(model);
            }
        });
    }

    /// Writes a client's files into a new folder; gives its path inside the uploads.
    fn keep_upload(&self, model: &str, files: &[(String, Bytes)]) -> Result<String, ServeError> {
        let name = format!("{model}/{}", super::now_ms());
        let folder = self.live.config.uploads.join(&name);
        let failed = |error: std::io::Error| {
            ServeError::new(
                ErrorKind::Unavailable,
                format!("failed to load '{model}': its files cannot be kept: {error}"),
            )
        };
        for (path, bytes) in files {
            let inside = inside(path).ok_or_else(|| {
                ServeError::invalid(format!(
                    "failed to load '{model}': file '{}' must be a path inside the model's folder, such as \
                     1/model.onnx",
                    crate::error::excerpt(path)
                ))
            })?;
            let target = folder.join(inside);
            std::fs::create_dir_all(target.parent().unwrap_or(&folder)).map_err(failed)?;
            let write = || {
                let mut file = std::fs::File::create(&target)?;
                file.write_all(bytes)?;
                file.sync_all()
            };
            write().map_err(failed)?;
        }
        Ok(name)
    }

    /// Removes the uploads of a model, but for the one that it is loaded from. Files that are mapped stay readable.
    pub(super) fn clean_uploads(&self, model: &str, kept: Option<&str>) {
        let folder = self.live.config.uploads.join(model);
        for entry in std::fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok) {
            let name = format!("{model}/{}", entry.file_name().to_string_lossy());
            if kept != Some(name.as_str()) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// The path, if it names something below the folder that it is joined to.
fn inside(path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    (plain && path.components().count() > 0).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_inside_the_folder_are_taken() {
        for good in ["1/model.onnx", "config.pbtxt", "labels/a.txt"] {
            assert_eq!(inside(good).as_deref(), Some(Path::new(good)));
        }
        for bad in ["", "/etc/passwd", "../x", "1/../../x", ".", "a/../b"] {
            assert_eq!(inside(bad), None, "{bad}");
        }
    }
}
