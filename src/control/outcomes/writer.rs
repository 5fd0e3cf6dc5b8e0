//! Writes assignments and outcomes in the order in which they arrive, many with one commit.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::{Assignment, Outcome, OutcomesConfig, OutcomesError, Taken, file};
use crate::control::store::Held;

/// Assignments wait for company as long as this: a commit costs more than a row.
const COMMIT_EVERY: Duration = Duration::from_millis(200);

/// What one commit takes at the most.
pub const COMMIT_MESSAGES: usize = 5000;

/// Old requests are looked for this often when nothing is written.
const IDLE: Duration = Duration::from_secs(10);

/// What the thread is told.
pub enum Message {
    Served(Assignment),
    Told(Box<Told>),
    /// Someone found the file damaged.
    Suspect,
    Flush(SyncSender<()>),
}

/// An outcome on its way, and where its answer goes.
pub struct Told {
    pub model: String,
    pub request_id: String,
    pub outcome: Outcome,
    pub answer: SyncSender<Result<Taken, OutcomesError>>,
}

impl Message {
    /// Whether somebody waits for it.
    fn is_awaited(&self) -> bool {
        !matches!(self, Self::Served(_))
    }
}

/// The file, as it was opened.
struct Open {
    connection: Connection,
    held: Held,
}

impl Open {
    fn new(path: &Path) -> Result<Self, OutcomesError> {
        Ok(Self { connection: file::open(path)?, held: file::hold(path)? })
    }
}

/// What the thread owns.
pub struct Writer {
    path: PathBuf,
    config: OutcomesConfig,
    dropped: Arc<AtomicU64>,
    /// `None` after the file could not be opened; each commit tries again.
    open: Option<Open>,
    /// Numbers of experiments by model and name, as the file has them.
    experiments: HashMap<(String, String), i64>,
    /// When the last outcome was told. Each is later than the one before, also within a microsecond.
    told_us: i64,
    /// Whether the last commit failed, so that a fault is logged once.
    failing: bool,
}

impl Writer {
    pub fn new(path: &Path, config: OutcomesConfig, dropped: Arc<AtomicU64>) -> Result<Self, OutcomesError> {
        Ok(Self {
            path: path.to_owned(),
            config,
            dropped,
            open: Some(Open::new(path)?),
            experiments: HashMap::new(),
            told_us: 0,
            failing: false,
        })
    }

    /// Writes what arrives until everyone who could tell more is gone; what has arrived is taken off `waiting`.
    pub fn run(mut self, messages: &Receiver<Message>, waiting: &AtomicUsize) {
        loop {
            match messages.recv_timeout(IDLE) {
                Ok(first) => {
                    let batch = gather(messages, first);
                    waiting.fetch_sub(batch.len(), Ordering::Relaxed);
                    self.take(batch);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.forget();
        }
    }

    /// Writes a batch, and tells all who wait what came of it.
    fn take(&mut self, batch: Vec<Message>) {
        let mut written = self.write(&batch);
        if let Err(OutcomesError::Malformed(what)) = &written {
            let what = what.clone();
            self.replace(&what);
            written = self.write(&batch);
        }
        if let Err(error) = &written {
            let assignments = batch.iter().filter(|message| matches!(message, Message::Served(_))).count();
            self.dropped.fetch_add(assignments as u64, Ordering::Relaxed);
            if !self.failing {
                tracing::warn!("assignments and outcomes are lost until this is mended: {error}");
            }
        }
        self.failing = written.is_err();
        if batch.iter().any(|message| matches!(message, Message::Suspect)) {
            self.inspect();
        }
        let mut taken = written.map(Vec::into_iter);
        for message in batch {
            // Whoever is gone needs no answer.
            match message {
                Message::Told(told) => {
                    let next =
                        |taken: &mut std::vec::IntoIter<Taken>| taken.next().ok_or(OutcomesError::Closed);
                    let _ = told.answer.send(taken.as_mut().map_err(|error| error.clone()).and_then(next));
                }
                Message::Flush(answer) => drop(answer.send(())),
                Message::Served(_) | Message::Suspect => {}
            }
        }
    }

    /// Writes a batch with one commit, all or nothing. Returns an answer for each outcome in it.
    fn write(&mut self, batch: &[Message]) -> Result<Vec<Taken>, OutcomesError> {
        let mut open = match self.open.take() {
            Some(open) => self.held(open)?,
            None => Open::new(&self.path)?,
        };
        let written = self.write_with(&mut open.connection, batch);
        if written.is_err() {
            // Numbers that were given to experiments were taken back.
            self.experiments.clear();
        }
        self.open = Some(open);
        written
    }

    /// The file that has the name now, and is begun where none has.
    fn held(&mut self, mut open: Open) -> Result<Open, OutcomesError> {
        let Err(what) = open.held.check() else { return Ok(open) };
        tracing::warn!("the file of outcomes is not the one that was opened, and is opened anew: {what}");
        self.experiments.clear();
        // Closed first: SQLite takes its log away with it.
        drop(open);
        Open::new(&self.path)
    }

    fn write_with(
        &mut self,
        connection: &mut Connection,
        batch: &[Message],
    ) -> Result<Vec<Taken>, OutcomesError> {
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let mut taken = Vec::new();
        for message in batch {
            match message {
                Message::Served(assignment) => {
                    let experiment = self.experiment(&transaction, assignment)?;
                    file::assign(&transaction, assignment, experiment)?;
                }
                Message::Told(told) => {
                    self.told_us = file::now_us().max(self.told_us + 1);
                    let Told { model, request_id, outcome, .. } = &**told;
                    taken.push(file::tell(&transaction, model, request_id, outcome, self.told_us)?);
                }
                Message::Suspect | Message::Flush(_) => {}
            }
        }
        transaction.commit()?;
        Ok(taken)
    }

    fn experiment(&mut self, connection: &Connection, assignment: &Assignment) -> rusqlite::Result<i64> {
        let Assignment { model, experiment: name, .. } = assignment;
        let key = (model.clone(), name.clone());
        if let Some(number) = self.experiments.get(&key) {
            return Ok(*number);
        }
        let number = file::experiment(connection, model, name)?;
        self.experiments.insert(key, number);
        Ok(number)
    }

    /// Begins with a new file if this one is damaged.
    fn inspect(&mut self) {
        if self.open.as_ref().is_none_or(|open| file::is_damaged(&open.connection)) {
            self.replace("it could not be read");
        }
    }

    fn replace(&mut self, what: &str) {
        // Closed first, or it would write to the file under its new name.
        self.open = None;
        self.experiments.clear();
        if let Err(error) = file::move_aside(&self.path, what) {
            tracing::error!("the damaged file of outcomes could not be moved aside: {error}");
        }
    }

    fn forget(&mut self) {
        let Some(open) = &self.open else { return };
        if let Err(error) = file::forget(&open.connection, &self.config, file::now_us() / 1000) {
            tracing::warn!("old outcomes could not be forgotten: {error}");
        }
    }
}

/// `first` and what comes soon after; no more than is there once somebody waits for an answer.
fn gather(messages: &Receiver<Message>, first: Message) -> Vec<Message> {
    let deadline = Instant::now() + COMMIT_EVERY;
    let mut awaited = first.is_awaited();
    let mut batch = vec![first];
    while batch.len() < COMMIT_MESSAGES {
        let next = match awaited {
            true => messages.try_recv().ok(),
            false => messages.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok(),
        };
        let Some(next) = next else { break };
        awaited |= next.is_awaited();
        batch.push(next);
    }
    batch
}
