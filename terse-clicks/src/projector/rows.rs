//! The rows in play: those that clicks were added to lately, in memory, the three rows of a code together.
//!
//! A row is loaded before anything is added to it. With a log of streams it carries the last position that it includes,
//! and what it includes already is not added again. Between two writes rows only grow; a row that was not written is
//! never dropped, but with all the rows of its partition.
//!
//! Bound: bytes, about. [`Rows::shrink`] drops those rows that weren't used longest, after a write.

use std::collections::HashMap;

use compact_str::CompactString;
use terse_core::click::BlockId;
use terse_core::ports::clicks::{Bus, StoredRow};
use terse_core::stats::{Dimension, NewestClick, Partition, Position, Row, RowKey, Span};
use terse_core::{ShortCode, Timestamp};

use crate::enrich::Facts;

/// What a row takes in memory besides its newest clicks, in bytes, about.
const ROW_BYTES: usize = size_of::<Slot>() + 512;
/// What a set of visitors takes, about.
const VISITORS_BYTES: usize = 1_024;

/// A click, told apart.
pub(super) struct Counted<'a> {
    pub(super) at: Timestamp,
    pub(super) block: BlockId,
    pub(super) index: u32,
    pub(super) visitor: Option<u64>,
    pub(super) facts: Facts<'a>,
    /// The version of the rules that told so.
    pub(super) rules: u16,
}

/// The rows in play.
pub(super) struct Rows {
    bus: Bus,
    index: HashMap<ShortCode, u32>,
    entries: Vec<Entry>,
    /// Rows to be loaded, by entry.
    missing: Vec<(u32, Span)>,
    /// Entries with rows to be written.
    dirty: Vec<u32>,
    dirty_rows: usize,
    weight: usize,
    tick: u64,
}

/// The rows of a code, in the order of their spans.
struct Entry {
    code: ShortCode,
    slots: Vec<Slot>,
    dirty: bool,
}

struct Slot {
    span: Span,
    row: Row,
    /// The last position that the row included when it was loaded or written.
    included: Option<Position>,
    /// The last position that added to it since.
    touched: Option<Position>,
    loaded: bool,
    dirty: bool,
    used: u64,
    weight: usize,
}

/// Where the rows of a write came from.
pub(super) type Places = Vec<(u32, Span)>;

impl Rows {
    pub(super) fn new(bus: Bus) -> Self {
        Self {
            bus,
            index: HashMap::new(),
            entries: Vec::new(),
            missing: Vec::new(),
            dirty: Vec::new(),
            dirty_rows: 0,
            weight: 0,
            tick: 0,
        }
    }

    /// About how many bytes all of it takes.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    /// How many rows wait to be written.
    pub(super) fn dirty_rows(&self) -> usize {
        self.dirty_rows
    }

    /// Lets the rows that are wanted from now on be newer than all before.
    pub(super) fn tick(&mut self) {
        self.tick += 1;
    }

    /// The entry of `code`, with the rows that a click at `at` belongs to; they may have to be loaded first.
    pub(super) fn want(&mut self, code: &str, at: Timestamp) -> Option<u32> {
        let number = match self.index.get(code) {
            Some(number) => *number,
            None => self.insert(ShortCode::parse(code).ok()?),
        };
        let entry = &mut self.entries[number as usize];
        for span in [Span::All, Span::day_of(at), Span::hour_of(at)] {
            match entry.slots.binary_search_by_key(&span, |slot| slot.span) {
                Ok(place) => entry.slots[place].used = self.tick,
                Err(place) => {
                    entry.slots.insert(place, Slot::empty(span, self.tick));
                    self.missing.push((number, span));
                    self.weight += ROW_BYTES;
                }
            }
        }
        Some(number)
    }

    fn insert(&mut self, code: ShortCode) -> u32 {
        let number = self.entries.len() as u32;
        self.entries.push(Entry { code: code.clone(), slots: Vec::with_capacity(3), dirty: false });
        self.index.insert(code, number);
        number
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
        let filled: Vec<(u32, Span)> = self.missing.drain(..stored.len()).collect();
        for ((number, span), stored) in filled.into_iter().zip(stored) {
            let Some(slot) = slot(&mut self.entries, number, span) else { continue };
            slot.loaded = true;
            if let Some(stored) = stored {
                slot.included = Some(stored.at);
                slot.row = stored.row;
                self.weight += slot.weigh();
            }
        }
    }

