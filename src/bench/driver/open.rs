//! An open loop: requests are sent when they are due, whatever became of those before.
//!
//! Always: no request of the schedule is left out; what cannot be sent yet waits, and its latency counts on.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::{Due, LAST_ANSWERS, Worker, all_of, lock};
use crate::bench::alarm::Alarm;
use crate::bench::arrivals::{Process, Schedule};
use crate::bench::plan::Protocol;
use crate::bench::wire::Line;

/// Connections over HTTP at the most: half of the files that a process may have open on a usual Linux.
const HTTP_CONNECTIONS: usize = 512;

/// Connections over gRPC, each with many streams.
const GRPC_CONNECTIONS: usize = 8;

/// Requests under way on one gRPC connection: a usual limit of servers.
const STREAMS: usize = 100;

/// Requests that are due, and the lines that wait for them.
struct Queue {
    worker: Rc<Worker>,
    /// Its length is bounded by the rate and the time that a load lasts.
    due: RefCell<VecDeque<Due>>,
    idle: Cell<usize>,
    lines: Cell<usize>,
    lines_max: usize,
    filled: Notify,
}

/// Sends this thread's share of a schedule until the load stops.
pub async fn run(worker: Rc<Worker>, rate: f64, process: Process) {
    let default = match worker.calls.protocol {
        Protocol::Grpc => GRPC_CONNECTIONS,
        Protocol::Json | Protocol::Binary => HTTP_CONNECTIONS,
    };
    let connections = worker.share.part(worker.effort.connections.unwrap_or(default)).max(1);
    let queue = Rc::new(Queue {
        worker: Rc::clone(&worker),
        due: RefCell::default(),
        idle: Cell::default(),
        lines: Cell::default(),
        lines_max: match worker.calls.protocol {
            Protocol::Grpc => connections * STREAMS,
            Protocol::Json | Protocol::Binary => connections,
        },
        filled: Notify::new(),
    });
    // Every thread follows the whole schedule and sends each of its own: bursts are bursts of the whole load.
    let whole = Schedule::new(process, rate, worker.effort.seed);
    let own = whole.skip(worker.share.index).step_by(worker.share.of);
    let mut tasks = JoinSet::new();
    let mut lines = worker.lines(connections);
    let dispatching = queue.dispatch(own, || _ = tasks.spawn_local(Rc::clone(&queue).serve(lines())));
    worker.until_stopped(dispatching).await;
    queue.due.borrow_mut().clear();
    queue.filled.notify_waiters();
    let _ = tokio::time::timeout(LAST_ANSWERS, all_of(&mut tasks)).await;
}

impl Queue {
    /// Puts requests in the queue when they are due, for ever. `begin` starts one more line.
    async fn dispatch(&self, mut schedule: impl Iterator<Item = u64>, mut begin: impl FnMut()) {
        let alarm = Alarm::new();
        let mut next = schedule.next().unwrap_or(u64::MAX);
        loop {
            let now = self.worker.now();
            let mut became_due = 0;
            while next <= now {
                self.offer(next, &mut begin);
                became_due += 1;
                next = schedule.next().unwrap_or(u64::MAX);
            }
            if became_due > 0 {
                lock(&self.worker.tally).due += became_due;
            }
            match next.saturating_sub(self.worker.now()) {
                0 => tokio::task::yield_now().await,
                wait => alarm.after(Duration::from_nanos(wait)).await,
            }
        }
    }

    fn offer(&self, at: u64, begin: &mut impl FnMut()) {
        let (idle, lines) = (self.idle.get(), self.lines.get());
        let queued = idle == 0 && lines >= self.lines_max;
        self.due.borrow_mut().push_back(Due { at, queued });
        if idle > 0 {
            self.idle.set(idle - 1);
            // The line that was used last: few connections stay warm, the others are there for bad times.
            self.filled.notify_last();
        } else if !queued {
            self.lines.set(lines + 1);
            begin();
        }
    }

    /// Sends what is due on one line.
    async fn serve(self: Rc<Self>, mut line: Line) {
        while !self.worker.stopped() {
            let due = self.due.borrow_mut().pop_front();
            match due {
                Some(due) => self.worker.ask(&mut line, Some(due)).await,
                None => {
                    self.idle.set(self.idle.get() + 1);
                    self.filled.notified().await;
                }
            }
        }
    }
}
