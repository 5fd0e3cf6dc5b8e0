//! Holds a config against the model file, and fills in what the config left out.

use std::sync::Arc;

use super::{Defaults, ModelConfig, TensorConfig, config_datatype};
use crate::backend::{Graph, GraphTensor};
use crate::batch::LevelPolicy;
use crate::batch::{BatchingPolicy, TimeoutAction};
use crate::proto::inference as pb;
use crate::tensor::{ANY, Signature, TensorSpec, format_dims};

/// What a version serves with.
#[derive(Debug, Clone)]
pub struct Completed {
    pub signature: Signature,
    /// For each input of the signature, its position in the graph.
    pub graph_inputs: Vec<usize>,
    /// For each output of the signature, its position in the graph.
    pub graph_outputs: Vec<usize>,
    pub batching: BatchingPolicy,
    /// The config as clients are shown it.
    pub shown: pb::ModelConfig,
}

/// Whether every input and output has an open first axis, so that it could be a batch axis.
pub fn may_batch(graph: &Graph) -> bool {
    let open = |t: &GraphTensor| t.dims.as_ref().is_some_and(|dims| dims.first() == Some(&ANY));
    let required = graph.inputs.iter().filter(|input| !input.has_default);
    graph.inputs.iter().any(|input| !input.has_default) && required.chain(&graph.outputs).all(open)
}

/// Completes `config` by `graph`.
///
/// `proved_to_batch` counts only where the config says nothing of batches. Errors: the config contradicts the
/// file; the message names the tensor and what the file says.
pub fn complete(config: &ModelConfig, graph: &Graph, proved_to_batch: bool) -> Result<Completed, String> {
    match config.max_batch_size {
        Some(size) => with_batch_size(config, graph, size),
        None if !proved_to_batch => with_batch_size(config, graph, 0),
        // Dims that the config gives for one side tell whether they count the batch axis.
        None => with_batch_size(config, graph, config.defaults.max_batch_size)
            .or_else(|batched| with_batch_size(config, graph, 0).map_err(|_| batched)),
    }
}

fn with_batch_size(config: &ModelConfig, graph: &Graph, max_batch_size: usize) -> Result<Completed, String> {
    let batched = max_batch_size > 0;
    let (inputs, graph_inputs) = specs("input", &config.inputs, &graph.inputs, batched)?;
    let (outputs, graph_outputs) = specs("output", &config.outputs, &graph.outputs, batched)?;
    let signature = Signature { inputs, outputs, max_batch_size };
    let batching = batching(config, max_batch_size);
    let shown = shown(config, &signature);
    Ok(Completed { signature, graph_inputs, graph_outputs, batching, shown })
}

fn batching(config: &ModelConfig, max_batch_size: usize) -> BatchingPolicy {
    let rows_max = max_batch_size.max(1);
    match &config.dynamic_batching {
        Some(dynamic) => BatchingPolicy {
            rows_max,
            merging: max_batch_size > 1,
            delay_max: dynamic.delay_max,
            preferred_rows: dynamic.preferred_rows.iter().copied().filter(|&rows| rows <= rows_max).collect(),
            levels: dynamic.levels.clone(),
            default_level: dynamic.default_level,
            objective: config.latency_objective,
            call_max: config.defaults.session_max,
        },
        None => BatchingPolicy {
            rows_max,
            // Triton's rule: a config that sets a batch size and no scheduler gets no dynamic batching.
            merging: max_batch_size > 1 && config.max_batch_size.is_none(),
            delay_max: std::time::Duration::ZERO,
            preferred_rows: Vec::new(),
            levels: vec![plain_level(&config.defaults)],
            default_level: 1,
            objective: config.latency_objective,
            call_max: config.defaults.session_max,
        },
    }
}

fn plain_level(defaults: &Defaults) -> LevelPolicy {
    LevelPolicy {
        size_max: defaults.max_queue_size,
        timeout: None,
        timeout_action: TimeoutAction::Reject,
        timeout_override: true,
    }
}

