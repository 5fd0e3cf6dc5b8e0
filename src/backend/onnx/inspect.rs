//! Looks through an ONNX file before ONNX Runtime does: what must be refused, which data files it names, what could
//! harm the process that runs it, and what its outputs mean.
//!
//! Always: types that clients cannot send or receive are named. It runs where the file cannot do harm: what a file says
//! in a few bytes may take memory by the gigabyte.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use serde::{Deserialize, Serialize};

use super::files::{Blob, as_bytes};
use super::hazards::{DOMAINS, foreign_domain, grows, hazards};
use crate::backend::LoadError;
use crate::proto::onnx::{
    GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto, tensor_proto, type_proto,
};

/// What the file tells beyond names, types and shapes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Findings {
    /// Names of outputs that hold scores of classes.
    pub class_scores: Vec<String>,
    /// Names of outputs that hold the predicted class.
    pub class_labels: Vec<String>,
    /// Names of inputs and outputs whose number of dimensions the file does not say.
    pub any_rank: Vec<String>,
    /// What could harm the process that runs it.
    pub hazards: Vec<String>,
    /// Whether what it computes may grow faster than its inputs, or by more than a few times.
    pub grows: bool,
    /// Where its external data lies, as the file writes it.
    pub data: Vec<String>,
}

/// Data files of one model at the most: exporters write one, or one for each large tensor.
const DATA_FILES_MAX: usize = 4096;

/// Inputs and outputs of a graph at the most: each request is held against all of them.
const TENSORS_MAX: usize = 4096;

/// Operators whose named output is a predicted class, or scores of classes, as (type, output position, is label).
const CLASSIFIERS: &[(&str, usize, bool)] = &[
    ("TreeEnsembleClassifier", 0, true),
    ("TreeEnsembleClassifier", 1, false),
    ("LinearClassifier", 0, true),
    ("LinearClassifier", 1, false),
    ("SVMClassifier", 0, true),
    ("SVMClassifier", 1, false),
    ("ArgMax", 0, true),
    ("LabelEncoder", 0, true),
    ("ArrayFeatureExtractor", 0, true),
    ("Softmax", 0, false),
    ("LogSoftmax", 0, false),
];

/// Operators that pass a class or a score on unchanged in meaning.
const CARRIERS: &[&str] =
    &["Cast", "Reshape", "Identity", "Squeeze", "Unsqueeze", "Flatten", "Normalizer", "Concat"];

/// How many carriers are followed from an output towards its classifier.
const CARRIERS_MAX: usize = 8;

pub fn inspect(file: &Arc<Blob>) -> Result<Findings, LoadError> {
    look_through(as_bytes(file))
}

/// By these bytes, after the first four, ONNX Runtime knows its own format (`core/session/ort_format.fbs`, the identifier
/// of a flatbuffer). A file may be one in that format and one of protobuf at once, with two graphs.
const OWN_FORMAT: &[u8] = b"ORTM";

/// What the bytes of a model file tell. Errors: why they are no model that can be served.
pub fn look_through(file: Bytes) -> Result<Findings, LoadError> {
    if file.get(4..8) == Some(OWN_FORMAT) {
        return Err(LoadError(
            "the model file is in ONNX Runtime's own format (.ort); only ONNX is served".to_owned(),
        ));
    }
    let model = ModelProto::decode(file)
        .map_err(|_| LoadError("the model file is not an ONNX model, or it is cut off".to_owned()))?;
    let graph = model.graph.as_ref().ok_or_else(|| {
        LoadError("the model file holds no graph: it is not an ONNX model, or it is cut off".to_owned())
    })?;
    if let Some(domain) = foreign_domain(&model) {
        let domain: String = domain.chars().take(80).collect();
        return Err(LoadError(format!(
            "the model uses operators of domain '{domain}', which need a library of custom operators; only those of {} \
             are run",
            DOMAINS.map(|domain| format!("'{domain}'")).join(", ")
        )));
    }
    for (role, count) in [("inputs", graph.input.len()), ("outputs", graph.output.len())] {
        if count > TENSORS_MAX.max(graph.initializer.len() + TENSORS_MAX)
            || role == "outputs" && count > TENSORS_MAX
        {
            return Err(LoadError(format!("the model has {count} {role}, more than {TENSORS_MAX}")));
        }
    }
    let data: BTreeSet<&str> = graph.initializer.iter().filter_map(location).collect();
    let mut elsewhere = false;
    let bodies = model.functions.iter().flat_map(|function| &function.node);
    graph.node.iter().chain(bodies).for_each(|node| elsewhere |= node_has_data(node));
    let sparse = graph.sparse_initializer.iter().flat_map(|s| [&s.values, &s.indices]).flatten();
    elsewhere |= sparse.filter_map(location).next().is_some();
    if elsewhere {
        // ONNX Runtime would look for it by itself, wherever this process stands.
        return Err(LoadError(
            "external data stands in an attribute, an inner graph or a sparse tensor; only weights of the model's own \
             graph may be external"
                .to_owned(),
        ));
    }
    if data.len() > DATA_FILES_MAX {
        return Err(LoadError(format!(
            "the model names {} data files, more than {DATA_FILES_MAX}",
            data.len()
        )));
    }
    let initializers: BTreeSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    for (role, values) in [("input", &graph.input), ("output", &graph.output)] {
        for value in values.iter().filter(|v| role == "output" || !initializers.contains(v.name.as_str())) {
            check_type(role, &value.name, value.r#type.as_ref())?;
        }
    }
    let any_rank = |v: &&ValueInfoProto| match v.r#type.as_ref().and_then(|t| t.value.as_ref()) {
        Some(type_proto::Value::TensorType(tensor)) => tensor.shape.is_none(),
        _ => true,
    };
    let any_rank = graph.input.iter().chain(&graph.output).filter(any_rank).map(|v| v.name.clone()).collect();
    let data = data.into_iter().map(str::to_owned).collect();
    Ok(Findings {
        any_rank,
        hazards: hazards(&model),
        grows: grows(graph),
        data,
        ..meaning_of_outputs(graph)
    })
}

