//! The CQL store on a real cluster, beyond what the conformance suite asks of
//! every backend: schema, marks, clocks, consistency levels, lost answers, addresses.
//!
//! `TERSE_CQL` names the cluster. Checks that look at nothing but codes of their
//! own share a keyspace, for nine tables take longer to make than most checks;
//! the others have one each. All are dropped at the end.
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
