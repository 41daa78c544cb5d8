//! A row of the read model, and its bytes.
//!
//! The bytes are one letter of version and what follows from it, a stable format: numbers as `bytes` writes them, then
//! the [`Values`] in the order of [`Dimension::ALL`], the visitors (0, or 1 and the sketch as postcard writes it), and the
//! newest clicks with each of their texts written once. Stores keep them as one cell and never look inside.

use std::sync::Arc;

use super::bytes::{Eye, Wrong, put_number};
use super::newest::{Newest, NewestClick, SeenClick};
use super::{Dimension, Sketch, Values, format_one};
use crate::Timestamp;
use crate::click::BlockId;

/// The [`Row::enrichment`] of a row whose clicks were told apart by more than one version of the rules, or by none yet.
pub const MIXED_ENRICHMENT: u16 = 0;

/// The version of the encoding that is written. The one before it is still read.
pub(super) const FORMAT: u8 = 2;

/// The clicks of one code in one span, counted.
///
/// It takes at most about 160 KiB, and encoded about 140 KiB, whatever clients send: [`Values`], [`Sketch`] and the
/// newest clicks are bounded one by one. Bytes that hold more are refused.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// The version of the rules by which clicks were told apart: two rows compare in all they hold if it is equal and
    /// not [`MIXED_ENRICHMENT`], and by `clicks + bots` alone if not. See [`Row::told_by`].
    pub enrichment: u16,
    /// Clicks of people.
    pub clicks: u64,
    /// Clicks of programs.
    pub bots: u64,
    /// What people's clicks were like, in the order of [`Dimension::ALL`].
    pub(super) values: [Values; 6],
    /// Who clicked, if the row is of a day.
    pub visitors: Option<Sketch>,
    /// The newest clicks, if the row is of all time.
    newest: Newest,
}

/// A row as stores keep it: what [`Row::encode`] makes. Equal rows are equal cells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell(Arc<[u8]>);

impl Cell {
    /// The cell of `row`.
    #[must_use]
    pub fn of(row: &Row) -> Self {
        Self(row.encode().into())
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The row in it.
    ///
    /// # Errors
    /// [`RowError`]; never of a cell that was made here.
    pub fn row(&self) -> Result<Row, RowError> {
        Row::decode(&self.0)
    }
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

    /// The newest clicks, newest first; at most [`NEWEST_CLICKS`](super::NEWEST_CLICKS).
    #[must_use]
    pub fn newest(&self) -> Vec<NewestClick> {
        self.newest.all().collect()
    }

    /// Notes that a click is about to be counted that was told apart by `version` of the rules.
    pub fn told_by(&mut self, version: u16) {
        self.enrichment = told_by(self.enrichment, self.clicks != 0 || self.bots != 0, version);
    }

    /// Whether [`Row::keep_newest`] would keep a click of this time and place. Most clicks of an old log are not worth
    /// a look.
    #[must_use]
    pub fn would_keep(&self, at: Timestamp, block: BlockId, index: u32) -> bool {
        self.newest.would_keep((at.as_millis(), block, index))
    }

    /// Keeps `click` if it is one of the newest. Neither the order in which clicks come matters, nor whether one comes
    /// twice.
    pub fn keep_newest(&mut self, click: NewestClick) {
        self.newest.keep(vec![click.seen()]);
    }

    /// Keeps those of `clicks` that are among the newest: the same as [`Row::keep_newest`] of each, in less time.
    pub fn keep_newest_of(&mut self, clicks: Vec<SeenClick<'_>>) {
        self.newest.keep(clicks);
    }

    /// Drops those of the newest clicks that were later than `latest`: a clock was ahead when they came, and they would
    /// be the newest until then. They stay counted.
    pub fn drop_newest_after(&mut self, latest: Timestamp) {
        self.newest.drop_after(latest);
    }

    /// Adds the counts of `more`; visitors are merged, newest clicks are not looked at.
    pub fn merge_counts(&mut self, more: &Self) {
        self.clicks = self.clicks.saturating_add(more.clicks);
        self.bots = self.bots.saturating_add(more.bots);
        for (mine, theirs) in self.values.iter_mut().zip(&more.values) {
            mine.merge(theirs);
        }
        if let Some(theirs) = &more.visitors {
            self.visitors.get_or_insert_default().merge(theirs);
        }
    }

    /// What the row takes of the heap, in bytes, the allocator's own part guessed. It looks at every text: about as
    /// much work as a third of [`Row::encode`].
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let values: usize = self.values.iter().map(Values::heap_bytes).sum();
        let visitors = self.visitors.as_ref().map_or(0, Sketch::heap_bytes);
        values + visitors + self.newest.heap_bytes()
    }

