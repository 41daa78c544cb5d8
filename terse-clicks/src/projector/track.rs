//! How far one partition was projected, and what its next delivery is.

use terse_core::Timestamp;
use terse_core::click::{BlockId, JournalId};
use terse_core::ports::clicks::{Checkpoint, Retired};
use terse_core::stats::{Partition, Position};

use super::passed::{Passed, PassedError};
use crate::log::{Body, Delivery};
use crate::part::Part;

/// The anchor of an epoch of which nothing is included yet. No block has it.
const NOTHING_YET: BlockId = BlockId { journal: JournalId([0; 16]), seq: u64::MAX };
/// The sequence number of anchors that stand for messages which are no parts. No block has it.
const NO_PART: u64 = u64::MAX;

/// A partition that is being projected.
pub(super) struct Track {
    pub(super) partition: Partition,
    pub(super) epoch: u16,
    /// The last offset of this epoch that is included.
    pub(super) at: Option<u64>,
    pub(super) until: Timestamp,
    anchor: BlockId,
    pub(super) passed: Passed,
    /// Whether it isn't known yet if this is the log that the checkpoint is of.
    unsure: bool,
    /// Whether a checkpoint is to be written.
    pub(super) dirty: bool,
    /// The first block passed since the last checkpoint, with its time.
    pub(super) first_unwritten: Option<(BlockId, Timestamp)>,
    /// Whether all of it was passed, and its journal stands in a row of its own.
    pub(super) done: bool,
    /// The last offset that the log was told to need no more.
    pub(super) told: Option<u64>,
    /// Offsets that were put aside once, came back and are counted, which the log was not told.
    pub(super) late: Vec<u64>,
}

/// What a delivery is to its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The next one; or one that only a newer build can tell from others.
    Next,
    /// Included already.
    Known,
    /// The log is another one than the checkpoint's: it began anew.
    Epoch,
    /// What was between the checkpoint and this one is gone.
    Gap,
    /// Its offset is more than a position can hold.
    Beyond,
}

impl Track {
    /// A partition that was never projected.
    pub(super) fn fresh(partition: Partition) -> Self {
        Self {
            partition,
            epoch: 0,
            at: None,
            until: Timestamp::from_millis(0),
            anchor: NOTHING_YET,
            passed: Passed::default(),
            unsure: false,
            dirty: false,
            first_unwritten: None,
            done: false,
            told: None,
            late: Vec::new(),
        }
    }

    /// A partition that goes on at its checkpoint.
    pub(super) fn resumed(partition: Partition, checkpoint: &Checkpoint) -> Result<Self, PassedError> {
        let at = (checkpoint.anchor != NOTHING_YET).then_some(checkpoint.at.offset);
        Ok(Self {
            epoch: checkpoint.at.epoch,
            at,
            until: checkpoint.until,
            anchor: checkpoint.anchor,
            passed: Passed::decode(&checkpoint.passed)?,
            // A journal is one log for ever; a stream may have been made anew under its name.
            unsure: at.is_some() && matches!(partition, Partition::Stream(_)),
            ..Self::fresh(partition)
        })
    }

    /// A journal that came back after it was retired. It is read from its beginning, for it may be a longer version.
    pub(super) fn returned(journal: JournalId, retired: &Retired) -> Result<Self, PassedError> {
        let mut track = Self::fresh(Partition::Journal(journal));
        track.epoch = retired.at.epoch.saturating_add(1).min((1 << Position::EPOCH_BITS) - 1);
        track.until = retired.until;
        track.passed.restore(journal, &retired.passed, false)?;
        Ok(track)
    }

    /// A journal that was retired, of which blocks come back that were put aside.
    pub(super) fn reopened(journal: JournalId, retired: &Retired) -> Result<Self, PassedError> {
        let mut track = Self::returned(journal, retired)?;
        track.at = Some(retired.at.offset);
        Ok(track)
    }

    /// A journal that was retired, of which nothing more is wanted than that its log hears so.
    pub(super) fn retired(journal: JournalId, retired: &Retired) -> Result<Self, PassedError> {
        let mut track = Self::returned(journal, retired)?;
        track.epoch = retired.at.epoch;
        track.at = Some(retired.at.offset);
        track.done = true;
        Ok(track)
    }

    /// Where the log of a retired journal goes on.
    pub(super) fn checkpoint_of_retired(retired: &Retired) -> Checkpoint {
        Checkpoint { at: retired.at, until: retired.until, anchor: NOTHING_YET, passed: Vec::new() }
    }

    /// What makes its log begin at `offset`, whatever is included.
    pub(super) fn behind(&self, offset: u64) -> Checkpoint {
        let at = self.position(offset.saturating_sub(1));
        Checkpoint { at, until: self.until, anchor: NOTHING_YET, passed: Vec::new() }
    }

