//! A session in a worker, started again when it ends.

use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::calls::Bounds;
use super::limits::KILLED;
use super::packets::ToWorker;
use super::process::Process;
use super::starting::{Again, Starting};
use crate::backend::{BatchInput, Graph, LoadError, RunError, Session, Stop, WorkerState};
use crate::tensor::Tensor;

/// How long the first of several restarts without an answer between them waits; each later one twice as long, up to what
/// whoever asks next still waits for, and after [`PATIENT_RESTARTS`] beyond it. The very first waits for nothing: whoever
/// comes after a request that ended the worker should not notice.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_WAITED_FOR: Duration = Duration::from_millis(800);
const PATIENT_RESTARTS: u32 = 12;
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How long a restart waits after so many that came to nothing, at least one.
fn pause(failures: u32) -> Duration {
    let short = PAUSE * (1 << (failures - 1).min(8));
    let beyond = failures.saturating_sub(PATIENT_RESTARTS);
    short.min(PAUSE_WAITED_FOR * (1 << beyond.min(8))).min(PAUSE_MAX)
}

/// How long a call of a trial may take: the first that takes longer, and the others then.
const TRIAL_CALL_MAX: Duration = Duration::from_secs(10);
const TRIAL_CALL_MAX_THEN: Duration = Duration::from_secs(3);

/// How long a call waits in all for workers that are being started. A batch's and then a request's own, with what they
/// run, stay below what clients wait for.
const PATIENCE: Duration = Duration::from_secs(2);

/// A call that had its turn within this time did not wait for it.
const TURN: Duration = Duration::from_millis(5);

/// A model in a worker.
pub struct Isolated(Arc<Inner>);

struct Inner {
    again: Again,
    graph: Graph,
    output_bytes_max: usize,
    /// Memory that the first worker had in use before there was a model.
    empty_bytes: u64,
    state: Mutex<Standing>,
    changed: Condvar,
    restarts: AtomicU64,
    /// Whether a call was answered since the worker was started last.
    answered: AtomicBool,
    /// Whether a call of the trial did not come to an end.
    spent: AtomicBool,
    /// Held by every call, and alone by one that ran beside others when the worker ended: which of them ended it is not
    /// known.
    turns: RwLock<()>,
}

struct Standing {
    process: Option<Arc<Process>>,
    /// Why there is none.
    down: String,
    /// Until it is served: from then on the worker is started again when it ends.
    trial: bool,
    closing: bool,
}

impl Isolated {
    /// A session for a trial, out of a worker that has opened it.
    pub fn new(
        starting: Starting,
        graph: Graph,
        again: Again,
        output_bytes_max: usize,
    ) -> Result<Self, LoadError> {
        let empty_bytes = starting.empty_bytes;
        let (child, process) = take(starting, &again)?;
        let inner = Arc::new(Inner {
            again,
            graph,
            output_bytes_max,
            empty_bytes,
            state: Mutex::new(Standing {
                process: Some(Arc::clone(&process)),
                down: String::new(),
                trial: true,
                closing: false,
            }),
            changed: Condvar::new(),
            restarts: AtomicU64::new(0),
            answered: AtomicBool::new(false),
            spent: AtomicBool::new(false),
            turns: RwLock::default(),
        });
        let watched = Arc::clone(&inner);
        std::thread::Builder::new()
            .name("worker-watch".to_owned())
            .spawn(move || watched.watch(process, child))
            .map_err(|e| LoadError(format!("there is no thread to watch its process: {e}")))?;
        Ok(Self(inner))
    }

    /// Why its process has ended, if it has.
    pub fn ended(&self) -> Option<String> {
        let state = self.0.lock();
        match &state.process {
            Some(process) => process.ended().map(str::to_owned),
            None => Some(state.down.clone()),
        }
    }

    /// The trial is over: time counts no more, and the worker is started again when it ends.
    pub fn serve(&self) {
        let mut state = self.0.lock();
        state.trial = false;
        if let Some(process) = &state.process {
            process.tell(&self.0.serving(), None);
        }
    }
}

impl Drop for Isolated {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closing = true;
        if let Some(process) = &state.process {
            process.kill("it is not needed any more");
        }
        self.0.changed.notify_all();
    }
}

