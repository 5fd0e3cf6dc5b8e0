//! What must hold for any bytes from outside, one function for each reader.
//!
//! The fuzz targets give them whatever libFuzzer makes up; tests/it/fuzz.rs gives them the files under corpus/.

use bytes::Bytes;
use prost::Message as _;
use weir::api::RequestLimits;
use weir::api::convert::{self, grpc as grpc_form, json as json_form};
use weir::api::http::coding::{Coding, Unpacking};
use weir::api::http::route::Route as HttpRoute;
use weir::backend::Folder;
use weir::backend::onnx::inspect::look_through;
use weir::control::routes_file;
use weir::error::{ErrorKind, ServeError};
use weir::id::{ModelName, ServableId, Version};
use weir::infer::{InferResponse, InputTensor, Inputs, OutputTensor, RouteReason, VersionPin};
use weir::model::config::{self, Defaults, ModelConfig};
use weir::proto::{inference as pb, onnx as file};
use weir::serve::Admission;
use weir::tensor::strings::{self, StringsError};
use weir::tensor::{DataType, Shape, Tensor};

/// A request over HTTP: JSON up to the first NUL, which JSON cannot hold, then the binary inputs.
pub fn json(data: &[u8]) {
    let json_length = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let binary = data.get(json_length + 1..).unwrap_or_default();
    let body = Bytes::from([&data[..json_length], binary].concat());
    assert!(
        json_form::parse("m", &body, body.len() + 1, &RequestLimits::default()).is_err(),
        "the JSON reaches past the body"
    );
    let Ok(parsed) = json_form::parse("m", &body, json_length, &RequestLimits::default()) else { return };
    let inputs = named(parsed.into_parts().0.inputs);
    inputs.iter().for_each(|input| holds_what_its_shape_says(&input.tensor));
    for binary in [true, false] {
        // Strings of any bytes need binary.
        let Ok(written) = convert::write_request(&inputs, binary) else {
            assert!(!binary);
            continue;
        };
        let body = Bytes::from(written.chunks.concat());
        let json_length = written.json_length.unwrap_or(body.len());
        let (request, form, _) = json_form::parse("m", &body, json_length, &RequestLimits::default())
            .expect("what was written is read")
            .into_parts();
        assert_eq!(form.is_binary("any"), binary);
        same_inputs(&named(request.inputs), &inputs, binary);
    }
    answer_is_read_back(&inputs);
}

/// The same tensors as an answer: valid JSON, and behind it the bytes of those in binary.
fn answer_is_read_back(inputs: &[InputTensor]) {
    let response = answer(inputs);
    let written = convert::write_response(&response, Some("an \"id\""), usize::MAX, |_| true)
        .expect("binary carries all");
    let body = written.chunks.concat();
    let (head, tail) = body.split_at(written.json_length.unwrap_or(body.len()));
    let head: serde_json::Value = serde_json::from_slice(head).expect("the head is JSON");
    assert_eq!(head["outputs"].as_array().map(Vec::len), Some(inputs.len()));
    let data: Vec<u8> = inputs.iter().flat_map(|input| input.tensor.data().iter().copied()).collect();
    assert_eq!(tail, data);
    // JSON has no infinities; Triton's clients read the words that stand for them.
    let finite = inputs.iter().all(|input| input.tensor.nonfinite(usize::MAX).infinite == 0);
    if let Ok(written) = convert::write_response(&response, None, usize::MAX, |_| false)
        && finite
    {
        let whole: serde_json::Value =
            serde_json::from_slice(&written.chunks.concat()).expect("the answer is JSON");
        for (output, input) in whole["outputs"].as_array().into_iter().flatten().zip(inputs) {
            assert_eq!(output["data"].as_array().map(Vec::len), Some(input.tensor.elements()));
        }
    }
}

