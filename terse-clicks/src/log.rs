//! What the projector reads from: partitions of parts, each with its own order.
//!
//! An offset names a place in its partition for ever. A log may deliver a part again, and may begin before the asked
//! offset; the projector passes each block once all the same.

pub mod backlog;
pub mod local;
pub mod quarantine;
mod returned;

use async_trait::async_trait;
use bytes::Bytes;
use terse_core::Timestamp;
use terse_core::click::JournalId;
use terse_core::ports::clicks::Checkpoint;
use terse_core::stats::Partition;

use crate::part::Part;

/// One message of a partition.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The partition.
    pub partition: Partition,
    /// Its place there.
    pub offset: u64,
    /// What it holds.
    pub body: Body,
}

/// What a message holds.
#[derive(Clone, Debug)]
pub enum Body {
    /// A part.
    Part(Part),
    /// Something that no version of terse has written, or damaged.
    Undecodable {
        /// The bytes.
        bytes: Bytes,
        /// Why they are no part, for people.
        reason: String,
    },
    /// A part of a newer format. The partition waits for a newer build.
    Newer(u16),
}

/// What went wrong with a log.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// It is out of reach; try again later.
    #[error("the click log is out of reach: {0}")]
    Unavailable(String),
    /// One partition can't be read, or not be put in order; the others can. It is told until the partition is stopped;
    /// start it again later.
    #[error("the click log of {partition} can't be read: {detail}")]
    Unreadable {
        /// Which partition.
        partition: Partition,
        /// What was found, for people.
        detail: String,
    },
    /// The messages of a partition from one offset up to another are kept no more, for somebody had passed them. Whoever
    /// starts it behind them gets the rest.
    #[error("the click log of {partition} was passed, and is kept no more from {from} up to {until}")]
    Gone {
        /// Which partition.
        partition: Partition,
        /// The first offset that was asked for.
        from: u64,
        /// The first offset that can be had, or the one behind the last.
        until: u64,
    },
    /// It doesn't go on where the checkpoint is: it was deleted, lost its tail, or its retention passed the
    /// checkpoint. The partition stops until an operator decides.
    #[error("the click log of {partition} has a gap: {detail}")]
    Gap {
        /// Which partition.
        partition: Partition,
        /// What was found, for people.
        detail: String,
    },
}

/// Where partitions are read from, in this process.
#[async_trait]
pub trait ClickLog: Send {
    /// The partitions that there are now, to be read by [`ClickLog::next`] once they are started. A journal that has
    /// ended and of which all was passed is left out.
    ///
    /// # Errors
    /// [`LogError`].
    async fn partitions(&mut self) -> Result<Vec<Partition>, LogError>;

    /// Starts reading `partition` at `checkpoint`, or at its beginning. What was read of it and not passed is delivered
    /// again. A stream delivers the message at the checkpoint's offset once more, if it has it, so that the projector sees
    /// by its block whether it is still the same log; a journal, which can't be another, goes on right behind.
    ///
    /// # Errors
    /// [`LogError`].
    async fn start(&mut self, partition: Partition, checkpoint: Option<&Checkpoint>) -> Result<(), LogError>;

    /// The next deliveries of the started partitions, each partition's in its order, at most about `most_bytes` of
    /// them. Waits until there is one, at most `wait_ms`; empty = there was none.
    ///
    /// # Errors
    /// [`LogError`].
    async fn next(&mut self, most_bytes: usize, wait_ms: u64) -> Result<Vec<Delivery>, LogError>;

    /// Tells that the read model includes `partition` up to `offset`, durably: the log need not keep it for this reader.
    ///
    /// # Errors
    /// [`LogError`].
    async fn passed(&mut self, partition: Partition, offset: u64) -> Result<(), LogError>;

    /// Puts a message aside that nobody can decode, durably, so that an operator can look at it.
    ///
    /// # Errors
    /// [`LogError`]; then the partition waits.
    async fn dead_letter(&mut self, delivery: &Delivery) -> Result<(), LogError>;

    /// Whether the log was told before that all of `partition` is included, by whatever read model: a hint, for that may
    /// have been another one, or an older copy of it may have been put back.
    fn was_passed(&self, _partition: Partition) -> bool {
        false
    }

    /// Whether an operator has asked for messages of `partition` to be counted that were put aside. They are delivered
    /// behind what the read model includes, so an offset at or before that is one of them.
    fn brings_back(&self, _partition: Partition) -> bool {
        false
    }

    /// Tells that the message at `offset`, which was put aside once and brought back, is counted, durably.
    async fn counted(&mut self, _partition: Partition, _offset: u64) {}

    /// Stops reading `partition`: it is delivered no more until it is started again.
    fn stop(&mut self, partition: Partition);

    /// Journals that have ended and of which nothing is left to deliver, as far as this log can tell.
    fn ended(&self) -> Vec<(Partition, JournalId)>;

    /// When the oldest click was sealed that is not delivered yet; `None` = all are.
    fn oldest_waiting(&self) -> Option<Timestamp>;
}
