//! How near Weir comes to what the model, the libraries and the protocols allow.
//!
//!     cargo bench --bench ceiling -- [WORKLOAD ...] [rounds=5] [seconds=1] [cores=all|1] [model=DIR [length=32]] [json=FILE]
//!
//! Workloads: small, json, tensor, metrics, batch, heavy, open, objective, idle, isolation, start, memory; all of them unless some are named,
//! and `heavy` only with `model=DIR`, a model's folder as in a repository; `length` is that of its texts.
//!
//! Beside Weir stand, each in a process of its own: the same model in bare session calls, with the best batch, callers
//! and threads that a sweep finds; tonic answering the same messages with what they hold, on one thread and on all;
//! hyper doing so for JSON by way of typed structs, and for bytes. All are asked in turns, in an order that
//! changes, and what is compared are medians of ratios of one round: rates move with the neighbours, ratios less.
//! Processor time is that of the server's process alone. `cores=1` gives the server one core and the generator
//! another.
//!
//! It writes its models itself, starts the release binary on free ports, and needs Linux.

// A panic is how a benchmark says that there is nothing to measure.
#![allow(clippy::unwrap_used)]

mod children;
mod contest;
mod echo;
mod models;
mod options;
mod session;
#[path = "../../tests/it/support/mod.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod support;
mod table;
mod workloads;

/// The clairvoyant optimum, which `objective` holds the server against.
#[path = "../scheduling/optimum.rs"]
mod optimum;
#[path = "../scheduling/simulation.rs"]
#[allow(dead_code, reason = "benches/scheduling uses the rest")]
mod simulation;

use options::Options;
use table::Table;
use weir::backend::onnx::{WORKER_ARGUMENT, run_as_worker};
use workloads::WORKLOADS;

fn main() {
    // Before any thread is started.
    weir::backend::onnx::opt_out_of_telemetry();
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    match arguments.first().map(String::as_str) {
        Some(echo::CHILD) => echo::serve(&arguments[1..]),
        Some(WORKER_ARGUMENT) => run_as_worker(),
        Some(session::CHILD) => session::obey(&arguments[1..]),
        _ => measure(&Options::parse(&arguments)),
    }
}

fn measure(options: &Options) {
    println!("{}", options.described());
    let mut table = Table::default();
    for (name, workload) in WORKLOADS {
        if options.chosen(name) {
            eprintln!("{name} ...");
            workload(options, &mut table);
        }
    }
    print!("{}", table.render());
    if let Some(file) = &options.json {
        std::fs::write(file, table.json()).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
}
