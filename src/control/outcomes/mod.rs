//! What experiments learn: which version answered a request, and how that answer turned out.
//!
//! A request's version comes from the server as it answers; its outcome from a client, before or after, minutes or
//! days later, in any order. Both meet in one row, found by model and request id.
//!
//! Always: the first assignment and the first outcome of a request stand, however often they are repeated; telling of
//! an assignment never waits; nothing that happens to this file stops the server. A power cut may take the last
//! second with it, the end of a process takes nothing that was acknowledged.
//! Not here: what follows from a tally. No other file knows this database's SQL.

mod file;
mod tally;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

pub use tally::{ArmTally, Numbers};

use super::store::make_folder;
use crate::batch::Urgency;
use writer::{Message, Writer};

/// Assignments and outcomes that wait for the thread that writes; above, assignments are dropped and counted.
pub const WAITING_MAX: usize = 65_536;

/// Bytes of a request id at the most.
pub const REQUEST_ID_BYTES_MAX: usize = 256;

/// Bytes of a label at the most.
pub const LABEL_BYTES_MAX: usize = 256;

/// The largest number by its magnitude: 20 million squares of it still have a sum.
pub const NUMBER_MAX: f64 = 1e100;

/// How much is kept, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutcomesConfig {
    /// Requests that were first heard of longer ago are forgotten. 30 days by default: outcomes such as returned goods
    /// take weeks. Raising it costs disk, about 200 bytes for each request.
    pub keep: Duration,
    /// Above this many requests the oldest are forgotten. 20 million by default, about 4 GB.
    pub requests_max: u64,
}

impl Default for OutcomesConfig {
    fn default() -> Self {
        Self { keep: Duration::from_hours(30 * 24), requests_max: 20_000_000 }
    }
}

/// Which version answered a request, and in which experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    pub model: String,
    pub request_id: String,
    pub experiment: String,
    pub version: u64,
    /// Who was assigned, as a hash of the sticky key; `None` where each request was assigned by itself.
    pub unit: Option<u64>,
}

/// How an answer turned out.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Finite, at most [`NUMBER_MAX`] by its magnitude.
    Number(f64),
    /// At most [`LABEL_BYTES_MAX`] bytes.
    Label(String),
}

/// What became of an outcome that a client told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// The request had an outcome; that one stands.
    pub already: bool,
    /// It had another one than is told now.
    pub conflicting: bool,
    /// The request is known to have been part of an experiment; if not, that may still be told.
    pub joined: bool,
}

/// Why an outcome was not taken, or a tally not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutcomesError {
    #[error("the outcome is no finite number of magnitude {NUMBER_MAX:e} or less")]
    Number,
    #[error("the label has {0} bytes, and at most {LABEL_BYTES_MAX} are kept")]
    Label(usize),
    #[error("the request id has {0} bytes: from 1 to {REQUEST_ID_BYTES_MAX} are kept")]
    RequestId(usize),
    #[error("no room is left where the outcomes are kept: free some space and try again")]
    Full,
    #[error("the file of outcomes is malformed: {0}")]
    Malformed(String),
    #[error("the folder of outcomes '{}': {message}", path.display())]
    Folder { path: PathBuf, message: String },
    /// Names no path: who tells an outcome is told this.
    #[error("the file of outcomes cannot be opened: {0}")]
    Unopened(String),
    #[error("the outcomes are closed")]
    Closed,
    #[error("the database of outcomes: {0}")]
    Database(String),
}

impl From<rusqlite::Error> for OutcomesError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Malformed(error.to_string()),
            // Its text ends in the path.
            Some(ErrorCode::CannotOpen) => Self::Unopened("its folder is gone, or cannot be used".to_owned()),
            _ => Self::Database(error.to_string()),
        }
    }
}

