//! The rows in play: those that clicks were added to lately, in memory, the rows of a code together.
//!
//! A click that is added is kept with its code, in 48 bytes, until it is time to write. Then the rows that it belongs to
//! are loaded, unless they are in play, and all the clicks of a row are counted in one go, in their order ([`Rows::want`],
//! [`Rows::fill`], [`Rows::settle`]). With a log of streams a row carries the last position that it includes, and what
//! it includes already is not added again. A row that was not written is never dropped, but with all of its partition.
//!
//! A row in play is the cell that is stored: a tenth of what it takes decoded, in one piece. Clicks are counted in it as
//! it is ([`Packer`]), and it is written as it is.
//!
//! Bounds: bytes, those of the cells. [`Rows::shrink`] drops those rows that weren't used longest, after a
//! write. [`Rows::waiting_bytes`] says when to write, so that rows which can't be dropped yet are bounded, too; what rows
//! weigh that are not in play nobody knows, so they are loaded before many of them wait ([`Rows::unknown_rows`]).

mod slot;

use std::collections::HashMap;

use terse_core::click::BlockId;
use terse_core::ports::clicks::{Bus, PackedRow, StoredRow};
use terse_core::stats::{Cell, Packer, Partition, Position, RowError, RowKey, Span, Tallied};
use terse_core::{ShortCode, Timestamp};

use self::slot::Clicks;
use super::tally::{Tally, ToldTable};
use crate::enrich::Facts;

/// What a row takes in memory besides its cell, in bytes: lists of rows grow by doubling.
const ROW_BYTES: usize = 2 * size_of::<Slot>();
/// What a cell takes besides its bytes: two counts, and the allocator's part.
const CELL_BYTES: usize = 32;
/// What a code takes besides its rows: in the list and in the index, which grow by doubling, and the heap of a long code
/// twice.
const ENTRY_BYTES: usize = 2 * (size_of::<Entry>() + size_of::<(ShortCode, u32)>() + 64);
/// A click belongs to so many rows.
const ROWS_PER_CLICK: usize = 3;

/// A click, told apart.
pub(super) struct Counted<'a> {
    pub(super) code: &'a str,
    pub(super) at: Timestamp,
    /// Its part, as [`Rows::source`] numbered it.
    pub(super) source: u32,
    pub(super) index: u32,
    pub(super) visitor: Option<u64>,
    pub(super) facts: &'a Facts<'a>,
    /// The version of the rules that told so.
    pub(super) rules: u16,
}

/// The rows in play.
pub(super) struct Rows {
    bus: Bus,
    index: HashMap<ShortCode, u32>,
    entries: Vec<Entry>,
    /// Where the clicks that are not in rows yet came from.
    sources: Vec<Source>,
    /// What they were like.
    told: ToldTable,
    /// Entries with such clicks.
    fresh: Vec<u32>,
    fresh_clicks: usize,
    /// At most so many rows will they change.
    fresh_rows: usize,
    /// Of these, at most so many are not in play.
    unknown_rows: usize,
    /// The others weigh at most so much.
    fresh_bytes: usize,
    /// Rows to be loaded, by entry.
    missing: Vec<(u32, Span)>,
    /// Entries with rows to be written.
    dirty: Vec<u32>,
    dirty_rows: usize,
    /// What the rows to be written weigh.
    dirty_bytes: usize,
    /// What all rows in play weigh.
    weight: usize,
    tick: u64,
    packer: Packer,
}

/// A part of which clicks were added.
struct Source {
    block: BlockId,
    /// Its position in its stream; `None` = the log has no positions for rows.
    position: Option<Position>,
}

/// The rows of a code, in the order of their spans, and its clicks that are not in them yet, in the log's order.
struct Entry {
    code: ShortCode,
    slots: Vec<Slot>,
    fresh: Vec<Fresh>,
    dirty: bool,
}

