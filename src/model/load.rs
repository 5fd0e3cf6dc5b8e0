//! From a folder to a servable: read, try, check against the config, prove, warm up, start.
//!
//! Always: a version is tried with made-up data in a process of its own before it is opened where it is served; one that
//! ends that process, or takes too much of it, is not served.
//! Always: everything up to the start may run on a thread of low priority; the start may not, because threads
//! inherit the priority of the thread that starts them.

use std::sync::Arc;

use super::config::{Completed, ModelConfig, WarmupSample, complete, may_batch};
use super::padding::padding;
use super::prove::proves_to_batch;
use super::repository::Candidate;
use super::servable::{Parts, Servable};
use super::warmup;
use crate::backend::{Device, Isolation, Loader, Model, Session};
use crate::batch::{Batching, Costs, Padding, Scheduler, Size, Urgency};
use crate::cache::ResponseCache;
use crate::event::{EventSink, ServableProfile};
use crate::id::{ServableId, Version};
use crate::tensor::{ANY, DataType, TensorSpec};

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
    let device = &config.instances.first().ok_or("the config asks for no instance")?.device;
    let model = request.loader.read(&artefact, device, &config.session).map_err(|e| e.presentable().0)?;
    let trial = model.trial();
    let completed = completed(&id, config, &*trial)?;
    let padding = config.padding.as_ref().map(|asked| padding(asked, &completed, &*trial)).transpose();
    let rehearsed = match trial.worker() {
        Some(_) => rehearse(&*trial, config, &completed),
        None => Ok(Rehearsal::Unneeded),
    };
    // Whatever went wrong before, that its process ended says more.
    model.passed().map_err(|e| e.presentable().0)?;
    let (rehearsal, padding) = (rehearsed?, padding?);
    drop(trial);
    let suited = !matches!(rehearsal, Rehearsal::Unanswered);
    let reasons = reasons_for_isolation(&*model, &completed, rehearsal);
    let apart = match config.isolation {
        Isolation::Auto => !reasons.is_empty(),
        Isolation::Process => true,
        Isolation::None => false,
    };
    let session = |device: &Device| {
        let isolated = apart.then(|| model.isolated(device)).flatten();
        isolated.unwrap_or_else(|| model.here(device)).map_err(|e| e.presentable().0)
    };
    let instances = instances(config, session)?;
    let session = instances.first().ok_or("the config asks for no instance")?;
    if session.worker().is_some() && !reasons.is_empty() {
        tracing::info!(model = %id, "it runs in a process of its own: {}", reasons.join(", "));
    }
    let costs = warm_up(&id, config, &completed, &instances, suited)?;
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
        digest: model.digest().to_owned(),
    })
}

/// What came of running a version on trial.
enum Rehearsal {
    /// It is not tried apart.
    Unneeded,
    /// It answered, as large as requests may be, and took so many bytes of memory for inputs of so many bytes.
    Answered { peak_bytes: u64, input_bytes: u64 },
    /// Made-up data does not suit it, so nothing is known.
    Unanswered,
}

/// Memory that a model takes while it is opened and tried beyond which it is not trusted with this process's own, besides
/// four times its files and the inputs that it was tried with: they come and go, and so do results as large.
const PEAK_BYTES: u64 = 64 << 20;

/// Whether a trial took more memory than that.
fn takes_much(peak_bytes: u64, file_bytes: u64, input_bytes: u64) -> bool {
    peak_bytes > PEAK_BYTES.saturating_add(file_bytes.saturating_add(input_bytes).saturating_mul(4))
}

/// Why a version should run in a process of its own: it could harm this one, or take more of its memory than was seen.
fn reasons_for_isolation(model: &dyn Model, completed: &Completed, rehearsal: Rehearsal) -> Vec<String> {
    let mut reasons = match model.hazards() {
        [] => Vec::new(),
        hazards => vec![format!("its graph has {}", hazards.join(", "))],
    };
    // Requests choose these sizes, and what comes of them grows faster than they do.
    let open =
        |spec: &TensorSpec| spec.any_rank || spec.dims.contains(&ANY) || spec.datatype == DataType::Bytes;
    if model.grows() && completed.signature.inputs.iter().any(open) {
        reasons.push("requests choose the sizes of its inputs".to_owned());
    }
    match rehearsal {
        Rehearsal::Unanswered => reasons.push("it does not answer made-up data".to_owned()),
        Rehearsal::Answered { peak_bytes, input_bytes }
            if takes_much(peak_bytes, model.bytes(), input_bytes) =>
        {
            reasons.push(format!("it takes {} MB for made-up data", peak_bytes >> 20));
        }
        Rehearsal::Answered { .. } | Rehearsal::Unneeded => {}
    }
    reasons
}

impl Loaded {
    /// Names its artefact; see [`crate::backend::Model::digest`].
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

/// Runs a version on trial with the data that its warm-up will have, and with made-up data that may not suit it.
fn rehearse(trial: &dyn Session, config: &ModelConfig, completed: &Completed) -> Result<Rehearsal, String> {
    let once = |sample: &WarmupSample| WarmupSample { count: 1, ..sample.clone() };
    let samples: Vec<WarmupSample> = config.warmup.iter().map(once).collect();
    let measured = warmup::run_samples(trial, completed, &samples)?;
    let sampled = measured.iter().map(|(size, _)| size.bytes).max().unwrap_or(0);
    let answered = warmup::run_largest(trial, completed)?;
    let peak_bytes = trial.worker().map_or(0, |worker| worker.peak_bytes);
    Ok(answered.map_or(Rehearsal::Unanswered, |made_up| {
        let input_bytes = sampled.max(made_up);
        Rehearsal::Answered { peak_bytes, input_bytes }
    }))
}

/// Warms every session, with made-up data only where it is known to suit the model, and learns from them what calls cost.
fn warm_up(
    id: &ServableId,
    config: &ModelConfig,
    completed: &Completed,
    instances: &[Arc<dyn Session>],
    made_up_suits: bool,
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
        if config.warmup.is_empty() && made_up_suits {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn much_memory_is_what_neither_files_nor_inputs_explain() {
        const MB: u64 = 1 << 20;
        for (peak, files, inputs, expected) in [
            (60 * MB, 200, 4, false),
            (170 * MB, 216, 4, true),
            (400 * MB, 90 * MB, 4, false),
            (200 * MB, 14 * MB, 20 * MB, false),
            (400 * MB, 14 * MB, 20 * MB, true),
            (u64::MAX, u64::MAX, 0, false),
        ] {
            assert_eq!(takes_much(peak, files, inputs), expected, "{peak} {files} {inputs}");
        }
    }
}
