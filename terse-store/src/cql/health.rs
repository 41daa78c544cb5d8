//! Whether the cluster answers at a quorum, without which nothing can be created.

use async_trait::async_trait;
use scylla::statement::prepared::PreparedStatement;
use terse_core::ports::{SettingsStore as _, StoreError, StoreHealth};

use super::session::{Preparer, Use};
use super::{CqlStore, settings};

/// The setting that is written to see whether writes succeed.
const PROBE: &str = "health-probe";

pub(super) struct Statements {
    check: PreparedStatement,
}

impl Statements {
    pub(super) async fn prepare(preparer: &Preparer<'_>) -> Result<Self, StoreError> {
        Ok(Self { check: preparer.statement(Use::PointRead, settings::GET).await? })
    }
}

impl CqlStore {
    /// Reads a setting that no one has; the breaker counts it as that of a redirect.
    async fn check_once(&self) -> Result<(), StoreError> {
        let live = self.live()?;
        self.point_rows(live, "checking the shard", &live.health.check, ("health",)).await.map(drop)
    }
}

#[async_trait]
impl StoreHealth for CqlStore {
    async fn check(&self) -> Vec<(String, Result<(), StoreError>)> {
        vec![(self.config.shard.clone(), self.check_once().await)]
    }

    /// Nothing is known of writes here but by whoever guards them.
    async fn check_writes(&self, doubts: bool) -> Vec<(String, StoreError)> {
        if !doubts {
            return Vec::new();
        }
        // From the second time on it stands, and a quorum says so.
        let tried = self.settle(PROBE, b"").await;
        tried.err().map(|error| (self.config.shard.clone(), error)).into_iter().collect()
    }
}
