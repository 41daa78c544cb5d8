//! Records one behind the other, each in a frame: what blocks and parts are made of.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | CRC-32 of all that follows, begun with the block's [seed] |
//! | 4 | the record's length in the lower 11 bits, its index in the block in the others |
//! | | the [record](crate::record) |
//!
//! Numbers are little endian. A row of frames begins with the block or the part, and records name texts by their
//! [places](crate::record::texts) in it; so a part of a block is written anew. The seed makes a frame that was left in a
//! file by an earlier block no frame of the block that has it now.
//!
//! Format 1 had four bytes for the index, then two for the length.

use terse_core::click::BlockId;

use crate::record::texts::{MAX_ROW_BYTES, Texts};
use crate::record::{MAX_RECORD_BYTES, Record};

/// Bytes of a frame besides its record.
pub const FRAME_BYTES: usize = 4 + 4;
/// Most bytes that a frame can take.
pub const MAX_FRAME_BYTES: usize = FRAME_BYTES + MAX_RECORD_BYTES;

/// Bytes of a frame of format 1 besides its record.
const FRAME_1_BYTES: usize = 4 + 4 + 2;
/// Bits that tell the length of a record.
const LENGTH_BITS: u32 = 11;
const LENGTH_MASK: u32 = (1 << LENGTH_BITS) - 1;
/// Records that a block can tell apart: more than a row has bytes for.
const MAX_RECORDS: u32 = 1 << (u32::BITS - LENGTH_BITS);

const _: () = assert!(MAX_RECORD_BYTES <= LENGTH_MASK as usize && MAX_ROW_BYTES / FRAME_BYTES <= MAX_RECORDS as usize);

/// How frames and their records are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Each record has all of its texts.
    One,
    /// Texts stand in a row once.
    Two,
}

impl Format {
    /// The one that is written. It and the one before it are read.
    pub const CURRENT: Self = Self::Two;

    /// Its number in the heads of blocks and parts.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }

    /// The format with this number; `None` = a newer one, or one that never was.
    #[must_use]
    pub const fn of(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::One),
            2 => Some(Self::Two),
            _ => None,
        }
    }

    const fn frame_bytes(self) -> usize {
        match self {
            Self::One => FRAME_1_BYTES,
            Self::Two => FRAME_BYTES,
        }
    }
}

/// What the checksums of a block's records begin with.
#[must_use]
pub fn seed(block: BlockId) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&block.journal.0);
    hasher.update(&block.seq.to_le_bytes());
    hasher.finalize()
}

/// Writes a [bounded](Record::bounded) record in its frame to the beginning of `out`, behind the row `before`; returns how
/// many bytes it took. `None` = there is no room for it in `out`, or in a row. Nothing is allocated.
pub fn write(
    record: &Record<'_>,
    index: u32,
    seed: u32,
    before: &[u8],
    out: &mut [u8],
    texts: &mut Texts,
) -> Option<usize> {
    if index >= MAX_RECORDS {
        return None;
    }
    let len = record.write(out.get_mut(FRAME_BYTES..)?, before.len() + FRAME_BYTES, before, texts)?;
    out[4..FRAME_BYTES].copy_from_slice(&(index << LENGTH_BITS | len as u32).to_le_bytes());
    let end = FRAME_BYTES + len;
    let checksum = checksum(seed, &out[4..end]);
    out[..4].copy_from_slice(&checksum.to_le_bytes());
    Some(end)
}

fn checksum(seed: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}

/// A row of frames that records are added to.
#[derive(Debug, Default)]
pub(crate) struct Row {
    bytes: Vec<u8>,
    texts: Texts,
    records: u32,
}

impl Row {
    /// Adds a record; its texts are cut to their bounds.
    ///
    /// # Panics
    /// If the row gets longer than [`MAX_ROW_BYTES`], which no block's records do.
    pub(crate) fn add(&mut self, index: u32, record: &Record<'_>, seed: u32) {
        let mut buffer = [0; MAX_FRAME_BYTES];
        let len = write(&record.bounded(), index, seed, &self.bytes, &mut buffer, &mut self.texts);
        self.bytes.extend_from_slice(&buffer[..len.expect("a row has no more records than a block")]);
        self.records += 1;
    }

