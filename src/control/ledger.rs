//! The record of changes, and what to do when there is none.
//!
//! Always (INV-06): a change is on the record, durably, before it takes effect; where the record cannot be written,
//! nothing changes and the caller is told. Serving never waits for it.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::record::{Entry, Record};
use super::store::{BODY_BYTES_MAX, Document, Store, StoreError, Transaction};
use crate::error::{ErrorKind, ServeError};
use crate::id::{ModelName, ServableId};

/// Where changes are written, or why they cannot be.
pub enum Ledger {
    Kept(Store),
    /// The server answers with what the repository held when it started, and refuses changes.
    Unkept {
        reason: String,
    },
}

/// What one change writes.
#[derive(Debug, Default)]
pub struct Writing {
    documents: Vec<Document>,
    entries: Vec<Entry>,
}

impl Writing {
    /// A change that is to be recorded.
    pub fn of(entry: Entry) -> Self {
        Self { documents: Vec::new(), entries: vec![entry] }
    }

    /// Writes a document along with it.
    #[must_use]
    pub fn with<T: Serialize>(mut self, kind: &str, key: &str, body: &T) -> Self {
        let body = serde_json::to_string(body).expect("our documents have text for keys");
        self.documents.push(Document { kind: kind.to_owned(), key: key.to_owned(), body: Some(body) });
        self
    }

    /// Removes a document along with it.
    #[must_use]
    pub fn without(mut self, kind: &str, key: &str) -> Self {
        self.documents.push(Document { kind: kind.to_owned(), key: key.to_owned(), body: None });
        self
    }

    /// Takes in what another change writes.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.documents.extend(other.documents);
        self.entries.extend(other.entries);
        self
    }
}

impl Ledger {
    /// Writes a change, all of it or nothing, and comes back when it is durable. Blocks.
    ///
    /// What stood before is told in short where all of it would make the record too long.
    ///
    /// Errors: `Unavailable`, with what the system says; `InvalidArgument`, if what shall stand is longer than what is
    /// kept. Nothing was written.
    pub fn write(&self, writing: Writing) -> Result<Vec<Record>, ServeError> {
        let refused = |reason: &dyn std::fmt::Display| {
            ServeError::new(
                ErrorKind::Unavailable,
                format!("nothing was changed, because the record of changes cannot be written: {reason}"),
            )
        };
        match self {
            Self::Unkept { reason } => Err(refused(reason)),
            Self::Kept(store) => {
                let Writing { documents, mut entries } = writing;
                entries.iter_mut().for_each(fit);
                store.commit(Transaction { documents, entries }).map_err(|error| match error {
                    StoreError::TooLarge { .. } => {
                        ServeError::invalid(format!("nothing was changed: {error}"))
                    }
                    // The store has told, with the path.
                    StoreError::Lost => refused(&error),
                    _ => {
                        tracing::error!("the record of changes cannot be written: {error}");
                        refused(&error)
                    }
                })
            }
        }
    }

    /// Every document of a kind, by key. One that cannot be read is passed over, loudly.
    pub fn documents<T: DeserializeOwned>(&self, kind: &str) -> Vec<(String, T)> {
        let mut documents = Vec::new();
        self.each_document(kind, |key, document| documents.push((key, document)));
        documents
    }

    /// Shows every document of a kind, one after another. One that cannot be read is passed over, loudly.
    pub fn each_document<T: DeserializeOwned>(&self, kind: &str, mut see: impl FnMut(String, T)) {
        let Self::Kept(store) = self else { return };
        let shown = store.each_document(kind, |key, body| {
            if let Some(document) = read(kind, &key, &body) {
                see(key, document);
            }
        });
        shown.unwrap_or_else(|error| unreadable(kind, &error));
    }

    /// One document, if it is there and can be read.
    pub fn document<T: DeserializeOwned>(&self, kind: &str, key: &str) -> Option<T> {
        let Self::Kept(store) = self else { return None };
        let body = store.document(kind, key).unwrap_or_else(|error| {
            unreadable(kind, &error);
            None
        });
        read(kind, key, &body?)
    }

