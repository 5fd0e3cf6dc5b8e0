//! The waiting line of one servable.
//!
//! Always: an entry leaves once: in a batch, dropped for its time, or cancelled. Higher levels go first; within a
//! level, first in, first out; entries of different shapes never leave together. Without a latency objective nobody
//! is given up for others.
//! Not here: clocks, threads, model execution. `now` is an argument.

mod company;
mod forecast;
mod policy;
#[cfg(test)]
mod properties;
mod rank;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use forecast::{Newcomer, Outlook, Running};
pub use policy::{BatchingPolicy, LevelPolicy, TimeoutAction};
use rank::{Due, Entry, Rank};

use super::cost::{Costs, Size, Table};

/// The part of the latency objective that work of lower levels may keep an instance for: a session call is not
/// interrupted for what comes after it.
const CHUNK: f64 = 0.05;

/// One refusal in so many requests is no overload yet: until then requests that were admitted and have waited may be
/// given up for others; after that newcomers are refused at once.
const SPARED_IN: f64 = 100.0;

/// Requests at the most that may be given up for others at once.
const SPARE_MAX: f64 = 64.0;

/// One batch in so many may be twice as large as is worth it, so that the table learns when larger ones have come
/// to pay.
const EXPLORING: u64 = 16;

/// A queued piece of work as the queue sees it.
pub trait Waiting {
    type Key: PartialEq;

    /// Work of different keys never shares a batch.
    fn key(&self) -> &Self::Key;
    /// Rows on the batch axis, ≥ 1.
    fn rows(&self) -> usize;
    /// Of all inputs.
    fn bytes(&self) -> usize;
    /// Nobody waits for the answer any more.
    fn cancelled(&self) -> bool;
    /// The moment after which the answer is of no use.
    fn deadline(&self) -> Option<Instant>;
    /// Rows at the most in a batch that it shares, where its key has a limit of its own.
    fn rows_max(&self) -> usize {
        usize::MAX
    }
}

impl<T: Waiting> Waiting for Box<T> {
    type Key = T::Key;

    fn key(&self) -> &T::Key {
        (**self).key()
    }
    fn rows(&self) -> usize {
        (**self).rows()
    }
    fn bytes(&self) -> usize {
        (**self).bytes()
    }
    fn cancelled(&self) -> bool {
        (**self).cancelled()
    }
    fn deadline(&self) -> Option<Instant> {
        (**self).deadline()
    }
    fn rows_max(&self) -> usize {
        (**self).rows_max()
    }
}

/// Why an entry was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The level's limit was reached.
    Full { size_max: usize },
    /// It is predicted to be done later than the latency objective or its own limits allow.
    Late { objective: Duration },
}

/// Why an entry left without having run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// Its deadline or its queue timeout passed.
    Expired,
    /// It could no longer be done in time, or only at the cost of more.
    Overloaded,
}

/// An entry that left without having run. The caller answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped<T> {
    pub item: T,
    pub reason: DropReason,
}

/// What [`Queue::take`] found.
#[derive(Debug)]
pub enum Taken<T> {
    /// Work to run now, never empty.
    Batch(Vec<T>),
    /// Nothing to run before this moment, unless something arrives.
    WaitUntil(Instant),
    /// Nothing waits.
    Empty,
}

/// How batches are formed, and what is known of their costs.
#[derive(Clone)]
pub struct Batching {
    pub policy: BatchingPolicy,
    pub costs: Arc<Costs>,
}

/// The waiting line. Each level has two ranks: its entries, and behind them those that timed out with
/// [`TimeoutAction::Delay`]. A level's limit counts both.
pub struct Queue<T> {
    policy: BatchingPolicy,
    costs: Arc<Costs>,
    ranks: Vec<Rank<T>>,
    running: Running,
    next_number: u64,
    entries: usize,
    batches: u64,
    /// By level: requests that may yet be refused before more than one in [`SPARED_IN`] is.
    spare: Vec<f64>,
}

