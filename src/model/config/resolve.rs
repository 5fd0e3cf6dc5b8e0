//! From the parsed message to valid values: each key honoured, noted as a hint, or refused.

use std::collections::BTreeSet;
use std::path::{Component, Path};
use std::sync::Arc;

use prost_reflect::{DynamicMessage, FieldDescriptor, Value};

use super::batching::{dynamic_batching, latency_objective};
use super::files::{Budget, labels, warmup};
use super::hardware::{instance_groups, session_options};
use super::{Defaults, MODEL_FILE, ModelConfig, TensorConfig, VersionPolicy, datatype_of, padding::padding};
use crate::backend::{Folder, Isolation};
use crate::error::excerpt;
use crate::id::{ModelName, Version};
use crate::proto::inference as pb;
use crate::tensor::ANY;

/// Entries of one list or map of a config, such as inputs or parameters.
const LIST_MAX: usize = 1024;

/// Dimensions of one tensor: as many as NumPy had for long.
const RANK_MAX: usize = 32;

/// Bytes of a name of a tensor.
const NAME_BYTES_MAX: usize = 1024;

/// Rows in a batch. Each size up to it, by doublings, is warmed and measured.
pub const BATCH_SIZE_MAX: usize = 1 << 20;

/// Keys that are honoured. A path names everything below it.
const HONOURED: &[&str] = &[
    "name",
    "platform",
    "backend",
    "version_policy",
    "max_batch_size",
    "input.name",
    "input.data_type",
    "input.format",
    "input.dims",
    "input.reshape",
    "input.optional",
    "output.name",
    "output.data_type",
    "output.dims",
    "output.reshape",
    "output.label_filename",
    "dynamic_batching",
    "instance_group.name",
    "instance_group.kind",
    "instance_group.count",
    "instance_group.gpus",
    "optimization.graph.level",
    "optimization.execution_accelerators",
    "default_model_filename",
    "parameters",
    "model_warmup",
    "response_cache",
    "model_transaction_policy",
];

/// Keys that change nothing here and harm nothing: accepted, with a warning.
const HINTS: &[&str] = &[
    "cc_model_filenames",
    "metric_tags",
    "instance_group.host_policy",
    "instance_group.rate_limiter",
    "optimization.cuda",
    "optimization.priority",
    "optimization.input_pinned_memory",
    "optimization.output_pinned_memory",
    "optimization.gather_kernel_buffer_threshold",
    "optimization.eager_batching",
];

/// Resolves a parsed config. Errors: the key, what is wrong with it, and what would be right.
pub fn resolve(
    message: &DynamicMessage,
    name: &ModelName,
    folder: &Folder,
    defaults: &Defaults,
) -> Result<ModelConfig, String> {
    let mut hints = check_keys(message)?;
    let source: pb::ModelConfig = message.transcode_to().map_err(|e| format!("config.pbtxt: {e}"))?;
    check_identity(&source, name)?;
    if source.model_transaction_policy.is_some_and(|policy| policy.decoupled) {
        return Err(
            "config.pbtxt: model_transaction_policy.decoupled is not supported for ONNX models".to_owned()
        );
    }
    // As in Triton: a config that leaves out one side leaves it to the file whether there is a batch axis.
    let says_nothing = source.max_batch_size == 0 && (source.input.is_empty() || source.output.is_empty());
    let max_batch_size = usize::try_from(source.max_batch_size).map_err(|_| {
        format!("config.pbtxt: max_batch_size {} is negative; use 0 for none", source.max_batch_size)
    })?;
    if max_batch_size > BATCH_SIZE_MAX {
        return Err(format!(
            "config.pbtxt: max_batch_size {max_batch_size} must be at most {BATCH_SIZE_MAX}"
        ));
    }
    let mut budget = Budget::default();
    let session = session_options(&source, &mut hints)?;
    let instances = instance_groups(&source, defaults, &mut hints)?;
    let inputs: Vec<_> = source.input.iter().map(input).collect::<Result<_, _>>()?;
    let outputs: Vec<_> =
        source.output.iter().map(|o| output(o, folder, &mut budget)).collect::<Result<_, _>>()?;
    each_once("input", &inputs)?;
    each_once("output", &outputs)?;
    let warmup =
        source.model_warmup.iter().map(|w| warmup(w, folder, &mut budget)).collect::<Result<_, _>>()?;
    Ok(ModelConfig {
        max_batch_size: (!says_nothing).then_some(max_batch_size),
        inputs,
        outputs,
        dynamic_batching: dynamic_batching(&source, max_batch_size, defaults)?,
        instances,
        latency_objective: latency_objective(&source, defaults)?,
        padding: padding(&source)?,
        response_cache: source.response_cache.is_some_and(|cache| cache.enable),
        version_policy: version_policy(&source)?,
        isolation: isolation(&source, defaults)?,
        session,
        warmup,
        file_name: file_name(&source)?,
        hints,
        defaults: defaults.clone(),
        source,
    })
}

