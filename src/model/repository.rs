//! A folder of models in Triton's layout: `<model>/<version>/model.onnx`, optional `<model>/config.pbtxt`.
//!
//! Always: names and versions come from folder names and are validated before they are used as such. Entries that
//! are not models (files, dot folders) are passed over; a folder whose name cannot be a model's is reported.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::config::{self, ModelConfig, VersionPolicy};
use crate::backend::Artefact;
use crate::id::{ModelName, Version};

/// A model found in a repository.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub name: ModelName,
    pub folder: PathBuf,
    /// Version folders, by number.
    pub versions: BTreeMap<Version, PathBuf>,
    /// The resolved config, or why the model cannot be served.
    pub config: Result<ModelConfig, String>,
}

/// What a scan found.
#[derive(Debug, Default)]
pub struct Scan {
    pub candidates: Vec<Candidate>,
    /// Folders whose names cannot be model names.
    pub misnamed: Vec<String>,
}

/// Reads a repository. Errors: the folder itself cannot be read. A broken model is a candidate with a reason.
pub fn scan(root: &Path, defaults: &config::Defaults) -> io::Result<Scan> {
    let mut scan = Scan::default();
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        let folder = entry.path();
        let text = entry.file_name().to_string_lossy().into_owned();
        if text.starts_with('.') || !folder.is_dir() {
            continue;
        }
        match ModelName::parse(&text) {
            Some(name) => scan.candidates.push(candidate(name, folder, defaults)),
            None => scan.misnamed.push(text),
        }
    }
    scan.candidates.sort_by(|a, b| a.name.cmp(&b.name));
    scan.misnamed.sort();
    Ok(scan)
}

/// One model, in a repository or in a folder of its own, with its own config or another that came as JSON.
pub fn found_at(
    folder: &Path,
    name: &ModelName,
    config_json: Option<&str>,
    defaults: &config::Defaults,
) -> Candidate {
    let mut candidate = candidate(name.clone(), folder.to_owned(), defaults);
    if let Some(json) = config_json {
        candidate.config = config::from_json(json, folder, name, defaults);
    }
    candidate
}

fn candidate(name: ModelName, folder: PathBuf, defaults: &config::Defaults) -> Candidate {
    let config = config::read(&folder, &name, defaults);
    let versions = match std::fs::read_dir(&folder) {
        Err(_) => BTreeMap::new(),
        Ok(entries) => entries
            .filter_map(Result::ok)
            .filter(|entry| entry.path().is_dir())
            .filter_map(|entry| Some((Version::parse(entry.file_name().to_str()?)?, entry.path())))
            .collect(),
    };
    Candidate { name, folder, versions, config }
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

    /// The files of a version. Errors: it has no model file.
    pub fn artefact(&self, version: Version, file_name: &str) -> Result<Artefact, String> {
        let folder = self.versions.get(&version).ok_or("the version's folder is not there")?.clone();
        let named = folder.join(file_name);
        // Triton lets the file be a folder that holds the file.
        let nested = named.join("model.onnx");
        if named.is_file() {
            Ok(Artefact { file: named, folder })
        } else if nested.is_file() {
            Ok(Artefact { file: nested, folder: named })
        } else {
            let files = std::fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok);
            let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
            let others: Vec<String> = names.filter(|name| name.ends_with(".onnx")).take(3).collect();
            Err(match others.as_slice() {
                [] => format!("{version}/{file_name} is not there"),
                others => format!(
                    "{version}/{file_name} is not there, but {} is: rename it, or name it by default_model_filename",
                    others.join(", ")
                ),
            })
        }
    }
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
