//! Reads documents and records, and verifies the chain.

use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row as SqlRow};

use super::copy::Copy;
use super::{StoreError, files};
use crate::control::record::{Broken, Chain, Flaw, Head, Record, Row, Verified};

/// Records of one page at the most.
pub const RECORDS_MAX: usize = 1000;

/// Bytes of the records' texts on one page at the most, but that a single record may be longer. Answers hold them
/// several times over while they are made.
pub const PAGE_BYTES_MAX: usize = 1 << 20;

/// Which records a page holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    pub order: Order,
    /// Records at the most; [`RECORDS_MAX`] is never exceeded.
    pub limit: usize,
    /// Only those that name this model.
    pub model: Option<String>,
}

/// Where a page begins, and which way it runs. The next page begins at the last record of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Newest first; all, or those with lower numbers than this.
    Newest { before: Option<u64> },
    /// Oldest first, those with higher numbers than this.
    Oldest { after: u64 },
}

/// A part of the record.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page {
    pub records: Vec<Record>,
    /// There are others beyond the last of these.
    pub more: bool,
}

/// The state of a folder, to look at.
pub struct Reader {
    // Closed before the copy goes.
    connection: Connection,
    _copy: Option<Copy>,
}

impl Reader {
    /// The state itself, in the process that writes it.
    pub(super) fn beside(dir: &Path) -> Result<Self, StoreError> {
        Ok(Self { connection: files::open_beside(dir)?, _copy: None })
    }

    /// The state as it is at this moment, whoever writes it.
    pub(super) fn of_copy(dir: &Path) -> Result<Self, StoreError> {
        let copy = Copy::take(dir)?;
        Ok(Self { connection: files::open_copy(&copy.database(), dir)?, _copy: Some(copy) })
    }

    /// Keys and bodies of all documents of a kind, by key.
    pub fn documents(&self, kind: &str) -> Result<Vec<(String, String)>, StoreError> {
        let mut documents = Vec::new();
        self.each_document(kind, |key, body| documents.push((key, body)))?;
        Ok(documents)
    }

    /// Shows every document of a kind, key and body, one after another in the order of keys.
    pub fn each_document(&self, kind: &str, mut see: impl FnMut(String, String)) -> Result<(), StoreError> {
        let sql = "SELECT key, body FROM documents WHERE kind = ?1 ORDER BY key";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([kind])?;
        while let Some(row) = rows.next()? {
            see(row.get(0)?, row.get(1)?);
        }
        Ok(())
    }

    /// One document's body; `None` where there is none.
    pub fn document(&self, kind: &str, key: &str) -> Result<Option<String>, StoreError> {
        let sql = "SELECT body FROM documents WHERE kind = ?1 AND key = ?2";
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement.query_row([kind, key], |row| row.get(0)).optional()?)
    }

    /// Keys and bodies of documents whose keys are `below`, a slash and a name that ends in a number: those with the
    /// highest numbers, descending.
    pub fn highest(
        &self,
        kind: &str,
        below: &str,
        limit: usize,
    ) -> Result<Vec<(String, String)>, StoreError> {
        // In ASCII a zero follows the slash. Of two numbers the one with more digits is the higher one.
        let sql = "SELECT key, body FROM documents WHERE kind = ?1 AND key > ?2 || '/' AND key < ?2 || '0'
                   ORDER BY length(key) DESC, key DESC LIMIT ?3";
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map((kind, below, limit as i64), |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// A page of the record: as many as fit into [`PAGE_BYTES_MAX`], one at least if there is one.
    ///
    /// Errors: a record of the page cannot be read, which only damage or tampering brings about.
    /// Cost: one record more than the page has is read, with a model too.
    pub fn records(&self, query: &Query) -> Result<Page, StoreError> {
        let (bound, condition, direction) = match query.order {
            Order::Newest { before } => (before.unwrap_or(u64::MAX), "seq < ?1", "DESC"),
            Order::Oldest { after } => (after, "seq > ?1", "ASC"),
        };
        let of_model = match query.model {
            Some(_) => "AND json_extract(body, '$.model') = ?3",
            None => "AND ?3 IS NULL",
        };
        let sql = format!(
            "SELECT seq, body, hash FROM audit WHERE {condition} {of_model} ORDER BY seq {direction} LIMIT ?2"
        );
        let bound = i64::try_from(bound).unwrap_or(i64::MAX);
        let limit = query.limit.min(RECORDS_MAX);
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query((bound, limit as i64 + 1, &query.model))?;
        let (mut page, mut bytes) = (Page::default(), 0);
        while let Some(row) = rows.next()? {
            let Row { seq, body, hash } = kept(row)?;
            bytes += body.len();
            if page.records.len() == limit || (bytes > PAGE_BYTES_MAX && !page.records.is_empty()) {
                page.more = true;
                break;
            }
            let unreadable = |_| Broken { seq: seq.cast_unsigned(), flaw: Flaw::Unreadable };
            page.records.push(Record::read(&body, &hash).map_err(unreadable)?);
        }
        Ok(page)
    }

    /// The number and hash of the newest record. Errors: it is gone.
    pub fn head(&self) -> Result<Head, StoreError> {
        head(&self.connection)?.ok_or(StoreError::Broken(Broken { seq: 0, flaw: Flaw::HeadMissing }))
    }

    /// As [`super::verify`].
    pub fn verify(&self, expect: Option<&Head>) -> Result<Verified, StoreError> {
        // One view of the database, whatever a server adds meanwhile.
        let view = self.connection.unchecked_transaction()?;
        let mut chain = Chain::new(expect.cloned());
        let mut statement = view.prepare("SELECT seq, body, hash FROM audit ORDER BY seq")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            chain.follow(&kept(row)?)?;
        }
        let verified = chain.close(head(&view)?.as_ref())?;
        let said: String = view
            .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
            .map_err(|error| StoreError::Malformed(error.to_string()))?;
        match said.as_str() {
            "ok" => Ok(verified),
            fault => Err(StoreError::Malformed(fault.to_owned())),
        }
    }

    /// Verifies that the newest record follows from the one before it and is the one that the head names.
    pub(super) fn verify_end(&self) -> Result<(), StoreError> {
        let view = self.connection.unchecked_transaction()?;
        let mut statement = view.prepare("SELECT seq, body, hash FROM audit ORDER BY seq DESC LIMIT 2")?;
        let mut end = statement.query_map([], kept)?.collect::<Result<Vec<_>, _>>()?;
        end.reverse();
        let mut chain = match &end[..] {
            [before, _] => Chain::after(Head { seq: before.seq.cast_unsigned(), hash: before.hash.clone() }),
            _ => Chain::new(None),
        };
        if let Some(newest) = end.last() {
            chain.follow(newest)?;
        }
        chain.close(head(&view)?.as_ref())?;
        Ok(())
    }
}

/// The head as it is kept, `None` if it is gone.
pub(super) fn head(connection: &Connection) -> rusqlite::Result<Option<Head>> {
    let read = |row: &SqlRow<'_>| Ok(Head { seq: row.get::<_, i64>(0)?.cast_unsigned(), hash: row.get(1)? });
    connection.prepare_cached("SELECT seq, hash FROM head WHERE id = 1")?.query_row([], read).optional()
}

/// A row as it is kept. What is no text where text should be reads as none, so that the chain tells of it.
fn kept(row: &SqlRow<'_>) -> rusqlite::Result<Row> {
    let text = |value: ValueRef<'_>| value.as_str().unwrap_or_default().to_owned();
    Ok(Row { seq: row.get(0)?, body: text(row.get_ref(1)?), hash: text(row.get_ref(2)?) })
}
