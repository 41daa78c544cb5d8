//! How a session comes to be: in bounded steps, once, and again until it succeeds.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use scylla::client::session::Session;
use terse_core::Timestamp;
use terse_core::ports::StoreError;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::config::CqlConfig;
use super::fault;
use super::schema::{Component, Migrator, quoted};
use super::session::{self, Profiles};

/// A session and what is prepared in it, `L`, once it stands. The driver reconnects by itself from then on.
pub(super) struct Connection<L> {
    live: OnceLock<Arc<L>>,
    /// Held while connecting, so that it happens once.
    connecting: Mutex<()>,
}

impl<L> Connection<L> {
    pub(super) fn none() -> Self {
        Self { live: OnceLock::new(), connecting: Mutex::new(()) }
    }

    /// What stands.
    ///
    /// # Errors
    /// [`StoreErrorKind::Unavailable`](terse_core::ports::StoreErrorKind::Unavailable) while nothing does.
    pub(super) fn get(&self, config: &CqlConfig) -> Result<&Arc<L>, StoreError> {
        self.live.get().ok_or_else(|| fault::unavailable(format!("shard '{}' is not connected", config.shard)))
    }

    /// Connects by `connect`, unless that is done. Tells whether it was this call that did it.
    ///
    /// # Errors
    /// Those of `connect`; at once while another call is at it.
    pub(super) async fn connect_once(
        &self,
        config: &CqlConfig,
        connect: impl Future<Output = Result<L, StoreError>>,
    ) -> Result<bool, StoreError> {
        if self.live.get().is_some() {
            return Ok(false);
        }
        let Ok(_one_at_a_time) = self.connecting.try_lock() else {
            return Err(fault::unavailable(format!("shard '{}' is being connected", config.shard)));
        };
        if self.live.get().is_some() {
            return Ok(false);
        }
        // On the heap: what a driver does to connect is a large future.
        let live = Box::pin(connect).await?;
        Ok(self.live.set(Arc::new(live)).is_ok())
    }
}

/// A session with a keyspace that has its schema.
pub(super) struct Opened {
    pub(super) session: Session,
    pub(super) profiles: Profiles,
    /// Quoted, as it stands in statements.
    pub(super) keyspace: String,
    /// When whatever is left to do must have ended.
    pub(super) deadline: Instant,
}

/// Connects to the cluster of `config`, and brings its keyspace to this release's schema of `component`.
pub(super) async fn open(config: &CqlConfig, component: &Component, now: Timestamp) -> Result<Opened, StoreError> {
    let limits = &config.limits;
    let profiles = Profiles::new(limits);
    let mut deadline = Instant::now() + Duration::from_millis(limits.startup_timeout_ms);
    let session = until(deadline, config, session::connect(config, &profiles)).await?;
    let (keyspace, replication) = (config.keyspace.as_str(), config.replication);
    let migrator = Migrator { component, session: &session, profiles: &profiles, keyspace, replication };
    if !until(deadline, config, migrator.is_current()).await? {
        deadline += Duration::from_millis(limits.migration_timeout_ms);
        until(deadline, config, migrator.migrate(now)).await?;
    }
    Ok(Opened { session, profiles, keyspace: quoted(keyspace), deadline })
}

/// `step`, or a failure when it has not ended by `deadline`.
pub(super) async fn until<T>(
    deadline: Instant,
    config: &CqlConfig,
    step: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout_at(deadline, step)
        .await
        .unwrap_or_else(|_| Err(fault::unavailable(format!("shard '{}': connecting took too long", config.shard))))
}
