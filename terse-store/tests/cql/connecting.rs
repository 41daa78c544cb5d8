//! Reaching the cluster.

use std::time::{Duration, Instant};

use terse_core::ports::{LinkReader, LinkWriter, StoreErrorKind};
use terse_testkit::Mode;
use terse_testkit::links::{attempt, code, link};

use crate::cluster::{connect, connected, hosts, unconnected, wire, with_shared_keyspace};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_host_that_answers_is_enough() {
    with_shared_keyspace(|keyspace| async move {
        connected(&keyspace).await;
        // It takes connections and says nothing, as a paused node does.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = keyspace.config();
        config.hosts = vec!["127.0.0.1:1".into(), silent.local_addr().unwrap().to_string(), hosts()[1].clone()];
        let (store, _) = unconnected(config);
        let began = Instant::now();
        assert!(store.connect_once().await.unwrap());
        assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        store.admit();
        assert!(store.resolve(&code("missing")).await.unwrap().link.is_none());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_connects_while_one_node_is_silent() {
    with_shared_keyspace(|keyspace| async move {
        connected(&keyspace).await;
        for silent in 0..hosts().len() {
            let wire = wire(keyspace.config());
            wire.proxies[silent].set(Mode::Pause);
            let (store, _) = unconnected(wire.config.clone());
            let began = Instant::now();
            assert!(store.connect_once().await.unwrap());
            assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
            store.admit();
            assert!(store.resolve(&code("missing")).await.unwrap().link.is_none());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn translated_addresses_are_the_only_ones_used() {
    with_shared_keyspace(|keyspace| async move {
        connected(&keyspace).await;
        let mut wire = wire(keyspace.config());
        wire.config.limits.read_timeout_ms = 500;
        let (store, _) = unconnected(wire.config.clone());
        connect(&store).await;
        store.insert_if_absent(&link("proxied"), attempt(1)).await.unwrap();
        for proxy in &*wire.proxies {
            assert!(proxy.counts().answered_bytes > 0, "{proxy:?} was bypassed");
        }
        wire.proxies.iter().for_each(|proxy| proxy.set(Mode::Cut));
        let error = store.resolve(&code("proxied")).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Unavailable, "a node was reached past its proxy");
        wire.proxies.iter().for_each(terse_testkit::Proxy::restore);
        let deadline = Instant::now() + Duration::from_secs(30);
        while store.resolve(&code("proxied")).await.is_err() {
            assert!(Instant::now() < deadline, "the store did not come back");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}
