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
use crate::error::excerpt;
use crate::proto::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, TypeProto,
    ValueInfoProto, type_proto,
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

/// Bytes of a name of an input or output: it stands in answers, in metadata and in each line of its metrics.
const NAME_BYTES_MAX: usize = 1024;

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
    for (role, values) in [("input", &graph.input), ("output", &graph.output)] {
        if let Some(long) = values.iter().find(|value| value.name.len() > NAME_BYTES_MAX) {
            return Err(LoadError(format!(
                "the name of {role} '{}' has {} bytes, more than {NAME_BYTES_MAX}",
                excerpt(&long.name),
                long.name.len()
            )));
        }
    }
    let data = data_files(&model)?;
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

/// Where the external data of a model's weights lies.
///
/// Errors: external data anywhere else, where ONNX Runtime would look for it by itself, wherever this process stands;
/// data of which readers differ whether it is external, or where it lies.
fn data_files(model: &ModelProto) -> Result<BTreeSet<&str>, LoadError> {
    let mut data = BTreeSet::new();
    let mut wrong = None;
    each_tensor(model, &mut |tensor, weight| {
        let found = match tensor.data_location {
            IN_THE_FILE => return,
            EXTERNAL if !weight => {
                Err("external data stands in an attribute, an inner graph, a function or a sparse tensor; \
                 only weights of the model's own graph may be external"
                    .to_owned())
            }
            EXTERNAL => location(tensor),
            other => Err(format!(
                "the data of tensor '{}' lies at {other}, which is no place of the standard's (data_location)",
                excerpt(&tensor.name)
            )),
        };
        match found {
            Ok(location) => _ = data.insert(location),
            Err(reason) => wrong = Some(reason),
        }
    });
    match wrong {
        Some(reason) => Err(LoadError(reason)),
        None => Ok(data),
    }
}

// Numbers of TensorProto.DataLocation in the ONNX standard.
const IN_THE_FILE: i32 = 0;
const EXTERNAL: i32 = 1;

/// Where a tensor's external data lies. Errors: it says so twice; ONNX Runtime would take the last.
fn location(tensor: &TensorProto) -> Result<&str, String> {
    let mut locations = tensor.external_data.iter().filter(|entry| entry.key == "location");
    match (locations.next(), locations.next()) {
        (None, _) => Ok(""),
        (Some(entry), None) => Ok(&entry.value),
        (Some(_), Some(_)) => {
            Err(format!("the external data of tensor '{}' has several locations", excerpt(&tensor.name)))
        }
    }
}

/// Looks at every tensor of a model, wherever it stands, and tells whether it is a weight of the model's own graph.
fn each_tensor<'a>(model: &'a ModelProto, look: &mut impl FnMut(&'a TensorProto, bool)) {
    if let Some(graph) = &model.graph {
        graph.initializer.iter().for_each(|tensor| look(tensor, true));
        each_inner_tensor(graph, look);
    }
    for graph in model.training_info.iter().flat_map(|info| [&info.initialization, &info.algorithm]).flatten()
    {
        graph.initializer.iter().for_each(|tensor| look(tensor, false));
        each_inner_tensor(graph, look);
    }
    for function in &model.functions {
        let defaults = function.attribute_proto.iter();
        let attributes = function.node.iter().flat_map(|node| &node.attribute);
        defaults.chain(attributes).for_each(|attribute| each_tensor_of(attribute, look));
    }
}

/// Those of a graph that are not its initializers.
fn each_inner_tensor<'a>(graph: &'a GraphProto, look: &mut impl FnMut(&'a TensorProto, bool)) {
    graph.sparse_initializer.iter().for_each(|sparse| each_part(sparse, look));
    graph.node.iter().flat_map(|node| &node.attribute).for_each(|attribute| each_tensor_of(attribute, look));
}

fn each_tensor_of<'a>(attribute: &'a AttributeProto, look: &mut impl FnMut(&'a TensorProto, bool)) {
    attribute.t.iter().chain(&attribute.tensors).for_each(|tensor| look(tensor, false));
    attribute
        .sparse_tensor
        .iter()
        .chain(&attribute.sparse_tensors)
        .for_each(|sparse| each_part(sparse, look));
    for graph in attribute.g.iter().chain(&attribute.graphs) {
        graph.initializer.iter().for_each(|tensor| look(tensor, false));
        each_inner_tensor(graph, look);
    }
}

