//! First runs before a version is ready: kernels are chosen and arenas grow now, not at the first request.

use crate::backend::{BatchInput, Session};
use crate::model::config::{Completed, WarmupData, WarmupSample};
use crate::tensor::{ANY, Shape, Tensor};

use super::prove::{Fill, repeated, row_shape, sample};

/// A default warm-up run larger than this, in elements, is left out: it would take more memory than it saves.
const ELEMENTS_MAX: usize = 16_000_000;

/// Size of open dimensions in default runs.
const OPEN_SIZE: i64 = 4;

/// Runs the samples that the config asks for. Errors: a sample does not fit, or the run failed; a model that
/// fails its configured warm-up is not ready.
pub fn run_samples(
    session: &dyn Session,
    completed: &Completed,
    samples: &[WarmupSample],
) -> Result<(), String> {
    for warmup in samples {
        let inputs =
            inputs_of(completed, warmup).map_err(|e| format!("model_warmup '{}': {e}", warmup.name))?;
        for _ in 0..warmup.count {
            session
                .run(&inputs, &completed.graph_outputs)
                .map_err(|e| format!("model_warmup '{}' failed: {e}", warmup.name))?;
        }
    }
    Ok(())
}

fn inputs_of(completed: &Completed, warmup: &WarmupSample) -> Result<Vec<BatchInput>, String> {
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

/// One run at size 1 and one at the maximum, on made-up data.
///
/// Made-up data may not suit a model, so a failure is no verdict on it: the message goes to the log.
pub fn run_default(session: &dyn Session, completed: &Completed) -> Result<(), String> {
    let graph = session.graph();
    let mut sizes = vec![1, completed.signature.max_batch_size.max(1)];
    sizes.dedup();
    for rows in sizes {
        let mut inputs = Vec::new();
        for &index in &completed.graph_inputs {
            let input = &graph.inputs[index];
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
            if row.elements().and_then(|n| n.checked_mul(rows)).is_none_or(|n| n > ELEMENTS_MAX) {
                return Ok(());
            }
            let shape = if batched { row.with_first(rows as i64) } else { row.clone() };
            inputs.push(repeated(
                index,
                input.datatype,
                &shape,
                sample(input.datatype, &row, Fill::Random),
                rows,
            ));
        }
        session.run(&inputs, &completed.graph_outputs).map_err(|e| e.to_string())?;
    }
    Ok(())
}
