//! The record, page by page.

use super::service::Control;
use super::store::{Order, Page, Query};
use crate::error::{ErrorKind, ServeError};
use crate::proto::control as pb;

/// Records on a page, unless the caller says otherwise.
const PAGE: usize = 100;

/// Records on a page at the most.
const PAGE_MAX: usize = 500;

impl Control {
    pub fn list_audit(&self, request: pb::ListAuditRequest) -> Result<pb::ListAuditResponse, ServeError> {
        let store = self.live.ledger.store().ok_or_else(|| {
            ServeError::new(ErrorKind::Unavailable, "this server keeps no record; start it with --state DIR")
        })?;
        let limit = match request.limit as usize {
            0 => PAGE,
            limit => limit.min(PAGE_MAX),
        };
        let query = Query {
            order: Order::Newest { before: (request.before > 0).then_some(request.before) },
            limit,
            model: (!request.model.is_empty()).then_some(request.model),
        };
        let unreadable =
            |error| ServeError::new(ErrorKind::Unavailable, format!("the record cannot be read: {error}"));
        let Page { records, more } = store.records(&query).map_err(unreadable)?;
        let head = store.head().map_err(unreadable)?;
        let next_before = records.last().filter(|_| more).map_or(0, |record| record.seq);
        let records = records.into_iter().map(|record| pb::AuditRecord {
            seq: record.seq,
            at_ms: record.at_ms,
            actor: record.actor,
            action: record.action,
            model: record.model.unwrap_or_default(),
            version: record.version.unwrap_or_default(),
            from: record.from.to_string(),
            to: record.to.to_string(),
            digest: record.digest.unwrap_or_default(),
            outcome: record.outcome,
            hash: record.hash,
        });
        Ok(pb::ListAuditResponse {
            records: records.collect(),
            next_before,
            head_seq: head.seq,
            head_hash: head.hash,
        })
    }
}
