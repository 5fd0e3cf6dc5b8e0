//! The record of changes: who changed what, when, and what came of it, each record bound to the one before it.
//!
//! A record is kept as a text, its body, and a hash: `sha256(hash of the record before ‖ "\n" ‖ body)`, in
//! hexadecimal. The text itself is hashed as it stands and never written anew, so no question of form arises.
//!
//! Always: a record that was altered, removed, moved or slipped in breaks the chain where it stands, or at the next
//! record if its own hash was computed anew. Removal of the newest records is told by the head, which is kept
//! apart. Whoever can write the whole database can compute everything anew from some record on: only a head that
//! someone kept elsewhere tells that.
//! Not here: files, SQL, clocks.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// What a change is recorded as, before it has its place in the chain.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Entry {
    /// By whose word.
    pub actor: String,
    /// What was done: `load`, `unload`, `route`, `rollout.start` and so on.
    pub action: String,
    pub model: Option<String>,
    pub version: Option<u64>,
    /// What stood before; null where nothing did.
    pub from: Value,
    /// What stands after; null where nothing does.
    pub to: Value,
    /// sha256 of the artefact, in hexadecimal.
    pub digest: Option<String>,
    /// `done`, or `failed: ` and the reason.
    pub outcome: String,
}

/// One change in its place in the chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// From 1, without gaps.
    pub seq: u64,
    /// Milliseconds since 1970 by the clock of the server; a clock may go back.
    pub at_ms: u64,
    pub actor: String,
    pub action: String,
    pub model: Option<String>,
    pub version: Option<u64>,
    pub from: Value,
    pub to: Value,
    pub digest: Option<String>,
    pub outcome: String,
    /// Not part of the body: the body is what it is computed from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hash: String,
}

impl Record {
    /// The record that `body` holds.
    ///
    /// Errors: the text is no record.
    pub fn read(body: &str, hash: &str) -> serde_json::Result<Self> {
        let mut record: Self = serde_json::from_str(body)?;
        hash.clone_into(&mut record.hash);
        Ok(record)
    }
}

/// Where a chain ends: the number and hash of its last record. As text `SEQ:HASH`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// 0 for a chain without records.
    pub seq: u64,
    pub hash: String,
}

/// A record and the text that is kept of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sealed {
    pub record: Record,
    pub body: String,
}

impl Head {
    /// The head of a chain without records: number 0, and 64 zeros for a hash.
    pub fn genesis() -> Self {
        Self { seq: 0, hash: "0".repeat(64) }
    }

    /// `entry` as the record that follows this head.
    ///
    /// Errors: the entry cannot be read back, which is so for JSON nested deeper than 127 levels.
    pub fn append(&self, entry: Entry, at_ms: u64) -> serde_json::Result<Sealed> {
        let Entry { actor, action, model, version, from, to, digest, outcome } = entry;
        let (seq, hash) = (self.seq + 1, String::new());
        let record = Record { seq, at_ms, actor, action, model, version, from, to, digest, outcome, hash };
        let body = serde_json::to_string(&record)?;
        // What callers get is what later readers will get.
        let record = Record::read(&body, &link(&self.hash, &body))?;
        Ok(Sealed { record, body })
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

impl FromStr for Head {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (seq, hash) = text.split_once(':')?;
            let seq = seq.bytes().all(|b| b.is_ascii_digit()).then(|| seq.parse().ok())??;
            let hexadecimal = hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
            hexadecimal.then(|| Self { seq, hash: hash.to_ascii_lowercase() })
        };
        read().ok_or_else(|| {
            format!("'{text}' is no head of a record: give SEQ:HASH, with a sha256 in hexadecimal")
        })
    }
}

/// The hash of a record that follows the one with the hash `previous`.
fn link(previous: &str, body: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(previous.as_bytes());
    hasher.update(b"\n");
    hasher.update(body.as_bytes());
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A record as it is kept: its number beside it, its text, its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Signed, since a database may hold any number.
    pub seq: i64,
    pub body: String,
    pub hash: String,
}

/// A chain that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    pub records: u64,
    pub head: Head,
}

/// The first record that does not follow from those before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the record of changes is broken at record {seq}: {flaw}")]
pub struct Broken {
    pub seq: u64,
    pub flaw: Flaw,
}

