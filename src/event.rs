//! Facts about what happened, told to whoever measures.
//!
//! Always: telling a fact never blocks and never fails; the data plane does not know who listens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::error::ErrorKind;
use crate::id::{ModelName, ServableId, Version};
use crate::infer::{CacheLookup, Routing, Timings};
use crate::tensor::{DataType, Signature, Tensor};

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
            // A prediction never conflicts with anything; only changes do.
            ErrorKind::InvalidArgument
            | ErrorKind::TooLarge
            | ErrorKind::TooSlow
            | ErrorKind::UnsupportedEncoding
            | ErrorKind::Conflict
            | ErrorKind::Stale => Self::InvalidArgument,
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
    pub ended: Instant,
    pub timings: Timings,
    pub routing: &'a Routing,
    /// Rows asked for; 1 for a model that is not batched.
    pub rows: usize,
    /// `None` where answers are not kept. After a hit no session was called.
    pub lookup: Option<CacheLookup>,
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
    /// A servable is about to go live; told once per load, also where the same version is live already.
    fn servable(&self, id: &ServableId, profile: &ServableProfile) -> Arc<dyn ServableSink>;
    /// A servable that [`Self::servable`] told of went, or never went live after all; told once per load.
    fn retired(&self, id: &ServableId);
    /// A copy of a request for a shadow ended, one way or another.
    fn shadow(&self, event: &ShadowEvent<'_>);
}

/// What a listener may want to know of a servable before its first request.
#[derive(Debug, Clone)]
pub struct ServableProfile {
    pub signature: Arc<Signature>,
    /// Outputs that a classifying operator computes, by index: their values are scores of classes.
    pub class_scores: Vec<usize>,
    /// Outputs that hold the predicted class itself, by index.
    pub class_labels: Vec<usize>,
    /// Its config asks that answers be kept.
    pub cached: bool,
}

/// The same thing of the version that answered the client and of its shadow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sides<T> {
    pub primary: T,
    pub shadow: T,
}

/// How a copy of a request ended: the closed set of a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ShadowOutcome {
    /// Both answered, and the answers were compared.
    Compared,
    /// The shadow's session call failed.
    Failed,
    /// The inputs do not fit the shadow's signature.
    Refused,
    /// There was no room in the shadows' budget; the shadow never saw the request.
    Dropped,
    /// The primary did not answer: there is nothing to compare with.
    Unanswered,
}

impl ShadowOutcome {
    pub const ALL: [ShadowOutcome; 5] =
        [Self::Compared, Self::Failed, Self::Refused, Self::Dropped, Self::Unanswered];

    pub fn name(self) -> &'static str {
        match self {
            Self::Compared => "compared",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Dropped => "dropped",
            Self::Unanswered => "unanswered",
        }
    }
}

/// A copy of a request for a shadow ended. What did not come about is empty or zero.
#[derive(Debug)]
pub struct ShadowEvent<'a> {
    pub model: &'a ModelName,
    pub versions: Sides<Version>,
    pub outcome: ShadowOutcome,
    /// Copies that this tells of: 1, but for those that were dropped, which are told of together.
    pub requests: u64,
    /// There when the outcome is [`ShadowOutcome::Compared`].
    pub comparison: Option<&'a Comparison>,
    /// sha256 of the request's inputs: finds the request among a client's own.
    pub digest: Option<[u8; 32]>,
    pub outputs: Sides<&'a [(Arc<str>, Tensor)]>,
    /// There when sessions of both answered.
    pub latency: Option<Sides<Duration>>,
}

/// What came of holding a shadow's answer against the primary's.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Rows whose predicted classes are the same; `None` unless both versions classify.
    pub agreement: Option<Agreement>,
    /// Names of the predicted classes of the first 64 rows at the most, whether they agree or not.
    pub pairs: SmallVec<[Sides<String>; 4]>,
    /// One per output of the primary, in its order.
    pub differences: Vec<OutputDifference>,
    /// Over the rows of all embeddings; `None` where there is none.
    pub cosine: Option<Cosine>,
    pub disagrees: bool,
    /// Orders the disagreements of two versions, the worst highest; 0 for answers that agree, infinite for
    /// answers that cannot be compared.
    pub severity: f64,
}

/// How many rows got the same class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Agreement {
    pub rows: usize,
    pub agreeing: usize,
}

/// Cosine of the angle between two embeddings, from -1 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cosine {
    pub min: f64,
    pub mean: f64,
}

/// Why two outputs were not compared value by value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Incomparable {
    /// The shadow gave no output of that name.
    Missing,
    Datatype,
    Shape,
}

/// How far one output of the shadow is from the primary's.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputDifference {
    pub output: Arc<str>,
    /// The primary's.
    pub datatype: DataType,
    /// Its values are numbers whose differences mean something: no strings, no class labels.
    pub numeric: bool,
    /// Elements that were compared: all, up to a bound.
    pub elements: usize,
    /// Elements that are out of tolerance, those of `nonfinite_mismatches` included.
    pub differing: usize,
    /// Elements of which one is NaN or infinite and the other is not the same.
    pub nonfinite_mismatches: usize,
    pub magnitude: Magnitude,
    pub incomparable: Option<Incomparable>,
}

impl OutputDifference {
    pub fn within_tolerance(&self) -> bool {
        self.incomparable.is_none() && self.differing == 0
    }
}

/// How far numbers are apart, over the pairs of which both are finite; zeros for strings.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Magnitude {
    pub absolute_max: f64,
    pub absolute_mean: f64,
    /// |a − b| / max(|a|, |b|), from 0 to 2; 0 where both are zero.
    pub relative_max: f64,
    /// |a − b| in units of what is tolerated at a: above 1 is out of tolerance. For exact types the unit is 1.
    pub tolerances_max: f64,
}

/// Tells every fact to several listeners, in order.
pub struct Fanout(pub Vec<Arc<dyn EventSink>>);

struct ServableFanout(Vec<Arc<dyn ServableSink>>);

impl EventSink for Fanout {
    fn received(&self, protocol: Protocol) {
        self.0.iter().for_each(|sink| sink.received(protocol));
    }

    fn stray(&self, outcome: Outcome) {
        self.0.iter().for_each(|sink| sink.stray(outcome));
    }

    fn servable(&self, id: &ServableId, profile: &ServableProfile) -> Arc<dyn ServableSink> {
        Arc::new(ServableFanout(self.0.iter().map(|sink| sink.servable(id, profile)).collect()))
    }

    fn retired(&self, id: &ServableId) {
        self.0.iter().for_each(|sink| sink.retired(id));
    }

    fn shadow(&self, event: &ShadowEvent<'_>) {
        self.0.iter().for_each(|sink| sink.shadow(event));
    }
}

impl ServableSink for ServableFanout {
    fn infer(&self, event: &InferEvent<'_>) {
        self.0.iter().for_each(|sink| sink.infer(event));
    }

    fn batch(&self, event: &BatchEvent) {
        self.0.iter().for_each(|sink| sink.batch(event));
    }
}
