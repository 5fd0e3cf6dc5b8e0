//! The model in bare session calls, in a process of its own: no server, no queue, the best batch for the purpose.

use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use weir::backend::onnx::{OnnxLoader, Runtime};
use weir::backend::{Artefact, BatchInput, Device, Loader, Session, SessionOptions};
use weir::model::prove::{Fill, row_shape, sample};

use super::children::{Child, used};
use super::contest::Measured;
use super::options::Options;

/// The role on the command line.
pub const CHILD: &str = "session";

/// Rows of a call that the sweep tries.
const BATCHES: [usize; 7] = [1, 4, 8, 16, 32, 64, 128];

/// How long the sweep stays with one setting.
const SWEEP_TIME: Duration = Duration::from_millis(300);

/// Sessions of one model that run bare.
pub struct Bare {
    /// By threads inside a call.
    children: Vec<(usize, Child)>,
    best: Setting,
}

/// How calls are made.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    child: usize,
    batch: usize,
    callers: usize,
}

impl Bare {
    /// Loads a model file and finds out how it runs the most rows a second.
    pub fn start(options: &Options, file: &Path) -> Self {
        let cores =
            if options.pinned { 1 } else { std::thread::available_parallelism().map_or(1, usize::from) };
        let mut threads = vec![1, cores];
        threads.dedup();
        let child = |threads: usize| {
            let path = file.to_str().expect("paths of this benchmark are UTF-8");
            let numbers = [threads.to_string(), options.length.to_string()];
            let mut child = Child::start(options, &[CHILD, path, &numbers[0], &numbers[1]]);
            assert_eq!(child.line(), "ready");
            (threads, child)
        };
        let children = threads.iter().map(|threads| child(*threads)).collect();
        let mut bare = Self { children, best: Setting { child: 0, batch: 1, callers: 1 } };
        let mut best = 0.0;
        for child in 0..bare.children.len() {
            for batch in BATCHES {
                for callers in threads.iter().copied() {
                    let setting = Setting { child, batch, callers };
                    let rate = bare.run(setting, SWEEP_TIME).map_or(0.0, |measured| measured.rate);
                    if rate > best {
                        (best, bare.best) = (rate, setting);
                    }
                }
            }
        }
        bare
    }

    /// The best setting, in words.
    pub fn described(&self) -> String {
        let Setting { child, batch, callers } = self.best;
        format!("{batch} rows a call, {callers} callers, {} threads a call", self.children[child].0)
    }

    /// Rows a second at the best setting.
    pub fn measure(&mut self, time: Duration) -> Measured {
        self.run(self.best, time).expect("it ran in the sweep")
    }

    /// One caller with one row, as long as it takes: what a request pays for at least.
    pub fn single(&mut self, time: Duration) -> Measured {
        self.run(Setting { child: 0, batch: 1, callers: 1 }, time).expect("models take one row")
    }

    /// Milliseconds of a call of so many rows, by one caller.
    pub fn call_ms(&mut self, batch: usize, time: Duration) -> f64 {
        let call = self.run(Setting { child: 0, batch, callers: 1 }, time);
        call.expect("the model takes so many rows").p50_us / 1e3
    }

    /// The process of the best setting.
    pub fn id(&self) -> u32 {
        self.children[self.best.child].1.id()
    }

    /// None where the model does not take so many rows.
    fn run(&mut self, setting: Setting, time: Duration) -> Option<Measured> {
        let (_, child) = &mut self.children[setting.child];
        child.tell(&format!("{} {} {}", setting.batch, setting.callers, time.as_secs_f64()));
        let answer: Value = serde_json::from_str(&child.line()).expect("it answers in JSON");
        let number = |key: &str| answer[key].as_f64();
        Some(Measured { rate: number("rate")?, cpu_us: number("cpu_us")?, p50_us: number("call_us")? })
    }
}

/// Loads a model and runs it as each line of standard input says: rows of a call, callers, seconds.
pub fn obey(arguments: &[String]) {
    let [file, threads, length] = arguments else { panic!("a session needs a file, threads and a length") };
    let length = length.parse().expect("a number");
    let file = Path::new(file);
    let folder = file.parent().expect("files have one").to_owned();
    let artefact = Artefact { root: folder.clone(), file: file.to_owned(), folder };
    let intra_op_threads = threads.parse().expect("a number");
    let session_options = SessionOptions { intra_op_threads, ..SessionOptions::default() };
    let loader = OnnxLoader::new(Runtime::open().expect("the library is there"));
    let session = loader.read(&artefact, &Device::Cpu, &session_options).expect("the model loads").trial();
    println!("ready");
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let numbers: Vec<f64> = line.split(' ').map(|number| number.parse().expect("a number")).collect();
        let time = Duration::from_secs_f64(numbers[2]);
        let inputs = inputs(session.as_ref(), numbers[0] as usize, length);
        let answer = inputs.and_then(|inputs| run(&session, &inputs, numbers[1] as usize, time));
        println!("{}", answer.unwrap_or(Value::Null));
        std::io::stdout().flush().expect("somebody reads");
    }
}

/// Whoever calls, calls with the same inputs. None where the model does not take them.
fn run(session: &Arc<dyn Session>, inputs: &[BatchInput], callers: usize, time: Duration) -> Option<Value> {
    let outputs: Vec<usize> = (0..session.graph().outputs.len()).collect();
    let batch = inputs.first().map_or(1, |input| input.parts.len());
    session.run(inputs, &outputs).ok()?;
    let before = used(std::process::id());
    let began = Instant::now();
    let calls: u64 = std::thread::scope(|scope| {
        let call = || {
            let mut calls = 0;
            while began.elapsed() < time {
                session.run(inputs, &outputs).expect("it ran before");
                calls += 1;
            }
            calls
        };
        let callers: Vec<_> = (0..callers).map(|_| scope.spawn(call)).collect();
        callers.into_iter().map(|caller| caller.join().expect("calls do not panic")).sum()
    });
    let (took, rows) = (began.elapsed().as_secs_f64(), (calls * batch as u64) as f64);
    let cpu = (used(std::process::id()) - before).as_secs_f64();
    let call_us = took * 1e6 * callers as f64 / calls as f64;
    Some(json!({"rate": rows / took, "cpu_us": cpu * 1e6 / rows, "call_us": call_us}))
}

/// Rows as they come to a session in Weir: each a part of its own.
fn inputs(session: &dyn Session, batch: usize, length: i64) -> Option<Vec<BatchInput>> {
    let required = session.graph().inputs.iter().enumerate().filter(|(_, input)| !input.has_default);
    required
        .map(|(index, input)| {
            let row = row_shape(input, length)?;
            let parts: Vec<Bytes> =
                (0..batch).map(|i| sample(input.datatype, &row, Fill::Distinct(i))).collect();
            let shape = row.with_first(batch as i64);
            Some(BatchInput { index, datatype: input.datatype, shape, parts: parts.into_iter().collect() })
        })
        .collect()
}
