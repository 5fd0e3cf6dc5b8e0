//! How a session call that runs is asked to end.

use std::any::Any;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

const RUNNING: u8 = 0;
const ASKED: u8 = 1;
const FORCED: u8 = 2;

/// What ends a call from another thread.
pub trait Interrupt: Any + Send + Sync {
    fn interrupt(&self);
}

/// Ends one session call. May serve one call after the other, of sessions of one kind, until it was asked.
#[derive(Default)]
pub struct Stop {
    asked: AtomicU8,
    /// What the session that is called needs to be interrupted; made by the first call.
    handle: OnceLock<Box<dyn Interrupt>>,
    /// When the call began in earnest, if it had to wait for its turn.
    begun: Mutex<Option<Instant>>,
}

impl Stop {
    /// Asks the call to end when it can: ONNX Runtime looks between two operators.
    pub fn ask(&self) {
        self.asked.fetch_max(ASKED, Ordering::SeqCst);
        if let Some(handle) = self.handle.get() {
            handle.interrupt();
        }
    }

    /// Ends the call by whatever it takes: a worker process is killed. A call in this process cannot be forced.
    pub fn force(&self) {
        self.asked.fetch_max(FORCED, Ordering::SeqCst);
    }

    /// The call begins only now: it had to wait for its turn.
    pub fn begin(&self) {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// When the call began, if it had to wait for its turn. A stop that tells is no other call's.
    pub fn begun(&self) -> Option<Instant> {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the call was asked or forced to end.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst) != RUNNING
    }

    pub fn is_forced(&self) -> bool {
        self.asked.load(Ordering::SeqCst) == FORCED
    }

    /// The session's own means of interruption. `None`: another session's stand there, so this one has none.
    pub fn handle<T: Interrupt>(&self, make: impl FnOnce() -> T) -> Option<&T> {
        let handle: &dyn Any = &**self.handle.get_or_init(|| Box::new(make()));
        handle.downcast_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    struct Flag(Arc<AtomicBool>);

    impl Interrupt for Flag {
        fn interrupt(&self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn what_is_asked_is_interrupted_and_stays_asked() {
        let (stop, hit) = (Stop::default(), Arc::new(AtomicBool::new(false)));
        assert!(stop.handle(|| Flag(Arc::clone(&hit))).is_some());
        assert!(!stop.is_asked());
        stop.ask();
        assert!(hit.load(Ordering::SeqCst) && stop.is_asked() && !stop.is_forced());
        stop.force();
        stop.ask();
        assert!(stop.is_forced());
    }
}
