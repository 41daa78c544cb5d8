//! A read model in memory that fails, forgets and stops where a seed says.
//!
//! It is what two real ones are at their worst: one whose writes are transactions that tell of other writers, like
//! SQLite's, and one whose rows are cells ordered by positions, like those of CQL, where a write that fails may have
//! done any part of its work. A call that a process dies in never returns.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use terse_core::Timestamp;
use terse_core::click::JournalId;
use terse_core::ports::clicks::{Batch, Bus, Checkpoint, PackedRow, ReadModel, Retired, StoredRow, Written};
use terse_core::ports::{StoreError, StoreErrorKind};
use terse_core::stats::{Partition, Row, RowKey};

use crate::SeededEntropy;

/// How a [`ClickStore`] keeps what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClickStoreKind {
    /// All of a write or nothing, and whoever wrote before somebody else did is told so.
    Transactions,
    /// Each row, checkpoint and retired journal by itself; the one with the later position stands.
    Positions,
}

/// How often something goes wrong, in so many of a thousand calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mishaps {
    /// The process dies in the call.
    pub deaths: u64,
    /// The call fails; what it should have done may be done.
    pub faults: u64,
}

/// What is stored, and what goes wrong. Processes reach it through [`ClickStore::writer`].
pub struct ClickStore {
    kind: ClickStoreKind,
    state: Mutex<State>,
    random: SeededEntropy,
}

#[derive(Default)]
struct State {
    bus: Option<Bus>,
    rows: BTreeMap<RowKey, StoredRow>,
    checkpoints: BTreeMap<Partition, Checkpoint>,
    /// What the checkpoints were, oldest first.
    past: Vec<(Partition, Option<Checkpoint>)>,
    retired: HashMap<(Partition, JournalId), Retired>,
    epochs: HashMap<(Partition, u16), Checkpoint>,
    leases: HashMap<Partition, (String, Timestamp)>,
    everyone_leads: bool,
    generation: u64,
    mishaps: Mishaps,
    deaths: u64,
    largest_batch: usize,
    writes: u64,
}

/// One process's way to a [`ClickStore`].
pub struct ClickWriter {
    store: Arc<ClickStore>,
    /// The generation that this process wrote or found last.
    generation: Mutex<u64>,
}

/// What becomes of a call.
enum Fate {
    Well,
    /// It fails, after `done` thousandths of its work.
    Fails {
        done: u64,
    },
    /// The process dies, after `done` thousandths of its work.
    Dies {
        done: u64,
    },
}

impl ClickStore {
    /// An empty one in which nothing goes wrong yet.
    #[must_use]
    pub fn new(kind: ClickStoreKind, seed: u64) -> Arc<Self> {
        Arc::new(Self { kind, state: Mutex::default(), random: SeededEntropy::new(seed) })
    }

    /// A new process's way to it.
    #[must_use]
    pub fn writer(self: &Arc<Self>) -> Arc<ClickWriter> {
        Arc::new(ClickWriter { store: Arc::clone(self), generation: Mutex::new(u64::MAX) })
    }

    /// From now on so much goes wrong.
    pub fn suffer(&self, mishaps: Mishaps) {
        self.state.lock().mishaps = mishaps;
    }

    /// From now on everyone who asks for a lease gets it, as if each had slept through the loss of theirs.
    pub fn let_everyone_lead(&self) {
        self.state.lock().everyone_leads = true;
    }

    /// Makes `holder` the one who has the lease on `partition` until `until`.
    pub fn give_lease(&self, partition: Partition, holder: &str, until: Timestamp) {
        self.state.lock().leases.insert(partition, (holder.to_owned(), until));
    }

    /// How many processes died in a call.
    #[must_use]
    pub fn deaths(&self) -> u64 {
        self.state.lock().deaths
    }

    /// The rows, without their positions.
    #[must_use]
    pub fn rows(&self) -> BTreeMap<RowKey, Row> {
        self.state.lock().rows.iter().map(|(key, stored)| (key.clone(), stored.row.clone())).collect()
    }

