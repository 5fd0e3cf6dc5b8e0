//! The command line.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::app::{App, Ended};
use crate::backend::onnx::{end_process, opt_out_of_telemetry};
use crate::config::{Config, LogFormat, Settings};
use crate::model::repository::{self, Candidate};

/// A model inference gateway: ONNX models behind the Open Inference Protocol, over gRPC and HTTP.
///
/// With no command it serves. Every option is also an environment variable (WEIR_...) and a key of the --config
/// file (TOML, dashes as underscores); options win over variables, variables over the file.
#[derive(Debug, Parser)]
#[command(name = "weir", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the models of a folder (the default)
    Serve(Box<ServeArguments>),
    /// Check the configuration and every config.pbtxt, print what is in force, and exit; model files are not read
    CheckConfig(Box<ServeArguments>),
}

#[derive(Debug, Clone, Args)]
struct ServeArguments {
    /// Configuration file in TOML
    #[arg(long, env = "WEIR_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

impl ServeArguments {
    fn settings(self) -> anyhow::Result<Settings> {
        Ok(match self.config {
            Some(path) => self.settings.or(Settings::read(&path)?),
            None => self.settings,
        })
    }
}

/// Runs the program. Errors go to standard error as one line.
pub fn main() -> ExitCode {
    // First of all: no other thread runs yet.
    opt_out_of_telemetry();
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        None => serve(arguments.serve),
        Some(Command::Serve(serve_arguments)) => serve(*serve_arguments),
        Some(Command::CheckConfig(check)) => return report(check_config(*check)),
    };
    report(outcome.map(|()| true))
}

fn report(outcome: anyhow::Result<bool>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("weir: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: ServeArguments) -> anyhow::Result<()> {
    let config = arguments.settings()?.resolve()?;
    log(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.worker_threads)
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

/// Prints the settings in force and what is wrong with models' configs. Returns whether all is well.
fn check_config(arguments: ServeArguments) -> anyhow::Result<bool> {
    let settings = arguments.settings()?.with_defaults();
    let config = settings.clone().resolve()?;
    let mut report = toml::to_string(&settings).context("the settings cannot be written")?;
    let scan = repository::scan(&config.models, &config.defaults).with_context(|| {
        format!("the models folder {} cannot be read; choose another with --models", config.models.display())
    })?;
    for name in &scan.misnamed {
        report.push_str(&format!(
            "# {name:?}: its name cannot be a model's; use letters, digits, '_', '-' and '.'\n"
        ));
    }
    let mut well = scan.misnamed.is_empty();
    for candidate in &scan.candidates {
        let verdict = config_verdict(candidate);
        well &= verdict.is_ok();
        let verdict = verdict.unwrap_or_else(|reason| reason);
        report.push_str(&format!("# {}: {verdict}\n", candidate.name));
    }
    // Whoever reads may stop early; that is no error.
    let _ = std::io::stdout().write_all(report.as_bytes());
    Ok(well)
}

/// What can be said of a model without reading its file.
fn config_verdict(candidate: &Candidate) -> Result<String, String> {
    let versions = candidate.chosen()?;
    let config = candidate.config.as_ref().map_err(Clone::clone)?;
    for version in &versions {
        candidate.artefact(*version, &config.file_name)?;
    }
    let versions: Vec<String> = versions.iter().map(ToString::to_string).collect();
    let mut verdict = format!("config ok, versions {}", versions.join(", "));
    for hint in &config.hints {
        verdict.push_str(&format!("; {hint} has no effect"));
    }
    Ok(verdict)
}
