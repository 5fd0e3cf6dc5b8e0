//! Tells the control plane's threads to end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Set once; whoever pauses on it wakes up.
#[derive(Debug, Default)]
pub struct Stop {
    set: AtomicBool,
    lock: Mutex<()>,
    woken: Condvar,
}

impl Stop {
    pub fn set(&self) {
        self.set.store(true, Ordering::Release);
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.woken.notify_all();
    }

    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    /// Pauses, and tells whether it is time to end.
    pub fn wait(&self, pause: Duration) -> bool {
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let paused = self.woken.wait_timeout_while(guard, pause, |()| !self.is_set());
        drop(paused);
        self.is_set()
    }
}
