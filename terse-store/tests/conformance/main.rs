//! The conformance suite: what the ports' documentation says, checked sentence
//! by sentence, with a race of writers for every operation. Each backend runs
//! all of it; a new one joins by a factory in `backends.rs` and a module below.
//!
//! A group shares one store: its checks use codes, owners and keys of their
//! own, so that a backend whose empty store is dear can run them too.
#![allow(missing_docs, clippy::unwrap_used)]

mod backends;
mod catalog;
mod cql;
mod cql_rows;
mod health;
#[path = "../cql/hosts.rs"]
mod hosts;
mod idempotency;
mod keys;
mod leases;
mod links;
mod model;
mod patient;
mod race;
mod settings;
#[path = "../cql/system_clock.rs"]
mod system_clock;
mod two_servers;

use backends::Backend;

/// Runs every group that `factory`'s backend has ports for, each on a fresh store.
async fn run(factory: impl AsyncFn() -> Backend) {
    links::run(factory().await.links()).await;
    catalog::run(factory().await.links()).await;
    idempotency::run(factory().await.links()).await;
    health::run(factory().await.links()).await;
    if factory().await.home().is_some() {
        settings::run(factory().await.home().unwrap()).await;
        leases::run(factory().await.home().unwrap()).await;
        keys::run(factory().await.home().unwrap()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_keeps_the_contract() {
    run(backends::memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite_keeps_the_contract() {
    run(backends::sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn guarded_memory_keeps_the_contract() {
    run(backends::guarded_memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn guarded_sqlite_keeps_the_contract() {
    run(backends::guarded_sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_shard_keeps_the_contract() {
    run(backends::one_shard).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_shards_on_memory_keep_the_contract() {
    run(backends::three_shards_on_memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_shards_on_sqlite_keep_the_contract() {
    run(backends::three_shards_on_sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cql_keeps_the_contract() {
    cql::with_keyspaces(1, async |keyspaces| {
        let backend = cql::one_store(&keyspaces[0]).await;
        run(async || backend.clone()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_guarded_shards_on_cql_keep_the_contract() {
    cql::with_keyspaces(2, async |keyspaces| {
        let backend = cql::guarded_shards(&keyspaces).await;
        run(async || backend.clone()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_servers_on_cql_act_as_one() {
    cql::with_keyspaces(1, async |keyspaces| two_servers::run(&keyspaces[0]).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rows_on_cql_come_and_go_as_they_should() {
    cql::with_keyspaces(1, async |keyspaces| cql_rows::run(&keyspaces[0]).await).await;
}
