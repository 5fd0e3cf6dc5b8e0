//! Whether a head should wait for company, and what sizes somebody chose.
//!
//! Always: without a delay and preferred sizes in its policy a queue asks nothing of this.

use std::time::Instant;

use super::{Queue, Waiting, size_of};

impl<T: Waiting> Queue<T> {
    /// The moment until which the batch at this head should wait for company, if it should.
    ///
    /// An entry whose time is up before that does not wait: company is no use to it.
    pub(super) fn wait_for_company(&self, rank: usize, lane: usize, now: Instant) -> Option<Instant> {
        if self.policy.delay_max.is_zero() || !self.policy.merging {
            return None;
        }
        let head = self.ranks[rank].lanes[lane].head();
        let until = head.arrived + self.policy.delay_max;
        let starts_by = head.due.map(|due| {
            let time = self.costs.cautious().time(size_of(&head.item));
            due.at.checked_sub(time).unwrap_or(due.at)
        });
        let limits = [head.times_out, head.item.deadline(), starts_by];
        let in_time = limits.into_iter().flatten().all(|moment| until < moment);
        (now < until && in_time && self.company(rank, lane).grows).then_some(until)
    }

    /// What could leave with this head: its shape, at its rank and below, up to the maximum.
    fn company(&self, rank: usize, lane: usize) -> Company {
        let head = &self.ranks[rank].lanes[lane].head().item;
        let (key, rows_max) = (head.key(), self.policy.rows_max.min(head.rows_max()));
        let mut rows = 0;
        let mut preferred = None;
        for rank in &self.ranks[rank..] {
            for placed in rank.lane_of(key).map(|lane| rank.lanes[lane].entries()).into_iter().flatten() {
                let item = &placed.entry.item;
                if item.cancelled() {
                    continue;
                }
                if rows + item.rows() > rows_max {
                    return Company { preferred, grows: false };
                }
                rows += item.rows();
                if self.policy.preferred_rows.contains(&rows) {
                    preferred = Some(rows);
                }
            }
        }
        Company { preferred, grows: rows < rows_max && preferred.is_none() }
    }

    /// Rows of the batch at this head at the most: the preferred size that is reached, if there is one.
    pub(super) fn rows_max(&self, rank: usize, lane: usize) -> usize {
        let preferred = match self.policy.preferred_rows.is_empty() {
            true => None,
            false => self.company(rank, lane).preferred,
        };
        let of_key = self.ranks[rank].lanes[lane].head().item.rows_max();
        preferred.unwrap_or(self.policy.rows_max).min(of_key)
    }
}

/// What could leave with a head.
struct Company {
    /// The largest preferred size that whole requests add up to.
    preferred: Option<usize>,
    /// Whether waiting could make a better batch.
    grows: bool,
}
