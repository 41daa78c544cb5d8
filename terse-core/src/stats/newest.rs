//! The newest clicks of a row, in little room: each text is kept once.

use compact_str::CompactString;

use super::bytes::{Eye, Wrong, put_number, put_step, put_text};
use super::values::{ALLOCATION_BYTES, cut, text_bytes};
use super::{Dimension, MAX_VALUE_BYTES};
use crate::Timestamp;
use crate::click::{BlockId, JournalId};

/// How many of its newest clicks the row of all time has.
pub const NEWEST_CLICKS: usize = 100;

/// Texts of a dimension, and journals, are numbered by a byte.
const MOST_NUMBERED: usize = u8::MAX as usize;
/// What a click in a cell says of itself.
const BOT: u8 = 1;
const VALUES_AS_BEFORE: u8 = 1 << 1;
const JOURNAL_AS_BEFORE: u8 = 1 << 2;
const KNOWN_FLAGS: u8 = (1 << 3) - 1;

/// A click as people may see it. Ordered by (time, journal, sequence, index).
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// A click that may be one of the newest, its texts borrowed.
#[derive(Clone, Copy, Debug)]
pub struct SeenClick<'a> {
    /// When it was.
    pub at: Timestamp,
    /// The block that it was recorded in.
    pub block: BlockId,
    /// Which of the block's records it is.
    pub index: u32,
    /// Values in the order of [`Dimension::ALL`]; empty = not known. What is longer than [`MAX_VALUE_BYTES`] is cut.
    pub values: [&'a str; 6],
    /// Whether it was a program.
    pub bot: bool,
}

/// By what clicks are ordered.
type Order = (i64, BlockId, u32);

impl NewestClick {
    /// A click that was recorded as number `index` of `block`. Values longer than [`MAX_VALUE_BYTES`] are cut.
    #[must_use]
    pub fn new(at: Timestamp, block: BlockId, index: u32, values: [CompactString; 6], bot: bool) -> Self {
        let values = values.map(|value| if value.len() > MAX_VALUE_BYTES { cut(&value).into() } else { value });
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

    /// It, borrowed.
    #[must_use]
    pub fn seen(&self) -> SeenClick<'_> {
        let values = Dimension::ALL.map(|dimension| self.values[dimension as usize].as_str());
        SeenClick { at: self.at(), block: self.block, index: self.index, values, bot: self.bot }
    }
}

impl SeenClick<'_> {
    fn order(&self) -> Order {
        (self.at.as_millis(), self.block, self.index)
    }
}

/// At most [`NEWEST_CLICKS`] clicks. What it holds is the same in whatever order they came, and so is what is written.
#[derive(Clone, Debug, Default)]
pub(super) struct Newest {
    /// Oldest first.
    clicks: Vec<Kept>,
    journals: Vec<JournalId>,
    /// By [`Dimension`].
    texts: [Vec<CompactString>; 6],
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    at_ms: i64,
    seq: u64,
    index: u32,
    /// Its place among the journals.
    journal: u8,
    bot: bool,
    /// The places of its texts, from 1; 0 = not known.
    values: [u8; 6],
}

impl PartialEq for Newest {
    fn eq(&self, other: &Self) -> bool {
        self.clicks.len() == other.clicks.len() && self.all().eq(other.all())
    }
}

impl Newest {
    /// The clicks, newest first.
    pub(super) fn all(&self) -> impl Iterator<Item = NewestClick> {
        self.clicks.iter().rev().map(|kept| NewestClick {
            at_ms: kept.at_ms,
            block: self.block(kept),
            index: kept.index,
            values: std::array::from_fn(|dimension| match kept.values[dimension] {
                0 => CompactString::default(),
                number => self.texts[dimension][usize::from(number) - 1].clone(),
            }),
            bot: kept.bot,
        })
    }

    fn clear(&mut self) {
        self.clicks.clear();
        self.journals.clear();
        self.texts.iter_mut().for_each(Vec::clear);
    }

    /// Whether a click of this order would be kept, or is.
    pub(super) fn would_keep(&self, order: Order) -> bool {
        self.clicks.len() < NEWEST_CLICKS || self.clicks.first().is_some_and(|oldest| self.order(oldest) <= order)
    }

