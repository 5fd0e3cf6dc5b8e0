//! Runs a servable's queue on its instances.
//!
//! Always: one thread per instance, named after the servable; the first from the start, the others from when there
//! is work for them. An instance that is free takes what waits. As many session calls run at once as there are
//! instances, whoever runs them: where calls are short, those who wait for the answers run them on the spot, because
//! to wake another thread and to be woken by it costs more than the call. When the session call of a batch fails or
//! panics, its jobs run again one by one, so that one request's failure never fails its neighbours. Expired and
//! cancelled work never reaches a session.
//! Not here: which work goes together (`queue`), how it is joined (`merge`).

#![allow(clippy::vec_box, reason = "jobs come out of the queue in boxes and go on in them")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tokio::sync::oneshot;

use crate::backend::{RunError, STACK_BYTES, Session};
use crate::batch::cost::{Costs, Size};
use crate::batch::merge::{ShapeKey, merge, split};
use crate::batch::pad::{Padded, Text};
use crate::batch::queue::{Batching, DropReason, Dropped, Queue, Refusal, Taken, Waiting};
use crate::batch::urgency::Urgency;
use crate::batch::watch::{Calls, Presence};
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
    /// When the job came to the queue's door.
    pub queued: Instant,
    pub key: ShapeKey,
    /// Says how it is padded, where it may share a batch with requests of other lengths.
    pub text: Option<Text>,
    /// Tells its client when it leaves the queue for a session, and us when the client has gone.
    pub presence: Arc<Presence>,
    /// Dropped by a client that has gone.
    pub reply: oneshot::Sender<Answer>,
}

impl Job {
    fn size(&self) -> Size {
        Size { rows: self.rows as u64, bytes: self.bytes() as u64 }
    }
}

impl Waiting for Job {
    type Key = ShapeKey;

    fn key(&self) -> &ShapeKey {
        &self.key
    }
    fn rows(&self) -> usize {
        self.rows
    }
    fn bytes(&self) -> usize {
        match &self.text {
            None => self.inputs.iter().flatten().map(|tensor| tensor.data().len()).sum(),
            Some(text) => text.bytes(&self.inputs),
        }
    }
    fn rows_max(&self) -> usize {
        self.text.as_ref().map_or(usize::MAX, Text::rows_max)
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
    Full {
        size_max: usize,
    },
    /// It is predicted to be answered too late.
    Late {
        objective: Duration,
    },
    Closed,
}

/// Batches that take less than this may run on the thread of whoever waits for them. Meanwhile that thread serves no
/// connection: the limit is a small part of what a client would call slow, and several times what waking another
/// thread costs.
const ON_THE_SPOT_MAX: Duration = Duration::from_micros(200);

/// Stands for the time of a batch before any ran.
const NOT_MEASURED: u64 = u64::MAX;

/// A job that was queued.
#[derive(Debug, Clone, Copy)]
pub struct Queued {
    /// The moment from which the job is rejected if it still waits.
    pub rejected_at: Option<Instant>,
    /// No instance was told: whoever waits for the job must call [`Scheduler::run_on_the_spot`].
    pub on_the_spot: bool,
}

struct State {
    queue: Queue<Box<Job>>,
    closed: bool,
    /// Session calls that run, of `instances` at the most.
    running: usize,
    instances: usize,
    /// Instances must see to all that waits. Otherwise whoever waits for a job comes to run it, or has gone.
    handed_over: bool,
    /// Instances that wait for work.
    idle: usize,
    /// Of those, how many were woken and have not come yet.
    called: usize,
    /// Sessions of instances whose threads have not been needed yet.
    unstarted: Vec<Arc<dyn Session>>,
}

impl State {
    /// Takes a batch, or finds that there is none for now.
    fn take(&mut self, dropped: &mut Vec<Dropped<Box<Job>>>) -> Taken<Box<Job>> {
        let taken = self.queue.take(Instant::now(), dropped);
        self.handed_over &= !self.queue.is_empty();
        self.running += usize::from(matches!(taken, Taken::Batch(_)));
        taken
    }

    /// A session call has ended.
    fn ended(&mut self) {
        self.running -= 1;
        self.queue.ended();
    }

