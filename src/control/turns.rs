//! One at a time, per thing.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};

/// Grants turns: whoever asks for a thing that somebody has waits for it.
#[derive(Debug)]
pub struct Turns<K> {
    taken: Mutex<BTreeSet<K>>,
    freed: Condvar,
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self { taken: Mutex::default(), freed: Condvar::new() }
    }
}

/// A turn, until it is dropped.
pub struct Turn<'a, K: Ord> {
    turns: &'a Turns<K>,
    key: K,
}

impl<K: Ord + Clone> Turns<K> {
    /// Waits for the turn. Blocks.
    pub fn take(&self, key: &K) -> Turn<'_, K> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while taken.contains(key) {
            taken = self.freed.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        taken.insert(key.clone());
        Turn { turns: self, key: key.clone() }
    }
}

impl<K: Ord> Drop for Turn<'_, K> {
    fn drop(&mut self) {
        self.turns.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        self.turns.freed.notify_all();
    }
}
