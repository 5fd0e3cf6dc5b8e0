//! Entries in their order: ranks of lanes.
//!
//! Always: lanes are never empty; entries of a lane have one key.

use std::collections::VecDeque;
use std::time::Instant;

use super::{Waiting, size_of};
use crate::batch::cost::Size;

pub struct Entry<T> {
    pub item: T,
    pub arrived: Instant,
    /// Order of arrival over the whole queue.
    pub number: u64,
    /// When the level's `timeout_action` applies.
    pub times_out: Option<Instant>,
    /// The end of the session call that the entry was admitted for; only with a latency objective.
    pub due: Option<Due>,
}

/// By when an entry must be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    pub at: Instant,
    /// The request's own limit set it, and not the objective.
    pub own: bool,
    /// It runs whatever is predicted: the prediction itself is on trial.
    pub trial: bool,
}

/// An entry in its lane.
pub struct Placed<T> {
    pub entry: Entry<T>,
    /// What stood in the lane before it, counted from an origin that is the lane's own.
    pub before: Size,
}

impl<T: Waiting> Placed<T> {
    /// All up to and with this entry, counted as [`Self::before`] is.
    pub fn upto(&self) -> Size {
        self.before + self.size()
    }

    pub fn size(&self) -> Size {
        size_of(&self.entry.item)
    }
}

/// Entries of one key at one rank.
pub struct Lane<T>(VecDeque<Placed<T>>);

impl<T> Lane<T> {
    pub fn head(&self) -> &Entry<T> {
        &self.0.front().expect("lanes are never empty").entry
    }

    pub fn entries(&self) -> &VecDeque<Placed<T>> {
        &self.0
    }
}

/// Entries of one rank.
pub struct Rank<T> {
    pub lanes: Vec<Lane<T>>,
    pub entries: usize,
}

impl<T: Waiting> Rank<T> {
    pub fn new() -> Self {
        Self { lanes: Vec::new(), entries: 0 }
    }

    pub fn lane_of(&self, key: &T::Key) -> Option<usize> {
        self.lanes.iter().position(|lane| lane.head().item.key() == key)
    }

    pub fn push(&mut self, entry: Entry<T>) {
        self.entries += 1;
        match self.lane_of(entry.item.key()) {
            Some(lane) => {
                let lane = &mut self.lanes[lane].0;
                let before = lane.back().map_or(Size::default(), Placed::upto);
                lane.push_back(Placed { entry, before });
            }
            None => {
                self.lanes.push(Lane(VecDeque::from([Placed { entry, before: Size::default() }])));
            }
        }
    }

    /// Removes the head of a lane; an empty lane goes with it.
    pub fn pop(&mut self, lane: usize) -> Entry<T> {
        let placed = self.lanes[lane].0.pop_front().expect("lanes are never empty");
        if self.lanes[lane].0.is_empty() {
            self.lanes.swap_remove(lane);
        }
        self.entries -= 1;
        placed.entry
    }

    /// Removes what nobody waits for any more. Returns how many entries that were.
    pub fn drop_cancelled(&mut self) -> usize {
        for lane in &mut self.lanes {
            let mut before = Size::default();
            lane.0.retain_mut(|placed| {
                placed.before = before;
                let stays = !placed.entry.item.cancelled();
                if stays {
                    before = placed.upto();
                }
                stays
            });
        }
        self.lanes.retain(|lane| !lane.0.is_empty());
        let left = self.lanes.iter().map(|lane| lane.0.len()).sum();
        let dropped = self.entries - left;
        self.entries = left;
        dropped
    }
}
