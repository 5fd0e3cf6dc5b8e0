//! What the commands that ask a server have in common: where it is, who asks, and how answers are shown.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::Args;
use serde::de::DeserializeOwned;

use super::client::{Address, Answer, Client, TlsArguments};
use crate::id::{ModelName, Version};

/// How a command that ran to its end ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Well,
    /// What was checked is wrong: exit code 1.
    Wrong,
    /// A rollout that was watched did not complete: exit code 2.
    NotRolledOut,
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Well => ExitCode::SUCCESS,
            Verdict::Wrong => ExitCode::FAILURE,
            Verdict::NotRolledOut => ExitCode::from(2),
        }
    }
}

/// Whoever read standard output stopped. It ends the command and is no error.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads what is printed")]
pub struct ReaderGone;

/// Writes a text and flushes it.
///
/// Errors: [`ReaderGone`], or what else keeps the text from being written.
pub fn print(out: &mut dyn Write, text: &str) -> anyhow::Result<()> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        outcome => outcome.map_err(|error| anyhow::anyhow!("standard output cannot be written: {error}")),
    }
}

/// The server that is asked.
#[derive(Debug, Clone, Args)]
pub struct ServerArguments {
    /// HTTP address of the server that is asked
    #[arg(
        long,
        env = "WEIR_SERVER",
        value_name = "URL",
        default_value = "http://127.0.0.1:8000",
        global = true
    )]
    pub server: Address,
    #[command(flatten)]
    tls: TlsArguments,
    /// Print the server's answer as it is, in JSON
    #[arg(long, global = true)]
    pub json: bool,
}

impl ServerArguments {
    /// Ready to ask; nothing is connected yet.
    pub fn client(&self) -> anyhow::Result<Client> {
        Client::new(self.server.clone(), &self.tls)
    }

    /// An answer as text: the server's own JSON on one line, or what `render` makes of it.
    pub fn text<T: DeserializeOwned>(
        &self,
        answer: &Answer,
        render: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<String> {
        Ok(if self.json { format!("{}\n", answer.json().trim_end()) } else { render(&answer.read()?) })
    }

    /// Prints an answer as [`Self::text`] puts it.
    pub fn show<T: DeserializeOwned>(
        &self,
        out: &mut dyn Write,
        answer: &Answer,
        render: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        print(out, &self.text(answer, render)?)
    }
}

/// Who asks for a change.
#[derive(Debug, Clone, Args)]
pub struct ActorArguments {
    /// Who asks, for the record of changes (USER@HOST unless given)
    #[arg(long, env = "WEIR_ACTOR", value_name = "NAME", value_parser = actor)]
    actor: Option<String>,
}

impl ActorArguments {
    /// The name given, else the user's with the machine's.
    pub fn name(&self) -> String {
        self.actor.clone().unwrap_or_else(|| printable(&format!("{}@{}", user(), host())))
    }
}

fn actor(text: &str) -> Result<String, String> {
    let well = !text.trim().is_empty() && text == printable(text);
    if well { Ok(text.trim().to_owned()) } else { Err("a name is printable ASCII and not empty".to_owned()) }
}

/// HTTP headers hold ASCII only.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect()
}

fn user() -> String {
    let set = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    set("USER").or_else(|| set("LOGNAME")).unwrap_or_else(|| "unknown".to_owned())
}

/// Linux tells the machine's name in a file, other systems by a program.
fn host() -> String {
    let told = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| {
        let output = std::process::Command::new("hostname").output().ok()?;
        String::from_utf8(output.stdout).ok()
    });
    let name = told.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    name.unwrap_or_else(|| "unknown".to_owned())
}

/// A model's name on the command line.
pub fn model(text: &str) -> Result<String, String> {
    let name = ModelName::parse(text).ok_or("a model's name is letters, digits, '_', '-' and '.'")?;
    Ok(name.as_str().to_owned())
}

/// A version's number on the command line.
pub fn version(text: &str) -> Result<u64, String> {
    let version = Version::parse(text).ok_or_else(|| format!("'{text}' is not a version, such as 3"))?;
    Ok(version.number())
}

/// An input's dimensions on the command line: `NAME:DIMS`.
pub fn shape(text: &str) -> Result<(String, Vec<i64>), String> {
    let parsed = text.rsplit_once(':').and_then(|(name, dims)| {
        let dims =
            dims.split(',').map(|dim| dim.parse().ok().filter(|dim| *dim >= 0)).collect::<Option<_>>()?;
        (!name.is_empty()).then(|| (name.to_owned(), dims))
    });
    parsed.ok_or_else(|| format!("'{text}' is not NAME:DIMS, such as image:3,224,224"))
}

/// A number from 0 to 1.
pub fn part(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|part| (0.0..=1.0).contains(part));
    number.ok_or_else(|| format!("'{text}' is not a number from 0 to 1"))
}

/// A finite number of 0 or more.
pub fn amount(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|amount: &f64| amount.is_finite() && *amount >= 0.0);
    number.ok_or_else(|| format!("'{text}' is not a number of 0 or more"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_can_stand_in_a_header() {
        assert_eq!(actor(" ann from ops "), Ok("ann from ops".to_owned()));
        for wrong in ["", "  ", "Zoë", "a\nb"] {
            assert!(actor(wrong).is_err(), "{wrong:?}");
        }
        let by_default = ActorArguments { actor: None }.name();
        assert!(by_default.contains('@') && by_default == printable(&by_default), "{by_default}");
    }

    #[test]
    fn numbers_out_of_range_are_refused_with_their_range() {
        assert_eq!(part("0.25"), Ok(0.25));
        for wrong in ["1.01", "-0.1", "nan", "50%", ""] {
            assert!(part(wrong).is_err_and(|error| error.ends_with("from 0 to 1")), "{wrong}");
        }
        assert_eq!(amount("1e3"), Ok(1000.0));
        for wrong in ["-1", "inf", "NaN", "x"] {
            assert!(amount(wrong).is_err(), "{wrong}");
        }
        assert_eq!(version("12"), Ok(12));
        for wrong in ["0", "01", "v2", "-1", ""] {
            assert!(version(wrong).is_err_and(|error| error.contains("such as 3")), "{wrong}");
        }
        assert!(model("..").is_err() && model("digits").is_ok());
    }
}
