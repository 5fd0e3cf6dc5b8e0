//! The models that are measured, written as files by this benchmark. Each is called `m`.

use std::path::PathBuf;

use super::support::onnx::Graph;
use super::support::repository::Repository;

/// Input and width of the model of [`small`].
pub const SMALL: (&str, i64) = ("x", 30);

/// Input and width of the model of [`wide`].
pub const WIDE: (&str, i64) = ("x", 1024);

/// Input and width of [`single_instance_model`].
pub const WIDER: (&str, i64) = ("x", 2048);

/// Rows that a session call may have.
const BATCHED: &str = "max_batch_size: 128\ndynamic_batching {}\n";

/// A repository with one model, and its file.
pub struct Model {
    pub repository: Repository,
    pub file: PathBuf,
}

fn model(file: Vec<u8>, config: &str) -> Model {
    let repository = Repository::new();
    repository.write("m/1/model.onnx", file).write("m/config.pbtxt", config);
    let file = repository.path("m/1/model.onnx");
    Model { repository, file }
}

fn rows(width: i64) -> [Option<u64>; 2] {
    [None, Some(width as u64)]
}

/// A classifier of 30 floats: its session call costs less than the request around it.
pub fn small() -> Vec<u8> {
    Graph::default()
        .input(SMALL.0, &rows(SMALL.1))
        .layers(SMALL.0, &[SMALL.1 as u64, 64, 32, 2], "logits", 1)
        .node("Softmax", &["logits"], "scores")
        .output("scores", &rows(2))
        .file()
}

pub fn small_model() -> Model {
    model(small(), BATCHED)
}

/// Four layers of 1,024: 16 MB of weights, which a call reads once however many rows it has.
pub fn wide_model() -> Model {
    model(layers(WIDE), BATCHED)
}

/// Four layers of 2,048, run by one session call at a time on one core.
pub fn single_instance_model() -> Model {
    const ONE: &str = "instance_group { count: 1 kind: KIND_CPU }\n\
        parameters { key: \"intra_op_thread_count\" value { string_value: \"1\" } }\n";
    model(layers(WIDER), &format!("{BATCHED}{ONE}"))
}

fn layers((input, width): (&str, i64)) -> Vec<u8> {
    let size = width as u64;
    Graph::default()
        .input(input, &rows(width))
        .layers(input, &[size, size, size, size, size], "y", 1)
        .output("y", &rows(width))
        .file()
}

/// Gives back its input, a row of so many floats.
pub fn identity_model(width: i64) -> Model {
    let graph =
        Graph::default().input("x", &rows(width)).node("Identity", &["x"], "y").output("y", &rows(width));
    model(graph.file(), BATCHED)
}
