//! Models that clients load through the inference protocol, with their own config or their own files.
//!
//! Always: a client's path stays inside the model's folder; what is uploaded is on disk before it is loaded, so that
//! a restart finds it; a load that fails leaves nothing behind.

use std::collections::BTreeSet;
use std::io::Write;

use bytes::Bytes;

use super::desired::Explicit;
use super::forms;
use super::service::Control;
use crate::error::{ErrorKind, ServeError, excerpt};
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

    /// Writes a client's files into a new folder; gives its path inside the uploads. Nothing is written unless every
    /// name is one that may be; whoever calls removes what a failure leaves.
    fn keep_upload(&self, model: &str, files: &[(String, Bytes)]) -> Result<String, ServeError> {
        let refused = |reason: String| ServeError::invalid(format!("failed to load '{model}': {reason}"));
        if files.len() > FILES_MAX {
            return Err(refused(format!("{} files were sent; at most {FILES_MAX} are taken", files.len())));
        }
        let (mut names, mut folders) = (BTreeSet::new(), BTreeSet::new());
        for (path, _) in files {
            if !may_be_sent(path) {
                return Err(refused(format!(
                    "file '{}' must be a path inside the model's folder, such as 1/model.onnx: at most \
                     {PARTS_MAX} names, four of them below the version's, {NAME_BYTES_MAX} bytes each, without '..', '\\', '%' and control characters",
                    excerpt(path)
                )));
            }
            if !names.insert(path.as_str()) {
                return Err(refused(format!("file '{}' was sent twice", excerpt(path))));
            }
            folders.extend(path.match_indices('/').map(|(at, _)| &path[..at]));
        }
        if folders.len() > FOLDERS_MAX {
            return Err(refused(format!(
                "the files that were sent lie in {} folders; at most {FOLDERS_MAX} are taken",
                folders.len()
            )));
        }
        // A file of that name would stand where the folder of another has to be.
        let folder_of = |path: &str| path.match_indices('/').any(|(at, _)| names.contains(&path[..at]));
        if let Some((path, _)) = files.iter().find(|(path, _)| folder_of(path)) {
            return Err(refused(format!(
                "file '{}' lies in something that was sent as a file",
                excerpt(path)
            )));
        }
        self.write_upload(model, files).map_err(|error| {
            let reason = match error.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                    "there is no room left in the state folder".to_owned()
                }
                _ => error.to_string(),
            };
            let message = format!("failed to load '{model}': its files cannot be kept: {reason}");
            ServeError::new(ErrorKind::Unavailable, message)
        })
    }

    /// The folder is a new one, and so is each file: nothing that is there is written to or followed.
    fn write_upload(&self, model: &str, files: &[(String, Bytes)]) -> std::io::Result<String> {
        let of_model = self.live.config.uploads.join(model);
        std::fs::create_dir_all(&of_model)?;
        let mut number = super::now_ms();
        while let Err(error) = std::fs::create_dir(of_model.join(number.to_string())) {
            if error.kind() != std::io::ErrorKind::AlreadyExists {
                return Err(error);
            }
            number += 1;
        }
        let folder = of_model.join(number.to_string());
        for (path, bytes) in files {
            let target = folder.join(path);
            std::fs::create_dir_all(target.parent().unwrap_or(&folder))?;
            let mut file = std::fs::File::create_new(&target)?;
            file.write_all(bytes)?;
            file.sync_all()?;
        }
        Ok(format!("{model}/{number}"))
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

/// Files of one load: a model of a hundred versions with their data has fewer. Their bytes are bounded by the
/// message that they come in.
const FILES_MAX: usize = 1024;

/// Folders that the files of one load lie in: each is made before the answer, and removed before another.
const FOLDERS_MAX: usize = 256;

/// Names in a file's path: the version's folder, and four below it. Triton's layout has two or three.
const PARTS_MAX: usize = 5;

/// Bytes of one name: what file systems take.
const NAME_BYTES_MAX: usize = 255;

/// Whether a path names something below the folder that it is joined to, in its one plain spelling.
fn may_be_sent(path: &str) -> bool {
    // A percent sign could be somebody's way to spell a dot or a slash, a backslash is a slash elsewhere.
    let legal = |c: char| !c.is_control() && !matches!(c, '\\' | '%');
    let plain = |part: &str| !matches!(part, "" | "." | "..") && part.len() <= NAME_BYTES_MAX;
    path.split('/').count() <= PARTS_MAX && path.split('/').all(plain) && path.chars().all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_paths_inside_the_folder_are_taken() {
        for good in ["1/model.onnx", "config.pbtxt", "1/a/b/c/d", "1/Größe 2.bin", "..x/y", &"a".repeat(255)]
        {
            assert!(may_be_sent(good), "{good}");
        }
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "1/../../x",
            ".",
            "a/../b",
            "a/..",
            "a//b",
            "a/./b",
            "./a",
            "a/",
            "/",
            "%2e%2e/x",
            "..%2fx",
            "..\\x",
            "a\0b",
            "a\nb",
            &"a".repeat(256),
            &"a/".repeat(100),
            "1/a/b/c/d/e",
        ] {
            assert!(!may_be_sent(bad), "{bad:?}");
        }
    }
}
