//! `weir audit`: the record of changes, read from a server, or verified where it lies.

use std::io::Write;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::Call;
use super::options::{self, ServerArguments, print};
use super::text::{self, moment};
use crate::config::default_state;
use crate::control::record::Head;
use crate::control::store;
use crate::proto::control::{AuditRecord, ListAuditResponse};

/// Characters of what a change replaced, and of what by; `--json` has all of it.
const CHANGE_CHARACTERS: usize = 60;

/// Hexadecimal digits of a record's hash, a sha256.
const HASH_DIGITS: usize = 64;

/// Arguments of `weir audit`.
#[derive(Debug, Args)]
pub struct AuditArguments {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// List the changes, the newest first
    List(ListArguments),
    /// Verify that no record was altered, removed or inserted; needs no server
    Verify(VerifyArguments),
}

#[derive(Debug, Args)]
struct ListArguments {
    /// How many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
    /// Only those of this model
    #[arg(long, value_name = "MODEL", value_parser = options::model)]
    model: Option<String>,
    /// Only those before this number
    #[arg(long, value_name = "SEQ")]
    before: Option<u64>,
    #[command(flatten)]
    server: ServerArguments,
}

#[derive(Debug, Args)]
struct VerifyArguments {
    /// The server's state folder [default: that of the folder `models`]
    #[arg(long, env = "WEIR_STATE", value_name = "DIR")]
    state: Option<PathBuf>,
    /// A record that must be there, as it was noted elsewhere: finds the removal of the newest records
    #[arg(long, value_name = "SEQ:HASH", value_parser = kept)]
    expect: Option<Head>,
}

impl AuditArguments {
    /// Lists or verifies. A broken record is an error.
    pub fn run(self, out: &mut dyn Write) -> anyhow::Result<()> {
        match self.command {
            AuditCommand::List(list) => list.run(out),
            AuditCommand::Verify(verify) => verify.run(out),
        }
    }
}

impl ListArguments {
    fn run(self, out: &mut dyn Write) -> anyhow::Result<()> {
        let mut query = vec![("limit", self.limit.to_string())];
        query.extend(self.before.map(|seq| ("before", seq.to_string())));
        query.extend(self.model.clone().map(|model| ("model", model)));
        let answer = self.server.client()?.ask(Call::get(&["audit"]).query(&query))?;
        if self.server.json {
            return print(out, &format!("{}\n", answer.json().trim_end()));
        }
        print(out, &render(&answer.read_after(changes_as_text)?))
    }
}

impl VerifyArguments {
    fn run(self, out: &mut dyn Write) -> anyhow::Result<()> {
        let state = self.state.unwrap_or_else(|| default_state(Path::new("models")));
        let verified = store::verify(&state, self.expect.as_ref())
            .with_context(|| format!("the record in {}", state.display()))?;
        let records = text::counted(verified.records, "record");
        print(out, &format!("the record is whole: {records}, head {}\n", verified.head))
    }
}

/// `12:` and 64 hexadecimal digits, as `weir audit list` prints the head.
fn kept(text: &str) -> Result<Head, String> {
    let parts = text.split_once(':').and_then(|(seq, hash)| Some((seq.parse().ok()?, hash)));
    let well = |hash: &str| hash.len() == HASH_DIGITS && hash.bytes().all(|digit| digit.is_ascii_hexdigit());
    match parts {
        Some((seq, hash)) if well(hash) => Ok(Head { seq, hash: hash.to_ascii_lowercase() }),
        _ => Err(format!("'{text}' is not SEQ:HASH, a number and {HASH_DIGITS} hexadecimal digits")),
    }
}

/// Over HTTP a record's `from` and `to` are JSON itself; in the message they are JSON as text.
fn changes_as_text(page: &mut Value) {
    let records = page.get_mut("records").and_then(Value::as_array_mut);
    for record in records.into_iter().flatten() {
        for key in ["from", "to"] {
            match record.get_mut(key) {
                None | Some(Value::String(_) | Value::Null) => {}
                Some(change) => *change = Value::String(change.to_string()),
            }
        }
    }
}

