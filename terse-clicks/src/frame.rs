//! Records one behind the other, each in a frame: what blocks and parts are made of.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | CRC-32 of all that follows, begun with the block's [seed] |
//! | 4 | the record's index in its block |
//! | 2 | the length of the record |
//! | | the [record](crate::record) |
//!
//! Numbers are little endian. A frame is the same bytes in the block's file and in a part, so a part takes frames as
//! they are. The seed makes a frame that was left in a file by an earlier block no frame of the block that has it now.

use terse_core::click::BlockId;

use crate::record::{MAX_RECORD_BYTES, Record};

/// Bytes of a frame besides its record.
pub const FRAME_BYTES: usize = 4 + 4 + 2;
/// Most bytes that a frame can take.
pub const MAX_FRAME_BYTES: usize = FRAME_BYTES + MAX_RECORD_BYTES;

/// What the checksums of a block's records begin with.
#[must_use]
pub fn seed(block: BlockId) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&block.journal.0);
    hasher.update(&block.seq.to_le_bytes());
    hasher.finalize()
}

/// Writes a [bounded](Record::bounded) record in its frame to the beginning of `out`; returns how many bytes it took.
/// Nothing is allocated.
///
/// # Panics
/// If `out` is shorter than [`FRAME_BYTES`] and [`Record::size`].
pub fn write(record: &Record<'_>, index: u32, seed: u32, out: &mut [u8]) -> usize {
    let len = record.write(&mut out[FRAME_BYTES..]);
    out[4..8].copy_from_slice(&index.to_le_bytes());
    out[8..FRAME_BYTES].copy_from_slice(&(len as u16).to_le_bytes());
    let end = FRAME_BYTES + len;
    let checksum = checksum(seed, &out[4..end]);
    out[..4].copy_from_slice(&checksum.to_le_bytes());
    end
}

fn checksum(seed: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}

/// A frame as it stands in a row of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The record's index in its block.
    pub index: u32,
    /// All of the frame, for taking it over as it is.
    pub bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Cuts the first frame off `bytes`; returns it and the rest. Its checksum is not looked at.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn first_of(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), &'static str> {
        let Some((&[_, _, _, _, i0, i1, i2, i3, l0, l1], _)) = bytes.split_first_chunk::<FRAME_BYTES>() else {
            return Err("a frame shorter than its head");
        };
        let len = usize::from(u16::from_le_bytes([l0, l1]));
        if len > MAX_RECORD_BYTES {
            return Err("a frame beyond its bound");
        }
        let (frame, rest) = bytes.split_at_checked(FRAME_BYTES + len).ok_or("a frame shorter than it says")?;
        Ok((Self { index: u32::from_le_bytes([i0, i1, i2, i3]), bytes: frame }, rest))
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

    /// The record in it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn record(&self) -> Result<Record<'a>, &'static str> {
        Record::decode(&self.bytes[FRAME_BYTES..])
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn frames_come_back_one_by_one() {
        let mut bytes = [0; 200];
        let seed = seed(id(3));
        let first = write(&record("abc"), 0, seed, &mut bytes);
        let second = write(&record("defghij"), 1, seed, &mut bytes[first..]);
        let (frame, rest) = Frame::first_of(&bytes[..first + second]).unwrap();
        assert_eq!((frame.index, frame.record().unwrap()), (0, record("abc")));
        assert!(frame.is_whole(seed));
        let (frame, rest) = Frame::first_of(rest).unwrap();
        assert_eq!((frame.index, frame.record().unwrap()), (1, record("defghij")));
        assert!(frame.is_whole(seed));
        assert_eq!(rest, b"");
    }

    #[test]
    fn a_frame_of_another_block_is_none_of_this_one() {
        let mut bytes = [0; 100];
        let len = write(&record("abc"), 0, seed(id(3)), &mut bytes);
        let (frame, _) = Frame::first_of(&bytes[..len]).unwrap();
        for other in [id(0), id(2), id(4), id(3 + (1 << 32)), BlockId { journal: JournalId([8; 16]), seq: 3 }] {
            assert!(!frame.is_whole(seed(other)), "{other}");
        }
    }

    #[test]
    fn a_frame_with_any_bit_turned_is_not_whole() {
        let mut bytes = [0; 100];
        let seed = seed(id(3));
        let len = write(&record("abc"), 0, seed, &mut bytes);
        for bit in 0..len * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(
                Frame::first_of(&bytes[..len]).is_err()
                    || !{
                        let (frame, rest) = Frame::first_of(&bytes[..len]).unwrap();
                        rest.is_empty() && frame.is_whole(seed)
                    }
            );
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_frame_that_is_cut_is_told() {
        let mut bytes = [0; 100];
        let len = write(&record("abc"), 0, 0, &mut bytes);
        for cut in 0..len {
            assert!(Frame::first_of(&bytes[..cut]).is_err(), "{cut} bytes");
        }
        bytes[8..10].copy_from_slice(&u16::MAX.to_le_bytes());
        assert_eq!(Frame::first_of(&bytes), Err("a frame beyond its bound"));
    }
}
