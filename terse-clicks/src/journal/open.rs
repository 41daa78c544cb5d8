//! A block that a worker writes to: its file, mapped.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use terse_core::Timestamp;
use terse_core::click::BlockId;

use super::block::{COMMITTED_AT, HEADER_BYTES, Header, MAGIC_AT, Seal, fold};
use super::map::Map;
use crate::frame;
use crate::record::Record;
use crate::record::texts::Texts;

/// Files are kept in steps of this many bytes.
const PAGE_BYTES: u64 = 4_096;
/// The magic is one word.
const MAGIC_BYTES: usize = 8;

/// A block, prepared or being written. Whoever has it is its only user.
pub(super) struct Block {
    map: Map,
    file: File,
    path: PathBuf,
    begun: Option<Begun>,
}

/// How far a block is that has taken its seq.
#[derive(Clone, Copy)]
struct Begun {
    id: BlockId,
    seed: u32,
    records: u32,
    folded: u32,
    /// Bytes of all frames.
    length: usize,
}

/// A sealed block that is mapped no more.
pub(super) struct Sealed {
    /// Which block it is.
    pub(super) id: BlockId,
    /// Its file, to be synced.
    pub(super) file: File,
    /// Where it lies.
    pub(super) path: PathBuf,
    /// How many bytes of the file are used.
    pub(super) used: u64,
}

impl Block {
    /// A new block in a file at `path`, which doesn't exist yet. `zeros` are as many as the block has bytes.
    ///
    /// # Errors
    /// Why the file could not be made; then it isn't there.
    pub(super) fn create(path: PathBuf, zeros: &[u8]) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        Self::prepare(file, path, zeros)
    }

    /// The block whose file lies at `old`, used once more, at `path`.
    ///
    /// # Errors
    /// Why it could not be, [`io::ErrorKind::NotFound`] when there is no such file. The file is gone then.
    pub(super) fn recycle(old: &Path, path: PathBuf, zeros: &[u8]) -> io::Result<Self> {
        fs::rename(old, &path)?;
        let file = File::options().read(true).write(true).open(&path)?;
        Self::prepare(file, path, zeros)
    }

    fn prepare(file: File, path: PathBuf, zeros: &[u8]) -> io::Result<Self> {
        match allocate(&file, zeros).and_then(|()| Map::of(&file, zeros.len())) {
            Ok(map) => Ok(Self { map, file, path, begun: None }),
            Err(error) => {
                // What was asked for is not there; that half a file stays behind as well would be worth a word.
                if let Err(error) = fs::remove_file(&path) {
                    tracing::warn!(path = %path.display(), %error, "a block that could not be prepared stays");
                }
                Err(error)
            }
        }
    }

    /// Makes its memory such that records can be written to it at once, for some seconds: until the kernel has written
    /// its pages to disk.
    ///
    /// # Errors
    /// Why it can't be written to at all.
    pub(super) fn make_ready(&mut self) -> io::Result<()> {
        self.map.prefault()
    }

    /// Whether it has taken a seq.
    pub(super) const fn is_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// Its last record: which block it is in, and its index there.
    pub(super) fn last(&self) -> Option<(BlockId, u32)> {
        self.begun.and_then(|begun| Some((begun.id, begun.records.checked_sub(1)?)))
    }

    /// Makes it the block `id`.
    pub(super) fn begin(&mut self, id: BlockId, partitions: u16, now: Timestamp) {
        let bytes = Header::new(id, partitions, now).bytes();
        let (magic, rest) = bytes.split_at(MAGIC_BYTES);
        self.map.bytes()[MAGIC_AT + MAGIC_BYTES..COMMITTED_AT].copy_from_slice(rest);
        self.map.publish(MAGIC_AT, magic.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        self.begun = Some(Begun { id, seed: frame::seed(id), records: 0, folded: 0, length: 0 });
    }

    /// Appends a bounded record and commits it. `false` = there is no room, or the block isn't begun.
    pub(super) fn append(&mut self, record: &Record<'_>, texts: &mut Texts) -> bool {
        let Some(mut begun) = self.begun else { return false };
        let (before, room) = self.map.bytes()[HEADER_BYTES..].split_at_mut(begun.length);
        let Some(len) = frame::write(record, begun.records, begun.seed, before, room, texts) else { return false };
        let checksum = u32::from_le_bytes([room[0], room[1], room[2], room[3]]);
        begun.folded = fold(begun.folded, checksum);
        begun.records += 1;
        begun.length += len;
        self.begun = Some(begun);
        self.map.publish(COMMITTED_AT, begun.length as u64);
        true
    }

    /// Seals it: no record follows.
    pub(super) fn seal(&mut self, now: Timestamp) {
        let Some(Begun { seed, records, folded, length, .. }) = self.begun else { return };
        let seal = Seal { records, length: length as u64, folded, at: now, recovered: false, end: false }.bytes(seed);
        self.map.bytes()[COMMITTED_AT..][..seal.len()].copy_from_slice(&seal);
    }

    /// Where its file lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The block with its map given back. `None` = it was never begun, and its file is removed.
    ///
    /// # Errors
    /// Why the file of a block that was never begun could not be removed.
    pub(super) fn unmap(self) -> io::Result<Option<Sealed>> {
        let Self { map, file, path, begun } = self;
        drop(map);
        match begun {
            Some(Begun { id, length, .. }) => Ok(Some(Sealed { id, file, path, used: (HEADER_BYTES + length) as u64 })),
            None => fs::remove_file(&path).map(|()| None),
        }
    }
}

impl Sealed {
    /// Gives back what the file has beyond its records, if that is most of it: an idle server seals many blocks of few
    /// records. Returns how many bytes the file has now.
    ///
    /// # Errors
    /// Why that failed; the file is as it was.
    pub(super) fn shrink(&self) -> io::Result<u64> {
        let len = self.file.metadata()?.len();
        let needed = self.used.next_multiple_of(PAGE_BYTES);
        if needed > len / 2 {
            return Ok(len);
        }
        self.file.set_len(needed)?;
        Ok(needed)
    }
}

/// Allocates `file` on disk, so that no store to its map finds the disk full, and writes it over with `zeros`: the
/// kernel brings pages that are written in large pieces, and makes them writable in the map at a fraction of what it
/// costs to do so one by one. The zeros also wipe what an earlier block has left.
fn allocate(file: &File, zeros: &[u8]) -> io::Result<()> {
    let len = zeros.len() as u64;
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
        // Where it can't be asked for in advance, writing allocates.
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
        Err(error) => return Err(error.into()),
    }
    // A file used again may come from a run with larger blocks.
    if file.metadata()?.len() != len {
        file.set_len(len)?;
    }
    file.write_all_at(zeros, 0)
}
