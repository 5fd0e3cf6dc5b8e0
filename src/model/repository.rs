//! A folder of models in Triton's layout: `<model>/<version>/model.onnx`, optional `<model>/config.pbtxt`.
//!
//! Always: names and versions come from folder names and are validated before they are used as such. Entries that
//! are not models (files, dot folders) are passed over; a folder whose name cannot be a model's is reported. The
//! repository's own folder may be a link, as it is where a volume is switched from one state to the next; below it no
//! link is followed, and nothing but regular files is opened. A model that is wrong is a candidate with a reason.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::config::{self, ModelConfig, VersionPolicy};
use crate::backend::{Artefact, Folder, Outside};
use crate::error::excerpt;
use crate::id::{ModelName, Version};

/// Bytes of a model file: protobuf's messages end there, and larger weights lie in files beside it.
const MODEL_BYTES_MAX: u64 = i32::MAX as u64;

/// Models of one repository; each takes a few KB of memory and a line in every list. More are reported and left out.
const MODELS_MAX: usize = 10_000;

/// Versions of one model that are looked at, the highest ones.
const VERSIONS_MAX: usize = 1000;

/// Entries of one model's folder. A folder with more was not made for a model, and reading it takes seconds.
const ENTRIES_MAX: usize = 100_000;

/// Names that are reported of those that cannot be a model's.
const MISNAMED_MAX: usize = 100;

/// A model found in a repository.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub name: ModelName,
    pub folder: Folder,
    /// Version folders, by number. One that is a link is among them; what it leads to is not.
    pub versions: BTreeMap<Version, PathBuf>,
    /// The resolved config, or why the model cannot be served.
    pub config: Result<ModelConfig, String>,
}

/// What a scan found.
#[derive(Debug, Default)]
pub struct Scan {
    pub candidates: Vec<Candidate>,
    /// Folders whose names cannot be model names, the first hundred.
    pub misnamed: Vec<String>,
    /// Models that were left out because there are too many.
    pub left_out: usize,
}

/// Reads a repository. Errors: the folder itself cannot be read. A broken model is a candidate with a reason.
pub fn scan(root: &Path, defaults: &config::Defaults) -> io::Result<Scan> {
    let mut scan = Scan::default();
    let mut names = BTreeSet::new();
    let mut misnamed = BTreeSet::new();
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        let text = entry.file_name().to_string_lossy().into_owned();
        if text.starts_with('.') || !could_be_model(&entry) {
            continue;
        }
        match ModelName::parse(&text) {
            Some(name) => _ = names.insert(name),
            None => _ = misnamed.insert(text),
        }
        // The first ones by name, so that it is the same ones every time.
        if names.len() > MODELS_MAX {
            names.pop_last();
            scan.left_out += 1;
        }
        if misnamed.len() > MISNAMED_MAX {
            misnamed.pop_last();
        }
    }
    scan.candidates =
        names.into_iter().map(|name| candidate(Folder::new(root, name.as_str()), name, defaults)).collect();
    scan.misnamed = misnamed.into_iter().collect();
    Ok(scan)
}

/// Whether an entry of a repository is meant to be a model: a folder, or a link that leads to one or to nothing. Links
/// to files lie in volumes that are made of a Kubernetes ConfigMap.
pub fn could_be_model(entry: &std::fs::DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| {
        kind.is_dir()
            || kind.is_symlink() && std::fs::metadata(entry.path()).map_or(true, |target| target.is_dir())
    })
}

/// One model, in a repository or in a folder of its own, with its own config or another that came as JSON.
pub fn found_at(
    folder: Folder,
    name: &ModelName,
    config_json: Option<&str>,
    defaults: &config::Defaults,
) -> Candidate {
    let mut candidate = candidate(folder, name.clone(), defaults);
    if let Some(json) = config_json
        && !candidate.folder.is_link()
    {
        candidate.config = config::from_json(json, &candidate.folder, name, defaults);
    }
    candidate
}

fn candidate(folder: Folder, name: ModelName, defaults: &config::Defaults) -> Candidate {
    if folder.is_link() {
        let reason = format!("its folder {}", Outside::Link);
        return Candidate { name, folder, versions: BTreeMap::new(), config: Err(reason) };
    }
    let (versions, config) = match versions(&folder) {
        Ok(versions) => (versions, config::read(&folder, &name, defaults)),
        Err(reason) => (BTreeMap::new(), Err(reason)),
    };
    Candidate { name, folder, versions, config }
}

