//! The control API on the wire: the same calls over HTTP, as JSON, and over gRPC.
//!
//! Always: a call runs on a thread that may wait, and at most `CALLS_MAX` run at once; who asks is told by
//! themselves and by the accepted socket. Not here: what a call does. `control::Control` has a method for each.

mod actor;
mod audit;
mod grpc;
mod http;
mod measures;
mod path;
mod port;
mod read;
pub(super) mod repository;

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::questions::Gateway;
use crate::control::Control;
use crate::error::{ErrorKind, ServeError};

pub use port::serve;

pub(super) use actor::Peer;
pub(super) use grpc::{ControlService, who};
pub(super) use http::{answer, change_repository};
pub(super) use path::is_below;

/// Calls that run at once, those that wait for a load included. Each has a thread; more than these at a time is no
/// operator's hand.
const CALLS_MAX: usize = 64;

/// Bytes of a body or message of the control API: the longest route is less than half of it.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Where the control API answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlPort {
    /// On the HTTP port and on the gRPC port, beside the inference protocol.
    Main,
    /// On a port of its own ([`serve`]), and there alone.
    Own,
}

/// The control plane as the wire sees it.
pub struct ControlApi {
    control: Arc<Control>,
    port: ControlPort,
    places: Arc<Semaphore>,
}

impl ControlApi {
    pub fn new(control: Arc<Control>, port: ControlPort) -> Self {
        Self { control, port, places: Arc::new(Semaphore::new(CALLS_MAX)) }
    }

    /// Where it answers.
    pub fn port(&self) -> ControlPort {
        self.port
    }

    /// Whether clients of the inference protocol may load and unload models.
    pub fn explicit(&self) -> bool {
        self.control.explicit()
    }
}

/// Makes a call on a thread that may wait for disks and loads. It runs to its end even if nobody waits for it.
///
/// Errors: the call's own, or `Overloaded` if too many are under way.
async fn call<A: Send + 'static>(
    gateway: &Arc<Gateway>,
    work: impl FnOnce(&Gateway, &Control) -> Result<A, ServeError> + Send + 'static,
) -> Result<A, ServeError> {
    let place = Arc::clone(&gateway.control.places).try_acquire_owned().map_err(|_| {
        let message = format!("{CALLS_MAX} control calls are under way; try again when some have ended");
        ServeError::new(ErrorKind::Overloaded, message)
    })?;
    let gateway = Arc::clone(gateway);
    let answered = tokio::task::spawn_blocking(move || {
        let answer = work(&gateway, &gateway.control.control);
        drop(place);
        answer
    });
    answered.await.unwrap_or_else(|_| Err(ServeError::internal("the call ended in a panic")))
}
