//! Puts load on a server of the Open Inference Protocol and measures what comes of it: `weir bench`, as a library.
//!
//! Always: what is sent is encoded before the clock starts; a latency of an open loop counts from the moment at
//! which the request was due, sent or not, so that a server that stands still is charged for everyone who would have
//! come meanwhile (G. Tene, "How NOT to Measure Latency", 2013); an answer that is no success is counted as an error.
//! Not here: the command line, tables, which server it is. Any server of the protocol will do, this one or another.

mod alarm;
mod arrivals;
mod data;
mod driver;
mod encode;
mod measure;
mod plan;
mod processor;
mod report;
mod search;
mod statistics;
mod tally;
mod target;
mod windows;
mod wire;

pub use arrivals::{Process, Schedule};
pub use data::{Made, Request, made, read};
pub use driver::Driver;
pub use encode::Calls;
pub use measure::{Bench, Moment, Stop};
pub use plan::{Effort, Load, Protocol, Rules};
pub use processor::Processor;
pub use report::{Failed, Found, LatencyMicros, Report, Row, ServerSide};
pub use search::ON_TIME;
pub use target::{Endpoint, Metadata, Target, TensorMetadata};

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("'{0}' is no address; one is HOST:PORT, such as 127.0.0.1:8000")]
    Address(String),
    #[error(
        "nobody answers at {address} ({protocol}): {cause}; is the server running, and is its address right?"
    )]
    Nobody { address: String, protocol: &'static str, cause: String },
    #[error("{address} refused the question for {what}: {status}: {message}")]
    Refused { address: String, what: &'static str, status: String, message: String },
    #[error("{address} answers as no server of the Open Inference Protocol does: {cause}")]
    Foreign { address: String, cause: String },
    #[error("{0}")]
    Data(String),
    #[error("no thread of the load generator could be started: {0}")]
    Threads(std::io::Error),
}