    /// Adds a click to the rows of entry `number`, which were wanted and loaded for it. `position` is that of its part
    /// in its stream: what a row includes already is left out. `None` = the log has no positions for rows.
    pub(super) fn add(&mut self, number: u32, position: Option<Position>, click: &Counted<'_>) {
        let entry = &mut self.entries[number as usize];
        let mut added = 0;
        for span in [Span::All, Span::day_of(click.at), Span::hour_of(click.at)] {
            let Ok(place) = entry.slots.binary_search_by_key(&span, |slot| slot.span) else { continue };
            let slot = &mut entry.slots[place];
            debug_assert!(slot.loaded, "a row is loaded before it is added to");
            if position.is_some() && slot.included >= position {
                continue;
            }
            slot.touched = position;
            added += usize::from(!slot.dirty);
            slot.dirty = true;
            count(&mut slot.row, span, click);
        }
        self.dirty_rows += added;
        if added > 0 && !entry.dirty {
            entry.dirty = true;
            self.dirty.push(number);
        }
    }

    /// Moves the rows that wait to be written out; [`Rows::land`] must bring them back.
    pub(super) fn take_off(&mut self) -> (Vec<(RowKey, StoredRow)>, Places) {
        let (mut rows, mut places) = (Vec::with_capacity(self.dirty_rows), Vec::with_capacity(self.dirty_rows));
        for number in &self.dirty {
            let entry = &mut self.entries[*number as usize];
            for slot in entry.slots.iter_mut().filter(|slot| slot.dirty) {
                let stored = StoredRow { at: slot.touched.unwrap_or_default(), row: std::mem::take(&mut slot.row) };
                rows.push((RowKey { code: entry.code.clone(), span: slot.span }, stored));
                places.push((*number, slot.span));
            }
        }
        (rows, places)
    }

    /// Brings the rows of [`Rows::take_off`] back. `stands` = they were written.
    pub(super) fn land(&mut self, rows: Vec<(RowKey, StoredRow)>, places: Places, stands: bool) {
        for ((_, stored), (number, span)) in rows.into_iter().zip(places) {
            let Some(slot) = slot(&mut self.entries, number, span) else { continue };
            slot.row = stored.row;
            self.weight = self.weight.saturating_sub(slot.weight);
            slot.weight = 0;
            self.weight += slot.weigh();
            if stands {
                slot.included = slot.touched.take().or(slot.included);
                slot.dirty = false;
            }
        }
        if stands {
            for number in self.dirty.drain(..) {
                self.entries[number as usize].dirty = false;
            }
            self.dirty_rows = 0;
        }
    }

    /// If all of it takes more than `most` bytes, drops rows until it is three quarters of that: those that weren't used
    /// longest, and none that waits to be written or loaded. Returns whether it did; entries are numbered anew then.
    pub(super) fn shrink(&mut self, most: usize) -> bool {
        if self.weight <= most || self.dirty_rows > 0 || !self.missing.is_empty() {
            return false;
        }
        let mut by_use: Vec<(u64, usize)> = Vec::with_capacity(self.entries.len() * 3);
        for entry in &self.entries {
            by_use.extend(entry.slots.iter().map(|slot| (slot.used, slot.weight + ROW_BYTES)));
        }
        by_use.sort_unstable_by_key(|(used, _)| *used);
        let mut excess = self.weight.saturating_sub(most / 4 * 3);
        let beyond = by_use.iter().find(|(_, weight)| {
            let goes = excess > 0;
            excess = excess.saturating_sub(*weight);
            !goes
        });
        let oldest_kept = beyond.map_or(u64::MAX, |(used, _)| *used);
        self.retain(|_, slot| slot.used >= oldest_kept);
        true
    }

    /// Forgets the rows of a stream, written or not.
    pub(super) fn forget(&mut self, partition: Partition) {
        let Bus::Streams { partitions } = self.bus else { return self.clear() };
        self.retain(|code, _| Partition::of(code.as_str(), partitions) != partition);
    }

    /// Forgets all rows, written or not.
    pub(super) fn clear(&mut self) {
        *self = Self { tick: self.tick, ..Self::new(self.bus) };
    }

