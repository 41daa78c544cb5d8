//! The ports of the click read model: [`ReadModel`] is what the projector
//! writes through, [`ClickStats`] what the API reads.
//!
//! Rows hold absolute totals. Whoever writes a row also says which position of
//! the log it includes, so that work that is done twice changes nothing.

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::click::{BlockId, JournalId};
use crate::stats::{Cell, Partition, Position, Row, RowError, RowKey, Span};
use crate::{ShortCode, Timestamp};

/// What a read model is made for; fixed when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bus {
    /// The journal directories themselves are the log.
    Local,
    /// Streams of a message broker.
    Streams {
        /// How many, 1 to 256.
        partitions: u16,
    },
}

impl fmt::Display for Bus {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => out.write_str("the local bus"),
            Self::Streams { partitions } => write!(out, "{partitions} streams of a message broker"),
        }
    }
}

/// How far a partition was projected. Opaque to stores but for `at` and `until`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last position that is included.
    pub at: Position,
    /// When the block at that position was sealed: what is counted is true of this time.
    pub until: Timestamp,
    /// The block whose part is at that position: a log that holds another there is another log.
    pub anchor: BlockId,
    /// The exact set of blocks passed, as the projector encodes it.
    pub passed: Vec<u8>,
}

/// A row as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRow {
    /// The last position of its partition that it includes. On the local bus the checkpoints say that for all
    /// rows at once, and this is the default.
    pub at: Position,
    /// The totals.
    pub row: Row,
}

/// A row that is to be stored, encoded by whoever counted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedRow {
    /// As [`StoredRow::at`].
    pub at: Position,
    /// The totals.
    pub cell: Cell,
}

impl PackedRow {
    /// The same, decoded.
    ///
    /// # Errors
    /// As [`Cell::row`].
    pub fn unpack(&self) -> Result<StoredRow, RowError> {
        Ok(StoredRow { at: self.at, row: self.cell.row()? })
    }
}

impl From<&StoredRow> for PackedRow {
    fn from(stored: &StoredRow) -> Self {
        Self { at: stored.at, cell: Cell::of(&stored.row) }
    }
}

impl From<StoredRow> for PackedRow {
    fn from(stored: StoredRow) -> Self {
        Self::from(&stored)
    }
}

/// A journal that a partition needs no more in its set of blocks passed; kept for ever, for the journal's directory may
/// come back from a copy. A partition that is the journal itself (the local bus) has no checkpoint besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retired {
    /// The last position that the partition had included by then. As with rows, the later one of two stands.
    pub at: Position,
    /// As [`Checkpoint::until`].
    pub until: Timestamp,
    /// The exact set of the journal's blocks that were passed, as the projector encodes it; at most some KiB.
    pub passed: Vec<u8>,
}

/// What the projector writes in one step.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The rows that changed, each at most once.
    pub rows: Vec<(RowKey, PackedRow)>,
    /// How far the partitions were projected; written after all rows, or together with them.
    pub checkpoints: Vec<(Partition, Checkpoint)>,
    /// The writer's clock, if it tells: whatever says that it is true of a later time was told by a clock that was ahead,
    /// and is believed no more.
    pub now: Option<Timestamp>,
    /// Journals to be retired; written after the rows and before the checkpoints, which mention them no more. Where the
    /// partition is the journal itself, its checkpoint is removed with it.
    pub retired: Vec<(Partition, JournalId, Retired)>,
}

/// What became of [`ReadModel::write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// All of it stands, durably.
    Stands,
    /// Somebody else wrote since this instance was attached or wrote last; nothing changed. Whoever gets this attaches
    /// again, forgets all rows, and starts from the checkpoints.
    Superseded,
}

