//! Keyspaces of the read model of clicks on the tests' cluster.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::response::query_result::QueryResult;
use terse_core::ports::{StoreError, StoreErrorKind};
use terse_store::{CqlReadModel, CqlReadModelConfig};
use terse_testkit::SeededEntropy;

use crate::hosts::hosts;
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

/// What `call` answers, asked again while the cluster is too slow: three nodes share two cores with the tests.
pub(crate) async fn patiently<T, F>(call: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, StoreError>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(error) => {
                let certain = error.kind == StoreErrorKind::Corrupt || Instant::now() >= deadline;
                assert!(!certain, "{error}: {:?}", error.source);
            }
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