/// Walks every key that is set. Errors on the first that is refused; returns those that are hints.
fn check_keys(message: &DynamicMessage) -> Result<Vec<String>, String> {
    let mut hints = Vec::new();
    let mut visit = |path: &str| {
        let within = |path: &str, p: &str| path.strip_prefix(p).is_some_and(|rest| rest.starts_with('.'));
        let below = |list: &[&str]| list.iter().any(|&p| path == p || within(path, p));
        if below(HINTS) {
            hints.push(path.to_owned());
            return Ok(());
        }
        // An empty message above honoured keys (`optimization { }`) asks for nothing.
        let above = HONOURED.iter().any(|p| within(p, path));
        if below(HONOURED) || above {
            return Ok(());
        }
        let root = path.split('.').next().unwrap_or(path);
        Err(match root {
            "sequence_batching" | "ensemble_scheduling" => {
                format!("config.pbtxt: {root} is not supported yet")
            }
            _ => format!("config.pbtxt: {path} is not supported; remove it to serve this model"),
        })
    };
    walk(message, "", &mut visit)?;
    hints.dedup();
    Ok(hints)
}

fn walk(
    message: &DynamicMessage,
    prefix: &str,
    visit: &mut impl FnMut(&str) -> Result<(), String>,
) -> Result<(), String> {
    for (field, value) in message.fields() {
        let path = join(prefix, &field);
        let entries = match value {
            Value::List(items) => items.len(),
            Value::Map(entries) => entries.len(),
            _ => 1,
        };
        if entries > LIST_MAX {
            return Err(format!("config.pbtxt: {path} has {entries} entries; at most {LIST_MAX} are read"));
        }
        let items = match value {
            Value::List(items) => items.as_slice(),
            single => std::slice::from_ref(single),
        };
        for item in items {
            match item {
                Value::Message(inner) => {
                    // A message that is there but empty is a key too (`sequence_batching { }`).
                    if inner.fields().next().is_none() {
                        visit(&path)?;
                    }
                    walk(inner, &path, visit)?;
                }
                _ => visit(&path)?,
            }
        }
    }
    Ok(())
}

fn join(prefix: &str, field: &FieldDescriptor) -> String {
    if prefix.is_empty() { field.name().to_owned() } else { format!("{prefix}.{}", field.name()) }
}

fn check_identity(source: &pb::ModelConfig, name: &ModelName) -> Result<(), String> {
    if !source.name.is_empty() && source.name != name.as_str() {
        return Err(format!(
            "config.pbtxt: name '{}' must be the folder's name, '{name}'",
            excerpt(&source.name)
        ));
    }
    let served = matches!(source.platform.as_str(), "" | "onnxruntime_onnx");
    if !served {
        return Err(format!(
            "config.pbtxt: platform '{}' is not served; it must be onnxruntime_onnx",
            excerpt(&source.platform)
        ));
    }
    if !matches!(source.backend.as_str(), "" | "onnxruntime") {
        return Err(format!(
            "config.pbtxt: backend '{}' is not served; it must be onnxruntime",
            excerpt(&source.backend)
        ));
    }
    Ok(())
}

fn input(input: &pb::ModelInput) -> Result<TensorConfig, String> {
    let reshape = input.reshape.as_ref().map(|r| r.shape.clone());
    tensor("input", &input.name, input.data_type, &input.dims, reshape)
        .map(|tensor| TensorConfig { optional: input.optional, ..tensor })
}

fn output(output: &pb::ModelOutput, folder: &Folder, budget: &mut Budget) -> Result<TensorConfig, String> {
    let reshape = output.reshape.as_ref().map(|r| r.shape.clone());
    let tensor = tensor("output", &output.name, output.data_type, &output.dims, reshape)?;
    let labels = match output.label_filename.as_str() {
        "" => Arc::default(),
        file => labels(folder, file, budget)?,
    };
    Ok(TensorConfig { labels, ..tensor })
}

