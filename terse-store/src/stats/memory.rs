//! The read model in memory: for tests, and as the shortest statement of what
//! the others do. Unbounded, as tests are.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use terse_core::click::JournalId;
use terse_core::ports::clicks::{
    Batch, Bus, Checkpoint, ClickStats, PackedRow, ReadModel, Retired, StoredRow, Written,
};
use terse_core::ports::{StoreError, StoreErrorKind};
use terse_core::stats::{Partition, Row, RowKey, Span};
use terse_core::{ShortCode, Timestamp};

use super::{check_bus, check_range, is_leased_away, lease_end};

/// A read model in memory. Implements [`ReadModel`] and [`ClickStats`].
#[derive(Default)]
pub struct MemoryReadModel {
    state: Arc<Mutex<State>>,
    /// The generation that this instance was attached at or wrote last.
    attached: Mutex<Option<u64>>,
}

#[derive(Default)]
struct State {
    generation: u64,
    bus: Option<Bus>,
    rows: BTreeMap<RowKey, PackedRow>,
    checkpoints: BTreeMap<Partition, Checkpoint>,
    epochs: BTreeMap<(Partition, u16), Checkpoint>,
    retired: BTreeMap<(Partition, JournalId), Retired>,
    /// Holder and end.
    lease: Option<(String, Timestamp)>,
    /// The latest of all checkpoints that ever stood, but for those that a clock told that was ahead.
    until: Option<Timestamp>,
}

impl MemoryReadModel {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Another instance on the same rows, as a second process would have.
    #[must_use]
    pub fn another(&self) -> Self {
        Self { state: Arc::clone(&self.state), attached: Mutex::default() }
    }

    /// Changes the state unless somebody else did since this instance was attached or wrote last.
    fn transact<T>(&self, work: impl FnOnce(&mut State) -> T) -> Option<T> {
        let mut attached = self.attached.lock();
        let mut state = self.state.lock();
        if *attached != Some(state.generation) {
            *attached = None;
            return None;
        }
        state.generation += 1;
        *attached = Some(state.generation);
        Some(work(&mut state))
    }
}

impl State {
    fn apply(&mut self, batch: &Batch) {
        for (key, row) in &batch.rows {
            if self.rows.get(key).is_none_or(|stored| stored.at <= row.at) {
                self.rows.insert(key.clone(), row.clone());
            }
        }
        for (partition, journal, retired) in &batch.retired {
            if self.retired.get(&(*partition, *journal)).is_none_or(|stored| stored.at <= retired.at) {
                self.retired.insert((*partition, *journal), retired.clone());
            }
            if *partition == Partition::Journal(*journal) {
                self.checkpoints.remove(partition);
            }
            self.until = self.until.max(Some(retired.until));
        }
        for (partition, checkpoint) in &batch.checkpoints {
            self.pass(*partition, checkpoint);
        }
        if let (Some(until), Some(now)) = (&mut self.until, batch.now) {
            *until = now.min(*until);
        }
    }

    fn pass(&mut self, partition: Partition, checkpoint: &Checkpoint) {
        if self.checkpoints.get(&partition).is_none_or(|stored| stored.at <= checkpoint.at) {
            self.checkpoints.insert(partition, checkpoint.clone());
        }
        self.until = self.until.max(Some(checkpoint.until));
    }
}

fn unpacked(row: &PackedRow) -> Result<StoredRow, StoreError> {
    row.unpack().map_err(|error| StoreError::new(StoreErrorKind::Corrupt, format!("a cell that is no row: {error}")))
}

#[async_trait]
impl ReadModel for MemoryReadModel {
    async fn settle_bus(&self, bus: Bus) -> Result<Bus, StoreError> {
        check_bus(bus)?;
        Ok(*self.state.lock().bus.get_or_insert(bus))
    }

    async fn attach(&self) -> Result<(), StoreError> {
        *self.attached.lock() = Some(self.state.lock().generation);
        Ok(())
    }

    async fn lease(&self, _: Partition, holder: &str, now: Timestamp, ttl_ms: u64) -> Result<bool, StoreError> {
        let mut state = self.state.lock();
        if state.lease.as_ref().is_some_and(|(other, until)| is_leased_away(other, *until, holder, now, ttl_ms)) {
            return Ok(false);
        }
        state.lease = Some((holder.to_owned(), lease_end(now, ttl_ms)));
        Ok(true)
    }

    async fn checkpoint(&self, partition: Partition) -> Result<Option<Checkpoint>, StoreError> {
        Ok(self.state.lock().checkpoints.get(&partition).cloned())
    }

    async fn checkpoints(&self) -> Result<Vec<(Partition, Checkpoint)>, StoreError> {
        let state = self.state.lock();
        Ok(state.checkpoints.iter().map(|(partition, checkpoint)| (*partition, checkpoint.clone())).collect())
    }

    async fn retired(&self, partition: Partition, journal: JournalId) -> Result<Option<Retired>, StoreError> {
        Ok(self.state.lock().retired.get(&(partition, journal)).cloned())
    }

    async fn begin_epoch(&self, partition: Partition, first: &Checkpoint) -> Result<Option<Checkpoint>, StoreError> {
        Ok(self.transact(|state| {
            let begun = state.epochs.entry((partition, first.at.epoch)).or_insert_with(|| first.clone()).clone();
            state.pass(partition, &begun);
            begun
        }))
    }

    async fn load(&self, keys: &[RowKey]) -> Result<Vec<Option<StoredRow>>, StoreError> {
        let state = self.state.lock();
        keys.iter().map(|key| state.rows.get(key).map(unpacked).transpose()).collect()
    }

    async fn write(&self, batch: &Batch) -> Result<Written, StoreError> {
        let stands = self.transact(|state| state.apply(batch)).is_some();
        Ok(if stands { Written::Stands } else { Written::Superseded })
    }

    async fn scan(&self, after: Option<&RowKey>, limit: usize) -> Result<Vec<(RowKey, StoredRow)>, StoreError> {
        let state = self.state.lock();
        let rows = state.rows.iter().filter(|(key, _)| after.is_none_or(|after| *key > after));
        rows.take(limit).map(|(key, row)| Ok((key.clone(), unpacked(row)?))).collect()
    }
}

#[async_trait]
impl ClickStats for MemoryReadModel {
    async fn overall(&self, code: &ShortCode) -> Result<Option<Row>, StoreError> {
        let key = RowKey { code: code.clone(), span: Span::All };
        let stored = self.state.lock().rows.get(&key).map(unpacked).transpose()?;
        Ok(stored.map(|stored| stored.row))
    }

    async fn spans(&self, code: &ShortCode, first: Span, last: Span) -> Result<Vec<(Span, Row)>, StoreError> {
        check_range(first, last)?;
        let state = self.state.lock();
        let rows = state.rows.iter().filter(|(key, _)| key.code == *code && (first..=last).contains(&key.span));
        rows.map(|(key, stored)| Ok((key.span, unpacked(stored)?.row))).collect()
    }

    async fn as_of(&self, code: &ShortCode) -> Result<Option<Timestamp>, StoreError> {
        let state = self.state.lock();
        Ok(match state.bus {
            None => None,
            Some(Bus::Local) => state.until,
            Some(Bus::Streams { partitions }) => {
                state.checkpoints.get(&Partition::of(code.as_str(), partitions)).map(|checkpoint| checkpoint.until)
            }
        })
    }
}
