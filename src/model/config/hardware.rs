//! Where and how sessions run, as a config says it: instances, options of ONNX Runtime.
//!
//! Always: what goes on to ONNX Runtime is on a list of what can do no harm. Its options can also name files to read
//! or write and hold addresses in memory, and a config comes with a model, from anybody.

use super::batching::LATENCY_OBJECTIVE;
use super::resolve::ISOLATION;
use super::{Defaults, InstanceGroup, padding::PADDING_PARAMETERS};
use crate::backend::{Device, GraphOptimization, SessionOptions};
use crate::error::excerpt;
use crate::proto::inference as pb;

/// Numbers of GPUs end below it.
const GPUS_MAX: i32 = 1024;

/// Instances of one version, over all groups and devices: each is a thread, and on a GPU a session.
const INSTANCES_MAX: usize = 256;

/// Errors: the key and what it may be.
pub fn instance_groups(
    source: &pb::ModelConfig,
    defaults: &Defaults,
    hints: &mut Vec<String>,
) -> Result<Vec<InstanceGroup>, String> {
    use pb::model_instance_group::Kind;
    refuse_cpu_accelerators(source)?;
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
            count => usize::try_from(count).ok().filter(|c| *c <= INSTANCES_MAX).ok_or_else(|| {
                format!("config.pbtxt: instance_group.count {count} must be between 1 and {INSTANCES_MAX}")
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
        if let Some(id) = group.gpus.iter().find(|id| !(0..GPUS_MAX).contains(*id)) {
            return Err(format!(
                "config.pbtxt: instance_group.gpus {id} must be between 0 and {}",
                GPUS_MAX - 1
            ));
        }
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
    let total: usize = groups.iter().map(|group| group.count).sum();
    if total > INSTANCES_MAX {
        return Err(format!(
            "config.pbtxt: instance_group asks for {total} instances in all; at most {INSTANCES_MAX} are served"
        ));
    }
    Ok(groups)
}

fn on_gpu(group: &pb::ModelInstanceGroup) -> bool {
    use pb::model_instance_group::Kind;
    match group.kind() {
        Kind::Gpu => true,
        Kind::Auto => !group.gpus.is_empty(),
        Kind::Cpu | Kind::Model => false,
    }
}

/// Options of ONNX Runtime. Notes in `hints` what has no effect. Errors: the key and what it may be.
pub fn session_options(source: &pb::ModelConfig, hints: &mut Vec<String>) -> Result<SessionOptions, String> {
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
            INTRA_OP_THREADS => options.intra_op_threads = threads(key, value)?,
            "inter_op_thread_count" => options.inter_op_threads = threads(key, value)?,
            "execution_mode" => {
                options.parallel = match value {
                    "0" => false,
                    "1" => true,
                    _ => {
                        return Err(format!(
                            "config.pbtxt: parameters.{key} '{}' must be 0 or 1",
                            excerpt(value)
                        ));
                    }
                }
            }
            "enable_mem_arena" => options.mem_arena = Some(boolean(key, value)?),
            "enable_mem_pattern" => options.mem_pattern = Some(boolean(key, value)?),
            // One CPU session always serves all its instances here.
            "share_session_between_instances" => _ = boolean(key, value)?,
            ARENA_SHRINKAGE => options
                .run_entries
                .push((key.clone(), arenas(value, source.instance_group.iter().any(on_gpu))?)),
            _ if SESSION_ENTRIES.contains(&key.as_str()) => {
                options.entries.push((key.clone(), entry(key, value)?));
            }
            _ if key.starts_with("session.") || key.starts_with("ep.") => {
                return Err(format!(
                    "config.pbtxt: parameters.{} is not passed on to ONNX Runtime, because not all of its entries are \
                     harmless; remove it to serve this model",
                    excerpt(key)
                ));
            }
            _ if CUDA_PARAMETERS.contains(&key.as_str()) || key == LATENCY_OBJECTIVE || key == ISOLATION => {}
            _ if PADDING_PARAMETERS.contains(&key.as_str()) => {}
            // People keep notes of their own there.
            _ => hints.push(format!("parameters.{}", excerpt(key))),
        }
    }
    Ok(options)
}

/// The parameter that sets the threads inside one operator.
pub const INTRA_OP_THREADS: &str = "intra_op_thread_count";

