//! The command line: what the arguments mean, and how a command's end becomes an exit code.
//!
//! Always: an error is one line on standard error, `weir: …`, and exit code 1; a wrong argument is exit code 2; a
//! reader that stops reading early is no error.
//! Not here: what is live. Commands other than `serve`, `check-config`, `audit verify`, `bench` and `tune` ask a
//! server for it.

mod audit;
mod bench;
mod check;
mod client;
mod experiments;
mod feedback;
mod label;
mod load;
mod options;
mod output;
mod progress;
mod rollout;
mod route;
mod serve;
mod shadows;
mod status;
mod text;
mod tune;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::options::{ReaderGone, Verdict};
use self::serve::ServeArguments;
use crate::backend::onnx::{WORKER_ARGUMENT, opt_out_of_telemetry, run_as_worker};

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
    /// Show models, versions, their shares and how they do
    Status(status::StatusArguments),
    /// Show or change who gets which version of a model
    Route(route::RouteArguments),
    /// Bring back what was live before the last change of a model's route; ends a rollout that is under way
    Rollback(route::RollbackArguments),
    /// Name versions, so that clients can ask for "stable" instead of 3
    Label(label::LabelArguments),
    /// Load a version, so that a route can name it
    Load(load::LoadArguments),
    /// Unload a version; requests that it accepted are answered first
    Unload(load::LoadArguments),
    /// Move a model to another version step by step, guarded; --watch tells how it ends by the exit code
    Rollout(rollout::RolloutArguments),
    /// Compare the answers of a model's shadows with those that clients got
    Shadows(shadows::ShadowsArguments),
    /// Compare the outcomes of a model's arms
    Experiments(experiments::ExperimentsArguments),
    /// Tell what became of a request, by its id
    Feedback(feedback::FeedbackArguments),
    /// Read the record of changes, or verify that nobody altered it
    Audit(audit::AuditArguments),
    Bench(Box<bench::BenchArguments>),
    Tune(tune::TuneArguments),
}

/// Runs the program. Errors go to standard error as one line.
pub fn main() -> ExitCode {
    // First of all: no other thread runs yet.
    opt_out_of_telemetry();
    // Not for people: a server starts itself so, with a socket as standard input.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == WORKER_ARGUMENT) {
        run_as_worker();
    }
    let arguments = Arguments::parse();
    let command = arguments.command.unwrap_or_else(|| Command::Serve(Box::new(arguments.serve)));
    match run(command, &mut std::io::stdout()) {
        Ok(verdict) => verdict.into(),
        Err(error) if error.is::<ReaderGone>() => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be reading.
            let _ = writeln!(std::io::stderr(), "weir: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command, out: &mut dyn Write) -> anyhow::Result<Verdict> {
    let done = |outcome: anyhow::Result<()>| outcome.map(|()| Verdict::Well);
    match command {
        Command::Serve(serve) => done(serve::serve(*serve)),
        Command::CheckConfig(check) => {
            Ok(if check::check_config(*check, out)? { Verdict::Well } else { Verdict::Wrong })
        }
        Command::Status(status) => done(status.run(out)),
        Command::Route(route) => done(route.run(out)),
        Command::Rollback(rollback) => done(rollback.run(out)),
        Command::Label(label) => done(label.run(out)),
        Command::Load(version) => version.load(out),
        Command::Unload(version) => done(version.unload(out)),
        Command::Rollout(rollout) => rollout.run(out),
        Command::Shadows(shadows) => done(shadows.run(out)),
        Command::Experiments(experiments) => done(experiments.run(out)),
        Command::Feedback(feedback) => done(feedback.run(out)),
        Command::Audit(audit) => done(audit.run(out)),
        Command::Bench(bench) => bench.run(out),
        Command::Tune(tune) => tune.run(out),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_and_option_is_explained() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for option in command.get_arguments() {
                assert!(option.get_help().is_some(), "{} {}", command.get_name(), option.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        let command = Arguments::command();
        command.get_subcommands().for_each(check);
    }

    #[test]
    fn command_lines_of_the_documentation_are_understood() {
        for line in [
            "weir",
            "weir --models x",
            "weir status",
            "weir status digits --watch --json --server http://host:1",
            "weir route show digits",
            "weir route set digits 1=90 2=10 --shadow 3 --shadow 4=0.5 --sticky header:x-user-id --if-revision 7",
            "weir route set digits 1=1 --rule header:x-tier=gold->2 --rule header:a=b->3",
            "weir route --server http://host:1 clear digits --actor me",
            "weir rollback digits",
            "weir label set digits stable 3",
            "weir label delete digits stable",
            "weir load digits 3",
            "weir unload digits 3",
            "weir rollout start digits 3 --steps 1,5,25 --min-requests 10 --min-seconds 0.5 --alpha 0.05 \
             --error-margin 0.02 --latency-objective-ms 50 --shift 2 --disagreement 0.1 --watch",
            "weir rollout list digits",
            "weir rollout show digits",
            "weir rollout pause digits r1",
            "weir rollout watch digits r1",
            "weir shadows digits",
            "weir experiments digits",
            "weir feedback digits abc -1.5",
            "weir feedback digits abc 1 --label",
            "weir audit list --limit 10 --model digits",
            "weir bench digits --version 2 --server http://host:1 --protocol grpc,json,binary --rate 10 --arrivals bursty",
            "weir bench digits --url host:1 --objective 5 --find-rate --json -",
            "weir tune digits --models x --version 2 --seconds 5 --batch 1,8 --shape image:64 --write --json",
            "weir audit verify --state x --expect 1:00",
        ] {
            let words = line.split_whitespace();
            let parsed = Arguments::try_parse_from(words);
            let hash_is_short = line.ends_with("1:00");
            assert_eq!(parsed.is_ok(), !hash_is_short, "{line}: {:?}", parsed.err().map(|e| e.to_string()));
        }
    }
}
