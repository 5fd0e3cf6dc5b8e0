//! Latency at two thirds of what the server can take, with arrivals that are chance's.

use weir::bench::{Load, Process, Protocol};

use crate::contest::{Server, floats};
use crate::models::{self, WIDE};
use crate::options::Options;
use crate::session::Bare;
use crate::table::{Table, Target};

/// Requests under way that saturate the server.
const SATURATING: usize = 64;

/// The part of saturation that is offered.
const OFFERED: f64 = 2.0 / 3.0;

pub fn measure(options: &Options, table: &mut Table) {
    let model = models::wide_model();
    let weir = super::weir(options, &model.repository);
    let server = Server::weir(&weir, Protocol::Grpc, &floats(WIDE.0, WIDE.1));
    let mut bare = Bare::start(options, &model.file);
    let (mut tails, mut late) = (Vec::new(), false);
    for _ in 0..options.rounds {
        let rate = OFFERED * server.closed(options, SATURATING).rate;
        let call = bare.single(options.time).p50_us;
        let row = server.load(options, Load::Open { rate, process: Process::Poisson }, 2 * options.time);
        late |= row.lags();
        let latency = row.latency_us.expect("some request succeeded");
        tails.push(latency.p99 / (latency.p50 + call));
    }
    table.add("open", "p99 by p50 + a session call", tails, Target::AtMost(3.0));
    if late {
        table.note("open: the generator sent late; its latencies are not the server's alone".to_owned());
    }
}
