//! The files of the state: folder, database, form.
//!
//! Always: what SQLite opens was a regular file a moment before. The server's connections keep the index of the log in
//! memory of the process, not in a file that is mapped: whoever cut that off would end the server.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::StoreError;
use crate::backend::is_own;
use crate::control::record::Head;

/// The database's name in the folder.
pub const DATABASE: &str = "weir.sqlite";

/// What SQLite writes ahead of the database.
pub const LOG: &str = "weir.sqlite-wal";

/// The database's name while it is made.
const UNFINISHED: &str = "weir.sqlite.new";

// Not SQLITE_OPEN_CREATE: a database is made in one place only. No mutex: a connection has one user.
const WRITING: OpenFlags = OpenFlags::SQLITE_OPEN_READ_WRITE.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);
const READING: OpenFlags = OpenFlags::SQLITE_OPEN_READ_ONLY.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

/// Marks the database as ours: "Weir" in ASCII.
const APPLICATION: i32 = 0x5765_6972;

/// Raised whenever an older weir could misread what a newer one writes.
const FORM: i32 = 1;

/// Several connections of one process, none of another's, and the index of the log on the heap:
/// <https://sqlite.org/vfs.html>, <https://sqlite.org/wal.html>.
pub const OF_ONE_PROCESS: &str = "unix-excl";

/// Waits for programs that look at the database beside us, such as SQLite's own; they hold it for moments only.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

// The index computes the model from the body: a column of its own would stand outside the chain.
const SCHEMA: &str = "
    CREATE TABLE documents (
        kind TEXT NOT NULL,
        key TEXT NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (kind, key)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE audit (seq INTEGER PRIMARY KEY, body TEXT NOT NULL, hash TEXT NOT NULL) STRICT;
    CREATE INDEX audit_by_model ON audit (json_extract(body, '$.model'));
    CREATE TABLE head (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        seq INTEGER NOT NULL,
        hash TEXT NOT NULL
    ) STRICT;
";

/// Makes the folder `dir` for its owner alone, if it is absent, and puts it on the disk.
pub fn make_folder(dir: &Path) -> Result<(), StoreError> {
    let make = || -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        // A folder's name is kept by its parent: without this, a power cut takes it and all that is in it.
        match dir.canonicalize()?.parent() {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    };
    make().map_err(|source| StoreError::Folder { path: dir.to_owned(), source })
}

/// Opens the database of the folder `dir` to write, and makes it if it is absent.
///
/// Errors: it is not ours; of a newer form; malformed; it cannot be written.
pub fn open_for_writing(dir: &Path) -> Result<Connection, StoreError> {
    let path = dir.join(DATABASE);
    let there = are_own(dir, DATABASE);
    if !there.map_err(|source| StoreError::Folder { path: dir.to_owned(), source })? {
        make_database(dir)?;
    }
    let connection = Connection::open_with_flags_and_vfs(&path, WRITING, OF_ONE_PROCESS)?;
    harden(&connection)?;
    is_ours(&connection, &path)?;
    let journal: String =
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if journal != "wal" {
        let source = io::Error::other("its file system cannot share memory, which SQLite's log needs");
        return Err(StoreError::Folder { path: dir.to_owned(), source });
    }
    // Each commit waits for the disk: no acknowledged change is lost to a power cut.
    connection.pragma_update(None, "synchronous", "full")?;
    if connection.is_readonly("main")? {
        return Err(StoreError::ReadOnly);
    }
    Ok(connection)
}

/// Opens the database of the folder `dir` to read, in the process that has it open to write.
///
/// Errors: as [`open_for_writing`].
pub fn open_beside(dir: &Path) -> Result<Connection, StoreError> {
    let path = dir.join(DATABASE);
    // A connection that may only read would not take part in the locks of the process.
    let connection = Connection::open_with_flags_and_vfs(&path, WRITING, OF_ONE_PROCESS)?;
    harden(&connection)?;
    connection.pragma_update(None, "query_only", true)?;
    is_ours(&connection, &path)?;
    Ok(connection)
}

/// Opens a copy of the database of the folder `dir` to read.
///
/// Errors: it is not ours; of a newer form; malformed.
pub fn open_copy(copy: &Path, dir: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open_with_flags(copy, READING)?;
    harden(&connection)?;
    is_ours(&connection, &dir.join(DATABASE))?;
    Ok(connection)
}

/// Whether the database `name` is in the folder `dir`. What SQLite opens beside it may or may not be there.
///
/// Errors: one of them is no regular file. A FIFO would be waited for.
pub fn are_own(dir: &Path, name: &str) -> io::Result<bool> {
    for suffix in ["-wal", "-journal"] {
        is_own(dir, &format!("{name}{suffix}"))?;
    }
    is_own(dir, name)
}

/// Nothing that a prepared database holds is run, and a damaged page is noticed rather than followed.
fn harden(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)
}

fn form(connection: &Connection) -> rusqlite::Result<(i32, i32)> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get(0));
    Ok((number("application_id")?, number("user_version")?))
}

/// Errors: what is in the database is not ours, or too new.
fn is_ours(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    match form(connection)? {
        (APPLICATION, FORM) => Ok(()),
        (APPLICATION, found) => Err(StoreError::Newer { found, known: FORM }),
        // We never leave one empty: something cut it off.
        (0, 0) if path.metadata().is_ok_and(|file| file.len() == 0) => {
            Err(StoreError::Malformed(format!("'{}' is empty", path.display())))
        }
        _ => Err(StoreError::Foreign(path.to_owned())),
    }
}

/// Makes an empty state under another name and renames it, so that a database that is there is whole, whenever the
/// process ends.
fn make_database(dir: &Path) -> Result<(), StoreError> {
    if dir.join(LOG).exists() {
        return Err(StoreError::Malformed(format!("'{DATABASE}' is gone, and its log '{LOG}' is there")));
    }
    let unfinished = dir.join(UNFINISHED);
    let begin = || -> io::Result<()> {
        for suffix in ["", "-journal", "-wal", "-shm"] {
            match std::fs::remove_file(dir.join(format!("{UNFINISHED}{suffix}"))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        File::options().write(true).create_new(true).mode(0o600).open(&unfinished).map(drop)
    };
    let fault = |source| StoreError::Folder { path: dir.to_owned(), source };
    begin().map_err(fault)?;
    let mut connection = Connection::open_with_flags_and_vfs(&unfinished, WRITING, OF_ONE_PROCESS)?;
    harden(&connection)?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "full")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(SCHEMA)?;
    let Head { seq, hash } = Head::genesis();
    transaction.execute("INSERT INTO head (id, seq, hash) VALUES (1, ?1, ?2)", (seq.cast_signed(), hash))?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", FORM)?;
    transaction.commit()?;
    // Folds the log into the database, or the rename would leave it behind.
    connection.close().map_err(|(_, error)| error)?;
    let finish = || {
        File::open(&unfinished)?.sync_all()?;
        std::fs::rename(&unfinished, dir.join(DATABASE))?;
        File::open(dir)?.sync_all()
    };
    finish().map_err(fault)
}