fn render(page: &ListAuditResponse) -> String {
    if page.records.is_empty() {
        return "no records\n".to_owned();
    }
    let headings = [">SEQ", "AT (UTC)", "BY", "ACTION", "MODEL", ">VERSION", "OUTCOME", "CHANGE"];
    let mut text = text::table(&headings, page.records.iter().map(row));
    if page.next_before > 0 {
        text.push_str(&format!("older ones: --before {}\n", page.next_before));
    }
    if !page.head_hash.is_empty() {
        text.push_str(&format!("head {}:{}\n", page.head_seq, page.head_hash));
    }
    text
}

fn row(record: &AuditRecord) -> Vec<String> {
    let version = if record.version == 0 { "-".to_owned() } else { record.version.to_string() };
    vec![
        record.seq.to_string(),
        moment(record.at_ms),
        text::or_dash(record.actor.clone()),
        record.action.clone(),
        text::or_dash(record.model.clone()),
        version,
        record.outcome.clone(),
        change(&record.from, &record.to),
    ]
}

fn change(from: &str, to: &str) -> String {
    let cut = |json: &str| text::cut(json, CHANGE_CHARACTERS);
    match (from.is_empty(), to.is_empty()) {
        (true, true) => String::new(),
        (true, false) => cut(to),
        (false, true) => format!("{} removed", cut(from)),
        (false, false) => format!("{} -> {}", cut(from), cut(to)),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::client::canned::Canned;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        audit: AuditArguments,
    }

    #[test]
    fn a_kept_head_is_a_number_and_a_sha256() {
        let hash = "AB".repeat(32);
        assert_eq!(kept(&format!("12:{hash}")), Ok(Head { seq: 12, hash: hash.to_lowercase() }));
        for wrong in [
            "",
            "12",
            "12:ab",
            &hash,
            &format!("x:{hash}"),
            &format!("1:{hash}0"),
            &format!("1:{}z", &hash[1..]),
        ] {
            assert!(kept(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn records_read_as_who_changed_what_into_what() {
        let mut json = serde_json::json!({"records": [
            {"seq": 9, "at_ms": 1000, "actor": "ann@host", "action": "route", "model": "digits", "from": null,
             "to": {"arms": [{"version": 2, "weight": 1.0}]}, "outcome": "done", "hash": "ff"},
            {"seq": 8, "at_ms": 1000, "actor": "bob", "action": "unload", "model": "digits", "version": 1,
             "from": "READY", "to": "UNAVAILABLE", "outcome": "done"}],
            "next_before": 8, "head_seq": 9, "head_hash": "ff"});
        changes_as_text(&mut json);
        json["records"][0]["from"] = Value::String(String::new());
        let page: ListAuditResponse = serde_json::from_value(json).unwrap();
        let expected = "\
SEQ  AT (UTC)             BY        ACTION  MODEL   VERSION  OUTCOME  CHANGE
  9  1970-01-01 00:00:01  ann@host  route   digits        -  done     {\"arms\":[{\"version\":2,\"weight\":1.0}]}
  8  1970-01-01 00:00:01  bob       unload  digits        1  done     READY -> UNAVAILABLE
older ones: --before 8
head 9:ff
";
        assert_eq!(render(&page), expected);
        assert_eq!(change("{}", ""), "{} removed");
        assert_eq!(render(&ListAuditResponse::default()), "no records\n");
    }

    #[test]
    fn a_page_is_asked_for_with_its_bounds() {
        let body = r#"{"records":[{"seq":1,"from":{"a":null},"to":[1]}],"next_before":0,"head_seq":1,"head_hash":"f"}"#;
        let server = Canned::new(&[(200, body)]);
        let url = server.url();
        let line = ["x", "list", "--limit", "5", "--model", "digits", "--before", "9", "--server", &url];
        Line::parse_from(line).audit.run(&mut Vec::new()).unwrap();
        Line::parse_from(["x", "list", "--server", &url, "--json"]).audit.run(&mut Vec::new()).unwrap();
        let lines: Vec<_> = server.asked().into_iter().map(|asked| asked.line).collect();
        let path = "GET /control/v1/audit?limit";
        assert_eq!(lines, [format!("{path}=5&before=9&model=digits"), format!("{path}=20")]);
    }

    #[test]
    fn a_folder_without_a_record_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let verify = VerifyArguments { state: Some(folder.path().to_owned()), expect: None };
        let error = format!("{:#}", verify.run(&mut Vec::new()).unwrap_err());
        assert!(error.contains(&folder.path().display().to_string()), "{error}");
    }
}
