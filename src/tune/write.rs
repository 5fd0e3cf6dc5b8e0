//! Puts a setting into a model's `config.pbtxt`.
//!
//! Always: a reader finds the old file or the new one, never a part; what was written is read again by the reader that
//! the server uses.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use super::TuneError;
use super::trial::in_force;
use crate::model::config::{CpuSetting, FILE_NAME, text, with_cpu_setting};
use crate::model::repository::{Candidate, found_at};

/// What became of a config that was to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    Changed,
    /// It said so already.
    Unchanged,
    /// A person has to change it, for that reason.
    LeftAlone(String),
}

/// Writes the setting into the model's config, which need not be there.
///
/// Errors: the file cannot be written; what was written is read as something else.
pub fn write(candidate: &Candidate, setting: CpuSetting) -> Result<Written, TuneError> {
    let path = candidate.folder.path().join(FILE_NAME);
    // What the server does not read, a link for one, is not written either.
    let text = match text(&candidate.folder) {
        Ok(text) => text,
        Err(reason) => return Ok(Written::LeftAlone(reason)),
    };
    let edited = match with_cpu_setting(&text, setting) {
        Ok(edited) if edited == text => return Ok(Written::Unchanged),
        Ok(edited) => edited,
        Err(reason) => return Ok(Written::LeftAlone(reason)),
    };
    replace(&path, &edited).map_err(TuneError::Unwritable)?;
    let defaults = candidate.config.as_ref().map(|config| config.defaults.clone()).unwrap_or_default();
    let read = found_at(candidate.folder.clone(), &candidate.name, None, &defaults).config;
    let read = read.map_err(TuneError::Misread)?;
    match in_force(&read, setting.threads)? {
        found if found == setting => Ok(Written::Changed),
        found => Err(TuneError::Misread(format!("{found:?} instead of {setting:?}"))),
    }
}

/// Replaces a file whole, or makes it.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let beside = path.with_extension(format!("pbtxt.{}", std::process::id()));
    let written = write_synced(&beside, path, text).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

fn write_synced(beside: &Path, path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = File::create_new(beside)?;
    if let Ok(old) = fs::metadata(path) {
        file.set_permissions(old.permissions())?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Folder;
    use crate::id::ModelName;
    use crate::model::config::Defaults;

    const SETTING: CpuSetting = CpuSetting { threads: 3, instances: 5 };

    fn candidate(folder: &Path) -> Candidate {
        found_at(Folder::new(folder, ""), &ModelName::parse("m").unwrap(), None, &Defaults::default())
    }

    #[test]
    fn what_is_written_is_read_as_it_was_meant() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(write(&candidate(folder.path()), SETTING).unwrap(), Written::Changed);
        assert_eq!(write(&candidate(folder.path()), SETTING).unwrap(), Written::Unchanged);
        let config = candidate(folder.path()).config.unwrap();
        assert_eq!(in_force(&config, 1).unwrap(), SETTING);
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 1, "no other file stays");
    }

    #[test]
    fn a_file_that_a_link_leads_to_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, "# kept\n").unwrap();
        let model = folder.path().join("m");
        fs::create_dir(&model).unwrap();
        std::os::unix::fs::symlink(&elsewhere, model.join(FILE_NAME)).unwrap();
        let Written::LeftAlone(reason) = write(&candidate(&model), SETTING).unwrap() else { panic!() };
        assert!(reason.contains("config.pbtxt is a link"), "{reason}");
        assert_eq!(fs::read_to_string(elsewhere).unwrap(), "# kept\n");
    }

    #[test]
    fn a_config_that_needs_a_person_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let text = "instance_group [ { count: 1 # why\n } ]";
        fs::write(folder.path().join(FILE_NAME), text).unwrap();
        let written = write(&candidate(folder.path()), SETTING).unwrap();
        assert!(matches!(written, Written::LeftAlone(reason) if reason.contains("comment")));
        assert_eq!(fs::read_to_string(folder.path().join(FILE_NAME)).unwrap(), text);
    }
}
