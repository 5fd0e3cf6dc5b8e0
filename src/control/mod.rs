//! Decides what is live and brings it about.
//!
//! Always: a change is validated, loaded and warmed, written to the record, and then published, in this order;
//! validation may fail, publishing cannot; no record, no publish. A version is published only when it is ready to
//! answer; one that cannot be is published with its reason, and never in the place of one that answers.
//! Not here: requests. What is decided goes down as a snapshot; what came of it comes up as events.

mod audit;
mod desired;
pub mod evidence;
mod experiments;
mod forms;
#[cfg(test)]
mod killed;
mod ledger;
mod live;
mod open;
pub mod outcomes;
pub mod record;
mod retire;
pub mod rollout;
mod rollout_forms;
mod rollouts;
mod routes;
pub mod routes_file;
mod service;
mod startup;
mod stop;
pub mod store;
mod tally;
mod turns;
mod uploads;
mod watch;

pub use ledger::Ledger;
pub use live::{ControlConfig, Mode};
pub use open::{Followers, Following, Foundations, check_routes, open_state};
pub use service::Control;
pub use startup::Summary;
pub use tally::Tallies;
pub use uploads::LoadParameters;

/// Milliseconds since the epoch by the server's clock.
fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
