//! Answers that are kept for requests that come again.
//!
//! Always: an answer is found only by the load of a version that gave it, for the same inputs and outputs, so a new
//! version, another arm or changed files begin with nothing; what is kept stays within the bound in bytes, and what a
//! load leaves behind goes with it.
//! Not here: whether a request may be answered so (`serve`), what is counted (`monitor`).

mod key;

pub use key::Key;

use std::collections::hash_map::RandomState;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

use crate::tensor::Tensor;

/// Parts of the cache with a lock each. Each has its share of the bound.
const SHARDS: usize = 8;

/// An entry takes up to half a shard, so that one answer never clears it.
const ENTRY_PART: u64 = 2;

/// What an entry takes beside its tensors: key, place in the table, allocations.
const ENTRY_OVERHEAD: u64 = 256;

/// For sizing what is remembered of keys that were dropped, which decides what is kept when they come again.
const ENTRY_USUAL: u64 = 4096;

type Store = quick_cache::sync::Cache<Key, Arc<Kept>, ByBytes, RandomState, Evictions>;

/// The answers of all models that ask for it, within one bound.
pub struct ResponseCache {
    bytes_max: u64,
    /// Made when the first version asks for it.
    store: OnceLock<Store>,
    loads: AtomicU64,
    evicted: Arc<AtomicU64>,
}

/// How full the cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheUse {
    pub bytes: u64,
    pub entries: usize,
    /// Answers that made room for others, since the start.
    pub evicted: u64,
}

impl ResponseCache {
    /// `bytes_max` bounds keys, answers and what they take beside; 0 keeps nothing.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max: bytes_max as u64,
            store: OnceLock::new(),
            loads: AtomicU64::new(0),
            evicted: Arc::default(),
        }
    }

    /// What one load of a version keeps; `None` where nothing is kept.
    pub fn partition(self: &Arc<Self>) -> Option<CachePartition> {
        if self.bytes_max == 0 {
            return None;
        }
        self.store.get_or_init(|| self.make());
        Some(CachePartition { load: self.loads.fetch_add(1, Ordering::Relaxed), cache: Arc::clone(self) })
    }

    fn make(&self) -> Store {
        let options = OptionsBuilder::new()
            .shards(SHARDS)
            .weight_capacity(self.bytes_max)
            .estimated_items_capacity(usize::try_from(self.bytes_max / ENTRY_USUAL).unwrap_or(usize::MAX))
            .build()
            .expect("both capacities are set");
        Store::with_options(options, ByBytes, RandomState::new(), Evictions(Arc::clone(&self.evicted)))
    }

    /// `None` as long as no version asked for it.
    pub fn usage(&self) -> Option<CacheUse> {
        let store = self.store.get()?;
        let evicted = self.evicted.load(Ordering::Relaxed);
        Some(CacheUse { bytes: store.weight(), entries: store.len(), evicted })
    }

    fn store(&self) -> &Store {
        self.store.get().expect("it is made with the first partition")
    }
}

/// The answers of one load of a version. They go when it goes.
pub struct CachePartition {
    load: u64,
    cache: Arc<ResponseCache>,
}

impl CachePartition {
    /// The key of checked inputs, in the order of the signature, and of the outputs asked for, ascending.
    /// Cost: one pass over the inputs' bytes.
    pub fn key(&self, inputs: &[Option<Tensor>], outputs: &[usize]) -> Key {
        Key::new(self.load, inputs, outputs)
    }

    /// The outputs that were kept, as [`Self::keep`] got them. Cost: no copy; the bytes are shared.
    pub fn get(&self, key: &Key) -> Option<Vec<Tensor>> {
        self.cache.store().get(key).map(|kept| kept.tensors.to_vec())
    }

    /// Keeps an answer, unless it is too large. Cost: a copy, since the tensors may be slices of a whole batch's.
    pub fn keep(&self, key: Key, tensors: &[Tensor]) {
        let store = self.cache.store();
        let bytes = ENTRY_OVERHEAD + tensors.iter().map(tensor_bytes).sum::<u64>();
        if bytes <= store.shard_capacity() / ENTRY_PART {
            let tensors = tensors.iter().map(Tensor::detached).collect();
            store.insert(key, Arc::new(Kept { tensors, bytes }));
        }
    }
}

impl Drop for CachePartition {
    fn drop(&mut self) {
        self.cache.store().retain(|key, _| key.load != self.load);
    }
}

struct Kept {
    tensors: Box<[Tensor]>,
    bytes: u64,
}