    /// An instance has come back from waiting, called or by itself.
    fn awake(&mut self) {
        self.idle -= 1;
        self.called = self.called.saturating_sub(1);
    }
}

struct Shared {
    name: String,
    urgency: Urgency,
    state: Mutex<State>,
    work: Condvar,
    /// Jobs that wait, for whoever watches.
    depth: AtomicUsize,
    /// What runs batches on the spot; `None` where only instances may call their sessions.
    shared_session: Option<Arc<dyn Session>>,
    /// Nanoseconds that a batch took of late.
    batch_ns: AtomicU64,
    sink: Arc<dyn ServableSink>,
    /// Learns from every session call.
    costs: Arc<Costs>,
    /// Those that run.
    calls: Arc<Calls>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Shared {
    /// A panic under this lock would be our bug; the data stays usable all the same.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_instance(self: &Arc<Self>, session: Arc<dyn Session>) -> std::io::Result<()> {
        let shared = Arc::clone(self);
        let thread = std::thread::Builder::new().name(self.name.clone()).stack_size(STACK_BYTES);
        let thread = thread.spawn(move || {
            shared.urgency.take();
            serve(&shared, &*session);
        })?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    /// Whether a job of that size, and batches as they came of late, are short enough to be run by those who wait for
    /// them. What nothing is known of is not.
    fn runs_on_the_spot(&self, size: Size) -> bool {
        let short = |time: Duration| !time.is_zero() && time <= ON_THE_SPOT_MAX;
        self.shared_session.is_some()
            && short(Duration::from_nanos(self.batch_ns.load(Ordering::Relaxed)))
            && short(self.costs.predict(size))
    }

    /// Runs a batch that [`State::take`] gave out.
    fn run(self: &Arc<Self>, session: &dyn Session, batch: Vec<Box<Job>>) {
        let started = Instant::now();
        // A panic outside a session call is our bug; the thread must outlive it. The jobs' clients are told by the
        // reply channels closing.
        if catch_unwind(AssertUnwindSafe(|| run(session, batch, self, false))).is_err() {
            tracing::error!("{}: a batch ended in a panic", self.name);
        }
        // Threads that write at once lose one of the values, which is none the worse for a mean.
        let (took, mean) = (started.elapsed().as_nanos() as u64, self.batch_ns.load(Ordering::Relaxed));
        let mean = if mean == NOT_MEASURED { took } else { mean - mean / 8 + took / 8 };
        self.batch_ns.store(mean, Ordering::Relaxed);
    }

    /// A session call on the spot has ended: what it kept instances from is theirs now.
    fn freed(self: &Arc<Self>) {
        let mut state = self.lock();
        state.ended();
        if state.closed {
            self.work.notify_all();
        } else if state.handed_over {
            self.call_for_help(state);
        }
    }

    /// Instances take up all that waits.
    fn hand_over(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        state.handed_over = !state.queue.is_empty();
        self.call_for_help(state);
    }

    /// Sees to it that what is handed over is taken up: by an idle instance, or by one that is not started yet.
    fn call_for_help(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if state.running >= state.instances {
            return;
        }
        if state.idle > state.called {
            state.called += 1;
            drop(state);
            self.work.notify_one();
        } else if let Some(session) = state.unstarted.pop() {
            drop(state);
            if let Err(error) = self.start_instance(session) {
                tracing::warn!("{}: one instance fewer, its thread cannot be started: {error}", self.name);
            }
        }
    }
}

/// Owns the queue and the instance threads of one servable.
pub struct Scheduler {
    shared: Arc<Shared>,
}

impl Scheduler {
    /// One instance per entry of `instances`; a session may stand there several times.
    ///
    /// The first thread starts now, the others when work finds no instance idle: a thousand models that are asked
    /// one at a time need a thousand threads, not a thousand times the cores.
    pub fn start(
        name: &str,
        instances: Vec<Arc<dyn Session>>,
        batching: Batching,
        urgency: Urgency,
        sink: Arc<dyn ServableSink>,
    ) -> std::io::Result<Self> {
        let only = instances.first().filter(|first| {
            // What runs in a process of its own is what some request may hold up for long. A thread that serves connections
            // would be held up with it, and not notice that the client goes.
            let in_this_process = first.worker().is_none();
            in_this_process
                && first.concurrent()
                && instances.iter().all(|session| Arc::ptr_eq(session, first))
        });
        // Waiting for company takes a thread that can wait, and work of low urgency must stay on threads that have it.
        let may = batching.policy.delay_max.is_zero() && urgency == Urgency::Answering;
        let shared_session = only.filter(|_| may).cloned();
        let costs = Arc::clone(&batching.costs);
        let known = costs.predict(Size { rows: 1, bytes: costs.unit().bytes() });
        let call_max = batching.policy.call_max;
        let queue = Queue::new(batching, instances.len());
        let calls = Calls::watched(Arc::clone(&costs), call_max);
        let count = instances.len();
        let mut unstarted = instances;
        let first = unstarted.pop();
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            urgency,
            state: Mutex::new(State {
                queue,
                closed: false,
                running: 0,
                instances: count,
                handed_over: false,
                idle: 0,
                called: 0,
                unstarted,
            }),
            work: Condvar::new(),
            depth: AtomicUsize::new(0),
            shared_session,
            batch_ns: AtomicU64::new(if known.is_zero() { NOT_MEASURED } else { known.as_nanos() as u64 }),
            sink,
            costs,
            calls,
            threads: Mutex::default(),
        });
        if let Some(session) = first {
            shared.start_instance(session)?;
        }
        Ok(Self { shared })
    }

