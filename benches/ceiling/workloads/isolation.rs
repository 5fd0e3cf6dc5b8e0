//! What a worker process costs: the same session calls in this process and in a worker, in turns.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use smallvec::SmallVec;
use weir::backend::onnx::{LoadLimits, OnnxLoader, Runtime};
use weir::backend::{Artefact, BatchInput, Device, Loader, Session, SessionOptions};
use weir::tensor::{DataType, Shape};

use crate::models::{self, SMALL};
use crate::options::Options;
use crate::table::{Table, Target};

/// Microseconds that a worker may cost a batch.
const COST_US: f64 = 15.0;

const ROWS: [usize; 3] = [1, 8, 32];

/// Calls of one turn.
const CALLS: usize = 2000;

pub fn measure(options: &Options, table: &mut Table) {
    let model = models::small_model();
    let root = model.repository.path("");
    let artefact = Artefact { folder: model.repository.path("m/1"), file: model.file.clone(), root };
    let loader = OnnxLoader::with_workers(Runtime::open().unwrap(), LoadLimits::default());
    let read = loader.read(&artefact, &Device::Cpu, &SessionOptions::default()).unwrap();
    let here = read.here(&Device::Cpu).unwrap();
    let worker = read.isolated(&Device::Cpu).expect("this system has the means").unwrap();
    for rows in ROWS {
        let input = BatchInput {
            index: 0,
            datatype: DataType::Fp32,
            shape: Shape::from_dims([rows as i64, SMALL.1]).unwrap(),
            parts: SmallVec::from_iter([Bytes::from(vec![0; 4 * rows * SMALL.1 as usize])]),
        };
        let (mut heres, mut workers) = (Vec::new(), Vec::new());
        for round in 0..2 * options.rounds.max(5) {
            // Who goes first changes.
            let turns: [(&Arc<dyn Session>, &mut Vec<f64>); 2] = match round % 2 {
                0 => [(&here, &mut heres), (&worker, &mut workers)],
                _ => [(&worker, &mut workers), (&here, &mut heres)],
            };
            for (session, times) in turns {
                times.push(median_us(&**session, &input));
            }
        }
        let cost = workers.iter().zip(&heres).map(|(worker, here)| worker - here).collect();
        table.add("isolation", format!("{rows} rows: call in this process, µs"), heres, Target::None);
        table.add(
            "isolation",
            format!("{rows} rows: a worker costs more, µs"),
            cost,
            Target::AtMost(COST_US),
        );
    }
}

fn median_us(session: &dyn Session, input: &BatchInput) -> f64 {
    let mut times: Vec<f64> = (0..CALLS)
        .map(|_| {
            let started = Instant::now();
            session.run(std::slice::from_ref(input), &[0]).expect("it runs");
            started.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[CALLS / 2]
}
