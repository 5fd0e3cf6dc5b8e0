//! Loading and unloading models through the inference protocol, as Triton's clients do.
//!
//! Not here: what a load does with a config and files; `control` checks and keeps them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::call;
use crate::api::questions::Gateway;
use crate::control::LoadParameters;
use crate::error::{ErrorKind, ServeError, excerpt};
use crate::proto::inference as pb;
use crate::proto::inference::model_repository_parameter::ParameterChoice;

/// What begins the name of a parameter that is a file; the rest is its path.
const FILE: &str = "file:";

/// What the protocol changes of the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepositoryChange {
    Load,
    Unload,
}

/// Errors: what is loaded is not the clients' business. Triton's first words and status, which clients look for.
pub fn allowed(gateway: &Gateway) -> Result<(), ServeError> {
    match gateway.control.explicit() {
        true => Ok(()),
        false => Err(ServeError::new(
            ErrorKind::Unavailable,
            "explicit model load / unload is not allowed: start weir with --control explicit",
        )),
    }
}

/// Loads a model, with whatever came along. Waits until it is ready.
pub async fn load(
    gateway: &Arc<Gateway>,
    model: String,
    parameters: LoadParameters,
    actor: String,
) -> Result<(), ServeError> {
    call(gateway, move |_, control| control.load_model(&model, parameters, &actor)).await
}

/// Unloads a model: all of its versions.
pub async fn unload(gateway: &Arc<Gateway>, model: String, actor: String) -> Result<(), ServeError> {
    call(gateway, move |_, control| control.unload_model(&model, &actor)).await
}

/// The body of both calls over HTTP.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Body {
    parameters: Named,
}

/// The parameters by name. A name that comes twice is an error: which of the two was meant?
#[derive(Default)]
struct Named(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Named;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of parameters")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Named, A::Error> {
                let mut named = BTreeMap::new();
                while let Some((name, value)) = pairs.next_entry::<String, Value>()? {
                    if named.insert(name.clone(), value).is_some() {
                        let twice = format!("parameter '{}' is there twice", excerpt(&name));
                        return Err(serde::de::Error::custom(twice));
                    }
                }
                Ok(Named(named))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

impl Body {
    /// An empty body is an empty object.
    fn read(body: &[u8]) -> Result<Self, ServeError> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        serde_json::from_slice(body)
            .map_err(|error| ServeError::invalid(format!("failed to parse the request JSON: {error}")))
    }
}

/// What a load over HTTP brings along: a config as JSON in a string, files in base64.
pub fn load_of_json(body: &[u8]) -> Result<LoadParameters, ServeError> {
    let mut parameters = LoadParameters::default();
    for (name, value) in Body::read(body)?.parameters.0 {
        match (name.as_str(), file_path(&name), value) {
            ("config", _, Value::String(config)) => parameters.config = Some(config),
            ("config", ..) => return Err(ill_typed(&name, "a string that holds JSON")),
            (_, Some(path), Value::String(text)) => {
                let bytes = STANDARD.decode(text).map_err(|_| ill_typed(&name, "in base64"))?;
                parameters.files.push((path.to_owned(), bytes.into()));
            }
            (_, Some(_), _) => return Err(ill_typed(&name, "a string in base64")),
            _ => return Err(unknown(&name, "config and file:PATH")),
        }
    }
    Ok(parameters)
}

/// Errors: anything but `unload_dependents`, which is true or false and has no effect: no model depends on another
/// here.
pub fn check_unload_json(body: &[u8]) -> Result<(), ServeError> {
    for (name, value) in Body::read(body)?.parameters.0 {
        match (name.as_str(), value) {
            (UNLOAD_DEPENDENTS, Value::Bool(_)) => {}
            (UNLOAD_DEPENDENTS, _) => return Err(ill_typed(&name, "true or false")),
            _ => return Err(unknown(&name, UNLOAD_DEPENDENTS)),
        }
    }
    Ok(())
}

const UNLOAD_DEPENDENTS: &str = "unload_dependents";

type Parameters = HashMap<String, pb::ModelRepositoryParameter>;

/// What a load over gRPC brings along: a config as JSON in a string, files as bytes.
pub fn load_of_grpc(named: Parameters) -> Result<LoadParameters, ServeError> {
    let mut parameters = LoadParameters::default();
    for (name, value) in named {
        match (name.as_str(), file_path(&name), value.parameter_choice) {
            ("config", _, Some(ParameterChoice::StringParam(config))) => parameters.config = Some(config),
            ("config", ..) => return Err(ill_typed(&name, "a string that holds JSON")),
            (_, Some(path), Some(ParameterChoice::BytesParam(bytes))) => {
                parameters.files.push((path.to_owned(), Bytes::from(bytes)));
            }
            (_, Some(_), _) => return Err(ill_typed(&name, "bytes")),
            _ => return Err(unknown(&name, "config and file:PATH")),
        }
    }
    parameters.files.sort();
    Ok(parameters)
}

/// As [`check_unload_json`].
pub fn check_unload_grpc(parameters: &Parameters) -> Result<(), ServeError> {
    for (name, value) in parameters {
        match (name.as_str(), &value.parameter_choice) {
            (UNLOAD_DEPENDENTS, Some(ParameterChoice::BoolParam(_))) => {}
            (UNLOAD_DEPENDENTS, _) => return Err(ill_typed(name, "true or false")),
            _ => return Err(unknown(name, UNLOAD_DEPENDENTS)),
        }
    }
    Ok(())
}

