//! A tensor of a mebibyte through a model that gives it back: what copies cost.

use weir::bench::Protocol;

use crate::contest::{Contest, Measured, Server, Turn, floats};
use crate::echo::Echo;
use crate::models;
use crate::options::Options;
use crate::table::{Table, Target};

const WIDTH: i64 = (1 << 20) / 4;
const CONNECTIONS: usize = 4;

pub fn measure(options: &Options, table: &mut Table) {
    let model = models::identity_model(WIDTH);
    let request = floats("x", WIDTH);
    let weir = super::weir(options, &model.repository);
    let (tonic, bytes) = (Echo::tonic(options, false), Echo::bytes(options));
    let servers = [
        ("tonic", Server::new(tonic.id(), tonic.address, Protocol::Grpc, &request)),
        ("hyper", Server::new(bytes.id(), bytes.address, Protocol::Binary, &request)),
        ("grpc", Server::weir(&weir, Protocol::Grpc, &request)),
        ("binary", Server::weir(&weir, Protocol::Binary, &request)),
    ];
    let mut turns: Vec<Turn<'_>> = Vec::new();
    for (name, server) in &servers {
        turns.push((name, Box::new(move || server.closed(options, CONNECTIONS))));
    }
    let contest = Contest::hold(options.rounds, turns);
    let cpu = |measured: &Measured| measured.cpu_us;
    for (weir, echo, most) in [("grpc", "tonic", 1.3), ("binary", "hyper", 1.5)] {
        let (of, rate) = (format!("{weir}: CPU by {echo}"), format!("{weir}: rate by {echo}"));
        table.add("tensor", of, contest.ratios(weir, echo, cpu), Target::AtMost(most));
        table.add("tensor", rate, contest.ratios(weir, echo, |m| m.rate), Target::None);
        table.add("tensor", format!("{weir}: CPU, µs"), contest.values(weir, cpu), Target::None);
    }
}
