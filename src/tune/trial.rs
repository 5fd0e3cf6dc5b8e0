//! A version loaded once for each number of threads, and the data of its calls.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::TuneError;
use crate::backend::{BatchInput, Device, RunError, Session};
use crate::batch::BatchingPolicy;
use crate::id::Version;
use crate::model::config::{Completed, CpuSetting, InstanceGroup, ModelConfig, WarmupSample};
use crate::model::repository::Candidate;
use crate::model::warmup::{inputs_of, made_up_sample};
use crate::model::{LoadRequest, Loaded, load};
use crate::tensor::ANY;

/// Bytes of the inputs of one call at the most; larger batches are left out.
const CALL_BYTES_MAX: usize = 256 << 20;

/// A version, ready to be called as it would be with any of some settings.
pub struct Trials {
    sessions: BTreeMap<usize, Arc<dyn Session>>,
    completed: Completed,
    /// One row's data.
    sample: WarmupSample,
    /// Inputs whose open dimensions nobody chose, by name.
    guessed: Vec<String>,
}

impl Trials {
    /// Loads the version for each number of threads in `settings`. `loaded` hears of each.
    ///
    /// The data is that of the first `model_warmup`, else made up, with the open dimensions in `shapes`. Cost: the
    /// memory of that many sessions.
    pub fn load(
        request: &LoadRequest<'_>,
        settings: &[CpuSetting],
        shapes: &[(String, Vec<i64>)],
        mut loaded: impl FnMut(usize),
    ) -> Result<Self, TuneError> {
        let config = request.candidate.config.clone().map_err(TuneError::Unloadable)?;
        let mut sessions = BTreeMap::new();
        let mut completed = None;
        for setting in settings {
            if sessions.contains_key(&setting.threads) {
                continue;
            }
            let version = version_with(request, &config, setting.threads)?;
            sessions.insert(setting.threads, Arc::clone(version.session()));
            completed = Some(version.completed().clone());
            loaded(sessions.len());
        }
        let completed = completed.ok_or_else(|| TuneError::Sizes("no setting is to be tried".to_owned()))?;
        let configured = config.warmup.into_iter().next().filter(|_| shapes.is_empty());
        let mut guessed = Vec::new();
        let sample = match configured {
            Some(sample) => sample,
            None => {
                let open = completed
                    .signature
                    .inputs
                    .iter()
                    .filter(|spec| !spec.optional && spec.dims.contains(&ANY));
                let unsaid = open.filter(|spec| shapes.iter().all(|(name, _)| **name != *spec.name));
                guessed = unsaid.map(|spec| spec.name.to_string()).collect();
                made_up_sample(&completed.signature, shapes).map_err(TuneError::Data)?
            }
        };
        Ok(Self { sessions, completed, sample, guessed })
    }

    /// Rows that one call may have; 0 for a model without a batch axis.
    pub fn max_batch_size(&self) -> usize {
        self.completed.signature.max_batch_size
    }

    pub fn batching(&self) -> &BatchingPolicy {
        &self.completed.batching
    }

    /// Inputs with open dimensions that nobody chose, by name.
    pub fn guessed(&self) -> &[String] {
        &self.guessed
    }

    /// The inputs of a call of so many rows. `None`: they would be too large.
    pub fn inputs(&self, rows: usize) -> Result<Option<Vec<BatchInput>>, TuneError> {
        let sample = WarmupSample { rows, ..self.sample.clone() };
        let inputs = inputs_of(&self.completed, &sample).map_err(TuneError::Data)?;
        let bytes: usize = inputs.iter().flat_map(|input| &input.parts).map(|part| part.len()).sum();
        Ok((rows == 1 || bytes <= CALL_BYTES_MAX).then_some(inputs))
    }

    /// One call as an instance with so many threads makes it; the answer is dropped.
    pub fn call(&self, threads: usize, inputs: &[BatchInput]) -> Result<(), RunError> {
        let session = self.sessions.get(&threads).expect("only settings that were loaded are tried");
        session.run(inputs, &self.completed.graph_outputs).map(drop)
    }
}

/// The setting that a config asks for; threads that it leaves to ONNX Runtime are all `cores`.
///
/// Errors: it asks for a GPU.
pub fn in_force(config: &ModelConfig, cores: usize) -> Result<CpuSetting, TuneError> {
    if config.instances.iter().any(|group| group.device != Device::Cpu) {
        return Err(TuneError::OnGpu);
    }
    let threads = match config.session.intra_op_threads {
        0 => cores,
        threads => threads,
    };
    Ok(CpuSetting { threads, instances: config.instances.iter().map(|group| group.count).sum() })
}

/// The version as a config with so many threads would have it loaded, and one instance: on the CPU all instances
/// call the same session.
fn version_with(
    request: &LoadRequest<'_>,
    config: &ModelConfig,
    threads: usize,
) -> Result<Loaded, TuneError> {
    let mut config = config.clone();
    config.session.intra_op_threads = threads;
    config.instances = vec![InstanceGroup { device: Device::Cpu, count: 1 }];
    let candidate = Candidate { config: Ok(config), ..request.candidate.clone() };
    let request = LoadRequest { candidate: &candidate, version: request.version, loader: request.loader };
    load(&request).map_err(TuneError::Unloadable)
}

/// The version asked for, else the highest that the config's policy chooses.
pub fn version(candidate: &Candidate, asked: Option<u64>) -> Result<Version, TuneError> {
    let chosen = match asked {
        None => candidate.chosen().map_err(TuneError::Unloadable)?.last().copied(),
        Some(number) => candidate.versions.keys().find(|version| version.number() == number).copied(),
    };
    chosen.ok_or_else(|| {
        let present: Vec<String> = candidate.versions.keys().map(ToString::to_string).collect();
        TuneError::Unloadable(format!(
            "the version is not there; there {}",
            match present.as_slice() {
                [] => "is none".to_owned(),
                [one] => format!("is {one}"),
                several => format!("are {}", several.join(", ")),
            }
        ))
    })
}
