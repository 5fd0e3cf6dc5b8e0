//! Decides what is live and brings it about.
//!
//! Always: a version is published only when it is ready to answer; a version that cannot be is published with
//! its reason. Today what is live is what the repository held at the start.

pub mod evidence;
pub mod rollout;
#[cfg(test)]
mod killed;
pub mod outcomes;
pub mod record;
mod startup;
pub mod store;

pub use startup::{Startup, Summary};
