//! `config.pbtxt`: from text to valid values, and from a model file to the config that was left out.
//!
//! Always: every key is honoured, named in a warning as a hint without effect here, or refused by name; none is
//! ignored silently.

mod batching;
mod complete;
mod edit;
mod files;
mod hardware;
#[cfg(test)]
mod hostile;
mod padding;
mod pbtxt;
mod resolve;

pub use batching::{OBJECTIVE_RANGE, QUEUE_SIZE_MAX, objective};
pub use complete::{Completed, complete, may_batch};
pub use edit::{CpuSetting, with_cpu_setting};
pub use padding::{PAD_INPUTS, PadInput, PadWith, PaddingConfig, element};
pub use pbtxt::{parse, to_json};
pub use resolve::{BATCH_SIZE_MAX, resolve};

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::{Device, Folder, Isolation, Outside, SessionOptions};
use crate::batch::LevelPolicy;
use crate::error::reason;
use crate::id::{ModelName, Version};
use crate::proto::inference as pb;
use crate::tensor::DataType;

/// Values for what a config leaves open; the server's configuration sets them.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// Rows in a batch of a model whose config does not say and that was proved to batch.
    pub max_batch_size: usize,
    /// Requests that may wait for one version where the config does not say, or says 0.
    pub max_queue_size: usize,
    /// Concurrent session calls of a version on the CPU where the config has no `instance_group`.
    pub instances: usize,
    /// Time from a request's arrival to the end of its session call, where the config does not say. `None`: none.
    pub latency_objective: Option<Duration>,
    /// Where the sessions of a model live whose config does not say.
    pub isolation: Isolation,
    /// How long a session call may take; `None`: by what calls of its size take.
    pub session_max: Option<Duration>,
}

impl Default for Defaults {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            max_batch_size: 32,
            max_queue_size: 1024,
            instances: cores.min(8),
            latency_objective: None,
            isolation: Isolation::default(),
            session_max: None,
        }
    }
}

/// Which versions of a model are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionPolicy {
    /// The highest so many numbers.
    Latest(usize),
    All,
    Specific(Vec<Version>),
}

/// Instances on one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceGroup {
    pub device: Device,
    pub count: usize,
}

/// An input or output that the config names.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorConfig {
    pub name: String,
    pub datatype: DataType,
    /// Without the batch axis; −1 is open.
    pub dims: Vec<i64>,
    pub reshape: Option<Vec<i64>>,
    pub optional: bool,
    pub labels: Arc<[String]>,
}

/// `dynamic_batching`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DynamicBatching {
    pub delay_max: Duration,
    /// Ascending.
    pub preferred_rows: Vec<usize>,
    pub levels: Vec<LevelPolicy>,
    pub default_level: usize,
}

/// What fills an input of a warm-up run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WarmupData {
    Zero,
    Random,
    /// Raw bytes, as in a binary request.
    File(Vec<u8>),
}

/// One input of a warm-up run; `dims` without the batch axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmupInput {
    pub name: String,
    pub datatype: DataType,
    pub dims: Vec<i64>,
    pub data: WarmupData,
}

/// One entry of `model_warmup`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmupSample {
    pub name: String,
    pub rows: usize,
    pub count: usize,
    pub inputs: Vec<WarmupInput>,
}

/// A model's config, resolved to valid values.
#[derive(Debug, Clone)]
pub struct ModelConfig {
    /// `None`: the config says nothing of batches or tensors, so the model file decides.
    pub max_batch_size: Option<usize>,
    pub inputs: Vec<TensorConfig>,
    pub outputs: Vec<TensorConfig>,
    /// `None`: requests are not merged, unless `max_batch_size` is `None` too and the proof succeeds.
    pub dynamic_batching: Option<DynamicBatching>,
    pub instances: Vec<InstanceGroup>,
    /// Time from a request's arrival to the end of its session call; what is predicted to take longer is refused.
    pub latency_objective: Option<Duration>,
    /// How texts of different lengths share batches; `None`: they do not.
    pub padding: Option<PaddingConfig>,
    /// Whether answers are kept for requests that come again.
    pub response_cache: bool,
    pub version_policy: VersionPolicy,
    /// Where its sessions live.
    pub isolation: Isolation,
    pub session: SessionOptions,
    pub warmup: Vec<WarmupSample>,
    /// The model file's name inside a version's folder.
    pub file_name: String,
    /// Keys that were accepted and have no effect here.
    pub hints: Vec<String>,
    /// Values for what is left open.
    pub defaults: Defaults,
    /// The text as it was parsed, completed when the model is loaded.
    pub source: pb::ModelConfig,
}

