//! Memory that server and worker share for the calls of one slot.
//!
//! Always: only one side writes at a time: the server until the call is asked, the worker until it is answered. The
//! server made the memory and sealed its size, so that a worker cannot pull it away; what the worker wrote is copied out
//! before it is looked at, since nothing but its own good will keeps a worker from writing on.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::thread::futex;

/// Bytes before the data: the words below.
pub const HEAD_BYTES: usize = 64;

/// Where tensors begin, as everywhere before a session call.
pub const ALIGNMENT: usize = 64;

/// How a slot stands; kept in the first word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// Nothing is asked.
    Idle = 0,
    Asked = 1,
    Answered = 2,
    /// The worker has an answer that needs more room.
    Full = 3,
    /// The slot goes on in another region.
    Moved = 4,
}

impl State {
    fn of(word: u32) -> Option<Self> {
        [Self::Idle, Self::Asked, Self::Answered, Self::Full, Self::Moved]
            .into_iter()
            .find(|s| *s as u32 == word)
    }
}

/// Words of the head, by their place.
#[derive(Debug, Clone, Copy)]
#[repr(usize)]
pub enum Word {
    /// Where the description of a question or an answer begins.
    At = 8,
    /// How long it is.
    Length = 16,
    /// The room that an answer needs.
    Room = 24,
    /// The number of the call.
    Call = 32,
}

pub struct Region {
    map: MmapRaw,
}

// Reached from outside through its methods alone, which copy or borrow as the rules above allow.
impl Region {
    /// New memory of `bytes`, and the file by which a worker gets at it.
    pub fn create(bytes: usize) -> io::Result<(Self, OwnedFd)> {
        let file = memfd_create("weir-calls", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, bytes as u64)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok((Self::map(file.as_fd())?, file))
    }

    /// The memory behind a file that [`Self::create`] gave.
    pub fn map(file: BorrowedFd<'_>) -> io::Result<Self> {
        let map = MmapOptions::new().map_raw(&file)?;
        match map.len() {
            0..HEAD_BYTES => Err(io::Error::other("a region is too small")),
            _ => Ok(Self { map }),
        }
    }

    pub fn len(&self) -> usize {
        self.map.len()
    }

    fn state_word(&self) -> &AtomicU32 {
        // SAFETY: the mapping is at least a head long, begins on a page, and lives as long as `self`; both sides reach
        // this word as an atomic only.
        unsafe { AtomicU32::from_ptr(self.map.as_mut_ptr().cast()) }
    }

