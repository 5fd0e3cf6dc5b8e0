//! Builds the parts bottom-up, owns the tasks, drains on shutdown.

use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api::control::{self as control_api, ControlApi, ControlPort};
use crate::api::grpc::Services;
use crate::api::{Drain, Gateway, Port, Spoken, Tls, Workers, http};
use crate::backend::Loader;
use crate::backend::onnx::{LibraryError, OnnxLoader, Runtime};
use crate::cache::ResponseCache;
use crate::config::{Config, DrainTimes};
use crate::control::{
    Control, ControlConfig, Followers, Following, Foundations, Summary, Tallies, check_routes, open_state,
};
use crate::event::{EventSink, Fanout};
use crate::model::{Servable, VersionState};
use crate::monitor::{Monitor, Readings};
use crate::serve::{Admission, Phase, Pipeline, Readiness, Table};
use crate::tensor::{ANY, DataType};

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Library(#[from] LibraryError),
    #[error("the {port} address {address} cannot be used: {reason}; choose another with --{port}")]
    Bind { port: &'static str, address: SocketAddr, reason: io::Error },
    #[error("{0}")]
    State(String),
    #[error("{0}; correct it, or name another file with --routes")]
    Routes(String),
    #[error("the threads that serve connections cannot be started: {0}; lower --worker-threads")]
    Threads(io::Error),
    #[error("the models folder {} cannot be read: {reason}; choose another with --models", path.display())]
    Repository { path: PathBuf, reason: io::Error },
}

/// How long a session call or the load of a model may still take when everything else has ended.
const LAST_CALL: Duration = Duration::from_secs(2);

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Wholly,
    /// A session call or the load of a model did not end: the process must not run the library's destructors.
    WithWorkLeft,
}

/// A server with its ports bound.
pub struct App {
    config: Config,
    drain_times: watch::Receiver<DrainTimes>,
    runtime_version: String,
    ports: Ports,
    workers: Arc<Workers>,
    gateway: Arc<Gateway>,
    watched: Watched,
    control: Arc<Control>,
    following: Following,
}

struct Ports {
    http: Port,
    grpc: Port,
    /// Unless nothing is measured.
    metrics: Option<Port>,
    /// Only where the control API has a port of its own.
    control: Option<Port>,
}

/// Where a server listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    pub metrics: Option<SocketAddr>,
    pub control: Option<SocketAddr>,
    /// Whether all but the metrics are behind TLS.
    pub secure: bool,
}

impl App {
    /// Opens ONNX Runtime and the ports. Nothing is served yet.
    /// `drain_times` tells how long its end may take, when it comes to that. `tls`: `None` is in the clear; the port for
    /// metrics always is.
    pub async fn bind(
        config: Config,
        drain_times: watch::Receiver<DrainTimes>,
        tls: Option<Arc<Tls>>,
    ) -> Result<Self, StartError> {
        let runtime = Runtime::open()?;
        let loader: Arc<dyn Loader> = Arc::new(OnnxLoader::with_workers(runtime, config.load_limits));
        let ports = Ports {
            http: bind("http", config.http)?.behind(tls.as_ref(), Spoken::Http),
            grpc: bind("grpc", config.grpc)?.behind(tls.as_ref(), Spoken::Grpc),
            metrics: bind_any("metrics", config.metrics)?,
            control: bind_any("control", config.control)?.map(|port| port.behind(tls.as_ref(), Spoken::Http)),
        };
        let monitor = Arc::new(Monitor::new(runtime.version()));
        let tallies = Arc::new(Tallies::default());
        let measuring = config.metrics.is_some();
        let mut listeners: Vec<Arc<dyn EventSink>> = vec![tallies.clone()];
        if measuring {
            listeners.push(monitor.clone());
        }
        let sink: Arc<dyn EventSink> = Arc::new(Fanout(listeners));
        let (ledger, outcomes) =
            open_state(&config.state.path, config.state.named).map_err(StartError::State)?;
        let routes = check_routes(&config.routes.path, config.routes.named).map_err(StartError::Routes)?;
        let following = Following { settle: config.settle, routes };
        let table = Arc::new(Table::default());
        let admission = Admission::new(config.requests_in_flight_max, config.bytes_in_flight_max);
        let cache = Arc::new(ResponseCache::new(config.response_cache_bytes));
        let governing = ControlConfig {
            models: config.models.clone(),
            defaults: config.defaults.clone(),
            mode: config.mode,
            load: config.load.clone(),
            load_threads: config.load_threads,
            uploads: config.state.path.join("uploads"),
        };
        let foundations = Foundations {
            loader,
            sink: Arc::clone(&sink),
            tallies,
            cache: Arc::clone(&cache),
            table: Arc::clone(&table),
            ledger,
            outcomes,
        };
        let control = Arc::new(Control::new(governing, foundations));
        let port = if ports.control.is_some() { ControlPort::Own } else { ControlPort::Main };
        let gateway = Arc::new(Gateway {
            control: ControlApi::new(Arc::clone(&control), port),
            pipeline: Pipeline::new(Arc::clone(&table), admission.clone(), Arc::clone(&sink)),
            monitor,
            measuring,
            readiness: Arc::new(Readiness::new(config.ready_when.clone(), Arc::clone(&table))),
            server_name: config.server_name.clone(),
            limits: config.wire,
        });
        let runtime_version = runtime.version().to_owned();
        let workers = Arc::new(Workers::start(config.worker_threads).map_err(StartError::Threads)?);
        let watched = Watched { table, admission, cache, tls };
        Ok(Self {
            config,
            drain_times,
            runtime_version,
            ports,
            workers,
            gateway,
            watched,
            control,
            following,
        })
    }

