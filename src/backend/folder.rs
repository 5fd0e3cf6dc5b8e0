//! Files that others name, which must lie in a folder of ours.

use std::path::{Component, Path, PathBuf};

/// Why a file may not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outside {
    /// The path itself leaves the folder, or could.
    Path,
    /// A link on the way leaves it.
    Link,
    /// There is no such file.
    Missing,
}

/// The real path of `file` within `folder`, links resolved.
pub fn inside(folder: &Path, file: &Path) -> Result<PathBuf, Outside> {
    let plain = file.components().all(|component| matches!(component, Component::Normal(_)));
    if file.as_os_str().is_empty() || !plain {
        return Err(Outside::Path);
    }
    let real = |path: &Path| path.canonicalize().map_err(|_| Outside::Missing);
    let (target, root) = (real(&folder.join(file))?, real(folder)?);
    if target.starts_with(root) { Ok(target) } else { Err(Outside::Link) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_the_folder_is_found() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("model");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(root.path().join("secret"), "").unwrap();
        std::fs::write(folder.join("data"), "").unwrap();
        std::os::unix::fs::symlink("../secret", folder.join("link")).unwrap();
        std::os::unix::fs::symlink("data", folder.join("alias")).unwrap();
        for (file, outcome) in [
            ("data", None),
            ("alias", None),
            ("", Some(Outside::Path)),
            ("../secret", Some(Outside::Path)),
            ("x/../../secret", Some(Outside::Path)),
            ("/etc/passwd", Some(Outside::Path)),
            ("link", Some(Outside::Link)),
            ("nosuch", Some(Outside::Missing)),
        ] {
            assert_eq!(inside(&folder, Path::new(file)).err(), outcome, "{file}");
        }
    }
}
