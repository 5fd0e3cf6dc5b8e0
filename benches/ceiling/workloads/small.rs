//! A model that costs next to nothing: what is left is the front end.

use weir::bench::Protocol;

use crate::contest::{Contest, Measured, Server, Turn, floats};
use crate::echo::Echo;
use crate::models::{self, SMALL};
use crate::options::Options;
use crate::session::Bare;
use crate::table::{Table, Target};

/// Requests under way, each on a connection of its own.
const CONNECTIONS: [usize; 3] = [1, 32, 128];

pub fn measure(options: &Options, table: &mut Table) {
    let model = models::small_model();
    let request = floats(SMALL.0, SMALL.1);
    let weir = super::weir(options, &model.repository);
    let [tonic, tonic_all] = [false, true].map(|all| Echo::tonic(options, all));
    let (json, bytes) = (Echo::json(options), Echo::bytes(options));
    let echo = |echo: &Echo, protocol| Server::new(echo.id(), echo.address, protocol, &request);
    let servers = [
        ("tonic", echo(&tonic, Protocol::Grpc)),
        ("tonic, all threads", echo(&tonic_all, Protocol::Grpc)),
        ("hyper, JSON", echo(&json, Protocol::Json)),
        ("hyper, bytes", echo(&bytes, Protocol::Binary)),
        ("grpc", Server::weir(&weir, Protocol::Grpc, &request)),
        ("json", Server::weir(&weir, Protocol::Json, &request)),
        ("binary", Server::weir(&weir, Protocol::Binary, &request)),
    ];
    let mut bare = Bare::start(options, &model.file);
    table.note(format!("small: the session at its best has {}", bare.described()));
    for connections in CONNECTIONS {
        let mut turns: Vec<Turn<'_>> = Vec::new();
        for (name, server) in &servers {
            turns.push((name, Box::new(move || server.closed(options, connections))));
        }
        let bare = &mut bare;
        turns.push(("session", Box::new(move || bare.single(options.time))));
        compare(table, connections, &Contest::hold(options.rounds, turns));
    }
}

/// Each of Weir's protocols, the echo server of the same messages, and by that how much it may cost.
const ECHOES: [(&str, &str, Option<f64>); 3] =
    [("grpc", "tonic", Some(1.1)), ("json", "hyper, JSON", Some(1.5)), ("binary", "hyper, bytes", None)];

/// What a request alone may wait longer than its echo and a session call take, in microseconds.
const ADDED_US: f64 = 40.0;

fn compare(table: &mut Table, connections: usize, contest: &Contest) {
    let mut add = |what: String, values, target| table.add("small", what, values, target);
    let cpu = |measured: &Measured| measured.cpu_us;
    for (weir, echo, most) in ECHOES {
        // Alone a request pays for a whole session call.
        let target = most.filter(|_| connections > 1).map_or(Target::None, Target::AtMost);
        add(format!("{connections} x {weir}: CPU by {echo}"), contest.ratios(weir, echo, cpu), target);
        if connections == 1 {
            let target = Target::AtMost(ADDED_US);
            let added = contest.added(weir, [echo, "session"], |measured| measured.p50_us);
            add(format!("1 x {weir}: p50 less {echo} and a session call, µs"), added, target);
        }
    }
    for name in
        ["tonic", "tonic, all threads", "hyper, JSON", "hyper, bytes", "session", "grpc", "json", "binary"]
    {
        add(format!("{connections} x {name}: CPU, µs"), contest.values(name, cpu), Target::None);
    }
    let rate = |measured: &Measured| measured.rate;
    add(format!("{connections} x grpc: rate by tonic"), contest.ratios("grpc", "tonic", rate), Target::None);
    add(format!("{connections} x grpc: rate"), contest.values("grpc", rate), Target::None);
}
