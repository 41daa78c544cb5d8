//! What is measured: two guarded stores of a kind, and a ring over one of
//! them and a ring over both.

use std::sync::Arc;
use std::time::{Duration, Instant};

use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use terse_core::Clock;
use terse_core::metrics::Metrics;
use terse_core::ports::ShardStore;
use terse_resilience::{Breaker, BreakerSettings, MonotonicClock};
use terse_store::{
    CoreClock, CqlConfig, CqlStore, GuardSettings, Guarded, MemoryStore, ShardMap, Sharded, SqliteConfig, SqliteStore,
};
use terse_testkit::SeededEntropy;

use crate::options::{Cluster, Options};
use crate::system_clock::{SystemClock, since_epoch};

/// Longest wait for a cluster to make a keyspace and its tables.
const PATIENCE: Duration = Duration::from_secs(120);
/// What the keyspaces are called, up to their number.
const KEYSPACE: &str = "terse_bench_store_";
/// The two shards and their slots.
const SHARDS: [(&str, &str); 2] = [("a", "0-2047"), ("b", "2048-4095")];

/// A kind of store.
pub(crate) struct Backend {
    /// Its name in the results.
    pub(crate) name: String,
    /// How many shards, and the ring over them.
    pub(crate) rings: [(usize, Arc<Sharded>); 2],
    /// The cluster that it is on.
    pub(crate) cluster: Option<Cluster>,
}

/// The time, the metrics and the randomness of all stores.
pub(crate) struct Surroundings {
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    seed: u64,
}

impl Surroundings {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(SystemClock);
        Self { clock, metrics: Metrics::new(), seed: since_epoch().as_nanos() as u64 }
    }

    fn ticks(&self) -> Arc<dyn MonotonicClock> {
        Arc::new(CoreClock(Arc::clone(&self.clock)))
    }

    fn guarded<S>(&self, shard: &str, store: Arc<S>) -> Result<Arc<dyn ShardStore>, String>
    where
        S: ShardStore,
    {
        let settings = GuardSettings::default();
        let guarded = Guarded::new(shard, store, &settings, &self.ticks(), self.seed, &self.metrics);
        Ok(Arc::new(guarded.map_err(|error| error.to_string())?))
    }

    fn cql_store(&self, cluster: &Cluster, number: usize) -> Result<Arc<CqlStore>, String> {
        let (shard, _) = SHARDS[number];
        let quorum = Breaker::new(BreakerSettings::default(), self.ticks(), self.seed).map_err(|e| e.to_string())?;
        let mut config = CqlConfig::new(shard, cluster.hosts.clone(), keyspace(number));
        config.replication = cluster.replication;
        let entropy = Arc::new(SeededEntropy::new(self.seed ^ number as u64));
        Ok(CqlStore::new(config, Arc::new(quorum), Arc::clone(&self.clock), entropy))
    }
}

/// The keyspace of shard `number`.
pub(crate) fn keyspace(number: usize) -> String {
    format!("{KEYSPACE}{number}")
}

fn rings(stores: [Arc<dyn ShardStore>; 2]) -> Result<[(usize, Arc<Sharded>); 2], String> {
    let fault = |error: terse_store::ShardMapError| error.to_string();
    let one = Sharded::new(ShardMap::single(SHARDS[0].0), stores[..1].to_vec()).map_err(fault)?;
    let two = Sharded::new(ShardMap::parse(&SHARDS).map_err(fault)?, stores.to_vec()).map_err(fault)?;
    Ok([(1, Arc::new(one)), (2, Arc::new(two))])
}

/// Everything in memory.
pub(crate) fn memory(surroundings: &Surroundings) -> Result<Backend, String> {
    let store = |shard| surroundings.guarded(shard, Arc::new(MemoryStore::new()));
    let stores = [store(SHARDS[0].0)?, store(SHARDS[1].0)?];
    Ok(Backend { name: "memory".to_owned(), rings: rings(stores)?, cluster: None })
}

/// A file for each shard.
pub(crate) fn sqlite(surroundings: &Surroundings, folder: &std::path::Path) -> Result<Backend, String> {
    let store = |shard| {
        let config = SqliteConfig::new(folder.join(shard).with_extension("sqlite"), shard);
        let store = SqliteStore::open(config).map_err(|error| error.to_string())?;
        surroundings.guarded(shard, store)
    };
    let stores = [store(SHARDS[0].0)?, store(SHARDS[1].0)?];
    Ok(Backend { name: "SQLite".to_owned(), rings: rings(stores)?, cluster: None })
}

/// A keyspace for each shard, made anew.
pub(crate) async fn cql(surroundings: &Surroundings, cluster: &Cluster) -> Result<Backend, String> {
    drop_keyspaces(cluster).await?;
    let mut stores = Vec::new();
    for (number, (shard, _)) in SHARDS.iter().enumerate() {
        let store = surroundings.cql_store(cluster, number)?;
        connect(&store).await?;
        store.admit();
        stores.push(surroundings.guarded(shard, store)?);
    }
    let stores = stores.try_into().map_err(|_| "not two stores".to_owned())?;
    Ok(Backend { name: cluster.name.clone(), rings: rings(stores)?, cluster: Some(cluster.clone()) })
}

async fn connect(store: &CqlStore) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let Err(error) = store.connect_once().await else { return Ok(()) };
        if Instant::now() > deadline {
            return Err(format!("{error}: {:?}", error.source));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Removes what this run or one that was killed has left.
pub(crate) async fn drop_keyspaces(cluster: &Cluster) -> Result<(), String> {
    let session: Session =
        SessionBuilder::new().known_nodes(&cluster.hosts).build().await.map_err(|error| error.to_string())?;
    for number in 0..SHARDS.len() {
        let statement = format!("DROP KEYSPACE IF EXISTS {}", keyspace(number));
        session.query_unpaged(statement, ()).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// What is to be measured, ready.
pub(crate) async fn all(options: &Options, surroundings: &Surroundings) -> Result<Vec<Backend>, String> {
    let mut backends = Vec::new();
    if options.local {
        backends.push(memory(surroundings)?);
        backends.push(sqlite(surroundings, &options.folder)?);
    }
    for cluster in &options.clusters {
        backends.push(cql(surroundings, cluster).await?);
    }
    Ok(backends)
}
