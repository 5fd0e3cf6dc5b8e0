//! A version that is loaded, warmed and ready to run, and the states around that.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::config::Completed;
use crate::backend::{Session, WorkerState};
use crate::batch::{
    Answer, Batching, BatchingPolicy, Costs, Job, LevelPolicy, Padding, Presence, Queued, Scheduler,
    ShapeKey, SubmitError, Text, TimeoutAction, Urgency,
};
use crate::cache::CachePartition;
use crate::event::{ServableProfile, ServableSink};
use crate::id::ServableId;
use crate::infer::{Limits, TensorRow, Timings};
use crate::proto::inference as pb;
use crate::reading::Reader;
use crate::tensor::Signature;

/// Where a version stands.
#[derive(Clone)]
pub enum VersionState {
    Loading,
    Ready(Arc<Servable>),
    /// Takes no new requests; those that it has are answered.
    Unloading,
    Unavailable {
        reason: String,
    },
}

impl VersionState {
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Ready(_))
    }
}

/// A version that answers.
pub struct Servable {
    id: ServableId,
    signature: Arc<Signature>,
    reader: Reader,
    graph_inputs: Vec<usize>,
    graph_outputs: Vec<usize>,
    graph_input_count: usize,
    /// How texts are padded that share a batch.
    padding: Option<Arc<Padding>>,
    config: pb::ModelConfig,
    digest: String,
    sink: Arc<dyn ServableSink>,
    cache: Option<CachePartition>,
    scheduler: Scheduler,
    /// For copies of requests: a queue and a thread that give way to everything else.
    background: OnceLock<Option<Scheduler>>,
    batching: BatchingPolicy,
    session: Arc<dyn Session>,
}

/// Copies of requests that may wait for one version; more are dropped.
const BACKGROUND_QUEUE_MAX: usize = 64;

/// What a [`Servable`] is made of.
pub struct Parts {
    pub id: ServableId,
    pub profile: ServableProfile,
    pub completed: Completed,
    pub graph_input_count: usize,
    pub padding: Option<Arc<Padding>>,
    pub digest: String,
    pub sink: Arc<dyn ServableSink>,
    /// Where its answers are kept, if they are.
    pub cache: Option<CachePartition>,
    pub scheduler: Scheduler,
    /// One of the scheduler's sessions.
    pub session: Arc<dyn Session>,
}

/// A queued request, as whoever waits for it sees it.
pub struct Submitted {
    /// Dropping it cancels the request.
    pub answer: oneshot::Receiver<Answer>,
    /// The request is rejected at this moment if it still waits.
    pub rejected_at: Option<Instant>,
    /// Whoever waits must call [`Servable::run_on_the_spot`] first.
    pub on_the_spot: bool,
    presence: Waiting,
}

