//! What will be done by when: which request to admit, and which batch to start so that most are in time.
//!
//! Always: a batch is never chosen that one of its entries is predicted to come out of too late, unless that entry
//! is a trial. Everything is predicted by one table, the cautious one, as of one moment.
//! Not here: what is refused when nothing is promised (`Queue`).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::Waiting;
use super::rank::{Due, Lane, Placed, Rank};
use crate::batch::cost::{Size, Table};

/// Requests that may be given up for others on admission, as a part of those others. With none, queues come to be
/// served in calls that are smaller than they could be: at an objective of five times the shortest call the highest
/// rate falls from 0.90 of the optimum to 0.86. With as many as there are others, most of an overload is admitted
/// first and given up later. See `benches/scheduling`.
const GIVEN_UP: f64 = 0.5;

/// The session calls that run, by the moments when they are predicted to end.
pub struct Running {
    instances: usize,
    /// Ascending.
    ends: SmallVec<[Instant; 8]>,
}

impl Running {
    pub fn new(instances: usize) -> Self {
        Self { instances: instances.max(1), ends: SmallVec::new() }
    }

    pub fn started(&mut self, end: Instant) {
        if self.ends.len() == self.instances {
            self.ended();
        }
        let position = self.ends.partition_point(|other| *other <= end);
        self.ends.insert(position, end);
    }

    /// One of them ended. Which one is not asked: calls mostly end in the order predicted.
    pub fn ended(&mut self) {
        if !self.ends.is_empty() {
            self.ends.remove(0);
        }
    }

    pub fn none(&self) -> bool {
        self.ends.is_empty()
    }

    /// When each instance will be free, ascending.
    pub fn free(&self, now: Instant) -> Free {
        let idle = std::iter::repeat_n(now, self.instances - self.ends.len());
        Free(idle.chain(self.ends.iter().map(|end| now.max(*end))).collect())
    }
}

/// The moments when instances are free, ascending, at least one.
#[derive(Clone)]
pub struct Free(SmallVec<[Instant; 8]>);

impl Free {
    fn next(&self) -> Instant {
        self.0[0]
    }

    /// The instance that is free next is given work for that long.
    fn give(&mut self, time: Duration) {
        let end = self.0.remove(0) + time;
        let position = self.0.partition_point(|other| *other <= end);
        self.0.insert(position, end);
    }
}

/// A request at the door.
pub struct Newcomer<'a, K> {
    pub rank: usize,
    pub key: &'a K,
    pub size: Size,
    pub due: Instant,
}

/// What to do with a lane: drop the first `skip` entries, start a batch of the next `take`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    pub skip: usize,
    pub take: usize,
}

/// How calls are predicted and what they may hold.
pub struct Outlook<'a> {
    pub table: &'a Table,
    pub rows_max: u64,
    /// In the table's unit.
    pub work_max: f64,
    /// Requests that may be given up for others on admission.
    pub spare: f64,
}