    fn retain(&mut self, keep: impl Fn(&ShortCode, &Slot) -> bool) {
        let before = std::mem::replace(self, Self { tick: self.tick, ..Self::new(self.bus) });
        let mut moved = HashMap::new();
        for (old_number, mut entry) in (0_u32..).zip(before.entries) {
            entry.slots.retain(|slot| keep(&entry.code, slot));
            if entry.slots.is_empty() {
                continue;
            }
            let number = self.entries.len() as u32;
            moved.insert(old_number, number);
            entry.dirty = entry.slots.iter().any(|slot| slot.dirty);
            if entry.dirty {
                self.dirty.push(number);
            }
            self.dirty_rows += entry.slots.iter().filter(|slot| slot.dirty).count();
            self.weight += entry.slots.iter().map(|slot| slot.weight + ROW_BYTES).sum::<usize>();
            self.index.insert(entry.code.clone(), number);
            self.entries.push(entry);
        }
        for (number, span) in before.missing {
            let Some(number) = moved.get(&number) else { continue };
            if slot(&mut self.entries, *number, span).is_some() {
                self.missing.push((*number, span));
            }
        }
    }
}

impl Slot {
    fn empty(span: Span, used: u64) -> Self {
        Self { span, row: Row::default(), included: None, touched: None, loaded: false, dirty: false, used, weight: 0 }
    }

    /// Takes note of what the row takes besides [`ROW_BYTES`], and tells.
    fn weigh(&mut self) -> usize {
        let visitors = if self.row.visitors.is_some() { VISITORS_BYTES } else { 0 };
        self.weight = self.row.newest().len() * size_of::<NewestClick>() + visitors;
        self.weight
    }
}

fn slot(entries: &mut [Entry], number: u32, span: Span) -> Option<&mut Slot> {
    let entry = entries.get_mut(number as usize)?;
    let place = entry.slots.binary_search_by_key(&span, |slot| slot.span).ok()?;
    entry.slots.get_mut(place)
}

