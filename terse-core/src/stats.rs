//! What is known of the clicks of a link: the rows of the read model.
//!
//! A row is the total of one code over one span of time. Its parts are bounded,
//! whatever clients send, and the same clicks in the same order make the same
//! bytes ([`Row::encode`]).

mod row;
mod sketch;
mod values;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{ShortCode, Timestamp};

pub use self::row::{NEWEST_CLICKS, NewestClick, Row, RowError};
pub use self::sketch::Sketch;
pub use self::values::{MAX_VALUE_BYTES, MAX_VALUES, Values};

/// What clicks are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dimension {
    /// The host of the referrer.
    Referrer,
    /// The country of the client's network, ISO 3166-1 alpha-2.
    Country,
    /// The browser.
    Browser,
    /// The operating system.
    System,
    /// The kind of device.
    Device,
    /// The language asked for first, its primary subtag.
    Language,
}

impl Dimension {
    /// All of them, in the order in which rows keep them.
    pub const ALL: [Self; 6] =
        [Self::Referrer, Self::Country, Self::Browser, Self::System, Self::Device, Self::Language];
}

/// Milliseconds of an hour and of a day.
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// A span of time in UTC that has a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Span {
    /// All time. The row also has the newest clicks.
    All,
    /// The day of this number since 1970-01-01. The row also has visitors.
    Day(u32),
    /// The hour of this number since 1970-01-01T00:00Z.
    Hour(u32),
}

impl Span {
    /// The hour that `at` lies in.
    #[must_use]
    pub fn hour_of(at: Timestamp) -> Self {
        Self::Hour(u32::try_from(at.as_millis() / HOUR_MS).unwrap_or(u32::MAX))
    }

    /// The day that `at` lies in.
    #[must_use]
    pub fn day_of(at: Timestamp) -> Self {
        Self::Day(u32::try_from(at.as_millis() / DAY_MS).unwrap_or(u32::MAX))
    }

    /// When it begins; [`Span::All`] at the epoch.
    #[must_use]
    pub fn start(self) -> Timestamp {
        Timestamp::from_millis(match self {
            Self::All => 0,
            Self::Day(number) => i64::from(number) * DAY_MS,
            Self::Hour(number) => i64::from(number) * HOUR_MS,
        })
    }
}

/// Names a row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey {
    /// The link's code.
    pub code: ShortCode,
    /// The span.
    pub span: Span,
}

/// Names a partition of the click log: a stream's number, or on the local bus a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Partition {
    /// A stream of the message broker, by number.
    Stream(u16),
    /// A journal directory, which is a log by itself.
    Journal(crate::click::JournalId),
}

impl fmt::Display for Partition {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(number) => write!(out, "stream/{number}"),
            Self::Journal(id) => write!(out, "journal/{id}"),
        }
    }
}

impl Partition {
    /// The stream that the clicks of `code` go to, of `partitions`. It is the same for ever, on all machines: the
    /// remainder of the code's CRC-32.
    ///
    /// # Panics
    /// Never: no partitions are taken for one.
    #[must_use]
    pub fn of(code: &str, partitions: u16) -> Self {
        Self::Stream((crc32fast::hash(code.as_bytes()) % u32::from(partitions.max(1))) as u16)
    }
}

/// A place in a partition: the epoch counts how often the log began anew.
/// Ordered as time goes; `EPOCH_BITS` and `OFFSET_BITS` bound it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Below 2^10.
    pub epoch: u16,
    /// Below 2^40.
    pub offset: u64,
}

impl Position {
    /// Bits of an offset.
    pub const OFFSET_BITS: u32 = 40;
    /// Bits of an epoch.
    pub const EPOCH_BITS: u32 = 10;

    /// One number below 2^50 that orders positions, for `USING TIMESTAMP`.
    #[must_use]
    pub const fn as_number(self) -> u64 {
        ((self.epoch as u64) << Self::OFFSET_BITS) | self.offset
    }

    /// The position of `number`; see [`Position::as_number`].
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self { epoch: (number >> Self::OFFSET_BITS) as u16, offset: number & ((1 << Self::OFFSET_BITS) - 1) }
    }
}
