//! From the start of the process to its ports and to its first model.

use std::time::Instant;

use crate::children::on_server_core;
use crate::models;
use crate::options::Options;
use crate::support::weir::Weir;
use crate::table::{Table, Target};

pub fn measure(options: &Options, table: &mut Table) {
    let model = models::small_model();
    let (mut listening, mut ready) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let began = Instant::now();
        let mut weir = on_server_core(options, || Weir::begin(&model.repository, &["--log", "error"]));
        listening.push(began.elapsed().as_secs_f64() * 1e3);
        weir.ready();
        ready.push(began.elapsed().as_secs_f64() * 1e3);
    }
    table.add("start", "until it listens, ms", listening, Target::AtMost(50.0));
    table.add("start", "until a small model is ready, ms", ready, Target::None);
}
