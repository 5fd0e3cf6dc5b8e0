//! For tests: lets this test program write in a process of its own, and kills it.
//!
//! A power cut is not shown by this: what the kernel has taken over outlives a process.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Tells the child which folder to write to.
const FOLDER: &str = "WEIR_KILLED_FOLDER";

/// What the child acknowledges stands behind this.
const ACKNOWLEDGED: &str = "acknowledged ";

/// What a child did before it was killed.
pub struct Killed {
    /// Its process id.
    pub process: u32,
    /// The highest number that it acknowledged.
    pub acknowledged: Option<u64>,
}

/// The folder to write to; `None` where a child's test is run by itself.
pub fn folder() -> Option<OsString> {
    std::env::var_os(FOLDER)
}

/// For the child: says that `number` is written.
pub fn acknowledge(number: u64) {
    println!("{ACKNOWLEDGED}{number}");
}

/// Runs the ignored test `child` on the folder `dir`, and kills it `after` a while, in which it must not end.
pub fn write_and_kill(child: &str, dir: &Path, after: Duration) -> Killed {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", child, "--ignored", "--nocapture"])
        .env(FOLDER, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(child.stdout.take().unwrap());
    let listener = std::thread::spawn(move || {
        let lines = said.lines().map_while(Result::ok);
        lines.filter_map(|line| line.strip_prefix(ACKNOWLEDGED)?.parse::<u64>().ok()).max()
    });
    std::thread::sleep(after);
    let ended = child.try_wait().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(ended, None, "the child ended by itself");
    Killed { process: child.id(), acknowledged: listener.join().unwrap() }
}