/// The specs of one side, in the order of the file, with the position of each in the graph.
///
/// A tensor that the config does not name is read off the file; an optional one is served only if it is named.
fn specs(
    role: &str,
    configured: &[TensorConfig],
    declared: &[GraphTensor],
    batched: bool,
) -> Result<(Vec<TensorSpec>, Vec<usize>), String> {
    if let Some(unknown) = configured.iter().find(|c| declared.iter().all(|d| d.name != c.name)) {
        let names: Vec<&str> = declared.iter().map(|d| d.name.as_str()).collect();
        return Err(format!(
            "config.pbtxt: {role} '{}' is not in the model file, which has {role}s {}",
            unknown.name,
            names.join(", ")
        ));
    }
    let mut specs = Vec::new();
    let mut positions = Vec::new();
    for (position, declared) in declared.iter().enumerate() {
        let spec = match configured.iter().find(|c| c.name == declared.name) {
            Some(configured) => from_config(role, configured, declared, batched)?,
            None if declared.has_default => continue,
            None => from_file(role, declared, batched)?,
        };
        specs.push(spec);
        positions.push(position);
    }
    Ok((specs, positions))
}

fn from_file(role: &str, declared: &GraphTensor, batched: bool) -> Result<TensorSpec, String> {
    let dims = match (&declared.dims, batched) {
        (None, _) => vec![ANY],
        (Some(dims), false) => dims.clone(),
        (Some(dims), true) => match dims.split_first() {
            Some((&ANY, rest)) => rest.to_vec(),
            _ => {
                return Err(format!(
                    "config.pbtxt: max_batch_size is set, but {role} '{}' has shape {} in the model file: its first \
                     dimension must be open",
                    declared.name,
                    format_dims(dims)
                ));
            }
        },
    };
    Ok(TensorSpec {
        name: declared.name.as_str().into(),
        datatype: declared.datatype,
        dims,
        any_rank: declared.dims.is_none(),
        reshape: None,
        optional: false,
        labels: Arc::default(),
    })
}

fn from_config(
    role: &str,
    configured: &TensorConfig,
    declared: &GraphTensor,
    batched: bool,
) -> Result<TensorSpec, String> {
    let name = &configured.name;
    if configured.datatype != declared.datatype {
        return Err(format!(
            "config.pbtxt: {role} '{name}' has data_type {}, but the model file has {}",
            configured.datatype, declared.datatype
        ));
    }
    if configured.optional && !declared.has_default {
        return Err(format!(
            "config.pbtxt: {role} '{name}' is optional, but the model file has no default for it"
        ));
    }
    if let Some(file_dims) = &declared.dims {
        // An optional input is the same for all rows: the file gives it no batch axis.
        let batch = (batched && !declared.has_default).then_some(ANY);
        let own = configured.reshape.as_ref().unwrap_or(&configured.dims);
        let model_dims: Vec<i64> = batch.into_iter().chain(own.iter().copied()).collect();
        let fits = model_dims.len() == file_dims.len()
            && model_dims.iter().zip(file_dims).all(|(&ours, &file)| file == ANY || file == ours);
        if !fits {
            return Err(format!(
                "config.pbtxt: {role} '{name}' has shape {}{}, but the model file has {}",
                format_dims(&model_dims),
                if batched { " with its batch axis" } else { "" },
                format_dims(file_dims)
            ));
        }
    }
    if batched && declared.has_default {
        return Err(format!(
            "config.pbtxt: {role} '{name}' is optional, which needs max_batch_size 0: one value would have to serve \
             all requests of a batch"
        ));
    }
    Ok(TensorSpec {
        name: name.as_str().into(),
        datatype: configured.datatype,
        dims: configured.dims.clone(),
        any_rank: false,
        reshape: configured.reshape.clone(),
        optional: configured.optional,
        labels: Arc::clone(&configured.labels),
    })
}

