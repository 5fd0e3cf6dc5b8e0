//! The threads that serve connections.
//!
//! Always: a connection stays on one thread from its first byte to its last, so that nothing of it moves between
//! cores; a new one goes to the thread that has the fewest. Each thread has a runtime of its own.
//! Not here: long work. Whoever serves a connection hands it to threads that may block.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::backend::STACK_BYTES;

/// Threads among which connections are dealt out.
#[derive(Debug)]
pub struct Workers(Vec<Worker>);

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
    /// `None` for a runtime that somebody else owns.
    thread: Option<Thread>,
}

#[derive(Debug)]
struct Thread {
    /// Dropping it ends the thread.
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl Workers {
    /// Starts threads, at least one. Errors: the system gives no thread or no descriptor.
    pub fn start(count: usize) -> io::Result<Self> {
        (0..count.max(1)).map(Worker::start).collect::<io::Result<Vec<_>>>().map(Self)
    }

    /// The runtime of the caller alone.
    pub fn current() -> Self {
        Self(vec![Worker { runtime: Handle::current(), connections: Arc::default(), thread: None }])
    }

    /// Runs a connection on the thread that has the fewest.
    pub fn serve(&self, tasks: &mut JoinSet<()>, connection: impl Future<Output = ()> + Send + 'static) {
        let fewest = |worker: &&Worker| worker.connections.load(Ordering::Relaxed);
        let worker = self.0.iter().min_by_key(fewest).expect("there is at least one");
        let place = Place::take(&worker.connections);
        let served = async move {
            connection.await;
            drop(place);
        };
        tasks.spawn_on(served, &worker.runtime);
    }

    /// Ends the threads, whatever they serve, and tells whether they did end within `limit`.
    pub async fn end(self, limit: Duration) -> bool {
        let all = async {
            for thread in self.0.into_iter().filter_map(|worker| worker.thread) {
                drop(thread.stop);
                let _ = thread.ended.await;
            }
        };
        tokio::time::timeout(limit, all).await.is_ok()
    }
}

/// How often the thread that may block is given something to do: before it ends for want of it, which takes tokio ten
/// seconds.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// Keeps a thread of the runtime that may block. Where the system gives no more threads, work then waits for that one;
/// without any, tokio panics. Never returns.
pub async fn keep_a_thread() {
    loop {
        let _ = tokio::task::spawn_blocking(|| ()).await;
        tokio::time::sleep(IDLE_MAX).await;
    }
}

impl Worker {
    fn start(number: usize) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell_ended, ended) = oneshot::channel();
        let (tell_started, started) = mpsc::channel();
        let thread = std::thread::Builder::new().name(format!("serve-{number}")).stack_size(STACK_BYTES);
        thread.spawn(move || {
            let runtime = Builder::new_current_thread().thread_stack_size(STACK_BYTES).enable_all().build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = tell_started.send(Err(error));
                    return;
                }
            };
            runtime.spawn(keep_a_thread());
            let _ = tell_started.send(Ok(runtime.handle().clone()));
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
            let _ = tell_ended.send(());
        })?;
        let runtime = started.recv().map_err(io::Error::other)??;
        Ok(Self { runtime, connections: Arc::default(), thread: Some(Thread { stop, ended }) })
    }
}

/// Counts one connection of a thread for as long as it lives.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(connections: &Arc<AtomicUsize>) -> Self {
        connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(connections))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_are_dealt_out_evenly() {
        let workers = Workers::start(3).unwrap();
        let mut tasks = JoinSet::new();
        let (tell, told) = tokio::sync::watch::channel(false);
        for _ in 0..7 {
            let mut told = told.clone();
            workers.serve(&mut tasks, async move { _ = told.wait_for(|end| *end).await });
        }
        let mut counts: Vec<usize> =
            workers.0.iter().map(|w| w.connections.load(Ordering::Relaxed)).collect();
        counts.sort_unstable();
        assert_eq!(counts, [2, 2, 3]);
        tell.send_replace(true);
        while tasks.join_next().await.is_some() {}
        assert!(workers.0.iter().all(|worker| worker.connections.load(Ordering::Relaxed) == 0));
        assert!(workers.end(Duration::from_secs(60)).await);
    }
}