/// A click that is not in its rows yet.
struct Fresh {
    at: Timestamp,
    visitor: Option<u64>,
    source: u32,
    index: u32,
    told: u32,
    hour: u32,
}

struct Slot {
    span: Span,
    /// `None` = the read model has no such row yet, or it isn't loaded.
    cell: Option<Cell>,
    /// The last position that the row included when it was loaded or written.
    included: Option<Position>,
    /// The last position that added to it since.
    touched: Option<Position>,
    dirty: bool,
    used: u64,
}

/// Where the rows of a write came from.
pub(super) type Places = Vec<(u32, Span)>;

impl Rows {
    pub(super) fn new(bus: Bus) -> Self {
        Self {
            bus,
            index: HashMap::new(),
            entries: Vec::new(),
            sources: Vec::new(),
            told: ToldTable::default(),
            fresh: Vec::new(),
            fresh_clicks: 0,
            fresh_rows: 0,
            unknown_rows: 0,
            fresh_bytes: 0,
            missing: Vec::new(),
            dirty: Vec::new(),
            dirty_rows: 0,
            dirty_bytes: 0,
            weight: 0,
            tick: 0,
            packer: Packer::default(),
        }
    }

    /// How many rows wait to be written, at most.
    pub(super) fn waiting_rows(&self) -> usize {
        self.dirty_rows + self.fresh_rows
    }

    /// How many clicks are not in rows yet.
    pub(super) fn waiting_clicks(&self) -> usize {
        self.fresh_clicks
    }

