//! A model in a process of its own: tried there before anybody is served, and served from there where its graph could
//! harm the process that runs it.
//!
//! ```text
//! server                                      worker, one for each version
//!   Starting ── ToWorker, files ──▶ socket ──▶ control thread: scan, open
//!   Isolated ── inputs ─▶ region of a slot ──▶ slot thread: session call
//!            ◀─ outputs ─ the same region ◀──┘
//! ```
//!
//! Always: what the worker says is checked before it is believed; a worker that ends costs the calls it was running, and
//! is started again, later each time it ends without having answered; a worker ends when its server does.
//! Not here: which models are isolated.

mod calls;
mod child;
pub mod layout;
mod limits;
mod ordinary;
mod packets;
mod process;
mod region;
mod session;
mod starting;

pub use child::worker;
pub use ordinary::Ordinary;
pub use packets::Limits;
pub use session::Isolated;
pub use starting::{Again, Spec, Starting};