impl<T: Waiting> Queue<T> {
    /// A queue before that many instances.
    pub fn new(batching: Batching, instances: usize) -> Self {
        let Batching { policy, costs } = batching;
        let ranks = (0..2 * policy.levels.len()).map(|_| Rank::new()).collect();
        let running = Running::new(instances);
        let spare = vec![SPARE_MAX; policy.levels.len()];
        Self { policy, costs, ranks, running, next_number: 0, entries: 0, batches: 0, spare }
    }

    /// Entries that wait.
    pub fn len(&self) -> usize {
        self.entries
    }

    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Queues `item` at `level`: 1 is the highest; 0 and levels that do not exist mean the default.
    ///
    /// `timeout` is the request's own queue timeout. Returns the moment at which the entry is rejected if it still
    /// waits then. Errors: gives the item back when the level is full, or when there is a latency objective and the
    /// item is predicted to be late. Cost: with an objective, a few steps for each batch that waits before it.
    pub fn push(
        &mut self,
        item: T,
        level: u64,
        timeout: Option<Duration>,
        now: Instant,
    ) -> Result<Option<Instant>, (T, Refusal)> {
        let configured = 1..=self.policy.levels.len();
        let level = usize::try_from(level).ok().filter(|level| configured.contains(level));
        let level = level.unwrap_or(self.policy.default_level) - 1;
        let policy = &self.policy.levels[level];
        let rank = 2 * level;
        let times_out = policy.queue_timeout(timeout).and_then(|t| now.checked_add(t));
        let rejected_at = times_out.filter(|_| policy.timeout_action == TimeoutAction::Reject);
        if let Err(full) = self.make_room(level) {
            return Err((item, full));
        }
        let due = match self.promise(&item, rank, rejected_at, now) {
            Ok(due) => due,
            Err(late) => return Err((item, late)),
        };
        self.next_number += 1;
        self.ranks[rank].push(Entry { item, arrived: now, number: self.next_number, times_out, due });
        self.entries += 1;
        Ok(rejected_at)
    }

    /// Makes room for one more at `level`, counted from 0.
    fn make_room(&mut self, level: usize) -> Result<(), Refusal> {
        let (rank, size_max) = (2 * level, self.policy.levels[level].size_max);
        if self.ranks[rank].entries + self.ranks[rank + 1].entries < size_max {
            return Ok(());
        }
        // What nobody waits for any more gives way first.
        let dropped = self.ranks[rank].drop_cancelled() + self.ranks[rank + 1].drop_cancelled();
        self.entries -= dropped;
        if dropped == 0 { Err(Refusal::Full { size_max }) } else { Ok(()) }
    }

    /// By when an item is promised to be done, if anything is promised.
    fn promise(
        &mut self,
        item: &T,
        rank: usize,
        rejected_at: Option<Instant>,
        now: Instant,
    ) -> Result<Option<Due>, Refusal> {
        let Some(objective) = self.policy.objective else { return Ok(None) };
        let front_end = self.costs.front_end();
        let answered_by = item.deadline().map(|deadline| deadline.checked_sub(front_end).unwrap_or(now));
        let limit = [answered_by, rejected_at].into_iter().flatten().min();
        let by_objective = now + objective - front_end;
        let at = limit.map_or(by_objective, |limit| limit.min(by_objective));
        let newcomer = Newcomer { rank, key: item.key(), size: size_of(item), due: at };
        let table = self.costs.cautious();
        let admitted = self.outlook(&table, rank, self.policy.rows_max).admits(
            &self.ranks,
            &newcomer,
            self.running.free(now),
        );
        // The table may be wrong, and only a call can put it right: an idle server always takes one.
        let trial = !admitted && self.running.none() && self.is_empty();
        let spare = &mut self.spare[rank / 2];
        *spare = (*spare + 1.0 / SPARED_IN).min(SPARE_MAX);
        let due = Due { at, own: at < by_objective, trial };
        if admitted || trial {
            return Ok(Some(due));
        }
        self.count_refusal(rank, Some(due));
        Err(Refusal::Late { objective })
    }

