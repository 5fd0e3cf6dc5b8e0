//! `weir serve`: the server from its settings to its end.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tracing_subscriber::EnvFilter;

use crate::app::{App, Ended};
use crate::backend::onnx::end_process;
use crate::config::{Config, LogFormat, Settings};

/// The settings on the command line, and where the rest of them stand.
#[derive(Debug, Clone, Args)]
pub struct ServeArguments {
    /// Configuration file in TOML
    #[arg(long, env = "WEIR_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

impl ServeArguments {
    /// The options over the file's keys; defaults are not filled in.
    pub fn settings(self) -> anyhow::Result<Settings> {
        Ok(match self.config {
            Some(path) => self.settings.or(Settings::read(&path)?),
            None => self.settings,
        })
    }
}

/// Threads that accept connections, write metrics and look after everything but requests: two, so that a long page of
/// metrics does not keep connections waiting.
const ASIDE_THREADS: usize = 2;

/// Serves until a signal ends it.
pub fn serve(arguments: ServeArguments) -> anyhow::Result<()> {
    let config = arguments.settings()?.resolve()?;
    log(&config)?;
    take_all_descriptors();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(ASIDE_THREADS)
        .thread_name("weir")
        .enable_all()
        .build()
        .context("the threads that serve cannot be started")?;
    let outcome = runtime.block_on(async {
        let app = App::bind(config).await?;
        let stop = stop_signal().context("signals cannot be watched")?;
        anyhow::Ok(app.run(stop, &mut std::io::stdout()).await?)
    });
    if let Ok(Ended::WithWorkLeft) = outcome {
        end_process(0);
    }
    runtime.shutdown_background();
    outcome.map(|_| ())
}

/// Signals that follow the first one within this time are echoes of it.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// Done at the first SIGTERM or interrupt. A second one ends the process at once.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (tell, told) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        next().await;
        let _ = tell.send(());
        // `timeout` and some supervisors send a signal to the process and to its group: one wish, heard twice.
        let _ = tokio::time::timeout(SAME_SIGNAL, async {
            loop {
                next().await
            }
        })
        .await;
        next().await;
        eprintln!("weir: a second signal: ending at once");
        end_process(1);
    });
    Ok(async move {
        let _ = told.await;
    })
}

/// Connections need descriptors, of which a process may often take more than it is given at first.
#[cfg(target_os = "linux")]
fn take_all_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_err() {
        tracing::debug!("the number of descriptors stays limited to {current:?}");
    }
}

#[cfg(not(target_os = "linux"))]
fn take_all_descriptors() {}

/// Standard error for a log whose lines are one line each, whatever client's text is in them: control characters, with
/// which a text could end its line or colour the next one, are written as `?`.
struct OneLine(std::io::Stderr);

impl Write for OneLine {
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        let (text, end) = match event.split_last() {
            Some((b'\n', text)) => (text, &b"\n"[..]),
            _ => (event, &b""[..]),
        };
        if !text.iter().any(u8::is_ascii_control) {
            return self.0.write_all(event).map(|()| event.len());
        }
        let clean: Vec<u8> = text.iter().map(|b| if b.is_ascii_control() { b'?' } else { *b }).collect();
        self.0.write_all(&[&clean, end].concat()).map(|()| event.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

fn log(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log).with_context(|| format!("log = '{}'", config.log))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Colours are control characters.
        .with_writer(|| OneLine(std::io::stderr()))
        .with_ansi(false);
    match config.log_format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
