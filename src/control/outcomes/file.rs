//! The file of outcomes: its form, its rows, and what is done when it is damaged.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::{Assignment, Outcome, OutcomesConfig, OutcomesError, Taken};
use crate::control::store::{Held, OF_ONE_PROCESS, are_own};

/// The database's name in the folder.
pub const DATABASE: &str = "outcomes.sqlite";

/// What SQLite writes ahead of the database.
const LOG: &str = "outcomes.sqlite-wal";

/// Marks the database as ours: "WeiO" in ASCII.
const APPLICATION: i32 = 0x5765_694f;

/// Raised whenever an older weir could misread what a newer one writes.
const FORM: i32 = 1;

/// Waits for those who tally; they only hold up a change of the file's form.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Kibibytes of the database that are held in memory. Request ids fall anywhere in their index, so that much of it is
/// touched all the time.
const CACHE_KIB: i64 = 32 * 1024;

/// Requests that are forgotten in one go: twice what one commit can add, so that forgetting keeps up.
pub const FORGET_STEP: i64 = 2 * super::writer::COMMIT_MESSAGES as i64;

// One row for each request: what is told of it later fills in what is null. Its id is the order of arrival.
// `by_arm` holds all that a tally needs, in the order in which a tally needs it.
const SCHEMA: &str = "
    CREATE TABLE experiments (
        id INTEGER PRIMARY KEY,
        model TEXT NOT NULL,
        name TEXT NOT NULL,
        UNIQUE (model, name)
    ) STRICT;
    CREATE TABLE requests (
        id INTEGER PRIMARY KEY,
        heard_ms INTEGER NOT NULL,
        model TEXT NOT NULL,
        request_id TEXT NOT NULL,
        experiment INTEGER,
        version INTEGER,
        unit INTEGER,
        told_us INTEGER,
        number REAL,
        label TEXT,
        UNIQUE (model, request_id)
    ) STRICT;
    CREATE INDEX by_arm ON requests (experiment, version, unit, told_us, number, label)
        WHERE experiment IS NOT NULL;
";

/// Opens the database at `path`. One that is damaged, or not of this form, is moved aside with a warning.
pub fn open(path: &Path) -> Result<Connection, OutcomesError> {
    match try_open(path) {
        Err(OutcomesError::Malformed(what)) => {
            move_aside(path, &what)?;
            try_open(path)
        }
        opened => opened,
    }
}

fn try_open(path: &Path) -> Result<Connection, OutcomesError> {
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_CREATE)?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    // The disk is waited for when the log is folded into the database, not at each commit: a power cut may take what
    // was written since, never the database.
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (number("application_id")?, number("user_version")?) {
        (APPLICATION, FORM) => {}
        (0, 0) if tables == 0 => create(&mut connection)?,
        (application, form) => {
            let what = format!("it is of another form ({application:#x}, {form})");
            return Err(OutcomesError::Malformed(what));
        }
    }
    // A look at both ends of the rows finds a file that was cut off. All of it is too much to read at each start.
    bounds(&connection)?;
    Ok(connection)
}

/// What is written after this is found by whoever opens `path` next, as long as it is held.
pub fn hold(path: &Path) -> Result<Held, OutcomesError> {
    Held::new(folder(path), &[DATABASE, LOG]).map_err(|error| OutcomesError::Unopened(error.to_string()))
}

fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// Opens the database at `path` to tally.
pub fn open_for_reading(path: &Path) -> Result<Connection, OutcomesError> {
    let connection = connect(path, OpenFlags::empty())?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// A connection of this process, which may write: one that may only read would not take part in the process's locks.
fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, OutcomesError> {
    are_own(folder(path), DATABASE).map_err(|error| OutcomesError::Unopened(error.to_string()))?;
    let flags = flags | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags_and_vfs(path, flags, OF_ONE_PROCESS)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(SCHEMA)?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", FORM)?;
    transaction.commit()
}

/// Whether SQLite finds the database at fault. Cost: reads all of it.
pub fn is_damaged(connection: &Connection) -> bool {
    let said = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    match said.map_err(OutcomesError::from) {
        Ok(said) => said != "ok",
        Err(error) => matches!(error, OutcomesError::Malformed(_)),
    }
}

/// Puts the database at `path` under another name, where it replaces what was put there before. Nobody may have it
/// open to write.
pub fn move_aside(path: &Path, what: &str) -> Result<(), OutcomesError> {
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let fault =
        |error: std::io::Error| OutcomesError::Folder { path: path.to_owned(), message: error.to_string() };
    let aside = with(".damaged");
    tracing::warn!(
        "the file of outcomes is damaged ({what}): it is now '{}', and outcomes begin from nothing",
        aside.display()
    );
    // The log goes with its database, or it would be taken for the new one's.
    for (from, to) in [("-wal", ".damaged-wal"), ("-shm", ".damaged-shm"), ("", ".damaged")] {
        let moved = match std::fs::rename(with(from), with(to)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                match std::fs::remove_file(with(to)) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                    removed => removed,
                }
            }
            moved => moved,
        };
        moved.map_err(fault)?;
    }
    Ok(())
}

