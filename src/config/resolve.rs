//! Values out of settings, or the setting that is wrong and what it must be.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use super::{Config, ConfigError, DrainTimes, Named, Settings, wire};
use crate::api::TlsFiles;
use crate::backend::onnx::LoadLimits;
use crate::backend::{Isolation, NoIsolation};
use crate::control::Mode;
use crate::model::config::{BATCH_SIZE_MAX, Defaults, OBJECTIVE_RANGE, QUEUE_SIZE_MAX, objective};
use crate::serve::ReadyWhen;

impl Settings {
    /// Valid values. Errors: the setting, what it is, and what it must be.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let named = (self.state.is_some(), self.routes.is_some());
        let set = self.with_defaults();
        let text = |value: Option<String>| value.expect("defaults are filled in");
        let number =
            |key, value: Option<usize>, max| at_least_one(key, value.expect("defaults are filled in"), max);
        let seconds = |value: Option<u64>| Duration::from_secs(value.expect("defaults are filled in"));
        let load_limits = load_limits(&set)?;
        let wire = wire::limits(&set)?;
        let models = set.models.expect("defaults are filled in");
        let (mode, control) = control(&set.control.expect("defaults are filled in"))?;
        let load = set.load.unwrap_or_default();
        if !load.is_empty() && mode != Mode::Explicit {
            let reason =
                "goes with --control explicit; elsewhere the models folder says what is loaded".to_owned();
            return Err(ConfigError::Value { key: "load", value: load.join(","), reason });
        }
        Ok(Config {
            mode,
            control,
            load,
            state: Named { path: set.state.expect("defaults are filled in"), named: named.0 },
            routes: Named { path: set.routes.expect("defaults are filled in"), named: named.1 },
            settle: seconds(set.settle_seconds),
            ready_when: ready_when(text(set.ready_when))?,
            http: address("http", &text(set.http))?,
            grpc: address("grpc", &text(set.grpc))?,
            metrics: match text(set.metrics).as_str() {
                "off" => None,
                named => Some(address("metrics", named)?),
            },
            tls: tls(set.tls_certificate, set.tls_key, set.tls_client_ca)?,
            server_name: text(set.server_name),
            drain: DrainTimes { delay: seconds(set.drain_delay_seconds), most: seconds(set.drain_seconds) },
            worker_threads: number("worker_threads", set.worker_threads, 1024)?,
            load_threads: number("load_threads", set.load_threads, 256)?,
            load_limits,
            defaults: Defaults {
                instances: number("instances", set.instances, 256)?,
                max_batch_size: number("max_batch_size", set.max_batch_size, BATCH_SIZE_MAX)?,
                max_queue_size: number("max_queue_size", set.max_queue_size, QUEUE_SIZE_MAX)?,
                latency_objective: latency_objective(
                    set.latency_objective_ms.expect("defaults are filled in"),
                )?,
                isolation: isolation(text(set.isolation))?,
                session_max: session_max(set.session_seconds_max.expect("defaults are filled in"))?,
            },
            requests_in_flight_max: number("max_requests_in_flight", set.max_requests_in_flight, 1 << 24)?,
            response_cache_bytes: set.response_cache_bytes.expect("defaults are filled in"),
            bytes_in_flight_max: number("max_bytes_in_flight", set.max_bytes_in_flight, usize::MAX)?
                .max(wire.message_bytes_max),
            wire,
            models,
            log: log_filter(text(set.log))?,
            log_format: set.log_format.expect("defaults are filled in"),
        })
    }
}

/// The mode and the address out of the values of `control`, at most one of each.
fn control(values: &[String]) -> Result<(Mode, Option<SocketAddr>), ConfigError> {
    let (mut mode, mut port) = (None, None);
    for value in values {
        let known = match value.as_str() {
            "static" => Some(Mode::Static),
            "watch" => Some(Mode::Watch),
            "explicit" => Some(Mode::Explicit),
            _ => None,
        };
        let wrong = |reason: &str| {
            Err(ConfigError::Value { key: "control", value: value.clone(), reason: reason.to_owned() })
        };
        match known {
            Some(_) if mode.is_some() => return wrong("is a second mode; name one"),
            Some(known) => mode = Some(known),
            None if port.is_some() => return wrong("is a second address; name one"),
            None => match address("control", value) {
                Ok(address) => port = Some(address),
                Err(_) => return wrong("must be static, watch, explicit, or an address HOST:PORT"),
            },
        }
    }
    Ok((mode.unwrap_or_default(), port))
}

