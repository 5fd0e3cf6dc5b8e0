//! Tests of the whole program: the real binary, real sockets, real clients. One binary, so that it links once.

// A panic is how a test says no.
#![allow(clippy::unwrap_used)]

mod cli;
mod clients;
mod conformance;
mod floors;
mod invariants;
mod lifecycle;
mod limits;
mod metrics_page;
mod repository;
mod support;
