//! An open loop: requests are sent when they are due, whatever became of those before.
//!
//! Always: no request of the schedule is left out; what cannot be sent yet waits, and its latency counts on.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::{Due, LAST_ANSWERS, Worker, lock};
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
#[derive(Default)]
struct Queue {
    /// Its length is bounded by the rate and the time that a load lasts.
    due: RefCell<VecDeque<Due>>,
    idle: Cell<usize>,
    lines: Cell<usize>,
    filled: Notify,
}

/// Sends this thread's share of a schedule until the load stops.
pub async fn run(worker: Rc<Worker>, rate: f64, process: Process) {
    let default = match worker.calls.protocol {
        Protocol::Grpc => GRPC_CONNECTIONS,
        Protocol::Json | Protocol::Binary => HTTP_CONNECTIONS,
    };
    let connections = worker.share.part(worker.effort.connections.unwrap_or(default)).max(1);
    let lines_max = match worker.calls.protocol {
        Protocol::Grpc => connections * STREAMS,
        Protocol::Json | Protocol::Binary => connections,
    };
    let queue = Rc::new(Queue::default());
    let mut tasks = JoinSet::new();
    let mut lines = worker.lines(connections);
    let mut begin = || {
        let line = lines();
        tasks.spawn_local(serve(Rc::clone(&worker), Rc::clone(&queue), line));
    };
    let dispatching = dispatch(&worker, &queue, lines_max, rate, process, &mut begin);
    if let Some(Err(error)) = worker.until_stopped(dispatching).await {
        // Without a timer nothing more is sent: the counts say so, and this says why.
        eprintln!("weir: the timer of the load generator failed: {error}");
        return;
    }
    queue.due.borrow_mut().clear();
    queue.filled.notify_waiters();
    let _ = tokio::time::timeout(LAST_ANSWERS, async { while tasks.join_next().await.is_some() {} }).await;
}

async fn dispatch(
    worker: &Worker,
    queue: &Queue,
    lines_max: usize,
    rate: f64,
    process: Process,
    begin: &mut impl FnMut(),
) -> std::io::Result<()> {
    let alarm = Alarm::new()?;
    let (index, of) = (worker.share.index, worker.share.of);
    // Every thread follows the whole schedule and sends each of its own: bursts are bursts of the whole load.
    let mut schedule = Schedule::new(process, rate, worker.effort.seed).skip(index).step_by(of);
    let mut next = schedule.next().unwrap_or(u64::MAX);
    loop {
        let now = worker.now();
        let mut became_due = 0;
        while next <= now {
            let free = queue.idle.get() > 0;
            queue
                .due
                .borrow_mut()
                .push_back(Due { at: next, queued: !free && queue.lines.get() >= lines_max });
            if free {
                queue.idle.set(queue.idle.get() - 1);
                queue.filled.notify_one();
            } else if queue.lines.get() < lines_max {
                queue.lines.set(queue.lines.get() + 1);
                begin();
            }
            became_due += 1;
            next = schedule.next().unwrap_or(u64::MAX);
        }
        if became_due > 0 {
            lock(&worker.tally).due += became_due;
        }
        match next.saturating_sub(worker.now()) {
            0 => tokio::task::yield_now().await,
            wait => alarm.after(Duration::from_nanos(wait)).await?,
        }
    }
}

/// Sends what is due on one line.
async fn serve(worker: Rc<Worker>, queue: Rc<Queue>, mut line: Line) {
    while !worker.stopped() {
        let due = queue.due.borrow_mut().pop_front();
        match due {
            Some(due) => worker.ask(&mut line, Some(due)).await,
            None => {
                queue.idle.set(queue.idle.get() + 1);
                queue.filled.notified().await;
            }
        }
    }
}
