//! Keeps a load on a server from threads of its own, until it is told to stop.
//!
//! Always: each request is counted once, when it is over; those under way at the end are answered first, within
//! limits. Not here: how long a load lasts and what its counts mean.

mod closed;
mod open;

use std::cell::Cell;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::{JoinSet, LocalSet};

use super::BenchError;
use super::encode::Calls;
use super::plan::{Effort, Load, Protocol};
use super::tally::{Failure, Tally, Times};
use super::target::Endpoint;
use super::wire::{Channel, Connection, Line};

/// How long answers that are still missing at the end of a load are waited for.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// After a connection that failed a line waits, so that a server that has gone is not asked in a tight loop.
const AFTER_BROKEN: Duration = Duration::from_millis(20);

/// A load that is under way. Dropping it ends it too.
pub struct Driver {
    workers: Vec<JoinHandle<()>>,
    tallies: Vec<Arc<Mutex<Tally>>>,
    stop: Arc<Stopping>,
}

#[derive(Default)]
struct Stopping {
    stopped: AtomicBool,
    changed: Notify,
}

impl Driver {
    /// Starts a load of encoded requests.
    ///
    /// Errors: the operating system gives no more threads or files.
    pub fn start(
        endpoint: Endpoint<'_>,
        calls: &Calls,
        load: Load,
        effort: &Effort,
    ) -> Result<Self, BenchError> {
        let stop = Arc::new(Stopping::default());
        let epoch = Instant::now();
        let threads = match load {
            Load::Closed { concurrency } => effort.threads.min(concurrency),
            Load::Open { .. } => effort.threads,
        };
        let mut driver = Self { workers: Vec::new(), tallies: Vec::new(), stop: Arc::clone(&stop) };
        for index in 0..threads.max(1) {
            let tally = Arc::new(Mutex::new(Tally::default()));
            let worker = Worker {
                share: Share { index, of: threads.max(1) },
                address: endpoint.address,
                host: endpoint.host().to_owned(),
                calls: calls.clone(),
                effort: *effort,
                epoch,
                tally: Arc::clone(&tally),
                stop: Arc::clone(&stop),
                next: Cell::new(index),
            };
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(BenchError::Threads)?;
            let named = std::thread::Builder::new().name(format!("bench-{index}"));
            let run = move || LocalSet::new().block_on(&runtime, Rc::new(worker).run(load));
            driver.workers.push(named.spawn(run).map_err(BenchError::Threads)?);
            driver.tallies.push(tally);
        }
        Ok(driver)
    }

    /// What was counted since this was asked last.
    pub fn take(&self) -> Tally {
        let mut sum = Tally::default();
        for tally in &self.tallies {
            // Adding takes longer than a request may wait for its count.
            let taken = std::mem::take(&mut *lock(tally));
            sum.add(&taken);
        }
        sum
    }
}

impl Drop for Driver {
    /// Ends the load; blocks until what is under way is answered, or `LAST_ANSWERS` have passed.
    fn drop(&mut self) {
        self.stop.stopped.store(true, Ordering::Relaxed);
        self.stop.changed.notify_waiters();
        for worker in self.workers.drain(..) {
            // A worker that panicked has said so.
            let _ = worker.join();
        }
    }
}

/// Waits until every task has ended; may be begun anew.
async fn all_of(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().expect("counting does not panic")
}

/// Which of the threads this is.
#[derive(Debug, Clone, Copy)]
struct Share {
    index: usize,
    of: usize,
}

impl Share {
    /// How many of `all` are this thread's.
    fn part(self, all: usize) -> usize {
        all / self.of + usize::from(self.index < all % self.of)
    }
}

/// One thread's side of the load.
struct Worker {
    share: Share,
    address: SocketAddr,
    host: String,
    calls: Calls,
    effort: Effort,
    epoch: Instant,
    tally: Arc<Mutex<Tally>>,
    stop: Arc<Stopping>,
    /// Which of the requests is the next one.
    next: Cell<usize>,
}

impl Worker {
    async fn run(self: Rc<Self>, load: Load) {
        match load {
            Load::Closed { concurrency } => closed::run(self, concurrency).await,
            Load::Open { rate, process } => open::run(self, rate, process).await,
        }
    }

    /// Nanoseconds since the load began.
    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    fn stopped(&self) -> bool {
        self.stop.stopped.load(Ordering::Relaxed)
    }

    /// Gives what `work` gives, or nothing once the load is told to stop.
    async fn until_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let changed = self.stop.changed.notified();
        tokio::pin!(changed);
        // From here on no notice is missed; one that came before shows in the flag.
        changed.as_mut().enable();
        if self.stopped() {
            return None;
        }
        tokio::select! {
            done = work => Some(done),
            () = changed => None,
        }
    }

    /// Ways for requests, opened when they are used first: a connection each over HTTP, over gRPC streams of
    /// `connections`.
    fn lines(self: &Rc<Self>, connections: usize) -> impl FnMut() -> Line + use<> {
        let worker = Rc::clone(self);
        let channel = || Rc::new(Channel::for_predictions(worker.address, &worker.host));
        let channels: Vec<Rc<Channel>> = match worker.calls.protocol {
            Protocol::Grpc => (0..connections.max(1)).map(|_| channel()).collect(),
            Protocol::Json | Protocol::Binary => Vec::new(),
        };
        let mut made = 0;
        move || {
            made += 1;
            match channels.is_empty() {
                true => Line::Http(Connection::new(worker.address)),
                false => Line::Grpc(Rc::clone(&channels[made % channels.len()])),
            }
        }
    }

    /// Sends the next request on a line and counts what becomes of it. `due` is none for one that is due now.
    async fn ask(&self, line: &mut Line, due: Option<Due>) {
        let bodies = &self.calls.bodies;
        let body = &bodies[self.next.get() % bodies.len()];
        self.next.set(self.next.get() + self.share.of);
        let sent = self.now();
        let outcome = line.ask(body, self.effort.timeout).await;
        let broken = outcome.as_ref().is_err_and(Failure::is_connection);
        let Due { at, queued } = due.unwrap_or(Due { at: sent, queued: false });
        self.count(Times { due: at, sent, done: self.now(), queued }, outcome, line.reopened());
        if broken {
            tokio::time::sleep(AFTER_BROKEN).await;
        }
    }

    fn count(&self, times: Times, outcome: Result<(), Failure>, reopened: u64) {
        let mut tally = lock(&self.tally);
        tally.note(times, outcome, self.effort.objective);
        tally.reopened += reopened;
    }
}

/// A request of an open loop that is to be sent.
#[derive(Debug, Clone, Copy)]
struct Due {
    at: u64,
    /// Whether no line was free at that time.
    queued: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiting_for_tasks_may_begin_anew_after_the_last_has_ended() {
        let mut tasks = JoinSet::new();
        tasks.spawn(async {});
        all_of(&mut tasks).await;
        all_of(&mut tasks).await;
    }

    #[test]
    fn shares_add_up_to_the_whole() {
        for (all, of) in [(1, 1), (7, 3), (3, 7), (128, 4)] {
            let parts = (0..of).map(|index| Share { index, of }.part(all));
            assert_eq!(parts.sum::<usize>(), all);
        }
    }
}
