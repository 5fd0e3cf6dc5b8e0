//! Batching: requests wait in a queue, run together, and get their own rows back.
//!
//! Always: a request leaves the queue once — in a batch, expired, cancelled or refused; requests of different
//! shapes never share a batch; with no delay configured nobody waits for company.

mod cost;
mod merge;
mod queue;
mod scheduler;
mod urgency;

pub use cost::{Costs, Size};
pub use merge::{ShapeKey, merge, split};
pub use queue::{
    Batching, BatchingPolicy, DropReason, Dropped, LevelPolicy, Queue, Refusal, Taken, TimeoutAction, Waiting,
};
pub use scheduler::{Answer, Job, Queued, Scheduler, SubmitError};
pub use urgency::Urgency;