fn tensor_bytes(tensor: &Tensor) -> u64 {
    (size_of::<Tensor>() + size_of_val(tensor.shape().dims()) + tensor.data().len()) as u64
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Key, Arc<Kept>> for ByBytes {
    fn weight(&self, _: &Key, kept: &Arc<Kept>) -> u64 {
        kept.bytes
    }
}

/// Counts answers that make room.
#[derive(Clone)]
struct Evictions(Arc<AtomicU64>);

impl Lifecycle<Key, Arc<Kept>> for Evictions {
    /// What was evicted, to be dropped when no lock is held any more.
    type RequestState = Vec<Arc<Kept>>;

    fn on_evict(&self, gone: &mut Self::RequestState, _: Key, kept: Arc<Kept>) {
        self.0.fetch_add(1, Ordering::Relaxed);
        gone.push(kept);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::tensor::{DataType, Shape};

    const MIB: usize = 1 << 20;

    fn bytes(data: Bytes) -> Tensor {
        let shape = Shape::from_dims([data.len() as i64]).unwrap();
        Tensor::new(DataType::Uint8, shape, data).unwrap()
    }

    fn answer(size: usize, value: u8) -> Vec<Tensor> {
        vec![bytes(Bytes::from(vec![value; size]))]
    }

    fn cache(bytes_max: usize) -> (Arc<ResponseCache>, CachePartition) {
        let cache = Arc::new(ResponseCache::new(bytes_max));
        let partition = cache.partition().unwrap();
        (cache, partition)
    }

    /// The key of a request that is told from others by one number.
    fn key(partition: &CachePartition, number: usize) -> Key {
        partition.key(&[Some(bytes(Bytes::copy_from_slice(&number.to_le_bytes())))], &[0])
    }

    #[test]
    fn what_was_kept_is_found_again_and_nothing_else() {
        let (_cache, partition) = cache(MIB);
        assert_eq!(partition.get(&key(&partition, 1)), None);
        partition.keep(key(&partition, 1), &answer(100, 1));
        partition.keep(key(&partition, 2), &answer(0, 2));
        assert_eq!(partition.get(&key(&partition, 1)), Some(answer(100, 1)));
        assert_eq!(partition.get(&key(&partition, 2)), Some(answer(0, 2)));
        assert_eq!(partition.get(&key(&partition, 3)), None);
    }

    #[test]
    fn loads_share_the_bound_and_no_answers_and_leave_none_behind() {
        let (cache, first) = cache(MIB);
        let second = cache.partition().unwrap();
        first.keep(key(&first, 1), &answer(100, 1));
        assert_eq!(second.get(&key(&second, 1)), None);
        second.keep(key(&second, 1), &answer(100, 2));
        assert_eq!(cache.usage().map(|used| used.entries), Some(2));
        drop(first);
        assert_eq!(cache.usage().map(|used| used.entries), Some(1));
        assert_eq!(second.get(&key(&second, 1)), Some(answer(100, 2)));
        drop(second);
        assert_eq!(cache.usage(), Some(CacheUse { bytes: 0, entries: 0, evicted: 0 }));
    }

    #[test]
    fn the_bound_holds_whatever_comes() {
        let (cache, partition) = cache(MIB);
        for number in 0..2000 {
            partition.keep(key(&partition, number), &answer(number * 37 % 5000, 0));
            assert!(cache.usage().unwrap().bytes <= MIB as u64);
        }
        let used = cache.usage().unwrap();
        assert!(used.evicted > 0 && used.bytes > MIB as u64 / 2, "{used:?}");
        assert_eq!(used.entries as u64 + used.evicted, 2000);
    }

    #[test]
    fn an_answer_that_would_take_half_a_shard_is_not_kept() {
        let (cache, partition) = cache(MIB);
        let shard = MIB / SHARDS;
        partition.keep(key(&partition, 1), &answer(shard / 2, 1));
        assert_eq!(cache.usage(), Some(CacheUse { bytes: 0, entries: 0, evicted: 0 }));
        partition.keep(key(&partition, 1), &answer(shard / 2 - 1000, 1));
        assert_eq!(cache.usage().map(|used| used.entries), Some(1));
    }

    #[test]
    fn what_is_kept_holds_no_larger_buffer() {
        let (_cache, partition) = cache(MIB);
        let batch = Bytes::from(vec![7; 10 * MIB]);
        partition.keep(key(&partition, 1), &[bytes(batch.slice(5..15))]);
        assert!(batch.is_unique());
    }

    #[test]
    fn without_a_bound_nothing_is_kept_and_without_a_user_nothing_is_made() {
        assert!(Arc::new(ResponseCache::new(0)).partition().is_none());
        assert_eq!(Arc::new(ResponseCache::new(MIB)).usage(), None);
    }
}
