//! Processes that are measured: where they run, what they use.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::options::Options;

/// The cores of a server and of the generator with `cores=1`.
const SERVER_CORE: usize = 0;
const GENERATOR_CORE: usize = 1;

/// This benchmark in another role, as a process of its own.
pub struct Child {
    process: std::process::Child,
    orders: ChildStdin,
    lines: BufReader<ChildStdout>,
}

impl Child {
    pub fn start(options: &Options, role: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program is a file"));
        command.args(role).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = on_server_core(options, || command.spawn()).expect("this program starts");
        let orders = process.stdin.take().expect("it is piped");
        let lines = BufReader::new(process.stdout.take().expect("it is piped"));
        Self { process, orders, lines }
    }

    /// The next line that it says.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("it runs");
        assert!(!line.is_empty(), "a process of the benchmark ended early");
        line.trim_end().to_owned()
    }

    /// Sends it a line.
    pub fn tell(&mut self, order: &str) {
        writeln!(self.orders, "{order}").expect("it listens");
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Does something that starts processes or threads; they run where servers run.
pub fn on_server_core<T>(options: &Options, start: impl FnOnce() -> T) -> T {
    if !options.pinned {
        return start();
    }
    pin(SERVER_CORE);
    let started = start();
    pin(GENERATOR_CORE);
    started
}

/// Lets this thread, and what it starts from now on with these options, run on any core.
pub fn unpinned(options: &Options) -> Options {
    let mut cores = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|core| cores.set(core));
    sched_setaffinity(None, &cores).expect("some of these cores are there");
    let mut options = options.clone();
    options.pinned = false;
    options
}

/// Pins this thread, and what it starts from now on.
fn pin(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).expect("there are two cores");
    assert_eq!(sched_getaffinity(None).map(|set| set.count()), Ok(1));
}

/// Processor time that a process has used.
pub fn used(process: u32) -> Duration {
    weir::bench::Processor::of(process).ok().and_then(|process| process.used()).expect("the process runs")
}

/// Memory that a process has in use, in megabytes.
pub fn resident_megabytes(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it uses memory");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number of kB") / 1024.0
}
