//! The path of a request, from the wire's edge to the answer.
//!
//! Always: one request sees one snapshot; it is counted once when it arrives and once when it ends, whatever
//! happens between. Nothing here waits for anything but the model.

mod admission;
mod cached;
mod check;
mod classification;
mod pipeline;
mod readiness;
mod receipt;
mod shadow;
mod snapshot;

pub use admission::{Admission, Held};
pub use check::{Checked, check};
pub use pipeline::{Pipeline, off_the_loop};
pub use readiness::{Changes, Phase, Readiness, ReadyWhen};
pub use receipt::Receipt;
pub use shadow::ShadowLane;
pub use snapshot::{ModelEntry, NOT_LOADED, Snapshot, Table, UNLOADED};
