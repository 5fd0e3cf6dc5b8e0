//! A model that reads 16 MB of weights a call: rows that run together cost a fraction of rows alone.

use weir::bench::Protocol;

use crate::contest::{Contest, Measured, Server, Turn, floats};
use crate::echo::Echo;
use crate::models::{self, WIDE};
use crate::options::Options;
use crate::session::Bare;
use crate::support::weir::Weir;
use crate::table::{Table, Target};

const CONNECTIONS: [usize; 2] = [32, 128];

/// Of what the front end and the session allow.
const OF_THE_BOUND: f64 = 0.9;

pub fn measure(options: &Options, table: &mut Table) {
    let model = models::wide_model();
    let request = floats(WIDE.0, WIDE.1);
    let weir = super::weir(options, &model.repository);
    let mut bare = Bare::start(options, &model.file);
    table.note(format!("batch: the session at its best has {}", bare.described()));
    let (tonic, bytes) = (Echo::tonic(options, true), Echo::bytes(options));
    let echo = |echo: &Echo, protocol| Server::new(echo.id(), echo.address, protocol, &request);
    let echoes = [echo(&tonic, Protocol::Grpc), echo(&bytes, Protocol::Binary)];
    let servers = [Protocol::Grpc, Protocol::Binary].map(|p| Server::weir(&weir, p, &request));
    for connections in CONNECTIONS {
        for (name, server, echo) in [("grpc", &servers[0], &echoes[0]), ("binary", &servers[1], &echoes[1])] {
            let before = Calls::of(&weir);
            let turns: Vec<Turn<'_>> = vec![
                ("session", Box::new(|| bare.measure(options.time))),
                ("echo", Box::new(|| echo.closed(options, connections))),
                ("weir", Box::new(|| server.closed(options, connections))),
            ];
            let contest = Contest::hold(options.rounds, turns);
            let rows = Calls::of(&weir).since(before);
            let formed = rows as f64 / (bare.call_ms(rows, options.time) / 1e3);
            let rate = |measured: &Measured| measured.rate;
            // On one core they take turns. What several share with the generator has no such bound.
            let bound = |front_end: f64| 1.0 / (1.0 / front_end + 1.0 / formed);
            let target = if options.pinned { Target::AtLeast(OF_THE_BOUND) } else { Target::None };
            let rates = contest.values("weir", rate).into_iter().zip(contest.values("echo", rate));
            let of_bound = rates.map(|(rate, front_end)| rate / bound(front_end)).collect();
            let mut add = |what: &str, values, target| {
                table.add("batch", format!("{connections} x {name}: {what}"), values, target);
            };
            add("rate by what echo and session calls of that size allow", of_bound, target);
            add(
                "rate by bare session calls at their best",
                contest.ratios("weir", "session", rate),
                Target::None,
            );
            add("rows of a session call", vec![rows as f64], Target::None);
            add("rate", contest.values("weir", rate), Target::None);
        }
    }
}

/// Session calls that the server has made, and their rows.
#[derive(Clone, Copy)]
struct Calls {
    calls: u64,
    rows: u64,
}

impl Calls {
    fn of(weir: &Weir) -> Self {
        let statistics = weir.get("/v2/models/m/stats").expect(200).json();
        let count = |name: &str| statistics["model_stats"][0][name].as_u64().expect("a number");
        Self { calls: count("execution_count"), rows: count("inference_count") }
    }

    /// Rows of a call since then, on average.
    fn since(self, before: Self) -> usize {
        let (calls, rows) = (self.calls - before.calls, self.rows - before.rows);
        (rows as f64 / calls.max(1) as f64).round().max(1.0) as usize
    }
}
