//! The record of changes as JSON: what a change was made from and to is JSON inside the JSON, not text.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::proto::control as pb;

/// A page of the record, the newest first.
#[derive(Serialize)]
pub struct Page<'a> {
    records: Vec<Record<'a>>,
    next_before: u64,
    head_seq: u64,
    head_hash: &'a str,
}

#[derive(Serialize)]
struct Record<'a> {
    seq: u64,
    at_ms: u64,
    actor: &'a str,
    action: &'a str,
    model: &'a str,
    version: u64,
    from: Embedded<'a>,
    to: Embedded<'a>,
    digest: &'a str,
    outcome: &'a str,
    hash: &'a str,
}

/// JSON that goes into an answer byte for byte, because a record's hash covers its bytes.
#[derive(Serialize)]
#[serde(untagged)]
enum Embedded<'a> {
    Json(&'a RawValue),
    /// Not JSON after all: shown as it is.
    Text(&'a str),
    Nothing(()),
}

impl<'a> Embedded<'a> {
    fn of(text: &'a str) -> Self {
        match serde_json::from_str(text) {
            _ if text.is_empty() => Self::Nothing(()),
            Ok(json) => Self::Json(json),
            Err(_) => Self::Text(text),
        }
    }
}

impl<'a> Page<'a> {
    pub fn of(response: &'a pb::ListAuditResponse) -> Self {
        let record = |record: &'a pb::AuditRecord| Record {
            seq: record.seq,
            at_ms: record.at_ms,
            actor: &record.actor,
            action: &record.action,
            model: &record.model,
            version: record.version,
            from: Embedded::of(&record.from),
            to: Embedded::of(&record.to),
            digest: &record.digest,
            outcome: &record.outcome,
            hash: &record.hash,
        };
        Self {
            records: response.records.iter().map(record).collect(),
            next_before: response.next_before,
            head_seq: response.head_seq,
            head_hash: &response.head_hash,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_change_was_from_and_to_is_embedded_byte_for_byte() {
        for (text, shown) in [
            (r#"{"z":1,"a":0.10}"#, r#"{"z":1,"a":0.10}"#),
            ("", "null"),
            ("null", "null"),
            ("not json", r#""not json""#),
        ] {
            let record = pb::AuditRecord { from: text.to_owned(), ..Default::default() };
            let response = pb::ListAuditResponse { records: vec![record], ..Default::default() };
            let json = serde_json::to_string(&Page::of(&response)).unwrap();
            assert!(json.contains(&format!(r#""from":{shown},"to":null,"#)), "{json}");
        }
    }

    #[test]
    fn a_page_tells_where_the_next_one_begins_and_where_the_record_ends() {
        let response = pb::ListAuditResponse {
            records: Vec::new(),
            next_before: 3,
            head_seq: 9,
            head_hash: "ab".to_owned(),
        };
        assert_eq!(
            serde_json::to_string(&Page::of(&response)).unwrap(),
            r#"{"records":[],"next_before":3,"head_seq":9,"head_hash":"ab"}"#
        );
    }
}
