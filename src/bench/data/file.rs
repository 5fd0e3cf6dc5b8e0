//! Requests out of a file: `{"inputs": […]}` as the protocol has it over HTTP, or a list of such.

use std::path::Path;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Request;
use crate::api::convert::{RequestLimits, json};
use crate::bench::{BenchError, Metadata};
use crate::infer::Inputs;

/// What a request of a file may say besides its inputs; anything else would not be sent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    #[serde(rename = "id", default)]
    _id: serde::de::IgnoredAny,
    #[serde(rename = "inputs")]
    _inputs: serde::de::IgnoredAny,
}

/// The requests of a file, for a model with that metadata.
///
/// Errors: what is wrong with the file, by the number of the request.
pub fn read(path: &Path, metadata: &Metadata) -> Result<Vec<Request>, BenchError> {
    let failed = |reason: String| BenchError::Data(format!("{}: {reason}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    parse(&text, metadata).map_err(failed)
}

fn parse(text: &str, metadata: &Metadata) -> Result<Vec<Request>, String> {
    let file: Box<RawValue> = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    if !file.get().starts_with('[') {
        return Ok(vec![request(file.get(), metadata)?]);
    }
    let items: Vec<Box<RawValue>> = serde_json::from_str(file.get()).map_err(|error| error.to_string())?;
    if items.is_empty() {
        return Err("the list has no requests".to_owned());
    }
    let numbered = |(at, item): (usize, Box<RawValue>)| {
        request(item.get(), metadata).map_err(|reason| format!("request {}: {reason}", at + 1))
    };
    items.into_iter().enumerate().map(numbered).collect()
}

fn request(item: &str, metadata: &Metadata) -> Result<Request, String> {
    serde_json::from_str::<Known>(item)
        .map_err(|error| format!("{error}; a request is {{\"inputs\": [...]}}"))?;
    let body = Bytes::copy_from_slice(item.as_bytes());
    let parsed = json::parse("", &body, body.len(), &RequestLimits::default())
        .map_err(|error| error.message().to_owned())?;
    let (request, _, _) = parsed.into_parts();
    let inputs = match request.inputs {
        Inputs::Named(inputs) => inputs,
        Inputs::Raw(_) => Vec::new(),
    };
    for input in &inputs {
        let known = metadata.input(&input.name).ok_or_else(|| metadata.no_input(&input.name).to_string())?;
        if known.datatype != input.tensor.datatype().name() {
            return Err(format!(
                "input '{}' is {}, but the model expects {}",
                input.name,
                input.tensor.datatype(),
                known.datatype
            ));
        }
    }
    Ok(Request { inputs })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::TensorMetadata;

    fn parsed(text: &str) -> Result<Vec<Request>, String> {
        let (name, datatype) = ("x".to_owned(), "FP32".to_owned());
        parse(text, &Metadata { inputs: vec![TensorMetadata { name, datatype, shape: vec![-1, 2] }] })
    }

    const GOOD: &str = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]}"#;

    #[test]
    fn one_request_or_a_list_of_them() {
        assert_eq!(parsed(GOOD).unwrap().len(), 1);
        let list = parsed(&format!(" [{GOOD}, {}]", GOOD.replace("[1,2]}]", "[3,4]}]"))).unwrap();
        assert_eq!(list[1].inputs[0].tensor.floats(9), [3.0, 4.0]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("", "not JSON"),
            ("[]", "no requests"),
            ("3", "a request is {\"inputs\""),
            ("{}", "missing field `inputs`"),
            (&format!("[{GOOD},{{}}]"), "request 2: missing field"),
            (&GOOD.replace("\"inputs\"", "\"parameters\":{},\"inputs\""), "unknown field `parameters`"),
            (&GOOD.replace("\"x\"", "\"y\""), "no input 'y'; it has 'x'"),
            (&GOOD.replace("FP32", "INT8"), "is INT8, but the model expects FP32"),
            (&GOOD.replace("[1,2]}", "[1]}"), "needs 2 elements"),
        ] {
            let error = parsed(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
