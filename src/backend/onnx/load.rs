//! From a version's files to sessions: read once, tried in a process of its own, opened where they are served.

use std::path::PathBuf;
use std::sync::Arc;

use super::files::Files;
use super::inspect::{Findings, inspect};
use super::library::Runtime;
use super::open::open;
use super::session::OnnxSession;
#[cfg(target_os = "linux")]
use super::worker::{Again, Isolated, Limits, Ordinary, Spec, Starting};
use crate::backend::{Artefact, Device, LoadError, Loader, Model, Session, SessionOptions};

/// The command that makes this program a worker.
pub const WORKER_ARGUMENT: &str = "worker";

/// What loading and serving a model may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadLimits {
    /// Seconds of processor time for opening a model; one more for each 4 MiB of files.
    pub seconds: u64,
    /// Bytes of memory for a trial, and for a worker that serves; four times the files' size more.
    pub trial_bytes: u64,
    pub worker_bytes: u64,
    /// Bytes of a version's files at the most.
    pub files_bytes: u64,
    /// Bytes of the outputs of one session call of a worker at the most.
    pub output_bytes: usize,
}

impl Default for LoadLimits {
    fn default() -> Self {
        Self {
            seconds: 3,
            trial_bytes: 1 << 30,
            worker_bytes: 4 << 30,
            files_bytes: 16 << 30,
            output_bytes: 256 << 20,
        }
    }
}

/// Bytes of files that ONNX Runtime reads and optimises in a second, with a wide margin: a model of 90 MB takes about
/// one second on one core.
const BYTES_PER_SECOND: u64 = 4 << 20;

/// How much memory a model takes while it is opened, as a multiple of its files: the file, its parsed form, the weights
/// and a rearranged copy of them.
const MEMORY_FACTOR: u64 = 4;

/// Loads ONNX files.
pub struct OnnxLoader {
    runtime: &'static Runtime,
    files_bytes: u64,
    #[cfg(target_os = "linux")]
    workers: Option<Workers>,
}

/// How workers are started.
#[cfg(target_os = "linux")]
struct Workers {
    /// The program that can be told to be one.
    program: PathBuf,
    limits: LoadLimits,
    ordinary: Arc<Ordinary>,
}

impl OnnxLoader {
    /// Loads in this process alone: for tools that are given models by whoever starts them.
    pub fn new(runtime: &'static Runtime) -> Self {
        Self {
            runtime,
            files_bytes: LoadLimits::default().files_bytes,
            #[cfg(target_os = "linux")]
            workers: None,
        }
    }

    /// Tries every model in a worker before it is served. Whatever this program is, started with [`WORKER_ARGUMENT`] it
    /// must call [`run_as_worker`].
    pub fn with_workers(runtime: &'static Runtime, limits: LoadLimits) -> Self {
        Self {
            runtime,
            files_bytes: limits.files_bytes,
            #[cfg(target_os = "linux")]
            workers: Some(Workers {
                // What the system runs now, even if the file has been replaced since.
                program: PathBuf::from("/proc/self/exe"),
                limits,
                ordinary: Arc::new(Ordinary::start()),
            }),
        }
    }
}

/// Becomes a worker. Never returns.
pub fn run_as_worker() -> ! {
    #[cfg(target_os = "linux")]
    super::worker::worker();
    #[cfg(not(target_os = "linux"))]
    super::library::end_process(1)
}

impl Loader for OnnxLoader {
    fn read(
        &self,
        artefact: &Artefact,
        device: &Device,
        options: &SessionOptions,
    ) -> Result<Box<dyn Model>, LoadError> {
        let (model, hash) = Files::model(artefact, self.files_bytes)?;
        #[cfg(target_os = "linux")]
        if let Some(Workers { program, limits, ordinary }) = &self.workers {
            let named = (*model).as_ref().len() as u64;
            let stacks = stack_bytes(options);
            let spec = |bytes: u64| Spec {
                program: program.clone(),
                onnxruntime: self.runtime.path().to_owned(),
                limits: Limits {
                    seconds: limits.seconds + bytes / BYTES_PER_SECOND,
                    memory_bytes: limits.trial_bytes + MEMORY_FACTOR * bytes + stacks,
                },
                serving_bytes: limits.worker_bytes + MEMORY_FACTOR * bytes + stacks,
            };
            // How large its data files are is known only when it was looked through.
            let folder_bytes = data_bytes(artefact).min(self.files_bytes);
            let spec = spec(named + folder_bytes);
            let mut starting = Starting::spawn(&spec)?;
            let findings = starting.scan(&model)?;
            let files = Files::with_data(artefact, (model, hash), findings.data.clone(), self.files_bytes)?;
            let graph = starting.open(&files, device, options)?;
            let again =
                Again { spec, files: Arc::new(files), device: device.clone(), options: options.clone() };
            let files = Arc::clone(&again.files);
            let trial = Arc::new(Isolated::new(starting, graph, again.clone(), limits.output_bytes)?);
            return Ok(Box::new(OnnxModel {
                runtime: self.runtime,
                files,
                findings,
                options: options.clone(),
                trial: Trial::Worker {
                    trial,
                    again,
                    output_bytes: limits.output_bytes,
                    ordinary: Arc::clone(ordinary),
                },
            }));
        }
        let findings = inspect(&model)?;
        let files = Files::with_data(artefact, (model, hash), findings.data.clone(), self.files_bytes)?;
        let trial = Arc::new(open(self.runtime, &files, device, options, &findings)?);
        Ok(Box::new(OnnxModel {
            runtime: self.runtime,
            files: Arc::new(files),
            findings,
            options: options.clone(),
            trial: Trial::Here { session: trial, device: device.clone() },
        }))
    }
}

