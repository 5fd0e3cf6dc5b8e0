//! What each stage of a request takes, on the real code, one after another.
//!
//!     cargo bench --bench stages [-- --quick] [encode]
//!
//! "30 floats" is a request to `breast_cancer` and its answer; where the size matters a tensor of 4,096 floats and one
//! of 1 MiB stand beside it. "whole" is everything but the sockets: what it has over the parts is the scheduler's.

// A panic is how a benchmark says that there is nothing to measure.
#![allow(clippy::unwrap_used)]

mod queueing;
mod served;
mod wire;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use weir::infer::{Inputs, VersionPin};
use weir::serve::check;

use served::{MODEL, Served, Sticky};
use wire::{SIZES, Wire};

/// Reading a request, by protocol.
fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    for (name, numbers) in SIZES {
        let wire = Wire::of(numbers);
        group.throughput(Throughput::Bytes(4 * numbers as u64));
        group.bench_function(format!("grpc/{name}"), |b| b.iter(|| wire.decode_grpc()));
        group.bench_function(format!("json/{name}"), |b| b.iter(|| wire.decode_json()));
        group.bench_function(format!("binary/{name}"), |b| b.iter(|| wire.decode_binary()));
    }
}

/// Writing an answer, by protocol.
fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    let answers = SIZES.map(|(name, numbers)| (name, wire::answer(numbers)));
    let [_, larger @ ..] = answers;
    let small = Served::load().answer();
    for (name, response) in [("30 floats", small)].into_iter().chain(larger) {
        let bytes: usize = response.outputs.iter().map(|output| output.tensor.data().len()).sum();
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(format!("grpc/{name}"), |b| b.iter(|| wire::encode_grpc(&response)));
        group.bench_function(format!("json/{name}"), |b| b.iter(|| wire::encode_json(&response)));
        group.bench_function(format!("binary/{name}"), |b| b.iter(|| wire::encode_binary(&response)));
    }
}

/// The snapshot, and who answers.
fn route(c: &mut Criterion) {
    let mut group = c.benchmark_group("route");
    for (name, served) in [("latest", Served::load()), ("two arms, sticky", Served::with_arms())] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let snapshot = served.table.snapshot();
                let entry = snapshot.model(MODEL).unwrap();
                entry.decide(MODEL, &VersionPin::Routed, &Sticky).unwrap().1
            });
        });
    }
}

/// Holding a request against the signature.
fn checking(c: &mut Criterion) {
    let served = Served::load();
    let signature = served.servable.signature();
    c.bench_function("check/30 floats", |b| {
        b.iter_batched(
            || Inputs::Named(vec![served::features()]),
            |inputs| check(signature, MODEL, inputs, &[]).unwrap(),
            BatchSize::SmallInput,
        );
    });
}

/// Looking up an answer that is kept.
fn cache(c: &mut Criterion) {
    let mut group = c.benchmark_group("cache hit");
    let partition = served::partition();
    for (name, numbers) in SIZES {
        let inputs = [Some(wire::tensor(numbers))];
        partition.keep(partition.key(&inputs, &[0]), &[wire::tensor(2)]);
        group.throughput(Throughput::Bytes(4 * numbers as u64));
        group.bench_function(name, |b| b.iter(|| partition.get(&partition.key(&inputs, &[0])).unwrap()));
    }
}

/// The session call itself: what all the rest is measured by.
fn session(c: &mut Criterion) {
    let mut group = c.benchmark_group("session");
    let served = Served::load();
    for rows in [1, 32] {
        let batch = served::batch(rows);
        group.bench_function(format!("{rows} x 30 floats"), |b| b.iter(|| served.run(&batch)));
    }
}

/// Opening and closing the account of a request, with all that listens to it.
fn receipt(c: &mut Criterion) {
    let served = Served::load();
    let answer = served.answer();
    c.bench_function("metrics/30 floats", |b| b.iter(|| served.account(&answer)));
}

/// From the message to the bytes of its answer.
fn whole(c: &mut Criterion) {
    let served = Served::load();
    let pipeline = served.pipeline();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let message = wire::message(&served::features());
    c.bench_function("whole/grpc, 30 floats", |b| {
        b.iter(|| runtime.block_on(served::predict(&pipeline, message.clone())));
    });
}

criterion_group!(
    stages,
    decode,
    route,
    checking,
    cache,
    queueing::queue,
    queueing::merging,
    session,
    queueing::splitting,
    encode,
    receipt,
    whole
);
criterion_main!(stages);
