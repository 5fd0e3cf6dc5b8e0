//! `weir serve`: the server from its settings to its end.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use crate::app::{App, Ended};
use crate::backend::onnx::end_process;
use crate::config::{Config, DrainTimes, LogFormat, Settings};

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
    let again = arguments.clone();
    let settings = arguments.settings()?;
    let config = settings.clone().resolve()?;
    let set_log = log(&config)?;
    take_all_descriptors();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(ASIDE_THREADS)
        .thread_name("weir")
        .enable_all()
        .build()
        .context("the threads that serve cannot be started")?;
    let outcome = runtime.block_on(async {
        let (tell, drain) = watch::channel(config.drain);
        let reload = Reload { arguments: again, settings, set_log, drain: tell };
        reload.at_each_hangup().context("signals cannot be watched")?;
        let app = App::bind(config, drain).await?;
        let stop = stop_signal().context("signals cannot be watched")?;
        anyhow::Ok(app.run(stop, &mut std::io::stdout()).await?)
    });
    if let Ok(Ended::WithWorkLeft) = outcome {
        end_process(0);
    }
    runtime.shutdown_background();
    outcome.map(|_| ())
}

/// What reads the settings again when the process is told to (SIGHUP).
struct Reload {
    arguments: ServeArguments,
    /// Those in force.
    settings: Settings,
    set_log: SetLog,
    drain: watch::Sender<DrainTimes>,
}

/// Puts another log filter in force.
type SetLog = Box<dyn Fn(EnvFilter) + Send>;

/// Settings that take effect while the server runs.
const LIVE: [&str; 3] = ["log", "drain_seconds", "drain_delay_seconds"];

impl Reload {
    /// Errors: the system does not let the signal be watched.
    fn at_each_hangup(mut self) -> std::io::Result<()> {
        let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                if let Err(error) = self.read_again() {
                    tracing::error!("the settings stay as they are: {error:#}");
                }
            }
        });
        Ok(())
    }

    /// Errors: the settings are wrong; those in force stay.
    fn read_again(&mut self) -> anyhow::Result<()> {
        let settings = self.arguments.clone().settings()?;
        let config = settings.clone().resolve()?;
        let changed = self.settings.differing(&settings);
        let (live, later): (Vec<&str>, Vec<&str>) =
            changed.iter().map(String::as_str).partition(|key| LIVE.contains(key));
        (self.set_log)(EnvFilter::try_new(&config.log).context("log")?);
        self.drain.send_replace(config.drain);
        tracing::info!("read the settings again: {} changed", shown(&live));
        if !later.is_empty() {
            tracing::warn!("these take effect when the server is started again: {}", later.join(", "));
        }
        // What waits for a restart is told again at each signal.
        self.settings.log = settings.log;
        self.settings.drain_seconds = settings.drain_seconds;
        self.settings.drain_delay_seconds = settings.drain_delay_seconds;
        Ok(())
    }
}

fn shown(keys: &[&str]) -> String {
    if keys.is_empty() { "none".to_owned() } else { keys.join(", ") }
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

/// Begins the log; tells how to filter it otherwise.
fn log(config: &Config) -> anyhow::Result<SetLog> {
    let filter = EnvFilter::try_new(&config.log).with_context(|| format!("log = '{}'", config.log))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Colours are control characters.
        .with_writer(|| OneLine(std::io::stderr()))
        .with_ansi(false);
    // Reloading fails only where there is no log any more.
    Ok(match config.log_format {
        LogFormat::Text => {
            let builder = builder.with_target(false).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Box::new(move |filter| _ = handle.reload(filter))
        }
        LogFormat::Json => {
            let builder = builder.json().with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Box::new(move |filter| _ = handle.reload(filter))
        }
    })
}
