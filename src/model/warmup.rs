//! First runs before a version is ready: kernels are chosen and arenas grow now, not at the first request, and what
//! calls cost is measured.

use std::time::{Duration, Instant};

use crate::backend::{BatchInput, GraphTensor, RunError, Session};
use crate::batch::Size;
use crate::model::config::{Completed, WarmupData, WarmupInput, WarmupSample};
use crate::tensor::{ANY, Shape, Signature, Tensor, format_dims};

use super::prove::{Fill, repeated, row_shape, sample};

/// A default warm-up run larger than this, in elements, is left out: it would take more memory than it saves.
const ELEMENTS_MAX: usize = 16_000_000;

/// Size of open dimensions in default runs.
const OPEN_SIZE: i64 = 4;

/// How long measuring may take: a thousand models should load in minutes. Larger sizes are left to be extrapolated.
const MEASURING_MAX: Duration = Duration::from_millis(150);

/// Runs of one size, of which the middle one counts.
const RUNS: usize = 5;

/// A session call's size and the time that it took.
pub type Measured = (Size, Duration);

/// Runs the samples that the config asks for, and tells how long the quickest run of each took. Errors: a sample
/// does not fit, or the run failed; a model that fails its configured warm-up is not ready.
pub fn run_samples(
    session: &dyn Session,
    completed: &Completed,
    samples: &[WarmupSample],
) -> Result<Vec<Measured>, String> {
    let mut measured = Vec::new();
    for warmup in samples {
        let inputs =
            inputs_of(completed, warmup).map_err(|e| format!("model_warmup '{}': {e}", warmup.name))?;
        let mut quickest = Duration::MAX;
        for _ in 0..warmup.count {
            let took = timed(session, completed, &inputs)
                .map_err(|e| format!("model_warmup '{}' failed: {e}", warmup.name))?;
            quickest = quickest.min(took);
        }
        measured.push((size_of(&inputs, warmup.rows), quickest));
    }
    Ok(measured)
}

fn timed(session: &dyn Session, completed: &Completed, inputs: &[BatchInput]) -> Result<Duration, RunError> {
    let started = Instant::now();
    session.run(inputs, &completed.graph_outputs)?;
    Ok(started.elapsed())
}

fn size_of(inputs: &[BatchInput], rows: usize) -> Size {
    let bytes = inputs.iter().flat_map(|input| &input.parts).map(|part| part.len() as u64).sum();
    Size { rows: rows as u64, bytes }
}

/// The inputs of a session call with a sample's data, the same for each row.
///
/// Errors: the sample does not fit the signature.
pub fn inputs_of(completed: &Completed, warmup: &WarmupSample) -> Result<Vec<BatchInput>, String> {
    let signature = &completed.signature;
    if signature.batched() && warmup.rows > signature.max_batch_size {
        return Err(format!(
            "batch_size {} is over max_batch_size {}",
            warmup.rows, signature.max_batch_size
        ));
    }
    let mut inputs = Vec::new();
    for (spec, &index) in signature.inputs.iter().zip(&completed.graph_inputs) {
        let Some(input) = warmup.inputs.iter().find(|input| input.name == *spec.name) else {
            if spec.optional {
                continue;
            }
            return Err(format!("input '{}' is missing", spec.name));
        };
        if input.datatype != spec.datatype || !spec.fits(&input.dims) {
            return Err(format!("input '{}' does not have the model's type and dims", spec.name));
        }
        let row = spec.model_dims(&input.dims).ok_or("dims cannot be reshaped")?;
        let rows = if signature.batched() { warmup.rows } else { 1 };
        let shape = if signature.batched() { row.prepend(rows as i64) } else { row.clone() };
        let data = match &input.data {
            WarmupData::Zero => sample(spec.datatype, &row, Fill::Zero),
            WarmupData::Random => sample(spec.datatype, &row, Fill::Random),
            WarmupData::File(bytes) => bytes.clone().into(),
        };
        Tensor::new(spec.datatype, row, data.clone()).map_err(|e| format!("input '{}': {e}", spec.name))?;
        inputs.push(repeated(index, spec.datatype, &shape, data, rows));
    }
    if let Some(extra) = warmup.inputs.iter().find(|input| signature.input(&input.name).is_none()) {
        return Err(format!("the model has no input '{}'", extra.name));
    }
    Ok(inputs)
}

