//! A part: the clicks of one block that belong to one partition, as one message.
//!
//! Every block sends a part, if an empty one, to every partition, so that the set of blocks that a partition has passed
//! stays whole. On the local bus a block is its own only part.

use bytes::Bytes;
use terse_core::Timestamp;
use terse_core::click::BlockId;

use crate::record::Record;

/// The version of the format that is written. A reader takes this one and the one before it.
pub const FORMAT: u16 = 1;

/// What a part says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartHeader {
    /// The block that it is a part of.
    pub block: BlockId,
    /// Which of the partitions it belongs to, from 0; 0 on the local bus.
    pub partition: u16,
    /// How many partitions there are; 1 on the local bus.
    pub partitions: u16,
    /// How many records the whole block has.
    pub block_records: u32,
    /// Whether the block was sealed by a recovery, so that a longer version of it may exist.
    pub recovered: bool,
    /// Whether the journal has ended: this is its last block, which has no records.
    pub end: bool,
    /// When the block was sealed, by the clock of who did.
    pub sealed_at: Timestamp,
}

/// A part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it says of itself.
    pub header: PartHeader,
    records: Bytes,
}

/// Why bytes are no part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    /// They are of a version that this build doesn't know. A newer build does: wait for it.
    #[error("a part of format {0}, which this build doesn't know")]
    Newer(u16),
    /// They are damaged, or were never a part.
    #[error("no part: {0}")]
    Damaged(&'static str),
}

impl Part {
    /// A part of `records`, each with its index in the block, in the order of the indices.
    #[must_use]
    pub fn new<'r>(header: PartHeader, records: impl IntoIterator<Item = (u32, Record<'r>)>) -> Self {
        let _ = records.into_iter();
        Self { header, records: Bytes::new() }
    }

    /// The records with their indices, in order.
    pub fn records(&self) -> impl Iterator<Item = (u32, Record<'_>)> {
        let _ = &self.records;
        std::iter::empty()
    }
}
