//! What holds whatever comes.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;

use proptest::prelude::*;

use super::*;

const ROWS_MAX: usize = 8;

/// What the second key allows: fewer rows than some requests have.
const ROWS_MAX_OF_ONE: usize = 3;

/// A request of no tensors.
#[derive(Debug, Clone)]
struct Request {
    number: usize,
    key: u8,
    rows: usize,
    level: u64,
    deadline: Option<Instant>,
    cancelled: Rc<Cell<bool>>,
}

impl Waiting for Request {
    type Key = u8;

    fn key(&self) -> &u8 {
        &self.key
    }
    fn rows(&self) -> usize {
        self.rows
    }
    fn bytes(&self) -> usize {
        4 * self.rows
    }
    fn cancelled(&self) -> bool {
        self.cancelled.get()
    }
    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
    fn rows_max(&self) -> usize {
        if self.key == 1 { ROWS_MAX_OF_ONE } else { usize::MAX }
    }
}

/// What happens at a queue, one after the other. Times are in milliseconds.
#[derive(Debug, Clone)]
enum Event {
    Push {
        key: u8,
        rows: usize,
        level: u64,
        timeout: Option<u64>,
        deadline: Option<u64>,
    },
    /// A client goes, counted from the last one.
    Cancel(usize),
    Pass(u64),
    /// An instance asks for work, and has ended what it took before.
    Take,
    /// An instance asks for work beside those that run.
    TakeToo,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let limit = || prop::option::weighted(0.2, 1u64..30);
    let push =
        (0u8..2, 1usize..=4, 0u64..3, limit(), limit()).prop_map(|(key, rows, level, timeout, deadline)| {
            Event::Push { key, rows, level, timeout, deadline }
        });
    let event = prop_oneof![
        8 => push,
        1 => (0usize..8).prop_map(Event::Cancel),
        2 => (0u64..8).prop_map(Event::Pass),
        2 => Just(Event::Take),
        1 => Just(Event::TakeToo),
    ];
    prop::collection::vec(event, 0..120)
}

fn policy(objective: Option<u64>) -> BatchingPolicy {
    let level = LevelPolicy {
        size_max: 40,
        timeout: None,
        timeout_action: TimeoutAction::Reject,
        timeout_override: true,
    };
    BatchingPolicy {
        rows_max: ROWS_MAX,
        merging: true,
        delay_max: Duration::ZERO,
        preferred_rows: vec![],
        levels: vec![level.clone(), level],
        default_level: 1,
        objective: objective.map(Duration::from_millis),
        call_max: None,
    }
}

/// Calls of 1 ms and a half for each row.
fn costs() -> Arc<Costs> {
    let costs = Costs::new(ROWS_MAX);
    let call = |rows| (Size { rows, bytes: 4 * rows }, Duration::from_micros(1000 + 500 * rows));
    costs.seed(&[call(1), call(2)]);
    Arc::new(costs)
}

/// What was promised to a request that was admitted.
struct Promise {
    due: Option<Instant>,
    /// Nothing ran or waited when it came, so it was let in whatever was predicted.
    onto_idle: bool,
}

/// A queue and the account of what goes in and out.
struct Ledger {
    queue: Queue<Request>,
    now: Instant,
    promises: HashMap<usize, Promise>,
    requests: Vec<Request>,
    /// Numbers in the order in which they left in batches.
    ran: Vec<usize>,
    dropped: Vec<usize>,
}

impl Ledger {
    fn new(objective: Option<u64>) -> Self {
        let batching = Batching { policy: policy(objective), costs: costs() };
        Self {
            queue: Queue::new(batching, 2),
            now: Instant::now(),
            promises: HashMap::new(),
            requests: vec![],
            ran: vec![],
            dropped: vec![],
        }
    }

    fn apply(&mut self, event: Event) -> Result<(), TestCaseError> {
        match event {
            Event::Push { key, rows, level, timeout, deadline } => {
                let later = |ms: u64| self.now + Duration::from_millis(ms);
                let request = Request {
                    number: self.requests.len(),
                    key,
                    rows,
                    level: level.max(1),
                    deadline: deadline.map(later),
                    cancelled: Rc::default(),
                };
                self.push(request, timeout.map(Duration::from_millis))?;
            }
            Event::Cancel(back) => {
                if let Some(request) = self.requests.iter().rev().nth(back) {
                    request.cancelled.set(true);
                }
            }
            Event::Pass(ms) => self.now += Duration::from_millis(ms),
            Event::Take => {
                self.queue.ended();
                self.take()?;
            }
            Event::TakeToo => _ = self.take()?,
        }
        Ok(())
    }