fn each_part<'a>(sparse: &'a SparseTensorProto, look: &mut impl FnMut(&'a TensorProto, bool)) {
    sparse.values.iter().chain(&sparse.indices).for_each(|tensor| look(tensor, false));
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
    use crate::proto::onnx::StringStringEntryProto;

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

    #[test]
    fn names_of_inputs_and_outputs_have_a_bound() {
        let named = |number: u32, bytes: usize| {
            let value = field(1, &vec![b'n'; bytes]);
            look_through(field(7, &field(number, &value)).into())
        };
        // GraphProto.input is field 11, GraphProto.output field 12.
        for (role, number) in [("input", 11), ("output", 12)] {
            assert!(named(number, NAME_BYTES_MAX).is_ok());
            let LoadError(reason) = named(number, NAME_BYTES_MAX + 1).unwrap_err();
            assert!(reason.contains(role) && reason.contains("1025 bytes") && reason.len() < 200, "{reason}");
        }
    }

    /// A tensor of weights with external data, and what its bytes end with.
    fn external(tail: &[u8]) -> Vec<u8> {
        let entry = |key: &str, value: &str| StringStringEntryProto { key: key.into(), value: value.into() };
        let tensor = TensorProto {
            name: "w".into(),
            data_type: 2,
            dims: vec![4],
            external_data: vec![entry("location", "w.bin")],
            ..TensorProto::default()
        };
        [tensor.encode_to_vec().as_slice(), tail].concat()
    }

    /// A message's field of that number.
    fn field(number: u32, content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut out);
        prost::encoding::encode_varint(content.len() as u64, &mut out);
        out.extend(content);
        out
    }

    #[test]
    fn data_is_where_every_reader_takes_it_to_be() {
        // data_location is field 14: tag 0x70. ModelProto.graph is field 7, GraphProto.initializer field 5.
        let model = |tail: &[u8]| look_through(field(7, &field(5, &external(tail))).into());
        assert_eq!(model(b"\x70\x00").unwrap().data, [""; 0]);
        assert_eq!(model(b"\x70\x01").unwrap().data, ["w.bin"]);
        assert_eq!(model(b"\x70\x63\x70\x01").unwrap().data, ["w.bin"]);
        // A reader of proto2 keeps the 1.
        for tail in
            [&b"\x70\x01\x70\x63"[..], b"\x70\x02", b"\x70\x01\x70\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"]
        {
            let LoadError(reason) = model(tail).unwrap_err();
            assert!(reason.contains("data_location"), "{reason}");
        }
        let twice = field(13, &[field(1, b"location"), field(2, b"/etc/passwd")].concat());
        let LoadError(reason) = model(&[b"\x70\x01", twice.as_slice()].concat()).unwrap_err();
        assert!(reason.contains("several locations"), "{reason}");
    }

    #[test]
    fn external_data_anywhere_but_in_weights_is_refused() {
        let sparse = |tensor: &[u8]| field(1, tensor);
        let graph = |inner: &[u8]| field(7, inner);
        let attribute = |inner: &[u8]| graph(&field(1, &field(5, inner)));
        type Within<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;
        let places: [(&str, Within<'_>); 9] = [
            ("sparse_initializer", &|t| graph(&field(15, &sparse(t)))),
            ("attribute.t", &|t| attribute(&field(5, t))),
            ("attribute.tensors", &|t| attribute(&field(10, t))),
            ("attribute.sparse_tensor", &|t| attribute(&field(22, &sparse(t)))),
            ("attribute.g", &|t| attribute(&field(6, &field(5, t)))),
            ("attribute.graphs, sparse", &|t| attribute(&field(11, &field(15, &sparse(t))))),
            ("function, node", &|t| field(25, &field(7, &field(5, &field(5, t))))),
            ("function, default", &|t| field(25, &field(11, &field(5, t)))),
            ("training_info", &|t| field(20, &field(2, &field(5, t)))),
        ];
        for (place, within) in places {
            for (tail, expected) in
                [(&b"\x70\x01"[..], "may be external"), (b"\x70\x01\x70\x63", "data_location")]
            {
                let file = [graph(&[]), within(&external(tail))].concat();
                let LoadError(reason) = look_through(file.into()).expect_err(place);
                assert!(reason.contains(expected), "{place}: {reason}");
            }
            assert!(look_through([graph(&[]), within(&external(b""))].concat().into()).is_ok(), "{place}");
        }
    }
}
