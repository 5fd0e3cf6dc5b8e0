//! What the tests stand on: the real binary, a small HTTP client, the metrics page, model repositories to write to.

pub mod control;
pub mod grpc;
pub mod http;
pub mod http2;
pub mod metrics;
pub mod onnx;
pub mod program;
pub mod python;
pub mod repository;
pub mod tensors;
pub mod versions;
pub mod weir;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long anything may take that must happen. Only a broken server, or a machine that stands still, takes so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A file or folder of this project.
pub fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Asks until there is an answer. Panics with `what` when there is none in [`PATIENCE`].
#[track_caller]
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < until, "not in {} s: {what}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(10));
    }
}