/// Makes a process out of a worker that has a session open.
fn take(mut starting: Starting, again: &Again) -> Result<(Child, Arc<Process>), LoadError> {
    let gone = || LoadError("the process that tried it is gone".to_owned());
    let child = starting.child.take().ok_or_else(gone)?;
    let socket = starting.socket.take().ok_or_else(gone)?;
    let process = Arc::new(Process::new(&child, socket, again.spec.limits));
    Ok((child, process))
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serving(&self) -> ToWorker {
        ToWorker::Serve { memory_bytes: self.again.spec.serving_bytes }
    }

    /// Sees a worker end and starts another one, until nobody needs it.
    fn watch(&self, mut process: Arc<Process>, mut child: Child) {
        let mut failures = 0;
        loop {
            process.wait(child);
            let how = process.ended().unwrap_or("it ended").to_owned();
            let mut state = self.lock();
            state.process = None;
            state.down = how;
            self.changed.notify_all();
            if state.closing || state.trial {
                return;
            }
            tracing::warn!("a model's process ended: {}; it is started again", state.down);
            let mut started = None;
            while started.is_none() {
                failures = if self.answered.swap(false, Ordering::Relaxed) { 0 } else { failures };
                if failures > 0 {
                    let until = Instant::now() + pause(failures);
                    while !state.closing && Instant::now() < until {
                        let left = until.saturating_duration_since(Instant::now());
                        (state, _) =
                            self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
                    }
                }
                failures += 1;
                if state.closing {
                    return;
                }
                drop(state);
                let opened = self.again.start().and_then(|(starting, _)| take(starting, &self.again));
                self.restarts.fetch_add(1, Ordering::Relaxed);
                state = self.lock();
                match opened {
                    Ok(opened) => started = Some(opened),
                    Err(LoadError(reason)) => state.down = reason,
                }
            }
            (child, process) = started.expect("the loop ends with it");
            process.tell(&self.serving(), None);
            if state.closing {
                process.kill("it is not needed any more");
            }
            state.process = Some(Arc::clone(&process));
            self.changed.notify_all();
        }
    }

    /// The process, and whether it is on trial. Waits until then for one that is being started.
    fn process(&self, stop: &Stop, until: Instant) -> Result<(Arc<Process>, bool), RunError> {
        let mut state = self.lock();
        loop {
            match &state.process {
                Some(process) if process.ended().is_none() => return Ok((Arc::clone(process), state.trial)),
                None if state.trial || state.closing => {
                    return Err(RunError::Unavailable(format!(
                        "the model's process has ended: {}",
                        state.down
                    )));
                }
                // It has ended, and is about to be started again.
                _ => {}
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || stop.is_asked() {
                return Err(RunError::Unavailable(format!(
                    "the model's process is being started again, because it ended: {}; try again later",
                    state.down
                )));
            }
            let nap = left.min(Duration::from_millis(50));
            (state, _) = self.changed.wait_timeout(state, nap).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Session for Isolated {
    fn graph(&self) -> &Graph {
        &self.0.graph
    }

    fn run_until(
        &self,
        inputs: &[BatchInput],
        outputs: &[usize],
        stop: &Stop,
    ) -> Result<Vec<Tensor>, RunError> {
        let mut patience = PATIENCE;
        let (mut lost, mut alone) = (false, None);
        loop {
            let waits = Instant::now();
            let beside_others =
                alone.is_none().then(|| self.0.turns.read().unwrap_or_else(PoisonError::into_inner));
            if alone.is_some() || waits.elapsed() > TURN {
                if stop.is_asked() {
                    return Err(RunError::Unavailable(
                        "the model's process was started again, and others had their turn first; try again later"
                            .to_owned(),
                    ));
                }
                // What was waited for is not the call's own time.
                stop.begin();
            }
            let asked = Instant::now();
            let (process, trial) = self.0.process(stop, asked + patience)?;
            patience = patience.saturating_sub(asked.elapsed());
            let spent = self.0.spent.load(Ordering::Relaxed);
            let mut slot = process.slot().map_err(|e| {
                let kind = process.refused(&e);
                RunError::Unavailable(format!("there is no memory for one more call: {kind}"))
            })?;
            let bounds = Bounds {
                output_bytes_max: self.0.output_bytes_max,
                call_max: trial.then_some(if spent { TRIAL_CALL_MAX_THEN } else { TRIAL_CALL_MAX }),
            };
            process.enter();
            let answer = slot.call(&process, inputs, outputs, stop, bounds);
            let ended = process.ended();
            if ended.is_none() {
                process.give_back(slot);
            }
            match &answer {
                Ok(_) => self.0.answered.store(true, Ordering::Relaxed),
                Err(RunError::Stopped(_)) if trial => self.0.spent.store(true, Ordering::Relaxed),
                // Whoever killed it, maybe for want of memory, did not mean this call; if it did, once more tells.
                Err(RunError::Crashed(_)) if !trial && !lost && ended == Some(KILLED) => {
                    lost = true;
                    continue;
                }
                // Whoever ended it ends it again, and the others are answered.
                Err(RunError::Crashed(_)) if !trial && beside_others.is_some() && process.calls() > 1 => {
                    drop(beside_others);
                    alone = Some(self.0.turns.write().unwrap_or_else(PoisonError::into_inner));
                    continue;
                }
                Err(_) => {}
            }
            return answer;
        }
    }

    fn concurrent(&self) -> bool {
        self.0.again.device == crate::backend::Device::Cpu
    }

    fn worker(&self) -> Option<WorkerState> {
        let state = self.0.lock();
        Some(WorkerState {
            restarts: self.0.restarts.load(Ordering::Relaxed),
            down: state.process.is_none().then(|| format!("its process ended: {}", state.down)),
            peak_bytes: state
                .process
                .as_ref()
                .map_or(0, |process| process.peak_bytes().saturating_sub(self.0.empty_bytes)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_wait_longer_but_for_some_time_no_longer_than_callers_do() {
        let pauses = [1, 2, 3, 4, 5, 12, 13, 14, 40, u32::MAX].map(|failures| pause(failures).as_millis());
        assert_eq!(pauses, [100, 200, 400, 800, 800, 800, 1600, 3200, 25_600, 25_600]);
        assert!(PAUSE_WAITED_FOR < PATIENCE / 2);
    }
}