/// A `ModelInferRequest`, and the answer encoded by hand.
pub fn grpc(data: &[u8]) {
    let Ok(message) = pb::ModelInferRequest::decode(Bytes::copy_from_slice(data)) else { return };
    let id = message.id.clone();
    let Ok((request, _)) = grpc_form::parse(message) else { return };
    let inputs = named(request.inputs);
    inputs.iter().for_each(|input| holds_what_its_shape_says(&input.tensor));
    let described = |input: &InputTensor| pb::model_infer_request::InferInputTensor {
        name: input.name.clone(),
        datatype: input.tensor.datatype().name().to_owned(),
        shape: input.tensor.shape().dims().to_vec(),
        ..Default::default()
    };
    let again = pb::ModelInferRequest {
        model_name: request.model,
        inputs: inputs.iter().map(described).collect(),
        raw_input_contents: inputs.iter().map(|input| input.tensor.data().clone()).collect(),
        ..Default::default()
    };
    let again = pb::ModelInferRequest::decode(Bytes::from(again.encode_to_vec())).expect("it was encoded");
    let (again, _) = grpc_form::parse(again).expect("raw contents of valid tensors are read");
    same_inputs(&named(again.inputs), &inputs, true);

    let response = answer(&inputs);
    let framed = convert::encode(&response, &id).expect("an answer of this size fits a frame").concat();
    let (prefix, encoded) = framed.split_at(convert::PREFIX_BYTES);
    assert_eq!(prefix[0], 0, "it is not compressed");
    assert_eq!(u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize, encoded.len());
    let read = pb::ModelInferResponse::decode(encoded).expect("the generated code reads it");
    assert_eq!(read, grpc_form::write(response, id));
}

/// A model's config: protobuf text, and JSON.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let name = ModelName::parse("m").expect("it is a name");
    let folder = &Folder::new("/no/such/folder", "");
    let defaults = Defaults { instances: 2, ..Defaults::default() };
    let from_text =
        config::parse(text).and_then(|message| config::resolve(&message, &name, folder, &defaults));
    for resolved in [from_text, config::from_json(text, folder, &name, &defaults)] {
        let Ok(resolved) = resolved else { continue };
        is_within_limits(&resolved);
        let json = config::to_json(&resolved.source).to_string();
        let again = config::from_json(&json, folder, &name, &defaults).expect("what was written is read");
        assert_eq!(again.source, resolved.source);
        assert_eq!(format!("{:?}", again.dynamic_batching), format!("{:?}", resolved.dynamic_batching));
        assert_eq!(again.instances, resolved.instances);
    }
}

fn is_within_limits(config: &ModelConfig) {
    assert!(matches!(config.source.name.as_str(), "" | "m"));
    assert!(!config.instances.is_empty());
    assert!(config.instances.iter().all(|group| (1..=256).contains(&group.count)));
    assert!(!config.file_name.is_empty() && !config.file_name.contains('/'));
    if let Some(batching) = &config.dynamic_batching {
        assert!((1..=1000).contains(&batching.levels.len()));
        assert!((1..=batching.levels.len()).contains(&batching.default_level));
        assert!(batching.levels.iter().all(|level| level.size_max > 0), "every queue has a limit");
        assert!(batching.preferred_rows.is_sorted() && !batching.preferred_rows.contains(&0));
    }
    for tensor in config.inputs.iter().chain(&config.outputs) {
        assert!(!tensor.name.is_empty() && tensor.dims.iter().all(|dim| *dim >= -1));
    }
    assert!(config.warmup.iter().flat_map(|sample| &sample.inputs).all(|i| i.dims.iter().all(|d| *d >= 0)));
}

