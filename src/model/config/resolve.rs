//! From the parsed message to valid values: each key honoured, noted as a hint, or refused.

use std::path::{Component, Path};
use std::sync::Arc;
use std::time::Duration;

use prost_reflect::{DynamicMessage, FieldDescriptor, Value};

use super::{
    Defaults, DynamicBatching, InstanceGroup, MODEL_FILE, ModelConfig, TensorConfig, VersionPolicy,
    WarmupData, WarmupInput, WarmupSample, datatype_of,
    padding::{PADDING_PARAMETERS, padding},
};
use crate::backend::{Device, Folder, GraphOptimization, Isolation, SessionOptions};
use crate::batch::{LevelPolicy, TimeoutAction};
use crate::error::excerpt;
use crate::id::{ModelName, Version};
use crate::proto::inference as pb;
use crate::tensor::ANY;

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
    let session = session_options(&source, &mut hints)?;
    let instances = instance_groups(&source, defaults, &mut hints)?;
    Ok(ModelConfig {
        max_batch_size: (!says_nothing).then_some(max_batch_size),
        inputs: source.input.iter().map(input).collect::<Result<_, _>>()?,
        outputs: source.output.iter().map(|o| output(o, folder)).collect::<Result<_, _>>()?,
        dynamic_batching: dynamic_batching(&source, max_batch_size, defaults)?,
        instances,
        latency_objective: latency_objective(&source, defaults)?,
        padding: padding(&source)?,
        response_cache: source.response_cache.is_some_and(|cache| cache.enable),
        version_policy: version_policy(&source)?,
        isolation: isolation(&source, defaults)?,
        session,
        warmup: source.model_warmup.iter().map(|w| warmup(w, folder)).collect::<Result<_, _>>()?,
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
        let below = |list: &[&str]| list.iter().any(|&p| path == p || path.starts_with(&format!("{p}.")));
        if below(HINTS) {
            hints.push(path.to_owned());
            return Ok(());
        }
        // An empty message above honoured keys (`optimization { }`) asks for nothing.
        let above = HONOURED.iter().any(|p| p.starts_with(&format!("{path}.")));
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
        return Err(format!("config.pbtxt: name '{}' must be the folder's name, '{name}'", source.name));
    }
    let served = matches!(source.platform.as_str(), "" | "onnxruntime_onnx");
    if !served {
        return Err(format!(
            "config.pbtxt: platform '{}' is not served; it must be onnxruntime_onnx",
            source.platform
        ));
    }
    if !matches!(source.backend.as_str(), "" | "onnxruntime") {
        return Err(format!(
            "config.pbtxt: backend '{}' is not served; it must be onnxruntime",
            source.backend
        ));
    }
    Ok(())
}

fn input(input: &pb::ModelInput) -> Result<TensorConfig, String> {
    let reshape = input.reshape.as_ref().map(|r| r.shape.clone());
    tensor("input", &input.name, input.data_type, &input.dims, reshape)
        .map(|tensor| TensorConfig { optional: input.optional, ..tensor })
}

