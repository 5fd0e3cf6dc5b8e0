//! One call of a worker's session: the server's side.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::layout::{self, Place, Places};
use super::packets::ToWorker;
use super::process::Process;
use super::region::{Region, State, Word};
use crate::backend::{BatchInput, RunError, Stop};
use crate::tensor::Tensor;

/// How long a caller looks for the answer without giving its processor away: about what it takes to be woken.
const SPIN: Duration = Duration::from_micros(20);

/// How often a caller that waits looks whether the worker still lives and the call is still wanted.
const LOOK: Duration = Duration::from_millis(20);

/// How long a call that was asked to end by itself may take for it.
const GRACE: Duration = Duration::from_secs(1);

/// A region that grew beyond this is given up after the call: it was one large request, and many slots may have one.
const KEPT_BYTES_MAX: usize = 16 << 20;

fn too_large(bytes: usize, bytes_max: usize) -> RunError {
    RunError::Failed(format!(
        "its outputs have {bytes} bytes, more than the {bytes_max} that are allowed (--max-output-bytes)"
    ))
}

/// A place for one call at a time, and the memory that goes with it.
pub struct Slot {
    number: usize,
    region: Arc<Region>,
    calls: u64,
    /// Whether the last call was short enough for its answer to be waited for on the spot.
    short: bool,
}

/// What bounds a call.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub output_bytes_max: usize,
    /// A call that takes longer is ended, and a second later the process.
    pub call_max: Option<Duration>,
}

impl Slot {
    /// Bytes of a region at first: room for a small batch.
    pub const BYTES: usize = 64 << 10;

    pub fn new(number: usize, region: Region) -> Self {
        Self { number, region: Arc::new(region), calls: 0, short: true }
    }

    /// Runs a call in the worker. The slot is fit for another call afterwards unless the worker has ended.
    pub fn call(
        &mut self,
        process: &Process,
        inputs: &[BatchInput],
        outputs: &[usize],
        stop: &Stop,
        bounds: Bounds,
    ) -> Result<Vec<Tensor>, RunError> {
        let started = Instant::now();
        self.ask(process, inputs, outputs)?;
        let answer = self.answer(process, outputs.len(), stop, bounds);
        self.region.enter_quietly(State::Idle);
        self.short = started.elapsed() < 4 * SPIN;
        if self.region.len() > KEPT_BYTES_MAX && process.ended().is_none() {
            self.grow(process, Self::BYTES, State::Idle)?;
        }
        answer
    }

    fn ask(&mut self, process: &Process, inputs: &[BatchInput], outputs: &[usize]) -> Result<(), RunError> {
        let too_large = || RunError::InvalidInput("the inputs are too large".to_owned());
        let described = layout::question_bytes(inputs, outputs);
        let mut places = Places::behind(described);
        let length = |input: &BatchInput| input.parts.iter().map(|part| part.len()).sum();
        let at: SmallVec<[Place; 4]> = inputs
            .iter()
            .map(|input| places.next(length(input)))
            .collect::<Option<_>>()
            .ok_or_else(too_large)?;
        if places.end() > self.region.len() {
            self.grow(process, places.end(), State::Idle)?;
        }
        let head = super::region::HEAD_BYTES;
        self.region.write(head, &layout::question(inputs, &at, outputs));
        for (input, place) in inputs.iter().zip(&at) {
            let mut at = place.at;
            for part in &input.parts {
                self.region.write(at, part);
                at += part.len();
            }
        }
        self.calls += 1;
        self.region.set(Word::Call, self.calls);
        self.region.set(Word::At, head as u64);
        self.region.set(Word::Length, described as u64);
        self.region.enter(State::Asked);
        Ok(())
    }

    fn answer(
        &mut self,
        process: &Process,
        expected: usize,
        stop: &Stop,
        bounds: Bounds,
    ) -> Result<Vec<Tensor>, RunError> {
        let mut spin = if self.short { SPIN } else { Duration::ZERO };
        let started = Instant::now();
        let late = |by: Duration| bounds.call_max.is_some_and(|most| started.elapsed() >= most + by);
        let mut asked_to_stop = false;
        loop {
            match self.region.wait_while(State::Asked, std::mem::take(&mut spin), LOOK) {
                Some(State::Answered) => return self.read(expected, bounds.output_bytes_max),
                Some(State::Full) => {
                    let room = usize::try_from(self.region.get(Word::Room)).unwrap_or(usize::MAX);
                    if room > bounds.output_bytes_max {
                        return Err(too_large(room, bounds.output_bytes_max));
                    }
                    self.grow(process, room, State::Asked)?;
                }
                Some(State::Asked) => {}
                Some(State::Idle | State::Moved) | None => {
                    process.kill("it wrote where it must not");
                }
            }
            if let Some(how) = process.ended() {
                return Err(match stop.is_asked() {
                    true => RunError::Stopped(format!("the call was ended with the model's process: {how}")),
                    false => RunError::Crashed(format!("the model's process ended while it ran this: {how}")),
                });
            }
            if (stop.is_asked() || late(Duration::ZERO)) && !asked_to_stop {
                asked_to_stop = true;
                process.tell(&ToWorker::Stop { number: self.number, call: self.calls }, None);
            }
            if stop.is_forced() {
                process.kill("a call did not end in time");
            }
            if late(GRACE) {
                process.kill("a call took too long and could not be ended");
            }
        }
    }

    fn read(&self, expected: usize, bytes_max: usize) -> Result<Vec<Tensor>, RunError> {
        let number = |word| usize::try_from(self.region.get(word)).unwrap_or(usize::MAX);
        let told = self.region.read(number(Word::At), number(Word::Length)).unwrap_or_default();
        let tensors = layout::read_answer(&told, expected, |place| self.region.read(place.at, place.length))?;
        // The region may have had room for more than is allowed: the inputs were as large.
        match tensors.iter().map(|tensor| tensor.data().len()).sum() {
            bytes if bytes > bytes_max => Err(too_large(bytes, bytes_max)),
            _ => Ok(tensors),
        }
    }

    /// Goes on in a region of at least that size, which begins in `state`.
    fn grow(&mut self, process: &Process, bytes: usize, state: State) -> Result<(), RunError> {
        let size = bytes.max(Self::BYTES).checked_next_power_of_two().unwrap_or(bytes);
        let (region, file) = Region::create(size).map_err(|e| {
            let kind = process.refused(&e);
            RunError::Failed(format!("there is no memory for a call of {bytes} bytes: {kind}"))
        })?;
        region.enter_quietly(state);
        self.region = Arc::new(region);
        process.tell(&ToWorker::Slot { number: self.number }, Some(&file));
        Ok(())
    }
}
