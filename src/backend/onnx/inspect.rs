//! Reads an ONNX file before ONNX Runtime does: what must be refused, and what its outputs mean.
//!
//! Always: no path that leaves the model's folder survives this; types that clients cannot send or receive are
//! named.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use prost::Message;

use super::memory::read_file;
use crate::backend::{Artefact, LoadError, open};
use crate::proto::onnx::{
    GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto, tensor_proto, type_proto,
};

/// What the file tells beyond names, types and shapes.
#[derive(Debug, Default)]
pub struct Findings {
    /// Names of outputs that hold scores of classes.
    pub class_scores: Vec<String>,
    /// Names of outputs that hold the predicted class.
    pub class_labels: Vec<String>,
    /// Names of inputs and outputs whose number of dimensions the file does not say.
    pub any_rank: Vec<String>,
}

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

pub fn inspect(artefact: &Artefact) -> Result<Findings, LoadError> {
    let file = read_file(&artefact.file)
        .map_err(|e| LoadError(format!("the model file cannot be read: {}", e.kind())))?;
    if file.starts_with(b"version https://git-lfs") {
        return Err(LoadError(
            "the model file is a Git LFS pointer; fetch the file itself with git lfs pull".to_owned(),
        ));
    }
    let model = ModelProto::decode(&*file)
        .map_err(|_| LoadError("the model file is not an ONNX model, or it is cut off".to_owned()))?;
    let graph = model.graph.as_ref().ok_or_else(|| {
        LoadError("the model file holds no graph: it is not an ONNX model, or it is cut off".to_owned())
    })?;
    check_data_paths(graph, &artefact.folder)?;
    for function in &model.functions {
        function.node.iter().try_for_each(|node| check_node(node, &artefact.folder))?;
    }
    let initializers: Vec<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    for (role, values) in [("input", &graph.input), ("output", &graph.output)] {
        for value in values.iter().filter(|v| role == "output" || !initializers.contains(&v.name.as_str())) {
            check_type(role, &value.name, value.r#type.as_ref())?;
        }
    }
    let any_rank = |v: &&ValueInfoProto| match v.r#type.as_ref().and_then(|t| t.value.as_ref()) {
        Some(type_proto::Value::TensorType(tensor)) => tensor.shape.is_none(),
        _ => true,
    };
    let any_rank = graph.input.iter().chain(&graph.output).filter(any_rank).map(|v| v.name.clone()).collect();
    Ok(Findings { any_rank, ..meaning_of_outputs(graph) })
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

fn check_data_paths(graph: &GraphProto, folder: &Path) -> Result<(), LoadError> {
    graph.initializer.iter().try_for_each(|tensor| check_tensor(tensor, folder))?;
    for sparse in &graph.sparse_initializer {
        let parts = [sparse.values.as_ref(), sparse.indices.as_ref()];
        parts.into_iter().flatten().try_for_each(|tensor| check_tensor(tensor, folder))?;
    }
    graph.node.iter().try_for_each(|node| check_node(node, folder))
}

fn check_node(node: &NodeProto, folder: &Path) -> Result<(), LoadError> {
    for attribute in &node.attribute {
        let sparse = attribute.sparse_tensor.iter().chain(&attribute.sparse_tensors);
        let parts = sparse.flat_map(|s| [s.values.as_ref(), s.indices.as_ref()]).flatten();
        let tensors = attribute.t.iter().chain(&attribute.tensors).chain(parts);
        tensors.into_iter().try_for_each(|tensor| check_tensor(tensor, folder))?;
        let graphs = attribute.g.iter().chain(&attribute.graphs);
        graphs.into_iter().try_for_each(|graph| check_data_paths(graph, folder))?;
    }
    Ok(())
}

fn check_tensor(tensor: &TensorProto, folder: &Path) -> Result<(), LoadError> {
    if tensor.data_location != tensor_proto::DataLocation::External as i32 {
        return Ok(());
    }
    let location = tensor.external_data.iter().find(|entry| entry.key == "location");
    let location = location.map(|entry| entry.value.as_str()).unwrap_or_default();
    let refuse = |why: &str| {
        let location: String = location.chars().take(80).collect();
        Err(LoadError(format!("external data of tensor '{}' is at '{location}', {why}", tensor.name)))
    };
    // `./weights.bin` is how some exporters write `weights.bin`.
    let file: PathBuf = Path::new(location).components().filter(|c| *c != Component::CurDir).collect();
    match open(folder, &file, u64::MAX) {
        Ok(_) => Ok(()),
        Err(outside) => refuse(&format!("which {outside}")),
    }
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
