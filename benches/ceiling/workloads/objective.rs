//! A latency objective: the highest rate with 99 % on time, by what a clairvoyant scheduler of one instance would
//! reach with the same session calls and no front end; and what becomes of requests beyond it.
//!
//! Never pinned: calls use one core, so the front end, which the optimum does not have, shares another one with the
//! generator. On one core it would take turns with the calls, and each would find its caches full of the other's.

use std::time::Duration;

use weir::bench::{Load, ON_TIME, Process, Protocol, Row, Schedule};

use crate::children::unpinned;
use crate::contest::{Server, floats};
use crate::models::{self, WIDER};
use crate::optimum::{can_serve, highest};
use crate::options::Options;
use crate::session::Bare;
use crate::simulation::Calls;
use crate::support::weir::Weir;
use crate::table::{Table, Target};

/// The objective, in session calls of one row.
const OBJECTIVE_CALLS: f64 = 10.0;

/// Requests of the traces that the optimum is found for.
const REQUESTS: usize = 10_000;

/// Rates are told apart to this part of what the session can do.
const RESOLUTION: f64 = 0.01;

pub fn measure(options: &Options, table: &mut Table) {
    let options = &unpinned(options);
    let model = models::single_instance_model();
    let mut bare = Bare::start(options, &model.file);
    let sizes = (0..8).map(|doubling| bare.call_ms(1 << doubling, options.time / 4));
    let calls = Calls::between(&sizes.collect::<Vec<f64>>());
    let objective_ms = (OBJECTIVE_CALLS * calls.time(1)).ceil();
    let objective = Duration::from_secs_f64(objective_ms / 1e3);
    let told = objective_ms.to_string();
    let arguments = ["--log", "error", "--latency-objective-ms", &told];
    let weir = Weir::start(&model.repository, &arguments);
    let server = Server::weir(&weir, Protocol::Grpc, &floats(WIDER.0, WIDER.1));
    table.note(format!(
        "objective: {objective_ms} ms; calls of 1, 8 and 64 rows take {:.2}, {:.2} and {:.2} ms",
        calls.time(1),
        calls.time(8),
        calls.time(64)
    ));
    for (process, least) in [(Process::Poisson, 0.90), (Process::Bursty, 0.80)] {
        let offer = |rate: f64| {
            server.any_load(options, Load::Open { rate, process }, 2 * options.time, Some(objective))
        };
        let max = calls.capacity() * 1e3;
        let step = RESOLUTION * max;
        let optimum = highest(max, step, |rate| {
            let moments = Schedule::new(process, rate, 1).take(REQUESTS);
            let trace: Vec<f64> = moments.map(|nanos| nanos as f64 / 1e6).collect();
            can_serve(&trace, &calls, objective_ms, (REQUESTS as f64 * (1.0 - ON_TIME)) as usize)
        });
        let (mut shares, mut rate) = (Vec::new(), 0.0);
        for _ in 0..options.rounds {
            rate = highest(max, step, |rate| offer(rate).on_time.is_some_and(|share| share >= ON_TIME));
            shares.push(rate / optimum);
        }
        let name = process.name();
        table.add("objective", format!("{name}: rate by the optimum's"), shares, Target::AtLeast(least));
        for times in [1.5, 3.0] {
            let what = format!("{name}, {times} times that rate: ");
            let rows: Vec<(Row, Row)> =
                (0..options.rounds).map(|_| (offer(rate), offer(times * rate))).collect();
            overload(table, &what, &rows);
        }
    }
}

/// What was kept of the highest rate, each round beside a stretch at that rate.
fn overload(table: &mut Table, what: &str, rows: &[(Row, Row)]) {
    // A bursty stretch has more requests than its rate says, or fewer.
    let on_time = |row: &Row| row.on_time.unwrap_or(0.0) * (row.answered + row.errors) as f64;
    let good = |row: &Row| on_time(row) / row.seconds;
    let goodput = rows.iter().map(|(at, beyond)| good(beyond) / good(at));
    let name = |figure: &str| format!("{what}{figure}");
    table.add("objective", name("goodput kept"), goodput.collect(), Target::AtLeast(0.9));
    let late =
        rows.iter().map(|(_, beyond)| (1.0 - on_time(beyond) / beyond.answered as f64).max(0.0) * 100.0);
    table.add("objective", name("admitted and late, %"), late.collect(), Target::AtMost(1.0));
    let refused =
        rows.iter().filter_map(|(_, beyond)| Some(beyond.refusal_us?.p99 / 1e3)).collect::<Vec<_>>();
    if !refused.is_empty() {
        table.add("objective", name("p99 of refusals, ms"), refused, Target::AtMost(1.0));
    }
}