fn tensor(
    role: &str,
    name: &str,
    data_type: i32,
    dims: &[i64],
    reshape: Option<Vec<i64>>,
) -> Result<TensorConfig, String> {
    if name.is_empty() {
        return Err(format!("config.pbtxt: every {role} needs a name"));
    }
    if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(format!(
            "config.pbtxt: the name of {role} '{}' must be at most {NAME_BYTES_MAX} bytes without control characters",
            excerpt(name)
        ));
    }
    if dims.len().max(reshape.as_ref().map_or(0, Vec::len)) > RANK_MAX {
        return Err(format!("config.pbtxt: {role} '{name}' has more than {RANK_MAX} dimensions"));
    }
    let datatype = datatype_of(data_type)
        .ok_or_else(|| format!("config.pbtxt: {role} '{name}' needs a data_type, such as TYPE_FP32"))?;
    let all_dims = dims.iter().chain(reshape.iter().flatten());
    if let Some(bad) = all_dims.clone().find(|&&d| d < ANY) {
        return Err(format!("config.pbtxt: {role} '{name}' has dimension {bad}; use -1 for an open one"));
    }
    let fixed = |dims: &[i64]| dims.iter().filter(|&&d| d != ANY).try_fold(1i64, |n, &d| n.checked_mul(d));
    // Sixteen bytes are the most that an element takes anywhere.
    if fixed(dims).and_then(|n| n.checked_mul(16)).is_none() {
        return Err(format!(
            "config.pbtxt: {role} '{name}' has dims {dims:?}, more elements than there can be"
        ));
    }
    if let Some(reshape) = &reshape {
        let open = |dims: &[i64]| dims.iter().filter(|&&d| d == ANY).count();
        if open(dims) != open(reshape) || fixed(dims) != fixed(reshape) {
            return Err(format!(
                "config.pbtxt: {role} '{name}' has dims {dims:?} and reshape {reshape:?}, which hold different \
                 numbers of elements"
            ));
        }
    }
    Ok(TensorConfig {
        name: name.to_owned(),
        datatype,
        dims: dims.to_vec(),
        reshape,
        optional: false,
        labels: Arc::default(),
    })
}

/// Errors: two tensors have one name.
fn each_once(role: &str, tensors: &[TensorConfig]) -> Result<(), String> {
    let mut names = BTreeSet::new();
    match tensors.iter().find(|tensor| !names.insert(&tensor.name)) {
        None => Ok(()),
        Some(twice) => Err(format!("config.pbtxt: {role} '{}' is there twice", twice.name)),
    }
}

/// The parameter that says in which process a model runs.
pub const ISOLATION: &str = "isolation";

fn isolation(source: &pb::ModelConfig, defaults: &Defaults) -> Result<Isolation, String> {
    let Some(parameter) = source.parameters.get(ISOLATION) else { return Ok(defaults.isolation) };
    let value = parameter.string_value.as_str();
    value.parse().map_err(|e| format!("config.pbtxt: parameters.{ISOLATION} '{}' {e}", excerpt(value)))
}

fn version_policy(source: &pb::ModelConfig) -> Result<VersionPolicy, String> {
    use pb::model_version_policy::PolicyChoice;
    match source.version_policy.as_ref().and_then(|p| p.policy_choice.as_ref()) {
        None => Ok(VersionPolicy::Latest(1)),
        Some(PolicyChoice::All(_)) => Ok(VersionPolicy::All),
        Some(PolicyChoice::Latest(latest)) => Ok(VersionPolicy::Latest(latest.num_versions.max(1) as usize)),
        Some(PolicyChoice::Specific(specific)) if specific.versions.is_empty() => {
            Err("config.pbtxt: version_policy.specific names no version".to_owned())
        }
        Some(PolicyChoice::Specific(specific)) => {
            let versions = specific.versions.iter().map(|n| {
                Version::parse(&n.to_string()).ok_or_else(|| {
                    format!("config.pbtxt: version_policy.specific.versions {n} is not a version number")
                })
            });
            versions.collect::<Result<Vec<_>, _>>().map(|mut versions| {
                versions.sort_unstable();
                versions.dedup();
                VersionPolicy::Specific(versions)
            })
        }
    }
}