    fn word(&self, word: Word) -> &AtomicU64 {
        // SAFETY: as above; the places are multiples of eight within the head.
        unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().add(word as usize).cast()) }
    }

    pub fn get(&self, word: Word) -> u64 {
        self.word(word).load(Ordering::Relaxed)
    }

    pub fn set(&self, word: Word, value: u64) {
        self.word(word).store(value, Ordering::Relaxed);
    }

    /// `None`: the other side wrote something else there.
    pub fn state(&self) -> Option<State> {
        State::of(self.state_word().load(Ordering::Acquire))
    }

    /// Enters a state: everything written before is seen by whoever sees it. Wakes the other side.
    pub fn enter(&self, state: State) {
        self.state_word().store(state as u32, Ordering::Release);
        // Fails for nobody who waits.
        let _ = futex::wake(self.state_word(), futex::Flags::empty(), 1);
    }

    /// As [`Self::enter`], where nobody can be waiting yet.
    pub fn enter_quietly(&self, state: State) {
        self.state_word().store(state as u32, Ordering::Release);
    }

    /// Waits for as long as the slot stands so, at the most for `patience`, of which `spin` without giving the
    /// processor away.
    pub fn wait_while(&self, state: State, spin: Duration, patience: Duration) -> Option<State> {
        let changed = || self.state_word().load(Ordering::Acquire) != state as u32;
        if !spin.is_zero() {
            let until = Instant::now() + spin;
            loop {
                for _ in 0..32 {
                    if changed() {
                        return self.state();
                    }
                    std::hint::spin_loop();
                }
                if Instant::now() >= until {
                    break;
                }
            }
        }
        if !changed() {
            let patience = futex::Timespec {
                tv_sec: patience.as_secs() as i64,
                tv_nsec: patience.subsec_nanos().into(),
            };
            // Whatever ends the wait, the word tells what to do.
            let _ = futex::wait(self.state_word(), futex::Flags::empty(), state as u32, Some(&patience));
        }
        self.state()
    }

    /// Writes into the region. Panics where the range is not in it: whoever writes has made room.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        let range = self.checked(at, bytes.len()).expect("there is room for what is written");
        // SAFETY: the range lies within the mapping, behind the head; it is this side's turn to write.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), self.map.as_mut_ptr().add(range.start), bytes.len())
        }
    }

    /// A copy of a part of the region. `None`: there is no such part.
    pub fn read(&self, at: usize, length: usize) -> Option<Vec<u8>> {
        let range = self.checked(at, length)?;
        let mut copy = Vec::with_capacity(length);
        // SAFETY: the range lies within the mapping, and the copy has room for it. A worker that writes meanwhile
        // spoils the copy's content, which is checked afterwards, and nothing else.
        unsafe {
            ptr::copy_nonoverlapping(self.map.as_ptr().add(range.start), copy.as_mut_ptr(), length);
            copy.set_len(length);
        }
        Some(copy)
    }

    /// A part of the region as it stands, without a copy: for the worker, which may trust the server not to write while
    /// it is asked. `None`: there is no such part.
    pub fn lend(self: &Arc<Self>, at: usize, length: usize) -> Option<Bytes> {
        struct Lent(Arc<Region>, Range<usize>);
        impl AsRef<[u8]> for Lent {
            fn as_ref(&self) -> &[u8] {
                // SAFETY: the range was checked; the server, which the worker trusts, writes nothing until the call is
                // answered, and the worker drops what it was lent before it writes itself.
                unsafe { std::slice::from_raw_parts(self.0.map.as_ptr().add(self.1.start), self.1.len()) }
            }
        }
        let range = self.checked(at, length)?;
        Some(Bytes::from_owner(Lent(Arc::clone(self), range)))
    }

    fn checked(&self, at: usize, length: usize) -> Option<Range<usize>> {
        let end = at.checked_add(length)?;
        (at >= HEAD_BYTES && end <= self.len()).then_some(at..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sides_see_what_the_other_wrote_and_nothing_beyond() {
        let (ours, file) = Region::create(4096).unwrap();
        let theirs = Arc::new(Region::map(file.as_fd()).unwrap());
        ours.write(64, b"question");
        ours.set(Word::Length, 8);
        ours.enter(State::Asked);
        assert_eq!(
            theirs.wait_while(State::Idle, Duration::ZERO, Duration::from_secs(60)),
            Some(State::Asked)
        );
        assert_eq!(
            (theirs.get(Word::Length), theirs.lend(64, 8).unwrap()),
            (8, Bytes::from_static(b"question"))
        );
        assert_eq!(
            ours.wait_while(State::Asked, Duration::ZERO, Duration::from_millis(1)),
            Some(State::Asked)
        );
        for (at, length) in [(0, 8), (63, 1), (4090, 7), (usize::MAX, 2), (64, usize::MAX)] {
            assert!(ours.read(at, length).is_none() && theirs.lend(at, length).is_none(), "{at} {length}");
        }
        assert!(ftruncate(&file, 10).is_err(), "its size is sealed");
    }

    #[test]
    fn calls_go_back_and_forth_between_threads() {
        let (ours, file) = Region::create(4096).unwrap();
        let theirs = Region::map(file.as_fd()).unwrap();
        let answering = std::thread::spawn(move || {
            for call in 0..2000u64 {
                while theirs.state() != Some(State::Asked) {
                    theirs.wait_while(State::Idle, Duration::ZERO, Duration::from_secs(1));
                    theirs.wait_while(State::Answered, Duration::ZERO, Duration::from_secs(1));
                }
                let asked = u64::from_le_bytes(theirs.read(64, 8).unwrap().try_into().unwrap());
                assert_eq!(asked, call);
                theirs.write(64, &(asked * 2).to_le_bytes());
                theirs.enter(State::Answered);
            }
        });
        for call in 0..2000u64 {
            ours.write(64, &call.to_le_bytes());
            ours.enter(State::Asked);
            while ours.wait_while(State::Asked, Duration::ZERO, Duration::from_secs(1))
                != Some(State::Answered)
            {}
            assert_eq!(ours.read(64, 8).unwrap(), (call * 2).to_le_bytes());
        }
        answering.join().unwrap();
    }
}
