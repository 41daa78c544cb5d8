//! A row of the read model, and its bytes.
//!
//! The bytes are one letter of version and the postcard encoding of the row:
//! a documented, stable format. Stores keep them as one cell and never look inside.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::{Dimension, Sketch, Values};
use crate::Timestamp;
use crate::click::BlockId;

/// How many of its newest clicks the row of all time has.
pub const NEWEST_CLICKS: usize = 100;

/// The version of the encoding that is written. The one before it is still read, once there is one.
const FORMAT: u8 = 1;

/// The clicks of one code in one span, counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The version of the rules by which clicks were told apart: two rows compare in all they hold if it is equal,
    /// and by `clicks + bots` alone if not.
    pub enrichment: u16,
    /// Clicks of people.
    pub clicks: u64,
    /// Clicks of programs.
    pub bots: u64,
    /// What people's clicks were like, in the order of [`Dimension::ALL`].
    values: [Values; 6],
    /// Who clicked, if the row is of a day.
    pub visitors: Option<Sketch>,
    /// The newest clicks, newest first, if the row is of all time; at most [`NEWEST_CLICKS`].
    newest: Vec<NewestClick>,
}

/// A click as people may see it. Ordered by (time, journal, sequence, index).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewestClick {
    /// When, in milliseconds since the Unix epoch.
    at_ms: i64,
    /// The block that it was recorded in.
    pub block: BlockId,
    /// Which of the block's records it is.
    pub index: u32,
    /// Values in the order of [`Dimension::ALL`]; empty = not known.
    values: [CompactString; 6],
    /// Whether it was a program.
    pub bot: bool,
}

/// Why bytes are no row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// They are of a version that this build doesn't know.
    #[error("a row of format {0}, which this build doesn't know")]
    Format(u8),
    /// They are damaged.
    #[error("damaged row: {0}")]
    Damaged(String),
}

impl Row {
    /// The counts of `dimension`.
    #[must_use]
    pub fn values(&self, dimension: Dimension) -> &Values {
        &self.values[dimension as usize]
    }

    /// The counts of `dimension`, to add to.
    pub fn values_mut(&mut self, dimension: Dimension) -> &mut Values {
        &mut self.values[dimension as usize]
    }

    /// The newest clicks, newest first.
    #[must_use]
    pub fn newest(&self) -> &[NewestClick] {
        &self.newest
    }

    /// Keeps `click` if it is one of the newest. The order in which clicks come doesn't matter.
    pub fn keep_newest(&mut self, click: NewestClick) {
        let place = self.newest.partition_point(|kept| kept.order() > click.order());
        if place < NEWEST_CLICKS {
            self.newest.truncate(NEWEST_CLICKS - 1);
            self.newest.insert(place, click);
        }
    }

    /// Adds the counts of `more`; visitors are merged, newest clicks are not looked at.
    pub fn merge_counts(&mut self, more: &Self) {
        self.clicks += more.clicks;
        self.bots += more.bots;
        for (mine, theirs) in self.values.iter_mut().zip(&more.values) {
            mine.merge(theirs);
        }
        if let Some(theirs) = &more.visitors {
            self.visitors.get_or_insert_default().merge(theirs);
        }
    }

    /// The bytes that stores keep. Equal rows have equal bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Into a vector nothing can fail but a length that isn't known before, and all are.
        postcard::to_extend(self, vec![FORMAT]).unwrap_or_default()
    }

    /// Reads what [`Row::encode`] wrote.
    ///
    /// # Errors
    /// [`RowError`] when `bytes` are none, or too new.
    pub fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        match bytes.split_first() {
            Some((&FORMAT, rest)) => postcard::from_bytes(rest).map_err(|error| RowError::Damaged(error.to_string())),
            Some((&format, _)) => Err(RowError::Format(format)),
            None => Err(RowError::Damaged("no bytes".into())),
        }
    }
}

impl NewestClick {
    /// A click that was recorded as number `index` of `block`.
    #[must_use]
    pub fn new(at: Timestamp, block: BlockId, index: u32, values: [CompactString; 6], bot: bool) -> Self {
        Self { at_ms: at.as_millis(), block, index, values, bot }
    }

    /// When it was.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        Timestamp::from_millis(self.at_ms)
    }

    /// Its value of `dimension`; `None` = not known.
    #[must_use]
    pub fn value(&self, dimension: Dimension) -> Option<&str> {
        Some(self.values[dimension as usize].as_str()).filter(|value| !value.is_empty())
    }

    fn order(&self) -> (i64, BlockId, u32) {
        (self.at_ms, self.block, self.index)
    }
}