/// A `routes.toml`.
pub fn routes(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let wish = match routes_file::parse(text) {
        Ok(wish) => wish,
        Err(reason) => {
            if let Some((line, _)) = reason.strip_prefix("line ").and_then(|rest| rest.split_once(':')) {
                let line: usize = line.parse().expect("a line has a number");
                assert!((1..=text.matches('\n').count() + 1).contains(&line), "{reason}");
            }
            return;
        }
    };
    let table: toml::Table = text.parse().expect("what was read is TOML");
    let models = table.get("models").and_then(toml::Value::as_table);
    for (model, wanted) in models.into_iter().flatten() {
        assert!(ModelName::parse(model).is_some());
        let list = |key: &str| wanted.get(key).and_then(toml::Value::as_array).cloned().unwrap_or_default();
        let number = |entry: &toml::Value, key: &str| match entry.get(key) {
            Some(toml::Value::Integer(n)) => *n as f64,
            Some(toml::Value::Float(v)) => *v,
            _ => 0.0,
        };
        let weights: Vec<f64> = list("arms").iter().map(|arm| number(arm, "weight")).collect();
        assert!(weights.iter().all(|weight| weight.is_finite() && *weight >= 0.0));
        assert!(weights.is_empty() || weights.iter().sum::<f64>() > 0.0);
        assert!(list("shadows").iter().all(|shadow| (0.0..=1.0).contains(&number(shadow, "share"))));
    }
    let again = toml::to_string(&table).expect("a table is TOML");
    assert_eq!(routes_file::parse(&again), Ok(wish), "{again}");
}

/// Packed strings: how many there should be, where to cut, then the strings.
pub fn bytes(data: &[u8]) {
    let [elements, cut, packed @ ..] = data else { return };
    let (elements, cut) = (usize::from(*elements), usize::from(*cut));
    let seen: Vec<&[u8]> = strings::iter(packed).take(elements).collect();
    let seen_bytes = seen.iter().map(|element| 4 + element.len()).sum::<usize>();
    let shape = Shape::from_dims([elements as i64]).expect("no dimension is negative");
    let tensor = Tensor::new(DataType::Bytes, shape, Bytes::copy_from_slice(packed));
    match strings::check(packed, elements) {
        Err(StringsError::Truncated { index }) => assert_eq!(seen.len(), index),
        Err(StringsError::LeftOver { expected, left_over }) => {
            assert_eq!((expected, seen.len()), (elements, elements));
            assert_eq!(left_over, packed.len() - seen_bytes);
        }
        Ok(()) => {
            assert_eq!((seen.len(), seen_bytes), (elements, packed.len()));
            assert_eq!(strings::pack(seen.iter().copied()), packed);
            assert_eq!(strings::Cursor::new(packed).skip(elements), packed.len());
            cuts_keep_every_element(&tensor.expect("the strings were checked"), &seen, cut);
            return;
        }
    }
    assert!(tensor.is_err());
}

fn cuts_keep_every_element(tensor: &Tensor, elements: &[&[u8]], cut: usize) {
    let head = cut % (elements.len() + 1);
    let pieces = tensor.split_rows(&[head, elements.len() - head]).expect("the rows are all of them");
    let joined: Vec<&[u8]> = pieces.iter().flat_map(|piece| strings::iter(piece.data())).collect();
    assert_eq!((joined.as_slice(), pieces[0].elements()), (elements, head));
    pieces.iter().for_each(holds_what_its_shape_says);
    for rows in 1..=elements.len() {
        if elements.len().is_multiple_of(rows) {
            let places = elements.len() / rows;
            let table = Shape::from_dims([rows as i64, places as i64]).expect("no dimension is negative");
            let table = tensor.with_shape(table).expect("it has as many elements");
            let kept = cut % (places + 1);
            let cut_off = table.cut_second_axis(kept).expect("there are as many places");
            holds_what_its_shape_says(&cut_off);
            let expected: Vec<&[u8]> =
                elements.chunks(places).flat_map(|row| &row[..kept]).copied().collect();
            assert_eq!(strings::iter(cut_off.data()).collect::<Vec<_>>(), expected);
            assert_eq!(table.cut_second_axis(places + 1), None);
        }
    }
}

/// Unpacks a body whose ratio does not matter.
fn unpacked(coding: Coding, body: &[u8], bytes_max: usize) -> Result<Bytes, ServeError> {
    let bounds = Unpacking { bytes_max, ratio_max: usize::MAX };
    coding.decode(body, bounds, &mut Admission::new(1, usize::MAX).hold())
}