/// Bytes of the stacks of a session's own threads: the system counts them whole, used or not.
#[cfg(target_os = "linux")]
fn stack_bytes(options: &SessionOptions) -> u64 {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = [options.intra_op_threads, options.inter_op_threads];
    let threads: usize = threads.iter().map(|&n| if n == 0 { processors } else { n }).sum();
    (threads * crate::backend::STACK_BYTES) as u64
}

/// Bytes of the files beside a model file: what its data may come to.
#[cfg(target_os = "linux")]
fn data_bytes(artefact: &Artefact) -> u64 {
    let entries = std::fs::read_dir(&artefact.folder).into_iter().flatten().filter_map(Result::ok).take(8192);
    let sizes = entries
        .filter_map(|entry| entry.metadata().ok())
        .filter(|file| file.is_file())
        .map(|file| file.len());
    sizes.fold(0, u64::saturating_add)
}

struct OnnxModel {
    runtime: &'static Runtime,
    files: Arc<Files>,
    findings: Findings,
    options: SessionOptions,
    trial: Trial,
}

enum Trial {
    #[cfg(target_os = "linux")]
    Worker {
        trial: Arc<Isolated>,
        again: Again,
        output_bytes: usize,
        ordinary: Arc<Ordinary>,
    },
    Here {
        session: Arc<OnnxSession>,
        device: Device,
    },
}

impl Model for OnnxModel {
    fn digest(&self) -> &str {
        &self.files.digest
    }

    fn hazards(&self) -> &[String] {
        &self.findings.hazards
    }

    fn grows(&self) -> bool {
        self.findings.grows
    }

    fn bytes(&self) -> u64 {
        self.files.bytes()
    }

    fn trial(&self) -> Arc<dyn Session> {
        match &self.trial {
            #[cfg(target_os = "linux")]
            Trial::Worker { trial, .. } => Arc::clone(trial) as Arc<dyn Session>,
            Trial::Here { session, .. } => Arc::clone(session) as Arc<dyn Session>,
        }
    }

    fn passed(&self) -> Result<(), LoadError> {
        match &self.trial {
            #[cfg(target_os = "linux")]
            Trial::Worker { trial, .. } => match trial.ended() {
                None => Ok(()),
                Some(how) => Err(LoadError(format!(
                    "trying it with made-up data ended the process that tried it: {how}"
                ))),
            },
            Trial::Here { .. } => Ok(()),
        }
    }

    fn isolated(&self, device: &Device) -> Option<Result<Arc<dyn Session>, LoadError>> {
        match &self.trial {
            #[cfg(target_os = "linux")]
            Trial::Worker { trial, again, output_bytes, ordinary } => {
                // One that was started by a thread that gives way would give way for good.
                if again.device == *device && Ordinary::is_here() {
                    trial.serve();
                    return Some(Ok(Arc::clone(trial) as Arc<dyn Session>));
                }
                let (again, output_bytes) =
                    (Again { device: device.clone(), ..again.clone() }, *output_bytes);
                Some(ordinary.run(move || {
                    let (starting, graph) = again.start()?;
                    let session = Isolated::new(starting, graph, again, output_bytes)?;
                    session.serve();
                    Ok(Arc::new(session) as Arc<dyn Session>)
                }))
            }
            Trial::Here { .. } => None,
        }
    }

    fn here(&self, device: &Device) -> Result<Arc<dyn Session>, LoadError> {
        if let Trial::Here { session, device: of } = &self.trial
            && of == device
            && session.concurrent()
        {
            return Ok(Arc::clone(session) as Arc<dyn Session>);
        }
        Ok(Arc::new(open(self.runtime, &self.files, device, &self.options, &self.findings)?))
    }
}