impl Outlook<'_> {
    /// Whether a newcomer is predicted to be done when it is due, behind what waits at its rank and above.
    ///
    /// Cost: a few steps for each batch that goes before it, and no more batches than fit before it is due.
    pub fn admits<T: Waiting>(
        &self,
        ranks: &[Rank<T>],
        newcomer: &Newcomer<'_, T::Key>,
        mut free: Free,
    ) -> bool {
        let own = ranks[newcomer.rank].lane_of(newcomer.key);
        for (index, rank) in ranks[..=newcomer.rank].iter().enumerate() {
            for (position, lane) in rank.lanes.iter().enumerate() {
                if (index, Some(position)) != (newcomer.rank, own)
                    && self.passes(lane, &mut free, newcomer.due).is_some()
                {
                    return false;
                }
            }
        }
        let behind = own.map(|lane| self.joins(&ranks[newcomer.rank].lanes[lane], newcomer, &mut free));
        behind.flatten().unwrap_or_else(|| free.next() + self.table.time(newcomer.size)) <= newcomer.due
    }

    /// Lets a lane's batches go. `Some` when that takes beyond `until`.
    fn passes<T: Waiting>(&self, lane: &Lane<T>, free: &mut Free, until: Instant) -> Option<Instant> {
        let mut from = 0;
        while let Some((to, time)) = self.batch_from(lane.entries(), &mut from, free.next()) {
            if free.next() > until {
                return Some(free.next());
            }
            free.give(time);
            from = to;
        }
        None
    }

    /// When a newcomer is done that joins the last batch of its lane. `None`: it has to go alone, when what is
    /// before it has gone.
    ///
    /// Where one call could hold the whole lane, in time for all but the oldest, the newcomer is predicted to be in
    /// it, and for the oldest [`Self::plan`] is to decide: two calls in place of one would cost more requests than
    /// are given up.
    fn joins<T: Waiting>(
        &self,
        lane: &Lane<T>,
        newcomer: &Newcomer<'_, T::Key>,
        free: &mut Free,
    ) -> Option<Instant> {
        let entries = lane.entries();
        let (start, all) = (free.next(), span(entries, 0, entries.len()) + newcomer.size);
        let end_from = |first: &Placed<T>| start + self.table.time(all - (first.before - entries[0].before));
        let given_up = entries.partition_point(|first| !in_time(first.entry.due, end_from(first)));
        let few = given_up as f64 <= self.spare.min(GIVEN_UP * (entries.len() + 1 - given_up) as f64);
        if few && self.holds(all, &entries[0]) {
            return Some(entries.get(given_up).map_or(start + self.table.time(newcomer.size), end_from));
        }
        let mut from = 0;
        while let Some((to, time)) = self.batch_from(entries, &mut from, free.next()) {
            let start = free.next();
            if start > newcomer.due {
                return Some(start);
            }
            let size = span(entries, from, to) + newcomer.size;
            let end = start + self.table.time(size);
            if to == entries.len()
                && self.holds(size, &entries[from])
                && in_time(entries[from].entry.due, end)
            {
                return Some(end);
            }
            free.give(time);
            from = to;
        }
        None
    }

    /// The batch that starts at `start` from the first entry that can still be done then, to which `from` is moved:
    /// where it stops, and how long it takes. `None`: nothing is left.
    fn batch_from<T: Waiting>(
        &self,
        entries: &VecDeque<Placed<T>>,
        from: &mut usize,
        start: Instant,
    ) -> Option<(usize, Duration)> {
        while !self.feasible(entries.get(*from)?, start) {
            *from += 1;
        }
        let to = self.reach(entries, *from, start);
        Some((to, self.table.time(span(entries, *from, to))))
    }

    /// The best batch that can start now.
    ///
    /// All that waits, if it can all be done in time, the head's time permitting. Else the largest batch that can
    /// be in time, wherever it starts; what stands before that is given up, for it could only be done at the cost
    /// of more. Cost: one step for each entry that waits, only where not all can be done.
    pub fn plan<T: Waiting>(&self, lane: &Lane<T>, free: Free, now: Instant) -> Plan {
        let entries = lane.entries();
        let skip = entries.iter().take_while(|placed| !self.feasible(placed, now)).count();
        let take = self.fitting(entries, skip, now);
        if take == entries.len() - skip || self.clears(entries, skip, take, free) {
            return Plan { skip, take };
        }
        let mut best = Plan { skip, take };
        for skip in skip + 1..entries.len() {
            if entries.len() - skip <= best.take {
                break;
            }
            let take = self.fitting(entries, skip, now);
            if take > best.take {
                best = Plan { skip, take };
            }
        }
        best
    }

    /// Whether everything that waits is done in time when a batch of `take` entries from `from` starts now. An entry
    /// whose own limit is earlier than the objective is not reason enough to give up others.
    fn clears<T: Waiting>(
        &self,
        entries: &VecDeque<Placed<T>>,
        from: usize,
        take: usize,
        mut free: Free,
    ) -> bool {
        free.give(self.table.time(span(entries, from, from + take)));
        let mut from = from + take;
        while from < entries.len() {
            let start = free.next();
            if self.feasible(&entries[from], start) {
                let to = self.reach(entries, from, start);
                free.give(self.table.time(span(entries, from, to)));
                from = to;
            } else if entries[from].entry.due.is_some_and(|due| due.own) {
                from += 1;
            } else {
                return false;
            }
        }
        true
    }

    /// How many entries from `from` can run together now, all of them in time.
    fn fitting<T: Waiting>(&self, entries: &VecDeque<Placed<T>>, from: usize, now: Instant) -> usize {
        let mut first_due: Option<Instant> = None;
        let fits = |(offset, placed): &(usize, &Placed<T>)| {
            let due = placed.entry.due.filter(|due| !due.trial).map(|due| due.at);
            first_due = first_due.into_iter().chain(due).min();
            let size = span(entries, from, from + offset + 1);
            (*offset == 0 || self.holds(size, placed))
                && first_due.is_none_or(|due| now + self.table.time(size) <= due)
        };
        entries.iter().skip(from).enumerate().take_while(fits).count()
    }

    /// Where a batch from `from` stops that starts at `start`, as far as its first entry can wait: one further at
    /// least.
    fn reach<T: Waiting>(&self, entries: &VecDeque<Placed<T>>, from: usize, start: Instant) -> usize {
        let head = &entries[from];
        let slack = head.entry.due.map(|due| due.at.saturating_duration_since(start));
        let work_max = slack.map_or(self.work_max, |slack| self.table.within(slack).min(self.work_max));
        let unit = self.table.unit();
        let rows_max = self.rows_max.min(head.entry.item.rows_max() as u64);
        let (rows, work) = (head.before.rows + rows_max, unit.work(head.before) + work_max);
        let fits = |placed: &Placed<T>| placed.upto().rows <= rows && unit.work(placed.upto()) <= work;
        entries.partition_point(fits).max(from + 1)
    }

    fn feasible<T: Waiting>(&self, placed: &Placed<T>, start: Instant) -> bool {
        in_time(placed.entry.due, start + self.table.time(placed.size()))
    }

    /// Whether a batch of that size may be, one of whose entries is `of`.
    fn holds<T: Waiting>(&self, size: Size, of: &Placed<T>) -> bool {
        size.rows <= self.rows_max.min(of.entry.item.rows_max() as u64)
            && self.table.unit().work(size) <= self.work_max
    }
}

fn in_time(due: Option<Due>, end: Instant) -> bool {
    due.is_none_or(|due| due.trial || end <= due.at)
}

/// How much the entries from one position up to another are.
fn span<T: Waiting>(entries: &VecDeque<Placed<T>>, from: usize, to: usize) -> Size {
    if from == to { Size::default() } else { entries[to - 1].upto() - entries[from].before }
}