/// The config that clients are shown: the text as it was, completed by what the server decided.
fn shown(config: &ModelConfig, signature: &Signature) -> pb::ModelConfig {
    use pb::model_config::SchedulingChoice;
    let mut shown = config.source.clone();
    shown.platform = "onnxruntime_onnx".to_owned();
    shown.backend = "onnxruntime".to_owned();
    shown.max_batch_size = i32::try_from(signature.max_batch_size).unwrap_or(i32::MAX);
    if shown.default_model_filename.is_empty() {
        shown.default_model_filename.clone_from(&config.file_name);
    }
    for spec in &signature.inputs {
        if shown.input.iter().all(|input| input.name != *spec.name) {
            shown.input.push(pb::ModelInput {
                name: spec.name.to_string(),
                data_type: config_datatype(spec.datatype),
                dims: spec.dims.clone(),
                ..Default::default()
            });
        }
    }
    for spec in &signature.outputs {
        if shown.output.iter().all(|output| output.name != *spec.name) {
            shown.output.push(pb::ModelOutput {
                name: spec.name.to_string(),
                data_type: config_datatype(spec.datatype),
                dims: spec.dims.clone(),
                ..Default::default()
            });
        }
    }
    if shown.scheduling_choice.is_none() && config.max_batch_size.is_none() && signature.max_batch_size > 1 {
        shown.scheduling_choice =
            Some(SchedulingChoice::DynamicBatching(pb::ModelDynamicBatching::default()));
    }
    if shown.version_policy.is_none() {
        let latest = pb::model_version_policy::Latest { num_versions: 1 };
        shown.version_policy = Some(pb::ModelVersionPolicy {
            policy_choice: Some(pb::model_version_policy::PolicyChoice::Latest(latest)),
        });
    }
    if shown.instance_group.is_empty() {
        shown.instance_group = config
            .instances
            .iter()
            .map(|group| pb::ModelInstanceGroup {
                name: shown.name.clone(),
                kind: pb::model_instance_group::Kind::Cpu as i32,
                count: i32::try_from(group.count).unwrap_or(i32::MAX),
                ..Default::default()
            })
            .collect();
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Folder;
    use crate::id::ModelName;
    use crate::model::config::{Defaults, pbtxt, resolve};
    use crate::tensor::DataType;

    fn tensor(name: &str, dims: &[i64]) -> GraphTensor {
        GraphTensor {
            name: name.to_owned(),
            datatype: DataType::Fp32,
            dims: Some(dims.to_vec()),
            symbols: vec![],
            has_default: false,
        }
    }

    fn completed(text: &str, proved: bool) -> Result<Completed, String> {
        let graph = Graph {
            inputs: vec![tensor("x", &[ANY, 4])],
            outputs: vec![tensor("y", &[ANY])],
            ..Graph::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let name = ModelName::parse("m").unwrap();
        let config =
            resolve(&pbtxt::parse(text)?, &name, &Folder::new(folder.path(), ""), &Defaults::default())?;
        complete(&config, &graph, proved)
    }

    #[test]
    fn without_a_config_the_proof_decides() {
        let batched = completed("", true).unwrap();
        assert_eq!(batched.signature.max_batch_size, 32);
        assert_eq!(batched.signature.inputs[0].dims, [4]);
        assert_eq!(batched.signature.outputs[0].dims, [] as [i64; 0]);
        assert!(batched.batching.merging && batched.shown.scheduling_choice.is_some());
        let single = completed("", false).unwrap();
        assert_eq!(single.signature.inputs[0].dims, [ANY, 4]);
        assert!(!single.batching.merging);
    }

    #[test]
    fn one_side_given_tells_whether_it_counts_the_batch_axis() {
        let x = |dims: &str| format!("input {{ name: \"x\" data_type: TYPE_FP32 dims: {dims} }}");
        assert_eq!(completed(&x("[ 4 ]"), true).unwrap().signature.max_batch_size, 32);
        assert_eq!(completed(&x("[ -1, 4 ]"), true).unwrap().signature.max_batch_size, 0);
        assert!(completed(&x("[ 5 ]"), true).unwrap_err().contains("[-1,5] with its batch axis"));
    }

    #[test]
    fn requests_are_merged_only_if_the_config_asks() {
        assert!(!completed("max_batch_size: 8", false).unwrap().batching.merging);
        assert!(completed("max_batch_size: 8 dynamic_batching { }", false).unwrap().batching.merging);
    }

    #[test]
    fn a_config_that_contradicts_the_file_says_so() {
        let x = |rest: &str| format!("max_batch_size: 8 input {{ name: \"x\" {rest} }}");
        for (text, part) in [
            (x("data_type: TYPE_INT32 dims: 4"), "data_type INT32, but the model file has FP32"),
            (x("data_type: TYPE_FP32 dims: 5"), "[-1,5] with its batch axis, but the model file has [-1,4]"),
            (x("data_type: TYPE_FP32 dims: [ 2, 2 ]"), "[-1,2,2]"),
            (x("data_type: TYPE_FP32 dims: 4 optional: true"), "no default"),
            (x("data_type: TYPE_FP32 dims: 4").replace("\"x\"", "\"z\""), "'z' is not in the model file"),
        ] {
            let error = completed(&text, false).expect_err(&text);
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(completed(&x("data_type: TYPE_FP32 dims: [ 2, 2 ] reshape { shape: 4 }"), false).is_ok());
    }
}