    /// The bytes that stores keep. Equal rows have equal bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out
    }

    fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(FORMAT);
        for number in [u64::from(self.enrichment), self.clicks, self.bots] {
            put_number(out, number);
        }
        self.values.iter().for_each(|values| values.write(out));
        match &self.visitors {
            None => out.push(0),
            Some(visitors) => {
                out.push(1);
                visitors.write(out);
            }
        }
        self.newest.write(out);
    }

    /// Reads what [`Row::encode`] wrote, by this release or the one before.
    ///
    /// # Errors
    /// [`RowError`] when `bytes` are none, or too new.
    pub fn decode(bytes: &[u8]) -> Result<Self, RowError> {
        let mut row = Self::default();
        row.become_cell(bytes)?;
        Ok(row)
    }

    fn become_cell(&mut self, bytes: &[u8]) -> Result<(), RowError> {
        match bytes.split_first() {
            Some((&FORMAT, rest)) => self.read(&mut Eye { rest }).map_err(|wrong| RowError::Damaged(wrong.into())),
            Some((&format_one::FORMAT, rest)) => {
                *self = format_one::decode(rest)?;
                Ok(())
            }
            Some((&format, _)) => Err(RowError::Format(format)),
            None => Err(RowError::Damaged("no bytes".into())),
        }
    }

    fn read(&mut self, eye: &mut Eye<'_>) -> Result<(), Wrong> {
        self.enrichment = u16::try_from(eye.number()?).map_err(|_| "rules beyond all bounds")?;
        (self.clicks, self.bots) = (eye.number()?, eye.number()?);
        for values in &mut self.values {
            values.read(eye)?;
        }
        self.visitors = match eye.byte()? {
            0 => None,
            1 => Some(Sketch::read(eye)?),
            _ => return Err("neither visitors nor none"),
        };
        self.newest.read(eye)?;
        if eye.rest.is_empty() { Ok(()) } else { Err("bytes behind its end") }
    }
}

