//! A prediction, top to bottom.

use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;
use tokio::time::timeout_at;

use super::admission::{Admission, Held};
use super::cached::{Known, keep, look_up};
use super::check::{Checked, check};
use super::classification::classify;
use super::receipt::Receipt;
use super::shadow::{ShadowLane, Ticket};
use super::snapshot::{ModelEntry, Snapshot, Table};
use crate::batch::{Answer, SubmitError};
use crate::cache::Key;
use crate::error::{ErrorKind, ServeError};
use crate::event::{EventSink, Protocol};
use crate::infer::{
    Enrolled, InferRequest, InferResponse, Limits, OutputTensor, RequestKeys, RouteReason, Routing, Timings,
};
use crate::model::{Servable, Submitted};
use crate::tensor::{Tensor, TensorSpec};

/// Answers requests out of the current snapshot.
#[derive(Clone)]
pub struct Pipeline {
    table: Arc<Table>,
    admission: Admission,
    sink: Arc<dyn EventSink>,
}

impl Pipeline {
    pub fn new(table: Arc<Table>, admission: Admission, sink: Arc<dyn EventSink>) -> Self {
        Self { table, admission, sink }
    }

    /// The table as of now, for questions about models.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.table.snapshot()
    }

    /// Opens the account of a request that has arrived. Every way in does this first.
    pub fn receive(&self, protocol: Protocol) -> Receipt {
        Receipt::open(Arc::clone(&self.sink), protocol)
    }

    /// Takes a place for the request, which its receipt holds. Every way in does this second, before it reads
    /// what the client sent.
    pub fn admit(&self, receipt: &mut Receipt) -> Result<(), ServeError> {
        receipt.admitted(self.admission.admit()?);
        Ok(())
    }

    /// An account of bytes of something that is no request for a prediction, or none yet.
    pub fn hold(&self) -> Held {
        self.admission.hold()
    }

    /// Answers a request. The caller closes the receipt when the answer is written.
    ///
    /// Errors: every [`ErrorKind`] but those of the wire. Dropping the future cancels the request: if it still
    /// waits, it never reaches a session.
    pub async fn infer(
        &self,
        request: InferRequest,
        keys: &dyn RequestKeys,
        receipt: &mut Receipt,
    ) -> Result<InferResponse, ServeError> {
        let Routed { servable, routing, mut shadows } = self.route(&request, keys)?;
        shadows.retain(|lane| lane.has_room(&servable));
        let reason = routing.reason;
        receipt.routed(&servable, routing);
        // The shadows' own form of the inputs is worked out later, on their own time.
        let copied = (!shadows.is_empty()).then(|| request.inputs.clone());
        let Checked { inputs, rows, outputs } =
            check(servable.signature(), servable.id().model.as_str(), request.inputs, &request.outputs)?;
        receipt.counted(rows);
        let mut ascending: SmallVec<[usize; 4]> = outputs.iter().map(|(index, _)| *index).collect();
        ascending.sort_unstable();
        let known = match servable.cache() {
            None => None,
            Some(_) => Some(look_up(&servable, &inputs, &ascending, receipt).await?),
        };
        let source = match known {
            Some(Known::Answer(tensors)) => Source::Cache(tensors),
            unknown => {
                receipt.queued();
                let submitted = servable.submit(inputs, &ascending, rows, request.limits);
                let submitted = submitted.map_err(|refusal| refused(&servable, refusal))?;
                Source::Session(submitted, unknown.and_then(Known::key))
            }
        };
        let by_session = matches!(source, Source::Session(..));
        let tickets: SmallVec<[Ticket; 2]> = match copied {
            None => SmallVec::new(),
            Some(inputs) => shadows
                .iter()
                .filter_map(|lane| lane.offer(&servable, inputs.clone(), &request.outputs))
                .collect(),
        };
        let (tensors, timings) = match source {
            Source::Cache(tensors) => (tensors, Timings::default()),
            Source::Session(submitted, key) => {
                if submitted.on_the_spot {
                    let duty = Duty(Some(&servable));
                    // Requests that came at the same moment join the batch first.
                    tokio::task::yield_now().await;
                    duty.done();
                    servable.run_on_the_spot(&submitted);
                }
                let answer = answer_in_time(submitted, request.limits).await?;
                if let Some(key) = key {
                    keep(&servable, key, &answer.0, receipt).await?;
                }
                answer
            }
        };
        receipt.predicted(ascending.iter().copied().zip(tensors.iter().cloned()), timings);
        for ticket in tickets {
            ticket.tell(ascending.iter().copied().zip(tensors.iter().cloned()), by_session);
        }
        // Only classification looks at the numbers.
        let looked_at = outputs.iter().any(|(_, classes)| *classes > 0);
        let bytes = tensors.iter().map(|tensor| tensor.data().len()).filter(|_| looked_at).sum();
        off_the_loop(bytes, move || respond(&servable, reason, &outputs, &ascending, &tensors)).await?
    }

    /// Looks at the snapshot, once: everything that the request needs of it is taken along.
    fn route(&self, request: &InferRequest, keys: &dyn RequestKeys) -> Result<Routed, ServeError> {
        let snapshot = self.table.snapshot();
        let entry = snapshot.model(&request.model)?;
        let (servable, choice) = entry.decide(&request.model, &request.pin, keys)?;
        let lane = |&position: &usize| entry.lanes.get(position).and_then(Clone::clone);
        Ok(Routed {
            servable: Arc::clone(servable),
            shadows: choice.shadows.iter().filter_map(lane).collect(),
            routing: Routing {
                reason: choice.reason,
                revision: entry.revision,
                unit: choice.unit,
                experiment: enrolled(entry, choice.reason, keys),
            },
        })
    }
}