/// The version folders, and links in their place. Errors: why the model's folder is not read.
fn versions(folder: &Folder) -> Result<BTreeMap<Version, PathBuf>, String> {
    let unreadable = |error: io::Error| {
        tracing::warn!("the folder '{}' cannot be read: {error}", folder.path().display());
        format!("its folder cannot be read: {}", error.kind())
    };
    let mut versions = BTreeMap::new();
    for (count, entry) in std::fs::read_dir(folder.path()).map_err(unreadable)?.enumerate() {
        if count == ENTRIES_MAX {
            return Err(format!("its folder has more than {ENTRIES_MAX} entries"));
        }
        let entry = entry.map_err(unreadable)?;
        let kind = entry.file_type().map_err(unreadable)?;
        let version = entry.file_name().to_str().and_then(Version::parse);
        if let Some(version) = version.filter(|_| kind.is_dir() || kind.is_symlink()) {
            versions.insert(version, entry.path());
            if versions.len() > VERSIONS_MAX {
                versions.pop_first();
            }
        }
    }
    Ok(versions)
}

impl Candidate {
    /// The versions that the policy asks for, ascending, or why there are none.
    pub fn chosen(&self) -> Result<Vec<Version>, String> {
        let config = self.config.as_ref().map_err(Clone::clone)?;
        if self.versions.is_empty() {
            return Err(
                "no version folder: put the model file at <model>/1/model.onnx; versions are folders whose \
                        names are numbers from 1 up"
                    .to_owned(),
            );
        }
        let present: Vec<Version> = self.versions.keys().copied().collect();
        match &config.version_policy {
            VersionPolicy::All => Ok(present),
            VersionPolicy::Latest(count) => Ok(present[present.len().saturating_sub(*count)..].to_vec()),
            VersionPolicy::Specific(wanted) => {
                let missing: Vec<String> =
                    wanted.iter().filter(|v| !present.contains(v)).map(Version::to_string).collect();
                if missing.is_empty() {
                    Ok(wanted.clone())
                } else {
                    Err(format!("version_policy names versions that are not there: {}", missing.join(", ")))
                }
            }
        }
    }

    /// The files of a version. Errors: it has no model file, or one that is not read.
    pub fn artefact(&self, version: Version, file_name: &str) -> Result<Artefact, String> {
        let path = self.versions.get(&version).ok_or("the version's folder is not there")?;
        let folder = self.folder.join(version.to_string());
        if folder.is_link() {
            return Err(format!("the folder of version {version} {}", Outside::Link));
        }
        let artefact = |file: PathBuf, folder: PathBuf| {
            Ok(Artefact { root: self.folder.root().to_owned(), file, folder })
        };
        let refused = |file: &str, outside: Outside| Err(format!("{version}/{file} {outside}"));
        match folder.open(Path::new(file_name), MODEL_BYTES_MAX) {
            Ok(_) => artefact(path.join(file_name), path.clone()),
            // Triton lets the file be a folder that holds the file.
            Err(Outside::NotAFile) => {
                let nested = folder.join(file_name);
                match nested.open(Path::new(config::MODEL_FILE), MODEL_BYTES_MAX) {
                    Ok(_) => artefact(nested.path().join(config::MODEL_FILE), nested.path()),
                    Err(Outside::Missing) => refused(file_name, Outside::NotAFile),
                    Err(outside) => refused(&format!("{file_name}/{}", config::MODEL_FILE), outside),
                }
            }
            Err(Outside::Missing) => Err(match others(path).as_slice() {
                [] => format!("{version}/{file_name} is not there"),
                others => format!(
                    "{version}/{file_name} is not there, but {} is: rename it, or name it by default_model_filename",
                    others.join(", ")
                ),
            }),
            Err(outside) => refused(file_name, outside),
        }
    }
}

/// Names of a few other files that look like model files.
fn others(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).take(ENTRIES_MAX);
    let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(".onnx")).take(3).map(|name| excerpt(&name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        root
    }

    #[test]
    fn only_folders_with_model_names_are_models() {
        let root =
            repository(&["a/1/model.onnx", ".hidden/1/model.onnx", "readme.md", "not a name/1/x", "b/x"]);
        let scan = scan(root.path(), &config::Defaults::default()).unwrap();
        let names: Vec<&str> = scan.candidates.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(scan.misnamed, ["not a name"]);
        assert!(scan.candidates[1].chosen().unwrap_err().contains("no version folder"));
    }

    #[test]
    fn version_policy_chooses() {
        let chosen = |policy: &str| {
            let root = repository(&["m/1/f", "m/2/f", "m/10/f", "m/007/f", "m/old/f"]);
            std::fs::write(root.path().join("m/config.pbtxt"), policy).unwrap();
            let scan = scan(root.path(), &config::Defaults::default()).unwrap();
            scan.candidates[0].chosen().map(|v| v.iter().map(|v| v.number()).collect::<Vec<_>>())
        };
        assert_eq!(chosen("").unwrap(), [10]);
        assert_eq!(chosen("version_policy { all {} }").unwrap(), [1, 2, 10]);
        assert_eq!(chosen("version_policy { latest { num_versions: 2 } }").unwrap(), [2, 10]);
        assert_eq!(chosen("version_policy { specific { versions: [ 1, 2 ] } }").unwrap(), [1, 2]);
        assert!(chosen("version_policy { specific { versions: 5 } }").unwrap_err().contains('5'));
    }
}
