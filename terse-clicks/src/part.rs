//! A part: the clicks of one block that belong to one partition, as one message.
//!
//! Every block sends a part, if an empty one, to every partition, so that the set of blocks that a partition has passed
//! stays whole. On the local bus a block is its own only part.
//!
//! The bytes, numbers in little endian:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `trs-part` |
//! | 2 | format |
//! | 2 | partition |
//! | 2 | partitions |
//! | 2 | flags: recovered, end |
//! | 16 | journal |
//! | 8 | sequence number of the block |
//! | 8 | when the block was sealed, in milliseconds since 1970 |
//! | 4 | records of the whole block |
//! | 4 | records of this part |
//! | 4 | length of the frames |
//! | 4 | CRC-32 of the 60 bytes before |
//! | | the [frames](crate::frame), each with a checksum of its own |
//!
//! The first 64 bytes keep their places in every format, so that a newer part is told from a damaged one. The frames are
//! those of the format: a part of an older block keeps the block's.

use bytes::{Bytes, BytesMut};
use terse_core::Timestamp;
use terse_core::click::{BlockId, JournalId};
use terse_core::stats::Partition;

use crate::frame::{self, Format, Frame, Row};
use crate::record::Record;
use crate::record::texts::MAX_ROW_BYTES;

/// The version of the format that is written. A reader takes this one and the one before it.
pub const FORMAT: u16 = Format::CURRENT.number();
/// Most bytes of a part's frames: far more than a block has. Anything longer is no part.
pub const MAX_PART_BYTES: usize = MAX_ROW_BYTES;

const MAGIC: [u8; 8] = *b"trs-part";
/// Bytes before the frames.
pub(crate) const HEAD_BYTES: usize = 64;
const CHECKED_BYTES: usize = HEAD_BYTES - 4;
const RECOVERED: u16 = 1;
const END: u16 = 1 << 1;

/// What a part says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartHeader {
    /// The block that it is a part of.
    pub block: BlockId,
    /// Which of the partitions it belongs to, from 0; 0 on the local bus.
    pub partition: u16,
    /// How many partitions there are; 1 on the local bus.
    pub partitions: u16,
    /// How many records the whole block has.
    pub block_records: u32,
    /// Whether the block was sealed by a recovery, so that a longer version of it may exist.
    pub recovered: bool,
    /// Whether the journal has ended: this is its last block, which has no records.
    pub end: bool,
    /// When the block was sealed, by the clock of who did.
    pub sealed_at: Timestamp,
}

/// A part. Its frames are whole: checked when it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it says of itself.
    pub header: PartHeader,
    format: Format,
    frames: Bytes,
    records: u32,
}

/// Why bytes are no part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    /// They are of a version that this build doesn't know. A newer build does: wait for it.
    #[error("a part of format {0}, which this build doesn't know")]
    Newer(u16),
    /// They are damaged, or were never a part.
    #[error("no part: {0}")]
    Damaged(&'static str),
}

