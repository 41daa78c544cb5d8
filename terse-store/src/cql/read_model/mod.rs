//! The read model of clicks on a cluster that speaks CQL.
//!
//! It has a session of its own and a schema of its own; it may share a keyspace
//! with links. Like a [`CqlStore`](super::CqlStore) it is made without any I/O and answers
//! "unavailable" until [`CqlReadModel::connect_once`] has succeeded.
//!
//! - A row is one cell, written `USING TIMESTAMP` its position: an older writer
//!   loses by itself, on each replica, and writing the same again changes
//!   nothing ([`cells`]). So a write may be lost, repeated or late, and several
//!   projectors may write, without a condition and without being wrong.
//! - The position is read back as the cell's write time. It is the very number
//!   by which replicas choose between cells, so it can't be apart from the
//!   value, and costs no bytes. One that is no position shows that something
//!   else has written there; it would win over all that follows, and is told as
//!   corrupt.
//! - All reads and writes are at a quorum. A checkpoint is written when all rows
//!   before it were acknowledged; statistics never fall back to one replica,
//!   for smaller numbers are worse than none.
//! - Leases, the kind of bus and the beginnings of epochs are conditional writes, in tables of their own.
//!
//! Bounds: [`ReadModelBounds`]; each request has a timeout ([`super::CqlLimits`]).
//! A batch takes as long as its rows need at so many in flight; the first that
//! fails ends it.

mod cells;
mod checkpoints;
mod leases;
mod places;
mod scan;
mod settled;
mod spans;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use scylla::client::session::Session;
use terse_core::click::JournalId;
use terse_core::ports::DependencyHealth;
use terse_core::ports::StoreError;
use terse_core::ports::clicks::{Batch, Bus, Checkpoint, ClickStats, ReadModel, Retired, StoredRow, Written};
use terse_core::stats::{Partition, Row, RowKey, Span};
use terse_core::{Clock, Entropy, ShortCode, Timestamp};
use tokio::time::Instant;

use super::config::{CqlConfig, CqlLimits};
use super::connection::{self, Connection, until};
use super::schema;
use super::session::{Preparer, Profiles};
use places::Places;

/// What a [`CqlReadModel`] is made from.
#[derive(Clone, Debug)]
pub struct CqlReadModelConfig {
    /// Where it is, and every timeout.
    pub cluster: CqlConfig,
    /// How much is done at once.
    pub bounds: ReadModelBounds,
}

impl CqlReadModelConfig {
    /// The read model in `keyspace` on `hosts` (each `host:port`), three replicas, with default limits.
    #[must_use]
    pub fn new(hosts: Vec<String>, keyspace: impl Into<String>) -> Self {
        let limits = CqlLimits {
            // Nobody waits for a row as a redirect waits for its link, and nodes that are slow because they are
            // busy are not helped by asking twice.
            write_timeout_ms: 2_000,
            write_deadline_ms: 4_000,
            speculative_delay_ms: 200,
            speculative_reads: 1,
            ..CqlLimits::default()
        };
        let cluster = CqlConfig { limits, ..CqlConfig::new("stats", hosts, keyspace) };
        Self { cluster, bounds: ReadModelBounds::default() }
    }
}

/// How much a read model does at once. What comes on top waits, at most for the time said here, and fails as
/// overloaded then: a batch is written again, statistics are asked for again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadModelBounds {
    /// Rows being written.
    pub writes_at_once: usize,
    /// Rows being read for the projector.
    pub loads_at_once: usize,
    /// Requests for statistics and their parts.
    pub stats_at_once: usize,
    /// Longest wait of a row that is to be written or read for the projector, in milliseconds.
    pub projector_wait_ms: u64,
    /// Longest wait of a request for statistics, in milliseconds.
    pub stats_wait_ms: u64,
}

impl Default for ReadModelBounds {
    fn default() -> Self {
        Self { writes_at_once: 64, loads_at_once: 64, stats_at_once: 64, projector_wait_ms: 10_000, stats_wait_ms: 500 }
    }
}

