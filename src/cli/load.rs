//! `weir load` and `weir unload`: which versions are in memory.

use std::io::Write;

use clap::Args;

use super::client::Call;
use super::options::{self, ActorArguments, ServerArguments, Verdict};
use crate::proto::control::VersionStatus;

/// Arguments of `weir load` and `weir unload`.
#[derive(Debug, Args)]
pub struct LoadArguments {
    /// Whose version
    #[arg(value_parser = options::model)]
    model: String,
    /// Which one
    #[arg(value_parser = options::version)]
    version: u64,
    #[command(flatten)]
    actor: ActorArguments,
    #[command(flatten)]
    server: ServerArguments,
}

impl LoadArguments {
    /// Loads the version and prints what became of it. Returns whether it is ready.
    pub fn load(self, out: &mut dyn Write) -> anyhow::Result<Verdict> {
        let status = self.change("load", out)?;
        Ok(if status.state == "READY" { Verdict::Well } else { Verdict::Wrong })
    }

    /// Unloads the version and prints what became of it.
    pub fn unload(self, out: &mut dyn Write) -> anyhow::Result<()> {
        self.change("unload", out).map(|_| ())
    }

    fn change(&self, verb: &str, out: &mut dyn Write) -> anyhow::Result<VersionStatus> {
        let number = self.version.to_string();
        let call = Call::post(&["models", &self.model, "versions", &number, verb]).by(self.actor.name());
        let answer = self.server.client()?.ask(call)?;
        self.server.show(out, &answer, |status: &VersionStatus| render(&self.model, self.version, status))?;
        answer.read()
    }
}

fn render(model: &str, version: u64, status: &VersionStatus) -> String {
    let reason = if status.reason.is_empty() { String::new() } else { format!(": {}", status.reason) };
    format!("{model}/{version} {}{reason}\n", status.state)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::client::canned::Canned;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        version: LoadArguments,
    }

    #[test]
    fn versions_are_loaded_and_unloaded_by_number() {
        let server = Canned::new(&[
            (200, r#"{"version":3,"state":"READY"}"#),
            (200, r#"{"version":3,"state":"UNAVAILABLE"}"#),
        ]);
        let line =
            || Line::parse_from(["x", "digits", "3", "--actor", "ann", "--server", &server.url()]).version;
        assert_eq!(line().load(&mut Vec::new()).unwrap(), Verdict::Well);
        line().unload(&mut Vec::new()).unwrap();
        assert_eq!(line().load(&mut Vec::new()).unwrap(), Verdict::Wrong);
        let lines: Vec<_> = server.asked().into_iter().map(|asked| asked.line).collect();
        let path = "POST /control/v1/models/digits/versions/3";
        assert_eq!(lines, [format!("{path}/load"), format!("{path}/unload"), format!("{path}/load")]);
    }

    #[test]
    fn a_version_that_is_not_ready_says_why() {
        let status = VersionStatus {
            state: "UNAVAILABLE".to_owned(),
            reason: "no file".to_owned(),
            ..Default::default()
        };
        assert_eq!(render("digits", 3, &status), "digits/3 UNAVAILABLE: no file\n");
    }
}
