//! A request for a prediction and its answer, free of any protocol.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::id::{ServableId, Version};
use crate::tensor::Tensor;

/// A named tensor of a request.
#[derive(Debug, Clone)]
pub struct InputTensor {
    pub name: String,
    pub tensor: Tensor,
}

/// A named tensor of an answer.
#[derive(Debug, Clone)]
pub struct OutputTensor {
    pub name: Arc<str>,
    pub tensor: Tensor,
}

/// The tensors of a request.
#[derive(Debug, Clone)]
pub enum Inputs {
    Named(Vec<InputTensor>),
    /// The bytes of the only input; its type and shape are read off the signature.
    Raw(Bytes),
}

/// An output that a client asks for.
#[derive(Debug, Clone)]
pub struct RequestedOutput {
    pub name: String,
    /// Answer with the best `n` classes instead of the tensor; 0 asks for the tensor.
    pub classes: usize,
}

/// What a client asks for.
#[derive(Debug, Clone)]
pub struct InferRequest {
    /// As the client wrote it; known to be a model's name only once it is found.
    pub model: String,
    pub version: Option<Version>,
    pub inputs: Inputs,
    /// Empty asks for every output.
    pub outputs: Vec<RequestedOutput>,
    pub limits: Limits,
}

/// How long a request may take and how much it matters.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// The client has gone by then, whatever is configured (`grpc-timeout`).
    pub deadline: Option<Instant>,
    /// The request's `timeout` parameter, from its arrival.
    pub timeout: Option<Duration>,
    /// 1 is the highest level; 0 asks for the model's default.
    pub priority: u64,
}

/// A prediction.
#[derive(Debug, Clone)]
pub struct InferResponse {
    pub servable: ServableId,
    /// In the order asked for, or the order of the signature.
    pub outputs: Vec<OutputTensor>,
}

/// The tensors of a request or an answer inside the server: in the order of the signature, `None` where an
/// optional input was left out or an output was not asked for.
pub type TensorRow = SmallVec<[Option<Tensor>; 4]>;

/// Where a request's time went. Durations are zero for stages that it did not reach.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timings {
    /// From the queue's door to being picked for a batch.
    pub queue: Duration,
    /// Putting the batch together. Shared by all requests of the batch.
    pub assembly: Duration,
    /// The session call. Shared by all requests of the batch.
    pub session: Duration,
    /// Cutting the batch's answers apart. Shared by all requests of the batch.
    pub split: Duration,
    /// Writing the answer in the protocol's form.
    pub encode: Duration,
    /// From the request's arrival to its answer.
    pub total: Duration,
}