/// Where a request's answer comes from.
enum Source {
    Cache(Vec<Tensor>),
    /// The answer is kept under the key, if there is one.
    Session(Submitted, Option<Key>),
}

/// To run what waits, for which no instance was called. Who goes away before leaves it to the instances.
struct Duty<'a>(Option<&'a Servable>);

impl Duty<'_> {
    fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for Duty<'_> {
    fn drop(&mut self) {
        if let Some(servable) = self.0 {
            servable.leave_to_instances();
        }
    }
}

/// What a request takes along from the snapshot.
struct Routed {
    servable: Arc<Servable>,
    shadows: SmallVec<[Arc<ShadowLane>; 2]>,
    routing: Routing,
}

/// Outcomes can be told of requests that have a name, and compared where chance chose the arm.
fn enrolled(entry: &ModelEntry, reason: RouteReason, keys: &dyn RequestKeys) -> Option<Enrolled> {
    let experiment = entry.experiment.as_ref().filter(|_| reason.by_weight())?;
    let request_id = keys.request_id()?;
    Some(Enrolled { experiment: Arc::clone(experiment), request_id: request_id.into() })
}

/// Work on fewer bytes than this is done before anybody notices.
const QUICK_BYTES_MAX: usize = 256 * 1024;

/// Does work whose time grows with `bytes` where it does not hold up other connections.
///
/// Errors: the work panicked. Cost: for much work, a trip to another thread.
pub async fn off_the_loop<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ServeError> {
    if bytes <= QUICK_BYTES_MAX {
        return Ok(work());
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| ServeError::internal("the request was given up because of a fault in the server"))
}

fn refused(servable: &Servable, refusal: SubmitError) -> ServeError {
    let model = &servable.id().model;
    match refusal {
        SubmitError::Full { size_max } => ServeError::new(
            ErrorKind::Overloaded,
            format!("Exceeds maximum queue size ({size_max}) of model '{model}'; try again later"),
        ),
        SubmitError::Late { objective } => ServeError::new(
            ErrorKind::Overloaded,
            format!(
                "the answer would come later than the latency objective of model '{model}' ({objective:?}) or the \
                 request's own limit allows; try again later"
            ),
        ),
        SubmitError::Closed => ServeError::new(
            ErrorKind::Unavailable,
            format!("Request for unknown model: '{model}' is not at ready state"),
        ),
    }
}

/// Waits for the answer no longer than the request may wait.
///
/// A deadline ends the wait wherever the request is; the queue's timeout only while it still waits for a session.
async fn answer_in_time(submitted: Submitted, limits: Limits) -> Answer {
    let expired = || Err(ServeError::new(ErrorKind::DeadlineExceeded, "Request timeout expired"));
    let mut submitted = submitted;
    if let Some(rejected_at) =
        submitted.rejected_at.filter(|at| limits.deadline.is_none_or(|deadline| *at < deadline))
    {
        match timeout_at(rejected_at.into(), &mut submitted.answer).await {
            Ok(answer) => return answer.unwrap_or_else(|_| Err(lost())),
            Err(_) if !submitted.picked() => return expired(),
            Err(_) => {}
        }
    }
    let answer = match limits.deadline {
        None => submitted.answer.await,
        Some(deadline) if deadline <= Instant::now() => return expired(),
        Some(deadline) => match timeout_at(deadline.into(), submitted.answer).await {
            Ok(answer) => answer,
            Err(_) => return expired(),
        },
    };
    answer.unwrap_or_else(|_| Err(lost()))
}

/// The scheduler answers every job that it took; this is the sentence for the day it does not.
fn lost() -> ServeError {
    ServeError::internal("the request was lost inside the server")
}

/// Puts the session's tensors, which stand in the order of `ascending`, into the client's order and form.
fn respond(
    servable: &Servable,
    reason: RouteReason,
    outputs: &[(usize, usize)],
    ascending: &[usize],
    tensors: &[Tensor],
) -> Result<InferResponse, ServeError> {
    let signature = servable.signature();
    let answer = |&(index, classes): &(usize, usize)| {
        let spec = &signature.outputs[index];
        let position = ascending.binary_search(&index).expect("both lists name the same outputs");
        let tensor = tensors
            .get(position)
            .ok_or_else(|| ServeError::internal(format!("the model gave no output '{}'", spec.name)))?;
        let tensor = client_form(spec, tensor, signature.batched())?;
        let tensor = match classes {
            0 => tensor,
            classes => classify(&tensor, classes, &spec.labels, signature.batched())?,
        };
        Ok(OutputTensor { name: Arc::clone(&spec.name), tensor })
    };
    let outputs = outputs.iter().map(answer).collect::<Result<Vec<_>, ServeError>>()?;
    Ok(InferResponse { servable: servable.id().clone(), reason, outputs })
}

/// An output in the shape that clients expect: the model's own, unless the config reshapes it.
fn client_form(spec: &TensorSpec, tensor: &Tensor, batched: bool) -> Result<Tensor, ServeError> {
    if spec.reshape.is_none() {
        return Ok(tensor.clone());
    }
    let dims = tensor.shape().dims();
    let (batch, own) = match batched {
        true => dims.split_first().map_or((None, dims), |(first, rest)| (Some(*first), rest)),
        false => (None, dims),
    };
    let shape =
        spec.client_dims(own).map(|own| batch.map_or_else(|| own.clone(), |batch| own.prepend(batch)));
    shape.and_then(|shape| tensor.with_shape(shape)).ok_or_else(|| {
        ServeError::internal(format!(
            "output '{}' came with shape {}, which its reshape cannot take",
            spec.name,
            tensor.shape()
        ))
    })
}
