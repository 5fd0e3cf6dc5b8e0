//! Files that a config names, and the data of warm-up runs.
//!
//! Always: they lie in the model's folder, and what one config brings into memory is bounded.

use std::path::Path;
use std::sync::Arc;

use super::{WarmupData, WarmupInput, WarmupSample, datatype_of};
use crate::backend::Folder;
use crate::error::excerpt;
use crate::proto::inference as pb;
use crate::tensor::DataType;

/// Bytes of all files of labels, and their lines: the largest sets of classes have some ten thousand.
const LABEL_BYTES_MAX: u64 = 16 << 20;
const LABELS_MAX: usize = 1_000_000;

/// Bytes of the inputs of all warm-up runs, over all rows. Files are kept until the model is loaded.
const WARMUP_BYTES_MAX: u64 = 64 << 20;

/// Warm-up runs in all.
const WARMUP_RUNS_MAX: u64 = 100_000;

/// What one config may still bring into memory.
#[derive(Debug)]
pub struct Budget {
    label_bytes: u64,
    labels: usize,
    warmup_bytes: u64,
    warmup_runs: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            label_bytes: LABEL_BYTES_MAX,
            labels: LABELS_MAX,
            warmup_bytes: WARMUP_BYTES_MAX,
            warmup_runs: WARMUP_RUNS_MAX,
        }
    }
}

/// All of a file that the config names, which must lie in `folder`.
fn named_file(folder: &Folder, file: &str, key: &str, bytes_max: u64) -> Result<Vec<u8>, String> {
    let read = folder.read(Path::new(file), bytes_max);
    read.map_err(|reason| format!("config.pbtxt: {key} '{}' {reason}", excerpt(file)))
}

/// The lines of a file of labels. Errors: it is not read, or what is wrong with it.
pub fn labels(folder: &Folder, file: &str, budget: &mut Budget) -> Result<Arc<[String]>, String> {
    let key = "output.label_filename";
    let wrong = |reason: String| format!("config.pbtxt: {key} '{}' {reason}", excerpt(file));
    let bytes = named_file(folder, file, key, budget.label_bytes)?;
    budget.label_bytes -= bytes.len() as u64;
    let text = String::from_utf8(bytes)
        .map_err(|e| wrong(format!("is not UTF-8 text: byte {} is wrong", e.utf8_error().valid_up_to())))?;
    if text.lines().nth(budget.labels).is_some() {
        return Err(wrong(format!("makes more than {LABELS_MAX} labels")));
    }
    let labels: Arc<[String]> = text.lines().map(|line| line.trim_end().to_owned()).collect();
    budget.labels -= labels.len();
    Ok(labels)
}

/// An entry of `model_warmup`. Errors: the input or key and what is wrong with it.
pub fn warmup(
    sample: &pb::ModelWarmup,
    folder: &Folder,
    budget: &mut Budget,
) -> Result<WarmupSample, String> {
    use pb::model_warmup::input::InputDataType;
    let wrong = |reason: String| format!("config.pbtxt: model_warmup '{}': {reason}", excerpt(&sample.name));
    let count = u64::from(sample.count.max(1));
    budget.warmup_runs = budget.warmup_runs.checked_sub(count).ok_or_else(|| {
        wrong(format!("count {count} makes more than {WARMUP_RUNS_MAX} runs with those before it"))
    })?;
    let rows = u64::from(sample.batch_size.max(1));
    let mut inputs = Vec::new();
    for (name, input) in &sample.inputs {
        let datatype = datatype_of(input.data_type)
            .ok_or_else(|| wrong(format!("input '{}' needs a data_type", excerpt(name))))?;
        if let Some(bad) = input.dims.iter().find(|d| **d < 0) {
            return Err(wrong(format!("input '{}' has dimension {bad}; give its size", excerpt(name))));
        }
        let mut most = bytes_of_row(datatype, &input.dims).and_then(|bytes| bytes.checked_mul(rows));
        let data = match &input.input_data_type {
            None | Some(InputDataType::ZeroData(_)) => WarmupData::Zero,
            Some(InputDataType::RandomData(_)) => WarmupData::Random,
            Some(InputDataType::InputDataFile(file)) => {
                let key = "model_warmup.inputs.input_data_file";
                let bytes = named_file(&folder.join("warmup"), file, key, budget.warmup_bytes)?;
                // Strings are as long as the file says.
                most = most.map(|most| most.max((bytes.len() as u64).saturating_mul(rows)));
                WarmupData::File(bytes)
            }
        };
        budget.warmup_bytes = most.and_then(|most| budget.warmup_bytes.checked_sub(most)).ok_or_else(|| {
            wrong(format!(
                "input '{}' makes more than {WARMUP_BYTES_MAX} bytes with those before it; choose smaller dims or \
                 batch_size",
                excerpt(name)
            ))
        })?;
        inputs.push(WarmupInput { name: name.clone(), datatype, dims: input.dims.clone(), data });
    }
    inputs.sort_by(|a, b| a.name.cmp(&b.name));
    // Both fit: the memory that they take is bounded, or there are no inputs.
    let (rows, count) = (rows.min(1 << 20) as usize, count as usize);
    Ok(WarmupSample { name: excerpt(&sample.name), rows, count, inputs })
}

/// Bytes of one row; made-up strings have about twelve. `None`: more than can be counted.
fn bytes_of_row(datatype: DataType, dims: &[i64]) -> Option<u64> {
    let element = datatype.size().unwrap_or(12) as u64;
    dims.iter().try_fold(element, |n, &d| n.checked_mul(u64::try_from(d).ok()?))
}