impl Part {
    /// A part of `records`, each with its index in the block, in the order of the indices. Texts are cut to their bounds.
    ///
    /// # Panics
    /// If they take more than [`MAX_PART_BYTES`], which no block's records do.
    #[must_use]
    pub fn new<'r>(header: PartHeader, records: impl IntoIterator<Item = (u32, Record<'r>)>) -> Self {
        let seed = frame::seed(header.block);
        let mut row = Row::default();
        for (index, record) in records {
            row.add(index, &record, seed);
        }
        Self::of_row(header, row)
    }

    fn of_row(header: PartHeader, row: Row) -> Self {
        let (frames, records) = row.finish();
        Self { header, format: Format::CURRENT, frames: frames.into(), records }
    }

    /// A part of `frames` of today's format, one behind the other, as a block's file holds them. They are shared, not
    /// copied. Their checksums are the caller's business; here each is only seen to be a record.
    ///
    /// # Errors
    /// [`PartError::Damaged`] unless all of them are records with indices that rise and are below the header's number.
    pub fn of_frames(header: PartHeader, frames: Bytes) -> Result<Self, PartError> {
        Self::checked(header, Format::CURRENT, frames, None)
    }

    /// A part of `records` whose frames have been looked at, each of them.
    pub(crate) const fn of_whole(header: PartHeader, format: Format, frames: Bytes, records: u32) -> Self {
        Self { header, format, frames, records }
    }

    /// A part of frames, each of which is looked at. With a seed, checksums are, too.
    fn checked(header: PartHeader, format: Format, frames: Bytes, seed: Option<u32>) -> Result<Self, PartError> {
        if frames.len() > MAX_PART_BYTES {
            return Err(PartError::Damaged("longer than any part"));
        }
        let (mut at, mut records, mut next_index) = (0, 0, 0);
        while at < frames.len() {
            let frame = Frame::at(format, &frames, at).map_err(PartError::Damaged)?;
            if seed.is_some_and(|seed| !frame.is_whole(seed)) {
                return Err(PartError::Damaged("a frame with a wrong checksum"));
            }
            if frame.index < next_index || frame.index >= header.block_records {
                return Err(PartError::Damaged("a record out of its order"));
            }
            frame.record().map_err(PartError::Damaged)?;
            next_index = frame.index + 1;
            records += 1;
            at = frame.end();
        }
        if header.end && records > 0 {
            return Err(PartError::Damaged("records in the block that ends a journal"));
        }
        Ok(Self { header, format, frames, records })
    }

    /// The bytes of the message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let header = &self.header;
        let flags = if header.recovered { RECOVERED } else { 0 } | if header.end { END } else { 0 };
        let mut bytes = BytesMut::with_capacity(HEAD_BYTES + self.frames.len());
        bytes.extend_from_slice(&MAGIC);
        for number in [self.format.number(), header.partition, header.partitions, flags] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&header.block.journal.0);
        bytes.extend_from_slice(&header.block.seq.to_le_bytes());
        bytes.extend_from_slice(&header.sealed_at.as_millis().to_le_bytes());
        for number in [header.block_records, self.records, self.frames.len() as u32] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let checksum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.extend_from_slice(&self.frames);
        bytes.freeze()
    }

    /// Reads what [`Part::encode`] wrote. The frames are shared, not copied.
    ///
    /// # Errors
    /// [`PartError`].
    pub fn decode(bytes: &Bytes) -> Result<Self, PartError> {
        let Some(head) = bytes.first_chunk::<HEAD_BYTES>() else {
            return Err(PartError::Damaged("shorter than the head of a part"));
        };
        let mut eye = Eye { head, at: 0 };
        if eye.take() != MAGIC {
            return Err(PartError::Damaged("it doesn't begin like a part"));
        }
        if u32::from_le_bytes(Eye { head, at: CHECKED_BYTES }.take()) != crc32fast::hash(&head[..CHECKED_BYTES]) {
            return Err(PartError::Damaged("its head has a wrong checksum"));
        }
        let number = u16::from_le_bytes(eye.take());
        let Some(format) = Format::of(number) else {
            let newer = number > FORMAT;
            return Err(if newer {
                PartError::Newer(number)
            } else {
                PartError::Damaged("of a format that never was")
            });
        };
        let (header, records, frames_len) = eye.header()?;
        let frames = bytes.slice(HEAD_BYTES..);
        if frames.len() != frames_len as usize {
            return Err(PartError::Damaged("not as long as it says"));
        }
        let part = Self::checked(header, format, frames, Some(frame::seed(header.block)))?;
        if part.records == records { Ok(part) } else { Err(PartError::Damaged("not as many records as it says")) }
    }

    /// How many records it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records as usize
    }

    /// Whether it has no records.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// How many bytes its frames take.
    #[must_use]
    pub fn frames_len(&self) -> usize {
        self.frames.len()
    }

    /// The records with their indices, in order.
    pub fn records(&self) -> impl Iterator<Item = (u32, Record<'_>)> {
        // Every frame was read when the part was made, so none is left out here.
        self.frames().filter_map(|frame| frame.record().ok().map(|record| (frame.index, record)))
    }

    /// This part, which is a whole block, by `partitions`: one part for each of them, in their order, the empty ones too.
    /// No partitions are taken for one. Each has all texts of its own records.
    #[must_use]
    pub fn split(&self, partitions: u16) -> Vec<Self> {
        let partitions = partitions.max(1);
        let seed = frame::seed(self.header.block);
        let mut rows: Vec<Row> = std::iter::repeat_with(Row::default).take(usize::from(partitions)).collect();
        for (index, record) in self.records() {
            if let Partition::Stream(number) = Partition::of(record.code, partitions) {
                rows[usize::from(number)].add(index, &record, seed);
            }
        }
        let header = |partition| PartHeader { partition, partitions, ..self.header };
        (0..partitions).zip(rows).map(|(partition, row)| Self::of_row(header(partition), row)).collect()
    }

    /// The frames of the records, one behind the other.
    pub fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let frame = Frame::at(self.format, &self.frames, at).ok()?;
            at = frame.end();
            Some(frame)
        })
    }
}

/// Reads a head from front to back.
struct Eye<'h> {
    head: &'h [u8; HEAD_BYTES],
    at: usize,
}

