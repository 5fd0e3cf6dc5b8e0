//! `weir serve`: the server from its settings to its end.

use std::io::IsTerminal;
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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(ASIDE_THREADS)
        .thread_name("weir")
        .enable_all()
        .build()
        .context("the threads that serve cannot be started")?;
    let outcome = runtime.block_on(async {
        let app = App::bind(config).await?;
        outlive_signals().context("signals cannot be watched")?;
        let stop = stop_signal().context("signals cannot be watched")?;
        anyhow::Ok(app.run(stop, &mut std::io::stdout()).await?)
    });
    if let Ok(Ended::WithWorkLeft) = outcome {
        end_process(0);
    }
    runtime.shutdown_background();
    outcome.map(|_| ())
}

/// Has signals do nothing that would end the process and are no wish to end it: a terminal that goes away, and a file
/// that would become larger than the system allows, which is an error of whoever writes it.
fn outlive_signals() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    for kind in [SignalKind::hangup(), SignalKind::from_raw(libc::SIGXFSZ)] {
        // Whoever listens first takes the system's own reaction away for good.
        drop(signal(kind)?);
    }
    Ok(())
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

fn log(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log).with_context(|| format!("log = '{}'", config.log))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match config.log_format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
