//! The wire: gRPC and HTTP in front of one pipeline.
//!
//! Always: both protocols answer out of the same functions (`questions`, `convert`) and the same table of errors
//! (`status`). Only this floor knows tonic and hyper.

mod chunks;
pub mod control;
pub mod convert;
pub mod grpc;
pub mod http;
mod landing;
mod listener;
mod questions;
mod status;
mod workers;

pub use listener::{Accepted, Connections, Drain, Port};
pub use questions::{Gateway, WireLimits};
pub use workers::Workers;
