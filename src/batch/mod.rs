//! Batching: requests wait in a queue, run together, and get their own rows back.
//!
//! Always: a request leaves the queue once — in a batch, expired, cancelled or refused; requests of different
//! shapes never share a batch, but for texts of about one length where the config says how to pad them; with no delay
//! configured nobody waits for company.

mod cost;
mod merge;
mod pad;
mod queue;
mod scheduler;
mod urgency;
mod watch;

pub use cost::{Costs, Size};
pub use merge::{ShapeKey, merge, split};
pub use pad::{Element, LENGTH_AXIS, Padded, PaddedInput, Padding, Text, repeated};
pub use queue::{
    Batching, BatchingPolicy, DropReason, Dropped, LevelPolicy, Queue, Refusal, Taken, TimeoutAction, Waiting,
};
pub use scheduler::{Answer, Job, Queued, Scheduler, SubmitError};
pub use urgency::Urgency;
pub use watch::Presence;