fn check_type(role: &str, name: &str, value_type: Option<&TypeProto>) -> Result<(), LoadError> {
    use type_proto::Value;
    let Some(value) = value_type.and_then(|t| t.value.as_ref()) else { return Ok(()) };
    let refuse = |what: &str, advice: &str| {
        Err(LoadError(format!("{role} '{name}' is a {what}, which the protocol cannot carry; {advice}")))
    };
    match value {
        Value::TensorType(tensor) => match unsupported_element(tensor.elem_type) {
            None => Ok(()),
            Some(element) => refuse(
                &format!("tensor of {element}"),
                "cast it to one of the protocol's types inside the model",
            ),
        },
        Value::SequenceType(sequence) => {
            let of_maps =
                matches!(sequence.elem_type.as_ref().and_then(|t| t.value.as_ref()), Some(Value::MapType(_)));
            if of_maps {
                refuse(
                    "sequence of maps (ZipMap)",
                    "export the model without it: with skl2onnx, options={'zipmap': False} gives a plain tensor of \
                     probabilities",
                )
            } else {
                refuse("sequence", "concatenate or stack it into a tensor inside the model")
            }
        }
        Value::MapType(_) => {
            refuse("map", "export the model without ZipMap: with skl2onnx, options={'zipmap': False}")
        }
        Value::SparseTensorType(_) => refuse("sparse tensor", "make it dense inside the model"),
        Value::OptionalType(_) => refuse("optional value", "make it a plain tensor inside the model"),
    }
}

/// The name of an ONNX element type that has no counterpart in the protocol.
fn unsupported_element(elem_type: i32) -> Option<&'static str> {
    // Numbers of TensorProto.DataType in the ONNX standard.
    match elem_type {
        14 => Some("complex64"),
        15 => Some("complex128"),
        17..=20 | 24 => Some("8-bit floats"),
        21 | 22 => Some("4-bit integers"),
        23 => Some("4-bit floats"),
        25 | 26 => Some("2-bit integers"),
        _ => None,
    }
}

/// Whether external data stands in a node's attributes or inner graphs.
fn node_has_data(node: &NodeProto) -> bool {
    node.attribute.iter().any(|attribute| {
        let sparse = attribute.sparse_tensor.iter().chain(&attribute.sparse_tensors);
        let parts = sparse.flat_map(|s| [&s.values, &s.indices]).flatten();
        let mut tensors = attribute.t.iter().chain(&attribute.tensors).chain(parts);
        tensors.any(|tensor| location(tensor).is_some())
            || attribute.g.iter().chain(&attribute.graphs).any(|graph| {
                graph.initializer.iter().any(|tensor| location(tensor).is_some())
                    || !graph.sparse_initializer.is_empty()
                    || graph.node.iter().any(node_has_data)
            })
    })
}

/// Where a tensor's data lies, if it is external.
fn location(tensor: &TensorProto) -> Option<&str> {
    let external = tensor.data_location == tensor_proto::DataLocation::External as i32;
    let location = || tensor.external_data.iter().find(|entry| entry.key == "location");
    external.then(|| location().map_or("", |entry| entry.value.as_str()))
}

/// Follows each output back through carriers to a classifying operator.
fn meaning_of_outputs(graph: &GraphProto) -> Findings {
    let producers: HashMap<&str, (&NodeProto, usize)> = graph
        .node
        .iter()
        .flat_map(|node| node.output.iter().enumerate().map(move |(i, name)| (name.as_str(), (node, i))))
        .collect();
    let mut findings = Findings::default();
    for output in &graph.output {
        let mut name = output.name.as_str();
        for _ in 0..CARRIERS_MAX {
            let Some((node, position)) = producers.get(name) else { break };
            // Picking from constants picks a class; picking from an input would show what clients sent.
            let picks = node.op_type == "ArrayFeatureExtractor";
            let constant = |name: &String| graph.initializer.iter().any(|tensor| tensor.name == *name);
            if picks && !node.input.first().is_some_and(constant) {
                break;
            }
            let known = CLASSIFIERS.iter().find(|(op, at, _)| *op == node.op_type && at == position);
            if let Some((_, _, is_label)) = known {
                let list = if *is_label { &mut findings.class_labels } else { &mut findings.class_scores };
                list.push(output.name.clone());
                break;
            }
            match node.input.first() {
                Some(input) if CARRIERS.contains(&node.op_type.as_str()) => name = input,
                _ => break,
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_onnx_runtimes_own_format_is_refused_though_it_is_onnx_too() {
        let model = ModelProto { graph: Some(GraphProto::default()), ..ModelProto::default() };
        let mut file = b"\x78\x00\xfa\x00\x04XTMX".to_vec();
        file.extend(model.encode_to_vec());
        assert!(look_through(file.clone().into()).is_ok());
        // The same field, whose length reads as a letter now.
        let mut both = b"\x78\x00\xfa\x00ORTM".to_vec();
        both.resize(5 + usize::from(b'O'), 0);
        both.extend(model.encode_to_vec());
        assert!(ModelProto::decode(both.as_slice()).unwrap().graph.is_some());
        let LoadError(reason) = look_through(both.into()).unwrap_err();
        assert!(reason.contains("own format"), "{reason}");
    }
}
