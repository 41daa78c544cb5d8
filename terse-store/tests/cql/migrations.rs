//! How a keyspace gets its schema.

use std::collections::HashMap;

use scylla::value::CqlValue;
use terse_core::ports::{LinkReader, StoreErrorKind};
use terse_testkit::links::code;

use crate::cluster::{Keyspace, connect, connected, unconnected, with_keyspace};

/// The ids of the keyspace's tables, as each node knows them.
async fn table_ids(keyspace: &Keyspace) -> Vec<HashMap<String, String>> {
    let mut ids = Vec::new();
    for query in keyspace.at_each_node("SELECT table_name, id FROM system_schema.tables WHERE keyspace_name = ?") {
        let answer = keyspace.session.query_unpaged(query, (&keyspace.name,)).await.unwrap();
        let rows = answer.into_rows_result().unwrap();
        let rows = rows.rows::<(String, CqlValue)>().unwrap().map(Result::unwrap);
        ids.push(rows.map(|(table, id)| (table, id.as_uuid().unwrap().to_string())).collect());
    }
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_stores_that_start_at_once_make_one_schema() {
    for _ in 0..3 {
        with_keyspace(|keyspace| async move {
            let stores = [0, 1].map(|_| unconnected(keyspace.config()).0);
            futures_util::future::join_all(stores.iter().map(|store| connect(store))).await;
            keyspace.session.await_schema_agreement().await.unwrap();
            let ids = table_ids(&keyspace).await;
            assert!(ids.len() > 1, "a cluster of {} nodes", ids.len());
            for node in &ids {
                assert_eq!((node.len(), node), (9, &ids[0]), "the tables of the schema, and its versions");
                // Version 8: derived from the name, not from the time.
                assert!(node.values().all(|id| &id[14..15] == "8"), "{node:?}");
            }
            for store in &stores {
                assert!(store.resolve(&code("missing")).await.unwrap().link.is_none());
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn connecting_again_changes_nothing() {
    with_keyspace(|keyspace| async move {
        let (store, _) = connected(&keyspace).await;
        let before = table_ids(&keyspace).await;
        assert!(!store.connect_once().await.unwrap(), "connected twice");
        let (second, _) = unconnected(keyspace.config());
        assert!(second.connect_once().await.unwrap());
        assert_eq!(table_ids(&keyspace).await, before);
        let versions = keyspace.run("SELECT version FROM KS.schema_versions").await.into_rows_result().unwrap();
        let versions: Vec<i32> = versions.rows::<(i32,)>().unwrap().map(|row| row.unwrap().0).collect();
        assert_eq!(versions, [1]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_migration_that_stopped_half_way_is_completed() {
    with_keyspace(|keyspace| async move {
        connected(&keyspace).await;
        let before = table_ids(&keyspace).await;
        // As if the first one had died before it wrote the version down.
        keyspace.run("DELETE FROM KS.schema_versions WHERE component = 'links'").await;
        connected(&keyspace).await;
        assert_eq!(table_ids(&keyspace).await, before);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_newer_schema_is_refused_by_both_numbers() {
    with_keyspace(|keyspace| async move {
        connected(&keyspace).await;
        keyspace.run("INSERT INTO KS.schema_versions (component, version) VALUES ('links', 99)").await;
        let (store, _) = unconnected(keyspace.config());
        let error = store.connect_once().await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Corrupt);
        assert!(error.message.contains("version 99") && error.message.contains("up to 1"), "{error}");
        store.admit();
        assert_eq!(store.resolve(&code("abc")).await.unwrap_err().kind, StoreErrorKind::Unavailable);
    })
    .await;
}