    /// Its bytes, and how many records they are.
    pub(crate) fn finish(self) -> (Vec<u8>, u32) {
        (self.bytes, self.records)
    }
}

/// A frame as it stands in a row of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The record's index in its block.
    pub index: u32,
    /// All of the frame.
    pub bytes: &'a [u8],
    /// The row before it.
    before: &'a [u8],
    format: Format,
}

impl<'a> Frame<'a> {
    /// The frame at the offset `at` of `row`. Its checksum is not looked at.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn at(format: Format, row: &'a [u8], at: usize) -> Result<Self, &'static str> {
        let (before, rest) = row.split_at_checked(at).ok_or("a frame behind its row")?;
        let head = rest.get(4..format.frame_bytes()).ok_or("a frame shorter than its head")?;
        let (index, len) = match *head {
            [a, b, c, d] => {
                let word = u32::from_le_bytes([a, b, c, d]);
                (word >> LENGTH_BITS, (word & LENGTH_MASK) as usize)
            }
            [a, b, c, d, l0, l1] => (u32::from_le_bytes([a, b, c, d]), usize::from(u16::from_le_bytes([l0, l1]))),
            _ => return Err("a frame shorter than its head"),
        };
        if len > MAX_RECORD_BYTES {
            return Err("a frame beyond its bound");
        }
        let bytes = rest.get(..format.frame_bytes() + len).ok_or("a frame shorter than it says")?;
        Ok(Self { index, bytes, before, format })
    }

    /// The offset behind it.
    #[must_use]
    pub fn end(&self) -> usize {
        self.before.len() + self.bytes.len()
    }

    /// Whether its checksum is that of the block with this [`seed`].
    #[must_use]
    pub fn is_whole(&self, seed: u32) -> bool {
        self.checksum() == checksum(seed, &self.bytes[4..])
    }

    /// The checksum that it holds.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        let [a, b, c, d, ..] = *self.bytes else { return 0 };
        u32::from_le_bytes([a, b, c, d])
    }

    /// The record in it. Texts that stand in the row before it are taken from there.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn record(&self) -> Result<Record<'a>, &'static str> {
        let head = self.format.frame_bytes();
        Record::decode(self.format, &self.bytes[head..], self.before.len() + head, self.before)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use terse_core::click::{JournalId, Signals};
    use terse_core::{Timestamp, Version};

    use super::*;

    fn record(code: &str) -> Record<'_> {
        Record {
            at: Timestamp::from_millis(1),
            code,
            version: Version(1),
            network: None,
            visitor: None,
            referrer: b"",
            user_agent: b"curl/8",
            language: b"",
            signals: Signals::default(),
        }
    }

    fn id(seq: u64) -> BlockId {
        BlockId { journal: JournalId([7; 16]), seq }
    }

    /// A row of records of these codes, in their order, as today's format has it or format 1 had it.
    pub(crate) fn row_of(format: Format, records: &[Record<'_>], seed: u32) -> Vec<u8> {
        let mut row = Row::default();
        let mut old = Vec::new();
        for (index, record) in (0_u32..).zip(records) {
            row.add(index, record, seed);
            let record = crate::record::format_1::tests::encode(record);
            let checked = [&index.to_le_bytes()[..], &(record.len() as u16).to_le_bytes(), &record].concat();
            old.extend(checksum(seed, &checked).to_le_bytes());
            old.extend(checked);
        }
        match format {
            Format::One => old,
            Format::Two => row.finish().0,
        }
    }

    fn frames(format: Format, row: &[u8]) -> Result<Vec<Frame<'_>>, &'static str> {
        let (mut frames, mut at) = (Vec::new(), 0);
        while at < row.len() {
            let frame = Frame::at(format, row, at)?;
            at = frame.end();
            frames.push(frame);
        }
        Ok(frames)
    }

    const FORMATS: [Format; 2] = [Format::One, Format::Two];

    #[test]
    fn frames_come_back_one_by_one() {
        let seed = seed(id(3));
        let codes = ["abc", "defghij", "k"];
        for format in FORMATS {
            let row = row_of(format, &codes.map(record), seed);
            let frames = frames(format, &row).unwrap();
            assert_eq!(frames.len(), codes.len());
            for ((index, code), frame) in (0..).zip(codes).zip(frames) {
                assert_eq!((frame.index, frame.record().unwrap()), (index, record(code)));
                assert!(frame.is_whole(seed));
            }
        }
    }

    #[test]
    fn formats_have_numbers_and_the_newest_is_written() {
        for format in FORMATS {
            assert_eq!(Format::of(format.number()), Some(format));
        }
        assert_eq!((Format::of(0), Format::of(3), Format::CURRENT), (None, None, Format::Two));
    }

    #[test]
    fn texts_stand_in_a_row_once() {
        let few = row_of(Format::Two, &["a", "b"].map(record), 0);
        let more = row_of(Format::Two, &["a", "b", "c", "d"].map(record), 0);
        assert_eq!(few.len(), 2 * (FRAME_BYTES + 22) + "curl/8".len());
        assert_eq!(more.len() - few.len(), 2 * (FRAME_BYTES + 22));
    }

    #[test]
    fn a_frame_of_another_block_is_none_of_this_one() {
        let row = row_of(Format::Two, &[record("abc")], seed(id(3)));
        let frame = Frame::at(Format::Two, &row, 0).unwrap();
        for other in [id(0), id(2), id(4), id(3 + (1 << 32)), BlockId { journal: JournalId([8; 16]), seq: 3 }] {
            assert!(!frame.is_whole(seed(other)), "{other}");
        }
    }

    #[test]
    fn a_frame_with_any_bit_turned_is_not_whole() {
        let seed = seed(id(3));
        for format in FORMATS {
            let mut row = row_of(format, &[record("abc")], seed);
            for bit in 0..row.len() * 8 {
                row[bit / 8] ^= 1 << (bit % 8);
                let whole = frames(format, &row).is_ok_and(|frames| frames.iter().all(|frame| frame.is_whole(seed)));
                assert!(!whole, "bit {bit}");
                row[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn a_frame_that_is_cut_is_told() {
        for format in FORMATS {
            let mut row = row_of(format, &[record("abc")], 0);
            for cut in 0..row.len() {
                assert!(Frame::at(format, &row[..cut], 0).is_err(), "{cut} bytes");
            }
            assert_eq!(Frame::at(format, &row, row.len() + 1), Err("a frame behind its row"));
            row[4..10].fill(0xff);
            assert_eq!(Frame::at(format, &row, 0), Err("a frame beyond its bound"));
        }
    }

    #[test]
    fn a_row_has_no_more_records_than_it_can_count() {
        let mut out = [0; MAX_FRAME_BYTES];
        let mut write = |index| write(&record("abc"), index, 0, b"", &mut out, &mut Texts::default());
        assert!(write(MAX_RECORDS - 1).is_some());
        assert_eq!(write(MAX_RECORDS), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

        #[test]
        fn records_of_few_texts_come_back_from_any_cut_of_their_row(
            texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..90), 1..4),
            chosen in prop::collection::vec(any::<[prop::sample::Index; 3]>(), 1..40),
            cut in any::<prop::sample::Index>(),
        ) {
            let records: Vec<Record<'_>> = chosen
                .iter()
                .map(|chosen| {
                    let [referrer, user_agent, language] = chosen.map(|index| &index.get(&texts)[..]);
                    Record { referrer, user_agent, language, ..record("abc") }.bounded()
                })
                .collect();
            let row = row_of(Format::Two, &records, 5);
            let kept = cut.index(records.len()) + 1;
            let end = frames(Format::Two, &row).unwrap()[kept - 1].end();
            let read = frames(Format::Two, &row[..end]).unwrap();
            let read: Vec<Record<'_>> = read.iter().map(|frame| frame.record().unwrap()).collect();
            prop_assert_eq!(&read[..], &records[..kept]);
        }
    }
}