/// Errors: a repository is named. There is one, and it has no name.
pub fn check_repository(name: &str) -> Result<(), ServeError> {
    match name {
        "" => Ok(()),
        _ => Err(ServeError::new(
            ErrorKind::Unsupported,
            "'repository_name' specification is not supported: there is one repository",
        )),
    }
}

fn file_path(name: &str) -> Option<&str> {
    name.strip_prefix(FILE).filter(|path| !path.is_empty())
}

fn ill_typed(name: &str, what: &str) -> ServeError {
    ServeError::invalid(format!("parameter '{}' must be {what}", excerpt(name)))
}

fn unknown(name: &str, known: &str) -> ServeError {
    ServeError::invalid(format!("unknown parameter '{}'; there are {known}", excerpt(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(parameters: &LoadParameters) -> Vec<(&str, &[u8])> {
        parameters.files.iter().map(|(path, bytes)| (path.as_str(), &**bytes)).collect()
    }

    #[test]
    fn a_load_may_bring_a_config_and_files() {
        for empty in ["", " \n", "{}", r#"{"parameters":{}}"#] {
            let parameters = load_of_json(empty.as_bytes()).unwrap();
            assert!(parameters.config.is_none() && parameters.files.is_empty(), "{empty}");
        }
        let body = r#"{"parameters":{"config":"{\"max_batch_size\":4}","file:2/model.onnx":"AAEC","file:1/model.onnx":""}}"#;
        let parameters = load_of_json(body.as_bytes()).unwrap();
        assert_eq!(parameters.config.as_deref(), Some(r#"{"max_batch_size":4}"#));
        assert_eq!(pairs(&parameters), [("1/model.onnx", &b""[..]), ("2/model.onnx", &b"\x00\x01\x02"[..])]);
    }

    #[test]
    fn a_load_over_grpc_brings_the_same() {
        let parameter = |choice| pb::ModelRepositoryParameter { parameter_choice: Some(choice) };
        let named = HashMap::from([
            ("config".to_owned(), parameter(ParameterChoice::StringParam("{}".to_owned()))),
            ("file:2/model.onnx".to_owned(), parameter(ParameterChoice::BytesParam(vec![7]))),
            ("file:1/model.onnx".to_owned(), parameter(ParameterChoice::BytesParam(vec![8]))),
        ]);
        let parameters = load_of_grpc(named).unwrap();
        assert_eq!(parameters.config.as_deref(), Some("{}"));
        assert_eq!(pairs(&parameters), [("1/model.onnx", &[8u8][..]), ("2/model.onnx", &[7u8][..])]);
        for (name, choice) in [
            ("config", ParameterChoice::BytesParam(vec![7])),
            ("file:1/model.onnx", ParameterChoice::StringParam("BwgJ".to_owned())),
            ("file:", ParameterChoice::BytesParam(vec![7])),
            ("unload_dependents", ParameterChoice::BoolParam(true)),
        ] {
            let error = load_of_grpc(HashMap::from([(name.to_owned(), parameter(choice))])).unwrap_err();
            assert!(error.message().contains(&format!("'{name}'")), "{error}");
        }
    }

    #[test]
    fn parameters_that_are_not_known_or_not_fit_are_named() {
        for (body, words) in [
            (r#"{"parameters":{"config":{}}}"#, "'config' must be a string"),
            (r#"{"parameters":{"file:1/x":"","file:1/x":""}}"#, "'file:1/x' is there twice"),
            (r#"{"parameters":{"file:1/model.onnx":"?"}}"#, "'file:1/model.onnx' must be in base64"),
            (r#"{"parameters":{"file:1/model.onnx":7}}"#, "'file:1/model.onnx' must be a string"),
            (r#"{"parameters":{"file:":"AAEC"}}"#, "unknown parameter 'file:'"),
            (r#"{"parameters":{"version":1}}"#, "unknown parameter 'version'"),
            (r#"{"parameter":{}}"#, "unknown field `parameter`"),
            ("[", "failed to parse"),
        ] {
            let error = load_of_json(body.as_bytes()).map(|_| ()).unwrap_err();
            assert!(error.message().contains(words), "{body}: {error}");
        }
    }

    #[test]
    fn an_unload_may_speak_of_dependents_alone() {
        for (body, fine) in [
            ("", true),
            (r#"{"parameters":{"unload_dependents":true}}"#, true),
            (r#"{"parameters":{"unload_dependents":"true"}}"#, false),
            (r#"{"parameters":{"config":"{}"}}"#, false),
        ] {
            assert_eq!(check_unload_json(body.as_bytes()).is_ok(), fine, "{body}");
        }
        let parameter = |choice| pb::ModelRepositoryParameter { parameter_choice: Some(choice) };
        for (name, choice, fine) in [
            ("unload_dependents", ParameterChoice::BoolParam(false), true),
            ("unload_dependents", ParameterChoice::Int64Param(1), false),
            ("config", ParameterChoice::BoolParam(false), false),
        ] {
            let parameters = HashMap::from([(name.to_owned(), parameter(choice))]);
            assert_eq!(check_unload_grpc(&parameters).is_ok(), fine, "{name}");
        }
    }
}