    /// Queues a job, or says at once why not. Never blocks for longer than the queue's lock.
    ///
    /// `may_run` says whether the caller can run a batch itself; if so, the answer tells whether it must.
    pub fn submit(&self, job: Box<Job>, may_run: bool) -> Result<Queued, SubmitError> {
        let (level, timeout, now) = (job.limits.priority, job.limits.timeout, job.queued);
        let on_the_spot = may_run && self.shared.runs_on_the_spot(job.size());
        let mut state = self.shared.lock();
        if state.closed {
            return Err(SubmitError::Closed);
        }
        let pushed = state.queue.push(job, level, timeout, now);
        self.shared.depth.store(state.queue.len(), Ordering::Relaxed);
        match pushed {
            Ok(rejected_at) => {
                if !on_the_spot {
                    state.handed_over = true;
                    self.shared.call_for_help(state);
                }
                Ok(Queued { rejected_at, on_the_spot })
            }
            Err((_, Refusal::Full { size_max })) => Err(SubmitError::Full { size_max }),
            Err((_, Refusal::Late { objective })) => Err(SubmitError::Late { objective }),
        }
    }

    /// Runs what waits on this thread, until the caller's own job is picked. Instances take it up instead if as many
    /// session calls run as there are instances, or if they have to see to what waits anyway.
    pub fn run_on_the_spot(&self, own: &Presence) {
        let Some(session) = &self.shared.shared_session else { return };
        let mut dropped = Vec::new();
        while !own.is_picked() {
            let mut state = self.shared.lock();
            if state.running >= state.instances || state.handed_over {
                return self.shared.hand_over(state);
            }
            let taken = state.take(&mut dropped);
            self.shared.depth.store(state.queue.len(), Ordering::Relaxed);
            drop(state);
            give_up(&mut dropped);
            let Taken::Batch(batch) = taken else { return };
            self.shared.run(&**session, batch);
            self.shared.freed();
        }
    }

    /// For whoever was to run what waits and does not: instances take it up.
    pub fn leave_to_instances(&self) {
        self.shared.hand_over(self.shared.lock());
    }

    /// A request took so long besides its wait and its call; see [`Costs::observe_front_end`].
    pub fn observe_front_end(&self, took: Duration, most: Duration) {
        self.shared.costs.observe_front_end(took, most);
    }

    /// Jobs that wait.
    pub fn depth(&self) -> usize {
        self.shared.depth.load(Ordering::Relaxed)
    }

    /// Session calls that run now.
    pub fn running(&self) -> usize {
        self.shared.calls.running()
    }

    /// Takes no more jobs; the threads end once what waits is done.
    pub fn close(&self) {
        let mut state = self.shared.lock();
        state.closed = true;
        state.handed_over = !state.queue.is_empty();
        drop(state);
        self.shared.work.notify_all();
    }

