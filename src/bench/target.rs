//! The model that is asked for predictions, where it is, and what its server says of it.

use std::net::SocketAddr;
use std::time::Duration;

use prost::Message;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::{TcpStream, lookup_host};

use super::BenchError;
use super::encode::path;
use super::plan::Protocol;
use super::statistics::Statistics;
use super::tally::Failure;
use super::wire;
use crate::proto::inference as pb;

/// How long a server may think about a question.
const QUESTION_TIME: Duration = Duration::from_secs(30);

/// A model of a server. Nothing is connected yet.
#[derive(Debug, Clone)]
pub struct Target {
    pub model: String,
    /// Empty: the server decides.
    pub version: String,
    /// HOST:PORT of each front end.
    pub http: String,
    pub grpc: String,
}

/// A tensor that a model takes.
#[derive(Debug, Clone, Deserialize)]
pub struct TensorMetadata {
    pub name: String,
    pub datatype: String,
    /// -1 where a dimension is open.
    #[serde(default)]
    pub shape: Vec<i64>,
}

/// What requests must know of a model.
#[derive(Debug, Clone, Deserialize)]
pub struct Metadata {
    pub inputs: Vec<TensorMetadata>,
}

impl Metadata {
    pub fn input(&self, name: &str) -> Option<&TensorMetadata> {
        self.inputs.iter().find(|input| input.name == name)
    }

    /// The error that names what there is instead.
    pub(super) fn no_input(&self, name: &str) -> BenchError {
        let names: Vec<String> = self.inputs.iter().map(|input| format!("'{}'", input.name)).collect();
        BenchError::Data(format!("the model has no input '{name}'; it has {}", names.join(", ")))
    }
}

impl Target {
    /// A model of a server on this machine, on the ports that servers of the protocol have by default.
    pub fn new(model: &str, version: &str) -> Self {
        Self {
            model: model.to_owned(),
            version: version.to_owned(),
            http: "127.0.0.1:8000".to_owned(),
            grpc: "127.0.0.1:8001".to_owned(),
        }
    }

    /// HOST:PORT of the front end that speaks a protocol.
    pub fn host(&self, protocol: Protocol) -> &str {
        match protocol {
            Protocol::Grpc => &self.grpc,
            Protocol::Json | Protocol::Binary => &self.http,
        }
    }

    /// The address behind a name at which somebody listens.
    ///
    /// Errors: the name is unknown, or nobody listens at any of its addresses.
    pub async fn reach(&self, protocol: Protocol) -> Result<Endpoint<'_>, BenchError> {
        let host = self.host(protocol);
        let nobody =
            |cause: String| BenchError::Nobody { address: host.to_owned(), protocol: protocol.name(), cause };
        let mut cause = "its name has no address".to_owned();
        for address in lookup_host(host).await.map_err(|error| nobody(error.to_string()))? {
            match tokio::time::timeout(wire::CONNECT_TIME, TcpStream::connect(address)).await {
                Ok(Ok(_)) => return Ok(Endpoint { target: self, protocol, address }),
                Ok(Err(error)) => cause = error.to_string(),
                Err(elapsed) => cause = elapsed.to_string(),
            }
        }
        Err(nobody(cause))
    }
}

/// A front end of the server, at an address where somebody listens.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint<'a> {
    pub target: &'a Target,
    pub protocol: Protocol,
    pub address: SocketAddr,
}

impl Endpoint<'_> {
    /// HOST:PORT as it was given.
    pub fn host(&self) -> &str {
        self.target.host(self.protocol)
    }

    /// Names, types and shapes of the model's inputs.
    ///
    /// Errors: the server does not know the model, or does not speak the protocol.
    pub async fn metadata(&self) -> Result<Metadata, BenchError> {
        let asked = match self.protocol {
            Protocol::Grpc => self.ask("ModelMetadata").await.and_then(|body| {
                let message = pb::ModelMetadataResponse::decode(body.as_slice()).map_err(foreign)?;
                let inputs = message.inputs.into_iter().map(|input| TensorMetadata {
                    name: input.name,
                    datatype: input.datatype,
                    shape: input.shape,
                });
                Ok(Metadata { inputs: inputs.collect() })
            }),
            Protocol::Json | Protocol::Binary => self.ask("").await.and_then(|body| json(&body)),
        };
        let address = || self.host().to_owned();
        asked.map_err(|failure| {
            if failure.is_connection() || failure.status == FOREIGN {
                return BenchError::Foreign { address: address(), cause: failure.message };
            }
            let (status, message) = (failure.status.into_owned(), failure.message);
            BenchError::Refused { address: address(), what: "the model's metadata", status, message }
        })
    }

    /// What the server counted so far; none where it has no statistics.
    pub async fn statistics(&self) -> Option<Statistics> {
        match self.protocol {
            Protocol::Grpc => {
                let body = self.ask("ModelStatistics").await.ok()?;
                Some(Statistics::from(&pb::ModelStatisticsResponse::decode(body.as_slice()).ok()?))
            }
            Protocol::Json | Protocol::Binary => json(&self.ask("/stats").await.ok()?).ok(),
        }
    }

    /// Asks about the model: over gRPC by a method, over HTTP by what its path ends in.
    async fn ask(&self, what: &str) -> Result<Vec<u8>, Failure> {
        let (model, version) = (self.target.model.clone(), self.target.version.clone());
        let asked = async {
            match self.protocol {
                // Messages about a model have its name and version in the same fields, whatever they are called.
                Protocol::Grpc => {
                    let question = pb::ModelMetadataRequest { name: model, version };
                    wire::call(self.address, self.host(), what, &question).await.map(Vec::from)
                }
                Protocol::Json | Protocol::Binary => {
                    wire::get(self.address, self.host(), &path(&model, &version, what)).await
                }
            }
        };
        let late = |_| Err(Failure::connection("it does not answer"));
        tokio::time::timeout(QUESTION_TIME, asked).await.unwrap_or_else(late)
    }
}

/// The status of an answer that is not what was asked for.
const FOREIGN: &str = "foreign";

fn foreign(cause: impl ToString) -> Failure {
    Failure::new(FOREIGN, &cause.to_string())
}

fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(foreign)
}
