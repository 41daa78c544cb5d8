//! A log that goes on step by step: the messages of each stream up to an offset, and later up to another.
//!
//! What a stream delivers beyond is held back, at most [`MAX_HELD`] messages of each; a stream of which more come is
//! stopped, and read again behind those when it is their turn.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use terse_clicks::log::{Body, ClickLog, Delivery, LogError};
use terse_core::Timestamp;
use terse_core::click::{BlockId, JournalId};
use terse_core::ports::clicks::Checkpoint;
use terse_core::stats::{Partition, Position};

/// Most messages of a stream that are held back.
const MAX_HELD: usize = 256;
/// How long the log is waited for when something that was held back can be delivered already.
const NO_WAIT_MS: u64 = 0;

/// How far to go, and whether that was reached. Cloning shares it.
#[derive(Clone, Default)]
pub(super) struct Pace(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    ends: BTreeMap<Partition, u64>,
    left: BTreeSet<Partition>,
}

impl Pace {
    /// Goes on up to the messages at `ends`, which are included. Partitions that aren't named stay where they are; none
    /// goes back.
    pub(super) fn go_to(&self, ends: impl IntoIterator<Item = (Partition, u64)>) {
        let mut state = self.0.lock();
        for (partition, end) in ends {
            if state.ends.get(&partition).is_none_or(|stands| *stands < end) {
                state.ends.insert(partition, end);
                state.left.insert(partition);
            }
        }
    }

    /// Up to where a partition goes.
    pub(super) fn end(&self, partition: Partition) -> Option<u64> {
        self.0.lock().ends.get(&partition).copied()
    }

    /// Whether all have been delivered up to where they go.
    pub(super) fn is_there(&self) -> bool {
        self.0.lock().left.is_empty()
    }

    /// The first partition that was not, with the offset of its last message.
    pub(super) fn first_left(&self) -> Option<(Partition, u64)> {
        let state = self.0.lock();
        let partition = state.left.first()?;
        state.ends.get(partition).map(|end| (*partition, *end))
    }

    fn is_within(&self, partition: Partition, offset: u64) -> bool {
        self.end(partition).is_some_and(|end| offset <= end)
    }

    /// Notes that a partition was delivered up to `offset`, or begins anew behind it.
    fn is_at(&self, partition: Partition, offset: Option<u64>) {
        let mut state = self.0.lock();
        let Some(end) = state.ends.get(&partition).copied() else { return };
        if offset.is_some_and(|offset| offset >= end) {
            state.left.remove(&partition);
        } else {
            state.left.insert(partition);
        }
    }
}

/// A log that goes as far as its [`Pace`] says.
pub(super) struct Paced {
    log: Box<dyn ClickLog>,
    pace: Pace,
    held: BTreeMap<Partition, Held>,
}

/// What is held back of a partition.
#[derive(Default)]
struct Held {
    messages: VecDeque<Delivery>,
    /// Whether the log was told to stop there.
    stopped: bool,
}

impl Paced {
    /// Of `log` as much as `pace` says.
    pub(super) fn new(log: Box<dyn ClickLog>, pace: Pace) -> Self {
        Self { log, pace, held: BTreeMap::new() }
    }

    /// What is held back and may be delivered now.
    async fn release(&mut self) -> Result<Vec<Delivery>, LogError> {
        let mut released = Vec::new();
        for (partition, held) in &mut self.held {
            while held.messages.front().is_some_and(|message| self.pace.is_within(*partition, message.offset)) {
                released.extend(held.messages.pop_front());
            }
            if held.stopped && held.messages.is_empty() {
                let Some(last) = released.last().filter(|last| last.partition == *partition) else { continue };
                self.log.start(*partition, Some(&checkpoint_of(last))).await?;
                held.stopped = false;
            }
        }
        Ok(released)
    }

    fn hold(&mut self, delivery: Delivery) {
        let held = self.held.entry(delivery.partition).or_default();
        let last = held.messages.back().map(|message| message.offset);
        if held.stopped || last.is_some_and(|last| last >= delivery.offset) {
            return;
        }
        let partition = delivery.partition;
        held.messages.push_back(delivery);
        if held.messages.len() >= MAX_HELD {
            held.stopped = true;
            self.log.stop(partition);
        }
    }
}

/// What makes a log go on behind `delivery`; it may deliver that once more.
fn checkpoint_of(delivery: &Delivery) -> Checkpoint {
    let anchor = match &delivery.body {
        Body::Part(part) => part.header.block,
        _ => BlockId { journal: JournalId([0; 16]), seq: 0 },
    };
    let at = Position { epoch: 0, offset: delivery.offset };
    Checkpoint { at, until: Timestamp::from_millis(0), anchor, passed: Vec::new() }
}

#[async_trait]
impl ClickLog for Paced {
    async fn partitions(&mut self) -> Result<Vec<Partition>, LogError> {
        self.log.partitions().await
    }

    async fn start(&mut self, partition: Partition, checkpoint: Option<&Checkpoint>) -> Result<(), LogError> {
        self.held.remove(&partition);
        self.log.start(partition, checkpoint).await?;
        self.pace.is_at(partition, checkpoint.map(|checkpoint| checkpoint.at.offset));
        Ok(())
    }

    async fn next(&mut self, most_bytes: usize, wait_ms: u64) -> Result<Vec<Delivery>, LogError> {
        let mut deliveries = self.release().await?;
        if deliveries.is_empty() || !self.pace.is_there() {
            let wait_ms = if deliveries.is_empty() { wait_ms } else { NO_WAIT_MS };
            for delivery in self.log.next(most_bytes, wait_ms).await? {
                let waits = self.held.get(&delivery.partition).is_some_and(|held| !held.messages.is_empty());
                if !waits && self.pace.is_within(delivery.partition, delivery.offset) {
                    deliveries.push(delivery);
                } else {
                    self.hold(delivery);
                }
            }
        }
        for delivery in &deliveries {
            self.pace.is_at(delivery.partition, Some(delivery.offset));
        }
        Ok(deliveries)
    }

    async fn passed(&mut self, partition: Partition, offset: u64) -> Result<(), LogError> {
        self.log.passed(partition, offset).await
    }

    async fn dead_letter(&mut self, delivery: &Delivery) -> Result<(), LogError> {
        self.log.dead_letter(delivery).await
    }

    fn stop(&mut self, partition: Partition) {
        self.held.remove(&partition);
        self.log.stop(partition);
    }

    fn ended(&self) -> Vec<(Partition, JournalId)> {
        self.log.ended()
    }

    fn oldest_waiting(&self) -> Option<Timestamp> {
        self.log.oldest_waiting()
    }
}

#[cfg(test)]
mod tests;
