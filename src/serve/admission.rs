//! The door: how many requests may be inside at once, and how many bytes of theirs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::error::{ErrorKind, ServeError};

/// Grants a place to each request, or refuses at once. Never waits.
#[derive(Debug, Clone)]
pub struct Admission(Arc<Door>);

#[derive(Debug)]
struct Door {
    places_max: usize,
    bytes_max: usize,
    places: AtomicUsize,
    bytes: AtomicUsize,
}

/// What grows is counted in steps of this, so that a body of many pieces is not counted by each.
const STEP_BYTES: usize = 256 << 10;

/// Bytes of a request or an answer that are not counted: requests are bounded by their number as well, and the
/// smallest are the most.
pub const UNCOUNTED_BYTES: usize = 16 << 10;

impl Admission {
    /// `places_max` bounds how many requests are inside; `bytes_max` the memory that their bodies, and answers that
    /// wait to be sent, may take.
    pub fn new(places_max: usize, bytes_max: usize) -> Self {
        let (places, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self(Arc::new(Door { places_max, bytes_max, places, bytes }))
    }

    /// A place. Errors: `Overloaded` when every place is taken.
    pub fn admit(&self) -> Result<Permit, ServeError> {
        let door = &self.0;
        if door.places.fetch_add(1, Ordering::Relaxed) >= door.places_max {
            door.places.fetch_sub(1, Ordering::Relaxed);
            return Err(ServeError::new(
                ErrorKind::Overloaded,
                format!("Exceeds maximum requests in flight ({}); try again later", door.places_max),
            ));
        }
        Ok(Permit(self.hold()))
    }

    /// An account of bytes, empty so far, of something that needs no place.
    pub fn hold(&self) -> Held {
        Held { door: Arc::clone(&self.0), bytes: 0 }
    }

    /// Requests inside.
    pub fn in_flight(&self) -> usize {
        self.0.places.load(Ordering::Relaxed)
    }

    /// Bytes that are accounted for.
    pub fn bytes_in_flight(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }
}

/// A place, held by the request's receipt: from before its body is read until its answer is encoded.
#[derive(Debug)]
pub struct Permit(Held);

impl Permit {
    /// The account of the request's bytes.
    pub fn held(&mut self) -> &mut Held {
        &mut self.0
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.door.places.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes that somebody has in memory, counted until it is dropped.
#[derive(Debug)]
pub struct Held {
    door: Arc<Door>,
    bytes: usize,
}

impl Held {
    /// Counts so many bytes more. Errors: `Overloaded` when there are too many.
    pub fn add(&mut self, bytes: usize) -> Result<(), ServeError> {
        // Two that come at once may both be refused where one would fit, which is as good as too late.
        let door = &self.door;
        if bytes <= door.bytes_max {
            if door.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= door.bytes_max {
                self.bytes += bytes;
                return Ok(());
            }
            door.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        Err(ServeError::new(
            ErrorKind::Overloaded,
            format!("Exceeds maximum bytes in flight ({}); try again later", door.bytes_max),
        ))
    }

    /// Counts `bytes` in all, or a little more. Errors: `Overloaded` when there are too many.
    pub fn cover(&mut self, bytes: usize) -> Result<(), ServeError> {
        match bytes.saturating_sub(self.bytes) {
            0 => Ok(()),
            _ if bytes <= UNCOUNTED_BYTES => Ok(()),
            missing if missing < STEP_BYTES && self.bytes == 0 => self.add(missing),
            missing => {
                let ahead = missing.checked_next_multiple_of(STEP_BYTES).unwrap_or(missing);
                self.add(ahead).or_else(|_| self.add(missing))
            }
        }
    }

    /// Another account of the same kind, empty so far.
    pub fn another(&self) -> Self {
        Self { door: Arc::clone(&self.door), bytes: 0 }
    }

    /// Takes over what another account holds.
    pub fn absorb(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// The same chunks of an answer, counted until the last of them has gone. Errors: `Overloaded` when there are too
    /// many. Cost: nothing for small ones.
    pub fn until_sent<C: AsMut<[Bytes]>>(&self, mut chunks: C) -> Result<C, ServeError> {
        let total: usize = chunks.as_mut().iter().map(Bytes::len).sum();
        if total <= UNCOUNTED_BYTES {
            return Ok(chunks);
        }
        let mut held = self.another();
        held.add(total)?;
        let held = Arc::new(held);
        for chunk in chunks.as_mut().iter_mut().filter(|chunk| chunk.len() > UNCOUNTED_BYTES / 4) {
            let bytes = std::mem::take(chunk);
            *chunk = Bytes::from_owner(Accounted { bytes, _held: Arc::clone(&held) });
        }
        Ok(chunks)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.door.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

struct Accounted {
    bytes: Bytes,
    _held: Arc<Held>,
}

impl AsRef<[u8]> for Accounted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEBIBYTE: usize = 1 << 20;

    #[test]
    fn places_and_bytes_come_back() {
        let admission = Admission::new(2, 4 * MEBIBYTE);
        let mut first = admission.admit().unwrap();
        let second = admission.admit().unwrap();
        assert_eq!(admission.admit().unwrap_err().kind(), ErrorKind::Overloaded);
        assert_eq!(admission.in_flight(), 2);
        first.held().cover(MEBIBYTE).unwrap();
        first.held().cover(3 * MEBIBYTE).unwrap();
        assert_eq!(admission.bytes_in_flight(), 3 * MEBIBYTE);
        let error = admission.hold().add(MEBIBYTE + 1).unwrap_err();
        assert!(error.message().contains("bytes in flight (4194304)"), "{error}");
        first.held().cover(usize::MAX).unwrap_err();
        drop((first, second));
        assert_eq!((admission.in_flight(), admission.bytes_in_flight()), (0, 0));
    }

    #[test]
    fn what_is_small_is_not_counted_and_what_grows_is_counted_in_steps() {
        let admission = Admission::new(1, MEBIBYTE);
        let mut held = admission.hold();
        for (bytes, counted) in [
            (UNCOUNTED_BYTES, 0),
            (20_000, 20_000),
            (20_001, 20_000 + STEP_BYTES),
            (200_000, 20_000 + STEP_BYTES),
        ] {
            held.cover(bytes).unwrap();
            assert_eq!(admission.bytes_in_flight(), counted, "{bytes}");
        }
        let mut all = held.another();
        all.absorb(held);
        assert_eq!(admission.bytes_in_flight(), 20_000 + STEP_BYTES);
        drop(all);
        assert_eq!(admission.bytes_in_flight(), 0);
    }

    #[test]
    fn an_answer_counts_until_its_last_chunk_is_gone() {
        let admission = Admission::new(1, MEBIBYTE);
        let chunk = |bytes| Bytes::from(vec![7; bytes]);
        let [small, mut large] = admission.hold().until_sent([chunk(10), chunk(100_000)]).unwrap();
        assert_eq!(admission.bytes_in_flight(), 100_010);
        let part = large.split_to(10);
        drop((small, large));
        assert_eq!(admission.bytes_in_flight(), 100_010);
        drop(part);
        assert_eq!(admission.bytes_in_flight(), 0);
        admission.hold().until_sent([chunk(MEBIBYTE + 1)]).unwrap_err();
        assert_eq!(admission.hold().until_sent([chunk(10)]).unwrap()[0], chunk(10));
    }
}
