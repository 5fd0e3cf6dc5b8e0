//! Session calls that are really made, so that the simulation has times that some model has.

use std::time::Instant;

use smallvec::smallvec;
use weir::backend::onnx::{OnnxLoader, Runtime};
use weir::backend::{Artefact, BatchInput, Device, Loader, SessionOptions};
use weir::tensor::{DataType, Shape};

use super::simulation::Calls;

#[path = "../../tests/it/support/onnx.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod onnx;

const WIDTH: u64 = 16;

/// Calls of each size, of which the middle one counts.
const CALLS: usize = 101;

/// Calls of up to 64 rows.
pub fn session_calls() -> Calls {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.onnx");
    let rows = |width| [None, Some(width)];
    let graph = onnx::Graph::default()
        .input("INPUT0", &rows(WIDTH))
        .layers("INPUT0", &[WIDTH, 512, 512, 10], "scores", 1)
        .output("scores", &rows(10));
    std::fs::write(&file, graph.file()).unwrap();
    let folder_of_it = folder.path().to_owned();
    let artefact = Artefact { root: folder_of_it.clone(), file, folder: folder_of_it };
    let loader = OnnxLoader::new(Runtime::open().unwrap());
    let session = loader.read(&artefact, &Device::Cpu, &SessionOptions::default()).unwrap().trial();
    let median = |rows: i64| {
        let input = BatchInput {
            index: 0,
            datatype: DataType::Fp32,
            shape: Shape::from_dims([rows, WIDTH as i64]).unwrap(),
            parts: smallvec![vec![0; rows as usize * WIDTH as usize * 4].into()],
        };
        let mut times: Vec<f64> = (0..CALLS)
            .map(|_| {
                let started = Instant::now();
                session.run(std::slice::from_ref(&input), &[0]).unwrap();
                started.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times[CALLS / 2]
    };
    let times: Vec<f64> = (0..7).map(|doubling| median(1 << doubling)).collect();
    let parts: Vec<f64> = times.iter().map(|time| time / times[0]).collect();
    println!("calls of 1, 2, 4, … rows, in calls of one: {parts:.2?}");
    Calls::between(&times)
}
