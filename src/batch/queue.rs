//! The waiting line of one servable.
//!
//! Always: an entry leaves once: in a batch, expired, or cancelled. Higher levels go first; within a level, first
//! in, first out; entries of different shapes never leave together.
//! Not here: clocks, threads, model execution. `now` is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What happens to an entry whose queue timeout has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimeoutAction {
    /// It is answered with an error and never runs.
    #[default]
    Reject,
    /// It runs once nothing else waits at its level.
    Delay,
}

/// Rules of one priority level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelPolicy {
    /// Entries that may wait at this level; one more is refused at once.
    pub size_max: usize,
    /// Queue time after which `timeout_action` applies; `None`: never.
    pub timeout: Option<Duration>,
    pub timeout_action: TimeoutAction,
    /// Whether a request's own timeout may shorten `timeout`. Without a `timeout` it always counts.
    pub timeout_override: bool,
}

/// How batches are formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchingPolicy {
    /// Rows in one batch at the most, ≥ 1.
    pub rows_max: usize,
    /// Whether requests may share a batch at all.
    pub merging: bool,
    /// How long the oldest entry may wait for company once an instance is free. Zero: not at all.
    pub delay_max: Duration,
    /// Batch sizes that are dispatched without waiting, ascending, each ≤ `rows_max`.
    pub preferred_rows: Vec<usize>,
    /// One policy per priority level, the highest (1) first; never empty.
    pub levels: Vec<LevelPolicy>,
    /// The level, counted from 1, of requests that name none.
    pub default_level: usize,
}

/// A queued piece of work as the queue sees it.
pub trait Waiting {
    type Key: PartialEq;

    /// Work of different keys never shares a batch.
    fn key(&self) -> &Self::Key;
    /// Rows on the batch axis, ≥ 1.
    fn rows(&self) -> usize;
    /// Nobody waits for the answer any more.
    fn cancelled(&self) -> bool;
    /// The moment after which the answer is of no use.
    fn deadline(&self) -> Option<Instant>;
}

/// The level's limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueFull {
    pub size_max: usize,
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

struct Entry<T> {
    item: T,
    arrived: Instant,
    /// Order of arrival over the whole queue.
    number: u64,
    /// When `timeout_action` applies.
    times_out: Option<Instant>,
}

/// Entries of one shape at one rank.
struct Lane<T>(VecDeque<Entry<T>>);

/// Entries of one rank.
struct Rank<T> {
    lanes: Vec<Lane<T>>,
    entries: usize,
}

/// The waiting line. Each level has two ranks: its entries, and behind them those that timed out with
/// [`TimeoutAction::Delay`]. A level's limit counts both.
pub struct Queue<T> {
    policy: BatchingPolicy,
    ranks: Vec<Rank<T>>,
    next_number: u64,
    entries: usize,
}

