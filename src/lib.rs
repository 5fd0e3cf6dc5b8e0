//! Weir: a model inference gateway.
//!
//! Application services ask it for predictions over gRPC and HTTP; it batches their requests onto ONNX Runtime
//! sessions and tells Prometheus what came of it. ARCHITECTURE.md draws the path of a request.
//!
//! The modules stand in floors. A file imports lower floors and its own folder, nothing else; the test
//! `floors` reads the imports and fails on one that runs upward.

// Floor 0, vocabulary: no I/O, no async, no protocol.
pub mod error;
pub mod event;
pub mod id;
pub mod infer;
pub mod proto;
pub mod reading;
pub mod tensor;

// Floor 1, mechanisms: none knows another, except that batches run on a backend.
pub mod backend;
pub mod batch;
pub mod cache;
pub mod compare;
pub mod route;

// Floor 2, models.
pub mod model;

// Floor 3, the data plane.
pub mod serve;

// Floor 4, beside the data plane.
pub mod control;
pub mod monitor;

// Floor 5, the wire.
pub mod api;

// Floor 6, assembly.
pub mod app;
pub mod bench;
pub mod cli;
pub mod config;
pub mod tune;
