//! `weir label`: names of versions.

use std::io::Write;

use clap::{Args, Subcommand};
use serde_json::json;

use super::client::Call;
use super::options::{self, ActorArguments, ServerArguments};
use super::text;
use crate::proto::control::Labels;

/// Arguments of `weir label`.
#[derive(Debug, Args)]
pub struct LabelArguments {
    #[command(subcommand)]
    command: LabelCommand,
    #[command(flatten)]
    server: ServerArguments,
}

#[derive(Debug, Subcommand)]
enum LabelCommand {
    /// Let a label name a version, whatever it named before
    Set {
        /// Whose version
        #[arg(value_parser = options::model)]
        model: String,
        /// The name, such as stable
        label: String,
        /// What it names
        #[arg(value_parser = options::version)]
        version: u64,
        #[command(flatten)]
        actor: ActorArguments,
    },
    /// Remove a label
    Delete {
        /// Whose label
        #[arg(value_parser = options::model)]
        model: String,
        /// The name
        label: String,
        #[command(flatten)]
        actor: ActorArguments,
    },
}

impl LabelArguments {
    /// Makes the change and prints the labels that the model has then.
    pub fn run(self, out: &mut dyn Write) -> anyhow::Result<()> {
        let call = match self.command {
            LabelCommand::Set { model, label, version, actor } => {
                let body = json!({ "version": version });
                Call::put(&["models", &model, "labels", &label]).body(&body).by(actor.name())
            }
            LabelCommand::Delete { model, label, actor } => {
                Call::delete(&["models", &model, "labels", &label]).by(actor.name())
            }
        };
        self.server.show(out, &self.server.client()?.ask(call)?, render)
    }
}

fn render(labels: &Labels) -> String {
    if labels.labels.is_empty() {
        return "no labels\n".to_owned();
    }
    let rows = labels.labels.iter().map(|(label, version)| vec![label.clone(), version.to_string()]);
    text::table(&["LABEL", ">VERSION"], rows)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::client::canned::Canned;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        label: LabelArguments,
    }

    #[test]
    fn labels_are_set_and_deleted_under_their_name() {
        let server = Canned::new(&[(200, r#"{"labels":{"stable":3}}"#)]);
        let url = server.url();
        for line in [&["x", "set", "digits", "the best", "3"][..], &["x", "delete", "digits", "old"]] {
            Line::parse_from([line, &["--server", &url, "--actor", "ann"]].concat())
                .label
                .run(&mut Vec::new())
                .unwrap();
        }
        let asked = server.asked();
        assert_eq!(asked[0].line, "PUT /control/v1/models/digits/labels/the%20best");
        assert_eq!(asked[0].body, json!({"version": 3}));
        assert_eq!(asked[1].line, "DELETE /control/v1/models/digits/labels/old");
        assert!(asked.iter().all(|asked| asked.actor.as_deref() == Some("ann")));
    }

    #[test]
    fn labels_read_as_a_table() {
        let labels = Labels { labels: [("stable".to_owned(), 3)].into() };
        assert_eq!(render(&labels), "LABEL   VERSION\nstable        3\n");
        assert_eq!(render(&Labels::default()), "no labels\n");
    }
}
