//! Chooses how many instances of a model run on how many threads each, by trying: `weir tune`, as a library.
//!
//! Always: what is tried is the session that the server would call, loaded as the server loads it; threads times
//! instances are never more than the cores. Settings are tried in turns, so that a machine that grows slower in
//! between does so for all of them.
//! Not here: the command line, tables. Only the CPU: what a GPU takes at once its memory decides, not its cores.

mod candidates;
mod choice;
mod sweep;
mod trial;
mod write;

pub use candidates::{batch_sizes, settings};
pub use choice::{Batches, Choice, Reason, choose};
pub use sweep::{Measured, Sweep};
pub use trial::{Trials, in_force, version};
pub use write::{Written, write};

/// Why nothing was chosen or written.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    #[error("it cannot be loaded: {0}")]
    Unloadable(String),
    #[error("its config puts it on a GPU (instance_group); weir tune chooses for the CPU")]
    OnGpu,
    #[error("{0}")]
    Sizes(String),
    #[error("{0}")]
    Data(String),
    #[error(
        "a call of {rows} rows failed: {reason}; give it data that it takes: model_warmup in config.pbtxt, or --shape"
    )]
    Failed { rows: usize, reason: String },
    #[error("config.pbtxt cannot be written: {0}")]
    Unwritable(std::io::Error),
    #[error("config.pbtxt was written, and is not read as it was meant: {0}")]
    Misread(String),
}