    /// Serves until `stop` is done, then drains. Tells `out` where it listens and what it loaded.
    pub async fn run(self, stop: impl Future<Output = ()>, out: &mut dyn Write) -> Result<Ended, StartError> {
        let Self {
            config,
            drain_times,
            runtime_version,
            ports,
            workers,
            gateway,
            watched,
            control,
            following,
        } = self;
        let unreadable = |reason| StartError::Repository { path: config.models.clone(), reason };
        let work = control.announce().map_err(unreadable)?;
        let addresses = Addresses {
            http: ports.http.address(),
            grpc: ports.grpc.address(),
            metrics: ports.metrics.as_ref().map(Port::address),
            control: ports.control.as_ref().map(Port::address),
            secure: config.tls.is_some(),
        };
        say(out, &greeting(&runtime_version, addresses));
        let (begin_drain, drain) = Drain::new();
        let mut tasks = serve(ports, &workers, &gateway, watched.clone(), &drain);
        tokio::pin!(stop);

        let started = Instant::now();
        let stop_loading = Arc::new(AtomicBool::new(false));
        let mut loading = {
            let (control, stop) = (Arc::clone(&control), Arc::clone(&stop_loading));
            tokio::task::spawn_blocking(move || {
                let summary = control.load(&work, &stop);
                (summary, control.follow(&following))
            })
        };
        let loaded = tokio::select! {
            loaded = &mut loading => loaded.ok(),
            () = &mut stop => None,
        };
        if let Some((summary, _)) = &loaded {
            let summary = *summary;
            gateway.readiness.enter(Phase::Ready);
            say(out, &inventory(&watched.table, summary, started.elapsed(), addresses));
            stop.await;
        }

        stop_loading.store(true, Ordering::Relaxed);
        gateway.readiness.enter(Phase::Draining);
        tracing::info!(in_flight = watched.admission.in_flight(), "draining");
        let times = *drain_times.borrow();
        tokio::time::sleep(times.delay).await;
        begin_drain.send_replace(true);
        let all_done = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(times.most, all_done).await.is_err() {
            tracing::warn!(
                in_flight = watched.admission.in_flight(),
                "requests were cut off: --drain-seconds is over"
            );
        }
        drop(tasks);
        let followers = match loaded {
            Some((_, followers)) => Some(followers),
            None => tokio::time::timeout(LAST_CALL, loading).await.ok().and_then(Result::ok).map(|(_, f)| f),
        };
        let served = match Arc::into_inner(workers) {
            Some(workers) => workers.end(LAST_CALL).await,
            None => false,
        };
        let ended = match control_ended(followers).await && retire(&watched.table).await && served {
            true => Ended::Wholly,
            false => Ended::WithWorkLeft,
        };
        tracing::info!("stopped");
        Ok(ended)
    }
}

fn bind(port: &'static str, address: SocketAddr) -> Result<Port, StartError> {
    Port::bind(address).map_err(|reason| StartError::Bind { port, address, reason })
}

fn bind_any(port: &'static str, address: Option<SocketAddr>) -> Result<Option<Port>, StartError> {
    match address {
        Some(address) => Ok(Some(bind(port, address)?)),
        None => Ok(None),
    }
}