    /// Documents whose keys are `below`, a slash and a name that ends in a number: those with the highest numbers,
    /// descending.
    pub fn highest<T: DeserializeOwned>(&self, kind: &str, below: &str, limit: usize) -> Vec<T> {
        let Self::Kept(store) = self else { return Vec::new() };
        let documents = store.highest(kind, below, limit).unwrap_or_else(|error| {
            unreadable(kind, &error);
            Vec::new()
        });
        documents.into_iter().filter_map(|(key, body)| read(kind, &key, &body)).collect()
    }

    pub fn store(&self) -> Option<&Store> {
        match self {
            Self::Kept(store) => Some(store),
            Self::Unkept { .. } => None,
        }
    }
}

fn read<T: DeserializeOwned>(kind: &str, key: &str, body: &str) -> Option<T> {
    let document = serde_json::from_str(body);
    document
        .inspect_err(|error| {
            tracing::error!("the {kind} document '{key}' of the state folder is passed over: {error}");
        })
        .ok()
}

fn unreadable(kind: &str, error: &StoreError) {
    tracing::error!("the {kind} documents of the state folder cannot be read: {error}");
}

/// Bytes of a record beside what it was from and to: names, an actor and a reason.
const BESIDE_BYTES_MAX: usize = 64 << 10;

/// Tells what stood before in short if the record would be too long with it: an older record has it as what it was to.
fn fit(entry: &mut Entry) {
    let text = |value: &Value| value.to_string().len();
    let bytes = text(&entry.from);
    if bytes + text(&entry.to) + BESIDE_BYTES_MAX > BODY_BYTES_MAX {
        let note = format!("{bytes} bytes are left out; the record of the change to it has them");
        entry.from = match entry.from.get("revision") {
            Some(revision) => json!({ "revision": revision, "note": note }),
            None => json!({ "note": note }),
        };
    }
}

/// A change of a model that is about to be made.
pub fn entry(actor: &str, action: &str, model: &ModelName, from: Value, to: Value) -> Entry {
    Entry {
        actor: actor.to_owned(),
        action: action.to_owned(),
        model: Some(model.to_string()),
        version: None,
        from,
        to,
        digest: None,
        outcome: "done".to_owned(),
    }
}

/// A change of one version.
pub fn version_entry(actor: &str, action: &str, id: &ServableId, digest: Option<&str>) -> Entry {
    Entry {
        version: Some(id.version.number()),
        digest: digest.map(str::to_owned),
        ..entry(actor, action, &id.model, Value::Null, Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(dir: &std::path::Path) -> Ledger {
        Ledger::Kept(Store::open(dir).unwrap())
    }

    fn change(from: Value, to: Value) -> Entry {
        entry("tester", "route", &ModelName::parse("m").unwrap(), from, to)
    }

    #[test]
    fn what_stood_before_is_told_in_short_where_all_of_it_has_no_room() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = ledger(dir.path());
        let route = |revision: u64, bytes: usize| json!({"revision": revision, "sticky": "x".repeat(bytes)});
        let (half, most) = (BODY_BYTES_MAX / 2 - BESIDE_BYTES_MAX, BODY_BYTES_MAX - 2 * BESIDE_BYTES_MAX);
        let record = |from: Value, to: Value| ledger.write(Writing::of(change(from, to))).unwrap().remove(0);
        assert_eq!(record(route(6, half), route(7, half)).from, route(6, half));
        let short = record(route(7, most), route(8, most));
        assert_eq!((&short.from["revision"], &short.to), (&json!(7), &route(8, most)));
        assert!(
            short.from["note"]
                .as_str()
                .unwrap()
                .contains(&format!("{} bytes", route(7, most).to_string().len()))
        );
        let labels = json!({"x": "x".repeat(BODY_BYTES_MAX)});
        assert_eq!(
            record(labels, Value::Null).from.as_object().unwrap().keys().collect::<Vec<_>>(),
            ["note"]
        );
    }

    #[test]
    fn what_is_too_long_for_the_record_is_the_callers_fault() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = ledger(dir.path());
        let long = json!("x".repeat(BODY_BYTES_MAX));
        let error = ledger.write(Writing::of(change(Value::Null, long))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains("a record has"), "{error}");
        assert_eq!(ledger.store().unwrap().head().unwrap().seq, 0);
    }
}
