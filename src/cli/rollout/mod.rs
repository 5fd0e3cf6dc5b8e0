//! `weir rollout`: a model moves to another version step by step, and goes back when a guard says so.

mod report;
mod start;
mod watch;

use std::io::Write;

use clap::{Args, Subcommand};

use self::start::StartArguments;
use self::watch::Watched;
use super::client::{Call, Client};
use super::options::{self, ActorArguments, ServerArguments, Verdict};
use crate::proto::control::{ListRolloutsResponse, Rollout};

/// Arguments of `weir rollout`.
#[derive(Debug, Args)]
pub struct RolloutArguments {
    #[command(subcommand)]
    command: RolloutCommand,
    #[command(flatten)]
    server: ServerArguments,
}

#[derive(Debug, Subcommand)]
enum RolloutCommand {
    /// Begin a rollout
    ///
    /// With --watch the exit code tells how it ended: 0 completed, 2 rolled back or aborted, 1 not known.
    Start(StartArguments),
    /// List a model's rollouts, the one under way among them
    List {
        /// Whose rollouts
        #[arg(value_parser = options::model)]
        model: String,
    },
    /// Show a rollout: its step, what was counted, and what each guard says
    Show(Which),
    /// Watch a rollout to its end; interrupting that leaves the rollout alone
    ///
    /// The exit code tells how it ended: 0 completed, 2 rolled back or aborted, 1 not known.
    Watch(Which),
    /// Stay at the step until it is resumed
    Pause(Change),
    /// Go on after a pause
    Resume(Change),
    /// Skip the steps that are left: the target gets everything now
    Promote(Change),
    /// Go back to what was live before
    Abort(Change),
}

#[derive(Debug, Args)]
struct Which {
    /// Whose rollout
    #[arg(value_parser = options::model)]
    model: String,
    /// Which one; the one under way if it is not given
    id: Option<String>,
}

#[derive(Debug, Args)]
struct Change {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    actor: ActorArguments,
}

impl RolloutArguments {
    /// Makes the change, if any, and prints the rollout; watching, says how it ended.
    pub fn run(self, out: &mut dyn Write) -> anyhow::Result<Verdict> {
        let client = self.server.client()?;
        let watch = |model: &str, id: &str, out| {
            let watched = Watched { client: &client, server: &self.server, model, id };
            watched.to_its_end(out)
        };
        let call = match self.command {
            RolloutCommand::Start(start) if start.watch => {
                let begun: Rollout = client.ask(start.call())?.read()?;
                return watch(&start.model, &begun.id, out);
            }
            RolloutCommand::Watch(which) => return watch(&which.model, &which.id(&client)?, out),
            RolloutCommand::List { model } => {
                let answer = client.ask(Call::get(&["models", &model, "rollouts"]))?;
                self.server.show(out, &answer, report::list)?;
                return Ok(Verdict::Well);
            }
            RolloutCommand::Start(start) => start.call(),
            RolloutCommand::Show(which) => {
                Call::get(&["models", &which.model, "rollouts", &which.id(&client)?])
            }
            RolloutCommand::Pause(change) => change.call("pause", &client)?,
            RolloutCommand::Resume(change) => change.call("resume", &client)?,
            RolloutCommand::Promote(change) => change.call("promote", &client)?,
            RolloutCommand::Abort(change) => change.call("abort", &client)?,
        };
        self.server.show(out, &client.ask(call)?, report::rollout)?;
        Ok(Verdict::Well)
    }
}

impl Change {
    fn call(&self, verb: &str, client: &Client) -> anyhow::Result<Call> {
        let id = self.which.id(client)?;
        Ok(Call::post(&["models", &self.which.model, "rollouts", &id, verb]).by(self.actor.name()))
    }
}

impl Which {
    /// The id given, else that of the rollout under way.
    ///
    /// Errors: none is under way, or the server cannot be asked.
    fn id(&self, client: &Client) -> anyhow::Result<String> {
        if let Some(id) = &self.id {
            return Ok(id.clone());
        }
        let list: ListRolloutsResponse =
            client.ask(Call::get(&["models", &self.model, "rollouts"]))?.read()?;
        let open = list.rollouts.into_iter().find(|rollout| under_way(&rollout.state));
        let model = &self.model;
        open.map(|rollout| rollout.id).ok_or_else(|| {
            anyhow::anyhow!(
                "no rollout of '{model}' is under way; `weir rollout list {model}` names those that ended"
            )
        })
    }
}

