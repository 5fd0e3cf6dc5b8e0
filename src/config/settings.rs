//! Every setting by its name, with its default: one list for flags, variables and keys.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{ConfigError, LogFormat, wire};
use crate::backend::onnx::LoadLimits;
use crate::error::excerpt;
use crate::model::config::Defaults;

/// Every setting, as it may be written: on the command line, in the environment, in the file.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Folder of models, in Triton's layout: MODEL/VERSION/model.onnx [default: models]
    #[arg(long, env = "WEIR_MODELS", value_name = "DIR")]
    pub models: Option<PathBuf>,

    /// Address for HTTP; port 0 takes any free one [default: 127.0.0.1:8000]
    #[arg(long, env = "WEIR_HTTP", value_name = "ADDR")]
    pub http: Option<String>,

    /// Address for gRPC [default: 127.0.0.1:8001]
    #[arg(long, env = "WEIR_GRPC", value_name = "ADDR")]
    pub grpc: Option<String>,

    /// Address for Prometheus' metrics, or off: then nothing is measured, statistics included [default: 127.0.0.1:8002]
    #[arg(long, env = "WEIR_METRICS", value_name = "ADDR")]
    pub metrics: Option<String>,

    /// Certificate that the HTTP, gRPC and control ports show, in PEM, the chain to its authority behind it; they then speak TLS alone [default: none, in the clear]
    #[arg(long, env = "WEIR_TLS_CERTIFICATE", value_name = "FILE")]
    pub tls_certificate: Option<PathBuf>,

    /// Private key of the certificate, in PEM without a password
    #[arg(long, env = "WEIR_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Authorities in PEM, of one of which every client must show a certificate [default: none, clients need no certificate]
    #[arg(long, env = "WEIR_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,

    /// Who decides what is loaded (static: the folder at the start; watch: the folder as it changes; explicit: clients), or an address of its own for the control API; twice for both [default: static]
    #[arg(long, env = "WEIR_CONTROL", value_name = "MODE|ADDR", value_delimiter = ',')]
    #[serde(default, with = "one_or_more")]
    pub control: Option<Vec<String>>,

    /// Model that is loaded at the start with --control explicit; repeatable, `*` for all [default: none]
    #[arg(long, env = "WEIR_LOAD", value_name = "MODEL", value_delimiter = ',')]
    #[serde(default, with = "one_or_more")]
    pub load: Option<Vec<String>>,

    /// Folder of the routes, the rollouts and the record of changes [default: one for each models folder, in ~/.local/state/weir]
    #[arg(long, env = "WEIR_STATE", value_name = "DIR")]
    pub state: Option<PathBuf>,

    /// File of routes that governs the models it names, applied at the start and when it changes [default: routes.toml of the models folder]
    #[arg(long, env = "WEIR_ROUTES", value_name = "FILE")]
    pub routes: Option<PathBuf>,

    /// Seconds that a folder must stand still before --control watch acts on it [default: 2]
    #[arg(long, env = "WEIR_SETTLE_SECONDS", value_name = "SECONDS")]
    pub settle_seconds: Option<u64>,

    /// When the server says that it is ready, once every model was tried and until it drains (tried: then; all: while every model has a ready version; quorum: while more than half of them have; models:A,B: while those have); more asked is less traffic for a server that serves some models [default: tried]
    #[arg(long, env = "WEIR_READY_WHEN", value_name = "CONDITION")]
    pub ready_when: Option<String>,

    /// Name that server metadata tells; some clients' tests insist on `triton` [default: weir]
    #[arg(long, env = "WEIR_SERVER_NAME", value_name = "NAME")]
    pub server_name: Option<String>,

    /// Seconds that accepted requests get to finish after SIGTERM; more delays the exit [default: 30]
    #[arg(long, env = "WEIR_DRAIN_SECONDS", value_name = "SECONDS")]
    pub drain_seconds: Option<u64>,

    /// Seconds between readiness failing and connections being closed, for load balancers to notice [default: 0]
    #[arg(long, env = "WEIR_DRAIN_DELAY_SECONDS", value_name = "SECONDS")]
    pub drain_delay_seconds: Option<u64>,

    /// Threads that serve connections [default: one per core]
    #[arg(long, env = "WEIR_WORKER_THREADS", value_name = "N")]
    pub worker_threads: Option<usize>,

    /// Models that are loaded at once; more takes more memory while loading [default: 2]
    #[arg(long, env = "WEIR_LOAD_THREADS", value_name = "N")]
    pub load_threads: Option<usize>,

    /// Seconds of processor time that opening a model may take, and one more for each 4 MiB of its files; one that takes longer is not served [default: 3]
    #[arg(long, env = "WEIR_LOAD_SECONDS_MAX", value_name = "SECONDS")]
    pub load_seconds_max: Option<u64>,

    /// Bytes of memory that trying a model may take, and four times its files more; more lets larger constants be worked out at the load [default: 1073741824]
    #[arg(long, env = "WEIR_LOAD_MEMORY_BYTES", value_name = "BYTES")]
    pub load_memory_bytes: Option<u64>,

    /// Bytes of memory that a worker process may take, and four times its model's files more; what a hostile request makes of a model stays below it [default: 4294967296]
    #[arg(long, env = "WEIR_WORKER_MEMORY_BYTES", value_name = "BYTES")]
    pub worker_memory_bytes: Option<u64>,

    /// Bytes of a version's files; they are held in memory while it is loaded, and for as long as it is served by a worker process [default: 17179869184]
    #[arg(long, env = "WEIR_MAX_MODEL_BYTES", value_name = "BYTES")]
    pub max_model_bytes: Option<u64>,

    /// Bytes of the outputs of one session call in a worker process; more is refused [default: 268435456]
    #[arg(long, env = "WEIR_MAX_OUTPUT_BYTES", value_name = "BYTES")]
    pub max_output_bytes: Option<usize>,

    /// Seconds that a session call may take before it is ended; 0 is 3 seconds, or ten times what calls of that size take where that is longer [default: 0]
    #[arg(long, env = "WEIR_SESSION_SECONDS_MAX", value_name = "SECONDS")]
    pub session_seconds_max: Option<u64>,

    /// Concurrent session calls of a version on the CPU, where its config has no instance_group [default: one per core, at most 8]
    #[arg(long, env = "WEIR_INSTANCES", value_name = "N")]
    pub instances: Option<usize>,

    /// Rows in a batch, for models whose config does not say [default: 32]
    #[arg(long, env = "WEIR_MAX_BATCH_SIZE", value_name = "N")]
    pub max_batch_size: Option<usize>,

    /// Requests that may wait for one version, where its config does not say; more is answered 429 [default: 1024]
    #[arg(long, env = "WEIR_MAX_QUEUE_SIZE", value_name = "N")]
    pub max_queue_size: Option<usize>,

    /// Milliseconds from a request's arrival to the end of its session call, for models whose config does not say; what is predicted to take longer is answered 429 at once; 0 is none [default: 0]
    #[arg(long, env = "WEIR_LATENCY_OBJECTIVE_MS", value_name = "MS")]
    pub latency_objective_ms: Option<u64>,

    /// Process in which models run whose config does not say (auto: this one if a scan of the graph finds nothing that is known to crash or stall ONNX Runtime, else a worker process; process: always a worker, which costs a copy of each request and answer; none: always this one, for models you trust) [default: auto]
    #[arg(long, env = "WEIR_ISOLATION", value_name = "MODE")]
    pub isolation: Option<String>,

    /// Requests inside the server at once; each holds its inputs in memory; more is answered 429 [default: 8192]
    #[arg(long, env = "WEIR_MAX_REQUESTS_IN_FLIGHT", value_name = "N")]
    pub max_requests_in_flight: Option<usize>,

    /// Bytes that kept answers take, for all models whose config has `response_cache { enable: true }`; more answers more repeated requests from memory; 0 keeps nothing [default: 67108864]
    #[arg(long, env = "WEIR_RESPONSE_CACHE_BYTES", value_name = "BYTES")]
    pub response_cache_bytes: Option<usize>,

    /// Bytes of one request, before and after decompression; more is answered 413 [default: 268435456]
    #[arg(long, env = "WEIR_MAX_MESSAGE_BYTES", value_name = "BYTES")]
    pub max_message_bytes: Option<usize>,

    /// Streams at once on one HTTP/2 connection [default: 1024]
    #[arg(long, env = "WEIR_MAX_STREAMS", value_name = "N")]
    pub max_streams: Option<u32>,

    /// Bytes that one byte of a compressed body may unpack to, once it has unpacked to more than a mebibyte; more is answered 413 [default: 200]
    #[arg(long, env = "WEIR_MAX_DECOMPRESSION_RATIO", value_name = "N")]
    pub max_decompression_ratio: Option<usize>,

    /// Bytes of one answer as it is written (a number in JSON takes up to twelve times its own); more is answered 413 [default: 1073741824]
    #[arg(long, env = "WEIR_MAX_ANSWER_BYTES", value_name = "BYTES")]
    pub max_answer_bytes: Option<usize>,

    /// Bytes of requests and of answers that wait to be sent, over the whole server, as they come; more is answered 429; it is what slow and greedy clients together can take; never less than max_message_bytes [default: 1073741824]
    #[arg(long, env = "WEIR_MAX_BYTES_IN_FLIGHT", value_name = "BYTES")]
    pub max_bytes_in_flight: Option<usize>,

    /// Connections of each port; those above are closed at once; each takes up to 32 KiB and a descriptor while it rests [default: 16384]
    #[arg(long, env = "WEIR_MAX_CONNECTIONS", value_name = "N")]
    pub max_connections: Option<usize>,

    /// Bytes of a request's line and headers; more is answered 431 [default: 32768]
    #[arg(long, env = "WEIR_MAX_HEADER_BYTES", value_name = "BYTES")]
    pub max_header_bytes: Option<usize>,

    /// Headers of a request; more is answered 431; any number but the default costs HTTP/1 requests an allocation [default: 100]
    #[arg(long, env = "WEIR_MAX_HEADERS", value_name = "N")]
    pub max_headers: Option<usize>,

    /// Arrays and objects inside each other in a request's JSON [default: 64]
    #[arg(long, env = "WEIR_MAX_JSON_DEPTH", value_name = "N")]
    pub max_json_depth: Option<usize>,

    /// Bytes of one string in a request's JSON; images in base64 are the longest that are meant well [default: 16777216]
    #[arg(long, env = "WEIR_MAX_STRING_BYTES", value_name = "BYTES")]
    pub max_string_bytes: Option<usize>,

    /// Inputs of a request, and outputs that it asks for [default: 256]
    #[arg(long, env = "WEIR_MAX_TENSORS", value_name = "N")]
    pub max_tensors: Option<usize>,

    /// Parameters of a request, and of each of its tensors [default: 256]
    #[arg(long, env = "WEIR_MAX_PARAMETERS", value_name = "N")]
    pub max_parameters: Option<usize>,

    /// Dimensions of a tensor [default: 32]
    #[arg(long, env = "WEIR_MAX_RANK", value_name = "N")]
    pub max_rank: Option<usize>,

    /// Seconds for the head of a request from its first byte, and for a connection to begin; a client that takes longer is answered 408 or hung up on [default: 3]
    #[arg(long, env = "WEIR_HEADER_SECONDS", value_name = "SECONDS")]
    pub header_seconds: Option<u64>,

    /// Seconds between two pieces of a body; a client that takes longer is answered 408 (INVALID_ARGUMENT); streams of requests may rest [default: 3]
    #[arg(long, env = "WEIR_BODY_GAP_SECONDS", value_name = "SECONDS")]
    pub body_gap_seconds: Option<u64>,

    /// Bytes per second of a body on the whole, once it has taken longer than two gaps; what comes slower is answered 408 (INVALID_ARGUMENT) [default: 4096]
    #[arg(long, env = "WEIR_BODY_BYTES_PER_SECOND", value_name = "BYTES")]
    pub body_bytes_per_second: Option<u64>,

    /// Seconds in which a client must take 4 KiB of what waits for it, or be hung up on [default: 30]
    #[arg(long, env = "WEIR_WRITE_SECONDS", value_name = "SECONDS")]
    pub write_seconds: Option<u64>,

    /// Seconds that a connection may rest without a request; should be longer than load balancers in front keep theirs [default: 900]
    #[arg(long, env = "WEIR_IDLE_SECONDS", value_name = "SECONDS")]
    pub idle_seconds: Option<u64>,

    /// Seconds between pings that HTTP/2 clients must answer, by which those that have gone are noticed [default: 60]
    #[arg(long, env = "WEIR_PING_SECONDS", value_name = "SECONDS")]
    pub ping_seconds: Option<u64>,

    /// Seconds, a tenth more or less, after which a connection ends with the requests in flight, so that clients behind balancers spread over new replicas; 0 is never [default: 0]
    #[arg(long, env = "WEIR_CONNECTION_SECONDS_MAX", value_name = "SECONDS")]
    pub connection_seconds_max: Option<u64>,

    /// What is logged to standard error: error, warn, info, debug, trace, or module=level [default: info]
    #[arg(long, env = "WEIR_LOG", value_name = "FILTER")]
    pub log: Option<String>,

    /// How the log is written [default: text]
    #[arg(long, env = "WEIR_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

