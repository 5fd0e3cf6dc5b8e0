//! Whether the files that are open are still the ones that a restart would find.
//!
//! What is written to a file whose name is gone, or to the end of one that was cut off, is lost with the process.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Files that are open, by their names.
pub struct Held(Vec<(PathBuf, Seen)>);

/// What tells a file from another. While SQLite has them open, our files never shrink: their pages are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    device: u64,
    inode: u64,
    bytes: u64,
}

impl Held {
    /// The files `names` of the folder `dir`, which were opened just now. Errors: one of them is gone.
    pub fn new(dir: &Path, names: &[&str]) -> io::Result<Self> {
        let seen = |name: &&str| {
            let path = dir.join(name);
            let seen = Seen::of(&std::fs::symlink_metadata(&path)?);
            Ok((path, seen))
        };
        names.iter().map(seen).collect::<io::Result<_>>().map(Self)
    }

    /// Errors: what became of a file, for the log: it names the path.
    pub fn check(&mut self) -> Result<(), String> {
        for (path, before) in &mut self.0 {
            let fate = match std::fs::symlink_metadata(&*path).map(|metadata| Seen::of(&metadata)) {
                Err(error) => error.to_string(),
                Ok(now) if (now.device, now.inode) != (before.device, before.inode) => {
                    "it is another file now".to_owned()
                }
                Ok(now) if now.bytes < before.bytes => "it was cut off".to_owned(),
                Ok(now) => {
                    *before = now;
                    continue;
                }
            };
            return Err(format!("'{}': {fate}", path.display()));
        }
        Ok(())
    }
}

impl Seen {
    fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino(), bytes: metadata.len() }
    }
}
