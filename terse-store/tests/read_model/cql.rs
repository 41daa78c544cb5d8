//! The read model on a real cluster, which `TERSE_CQL` names: `cql://host:port,…`.
//!
//! Making an instance takes a second there, and the cluster has no notion of
//! one: so a few of them are opened in turns, in one keyspace for all groups.
//! And a busy cluster may say that it is too slow, which is right; the suite is
//! about what is answered in the end, so such a call is made again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use terse_core::click::JournalId;
use terse_core::ports::StoreError;
use terse_core::ports::clicks::{Batch, Bus, Checkpoint, ClickStats, ReadModel, Retired, StoredRow, Written};
use terse_core::stats::{Partition, Row, RowKey, Span};
use terse_core::{ShortCode, Timestamp};
use terse_store::CqlReadModel;

use crate::backends::{Backend, Instance, Traits};
use crate::keyspace::{Keyspace, connected, patiently};

/// Instances that are opened in turns.
const INSTANCES: usize = 3;

pub(crate) async fn cql(bus: Bus, keyspace: &Keyspace) -> Backend {
    let mut instances: Vec<Instance> = Vec::new();
    for _ in 0..INSTANCES {
        instances.push(Arc::new(Patient(connected(keyspace).await)));
    }
    let opened = AtomicUsize::new(0);
    let traits = Traits { bus, transactional: false, one_lease: false, in_order: false, less: 50 };
    Backend::new(traits, move || {
        let instance = Arc::clone(&instances[opened.fetch_add(1, Ordering::Relaxed) % INSTANCES]);
        Box::pin(async { instance })
    })
}

/// A read model that is asked again while its cluster is too slow.
struct Patient(Arc<CqlReadModel>);

#[async_trait]
impl ReadModel for Patient {
    async fn settle_bus(&self, bus: Bus) -> Result<Bus, StoreError> {
        Ok(patiently(|| self.0.settle_bus(bus)).await)
    }

    async fn attach(&self) -> Result<(), StoreError> {
        self.0.attach().await
    }

    async fn lease(&self, partition: Partition, holder: &str, now: Timestamp, ttl_ms: u64) -> Result<bool, StoreError> {
        Ok(patiently(|| self.0.lease(partition, holder, now, ttl_ms)).await)
    }

    async fn checkpoint(&self, partition: Partition) -> Result<Option<Checkpoint>, StoreError> {
        Ok(patiently(|| self.0.checkpoint(partition)).await)
    }

    async fn checkpoints(&self) -> Result<Vec<(Partition, Checkpoint)>, StoreError> {
        Ok(patiently(|| self.0.checkpoints()).await)
    }

    async fn retired(&self, partition: Partition, journal: JournalId) -> Result<Option<Retired>, StoreError> {
        Ok(patiently(|| self.0.retired(partition, journal)).await)
    }

    async fn begin_epoch(&self, partition: Partition, first: &Checkpoint) -> Result<Option<Checkpoint>, StoreError> {
        Ok(patiently(|| self.0.begin_epoch(partition, first)).await)
    }

    async fn load(&self, keys: &[RowKey]) -> Result<Vec<Option<StoredRow>>, StoreError> {
        Ok(patiently(|| self.0.load(keys)).await)
    }

    async fn write(&self, batch: &Batch) -> Result<Written, StoreError> {
        Ok(patiently(|| self.0.write(batch)).await)
    }

    async fn scan(&self, after: Option<&RowKey>, limit: usize) -> Result<Vec<(RowKey, StoredRow)>, StoreError> {
        Ok(patiently(|| self.0.scan(after, limit)).await)
    }
}

/// Once: what is refused is an answer of the suite, and reads of statistics are few.
#[async_trait]
impl ClickStats for Patient {
    async fn overall(&self, code: &ShortCode) -> Result<Option<Row>, StoreError> {
        self.0.overall(code).await
    }

    async fn spans(&self, code: &ShortCode, first: Span, last: Span) -> Result<Vec<(Span, Row)>, StoreError> {
        self.0.spans(code, first, last).await
    }

    async fn as_of(&self, code: &ShortCode) -> Result<Option<Timestamp>, StoreError> {
        self.0.as_of(code).await
    }
}