    /// Waits for the threads to end. Call [`Self::close`] first.
    pub fn join(&self) {
        let threads =
            std::mem::take(&mut *self.shared.threads.lock().unwrap_or_else(PoisonError::into_inner));
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
fn serve(shared: &Arc<Shared>, session: &dyn Session) {
    let mut dropped = Vec::new();
    let mut ran = false;
    while let Some(batch) = next_batch(shared, ran, &mut dropped) {
        give_up(&mut dropped);
        ran = !batch.is_empty();
        if ran {
            shared.run(session, batch);
        }
    }
}

/// Answers jobs that will not run.
fn give_up(dropped: &mut Vec<Dropped<Box<Job>>>) {
    for Dropped { item, reason } in dropped.drain(..) {
        answer(item, Err(given_up(reason)));
    }
}

fn given_up(reason: DropReason) -> ServeError {
    match reason {
        DropReason::Expired => ServeError::new(ErrorKind::DeadlineExceeded, "Request timeout expired"),
        DropReason::Overloaded => ServeError::new(
            ErrorKind::Overloaded,
            "the answer would have come later than the latency objective allows; try again later",
        ),
    }
}

/// Blocks for the next batch, after one that the instance `ran`. An empty batch means that only jobs to drop were
/// found. `None` ends the thread.
fn next_batch(
    shared: &Arc<Shared>,
    ran: bool,
    dropped: &mut Vec<Dropped<Box<Job>>>,
) -> Option<Vec<Box<Job>>> {
    let mut state = shared.lock();
    if ran {
        state.ended();
    }
    loop {
        let taken = match state.handed_over && state.running < state.instances {
            true => state.take(dropped),
            false => Taken::Empty,
        };
        shared.depth.store(state.queue.len(), Ordering::Relaxed);
        match taken {
            Taken::Batch(batch) => {
                if state.handed_over {
                    shared.call_for_help(state);
                }
                return Some(batch);
            }
            _ if !dropped.is_empty() => return Some(Vec::new()),
            Taken::Empty if state.closed && state.queue.is_empty() => return None,
            Taken::Empty => {
                state.idle += 1;
                state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.awake();
            }
            Taken::WaitUntil(until) => {
                let pause = until.saturating_duration_since(Instant::now()).max(Duration::from_micros(1));
                state.idle += 1;
                (state, _) = shared.work.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner);
                state.awake();
            }
        }
    }
}

/// Runs a batch and answers its jobs.
///
/// If the call fails, every job of a larger batch is run alone: one request's failure never fails its neighbours.
///
/// `again`: the jobs ran before, in a call that did not come to an end.
fn run(session: &dyn Session, batch: Vec<Box<Job>>, shared: &Shared, again: bool) {
    let started = Instant::now();
    for job in &batch {
        job.presence.pick();
    }
    match call(session, &batch, shared, again) {
        Ok((answers, timings)) => {
            for (job, tensors) in batch.into_iter().zip(answers) {
                let timings = Timings { queue: started.saturating_duration_since(job.queued), ..timings };
                answer(job, Ok((tensors, timings)));
            }
        }
        // Where there is no process to run it, there is none for each alone.
        Err(Failure { error, stopped }) if batch.len() > 1 && error.kind() != ErrorKind::Unavailable => {
            for job in batch {
                if !job.cancelled() {
                    run(session, vec![job], shared, stopped);
                }
            }
        }
        Err(Failure { error, .. }) => batch.into_iter().for_each(|job| answer(job, Err(error.clone()))),
    }
}

/// One session call: the outputs that each job asked for, and the time it took.
fn call(
    session: &dyn Session,
    batch: &[Box<Job>],
    shared: &Shared,
    again: bool,
) -> Result<(Vec<Vec<Tensor>>, Timings), Failure> {
    let started = Instant::now();
    let mut outputs: SmallVec<[usize; 4]> =
        batch.iter().flat_map(|job| job.outputs.iter().copied()).collect();
    outputs.sort_unstable();
    outputs.dedup();
    let padded = Padded::of(batch.iter().map(|job| job.text.as_ref()));
    let inputs = merge(&batch.iter().map(|job| &job.inputs).collect::<SmallVec<[_; 8]>>(), padded.as_ref());
    let bytes = inputs.iter().flat_map(|input| &input.parts).map(|part| part.len() as u64).sum();
    let rows: SmallVec<[usize; 8]> = batch.iter().map(|job| job.rows).collect();
    let size = Size { rows: rows.iter().sum::<usize>() as u64, bytes };
    let assembled = Instant::now();
    let most = if again { shared.calls.again_max(size) } else { shared.calls.call_max(size) };
    let call = shared.calls.begin(assembled, most, batch.iter().map(|job| Arc::clone(&job.presence)));
    let outcome = catch_unwind(AssertUnwindSafe(|| session.run_until(&inputs, &outputs, &call.stop)));
    let ran = Instant::now();
    drop((call, inputs));
    let answers = match outcome {
        Ok(Ok(tensors)) => apart(&tensors, &rows, &outputs, padded.as_ref())
            .map_err(|e| Failure::of(ServeError::internal(format!("the model failed: {e}")))),
        Ok(Err(error)) => Err(failed(error, most)),
        Err(_) => Err(Failure::of(ServeError::internal("the model's session call ended in a panic"))),
    };
    let timings = Timings {
        assembly: assembled - started,
        session: ran - assembled,
        split: ran.elapsed(),
        ..Timings::default()
    };
    if answers.is_ok() {
        shared.costs.observe(size, timings.assembly + timings.session + timings.split);
    }
    shared.sink.batch(&BatchEvent {
        requests: batch.len(),
        rows: rows.iter().sum(),
        assembly: timings.assembly,
        session: timings.session,
        split: timings.split,
        succeeded: answers.is_ok(),
    });
    let jobs = batch.iter().zip(answers?);
    Ok((jobs.map(|(job, tensors)| wanted(tensors, &outputs, &job.outputs)).collect(), timings))
}

/// Why a session call has no answers.
struct Failure {
    error: ServeError,
    /// It was ended: it took too long.
    stopped: bool,
}

impl Failure {
    fn of(error: ServeError) -> Self {
        Self { error, stopped: false }
    }
}

/// What clients are told of a session call that failed. The version was tried before it was served, and a request's call
/// fails for good only alone: it fails by what that request asks of it, and would again.
fn failed(error: RunError, most: Duration) -> Failure {
    let stopped = matches!(error, RunError::Stopped(_));
    let error = match error {
        RunError::InvalidInput(text) => ServeError::invalid(format!("the model refused its input: {text}")),
        RunError::Failed(text) => ServeError::invalid(format!("the model failed on this input: {text}")),
        RunError::Crashed(text) => ServeError::invalid(format!("the model cannot run this input: {text}")),
        RunError::Stopped(_) => {
            ServeError::invalid(format!("the model did not come to an end with this input within {most:?}"))
        }
        RunError::Unavailable(text) => ServeError::new(ErrorKind::Unavailable, text),
    };
    Failure { error, stopped }
}

/// A batch's outputs by request. Errors: why they cannot be taken apart.
fn apart(
    tensors: &[Tensor],
    rows: &[usize],
    outputs: &[usize],
    padded: Option<&Padded>,
) -> Result<Vec<Vec<Tensor>>, String> {
    let mut answers = split(tensors, rows).map_err(|e| e.to_string())?;
    if let Some(padded) = padded {
        padded.cut(&mut answers, outputs).map_err(|e| e.to_string())?;
    }
    Ok(answers)
}

/// The tensors of `computed` that a job asked for. Both index lists ascend.
fn wanted(tensors: Vec<Tensor>, computed: &[usize], asked: &[usize]) -> Vec<Tensor> {
    if computed.len() == asked.len() {
        return tensors;
    }
    tensors.into_iter().zip(computed).filter(|(_, index)| asked.contains(index)).map(|(t, _)| t).collect()
}

fn answer(job: Box<Job>, answer: Answer) {
    // A client that has gone does not want it; that is not an error.
    let _ = job.reply.send(answer);
}

#[cfg(test)]
mod tests;