fn output(output: &pb::ModelOutput, folder: &Folder) -> Result<TensorConfig, String> {
    let reshape = output.reshape.as_ref().map(|r| r.shape.clone());
    let tensor = tensor("output", &output.name, output.data_type, &output.dims, reshape)?;
    let labels = match output.label_filename.as_str() {
        "" => Arc::default(),
        file => labels(folder, file)?,
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
    let datatype = datatype_of(data_type)
        .ok_or_else(|| format!("config.pbtxt: {role} '{name}' needs a data_type, such as TYPE_FP32"))?;
    let all_dims = dims.iter().chain(reshape.iter().flatten());
    if let Some(bad) = all_dims.clone().find(|&&d| d < ANY) {
        return Err(format!("config.pbtxt: {role} '{name}' has dimension {bad}; use -1 for an open one"));
    }
    if let Some(reshape) = &reshape {
        let open = |dims: &[i64]| dims.iter().filter(|&&d| d == ANY).count();
        let fixed =
            |dims: &[i64]| dims.iter().filter(|&&d| d != ANY).try_fold(1i64, |n, &d| n.checked_mul(d));
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

/// All of a file that the config names, which must lie in `folder`.
fn named_file(folder: &Folder, file: &str, key: &str, bytes_max: u64) -> Result<Vec<u8>, String> {
    let read = folder.read(Path::new(file), bytes_max);
    read.map_err(|reason| format!("config.pbtxt: {key} '{}' {reason}", excerpt(file)))
}

/// Bytes of a file of labels, and its lines: the largest sets of classes have some ten thousand.
const LABEL_BYTES_MAX: u64 = 16 << 20;
const LABELS_MAX: usize = 1_000_000;

fn labels(folder: &Folder, file: &str) -> Result<Arc<[String]>, String> {
    let key = "output.label_filename";
    let wrong = |reason: String| format!("config.pbtxt: {key} '{}' {reason}", excerpt(file));
    let text = String::from_utf8(named_file(folder, file, key, LABEL_BYTES_MAX)?)
        .map_err(|e| wrong(format!("is not UTF-8 text: byte {} is wrong", e.utf8_error().valid_up_to())))?;
    if text.lines().nth(LABELS_MAX).is_some() {
        return Err(wrong(format!("has more than {LABELS_MAX} lines")));
    }
    Ok(text.lines().map(|line| line.trim_end().to_owned()).collect())
}

fn dynamic_batching(
    source: &pb::ModelConfig,
    max_batch_size: usize,
    defaults: &Defaults,
) -> Result<Option<DynamicBatching>, String> {
    use pb::model_config::SchedulingChoice;
    let Some(SchedulingChoice::DynamicBatching(batching)) = &source.scheduling_choice else {
        return Ok(None);
    };
    let mut preferred_rows = Vec::new();
    for &size in &batching.preferred_batch_size {
        match usize::try_from(size) {
            Ok(rows) if rows > 0 && (max_batch_size == 0 || rows <= max_batch_size) => {
                preferred_rows.push(rows)
            }
            _ => {
                return Err(format!(
                    "config.pbtxt: dynamic_batching.preferred_batch_size {size} must be between 1 and \
                     max_batch_size ({max_batch_size})"
                ));
            }
        }
    }
    preferred_rows.sort_unstable();
    let levels = batching.priority_levels.max(1);
    if levels > 1000 {
        return Err(format!("config.pbtxt: dynamic_batching.priority_levels {levels} is more than 1000"));
    }
    let default_level = batching.default_priority_level;
    if batching.priority_levels > 0 && !(1..=levels).contains(&default_level) {
        return Err(format!(
            "config.pbtxt: dynamic_batching.default_priority_level {default_level} must be between 1 and \
             priority_levels ({levels})"
        ));
    }
    if let Some(level) = batching.priority_queue_policy.keys().find(|level| !(1..=levels).contains(level)) {
        return Err(format!(
            "config.pbtxt: dynamic_batching.priority_queue_policy names level {level}; there are {levels}"
        ));
    }
    let policy_of = |level: u64| {
        let own = batching.priority_queue_policy.get(&level).or(batching.default_queue_policy.as_ref());
        level_policy(own, defaults)
    };
    Ok(Some(DynamicBatching {
        delay_max: Duration::from_micros(batching.max_queue_delay_microseconds),
        preferred_rows,
        levels: (1..=levels).map(policy_of).collect(),
        default_level: usize::try_from(default_level.max(1)).unwrap_or(1),
    }))
}

/// A queue policy; what it leaves open comes from the server's defaults. Every queue has a limit: a size of 0,
/// "unlimited" in Triton, means the default here.
pub fn level_policy(policy: Option<&pb::ModelQueuePolicy>, defaults: &Defaults) -> LevelPolicy {
    let policy = policy.cloned().unwrap_or_default();
    LevelPolicy {
        size_max: match policy.max_queue_size {
            0 => defaults.max_queue_size,
            size => size as usize,
        },
        timeout: match policy.default_timeout_microseconds {
            0 => None,
            us => Some(Duration::from_micros(us)),
        },
        timeout_action: match policy.timeout_action() {
            pb::model_queue_policy::TimeoutAction::Reject => TimeoutAction::Reject,
            pb::model_queue_policy::TimeoutAction::Delay => TimeoutAction::Delay,
        },
        timeout_override: policy.allow_timeout_override,
    }
}

fn instance_groups(
    source: &pb::ModelConfig,
    defaults: &Defaults,
    hints: &mut Vec<String>,
) -> Result<Vec<InstanceGroup>, String> {
    use pb::model_instance_group::Kind;
    refuse_cpu_accelerators(source)?;
    let on_gpu = |group: &pb::ModelInstanceGroup| match group.kind() {
        Kind::Gpu => true,
        Kind::Auto => !group.gpus.is_empty(),
        Kind::Cpu | Kind::Model => false,
    };
    if !source.instance_group.iter().any(on_gpu) {
        hints.extend(gpu_keys(source));
    }
    if source.instance_group.is_empty() {
        return Ok(vec![InstanceGroup { device: Device::Cpu, count: defaults.instances }]);
    }
    let cuda_options =
        if source.instance_group.iter().any(on_gpu) { cuda_options(source)? } else { Vec::new() };
    let mut groups = Vec::new();
    for group in &source.instance_group {
        let count = match group.count {
            0 => 1,
            count => usize::try_from(count).ok().filter(|c| *c <= 256).ok_or_else(|| {
                format!("config.pbtxt: instance_group.count {count} must be between 1 and 256")
            })?,
        };
        let on_gpus = |gpus: &[i32]| {
            let gpus = if gpus.is_empty() { &[0] } else { gpus };
            gpus.iter()
                .map(|&id| InstanceGroup {
                    device: Device::Cuda { id, options: cuda_options.clone() },
                    count,
                })
                .collect::<Vec<_>>()
        };
        match group.kind() {
            Kind::Cpu if !group.gpus.is_empty() => {
                return Err(
                    "config.pbtxt: instance_group.gpus is set beside KIND_CPU; remove one of them".to_owned()
                );
            }
            Kind::Cpu => groups.push(InstanceGroup { device: Device::Cpu, count }),
            // Auto means the GPU only when one is named: a model must never land on another device than was meant.
            Kind::Auto if group.gpus.is_empty() => groups.push(InstanceGroup { device: Device::Cpu, count }),
            Kind::Auto | Kind::Gpu => groups.extend(on_gpus(&group.gpus)),
            Kind::Model => {
                return Err(
                    "config.pbtxt: instance_group.kind KIND_MODEL is not supported; use KIND_CPU or KIND_GPU"
                        .to_owned(),
                );
            }
        }
    }
    Ok(groups)
}

/// The parameter that sets a model's latency objective.
const LATENCY_OBJECTIVE: &str = "latency_objective_ms";

fn latency_objective(source: &pb::ModelConfig, defaults: &Defaults) -> Result<Option<Duration>, String> {
    let Some(parameter) = source.parameters.get(LATENCY_OBJECTIVE) else {
        return Ok(defaults.latency_objective);
    };
    let value = parameter.string_value.as_str();
    value.parse().ok().and_then(objective).ok_or_else(|| {
        format!("config.pbtxt: parameters.{LATENCY_OBJECTIVE} '{value}' must be {OBJECTIVE_RANGE}")
    })
}

/// What [`objective`] takes, in words.
pub const OBJECTIVE_RANGE: &str = "milliseconds from 0.1 to 3600000, or 0 for none";

/// A latency objective given in milliseconds: `Some(None)` is none.
pub fn objective(milliseconds: f64) -> Option<Option<Duration>> {
    match milliseconds {
        0.0 => Some(None),
        0.1..=3_600_000.0 => Some(Some(Duration::from_secs_f64(milliseconds / 1e3))),
        _ => None,
    }
}

/// The parameter that says in which process a model runs.
const ISOLATION: &str = "isolation";

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
    match (components.next(), components.next()) {
        (Some(Component::Normal(_)), None) => Ok(name.to_owned()),
        _ => Err(format!("config.pbtxt: default_model_filename '{name}' must be a plain file name")),
    }
}

fn session_options(source: &pb::ModelConfig, hints: &mut Vec<String>) -> Result<SessionOptions, String> {
    let mut options = SessionOptions::default();
    if let Some(graph) = source.optimization.as_ref().and_then(|o| o.graph.as_ref()) {
        // The numbers of Triton's ONNX Runtime backend.
        options.graph_optimization = match graph.level {
            -1 => GraphOptimization::Basic,
            0 => GraphOptimization::All,
            1 => GraphOptimization::Extended,
            2 => GraphOptimization::Disabled,
            level => {
                return Err(format!("config.pbtxt: optimization.graph.level {level} must be -1, 0, 1 or 2"));
            }
        };
    }
    let mut parameters: Vec<(&String, &str)> =
        source.parameters.iter().map(|(key, value)| (key, value.string_value.as_str())).collect();
    parameters.sort();
    for (key, value) in parameters {
        match key.as_str() {
            INTRA_OP_THREADS => options.intra_op_threads = number(key, value)?,
            "inter_op_thread_count" => options.inter_op_threads = number(key, value)?,
            "execution_mode" => {
                options.parallel = match value {
                    "0" => false,
                    "1" => true,
                    _ => return Err(format!("config.pbtxt: parameters.{key} '{value}' must be 0 or 1")),
                }
            }
            "enable_mem_arena" => options.mem_arena = Some(boolean(key, value)?),
            "enable_mem_pattern" => options.mem_pattern = Some(boolean(key, value)?),
            // One CPU session always serves all its instances here.
            "share_session_between_instances" => _ = boolean(key, value)?,
            "memory.enable_memory_arena_shrinkage" => {
                options.run_entries.push((key.clone(), value.to_owned()))
            }
            _ if key.starts_with("session.") => options.entries.push((key.clone(), value.to_owned())),
            _ if CUDA_PARAMETERS.contains(&key.as_str()) || key == LATENCY_OBJECTIVE || key == ISOLATION => {}
            _ if PADDING_PARAMETERS.contains(&key.as_str()) => {}
            // People keep notes of their own there.
            _ => hints.push(format!("parameters.{key}")),
        }
    }
    Ok(options)
}

/// The parameter that sets the threads inside one operator.
pub const INTRA_OP_THREADS: &str = "intra_op_thread_count";

/// Parameters that go to the CUDA provider.
const CUDA_PARAMETERS: &[&str] =
    &["cudnn_conv_algo_search", "gpu_mem_limit", "arena_extend_strategy", "do_copy_in_default_stream"];

fn cuda_options(source: &pb::ModelConfig) -> Result<Vec<(String, String)>, String> {
    let mut options: Vec<(String, String)> = CUDA_PARAMETERS
        .iter()
        .filter_map(|key| Some(((*key).to_owned(), source.parameters.get(*key)?.string_value.clone())))
        .collect();
    let accelerators = source.optimization.as_ref().and_then(|o| o.execution_accelerators.as_ref());
    let Some(accelerators) = accelerators else { return Ok(options) };
    for gpu in &accelerators.gpu_execution_accelerator {
        if gpu.name != "cuda" {
            return Err(format!(
                "config.pbtxt: optimization.execution_accelerators.gpu_execution_accelerator '{}' is not supported; \
                 use 'cuda' or remove it",
                gpu.name
            ));
        }
        options.extend(gpu.parameters.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    options.sort();
    Ok(options)
}

fn refuse_cpu_accelerators(source: &pb::ModelConfig) -> Result<(), String> {
    let accelerators = source.optimization.as_ref().and_then(|o| o.execution_accelerators.as_ref());
    match accelerators.and_then(|a| a.cpu_execution_accelerator.first()) {
        None => Ok(()),
        Some(cpu) => Err(format!(
            "config.pbtxt: optimization.execution_accelerators.cpu_execution_accelerator '{}' is not supported; \
             remove it to use ONNX Runtime's CPU provider",
            cpu.name
        )),
    }
}

/// Keys that matter on a GPU only, for a model that runs on none.
fn gpu_keys(source: &pb::ModelConfig) -> Vec<String> {
    let parameters = CUDA_PARAMETERS.iter().filter(|key| source.parameters.contains_key(**key));
    let mut keys: Vec<String> = parameters.map(|key| format!("parameters.{key}")).collect();
    let accelerators = source.optimization.as_ref().and_then(|o| o.execution_accelerators.as_ref());
    for gpu in accelerators.iter().flat_map(|a| &a.gpu_execution_accelerator) {
        keys.push(format!("optimization.execution_accelerators.gpu_execution_accelerator '{}'", gpu.name));
    }
    keys
}

fn number(key: &str, value: &str) -> Result<usize, String> {
    value
        .parse::<usize>()
        .ok()
        .filter(|n| *n <= 1024)
        .ok_or_else(|| format!("config.pbtxt: parameters.{key} '{value}' must be a number from 0 to 1024"))
}

fn boolean(key: &str, value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(format!("config.pbtxt: parameters.{key} '{value}' must be 0, 1, true or false")),
    }
}

/// Bytes of the data of all warm-up runs, which are kept until the model is loaded.
const WARMUP_BYTES_MAX: u64 = 64 << 20;

fn warmup(sample: &pb::ModelWarmup, folder: &Folder) -> Result<WarmupSample, String> {
    use pb::model_warmup::input::InputDataType;
    let mut inputs = Vec::new();
    for (name, input) in &sample.inputs {
        let datatype = datatype_of(input.data_type)
            .ok_or_else(|| format!("config.pbtxt: model_warmup input '{name}' needs a data_type"))?;
        if let Some(bad) = input.dims.iter().find(|d| **d < 0) {
            return Err(format!(
                "config.pbtxt: model_warmup input '{name}' has dimension {bad}; give its size"
            ));
        }
        let data = match &input.input_data_type {
            None | Some(InputDataType::ZeroData(_)) => WarmupData::Zero,
            Some(InputDataType::RandomData(_)) => WarmupData::Random,
            Some(InputDataType::InputDataFile(file)) => {
                let key = "model_warmup.inputs.input_data_file";
                WarmupData::File(named_file(&folder.join("warmup"), file, key, WARMUP_BYTES_MAX)?)
            }
        };
        inputs.push(WarmupInput { name: name.clone(), datatype, dims: input.dims.clone(), data });
    }
    inputs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(WarmupSample {
        name: sample.name.clone(),
        rows: sample.batch_size.max(1) as usize,
        count: sample.count.clamp(1, 10_000) as usize,
        inputs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::pbtxt;

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
            parameters { key: "session.x" value { string_value: "y" } }"#,
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
        assert_eq!(config.session.entries, [("session.x".to_owned(), "y".to_owned())]);
    }
}
