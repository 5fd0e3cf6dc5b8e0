//! A server under test, on free ports, gone when the test is.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::PATIENCE;
use super::http::{Answer, Connection};
use super::metrics::Page;
use super::program::{Program, exit_code};

/// Flags for ports that are free.
pub const FREE_PORTS: [&str; 6] =
    ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0"];

pub struct Weir {
    process: Child,
    /// Gone with the server, unless the test keeps a folder of its own.
    _state: Option<TempDir>,
    lines: Receiver<String>,
    /// What it wrote to stdout so far.
    said: Vec<String>,
    errors: Arc<Mutex<String>>,
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    pub metrics: SocketAddr,
}

impl Weir {
    /// A server that has loaded `models`.
    #[track_caller]
    pub fn start(models: impl AsRef<Path>, flags: &[&str]) -> Self {
        let mut weir = Self::begin(models, flags);
        weir.ready();
        weir
    }

    /// A server that listens, and may still be loading `models`.
    #[track_caller]
    pub fn begin(models: impl AsRef<Path>, flags: &[&str]) -> Self {
        let models = models.as_ref().to_str().expect("paths of tests are UTF-8");
        let own = !flags.contains(&"--state");
        let state = own.then(|| tempfile::tempdir().expect("a folder for the state"));
        let folder = state.as_ref().map(|state| state.path().to_str().expect("paths of tests are UTF-8"));
        let state_flags: Vec<&str> = folder.iter().flat_map(|folder| ["--state", folder]).collect();
        // A test that names the metrics port has its reasons, and says where it is by itself.
        let ports = if flags.contains(&"--metrics") { &FREE_PORTS[..4] } else { &FREE_PORTS[..] };
        let arguments = [&["serve", "--models", models], ports, &state_flags, flags].concat();
        let mut weir = Self::listening(Program::new(&arguments), ports.len() / 2);
        weir._state = state;
        weir
    }

    /// The server that `program` becomes, as soon as it listens.
    #[track_caller]
    pub fn of(program: Program) -> Self {
        Self::listening(program, FREE_PORTS.len() / 2)
    }

    /// As [`Self::of`], once it has told the first `ports` of HTTP, gRPC and metrics.
    #[track_caller]
    fn listening(program: Program, ports: usize) -> Self {
        let mut process = program.spawn();
        let (tell, lines) = channel();
        let stdout = BufReader::new(process.stdout.take().expect("it is piped"));
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        let errors = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&errors);
        // Unless the test has sent it elsewhere.
        if let Some(stderr) = process.stderr.take().map(BufReader::new) {
            std::thread::spawn(move || {
                for line in stderr.lines().map_while(Result::ok) {
                    heard.lock().unwrap().push_str(&format!("{line}\n"));
                }
            });
        }
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut weir = Self {
            process,
            _state: None,
            lines,
            said: vec![],
            errors,
            http: nowhere,
            grpc: nowhere,
            metrics: nowhere,
        };
        let mut told = ["http", "grpc", "metrics"].into_iter().take(ports);
        let mut next = || told.next().map_or(nowhere, |port| weir.line(port).parse().expect("an address"));
        let addresses = [next(), next(), next()];
        [weir.http, weir.grpc, weir.metrics] = addresses;
        weir
    }

    /// Waits until every model was tried.
    #[track_caller]
    pub fn ready(&mut self) {
        self.line("ready");
    }

    /// Waits for the line that begins with `word`; gives the rest of it.
    #[track_caller]
    pub fn line(&mut self, word: &str) -> String {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    let rest = line.strip_prefix(word).map(|rest| rest.trim().to_owned());
                    self.said.push(line);
                    if let Some(rest) = rest {
                        return rest;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let code = exit_code(&mut self.process, PATIENCE);
                    panic!("the server ended with {code:?} before '{word}': {}", self.errors());
                }
                Err(RecvTimeoutError::Timeout) => panic!("the server never said '{word}': {}", self.errors()),
            }
        }
    }

    /// What it wrote to stdout up to the line that was waited for last.
    pub fn said(&self) -> String {
        self.said.join("\n")
    }

    /// What it wrote to stderr so far.
    pub fn errors(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    pub fn connect(&self) -> Connection {
        Connection::open(self.http)
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.connect().ask("GET", path, &[], b"")
    }

    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.connect().ask("POST", path, &[], body.to_string().as_bytes())
    }

    #[track_caller]
    pub fn infer(&self, model: &str, body: &Value) -> Answer {
        self.post(&infer_path(model), body)
    }

    /// Sends a prediction request; its answer is yet to be received.
    #[track_caller]
    pub fn ask(&self, model: &str, body: &Value) -> Connection {
        let mut connection = self.connect();
        connection.send("POST", &infer_path(model), &[], body.to_string().as_bytes());
        connection
    }

    /// What the repository's index says of each model and version: (name, version, state, reason).
    #[track_caller]
    pub fn index(&self) -> Vec<[String; 4]> {
        let index = self.connect().ask("POST", "/v2/repository/index", &[], b"").expect(200).json();
        let text = |model: &Value, key: &str| model[key].as_str().expect("a text").to_owned();
        let items = index.as_array().expect("a list").iter();
        items.map(|model| ["name", "version", "state", "reason"].map(|key| text(model, key))).collect()
    }

    /// State and reason of a model that has one line in the index.
    #[track_caller]
    pub fn state(&self, model: &str) -> (String, String) {
        let index = self.index();
        let lines: Vec<_> = index.into_iter().filter(|[name, ..]| name == model).collect();
        match <[_; 1]>::try_from(lines) {
            Ok([[_, _, state, reason]]) => (state, reason),
            Err(lines) => panic!("'{model}' has {} lines in the index", lines.len()),
        }
    }

    #[track_caller]
    pub fn page(&self) -> Page {
        Page::parse(Connection::open(self.metrics).ask("GET", "/metrics", &[], b"").expect(200).text())
    }

    /// Waits until the metrics satisfy `condition`: what is counted after an answer may be read before.
    #[track_caller]
    pub fn until(&self, what: &str, condition: impl Fn(&Page) -> bool) -> Page {
        let until = Instant::now() + PATIENCE;
        loop {
            let page = self.page();
            if condition(&page) {
                return page;
            }
            assert!(Instant::now() < until, "not in {} s: {what}\n{page:?}", PATIENCE.as_secs());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The process, by its number.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Memory that the process has in use, in bytes; Linux tells it.
    #[track_caller]
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("the server runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it uses memory");
        1024 * line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of kB")
    }

    /// Sends a signal by its name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        // The shell's own `kill`: the program of that name is not on every machine.
        let kill = format!("kill -{name} {}", self.process.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("there is a shell").success());
    }

    /// The code that it ends with; `None` when it runs on.
    pub fn exit_code(&mut self, patience: Duration) -> Option<i32> {
        exit_code(&mut self.process, patience)
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn infer_path(model: &str) -> String {
    format!("/v2/models/{model}/infer")
}