/// Holds the rows of the click log, for the projector.
#[async_trait]
pub trait ReadModel: Send + Sync + 'static {
    /// Settles for ever what this read model is made for; returns what stands, which may be something else.
    ///
    /// # Errors
    /// [`StoreError`] when the store could not answer.
    async fn settle_bus(&self, bus: Bus) -> Result<Bus, StoreError>;

    /// Begins to write as this instance: what others write from now on makes [`ReadModel::write`] answer
    /// [`Written::Superseded`] where rows and checkpoints are one transaction. Elsewhere positions order the writers.
    ///
    /// # Errors
    /// [`StoreError`] when the store could not answer.
    async fn attach(&self) -> Result<(), StoreError>;

    /// Takes or renews the lease on `partition` until `now` + `ttl_ms`, unless `holder` is not who has it. Leases spare
    /// double work; nothing is wrong without them.
    ///
    /// # Errors
    /// [`StoreError`] when the store could not answer.
    async fn lease(&self, partition: Partition, holder: &str, now: Timestamp, ttl_ms: u64) -> Result<bool, StoreError>;

    /// How far `partition` was projected; `None` = not at all.
    ///
    /// # Errors
    /// [`StoreError`] when the store could not answer.
    async fn checkpoint(&self, partition: Partition) -> Result<Option<Checkpoint>, StoreError>;

    /// All partitions that have a checkpoint, with it; at most some thousand, for journals that ended are retired.
    ///
    /// # Errors
    /// [`StoreError`] when the store could not answer.
    async fn checkpoints(&self) -> Result<Vec<(Partition, Checkpoint)>, StoreError>;

    /// What `partition` knew of `journal` when it was retired; `None` = it was not.
    ///
    /// # Errors
    /// [`StoreError`] when the store could not answer.
    async fn retired(&self, partition: Partition, journal: JournalId) -> Result<Option<Retired>, StoreError>;

    /// Begins an epoch of `partition`, since its log began anew: `first` is its first checkpoint, at offset 0. If the
    /// epoch `first.at.epoch` was begun already, by whomever, it stays as it was begun. Returns what it was begun with;
    /// `None` = somebody else wrote meanwhile, as with [`Written::Superseded`].
    ///
    /// As it stands this is for stores whose writes are transactions that tell of other writers. Where positions order
    /// the writers, it takes an insert-if-absent under (partition, epoch).
    ///
    /// # Errors
    /// [`StoreError`] when it is not known which checkpoint stands; ask again.
    async fn begin_epoch(&self, partition: Partition, first: &Checkpoint) -> Result<Option<Checkpoint>, StoreError> {
        let batch = Batch { checkpoints: vec![(partition, first.clone())], ..Batch::default() };
        match self.write(&batch).await? {
            Written::Stands => Ok(Some(first.clone())),
            Written::Superseded => Ok(None),
        }
    }

    /// The rows of `keys`, in their order.
    ///
    /// # Errors
    /// [`StoreError`] when not all could be read.
    async fn load(&self, keys: &[RowKey]) -> Result<Vec<Option<StoredRow>>, StoreError>;

    /// Writes `batch`. A row never goes back: where a later position is stored already, it stays. A checkpoint stands
    /// only after all rows of its batch do, durably.
    ///
    /// # Errors
    /// [`StoreError`]; then any part of it may stand, which is harmless: writing it again makes it whole.
    async fn write(&self, batch: &Batch) -> Result<Written, StoreError>;

    /// Up to `limit` rows after `after`, in an order of the store's own that stays, for comparing two read models:
    /// that of their keys where rows are kept in it, that of their partitions' tokens on a cluster. So what one has
    /// is looked for in the other by [`ReadModel::load`].
    ///
    /// # Errors
    /// [`StoreError`] when the store could not answer.
    async fn scan(&self, after: Option<&RowKey>, limit: usize) -> Result<Vec<(RowKey, StoredRow)>, StoreError>;
}

/// Tells the statistics of links. Each call reads a bounded number of rows.
#[async_trait]
pub trait ClickStats: Send + Sync + 'static {
    /// The row of `code` over all time; `None` = no click was counted yet.
    ///
    /// # Errors
    /// [`StoreError`] when the store could not answer.
    async fn overall(&self, code: &ShortCode) -> Result<Option<Row>, StoreError>;

    /// The rows of `code` from `first` to `last`, both included and of one kind, in their order; spans without
    /// clicks are left out.
    ///
    /// # Errors
    /// [`StoreError`] when not all could be read.
    async fn spans(&self, code: &ShortCode, first: Span, last: Span) -> Result<Vec<(Span, Row)>, StoreError>;

    /// The time of which what is told of `code` is true: when the last block was sealed that its partition includes.
    /// `None` = nothing was projected yet.
    ///
    /// # Errors
    /// [`StoreError`] when the store could not answer.
    async fn as_of(&self, code: &ShortCode) -> Result<Option<Timestamp>, StoreError>;
}