    /// About how many bytes wait: what rows weigh that are to be written, and the clicks that are not in rows yet with
    /// the rows in play that they belong to.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.dirty_bytes + self.fresh_bytes + self.fresh_clicks * size_of::<Fresh>() + self.told.bytes()
    }

    /// About how many bytes it takes to know what these clicks were like.
    pub(super) fn told_bytes(&self) -> usize {
        self.told.bytes()
    }

    /// At most so many rows have to be loaded for the clicks that are not in rows yet.
    pub(super) fn unknown_rows(&self) -> usize {
        self.unknown_rows
    }

    /// About how many bytes the rows in play take.
    pub(super) fn bytes(&self) -> usize {
        self.weight
    }

    /// Numbers a part of which clicks are about to be added.
    pub(super) fn source(&mut self, block: BlockId, position: Option<Position>) -> u32 {
        self.sources.push(Source { block, position });
        (self.sources.len() - 1) as u32
    }

    /// Adds a click of a valid code.
    pub(super) fn add(&mut self, click: &Counted<'_>) {
        let number = match self.index.get(click.code) {
            Some(number) => *number,
            None => {
                let Ok(code) = ShortCode::parse(click.code) else { return };
                self.insert(code)
            }
        };
        let entry = &mut self.entries[number as usize];
        let Span::Hour(hour) = Span::hour_of(click.at) else { return };
        let spans = [Span::All, Span::day_of(click.at), Span::Hour(hour)];
        let changed = match entry.fresh.last() {
            None => &spans[..],
            Some(last) if last.hour == hour => &[],
            Some(_) => &spans[1..],
        };
        self.fresh_rows += changed.len();
        for span in changed {
            match entry.slots.binary_search_by_key(span, |slot| slot.span) {
                Ok(place) if entry.slots[place].dirty => {}
                Ok(place) => self.fresh_bytes += entry.slots[place].weight() + ROW_BYTES,
                Err(_) => self.unknown_rows += 1,
            }
        }
        if entry.fresh.is_empty() {
            self.fresh.push(number);
        }
        let told = self.told.number(click.facts, click.rules);
        let Counted { at, visitor, source, index, .. } = *click;
        entry.fresh.push(Fresh { at, visitor, source, index, told, hour });
        self.fresh_clicks += 1;
    }

    fn insert(&mut self, code: ShortCode) -> u32 {
        let number = self.entries.len() as u32;
        self.entries.push(Entry { code: code.clone(), slots: Vec::new(), fresh: Vec::new(), dirty: false });
        self.index.insert(code, number);
        self.weight += ENTRY_BYTES;
        number
    }

    /// Finds out which rows the clicks belong to that are in none yet; those that aren't in play have to be loaded.
    pub(super) fn want(&mut self) {
        self.tick += 1;
        for number in &self.fresh {
            let entry = &mut self.entries[*number as usize];
            let mut last = None;
            for fresh in &entry.fresh {
                if last == Some(fresh.hour) {
                    continue;
                }
                last = Some(fresh.hour);
                for span in [Span::All, Span::day_of(fresh.at), Span::Hour(fresh.hour)] {
                    match entry.slots.binary_search_by_key(&span, |slot| slot.span) {
                        Ok(place) => entry.slots[place].used = self.tick,
                        Err(place) => {
                            entry.slots.insert(place, Slot::empty(span, self.tick));
                            self.missing.push((*number, span));
                            self.weight += ROW_BYTES;
                        }
                    }
                }
            }
        }
    }

    /// Up to `limit` rows that have to be loaded, the same until [`Rows::fill`] gets them.
    pub(super) fn missing(&self, limit: usize) -> Vec<RowKey> {
        let key = |(number, span): &(u32, Span)| {
            let code = self.entries[*number as usize].code.clone();
            RowKey { code, span: *span }
        };
        self.missing.iter().take(limit).map(key).collect()
    }

    /// Takes what the read model has for the first of the rows that were missing.
    pub(super) fn fill(&mut self, stored: Vec<Option<StoredRow>>) {
        let count = stored.len().min(self.missing.len());
        let filled: Vec<(u32, Span)> = self.missing.drain(..count).collect();
        for ((number, span), stored) in filled.into_iter().zip(stored) {
            self.fresh_bytes += ROW_BYTES;
            let (Some(slot), Some(stored)) = (slot(&mut self.entries, number, span), stored) else { continue };
            slot.included = Some(stored.at);
            slot.cell = Some(Cell::of(&stored.row));
            self.weight += slot.weight();
            self.fresh_bytes += slot.weight();
        }
        if self.missing.is_empty() {
            self.unknown_rows = 0;
        }
    }

    /// Counts all clicks that are in no row yet. Their rows were wanted and loaded. Clicks after `latest` are not among
    /// the newest: a clock was ahead.
    ///
    /// # Errors
    /// [`RowError`] of a cell in play, which nobody but this wrote: then no row can be trusted.
    pub(super) fn settle(&mut self, latest: Timestamp) -> Result<(), RowError> {
        debug_assert!(self.missing.is_empty(), "rows are loaded before they are added to");
        let told = std::mem::take(&mut self.told);
        let mut tally = Tally::of(&told);
        for number in std::mem::take(&mut self.fresh) {
            let entry = &mut self.entries[number as usize];
            let clicks = std::mem::take(&mut entry.fresh);
            let batch = Clicks { all: &clicks, sources: &self.sources, told: &told, latest };
            // What the rows share that include the same: nearly always all clicks.
            let is_one_hour = clicks.iter().all(|click| click.hour == clicks[0].hour);
            let mut tallied_for = None;
            let mut tallied = &Tallied::default();
            for slot in entry.slots.iter_mut().filter(|slot| slot.used == self.tick) {
                let included = if self.bus == Bus::Local { None } else { slot.included };
                if !is_one_hour || tallied_for != Some(included) {
                    tallied = tally.sum_up(batch.of(slot.span, included).map(|click| click.told));
                    tallied_for = Some(included);
                }
                if tallied.clicks + tallied.bots == 0 {
                    continue;
                }
                let before = slot.weight();
                slot.count(&batch, included, tallied, &mut self.packer)?;
                self.weight = self.weight - before + slot.weight();
                if slot.dirty {
                    self.dirty_bytes = self.dirty_bytes - before + slot.weight();
                } else {
                    self.dirty_rows += 1;
                    self.dirty_bytes += slot.weight() + ROW_BYTES;
                    slot.dirty = true;
                }
                if !entry.dirty {
                    entry.dirty = true;
                    self.dirty.push(number);
                }
            }
        }
        self.told = told;
        self.forget_clicks();
        Ok(())
    }

    /// The rows that wait to be written, in the order of their keys; [`Rows::land`] must hear what became of them.
    pub(super) fn take_off(&self) -> (Vec<(RowKey, PackedRow)>, Places) {
        let entries = &self.entries;
        let by_code = |number: &u32| {
            let code = &entries[*number as usize].code;
            (beginning(code), *number)
        };
        let mut order: Vec<(u64, u32)> = self.dirty.iter().map(by_code).collect();
        order.sort_unstable_by(|(one, a), (other, b)| {
            one.cmp(other).then_with(|| entries[*a as usize].code.cmp(&entries[*b as usize].code))
        });
        let (mut rows, mut places) = (Vec::with_capacity(self.dirty_rows), Vec::with_capacity(self.dirty_rows));
        for (_, number) in order {
            let entry = &entries[number as usize];
            for slot in entry.slots.iter().filter(|slot| slot.dirty) {
                let Some(cell) = slot.cell.clone() else { continue };
                let packed = PackedRow { at: slot.touched.unwrap_or_default(), cell };
                rows.push((RowKey { code: entry.code.clone(), span: slot.span }, packed));
                places.push((number, slot.span));
            }
        }
        (rows, places)
    }

    /// What became of the rows of [`Rows::take_off`]. `stands` = they were written.
    pub(super) fn land(&mut self, places: Places, stands: bool) {
        if !stands {
            return;
        }
        for (number, span) in places {
            let Some(slot) = slot(&mut self.entries, number, span) else { continue };
            slot.included = slot.touched.take().or(slot.included);
            slot.dirty = false;
        }
        for number in self.dirty.drain(..) {
            self.entries[number as usize].dirty = false;
        }
        (self.dirty_rows, self.dirty_bytes) = (0, 0);
    }

    /// If the rows take more than `most` bytes, drops some until it is three quarters of that: those that weren't used
    /// longest. It does nothing while any wait to be written or loaded.
    pub(super) fn shrink(&mut self, most: usize) {
        if self.weight <= most || self.waiting_rows() > 0 || !self.missing.is_empty() {
            return;
        }
        let mut by_use: Vec<(u64, usize)> = Vec::with_capacity(self.entries.len() * ROWS_PER_CLICK);
        for entry in &self.entries {
            by_use.extend(entry.slots.iter().map(|slot| (slot.used, slot.weight() + ROW_BYTES)));
        }
        by_use.sort_unstable_by_key(|(used, _)| *used);
        let (mut excess, mut last, mut excess_of_last) = (self.weight.saturating_sub(most / 4 * 3), 0, 0);
        for (used, weight) in by_use {
            if excess == 0 {
                break;
            }
            if used != last {
                (last, excess_of_last) = (used, excess);
            }
            excess = excess.saturating_sub(weight);
        }
        // Many rows were used last at once, so those of the last time that go are told from the others by their bytes.
        self.retain(
            |_| true,
            |slot| {
                let goes = slot.used < last || slot.used == last && excess_of_last > 0;
                if goes && slot.used == last {
                    excess_of_last = excess_of_last.saturating_sub(slot.weight() + ROW_BYTES);
                }
                !goes
            },
        );
    }

    /// Forgets the rows and clicks of a stream, written or not.
    pub(super) fn forget(&mut self, partition: Partition) {
        let Bus::Streams { partitions } = self.bus else { return self.clear() };
        self.retain(|code| Partition::of(code.as_str(), partitions) != partition, |_| true);
    }

    /// Forgets all rows and clicks, written or not.
    pub(super) fn clear(&mut self) {
        *self = Self { tick: self.tick, ..Self::new(self.bus) };
    }

    fn forget_clicks(&mut self) {
        (self.fresh_clicks, self.fresh_rows, self.unknown_rows, self.fresh_bytes) = (0, 0, 0, 0);
        self.sources.clear();
        self.told.clear();
    }

    fn retain(&mut self, keep_code: impl Fn(&ShortCode) -> bool, mut keep_row: impl FnMut(&Slot) -> bool) {
        let before = std::mem::replace(self, Self { tick: self.tick, ..Self::new(self.bus) });
        let mut moved = HashMap::new();
        for (old_number, mut entry) in (0_u32..).zip(before.entries) {
            entry.slots.retain(&mut keep_row);
            if !keep_code(&entry.code) || entry.slots.is_empty() && entry.fresh.is_empty() {
                continue;
            }
            entry.slots.shrink_to_fit();
            let number = self.entries.len() as u32;
            moved.insert(old_number, number);
            for slot in entry.slots.iter().filter(|slot| slot.dirty) {
                self.dirty_rows += 1;
                self.dirty_bytes += slot.weight() + ROW_BYTES;
            }
            self.weight += ENTRY_BYTES + entry.slots.iter().map(|slot| slot.weight() + ROW_BYTES).sum::<usize>();
            self.fresh_clicks += entry.fresh.len();
            self.index.insert(entry.code.clone(), number);
            self.entries.push(entry);
        }
        let renumbered = |numbers: Vec<u32>| numbers.iter().filter_map(|number| moved.get(number).copied()).collect();
        self.fresh = renumbered(before.fresh);
        self.dirty = renumbered(before.dirty);
        let missing = before.missing.into_iter();
        self.missing = missing.filter_map(|(number, span)| Some((*moved.get(&number)?, span))).collect();
        // Upper bounds before are bounds of what is left.
        if self.fresh_clicks > 0 {
            self.fresh_rows = before.fresh_rows;
            (self.unknown_rows, self.fresh_bytes) = (before.unknown_rows, before.fresh_bytes);
        }
        (self.sources, self.told) = (before.sources, before.told);
    }
}

