//! What runs a model: the seam between the server and ONNX Runtime.
//!
//! Always: a [`Session`] answers from any thread; whether it may run on several at once is its own word.
//! Not here: queues, versions, clients.

#[cfg(test)]
pub mod fake;
mod folder;
mod isolation;
pub mod onnx;
mod stop;

pub use folder::{Folder, Opened, Outside, Own, is_own, open, open_own};
pub use isolation::{Isolation, NoIsolation};
pub use onnx::release_memory;
pub use stop::{Interrupt, Stop};

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::tensor::{DataType, Shape, Tensor};

/// Bytes of stack, of address space at first, that each thread has which opens, calls or drops a session. ONNX Runtime's
/// depth grows with a model's trees and graphs; a model is tried with half of it.
pub const STACK_BYTES: usize = 8 << 20;

/// The files of one version. Only `root` may be a link; whoever reads a file goes through [`Artefact::open`].
#[derive(Debug, Clone)]
pub struct Artefact {
    /// The models folder: below it no link is followed.
    pub root: PathBuf,
    /// The model file itself, below `folder`.
    pub file: PathBuf,
    /// The folder that external data may not leave, below `root`.
    pub folder: PathBuf,
}

impl Artefact {
    /// The model file. Errors: as [`open`].
    pub fn open(&self, bytes_max: u64) -> Result<Opened, Outside> {
        let file = self.file.strip_prefix(&self.root).map_err(|_| Outside::Path)?;
        Folder::new(&self.root, "").open(file, bytes_max)
    }

    /// A file that the model file names, by its path in `folder`. Errors: as [`open`].
    pub fn open_beside(&self, file: &Path, bytes_max: u64) -> Result<Opened, Outside> {
        let folder = self.folder.strip_prefix(&self.root).map_err(|_| Outside::Path)?;
        Folder::new(&self.root, folder).open(file, bytes_max)
    }
}

/// Where a session runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Device {
    Cpu,
    /// A CUDA device and its provider options, as ONNX Runtime names them.
    Cuda {
        id: i32,
        options: Vec<(String, String)>,
    },
}

/// How much ONNX Runtime rewrites a graph before it runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum GraphOptimization {
    Disabled,
    Basic,
    Extended,
    #[default]
    All,
}

/// Options of a session. The defaults suit many callers on one CPU session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOptions {
    /// Threads inside one operator; 0 leaves it to ONNX Runtime (all cores). Default 1: concurrent calls of one
    /// session use the cores better than threads inside a call do.
    pub intra_op_threads: usize,
    /// Threads across operators, in parallel mode only; 0 leaves it to ONNX Runtime.
    pub inter_op_threads: usize,
    /// Run independent branches of the graph at once.
    pub parallel: bool,
    pub graph_optimization: GraphOptimization,
    /// The CPU memory arena; `None` leaves ONNX Runtime's default (on).
    pub mem_arena: Option<bool>,
    /// Plan memory by the shapes seen; `None` leaves ONNX Runtime's default (on).
    pub mem_pattern: Option<bool>,
    /// Entries of ONNX Runtime's session configuration, passed on as they are.
    pub entries: Vec<(String, String)>,
    /// Entries of ONNX Runtime's run configuration, passed with every call.
    pub run_entries: Vec<(String, String)>,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            intra_op_threads: 1,
            inter_op_threads: 0,
            parallel: false,
            graph_optimization: GraphOptimization::All,
            mem_arena: None,
            mem_pattern: None,
            entries: Vec::new(),
            run_entries: Vec::new(),
        }
    }
}

/// An input or output as the model file declares it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphTensor {
    pub name: String,
    #[serde(with = "datatype_by_name")]
    pub datatype: DataType,
    /// Open dimensions are [`crate::tensor::ANY`]; `None` when the file does not say how many there are.
    pub dims: Option<Vec<i64>>,
    /// Names of open dimensions, empty where there is none; the same name means the same size.
    pub symbols: Vec<String>,
    /// The file carries a default, so a run may leave it out.
    pub has_default: bool,
}

/// A data type as the protocol names it.
mod datatype_by_name {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::tensor::DataType;

    pub fn serialize<S: Serializer>(datatype: &DataType, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(datatype.name())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DataType, D::Error> {
        let name = String::deserialize(deserializer)?;
        DataType::from_name(&name).ok_or_else(|| D::Error::custom("no data type has that name"))
    }
}

/// What a model file says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Graph {
    pub inputs: Vec<GraphTensor>,
    pub outputs: Vec<GraphTensor>,
    /// Outputs, by index, that a classifying operator computes as scores of classes.
    pub class_scores: Vec<usize>,
    /// Outputs, by index, that hold the predicted class.
    pub class_labels: Vec<usize>,
}

