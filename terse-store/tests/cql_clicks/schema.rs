//! How a keyspace gets the tables of the read model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;
use scylla::value::CqlValue;
use terse_core::ports::clicks::ReadModel;
use terse_core::ports::{DependencyHealth, LinkReader, StoreErrorKind};
use terse_core::stats::Span;
use terse_resilience::{Breaker, BreakerSettings};
use terse_store::{CoreClock, CqlStore};
use terse_testkit::SeededEntropy;
use terse_testkit::links::code;

use crate::cluster::{
    Keyspace, at, at_each_node, connected, key, load, patiently, rows, stored, unconnected, with_keyspace, write,
};
use crate::system_clock::SystemClock;

/// The ids of the keyspace's tables, as each node knows them.
async fn table_ids(keyspace: &Keyspace) -> Vec<BTreeMap<String, String>> {
    let mut ids = Vec::new();
    for query in at_each_node(keyspace, "SELECT table_name, id FROM system_schema.tables WHERE keyspace_name = ?") {
        let answer = keyspace.session.query_unpaged(query, (&keyspace.name,)).await.unwrap();
        let rows = answer.into_rows_result().unwrap();
        let rows = rows.rows::<(String, CqlValue)>().unwrap().map(Result::unwrap);
        ids.push(rows.map(|(table, id)| (table, id.as_uuid().unwrap().to_string())).collect());
    }
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_read_models_that_start_at_once_make_one_schema() {
    for _ in 0..2 {
        with_keyspace(|keyspace| async move {
            let models = join_all((0..2).map(|_| connected(&keyspace))).await;
            keyspace.session.await_schema_agreement().await.unwrap();
            let ids = table_ids(&keyspace).await;
            assert!(ids.len() > 1, "a cluster of {} nodes", ids.len());
            for node in &ids {
                assert_eq!((node.len(), node), (6, &ids[0]), "the tables of the schema, and its versions");
                // Version 8: derived from the name, not from the time.
                assert!(node.values().all(|id| &id[14..15] == "8"), "{node:?}");
            }
            // What one has written the other reads.
            let row = key("abc", Span::All);
            write(&models[0], &rows([(row.clone(), stored(at(0, 1), 3))])).await;
            assert_eq!(load(&models[1], &row).await, Some(stored(at(0, 1), 3)));
            assert!(!models[0].connect_once().await.unwrap(), "connected twice");
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn links_and_clicks_may_share_a_keyspace() {
    with_keyspace(|keyspace| async move {
        let mut config = keyspace.config().cluster;
        config.shard = "main".into();
        let clock = Arc::new(SystemClock);
        let breaker = Breaker::new(BreakerSettings::default(), Arc::new(CoreClock(clock.clone())), 1).unwrap();
        let links = CqlStore::new(config, Arc::new(breaker), clock, Arc::new(SeededEntropy::new(1)));
        let (model, _) = tokio::join!(connected(&keyspace), patiently(|| links.connect_once()));
        links.admit();
        patiently(|| model.attach()).await;
        assert_eq!(patiently(async || links.resolve(&code("missing")).await).await.link, None);
        let versions =
            keyspace.run("SELECT component, version FROM KS.schema_versions").await.into_rows_result().unwrap();
        let versions: BTreeSet<(String, i32)> = versions.rows::<(String, i32)>().unwrap().map(Result::unwrap).collect();
        let expected = [("clicks", 1), ("clicks", 2), ("links", 1)].map(|(part, version)| (part.to_owned(), version));
        assert_eq!(versions, BTreeSet::from(expected));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_newer_schema_is_refused_and_a_half_made_one_completed() {
    with_keyspace(|keyspace| async move {
        let first = connected(&keyspace).await;
        assert_eq!(first.check().await, Ok(()));
        let before = table_ids(&keyspace).await;
        // As if the first one had died half way.
        keyspace.run("DELETE FROM KS.schema_versions WHERE component = 'clicks'").await;
        keyspace.run("DROP TABLE KS.click_leases").await;
        connected(&keyspace).await;
        keyspace.session.await_schema_agreement().await.unwrap();
        let tables = |ids: &[BTreeMap<String, String>]| ids[0].keys().cloned().collect::<Vec<_>>();
        assert_eq!(tables(&table_ids(&keyspace).await), tables(&before));
        keyspace.run("INSERT INTO KS.schema_versions (component, version) VALUES ('clicks', 99)").await;
        let newer = unconnected(keyspace.config());
        let error = newer.connect_once().await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Corrupt);
        assert!(error.message.contains("version 99") && error.message.contains("up to 2"), "{error}");
        assert_eq!(newer.attach().await.unwrap_err().kind, StoreErrorKind::Unavailable);
        assert!(newer.check().await.is_err());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_keyspace_of_the_release_before_gets_what_it_lacks_and_keeps_its_rows() {
    with_keyspace(|keyspace| async move {
        let row = key("abc", Span::All);
        write(&*connected(&keyspace).await, &rows([(row.clone(), stored(at(0, 1), 3))])).await;
        // As the first version left it.
        keyspace.run("ALTER TABLE KS.click_rows WITH speculative_retry = '50ms'").await;
        keyspace.run("DELETE FROM KS.schema_versions WHERE component = 'clicks' AND version = 2").await;
        let model = connected(&keyspace).await;
        let options = "SELECT speculative_retry FROM system_schema.tables WHERE keyspace_name = ? AND table_name = ?";
        for query in at_each_node(&keyspace, options) {
            let answer = keyspace.session.query_unpaged(query, (&keyspace.name, "click_rows")).await.unwrap();
            assert_eq!(answer.into_rows_result().unwrap().single_row::<(String,)>().unwrap().0, "250ms");
        }
        assert_eq!(load(&model, &row).await, Some(stored(at(0, 1), 3)));
    })
    .await;
}
