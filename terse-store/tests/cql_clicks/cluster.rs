//! The cluster of the tests, keyspaces on it, the wire to it, and rows to write.

use std::future::Future;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::policies::load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy};
use scylla::response::query_result::QueryResult;
use scylla::statement::Consistency;
use scylla::statement::unprepared::Statement;
use terse_core::Timestamp;
use terse_core::click::{BlockId, JournalId};
use terse_core::ports::StoreError;
use terse_core::ports::clicks::{Batch, Checkpoint, ReadModel, StoredRow, Written};
use terse_core::stats::{Dimension, Partition, Position, Row, RowKey, Span};
use terse_store::{CqlReadModel, CqlReadModelConfig};
use terse_testkit::links::code;
use terse_testkit::{Proxy, SeededEntropy};

pub(crate) use crate::hosts::hosts;
use crate::system_clock::{SystemClock, since_epoch};

/// Longest wait for the cluster to do what it will do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A keyspace of one test.
pub(crate) struct Keyspace {
    pub(crate) name: String,
    pub(crate) session: Session,
}

impl Keyspace {
    pub(crate) fn config(&self) -> CqlReadModelConfig {
        let mut config = CqlReadModelConfig::new(hosts(), self.name.clone());
        // Three nodes on two cores, and other tests beside this one.
        config.cluster.limits.list_timeout_ms = 5_000;
        config.cluster.limits.write_timeout_ms = 5_000;
        config.cluster.limits.write_deadline_ms = 15_000;
        config.cluster.limits.startup_timeout_ms = 20_000;
        config.cluster.limits.schema_timeout_ms = 15_000;
        config.cluster.limits.speculative_delay_ms = 500;
        config
    }

    /// Runs `text`, in which `KS` stands for this keyspace.
    pub(crate) async fn run(&self, text: &str) -> QueryResult {
        self.session.query_unpaged(text.replace("KS", &self.name), ()).await.unwrap()
    }

    /// Asks for more replicas than there are nodes, so that no quorum can be had, or for three. `quorum` tells
    /// which of both, and every node is waited for: each takes the change over by itself.
    pub(crate) async fn set_replicas(&self, replicas: u8, quorum: bool) {
        let here = self.run("SELECT data_center FROM system.local").await.into_rows_result().unwrap();
        let (here,) = here.first_row::<(String,)>().unwrap();
        let replication = format!("{{'class': 'NetworkTopologyStrategy', '{here}': {replicas}}}");
        self.run(&format!("ALTER KEYSPACE KS WITH replication = {replication}")).await;
        let deadline = Instant::now() + PATIENCE;
        for text in self.at_each_node("SELECT log FROM KS.click_leases WHERE log = 'missing'") {
            while self.session.query_unpaged(text.clone(), ()).await.is_ok() != quorum {
                assert!(Instant::now() < deadline, "a node does not take {replicas} replicas over");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// `text`, once for each node to answer at a quorum.
    pub(crate) fn at_each_node(&self, text: &str) -> Vec<Statement> {
        let text = text.replace("KS", &self.name);
        let nodes = self.session.get_cluster_state().get_nodes_info().to_vec();
        let statements = nodes.into_iter().map(|node| {
            let mut statement = Statement::new(text.clone());
            let alone = SingleTargetLoadBalancingPolicy::new(NodeIdentifier::Node(node), None);
            statement.set_load_balancing_policy(Some(alone));
            statement.set_consistency(Consistency::LocalQuorum);
            statement
        });
        statements.collect()
    }
}

/// A read model of `config`, not connected yet.
pub(crate) fn unconnected(config: CqlReadModelConfig) -> Arc<CqlReadModel> {
    let seed = since_epoch().as_nanos() as u64;
    CqlReadModel::new(config, Arc::new(SystemClock), Arc::new(SeededEntropy::new(seed)))
}

/// A connected read model of `config`.
pub(crate) async fn connect(config: CqlReadModelConfig) -> Arc<CqlReadModel> {
    let model = unconnected(config);
    patiently(|| model.connect_once()).await;
    model
}

/// A connected read model on `keyspace`, as one more server has it.
pub(crate) async fn connected(keyspace: &Keyspace) -> Arc<CqlReadModel> {
    connect(keyspace.config()).await
}

/// What `call` answers, asked again while it fails: three nodes on two cores may be slow.
pub(crate) async fn patiently<T>(call: impl AsyncFn() -> Result<T, StoreError>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(error) => assert!(Instant::now() < deadline, "{error}: {:?}", error.source),
        }
    }
}

/// Runs `test` on a keyspace of its own, which is dropped in the end, whatever became of it.
pub(crate) async fn with_keyspace<C, R>(test: C)
where
    C: FnOnce(Arc<Keyspace>) -> R,
    R: Future<Output = ()>,
{
    static MADE: AtomicU32 = AtomicU32::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let name = format!("clicks_{}_{:x}_{number}", std::process::id(), since_epoch().as_millis());
    let patient = ExecutionProfile::builder().request_timeout(Some(PATIENCE)).build().into_handle();
    let builder = SessionBuilder::new().known_nodes(hosts()).default_execution_profile_handle(patient);
    let session = builder.connection_timeout(PATIENCE).build().await.unwrap();
    let keyspace = Arc::new(Keyspace { name, session });
    let outcome = AssertUnwindSafe(test(Arc::clone(&keyspace))).catch_unwind().await;
    keyspace.run("DROP KEYSPACE IF EXISTS KS").await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
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
    Batch { rows: rows.into_iter().collect(), ..Batch::default() }
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