    /// Keeps those of `clicks` that are among the newest.
    pub(super) fn keep(&mut self, mut clicks: Vec<SeenClick<'_>>) {
        clicks.sort_unstable_by_key(|click| std::cmp::Reverse(click.order()));
        clicks.dedup_by_key(|click| click.order());
        clicks.truncate(NEWEST_CLICKS);
        for click in clicks.iter().rev() {
            let order = click.order();
            let is_newest = self.clicks.last().is_none_or(|last| self.order(last) < order);
            let place = match is_newest {
                true => self.clicks.len(),
                false => match self.clicks.binary_search_by(|kept| self.order(kept).cmp(&order)) {
                    Ok(_) => continue,
                    Err(place) => place,
                },
            };
            let kept = self.kept(click);
            self.clicks.insert(place, kept);
        }
        self.clicks.drain(..self.clicks.len().saturating_sub(NEWEST_CLICKS));
    }

    /// Drops the clicks that were later than `latest`: a clock was ahead when they came.
    pub(super) fn drop_after(&mut self, latest: Timestamp) {
        let kept = self.clicks.partition_point(|click| click.at_ms <= latest.as_millis());
        self.clicks.truncate(kept);
    }

    /// What it takes of the heap, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        let list = |capacity: usize, each: usize| match capacity {
            0 => 0,
            some => some * each + ALLOCATION_BYTES,
        };
        let texts = |texts: &Vec<CompactString>| {
            list(texts.capacity(), size_of::<CompactString>()) + texts.iter().map(text_bytes).sum::<usize>()
        };
        let clicks = list(self.clicks.capacity(), size_of::<Kept>());
        clicks + list(self.journals.capacity(), size_of::<JournalId>()) + self.texts.iter().map(texts).sum::<usize>()
    }

    fn block(&self, kept: &Kept) -> BlockId {
        BlockId { journal: self.journals[usize::from(kept.journal)], seq: kept.seq }
    }

    fn order(&self, kept: &Kept) -> Order {
        (kept.at_ms, self.block(kept), kept.index)
    }

    fn kept(&mut self, click: &SeenClick<'_>) -> Kept {
        let is_full = |len: usize| len >= MOST_NUMBERED;
        if is_full(self.journals.len()) || self.texts.iter().any(|texts| is_full(texts.len())) {
            self.tidy();
        }
        let values = std::array::from_fn(|dimension| number_of(&mut self.texts[dimension], click.values[dimension]));
        let SeenClick { at, block, index, bot, .. } = *click;
        let journal = self.journals.iter().position(|journal| *journal == block.journal).unwrap_or_else(|| {
            self.journals.push(block.journal);
            self.journals.len() - 1
        });
        Kept { at_ms: at.as_millis(), seq: block.seq, index, journal: journal as u8, bot, values }
    }

    /// Forgets the texts and journals of clicks that it keeps no more. Clicks are at most twice [`NEWEST_CLICKS`] at any
    /// time, so there is room again.
    fn tidy(&mut self) {
        let used = self.used();
        self.journals = used.journals.order.iter().map(|place| self.journals[usize::from(*place) - 1]).collect();
        for (texts, used) in self.texts.iter_mut().zip(&used.texts) {
            *texts = used.order.iter().map(|place| std::mem::take(&mut texts[usize::from(*place) - 1])).collect();
        }
        for kept in &mut self.clicks {
            kept.journal = used.journals.numbers[usize::from(kept.journal) + 1] - 1;
            for (value, used) in kept.values.iter_mut().zip(&used.texts) {
                *value = used.numbers[usize::from(*value)];
            }
        }
    }

    /// Journals and texts by their first use, from the newest click on.
    fn used(&self) -> Used {
        let mut used = Used::default();
        for kept in self.clicks.iter().rev() {
            used.journals.note(kept.journal + 1);
            for (used, value) in used.texts.iter_mut().zip(kept.values) {
                used.note(value);
            }
        }
        used
    }

    /// Appends it to a cell.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        put_number(out, self.clicks.len() as u64);
        if self.clicks.is_empty() {
            return;
        }
        let used = self.used();
        put_number(out, used.journals.order.len() as u64);
        for place in &used.journals.order {
            out.extend_from_slice(&self.journals[usize::from(*place) - 1].0);
        }
        for (texts, used) in self.texts.iter().zip(&used.texts) {
            put_number(out, used.order.len() as u64);
            used.order.iter().for_each(|place| put_text(out, &texts[usize::from(*place) - 1]));
        }
        let mut before = Kept { at_ms: 0, seq: 0, index: 0, journal: 0, bot: false, values: [0; 6] };
        for kept in self.clicks.iter().rev() {
            let journal = used.journals.numbers[usize::from(kept.journal) + 1] - 1;
            let values = std::array::from_fn(|d| used.texts[d].numbers[usize::from(kept.values[d])]);
            let now = Kept { journal, values, ..*kept };
            let flag = |condition: bool, flag: u8| if condition { flag } else { 0 };
            let same = flag(values == before.values, VALUES_AS_BEFORE)
                | flag(journal == before.journal, JOURNAL_AS_BEFORE)
                | flag(kept.bot, BOT);
            out.push(same);
            put_step(out, before.at_ms.cast_unsigned(), now.at_ms.cast_unsigned());
            put_step(out, before.seq, now.seq);
            put_step(out, u64::from(before.index), u64::from(now.index));
            if same & JOURNAL_AS_BEFORE == 0 {
                out.push(journal);
            }
            if same & VALUES_AS_BEFORE == 0 {
                out.extend_from_slice(&values);
            }
            before = now;
        }
    }

    /// Becomes what [`Newest::write`] wrote.
    pub(super) fn read(&mut self, eye: &mut Eye<'_>) -> Result<(), Wrong> {
        self.clear();
        let count = eye.count(NEWEST_CLICKS)?;
        if count == 0 {
            return Ok(());
        }
        for _ in 0..eye.count(NEWEST_CLICKS)? {
            let mut journal = JournalId([0; 16]);
            let id = eye.bytes(journal.0.len())?;
            journal.0.copy_from_slice(id);
            self.journals.push(journal);
        }
        for texts in &mut self.texts {
            for _ in 0..eye.count(NEWEST_CLICKS)? {
                let text = eye.text(MAX_VALUE_BYTES)?;
                if text.is_empty() {
                    return Err("a text without letters");
                }
                texts.push(text.into());
            }
        }
        let mut before = Kept { at_ms: 0, seq: 0, index: 0, journal: 0, bot: false, values: [0; 6] };
        for _ in 0..count {
            let now = self.read_one(&before, eye)?;
            if self.clicks.last().is_some_and(|newer| self.order(newer) <= self.order(&now)) {
                return Err("newest clicks out of order");
            }
            self.clicks.push(now);
            before = now;
        }
        self.clicks.reverse();
        Ok(())
    }

    fn read_one(&self, before: &Kept, eye: &mut Eye<'_>) -> Result<Kept, Wrong> {
        let flags = eye.byte()?;
        if flags & !KNOWN_FLAGS != 0 {
            return Err("a click with unknown flags");
        }
        let at_ms = eye.step(before.at_ms.cast_unsigned())?.cast_signed();
        if Timestamp::from_millis(at_ms).as_millis() != at_ms {
            return Err("a click of no time that can be told");
        }
        let seq = eye.step(before.seq)?;
        let index = u32::try_from(eye.step(u64::from(before.index))?).map_err(|_| "an index beyond all bounds")?;
        let journal = if flags & JOURNAL_AS_BEFORE == 0 { eye.byte()? } else { before.journal };
        let mut values = before.values;
        if flags & VALUES_AS_BEFORE == 0 {
            let numbers = eye.bytes(values.len())?;
            values.copy_from_slice(numbers);
        }
        let known = |(value, texts): (&u8, &Vec<CompactString>)| usize::from(*value) <= texts.len();
        if usize::from(journal) >= self.journals.len() || !values.iter().zip(&self.texts).all(known) {
            return Err("a click with a text that is not there");
        }
        Ok(Kept { at_ms, seq, index, journal, bot: flags & BOT != 0, values })
    }
}

