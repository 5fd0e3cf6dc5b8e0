//! Writes transactions, as many as wait with one sync of the disk, on a thread of its own.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::Connection;

use super::{Document, Held, StoreError, Transaction, reader};
use crate::control::record::{Broken, Entry, Flaw, Head, Record, Sealed};

/// Bytes of a record's text at the most: twice the longest route that there may be, and as much again.
pub const BODY_BYTES_MAX: usize = 2 << 20;

/// Bytes of a document at the most.
pub const DOCUMENT_BYTES_MAX: usize = 16 << 20;

/// Transactions that share one sync. Enough that the sync no longer counts; few enough that the first does not wait
/// long for the last.
const GROUP_MAX: usize = 256;

/// A transaction on its way, and where its answer goes.
struct Job {
    transaction: Transaction,
    answer: SyncSender<Result<Vec<Record>, StoreError>>,
}

/// The thread that writes. Dropped, it ends after what waits is written.
pub struct Writer {
    /// `None` once it is closed.
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Writes through `connection` as long as the files that it has open are `held`.
    pub fn start(connection: Connection, held: Held, dir: &Path) -> Result<Self, StoreError> {
        let (jobs, waiting) = sync_channel(GROUP_MAX);
        let thread = std::thread::Builder::new()
            .name("weir-store".to_owned())
            .spawn(move || run(&connection, held, &waiting))
            .map_err(|source| StoreError::Folder { path: dir.to_owned(), source })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Blocks until `transaction` is on the disk or has failed.
    pub fn commit(&self, transaction: Transaction) -> Result<Vec<Record>, StoreError> {
        let (answer, answered) = sync_channel(1);
        let jobs = self.jobs.as_ref().expect("the channel is open until the writer is dropped");
        jobs.send(Job { transaction, answer }).map_err(|_| StoreError::Closed)?;
        answered.recv().map_err(|_| StoreError::Closed)?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes the state ended in a panic");
        }
    }
}

fn run(connection: &Connection, mut held: Held, jobs: &Receiver<Job>) {
    let mut lost = false;
    while let Ok(first) = jobs.recv() {
        let (mut transactions, mut answers) = (vec![first.transaction], vec![first.answer]);
        for Job { transaction, answer } in jobs.try_iter().take(GROUP_MAX - 1) {
            transactions.push(transaction);
            answers.push(answer);
        }
        lost = is_lost(&mut held, lost);
        let results = match lost {
            true => transactions.iter().map(|_| Err(StoreError::Lost)).collect(),
            false => commit(connection, &transactions),
        };
        for (answer, result) in answers.iter().zip(results) {
            // A caller who is gone needs no answer.
            let _ = answer.send(result);
        }
    }
}

/// Whether what is written now would be gone after a restart; told once, since each change meets it anew.
fn is_lost(held: &mut Held, before: bool) -> bool {
    let checked = held.check();
    match &checked {
        Err(what) if !before => {
            tracing::error!(
                "changes are refused until the files of the state are back, or weir starts anew: {what}"
            );
        }
        Ok(()) if before => tracing::info!("the files of the state are back: changes are made again"),
        _ => {}
    }
    checked.is_err()
}

/// Makes `transactions` durable: all at once, or each alone where that fails. One answer for each, in order.
pub fn commit(connection: &Connection, transactions: &[Transaction]) -> Vec<Result<Vec<Record>, StoreError>> {
    let together = match transactions {
        [] | [_] => None,
        several => commit_together(connection, several),
    };
    together.unwrap_or_else(|| {
        transactions.iter().map(|transaction| commit_alone(connection, transaction)).collect()
    })
}

/// `None` if nothing was written because one of them, or the commit, took the rest down with it.
fn commit_together(
    connection: &Connection,
    transactions: &[Transaction],
) -> Option<Vec<Result<Vec<Record>, StoreError>>> {
    let write_all = || -> Result<Option<Vec<_>>, StoreError> {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        let mut answers = Vec::with_capacity(transactions.len());
        for transaction in transactions {
            connection.execute_batch("SAVEPOINT one")?;
            let answer = write(connection, transaction);
            // Some faults, a full disk among them, make SQLite take back the whole group.
            if connection.is_autocommit() {
                return Ok(None);
            }
            if answer.is_err() {
                connection.execute_batch("ROLLBACK TO one")?;
            }
            connection.execute_batch("RELEASE one")?;
            answers.push(answer);
        }
        connection.execute_batch("COMMIT")?;
        Ok(Some(answers))
    };
    // Each is tried again alone and then has an error of its own: this one may be another's.
    let answers = write_all().unwrap_or(None);
    take_back(connection);
    answers
}

fn commit_alone(connection: &Connection, transaction: &Transaction) -> Result<Vec<Record>, StoreError> {
    let write = || {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        let records = write(connection, transaction)?;
        connection.execute_batch("COMMIT")?;
        Ok(records)
    };
    let records = write();
    take_back(connection);
    records
}

/// Takes back what is not committed, so that the next transaction finds the connection free.
fn take_back(connection: &Connection) {
    if !connection.is_autocommit()
        && let Err(error) = connection.execute_batch("ROLLBACK")
    {
        tracing::error!("a change of the state could not be taken back: {error}");
    }
}

fn write(connection: &Connection, transaction: &Transaction) -> Result<Vec<Record>, StoreError> {
    for document in &transaction.documents {
        put(connection, document)?;
    }
    if transaction.entries.is_empty() {
        return Ok(Vec::new());
    }
    append(connection, &transaction.entries)
}

fn put(connection: &Connection, document: &Document) -> Result<(), StoreError> {
    let Document { kind, key, body } = document;
    match body {
        Some(body) => {
            fits("a document", body.len(), DOCUMENT_BYTES_MAX)?;
            let sql = "INSERT INTO documents (kind, key, body) VALUES (?1, ?2, ?3)
                       ON CONFLICT (kind, key) DO UPDATE SET body = excluded.body";
            connection.prepare_cached(sql)?.execute((kind, key, body))?;
        }
        None => {
            let sql = "DELETE FROM documents WHERE kind = ?1 AND key = ?2";
            connection.prepare_cached(sql)?.execute((kind, key))?;
        }
    }
    Ok(())
}

fn append(connection: &Connection, entries: &[Entry]) -> Result<Vec<Record>, StoreError> {
    let missing = || StoreError::Broken(Broken { seq: 0, flaw: Flaw::HeadMissing });
    let mut head = reader::head(connection)?.ok_or_else(missing)?;
    let mut records = Vec::with_capacity(entries.len());
    for entry in entries {
        let Sealed { record, body } = head.append(entry.clone(), now_ms()).map_err(StoreError::Entry)?;
        fits("a record", body.len(), BODY_BYTES_MAX)?;
        let sql = "INSERT INTO audit (seq, body, hash) VALUES (?1, ?2, ?3)";
        connection.prepare_cached(sql)?.execute((record.seq.cast_signed(), body, &record.hash))?;
        head = Head { seq: record.seq, hash: record.hash.clone() };
        records.push(record);
    }
    let sql = "UPDATE head SET seq = ?1, hash = ?2 WHERE id = 1";
    connection.prepare_cached(sql)?.execute((head.seq.cast_signed(), head.hash))?;
    Ok(records)
}

fn fits(what: &'static str, bytes: usize, max: usize) -> Result<(), StoreError> {
    if bytes <= max { Ok(()) } else { Err(StoreError::TooLarge { what, bytes, max }) }
}

/// Milliseconds since 1970; 0 for a clock that stands before.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(u64::MAX)
}