impl<T: Waiting> Queue<T> {
    pub fn new(policy: BatchingPolicy) -> Self {
        let ranks = (0..2 * policy.levels.len()).map(|_| Rank { lanes: Vec::new(), entries: 0 }).collect();
        Self { policy, ranks, next_number: 0, entries: 0 }
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
    /// waits then. Errors: gives the item back when the level is full.
    pub fn push(
        &mut self,
        item: T,
        level: u64,
        timeout: Option<Duration>,
        now: Instant,
    ) -> Result<Option<Instant>, (T, QueueFull)> {
        let configured = 1..=self.policy.levels.len();
        let level = usize::try_from(level).ok().filter(|level| configured.contains(level));
        let level = level.unwrap_or(self.policy.default_level) - 1;
        let policy = &self.policy.levels[level];
        let rank = 2 * level;
        if self.ranks[rank].entries + self.ranks[rank + 1].entries >= policy.size_max {
            // What nobody waits for any more gives way first.
            let dropped = self.ranks[rank].drop_cancelled() + self.ranks[rank + 1].drop_cancelled();
            self.entries -= dropped;
            if dropped == 0 {
                return Err((item, QueueFull { size_max: policy.size_max }));
            }
        }
        let times_out = policy.queue_timeout(timeout).and_then(|t| now.checked_add(t));
        let rejected_at = times_out.filter(|_| policy.timeout_action == TimeoutAction::Reject);
        self.next_number += 1;
        self.ranks[rank].push(Entry { item, arrived: now, number: self.next_number, times_out });
        self.entries += 1;
        Ok(rejected_at)
    }

    /// Takes the next batch for an instance that is free, as of `now`.
    ///
    /// Entries whose deadline or timeout has passed are moved to `expired`, which the caller answers; cancelled
    /// entries are dropped. Cost: one pass over the heads of the lanes, plus the entries that leave.
    pub fn take(&mut self, now: Instant, expired: &mut Vec<T>) -> Taken<T> {
        loop {
            let Some(rank) = self.ranks.iter().position(|rank| rank.entries > 0) else { return Taken::Empty };
            let lane = match self.ready_lane(rank, now) {
                Ok(lane) => lane,
                Err(until) => return Taken::WaitUntil(until),
            };
            if self.shed_head(rank, lane, now, expired) {
                continue;
            }
            return Taken::Batch(self.collect(rank, lane, now, expired));
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
    fn shed_head(&mut self, rank: usize, lane: usize, now: Instant, expired: &mut Vec<T>) -> bool {
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
            expired.push(entry.item);
        }
        true
    }

    /// The moment until which the batch at this head should wait for company, if it should.
    ///
    /// An entry whose time is up before that does not wait: company is no use to it.
    fn wait_for_company(&self, rank: usize, lane: usize, now: Instant) -> Option<Instant> {
        if self.policy.delay_max.is_zero() || !self.policy.merging {
            return None;
        }
        let head = self.ranks[rank].lanes[lane].head();
        let until = head.arrived + self.policy.delay_max;
        let in_time =
            [head.times_out, head.item.deadline()].into_iter().flatten().all(|moment| until < moment);
        (now < until && in_time && self.company(rank, lane).grows).then_some(until)
    }

    /// What could leave with this head: its shape, at its rank and below, up to the maximum.
    fn company(&self, rank: usize, lane: usize) -> Company {
        let key = self.ranks[rank].lanes[lane].head().item.key();
        let mut rows = 0;
        let mut preferred = None;
        for rank in &self.ranks[rank..] {
            for entry in rank.lane_of(key).map(|lane| &rank.lanes[lane].0).into_iter().flatten() {
                if entry.item.cancelled() {
                    continue;
                }
                if rows + entry.item.rows() > self.policy.rows_max {
                    return Company { preferred, grows: false };
                }
                rows += entry.item.rows();
                if self.policy.preferred_rows.contains(&rows) {
                    preferred = Some(rows);
                }
            }
        }
        Company { preferred, grows: rows < self.policy.rows_max && preferred.is_none() }
    }

    /// The head of a lane, which may run now, and what leaves with it.
    fn collect(&mut self, rank: usize, lane: usize, now: Instant, expired: &mut Vec<T>) -> Vec<T> {
        let rows_max = match self.policy.preferred_rows.is_empty() {
            true => self.policy.rows_max,
            false => self.company(rank, lane).preferred.unwrap_or(self.policy.rows_max),
        };
        let mut batch = vec![self.leave(rank, lane)];
        if !self.policy.merging {
            return batch;
        }
        let mut rows = batch[0].rows();
        for index in rank..self.ranks.len() {
            while let Some(lane) = self.ranks[index].lane_of(batch[0].key()) {
                if self.shed_head(index, lane, now, expired) {
                    continue;
                }
                rows += self.ranks[index].lanes[lane].head().item.rows();
                if rows > rows_max {
                    return batch;
                }
                batch.push(self.leave(index, lane));
            }
        }
        batch
    }

    /// Takes the head of a lane out of the queue.
    fn leave(&mut self, rank: usize, lane: usize) -> T {
        self.entries -= 1;
        self.ranks[rank].pop(lane).item
    }
}

/// What could leave with a head.
struct Company {
    /// The largest preferred size that whole requests add up to.
    preferred: Option<usize>,
    /// Whether waiting could make a better batch.
    grows: bool,
}

impl<T> Lane<T> {
    fn head(&self) -> &Entry<T> {
        self.0.front().expect("lanes are never empty")
    }
}

impl<T: Waiting> Rank<T> {
    fn lane_of(&self, key: &T::Key) -> Option<usize> {
        self.lanes.iter().position(|lane| lane.head().item.key() == key)
    }

    fn push(&mut self, entry: Entry<T>) {
        self.entries += 1;
        match self.lane_of(entry.item.key()) {
            Some(lane) => self.lanes[lane].0.push_back(entry),
            None => self.lanes.push(Lane(VecDeque::from([entry]))),
        }
    }

    /// Removes the head of a lane; an empty lane goes with it.
    fn pop(&mut self, lane: usize) -> Entry<T> {
        let entry = self.lanes[lane].0.pop_front().expect("lanes are never empty");
        if self.lanes[lane].0.is_empty() {
            self.lanes.swap_remove(lane);
        }
        self.entries -= 1;
        entry
    }

    fn drop_cancelled(&mut self) -> usize {
        for lane in &mut self.lanes {
            lane.0.retain(|entry| !entry.item.cancelled());
        }
        self.lanes.retain(|lane| !lane.0.is_empty());
        let left = self.lanes.iter().map(|lane| lane.0.len()).sum();
        let dropped = self.entries - left;
        self.entries = left;
        dropped
    }
}

impl LevelPolicy {
    /// The queue timeout of a request that asks for `own`.
    fn queue_timeout(&self, own: Option<Duration>) -> Option<Duration> {
        match (self.timeout, own) {
            (None, own) => own,
            (Some(limit), Some(own)) if self.timeout_override => Some(limit.min(own)),
            (limit, _) => limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    struct Item {
        name: &'static str,
        key: u8,
        rows: usize,
        cancelled: bool,
        deadline: Option<Instant>,
    }

    impl Waiting for Item {
        type Key = u8;
        fn key(&self) -> &u8 {
            &self.key
        }
        fn rows(&self) -> usize {
            self.rows
        }
        fn cancelled(&self) -> bool {
            self.cancelled
        }
        fn deadline(&self) -> Option<Instant> {
            self.deadline
        }
    }

    fn item(name: &'static str) -> Item {
        Item { name, key: 0, rows: 1, cancelled: false, deadline: None }
    }

    fn level(size_max: usize) -> LevelPolicy {
        LevelPolicy { size_max, timeout: None, timeout_action: TimeoutAction::Reject, timeout_override: true }
    }

    fn policy(rows_max: usize) -> BatchingPolicy {
        BatchingPolicy {
            rows_max,
            merging: true,
            delay_max: Duration::ZERO,
            preferred_rows: vec![],
            levels: vec![level(100)],
            default_level: 1,
        }
    }

    fn names(taken: Taken<Item>) -> Vec<&'static str> {
        match taken {
            Taken::Batch(batch) => batch.iter().map(|i| i.name).collect(),
            Taken::WaitUntil(_) => vec!["(wait)"],
            Taken::Empty => vec![],
        }
    }

    fn drain(queue: &mut Queue<Item>, now: Instant) -> Vec<Vec<&'static str>> {
        let mut batches = vec![];
        loop {
            let batch = names(queue.take(now, &mut vec![]));
            if batch.is_empty() {
                return batches;
            }
            batches.push(batch);
        }
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn takes_all_that_waits_up_to_the_maximum() {
        let now = Instant::now();
        let mut queue = Queue::new(policy(3));
        for name in ["a", "b", "c", "d"] {
            queue.push(item(name), 0, None, now).unwrap();
        }
        assert_eq!(drain(&mut queue, now), [vec!["a", "b", "c"], vec!["d"]]);
        assert!(queue.is_empty());
    }

    #[test]
    fn different_shapes_never_share_a_batch_and_the_oldest_goes_first() {
        let now = Instant::now();
        let mut queue = Queue::new(policy(8));
        for (name, key) in [("a", 1), ("b", 2), ("c", 1), ("d", 2)] {
            queue.push(Item { key, ..item(name) }, 0, None, now).unwrap();
        }
        assert_eq!(drain(&mut queue, now), [["a", "c"], ["b", "d"]]);
    }

    #[test]
    fn rows_count_and_order_is_kept() {
        let now = Instant::now();
        let mut queue = Queue::new(policy(4));
        for (name, rows) in [("a", 2), ("b", 3), ("c", 1)] {
            queue.push(Item { rows, ..item(name) }, 0, None, now).unwrap();
        }
        // `c` would fit beside `a`, but may not overtake `b`.
        assert_eq!(drain(&mut queue, now), [vec!["a"], vec!["b", "c"]]);
    }

    #[test]
    fn full_queue_rejects_without_waiting() {
        let now = Instant::now();
        let mut queue = Queue::new(BatchingPolicy { levels: vec![level(1)], ..policy(4) });
        queue.push(item("a"), 0, None, now).unwrap();
        let (back, full) = queue.push(item("b"), 0, None, now).unwrap_err();
        assert_eq!((back.name, full.size_max), ("b", 1));
    }

    #[test]
    fn cancelled_entries_give_way_in_a_full_queue() {
        let now = Instant::now();
        let mut queue = Queue::new(BatchingPolicy { levels: vec![level(1)], ..policy(4) });
        queue.push(Item { cancelled: true, ..item("gone") }, 0, None, now).unwrap();
        queue.push(item("a"), 0, None, now).unwrap();
        assert_eq!(drain(&mut queue, now), [["a"]]);
    }

    #[test]
    fn expired_and_cancelled_work_never_leaves_in_a_batch() {
        let now = Instant::now();
        let mut queue = Queue::new(policy(8));
        queue.push(Item { deadline: Some(now + MS), ..item("late") }, 0, None, now).unwrap();
        queue.push(item("a"), 0, None, now).unwrap();
        queue.push(Item { cancelled: true, ..item("gone") }, 0, None, now).unwrap();
        queue.push(item("slow"), 0, Some(MS), now).unwrap();
        let mut expired = vec![];
        let batch = queue.take(now + MS, &mut expired);
        assert_eq!(names(batch), ["a"]);
        assert_eq!(expired.iter().map(|i| i.name).collect::<Vec<_>>(), ["late", "slow"]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn delayed_entries_run_when_nothing_else_waits() {
        let now = Instant::now();
        let delaying = LevelPolicy { timeout: Some(MS), timeout_action: TimeoutAction::Delay, ..level(10) };
        let mut queue = Queue::new(BatchingPolicy { levels: vec![delaying], ..policy(1) });
        queue.push(item("late"), 0, None, now).unwrap();
        queue.push(item("fresh"), 0, None, now + MS).unwrap();
        assert_eq!(drain(&mut queue, now + MS), [["fresh"], ["late"]]);
    }

    #[test]
    fn delayed_entries_count_at_their_level_and_go_before_lower_ones() {
        let now = Instant::now();
        let delaying = LevelPolicy { timeout: Some(MS), timeout_action: TimeoutAction::Delay, ..level(2) };
        let mut queue = Queue::new(BatchingPolicy { levels: vec![delaying, level(9)], ..policy(1) });
        queue.push(item("late"), 1, None, now).unwrap();
        queue.push(item("low"), 2, None, now).unwrap();
        queue.push(item("fresh"), 1, None, now + MS).unwrap();
        assert_eq!(names(queue.take(now + MS, &mut vec![])), ["fresh"]);
        queue.push(item("next"), 1, None, now + MS).unwrap();
        assert!(queue.push(item("surplus"), 1, None, now + MS).is_err(), "delayed entries count");
        assert_eq!(drain(&mut queue, now + MS), [["next"], ["late"], ["low"]]);
    }

    #[test]
    fn a_batch_that_cannot_grow_does_not_wait() {
        let now = Instant::now();
        let mut queue = Queue::new(BatchingPolicy { delay_max: 5 * MS, ..policy(8) });
        for (name, rows) in [("a", 5), ("b", 4)] {
            queue.push(Item { rows, ..item(name) }, 0, None, now).unwrap();
        }
        assert_eq!(names(queue.take(now, &mut vec![])), ["a"]);
        assert_eq!(names(queue.take(now, &mut vec![])), ["(wait)"]);
    }

    #[test]
    fn an_entry_that_would_expire_while_it_waits_is_not_held_back() {
        let now = Instant::now();
        let mut queue = Queue::new(BatchingPolicy { delay_max: 5 * MS, ..policy(8) });
        queue.push(item("a"), 0, Some(3 * MS), now).unwrap();
        assert_eq!(names(queue.take(now, &mut vec![])), ["a"]);
    }

    #[test]
    fn preferred_sizes_are_sums_of_whole_requests() {
        let now = Instant::now();
        let mut queue = Queue::new(BatchingPolicy { preferred_rows: vec![4, 6], ..policy(8) });
        for name in ["a", "b", "c"] {
            queue.push(Item { rows: 3, ..item(name) }, 0, None, now).unwrap();
        }
        assert_eq!(drain(&mut queue, now), [vec!["a", "b"], vec!["c"]]);
    }

    #[test]
    fn a_request_may_shorten_the_timeout_only_where_allowed() {
        let limited = |timeout_override| LevelPolicy { timeout: Some(4 * MS), timeout_override, ..level(1) };
        assert_eq!(limited(true).queue_timeout(Some(MS)), Some(MS));
        assert_eq!(limited(true).queue_timeout(Some(9 * MS)), Some(4 * MS));
        assert_eq!(limited(false).queue_timeout(Some(MS)), Some(4 * MS));
        assert_eq!(level(1).queue_timeout(Some(MS)), Some(MS));
    }

    #[test]
    fn higher_levels_go_first_and_take_lower_ones_along() {
        let now = Instant::now();
        let levels = vec![level(10), level(10)];
        let mut queue = Queue::new(BatchingPolicy { levels, default_level: 2, ..policy(2) });
        for (name, level) in [("low", 2), ("default", 0), ("beyond", 9), ("high", 1)] {
            queue.push(item(name), level, None, now).unwrap();
        }
        assert_eq!(drain(&mut queue, now), [vec!["high", "low"], vec!["default", "beyond"]]);
    }

    #[test]
    fn delay_holds_a_batch_until_it_is_full_or_old() {
        let now = Instant::now();
        let mut queue = Queue::new(BatchingPolicy { delay_max: 5 * MS, ..policy(2) });
        queue.push(item("a"), 0, None, now).unwrap();
        assert!(matches!(queue.take(now, &mut vec![]), Taken::WaitUntil(t) if t == now + 5 * MS));
        queue.push(item("b"), 0, None, now).unwrap();
        assert_eq!(names(queue.take(now, &mut vec![])), ["a", "b"]);
        queue.push(item("c"), 0, None, now).unwrap();
        assert_eq!(names(queue.take(now + 5 * MS, &mut vec![])), ["c"]);
    }

    #[test]
    fn a_full_batch_is_not_held_up_by_another_shape_that_waits() {
        let now = Instant::now();
        let mut queue = Queue::new(BatchingPolicy { delay_max: 5 * MS, ..policy(2) });
        for (name, key) in [("a", 1), ("b", 2), ("c", 2)] {
            queue.push(Item { key, ..item(name) }, 0, None, now).unwrap();
        }
        assert_eq!(names(queue.take(now, &mut vec![])), ["b", "c"]);
        assert_eq!(names(queue.take(now, &mut vec![])), ["(wait)"]);
    }

    #[test]
    fn preferred_sizes_leave_without_waiting_and_without_more() {
        let now = Instant::now();
        let mut queue =
            Queue::new(BatchingPolicy { delay_max: 5 * MS, preferred_rows: vec![2, 4], ..policy(8) });
        for name in ["a", "b", "c", "d", "e"] {
            queue.push(item(name), 0, None, now).unwrap();
        }
        assert_eq!(names(queue.take(now, &mut vec![])), ["a", "b", "c", "d"]);
        assert_eq!(names(queue.take(now, &mut vec![])), ["(wait)"]);
        assert_eq!(names(queue.take(now + 5 * MS, &mut vec![])), ["e"]);
    }

    #[test]
    fn without_merging_each_request_runs_alone() {
        let now = Instant::now();
        let mut queue = Queue::new(BatchingPolicy { merging: false, ..policy(8) });
        queue.push(item("a"), 0, None, now).unwrap();
        queue.push(item("b"), 0, None, now).unwrap();
        assert_eq!(drain(&mut queue, now), [["a"], ["b"]]);
    }
}
