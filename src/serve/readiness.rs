//! Whether the server as a whole takes requests.

use tokio::sync::watch;

/// The server's phases, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Models are being loaded for the first time.
    Starting,
    /// Every model has been tried: each is ready or has a reason why not.
    Ready,
    /// The server is about to end; what was accepted is finished.
    Draining,
}

/// Holds the phase and tells of its changes.
#[derive(Debug)]
pub struct Readiness(watch::Sender<Phase>);

impl Default for Readiness {
    fn default() -> Self {
        Self(watch::Sender::new(Phase::Starting))
    }
}

impl Readiness {
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Why the server is not ready, if it is not.
    pub fn reason(&self) -> Option<&'static str> {
        match self.phase() {
            Phase::Starting => Some("models are still being loaded"),
            Phase::Ready => None,
            Phase::Draining => Some("the server is draining"),
        }
    }

    /// Enters a phase. The server never goes back from draining.
    pub fn enter(&self, phase: Phase) {
        self.0.send_if_modified(|current| {
            let changes = *current != phase && *current != Phase::Draining;
            if changes {
                *current = phase;
            }
            changes
        });
    }

    pub fn watch(&self) -> watch::Receiver<Phase> {
        self.0.subscribe()
    }
}
