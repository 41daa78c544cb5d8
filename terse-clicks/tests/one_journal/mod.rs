//! A journal whose blocks are made when they are read, and a read model that keeps nothing: what it takes to count
//! clicks, without what it takes to read and write them. For a test and a benchmark.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use terse_clicks::log::{Body, ClickLog, Delivery, LogError};
use terse_clicks::part::{Part, PartHeader};
use terse_core::Timestamp;
use terse_core::click::{BlockId, JournalId};
use terse_core::ports::StoreError;
use terse_core::ports::clicks::{Batch, Bus, Checkpoint, ReadModel, Retired, StoredRow, Written};
use terse_core::stats::{Partition, RowKey};

const JOURNAL: JournalId = JournalId([1; 16]);
/// When the journal was sealed, and its first click was.
pub(crate) const AT: Timestamp = Timestamp::from_millis(1_767_323_045_000);

/// The header of a block of so many records.
pub(crate) fn header(seq: usize, records: usize) -> PartHeader {
    PartHeader {
        block: BlockId { journal: JOURNAL, seq: seq as u64 },
        partition: 0,
        partitions: 1,
        block_records: records as u32,
        recovered: false,
        end: false,
        sealed_at: AT,
    }
}

/// The journal: `make` makes the block of each number below `blocks`.
pub(crate) struct OneJournal<F> {
    pub(crate) blocks: usize,
    pub(crate) next: usize,
    pub(crate) make: F,
}

#[async_trait]
impl<F: FnMut(usize) -> Part + Send + 'static> ClickLog for OneJournal<F> {
    async fn partitions(&mut self) -> Result<Vec<Partition>, LogError> {
        Ok(vec![Partition::Journal(JOURNAL)])
    }

    async fn start(&mut self, _: Partition, _: Option<&Checkpoint>) -> Result<(), LogError> {
        Ok(())
    }

    async fn next(&mut self, most_bytes: usize, _: u64) -> Result<Vec<Delivery>, LogError> {
        let (mut bytes, mut taken) = (0, Vec::new());
        while bytes < most_bytes && self.next < self.blocks {
            let part = (self.make)(self.next);
            bytes += part.frames_len();
            let (partition, offset) = (Partition::Journal(JOURNAL), self.next as u64);
            taken.push(Delivery { partition, offset, body: Body::Part(part) });
            self.next += 1;
        }
        Ok(taken)
    }

    async fn passed(&mut self, _: Partition, _: u64) -> Result<(), LogError> {
        Ok(())
    }

    async fn dead_letter(&mut self, _: &Delivery) -> Result<(), LogError> {
        unreachable!("all of it can be decoded")
    }

    fn stop(&mut self, _: Partition) {}

    fn ended(&self) -> Vec<(Partition, JournalId)> {
        Vec::new()
    }

    fn oldest_waiting(&self) -> Option<Timestamp> {
        None
    }
}

/// Keeps nothing but how much it was given.
#[derive(Default)]
pub(crate) struct Sink {
    pub(crate) rows: AtomicUsize,
    pub(crate) bytes: AtomicUsize,
    pub(crate) writes: AtomicUsize,
    /// Bytes of the largest write.
    pub(crate) heaviest: AtomicUsize,
}

#[async_trait]
impl ReadModel for Sink {
    async fn settle_bus(&self, bus: Bus) -> Result<Bus, StoreError> {
        Ok(bus)
    }

    async fn attach(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn lease(&self, _: Partition, _: &str, _: Timestamp, _: u64) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn checkpoint(&self, _: Partition) -> Result<Option<Checkpoint>, StoreError> {
        Ok(None)
    }

    async fn checkpoints(&self) -> Result<Vec<(Partition, Checkpoint)>, StoreError> {
        Ok(Vec::new())
    }

    async fn retired(&self, _: Partition, _: JournalId) -> Result<Option<Retired>, StoreError> {
        Ok(None)
    }

    async fn load(&self, keys: &[RowKey]) -> Result<Vec<Option<StoredRow>>, StoreError> {
        Ok(vec![None; keys.len()])
    }

    async fn write(&self, batch: &Batch) -> Result<Written, StoreError> {
        let bytes = batch.rows.iter().map(|(_, packed)| packed.cell.bytes().len()).sum();
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.rows.fetch_add(batch.rows.len(), Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.heaviest.fetch_max(bytes, Ordering::Relaxed);
        Ok(Written::Stands)
    }

    async fn scan(&self, _: Option<&RowKey>, _: usize) -> Result<Vec<(RowKey, StoredRow)>, StoreError> {
        Ok(Vec::new())
    }
}