    /// The checkpoint of `partition`.
    #[must_use]
    pub fn checkpoint_of(&self, partition: Partition) -> Option<Checkpoint> {
        self.state.lock().checkpoints.get(&partition).cloned()
    }

    /// How many checkpoints there are.
    #[must_use]
    pub fn checkpoints_len(&self) -> usize {
        self.state.lock().checkpoints.len()
    }

    /// What is known of `journal` since it was retired.
    #[must_use]
    pub fn retired_of(&self, partition: Partition, journal: JournalId) -> Option<Retired> {
        self.state.lock().retired.get(&(partition, journal)).cloned()
    }

    /// Changes or removes the checkpoint of `partition`.
    pub fn set_checkpoint(&self, partition: Partition, checkpoint: Option<Checkpoint>) {
        let mut state = self.state.lock();
        match checkpoint {
            Some(checkpoint) => state.checkpoints.insert(partition, checkpoint),
            None => state.checkpoints.remove(&partition),
        };
    }

    /// Puts a checkpoint of the past in the place of its partition's, at random. Only where positions order what is
    /// stored: elsewhere rows and checkpoints are one.
    pub fn lose_checkpoint(&self) {
        let mut state = self.state.lock();
        if self.kind == ClickStoreKind::Transactions || state.past.is_empty() {
            return;
        }
        let which = (self.random.next_u64() % state.past.len() as u64) as usize;
        match state.past[which].clone() {
            (partition, Some(checkpoint)) => state.checkpoints.insert(partition, checkpoint),
            (partition, None) => state.checkpoints.remove(&partition),
        };
    }

    /// The most rows that were in one write.
    #[must_use]
    pub fn largest_batch(&self) -> usize {
        self.state.lock().largest_batch
    }

    /// How many writes were done in full.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.state.lock().writes
    }

    fn fate(&self) -> Fate {
        let mishaps = self.state.lock().mishaps;
        let (draw, done) = (self.random.next_u64() % 1_000, self.random.next_u64() % 1_001);
        if draw < mishaps.deaths {
            Fate::Dies { done }
        } else if draw < mishaps.deaths + mishaps.faults {
            Fate::Fails { done }
        } else {
            Fate::Well
        }
    }

    /// Runs `work` as the seed wants it. `work` gets how many thousandths of it are to be done.
    async fn call<T: Send>(&self, work: impl FnOnce(&mut State, u64) -> T + Send) -> Result<T, StoreError> {
        match self.fate() {
            Fate::Well => Ok(work(&mut self.state.lock(), 1_000)),
            Fate::Fails { done } => {
                work(&mut self.state.lock(), done);
                let kind = if done == 0 { StoreErrorKind::Unavailable } else { StoreErrorKind::UnknownOutcome };
                Err(StoreError::new(kind, "the read model fails as the seed says"))
            }
            Fate::Dies { done } => {
                work(&mut self.state.lock(), done);
                self.state.lock().deaths += 1;
                std::future::pending().await
            }
        }
    }
}

/// What a projector packed it can unpack.
fn unpacked(packed: &PackedRow) -> StoredRow {
    packed.unpack().expect("a cell is a row")
}

impl State {
    /// Writes that much of `batch`: its first items, in the order that the port tells, but rows in any.
    fn write_by_positions(&mut self, batch: &Batch, done: u64, rotated: usize) {
        let items = batch.rows.len() + batch.retired.len() + batch.checkpoints.len();
        let mut left = (items as u64 * done / 1_000) as usize;
        let mut take = || left.checked_sub(1).map(|less| left = less).is_some();
        let split = if batch.rows.is_empty() { 0 } else { rotated % batch.rows.len() };
        for (key, stored) in batch.rows[split..].iter().chain(&batch.rows[..split]).filter(|_| take()) {
            self.write_row(key, stored);
        }
        for (partition, journal, retired) in batch.retired.iter().filter(|_| take()) {
            let key = (*partition, *journal);
            if self.retired.get(&key).is_none_or(|stands| stands.at <= retired.at) {
                self.retired.insert(key, retired.clone());
            }
        }
        for (partition, checkpoint) in batch.checkpoints.iter().filter(|_| take()) {
            if self.checkpoints.get(partition).is_none_or(|stands| stands.at <= checkpoint.at) {
                self.write_checkpoint(*partition, checkpoint);
            }
        }
    }