/// A certificate with its key, or neither.
fn tls(
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
) -> Result<Option<TlsFiles>, ConfigError> {
    let alone = |key, path: PathBuf, reason: &str| {
        Err(ConfigError::Value { key, value: path.display().to_string(), reason: reason.to_owned() })
    };
    match (certificate, key, client_ca) {
        (Some(certificate), Some(key), client_ca) => Ok(Some(TlsFiles { certificate, key, client_ca })),
        (Some(path), None, _) => alone("tls_certificate", path, "needs its private key: set tls_key too"),
        (None, Some(path), _) => alone("tls_key", path, "is no certificate's: set tls_certificate too"),
        (None, None, Some(path)) => {
            alone("tls_client_ca", path, "goes with TLS: set tls_certificate and tls_key too")
        }
        (None, None, None) => Ok(None),
    }
}

pub(super) fn at_least_one(key: &'static str, value: usize, max: usize) -> Result<usize, ConfigError> {
    if (1..=max).contains(&value) {
        return Ok(value);
    }
    Err(ConfigError::Value { key, value: value.to_string(), reason: format!("must be between 1 and {max}") })
}

/// What a model may take while it is loaded and served: within what the system can be told.
fn load_limits(set: &Settings) -> Result<LoadLimits, ConfigError> {
    const MOST: u64 = 1 << 50;
    let within = |key: &'static str, value: Option<u64>, least: u64, most: u64| {
        let value = value.expect("defaults are filled in");
        let reason = || format!("must be between {least} and {most}");
        (least..=most).contains(&value).then_some(value).ok_or_else(|| ConfigError::Value {
            key,
            value: value.to_string(),
            reason: reason(),
        })
    };
    // A worker takes some 100 MB before it has a model.
    let memory = |key, value| within(key, value, 256 << 20, MOST);
    Ok(LoadLimits {
        seconds: within("load_seconds_max", set.load_seconds_max, 1, 1 << 20)?,
        trial_bytes: memory("load_memory_bytes", set.load_memory_bytes)?,
        worker_bytes: memory("worker_memory_bytes", set.worker_memory_bytes)?,
        files_bytes: within("max_model_bytes", set.max_model_bytes, 1, MOST)?,
        output_bytes: within("max_output_bytes", set.max_output_bytes.map(|n| n as u64), 1, MOST)? as usize,
    })
}

fn session_max(seconds: u64) -> Result<Option<Duration>, ConfigError> {
    match seconds {
        0 => Ok(None),
        1..=86_400 => Ok(Some(Duration::from_secs(seconds))),
        _ => Err(ConfigError::Value {
            key: "session_seconds_max",
            value: seconds.to_string(),
            reason: "must be at most 86400, or 0".to_owned(),
        }),
    }
}

fn latency_objective(milliseconds: u64) -> Result<Option<Duration>, ConfigError> {
    objective(milliseconds as f64).ok_or_else(|| ConfigError::Value {
        key: "latency_objective_ms",
        value: milliseconds.to_string(),
        reason: format!("must be {OBJECTIVE_RANGE}"),
    })
}

fn ready_when(value: String) -> Result<ReadyWhen, ConfigError> {
    value.parse().map_err(|reason| ConfigError::Value { key: "ready_when", value, reason })
}

fn isolation(value: String) -> Result<Isolation, ConfigError> {
    let wrong =
        |e: NoIsolation| ConfigError::Value { key: "isolation", value: value.clone(), reason: e.to_string() };
    value.parse().map_err(wrong)
}

/// Checked here, so that a wrong one is told as any other setting is.
fn log_filter(value: String) -> Result<String, ConfigError> {
    match tracing_subscriber::EnvFilter::try_new(&value) {
        Ok(_) => Ok(value),
        Err(e) => Err(ConfigError::Value { key: "log", value, reason: format!("is no log filter: {e}") }),
    }
}

fn address(key: &'static str, value: &str) -> Result<SocketAddr, ConfigError> {
    let wrong = |reason: String| ConfigError::Value { key, value: value.to_owned(), reason };
    value
        .to_socket_addrs()
        .map_err(|e| wrong(format!("must be HOST:PORT, such as 127.0.0.1:8000 ({e})")))?
        .next()
        .ok_or_else(|| wrong("names no address".to_owned()))
}
