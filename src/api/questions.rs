//! What clients may ask about the server and its models, once for both protocols.
//!
//! Answers are the protocol's own messages; `http` writes them as JSON.

use std::borrow::Cow;
use std::sync::Arc;

use super::control::ControlApi;
use super::limits::WireLimits;
use crate::error::{ErrorKind, ServeError, excerpt};
use crate::id::{Version, is_label};
use crate::infer::{RequestKeys, VersionPin};
use crate::model::{Servable, VersionState};
use crate::monitor::{BatchTotals, Monitor, Total, Totals};
use crate::proto::inference as pb;
use crate::serve::{ModelEntry, Pipeline, Readiness};
use crate::tensor::{Signature, TensorSpec};

/// Everything that the wire stands in front of.
pub struct Gateway {
    pub pipeline: Pipeline,
    pub monitor: Arc<Monitor>,
    /// Whether the monitor hears of anything.
    pub measuring: bool,
    pub readiness: Arc<Readiness>,
    pub control: ControlApi,
    pub server_name: String,
    pub limits: WireLimits,
}

/// Only what works: clients decide by this what to try.
const EXTENSIONS: [&str; 6] = [
    "classification",
    "schedule_policy",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
];

/// What works only where clients load models themselves.
const EXPLICIT_EXTENSION: &str = "model_repository";

/// The platform of every model served here.
const PLATFORM: &str = "onnxruntime_onnx";

/// The version that a client names by a string, a number or a label: none for the empty string and for `-1`.
pub fn pinned(text: &str) -> Result<VersionPin, ServeError> {
    match text {
        "" | "-1" => Ok(VersionPin::Routed),
        text if is_label(text) => Ok(VersionPin::Label(text.to_owned())),
        text => match Version::parse(text) {
            Some(version) => Ok(VersionPin::Version(version)),
            None => Err(ServeError::invalid(format!(
                "failed to get model version from specified version string '{}': it must be a positive number or a \
                 label",
                excerpt(text)
            ))),
        },
    }
}

/// A question about a model is no request for a prediction: it has nothing that a route looks at.
struct NoKeys;

impl RequestKeys for NoKeys {
    fn header(&self, _: &str) -> Option<&[u8]> {
        None
    }
    fn parameter(&self, _: &str) -> Option<Cow<'_, str>> {
        None
    }
    fn request_id(&self) -> Option<&str> {
        None
    }
}

impl Gateway {
    pub fn server_metadata(&self) -> pb::ServerMetadataResponse {
        let explicit = self.control.explicit().then_some(EXPLICIT_EXTENSION);
        pb::ServerMetadataResponse {
            name: self.server_name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: EXTENSIONS.into_iter().chain(explicit).map(str::to_owned).collect(),
        }
    }

    /// Whether the version asked for, or any, is ready. An unknown model is an error.
    pub fn model_ready(&self, model: &str, pin: &VersionPin) -> Result<bool, ServeError> {
        let snapshot = self.pipeline.snapshot();
        let entry = snapshot.model(model)?;
        match (pin, asked_about(entry, model, pin)) {
            // A label that nobody gave is a wrong name, not a version that is not ready yet.
            (VersionPin::Label(label), Err(error)) if !entry.labels.contains_key(label) => Err(error),
            (_, answer) => Ok(answer.is_ok_and(|servable| servable.down().is_none())),
        }
    }

    /// Why the version asked for is not ready, or no version is. Errors: there is no such model.
    pub fn why_not_ready(&self, model: &str, pin: &VersionPin) -> Result<String, ServeError> {
        let snapshot = self.pipeline.snapshot();
        let entry = snapshot.model(model)?;
        let down = asked_about(entry, model, pin).ok().and_then(|servable| servable.down());
        Ok(down.unwrap_or_else(|| entry.reason_of(pin)))
    }

    pub fn model_metadata(
        &self,
        model: &str,
        pin: &VersionPin,
    ) -> Result<pb::ModelMetadataResponse, ServeError> {
        let snapshot = self.pipeline.snapshot();
        let entry = snapshot.model(model)?;
        let servable = asked_about(entry, model, pin)?;
        let versions = match pin {
            VersionPin::Routed => {
                let ready = entry.versions.iter().filter(|(_, state)| state.is_ready());
                ready.map(|(version, _)| version.to_string()).collect()
            }
            _ => vec![servable.id().version.to_string()],
        };
        let signature = servable.signature();
        Ok(pb::ModelMetadataResponse {
            name: model.to_owned(),
            versions,
            platform: PLATFORM.to_owned(),
            inputs: tensors(signature, &signature.inputs),
            outputs: tensors(signature, &signature.outputs),
        })
    }

