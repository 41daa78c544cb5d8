//! The bytes of a block file, and how each damage to them is told.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | magic, stored after the rest of the header; zero, with nothing committed = the block is free |
//! | 8 | 2 | format version |
//! | 10 | 2 | partitions of the log |
//! | 16 | 16 | the journal |
//! | 32 | 8 | the block's seq |
//! | 40 | 8 | when it was begun |
//! | 48 | 4 | CRC-32 of the 48 bytes before |
//! | 56 | 8 | committed bytes of frames, stored after they are in place |
//! | 64 | 4 | seal: records |
//! | 68 | 4 | seal: flags (sealed by a recovery; end of the journal) |
//! | 72 | 8 | seal: bytes of frames |
//! | 80 | 8 | seal: when |
//! | 88 | 4 | seal: all frames' checksums folded into one |
//! | 92 | 4 | seal: CRC-32 of the 28 bytes before, begun with the block's seed |
//! | 128 | | [frames](crate::frame) |
//!
//! Numbers are little endian. Magic, format, and the checksum of the first 48 bytes keep their places in all formats,
//! so that a newer format is told from damage. A sealed block is whole or it is nothing: its records are delivered only
//! if all of them are as they were sealed. A block that its process left open is cut behind its last whole record.

use bytes::Bytes;
use terse_core::Timestamp;
use terse_core::click::{BlockId, JournalId};

use crate::frame::{self, Format, Frame};
use crate::part::{FORMAT, Part, PartHeader};

/// Where the frames begin.
pub(crate) const HEADER_BYTES: usize = 128;
/// Where the header's first word lies, which makes it one.
pub(super) const MAGIC_AT: usize = 0;
/// Where the count of committed bytes lies.
pub(super) const COMMITTED_AT: usize = 56;
/// Bytes from the count of committed bytes to the seal's end.
pub(super) const SEAL_BYTES: usize = SEAL_END - COMMITTED_AT;

const MAGIC: [u8; 8] = *b"terseblk";
const CHECKED_BYTES: usize = 48;
const SEAL_AT: usize = 64;
const SEAL_END: usize = 96;
const RECOVERED: u32 = 1;
const END: u32 = 2;

/// What a block's header says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Which block it is.
    pub(super) id: BlockId,
    /// How its frames are laid out.
    pub(super) format: Format,
    /// How many partitions the log has.
    pub(super) partitions: u16,
    /// When its first record was written.
    pub(super) created_at: Timestamp,
}

/// What a block's seal says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seal {
    /// How many records it has.
    pub(super) records: u32,
    /// How many bytes their frames take.
    pub(super) length: u64,
    /// Their checksums, folded.
    pub(super) folded: u32,
    /// When it was sealed.
    pub(super) at: Timestamp,
    /// Whether a recovery sealed it.
    pub(super) recovered: bool,
    /// Whether it is the journal's last block.
    pub(super) end: bool,
}

