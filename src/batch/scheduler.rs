//! Runs a servable's queue on its instances.
//!
//! Always: one thread per instance, named after the servable; an instance that is free takes what waits. A
//! failing or panicking session call fails its batch and nothing else. Expired and cancelled work never reaches
//! a session.
//! Not here: which work goes together (`queue`), how it is joined (`merge`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::merge::{ShapeKey, merge, split};
use super::queue::{BatchingPolicy, Queue, Taken, Waiting};
use crate::backend::{RunError, Session};
use crate::error::{ErrorKind, ServeError};
use crate::event::{BatchEvent, ServableSink};
use crate::infer::{Limits, TensorRow, Timings};
use crate::tensor::Tensor;

/// The answer to a [`Job`]: outputs in the order of `Job::outputs`, and where its time went.
pub type Answer = Result<(Vec<Tensor>, Timings), ServeError>;

/// One request as the scheduler sees it.
pub struct Job {
    /// In the order of the session's inputs, with the session's own shapes.
    pub inputs: TensorRow,
    /// Outputs to compute, by index, ascending.
    pub outputs: SmallVec<[usize; 4]>,
    /// Rows on the batch axis; 1 for a model that is not batched.
    pub rows: usize,
    pub limits: Limits,
    pub arrived: Instant,
    pub key: ShapeKey,
    /// Set once the job has left the queue for a session.
    pub picked: Arc<AtomicBool>,
    /// Dropped by a client that has gone.
    pub reply: oneshot::Sender<Answer>,
}

impl Waiting for Job {
    type Key = ShapeKey;

    fn key(&self) -> &ShapeKey {
        &self.key
    }
    fn rows(&self) -> usize {
        self.rows
    }
    fn cancelled(&self) -> bool {
        self.reply.is_closed()
    }
    fn deadline(&self) -> Option<Instant> {
        self.limits.deadline
    }
}

/// Why a job was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubmitError {
    Full { size_max: usize },
    Closed,
}

struct State {
    queue: Queue<Job>,
    closed: bool,
    /// Instances that wait for work.
    idle: usize,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    /// Jobs that wait, for whoever watches.
    depth: AtomicUsize,
    sink: Arc<dyn ServableSink>,
}

impl Shared {
    /// A panic under this lock would be our bug; the data stays usable all the same.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Owns the queue and the instance threads of one servable.
pub struct Scheduler {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Scheduler {
    /// Starts one thread per entry of `instances`; a session may stand there several times.
    pub fn start(
        name: &str,
        instances: Vec<Arc<dyn Session>>,
        policy: BatchingPolicy,
        sink: Arc<dyn ServableSink>,
    ) -> std::io::Result<Self> {
        let state = State { queue: Queue::new(policy), closed: false, idle: 0 };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            work: Condvar::new(),
            depth: AtomicUsize::new(0),
            sink,
        });
        let scheduler = Self { shared: Arc::clone(&shared), threads: Mutex::new(Vec::new()) };
        for session in instances {
            let shared = Arc::clone(&shared);
            let thread =
                std::thread::Builder::new().name(name.to_owned()).spawn(move || serve(&shared, &*session))?;
            scheduler.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(scheduler)
    }

    /// Queues a job, or says at once why not. Never blocks for longer than the queue's lock.
    ///
    /// Returns the moment from which the job is rejected if it still waits.
    pub fn submit(&self, job: Job) -> Result<Option<Instant>, SubmitError> {
        let (level, timeout, now) = (job.limits.priority, job.limits.timeout, job.arrived);
        let mut state = self.shared.lock();
        if state.closed {
            return Err(SubmitError::Closed);
        }
        let pushed = state.queue.push(job, level, timeout, now);
        self.shared.depth.store(state.queue.len(), Ordering::Relaxed);
        let wake = state.idle > 0;
        drop(state);
        match pushed {
            Ok(rejected_at) => {
                if wake {
                    self.shared.work.notify_one();
                }
                Ok(rejected_at)
            }
            Err((_, full)) => Err(SubmitError::Full { size_max: full.size_max }),
        }
    }

    /// Jobs that wait.
    pub fn depth(&self) -> usize {
        self.shared.depth.load(Ordering::Relaxed)
    }

    /// Takes no more jobs; the threads end once what waits is done.
    pub fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_all();
    }

