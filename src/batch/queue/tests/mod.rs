//! What the queue does with and without limits, delays, levels and sizes.

mod lengths;
mod objective;

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
    fn bytes(&self) -> usize {
        8 * self.rows
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
        objective: None,
        call_max: None,
    }
}

/// A queue before one instance, that knows nothing of costs.
fn queue(policy: BatchingPolicy) -> Queue<Item> {
    let costs = Arc::new(Costs::new(policy.rows_max));
    Queue::new(Batching { policy, costs }, 1)
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
    let mut queue = queue(policy(3));
    for name in ["a", "b", "c", "d"] {
        queue.push(item(name), 0, None, now).unwrap();
    }
    assert_eq!(drain(&mut queue, now), [vec!["a", "b", "c"], vec!["d"]]);
    assert!(queue.is_empty());
}

#[test]
fn different_shapes_never_share_a_batch_and_the_oldest_goes_first() {
    let now = Instant::now();
    let mut queue = queue(policy(8));
    for (name, key) in [("a", 1), ("b", 2), ("c", 1), ("d", 2)] {
        queue.push(Item { key, ..item(name) }, 0, None, now).unwrap();
    }
    assert_eq!(drain(&mut queue, now), [["a", "c"], ["b", "d"]]);
}

#[test]
fn rows_count_and_order_is_kept() {
    let now = Instant::now();
    let mut queue = queue(policy(4));
    for (name, rows) in [("a", 2), ("b", 3), ("c", 1)] {
        queue.push(Item { rows, ..item(name) }, 0, None, now).unwrap();
    }
    // `c` would fit beside `a`, but may not overtake `b`.
    assert_eq!(drain(&mut queue, now), [vec!["a"], vec!["b", "c"]]);
}

#[test]
fn full_queue_rejects_without_waiting() {
    let now = Instant::now();
    let mut queue = queue(BatchingPolicy { levels: vec![level(1)], ..policy(4) });
    queue.push(item("a"), 0, None, now).unwrap();
    let (back, full) = queue.push(item("b"), 0, None, now).unwrap_err();
    assert_eq!((back.name, full), ("b", Refusal::Full { size_max: 1 }));
}

#[test]
fn cancelled_entries_give_way_in_a_full_queue() {
    let now = Instant::now();
    let mut queue = queue(BatchingPolicy { levels: vec![level(1)], ..policy(4) });
    queue.push(Item { cancelled: true, ..item("gone") }, 0, None, now).unwrap();
    queue.push(item("a"), 0, None, now).unwrap();
    assert_eq!(drain(&mut queue, now), [["a"]]);
}

#[test]
fn expired_and_cancelled_work_never_leaves_in_a_batch() {
    let now = Instant::now();
    let mut queue = queue(policy(8));
    queue.push(Item { deadline: Some(now + MS), ..item("late") }, 0, None, now).unwrap();
    queue.push(item("a"), 0, None, now).unwrap();
    queue.push(Item { cancelled: true, ..item("gone") }, 0, None, now).unwrap();
    queue.push(item("slow"), 0, Some(MS), now).unwrap();
    let mut dropped = vec![];
    let batch = queue.take(now + MS, &mut dropped);
    assert_eq!(names(batch), ["a"]);
    assert_eq!(dropped.iter().map(|d| d.item.name).collect::<Vec<_>>(), ["late", "slow"]);
    assert!(dropped.iter().all(|d| d.reason == DropReason::Expired));
    assert_eq!(queue.len(), 0);
}

#[test]
fn delayed_entries_run_when_nothing_else_waits() {
    let now = Instant::now();
    let delaying = LevelPolicy { timeout: Some(MS), timeout_action: TimeoutAction::Delay, ..level(10) };
    let mut queue = queue(BatchingPolicy { levels: vec![delaying], ..policy(1) });
    queue.push(item("late"), 0, None, now).unwrap();
    queue.push(item("fresh"), 0, None, now + MS).unwrap();
    assert_eq!(drain(&mut queue, now + MS), [["fresh"], ["late"]]);
}

#[test]
fn delayed_entries_count_at_their_level_and_go_before_lower_ones() {
    let now = Instant::now();
    let delaying = LevelPolicy { timeout: Some(MS), timeout_action: TimeoutAction::Delay, ..level(2) };
    let mut queue = queue(BatchingPolicy { levels: vec![delaying, level(9)], ..policy(1) });
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
    let mut queue = queue(BatchingPolicy { delay_max: 5 * MS, ..policy(8) });
    for (name, rows) in [("a", 5), ("b", 4)] {
        queue.push(Item { rows, ..item(name) }, 0, None, now).unwrap();
    }
    assert_eq!(names(queue.take(now, &mut vec![])), ["a"]);
    assert_eq!(names(queue.take(now, &mut vec![])), ["(wait)"]);
}

#[test]
fn an_entry_that_would_expire_while_it_waits_is_not_held_back() {
    let now = Instant::now();
    let mut queue = queue(BatchingPolicy { delay_max: 5 * MS, ..policy(8) });
    queue.push(item("a"), 0, Some(3 * MS), now).unwrap();
    assert_eq!(names(queue.take(now, &mut vec![])), ["a"]);
}

#[test]
fn preferred_sizes_are_sums_of_whole_requests() {
    let now = Instant::now();
    let mut queue = queue(BatchingPolicy { preferred_rows: vec![4, 6], ..policy(8) });
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
    let mut queue = queue(BatchingPolicy { levels, default_level: 2, ..policy(2) });
    for (name, level) in [("low", 2), ("default", 0), ("beyond", 9), ("high", 1)] {
        queue.push(item(name), level, None, now).unwrap();
    }
    assert_eq!(drain(&mut queue, now), [vec!["high", "low"], vec!["default", "beyond"]]);
}

#[test]
fn delay_holds_a_batch_until_it_is_full_or_old() {
    let now = Instant::now();
    let mut queue = queue(BatchingPolicy { delay_max: 5 * MS, ..policy(2) });
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
    let mut queue = queue(BatchingPolicy { delay_max: 5 * MS, ..policy(2) });
    for (name, key) in [("a", 1), ("b", 2), ("c", 2)] {
        queue.push(Item { key, ..item(name) }, 0, None, now).unwrap();
    }
    assert_eq!(names(queue.take(now, &mut vec![])), ["b", "c"]);
    assert_eq!(names(queue.take(now, &mut vec![])), ["(wait)"]);
}

#[test]
fn preferred_sizes_leave_without_waiting_and_without_more() {
    let now = Instant::now();
    let mut queue = queue(BatchingPolicy { delay_max: 5 * MS, preferred_rows: vec![2, 4], ..policy(8) });
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
    let mut queue = queue(BatchingPolicy { merging: false, ..policy(8) });
    queue.push(item("a"), 0, None, now).unwrap();
    queue.push(item("b"), 0, None, now).unwrap();
    assert_eq!(drain(&mut queue, now), [["a"], ["b"]]);
}
