//! The worker's side: a program that opens one model and runs what it is asked, until its server goes.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use smallvec::SmallVec;

use super::layout::{self, Place, Places};
use super::limits::{self, peak_bytes};
use super::packets::{ToServer, ToWorker, receive, send};
use super::region::{Region, State, Word};
use crate::backend::onnx::files::{Blob, Files};
use crate::backend::onnx::inspect::{Findings, inspect};
use crate::backend::onnx::library::{Runtime, end_process};
use crate::backend::onnx::open::open;
use crate::backend::onnx::session::OnnxSession;
use crate::backend::{self, BatchInput, Device, LoadError, RunError, Session, Stop};

/// How long a slot sleeps before it looks again, should a wake-up be lost.
const NAP: Duration = Duration::from_secs(1);

/// How long a slot looks for the next call without giving the processor away, after one that was short. More than a
/// server takes to hand the next batch over when it is busy, and too little to be noticed when it is not.
const SPIN: Duration = Duration::from_micros(20);

/// Calls longer than this gain nothing from that.
const SHORT: Duration = Duration::from_micros(200);

/// Runs as a worker: standard input is the socket to the server. Never returns; the code tells whether the server went.
pub fn worker() -> ! {
    let socket = rustix::stdio::stdin();
    let fail = move |reason: String| -> ! {
        // Nobody may be there to hear it.
        let _ = send(socket, &ToServer::Failed(reason), None);
        end_process(1)
    };
    let run = move || match serve(socket) {
        Err(reason) => fail(reason),
    };
    // The system made the first thread, and its stack is as large as whoever started the server said.
    match std::thread::Builder::new().name("control".to_owned()).stack_size(STACK_BYTES).spawn(run) {
        Ok(thread) => _ = thread.join(),
        Err(error) => fail(error.to_string()),
    }
    end_process(1);
}

/// The stack of the threads that scan, open and call a model: half of what the server's have, so that a model that needs
/// more ends the process that tries it and not the one that serves it.
const STACK_BYTES: usize = backend::STACK_BYTES / 2;

/// Ends the process when the server goes. Errors: why it cannot serve.
fn serve(socket: BorrowedFd<'_>) -> Result<std::convert::Infallible, String> {
    let mut runtime = None;
    let mut files = Files { model: Arc::new(Blob::empty()?), data: Vec::new(), digest: String::new() };
    let mut findings = Findings::default();
    let mut session: Option<Arc<OnnxSession>> = None;
    let mut slots: HashMap<usize, Arc<Slot>> = HashMap::new();
    loop {
        let Some((message, file)) = receive(socket).map_err(|e| e.to_string())? else { end_process(0) };
        let beside = || file.ok_or_else(|| "a message came without its file".to_owned());
        match message {
            ToWorker::Model(limits) => {
                limits::take_on(limits);
                // Why, the server knows from its own start; where the library lies is nobody's business.
                let gone =
                    |_| "ONNX Runtime's library cannot be opened any more: was it replaced or removed?";
                runtime = Some(Runtime::open().map_err(gone)?);
                let empty_bytes = peak_bytes("self");
                files.model = Arc::new(Blob::received(beside()?).map_err(|e| e.to_string())?);
                findings = inspect(&files.model).map_err(|LoadError(reason)| reason)?;
                tell(socket, &ToServer::Scanned(findings.clone(), empty_bytes))?;
            }
            ToWorker::Data { location } => {
                files.data.push((location, Arc::new(Blob::received(beside()?).map_err(|e| e.to_string())?)));
            }
            ToWorker::Open { device, options } => {
                let runtime = runtime.ok_or("there is no model yet")?;
                // A GPU's driver opens devices and libraries as it goes.
                if device == Device::Cpu {
                    limits::close_off();
                }
                let opened = open(runtime, &files, &device, &options, &findings)
                    .map_err(|LoadError(reason)| reason)?;
                // The session has copied what it needs.
                files.data.clear();
                files.model = Arc::new(Blob::empty()?);
                tell(socket, &ToServer::Opened(opened.graph().clone()))?;
                session = Some(Arc::new(opened));
            }
            ToWorker::Serve { memory_bytes } => limits::serve(memory_bytes),
            ToWorker::Slot { number } => {
                let region = Arc::new(map(beside()?)?);
                match slots.get(&number) {
                    Some(slot) => slot.move_to(region),
                    None => {
                        let session = session.clone().ok_or("there is no session yet")?;
                        slots.insert(number, Slot::start(number, session, region)?);
                    }
                }
            }
            ToWorker::Stop { number, call } => {
                if let Some(slot) = slots.get(&number) {
                    slot.stop(call);
                }
            }
        }
    }
}

fn tell(socket: BorrowedFd<'_>, message: &ToServer) -> Result<(), String> {
    send(socket, message, None).map_err(|e| e.to_string())
}

fn map(file: OwnedFd) -> Result<Region, String> {
    Region::map(file.as_fd()).map_err(|e| e.to_string())
}