    /// Waits for the threads to end. Call [`Self::close`] first.
    pub fn join(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A panic outside a session call is our bug; it was printed when it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.close();
    }
}

/// One instance: takes batches until the scheduler is closed and empty.
fn serve(shared: &Shared, session: &dyn Session) {
    let mut expired = Vec::new();
    while let Some(batch) = next_batch(shared, &mut expired) {
        for job in expired.drain(..) {
            answer(job, Err(ServeError::new(ErrorKind::DeadlineExceeded, "Request timeout expired")));
        }
        if !batch.is_empty() {
            run(session, batch, &*shared.sink);
        }
    }
}

/// Blocks for the next batch. An empty batch means that only expired jobs were found. `None` ends the thread.
fn next_batch(shared: &Shared, expired: &mut Vec<Job>) -> Option<Vec<Job>> {
    let mut state = shared.lock();
    loop {
        let taken = state.queue.take(Instant::now(), expired);
        shared.depth.store(state.queue.len(), Ordering::Relaxed);
        match taken {
            Taken::Batch(batch) => {
                // What is left is for the next idle instance.
                if !state.queue.is_empty() && state.idle > 0 {
                    shared.work.notify_one();
                }
                return Some(batch);
            }
            _ if !expired.is_empty() => return Some(Vec::new()),
            Taken::Empty if state.closed => return None,
            Taken::Empty => {
                state.idle += 1;
                state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
            Taken::WaitUntil(until) => {
                let pause = until.saturating_duration_since(Instant::now()).max(Duration::from_micros(1));
                state.idle += 1;
                (state, _) = shared.work.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }
}

fn run(session: &dyn Session, batch: Vec<Job>, sink: &dyn ServableSink) {
    let started = Instant::now();
    for job in &batch {
        job.picked.store(true, Ordering::Relaxed);
    }
    let mut outputs: SmallVec<[usize; 4]> =
        batch.iter().flat_map(|job| job.outputs.iter().copied()).collect();
    outputs.sort_unstable();
    outputs.dedup();
    let inputs = merge(&batch.iter().map(|job| &job.inputs).collect::<SmallVec<[_; 8]>>());
    let assembled = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| session.run(&inputs, &outputs)));
    let ran = Instant::now();
    drop(inputs);
    let rows: SmallVec<[usize; 8]> = batch.iter().map(|job| job.rows).collect();
    let answers = match outcome {
        Ok(Ok(tensors)) => {
            split(&tensors, &rows).map_err(|e| ServeError::internal(format!("the model failed: {e}")))
        }
        Ok(Err(RunError::InvalidInput(text))) => {
            Err(ServeError::invalid(format!("the model refused its input: {text}")))
        }
        Ok(Err(RunError::Failed(text))) => Err(ServeError::internal(format!("the model failed: {text}"))),
        Err(_) => Err(ServeError::internal("the model's session call ended in a panic")),
    };
    let done = Instant::now();
    let timings = Timings {
        assembly: assembled - started,
        session: ran - assembled,
        split: done - ran,
        ..Timings::default()
    };
    sink.batch(&BatchEvent {
        requests: batch.len(),
        rows: rows.iter().sum(),
        assembly: timings.assembly,
        session: timings.session,
        split: timings.split,
        succeeded: answers.is_ok(),
    });
    match answers {
        Ok(answers) => {
            for (job, tensors) in batch.into_iter().zip(answers) {
                let timings = Timings { queue: started.saturating_duration_since(job.arrived), ..timings };
                let own = wanted(tensors, &outputs, &job.outputs);
                answer(job, Ok((own, timings)));
            }
        }
        Err(error) => batch.into_iter().for_each(|job| answer(job, Err(error.clone()))),
    }
}

/// The tensors of `computed` that a job asked for. Both index lists ascend.
fn wanted(tensors: Vec<Tensor>, computed: &[usize], asked: &[usize]) -> Vec<Tensor> {
    if computed.len() == asked.len() {
        return tensors;
    }
    tensors.into_iter().zip(computed).filter(|(_, index)| asked.contains(index)).map(|(t, _)| t).collect()
}

fn answer(job: Job, answer: Answer) {
    // A client that has gone does not want it; that is not an error.
    let _ = job.reply.send(answer);
}
