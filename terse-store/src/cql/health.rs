//! Whether the cluster answers at a quorum, without which nothing can be created.

use async_trait::async_trait;
use scylla::statement::prepared::PreparedStatement;
use terse_core::ports::{StoreError, StoreHealth};

use super::lwt::{self, Decision};
use super::session::{Preparer, Use};
use super::{CqlStore, Live, settings};

/// The setting that is removed to see whether writes succeed. There is none.
const PROBE: &str = "write-probe";

/// It applies where there is no value, and leaves none. So it goes the whole way of a create, to its commit at a quorum,
/// each time: one that stood would be answered by a read, and one that is refused commits nothing.
const TRY: &str = "UPDATE {keyspace}.settings SET value = null WHERE name = ? IF value = null";

pub(super) struct Statements {
    check: PreparedStatement,
    try_write: PreparedStatement,
}

impl Statements {
    pub(super) async fn prepare(preparer: &Preparer<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            check: preparer.statement(Use::PointRead, settings::GET).await?,
            try_write: preparer.statement(Use::Conditional, TRY).await?,
        })
    }
}

impl CqlStore {
    /// Reads a setting that no one has; the breaker counts it as that of a redirect.
    async fn check_once(&self) -> Result<(), StoreError> {
        let live = self.live()?;
        self.point_rows(live, "checking the shard", &live.health.check, ("health",)).await.map(drop)
    }

    async fn try_write(&self) -> Result<(), StoreError> {
        let live = self.live()?;
        let deadline = self.write_deadline();
        // Of several looks at once each would be in the other's way.
        let _turn = self.home_turns.turn(PROBE, deadline).await?;
        self.decide(deadline, &Trying { live }).await
    }
}

/// A write that changes nothing, on its way.
struct Trying<'a> {
    live: &'a Live,
}

#[async_trait]
impl Decision for Trying<'_> {
    type Answer = ();

    async fn try_once(&self, _again: bool) -> Result<Option<()>, StoreError> {
        lwt::conditional(self.live, "trying a write", &self.live.health.try_write, (PROBE,)).await?;
        Ok(Some(()))
    }

    /// Whether it happened can't be seen, and doesn't matter: it has to be answered.
    async fn read_back(&self) -> Result<Option<()>, StoreError> {
        Ok(None)
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
        let tried = self.try_write().await;
        tried.err().map(|error| (self.config.shard.clone(), error)).into_iter().collect()
    }
}
