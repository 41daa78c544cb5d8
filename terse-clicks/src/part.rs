//! A part: the clicks of one block that belong to one partition, as one message.
//!
//! Every block sends a part, if an empty one, to every partition, so that the set of blocks that a partition has passed
//! stays whole. On the local bus a block is its own only part.
//!
//! A part's records are in the block's own [frames](crate::frame): a block becomes a part without copying, and is split
//! by copying frames as they are.

use bytes::Bytes;
use terse_core::Timestamp;
use terse_core::click::BlockId;

use crate::frame::{self, Frame, MAX_FRAME_BYTES};
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
    /// A part of `records`, each with its index in the block, in the order of the indices. Texts are cut to their bounds.
    #[must_use]
    pub fn new<'r>(header: PartHeader, records: impl IntoIterator<Item = (u32, Record<'r>)>) -> Self {
        let seed = frame::seed(header.block);
        let mut frames = Vec::new();
        for (index, record) in records {
            let before = frames.len();
            frames.resize(before + MAX_FRAME_BYTES, 0);
            let len = frame::write(&record.bounded(), index, seed, &mut frames[before..]);
            frames.truncate(before + len);
        }
        Self { header, records: frames.into() }
    }

    /// A part of the [frames](crate::frame) of a block, which are shared, not copied. Their checksums are the caller's
    /// business; here each is only seen to be a record.
    ///
    /// # Errors
    /// [`PartError::Damaged`] when they are no frames, their indices don't rise, or a record can't be read.
    pub fn of_frames(header: PartHeader, frames: Bytes) -> Result<Self, PartError> {
        let mut rest = frames.as_ref();
        let mut least = 0;
        while !rest.is_empty() {
            let (frame, next) = Frame::first_of(rest).map_err(PartError::Damaged)?;
            if frame.index < least || frame.index >= header.block_records {
                return Err(PartError::Damaged("records out of order"));
            }
            frame.record().map_err(PartError::Damaged)?;
            least = frame.index + 1;
            rest = next;
        }
        Ok(Self { header, records: frames })
    }

    /// The frames of the records, as they are in the block.
    pub fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        let mut rest = self.records.as_ref();
        std::iter::from_fn(move || {
            let (frame, next) = Frame::first_of(rest).ok()?;
            rest = next;
            Some(frame)
        })
    }

    /// The records with their indices, in order.
    pub fn records(&self) -> impl Iterator<Item = (u32, Record<'_>)> {
        self.frames().map_while(|frame| frame.record().ok().map(|record| (frame.index, record)))
    }
}