/// Entries of ONNX Runtime's session configuration that are passed on: switches and numbers of its kernels and
/// threads, all of them in `onnxruntime_session_options_config_keys.h` of its sources. Those that are left out name
/// files or folders (`session.optimized_model_external_initializers_file_name`,
/// `session.model_external_initializers_file_folder_path`, `session.collect_node_memory_stats_to_file`,
/// `session.node_partition_config_file`, `session.enable_profiling`), choose another format of model file, or take
/// checks away.
const SESSION_ENTRIES: &[&str] = &[
    "session.disable_aot_function_inlining",
    "session.disable_cpu_ep_fallback",
    "session.disable_double_qdq_remover",
    "session.disable_prepacking",
    "session.disable_qdq_constant_folding",
    "session.disable_quant_qdq",
    "session.dynamic_block_base",
    "session.enable_dq_matmulnbits_fusion",
    "session.enable_quant_qdq_cleanup",
    "session.force_spinning_stop",
    "session.inter_op.allow_spinning",
    "session.intra_op.allow_spinning",
    "session.intra_op_thread_affinities",
    "session.qdq_matmulnbits_accuracy_level",
    "session.qdq_matmulnbits_block_size",
    "session.qdqisint8allowed",
    "session.set_denormal_as_zero",
    "session.strict_shape_type_inference",
    "session.use_device_allocator_for_initializers",
    "session.use_env_allocators",
    "session.x64quantprecision",
];

/// The entry that sets how finely work is dealt out to threads.
const DYNAMIC_BLOCK_BASE: &str = "session.dynamic_block_base";

/// An entry's value: all those above are numbers or lists of them.
fn entry(key: &str, value: &str) -> Result<String, String> {
    if key == DYNAMIC_BLOCK_BASE && value.parse::<u32>().ok().filter(|n| *n <= i32::MAX as u32).is_none() {
        return Err(format!(
            "config.pbtxt: parameters.{key} '{}' must be a number from 0 to {}",
            excerpt(value),
            i32::MAX
        ));
    }
    let legal = |b: u8| b.is_ascii_digit() || matches!(b, b',' | b';' | b'-');
    match !value.is_empty() && value.len() <= 1024 && value.bytes().all(legal) {
        true => Ok(value.to_owned()),
        false => Err(format!(
            "config.pbtxt: parameters.{key} '{}' must be a number, as ONNX Runtime says",
            excerpt(value)
        )),
    }
}

/// Entry of ONNX Runtime's run configuration.
const ARENA_SHRINKAGE: &str = "memory.enable_memory_arena_shrinkage";

/// Which arenas shrink after a call: a session has one of the CPU, and one of each GPU that it runs on.
fn arenas(value: &str, on_gpu: bool) -> Result<String, String> {
    let device = |text: &str| {
        let number = text.strip_prefix("gpu:").filter(|_| on_gpu);
        let gpu =
            |n: &str| n.bytes().all(|b| b.is_ascii_digit()) && n.parse().is_ok_and(|n: i32| n < GPUS_MAX);
        text == "cpu:0" || number.is_some_and(gpu)
    };
    let advice =
        if on_gpu { "devices, such as cpu:0;gpu:0" } else { "cpu:0 for a model that runs on the CPU" };
    match value.len() <= 1024 && value.split(';').all(device) {
        true => Ok(value.to_owned()),
        false => {
            Err(format!("config.pbtxt: parameters.{ARENA_SHRINKAGE} '{}' must be {advice}", excerpt(value)))
        }
    }
}

/// Options of the CUDA provider that are passed on besides [`CUDA_PARAMETERS`]. Others hold addresses of functions
/// (`gpu_external_alloc`) or streams (`user_compute_stream`), or need inputs that stay in one place
/// (`enable_cuda_graph`).
const CUDA_OPTIONS: &[&str] = &[
    "cudnn_conv1d_pad_to_nc1d",
    "cudnn_conv_use_max_workspace",
    "enable_skip_layer_norm_strict_mode",
    "fuse_conv_bias",
    "prefer_nhwc",
    "sdpa_kernel",
    "tunable_op_enable",
    "tunable_op_max_tuning_duration_ms",
    "tunable_op_tuning_enable",
    "use_ep_level_unified_stream",
    "use_tf32",
];

/// Parameters that go to the CUDA provider.
const CUDA_PARAMETERS: &[&str] =
    &["cudnn_conv_algo_search", "gpu_mem_limit", "arena_extend_strategy", "do_copy_in_default_stream"];

fn cuda_options(source: &pb::ModelConfig) -> Result<Vec<(String, String)>, String> {
    let mut options = Vec::new();
    for key in CUDA_PARAMETERS {
        if let Some(parameter) = source.parameters.get(*key) {
            options.push(cuda_option(key, &parameter.string_value)?);
        }
    }
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
        for (key, value) in &gpu.parameters {
            if !CUDA_PARAMETERS.contains(&key.as_str()) && !CUDA_OPTIONS.contains(&key.as_str()) {
                return Err(format!(
                    "config.pbtxt: optimization.execution_accelerators.gpu_execution_accelerator 'cuda': parameter '{}' \
                     is not passed on to ONNX Runtime, because not all of its options are harmless; remove it",
                    excerpt(key)
                ));
            }
            options.push(cuda_option(key, value)?);
        }
    }
    options.sort();
    Ok(options)
}

/// An option and its value: all that are passed on are words or numbers.
fn cuda_option(key: &str, value: &str) -> Result<(String, String), String> {
    let word = !value.is_empty()
        && value.len() <= 64
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    match word {
        true => Ok((key.to_owned(), value.to_owned())),
        false => Err(format!(
            "config.pbtxt: '{key}' for CUDA is '{}'; it must be a word or a number",
            excerpt(value)
        )),
    }
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

/// Threads that a session may have of each kind: more than twice the processors only take memory and each other's turns.
/// A config may come from a larger machine.
fn threads_max() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).saturating_mul(2).max(64)
}

