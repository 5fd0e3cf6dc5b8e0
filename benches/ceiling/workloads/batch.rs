//! A model that reads 16 MB of weights a call: rows that run together cost a fraction of rows alone.

use weir::bench::Protocol;

use crate::contest::{Contest, Measured, Server, floats};
use crate::models::{self, WIDE};
use crate::options::Options;
use crate::session::Bare;
use crate::table::{Table, Target};

const CONNECTIONS: [usize; 2] = [32, 128];

/// Source: SCHEDULING.md's bound of the front end's share where the cores are shared with the model.
const OF_THE_SESSION: f64 = 0.95;

pub fn measure(options: &Options, table: &mut Table) {
    let model = models::wide_model();
    let request = floats(WIDE.0, WIDE.1);
    let weir = super::weir(options, &model.repository);
    let mut bare = Bare::start(options, &model.file);
    table.note(format!("batch: the session at its best has {}", bare.described()));
    let [grpc, binary] = [Protocol::Grpc, Protocol::Binary].map(|p| Server::weir(&weir, p, &request));
    for connections in CONNECTIONS {
        let bare = &mut bare;
        let contest = Contest::hold(
            options.rounds,
            vec![
                ("session", Box::new(|| bare.measure(options.time))),
                ("grpc", Box::new(|| grpc.closed(options, connections))),
                ("binary", Box::new(|| binary.closed(options, connections))),
            ],
        );
        let rate = |measured: &Measured| measured.rate;
        for name in ["grpc", "binary"] {
            let what = format!("{connections} x {name}: rate by bare session calls");
            table.add("batch", what, contest.ratios(name, "session", rate), Target::AtLeast(OF_THE_SESSION));
        }
        table.add("batch", "session: rows a second", contest.values("session", rate), Target::None);
    }
}
