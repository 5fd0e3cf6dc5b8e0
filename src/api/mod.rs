//! The wire: gRPC and HTTP in front of one pipeline.
//!
//! Always: both protocols answer out of the same functions (`questions`, `convert`) and the same table of errors
//! (`status`). Only this floor knows tonic and hyper.

mod chunks;
pub mod control;
pub mod convert;
mod frames;
pub mod grpc;
pub mod http;
mod http2;
mod incoming;
mod landing;
mod limits;
mod listener;
mod questions;
mod status;
mod stream;
mod tls;
mod watch;
mod workers;

pub use convert::RequestLimits;
pub use limits::{BodyPace, HeadLimits, Times, WireLimits};
pub use listener::{Accepted, Connections, Drain, Port};
pub use questions::Gateway;
pub use tls::{Spoken, Tls, TlsError, TlsFiles};
pub use workers::{Workers, keep_a_thread};