/// The number of `text` among `texts`, from 1; 0 = it is empty.
fn number_of(texts: &mut Vec<CompactString>, text: &str) -> u8 {
    let text = cut(text);
    if text.is_empty() {
        return 0;
    }
    let place = texts.iter().position(|known| known == text).unwrap_or_else(|| {
        texts.push(text.into());
        texts.len() - 1
    });
    place as u8 + 1
}

/// What is used of journals and texts.
#[derive(Default)]
struct Used {
    journals: Numbering,
    texts: [Numbering; 6],
}

/// New numbers, from 1, by first use; 0 stays 0.
struct Numbering {
    numbers: [u8; MOST_NUMBERED + 1],
    order: Vec<u8>,
}

impl Default for Numbering {
    fn default() -> Self {
        Self { numbers: [0; MOST_NUMBERED + 1], order: Vec::new() }
    }
}

impl Numbering {
    fn note(&mut self, number: u8) {
        let new = &mut self.numbers[usize::from(number)];
        if number != 0 && *new == 0 {
            self.order.push(number);
            *new = self.order.len() as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seen<'a>(at_ms: i64, journal: u8, index: u32, referrer: &'a str) -> SeenClick<'a> {
        let block = BlockId { journal: JournalId([journal; 16]), seq: u64::MAX - 3 };
        let values = [referrer, "DE", "Firefox", "Linux", "desktop", ""];
        SeenClick { at: Timestamp::from_millis(at_ms), block, index, values, bot: index.is_multiple_of(3) }
    }

