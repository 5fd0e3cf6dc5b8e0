//! From a folder to a servable: read, check against the config, prove, warm up, start.
//!
//! Always: everything up to the start may run on a thread of low priority; the start may not, because threads
//! inherit the priority of the thread that starts them.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::config::{Completed, ModelConfig, complete, may_batch};
use super::padding::padding;
use super::prove::proves_to_batch;
use super::repository::Candidate;
use super::servable::{Parts, Servable};
use super::warmup;
use crate::backend::{Device, Loader, Session};
use crate::batch::{Batching, Costs, Padding, Scheduler, Size, Urgency};
use crate::cache::ResponseCache;
use crate::event::{EventSink, ServableProfile};
use crate::id::{ServableId, Version};

/// What to load and with what.
pub struct LoadRequest<'a> {
    pub candidate: &'a Candidate,
    pub version: Version,
    pub loader: &'a dyn Loader,
}

/// A version that is read, checked and warmed, and has no threads yet.
pub struct Loaded {
    id: ServableId,
    completed: Completed,
    padding: Option<Arc<Padding>>,
    profile: ServableProfile,
    instances: Vec<Arc<dyn Session>>,
    costs: Arc<Costs>,
    graph_input_count: usize,
    digest: String,
}

/// Where the loading of a model may run: sessions with threads of their own must not pass a low priority on to them.
pub fn urgency(config: &ModelConfig) -> Urgency {
    let on_cpu = config.instances.iter().all(|group| group.device == Device::Cpu);
    let threadless = config.session.intra_op_threads == 1 && !config.session.parallel;
    if on_cpu && threadless { Urgency::Loading } else { Urgency::Answering }
}

/// Reads, checks and warms a version. Blocks for as long as that takes.
///
/// Errors: why it cannot be served, fit for a client's eyes. Nothing of a failed load stays behind.
pub fn load(request: &LoadRequest<'_>) -> Result<Loaded, String> {
    let candidate = request.candidate;
    let config = candidate.config.as_ref().map_err(Clone::clone)?;
    let id = ServableId { model: candidate.name.clone(), version: request.version };
    for hint in &config.hints {
        tracing::warn!(model = %id, "config.pbtxt: {hint} has no effect here");
    }
    let artefact = candidate.artefact(request.version, &config.file_name)?;
    let digest =
        digest(&artefact.file).map_err(|e| format!("the model file cannot be read: {}", e.kind()))?;
    let instances = instances(config, |device| {
        request.loader.load(&artefact, device, &config.session).map_err(|e| e.to_string())
    })?;
    let session = instances.first().ok_or("the config asks for no instance")?;
    let completed = completed(&id, config, &**session)?;
    let padding = config.padding.as_ref().map(|asked| padding(asked, &completed, &**session)).transpose()?;
    let costs = warm_up(&id, config, &completed, &instances)?;
    let in_signature = |graph: &[usize]| {
        graph.iter().filter_map(|g| completed.graph_outputs.iter().position(|o| o == g)).collect()
    };
    let profile = ServableProfile {
        signature: Arc::new(completed.signature.clone()),
        class_scores: in_signature(&session.graph().class_scores),
        class_labels: in_signature(&session.graph().class_labels),
        cached: config.response_cache,
    };
    let graph_input_count = session.graph().inputs.len();
    Ok(Loaded {
        id,
        completed,
        padding: padding.map(Arc::new),
        profile,
        instances,
        costs: Arc::new(costs),
        graph_input_count,
        digest,
    })
}

impl Loaded {
    /// sha256 of the model file, in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What it serves with.
    pub fn completed(&self) -> &Completed {
        &self.completed
    }

    /// What its first instance calls.
    pub fn session(&self) -> &Arc<dyn Session> {
        self.instances.first().expect("a config without instances is refused")
    }

