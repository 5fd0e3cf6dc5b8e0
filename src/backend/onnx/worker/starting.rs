//! A worker from its start to an open session: the server's side.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::limits::described;
use super::packets::{Limits, ToServer, ToWorker, receive, send};
use crate::backend::onnx::WORKER_ARGUMENT;
use crate::backend::onnx::files::{Blob, Files};
use crate::backend::onnx::inspect::Findings;
use crate::backend::{Device, Graph, LoadError, SessionOptions};

/// The clock's limit of a trial, as a multiple of the processor's: a worker may have to wait for a processor, and one
/// that neither works nor ends must not wait for ever.
const CLOCK_FACTOR: u32 = 6;

/// What a worker is started with.
#[derive(Clone)]
pub struct Spec {
    /// The program that becomes a worker when it is told so by [`WORKER_ARGUMENT`].
    pub program: PathBuf,
    /// The ONNX Runtime library.
    pub onnxruntime: PathBuf,
    pub limits: Limits,
    /// Memory that it may have once it serves.
    pub serving_bytes: u64,
}

/// Variables that a worker inherits: what tells a library where other libraries are, and which device it may use.
const INHERITED: [&str; 6] = [
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_HOME",
    "NVIDIA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "TZ",
];

/// A worker that does not serve yet. Dropped, it is ended.
pub struct Starting {
    /// Until it serves.
    pub child: Option<Child>,
    pub socket: Option<OwnedFd>,
    /// Memory that it had in use before there was a model; 0 until that is known.
    pub empty_bytes: u64,
    limits: Limits,
    until: Instant,
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Starting {
    /// Starts a worker. Errors: the system does not let it.
    pub fn spawn(spec: &Spec) -> Result<Self, LoadError> {
        let failed = |e: io::Error| {
            tracing::warn!("a process for a model cannot be started: {e}");
            LoadError(format!("the process that tries it cannot be started: {}", e.kind()))
        };
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|e| failed(e.into()))?;
        let mut command = Command::new(&spec.program);
        // A group of its own: what a terminal or a supervisor sends to the server's group is the server's to act upon.
        command.arg0("weir").arg(WORKER_ARGUMENT).env_clear().current_dir("/").process_group(0);
        let inherited = INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        command
            .envs(inherited)
            .env("ORT_DYLIB_PATH", &spec.onnxruntime)
            .env("ORT_DISABLE_TELEMETRY", "1")
            // The allocator sets address space aside that would count against the limit of memory.
            .env("MIMALLOC_ARENA_RESERVE", "32768")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().map_err(failed)?;
        let patience = Duration::from_secs(spec.limits.seconds.max(1)) * CLOCK_FACTOR;
        Ok(Self {
            child: Some(child),
            socket: Some(ours),
            empty_bytes: 0,
            limits: spec.limits,
            until: Instant::now() + patience,
        })
    }

    /// Has the model file looked through.
    pub fn scan(&mut self, model: &Blob) -> Result<Findings, LoadError> {
        self.send(&ToWorker::Model(self.limits), Some(model))?;
        match self.receive()? {
            ToServer::Scanned(findings, empty_bytes) => {
                self.empty_bytes = empty_bytes;
                Ok(findings)
            }
            other => Err(self.unexpected(other)),
        }
    }

    /// Has a session opened on files that were looked through.
    pub fn open(
        &mut self,
        files: &Files,
        device: &Device,
        options: &SessionOptions,
    ) -> Result<Graph, LoadError> {
        for (location, blob) in &files.data {
            self.send(&ToWorker::Data { location: location.clone() }, Some(blob))?;
        }
        self.send(&ToWorker::Open { device: device.clone(), options: options.clone() }, None)?;
        match self.receive()? {
            ToServer::Opened(graph) => {
                // From here on each call is bounded, by the clock; memory still is that of a trial.
                self.send(&ToWorker::Serve { memory_bytes: self.limits.memory_bytes }, None)?;
                Ok(graph)
            }
            other => Err(self.unexpected(other)),
        }
    }

    fn unexpected(&mut self, message: ToServer) -> LoadError {
        match message {
            ToServer::Failed(reason) => LoadError(reason),
            _ => LoadError("the process that tried it said something that makes no sense".to_owned()),
        }
    }

    fn send(&mut self, message: &ToWorker, blob: Option<&Blob>) -> Result<(), LoadError> {
        let socket = self.socket.as_ref().expect("it is there until it serves");
        send(socket.as_fd(), message, blob.map(Blob::file)).map_err(|_| self.ended())
    }

    fn receive(&mut self) -> Result<ToServer, LoadError> {
        let left = self.until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let socket = self.socket.as_ref().expect("it is there until it serves");
        let received = set_socket_timeout(socket, Timeout::Recv, Some(left))
            .map_err(io::Error::from)
            .and_then(|()| receive(socket.as_fd()));
        match received {
            Ok(Some((message, _))) => Ok(message),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                Err(LoadError("loading it took too long, and the process that tried it was ended".to_owned()))
            }
            Err(e) if e.kind() == io::ErrorKind::Other || e.kind() == io::ErrorKind::InvalidData => {
                Err(LoadError("the process that tried it said something that makes no sense".to_owned()))
            }
            Ok(None) | Err(_) => Err(self.ended()),
        }
    }

    /// Why it is gone.
    fn ended(&mut self) -> LoadError {
        let mut how = "it ended".to_owned();
        if let Some(child) = &mut self.child {
            // It may be ending still.
            let until = Instant::now() + Duration::from_millis(500);
            loop {
                match child.try_wait() {
                    Ok(Some(status)) => {
                        how = described(status, self.limits);
                        break;
                    }
                    Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(2)),
                    Ok(None) | Err(_) => break,
                }
            }
        }
        LoadError(format!("loading it ended the process that tried it: {how}"))
    }
}

/// The model of a worker that serves: what it takes to start another one.
#[derive(Clone)]
pub struct Again {
    pub spec: Spec,
    pub files: Arc<Files>,
    pub device: Device,
    pub options: SessionOptions,
}

impl Again {
    /// Starts a worker for files that were tried before.
    pub fn start(&self) -> Result<(Starting, Graph), LoadError> {
        let mut starting = Starting::spawn(&self.spec)?;
        starting.scan(&self.files.model)?;
        let graph = starting.open(&self.files, &self.device, &self.options)?;
        Ok((starting, graph))
    }
}
