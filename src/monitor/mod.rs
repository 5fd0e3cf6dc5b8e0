//! Measures the data plane from its events alone: Prometheus metrics, the protocol's statistics, predictions.
//!
//! Always: handles are made when a servable is loaded, so that an event costs a few atomic additions and no
//! look-up. Label values come from closed or bounded sets.

mod metrics;
mod prediction;
mod statistics;

pub use metrics::{Monitor, Readings};
pub use statistics::{BatchTotals, Total, Totals};