fn threads(key: &str, value: &str) -> Result<usize, String> {
    let most = threads_max();
    value.parse::<usize>().ok().filter(|n| *n <= most).ok_or_else(|| {
        format!(
            "config.pbtxt: parameters.{key} '{}' must be a number of threads from 0, for all processors, to {most}",
            excerpt(value)
        )
    })
}

fn boolean(key: &str, value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(format!("config.pbtxt: parameters.{key} '{}' must be 0, 1, true or false", excerpt(value))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(key: &str, value: &str) -> Result<SessionOptions, String> {
        let parameter = pb::ModelParameter { string_value: value.to_owned() };
        let parameters = [(key.to_owned(), parameter)].into();
        session_options(&pb::ModelConfig { parameters, ..Default::default() }, &mut Vec::new())
    }

    #[test]
    fn entries_that_can_do_harm_are_not_passed_on() {
        for key in [
            "session.model_external_initializers_file_folder_path",
            "session.optimized_model_external_initializers_file_name",
            "session.optimized_model_filepath",
            "session.collect_node_memory_stats_to_file",
            "session.resource_cuda_partitioning_settings",
            "session.node_partition_config_file",
            "session.load_model_format",
            "session.save_model_format",
            "session.enable_profiling",
            "session.use_ort_model_bytes_directly",
            "session.anything",
            "ep.context_file_path",
            "ep.context_enable",
        ] {
            let error = options(key, "1").expect_err(key);
            assert!(error.contains(key) && error.contains("not passed on"), "{error}");
        }
    }

    #[test]
    fn entries_that_are_passed_on_take_numbers() {
        for key in SESSION_ENTRIES {
            assert_eq!(options(key, "1").unwrap().entries, [((*key).to_owned(), "1".to_owned())]);
            for value in ["", "/etc/passwd", "1 2", "1\n", &"1".repeat(2000)] {
                assert!(options(key, value).is_err(), "{key} {value}");
            }
        }
        assert_eq!(options(ARENA_SHRINKAGE, "cpu:0").unwrap().run_entries[0].1, "cpu:0");
        assert_eq!(arenas("cpu:0;gpu:1", true).unwrap(), "cpu:0;gpu:1");
        for value in ["", "cpu", "cpu:", "cpu:1", "tpu:0", "cpu:0;", "cpu:99999", "gpu:", "gpu:99999"] {
            assert!(arenas(value, true).is_err(), "{value}");
        }
        let error = options(ARENA_SHRINKAGE, "gpu:0").unwrap_err();
        assert!(error.contains("cpu:0"), "{error}");
    }

    #[test]
    fn numbers_that_onnx_runtime_cannot_hold_are_refused_by_us() {
        assert!(options(DYNAMIC_BLOCK_BASE, "2147483647").is_ok());
        for value in ["2147483648", "99999999999999999999", "-4", "1;2", ""] {
            let error = options(DYNAMIC_BLOCK_BASE, value).expect_err(value);
            assert!(error.contains("from 0 to 2147483647"), "{error}");
        }
    }

    #[test]
    fn threads_are_bounded_by_what_machines_have() {
        for key in [INTRA_OP_THREADS, "inter_op_thread_count"] {
            assert!(options(key, "0").is_ok() && options(key, "64").is_ok());
            for value in ["1000000", "-1", "x", "99999999999999999999"] {
                let error = options(key, value).expect_err(value);
                assert!(error.contains(key) && error.contains("threads"), "{error}");
            }
        }
    }

    #[test]
    fn cuda_gets_no_addresses() {
        let with = |key: &str, value: &str| {
            let parameters = [(key.to_owned(), value.to_owned())].into();
            let gpu = pb::model_optimization_policy::execution_accelerators::Accelerator {
                name: "cuda".to_owned(),
                parameters,
            };
            let accelerators = pb::model_optimization_policy::ExecutionAccelerators {
                gpu_execution_accelerator: vec![gpu],
                ..Default::default()
            };
            let optimization = pb::ModelOptimizationPolicy {
                execution_accelerators: Some(accelerators),
                ..Default::default()
            };
            cuda_options(&pb::ModelConfig { optimization: Some(optimization), ..Default::default() })
        };
        assert_eq!(with("use_tf32", "0").unwrap(), [("use_tf32".to_owned(), "0".to_owned())]);
        for (key, value) in [
            ("gpu_external_alloc", "1234"),
            ("user_compute_stream", "1234"),
            ("has_user_compute_stream", "1"),
            ("enable_cuda_graph", "1"),
            ("device_id", "1"),
            ("use_tf32", "/tmp/x"),
        ] {
            assert!(with(key, value).unwrap_err().contains(key), "{key}");
        }
    }
}