    fn push(&mut self, request: Request, timeout: Option<Duration>) -> Result<(), TestCaseError> {
        let onto_idle = self.queue.is_empty() && self.queue.running.none();
        let number = request.number;
        self.requests.push(request.clone());
        match self.queue.push(request.clone(), request.level, timeout, self.now) {
            Ok(rejected_at) => {
                let by_objective = self.queue.policy.objective.map(|objective| self.now + objective);
                let due = by_objective
                    .map(|due| [rejected_at, request.deadline].into_iter().flatten().fold(due, Instant::min));
                self.promises.insert(number, Promise { due, onto_idle });
            }
            Err((_, Refusal::Late { .. })) => {
                prop_assert!(self.queue.policy.objective.is_some() && !onto_idle)
            }
            Err((_, Refusal::Full { size_max })) => prop_assert!(self.queue.len() >= size_max),
        }
        Ok(())
    }

    fn take(&mut self) -> Result<bool, TestCaseError> {
        let mut dropped = vec![];
        let taken = self.queue.take(self.now, &mut dropped);
        for Dropped { item, reason } in dropped {
            prop_assert!(reason == DropReason::Expired || self.queue.policy.objective.is_some());
            self.dropped.push(item.number);
        }
        let Taken::Batch(batch) = taken else { return Ok(false) };
        let rows: usize = batch.iter().map(|request| request.rows).sum();
        let size = Size { rows: rows as u64, bytes: 4 * rows as u64 };
        let end = self.now + self.queue.costs.cautious().time(size);
        prop_assert!(rows <= ROWS_MAX.min(batch[0].rows_max()) || batch.len() == 1);
        for request in &batch {
            prop_assert_eq!(request.key, batch[0].key);
            prop_assert!(!request.cancelled.get());
            prop_assert!(request.deadline.is_none_or(|deadline| deadline > self.now));
            let promise = &self.promises[&request.number];
            let in_time = promise.due.is_none_or(|due| end <= due);
            prop_assert!(in_time || promise.onto_idle, "{request:?} ends too late");
        }
        self.ran.extend(batch.iter().map(|request| request.number));
        Ok(true)
    }

    /// Lets everything out that still waits, and looks at the whole.
    fn close(mut self) -> Result<(), TestCaseError> {
        while self.take()? {
            self.queue.ended();
        }
        prop_assert_eq!(self.queue.len(), 0);
        let mut left: Vec<usize> = self.ran.iter().chain(&self.dropped).copied().collect();
        left.sort_unstable();
        let once = left.windows(2).all(|pair| pair[0] < pair[1]);
        prop_assert!(once, "answered twice: {left:?}");
        for number in self.promises.keys() {
            let gone = self.requests[*number].cancelled.get();
            prop_assert!(gone || left.binary_search(number).is_ok(), "{number} is lost");
        }
        for kind in [(0, 1), (0, 2), (1, 1), (1, 2)] {
            let of_kind = |number: &usize| {
                let request = &self.requests[*number];
                (request.key, request.level) == kind
            };
            let order: Vec<usize> = self.ran.iter().copied().filter(of_kind).collect();
            prop_assert!(order.is_sorted(), "{kind:?} out of order: {order:?}");
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn each_request_leaves_once_and_in_order(events in events()) {
        let mut ledger = Ledger::new(None);
        events.into_iter().try_for_each(|event| ledger.apply(event))?;
        ledger.close()?;
    }

    #[test]
    fn what_cannot_be_done_in_time_is_never_started(events in events(), objective in 2u64..20) {
        let mut ledger = Ledger::new(Some(objective));
        events.into_iter().try_for_each(|event| ledger.apply(event))?;
        ledger.close()?;
    }

    /// Without an objective, whatever calls cost: as many as fit, in the order of arrival.
    #[test]
    fn batches_are_cut_from_the_order_of_arrival(rows in prop::collection::vec(1usize..=4, 0..40)) {
        let mut ledger = Ledger::new(None);
        for &rows in &rows {
            ledger.apply(Event::Push { key: 0, rows, level: 1, timeout: None, deadline: None })?;
        }
        let mut expected: Vec<Vec<usize>> = vec![];
        for &rows in &rows {
            match expected.last_mut() {
                Some(batch) if batch.iter().sum::<usize>() + rows <= ROWS_MAX => batch.push(rows),
                _ => expected.push(vec![rows]),
            }
        }
        let mut batches = vec![];
        while let Taken::Batch(batch) = ledger.queue.take(ledger.now, &mut vec![]) {
            batches.push(batch.iter().map(|request| request.rows).collect::<Vec<_>>());
        }
        prop_assert_eq!(batches, expected);
    }
}