/// What is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("it is missing")]
    Missing,
    #[error("its text or its hash was altered, or the record before it was replaced")]
    Altered,
    #[error("in its place stands the text of record {0}")]
    Replaced(u64),
    #[error("in its place stands a row with the number {0}")]
    Inserted(i64),
    #[error("its text cannot be read")]
    Unreadable,
    #[error("it stands beyond the head, which was not moved with it")]
    BeyondHead,
    #[error("the head names another one")]
    NotHead,
    #[error("the head of the record is gone")]
    HeadMissing,
    #[error("another one was expected there: it, or one before it, was written anew")]
    NotExpected,
}

/// Checks that `rows`, in the order of their numbers, are a whole chain that ends at `head` and runs through `expect`.
///
/// `head`: what is kept beside the rows. `expect`: an earlier head that someone kept elsewhere.
/// Errors: the first record that does not follow.
/// Cost: one sha256 and one parse for each row; memory for one.
pub fn verify(
    rows: impl IntoIterator<Item = Row>,
    head: Option<&Head>,
    expect: Option<&Head>,
) -> Result<Verified, Broken> {
    let mut chain = Chain::new(expect.cloned());
    for row in rows {
        chain.follow(&row)?;
    }
    chain.close(head)
}

/// Walks along a chain.
#[derive(Debug)]
pub struct Chain {
    /// The last record that followed.
    at: Head,
    expect: Option<Head>,
}

impl Chain {
    /// A walk from the first record on; it must come through `expect`.
    pub fn new(expect: Option<Head>) -> Self {
        Self { at: Head::genesis(), expect }
    }

    /// A walk from the record after `head` on.
    pub fn after(head: Head) -> Self {
        Self { at: head, expect: None }
    }

    /// Takes one step. Errors: `row` does not follow.
    pub fn follow(&mut self, row: &Row) -> Result<(), Broken> {
        let seq = self.at.seq + 1;
        let broken = |flaw| Err(Broken { seq, flaw });
        match u64::try_from(row.seq) {
            Ok(found) if found == seq => {}
            Ok(found) if found > seq => return broken(Flaw::Missing),
            _ => return broken(Flaw::Inserted(row.seq)),
        }
        let said = Record::read(&row.body, &row.hash).map(|record| record.seq);
        let whole = link(&self.at.hash, &row.body) == row.hash;
        match said {
            Ok(found) if found != seq => return broken(Flaw::Replaced(found)),
            _ if !whole => return broken(Flaw::Altered),
            Err(_) => return broken(Flaw::Unreadable),
            Ok(_) => {}
        }
        self.at = Head { seq, hash: row.hash.clone() };
        match &self.expect {
            Some(expect) if expect.seq == seq && expect.hash != self.at.hash => broken(Flaw::NotExpected),
            _ => Ok(()),
        }
    }