/// The first letters of `code` as a number that is ordered as they are.
fn beginning(code: &ShortCode) -> u64 {
    let (mut first, bytes) = ([0; 8], code.as_str().as_bytes());
    let len = bytes.len().min(first.len());
    first[..len].copy_from_slice(&bytes[..len]);
    u64::from_be_bytes(first)
}

fn slot(entries: &mut [Entry], number: u32, span: Span) -> Option<&mut Slot> {
    let entry = entries.get_mut(number as usize)?;
    let place = entry.slots.binary_search_by_key(&span, |slot| slot.span).ok()?;
    entry.slots.get_mut(place)
}

#[cfg(test)]
mod tests {
    use terse_core::Version;
    use terse_core::click::{JournalId, Signals};
    use terse_core::stats::Row;

    use super::*;
    use crate::enrich::Enrichment;
    use crate::record::Record;

    const STREAMS: Bus = Bus::Streams { partitions: 2 };
    const AT: Timestamp = Timestamp::from_millis(90_000_000);
    const LATEST: Timestamp = Timestamp::from_millis(900_000_000);

    fn position(offset: u64) -> Option<Position> {
        Some(Position { epoch: 0, offset })
    }

    /// Adds a click on `code` at `at`.
    fn add(rows: &mut Rows, code: &str, at: Timestamp, position: Option<Position>) {
        let mut enrichment = Enrichment::new([], None);
        let record = Record {
            at,
            code,
            version: Version(1),
            network: None,
            visitor: Some(7),
            referrer: b"",
            user_agent: b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            language: b"",
            signals: Signals::default(),
        };
        let source = rows.source(BlockId { journal: JournalId([1; 16]), seq: 0 }, position);
        let (rules, facts) = (enrichment.version(), &enrichment.facts(&record));
        let index = rows.fresh_clicks as u32;
        rows.add(&Counted { code, at, source, index, visitor: Some(7), facts, rules });
    }

