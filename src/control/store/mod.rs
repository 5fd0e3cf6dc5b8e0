//! The state folder: what is wanted, and the record of how it came to be wanted, in one database.
//!
//! Documents are texts by kind and key; what they mean is their owners' business. Entries become records of the chain
//! (`control::record`).
//!
//! Always: a transaction is whole or absent, its documents and its records together, and is on the disk before
//! `commit` returns; one server at a time uses a folder; a transaction that fails changes nothing and fails no other.
//! Not here: what documents say. No other file knows this database's SQL.

mod copy;
mod files;
mod held;
mod reader;
mod writer;

#[cfg(test)]
mod faults;
#[cfg(test)]
mod kills;
#[cfg(test)]
mod tests;

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use reader::{Order, PAGE_BYTES_MAX, Page, Query, RECORDS_MAX, Reader};
pub use writer::{BODY_BYTES_MAX, DOCUMENT_BYTES_MAX};

use super::record::{Broken, Entry, Head, Record, Verified};
use crate::backend::{Own, open_own};
use writer::Writer;

pub(super) use files::{OF_ONE_PROCESS, are_own, make_folder};
pub(super) use held::Held;

/// One document as it shall stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    pub kind: String,
    pub key: String,
    /// `None` removes it; removing one that is not there is no error.
    pub body: Option<String>,
}

/// What is written together or not at all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Transaction {
    /// In this order; the last one of a kind and key stands.
    pub documents: Vec<Document>,
    /// Become records in this order.
    pub entries: Vec<Entry>,
}

/// Why the state folder could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the state folder '{}' is in use by another weir", .0.display())]
    InUse(PathBuf),
    #[error("the folder '{}' holds no state: no '{}' is in it", .0.display(), files::DATABASE)]
    Absent(PathBuf),
    #[error("the state folder '{}': {source}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error(
        "the state is of form {found}, and this weir knows forms up to {known}: use the weir that wrote it, or a newer one"
    )]
    Newer { found: i32, known: i32 },
    #[error("'{}' is a database, but not one of weir's", .0.display())]
    Foreign(PathBuf),
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error("the database is malformed: {0}")]
    Malformed(String),
    #[error("no room is left where the state folder is: nothing was changed; free some space and try again")]
    Full,
    #[error("the state folder cannot be written to: nothing was changed; it or its file system is read-only")]
    ReadOnly,
    #[error(
        "the files of the state were removed, replaced or cut off while weir runs: nothing was changed; put them back, \
         or start weir anew"
    )]
    Lost,
    #[error("another program has the database of the state open; it must let go of it first")]
    OpenElsewhere,
    #[error("the database in '{}' changes too fast to be read; try again", .0.display())]
    Restless(PathBuf),
    #[error("no copy of the state can be made in '{}', to be read: {source}; name another folder by TMPDIR", path.display())]
    Copy { path: PathBuf, source: io::Error },
    #[error("{what} has {bytes} bytes, and at most {max} are kept")]
    TooLarge { what: &'static str, bytes: usize, max: usize },
    #[error("the entry would not be readable as a record: {0}")]
    Entry(serde_json::Error),
    #[error("the store is closed")]
    Closed,
    #[error("the database of the state: {0}")]
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::ReadOnly) => Self::ReadOnly,
            Some(ErrorCode::DatabaseBusy) => Self::OpenElsewhere,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Malformed(error.to_string()),
            _ => Self::Database(error),
        }
    }
}

/// The state folder, open for one server.
///
/// Its calls block on the disk; they are for threads that may. Any thread may call, and transactions that wait at the
/// same time share one write to the disk.
pub struct Store {
    // Closed in this order: readers, then the writer, whose connection as the last one folds the log into the
    // database, then the lock.
    reader: Mutex<Reader>,
    writer: Writer,
    _lock: File,
}

impl Store {
    /// Opens the state folder `dir`, and makes it (mode 0700) with an empty record where it is absent.
    ///
    /// Errors: another server has it; it is of a newer form; the newest record is not the one that the head names; it
    /// cannot be written.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        make_folder(dir)?;
        let lock = lock(dir)?;
        let connection = files::open_for_writing(dir)?;
        let reader = Reader::beside(dir)?;
        reader.verify_end()?;
        // It was read and written to: its log is there.
        let held = Held::new(dir, &[files::DATABASE, files::LOG])
            .map_err(|source| StoreError::Folder { path: dir.to_owned(), source })?;
        Ok(Self { reader: Mutex::new(reader), writer: Writer::start(connection, held, dir)?, _lock: lock })
    }

    /// Opens the state folder `dir` to look at it as it is now, while a server uses it or after one ended in any way.
    /// Not for the process of that server: to close a file lets go of all the locks that a process has on it.
    ///
    /// Errors: there is no database; it is of a newer form; there is no room for a copy.
    /// Cost: copies the database into the system's folder for what is temporary.
    pub fn inspect(dir: &Path) -> Result<Reader, StoreError> {
        Reader::of_copy(dir)
    }

    /// Makes `transaction` durable and returns the records that its entries became.
    ///
    /// Errors: nothing of it was changed. If the disk itself failed while it wrote, a power cut right after may still
    /// bring the whole transaction back.
    /// Cost: one sync of the disk, shared with all transactions that wait.
    pub fn commit(&self, transaction: Transaction) -> Result<Vec<Record>, StoreError> {
        self.writer.commit(transaction)
    }

    /// Makes `documents` durable without a record: for progress, not for decisions.
    pub fn save(&self, documents: Vec<Document>) -> Result<(), StoreError> {
        self.commit(Transaction { documents, entries: Vec::new() }).map(drop)
    }

    /// Keys and bodies of all documents of a kind, by key.
    pub fn documents(&self, kind: &str) -> Result<Vec<(String, String)>, StoreError> {
        self.reader().documents(kind)
    }

    /// Shows every document of a kind, key and body, one after another in the order of keys.
    pub fn each_document(&self, kind: &str, see: impl FnMut(String, String)) -> Result<(), StoreError> {
        self.reader().each_document(kind, see)
    }

    /// One document's body; `None` where there is none.
    pub fn document(&self, kind: &str, key: &str) -> Result<Option<String>, StoreError> {
        self.reader().document(kind, key)
    }

    /// As [`Reader::highest`].
    pub fn highest(
        &self,
        kind: &str,
        below: &str,
        limit: usize,
    ) -> Result<Vec<(String, String)>, StoreError> {
        self.reader().highest(kind, below, limit)
    }

    /// A page of the record.
    pub fn records(&self, query: &Query) -> Result<Page, StoreError> {
        self.reader().records(query)
    }

    /// The number and hash of the newest record.
    pub fn head(&self) -> Result<Head, StoreError> {
        self.reader().head()
    }

    fn reader(&self) -> MutexGuard<'_, Reader> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Verifies the whole record of the state folder `dir`, then asks SQLite whether the database is sound.
///
/// `expect`: an earlier head that was kept elsewhere; without one, a record that was written anew as a whole is not
/// told from the true one.
/// Errors: `Broken` names the first record that does not follow; `Malformed` is SQLite's own word.
/// Cost: reads the whole database; memory for one record.
pub fn verify(dir: &Path, expect: Option<&Head>) -> Result<Verified, StoreError> {
    Store::inspect(dir)?.verify(expect)
}

/// The kernel lets go of the lock when its process ends, however that ends.
fn lock(dir: &Path) -> Result<File, StoreError> {
    let fault = |source| StoreError::Folder { path: dir.to_owned(), source };
    let file = open_own(dir, "lock", Own::Lock).map_err(fault)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(fault(source)),
    }
}
