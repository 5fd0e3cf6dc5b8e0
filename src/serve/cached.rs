//! Answers out of the response cache, off the event loop where they are large.
//!
//! Always: only what a session answered is kept; a request is charged for looking and keeping, whatever comes of it.

use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use super::pipeline::off_the_loop;
use super::receipt::Receipt;
use crate::cache::{CachePartition, Key};
use crate::error::ServeError;
use crate::infer::{CacheLookup, TensorRow};
use crate::model::Servable;
use crate::tensor::Tensor;

/// What the cache says of a request.
pub enum Known {
    /// The outputs as the session gave them, ascending.
    Answer(Vec<Tensor>),
    /// Nothing; the answer is to be kept under this key.
    Nothing(Key),
}

impl Known {
    /// Under which the answer is to be kept.
    pub fn key(self) -> Option<Key> {
        match self {
            Self::Answer(_) => None,
            Self::Nothing(key) => Some(key),
        }
    }
}

/// Looks for the answer of a servable whose answers are kept; `outputs` are ascending.
///
/// Two equal requests at once may both find nothing: each runs, and the later answer is kept.
pub async fn look_up(
    servable: &Arc<Servable>,
    inputs: &TensorRow,
    outputs: &[usize],
    receipt: &mut Receipt,
) -> Result<Known, ServeError> {
    let started = Instant::now();
    let bytes = inputs.iter().flatten().map(|tensor| tensor.data().len()).sum();
    let (holder, inputs) = (Arc::clone(servable), inputs.clone());
    let outputs: SmallVec<[usize; 4]> = outputs.into();
    let known = off_the_loop(bytes, move || {
        let cache = partition(&holder);
        let key = cache.key(&inputs, &outputs);
        cache.get(&key).map_or(Known::Nothing(key), Known::Answer)
    })
    .await?;
    receipt.looked_up(CacheLookup { hit: matches!(known, Known::Answer(_)), took: started.elapsed() });
    Ok(known)
}

/// Keeps an answer.
pub async fn keep(
    servable: &Arc<Servable>,
    key: Key,
    tensors: &[Tensor],
    receipt: &mut Receipt,
) -> Result<(), ServeError> {
    let started = Instant::now();
    let bytes = tensors.iter().map(|tensor| tensor.data().len()).sum();
    let (holder, tensors): (_, SmallVec<[Tensor; 4]>) = (Arc::clone(servable), tensors.into());
    off_the_loop(bytes, move || partition(&holder).keep(key, &tensors)).await?;
    receipt.kept(started.elapsed());
    Ok(())
}

fn partition(servable: &Servable) -> &CachePartition {
    servable.cache().expect("only servables that have one are asked")
}
