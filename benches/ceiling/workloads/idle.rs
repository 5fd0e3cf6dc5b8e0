//! Ten models that nobody asks for.

use std::time::Duration;

use crate::children::used;
use crate::models;
use crate::options::Options;
use crate::support::repository::Repository;
use crate::table::{Table, Target};

const MODELS: usize = 10;

/// Processor time is told in hundredths of a second: a stretch must be long enough for them.
const STRETCH: Duration = Duration::from_secs(5);

pub fn measure(options: &Options, table: &mut Table) {
    let repository = Repository::new();
    for model in 0..MODELS {
        repository.write(&format!("m{model}/1/model.onnx"), models::small());
    }
    let weir = super::weir(options, &repository);
    // What a start leaves behind is over.
    std::thread::sleep(Duration::from_secs(1));
    let share = |_| {
        let before = used(weir.id());
        std::thread::sleep(STRETCH);
        (used(weir.id()) - before).as_secs_f64() / STRETCH.as_secs_f64() * 100.0
    };
    let shares = (0..options.rounds).map(share).collect();
    table.add("idle", format!("CPU with {MODELS} models, % of a core"), shares, Target::AtMost(0.5));
}
