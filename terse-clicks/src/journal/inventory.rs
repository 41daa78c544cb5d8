//! What all journals of the data directory take on disk, and which of it can go.
//!
//! The journal's own blocks are noted as they come and go. Other journals are looked at every [`RELIST_MS`], and listed
//! only when something in them changed. Blocks that were passed are kept for replays while there is room, but at most
//! [`MAX_KEPT_BLOCKS`] of at most [`MAX_KEPT_JOURNALS`]; the oldest go first. Blocks that were not passed never go.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use terse_core::click::JournalId;

use super::directory::{JournalDir, Name, remove_if_there};

/// Most passed blocks that are kept for replays.
pub(super) const MAX_KEPT_BLOCKS: usize = 16_384;
/// Most journals of which all was passed that are kept for replays.
pub(super) const MAX_KEPT_JOURNALS: usize = 1_000;
/// How often other journals are looked at, in milliseconds.
pub(super) const RELIST_MS: u64 = 2_000;

pub(super) struct Inventory {
    root: PathBuf,
    own: Listed,
    /// Bytes of blocks that are mapped, or wait to be renamed.
    open_bytes: u64,
    others: BTreeMap<JournalId, Listed>,
    listed_at_ms: Option<u64>,
}

/// A journal's sealed blocks.
struct Listed {
    directory: JournalDir,
    began: SystemTime,
    changed: Option<SystemTime>,
    blocks: BTreeMap<u64, u64>,
    /// Bytes of its sealed blocks.
    bytes: u64,
    /// Bytes of other files.
    other_bytes: u64,
    passed: u64,
    ended: Option<u64>,
}

/// What can be had for a new block.
pub(super) enum Room {
    /// Room for a new file.
    Free,
    /// This file, of a passed block, to be used again.
    Recycle(PathBuf),
    /// Nothing.
    None,
}

impl Listed {
    fn new(directory: JournalDir, began: SystemTime) -> Self {
        let blocks = BTreeMap::new();
        Self { directory, began, changed: None, blocks, bytes: 0, other_bytes: 0, passed: 0, ended: None }
    }

    /// Looks at the journal again; its blocks are listed if any was added, renamed or removed.
    fn refresh(&mut self) -> io::Result<()> {
        self.passed = self.directory.passed()?;
        let changed = self.directory.changed_at()?;
        if self.changed == changed && changed.is_some() {
            return Ok(());
        }
        self.ended = self.directory.ended()?;
        self.blocks.clear();
        self.bytes = 0;
        self.other_bytes = self.directory.quarantined_bytes()?;
        for (name, bytes) in self.directory.blocks()? {
            match name {
                Name::Block(seq) => self.add(seq, bytes),
                Name::Open(_) => self.other_bytes += bytes,
            }
        }
        self.changed = changed;
        Ok(())
    }

    fn add(&mut self, seq: u64, bytes: u64) {
        self.blocks.insert(seq, bytes);
        self.bytes += bytes;
    }

    fn remove(&mut self, seq: u64) {
        self.bytes -= self.blocks.remove(&seq).unwrap_or(0);
    }

    /// The first block that was passed and is kept.
    fn oldest_kept(&self) -> Option<(u64, u64)> {
        self.blocks.first_key_value().map(|(seq, bytes)| (*seq, *bytes)).filter(|(seq, _)| *seq < self.passed)
    }

    fn kept(&self) -> usize {
        self.blocks.range(..self.passed).count()
    }

    fn is_done(&self) -> bool {
        self.ended.is_some_and(|last| self.passed > last)
    }
}

impl Inventory {
    /// Of the journal in `own`, in whose directory `root` the others are too.
    pub(super) fn new(root: &Path, own: JournalDir) -> Self {
        let own = Listed::new(own, SystemTime::UNIX_EPOCH);
        Self { root: root.to_owned(), own, open_bytes: 0, others: BTreeMap::new(), listed_at_ms: None }
    }

    /// Bytes of all journals.
    pub(super) fn bytes(&self) -> u64 {
        let others: u64 = self.others.values().map(|other| other.bytes + other.other_bytes).sum();
        self.open_bytes + self.own.bytes + self.own.other_bytes + others
    }

    /// Sealed blocks that their readers still need.
    pub(super) fn pending(&mut self) -> io::Result<u64> {
        self.own.passed = self.own.directory.passed()?;
        let all = self.others.values().chain([&self.own]);
        Ok(all.map(|journal| journal.blocks.range(journal.passed..).count() as u64).sum())
    }

    /// A block of the own journal was prepared in a file that is `bytes` long.
    pub(super) fn prepared(&mut self, bytes: u64) {
        self.open_bytes += bytes;
    }