    fn write_row(&mut self, key: &RowKey, packed: &PackedRow) {
        let stored = unpacked(packed);
        match self.rows.get(key) {
            Some(stands) if stands.at > stored.at => {}
            Some(stands) if stands.at == stored.at => {
                assert_eq!(stands.row, stored.row, "{key:?}: equal positions must carry equal values");
            }
            _ => {
                self.rows.insert(key.clone(), stored);
            }
        }
    }

    fn write_checkpoint(&mut self, partition: Partition, checkpoint: &Checkpoint) {
        let before = self.checkpoints.insert(partition, checkpoint.clone());
        self.past.push((partition, before));
    }

    fn write_all(&mut self, batch: &Batch) {
        self.rows.extend(batch.rows.iter().map(|(key, packed)| (key.clone(), unpacked(packed))));
        for (partition, journal, retired) in &batch.retired {
            self.retired.insert((*partition, *journal), retired.clone());
            if *partition == Partition::Journal(*journal) {
                self.checkpoints.remove(partition);
            }
        }
        for (partition, checkpoint) in &batch.checkpoints {
            self.write_checkpoint(*partition, checkpoint);
        }
    }
}

impl ClickWriter {
    fn write_as_transaction(&self, state: &mut State, batch: &Batch) -> Written {
        let mut generation = self.generation.lock();
        if *generation != state.generation {
            return Written::Superseded;
        }
        state.write_all(batch);
        state.generation += 1;
        *generation = state.generation;
        Written::Stands
    }
}

#[async_trait]
impl ReadModel for ClickWriter {
    async fn settle_bus(&self, bus: Bus) -> Result<Bus, StoreError> {
        self.store.call(|state, _| *state.bus.get_or_insert(bus)).await
    }

    async fn attach(&self) -> Result<(), StoreError> {
        self.store.call(|state, _| *self.generation.lock() = state.generation).await
    }

    async fn lease(&self, partition: Partition, holder: &str, now: Timestamp, ttl_ms: u64) -> Result<bool, StoreError> {
        let until = now.plus_millis(i64::try_from(ttl_ms).unwrap_or(i64::MAX));
        let work = |state: &mut State, _| {
            let free = match state.leases.get(&partition) {
                Some((has, until)) => has == holder || *until <= now || state.everyone_leads,
                None => true,
            };
            if free {
                state.leases.insert(partition, (holder.to_owned(), until));
            }
            free
        };
        self.store.call(work).await
    }

    async fn checkpoint(&self, partition: Partition) -> Result<Option<Checkpoint>, StoreError> {
        self.store.call(|state, _| state.checkpoints.get(&partition).cloned()).await
    }

    async fn checkpoints(&self) -> Result<Vec<(Partition, Checkpoint)>, StoreError> {
        let all = |state: &mut State, _| state.checkpoints.iter().map(|(key, value)| (*key, value.clone())).collect();
        self.store.call(all).await
    }

    async fn retired(&self, partition: Partition, journal: JournalId) -> Result<Option<Retired>, StoreError> {
        self.store.call(|state, _| state.retired.get(&(partition, journal)).cloned()).await
    }

    async fn begin_epoch(&self, partition: Partition, first: &Checkpoint) -> Result<Option<Checkpoint>, StoreError> {
        let work = |state: &mut State, _| {
            if self.store.kind == ClickStoreKind::Transactions {
                let batch = Batch { checkpoints: vec![(partition, first.clone())], ..Batch::default() };
                let written = self.write_as_transaction(state, &batch);
                return (written == Written::Stands).then(|| first.clone());
            }
            Some(state.epochs.entry((partition, first.at.epoch)).or_insert_with(|| first.clone()).clone())
        };
        self.store.call(work).await
    }

    async fn load(&self, keys: &[RowKey]) -> Result<Vec<Option<StoredRow>>, StoreError> {
        self.store.call(|state, _| keys.iter().map(|key| state.rows.get(key).cloned()).collect()).await
    }