/// Whether a rollout in that state may still change.
fn under_way(state: &str) -> bool {
    matches!(state, "running" | "paused")
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;
    use crate::cli::client::canned::Canned;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        rollout: RolloutArguments,
    }

    fn run(server: &Canned, words: &[&str]) -> anyhow::Result<Verdict> {
        let url = server.url();
        let line = [&["rollout"], words, &["--server", &url]].concat();
        Line::parse_from(line).rollout.run(&mut Vec::new())
    }

    fn lines(server: &Canned) -> Vec<String> {
        let short = |line: String| line.replace("/control/v1/models/digits/rollouts", "…");
        server.asked().into_iter().map(|asked| short(asked.line)).collect()
    }

    #[test]
    fn a_start_says_only_what_was_given() {
        let server = Canned::new(&[(200, "{}")]);
        run(&server, &["start", "digits", "3", "--actor", "ann"]).unwrap();
        run(
            &server,
            &[
                "start",
                "digits",
                "3",
                "--steps",
                "5,50",
                "--min-requests",
                "10",
                "--min-seconds",
                "0.5",
                "--alpha",
                "0.05",
                "--latency-objective-ms",
                "40",
                "--disagreement",
                "0.1",
            ],
        )
        .unwrap();
        let asked = server.asked();
        assert_eq!(
            (asked[0].line.as_str(), asked[0].actor.as_deref()),
            ("POST /control/v1/models/digits/rollouts", Some("ann"))
        );
        assert_eq!(asked[0].body, json!({"target": 3, "steps": []}));
        let expected = json!({
            "target": 3, "steps": [5.0, 50.0], "step_requests_min": 10, "step_seconds_min": 0.5, "alpha": 0.05,
            "guards": {"errors": {}, "latency": {"objective_ms": 40.0}, "disagreement": {"max": 0.1}},
        });
        assert_eq!(asked[1].body, expected);
    }

    #[test]
    fn without_an_id_the_rollout_under_way_is_meant() {
        let list = r#"{"rollouts":[{"id":"r1","state":"completed"},{"id":"r2","state":"paused"}]}"#;
        let server = Canned::new(&[(200, list), (200, "{}")]);
        run(&server, &["resume", "digits", "--actor", "ann"]).unwrap();
        assert_eq!(lines(&server), ["GET …", "POST …/r2/resume"]);
        assert_eq!(server.asked()[1].actor.as_deref(), Some("ann"));

        let none = Canned::new(&[(200, r#"{"rollouts":[{"id":"r1","state":"aborted"}]}"#)]);
        let error = run(&none, &["abort", "digits"]).unwrap_err().to_string();
        assert!(error.contains("no rollout of 'digits' is under way"), "{error}");
    }

    #[test]
    fn an_id_that_is_given_is_asked_for_at_once() {
        for verb in ["pause", "resume", "promote", "abort"] {
            let server = Canned::new(&[(200, "{}")]);
            run(&server, &[verb, "digits", "r7"]).unwrap();
            assert_eq!(lines(&server), [format!("POST …/r7/{verb}")]);
        }
        let server = Canned::new(&[(200, "{}")]);
        run(&server, &["show", "digits", "r7"]).unwrap();
        run(&server, &["list", "digits"]).unwrap();
        assert_eq!(lines(&server), ["GET …/r7", "GET …"]);
    }

    #[test]
    fn watching_ends_with_how_the_rollout_ended() {
        for (state, verdict) in [
            ("completed", Verdict::Well),
            ("rolled_back", Verdict::NotRolledOut),
            ("aborted", Verdict::NotRolledOut),
        ] {
            let ended = format!(r#"{{"id":"r7","state":"{state}"}}"#);
            let server = Canned::new(&[(200, r#"{"id":"r7","state":"running"}"#), (200, &ended)]);
            assert_eq!(
                run(&server, &["start", "digits", "3", "--watch", "--json"]).unwrap(),
                verdict,
                "{state}"
            );
            assert_eq!(lines(&server), ["POST …", "GET …/r7"]);
            let server = Canned::new(&[(200, &ended)]);
            assert_eq!(run(&server, &["watch", "digits", "r7", "--json"]).unwrap(), verdict, "{state}");
        }
    }
}