    fn written(newest: &Newest) -> Vec<u8> {
        let mut out = Vec::new();
        newest.write(&mut out);
        out
    }

    fn read(bytes: &[u8]) -> Result<Newest, Wrong> {
        let (mut newest, mut eye) = (Newest::default(), Eye { rest: bytes });
        newest.read(&mut eye)?;
        if eye.rest.is_empty() { Ok(newest) } else { Err("more") }
    }

    #[test]
    fn a_text_is_written_once() {
        let mut newest = Newest::default();
        newest.keep((0..100).map(|n| seen(1_767_323_045_000 + n, 1, n as u32, "example.org")).collect());
        let bytes = written(&newest);
        assert!(bytes.len() < 550, "{} bytes", bytes.len());
        assert_eq!(read(&bytes).unwrap(), newest);
        assert_eq!(newest.all().next().unwrap().value(Dimension::Language), None);
    }

    #[test]
    fn texts_and_journals_come_and_go_without_end() {
        let (mut newest, mut last) = (Newest::default(), Newest::default());
        let names: Vec<String> = (0..5_000).map(|n| format!("{n}.example.org")).collect();
        for (n, name) in names.iter().enumerate() {
            newest.keep(vec![seen(n as i64, (n % 251) as u8, n as u32, name)]);
            if n >= names.len() - NEWEST_CLICKS {
                last.keep(vec![seen(n as i64, (n % 251) as u8, n as u32, name)]);
            }
        }
        assert_eq!(newest, last);
        assert_eq!(written(&newest), written(&last), "what went leaves no trace");
        assert!(newest.texts[0].len() <= MOST_NUMBERED && newest.journals.len() <= MOST_NUMBERED);
        assert!(newest.heap_bytes() < 40_000, "{} bytes", newest.heap_bytes());
    }

    #[test]
    fn clicks_from_the_future_can_be_dropped() {
        let mut newest = Newest::default();
        newest.keep([5, 6, 2_000_000, 3_000_000].map(|at| seen(at, 1, 1, "a.org")).to_vec());
        newest.drop_after(Timestamp::from_millis(2_000_000));
        assert_eq!(newest.all().map(|click| click.at_ms).collect::<Vec<_>>(), [2_000_000, 6, 5]);
        newest.drop_after(Timestamp::from_millis(10));
        assert_eq!(newest.all().count(), 2);
    }

    #[test]
    fn what_is_beyond_the_bounds_is_refused() {
        let mut newest = Newest::default();
        newest.keep((0..3).map(|n| seen(5, 1, n, "a.org")).collect());
        assert_eq!(read(&written(&newest)).unwrap(), newest);
        let broken = |work: fn(&mut Newest)| {
            let mut broken = newest.clone();
            work(&mut broken);
            read(&written(&broken)).is_err()
        };
        assert!(!broken(|_| {}));
        assert!(broken(|newest| newest.clicks.swap(0, 1)), "the older first");
        assert!(broken(|newest| newest.clicks[1] = newest.clicks[0]), "the same click twice");
        assert!(broken(|newest| newest.clicks[2].at_ms = i64::MAX), "a time beyond all");
        assert!(broken(|newest| newest.texts[0][0] = "x".repeat(MAX_VALUE_BYTES + 1).into()), "a text too long");
        assert!(broken(|newest| newest.texts[0][0] = "".into()), "a text without letters");
        assert!(
            broken(|newest| newest.clicks = (0..=100).map(|index| Kept { index, ..newest.clicks[0] }).collect()),
            "one too many"
        );
        let bytes = written(&newest);
        // The last bytes are those of the oldest click: flags, and three steps.
        for (from_end, byte) in [(4, 0xff), (4, 0), (4, BOT)] {
            let mut bytes = bytes.clone();
            let place = bytes.len() - from_end;
            bytes[place] = byte;
            assert!(read(&bytes).is_err(), "{byte} at {from_end} from the end");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(0_u8..9, 0..200)) {
            if let Ok(newest) = read(&bytes) {
                prop_assert_eq!(read(&written(&newest)).unwrap(), newest);
            }
        }

        #[test]
        fn what_was_written_is_read(clicks in prop::collection::vec((0_i64..90, 0_u8..9, 0_u32..9, "[a-f]{0,2}"), 0..200)) {
            let mut newest = Newest::default();
            let (first, last) = clicks.split_at(clicks.len() / 3);
            for part in [first, last] {
                newest.keep(part.iter().map(|(at, journal, index, name)| seen(*at, *journal, *index, name)).collect());
            }
            prop_assert_eq!(read(&written(&newest)).unwrap(), newest);
        }
    }
}
