//! Copies of requests for versions that answer nobody.
//!
//! Always (INV-05): offering a copy never waits and never fails; a copy that finds no room is dropped and counted.
//! Everything after the offer runs on threads of the lowest priority, with a queue and a budget of bytes of their
//! own, so that a shadow that is slow, hangs, fails or answers nonsense changes nothing for clients. When a route
//! leaves a shadow out, the copies that wait for it are dropped; one that runs runs to its end.
//! Not here: which requests are copied (`route`), what the comparison means to anybody (`monitor`, `control`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::check::{Checked, check};
use crate::backend::STACK_BYTES;
use crate::batch::Urgency;
use crate::compare::{self, compare};
use crate::event::{EventSink, ShadowEvent, ShadowOutcome, Sides};
use crate::id::Version;
use crate::infer::{InputTensor, Inputs, RequestedOutput};
use crate::model::{Servable, Submitted};
use crate::tensor::Tensor;

/// Copies of one shadow that wait or run at the most.
const COPIES_MAX: usize = 128;

/// Bytes of inputs that the copies of one shadow hold at the most.
const BYTES_MAX: usize = 64 << 20;

/// Copies that are handed to the session at once, so that they can share a batch.
const ROUND: usize = 16;

/// How long copies gather before they are taken up. A request then need not wake the lane's thread, which would cost
/// it more than the copy itself, and mostly has its answer by the time that the comparison asks for it. At 60,000
/// requests a second as many gather as there is room for.
const GATHERING: Duration = Duration::from_millis(2);

/// After so many gatherings without a copy the thread sleeps until one comes.
const EMPTY_MAX: u32 = 50;

/// Tensors by position in a version's signature.
type Outputs = Vec<(usize, Tensor)>;

/// What the primary answered, once it has.
struct Answered {
    outputs: Outputs,
    /// `None`: no session was called for it.
    latency: Option<Duration>,
}

/// One copied request.
struct Copy {
    primary: Arc<Servable>,
    inputs: Inputs,
    outputs: Vec<RequestedOutput>,
    answered: oneshot::Receiver<Answered>,
    held: Held,
}

/// What the copies of one shadow take up.
#[derive(Default)]
struct Room {
    copies: AtomicUsize,
    bytes: AtomicUsize,
}

impl Room {
    /// Takes a place for a copy of that size; a large one is let in when it is alone.
    fn take(self: &Arc<Self>, bytes: usize) -> Option<Held> {
        let copies = self.copies.fetch_add(1, Ordering::Relaxed);
        let held = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let place = Held { bytes, room: Arc::clone(self) };
        (copies < COPIES_MAX && (held == 0 || held + bytes <= BYTES_MAX)).then_some(place)
    }

    fn is_full(&self) -> bool {
        self.copies.load(Ordering::Relaxed) >= COPIES_MAX || self.bytes.load(Ordering::Relaxed) >= BYTES_MAX
    }
}

/// A place that is taken until the copy is done with.
struct Held {
    bytes: usize,
    room: Arc<Room>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.room.copies.fetch_sub(1, Ordering::Relaxed);
        self.room.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The way to one shadow of one model. Ends with its last user.
pub struct ShadowLane {
    servable: Arc<Servable>,
    copies: SyncSender<Copy>,
    room: Arc<Room>,
    /// The runner's: nobody waits for what comes of the copies any more.
    ended: Arc<AtomicBool>,
    /// By the version that answered.
    dropped: Vec<(Version, AtomicU64)>,
    sink: Arc<dyn EventSink>,
}

/// A copy on its way, waiting to hear what the primary says.
pub struct Ticket {
    answered: oneshot::Sender<Answered>,
    offered: Instant,
}

impl Ticket {
    /// Tells what the primary answered; `outputs` by position in its signature. Not telling tells that it failed.
    /// How long it took is worth telling where it was answered `by_session`, as the copy is.
    pub fn tell(self, outputs: impl Iterator<Item = (usize, Tensor)>, by_session: bool) {
        let latency = by_session.then(|| self.offered.elapsed());
        let _ = self.answered.send(Answered { outputs: outputs.collect(), latency });
    }
}

impl ShadowLane {
    /// Starts the lane's thread. `primaries` are the versions whose requests are copied.
    /// Errors: the system gives no thread.
    pub fn start(
        servable: Arc<Servable>,
        primaries: Vec<Version>,
        sink: Arc<dyn EventSink>,
    ) -> std::io::Result<Self> {
        let (copies, waiting) = sync_channel(COPIES_MAX);
        let dropped = primaries.into_iter().map(|version| (version, AtomicU64::new(0))).collect();
        let ended = Arc::new(AtomicBool::new(false));
        let runner =
            Runner { servable: Arc::clone(&servable), sink: Arc::clone(&sink), ended: Arc::clone(&ended) };
        let thread = std::thread::Builder::new().name("compare".to_owned()).stack_size(STACK_BYTES);
        thread.spawn(move || runner.run(&waiting))?;
        Ok(Self { servable, copies, room: Arc::default(), ended, dropped, sink })
    }