fn file_name(source: &pb::ModelConfig) -> Result<String, String> {
    let name = match source.default_model_filename.as_str() {
        "" => MODEL_FILE,
        name => name,
    };
    let mut components = Path::new(name).components();
    let readable = name.len() <= 255 && !name.chars().any(char::is_control) && !name.contains('/');
    match (components.next(), components.next()) {
        (Some(Component::Normal(_)), None) if readable => Ok(name.to_owned()),
        _ => {
            Err(format!("config.pbtxt: default_model_filename '{}' must be a plain file name", excerpt(name)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::backend::{Device, GraphOptimization};
    use crate::batch::TimeoutAction;
    use crate::model::config::{InstanceGroup, pbtxt};

    fn resolved(text: &str) -> Result<ModelConfig, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("labels.txt"), "cat\ndog\n").unwrap();
        let model = Folder::new(folder.path(), "");
        resolve(&pbtxt::parse(text)?, &ModelName::parse("m").unwrap(), &model, &Defaults::default())
    }

    #[test]
    fn keys_that_are_not_honoured_are_refused_by_name() {
        for (text, key) in [
            ("sequence_batching { }", "sequence_batching"),
            ("ensemble_scheduling { step { model_name: \"x\" } }", "ensemble_scheduling"),
            ("model_transaction_policy { decoupled: true }", "decoupled"),
            ("optimization { graph { level: 7 } }", "optimization.graph.level"),
            (
                "optimization { execution_accelerators { cpu_execution_accelerator { name: \"openvino\" } } } instance_group { }",
                "openvino",
            ),
            (
                "optimization { execution_accelerators { gpu_execution_accelerator { name: \"tensorrt\" } } } instance_group { kind: KIND_GPU }",
                "tensorrt",
            ),
            ("batch_input { kind: BATCH_ELEMENT_COUNT }", "batch_input"),
            ("model_operations { op_library_filename: \"x.so\" }", "model_operations"),
            ("instance_group { kind: KIND_MODEL }", "KIND_MODEL"),
            ("instance_group { profile: \"p\" }", "instance_group.profile"),
            (
                "input { name: \"x\" data_type: TYPE_FP32 dims: 1 allow_ragged_batch: true }",
                "allow_ragged_batch",
            ),
            ("input { name: \"x\" data_type: TYPE_FP32 dims: 1 is_shape_tensor: true }", "is_shape_tensor"),
            ("parameters { key: \"execution_mode\" value { string_value: \"2\" } }", "execution_mode"),
            (
                "parameters { key: \"latency_objective_ms\" value { string_value: \"-1\" } }",
                "latency_objective_ms '-1' must be milliseconds",
            ),
            ("platform: \"tensorflow_savedmodel\"", "platform"),
            ("backend: \"python\"", "backend"),
            ("name: \"other\"", "name"),
            ("default_model_filename: \"../x.onnx\"", "default_model_filename"),
            (
                "output { name: \"y\" data_type: TYPE_FP32 dims: 1 label_filename: \"../x\" }",
                "label_filename",
            ),
            ("max_batch_size: -1", "max_batch_size"),
            ("max_batch_size: 4 dynamic_batching { preferred_batch_size: 8 }", "preferred_batch_size"),
            ("input { name: \"x\" dims: 1 }", "data_type"),
            ("input { name: \"x\" data_type: TYPE_FP32 dims: 4 reshape { shape: 3 } }", "reshape"),
        ] {
            let error = resolved(text).expect_err(text);
            assert!(error.contains(key), "{text}: {error}");
        }
    }

    #[test]
    fn hints_are_named_not_refused() {
        let config =
            resolved("optimization { input_pinned_memory { enable: true } eager_batching: true }").unwrap();
        assert_eq!(config.hints, ["optimization.input_pinned_memory.enable", "optimization.eager_batching"]);
    }

    #[test]
    fn values_arrive() {
        let config = resolved(
            r#"max_batch_size: 8
            output { name: "y" data_type: TYPE_FP32 dims: 2 label_filename: "labels.txt" }
            dynamic_batching {
              preferred_batch_size: [ 8, 4 ] max_queue_delay_microseconds: 100
              priority_levels: 2 default_priority_level: 2
              default_queue_policy { max_queue_size: 5 }
              priority_queue_policy { key: 1 value { default_timeout_microseconds: 7 timeout_action: DELAY allow_timeout_override: true } }
            }
            instance_group [ { count: 3 kind: KIND_CPU } ]
            optimization { graph { level: 1 } }
            parameters { key: "intra_op_thread_count" value { string_value: "2" } }
            parameters { key: "latency_objective_ms" value { string_value: "2.5" } }
            parameters { key: "session.intra_op.allow_spinning" value { string_value: "0" } }"#,
        )
        .unwrap();
        assert_eq!(config.max_batch_size, Some(8));
        assert_eq!(&*config.outputs[0].labels, ["cat", "dog"]);
        let batching = config.dynamic_batching.unwrap();
        assert_eq!((batching.preferred_rows, batching.default_level), (vec![4, 8], 2));
        assert_eq!(batching.levels[0].timeout, Some(Duration::from_micros(7)));
        assert_eq!(batching.levels[0].timeout_action, TimeoutAction::Delay);
        assert_eq!(batching.levels[1].size_max, 5);
        assert_eq!(config.instances, [InstanceGroup { device: Device::Cpu, count: 3 }]);
        assert_eq!(config.session.graph_optimization, GraphOptimization::Extended);
        assert_eq!(config.session.intra_op_threads, 2);
        assert_eq!(config.latency_objective, Some(Duration::from_micros(2500)));
        assert_eq!(config.hints, [] as [&str; 0]);
        assert_eq!(config.session.entries, [("session.intra_op.allow_spinning".to_owned(), "0".to_owned())]);
    }
}