/// A sample of one row with made-up data. Open dimensions are those of `shapes`, by input, which may have the batch
/// axis before them; where it names none they are `OPEN_SIZE`.
///
/// Errors: a shape that no input has; an input too large to make up.
pub fn made_up_sample(signature: &Signature, shapes: &[(String, Vec<i64>)]) -> Result<WarmupSample, String> {
    if let Some((unknown, _)) = shapes.iter().find(|(name, _)| signature.input(name).is_none()) {
        let names: Vec<&str> = signature.inputs.iter().map(|spec| &*spec.name).collect();
        return Err(format!("the model has no input '{unknown}'; it has {}", names.join(", ")));
    }
    let mut inputs = Vec::new();
    for spec in signature.inputs.iter().filter(|spec| !spec.optional) {
        let given = shapes.iter().find(|(name, _)| **name == *spec.name).map(|(_, dims)| dims.as_slice());
        let dims: Vec<i64> = match given {
            None => spec.dims.iter().map(|&d| if d == ANY { OPEN_SIZE } else { d }).collect(),
            Some(dims) if spec.fits(dims) => dims.to_vec(),
            Some([_, dims @ ..]) if signature.batched() && spec.fits(dims) => dims.to_vec(),
            Some(dims) => {
                let (given, own) = (format_dims(dims), format_dims(&spec.dims));
                return Err(format!("input '{}' has shape {own}, which {given} does not fit", spec.name));
            }
        };
        let elements = Shape::from_dims(dims.iter().copied()).and_then(|shape| shape.elements());
        if elements.is_none_or(|n| n > ELEMENTS_MAX) {
            return Err(format!(
                "input '{}' of shape {} is too large to make up; choose smaller dimensions",
                spec.name,
                format_dims(&dims)
            ));
        }
        let (name, datatype) = (spec.name.to_string(), spec.datatype);
        inputs.push(WarmupInput { name, datatype, dims, data: WarmupData::Random });
    }
    Ok(WarmupSample { name: "made up".to_owned(), rows: 1, count: 1, inputs })
}

/// What made-up data told of a model.
pub struct MadeUp {
    /// By size, the middle one of a few runs. Empty for a model with open dimensions besides the batch axis: the
    /// sizes made up for them say nothing of real ones.
    pub measured: Vec<Measured>,
    /// Made-up data may not suit a model, so a failure is no verdict on it.
    pub failure: Option<String>,
}

/// Runs made-up data at the sizes 1, 2, 4, … and at the maximum, and measures the smaller ones.
///
/// Cost: about `MEASURING_MAX`, or the first and the largest size once where they take longer.
pub fn run_default(session: &dyn Session, completed: &Completed) -> MadeUp {
    let mut measured = Vec::new();
    let failure = measure(session, completed, &mut measured).err();
    let open = |input: &GraphTensor| input.dims.as_ref().is_none_or(|d| d.iter().skip(1).any(|&d| d == ANY));
    if completed.graph_inputs.iter().any(|&index| open(&session.graph().inputs[index])) {
        measured.clear();
    }
    MadeUp { measured, failure }
}

/// Runs made-up data of one row and of as many as there may be. The bytes of the larger one's inputs, if both were
/// answered.
///
/// Errors: a call of one row does not come to an end.
pub fn run_largest(session: &dyn Session, completed: &Completed) -> Result<Option<u64>, String> {
    let mut bytes = 0;
    for rows in [1, completed.signature.max_batch_size.max(1)] {
        let Ok(Some(inputs)) = made_up(session, completed, rows) else { return Ok(None) };
        bytes = size_of(&inputs, rows).bytes;
        match timed(session, completed, &inputs) {
            Ok(_) => {}
            Err(RunError::Stopped(_)) if rows == 1 => {
                return Err("a call with made-up data of one row did not come to an end".to_owned());
            }
            Err(_) => return Ok(None),
        }
    }
    Ok(Some(bytes))
}