/// The [`Row::enrichment`] of a row that had `before`, and clicks or none, when more are told by `version`.
pub(super) fn told_by(before: u16, any: bool, version: u16) -> u16 {
    match before == version {
        true => version,
        false if any => MIXED_ENRICHMENT,
        false => version,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use compact_str::CompactString;
    use proptest::prelude::*;

    use super::super::{MAX_VALUE_BYTES, NEWEST_CLICKS};
    use super::*;
    use crate::click::JournalId;

    fn block(journal: u8, seq: u64) -> BlockId {
        BlockId { journal: JournalId([journal; 16]), seq }
    }

    pub(in crate::stats) fn click(at_ms: i64, journal: u8, seq: u64, index: u32) -> NewestClick {
        let values = ["example.org", "DE", "Firefox", "Linux", "desktop", "de"].map(CompactString::from);
        NewestClick::new(Timestamp::from_millis(at_ms), block(journal, seq), index, values, index % 2 == 1)
    }

    fn row_of(clicks: impl IntoIterator<Item = NewestClick>) -> Row {
        let mut row = Row::default();
        clicks.into_iter().for_each(|click| row.keep_newest(click));
        row
    }

    pub(in crate::stats) fn full_row() -> Row {
        let mut row = row_of((0..3).map(|index| click(1_700_000_000_000 + i64::from(index), 0xab, 7, index)));
        row.told_by(1);
        (row.clicks, row.bots) = (300, 2);
        for (number, dimension) in Dimension::ALL.into_iter().enumerate() {
            row.values_mut(dimension).add("first", 299);
            row.values_mut(dimension).add(["", "=1+1", "<b>", "ä", "\n", "x"][number], 1);
        }
        row.visitors.get_or_insert_default().add(0x1234_5678_9abc_def0);
        row
    }

    #[test]
    fn a_row_has_the_bytes_of_format_two() {
        assert_eq!(Row::default().encode(), [&[FORMAT][..], &[0; 17]].concat());
        let bytes = full_row().encode();
        assert_eq!(bytes[..6], [FORMAT, 1, 0xac, 0x02, 2, 2]);
        assert_eq!((bytes.len(), crc32fast::hash(&bytes)), (183, 0x720d_1fd2));
        assert_eq!(Row::decode(&bytes).unwrap(), full_row());
    }

    #[test]
    fn a_row_of_another_format_is_told_from_a_damaged_one() {
        let mut bytes = full_row().encode();
        bytes[0] = FORMAT + 1;
        assert_eq!(Row::decode(&bytes), Err(RowError::Format(FORMAT + 1)));
        assert!(matches!(Row::decode(&[]), Err(RowError::Damaged(_))));
        let bytes = full_row().encode();
        for len in 1..bytes.len() {
            assert!(matches!(Row::decode(&bytes[..len]), Err(RowError::Damaged(_))), "cut to {len} bytes");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Row::decode(&longer), Err(RowError::Damaged("bytes behind its end".into())));
    }

    #[test]
    fn a_row_beyond_its_bounds_is_refused() {
        let sound = [&[FORMAT][..], &[0; 17]].concat();
        let with = |place: usize, bytes: &[u8]| [&sound[..place], bytes, &sound[place + 1..]].concat();
        assert!(Row::decode(&with(1, &[0xff, 0xff, 3])).is_ok());
        assert!(Row::decode(&with(1, &[0xff, 0xff, 4])).is_err(), "rules beyond all bounds");
        assert!(Row::decode(&with(16, &[2])).is_err(), "neither visitors nor none");
        assert!(Row::decode(&with(16, &[1, 2, 0])).is_err(), "a sketch of no known form");
        assert!(Row::decode(&with(16, &[1, 0, 1, 7])).is_ok());
        assert!(Row::decode(&with(4, &[0xff, 0xff, 0xff, 0xff, 0x0f])).is_err(), "a length without content");
    }

    #[test]
    fn a_cell_is_its_row() {
        let row = full_row();
        let cell = Cell::of(&row);
        assert_eq!((cell.bytes(), cell.row()), (&row.encode()[..], Ok(row)));
        assert_eq!(Cell::of(&Row::default()).row(), Ok(Row::default()));
    }

    #[test]
    fn values_of_a_click_are_cut_and_empty_ones_are_not_known() {
        let mut values = [const { CompactString::const_new("") }; 6];
        values[Dimension::Referrer as usize] = "é".repeat(80).into();
        let click = NewestClick::new(Timestamp::from_millis(12), block(1, 2), 3, values, true);
        assert_eq!(click.at(), Timestamp::from_millis(12));
        assert_eq!(click.value(Dimension::Referrer), Some("é".repeat(50).as_str()));
        assert_eq!(click.value(Dimension::Country), None);
    }

    /// A row whose senders filled it: texts as long and as many as there may be.
    fn hostile_row() -> Row {
        let text = |number: u32| CompactString::from(format!("{number:0width$}", width = MAX_VALUE_BYTES));
        let mut row = Row::default();
        let clicks: Vec<NewestClick> = (0..5_000)
            .map(|index| {
                let values = std::array::from_fn(|dimension| text(index + dimension as u32));
                NewestClick::new(Timestamp::from_millis(5), block(1, 1), index, values, false)
            })
            .collect();
        row.keep_newest_of(clicks.iter().map(NewestClick::seen).collect());
        for number in 0..1_000 {
            Dimension::ALL.into_iter().for_each(|dimension| row.values_mut(dimension).add(&text(number), 1));
            row.visitors.get_or_insert_default().add(u64::from(number) << 32);
        }
        row
    }

    #[test]
    fn a_row_tells_what_it_takes_of_the_heap() {
        assert_eq!(Row::default().heap_bytes(), 0);
        let mut row = Row::default();
        row.values_mut(Dimension::Country).add("DE", 1);
        assert!((32..=256).contains(&row.heap_bytes()), "a short text is in its list: {}", row.heap_bytes());
        let row = hostile_row();
        let texts = 2 * 6 * NEWEST_CLICKS * MAX_VALUE_BYTES;
        let lists = 6 * NEWEST_CLICKS * (32 + 24) + NEWEST_CLICKS * 32 + 4_096;
        assert!((texts + lists..=(texts + lists) * 3 / 2).contains(&row.heap_bytes()), "{} bytes", row.heap_bytes());
        let read = Row::decode(&row.encode()).unwrap();
        assert!(read.heap_bytes() > texts + lists, "also when it was read: {}", read.heap_bytes());
    }

    #[test]
    fn newest_clicks_are_ordered_by_time_then_place() {
        let row =
            row_of([click(5, 1, 1, 1), click(5, 1, 1, 2), click(5, 1, 2, 0), click(5, 2, 0, 0), click(6, 0, 0, 0)]);
        let order: Vec<_> = row.newest().iter().map(|click| (click.at(), click.block, click.index)).collect();
        assert!(order.is_sorted_by(|newer, older| newer > older));
        assert_eq!(row.newest()[0].at(), Timestamp::from_millis(6));
    }

    #[test]
    fn a_row_that_two_versions_of_the_rules_told_compares_with_none() {
        let mut row = Row::default();
        row.told_by(3);
        row.told_by(4);
        assert_eq!(row.enrichment, 4, "nothing was counted by 3");
        row.bots = 1;
        row.told_by(4);
        assert_eq!(row.enrichment, 4);
        row.told_by(5);
        row.told_by(5);
        assert_eq!(row.enrichment, MIXED_ENRICHMENT);
    }

    #[test]
    fn merged_counts_are_the_sum_and_visitors_the_union() {
        let (mut one, mut other) = (full_row(), full_row());
        other.visitors.get_or_insert_default().add(1);
        one.merge_counts(&other);
        assert_eq!((one.clicks, one.bots), (600, 4));
        assert_eq!(one.values(Dimension::Device).largest_first(), [("first", 598), ("\n", 2)]);
        assert_eq!(one.visitors.as_ref().map(Sketch::count), Some(2));
        assert_eq!(one.newest().len(), 3);
        one.merge_counts(&Row { clicks: u64::MAX, bots: u64::MAX, ..Row::default() });
        assert_eq!((one.clicks, one.bots), (u64::MAX, u64::MAX));
    }

    #[test]
    fn the_largest_row_stays_within_its_stated_size() {
        let mut row = row_of((0..200).map(|index| {
            let values = [0; 6].map(|_| CompactString::from(format!("{index:0500}").split_off(400)));
            NewestClick::new(Timestamp::from_millis(253_402_300_799_999), block(255, u64::MAX), index, values, true)
        }));
        for dimension in Dimension::ALL {
            (0..300).for_each(|n| row.values_mut(dimension).add(&format!("{n:0300}"), u64::MAX));
            (0..300).for_each(|n| row.values_mut(dimension).add(&format!("{n:03}{}", "x".repeat(97)), u64::MAX));
        }
        (0..5_000).for_each(|n: u64| row.visitors.get_or_insert_default().add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let bytes = row.encode();
        assert!((130_000..140 * 1024).contains(&bytes.len()), "{} bytes", bytes.len());
        assert_eq!(Row::decode(&bytes).unwrap(), row);
    }

    proptest! {
        #[test]
        fn the_newest_clicks_are_the_same_in_any_order(
            mut clicks in prop::collection::vec((0_i64..40, 0_u8..3, 0_u64..3, 0_u32..6), 0..300),
        ) {
            let row = row_of(clicks.iter().map(|c| click(c.0, c.1, c.2, c.3)));
            clicks.reverse();
            let backwards = row_of(clicks.iter().chain(&clicks).map(|c| click(c.0, c.1, c.2, c.3)));
            prop_assert_eq!(&row, &backwards);
            clicks.sort();
            clicks.dedup();
            prop_assert_eq!(row.newest().len(), clicks.len().min(NEWEST_CLICKS));
            let newest = clicks.iter().rev().take(NEWEST_CLICKS).map(|c| click(c.0, c.1, c.2, c.3));
            prop_assert!(newest.eq(row.newest()));
        }

        #[test]
        fn clicks_are_kept_together_as_one_by_one(
            batches in prop::collection::vec(
                prop::collection::vec((0_i64..60, 0_u8..2, 0_u64..3, 0_u32..6), 0..130), 0..4,
            ),
        ) {
            let (mut one_by_one, mut together) = (Row::default(), Row::default());
            for batch in batches {
                let clicks: Vec<_> = batch.iter().map(|c| click(c.0, c.1, c.2, c.3)).collect();
                clicks.iter().for_each(|click| one_by_one.keep_newest(click.clone()));
                together.keep_newest_of(clicks.iter().map(NewestClick::seen).collect());
                prop_assert_eq!(&one_by_one, &together);
            }
        }

        #[test]
        fn what_would_not_be_kept_is_not_kept(
            clicks in prop::collection::vec((0_i64..40, 0_u64..30), 90..130), at in 0_i64..40, seq in 0_u64..30,
        ) {
            let mut row = row_of(clicks.iter().map(|c| click(c.0, 1, c.1, 0)));
            let (before, new) = (row.clone(), click(at, 1, seq, 0));
            let would = row.would_keep(new.at(), new.block, new.index);
            row.keep_newest(new);
            prop_assert!(would || row == before);
        }

        #[test]
        fn what_was_written_is_read(
            counts: (u64, u64), names in prop::collection::vec((0_usize..6, ".{0,40}", 0_u64..1 << 40), 0..200),
            visitors in prop::option::of(prop::collection::vec(any::<u64>(), 0..40)),
            clicks in prop::collection::vec((0_i64..40, 0_u8..3, 0_u64..3, 0_u32..6), 0..120),
        ) {
            let mut row = row_of(clicks.iter().map(|c| click(c.0, c.1, c.2, c.3)));
            (row.clicks, row.bots) = counts;
            names.iter().for_each(|(d, name, times)| row.values_mut(Dimension::ALL[*d]).add(name, *times));
            for hash in visitors.iter().flatten() {
                row.visitors.get_or_insert_default().add(*hash);
            }
            let bytes = row.encode();
            let read = Row::decode(&bytes).unwrap();
            prop_assert_eq!(&read, &row);
            prop_assert_eq!(read.encode(), bytes);
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 1..600), small: bool) {
            bytes[0] = FORMAT;
            if small {
                bytes.iter_mut().skip(1).for_each(|byte| *byte %= 4);
            }
            if let Ok(row) = Row::decode(&bytes) {
                prop_assert!(row.newest().len() <= NEWEST_CLICKS);
                prop_assert_eq!(Row::decode(&row.encode()).unwrap(), row);
            }
        }

        #[test]
        fn a_row_with_a_byte_changed_is_read_or_refused(place: prop::sample::Index, byte: u8) {
            let mut bytes = full_row().encode();
            let place = place.index(bytes.len());
            bytes[place] = byte;
            if let Ok(row) = Row::decode(&bytes) {
                prop_assert_eq!(Row::decode(&row.encode()).unwrap(), row);
            }
        }
    }
}
