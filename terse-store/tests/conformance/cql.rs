//! Backends on a real cluster, which `TERSE_CQL` names: `cql://host:port,…`.
//! A keyspace with its tables takes seconds to make, so all groups of a backend
//! share one; it is dropped at the end, whatever became of the checks.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use terse_core::Clock;
use terse_core::metrics::Metrics;
use terse_core::ports::ShardStore;
use terse_resilience::{Breaker, BreakerSettings, MonotonicClock, Policy};
use terse_store::{CoreClock, CqlConfig, CqlLimits, CqlStore, Guarded, ShardMap, Sharded};
use terse_testkit::SeededEntropy;

use crate::backends::{Backend, Traits, patient_guards};
use crate::hosts::hosts;
use crate::patient::Patient;
use crate::system_clock::SystemClock;
pub(crate) use crate::system_clock::since_epoch;

/// A conditional write takes some milliseconds on each of the nodes, which share two cores.
const ON_A_CLUSTER: Traits = Traits { fewer_rounds: 20, most_callers: 16, forgets_keys: true };
/// Longest wait for the cluster to make a keyspace and its tables, or to drop them.
const PATIENCE: Duration = Duration::from_secs(180);

/// A name that no other run has.
fn keyspace_name() -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    format!("conformance_{}_{:x}_{number}", std::process::id(), since_epoch().as_millis())
}

/// The suite is about what is answered, not when: nodes that share a busy machine may take their time.
fn patient() -> CqlLimits {
    CqlLimits {
        // One connection's set-up, and each read of what the cluster is.
        connect_timeout_ms: 20_000,
        startup_timeout_ms: 120_000,
        migration_timeout_ms: 120_000,
        // More than a node itself allows: it is the nodes that say how a request went.
        read_timeout_ms: 15_000,
        list_timeout_ms: 15_000,
        mark_timeout_ms: 15_000,
        write_timeout_ms: 15_000,
        write_deadline_ms: 50_000,
        clock_timeout_ms: 4_000,
        schema_timeout_ms: 60_000,
        keepalive_timeout_ms: 30_000,
        // Nodes that are slow because they are busy are not helped by asking twice.
        speculative_delay_ms: 2_000,
        ..CqlLimits::default()
    }
}

/// A quorum breaker that does not open: the suite is about answers at a quorum, and a
/// breaker that is open for a while would refuse what the nodes could answer.
fn never_opens() -> BreakerSettings {
    BreakerSettings {
        policy: Policy::Consecutive { failures: 1_000_000 },
        call_limit_ms: 60_000,
        ..BreakerSettings::default()
    }
}

/// A store of its own on `keyspace`, as one more server would have it.
pub(crate) async fn connect(shard: &str, keyspace: &str) -> Arc<Patient> {
    let seed = since_epoch().as_nanos() as u64;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let quorum = Breaker::new(never_opens(), monotonic(Arc::clone(&clock)), seed).unwrap();
    let config = CqlConfig { limits: patient(), ..CqlConfig::new(shard, hosts(), keyspace) };
    let store = CqlStore::new(config, Arc::new(quorum), clock, Arc::new(SeededEntropy::new(seed)));
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = store.connect_once().await {
        assert!(Instant::now() < deadline, "{error}: {:?}", error.source);
    }
    store.admit();
    Arc::new(Patient(store))
}

fn monotonic(clock: Arc<dyn Clock>) -> Arc<dyn MonotonicClock> {
    Arc::new(CoreClock(clock))
}

/// A session of the driver's own, to look at rows as they stand.
pub(crate) async fn session() -> Session {
    let patient = ExecutionProfile::builder().request_timeout(Some(PATIENCE)).build().into_handle();
    let builder = SessionBuilder::new().known_nodes(hosts()).default_execution_profile_handle(patient);
    builder.connection_timeout(PATIENCE).metadata_request_clientside_timeout(PATIENCE).build().await.unwrap()
}

/// Runs `check` with the names of `count` keyspaces that don't exist, and drops them in the end.
pub(crate) async fn with_keyspaces(count: usize, check: impl AsyncFnOnce(Vec<String>)) {
    // Without a cluster there is one failure to tell, not one more from cleaning up.
    hosts();
    let names: Vec<String> = (0..count).map(|_| keyspace_name()).collect();
    let outcome = AssertUnwindSafe(check(names.clone())).catch_unwind().await;
    let session = session().await;
    for name in names {
        session.query_unpaged(format!("DROP KEYSPACE IF EXISTS {name}"), ()).await.unwrap();
    }
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

pub(crate) async fn one_store(keyspace: &str) -> Backend {
    let store = connect("main", keyspace).await;
    Backend::new(store.clone(), Some(store), ON_A_CLUSTER)
}

/// Each keyspace is a shard behind its guards, as servers have them; slots lie between them in turns.
pub(crate) async fn guarded_shards(keyspaces: &[String]) -> Backend {
    let map = ShardMap::parse(&[("a", "0-1200,2500-4095"), ("b", "1201-2499")]).unwrap();
    let mut shards: Vec<Arc<dyn ShardStore>> = Vec::new();
    for (name, keyspace) in map.names().iter().zip(keyspaces) {
        let store = connect(name, keyspace).await;
        let clock = monotonic(Arc::new(SystemClock));
        let guarded = Guarded::new(name, store, &patient_guards(), &clock, 7, &Metrics::new()).unwrap();
        shards.push(Arc::new(guarded));
    }
    Backend::new(Arc::new(Sharded::new(map, shards).unwrap()), None, ON_A_CLUSTER)
}
