//! The requests that are sent: made up from the model's metadata, or read from a file.

mod file;
mod made;

pub use file::read;
pub use made::{Made, made};

use crate::infer::InputTensor;

/// One request, in no protocol's form yet. It asks for every output.
#[derive(Debug, Clone)]
pub struct Request {
    pub inputs: Vec<InputTensor>,
}
