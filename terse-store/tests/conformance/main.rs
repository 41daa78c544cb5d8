//! The conformance suite: what the ports' documentation says, checked sentence
//! by sentence, with a race of writers for every operation. Each backend runs
//! all of it; a new one joins by a factory in `backends.rs` and a module below.
//!
//! A group shares one store: its checks use codes, owners and keys of their
//! own, so that a backend whose empty store is dear can run them too. There all
//! groups share one, at the same time.
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
use tokio::join;

/// Runs every group that `factory`'s backend has ports for, each on a fresh store, all at the same time: on a cluster
/// each waits most of the time, and groups that share a store have codes, owners, names and keys of their own.
async fn run(factory: impl AsyncFn() -> Backend) {
    let links = [factory().await, factory().await, factory().await, factory().await];
    let homes = [factory().await.home(), factory().await.home(), factory().await.home()];
    let [written, listed, claimed, asked] = links.map(Backend::links);
    let [settled, leased, keyed] = homes;
    let of_links = async { join!(links::run(written), catalog::run(listed), idempotency::run(claimed)) };
    let of_home = async {
        if let (Some(settled), Some(leased), Some(keyed)) = (settled, leased, keyed) {
            join!(settings::run(settled), leases::run(leased), keys::run(keyed));
        }
    };
    // On the heap: all that these groups await is too much for the stack of a test's thread.
    join!(Box::pin(of_links), Box::pin(of_home), health::run(asked));
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
