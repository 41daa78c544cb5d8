//! The CQL store on a real cluster, beyond what the conformance suite asks of
//! every backend: schema, marks, clocks, consistency levels, lost answers, addresses.
//!
//! `TERSE_CQL` names the cluster; each check has a keyspace of its own, which
//! is dropped at its end.
#![allow(missing_docs, clippy::unwrap_used)]

mod claims;
mod clocks;
mod cluster;
mod connecting;
mod hosts;
mod levels;
mod lost_answers;
mod marks;
mod migrations;
mod one_guard;
mod owner_rows;
mod system_clock;