    /// Starts the threads: from here on the version can answer, out of `cache` if its config asks for that.
    /// Errors: the system gives no thread.
    pub fn start(self, listener: &dyn EventSink, cache: &Arc<ResponseCache>) -> Result<Servable, String> {
        let first = Arc::clone(self.session());
        let Self { id, completed, padding, profile, instances, costs, graph_input_count, digest } = self;
        let sink = listener.servable(&id, &profile);
        let name = thread_name(&id);
        let batching = Batching { policy: completed.batching.clone(), costs };
        let scheduler = Scheduler::start(&name, instances, batching, Urgency::Answering, Arc::clone(&sink))
            .inspect_err(|_| listener.retired(&id))
            .map_err(|e| format!("its threads cannot be started: {e}"))?;
        let cache = profile.cached.then(|| cache.partition()).flatten();
        if profile.cached && cache.is_none() {
            tracing::warn!(model = %id, "config.pbtxt: response_cache has no effect: --response-cache-bytes is 0");
        }
        Ok(Servable::new(Parts {
            id,
            profile,
            completed,
            graph_input_count,
            padding,
            digest,
            sink,
            cache,
            scheduler,
            session: first,
        }))
    }
}

/// One entry per instance: the same CPU session as often as it may be called at once, a session each otherwise.
fn instances(
    config: &ModelConfig,
    load: impl Fn(&Device) -> Result<Arc<dyn Session>, String>,
) -> Result<Vec<Arc<dyn Session>>, String> {
    let mut instances: Vec<Arc<dyn Session>> = Vec::new();
    let mut shared: Option<Arc<dyn Session>> = None;
    for group in &config.instances {
        for _ in 0..group.count {
            let session = match &shared {
                Some(session) if group.device == Device::Cpu => Arc::clone(session),
                _ => load(&group.device)?,
            };
            if group.device == Device::Cpu && session.concurrent() {
                shared = Some(Arc::clone(&session));
            }
            instances.push(session);
        }
    }
    Ok(instances)
}

fn completed(id: &ServableId, config: &ModelConfig, session: &dyn Session) -> Result<Completed, String> {
    let graph = session.graph();
    let proved = config.max_batch_size.is_none() && may_batch(graph) && {
        match proves_to_batch(session) {
            Ok(()) => true,
            Err(reason) => {
                tracing::info!(model = %id, "requests are not batched: {reason}");
                false
            }
        }
    };
    let mut completed = complete(config, graph, proved)?;
    completed.shown.name = id.model.to_string();
    Ok(completed)
}

/// Warms every session, and learns from them what calls cost.
fn warm_up(
    id: &ServableId,
    config: &ModelConfig,
    completed: &Completed,
    instances: &[Arc<dyn Session>],
) -> Result<Costs, String> {
    let costs = Costs::new(completed.batching.rows_max);
    let mut warmed: Vec<*const ()> = Vec::new();
    for session in instances {
        let address = Arc::as_ptr(session).cast::<()>();
        if warmed.contains(&address) {
            continue;
        }
        warmed.push(address);
        let mut measured = warmup::run_samples(&**session, completed, &config.warmup)?;
        if config.warmup.is_empty() {
            let made_up = warmup::run_default(&**session, completed);
            if let Some(reason) = made_up.failure {
                tracing::debug!(model = %id, "the default warm-up does not suit this model: {reason}");
            }
            measured = made_up.measured;
        }
        costs.seed(&measured);
    }
    let one = costs.predict(Size { rows: 1, bytes: costs.unit().bytes() });
    tracing::debug!(model = %id, "a call of one row took {one:?}; rows beyond {} are no cheaper", costs.worth());
    if let Some(objective) = completed.batching.objective.filter(|objective| *objective < one) {
        tracing::warn!(
            model = %id,
            "the latency objective of {objective:?} is shorter than a call of one row, which took {one:?}"
        );
    }
    Ok(costs)
}

/// Threads' names are cut at 15 characters by the kernel.
fn thread_name(id: &ServableId) -> String {
    let model: String = id.model.as_str().chars().take(10).collect();
    format!("{model}/{}", id.version)
}

fn digest(file: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(file)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