    /// The first checkpoint of the epoch after this one; `None` = there are no more epochs.
    pub(super) fn next_epoch(&self) -> Option<Checkpoint> {
        let epoch = self.epoch + 1;
        let position = Position { epoch, offset: 0 };
        (epoch < 1 << Position::EPOCH_BITS).then(|| Checkpoint {
            at: position,
            until: self.until,
            anchor: NOTHING_YET,
            passed: self.passed.encode(&[]),
        })
    }

    /// Whether its log is to be read from its beginning.
    pub(super) fn begins(&self) -> bool {
        self.at.is_none()
    }

    /// The position of `offset`.
    pub(super) fn position(&self, offset: u64) -> Position {
        Position { epoch: self.epoch, offset }
    }

    /// The last position that is included.
    pub(super) fn included(&self) -> Position {
        self.position(self.at.unwrap_or(0))
    }

    /// The checkpoint of what is included, without `leaving`.
    pub(super) fn checkpoint(&self, leaving: &[JournalId]) -> Checkpoint {
        let passed = self.passed.encode(leaving);
        Checkpoint { at: self.included(), until: self.until, anchor: self.anchor, passed }
    }

    /// What `delivery` is to it.
    pub(super) fn judge(&mut self, delivery: &Delivery) -> Verdict {
        if delivery.offset >> Position::OFFSET_BITS > 0 {
            return Verdict::Beyond;
        }
        let Some(at) = self.at else { return Verdict::Next };
        if !self.unsure {
            let known = delivery.offset <= at && !self.comes_back(delivery);
            return if known { Verdict::Known } else { Verdict::Next };
        }
        if delivery.offset > at {
            return Verdict::Gap;
        }
        if delivery.offset == at {
            if matches!(delivery.body, Body::Newer(_)) {
                // Which message it is can't be told here; whoever counted it can.
                return Verdict::Next;
            }
            self.unsure = !is_at(self.anchor, &delivery.body);
            return if self.unsure { Verdict::Epoch } else { Verdict::Known };
        }
        // Before the checkpoint only what was passed can be, unless this is another, shorter log.
        match &delivery.body {
            Body::Part(part) if !self.passed.has(part.header.block) => Verdict::Epoch,
            _ => Verdict::Known,
        }
    }

    /// Whether `delivery`, at or before what is included, was put aside when it was its turn, and is not counted.
    fn comes_back(&self, delivery: &Delivery) -> bool {
        matches!(self.partition, Partition::Journal(_))
            && match &delivery.body {
                Body::Part(part) => self.passed.first_new(&part.header).is_some(),
                Body::Undecodable { .. } => true,
                Body::Newer(_) => false,
            }
    }

    /// Takes note that `delivery`, which was put aside once, is counted.
    pub(super) fn is_back(&mut self, delivery: &Delivery) {
        if matches!((self.partition, &delivery.body), (Partition::Journal(_), Body::Part(_))) {
            self.late.push(delivery.offset);
        }
    }

    /// Goes on to `delivery`, whose clicks were added. No time after `now` is told: a clock that was ahead once would
    /// tell it for ever.
    pub(super) fn advance(&mut self, delivery: &Delivery, now: Timestamp) {
        if self.at.is_some_and(|at| delivery.offset <= at) {
            self.is_back(delivery);
        } else {
            self.at = Some(delivery.offset);
            self.anchor = anchor_of(&delivery.body);
        }
        self.dirty = true;
        if let Body::Part(part) = &delivery.body {
            self.passed.pass(&part.header);
            self.until = self.until.max(part.header.sealed_at).min(now);
            self.first_unwritten.get_or_insert((part.header.block, part.header.sealed_at));
        }
    }

    /// The last message that is included, as the log's tracing names it.
    pub(super) fn last_block(&self) -> BlockId {
        self.anchor
    }
}

/// Whether `body` is the message that `anchor` stands for. It may be a part by now that an older build couldn't decode,
/// and put aside.
fn is_at(anchor: BlockId, body: &Body) -> bool {
    let is_known_by_bytes = |part: &Part| anchor.seq == NO_PART && anchor_of_bytes(&part.encode()) == anchor;
    anchor_of(body) == anchor || matches!(body, Body::Part(part) if is_known_by_bytes(part))
}

fn anchor_of_bytes(bytes: &[u8]) -> BlockId {
    use siphasher::sip128::{Hasher128, SipHasher13};
    use std::hash::Hasher;
    let mut hasher = SipHasher13::new();
    hasher.write(bytes);
    BlockId { journal: JournalId(hasher.finish128().as_bytes()), seq: NO_PART }
}

/// By what a message is known again.
fn anchor_of(body: &Body) -> BlockId {
    match body {
        Body::Part(part) => part.header.block,
        Body::Undecodable { bytes, .. } => anchor_of_bytes(bytes),
        Body::Newer(format) => BlockId { journal: JournalId(u128::from(*format).to_be_bytes()), seq: NO_PART },
    }
}