    /// Counts what was added, in rows of which the read model has none.
    fn settle(rows: &mut Rows) {
        rows.want();
        let missing = rows.missing(100).len();
        rows.fill(vec![None; missing]);
        rows.settle(LATEST).unwrap();
    }

    fn unpacked(rows: Vec<(RowKey, PackedRow)>) -> Vec<(RowKey, StoredRow)> {
        rows.into_iter().map(|(key, packed)| (key, packed.unpack().unwrap())).collect()
    }

    fn write(rows: &mut Rows) -> Vec<(RowKey, StoredRow)> {
        settle(rows);
        let (written, places) = rows.take_off();
        rows.land(places, true);
        unpacked(written)
    }

    fn codes(rows: &Rows) -> Vec<&str> {
        let mut codes: Vec<&str> = rows.entries.iter().map(|entry| entry.code.as_str()).collect();
        codes.sort_unstable();
        codes
    }

    #[test]
    fn a_click_wants_three_rows_once() {
        let mut rows = Rows::new(STREAMS);
        add(&mut rows, "abc", AT, position(1));
        add(&mut rows, "abc", AT, position(1));
        assert_eq!((rows.waiting_clicks(), rows.waiting_rows()), (2, 3));
        rows.want();
        rows.want();
        let spans: Vec<Span> = rows.missing(9).into_iter().map(|key| key.span).collect();
        assert_eq!(spans, [Span::All, Span::Day(1), Span::Hour(25)]);
        assert_eq!(rows.missing(2).len(), 2);
        rows.fill(vec![None, None]);
        assert_eq!(rows.missing(9).len(), 1);
        rows.fill(vec![None]);
        rows.settle(LATEST).unwrap();
        assert_eq!((rows.waiting_clicks(), rows.waiting_rows()), (0, 3));
        add(&mut rows, "abc", AT.plus_millis(3_600_000), position(2));
        rows.want();
        assert_eq!(rows.missing(9).iter().map(|key| key.span).collect::<Vec<_>>(), [Span::Hour(26)]);
        let before = rows.waiting_clicks();
        add(&mut rows, "no code!", AT, position(2));
        assert_eq!(rows.waiting_clicks(), before);
    }