    /// Ends the walk. Errors: this is not where `head` says that the chain ends, or `expect` was not reached.
    pub fn close(self, head: Option<&Head>) -> Result<Verified, Broken> {
        let last = self.at;
        let broken = |seq, flaw| Err(Broken { seq, flaw });
        match head {
            None => return broken(last.seq, Flaw::HeadMissing),
            Some(head) if head.seq > last.seq => return broken(last.seq + 1, Flaw::Missing),
            Some(head) if head.seq < last.seq => return broken(head.seq + 1, Flaw::BeyondHead),
            Some(head) if head.hash != last.hash => return broken(last.seq, Flaw::NotHead),
            Some(_) => {}
        }
        match self.expect {
            Some(expect) if expect.seq > last.seq => broken(last.seq + 1, Flaw::Missing),
            Some(expect) if expect.seq == 0 && expect != Head::genesis() => broken(0, Flaw::NotExpected),
            _ => Ok(Verified { records: last.seq, head: last }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(n: usize) -> Entry {
        Entry {
            actor: format!("operator-{}", n % 3),
            action: ["load", "route", "rollout.start", "unload"][n % 4].to_owned(),
            model: (!n.is_multiple_of(5)).then(|| format!("model-{}", n % 2)),
            version: (!n.is_multiple_of(7)).then_some(n as u64),
            from: json!(null),
            to: json!({"arms": [{"version": n, "weight": 0.1}], "sticky": "\u{e9}\n\"key\""}),
            digest: Some(link("", &n.to_string())),
            outcome: if n.is_multiple_of(6) { "failed: no room" } else { "done" }.to_owned(),
        }
    }

    fn append(rows: &mut Vec<Row>, head: &mut Head, n: usize) -> Record {
        let Sealed { record, body } = head.append(entry(n), 1_700_000_000_000 + n as u64).unwrap();
        *head = Head { seq: record.seq, hash: record.hash.clone() };
        rows.push(Row { seq: record.seq as i64, body, hash: record.hash.clone() });
        record
    }

    fn chain(length: usize) -> (Vec<Row>, Head) {
        let (mut rows, mut head) = (Vec::new(), Head::genesis());
        (1..=length).for_each(|n| drop(append(&mut rows, &mut head, n)));
        (rows, head)
    }

    #[test]
    fn a_whole_chain_is_verified_and_reads_back() {
        for length in [0, 1, 2, 40] {
            let (rows, head) = chain(length);
            let verified = verify(rows.clone(), Some(&head), Some(&head)).unwrap();
            assert_eq!(verified, Verified { records: length as u64, head });
            for (row, n) in rows.iter().zip(1..) {
                let record = Record::read(&row.body, &row.hash).unwrap();
                assert_eq!((record.seq as usize, &record.to), (n, &entry(n).to));
                assert!(!row.body.contains("hash"), "{}", row.body);
            }
        }
    }

    #[test]
    fn the_hash_is_the_one_that_the_header_describes() {
        // printf '%064d\n{}' 0 | sha256sum
        let expected = "5649d09ed68c17156095d175eef152856c5b1a81c117c409c1e00f096aa6838e";
        assert_eq!(link(&Head::genesis().hash, "{}"), expected);
    }

    #[test]
    fn a_record_that_could_not_be_read_back_is_not_sealed() {
        let nested = (0..200).fold(json!(1), |value, _| json!([value]));
        let entry = Entry { to: nested, ..entry(1) };
        assert!(Head::genesis().append(entry, 0).is_err());
    }

    #[test]
    fn heads_are_read_as_they_are_written() {
        let (_, head) = chain(3);
        assert_eq!(head.to_string().parse(), Ok(head.clone()));
        assert_eq!(head.to_string().to_uppercase().parse(), Ok(head));
        let zeros = "0".repeat(64);
        for bad in [
            "",
            "1",
            "1:",
            ":",
            "1:ab",
            &format!("x:{zeros}"),
            &format!("+1:{zeros}"),
            &format!("1:{zeros}0"),
        ] {
            assert!(bad.parse::<Head>().is_err(), "{bad}");
        }
    }

    #[test]
    fn history_written_anew_is_told_by_a_head_kept_elsewhere() {
        let (_, kept) = chain(5);
        let (mut rows, mut head) = chain(3);
        (14..20).for_each(|n| drop(append(&mut rows, &mut head, n)));
        assert!(verify(rows.clone(), Some(&head), None).is_ok());
        let broken = verify(rows, Some(&head), Some(&kept)).unwrap_err();
        assert_eq!(broken, Broken { seq: 5, flaw: Flaw::NotExpected });
        let (rows, head) = chain(4);
        let broken = verify(rows, Some(&head), Some(&kept)).unwrap_err();
        assert_eq!(broken, Broken { seq: 5, flaw: Flaw::Missing });
    }

    #[test]
    fn what_is_wrong_is_named() {
        type Tamper = fn(&mut Vec<Row>, &mut Option<Head>);
        let cases: [(u64, Flaw, Tamper); 9] = [
            (3, Flaw::Missing, |rows, _| drop(rows.remove(2))),
            (10, Flaw::Missing, |rows, _| drop(rows.pop())),
            (1, Flaw::Missing, |rows, _| rows.clear()),
            (3, Flaw::Altered, |rows, _| rows[2].body = rows[2].body.replace("operator", "0perator")),
            (3, Flaw::Replaced(4), |rows, _| rows[2].body = rows[3].body.clone()),
            (1, Flaw::Inserted(-7), |rows, _| rows.insert(0, Row { seq: -7, ..rows[0].clone() })),
            (8, Flaw::BeyondHead, |_, head| *head = Some(chain(7).1)),
            (10, Flaw::NotHead, |_, head| head.as_mut().unwrap().hash = link("", "")),
            (10, Flaw::HeadMissing, |_, head| *head = None),
        ];
        for (seq, flaw, tamper) in cases {
            let (mut rows, head) = chain(10);
            let mut head = Some(head);
            tamper(&mut rows, &mut head);
            assert_eq!(verify(rows, head.as_ref(), None), Err(Broken { seq, flaw }));
        }
    }

    /// Changes one byte to another that keeps the text one.
    fn change_byte(text: &mut String, random: &mut fastrand::Rng) {
        let mut bytes = std::mem::take(text).into_bytes();
        loop {
            let at = random.usize(..bytes.len());
            let new = random.u8(b' '..=b'~');
            if bytes[at].is_ascii() && bytes[at] != new {
                bytes[at] = new;
                break;
            }
        }
        *text = String::from_utf8(bytes).unwrap();
    }

    /// A record that was never made, with a hash that follows from the row before position `at`.
    fn forge(rows: &[Row], at: usize) -> Row {
        let hash = at.checked_sub(1).map_or(Head::genesis().hash, |before| rows[before].hash.clone());
        let head = Head { seq: at as u64, hash };
        let forged = Entry { actor: "nobody".to_owned(), ..entry(at) };
        let Sealed { record, body } = head.append(forged, 1).unwrap();
        Row { seq: record.seq as i64, body, hash: record.hash }
    }

    /// One random tampering. Returns what was done and the number at which the chain then breaks.
    fn tamper(rows: &mut Vec<Row>, random: &mut fastrand::Rng) -> (&'static str, usize) {
        let at = random.usize(..rows.len());
        let other = (at + random.usize(1..rows.len())) % rows.len();
        match random.u8(..12) {
            0 => {
                change_byte(&mut rows[at].body, random);
                ("a byte of a body", at + 1)
            }
            1 => {
                change_byte(&mut rows[at].hash, random);
                ("a byte of a hash", at + 1)
            }
            2 => {
                rows.remove(at);
                ("a record removed", at + 1)
            }
            3 => {
                rows.truncate(at);
                ("the last ones removed", at + 1)
            }
            4 => {
                rows.drain(..=at);
                ("the first ones removed", 1)
            }
            5 => {
                // Swapped with all they hold, or under each other's numbers as a database would sort them.
                rows.swap(at, other);
                if random.bool() {
                    let number = rows[at].seq;
                    rows[at].seq = rows[other].seq;
                    rows[other].seq = number;
                }
                ("two swapped", at.min(other) + 1)
            }
            6 => {
                rows.insert(other, rows[at].clone());
                ("a duplicate", other + 1)
            }
            7 => {
                rows[at].seq += random.i64(1..100) * if random.bool() { 1 } else { -1 };
                rows.sort_by_key(|row| row.seq);
                let first = rows.iter().zip(1..).position(|(row, seq)| row.seq != seq).unwrap_or(rows.len());
                // Another record may have its number now and stand before it: then that one is read first.
                let first = if first > at { at.min(first) } else { first };
                ("a number", first + 1)
            }
            8 => {
                let (body, hash) = (entry(at).actor, link("", &at.to_string()));
                rows.insert(at, Row { seq: at as i64 + 1, body, hash });
                rows.iter_mut().skip(at + 1).for_each(|row| row.seq += 1);
                ("one slipped in", at + 1)
            }
            9 => {
                // Its own hash is right: only that its successor does not follow gives it away.
                rows.insert(at, forge(rows, at));
                rows.iter_mut().skip(at + 1).for_each(|row| row.seq += 1);
                ("one slipped in with a hash", at + 2)
            }
            10 => {
                rows[at] = forge(rows, at);
                ("one replaced with a hash", (at + 2).min(rows.len()))
            }
            _ => {
                rows.push(forge(rows, rows.len()));
                ("one put on top", rows.len())
            }
        }
    }

    #[test]
    fn each_of_many_random_tamperings_is_found_and_named() {
        let mut random = fastrand::Rng::with_seed(17);
        let (original, head) = chain(40);
        let mut done = std::collections::BTreeMap::new();
        for round in 0..20_000 {
            let mut rows = original[..].to_vec();
            let (what, seq) = tamper(&mut rows, &mut random);
            *done.entry(what).or_insert(0) += 1;
            match verify(rows, Some(&head), None) {
                Ok(_) => panic!("round {round}: {what} at {seq} was not found"),
                Err(broken) => assert_eq!(broken.seq, seq as u64, "round {round}: {what}: {broken}"),
            }
        }
        assert!(done.len() == 12 && done.values().all(|count| *count > 1000), "{done:?}");
    }
}