    pub fn model_config(&self, model: &str, pin: &VersionPin) -> Result<pb::ModelConfig, ServeError> {
        let snapshot = self.pipeline.snapshot();
        Ok(asked_about(snapshot.model(model)?, model, pin)?.config().clone())
    }

    /// Every model and version, in order.
    pub fn repository_index(&self, only_ready: bool) -> Vec<pb::repository_index_response::ModelIndex> {
        let snapshot = self.pipeline.snapshot();
        let mut index = Vec::new();
        for (name, entry) in &snapshot.models {
            let mut push = |version: String, state: &str, reason: &str| {
                if !only_ready || state == "READY" {
                    index.push(pb::repository_index_response::ModelIndex {
                        name: name.to_string(),
                        version,
                        state: state.to_owned(),
                        reason: reason.to_owned(),
                    });
                }
            };
            if entry.versions.is_empty() {
                push(String::new(), "UNAVAILABLE", entry.reason.as_deref().unwrap_or_default());
            }
            for (version, state) in &entry.versions {
                let (state, reason) = match state {
                    VersionState::Ready(_) => ("READY", ""),
                    VersionState::Loading => ("LOADING", ""),
                    VersionState::Unloading => ("UNLOADING", ""),
                    VersionState::Unavailable { reason } => ("UNAVAILABLE", reason.as_str()),
                };
                push(version.to_string(), state, reason);
            }
        }
        index
    }

    /// Statistics of one model's versions, or of all models for an empty name. Versions that are ready only.
    pub fn statistics(&self, model: &str, pin: &VersionPin) -> Result<Vec<pb::ModelStatistics>, ServeError> {
        if !self.measuring {
            let message = "statistics are not kept: this server was started with --metrics off";
            return Err(ServeError::new(ErrorKind::Unsupported, message));
        }
        let snapshot = self.pipeline.snapshot();
        let chosen: Vec<&Arc<Servable>> = match (model, pin) {
            ("", _) => snapshot.ready().collect(),
            (model, pin) => {
                let one = asked_about(snapshot.model(model)?, model, pin)?;
                match pin {
                    VersionPin::Routed => {
                        snapshot.ready().filter(|servable| servable.id().model.as_str() == model).collect()
                    }
                    _ => vec![one],
                }
            }
        };
        let statistics = self.monitor.statistics();
        let items =
            statistics.into_iter().filter(|(id, _)| chosen.iter().any(|servable| servable.id() == id));
        Ok(items.map(|(id, totals)| item(id.model.as_str(), id.version, &totals)).collect())
    }
}

/// The version that a question is about: the one it names, or one that answers those who name none.
fn asked_about<'a>(
    entry: &'a ModelEntry,
    model: &str,
    pin: &VersionPin,
) -> Result<&'a Arc<Servable>, ServeError> {
    entry.decide(model, pin, &NoKeys).map(|(servable, _)| servable)
}

fn tensors(signature: &Signature, specs: &[TensorSpec]) -> Vec<pb::model_metadata_response::TensorMetadata> {
    let tensor = |spec: &TensorSpec| pb::model_metadata_response::TensorMetadata {
        name: spec.name.to_string(),
        datatype: spec.datatype.name().to_owned(),
        shape: signature.wire_dims(spec),
    };
    specs.iter().map(tensor).collect()
}

fn item(model: &str, version: Version, totals: &Totals) -> pb::ModelStatistics {
    let batch = |(&rows, batch): (&usize, &BatchTotals)| pb::InferBatchStatistics {
        batch_size: rows as u64,
        compute_input: duration(batch.compute_input),
        compute_infer: duration(batch.compute_infer),
        compute_output: duration(batch.compute_output),
    };
    pb::ModelStatistics {
        name: model.to_owned(),
        version: version.to_string(),
        last_inference: totals.last_inference_ms,
        inference_count: totals.inference_count,
        execution_count: totals.execution_count,
        inference_stats: Some(pb::InferStatistics {
            success: duration(totals.success),
            fail: duration(totals.fail),
            queue: duration(totals.queue),
            compute_input: duration(totals.compute_input),
            compute_infer: duration(totals.compute_infer),
            compute_output: duration(totals.compute_output),
            cache_hit: duration(totals.cache_hit),
            cache_miss: duration(totals.cache_miss),
        }),
        batch_stats: totals.batches.iter().map(batch).collect(),
        ..Default::default()
    }
}

fn duration(total: Total) -> Option<pb::StatisticDuration> {
    Some(pb::StatisticDuration { count: total.count, ns: total.ns })
}
