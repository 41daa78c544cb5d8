//! What is known of the clicks of a link: the rows of the read model.
//!
//! A row is the total of one code over one span of time. Its parts are bounded,
//! whatever clients send, and the same clicks in the same order make the same
//! bytes ([`Row::encode`]).

mod bytes;
mod format_one;
mod newest;
mod packer;
mod row;
mod sketch;
mod values;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{ShortCode, Timestamp};

pub use self::newest::{NEWEST_CLICKS, NewestClick, SeenClick};
pub use self::packer::{Extra, NewestClicks, Packer, Tallied, TalliedValue};
pub use self::row::{Cell, MIXED_ENRICHMENT, Row, RowError};
pub use self::sketch::{SPARSE_MAX, Sketch};
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
    /// No partitions at all are taken for one.
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

/// As `3:1200` of epoch and offset, or the offset alone in the first epoch.
impl fmt::Display for Position {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.epoch {
            0 => write!(out, "{}", self.offset),
            epoch => write!(out, "{epoch}:{}", self.offset),
        }
    }
}

impl Position {
    /// Bits of an offset.
    pub const OFFSET_BITS: u32 = 40;
    /// Bits of an epoch.
    pub const EPOCH_BITS: u32 = 10;

    /// One number below 2^50 that orders positions, for `USING TIMESTAMP`. What is beyond the bounds, which no log gets
    /// to, counts as the last place within them.
    #[must_use]
    pub const fn as_number(self) -> u64 {
        const LAST_EPOCH: u16 = (1 << Position::EPOCH_BITS) - 1;
        const LAST_OFFSET: u64 = (1 << Position::OFFSET_BITS) - 1;
        let epoch = if self.epoch > LAST_EPOCH { LAST_EPOCH } else { self.epoch };
        let offset = if self.offset > LAST_OFFSET { LAST_OFFSET } else { self.offset };
        ((epoch as u64) << Self::OFFSET_BITS) | offset
    }

    /// The position of `number`; see [`Position::as_number`].
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self { epoch: (number >> Self::OFFSET_BITS) as u16, offset: number & ((1 << Self::OFFSET_BITS) - 1) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::click::JournalId;

    #[test]
    fn dimensions_are_numbered_in_their_order() {
        assert!(Dimension::ALL.iter().enumerate().all(|(number, dimension)| *dimension as usize == number));
    }

    #[test]
    fn a_span_begins_where_the_one_before_it_ends() {
        let at = Timestamp::parse("2026-11-23T04:59:59.999Z").unwrap();
        assert_eq!(Span::hour_of(at).start(), Timestamp::parse("2026-11-23T04:00:00Z").unwrap());
        assert_eq!(Span::day_of(at).start(), Timestamp::parse("2026-11-23T00:00:00Z").unwrap());
        let next = at.plus_millis(1);
        assert_eq!(Span::hour_of(next).start(), next);
        assert_eq!(Span::day_of(next), Span::day_of(at));
        assert_eq!(Span::All.start(), Timestamp::from_millis(0));
        assert_eq!(Span::Day(u32::MAX).start(), Timestamp::from_millis(i64::MAX), "clamped to the last time");
    }

    #[test]
    fn rows_of_a_code_are_ordered_by_kind_then_time() {
        let spans = [Span::All, Span::Day(1), Span::Day(2), Span::Hour(0), Span::Hour(30)];
        assert!(spans.is_sorted());
    }

    #[test]
    fn a_code_keeps_its_stream_for_ever() {
        let streams = ["a", "b", "aaaaaaa", "2nX9Kq1", "launch-2026", "_"].map(|code| Partition::of(code, 8));
        assert_eq!(streams, [3, 1, 4, 2, 6, 0].map(Partition::Stream));
        assert_eq!(Partition::of("a", 0), Partition::Stream(0));
        assert_eq!(Partition::of("a", 1), Partition::Stream(0));
    }

    #[test]
    fn codes_spread_over_all_streams() {
        let mut counts = [0_u32; 16];
        for number in 0..16_000 {
            let Partition::Stream(stream) = Partition::of(&format!("c{number:06}"), 16) else { panic!("no stream") };
            counts[usize::from(stream)] += 1;
        }
        assert!(counts.iter().all(|count| (900..=1_100).contains(count)), "{counts:?}");
    }

    #[test]
    fn partitions_are_written_as_people_read_them() {
        assert_eq!(Partition::Stream(7).to_string(), "stream/7");
        let journal = Partition::Journal(JournalId([0x0a; 16]));
        assert_eq!(journal.to_string(), "journal/0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a");
    }

    #[test]
    fn names_have_the_bytes_of_format_one() {
        let bytes = |partition: Partition| postcard::to_stdvec(&partition).unwrap();
        assert_eq!(bytes(Partition::Stream(300)), [0, 0xac, 0x02]);
        assert_eq!(bytes(Partition::Journal(JournalId([9; 16]))), [&[1][..], &[9; 16]].concat());
        assert_eq!(postcard::to_stdvec(&[Span::All, Span::Day(1), Span::Hour(200)]).unwrap(), [0, 1, 1, 2, 0xc8, 0x01]);
        assert_eq!(postcard::to_stdvec(&Position { epoch: 1, offset: 300 }).unwrap(), [1, 0xac, 0x02]);
    }

    #[test]
    fn a_position_beyond_all_bounds_counts_as_the_last() {
        let last = Position { epoch: u16::MAX, offset: u64::MAX }.as_number();
        assert_eq!(last, (1 << 50) - 1);
        assert_eq!(Position::from_number(last).as_number(), last);
        assert!(Position { epoch: 3, offset: u64::MAX }.as_number() < Position { epoch: 4, offset: 0 }.as_number());
    }

    proptest! {
        #[test]
        fn numbers_order_positions_as_time_goes(
            a in (0_u16..1 << 10, 0_u64..1 << 40), b in (0_u16..1 << 10, 0_u64..1 << 40),
        ) {
            let [a, b] = [a, b].map(|(epoch, offset)| Position { epoch, offset });
            prop_assert_eq!(a.cmp(&b), a.as_number().cmp(&b.as_number()));
            prop_assert!(a.as_number() < 1 << 50);
            prop_assert_eq!(Position::from_number(a.as_number()), a);
        }

        #[test]
        fn a_click_lies_in_its_hour_and_day(ms in 0_i64..253_402_300_799_999) {
            let at = Timestamp::from_millis(ms);
            let (hour, day) = (Span::hour_of(at).start(), Span::day_of(at).start());
            prop_assert!(day <= hour && hour <= at);
            prop_assert!(ms - hour.as_millis() < HOUR_MS && ms - day.as_millis() < DAY_MS);
        }

        #[test]
        fn any_bytes_are_a_name_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(partition) = postcard::from_bytes::<Partition>(&bytes) {
                prop_assert!(!partition.to_string().is_empty());
            }
            if let Ok(span) = postcard::from_bytes::<Span>(&bytes) {
                prop_assert!(span.start() >= Timestamp::from_millis(0));
            }
        }
    }
}
