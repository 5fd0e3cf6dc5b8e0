//! A worker that has a session open: its slots, and its end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use super::calls::Slot;
use super::limits::{described, peak_bytes};
use super::packets::{Limits, ToWorker, send};
use super::region::Region;

pub struct Process {
    pid: Pid,
    socket: OwnedFd,
    /// Messages of several packets must not mix.
    sending: Mutex<()>,
    /// Set once it is known to have ended, under the lock: afterwards its number may be another's.
    reaped: Mutex<bool>,
    dead: AtomicBool,
    how: OnceLock<String>,
    limits: Limits,
    idle: Mutex<Vec<Slot>>,
    slots: AtomicUsize,
    /// Calls that run; once it has ended, those that ran then.
    calls: AtomicUsize,
    /// That there was no memory for a call was told.
    refused: AtomicBool,
}

impl Process {
    pub fn new(child: &Child, socket: OwnedFd, limits: Limits) -> Self {
        Self {
            pid: Pid::from_child(child),
            socket,
            sending: Mutex::default(),
            reaped: Mutex::default(),
            dead: AtomicBool::new(false),
            how: OnceLock::new(),
            limits,
            idle: Mutex::default(),
            slots: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            refused: AtomicBool::new(false),
        }
    }

    /// Tells it something. Errors are those of a process that has ended, which is found out elsewhere.
    pub fn tell(&self, message: &ToWorker, file: Option<&OwnedFd>) {
        let _sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = send(self.socket.as_fd(), message, file.map(AsFd::as_fd));
    }

    /// A slot that no other call uses. Errors: there is no memory for one more.
    pub fn slot(&self) -> io::Result<Slot> {
        if let Some(slot) = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(slot);
        }
        let number = self.slots.fetch_add(1, Ordering::Relaxed);
        let (region, file) = Region::create(Slot::BYTES)?;
        self.tell(&ToWorker::Slot { number }, Some(&file));
        Ok(Slot::new(number, region))
    }

    /// A call begins.
    pub fn enter(&self) {
        self.calls.fetch_add(1, Ordering::AcqRel);
    }

    /// Calls that ran when it ended, if it has.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Acquire)
    }

    /// What clients are told of what the system refuses a call. The log has all of it, the first time.
    pub fn refused(&self, error: &io::Error) -> io::ErrorKind {
        if !self.refused.swap(true, Ordering::Relaxed) {
            tracing::warn!("the system has no memory for a call of a model's process: {error}");
        }
        error.kind()
    }

    /// Takes a slot back whose call has ended while the process has not.
    pub fn give_back(&self, slot: Slot) {
        self.calls.fetch_sub(1, Ordering::AcqRel);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<&str> {
        let dead = self.dead.load(Ordering::Acquire);
        dead.then(|| self.how.get().map_or("it ended", String::as_str))
    }

    /// The most memory that it has had in use; 0 where the system does not tell.
    pub fn peak_bytes(&self) -> u64 {
        peak_bytes(&self.pid.as_raw_nonzero().to_string())
    }

    /// Ends it, for that reason.
    pub fn kill(&self, why: &str) {
        let reaped = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        if !*reaped {
            let _ = self.how.set(why.to_owned());
            let _ = kill_process(self.pid, Signal::KILL);
        }
    }

    /// Blocks until it has ended.
    pub fn wait(&self, mut child: Child) {
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(self.pid), ended) {}
        let mut reaped = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        *reaped = true;
        let status = child.wait();
        if let (Ok(status), None) = (status, self.how.get()) {
            let _ = self.how.set(described(status, self.limits));
        }
        self.dead.store(true, Ordering::Release);
    }
}
