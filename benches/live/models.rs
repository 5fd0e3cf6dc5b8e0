//! The models that are measured, written as files by this benchmark.
//!
//! All take `INPUT0` FP32 [N,16] and give `scores` FP32 [N,10], a classifier's, and `served` FP32 [N,1], a number of
//! the author's choice, by which an answer says whose it is.

use super::support::onnx::Graph;

pub const WIDTH: u64 = 16;
const CLASSES: u64 = 10;

/// Rows to ask with, all different.
pub fn rows(count: usize) -> Vec<Vec<f32>> {
    let mut random = fastrand::Rng::with_seed(1);
    (0..count).map(|_| (0..WIDTH).map(|_| random.f32() - 0.5).collect()).collect()
}

/// A graph with the input and the output `served`.
fn begun(served: u64) -> Graph {
    let rows = |width| [None, Some(width)];
    Graph::default()
        .input("INPUT0", &rows(WIDTH))
        .constant("nothing", &[WIDTH, 1], &[0.0; WIDTH as usize])
        .constant("number", &[1], &[served as f32])
        .node("MatMul", &["INPUT0", "nothing"], "zero")
        .node("Add", &["zero", "number"], "served")
        .output("scores", &rows(CLASSES))
        .output("served", &rows(1))
}

/// Two hidden layers of 64: the session call costs less than the request around it.
pub fn light(served: u64, seed: u64) -> Vec<u8> {
    let graph = begun(served).layers("INPUT0", &[WIDTH, 64, 64, CLASSES], "logits", seed);
    graph.node("Softmax", &["logits"], "scores").file()
}

/// Weights of about that many megabytes, in one matrix as large models have them.
pub fn large(served: u64, seed: u64, megabytes: f64) -> Vec<u8> {
    let width = (megabytes * 1e6 / 4.0).sqrt() as u64;
    let graph = begun(served).layers("INPUT0", &[WIDTH, width, width, CLASSES], "logits", seed);
    graph.node("Softmax", &["logits"], "scores").file()
}

/// As `light`, after `calls` products of square matrices: tens of milliseconds of processor each.
pub fn slow(served: u64, seed: u64, calls: usize) -> Vec<u8> {
    // Every element of the matrix is 1/side; its square is itself, so nothing overflows however long it goes on.
    const SIDE: u64 = 1024;
    let matrix = vec![1.0 / SIDE as f32; (SIDE * SIDE) as usize];
    let mut graph = begun(served)
        .layers("INPUT0", &[WIDTH, 64, 64, CLASSES], "logits", seed)
        .constant("matrix", &[SIDE, SIDE], &matrix)
        // A value that ONNX Runtime cannot know before the call keeps it from working all this out at the load.
        .node("ReduceMean", &["zero"], "none")
        .node("Add", &["matrix", "none"], "product0");
    for call in 0..calls {
        let (from, to) = (format!("product{call}"), format!("product{}", call + 1));
        graph = graph.node("MatMul", &[&from, &from], &to);
    }
    graph
        .node("ReduceMean", &[&format!("product{calls}")], "burnt")
        .node("Mul", &["burnt", "none"], "burnt_nothing")
        .node("Add", &["logits", "burnt_nothing"], "same_logits")
        .node("Softmax", &["same_logits"], "scores")
        .file()
}

/// A model whose every call fails: one number a row does not fill a shape of ten.
pub fn failing(served: u64) -> Vec<u8> {
    begun(served)
        .layers("INPUT0", &[WIDTH, CLASSES], "logits", 1)
        .node("Shape", &["logits"], "ten_a_row")
        .node("Reshape", &["served", "ten_a_row"], "impossible")
        .node("Add", &["logits", "impossible"], "scores")
        .file()
}