impl Settings {
    /// Reads a TOML file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|reason| ConfigError::Unreadable { path: shown.clone(), reason })?;
        toml::from_str(&text).map_err(|e| {
            // The library shows the place in a picture of several lines; one line tells it too.
            let before = e.span().map_or("", |span| &text[..span.start]);
            let line = before.matches('\n').count();
            let words = text.lines().nth(line).unwrap_or_default().trim();
            let message = e.message().lines().next().unwrap_or_default();
            ConfigError::Malformed {
                path: shown,
                reason: format!("line {} ({}): {message}", line + 1, excerpt(words)),
            }
        })
    }

    /// These settings, with `below` where they say nothing.
    #[must_use]
    pub fn or(self, below: Self) -> Self {
        macro_rules! first {
            ($($field:ident),*) => { Self { $($field: self.$field.or(below.$field)),* } };
        }
        first!(
            models,
            http,
            grpc,
            metrics,
            tls_certificate,
            tls_key,
            tls_client_ca,
            control,
            load,
            state,
            routes,
            settle_seconds,
            ready_when,
            server_name,
            drain_seconds,
            drain_delay_seconds,
            worker_threads,
            load_threads,
            load_seconds_max,
            load_memory_bytes,
            worker_memory_bytes,
            max_model_bytes,
            max_output_bytes,
            session_seconds_max,
            instances,
            max_batch_size,
            max_queue_size,
            latency_objective_ms,
            isolation,
            max_requests_in_flight,
            response_cache_bytes,
            max_message_bytes,
            max_streams,
            max_decompression_ratio,
            max_answer_bytes,
            max_bytes_in_flight,
            max_connections,
            max_header_bytes,
            max_headers,
            max_json_depth,
            max_string_bytes,
            max_tensors,
            max_parameters,
            max_rank,
            header_seconds,
            body_gap_seconds,
            body_bytes_per_second,
            write_seconds,
            idle_seconds,
            ping_seconds,
            connection_seconds_max,
            log,
            log_format
        )
    }

    /// Keys that the two say differently, as a file writes them.
    pub fn differing(&self, other: &Self) -> Vec<String> {
        let table = |settings: &Self| toml::Table::try_from(settings).unwrap_or_default();
        let (ours, theirs) = (table(self), table(other));
        let mut keys: Vec<String> = ours.keys().chain(theirs.keys()).cloned().collect();
        keys.sort_unstable();
        keys.dedup();
        keys.retain(|key| ours.get(key) != theirs.get(key));
        keys
    }

    /// Every setting with its default filled in.
    #[must_use]
    pub fn with_defaults(self) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (defaults, limits) = (Defaults::default(), LoadLimits::default());
        let models = self.models.clone().unwrap_or_else(|| "models".into());
        self.or(Self {
            state: Some(default_state(&models)),
            routes: Some(models.join("routes.toml")),
            models: Some(models),
            http: Some("127.0.0.1:8000".to_owned()),
            grpc: Some("127.0.0.1:8001".to_owned()),
            metrics: Some("127.0.0.1:8002".to_owned()),
            control: Some(vec!["static".to_owned()]),
            load: Some(Vec::new()),
            settle_seconds: Some(2),
            ready_when: Some("tried".to_owned()),
            server_name: Some("weir".to_owned()),
            drain_seconds: Some(30),
            drain_delay_seconds: Some(0),
            worker_threads: Some(cores),
            load_threads: Some(2),
            load_seconds_max: Some(limits.seconds),
            load_memory_bytes: Some(limits.trial_bytes),
            worker_memory_bytes: Some(limits.worker_bytes),
            max_model_bytes: Some(limits.files_bytes),
            max_output_bytes: Some(limits.output_bytes),
            session_seconds_max: Some(0),
            instances: Some(defaults.instances),
            max_batch_size: Some(defaults.max_batch_size),
            max_queue_size: Some(defaults.max_queue_size),
            latency_objective_ms: Some(0),
            isolation: Some(defaults.isolation.to_string()),
            max_requests_in_flight: Some(8192),
            response_cache_bytes: Some(64 << 20),
            log: Some("info".to_owned()),
            log_format: Some(LogFormat::Text),
            ..wire::defaults()
        })
    }
}

/// A folder of its own for each models folder, so that two servers of different models never meet.
pub fn default_state(models: &Path) -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_STATE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/state")))
        .map_or_else(|| models.join(".state"), |base| base.join("weir"));
    let whole = std::path::absolute(models).unwrap_or_else(|_| models.to_owned());
    let whole = whole.canonicalize().unwrap_or(whole);
    let digest = Sha256::digest(whole.as_os_str().as_encoded_bytes());
    let hash: String = digest[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    let name = whole.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    base.join(format!("{name}-{hash}"))
}

/// One string, or a list of them.
mod one_or_more {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        One(String),
        Several(Vec<String>),
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
        Ok(Option::<Form>::deserialize(deserializer)?.map(|form| match form {
            Form::One(value) => vec![value],
            Form::Several(values) => values,
        }))
    }

    pub fn serialize<S: Serializer>(values: &Option<Vec<String>>, serializer: S) -> Result<S::Ok, S::Error> {
        match values.as_deref() {
            Some([one]) => one.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}
