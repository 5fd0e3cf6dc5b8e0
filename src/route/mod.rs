//! Who gets which version. Pure: the same request, route and versions, and the same draws, give the same answer.
//!
//! Always: a version that a request names is honoured or refused, never exchanged; a share of 0 gets nothing and a
//! share of 100 % everything; a sticky key gets the same arm on every replica and after every restart, and raising
//! an arm's weight moves no key between the others.
//! Not here: where versions come from, and whether a shadow has room for its copy.

mod decide;
mod spec;
mod split;

pub use decide::{Choice, NoRoute, Pin, Standing, decide};
pub use spec::{
    ARMS_MAX, Arm, RULES_MAX, Route, RouteSpec, Rule, SHADOWS_MAX, Shadow, Sticky, TEXT_BYTES_MAX,
};
