//! What it costs to measure: all of it on, and off.

use weir::bench::Protocol;

use crate::children::on_server_core;
use crate::contest::{Contest, Server, floats};
use crate::models::{self, SMALL};
use crate::options::Options;
use crate::support::weir::Weir;
use crate::table::{Table, Target};

const CONNECTIONS: usize = 32;

pub fn measure(options: &Options, table: &mut Table) {
    let model = models::small_model();
    let request = floats(SMALL.0, SMALL.1);
    let weirs = ["127.0.0.1:0", "off"].map(|metrics| {
        let arguments = ["--log", "error", "--metrics", metrics];
        on_server_core(options, || Weir::start(&model.repository, &arguments))
    });
    let [on, off] = weirs.each_ref().map(|weir| Server::weir(weir, Protocol::Grpc, &request));
    let contest = Contest::hold(
        options.rounds,
        vec![
            ("on", Box::new(|| on.closed(options, CONNECTIONS))),
            ("off", Box::new(|| off.closed(options, CONNECTIONS))),
        ],
    );
    let rates = contest.ratios("on", "off", |measured| measured.rate);
    table.add("metrics", "rate by that without metrics", rates, Target::AtLeast(0.97));
    table.add("metrics", "CPU by that without", contest.ratios("on", "off", |m| m.cpu_us), Target::None);
}
