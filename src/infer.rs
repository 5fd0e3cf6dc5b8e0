//! A request for a prediction and its answer, free of any protocol.

use std::borrow::Cow;
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

impl Inputs {
    /// Bytes of all tensors.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Named(inputs) => inputs.iter().map(|input| input.tensor.data().len()).sum(),
            Self::Raw(bytes) => bytes.len(),
        }
    }
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
    pub pin: VersionPin,
    pub inputs: Inputs,
    /// Empty asks for every output.
    pub outputs: Vec<RequestedOutput>,
    pub limits: Limits,
}

/// The version that a client names, if any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum VersionPin {
    /// None: the model's route decides.
    #[default]
    Routed,
    Version(Version),
    /// A name that operators give to a version, such as `stable`.
    Label(String),
}

/// What a route may look at in a request besides the version that it names.
pub trait RequestKeys: Sync {
    /// A header of HTTP or a metadata entry of gRPC. `name` is in lower case.
    fn header(&self, name: &str) -> Option<&[u8]>;
    fn parameter(&self, name: &str) -> Option<Cow<'_, str>>;
    /// The client's own name for the request.
    fn request_id(&self) -> Option<&str>;
}

/// Why a request was answered by the version that answered it: the closed set that answers and metrics use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteReason {
    /// It named the version.
    Pinned,
    /// It named a label.
    Label,
    /// A rule of the route.
    Rule,
    /// The arm of its sticky key.
    Sticky,
    /// Drawn by the arms' weights.
    Weighted,
    /// No route is set: the highest version that is ready.
    Latest,
    /// An arm is not ready, and its share went to the others.
    Fallback,
}

impl RouteReason {
    pub const ALL: [RouteReason; 7] =
        [Self::Pinned, Self::Label, Self::Rule, Self::Sticky, Self::Weighted, Self::Latest, Self::Fallback];

    pub fn name(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Label => "label",
            Self::Rule => "rule",
            Self::Sticky => "sticky",
            Self::Weighted => "weighted",
            Self::Latest => "latest",
            Self::Fallback => "fallback",
        }
    }

    /// Whether chance decided by the arms' weights: what comparisons between arms may count.
    pub fn by_weight(self) -> bool {
        matches!(self, Self::Sticky | Self::Weighted)
    }
}

/// How a request was routed.
#[derive(Debug, Clone)]
pub struct Routing {
    pub reason: RouteReason,
    /// The revision of the route that decided; 0 where none was ever set.
    pub revision: u64,
    /// The sticky key's number, where one was used.
    pub unit: Option<u64>,
    /// The experiment that the request is part of, and the client's name for it.
    pub experiment: Option<Enrolled>,
}

/// A request that outcomes may be told of later.
#[derive(Debug, Clone)]
pub struct Enrolled {
    pub experiment: Arc<str>,
    pub request_id: Box<str>,
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
    /// Why that version answered.
    pub reason: RouteReason,
    /// In the order asked for, or the order of the signature.
    pub outputs: Vec<OutputTensor>,
}

/// The tensors of a request or an answer inside the server: in the order of the signature, `None` where an
/// optional input was left out or an output was not asked for.
pub type TensorRow = SmallVec<[Option<Tensor>; 2]>;

/// What came of looking for a request's answer among those that were kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLookup {
    pub hit: bool,
    /// Looking it up and, where it was not there, keeping it afterwards.
    pub took: Duration,
}

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