/// Rows of clicks, and how far they go, in one keyspace.
pub struct CqlReadModel {
    config: CqlReadModelConfig,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    connection: Connection<Live>,
    writes: Places,
    loads: Places,
    stats: Places,
    /// What it is made for, once that is known: it never changes.
    bus: OnceLock<Bus>,
}

/// A session, and all statements prepared in it.
struct Live {
    session: Session,
    cells: cells::Statements,
    spans: spans::Statements,
    scan: scan::Statements,
    checkpoints: checkpoints::Statements,
    leases: leases::Statements,
    settled: settled::Statements,
}

impl Live {
    async fn connect(config: &CqlConfig, now: Timestamp) -> Result<Self, StoreError> {
        let opened = connection::open(config, &schema::CLICKS, now).await?;
        until(opened.deadline, config, Self::prepare(opened.session, &opened.profiles, &opened.keyspace)).await
    }

    async fn prepare(session: Session, profiles: &Profiles, keyspace: &str) -> Result<Self, StoreError> {
        let preparer = Preparer { session: &session, profiles, keyspace };
        Ok(Self {
            cells: cells::Statements::prepare(&preparer).await?,
            spans: spans::Statements::prepare(&preparer).await?,
            scan: scan::Statements::prepare(&preparer).await?,
            checkpoints: checkpoints::Statements::prepare(&preparer).await?,
            leases: leases::Statements::prepare(&preparer).await?,
            settled: settled::Statements::prepare(&preparer).await?,
            session,
        })
    }
}

impl CqlReadModel {
    /// A read model that is not connected yet; no I/O.
    #[must_use]
    pub fn new(config: CqlReadModelConfig, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Arc<Self> {
        let bounds = &config.bounds;
        let writes = Places::new("rows being written", bounds.writes_at_once, bounds.projector_wait_ms);
        let loads = Places::new("rows being read", bounds.loads_at_once, bounds.projector_wait_ms);
        let stats = Places::new("requests for statistics", bounds.stats_at_once, bounds.stats_wait_ms);
        let (connection, bus) = (Connection::none(), OnceLock::new());
        Arc::new(Self { config, clock, entropy, connection, writes, loads, stats, bus })
    }

    /// Connects, brings the keyspace to this release's schema and prepares all statements, unless that is done
    /// already. One bounded step, to be called again until it succeeds. Tells whether it was this call that
    /// connected; while another one is at it, fails at once.
    ///
    /// # Errors
    /// [`StoreErrorKind::Corrupt`](terse_core::ports::StoreErrorKind::Corrupt) when a newer release wrote the
    /// keyspace; else the cluster could not be reached in time.
    pub async fn connect_once(&self) -> Result<bool, StoreError> {
        let config = &self.config.cluster;
        self.connection.connect_once(config, Live::connect(config, self.clock.now())).await
    }

    fn live(&self) -> Result<&Live, StoreError> {
        self.connection.get(&self.config.cluster).map(Arc::as_ref)
    }

    /// When a conditional write that begins now must have ended.
    fn write_deadline(&self) -> Instant {
        Instant::now() + Duration::from_millis(self.config.cluster.limits.write_deadline_ms)
    }

    /// Does `step` for each number below `count`, as many at once as rows may be written. The first failure ends it.
    async fn each<F>(&self, count: usize, step: impl Fn(usize) -> F) -> Result<(), StoreError>
    where
        F: Future<Output = Result<(), StoreError>>,
    {
        let numbers = stream::iter((0..count).map(Ok));
        numbers.try_for_each_concurrent(self.config.bounds.writes_at_once.max(1), step).await
    }
}

#[async_trait]
impl ReadModel for CqlReadModel {
    async fn settle_bus(&self, bus: Bus) -> Result<Bus, StoreError> {
        let standing = self.settled_bus(self.live()?, bus).await?;
        Ok(*self.bus.get_or_init(|| standing))
    }

    /// Positions order the writers: there is nothing to begin.
    async fn attach(&self) -> Result<(), StoreError> {
        self.live().map(drop)
    }

