//! Models on disk and in memory: what a repository holds, what a config asks for, how a version becomes ready.
//!
//! Always: a [`Servable`] was loaded, checked against its config and warmed before anyone can see it.
//! Not here: who gets which version, and when versions come and go.

pub mod config;
mod load;
mod padding;
pub mod prove;
pub mod repository;
mod servable;
pub mod warmup;

pub use load::{LoadRequest, Loaded, load, urgency};
pub use servable::{Servable, Submitted, VersionState};
