//! Session options, from our words to ONNX Runtime's.

use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider, ExecutionProvider};
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};

use super::library::Runtime;
use crate::backend::{Device, GraphOptimization, LoadError, SessionOptions};

/// The format of model files (`onnxruntime_session_options_config_keys.h` of ONNX Runtime's sources).
const FORMAT: (&str, &str) = ("session.load_model_format", "ONNX");

/// A builder with all options set.
///
/// Errors: an option that ONNX Runtime refuses; a device whose provider is not there. There is no silent
/// fallback from CUDA to the CPU.
pub fn builder(
    runtime: &Runtime,
    device: &Device,
    options: &SessionOptions,
) -> Result<SessionBuilder, LoadError> {
    let failed = |what: &str, message: String| LoadError(format!("{what}: {message}"));
    let level = match options.graph_optimization {
        GraphOptimization::Disabled => GraphOptimizationLevel::Disable,
        GraphOptimization::Basic => GraphOptimizationLevel::Level1,
        GraphOptimization::Extended => GraphOptimizationLevel::Level2,
        GraphOptimization::All => GraphOptimizationLevel::All,
    };
    // Spinning burns most of a core between requests and buys no latency (ARCHITECTURE.md, decisions).
    let base = || {
        Session::builder(&runtime.environment)?
            .with_log_level(LogLevel::Error)?
            .with_optimization_level(level)?
            .with_intra_threads(options.intra_op_threads)?
            .with_inter_threads(options.inter_op_threads)?
            .with_parallel_execution(options.parallel)?
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)
            .map_err(ort::Error::from)
    };
    let mut builder = base().map_err(|e: ort::Error| failed("session options", text(e)))?;
    if let Some(enable) = options.mem_pattern {
        builder = builder.with_memory_pattern(enable).map_err(|e| failed("enable_mem_pattern", text(e)))?;
    }
    for (key, value) in &options.entries {
        builder = builder.with_config_entry(key, value).map_err(|e| failed(key, text(e)))?;
    }
    // What was looked through is what runs: by itself ONNX Runtime takes some bytes for a format of its own. Last, so that
    // no entry of a config says otherwise.
    let (key, value) = FORMAT;
    builder = builder.with_config_entry(key, value).map_err(|e| failed(key, text(e)))?;
    match device {
        Device::Cpu => match options.mem_arena {
            None => Ok(builder),
            Some(arena) => builder
                .with_execution_providers([ep::CPU::default()
                    .with_arena_allocator(arena)
                    .build()
                    .error_on_failure()])
                .map_err(|e| failed("enable_mem_arena", text(e))),
        },
        Device::Cuda { id, options } => {
            let cuda = ep::CUDA::default().with_device_id(*id);
            if !ep::CUDA::is_available().unwrap_or(false) {
                return Err(LoadError(
                    "KIND_GPU needs ONNX Runtime's CUDA provider, and the loaded library has none: point \
                     ORT_DYLIB_PATH at the library of the onnxruntime-gpu package, or use KIND_CPU"
                        .to_owned(),
                ));
            }
            let cuda = options.iter().fold(cuda, |cuda, (key, value)| cuda.with_arbitrary_config(key, value));
            builder
                .with_execution_providers([cuda.build().error_on_failure()])
                .map_err(|e| failed("KIND_GPU: the CUDA provider did not start", text(e)))
        }
    }
}

fn text(error: impl Into<ort::Error>) -> String {
    error.into().message().to_owned()
}