fn measure(session: &dyn Session, completed: &Completed, measured: &mut Vec<Measured>) -> Result<(), String> {
    let started = Instant::now();
    let rows_max = completed.signature.max_batch_size.max(1);
    let mut rows = 1;
    while rows <= rows_max {
        let Some(inputs) = made_up(session, completed, rows)? else { return Ok(()) };
        // The first run of a size chooses kernels and takes memory.
        let first = timed(session, completed, &inputs).map_err(|e| e.to_string())?;
        let mut times = Vec::new();
        while times.len() < RUNS && (times.is_empty() || started.elapsed() + first < MEASURING_MAX) {
            times.push(timed(session, completed, &inputs).map_err(|e| e.to_string())?);
        }
        times.sort_unstable();
        measured.push((size_of(&inputs, rows), times[times.len() / 2]));
        rows *= 2;
        // The next size takes twice as long at the most, twice over.
        if started.elapsed() + 4 * first > MEASURING_MAX {
            break;
        }
    }
    // The largest in any case: it makes the arena as large as it will be needed.
    if rows != 2 * rows_max
        && let Some(inputs) = made_up(session, completed, rows_max)?
    {
        timed(session, completed, &inputs).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Inputs of so many rows. `None`: they would be too large.
fn made_up(
    session: &dyn Session,
    completed: &Completed,
    rows: usize,
) -> Result<Option<Vec<BatchInput>>, String> {
    let (mut inputs, mut left) = (Vec::new(), ELEMENTS_MAX);
    for &index in &completed.graph_inputs {
        let input = &session.graph().inputs[index];
        if input.has_default {
            continue;
        }
        let row = match &input.dims {
            Some(_) => row_shape(input, OPEN_SIZE).ok_or("an input is too large to make up")?,
            None => Shape::from_dims([1]).expect("one is a size"),
        };
        let batched =
            completed.signature.batched() && input.dims.as_ref().is_some_and(|d| d.first() == Some(&ANY));
        let rows = if batched { rows } else { 1 };
        let elements = row.elements().and_then(|n| n.checked_mul(rows));
        match elements.and_then(|elements| left.checked_sub(elements)) {
            None => return Ok(None),
            Some(rest) => left = rest,
        }
        let shape = if batched { row.with_first(rows as i64) } else { row.clone() };
        let data = sample(input.datatype, &row, Fill::Random);
        inputs.push(repeated(index, input.datatype, &shape, data, rows));
    }
    Ok(Some(inputs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::fake::FakeSession;
    use crate::id::ModelName;
    use crate::model::config::{self, Defaults};
    use std::sync::{Arc, Mutex};

    /// Warms up an identity on rows of `columns` numbers; tells what was measured and the rows of every call.
    fn warmed(columns: i64, rows_max: usize) -> (Vec<Measured>, Vec<i64>) {
        let calls = Arc::new(Mutex::new(vec![]));
        let seen = Arc::clone(&calls);
        let any = FakeSession::identity(|_| Ok(()));
        let mut graph = any.graph().clone();
        graph.inputs[0].dims = Some(vec![ANY, columns]);
        let session = FakeSession::new(graph, move |inputs| {
            seen.lock().unwrap().push(inputs[0].shape.dims()[0]);
            any.run(inputs, &[0])
        });
        let name = ModelName::parse("m").unwrap();
        let text = format!(
            "{{\"max_batch_size\": {rows_max}, \"input\": [{{\"name\": \"x\", \"data_type\": \"TYPE_FP32\", \
             \"dims\": [{columns}]}}], \"output\": [{{\"name\": \"y\", \"data_type\": \"TYPE_FP32\", \"dims\": [-1]}}]}}"
        );
        let config =
            config::from_json(&text, &crate::backend::Folder::new(".", ""), &name, &Defaults::default())
                .unwrap();
        let completed = config::complete(&config, session.graph(), false).unwrap();
        let made_up = run_default(&session, &completed);
        assert_eq!(made_up.failure, None);
        let calls = calls.lock().unwrap().clone();
        (made_up.measured, calls)
    }

    #[test]
    fn sizes_are_measured_by_doubling_and_the_largest_is_run() {
        let (measured, calls) = warmed(3, 12);
        let sizes: Vec<Size> = measured.iter().map(|(size, _)| *size).collect();
        // How many of them there is time for depends on the machine.
        let doubled: Vec<Size> = [1, 2, 4, 8].map(|rows| Size { rows, bytes: 12 * rows }).into();
        assert!(!sizes.is_empty() && doubled.starts_with(&sizes), "{sizes:?}");
        assert_eq!(calls.last(), Some(&12));
    }

    #[test]
    fn sizes_that_were_made_up_are_run_and_not_measured() {
        let (measured, calls) = warmed(ANY, 4);
        assert!(measured.is_empty());
        assert_eq!((calls.first(), calls.last()), (Some(&1), Some(&4)));
    }
}