impl Eye<'_> {
    /// The next `N` bytes. What is read in all is the head's length, so there always are.
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.head[self.at..self.at + N]);
        self.at += N;
        bytes
    }

    /// What follows the format: the header, the number of records, the length of the frames.
    fn header(&mut self) -> Result<(PartHeader, u32, u32), PartError> {
        let partition = u16::from_le_bytes(self.take());
        let partitions = u16::from_le_bytes(self.take());
        let flags = u16::from_le_bytes(self.take());
        let journal = JournalId(self.take());
        let seq = u64::from_le_bytes(self.take());
        let sealed_at = Timestamp::from_millis(i64::from_le_bytes(self.take()));
        let block_records = u32::from_le_bytes(self.take());
        if flags & !(RECOVERED | END) != 0 {
            return Err(PartError::Damaged("unknown flags"));
        }
        if partition >= partitions {
            return Err(PartError::Damaged("a partition beyond their number"));
        }
        let header = PartHeader {
            block: BlockId { journal, seq },
            partition,
            partitions,
            block_records,
            recovered: flags & RECOVERED != 0,
            end: flags & END != 0,
            sealed_at,
        };
        Ok((header, u32::from_le_bytes(self.take()), u32::from_le_bytes(self.take())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use terse_core::Version;
    use terse_core::click::Signals;

    use super::*;

    fn record(code: &str) -> Record<'_> {
        Record {
            at: Timestamp::from_millis(1_767_323_045_678),
            code,
            version: Version(1),
            network: None,
            visitor: Some(7),
            referrer: b"",
            user_agent: b"curl/8",
            language: b"en",
            signals: Signals::default(),
        }
    }

    fn header(records: u32) -> PartHeader {
        PartHeader {
            block: BlockId { journal: JournalId([3; 16]), seq: 9 },
            partition: 0,
            partitions: 1,
            block_records: records,
            recovered: false,
            end: false,
            sealed_at: Timestamp::from_millis(1_767_323_046_000),
        }
    }

    fn part(codes: &[&str]) -> Part {
        let records = codes.iter().zip(0..).map(|(code, index)| (index, record(code)));
        Part::new(header(codes.len() as u32), records)
    }

    /// `bytes` with the head's checksum made right again.
    fn resealed(mut bytes: Vec<u8>) -> Bytes {
        let checksum = crc32fast::hash(&bytes[..CHECKED_BYTES]);
        bytes[CHECKED_BYTES..HEAD_BYTES].copy_from_slice(&checksum.to_le_bytes());
        bytes.into()
    }

    #[test]
    fn a_part_comes_back_as_it_was_encoded() {
        for codes in [&[][..], &["abc"], &["abc", "d", "abc"]] {
            let part = part(codes);
            let read = Part::decode(&part.encode()).unwrap();
            assert_eq!(read, part);
            assert_eq!((read.len(), read.is_empty()), (codes.len(), codes.is_empty()));
            let read: Vec<_> = read.records().map(|(index, record)| (index, record.code.to_owned())).collect();
            let expected: Vec<_> = codes.iter().zip(0..).map(|(code, index)| (index, (*code).to_owned())).collect();
            assert_eq!(read, expected);
        }
    }

    #[test]
    fn what_a_part_says_of_itself_comes_back() {
        for (recovered, end) in [(true, false), (false, true), (true, true)] {
            let header = PartHeader { recovered, end, partition: 255, partitions: 256, ..header(0) };
            assert_eq!(Part::decode(&Part::new(header, []).encode()).unwrap().header, header);
        }
    }

    #[test]
    fn the_head_of_format_2_stays_as_it_is() {
        let mut expected = b"trs-part".to_vec();
        expected.extend([2, 0, 2, 0, 4, 0, 3, 0]);
        expected.extend([3; 16]);
        expected.extend(9_u64.to_le_bytes());
        expected.extend(1_767_323_046_000_i64.to_le_bytes());
        expected.extend([5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let header = PartHeader { recovered: true, end: true, partition: 2, partitions: 4, ..header(5) };
        let bytes = Part::new(header, []).encode();
        assert_eq!(bytes[..CHECKED_BYTES], expected[..]);
        assert_eq!(bytes.len(), HEAD_BYTES);
    }

    #[test]
    fn a_newer_part_is_told_from_a_damaged_one() {
        let mut bytes = part(&["abc"]).encode().to_vec();
        bytes[8] = 3;
        assert_eq!(
            Part::decode(&bytes.clone().into()),
            Err(PartError::Damaged("its head has a wrong checksum")),
            "a turned bit makes no newer part, for which a partition would wait for ever"
        );
        assert_eq!(Part::decode(&resealed(bytes.clone())), Err(PartError::Newer(3)));
        bytes[8] = 0;
        assert_eq!(Part::decode(&resealed(bytes)), Err(PartError::Damaged("of a format that never was")));
    }

    #[test]
    fn a_part_that_no_version_wrote_is_told() {
        let good = part(&["abc", "def"]).encode().to_vec();
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Part::decode(&resealed(bytes))
        };
        assert_eq!(with(0, b'T'), Err(PartError::Damaged("it doesn't begin like a part")));
        assert_eq!(with(14, 4), Err(PartError::Damaged("unknown flags")));
        assert_eq!(with(12, 0), Err(PartError::Damaged("a partition beyond their number")));
        assert_eq!(with(48, 1), Err(PartError::Damaged("a record out of its order")));
        assert_eq!(with(52, 3), Err(PartError::Damaged("not as many records as it says")));
        assert_eq!(with(56, 3), Err(PartError::Damaged("not as long as it says")));
        assert_eq!(with(14, 2), Err(PartError::Damaged("records in the block that ends a journal")));
        assert_eq!(with(32, 8), Err(PartError::Damaged("a frame with a wrong checksum")), "another block's seed");
        for len in 0..good.len() {
            assert!(matches!(Part::decode(&good[..len].to_vec().into()), Err(PartError::Damaged(_))), "{len} bytes");
        }
    }

    #[test]
    fn records_stand_in_the_order_of_their_indices() {
        let block = part(&["abc", "def"]);
        let mut twice = block.frames.to_vec();
        twice.extend_from_slice(&block.frames);
        let made = Part::of_frames(header(9), twice.into());
        assert_eq!(made, Err(PartError::Damaged("a record out of its order")));
        assert_eq!(Part::of_frames(header(2), block.frames.clone()), Ok(block));
    }

    #[test]
    fn more_bytes_than_any_block_has_are_no_part() {
        let made = Part::of_frames(header(9), vec![0; MAX_PART_BYTES + 1].into());
        assert_eq!(made, Err(PartError::Damaged("longer than any part")));
    }

    #[test]
    fn a_block_sends_a_part_to_every_partition_if_an_empty_one() {
        let block = part(&["abc"]);
        let parts = block.split(4);
        assert_eq!(parts.iter().map(Part::len).sum::<usize>(), 1);
        for (number, part) in (0..).zip(&parts) {
            assert_eq!(part.header, PartHeader { partition: number, partitions: 4, ..block.header });
            assert_eq!(Part::decode(&part.encode()).unwrap(), *part);
        }
        assert_eq!(Part::new(PartHeader { end: true, ..header(0) }, []).split(3).len(), 3);
        assert_eq!(block.split(0), block.split(1));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

        #[test]
        fn any_bytes_are_a_part_or_not_without_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            head in any::<bool>(),
        ) {
            let bytes = if head && bytes.len() >= HEAD_BYTES {
                let mut bytes = bytes;
                bytes[..8].copy_from_slice(&MAGIC);
                bytes[8..10].copy_from_slice(&FORMAT.to_le_bytes());
                let frames = (bytes.len() - HEAD_BYTES) as u32;
                bytes[56..60].copy_from_slice(&frames.to_le_bytes());
                resealed(bytes)
            } else {
                bytes.into()
            };
            if let Ok(part) = Part::decode(&bytes) {
                prop_assert_eq!(part.encode(), bytes);
            }
        }

        #[test]
        fn a_part_with_any_bit_turned_is_none(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let mut bytes = part(&["abc", "defghij"]).encode().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(matches!(Part::decode(&bytes.into()), Err(PartError::Damaged(_))));
        }

        #[test]
        fn a_split_keeps_every_record_once_where_its_code_belongs(
            codes in prop::collection::vec("[A-Za-z0-9_-]{1,9}", 0..60),
            partitions in 1..20_u16,
        ) {
            let codes: Vec<&str> = codes.iter().map(String::as_str).collect();
            let block = part(&codes);
            let parts = block.split(partitions);
            prop_assert_eq!(parts.len(), usize::from(partitions));
            let mut seen = Vec::new();
            for (number, part) in (0..).zip(&parts) {
                for (index, record) in part.records() {
                    prop_assert_eq!(Partition::of(record.code, partitions), Partition::Stream(number));
                    seen.push((index, record.code.to_owned()));
                }
                let read = Part::decode(&part.encode());
                prop_assert_eq!(read.as_ref(), Ok(part));
            }
            seen.sort_unstable();
            let expected: Vec<_> = (0..).zip(codes).map(|(index, code)| (index, code.to_owned())).collect();
            prop_assert_eq!(seen, expected);
        }
    }
}
