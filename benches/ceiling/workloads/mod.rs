//! What is measured, each in a file of its own.

mod batch;
mod heavy;
mod idle;
mod isolation;
mod json;
mod memory;
mod metrics;
mod objective;
mod open;
mod small;
mod start;
mod tensor;

use super::children::on_server_core;
use super::options::Options;
use super::support::weir::Weir;
use super::table::Table;

type Workload = fn(&Options, &mut Table);

pub const WORKLOADS: [(&str, Workload); 12] = [
    ("small", small::measure),
    ("json", json::measure),
    ("tensor", tensor::measure),
    ("metrics", metrics::measure),
    ("batch", batch::measure),
    ("heavy", heavy::measure),
    ("open", open::measure),
    ("objective", objective::measure),
    ("idle", idle::measure),
    ("isolation", isolation::measure),
    ("start", start::measure),
    ("memory", memory::measure),
];

/// Weir with the models of a folder, all of them loaded.
fn weir(options: &Options, models: impl AsRef<std::path::Path>) -> Weir {
    on_server_core(options, || Weir::start(models, &["--log", "error"]))
}