    #[test]
    fn a_click_is_in_the_rows_of_its_time_only() {
        let mut rows = Rows::new(STREAMS);
        for hour in [25, 26, 25, 49] {
            add(&mut rows, "abc", Timestamp::from_millis(hour * 3_600_000), position(1));
        }
        assert!(rows.waiting_rows() >= 6);
        let counts: Vec<(Span, u64)> =
            write(&mut rows).iter().map(|(key, stored)| (key.span, stored.row.clicks)).collect();
        let (days, hours) = ([(Span::Day(1), 3), (Span::Day(2), 1)], [25, 26, 49].map(Span::Hour));
        let hours = hours.into_iter().zip([2, 1, 1]);
        assert_eq!(counts, [(Span::All, 4)].into_iter().chain(days).chain(hours).collect::<Vec<_>>());
    }

    #[test]
    fn what_a_stored_row_includes_is_not_added_to_it_again() {
        let mut rows = Rows::new(STREAMS);
        add(&mut rows, "abc", AT, position(5));
        rows.want();
        let stored = |offset| {
            let mut row = Row::default();
            row.clicks = 10;
            Some(StoredRow { at: position(offset).unwrap(), row })
        };
        rows.fill(vec![stored(5), stored(4), None]);
        let written = write(&mut rows);
        let counts: Vec<(Span, u64, Position)> =
            written.iter().map(|(key, stored)| (key.span, stored.row.clicks, stored.at)).collect();
        let at = position(5).unwrap();
        assert_eq!(counts, [(Span::Day(1), 11, at), (Span::Hour(25), 1, at)]);
    }