/// The outcomes of a state folder. Dropped, it writes what waits.
pub struct Outcomes {
    path: PathBuf,
    dropped: Arc<AtomicU64>,
    /// `None` once it is closed.
    messages: Option<Sender<Message>>,
    /// Messages on their way. The channel has no bounds, because one that has takes memory for all of them at once.
    waiting: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Outcomes {
    /// Opens the outcomes in the folder `dir`, or begins with none. A damaged file is moved aside with a warning.
    ///
    /// Errors: the folder cannot be written to.
    pub fn open(dir: &Path, config: OutcomesConfig) -> Result<Self, OutcomesError> {
        let fault = |message| OutcomesError::Folder { path: dir.to_owned(), message };
        make_folder(dir).map_err(|error| fault(error.to_string()))?;
        let path = dir.join(file::DATABASE);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = Writer::new(&path, config, dropped.clone())?;
        let (messages, arriving) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let arrived = Arc::clone(&waiting);
        let thread = std::thread::Builder::new()
            .name("weir-outcomes".to_owned())
            .spawn(move || {
                // Nobody who predicts waits for it.
                Urgency::Loading.take();
                writer.run(&arriving, &arrived);
            })
            .map_err(|error| fault(error.to_string()))?;
        Ok(Self { path, dropped, messages: Some(messages), waiting, thread: Some(thread) })
    }

    /// Notes who answered a request, within a fifth of a second. Never waits: what finds no place is dropped and
    /// counted, and so is a request id that is empty or too long.
    pub fn served(&self, assignment: Assignment) {
        let fits = request_id_fits(&assignment.request_id).is_ok();
        let room = self.waiting.load(Ordering::Relaxed) < WAITING_MAX;
        if !fits || !room || self.send(Message::Served(assignment)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes how the answer to a request turned out, and waits until that is written.
    ///
    /// Errors: the outcome or the id is out of bounds; the disk is full. Then nothing was noted.
    pub fn feedback(&self, model: &str, request_id: &str, outcome: Outcome) -> Result<Taken, OutcomesError> {
        request_id_fits(request_id)?;
        match &outcome {
            // Also false for NaN.
            Outcome::Number(number) if number.abs() <= NUMBER_MAX => {}
            Outcome::Number(_) => return Err(OutcomesError::Number),
            Outcome::Label(label) if label.len() > LABEL_BYTES_MAX => {
                return Err(OutcomesError::Label(label.len()));
            }
            Outcome::Label(_) => {}
        }
        let (answer, answered) = sync_channel(1);
        let (model, request_id) = (model.to_owned(), request_id.to_owned());
        let told = Message::Told(Box::new(writer::Told { model, request_id, outcome, answer }));
        self.send(told)?;
        answered.recv().map_err(|_| OutcomesError::Closed)?
    }

    /// What each version of an experiment came to, by version.
    ///
    /// Where assignments have a unit, the first outcome of the unit with that version counts and later ones do not:
    /// one who answers often would otherwise count often, and outcomes would not be independent.
    /// Errors: the file cannot be read; a damaged one is then moved aside, and the next tally begins from nothing.
    /// Cost: reads one index entry for each request of the experiment.
    pub fn tally(&self, model: &str, experiment: &str) -> Result<Vec<ArmTally>, OutcomesError> {
        let tally = tally::tally(&self.path, model, experiment);
        if let Err(OutcomesError::Malformed(_)) = &tally {
            // Where nobody takes it any more, nothing is left to be mended.
            let _ = self.send(Message::Suspect);
        }
        tally
    }

    /// Waits until all that was told before is written, or counted as dropped.
    pub fn flush(&self) -> Result<(), OutcomesError> {
        let (answer, answered) = sync_channel(1);
        self.send(Message::Flush(answer))?;
        answered.recv().map_err(|_| OutcomesError::Closed)
    }

    /// Assignments that were not kept, since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn send(&self, message: Message) -> Result<(), OutcomesError> {
        let messages = self.messages.as_ref().expect("the channel is open until the outcomes are dropped");
        self.waiting.fetch_add(1, Ordering::Relaxed);
        messages.send(message).map_err(|_| OutcomesError::Closed)
    }
}

impl Drop for Outcomes {
    fn drop(&mut self) {
        self.messages = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes outcomes ended in a panic");
        }
    }
}

fn request_id_fits(request_id: &str) -> Result<(), OutcomesError> {
    match request_id.len() {
        1..=REQUEST_ID_BYTES_MAX => Ok(()),
        bytes => Err(OutcomesError::RequestId(bytes)),
    }
}