/// Why bytes are not the block that they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BlockError {
    /// There is no header, or it is damaged.
    #[error("no block: {0}")]
    NoBlock(&'static str),
    /// It is of a format that this build doesn't know.
    #[error("a block of format {0}, which this build doesn't know")]
    Newer(u16),
    /// It belongs to another journal.
    #[error("a block of another journal: {0}")]
    Foreign(BlockId),
    /// It is another block of this journal: the file has been used again.
    #[error("the file has been used again, for block {0}")]
    Recycled(BlockId),
    /// It has no seal, or part of one.
    #[error("not sealed, or torn while it was")]
    Torn,
    /// What was sealed is damaged.
    #[error("sealed, and damaged since: {0}")]
    Corrupt(&'static str),
}

impl Header {
    /// Of a block that is written now.
    pub(super) const fn new(id: BlockId, partitions: u16, created_at: Timestamp) -> Self {
        Self { id, format: Format::CURRENT, partitions, created_at }
    }

    /// Its bytes, with which a block begins.
    pub(super) fn bytes(&self) -> [u8; COMMITTED_AT] {
        let mut out = [0; COMMITTED_AT];
        out[..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&self.format.number().to_le_bytes());
        out[10..12].copy_from_slice(&self.partitions.to_le_bytes());
        out[16..32].copy_from_slice(&self.id.journal.0);
        out[32..40].copy_from_slice(&self.id.seq.to_le_bytes());
        out[40..48].copy_from_slice(&self.created_at.as_millis().to_le_bytes());
        let checksum = crc32fast::hash(&out[..CHECKED_BYTES]);
        out[48..52].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads the header at the beginning of `block`; `None` = the block is free.
    fn read(block: &[u8]) -> Result<Option<Self>, BlockError> {
        let Some((head, _)) = block.split_first_chunk::<HEADER_BYTES>() else {
            return Err(BlockError::NoBlock("shorter than a header"));
        };
        if head[..MAGIC.len()] == [0; MAGIC.len()] && array(head, COMMITTED_AT) == [0; 8] {
            return Ok(None);
        }
        if head[..8] != MAGIC {
            return Err(BlockError::NoBlock("it doesn't begin as blocks do"));
        }
        if crc32fast::hash(&head[..CHECKED_BYTES]) != number(head, 48) {
            return Err(BlockError::NoBlock("its header is damaged"));
        }
        let number = u16::from_le_bytes(array(head, 8));
        let Some(format) = Format::of(number) else {
            let newer = number > FORMAT;
            return Err(if newer { BlockError::Newer(number) } else { BlockError::NoBlock("its format never was") });
        };
        Ok(Some(Self {
            id: BlockId { journal: JournalId(array(head, 16)), seq: u64::from_le_bytes(array(head, 32)) },
            format,
            partitions: u16::from_le_bytes(array(head, 10)),
            created_at: Timestamp::from_millis(i64::from_le_bytes(array(head, 40))),
        }))
    }
}

impl Seal {
    /// Its bytes with the count of committed bytes before it, to be written at [`COMMITTED_AT`].
    pub(super) fn bytes(&self, seed: u32) -> [u8; SEAL_BYTES] {
        let mut out = [0; SEAL_BYTES];
        out[..8].copy_from_slice(&self.length.to_le_bytes());
        let flags = if self.recovered { RECOVERED } else { 0 } | if self.end { END } else { 0 };
        let seal = &mut out[SEAL_AT - COMMITTED_AT..];
        seal[..4].copy_from_slice(&self.records.to_le_bytes());
        seal[4..8].copy_from_slice(&flags.to_le_bytes());
        seal[8..16].copy_from_slice(&self.length.to_le_bytes());
        seal[16..24].copy_from_slice(&self.at.as_millis().to_le_bytes());
        seal[24..28].copy_from_slice(&self.folded.to_le_bytes());
        let checksum = checksum(seed, &seal[..28]);
        seal[28..].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads the seal of `block`, whose header was read already.
    fn read(block: &[u8], seed: u32) -> Option<Self> {
        let seal = block.get(SEAL_AT..SEAL_END)?;
        if checksum(seed, &seal[..28]) != number(seal, 28) {
            return None;
        }
        let flags = number(seal, 4);
        Some(Self {
            records: number(seal, 0),
            length: u64::from_le_bytes(array(seal, 8)),
            folded: number(seal, 24),
            at: Timestamp::from_millis(i64::from_le_bytes(array(seal, 16))),
            recovered: flags & RECOVERED != 0,
            end: flags & END != 0,
        })
    }
}

fn checksum(seed: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

/// `folded` with one more frame's checksum folded in.
pub(super) const fn fold(folded: u32, checksum: u32) -> u32 {
    (folded.rotate_left(5) ^ checksum).wrapping_mul(0x9e37_79b1)
}

/// The frames at the beginning of `bytes` that are whole and in order.
struct Whole {
    records: u32,
    length: usize,
    folded: u32,
}

fn whole_frames(format: Format, bytes: &[u8], seed: u32) -> Whole {
    let mut whole = Whole { records: 0, length: 0, folded: 0 };
    while let Ok(frame) = Frame::at(format, bytes, whole.length) {
        if frame.index != whole.records || !frame.is_whole(seed) || frame.record().is_err() {
            break;
        }
        whole.records += 1;
        whole.length = frame.end();
        whole.folded = fold(whole.folded, frame.checksum());
    }
    whole
}

/// The block `id` as a part, its records shared with `block`, all that the file holds.
pub(crate) fn read(block: &Bytes, id: BlockId) -> Result<Part, BlockError> {
    let header = identify(block, id)?;
    let seed = frame::seed(id);
    let seal = Seal::read(block, seed).ok_or(BlockError::Torn)?;
    let end = usize::try_from(seal.length).ok().and_then(|length| HEADER_BYTES.checked_add(length));
    let Some(end) = end.filter(|end| *end <= block.len()) else {
        return Err(BlockError::Corrupt("it is shorter than it was"));
    };
    if u64::from_le_bytes(array(block, COMMITTED_AT)) != seal.length {
        return Err(BlockError::Corrupt("its count of bytes is another"));
    }
    let frames = block.slice(HEADER_BYTES..end);
    let whole = whole_frames(header.format, &frames, seed);
    if whole.length != frames.len() || whole.records != seal.records || whole.folded != seal.folded {
        return Err(BlockError::Corrupt("its records are not what was sealed"));
    }
    if seal.end && seal.records > 0 {
        return Err(BlockError::Corrupt("it ends its journal, and has records"));
    }
    Ok(Part::of_whole(part_header(&header, &seal), header.format, frames, whole.records))
}

fn part_header(header: &Header, seal: &Seal) -> PartHeader {
    PartHeader {
        block: header.id,
        partition: 0,
        partitions: header.partitions,
        block_records: seal.records,
        recovered: seal.recovered,
        end: seal.end,
        sealed_at: seal.at,
    }
}

/// The header of a block that must be `id`.
fn identify(block: &[u8], id: BlockId) -> Result<Header, BlockError> {
    let header = Header::read(block)?.ok_or(BlockError::Torn)?;
    match header.id {
        found if found == id => Ok(header),
        found if found.journal == id.journal => Err(BlockError::Recycled(found)),
        found => Err(BlockError::Foreign(found)),
    }
}

/// When the block `id` was sealed, by its first [`HEADER_BYTES`] alone.
pub(crate) fn sealed_at(block: &[u8], id: BlockId) -> Result<Timestamp, BlockError> {
    identify(block, id)?;
    Seal::read(block, frame::seed(id)).map(|seal| seal.at).ok_or(BlockError::Torn)
}

/// How many records the block `id` was sealed with, by its first [`HEADER_BYTES`] alone; `None` = they don't tell.
pub(crate) fn sealed_records(block: &[u8], id: BlockId) -> Option<u64> {
    identify(block, id).ok()?;
    Seal::read(block, frame::seed(id)).map(|seal| seal.records.into())
}

/// Whether the block `id` is the last one of its journal, by its first [`HEADER_BYTES`] alone.
pub(super) fn is_end(block: &[u8], id: BlockId) -> bool {
    identify(block, id).is_ok() && Seal::read(block, frame::seed(id)).is_some_and(|seal| seal.end)
}

/// How many partitions the log of a block of `journal` has, by its first [`HEADER_BYTES`] alone; `None` = they tell of no
/// such block.
pub(super) fn partitions_of(block: &[u8], journal: JournalId) -> Option<u16> {
    let header = Header::read(block).ok().flatten()?;
    (header.id.journal == journal).then_some(header.partitions)
}

/// How many partitions the log of the block `id` has, by its first [`HEADER_BYTES`] alone; `None` = they are not its.
pub(super) fn partitions(block: &[u8], id: BlockId) -> Option<u16> {
    identify(block, id).ok().map(|header| header.partitions)
}

/// What is left of a block that its process didn't rename.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing was written to it.
    Free,
    /// It took its seq, and no record was committed.
    Empty(BlockId),
    /// It was sealed.
    Sealed(BlockId),
    /// It was open; with this seal it ends behind its last whole record.
    Open {
        /// Which block it is.
        id: BlockId,
        /// The seal that it gets.
        seal: Seal,
        /// Bytes that had been committed and aren't whole: a power cut.
        torn: u64,
    },
}

/// What is left of `block`, a block of `journal` found open; `now` is when it gets sealed, if so.
pub(super) fn recover(block: &[u8], journal: JournalId, now: Timestamp) -> Result<Left, BlockError> {
    // Its process ended between making the file and giving it its length.
    if block.is_empty() {
        return Ok(Left::Free);
    }
    let Some(Header { id, format, .. }) = Header::read(block)? else { return Ok(Left::Free) };
    if id.journal != journal {
        return Err(BlockError::Foreign(id));
    }
    let seed = frame::seed(id);
    let committed = u64::from_le_bytes(array(block, COMMITTED_AT));
    let room = (block.len() - HEADER_BYTES) as u64;
    let frames = &block[HEADER_BYTES..][..committed.min(room) as usize];
    let whole = whole_frames(format, frames, seed);
    if let Some(seal) = Seal::read(block, seed)
        && (seal.records, seal.length, seal.folded) == (whole.records, whole.length as u64, whole.folded)
    {
        return Ok(Left::Sealed(id));
    }
    match (whole.records, committed) {
        (0, 0) => return Ok(Left::Empty(id)),
        (0, _) => return Err(BlockError::Torn),
        _ => {}
    }
    let (records, length, folded) = (whole.records, whole.length as u64, whole.folded);
    let seal = Seal { records, length, folded, at: now, recovered: true, end: false };
    Ok(Left::Open { id, seal, torn: committed.min(room) - length })
}

/// All bytes of the last block of a journal, which has no records.
pub(super) fn end_block(id: BlockId, partitions: u16, now: Timestamp, recovered: bool) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    out[..COMMITTED_AT].copy_from_slice(&Header::new(id, partitions, now).bytes());
    let seal = Seal { records: 0, length: 0, folded: 0, at: now, recovered, end: true };
    out[COMMITTED_AT..SEAL_END].copy_from_slice(&seal.bytes(frame::seed(id)));
    out
}

#[cfg(test)]
mod tests;