/// Adds a click to a row of `span`.
fn count(row: &mut Row, span: Span, click: &Counted<'_>) {
    row.told_by(click.rules);
    if click.facts.bot {
        row.bots += 1;
    } else {
        row.clicks += 1;
        for dimension in Dimension::ALL {
            let value = click.facts.value(dimension);
            if !value.is_empty() {
                row.values_mut(dimension).add(value, 1);
            }
        }
    }
    match span {
        Span::All if row.would_keep(click.at, click.block, click.index) => {
            let values = Dimension::ALL.map(|dimension| CompactString::new(click.facts.value(dimension)));
            row.keep_newest(NewestClick::new(click.at, click.block, click.index, values, click.facts.bot));
        }
        Span::Day(_) if !click.facts.bot => {
            if let Some(visitor) = click.visitor {
                row.visitors.get_or_insert_default().add(visitor);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use terse_core::Version;
    use terse_core::click::{JournalId, Signals};

    use super::*;
    use crate::enrich::Enrichment;
    use crate::record::Record;

    const STREAMS: Bus = Bus::Streams { partitions: 2 };
    const AT: Timestamp = Timestamp::from_millis(90_000_000);

    fn position(offset: u64) -> Option<Position> {
        Some(Position { epoch: 0, offset })
    }

    /// Adds a click on `code` at `at`, with all rows that the read model has none of.
    fn add(rows: &mut Rows, code: &str, at: Timestamp, position: Option<Position>) {
        let number = rows.want(code, at).unwrap();
        let missing = rows.missing(100).len();
        rows.fill(vec![None; missing]);
        add_loaded(rows, number, at, position);
    }

    fn add_loaded(rows: &mut Rows, number: u32, at: Timestamp, position: Option<Position>) {
        let mut enrichment = Enrichment::new([], None);
        let record = Record {
            at,
            code: "any",
            version: Version(1),
            network: None,
            visitor: Some(7),
            referrer: b"",
            user_agent: b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            language: b"",
            signals: Signals::default(),
        };
        let rules = enrichment.version();
        let block = BlockId { journal: JournalId([1; 16]), seq: 0 };
        let facts = enrichment.facts(&record);
        rows.add(number, position, &Counted { at, block, index: 0, visitor: Some(7), facts, rules });
    }

    fn write(rows: &mut Rows) -> Vec<(RowKey, StoredRow)> {
        let (written, places) = rows.take_off();
        rows.land(written.clone(), places, true);
        written
    }

    fn codes(rows: &Rows) -> Vec<&str> {
        let mut codes: Vec<&str> = rows.entries.iter().map(|entry| entry.code.as_str()).collect();
        codes.sort_unstable();
        codes
    }

    #[test]
    fn a_click_wants_three_rows_once() {
        let mut rows = Rows::new(STREAMS);
        rows.want("abc", AT);
        rows.want("abc", AT);
        let spans: Vec<Span> = rows.missing(9).into_iter().map(|key| key.span).collect();
        assert_eq!(spans, [Span::All, Span::Day(1), Span::Hour(25)]);
        assert_eq!(rows.missing(2).len(), 2);
        rows.fill(vec![None, None]);
        assert_eq!(rows.missing(9).len(), 1);
        rows.fill(vec![None]);
        rows.want("abc", AT.plus_millis(3_600_000));
        assert_eq!(rows.missing(9).iter().map(|key| key.span).collect::<Vec<_>>(), [Span::Hour(26)]);
        assert_eq!(rows.want("no code!", AT), None);
    }

    #[test]
    fn what_a_stored_row_includes_is_not_added_to_it_again() {
        let mut rows = Rows::new(STREAMS);
        let number = rows.want("abc", AT).unwrap();
        let stored = |offset| {
            let mut row = Row::default();
            row.clicks = 10;
            Some(StoredRow { at: position(offset).unwrap(), row })
        };
        rows.fill(vec![stored(5), stored(4), None]);
        add_loaded(&mut rows, number, AT, position(5));
        assert_eq!(rows.dirty_rows(), 2);
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
        assert_eq!(rows.dirty_rows(), 0);
    }

    #[test]
    fn without_positions_rows_are_written_with_the_default_and_everything_is_added() {
        let mut rows = Rows::new(Bus::Local);
        let number = rows.want("abc", AT).unwrap();
        rows.fill(vec![Some(StoredRow { at: Position::default(), row: Row::default() }), None, None]);
        add_loaded(&mut rows, number, AT, None);
        let written = write(&mut rows);
        assert_eq!(written.len(), 3);
        assert!(written.iter().all(|(_, stored)| stored.at == Position::default()));
    }

    #[test]
    fn rows_of_a_write_that_failed_are_written_again() {
        let mut rows = Rows::new(STREAMS);
        add(&mut rows, "abc", AT, position(1));
        let (first, places) = rows.take_off();
        rows.land(first.clone(), places, false);
        assert_eq!(rows.dirty_rows(), 3);
        assert_eq!(write(&mut rows), first);
        assert_eq!(rows.dirty_rows(), 0);
        assert!(write(&mut rows).is_empty());
    }

    #[test]
    fn the_rows_that_were_not_used_longest_are_dropped_and_only_after_a_write() {
        let mut rows = Rows::new(STREAMS);
        for code in ["a", "b", "c", "d", "a"] {
            rows.tick();
            add(&mut rows, code, AT, position(1));
        }
        let weight = rows.weight();
        assert!(!rows.shrink(weight / 2), "rows wait to be written");
        write(&mut rows);
        let weight = rows.weight();
        assert!(!rows.shrink(weight), "all of it fits");
        assert!(rows.shrink(weight - 1));
        assert!(rows.weight() <= weight / 4 * 3);
        assert_eq!(codes(&rows), ["a", "c", "d"]);
        assert!(rows.shrink(1));
        assert_eq!((codes(&rows), rows.weight()), (vec![], 0));
    }

    #[test]
    fn a_stream_is_forgotten_with_what_waits_to_be_written_or_loaded() {
        let mut rows = Rows::new(STREAMS);
        let (gone, kept) = ("abc", "x");
        assert_ne!(Partition::of(gone, 2), Partition::of(kept, 2));
        for code in [gone, kept] {
            add(&mut rows, code, AT, position(1));
        }
        rows.want(gone, AT.plus_millis(3_600_000));
        rows.want(kept, AT.plus_millis(3_600_000));
        rows.forget(Partition::of(gone, 2));
        assert_eq!((codes(&rows), rows.dirty_rows(), rows.missing(9).len()), (vec![kept], 3, 1));
        rows.fill(vec![None]);
        add(&mut rows, kept, AT, position(2));
        let written = write(&mut rows);
        assert!(written.iter().all(|(key, stored)| key.code.as_str() == kept && stored.row.clicks == 2));
        rows.clear();
        assert_eq!((codes(&rows), rows.weight()), (vec![], 0));
    }
}
