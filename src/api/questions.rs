//! What clients may ask about the server and its models, once for both protocols.
//!
//! Answers are the protocol's own messages; `http` writes them as JSON.

use std::sync::Arc;

use crate::error::{ErrorKind, ServeError, excerpt};
use crate::id::Version;
use crate::model::{Servable, VersionState};
use crate::monitor::{BatchTotals, Monitor, Total, Totals};
use crate::proto::inference as pb;
use crate::serve::{Pipeline, Readiness};
use crate::tensor::{Signature, TensorSpec};

/// Limits on what comes over the wire.
#[derive(Debug, Clone, Copy)]
pub struct WireLimits {
    /// Bytes of a body or message, before and after decompression.
    pub message_bytes_max: usize,
    /// Streams at once on one HTTP/2 connection.
    pub streams_max: u32,
    /// Requests of one inference stream that run at once.
    pub stream_requests_max: usize,
}

/// Everything that the wire stands in front of.
pub struct Gateway {
    pub pipeline: Pipeline,
    pub monitor: Arc<Monitor>,
    pub readiness: Arc<Readiness>,
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

/// The platform of every model served here.
const PLATFORM: &str = "onnxruntime_onnx";

/// The version that a client pins by a string: none for the empty string and for `-1`.
pub fn pinned(text: &str) -> Result<Option<Version>, ServeError> {
    match text {
        "" | "-1" => Ok(None),
        text => match Version::parse(text) {
            Some(version) => Ok(Some(version)),
            None => Err(ServeError::invalid(format!(
                "failed to get model version from specified version string '{}': it must be a positive number",
                excerpt(text)
            ))),
        },
    }
}

impl Gateway {
    pub fn server_metadata(&self) -> pb::ServerMetadataResponse {
        pb::ServerMetadataResponse {
            name: self.server_name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: EXTENSIONS.map(str::to_owned).to_vec(),
        }
    }

    /// Whether the version asked for, or any, is ready. An unknown model is an error.
    pub fn model_ready(&self, model: &str, pinned: Option<Version>) -> Result<bool, ServeError> {
        let snapshot = self.pipeline.snapshot();
        match snapshot.decide(model, pinned) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::UnknownModel => Err(error),
            Err(_) => Ok(false),
        }
    }

    pub fn model_metadata(
        &self,
        model: &str,
        pinned: Option<Version>,
    ) -> Result<pb::ModelMetadataResponse, ServeError> {
        let snapshot = self.pipeline.snapshot();
        let servable = snapshot.decide(model, pinned)?;
        let versions = match pinned {
            Some(version) => vec![version.to_string()],
            None => snapshot
                .model(model)?
                .versions
                .iter()
                .filter(|(_, s)| s.is_ready())
                .map(|(v, _)| v.to_string())
                .collect(),
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

    pub fn model_config(&self, model: &str, pinned: Option<Version>) -> Result<pb::ModelConfig, ServeError> {
        Ok(self.pipeline.snapshot().decide(model, pinned)?.config().clone())
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
                    VersionState::Unavailable { reason } => ("UNAVAILABLE", reason.as_str()),
                };
                push(version.to_string(), state, reason);
            }
        }
        index
    }

    /// Statistics of one model's versions, or of all models for an empty name. Versions that are ready only.
    pub fn statistics(
        &self,
        model: &str,
        pinned: Option<Version>,
    ) -> Result<Vec<pb::ModelStatistics>, ServeError> {
        let snapshot = self.pipeline.snapshot();
        let chosen: Vec<&Arc<Servable>> = match (model, pinned) {
            ("", _) => snapshot.ready().collect(),
            (model, Some(version)) => vec![snapshot.decide(model, Some(version))?],
            (model, None) => {
                snapshot.decide(model, None)?;
                snapshot.ready().filter(|servable| servable.id().model.as_str() == model).collect()
            }
        };
        let statistics = self.monitor.statistics();
        let items =
            statistics.into_iter().filter(|(id, _)| chosen.iter().any(|servable| servable.id() == id));
        Ok(items.map(|(id, totals)| item(id.model.as_str(), id.version, &totals)).collect())
    }
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
            cache_hit: duration(Total::default()),
            cache_miss: duration(Total::default()),
        }),
        batch_stats: totals.batches.iter().map(batch).collect(),
        ..Default::default()
    }
}

fn duration(total: Total) -> Option<pb::StatisticDuration> {
    Some(pb::StatisticDuration { count: total.count, ns: total.ns })
}
