//! 4,096 floats as text, both ways.

use weir::bench::Protocol;

use crate::contest::{Contest, Measured, Server, floats};
use crate::echo::Echo;
use crate::models;
use crate::options::Options;
use crate::table::{Table, Target};

const WIDTH: i64 = 4096;
const CONNECTIONS: usize = 16;

pub fn measure(options: &Options, table: &mut Table) {
    let model = models::identity_model(WIDTH);
    let request = floats("x", WIDTH);
    let weir = super::weir(options, &model.repository);
    let echo = Echo::json(options);
    let hyper = Server::new(echo.id(), echo.address, Protocol::Json, &request);
    let weir = Server::weir(&weir, Protocol::Json, &request);
    let contest = Contest::hold(
        options.rounds,
        vec![
            ("hyper", Box::new(|| hyper.closed(options, CONNECTIONS))),
            ("weir", Box::new(|| weir.closed(options, CONNECTIONS))),
        ],
    );
    let cpu = |measured: &Measured| measured.cpu_us;
    table.add("json", "CPU by hyper with serde", contest.ratios("weir", "hyper", cpu), Target::AtMost(1.5));
    table.add("json", "CPU, µs", contest.values("weir", cpu), Target::None);
    table.add("json", "rate by hyper with serde", contest.ratios("weir", "hyper", |m| m.rate), Target::None);
}
