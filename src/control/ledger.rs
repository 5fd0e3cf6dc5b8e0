//! The record of changes, and what to do when there is none.
//!
//! Always (INV-06): a change is on the record, durably, before it takes effect; where the record cannot be written,
//! nothing changes and the caller is told. Serving never waits for it.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::record::{Entry, Record};
use super::store::{Document, Store, StoreError, Transaction};
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
    /// Errors: `Unavailable`, with what the system says; nothing was written.
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
                let Writing { documents, entries } = writing;
                store.commit(Transaction { documents, entries }).map_err(|error| {
                    // The store has told, with the path.
                    if !matches!(error, StoreError::Lost) {
                        tracing::error!("the record of changes cannot be written: {error}");
                    }
                    refused(&error)
                })
            }
        }
    }

    /// Every document of a kind, by key. One that cannot be read is passed over, loudly.
    pub fn documents<T: DeserializeOwned>(&self, kind: &str) -> Vec<(String, T)> {
        let Self::Kept(store) = self else { return Vec::new() };
        let documents = store.documents(kind).unwrap_or_else(|error| {
            tracing::error!("the {kind} documents of the state folder cannot be read: {error}");
            Vec::new()
        });
        let read = |(key, body): (String, String)| match serde_json::from_str(&body) {
            Ok(document) => Some((key, document)),
            Err(error) => {
                tracing::error!("the {kind} document '{key}' of the state folder is passed over: {error}");
                None
            }
        };
        documents.into_iter().filter_map(read).collect()
    }

    pub fn store(&self) -> Option<&Store> {
        match self {
            Self::Kept(store) => Some(store),
            Self::Unkept { .. } => None,
        }
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