/// Tells the scheduler when nobody waits any more.
struct Waiting(Arc<Presence>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Submitted {
    /// Whether the request has left the queue for a session.
    pub fn picked(&self) -> bool {
        self.presence.0.is_picked()
    }
}

impl Servable {
    pub fn new(parts: Parts) -> Self {
        Self {
            id: parts.id,
            signature: Arc::clone(&parts.profile.signature),
            reader: Reader::new(&parts.profile),
            graph_inputs: parts.completed.graph_inputs,
            graph_outputs: parts.completed.graph_outputs,
            graph_input_count: parts.graph_input_count,
            padding: parts.padding,
            config: parts.completed.shown,
            digest: parts.digest,
            sink: parts.sink,
            cache: parts.cache,
            scheduler: parts.scheduler,
            background: OnceLock::new(),
            batching: parts.completed.batching,
            session: parts.session,
        }
    }

    pub fn id(&self) -> &ServableId {
        &self.id
    }

    pub fn signature(&self) -> &Arc<Signature> {
        &self.signature
    }

    /// Understands its answers.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The config as clients are shown it.
    pub fn config(&self) -> &pb::ModelConfig {
        &self.config
    }

    /// sha256 of the model file, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Who hears of this servable's requests.
    pub fn sink(&self) -> &Arc<dyn ServableSink> {
        &self.sink
    }

    /// Where its answers are kept; `None`: they are not.
    pub fn cache(&self) -> Option<&CachePartition> {
        self.cache.as_ref()
    }

    /// How its process does, if it has one of its own.
    pub fn worker(&self) -> Option<WorkerState> {
        self.session.worker()
    }

    /// Why it cannot answer for now although it is loaded: its process has ended and is not started again yet.
    pub fn down(&self) -> Option<String> {
        self.worker().and_then(|worker| worker.down)
    }

    /// Requests that wait.
    pub fn queue_depth(&self) -> usize {
        self.scheduler.depth()
    }

    /// Session calls that run now: of its instances, those that are busy.
    pub fn calls_in_flight(&self) -> usize {
        self.scheduler.running()
    }

    /// Queues a request whose tensors are checked and have the model's own shapes.
    ///
    /// `inputs` and `outputs` are in the order of the signature. The answer has the outputs asked for, in
    /// ascending order.
    pub fn submit(
        &self,
        inputs: TensorRow,
        outputs: &[usize],
        rows: usize,
        limits: Limits,
    ) -> Result<Submitted, SubmitError> {
        self.submit_to(&self.scheduler, inputs, outputs, rows, limits, true)
    }

    /// Runs a batch with that request in it on this thread, if nobody has taken it up yet and an instance is free.
    pub fn run_on_the_spot(&self, submitted: &Submitted) {
        self.scheduler.run_on_the_spot(&submitted.presence.0);
    }

    /// Nobody comes to run what waits.
    pub fn leave_to_instances(&self) {
        self.scheduler.leave_to_instances();
    }

    /// Whether answers are promised in time.
    pub fn promises(&self) -> bool {
        self.batching.objective.is_some()
    }

    /// A request was answered so long after it came to the queue's door. What of that is not its wait and its call has
    /// to be allowed for where answers are promised in time.
    pub fn answered(&self, after: Duration, timings: &Timings) {
        let scheduled = timings.queue + timings.assembly + timings.session + timings.split;
        if let Some(most) = self.batching.front_end_max() {
            self.scheduler.observe_front_end(after.saturating_sub(scheduled), most);
        }
    }

    /// Queues a copy of a request where it cannot delay an answer: behind it runs a thread of lowest priority.
    ///
    /// A session that takes one caller at a time has no such thread; its copies wait at the lowest level.
    /// Errors: as [`Self::submit`]; the queue is short.
    pub fn submit_background(
        &self,
        inputs: TensorRow,
        outputs: &[usize],
        rows: usize,
    ) -> Result<Submitted, SubmitError> {
        match self.background.get_or_init(|| self.start_background()) {
            Some(background) => self.submit_to(background, inputs, outputs, rows, Limits::default(), false),
            None => {
                let limits = Limits { priority: self.batching.levels.len() as u64, ..Limits::default() };
                self.submit_to(&self.scheduler, inputs, outputs, rows, limits, false)
            }
        }
    }

    fn start_background(&self) -> Option<Scheduler> {
        if !self.session.concurrent() {
            return None;
        }
        let level = LevelPolicy {
            size_max: BACKGROUND_QUEUE_MAX,
            timeout: None,
            timeout_action: TimeoutAction::Reject,
            timeout_override: true,
        };
        // Nobody waits for copies, and their times on an idle processor say nothing about answers.
        let policy = BatchingPolicy {
            levels: vec![level],
            default_level: 1,
            objective: None,
            ..self.batching.clone()
        };
        let batching = Batching { costs: Arc::new(Costs::new(policy.rows_max)), policy };
        let sessions = vec![Arc::clone(&self.session)];
        Scheduler::start("shadow", sessions, batching, Urgency::Idle, Arc::clone(&self.sink)).ok()
    }

    fn submit_to(
        &self,
        scheduler: &Scheduler,
        inputs: TensorRow,
        outputs: &[usize],
        rows: usize,
        limits: Limits,
        may_run: bool,
    ) -> Result<Submitted, SubmitError> {
        let plain = ShapeKey::of(&inputs, self.signature.batched());
        let (reply, answer) = oneshot::channel();
        let mut outputs: SmallVec<[usize; 4]> = outputs.iter().map(|&i| self.graph_outputs[i]).collect();
        outputs.sort_unstable();
        let inputs = self.in_graph_order(inputs);
        let text = self.padding.as_ref().and_then(|padding| Text::of(padding, &inputs));
        let key = text.as_ref().map_or(plain, |text| ShapeKey::of_text(&inputs, text));
        let presence = Arc::new(Presence::default());
        // It goes through several hands, each of which would move all of it.
        let job = Box::new(Job {
            inputs,
            outputs,
            rows,
            limits,
            queued: Instant::now(),
            key,
            text,
            presence: Arc::clone(&presence),
            reply,
        });
        let Queued { rejected_at, on_the_spot } = scheduler.submit(job, may_run)?;
        Ok(Submitted { answer, rejected_at, on_the_spot, presence: Waiting(presence) })
    }

    /// The signature leaves out optional inputs that the config does not name; the graph has them.
    fn in_graph_order(&self, inputs: TensorRow) -> TensorRow {
        if self.graph_inputs.len() == self.graph_input_count {
            return inputs;
        }
        let mut row: TensorRow = SmallVec::from_elem(None, self.graph_input_count);
        for (input, &index) in inputs.into_iter().zip(&self.graph_inputs) {
            row[index] = input;
        }
        row
    }

    /// Takes no more requests; what waits is still answered.
    pub fn close(&self) {
        self.scheduler.close();
        if let Some(Some(background)) = self.background.get() {
            background.close();
        }
    }

    /// Waits until everything that waited is answered. Call [`Self::close`] first. Blocks.
    pub fn join(&self) {
        self.scheduler.join();
        if let Some(Some(background)) = self.background.get() {
            background.join();
        }
    }
}
