//! Tests of the whole program: the real binary, real sockets, real clients. One binary, so that it links once.

// A panic is how a test says no.
#![allow(clippy::unwrap_used)]

mod bench;
mod cli;
mod clients;
mod commands;
mod conformance;
mod experiments;
mod explicit;
mod floors;
mod fuzz;
mod hostile;
mod hostile_configs;
mod hostile_models;
mod invariants;
mod isolation;
mod lifecycle;
mod limits;
mod memory;
mod metrics_page;
mod readiness;
mod record;
mod repository;
mod response_cache;
mod rollouts;
mod routes;
mod routes_file;
mod scheduling;
mod shadows;
mod support;
mod texts;
mod tune;
mod versions;
mod watch;