fn serve(
    ports: Ports,
    workers: &Arc<Workers>,
    gateway: &Arc<Gateway>,
    watched: Watched,
    drain: &Drain,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let mut connections = vec![("http", ports.http.connections()), ("grpc", ports.grpc.connections())];
    connections.extend(ports.metrics.as_ref().map(|port| ("metrics", port.connections())));
    connections.extend(ports.control.as_ref().map(|port| ("control", port.connections())));
    let render: Arc<dyn Fn() -> String + Send + Sync> = {
        let monitor = Arc::clone(&gateway.monitor);
        Arc::new(move || {
            let open = connections.iter().map(|(port, connections)| (*port, connections.open())).collect();
            monitor.render(&watched.readings(open))
        })
    };
    let limits = gateway.limits;
    let http = Arc::clone(gateway);
    tasks.spawn(ports.http.accept(Arc::clone(workers), limits, drain.clone(), move |accepted, drain| {
        http::serve(Arc::clone(&http), accepted, drain)
    }));
    let services = Arc::new(Services::new(gateway));
    tasks.spawn(ports.grpc.accept(Arc::clone(workers), limits, drain.clone(), move |accepted, drain| {
        Arc::clone(&services).serve(accepted, drain)
    }));
    // Whoever asks for metrics or changes what is live must not hold predictions up.
    let aside = Arc::new(Workers::current());
    if let Some(port) = ports.metrics {
        let gateway = Arc::clone(gateway);
        tasks.spawn(port.accept(Arc::clone(&aside), limits, drain.clone(), move |accepted, drain| {
            http::serve_metrics(Arc::clone(&gateway), Arc::clone(&render), accepted, drain)
        }));
    }
    if let Some(port) = ports.control {
        let (gateway, services) = (Arc::clone(gateway), Arc::new(Services::of_control(gateway)));
        tasks.spawn(port.accept(aside, limits, drain.clone(), move |accepted, drain| {
            control_api::serve(Arc::clone(&gateway), Arc::clone(&services), accepted, drain)
        }));
    }
    let (monitor, mut drained) = (Arc::clone(&gateway.monitor), drain.clone());
    tasks.spawn(async move {
        let mut tick = tokio::time::interval(Monitor::UPKEEP_INTERVAL);
        loop {
            tokio::select! {
                _ = tick.tick() => monitor.upkeep(),
                () = drained.begun() => return,
            }
        }
    });
    tasks
}

/// What tells how the server stands at a moment; metrics are read off it when somebody looks.
#[derive(Clone)]
struct Watched {
    table: Arc<Table>,
    admission: Admission,
    cache: Arc<ResponseCache>,
    tls: Option<Arc<Tls>>,
}

