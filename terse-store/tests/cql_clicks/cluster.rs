//! The wire to the cluster, what is changed about it, and rows to write.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use scylla::policies::load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy};
use scylla::statement::Consistency;
use scylla::statement::unprepared::Statement;
use terse_core::Timestamp;
use terse_core::click::{BlockId, JournalId};
use terse_core::ports::clicks::{Batch, Checkpoint, ReadModel, StoredRow, Written};
use terse_core::stats::{Dimension, Partition, Position, Row, RowKey, Span};
use terse_store::{CqlReadModel, CqlReadModelConfig};
use terse_testkit::Proxy;
use terse_testkit::links::code;

use crate::hosts::hosts;
pub(crate) use crate::keyspace::{Keyspace, PATIENCE, connect, connected, patiently, unconnected, with_keyspace};

/// Asks for more replicas than there are nodes, so that no quorum can be had, or for three. `quorum` tells
/// which of both, and every node is waited for: each takes the change over by itself.
pub(crate) async fn set_replicas(keyspace: &Keyspace, replicas: u8, quorum: bool) {
    let here = keyspace.run("SELECT data_center FROM system.local").await.into_rows_result().unwrap();
    let (here,) = here.first_row::<(String,)>().unwrap();
    let replication = format!("{{'class': 'NetworkTopologyStrategy', '{here}': {replicas}}}");
    keyspace.run(&format!("ALTER KEYSPACE KS WITH replication = {replication}")).await;
    let deadline = Instant::now() + PATIENCE;
    for text in at_each_node(keyspace, "SELECT log FROM KS.click_leases WHERE log = 'missing'") {
        while keyspace.session.query_unpaged(text.clone(), ()).await.is_ok() != quorum {
            assert!(Instant::now() < deadline, "a node does not take {replicas} replicas over");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// `text`, once for each node to answer at a quorum.
pub(crate) fn at_each_node(keyspace: &Keyspace, text: &str) -> Vec<Statement> {
    let text = text.replace("KS", &keyspace.name);
    let nodes = keyspace.session.get_cluster_state().get_nodes_info().to_vec();
    let statements = nodes.into_iter().map(|node| {
        let mut statement = Statement::new(text.clone());
        let alone = SingleTargetLoadBalancingPolicy::new(NodeIdentifier::Node(node), None);
        statement.set_load_balancing_policy(Some(alone));
        statement.set_consistency(Consistency::LocalQuorum);
        statement
    });
    statements.collect()
}

/// A proxy before every node, and a configuration that knows the cluster by them.
pub(crate) struct Wire {
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) config: CqlReadModelConfig,
}

pub(crate) fn wire(mut config: CqlReadModelConfig) -> Wire {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let proxies: Vec<_> = hosts().iter().map(|host| Proxy::start(host.parse().unwrap(), any).unwrap()).collect();
    config.cluster.translate =
        proxies.iter().map(|proxy| (proxy.upstream().to_string(), proxy.address().to_string())).collect();
    Wire { proxies, config }
}

impl Wire {
    /// Cuts the connection over which the first request with `bytes` in it goes, after it has gone out.
    pub(crate) fn cut_once_after(&self, bytes: &[u8]) {
        let sprung = Arc::new(AtomicBool::new(false));
        for proxy in &self.proxies {
            let (sprung, bytes) = (Arc::clone(&sprung), bytes.to_vec());
            proxy.cut_after(move |chunk| {
                let hit = chunk.windows(bytes.len()).any(|window| window == bytes);
                hit && !sprung.swap(true, Ordering::SeqCst)
            });
        }
    }

    /// How many connections were cut by `cut_once_after`.
    pub(crate) fn sprung(&self) -> u64 {
        self.proxies.iter().map(|proxy| proxy.counts().sprung).sum()
    }
}

pub(crate) fn at(epoch: u16, offset: u64) -> Position {
    Position { epoch, offset }
}

pub(crate) fn key(text: &str, span: Span) -> RowKey {
    RowKey { code: code(text), span }
}

/// A row of so many clicks.
pub(crate) fn row(clicks: u64) -> Row {
    let mut row = Row::default();
    row.clicks = clicks;
    row.values_mut(Dimension::Country).add("DE", clicks);
    row
}

/// A row of so many clicks that includes its partition up to `at`.
pub(crate) fn stored(at: Position, clicks: u64) -> StoredRow {
    StoredRow { at, row: row(clicks) }
}

pub(crate) fn checkpoint(at: Position) -> Checkpoint {
    Checkpoint {
        at,
        until: Timestamp::from_millis(1_767_323_045_000 + at.offset as i64),
        anchor: BlockId { journal: JournalId([9; 16]), seq: at.offset },
        passed: at.offset.to_be_bytes().to_vec(),
    }
}

/// A batch of `rows` alone.
pub(crate) fn rows(rows: impl IntoIterator<Item = (RowKey, StoredRow)>) -> Batch {
    let rows = rows.into_iter().map(|(key, stored)| (key, stored.into()));
    Batch { rows: rows.collect(), ..Batch::default() }
}

/// A batch of one checkpoint alone.
pub(crate) fn checkpoints(log: Partition, at: Position) -> Batch {
    Batch { checkpoints: vec![(log, checkpoint(at))], ..Batch::default() }
}

/// Writes `batch` until it stands.
pub(crate) async fn write(model: &CqlReadModel, batch: &Batch) {
    assert_eq!(patiently(|| model.write(batch)).await, Written::Stands);
}

/// The row of `key`.
pub(crate) async fn load(model: &CqlReadModel, key: &RowKey) -> Option<StoredRow> {
    let keys = std::slice::from_ref(key);
    patiently(|| model.load(keys)).await.pop().unwrap()
}
