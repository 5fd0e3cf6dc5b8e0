//! Facts about what happened, told to whoever measures.
//!
//! Always: telling a fact never blocks and never fails; the data plane does not know who listens.

use std::sync::Arc;
use std::time::Duration;

use crate::error::ErrorKind;
use crate::id::ServableId;
use crate::infer::Timings;
use crate::tensor::{Signature, Tensor};

/// The protocol that a request came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    Http,
    Grpc,
}

impl Protocol {
    pub const ALL: [Protocol; 2] = [Protocol::Http, Protocol::Grpc];

    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }
}

/// How a request ended: the closed set of a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    Ok,
    InvalidArgument,
    NotFound,
    Unavailable,
    Overloaded,
    DeadlineExceeded,
    Cancelled,
    Unsupported,
    Internal,
}

impl Outcome {
    pub const ALL: [Outcome; 9] = [
        Outcome::Ok,
        Outcome::InvalidArgument,
        Outcome::NotFound,
        Outcome::Unavailable,
        Outcome::Overloaded,
        Outcome::DeadlineExceeded,
        Outcome::Cancelled,
        Outcome::Unsupported,
        Outcome::Internal,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::InvalidArgument => "invalid_argument",
            Self::NotFound => "not_found",
            Self::Unavailable => "unavailable",
            Self::Overloaded => "overloaded",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Cancelled => "cancelled",
            Self::Unsupported => "unsupported",
            Self::Internal => "internal",
        }
    }
}

impl From<ErrorKind> for Outcome {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidArgument | ErrorKind::TooLarge | ErrorKind::UnsupportedEncoding => {
                Self::InvalidArgument
            }
            ErrorKind::UnknownModel | ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Unavailable => Self::Unavailable,
            ErrorKind::Overloaded => Self::Overloaded,
            ErrorKind::DeadlineExceeded => Self::DeadlineExceeded,
            ErrorKind::Cancelled => Self::Cancelled,
            ErrorKind::Unsupported => Self::Unsupported,
            ErrorKind::Internal => Self::Internal,
        }
    }
}

/// One request ended.
#[derive(Debug)]
pub struct InferEvent<'a> {
    pub outcome: Outcome,
    pub timings: Timings,
    /// Rows asked for; 1 for a model that is not batched.
    pub rows: usize,
    /// The prediction, when there was one: position in the signature and the model's own tensor.
    pub predicted: &'a [(usize, Tensor)],
}

/// One session call ended.
#[derive(Debug, Clone, Copy)]
pub struct BatchEvent {
    pub requests: usize,
    pub rows: usize,
    pub assembly: Duration,
    pub session: Duration,
    pub split: Duration,
    pub succeeded: bool,
}

/// Listens to one servable. Made once when it is loaded, so that telling a fact needs no look-up.
pub trait ServableSink: Send + Sync {
    fn infer(&self, event: &InferEvent<'_>);
    fn batch(&self, event: &BatchEvent);
}

/// Listens to the server.
pub trait EventSink: Send + Sync {
    /// A request for a prediction arrived.
    fn received(&self, protocol: Protocol);
    /// A request ended before it reached a servable.
    fn stray(&self, outcome: Outcome);
    /// A servable is about to go live.
    fn servable(&self, id: &ServableId, profile: &ServableProfile) -> Arc<dyn ServableSink>;
}

/// What a listener may want to know of a servable before its first request.
#[derive(Debug, Clone)]
pub struct ServableProfile {
    pub signature: Arc<Signature>,
    /// Outputs that a classifying operator computes, by index: their values are scores of classes.
    pub class_scores: Vec<usize>,
    /// Outputs that hold the predicted class itself, by index.
    pub class_labels: Vec<usize>,
}
