//! The binary as a program: its arguments, its environment, what it says and how it ends.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::PATIENCE;

/// The binary, in an environment that says nothing to it.
pub struct Program(Command);

/// A run that is over.
#[derive(Debug)]
pub struct Outcome {
    /// `None`: it had to be killed.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Program {
    pub fn new(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.args(arguments);
        Self::of(command)
    }

    /// The binary by way of `wrapper`, a program and its arguments that ends by running what follows them.
    pub fn within(wrapper: &[&str], arguments: &[&str]) -> Self {
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]).arg(env!("CARGO_BIN_EXE_weir")).args(arguments);
        Self::of(command)
    }

    fn of(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Each run has a state of its own, and none is the user's.
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        let run = format!("state/{}-{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
        command.env("XDG_STATE_HOME", Path::new(env!("CARGO_TARGET_TMPDIR")).join(run));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WEIR_")) {
            command.env_remove(name);
        }
        Self(command)
    }

    pub fn env(mut self, name: &str, value: impl AsRef<Path>) -> Self {
        self.0.env(name, value.as_ref());
        self
    }

    pub fn folder(mut self, folder: &Path) -> Self {
        self.0.current_dir(folder);
        self
    }

    /// Standard error goes there.
    pub fn errors_to(&mut self, pipe: std::io::PipeWriter) {
        self.0.stderr(pipe);
    }

    /// Starts it.
    pub fn spawn(mut self) -> Child {
        self.0.spawn().expect("the binary starts")
    }

    /// Runs it to its end.
    pub fn run(self) -> Outcome {
        let mut process = self.spawn();
        let stdout = read_all(process.stdout.take().expect("it is piped"));
        let stderr = read_all(process.stderr.take().expect("it is piped"));
        let code = exit_code(&mut process, PATIENCE);
        if code.is_none() {
            let _ = process.kill();
            let _ = process.wait();
        }
        let text = |reader: std::thread::JoinHandle<String>| reader.join().expect("reading does not panic");
        Outcome { code, stdout: text(stdout), stderr: text(stderr) }
    }
}

fn read_all(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The code that a process ends with; `None` when it runs on, or was ended by a signal.
pub fn exit_code(process: &mut Child, patience: Duration) -> Option<i32> {
    let until = Instant::now() + patience;
    loop {
        if let Some(status) = process.try_wait().expect("it is our child") {
            return status.code();
        }
        if Instant::now() >= until {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