/// The number of an experiment, which it is given if it has none.
pub fn experiment(connection: &Connection, model: &str, name: &str) -> rusqlite::Result<i64> {
    let sql = "INSERT INTO experiments (model, name) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
    connection.prepare_cached(sql)?.execute((model, name))?;
    let sql = "SELECT id FROM experiments WHERE model = ?1 AND name = ?2";
    connection.prepare_cached(sql)?.query_row((model, name), |row| row.get(0))
}

/// Notes an assignment, unless the request has one.
pub fn assign(connection: &Connection, assignment: &Assignment, experiment: i64) -> rusqlite::Result<()> {
    let Assignment { model, request_id, version, unit, .. } = assignment;
    let sql = "INSERT INTO requests (heard_ms, model, request_id, experiment, version, unit)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)
               ON CONFLICT (model, request_id) DO UPDATE
               SET experiment = excluded.experiment, version = excluded.version, unit = excluded.unit
               WHERE experiment IS NULL";
    let (version, unit) = (version.cast_signed(), unit.map(u64::cast_signed));
    let row = (now_us() / 1000, model, request_id, experiment, version, unit);
    connection.prepare_cached(sql)?.execute(row).map(drop)
}

/// Notes an outcome, unless the request has one. `told_us` orders outcomes by their arrival.
pub fn tell(
    connection: &Connection,
    model: &str,
    request_id: &str,
    outcome: &Outcome,
    told_us: i64,
) -> rusqlite::Result<Taken> {
    let (number, label) = match outcome {
        Outcome::Number(number) => (Some(*number), None),
        Outcome::Label(label) => (None, Some(label.as_str())),
    };
    let sql = "INSERT INTO requests (heard_ms, model, request_id, told_us, number, label)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)
               ON CONFLICT (model, request_id) DO UPDATE
               SET told_us = excluded.told_us, number = excluded.number, label = excluded.label
               WHERE told_us IS NULL";
    let row = (now_us() / 1000, model, request_id, told_us, number, label);
    let already = connection.prepare_cached(sql)?.execute(row)? == 0;
    let sql = "SELECT experiment IS NOT NULL, number IS NOT ?3 OR label IS NOT ?4
               FROM requests WHERE model = ?1 AND request_id = ?2";
    connection.prepare_cached(sql)?.query_row((model, request_id, number, label), |row| {
        Ok(Taken { already, conflicting: row.get(1)?, joined: row.get(0)? })
    })
}

/// Forgets requests that are too old or too many, the oldest first, [`FORGET_STEP`] at the most. Returns how many.
pub fn forget(connection: &Connection, config: &OutcomesConfig, now_ms: i64) -> rusqlite::Result<usize> {
    let Some(((first, heard_ms), (last, _))) = bounds(connection)? else { return Ok(0) };
    let keep = i64::try_from(config.keep.as_millis()).unwrap_or(i64::MAX);
    let too_old_ms = now_ms.saturating_sub(keep);
    // Ids have gaps only where a clock went back; then a few are forgotten early.
    let too_many = (last + 1).saturating_sub_unsigned(config.requests_max);
    if heard_ms >= too_old_ms && first >= too_many {
        return Ok(0);
    }
    let sql = "DELETE FROM requests WHERE id < ?1 AND (heard_ms < ?2 OR id < ?3)";
    connection.prepare_cached(sql)?.execute((first + FORGET_STEP, too_old_ms, too_many))
}

/// Id and time of the oldest and the newest request.
#[expect(clippy::type_complexity, reason = "two of the same, said once")]
fn bounds(connection: &Connection) -> rusqlite::Result<Option<((i64, i64), (i64, i64))>> {
    let end = |direction: &str| {
        let sql = format!("SELECT id, heard_ms FROM requests ORDER BY id {direction} LIMIT 1");
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.next().transpose()
    };
    Ok(end("ASC")?.zip(end("DESC")?))
}

/// Microseconds since 1970; 0 for a clock that stands before.
pub fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_micros().try_into().unwrap_or(i64::MAX)
}
