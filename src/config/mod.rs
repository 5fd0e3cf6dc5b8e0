//! The server's configuration: flags, environment, file, defaults — in that order.
//!
//! Always: one list of settings serves all three forms, so that each flag is also a variable and a key; unknown
//! keys are errors; what [`Config`] holds is valid.

mod resolve;
mod settings;
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::{TlsFiles, WireLimits};
use crate::backend::onnx::LoadLimits;
use crate::control::Mode;
use crate::model::config::Defaults;
use crate::serve::ReadyWhen;
pub use settings::{Settings, default_state};

/// The configuration, resolved and valid.
#[derive(Debug, Clone)]
pub struct Config {
    pub models: PathBuf,
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    /// `None`: nothing is measured.
    pub metrics: Option<SocketAddr>,
    /// `None`: in the clear.
    pub tls: Option<TlsFiles>,
    pub mode: Mode,
    /// Where the control API listens; `None`: on the other ports.
    pub control: Option<SocketAddr>,
    pub load: Vec<String>,
    /// One that was named must be usable.
    pub state: Named,
    /// One that was named must be there.
    pub routes: Named,
    pub settle: Duration,
    pub ready_when: ReadyWhen,
    pub server_name: String,
    pub drain: DrainTimes,
    pub worker_threads: usize,
    pub load_threads: usize,
    pub load_limits: LoadLimits,
    pub defaults: Defaults,
    pub requests_in_flight_max: usize,
    pub response_cache_bytes: usize,
    /// Bytes of requests and unsent answers.
    pub bytes_in_flight_max: usize,
    pub wire: WireLimits,
    pub log: String,
    pub log_format: LogFormat,
}

/// How a server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainTimes {
    /// Between readiness failing and the ports closing.
    pub delay: Duration,
    /// What accepted requests get to finish.
    pub most: Duration,
}

/// A path, and whether somebody named it or it is the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub path: PathBuf,
    pub named: bool,
}

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the config file {path} cannot be read: {reason}")]
    Unreadable { path: String, reason: std::io::Error },
    #[error("the config file {path} is wrong: {reason}")]
    Malformed { path: String, reason: String },
    #[error("{key} = '{value}' {reason}")]
    Value { key: &'static str, value: String, reason: String },
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let flags = Settings { http: Some("127.0.0.1:1".into()), ..Settings::default() };
        let file = toml::from_str("http = \"127.0.0.1:2\"\ngrpc = \"127.0.0.1:3\"").unwrap();
        let config = flags.or(file).resolve().unwrap();
        assert_eq!(
            (config.http.port(), config.grpc.port(), config.metrics.map(|a| a.port())),
            (1, 3, Some(8002))
        );
    }

    #[test]
    fn unknown_keys_and_bad_values_are_named() {
        let error = toml::from_str::<Settings>("htpp = \"x\"").unwrap_err().to_string();
        assert!(error.contains("htpp"), "{error}");
        for (settings, part) in [
            (
                Settings { http: Some("8000".into()), ..Settings::default() },
                "http = '8000' must be HOST:PORT",
            ),
            (
                Settings { instances: Some(0), ..Settings::default() },
                "instances = '0' must be between 1 and 256",
            ),
            (
                Settings { latency_objective_ms: Some(4_000_000), ..Settings::default() },
                "latency_objective_ms = '4000000' must be milliseconds from 0.1",
            ),
            (
                Settings { ready_when: Some("most".into()), ..Settings::default() },
                "ready_when = 'most' must be tried, all, quorum",
            ),
            (
                Settings { isolation: Some("thread".into()), ..Settings::default() },
                "isolation = 'thread' must be auto, process or none",
            ),
            (Settings { max_message_bytes: Some(usize::MAX), ..Settings::default() }, "max_message_bytes"),
            (
                Settings { tls_certificate: Some("c.pem".into()), ..Settings::default() },
                "tls_certificate = 'c.pem' needs its private key: set tls_key too",
            ),
            (
                Settings { tls_client_ca: Some("ca.pem".into()), ..Settings::default() },
                "tls_client_ca = 'ca.pem' goes with TLS",
            ),
        ] {
            let error = settings.resolve().unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
