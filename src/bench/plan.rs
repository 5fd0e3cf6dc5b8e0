//! What is to be measured, and by which rules.

use std::fmt;
use std::time::Duration;

use super::arrivals::Process;

/// How requests travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC, tensors as raw bytes.
    Grpc,
    /// HTTP, tensors as JSON both ways.
    Json,
    /// HTTP, tensors as bytes behind the JSON both ways.
    Binary,
}

impl Protocol {
    pub const ALL: [Self; 3] = [Self::Grpc, Self::Json, Self::Binary];

    pub fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Json => "json",
            Self::Binary => "binary",
        }
    }

    /// The protocol of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == name)
    }
}

/// How many requests come, and when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Load {
    /// So many requests are under way all the time: an answer is followed by the next request at once.
    Closed { concurrency: usize },
    /// So many requests a second come, whatever becomes of the ones before.
    Open { rate: f64, process: Process },
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { concurrency } => write!(f, "{concurrency} at once"),
            Self::Open { rate, .. } => write!(f, "{rate:.0}/s"),
        }
    }
}

/// When a measurement is over.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Time before the first window; what happens in it counts nowhere.
    pub warmup: Duration,
    pub window: Duration,
    /// Windows at most, however unstable.
    pub windows_max: usize,
    /// How far the last three windows may lie from their mean, as a part of it.
    pub stability: f64,
}

impl Default for Rules {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { warmup: seconds(1), window: seconds(2), windows_max: 10, stability: 0.1 }
    }
}

/// What the generator may use, and how long it waits.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Threads that send and receive.
    pub threads: usize,
    /// Connections at the most. Without it: one for each request that is under way, in an open loop a few for gRPC.
    pub connections: Option<usize>,
    /// An answer that takes longer counts as an error.
    pub timeout: Duration,
    /// Where the random numbers begin.
    pub seed: u64,
    /// Until when an answer is on time.
    pub objective: Option<Duration>,
}

impl Default for Effort {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            threads: (cores / 2).max(1),
            connections: None,
            timeout: Duration::from_secs(10),
            seed: 1,
            objective: None,
        }
    }
}