    async fn lease(&self, partition: Partition, holder: &str, now: Timestamp, ttl_ms: u64) -> Result<bool, StoreError> {
        self.leased(self.live()?, partition, holder, now, ttl_ms).await
    }

    async fn checkpoint(&self, partition: Partition) -> Result<Option<Checkpoint>, StoreError> {
        self.live()?.checkpoint(partition).await
    }

    async fn checkpoints(&self) -> Result<Vec<(Partition, Checkpoint)>, StoreError> {
        self.live()?.checkpoints().await
    }

    async fn retired(&self, partition: Partition, journal: JournalId) -> Result<Option<Retired>, StoreError> {
        self.live()?.retired(partition, journal).await
    }

    /// The first checkpoint stands when it is known to all with which one the epoch began.
    async fn begin_epoch(&self, partition: Partition, first: &Checkpoint) -> Result<Option<Checkpoint>, StoreError> {
        let live = self.live()?;
        let begun = self.epoch_begun(live, partition, first).await?;
        live.write_checkpoint(partition, &begun).await?;
        Ok(Some(begun))
    }

    async fn load(&self, keys: &[RowKey]) -> Result<Vec<Option<StoredRow>>, StoreError> {
        let live = self.live()?;
        let reads = (0..keys.len()).map(|at| async move {
            let _place = self.loads.take().await?;
            live.stored(&keys[at]).await
        });
        stream::iter(reads).buffered(self.config.bounds.loads_at_once.max(1)).try_collect().await
    }

    async fn write(&self, batch: &Batch) -> Result<Written, StoreError> {
        let live = self.live()?;
        let row = |at: usize| async move {
            let (key, packed) = &batch.rows[at];
            let _place = self.writes.take().await?;
            live.write_row(key, packed).await
        };
        let retired = |at: usize| {
            let (log, journal, retired) = &batch.retired[at];
            live.retire(*log, *journal, retired)
        };
        let checkpoint = |at: usize| {
            let (log, checkpoint) = &batch.checkpoints[at];
            live.write_checkpoint(*log, checkpoint)
        };
        self.each(batch.rows.len(), row).await?;
        self.each(batch.retired.len(), retired).await?;
        self.each(batch.checkpoints.len(), checkpoint).await?;
        Ok(Written::Stands)
    }

    async fn scan(&self, after: Option<&RowKey>, limit: usize) -> Result<Vec<(RowKey, StoredRow)>, StoreError> {
        self.live()?.scan(after, limit).await
    }
}

#[async_trait]
impl ClickStats for CqlReadModel {
    async fn overall(&self, code: &ShortCode) -> Result<Option<Row>, StoreError> {
        let key = RowKey { code: code.clone(), span: Span::All };
        let live = self.live()?;
        let _place = self.stats.take().await?;
        Ok(live.stored(&key).await?.map(|stored| stored.row))
    }

    async fn spans(&self, code: &ShortCode, first: Span, last: Span) -> Result<Vec<(Span, Row)>, StoreError> {
        let live = self.live()?;
        let slices = spans::slices(first, last)?;
        let reads = slices.into_iter().map(|slice| async move {
            let _place = self.stats.take().await?;
            live.slice(code, slice).await
        });
        let found: Vec<_> = stream::iter(reads).buffered(spans::SLICES_AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn as_of(&self, code: &ShortCode) -> Result<Option<Timestamp>, StoreError> {
        let live = self.live()?;
        let _place = self.stats.take().await?;
        let Some(Bus::Streams { partitions }) = self.known_bus(live).await? else { return Ok(None) };
        let checkpoint = live.checkpoint(Partition::of(code.as_str(), partitions)).await?;
        Ok(checkpoint.map(|checkpoint| checkpoint.until))
    }
}

#[async_trait]
impl DependencyHealth for CqlReadModel {
    fn name(&self) -> &'static str {
        "stats"
    }

    /// Reads what it is made for, at a quorum.
    async fn check(&self) -> Result<(), String> {
        let asked = async { self.live()?.bus().await };
        asked.await.map(drop).map_err(|error| error.message)
    }
}
