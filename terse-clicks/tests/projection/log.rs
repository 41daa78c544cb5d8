//! A click log in memory, which processes share, and one process's way to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use terse_clicks::log::{Body, ClickLog, Delivery, LogError};
use terse_clicks::part::Part;
use terse_core::Timestamp;
use terse_core::click::JournalId;
use terse_core::ports::clicks::Checkpoint;
use terse_core::stats::Partition;
use terse_testkit::SeededEntropy;

/// What all processes see.
#[derive(Default)]
pub(crate) struct MemoryLog {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    partitions: BTreeMap<Partition, Vec<Delivery>>,
    dead: Vec<Delivery>,
    passed: BTreeMap<Partition, u64>,
    ended: Vec<(Partition, JournalId)>,
    faults: u64,
}

/// One process's way to a [`MemoryLog`].
pub(crate) struct LogReader {
    log: Arc<MemoryLog>,
    /// The next message by its number in the partition's list.
    cursors: BTreeMap<Partition, usize>,
    /// How many messages before the asked one a stream delivers.
    early: usize,
    random: SeededEntropy,
}

impl MemoryLog {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn reader(self: &Arc<Self>, early: usize, seed: u64) -> Box<LogReader> {
        Box::new(LogReader { log: Arc::clone(self), cursors: BTreeMap::new(), early, random: SeededEntropy::new(seed) })
    }

    /// A partition without messages, if it isn't there.
    pub(crate) fn declare(&self, partition: Partition) {
        self.state.lock().partitions.entry(partition).or_default();
    }

    /// Appends a message at the next offset.
    pub(crate) fn push(&self, partition: Partition, body: Body) {
        let mut state = self.state.lock();
        let messages = state.partitions.entry(partition).or_default();
        let offset = messages.last().map_or(0, |last| last.offset + 1);
        messages.push(Delivery { partition, offset, body });
    }

    /// Puts a part in its journal's partition, at its sequence number, whether or not there is another one.
    pub(crate) fn put_block(&self, part: Part) {
        let (partition, offset) = (Partition::Journal(part.header.block.journal), part.header.block.seq);
        let mut state = self.state.lock();
        let messages = state.partitions.entry(partition).or_default();
        messages.retain(|message| message.offset != offset);
        let place = messages.partition_point(|message| message.offset < offset);
        messages.insert(place, Delivery { partition, offset, body: Body::Part(part) });
    }

    /// What another build than the one before takes the message at this offset for.
    pub(crate) fn take_for(&self, partition: Partition, offset: u64, body: Body) {
        let mut state = self.state.lock();
        let messages = state.partitions.get_mut(&partition).unwrap();
        messages.iter_mut().find(|message| message.offset == offset).unwrap().body = body;
    }

    /// Removes a partition with all its messages.
    pub(crate) fn delete(&self, partition: Partition) {
        self.state.lock().partitions.remove(&partition);
    }

    /// Removes the first messages of a partition; the others keep their offsets.
    pub(crate) fn forget_before(&self, partition: Partition, offset: u64) {
        if let Some(messages) = self.state.lock().partitions.get_mut(&partition) {
            messages.retain(|message| message.offset >= offset);
        }
    }

    pub(crate) fn messages(&self) -> BTreeMap<Partition, Vec<Delivery>> {
        self.state.lock().partitions.clone()
    }

    pub(crate) fn dead(&self) -> Vec<Delivery> {
        self.state.lock().dead.clone()
    }

    pub(crate) fn passed(&self, partition: Partition) -> Option<u64> {
        self.state.lock().passed.get(&partition).copied()
    }

    pub(crate) fn end(&self, journal: JournalId) {
        self.state.lock().ended.push((Partition::Journal(journal), journal));
    }

    /// From now on so many of a thousand calls fail.
    pub(crate) fn suffer(&self, faults: u64) {
        self.state.lock().faults = faults;
    }
}

impl LogReader {
    fn may_fail(&self) -> Result<(), LogError> {
        let fails = self.random.next_u64() % 1_000 < self.log.state.lock().faults;
        if fails { Err(LogError::Unavailable("the log fails as the seed says".into())) } else { Ok(()) }
    }
}

#[async_trait]
impl ClickLog for LogReader {
    async fn partitions(&mut self) -> Result<Vec<Partition>, LogError> {
        self.may_fail()?;
        Ok(self.log.state.lock().partitions.keys().copied().collect())
    }

    async fn start(&mut self, partition: Partition, checkpoint: Option<&Checkpoint>) -> Result<(), LogError> {
        self.may_fail()?;
        let state = self.log.state.lock();
        let messages = state.partitions.get(&partition).map_or(&[][..], Vec::as_slice);
        let next = checkpoint.map_or(0, |checkpoint| checkpoint.at.offset + 1);
        let first = messages.first().map_or(u64::MAX, |first| first.offset);
        if matches!(partition, Partition::Journal(_)) && state.passed.get(&partition) >= Some(&next) && first > next {
            return Err(LogError::Gap { partition, detail: "it was passed, and is kept no more".into() });
        }
        let cursor = match (checkpoint, partition) {
            (None, _) => 0,
            (Some(checkpoint), Partition::Journal(_)) => {
                messages.partition_point(|message| message.offset <= checkpoint.at.offset)
            }
            // An offset that isn't there is clamped, and nobody is told.
            (Some(checkpoint), Partition::Stream(_)) => {
                messages.partition_point(|message| message.offset < checkpoint.at.offset).saturating_sub(self.early)
            }
        };
        self.cursors.insert(partition, cursor);
        Ok(())
    }

    async fn next(&mut self, most_bytes: usize, _wait_ms: u64) -> Result<Vec<Delivery>, LogError> {
        self.may_fail()?;
        let state = self.log.state.lock();
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for (partition, cursor) in &mut self.cursors {
            let messages = state.partitions.get(partition).map_or(&[][..], Vec::as_slice);
            while let Some(message) = messages.get(*cursor)
                && bytes < most_bytes
            {
                bytes += 64 + if let Body::Part(part) = &message.body { part.frames_len() } else { 0 };
                taken.push(message.clone());
                *cursor += 1;
                if self.random.next_u64().is_multiple_of(4) {
                    break;
                }
            }
        }
        Ok(taken)
    }

    async fn passed(&mut self, partition: Partition, offset: u64) -> Result<(), LogError> {
        self.may_fail()?;
        self.log.state.lock().passed.insert(partition, offset);
        Ok(())
    }

    async fn dead_letter(&mut self, delivery: &Delivery) -> Result<(), LogError> {
        self.may_fail()?;
        self.log.state.lock().dead.push(delivery.clone());
        Ok(())
    }

    fn stop(&mut self, partition: Partition) {
        self.cursors.remove(&partition);
    }

    fn ended(&self) -> Vec<(Partition, JournalId)> {
        let state = self.log.state.lock();
        let drained = |(partition, _): &&(Partition, JournalId)| {
            let messages = state.partitions.get(partition).map_or(0, Vec::len);
            self.cursors.get(partition).is_some_and(|cursor| *cursor == messages)
        };
        state.ended.iter().filter(drained).copied().collect()
    }

    fn oldest_waiting(&self) -> Option<Timestamp> {
        let state = self.log.state.lock();
        let sealed =
            |(partition, cursor): (&Partition, &usize)| match state.partitions.get(partition)?.get(*cursor)?.body {
                Body::Part(ref part) => Some(part.header.sealed_at),
                _ => None,
            };
        self.cursors.iter().filter_map(sealed).min()
    }
}
