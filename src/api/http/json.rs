//! The protocol's messages as the JSON that HTTP clients read.

use serde_json::{Value, json};

use crate::proto::inference as pb;

pub fn server_metadata(metadata: &pb::ServerMetadataResponse) -> Value {
    json!({"name": metadata.name, "version": metadata.version, "extensions": metadata.extensions})
}

pub fn model_metadata(metadata: &pb::ModelMetadataResponse) -> Value {
    let tensors = |tensors: &[pb::model_metadata_response::TensorMetadata]| -> Value {
        tensors.iter().map(|t| json!({"name": t.name, "datatype": t.datatype, "shape": t.shape})).collect()
    };
    json!({
        "name": metadata.name,
        "versions": metadata.versions,
        "platform": metadata.platform,
        "inputs": tensors(&metadata.inputs),
        "outputs": tensors(&metadata.outputs),
    })
}

pub fn repository_index(index: &[pb::repository_index_response::ModelIndex]) -> Value {
    index
        .iter()
        .map(|m| json!({"name": m.name, "version": m.version, "state": m.state, "reason": m.reason}))
        .collect()
}

pub fn statistics(items: &[pb::ModelStatistics]) -> Value {
    let items: Value = items.iter().map(item).collect();
    json!({"model_stats": items})
}

fn item(item: &pb::ModelStatistics) -> Value {
    let totals = item.inference_stats.unwrap_or_default();
    let batches: Value = item
        .batch_stats
        .iter()
        .map(|batch| {
            json!({
                "batch_size": batch.batch_size,
                "compute_input": duration(&batch.compute_input),
                "compute_infer": duration(&batch.compute_infer),
                "compute_output": duration(&batch.compute_output),
            })
        })
        .collect();
    json!({
        "name": item.name,
        "version": item.version,
        "last_inference": item.last_inference,
        "inference_count": item.inference_count,
        "execution_count": item.execution_count,
        "inference_stats": {
            "success": duration(&totals.success),
            "fail": duration(&totals.fail),
            "queue": duration(&totals.queue),
            "compute_input": duration(&totals.compute_input),
            "compute_infer": duration(&totals.compute_infer),
            "compute_output": duration(&totals.compute_output),
            "cache_hit": duration(&totals.cache_hit),
            "cache_miss": duration(&totals.cache_miss),
        },
        "batch_stats": batches,
        "memory_usage": [],
        "response_stats": {},
    })
}

fn duration(duration: &Option<pb::StatisticDuration>) -> Value {
    let duration = duration.unwrap_or_default();
    json!({"count": duration.count, "ns": duration.ns})
}
