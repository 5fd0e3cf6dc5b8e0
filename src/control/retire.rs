//! Lets go of versions that were replaced or unloaded.
//!
//! Always (INV-02): a version is closed only when no request can reach it any more: nobody but us holds it. Then
//! its threads end, its memory goes back to the system (INV-07), and its metrics end.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::live::unloaded;
use crate::backend::{STACK_BYTES, release_memory};
use crate::batch::Urgency;
use crate::event::EventSink;
use crate::model::{Servable, VersionState};
use crate::serve::Table;

/// How often versions that are going are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The thread that waits for versions to be let go of.
pub struct Reaper {
    going: Mutex<Option<Sender<Arc<Servable>>>>,
    thread: Mutex<Option<JoinHandle<bool>>>,
}

impl Reaper {
    pub fn start(table: Arc<Table>, sink: Arc<dyn EventSink>) -> Self {
        let (going, arrivals) = channel::<Arc<Servable>>();
        let work = move || {
            Urgency::Loading.take();
            let mut waiting: Vec<Arc<Servable>> = Vec::new();
            loop {
                let next = match waiting.is_empty() {
                    true => arrivals.recv().map_err(|_| RecvTimeoutError::Disconnected),
                    false => arrivals.recv_timeout(LOOK),
                };
                match next {
                    Ok(servable) => waiting.push(servable),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return waiting.is_empty(),
                }
                waiting = waiting.into_iter().filter_map(|servable| bury(servable, &table, &*sink)).collect();
            }
        };
        let thread =
            std::thread::Builder::new().name("retire".to_owned()).stack_size(STACK_BYTES).spawn(work);
        if let Err(error) = &thread {
            tracing::error!("versions that are replaced stay in memory: {error}");
        }
        Self { going: Mutex::new(Some(going)), thread: Mutex::new(thread.ok()) }
    }

    /// Takes over a version that no table leads to any more.
    pub fn retire(&self, servable: Arc<Servable>) {
        if let Some(going) = &*self.going.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = going.send(servable);
        }
    }

    /// Takes no more, and tells whether everything that it took is gone. Blocks while a version is being dropped.
    pub fn stop(&self) -> bool {
        self.going.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        thread.is_none_or(|thread| thread.join().unwrap_or(false))
    }
}

/// Drops a version if nobody holds it; gives it back otherwise.
fn bury(servable: Arc<Servable>, table: &Table, sink: &dyn EventSink) -> Option<Arc<Servable>> {
    // Who holds it may hand it on, but nobody can come to hold it anew: no table leads to it.
    let servable = match Arc::try_unwrap(servable) {
        Err(held) => return Some(held),
        Ok(servable) => servable,
    };
    let id = servable.id().clone();
    servable.close();
    servable.join();
    drop(servable);
    sink.retired(&id);
    release_memory();
    table.publish(|snapshot| {
        if !snapshot.models.contains_key(&id.model) {
            return;
        }
        let entry = snapshot.entry(&id.model);
        if matches!(entry.versions.get(&id.version), Some(VersionState::Unloading)) {
            entry.versions.insert(id.version, unloaded());
        }
    });
    tracing::debug!(model = %id, "dropped");
    None
}
