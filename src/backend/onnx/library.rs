//! Finds and opens the ONNX Runtime library.

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::sys::OrtApiBase;

/// Why there is no ONNX Runtime.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    #[error(
        "no ONNX Runtime library was found (looked at: {looked_at}); set ORT_DYLIB_PATH to {NAME} of ONNX Runtime \
         1.24 or later, put it beside the binary, or build again with python3 and pip at hand"
    )]
    Missing { looked_at: String },
    #[error(
        "the ONNX Runtime library cannot be used: {reason}; set ORT_DYLIB_PATH to {NAME} of version 1.24 or later"
    )]
    Unusable { reason: String },
}

#[cfg(target_os = "macos")]
const NAME: &str = "libonnxruntime.dylib";
#[cfg(windows)]
const NAME: &str = "onnxruntime.dll";
#[cfg(all(unix, not(target_os = "macos")))]
const NAME: &str = "libonnxruntime.so";

/// Where the build put the pinned library; empty when none is pinned for this platform.
const PROVISIONED: &str = env!("WEIR_ORT_PROVISIONED");

/// ONNX Runtime, loaded. There is one in a process.
pub struct Runtime {
    pub(super) environment: Environment,
    version: String,
    path: PathBuf,
}

impl Runtime {
    /// The process's ONNX Runtime; loads it on the first call.
    ///
    /// Looks at `ORT_DYLIB_PATH`, then beside the binary and in `../lib`, then where the build put it. A path
    /// that was named must work: there is no falling back from it.
    pub fn open() -> Result<&'static Runtime, LibraryError> {
        static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
        super::memory::return_large_blocks();
        let library = find()?;
        RUNTIME
            .get_or_init(|| load(&library))
            .as_ref()
            .map_err(|reason| LibraryError::Unusable { reason: reason.clone() })
    }

    /// Where the library is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The library's version, such as `1.31.1`.
    pub fn version(&self) -> &str {
        &self.version
    }
}

/// Keeps the library from collecting and sending telemetry.
///
/// Since 1.31 Microsoft's builds for Linux keep a database of events under the user's cache folder and upload it,
/// whatever the API is told; only this variable, read while the library is loaded, stops that. Call it before any
/// other thread is started.
pub fn opt_out_of_telemetry() {
    // SAFETY: the caller has not started a thread that could read the environment meanwhile.
    unsafe { std::env::set_var("ORT_DISABLE_TELEMETRY", "1") }
}

/// Ends the process at once, without the library's static destructors: under a session call or a load that is still
/// running, they would pull its memory away and end the process with a fault instead of `code`.
pub fn end_process(code: i32) -> ! {
    // SAFETY: `_exit` only ends the process; nothing runs after it.
    unsafe { libc::_exit(code) }
}

fn find() -> Result<PathBuf, LibraryError> {
    if let Some(named) = std::env::var_os("ORT_DYLIB_PATH").filter(|v| !v.is_empty()).map(PathBuf::from) {
        return match std::path::absolute(&named) {
            Ok(absolute) if absolute.is_file() => Ok(absolute),
            _ => Err(LibraryError::Missing { looked_at: format!("ORT_DYLIB_PATH={}", named.display()) }),
        };
    }
    let binary = std::env::current_exe().ok();
    let beside = binary.as_deref().and_then(Path::parent).map(|folder| folder.join(NAME));
    let in_lib = binary.as_deref().and_then(Path::parent).map(|folder| folder.join("../lib").join(NAME));
    let provisioned = Some(PathBuf::from(PROVISIONED)).filter(|p| !p.as_os_str().is_empty());
    let places: Vec<PathBuf> = [beside, in_lib, provisioned].into_iter().flatten().collect();
    places.iter().find(|p| p.is_file()).cloned().ok_or_else(|| {
        let looked_at: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
        LibraryError::Missing { looked_at: looked_at.join(", ") }
    })
}

fn load(library: &Path) -> Result<Runtime, String> {
    let environment = ort::init_from(library)
        .map_err(|e| e.to_string())?
        .with_name("weir")
        .with_telemetry(false)
        .with_logger(std::sync::Arc::new(log))
        .build()
        .map_err(|e| e.message().to_owned())?;
    environment.set_log_level(LogLevel::Error);
    Ok(Runtime {
        environment,
        path: library.to_owned(),
        version: version_of(library).unwrap_or_else(|| "of unknown version".to_owned()),
    })
}

/// ONNX Runtime reports through our log. A failed load or run is told to whoever asked for it, so its own words
/// are details here.
fn log(level: LogLevel, _category: &str, _id: &str, location: &str, message: &str) {
    match level {
        LogLevel::Fatal => tracing::error!(target: "onnxruntime", location, "{message}"),
        LogLevel::Error | LogLevel::Warning => tracing::debug!(target: "onnxruntime", location, "{message}"),
        LogLevel::Info | LogLevel::Verbose => tracing::trace!(target: "onnxruntime", location, "{message}"),
    }
}

/// The version, in the library's own words.
fn version_of(library: &Path) -> Option<String> {
    // SAFETY: the library was loaded above and stays loaded, so that this only raises its use count; its entry
    // point has had this signature in every version, and the string it gives is static.
    unsafe {
        let library = libloading::Library::new(library).ok()?;
        let base = library.get::<unsafe extern "C" fn() -> *const OrtApiBase>(b"OrtGetApiBase").ok()?();
        let version = ((*base).GetVersionString)();
        Some(CStr::from_ptr(version).to_string_lossy().into_owned())
    }
}
