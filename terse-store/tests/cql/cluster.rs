//! The cluster of the tests, keyspaces on it, and the wire to it.

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
use scylla::statement::Consistency;
use scylla::statement::unprepared::Statement;
use terse_core::{Clock, Timestamp};
use terse_resilience::{Breaker, BreakerSettings};
use terse_store::{CoreClock, CqlConfig, CqlStore};
use terse_testkit::{Proxy, SeededEntropy};
use tokio::sync::Mutex;

pub(crate) use crate::hosts::hosts;
use crate::system_clock::{SystemClock, since_epoch};

/// Longest wait for the cluster to make or change a keyspace.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn system_clock() -> SystemClock {
    SystemClock
}

pub(crate) fn now() -> Timestamp {
    Timestamp::from_millis(since_epoch().as_millis() as i64)
}

/// A store of `config`, not connected yet, and its breaker.
pub(crate) fn unconnected(config: CqlConfig) -> (Arc<CqlStore>, Arc<Breaker>) {
    unconnected_at(config, Arc::new(system_clock()))
}

/// The same for a server that has another `clock`.
pub(crate) fn unconnected_at(config: CqlConfig, clock: Arc<dyn Clock>) -> (Arc<CqlStore>, Arc<Breaker>) {
    let seed = since_epoch().as_nanos() as u64;
    let settings = BreakerSettings { open_ms: 300, max_open_ms: 600, ..BreakerSettings::default() };
    let quorum = Arc::new(Breaker::new(settings, Arc::new(CoreClock(Arc::clone(&clock))), seed).unwrap());
    (CqlStore::new(config, Arc::clone(&quorum), clock, Arc::new(SeededEntropy::new(seed))), quorum)
}

/// Lets `store` connect, as often as that takes.
pub(crate) async fn connect(store: &CqlStore) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = Box::pin(store.connect_once()).await {
        assert!(Instant::now() < deadline, "{error}: {:?}", error.source);
    }
    store.admit();
}

/// A connected store on `keyspace`, and its breaker.
pub(crate) async fn connected(keyspace: &Keyspace) -> (Arc<CqlStore>, Arc<Breaker>) {
    let (store, quorum) = unconnected(keyspace.config());
    connect(&store).await;
    (store, quorum)
}

fn config_of(keyspace: &str) -> CqlConfig {
    let mut config = CqlConfig::new("main", hosts(), keyspace);
    // Three nodes on two cores, and other tests beside this one.
    config.limits.read_timeout_ms = 2_000;
    config.limits.list_timeout_ms = 4_000;
    config.limits.mark_timeout_ms = 4_000;
    config.limits.clock_timeout_ms = 1_500;
    config.limits.write_timeout_ms = 4_000;
    config.limits.write_deadline_ms = 12_000;
    config.limits.startup_timeout_ms = 20_000;
    config.limits.schema_timeout_ms = 15_000;
    config
}

/// The keyspace of a check.
pub(crate) struct Keyspace {
    pub(crate) name: String,
    pub(crate) session: Session,
}

impl Keyspace {
    pub(crate) fn config(&self) -> CqlConfig {
        config_of(&self.name)
    }

    async fn remove(&self) {
        self.run("DROP KEYSPACE IF EXISTS KS").await;
    }

    /// Runs `text`, in which `KS` stands for this keyspace.
    pub(crate) async fn run(&self, text: &str) -> scylla::response::query_result::QueryResult {
        self.session.query_unpaged(text.replace("KS", &self.name), ()).await.unwrap()
    }

