//! The door: how many requests may be inside at once.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{ErrorKind, ServeError};

/// Grants a place to each request, or refuses at once.
#[derive(Debug, Clone)]
pub struct Admission {
    places: Arc<Semaphore>,
    places_max: usize,
}

/// A place, held by the request's receipt: from before its body is read until its answer is encoded.
pub type Permit = OwnedSemaphorePermit;

impl Admission {
    /// `places_max` bounds the memory that requests in flight may take: each holds its inputs.
    pub fn new(places_max: usize) -> Self {
        let places_max = places_max.min(Semaphore::MAX_PERMITS);
        Self { places: Arc::new(Semaphore::new(places_max)), places_max }
    }

    /// Never waits. Errors: `Overloaded` when every place is taken.
    pub fn admit(&self) -> Result<Permit, ServeError> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            ServeError::new(
                ErrorKind::Overloaded,
                format!("Exceeds maximum requests in flight ({}); try again later", self.places_max),
            )
        })
    }

    /// Requests inside.
    pub fn in_flight(&self) -> usize {
        self.places_max - self.places.available_permits()
    }
}