/// A thread that answers calls one after the other.
struct Slot {
    /// Where it goes on, once it finds its region [`State::Moved`]; until then the region it is at.
    region: Mutex<Arc<Region>>,
    /// Of the call that runs.
    stop: Mutex<Arc<Stop>>,
    call: AtomicU64,
}

impl Slot {
    fn start(number: usize, session: Arc<OnnxSession>, region: Arc<Region>) -> Result<Arc<Self>, String> {
        let slot =
            Arc::new(Self { region: Mutex::new(region), stop: Mutex::default(), call: AtomicU64::new(0) });
        let serving = Arc::clone(&slot);
        std::thread::Builder::new()
            .name(format!("slot-{number}"))
            .stack_size(STACK_BYTES)
            .spawn(move || serving.serve(&session))
            .map_err(|e| e.to_string())?;
        Ok(slot)
    }

    fn region(&self) -> MutexGuard<'_, Arc<Region>> {
        self.region.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn move_to(&self, region: Arc<Region>) {
        let before = std::mem::replace(&mut *self.region(), region);
        before.enter(State::Moved);
    }

    fn stop(&self, call: u64) {
        let stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        if self.call.load(Ordering::SeqCst) == call {
            stop.ask();
        }
    }

    /// The stop of a call that begins: a new one if the last was asked.
    fn begin(&self, call: u64) -> Arc<Stop> {
        let mut stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        self.call.store(call, Ordering::SeqCst);
        if stop.is_asked() {
            *stop = Arc::default();
        }
        Arc::clone(&stop)
    }

    fn serve(&self, session: &OnnxSession) {
        let mut region = Arc::clone(&self.region());
        let mut spin = Duration::ZERO;
        loop {
            match region.state() {
                Some(State::Asked) => {
                    let started = std::time::Instant::now();
                    region = self.answer(session, region);
                    spin = if started.elapsed() < SHORT { SPIN } else { Duration::ZERO };
                }
                Some(State::Moved) => region = Arc::clone(&self.region()),
                Some(waiting) => {
                    let spin = std::mem::take(&mut spin);
                    region.wait_while(waiting, spin, NAP);
                }
                // Only a server that is broken writes anything else.
                None => end_process(1),
            }
        }
    }

    /// Runs a call and leaves its answer, where there is room for it: the region that it ends up in.
    fn answer(&self, session: &OnnxSession, region: Arc<Region>) -> Arc<Region> {
        let stop = self.begin(region.get(Word::Call));
        let outcome = match asked(&region) {
            Some((inputs, outputs)) => session.run_until(&inputs, &outputs, &stop),
            None => end_process(1),
        };
        let mut places = Places::behind(0);
        let (tensors, told) = match &outcome {
            Ok(tensors) => {
                let of = tensors.iter().map(|tensor| places.next(tensor.data().len()));
                match of.collect::<Option<SmallVec<[Place; 4]>>>() {
                    Some(at) => (Some((tensors, at.clone())), layout::answer(tensors, &at)),
                    None => {
                        (None, layout::failure(&RunError::Failed("its outputs are too large".to_owned())))
                    }
                }
            }
            Err(error) => (None, layout::failure(error)),
        };
        let Some(told_at) = places.next(told.len()) else { end_process(1) };
        let Some(region) = self.with_room(region, places.end()) else { return Arc::clone(&self.region()) };
        if let Some((tensors, places)) = tensors {
            tensors.iter().zip(places).for_each(|(tensor, place)| region.write(place.at, tensor.data()));
        }
        region.write(told_at.at, &told);
        region.set(Word::At, told_at.at as u64);
        region.set(Word::Length, told_at.length as u64);
        region.enter(State::Answered);
        region
    }

    /// A region of that size: this one, or one that the server gives for it. `None`: it gives none; this one is idle.
    fn with_room(&self, region: Arc<Region>, bytes: usize) -> Option<Arc<Region>> {
        if bytes <= region.len() {
            return Some(region);
        }
        region.set(Word::Room, bytes as u64);
        region.enter(State::Full);
        loop {
            match region.wait_while(State::Full, Duration::ZERO, NAP) {
                Some(State::Full) => {}
                Some(State::Moved) => {
                    return Some(Arc::clone(&self.region())).filter(|new| bytes <= new.len());
                }
                _ => return None,
            }
        }
    }
}

/// The question that stands in a region.
fn asked(region: &Arc<Region>) -> Option<(Vec<BatchInput>, Vec<usize>)> {
    let number = |word| usize::try_from(region.get(word)).ok();
    let question = layout::read_question(&region.read(number(Word::At)?, number(Word::Length)?)?)?;
    let input = |(index, datatype, shape, place): (_, _, _, Place)| {
        let parts = SmallVec::from_iter([region.lend(place.at, place.length)?]);
        Some(BatchInput { index, datatype, shape, parts })
    };
    let inputs = question.inputs.into_iter().map(input).collect::<Option<_>>()?;
    Some((inputs, question.outputs))
}