    /// Asks for more replicas than there are nodes, so that no quorum can be had, or for three. `quorum` tells
    /// which of both, and every node is waited for: each takes the change over by itself.
    pub(crate) async fn set_replicas(&self, replicas: u8, quorum: bool) {
        let here = self.run("SELECT data_center FROM system.local").await.into_rows_result().unwrap();
        let (here,) = here.first_row::<(String,)>().unwrap();
        // By the data centre's name: a number for all of them would not change those that have one.
        let replication = format!("{{'class': 'NetworkTopologyStrategy', '{here}': {replicas}}}");
        let text = format!("ALTER KEYSPACE KS WITH replication = {replication}");
        self.run(&text).await;
        let deadline = Instant::now() + PATIENCE;
        for text in self.at_each_node("SELECT code FROM KS.links WHERE code = 'missing'") {
            while self.session.query_unpaged(text.clone(), ()).await.is_ok() != quorum {
                assert!(Instant::now() < deadline, "a node does not take {replicas} replicas over");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// `text`, once for each node to answer.
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

/// Runs `check` on a keyspace of its own, which is dropped in the end, whatever became of it.
pub(crate) async fn with_keyspace<C, R>(check: C)
where
    C: FnOnce(Arc<Keyspace>) -> R,
    R: Future<Output = ()>,
{
    let keyspace = Arc::new(Keyspace { name: fresh_name(), session: session().await });
    let outcome = outcome_of(check(Arc::clone(&keyspace))).await;
    keyspace.remove().await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `check` on a keyspace, with its tables made, that other checks use at the same time: for those that look at
/// nothing but codes of their own and leave schema and replicas as they are. Tables take most of a check's time.
pub(crate) async fn with_shared_keyspace<C, R>(check: C)
where
    C: FnOnce(Arc<Keyspace>) -> R,
    R: Future<Output = ()>,
{
    let session = session().await;
    let keyspace = Arc::new(Keyspace { name: SHARED.lock().await.enter().await, session });
    let outcome = outcome_of(check(Arc::clone(&keyspace))).await;
    if SHARED.lock().await.leave() {
        keyspace.remove().await;
    }
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// How `check` ends. Boxed, for all that it awaits is too much for the stack of a test's thread.
async fn outcome_of(check: impl Future<Output = ()>) -> std::thread::Result<()> {
    AssertUnwindSafe(Box::pin(check)).catch_unwind().await
}

/// The keyspace that checks share, while any does. By its name alone: a session ends with the check that made it.
static SHARED: Mutex<Shared> = Mutex::const_new(Shared { name: String::new(), users: 0 });

struct Shared {
    name: String,
    users: usize,
}

impl Shared {
    /// The keyspace's name; the first one who enters makes its tables, and the others wait for them.
    async fn enter(&mut self) -> String {
        if self.users == 0 {
            if self.name.is_empty() {
                self.name = fresh_name();
            }
            let (store, _) = unconnected(config_of(&self.name));
            Box::pin(connect(&store)).await;
        }
        self.users += 1;
        self.name.clone()
    }

    /// Whether that was the last one, who is to drop it: the next one gets another.
    fn leave(&mut self) -> bool {
        self.users -= 1;
        if self.users == 0 {
            self.name.clear();
        }
        self.users == 0
    }
}

fn fresh_name() -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    format!("cql_{}_{:x}_{number}", std::process::id(), since_epoch().as_millis())
}

async fn session() -> Session {
    let patient = ExecutionProfile::builder().request_timeout(Some(PATIENCE)).build().into_handle();
    let builder = SessionBuilder::new().known_nodes(hosts()).default_execution_profile_handle(patient);
    builder.build().await.unwrap()
}

/// A proxy before every node, and a configuration that knows the cluster by them.
pub(crate) struct Wire {
    pub(crate) proxies: Arc<Vec<Proxy>>,
    pub(crate) config: CqlConfig,
}

pub(crate) fn wire(mut config: CqlConfig) -> Wire {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let proxies: Vec<_> = hosts().iter().map(|host| Proxy::start(host.parse().unwrap(), any).unwrap()).collect();
    config.translate =
        proxies.iter().map(|proxy| (proxy.upstream().to_string(), proxy.address().to_string())).collect();
    Wire { proxies: Arc::new(proxies), config }
}

impl Wire {
    /// Cuts the connection over which the first request with `bytes` in it goes, after it has gone out.
    pub(crate) fn cut_once_after(&self, bytes: &[u8]) {
        let sprung = Arc::new(AtomicBool::new(false));
        for proxy in &*self.proxies {
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
