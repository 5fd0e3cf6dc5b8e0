//! The queue, and what makes batches of requests and answers of batches.

use std::sync::Arc;
use std::time::Instant;

use criterion::{BatchSize, Criterion};
use weir::batch::{Batching, Costs, Queue, ShapeKey, Taken, Waiting, merge, split};
use weir::infer::TensorRow;

use crate::served::Served;
use crate::wire::{SIZES, tensor};

/// Requests in one batch.
const COMPANY: usize = 32;

/// A queued request of one row.
struct Request(ShapeKey);

impl Waiting for Request {
    type Key = ShapeKey;

    fn key(&self) -> &ShapeKey {
        &self.0
    }

    fn rows(&self) -> usize {
        1
    }

    fn bytes(&self) -> usize {
        120
    }

    fn cancelled(&self) -> bool {
        false
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }
}

fn row(numbers: usize) -> TensorRow {
    [Some(tensor(numbers))].into_iter().collect()
}

/// Into the queue and out of it in one batch.
pub fn queue(c: &mut Criterion) {
    let mut group = c.benchmark_group("queue");
    let policy = Served::load().batching;
    let key = ShapeKey::of(&row(30), true);
    for requests in [1, COMPANY] {
        let costs = Arc::new(Costs::new(policy.rows_max));
        let mut queue = Queue::new(Batching { policy: policy.clone(), costs }, 1);
        let now = Instant::now();
        group.bench_function(format!("{requests} x push, take"), |b| {
            b.iter_batched(
                || (0..requests).map(|_| Request(key.clone())).collect::<Vec<_>>(),
                |arrivals| {
                    for request in arrivals {
                        assert!(queue.push(request, 0, None, now).is_ok());
                    }
                    let mut dropped = Vec::new();
                    let taken = queue.take(now, &mut dropped);
                    assert!(matches!(&taken, Taken::Batch(batch) if batch.len() == requests));
                    taken
                },
                BatchSize::SmallInput,
            );
        });
    }
}

/// Joining requests: handles, not bytes.
pub fn merging(c: &mut Criterion) {
    let mut group = c.benchmark_group("merge");
    for (name, numbers) in SIZES {
        let rows: Vec<TensorRow> = (0..COMPANY).map(|_| row(numbers)).collect();
        let rows: Vec<&TensorRow> = rows.iter().collect();
        group.bench_function(format!("{COMPANY} x {name}"), |b| b.iter(|| merge(&rows, None)));
    }
}

/// Cutting the answers of a batch apart.
pub fn splitting(c: &mut Criterion) {
    let served = Served::load();
    let outputs = served.run(&crate::served::batch(COMPANY));
    c.bench_function(&format!("split/{COMPANY} x 30 floats"), |b| {
        b.iter(|| split(&outputs, &[1; COMPANY]).unwrap());
    });
}