/// A compressed body: the limit in two bytes, then the body.
pub fn gzip(data: &[u8]) {
    let [low, high, body @ ..] = data else { return };
    let limit = usize::from(u16::from_le_bytes([*low, *high]));
    for coding in [Coding::Gzip, Coding::Deflate] {
        match unpacked(coding, body, limit) {
            Ok(plain) => {
                assert!(plain.len() <= limit);
                assert_eq!(unpacked(coding, body, limit + 1).ok(), Some(plain.clone()));
                if let Some(shorter) = plain.len().checked_sub(1) {
                    let error = unpacked(coding, body, shorter).expect_err("it is longer");
                    assert_eq!(error.kind(), ErrorKind::TooLarge);
                }
            }
            Err(error) if error.kind() == ErrorKind::TooLarge => {
                if let Ok(plain) = unpacked(coding, body, limit + (1 << 20)) {
                    assert!(plain.len() > limit);
                }
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidArgument),
        }
        if let Some(packed) = coding.encode(body) {
            assert_eq!(unpacked(coding, &packed, body.len()).ok().as_deref(), Some(body));
        }
    }
}

/// A path of the HTTP port.
pub fn paths(data: &[u8]) {
    let Ok(path) = std::str::from_utf8(data) else { return };
    let Ok(route) = HttpRoute::parse(path) else { return };
    assert!(path.starts_with("/v2"));
    let segments: Vec<&str> = path.split('/').collect();
    let Some(at) = segments.iter().position(|segment| *segment == "models").map(|at| at + 1) else {
        assert_eq!((route.model.as_str(), route.pin), ("", VersionPin::Routed));
        return;
    };
    if route.model.is_empty() {
        return;
    }
    // However the model is quoted, the path means the same.
    let quoted = percent_encoding::utf8_percent_encode(&route.model, percent_encoding::NON_ALPHANUMERIC);
    let quoted = quoted.to_string();
    let mut again = segments;
    again[at] = &quoted;
    // Except where the plain word means something else than a model.
    if HttpRoute::parse(&again.join("/")).as_ref() != Ok(&route) {
        assert_eq!(route.model, "stats", "{path}");
    }
}

/// A model file.
pub fn onnx(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let Ok(findings) = look_through(bytes.clone()) else { return };
    let again = look_through(bytes.clone()).expect("it was looked through before");
    assert_eq!(format!("{findings:?}"), format!("{again:?}"));
    let model = file::ModelProto::decode(bytes).expect("it was looked through");
    let graph = model.graph.as_ref().expect("a model without a graph is refused");
    let is = |values: &[file::ValueInfoProto], name: &String| values.iter().any(|v| v.name == *name);
    let mut meant = findings.class_scores.iter().chain(&findings.class_labels);
    assert!(meant.all(|name| is(&graph.output, name)));
    assert!(findings.any_rank.iter().all(|name| is(&graph.input, name) || is(&graph.output, name)));
    let located = |location: &String| {
        let mut entries = graph.initializer.iter().flat_map(|tensor| &tensor.external_data);
        entries.any(|entry| entry.value == *location) || location.is_empty()
    };
    assert!(findings.data.len() <= 4096 && findings.data.iter().all(located));
    assert!(findings.hazards.len() <= 8);
    if findings.hazards.is_empty() {
        assert!(model.functions.is_empty());
        is_without_hazard(graph);
    }
}

/// Domains whose operators come with ONNX Runtime.
const DOMAINS: [&str; 5] = ["", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"];

fn is_without_hazard(graph: &file::GraphProto) {
    for node in &graph.node {
        assert!(DOMAINS.contains(&node.domain.as_str()), "{}", node.domain);
        let unbounded = ["Loop", "Scan", "Range", "Resize", "Upsample", "STFT", "OneHot", "RandomNormal"];
        assert!(!unbounded.contains(&node.op_type.as_str()), "{}", node.op_type);
        node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs)).for_each(is_without_hazard);
    }
}