/// Name of the file, in the model's folder.
pub const FILE_NAME: &str = "config.pbtxt";

/// Name of the model file in a version's folder, where the config names none.
pub const MODEL_FILE: &str = "model.onnx";

/// Some editors begin a file with it.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Bytes of a config, as text or as JSON. Those of large models take some ten thousand.
const BYTES_MAX: usize = 1 << 20;

/// Reads the config of the model in `folder`; a model without one gets the defaults.
///
/// Errors: what is wrong, with the key's name.
pub fn read(folder: &Folder, name: &ModelName, defaults: &Defaults) -> Result<ModelConfig, String> {
    let parsed = text(folder).and_then(|text| pbtxt::parse(text.trim_start_matches(BYTE_ORDER_MARK)));
    parsed.and_then(|message| resolve(&message, name, folder, defaults)).map_err(reason)
}

/// The text of the config in `folder`, empty where there is none. Errors: it is not read; it is not UTF-8.
pub fn text(folder: &Folder) -> Result<String, String> {
    let bytes = match folder.open(Path::new(FILE_NAME), BYTES_MAX as u64) {
        Err(Outside::Missing) => return Ok(String::new()),
        Err(outside) => return Err(format!("config.pbtxt {outside}")),
        Ok(opened) => opened.read().map_err(|error| format!("config.pbtxt cannot be read: {error}"))?,
    };
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        format!("config.pbtxt is not UTF-8 text: byte {at} is wrong")
    })
}

/// Reads a config that came as JSON, with the names of either the protocol's text or its JSON.
///
/// Errors: what is wrong, with the key's name.
pub fn from_json(
    json: &str,
    folder: &Folder,
    name: &ModelName,
    defaults: &Defaults,
) -> Result<ModelConfig, String> {
    if json.len() > BYTES_MAX {
        return Err(format!("the config's JSON is larger than {BYTES_MAX} bytes"));
    }
    pbtxt::parse_json(json).and_then(|message| resolve(&message, name, folder, defaults)).map_err(reason)
}

/// The protocol's types and the config's, side by side.
const DATATYPES: [(DataType, pb::DataType); 14] = [
    (DataType::Bool, pb::DataType::TypeBool),
    (DataType::Uint8, pb::DataType::TypeUint8),
    (DataType::Uint16, pb::DataType::TypeUint16),
    (DataType::Uint32, pb::DataType::TypeUint32),
    (DataType::Uint64, pb::DataType::TypeUint64),
    (DataType::Int8, pb::DataType::TypeInt8),
    (DataType::Int16, pb::DataType::TypeInt16),
    (DataType::Int32, pb::DataType::TypeInt32),
    (DataType::Int64, pb::DataType::TypeInt64),
    (DataType::Fp16, pb::DataType::TypeFp16),
    (DataType::Bf16, pb::DataType::TypeBf16),
    (DataType::Fp32, pb::DataType::TypeFp32),
    (DataType::Fp64, pb::DataType::TypeFp64),
    (DataType::Bytes, pb::DataType::TypeString),
];

/// The type that a config's `data_type` means.
fn datatype_of(config: i32) -> Option<DataType> {
    DATATYPES.iter().find(|(_, c)| *c as i32 == config).map(|(datatype, _)| *datatype)
}

/// A type as a config's `data_type`.
fn config_datatype(datatype: DataType) -> i32 {
    let (_, config) = DATATYPES[datatype as usize];
    config as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_stands_in_the_order_of_data_types() {
        for datatype in DataType::ALL {
            assert_eq!(datatype_of(config_datatype(datatype)), Some(datatype));
        }
        assert_eq!(datatype_of(pb::DataType::TypeInvalid as i32), None);
    }
}
