//! Between the protocols' forms of a request and ours.
//!
//! Always: bad input ends here with a message that names the tensor; nothing is allocated by a size that a client
//! named before the bytes behind it were seen.

pub mod grpc;
mod grpc_limits;
mod grpc_response;
pub mod json;
mod json_body;
mod json_data;
mod json_request;
mod json_response;
mod json_values;

pub use grpc_limits::check as check_message;
pub use grpc_response::{PREFIX_BYTES, encode};
pub use json_request::write_request;
pub use json_response::{Written, write_response};

use std::borrow::Cow;
use std::time::Duration;

use crate::error::{ServeError, excerpt};
use crate::id::is_label;
use crate::infer::VersionPin;
use crate::tensor::{DataType, Shape, Tensor, TensorError, format_dims};

/// Outputs up to this size are copied behind the head of an answer; larger ones are sent from where they lie.
const COPIED_BYTES_MAX: usize = 16 << 10;

/// Limits on the parts of a request.
#[derive(Debug, Clone, Copy)]
pub struct RequestLimits {
    /// Arrays and objects inside each other in JSON, at most.
    pub json_depth_max: usize,
    /// Bytes of a string in JSON.
    pub string_bytes_max: usize,
    /// Inputs, and outputs asked for.
    pub tensors_max: usize,
    /// Parameters of the request, and of each tensor.
    pub parameters_max: usize,
    /// Dimensions of a tensor.
    pub rank_max: usize,
}

impl Default for RequestLimits {
    /// The settings' defaults.
    fn default() -> Self {
        Self {
            json_depth_max: 64,
            string_bytes_max: 1 << 24,
            tensors_max: 256,
            parameters_max: 256,
            rank_max: 32,
        }
    }
}

/// The parameters of a request that mean something here, from either protocol.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RequestParameters {
    /// The version asked for, by an operator's name for it.
    pub label: Option<String>,
    pub priority: u64,
    pub timeout: Option<Duration>,
    /// Whether outputs that are not listed come in binary (HTTP only).
    pub binary_data_output: bool,
}

/// One parameter's value, from either protocol.
#[derive(Debug, Clone, PartialEq)]
pub enum Parameter<'a> {
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(&'a str),
}

impl<'a> Parameter<'a> {
    /// The value as text: numbers in their shortest form.
    pub fn into_text(self) -> Cow<'a, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Bool(b) => Cow::Borrowed(if b { "true" } else { "false" }),
            Self::Unsigned(n) => Cow::Owned(n.to_string()),
            Self::Signed(n) => Cow::Owned(n.to_string()),
            Self::Float(v) => Cow::Owned(v.to_string()),
        }
    }
}

impl RequestParameters {
    /// Takes in one parameter. Parameters that mean nothing here are passed over, as the standard asks; names
    /// that are reserved and unknown are refused.
    pub fn set(&mut self, key: &str, value: &Parameter<'_>) -> Result<(), ServeError> {
        match key {
            "priority" => self.priority = unsigned(key, value)?,
            "timeout" => {
                let us = unsigned(key, value)?;
                self.timeout = (us > 0).then(|| Duration::from_micros(us));
            }
            "label" => self.label = Some(label(value)?),
            "binary_data_output" => self.binary_data_output = boolean(key, value)?,
            "triton_enable_empty_final_response" => _ = boolean(key, value)?,
            _ if key.starts_with("triton_") => {
                return Err(ServeError::invalid(format!(
                    "parameter '{}' is not known: names that begin with 'triton_' are reserved",
                    excerpt(key)
                )));
            }
            _ => {}
        }
        Ok(())
    }
}

fn label(value: &Parameter<'_>) -> Result<String, ServeError> {
    match value {
        Parameter::Text(text) if is_label(text) => Ok((*text).to_owned()),
        _ => Err(ServeError::invalid(
            "parameter 'label' must be a label: a letter or '_', then letters, digits, '_', '-' and '.'",
        )),
    }
}

/// The version that a request names, in its path or message or by a parameter.
pub fn pin(named: VersionPin, label: Option<String>) -> Result<VersionPin, ServeError> {
    match (named, label) {
        (named, None) => Ok(named),
        (VersionPin::Routed, Some(label)) => Ok(VersionPin::Label(label)),
        (_, Some(label)) => Err(ServeError::invalid(format!(
            "the request names a version and the label '{label}'; name one of them"
        ))),
    }
}

pub fn unsigned(key: &str, value: &Parameter<'_>) -> Result<u64, ServeError> {
    match value {
        Parameter::Unsigned(n) => Ok(*n),
        Parameter::Signed(n) if *n >= 0 => Ok(n.unsigned_abs()),
        _ => {
            Err(ServeError::invalid(format!("parameter '{key}' must be a whole number that is not negative")))
        }
    }
}

pub fn boolean(key: &str, value: &Parameter<'_>) -> Result<bool, ServeError> {
    match value {
        Parameter::Bool(b) => Ok(*b),
        _ => Err(ServeError::invalid(format!("parameter '{key}' must be true or false"))),
    }
}

/// A client's data type by name.
fn datatype(input: &str, name: &str) -> Result<DataType, ServeError> {
    DataType::from_name(name).ok_or_else(|| {
        ServeError::invalid(format!("input '{}' has unknown data-type '{}'", excerpt(input), excerpt(name)))
    })
}

/// A client's shape.
fn shape(input: &str, dims: &[i64]) -> Result<Shape, ServeError> {
    let shape = Shape::from_dims(dims.iter().copied()).filter(|shape| shape.elements().is_some());
    shape.ok_or_else(|| {
        let dims = &dims[..dims.len().min(16)];
        ServeError::invalid(format!(
            "input '{}' has shape {}: dimensions must not be negative, nor their product too large",
            excerpt(input),
            format_dims(dims)
        ))
    })
}

/// A tensor out of packed bytes, with the words that clients look for when the size is wrong.
fn tensor(
    model: &str,
    input: &str,
    datatype: DataType,
    shape: Shape,
    data: bytes::Bytes,
) -> Result<Tensor, ServeError> {
    Tensor::new(datatype, shape, data).map_err(|error| {
        let (input, model) = (excerpt(input), excerpt(model));
        ServeError::invalid(match error {
            TensorError::ByteSize { expected, actual, .. } => format!(
                "input byte size mismatch for input '{input}' for model '{model}'. Expected {expected}, got {actual}"
            ),
            error => format!("input byte size mismatch for input '{input}' for model '{model}': {error}"),
        })
    })
}

/// Shared memory is not offered; a request that counts on it is told so.
fn no_shared_memory(role: &str, name: &str) -> ServeError {
    ServeError::invalid(format!(
        "{role} '{}' names a shared-memory region, and this server offers no shared memory",
        excerpt(name)
    ))
}