/// What a model's process answers: how many outputs were asked for, how long the description is in words, the
/// description, then the memory that it tells of.
#[cfg(target_os = "linux")]
pub fn answers(data: &[u8]) {
    use weir::backend::RunError;
    use weir::backend::onnx::worker::layout::{Place, Places, answer, read_answer, read_question};

    let [expected, words, rest @ ..] = data else { return };
    let expected = usize::from(*expected % 8);
    let (description, memory) = rest.split_at(rest.len().min(8 * usize::from(*words)));
    if let Some(question) = read_question(description) {
        assert!(question.inputs.len() + question.outputs.len() <= description.len() / 8);
    }
    let copied = |memory: &[u8], place: Place| {
        memory.get(place.at..place.at.checked_add(place.length)?).map(<[u8]>::to_vec)
    };
    match read_answer(description, expected, |place| copied(memory, place)) {
        Err(RunError::InvalidInput(text) | RunError::Failed(text) | RunError::Stopped(text)) => {
            assert!(text.chars().count() <= 2048, "a reason has a bound");
        }
        Err(_) => {}
        Ok(tensors) => {
            assert_eq!(tensors.len(), expected);
            tensors.iter().for_each(holds_what_its_shape_says);
            let mut next = Places::behind(0);
            let lengths = tensors.iter().map(|tensor| tensor.data().len());
            let places: Vec<Place> =
                lengths.map(|length| next.next(length).expect("they lie in memory")).collect();
            let mut memory = vec![0; next.end()];
            for (tensor, place) in tensors.iter().zip(&places) {
                memory[place.at..place.at + place.length].copy_from_slice(tensor.data());
            }
            let again = read_answer(&answer(&tensors, &places), expected, |place| copied(&memory, place));
            assert_eq!(again.expect("what was described is read"), tensors);
        }
    }
}

/// Models have no processes of their own there.
#[cfg(not(target_os = "linux"))]
pub fn answers(_: &[u8]) {}

fn named(inputs: Inputs) -> Vec<InputTensor> {
    match inputs {
        Inputs::Named(inputs) => inputs,
        Inputs::Raw(_) => panic!("only a body without JSON has no names"),
    }
}

fn answer(inputs: &[InputTensor]) -> InferResponse {
    let output =
        |input: &InputTensor| OutputTensor { name: input.name.as_str().into(), tensor: input.tensor.clone() };
    InferResponse {
        servable: ServableId {
            model: ModelName::parse("m").expect("it is a name"),
            version: Version::new(7).expect("it is a version"),
        },
        reason: RouteReason::Latest,
        outputs: inputs.iter().map(output).collect(),
    }
}

fn holds_what_its_shape_says(tensor: &Tensor) {
    let elements = tensor.shape().elements().expect("a tensor's elements can be counted");
    match tensor.datatype().size() {
        Some(size) => assert_eq!(tensor.data().len(), elements * size),
        None => assert_eq!(strings::check(tensor.data(), elements), Ok(())),
    }
    if tensor.datatype() == DataType::Bool {
        assert!(tensor.data().iter().all(|value| *value <= 1));
    }
}

#[track_caller]
fn same_inputs(read: &[InputTensor], written: &[InputTensor], binary: bool) {
    assert_eq!(read.len(), written.len());
    for (read, written) in read.iter().zip(written) {
        assert_eq!(read.name, written.name);
        let (read, written) = (&read.tensor, &written.tensor);
        assert_eq!((read.datatype(), read.shape()), (written.datatype(), written.shape()));
        // In JSON one NaN is like another.
        let same = match binary {
            true => read == written,
            false => read == written || same_but_for_nan(read, written),
        };
        assert!(same, "{read:?}\n{written:?}");
    }
}

fn same_but_for_nan(read: &Tensor, written: &Tensor) -> bool {
    let (left, right) = (read.floats(usize::MAX), written.floats(usize::MAX));
    let pairs = || left.iter().zip(&right);
    !left.is_empty()
        && left.len() == right.len()
        && pairs().all(|(l, r)| l.to_bits() == r.to_bits() || (l.is_nan() && r.is_nan()))
}