    /// Whether this is the lane that leads from those versions to that servable.
    pub fn serves(&self, servable: &Arc<Servable>, primaries: &[Version]) -> bool {
        Arc::ptr_eq(&self.servable, servable)
            && self.dropped.iter().map(|(version, _)| version).eq(primaries.iter())
    }

    /// Whether a copy would find room. If not, it counts as dropped, before anything was spent on it.
    pub fn has_room(&self, primary: &Servable) -> bool {
        let has_room = !self.room.is_full();
        if !has_room {
            self.drop_one(primary);
        }
        has_room
    }

    /// Offers a copy of a request that was just dispatched to `primary`. `None`: there was no room.
    pub fn offer(
        &self,
        primary: &Arc<Servable>,
        inputs: Inputs,
        outputs: &[RequestedOutput],
    ) -> Option<Ticket> {
        let ticket = self.try_offer(primary, inputs, outputs);
        if ticket.is_none() {
            self.drop_one(primary);
        }
        ticket
    }

    fn drop_one(&self, primary: &Servable) {
        let version = primary.id().version;
        if let Some((_, count)) = self.dropped.iter().find(|(other, _)| *other == version) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn try_offer(
        &self,
        primary: &Arc<Servable>,
        inputs: Inputs,
        outputs: &[RequestedOutput],
    ) -> Option<Ticket> {
        let held = self.room.take(size(&inputs))?;
        let (answered, waits) = oneshot::channel();
        let copy =
            Copy { primary: Arc::clone(primary), inputs, outputs: outputs.to_vec(), answered: waits, held };
        match self.copies.try_send(copy) {
            Ok(()) => Some(Ticket { answered, offered: Instant::now() }),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => None,
        }
    }

    /// Tells of the copies that were dropped since it was last asked. Whoever looks at the numbers calls it: the
    /// lane's own thread may be stuck in the shadow, and the request path has no time for it.
    pub fn report_drops(&self) {
        for (primary, dropped) in &self.dropped {
            let dropped = dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                report(&*self.sink, &self.servable, *primary, ShadowOutcome::Dropped, dropped);
            }
        }
    }
}

impl Drop for ShadowLane {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        self.report_drops();
    }
}

/// Tells of copies that were not compared.
fn report(sink: &dyn EventSink, shadow: &Servable, primary: Version, outcome: ShadowOutcome, requests: u64) {
    let id = shadow.id();
    sink.shadow(&ShadowEvent {
        model: &id.model,
        versions: Sides { primary, shadow: id.version },
        outcome,
        requests,
        comparison: None,
        digest: None,
        outputs: Sides { primary: &[], shadow: &[] },
        latency: None,
    });
}

fn size(inputs: &Inputs) -> usize {
    match inputs {
        Inputs::Named(tensors) => tensors.iter().map(|input| input.tensor.data().len()).sum(),
        Inputs::Raw(bytes) => bytes.len(),
    }
}

/// The lane's thread.
struct Runner {
    servable: Arc<Servable>,
    sink: Arc<dyn EventSink>,
    ended: Arc<AtomicBool>,
}

/// A copy whose run is under way, or why it is not.
enum Running {
    Submitted { submitted: Submitted, outputs: SmallVec<[usize; 4]>, at: Instant },
    Not(ShadowOutcome),
}

impl Runner {
    fn run(&self, copies: &Receiver<Copy>) {
        Urgency::Idle.take();
        while let Some(first) = next(copies) {
            let round: Vec<Copy> = std::iter::once(first).chain(copies.try_iter().take(ROUND - 1)).collect();
            let started: Vec<Running> = round.iter().map(|copy| self.start(copy)).collect();
            for (copy, running) in round.into_iter().zip(started) {
                self.finish(copy, running);
            }
        }
    }

    fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn start(&self, copy: &Copy) -> Running {
        if self.ended() {
            return Running::Not(ShadowOutcome::Dropped);
        }
        let signature = self.servable.signature();
        // Outputs that the shadow does not have are left out: that they are missing is what the comparison finds.
        let known =
            |output: &&RequestedOutput| signature.outputs.iter().any(|spec| *spec.name == output.name);
        let asked: Vec<RequestedOutput> = copy.outputs.iter().filter(known).cloned().collect();
        let model = self.servable.id().model.as_str();
        let Ok(Checked { inputs, rows, outputs }) = check(signature, model, copy.inputs.clone(), &asked)
        else {
            return Running::Not(ShadowOutcome::Refused);
        };
        let mut outputs: SmallVec<[usize; 4]> = outputs.iter().map(|(index, _)| *index).collect();
        outputs.sort_unstable();
        match self.servable.submit_background(inputs, &outputs, rows) {
            Ok(submitted) => Running::Submitted { submitted, outputs, at: Instant::now() },
            Err(_) => Running::Not(ShadowOutcome::Dropped),
        }
    }

    fn finish(&self, copy: Copy, running: Running) {
        let Copy { primary, inputs, answered, held, .. } = copy;
        let version = primary.id().version;
        let (answer, asked, at) = match running {
            Running::Not(outcome) => return self.report(version, outcome),
            // Letting go of the answer cancels the run, unless it has begun.
            Running::Submitted { .. } if self.ended() => return self.report(version, ShadowOutcome::Dropped),
            Running::Submitted { submitted, outputs, at } => (submitted.answer.blocking_recv(), outputs, at),
        };
        let latency = at.elapsed();
        let Ok(Ok((tensors, _))) = answer else {
            return self.report(version, ShadowOutcome::Failed);
        };
        let Ok(answered) = answered.blocking_recv() else {
            return self.report(version, ShadowOutcome::Unanswered);
        };
        let outputs: Outputs = asked.into_iter().zip(tensors).collect();
        let comparison = compare(Sides {
            primary: compare::Answer { reader: primary.reader(), outputs: &answered.outputs },
            shadow: compare::Answer { reader: self.servable.reader(), outputs: &outputs },
        });
        let id = self.servable.id();
        self.sink.shadow(&ShadowEvent {
            model: &id.model,
            versions: Sides { primary: version, shadow: id.version },
            outcome: ShadowOutcome::Compared,
            requests: 1,
            comparison: Some(&comparison),
            digest: comparison.disagrees.then(|| digest(&inputs)),
            outputs: Sides {
                primary: &named(&primary, answered.outputs),
                shadow: &named(&self.servable, outputs),
            },
            latency: answered.latency.map(|primary| Sides { primary, shadow: latency }),
        });
        drop(held);
    }

    fn report(&self, primary: Version, outcome: ShadowOutcome) {
        report(&*self.sink, &self.servable, primary, outcome, 1);
    }
}

/// The next copy; `None`: there will be no more.
fn next(copies: &Receiver<Copy>) -> Option<Copy> {
    for _ in 0..EMPTY_MAX {
        match copies.try_recv() {
            Ok(copy) => return Some(copy),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => std::thread::sleep(GATHERING),
        }
    }
    copies.recv().ok()
}

/// The outputs with their names.
fn named(servable: &Servable, outputs: Outputs) -> Vec<(Arc<str>, Tensor)> {
    let specs = &servable.signature().outputs;
    outputs.into_iter().map(|(index, tensor)| (Arc::clone(&specs[index].name), tensor)).collect()
}

/// sha256 of a request's inputs: name, type, shape and bytes of each, in the order sent.
fn digest(inputs: &Inputs) -> [u8; 32] {
    let mut hasher = Sha256::new();
    match inputs {
        Inputs::Raw(bytes) => hasher.update(bytes),
        Inputs::Named(tensors) => {
            for InputTensor { name, tensor } in tensors {
                hasher.update(format!("{name} {} {}\n", tensor.datatype(), tensor.shape()));
                hasher.update(tensor.data());
            }
        }
    }
    hasher.finalize().into()
}
