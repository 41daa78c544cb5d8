//! The read model of clicks on a real cluster, beyond what its conformance suite asks of every backend: order by
//! position, lost answers, silent nodes, no quorum, schema.
//!
//! `TERSE_CQL` names the cluster; each test has a keyspace of its own, which is dropped at its end.
#![allow(missing_docs, clippy::unwrap_used)]

mod cluster;
mod faults;
#[path = "../cql/hosts.rs"]
mod hosts;
mod keyspace;
mod positions;
mod rates;
mod schema;
mod settled;
mod statistics;
#[path = "../cql/system_clock.rs"]
mod system_clock;