    #[test]
    fn clicks_of_one_part_are_all_added() {
        let mut rows = Rows::new(STREAMS);
        for _ in 0..3 {
            add(&mut rows, "abc", AT, position(7));
        }
        assert!(write(&mut rows).iter().all(|(_, stored)| stored.row.clicks == 3));
        // It was written with what it includes, so the same part adds nothing more.
        add(&mut rows, "abc", AT, position(7));
        assert!(write(&mut rows).is_empty());
    }

    #[test]
    fn without_positions_rows_are_written_with_the_default_and_everything_is_added() {
        let mut rows = Rows::new(Bus::Local);
        add(&mut rows, "abc", AT, None);
        rows.want();
        rows.fill(vec![Some(StoredRow { at: Position::default(), row: Row::default() })]);
        let written = write(&mut rows);
        assert_eq!(written.len(), 3);
        assert!(written.iter().all(|(_, stored)| stored.at == Position::default()));
    }

    #[test]
    fn rows_of_a_write_that_failed_are_written_again() {
        let mut rows = Rows::new(STREAMS);
        add(&mut rows, "abc", AT, position(1));
        settle(&mut rows);
        let (first, places) = rows.take_off();
        rows.land(places, false);
        assert_eq!(rows.waiting_rows(), 3);
        assert_eq!(write(&mut rows), unpacked(first));
        assert_eq!(rows.waiting_rows(), 0);
        assert!(write(&mut rows).is_empty());
    }

    #[test]
    fn the_rows_that_were_not_used_longest_are_dropped_and_only_after_a_write() {
        let mut rows = Rows::new(STREAMS);
        for code in ["a", "b", "c", "d", "a"] {
            add(&mut rows, code, AT, position(1));
            settle(&mut rows);
        }
        let codes_before = codes(&rows).len();
        rows.shrink(1);
        assert_eq!(codes(&rows).len(), codes_before, "rows wait to be written");
        write(&mut rows);
        let weight = rows.weight;
        rows.shrink(weight);
        assert_eq!(rows.weight, weight, "all of it fits");
        rows.shrink(weight - 1);
        assert!(rows.weight <= weight / 4 * 3);
        assert_eq!(codes(&rows), ["a", "c", "d"]);
        rows.shrink(1);
        assert_eq!((codes(&rows), rows.weight), (vec![], 0));
    }

    #[test]
    fn of_rows_that_were_used_at_once_no_more_are_dropped_than_have_to_be() {
        let mut rows = Rows::new(STREAMS);
        for code in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            add(&mut rows, code, AT, position(1));
        }
        write(&mut rows);
        let weight = rows.weight;
        rows.shrink(weight - 1);
        assert!((weight / 2..=weight / 4 * 3).contains(&rows.weight), "{} of {weight} bytes", rows.weight);
        rows.shrink(1);
        assert_eq!(rows.weight, 0);
    }

    #[test]
    fn a_stream_is_forgotten_with_what_waits_to_be_written_or_loaded() {
        let mut rows = Rows::new(STREAMS);
        let (gone, kept) = ("abc", "x");
        assert_ne!(Partition::of(gone, 2), Partition::of(kept, 2));
        for code in [gone, kept] {
            add(&mut rows, code, AT, position(1));
        }
        settle(&mut rows);
        for code in [gone, kept] {
            add(&mut rows, code, AT.plus_millis(3_600_000), position(2));
        }
        rows.want();
        rows.forget(Partition::of(gone, 2));
        assert_eq!((codes(&rows), rows.waiting_clicks(), rows.missing(9).len()), (vec![kept], 1, 1));
        let written = write(&mut rows);
        let counts: Vec<u64> = written.iter().map(|(_, stored)| stored.row.clicks).collect();
        assert_eq!(counts, [2, 2, 1, 1]);
        rows.clear();
        assert_eq!((codes(&rows), rows.weight), (vec![], 0));
    }
}
