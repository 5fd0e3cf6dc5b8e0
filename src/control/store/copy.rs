//! A copy of the database, to look at while a server writes to it.
//!
//! The server lets no other process read its database, and the lock of a reader would keep it from starting. So the
//! files are copied, without a lock: first the database, then its log. SQLite writes a page to the database only while
//! the log has it too, until the log begins anew with another head. So if the log has one head before and after, the
//! copied log has each page that changed meanwhile, and both together are one moment: <https://sqlite.org/walformat.html>.
//!
//! Always: nothing in the folder is locked, written or made, and only the owner can read the copy.

use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{StoreError, files};
use crate::backend::{Own, is_own, open_own};

/// A log begins anew every few megabytes: few copies meet that, and hardly any two of them.
const TRIES: u32 = 20;

/// Longer than the server takes to fold the log into the database.
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// Bytes of the log's head, which has two random numbers.
const HEAD_BYTES: usize = 32;

/// A folder of its own with the copy in it, removed when it is dropped.
pub struct Copy(PathBuf);

/// What must stand still while files are copied.
#[derive(PartialEq, Eq)]
struct Mark {
    device: u64,
    inode: u64,
    /// The head of the log; without one, size and time of the database, which nothing but its end writes to then.
    head: Result<[u8; HEAD_BYTES], (u64, i64, i64)>,
}

impl Copy {
    /// Copies the database of the folder `dir`.
    ///
    /// Errors: there is none; it changes too fast; there is no room for the copy.
    pub fn take(dir: &Path) -> Result<Self, StoreError> {
        let fault = |source| StoreError::Folder { path: dir.to_owned(), source };
        if !is_own(dir, files::DATABASE).map_err(fault)? {
            return Err(StoreError::Absent(dir.to_owned()));
        }
        let copy = Self::make()?;
        for _ in 0..TRIES {
            let before = Mark::of(dir).map_err(fault)?;
            for name in [files::DATABASE, files::LOG] {
                copy.add(dir, name)?;
            }
            if before.is_some() && before == Mark::of(dir).map_err(fault)? {
                return Ok(copy);
            }
            std::thread::sleep(BETWEEN_TRIES);
        }
        Err(StoreError::Restless(dir.to_owned()))
    }

    /// Where the copied database is.
    pub fn database(&self) -> PathBuf {
        self.0.join(files::DATABASE)
    }

    fn make() -> Result<Self, StoreError> {
        let temporary = std::env::temp_dir();
        loop {
            let path = temporary.join(format!("weir-{:016x}", fastrand::u64(..)));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(StoreError::Copy { path: temporary, source }),
            }
        }
    }

    /// Copies a file in place of the one that was copied before. One that is not there is none in the copy either.
    fn add(&self, dir: &Path, name: &str) -> Result<(), StoreError> {
        let target = self.0.join(name);
        let mut file = match open_own(dir, name, Own::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return match std::fs::remove_file(&target) {
                    Err(source) if source.kind() != io::ErrorKind::NotFound => Err(self.fault(source)),
                    _ => Ok(()),
                };
            }
            file => file.map_err(|source| StoreError::Folder { path: dir.to_owned(), source })?,
        };
        let mut options = File::options();
        let made = options.write(true).create(true).truncate(true).mode(0o600).open(&target);
        made.and_then(|mut copy| io::copy(&mut file, &mut copy))
            .map(drop)
            .map_err(|source| self.fault(source))
    }

    fn fault(&self, source: io::Error) -> StoreError {
        StoreError::Copy { path: self.0.clone(), source }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // What cannot be removed is the system's to remove some day.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Mark {
    /// `None` where the database is gone for a moment.
    fn of(dir: &Path) -> io::Result<Option<Self>> {
        let absent = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => Ok(None),
            _ => Err(error),
        };
        let metadata = match std::fs::symlink_metadata(dir.join(files::DATABASE)) {
            Ok(metadata) => metadata,
            Err(error) => return absent(error),
        };
        let mut head = [0; HEAD_BYTES];
        let has_head = match open_own(dir, files::LOG, Own::Read) {
            Ok(mut log) => match log.read_exact(&mut head) {
                Ok(()) => true,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
                Err(error) => return Err(error),
            },
            Err(error) => absent(error).map(|_: Option<Self>| false)?,
        };
        let head = match has_head {
            true => Ok(head),
            false => Err((metadata.len(), metadata.mtime(), metadata.mtime_nsec())),
        };
        Ok(Some(Self { device: metadata.dev(), inode: metadata.ino(), head }))
    }
}
