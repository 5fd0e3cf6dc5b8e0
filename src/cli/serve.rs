//! `weir serve`: the server from its settings to its end.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use super::output::{OneLine, Output};
use crate::api::{Tls, TlsError, TlsFiles, keep_a_thread};
use crate::app::{App, Ended};
use crate::backend::STACK_BYTES;
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
    let tls = config.tls.as_ref().map(Tls::read).transpose()?.map(Arc::new);
    take_all_descriptors();
    enough_threads().context("the threads that serve cannot be started")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(ASIDE_THREADS)
        .thread_name("weir")
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()
        .context("the threads that serve cannot be started")?;
    let outcome = runtime.block_on(async {
        tokio::spawn(keep_a_thread());
        let (tell, drain) = watch::channel(config.drain);
        let files = tls.clone().zip(config.tls.clone());
        let renewal = files.map(|(tls, files)| Renewal { tls, files, failed: None, warned: Instant::now() });
        let reload = Reload { arguments: again, settings, set_log, drain: tell, renewal };
        reload.begin().context("signals cannot be watched")?;
        let app = App::bind(config, drain, tls).await?;
        outlive_signals().context("signals cannot be watched")?;
        let stop = stop_signal().context("signals cannot be watched")?;
        anyhow::Ok(app.run(stop, &mut Output::default()).await?)
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
    /// `None`: the ports are in the clear.
    renewal: Option<Renewal>,
}

/// What keeps the certificate that is in force the one that is in the files.
struct Renewal {
    tls: Arc<Tls>,
    files: TlsFiles,
    /// What was wrong with the files when they were looked at last.
    failed: Option<String>,
    /// When it was last told that the certificate ends soon, if it does.
    warned: Instant,
}

/// How often it is told that a certificate ends soon, or has ended.
const WARNING_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// How often the files of the certificate are looked at without a signal: whoever renews them may have no way to send
/// one.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(60);

/// Puts another log filter in force.
type SetLog = Box<dyn Fn(EnvFilter) + Send>;

/// Settings that take effect while the server runs.
const LIVE: [&str; 3] = ["log", "drain_seconds", "drain_delay_seconds"];

/// Those that do so where there is TLS already.
const LIVE_WITH_TLS: [&str; 3] = ["tls_certificate", "tls_key", "tls_client_ca"];

impl Reload {
    /// Errors: the system does not let the signal be watched.
    fn begin(mut self) -> std::io::Result<()> {
        let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(RENEWAL_INTERVAL);
            loop {
                tokio::select! {
                    told = hangup.recv() => match told {
                        Some(()) => self.at_hangup(),
                        None => return,
                    },
                    _ = tick.tick() => {
                        if let Some(renewal) = &mut self.renewal {
                            renewal.look();
                        }
                    }
                }
            }
        });
        Ok(())
    }

    fn at_hangup(&mut self) {
        if let Err(error) = self.read_again() {
            tracing::error!("the settings stay as they are: {error:#}");
        }
    }

    /// Errors: the settings or the files that they name are wrong; what is in force stays.
    fn read_again(&mut self) -> anyhow::Result<()> {
        let settings = self.arguments.clone().settings()?;
        let config = settings.clone().resolve()?;
        let filter = EnvFilter::try_new(&config.log).context("log")?;
        let renewed = match (&mut self.renewal, config.tls) {
            (Some(renewal), Some(files)) => renewal.renew(files)?,
            _ => false,
        };
        let with_tls = self.renewal.is_some() && settings.tls_certificate.is_some();
        let live = |key: &str| LIVE.contains(&key) || (with_tls && LIVE_WITH_TLS.contains(&key));
        let changed = self.settings.differing(&settings);
        let (now, later): (Vec<&str>, Vec<&str>) =
            changed.iter().map(String::as_str).partition(|key| live(key));
        (self.set_log)(filter);
        self.drain.send_replace(config.drain);
        let certificate = if renewed { ", and the TLS files" } else { "" };
        tracing::info!("read the settings again: {} changed{certificate}", shown(&now));
        if !later.is_empty() {
            tracing::warn!("these take effect when the server is started again: {}", later.join(", "));
        }
        // What waits for a restart is told again at each signal.
        self.settings.log = settings.log;
        self.settings.drain_seconds = settings.drain_seconds;
        self.settings.drain_delay_seconds = settings.drain_delay_seconds;
        if with_tls {
            self.settings.tls_certificate = settings.tls_certificate;
            self.settings.tls_key = settings.tls_key;
            self.settings.tls_client_ca = settings.tls_client_ca;
        }
        Ok(())
    }
}

impl Renewal {
    /// Puts those files in force. Errors: they are wrong; what is in force stays.
    fn renew(&mut self, files: TlsFiles) -> Result<bool, TlsError> {
        let renewed = self.tls.renew(&files)?;
        (self.files, self.failed) = (files, None);
        Ok(renewed)
    }

    /// Looks whether there is something new in the files. The two of a pair are seldom replaced at one moment, so that
    /// what is wrong is told when it is so twice.
    fn look(&mut self) {
        if self.warned.elapsed() >= WARNING_INTERVAL {
            self.warned = Instant::now();
            self.tls.warn_of_end(&self.files.certificate);
        }
        match self.tls.renew(&self.files) {
            Ok(renewed) => {
                if renewed {
                    tracing::info!("read the TLS files again: they have changed");
                }
                self.failed = None;
            }
            Err(error) => {
                let failed = error.to_string();
                if self.failed.as_ref() == Some(&failed) {
                    tracing::error!("the TLS certificate in force stays: {failed}");
                }
                self.failed = Some(failed);
            }
        }
    }
}

fn shown(keys: &[&str]) -> String {
    if keys.is_empty() { "none".to_owned() } else { keys.join(", ") }
}

/// Signals that mean nothing here, and would end the process: a file that would become larger than the system allows is an
/// error of whoever writes it, tools that turn logs over send SIGUSR1, and timers are somebody else's. SIGHUP, which a
/// terminal sends when it goes away, has a listener.
fn outlive_signals() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let meaningless = [
        libc::SIGXFSZ,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGALRM,
        libc::SIGVTALRM,
        libc::SIGPROF,
        libc::SIGIO,
    ];
    for number in meaningless {
        // Whoever listens first takes the system's own reaction away for good.
        drop(signal(SignalKind::from_raw(number))?);
    }
    Ok(())
}

/// Whether the system gives as many threads as the first step needs: the runtime panics where it does not.
fn enough_threads() -> std::io::Result<()> {
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let ended = Mutex::new(ended);
    std::thread::scope(|scope| {
        let started = (0..=ASIDE_THREADS).try_for_each(|_| {
            // Each waits, so that they are there at once.
            let wait = || _ = ended.lock().map(|ended| ended.recv());
            std::thread::Builder::new().spawn_scoped(scope, wait).map(drop)
        });
        drop(end);
        started
    })
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
        tracing::error!("a second signal: ending at once");
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

/// Begins the log; tells how to filter it otherwise.
fn log(config: &Config) -> anyhow::Result<SetLog> {
    // The standard library's own words would wait for a reader.
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    let filter = EnvFilter::try_new(&config.log).with_context(|| format!("log = '{}'", config.log))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // Colours are control characters.
        .with_writer(|| OneLine)
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