    /// Somebody was refused, or given up. Whose own limit was too short says nothing about the load.
    fn count_refusal(&mut self, rank: usize, due: Option<Due>) {
        if due.is_some_and(|due| !due.own) {
            let spare = &mut self.spare[rank / 2];
            *spare = (*spare - 1.0).max(0.0);
        }
    }

    /// How the batches of a rank are predicted when there is an objective.
    fn outlook<'a>(&self, table: &'a Table, rank: usize, rows_max: usize) -> Outlook<'a> {
        // Without merging an entry has no company, however few its rows are.
        let rows_max = if self.policy.merging { rows_max as u64 } else { 1 };
        let objective = self.policy.objective.filter(|_| rank / 2 >= self.policy.default_level);
        let chunk = objective.map_or(f64::INFINITY, |objective| table.within(objective.mul_f64(CHUNK)));
        Outlook { table, rows_max, work_max: self.worth_max().min(chunk), spare: self.spare[rank / 2] }
    }

    /// The largest batch that is worth its time, in the unit of the costs. One that somebody chose is not judged.
    fn worth_max(&self) -> f64 {
        match self.policy.sizes_chosen() {
            true => f64::INFINITY,
            false if self.batches.is_multiple_of(EXPLORING) => 2.0 * self.costs.worth(),
            false => self.costs.worth(),
        }
    }

    /// An instance has ended the batch that it took.
    pub fn ended(&mut self) {
        self.running.ended();
    }

    /// Takes the next batch for an instance that is free, as of `now`.
    ///
    /// Entries that must not run any more are moved to `dropped`, which the caller answers; cancelled entries are
    /// dropped. Cost: one pass over the heads of the lanes, plus the entries that leave; with an objective a pass
    /// over the entries of one lane where not all of them can be done in time.
    pub fn take(&mut self, now: Instant, dropped: &mut Vec<Dropped<T>>) -> Taken<T> {
        loop {
            let Some(rank) = self.ranks.iter().position(|rank| rank.entries > 0) else { return Taken::Empty };
            let lane = match self.ready_lane(rank, now) {
                Ok(lane) => lane,
                Err(until) => return Taken::WaitUntil(until),
            };
            if self.shed_head(rank, lane, now, dropped) {
                continue;
            }
            let batch = match self.policy.objective {
                None => self.collect(rank, lane, now, dropped),
                Some(objective) => self.collect_in_time(rank, lane, objective, now, dropped),
            };
            if !batch.is_empty() {
                self.batches += 1;
                return Taken::Batch(batch);
            }
        }
    }

    /// The lane whose head is the oldest among those that need not wait for company, or the moment when the first
    /// of them need not.
    fn ready_lane(&self, rank: usize, now: Instant) -> Result<usize, Instant> {
        let mut ready = None;
        let mut until = None;
        for (index, lane) in self.ranks[rank].lanes.iter().enumerate() {
            let number = lane.head().number;
            match self.wait_for_company(rank, index, now) {
                Some(moment) => until = Some(until.map_or(moment, |u: Instant| u.min(moment))),
                None if ready.is_none_or(|(oldest, _)| number < oldest) => ready = Some((number, index)),
                None => {}
            }
        }
        match (ready, until) {
            (Some((_, lane)), _) => Ok(lane),
            (None, until) => Err(until.expect("a rank with entries has lanes")),
        }
    }

    /// Removes the head of a lane when it must not run now. Returns whether it did.
    fn shed_head(&mut self, rank: usize, lane: usize, now: Instant, dropped: &mut Vec<Dropped<T>>) -> bool {
        let entry = self.ranks[rank].lanes[lane].head();
        let passed = |moment: Option<Instant>| moment.is_some_and(|m| m <= now);
        let (cancelled, late, timed_out) =
            (entry.item.cancelled(), passed(entry.item.deadline()), passed(entry.times_out));
        if !(cancelled || late || timed_out) {
            return false;
        }
        let mut entry = self.ranks[rank].pop(lane);
        let delays = self.policy.levels[rank / 2].timeout_action == TimeoutAction::Delay;
        if cancelled {
            self.entries -= 1;
        } else if !late && delays {
            entry.times_out = None;
            self.ranks[rank | 1].push(entry);
        } else {
            self.entries -= 1;
            dropped.push(Dropped { item: entry.item, reason: DropReason::Expired });
        }
        true
    }

    /// The head of a lane, which may run now, and what leaves with it.
    fn collect(&mut self, rank: usize, lane: usize, now: Instant, dropped: &mut Vec<Dropped<T>>) -> Vec<T> {
        let (rows_max, work_max) = (self.rows_max(rank, lane) as u64, self.worth_max());
        let unit = self.costs.unit();
        let first = self.leave(rank, lane).item;
        let size = size_of(&first);
        let mut batch = vec![first];
        if self.policy.merging {
            let fits = |size: Size, _: &Entry<T>| size.rows <= rows_max && unit.work(size) <= work_max;
            self.join(&mut batch, size, rank, fits, now, dropped);
        }
        batch
    }

    /// The best batch of a lane that can be done in time, and what leaves with it; empty where there is none. What
    /// is given up for it is dropped.
    fn collect_in_time(
        &mut self,
        rank: usize,
        lane: usize,
        objective: Duration,
        now: Instant,
        dropped: &mut Vec<Dropped<T>>,
    ) -> Vec<T> {
        let table = self.costs.cautious();
        let rows_max = self.rows_max(rank, lane);
        let outlook = self.outlook(&table, rank, rows_max);
        let plan = outlook.plan(&self.ranks[rank].lanes[lane], self.running.free(now), now);
        for _ in 0..plan.skip {
            let Entry { item, due, .. } = self.leave(rank, lane);
            if !item.cancelled() {
                dropped.push(Dropped { item, reason: DropReason::Overloaded });
                self.count_refusal(rank, due);
            }
        }
        let mut batch = Vec::with_capacity(plan.take);
        let (mut size, mut first_due) = (Size::default(), now + objective);
        for _ in 0..plan.take {
            if !self.shed_head(rank, lane, now, dropped) {
                let entry = self.leave(rank, lane);
                size = size + size_of(&entry.item);
                first_due = entry.due.filter(|due| !due.trial).map_or(first_due, |due| first_due.min(due.at));
                batch.push(entry.item);
            }
        }
        let Some(first) = batch.first() else { return batch };
        // Lower ranks come along where they cost little and nobody of this one has to stay behind.
        if self.policy.merging && self.ranks[rank].lane_of(first.key()).is_none() {
            let limit = (now + table.time(size) + objective.mul_f64(CHUNK)).min(first_due);
            let fits = |size: Size, rider: &Entry<T>| {
                let end = now + table.time(size);
                let in_time = rider.due.is_none_or(|due| end <= due.at);
                size.rows <= rows_max as u64 && end <= limit && in_time
            };
            size = self.join(&mut batch, size, rank + 1, fits, now, dropped);
        }
        self.running.started(now + table.time(size));
        batch
    }

    /// Lets entries of the batch's key leave with it, from `rank` down, as long as they fit. Returns the size of
    /// the whole.
    fn join(
        &mut self,
        batch: &mut Vec<T>,
        mut size: Size,
        rank: usize,
        fits: impl Fn(Size, &Entry<T>) -> bool,
        now: Instant,
        dropped: &mut Vec<Dropped<T>>,
    ) -> Size {
        for index in rank..self.ranks.len() {
            while let Some(lane) = self.ranks[index].lane_of(batch[0].key()) {
                if self.shed_head(index, lane, now, dropped) {
                    continue;
                }
                let head = self.ranks[index].lanes[lane].head();
                let whole = size + size_of(&head.item);
                if !fits(whole, head) {
                    return size;
                }
                size = whole;
                batch.push(self.leave(index, lane).item);
            }
        }
        size
    }

    /// Takes the head of a lane out of the queue.
    fn leave(&mut self, rank: usize, lane: usize) -> Entry<T> {
        self.entries -= 1;
        self.ranks[rank].pop(lane)
    }
}

fn size_of(item: &impl Waiting) -> Size {
    Size { rows: item.rows() as u64, bytes: item.bytes() as u64 }
}