/// One input of a session call. The parts, joined in the order given, are its elements; they
/// may begin and end within a row.
#[derive(Debug, Clone)]
pub struct BatchInput {
    /// Position among the graph's inputs.
    pub index: usize,
    pub datatype: DataType,
    /// Shape of the whole.
    pub shape: Shape,
    pub parts: SmallVec<[Bytes; 4]>,
}

/// Why a model cannot be served. The text is for operators and may be shown to clients: it names no path.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct LoadError(pub String);

/// Characters of a reason at the most: a model file may hold names of a megabyte.
const REASON_MAX: usize = 1000;

impl LoadError {
    /// Fit for logs and clients whatever a model file wrote into it: of bounded length, on one line.
    #[must_use]
    pub fn presentable(self) -> Self {
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let mut text: String = self.0.chars().take(REASON_MAX).map(plain).collect();
        if text.len() < self.0.len() {
            text.push('…');
        }
        Self(text)
    }
}

/// Why a session call failed. The texts may be shown to clients.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RunError {
    /// The model does not take these inputs.
    #[error("{0}")]
    InvalidInput(String),
    #[error("{0}")]
    Failed(String),
    /// The process that ran the call ended meanwhile.
    #[error("{0}")]
    Crashed(String),
    /// The call was asked to end, or took too long.
    #[error("{0}")]
    Stopped(String),
    /// There is no process to run it for now.
    #[error("{0}")]
    Unavailable(String),
}

/// Turns files into models that can be tried and served.
pub trait Loader: Send + Sync {
    /// Reads a version's files once, looks through them and opens them for a trial. Blocks for as long as that takes.
    ///
    /// Errors: they cannot be served. Whatever the files do, they do it to a process of their own where the system
    /// has the means.
    fn read(
        &self,
        artefact: &Artefact,
        device: &Device,
        options: &SessionOptions,
    ) -> Result<Box<dyn Model>, LoadError>;
}

/// A version's files, read, hashed and looked through.
pub trait Model: Send + Sync {
    /// sha256 in hexadecimal: of the model file, or, where there is external data, of the model file's and the data
    /// files' names and hashes.
    fn digest(&self) -> &str;

    /// What in the graph could harm the process that runs it; empty where nothing is known to.
    fn hazards(&self) -> &[String];

    /// Whether what it computes may grow faster than what it is given, or by more than a few times.
    fn grows(&self) -> bool;

    /// Bytes of its files.
    fn bytes(&self) -> u64;

    /// What the model is tried with, before anybody is served: a process of its own where the system has the means.
    fn trial(&self) -> Arc<dyn Session>;

    /// Ends the trial. Errors: its process ended meanwhile, so the model must not be served.
    fn passed(&self) -> Result<(), LoadError>;

    /// A session in a process of its own, from now on restarted when it ends. The first is the one of the trial.
    /// `None`: the system has not the means.
    fn isolated(&self, device: &Device) -> Option<Result<Arc<dyn Session>, LoadError>>;

    /// A session in this process.
    fn here(&self, device: &Device) -> Result<Arc<dyn Session>, LoadError>;
}

/// A model ready to run on one device.
pub trait Session: Send + Sync {
    fn graph(&self) -> &Graph;

    /// Runs the model once and returns the outputs asked for, by index, in the order asked for, unless `stop` is asked
    /// to end the call.
    ///
    /// `inputs` holds each graph input at most once. Cost: at most one copy of each input (none when it is one
    /// aligned part); outputs share ONNX Runtime's own buffers where it runs in this process.
    fn run_until(
        &self,
        inputs: &[BatchInput],
        outputs: &[usize],
        stop: &Stop,
    ) -> Result<Vec<Tensor>, RunError>;

    /// As [`Session::run_until`]; nobody ends the call.
    fn run(&self, inputs: &[BatchInput], outputs: &[usize]) -> Result<Vec<Tensor>, RunError> {
        self.run_until(inputs, outputs, &Stop::default())
    }

    /// Whether several threads may call [`Session::run`] at once.
    fn concurrent(&self) -> bool;

    /// Where it runs, if that is a process of its own.
    fn worker(&self) -> Option<WorkerState> {
        None
    }
}

/// How a worker process does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerState {
    /// How often it ended and was started again.
    pub restarts: u64,
    /// Why it cannot answer now, if it cannot.
    pub down: Option<String>,
    /// The most memory that it has had in use beyond what one without a model takes, in bytes; 0 where that is not known.
    pub peak_bytes: u64,
}