impl Watched {
    fn readings(&self, connections: Vec<(&'static str, usize)>) -> Readings {
        let snapshot = self.table.snapshot();
        snapshot
            .models
            .values()
            .flat_map(|entry| entry.lanes.iter().flatten())
            .for_each(|lane| lane.report_drops());
        let versions = snapshot.models.iter().flat_map(|(model, entry)| {
            entry.versions.iter().map(move |(version, state)| {
                let id = crate::id::ServableId { model: model.clone(), version: *version };
                let ready = matches!(state, VersionState::Ready(servable) if servable.down().is_none());
                (id, ready, entry.share(*version))
            })
        });
        let (ready, shares) = versions.map(|(id, ready, share)| ((id.clone(), ready), (id, share))).unzip();
        let each = |read: fn(&Servable) -> usize| {
            snapshot.ready().map(|servable| (servable.id().clone(), read(servable))).collect()
        };
        Readings {
            queue_depths: each(Servable::queue_depth),
            calls_in_flight: each(Servable::calls_in_flight),
            worker_restarts: snapshot
                .ready()
                .filter_map(|servable| Some((servable.id().clone(), servable.worker()?.restarts)))
                .collect(),
            ready,
            shares,
            in_flight: self.admission.in_flight(),
            bytes_in_flight: self.admission.bytes_in_flight(),
            connections,
            cache: self.cache.usage(),
            certificate_ends: self.tls.as_ref().map(|tls| tls.ends()),
        }
    }
}

/// Lets the control plane's threads end, and tells whether they did and nothing is still on its way out.
async fn control_ended(followers: Option<Followers>) -> bool {
    let Some(followers) = followers else { return false };
    let end = tokio::task::spawn_blocking(move || followers.end());
    tokio::time::timeout(LAST_CALL, end).await.is_ok_and(|ended| ended.unwrap_or(false))
}

/// Lets the session threads end, and tells whether they did.
async fn retire(table: &Table) -> bool {
    let servables: Vec<Arc<Servable>> = table.snapshot().ready().cloned().collect();
    servables.iter().for_each(|servable| servable.close());
    let join = tokio::task::spawn_blocking(move || servables.iter().for_each(|servable| servable.join()));
    let ended = tokio::time::timeout(LAST_CALL, join).await.is_ok();
    if !ended {
        tracing::warn!("a session call did not end in time");
    }
    ended
}

/// Nobody may be reading; that is no reason to stop.
fn say(out: &mut dyn Write, text: &str) {
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn greeting(runtime_version: &str, addresses: Addresses) -> String {
    let line = |port: &str, address: Option<SocketAddr>| {
        address.map_or_else(String::new, |address| format!("{port:<8} {address}\n"))
    };
    format!(
        "weir {}, ONNX Runtime {runtime_version}\nhttp     {}\ngrpc     {}\n{}{}",
        env!("CARGO_PKG_VERSION"),
        addresses.http,
        addresses.grpc,
        line("metrics", addresses.metrics),
        line("control", addresses.control)
    )
}

fn inventory(table: &Table, summary: Summary, took: Duration, addresses: Addresses) -> String {
    let snapshot = table.snapshot();
    let mut text = String::new();
    for (name, entry) in &snapshot.models {
        if entry.versions.is_empty() {
            let reason = entry.reason.as_deref().unwrap_or("no version");
            text.push_str(&format!("model    {name}: UNAVAILABLE: {reason}\n"));
        }
        for (version, state) in &entry.versions {
            let state = match state {
                VersionState::Ready(servable) => match servable.signature().max_batch_size {
                    0 => "READY, not batched".to_owned(),
                    rows => format!("READY, up to {rows} rows"),
                },
                VersionState::Loading => "LOADING".to_owned(),
                VersionState::Unloading => "UNLOADING".to_owned(),
                VersionState::Unavailable { reason } => format!("UNAVAILABLE: {reason}"),
            };
            text.push_str(&format!("model    {name}/{version}: {state}\n"));
        }
    }
    let Summary { ready, unavailable } = summary;
    text.push_str(&format!(
        "ready    {ready} ready, {unavailable} unavailable, in {:.2} s\n",
        took.as_secs_f64()
    ));
    if let Some(line) =
        snapshot.ready().min_by_key(|servable| row_elements(servable)).and_then(|s| try_line(s, addresses))
    {
        text.push_str(&format!("try      {line}\n"));
    }
    text
}

/// Numbers in one row of all inputs, open dimensions counted as one.
fn row_elements(servable: &Servable) -> i64 {
    let size = |dims: &[i64]| dims.iter().map(|&d| if d == ANY { 1 } else { d }).fold(1, i64::saturating_mul);
    servable.signature().inputs.iter().map(|spec| size(&spec.dims)).sum()
}

/// A request that the model takes, as a line to paste.
fn try_line(servable: &Servable, addresses: Addresses) -> Option<String> {
    let signature = servable.signature();
    let input = |spec: &crate::tensor::TensorSpec| {
        let shape: Vec<i64> =
            signature.wire_dims(spec).iter().map(|&d| if d == ANY { 1 } else { d }).collect();
        let elements = shape.iter().try_fold(1i64, |n, &d| n.checked_mul(d)).filter(|n| *n <= 64)?;
        let element = match spec.datatype {
            DataType::Bytes => "\"hello\"",
            DataType::Bool => "true",
            _ => "1",
        };
        let data = vec![element; usize::try_from(elements).ok()?].join(",");
        Some(format!(
            r#"{{"name":"{}","datatype":"{}","shape":{},"data":[{data}]}}"#,
            spec.name,
            spec.datatype,
            crate::tensor::format_dims(&shape)
        ))
    };
    let inputs: Option<Vec<String>> =
        signature.inputs.iter().filter(|spec| !spec.optional).map(input).collect();
    let body = format!(r#"{{"inputs":[{}]}}"#, inputs?.join(","));
    // Whoever tries it on the machine itself need not have the authority at hand.
    let ask = if addresses.secure { "curl -sk https" } else { "curl -s http" };
    Some(format!("{ask}://{}/v2/models/{}/infer -d '{body}'", addresses.http, servable.id().model))
}