    async fn write(&self, batch: &Batch) -> Result<Written, StoreError> {
        let rotated = self.store.random.next_u64() as usize;
        let work = |state: &mut State, done: u64| {
            state.largest_batch = state.largest_batch.max(batch.rows.len());
            let written = match self.store.kind {
                ClickStoreKind::Positions => {
                    state.write_by_positions(batch, done, rotated);
                    Written::Stands
                }
                // Half of the failures come after the commit.
                ClickStoreKind::Transactions if done < 500 => return Written::Superseded,
                ClickStoreKind::Transactions => {
                    let before = *self.generation.lock();
                    let written = self.write_as_transaction(state, batch);
                    if done < 1_000 {
                        // Its answer is lost, so this process can't know that the commit was its own.
                        *self.generation.lock() = before;
                    }
                    written
                }
            };
            state.writes += u64::from(done == 1_000 && written == Written::Stands);
            written
        };
        self.store.call(work).await
    }

    async fn scan(&self, after: Option<&RowKey>, limit: usize) -> Result<Vec<(RowKey, StoredRow)>, StoreError> {
        let work = |state: &mut State, _| {
            let rows = state.rows.iter().filter(|(key, _)| after.is_none_or(|after| *key > after));
            rows.take(limit).map(|(key, stored)| (key.clone(), stored.clone())).collect()
        };
        self.store.call(work).await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use terse_core::ShortCode;
    use terse_core::click::BlockId;
    use terse_core::stats::{Cell, Position, Span};

    use super::*;

    const STREAM: Partition = Partition::Stream(0);

    fn key(code: &str) -> RowKey {
        RowKey { code: ShortCode::parse(code).unwrap(), span: Span::All }
    }

    fn batch(offset: u64, clicks: u64) -> Batch {
        let at = Position { epoch: 0, offset };
        let mut row = Row::default();
        row.clicks = clicks;
        let rows = ["a", "b", "c", "d"].map(|code| (key(code), PackedRow { at, cell: Cell::of(&row) })).to_vec();
        let until = Timestamp::from_millis(1);
        let anchor = BlockId { journal: JournalId([1; 16]), seq: offset };
        let checkpoint = Checkpoint { at, until, anchor, passed: vec![] };
        Batch { rows, checkpoints: vec![(STREAM, checkpoint)], ..Batch::default() }
    }

    fn write(writer: &ClickWriter, batch: &Batch) -> Option<Result<Written, StoreErrorKind>> {
        writer.write(batch).now_or_never().map(|written| written.map_err(|error| error.kind))
    }

    fn clicks(store: &ClickStore) -> Vec<u64> {
        store.rows().values().map(|row| row.clicks).collect()
    }

    #[test]
    fn a_writer_behind_another_is_told_so_and_changes_nothing() {
        let store = ClickStore::new(ClickStoreKind::Transactions, 1);
        let (first, second) = (store.writer(), store.writer());
        for writer in [&first, &second] {
            writer.attach().now_or_never().unwrap().unwrap();
        }
        assert_eq!(write(&first, &batch(1, 1)), Some(Ok(Written::Stands)));
        assert_eq!(write(&second, &batch(1, 9)), Some(Ok(Written::Superseded)));
        assert_eq!(clicks(&store), [1; 4]);
        second.attach().now_or_never().unwrap().unwrap();
        assert_eq!(write(&second, &batch(2, 2)), Some(Ok(Written::Stands)));
        assert_eq!(write(&first, &batch(3, 9)), Some(Ok(Written::Superseded)));
        assert_eq!((clicks(&store), store.writes()), (vec![2; 4], 2));
    }

    #[test]
    fn an_older_position_never_stands_over_a_later_one() {
        let store = ClickStore::new(ClickStoreKind::Positions, 1);
        let (first, second) = (store.writer(), store.writer());
        assert_eq!(write(&first, &batch(5, 5)), Some(Ok(Written::Stands)));
        assert_eq!(write(&second, &batch(4, 4)), Some(Ok(Written::Stands)));
        assert_eq!(clicks(&store), [5; 4]);
        assert_eq!(store.checkpoint_of(STREAM).unwrap().at.offset, 5);
    }

    #[test]
    #[should_panic(expected = "equal positions must carry equal values")]
    fn other_values_at_an_equal_position_are_noticed() {
        let store = ClickStore::new(ClickStoreKind::Positions, 1);
        let writer = store.writer();
        let _ = write(&writer, &batch(5, 5));
        let _ = write(&writer, &batch(5, 6));
    }

    #[test]
    fn a_checkpoint_stands_only_if_all_rows_of_its_batch_do() {
        let mut parts = 0;
        for seed in 0..200 {
            let store = ClickStore::new(ClickStoreKind::Positions, seed);
            store.suffer(Mishaps { deaths: 0, faults: 1_000 });
            let written = write(&store.writer(), &batch(5, 5)).unwrap();
            assert!(written.is_err());
            let rows = store.rows().len();
            parts += u32::from((1..4).contains(&rows));
            assert!(store.checkpoint_of(STREAM).is_none() || rows == 4);
            assert!(written != Err(StoreErrorKind::Unavailable) || rows == 0);
        }
        assert!(parts > 50, "{parts} of 200 writes were done in part");
    }

    #[test]
    fn a_transaction_is_done_or_not_and_its_answer_may_be_lost() {
        let (mut done, mut not) = (0, 0);
        for seed in 0..200 {
            let store = ClickStore::new(ClickStoreKind::Transactions, seed);
            let writer = store.writer();
            writer.attach().now_or_never().unwrap().unwrap();
            store.suffer(Mishaps { deaths: 1_000, faults: 0 });
            assert_eq!(write(&writer, &batch(5, 5)), None);
            assert_eq!(store.deaths(), 1);
            let rows = store.rows().len();
            assert!(rows == 0 || rows == 4);
            assert_eq!(store.checkpoint_of(STREAM).is_some(), rows == 4);
            *(if rows == 4 { &mut done } else { &mut not }) += 1;
        }
        assert!(done > 50 && not > 50, "{done} done, {not} not");
    }

    #[test]
    fn a_lost_checkpoint_is_an_older_one() {
        let store = ClickStore::new(ClickStoreKind::Positions, 1);
        let writer = store.writer();
        for offset in 1..4 {
            let _ = write(&writer, &batch(offset, offset));
        }
        store.lose_checkpoint();
        assert!(store.checkpoint_of(STREAM).is_none_or(|checkpoint| checkpoint.at.offset < 3));
        assert_eq!(clicks(&store), [3; 4]);
    }

    #[test]
    fn a_lease_is_one_holders_until_it_ends() {
        let store = ClickStore::new(ClickStoreKind::Positions, 1);
        let writer = store.writer();
        let lease = |holder: &'static str, now_ms: i64, ttl_ms: u64| {
            let now = Timestamp::from_millis(now_ms);
            writer.lease(STREAM, holder, now, ttl_ms).now_or_never().unwrap().unwrap()
        };
        assert!(lease("a", 0, 100));
        assert!(!lease("b", 99, 100));
        assert!(lease("a", 99, 100));
        assert!(!lease("b", 150, 100));
        assert!(lease("b", 199, 100));
        assert!(lease("b", 200, 0) && lease("a", 200, 100), "a lease of no time is given back");
        store.give_lease(STREAM, "c", Timestamp::from_millis(1_000));
        assert!(!lease("a", 210, 100));
        store.let_everyone_lead();
        assert!(lease("a", 210, 100));
    }

    #[test]
    fn an_epoch_is_begun_once_where_positions_order_the_writers() {
        let store = ClickStore::new(ClickStoreKind::Positions, 1);
        let begin = |passed: u8| {
            let anchor = BlockId { journal: JournalId([1; 16]), seq: 0 };
            let at = Position { epoch: 1, offset: 0 };
            let first = Checkpoint { at, until: Timestamp::from_millis(1), anchor, passed: vec![passed] };
            store.writer().begin_epoch(STREAM, &first).now_or_never().unwrap().unwrap().unwrap().passed
        };
        assert_eq!((begin(1), begin(2)), (vec![1], vec![1]));
    }
}