    /// A prepared block of `bytes` is gone.
    pub(super) fn unprepared(&mut self, bytes: u64) {
        self.open_bytes -= bytes.min(self.open_bytes);
    }

    /// A prepared block of `prepared` bytes became the sealed block `seq`, of `bytes`.
    pub(super) fn sealed(&mut self, seq: u64, prepared: u64, bytes: u64) {
        self.unprepared(prepared);
        self.own.add(seq, bytes);
    }

    /// Looks at other journals if it's time for that, and lets blocks go that are too many to be kept.
    pub(super) fn refresh(&mut self, now_ms: u64) -> io::Result<()> {
        if self.listed_at_ms.is_some_and(|at| now_ms.saturating_sub(at) < RELIST_MS) {
            return Ok(());
        }
        self.listed_at_ms = Some(now_ms);
        self.own.other_bytes = self.own.directory.quarantined_bytes()?;
        self.own.passed = self.own.directory.passed()?;
        let mut others = BTreeMap::new();
        for directory in JournalDir::all(&self.root)? {
            let id = directory.id();
            if id == self.own.directory.id() {
                continue;
            }
            let began = directory.began_at()?;
            let mut listed = self.others.remove(&id).unwrap_or_else(|| Listed::new(directory, began));
            listed.refresh()?;
            others.insert(id, listed);
        }
        self.others = others;
        self.trim()
    }

    /// Looks at other journals at the next call of [`Inventory::refresh`], whenever that is.
    pub(super) fn refresh_soon(&mut self) {
        self.listed_at_ms = None;
    }

    /// Room for one more block of `block_bytes` within `budget`: passed blocks make place, oldest first. With
    /// `full_disk` a new file can't be had, whatever the budget.
    pub(super) fn room(&mut self, block_bytes: u64, budget: u64, full_disk: bool) -> io::Result<Room> {
        // As often as there are files small enough to be useless one by one.
        const STEPS: usize = 64;
        for step in 0..STEPS {
            let freed = !full_disk || step > 0;
            if freed && self.bytes() + block_bytes <= budget {
                return Ok(Room::Free);
            }
            self.own.passed = self.own.directory.passed()?;
            match self.drop_oldest(block_bytes)? {
                Some(Some(path)) => return Ok(Room::Recycle(path)),
                Some(None) => {}
                None => return Ok(Room::None),
            }
        }
        Ok(Room::None)
    }

    /// Lets the oldest kept block go while there are more than may be kept; at most some in one call, which are more
    /// than are sealed between two.
    fn trim(&mut self) -> io::Result<()> {
        const STEPS: usize = 4_096;
        for _ in 0..STEPS {
            let blocks: usize = self.others.values().chain([&self.own]).map(Listed::kept).sum();
            let journals = self.others.values().filter(|other| other.is_done()).count();
            let too_many = blocks > MAX_KEPT_BLOCKS || journals > MAX_KEPT_JOURNALS;
            if !too_many || self.drop_oldest(u64::MAX)?.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Gives up the oldest passed block: `Some(Some(path))` = its file has `wanted` bytes and is the caller's;
    /// `Some(None)` = it is removed; `None` = there is none.
    fn drop_oldest(&mut self, wanted: u64) -> io::Result<Option<Option<PathBuf>>> {
        let mut oldest: Vec<_> = self.others.values().filter(|other| other.oldest_kept().is_some()).collect();
        oldest.sort_by_key(|other| other.began);
        let ids: Vec<JournalId> = oldest.into_iter().map(|other| other.directory.id()).collect();
        for id in ids {
            // Of a journal whose process lives, that process lets blocks go.
            let Some(other) = self.others.get_mut(&id) else { continue };
            let Some(_lock) = other.directory.try_lock()? else { continue };
            if let Some((seq, _)) = other.oldest_kept() {
                other.remove(seq);
                remove_if_there(&other.directory.file(Name::Block(seq)))?;
            }
            if other.is_done() && other.blocks.is_empty() && other.directory.remove()? {
                self.others.remove(&id);
            }
            return Ok(Some(None));
        }
        let Some((seq, bytes)) = self.own.oldest_kept() else { return Ok(None) };
        let path = self.own.directory.file(Name::Block(seq));
        self.own.remove(seq);
        // It may have been put aside.
        let there = path.try_exists()?;
        if there && bytes == wanted {
            return Ok(Some(Some(path)));
        }
        fs::remove_file(&path).or_else(|error| if there { Err(error) } else { Ok(()) }).map(|()| Some(None))
    }
}
