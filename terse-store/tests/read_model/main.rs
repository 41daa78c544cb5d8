//! The conformance suite of read models: what `ReadModel` and `ClickStats`
//! say, checked sentence by sentence. Each backend runs all of it; a new one
//! joins by a factory in `backends.rs` and a test below.
//!
//! All groups of a backend share one store, so that a backend whose empty store
//! is dear can run them too: checks use codes, partitions and journals of their own.
#![allow(missing_docs, clippy::unwrap_used)]

mod backends;
mod builders;
mod checkpoints;
mod cql;
mod epochs;
#[path = "../cql/hosts.rs"]
mod hosts;
#[path = "../cql_clicks/keyspace.rs"]
mod keyspace;
mod leases;
mod model;
#[path = "../conformance/race.rs"]
mod race;
mod races;
mod rows;
mod scans;
mod statistics;
#[path = "../cql/system_clock.rs"]
mod system_clock;
mod writers;

use backends::Backend;
use terse_core::ports::clicks::Bus;

/// Runs every group on `backend`, whose store is empty.
async fn run(backend: Backend) {
    statistics::before_the_bus_is_settled(&backend).await;
    races::run_before_the_bus_is_settled(&backend).await;
    rows::run(&backend).await;
    checkpoints::run(&backend).await;
    epochs::run(&backend).await;
    scans::run(&backend).await;
    statistics::run(&backend).await;
    leases::run(&backend).await;
    writers::run(&backend).await;
    races::run(&backend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_keeps_the_contract_on_a_local_bus() {
    run(backends::memory(Bus::Local)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_keeps_the_contract_on_streams() {
    run(backends::memory(Bus::Streams { partitions: 4 })).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite_keeps_the_contract_on_a_local_bus() {
    run(backends::sqlite(Bus::Local)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite_keeps_the_contract_on_streams() {
    run(backends::sqlite(Bus::Streams { partitions: 4 })).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cluster_keeps_the_contract_on_streams() {
    keyspace::with_keyspace(|keyspace| async move {
        run(cql::cql(Bus::Streams { partitions: 4 }, &keyspace).await).await;
    })
    .await;
}
