//! What all journals of the data directory take on disk, and which of it can go.
//!
//! The journal's own blocks are noted as they come and go. Other journals are looked at every [`RELIST_MS`], and listed
//! only when something in them changed. Blocks that were passed are kept for replays while there is room, for at most
//! [`MAX_KEPT_AGE_MS`], at most [`MAX_KEPT_BLOCKS`] of at most [`MAX_KEPT_JOURNALS`]; the oldest go first, at most
//! [`MAX_REMOVED`] in a step. Blocks that were not passed never go; with [`MAX_PENDING_BLOCKS`] of them there is no
//! room for another.
//!
//! There are two locks. What several threads ask for is behind one that is never held over the disk; the other journals
//! are behind one that only the thread takes which prepares blocks.

mod listed;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use terse_core::click::{BlockId, JournalId};
use terse_core::{Clock, Timestamp};

use self::listed::{Blocks, Listed};
use super::directory::{JournalDir, Name};
use super::{block, read_head};

/// Most passed blocks that are kept for replays.
pub(super) const MAX_KEPT_BLOCKS: usize = 16_384;
/// Most journals of which all was passed that are kept for replays.
pub(super) const MAX_KEPT_JOURNALS: usize = 1_000;
/// How long after it was sealed a passed block is kept for replays, in milliseconds: a week.
pub(super) const MAX_KEPT_AGE_MS: i64 = 7 * 24 * 3_600_000;
/// Most blocks that wait for their readers, in all journals, besides those that are mapped. A file takes a page and an
/// inode, however few clicks it has: beyond, clicks are dropped as when the budget is used up.
pub(super) const MAX_PENDING_BLOCKS: u64 = 65_536;
/// With so many blocks that wait, it is not worth much to make more of them soon: they get older.
pub(super) const MANY_PENDING_BLOCKS: u64 = 4_096;
/// How often other journals are looked at, in milliseconds.
pub(super) const RELIST_MS: u64 = 2_000;
/// Most files that are removed in one step.
pub(super) const MAX_REMOVED: usize = 64;
/// After so many milliseconds a step removes no more.
const MAX_REMOVING_MS: u64 = 5;

pub(super) struct Inventory {
    root: PathBuf,
    own: JournalDir,
    ledger: Mutex<Ledger>,
    others: Mutex<Others>,
}

/// What several threads ask for. Whoever has its lock does not touch the disk.
#[derive(Default)]
struct Ledger {
    own: Blocks,
    /// Bytes of the own journal that were put aside.
    aside_bytes: u64,
    /// Bytes of blocks that are mapped, or wait to be renamed.
    open_bytes: u64,
    /// Bytes of other journals.
    others_bytes: u64,
    /// Blocks of other journals that their readers still need.
    others_pending: u64,
    look_soon: bool,
}

/// The journals of other processes.
#[derive(Default)]
struct Others {
    journals: BTreeMap<JournalId, Listed>,
    /// Those, the oldest first.
    order: Vec<JournalId>,
    looked_at_ms: Option<u64>,
    /// Whether there may be blocks that are kept though they need not be.
    to_trim: bool,
    /// When the own journal's oldest kept block was sealed.
    own_oldest: Option<(u64, Timestamp)>,
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

/// What became of the oldest passed block.
enum Gone {
    /// Its file is the caller's.
    Given(PathBuf),
    Removed,
    /// There is none.
    None,
}

impl Ledger {
    fn bytes(&self) -> u64 {
        self.open_bytes + self.own.bytes() + self.aside_bytes + self.others_bytes
    }

    fn pending(&self) -> u64 {
        self.own.pending() + self.others_pending
    }
}

impl Inventory {
    /// Of the journal in `own`, in whose directory `root` the others are too.
    pub(super) fn new(root: &Path, own: JournalDir) -> Self {
        Self { root: root.to_owned(), own, ledger: Mutex::default(), others: Mutex::default() }
    }

    /// Bytes of all journals.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.ledger.lock().bytes()
    }

    /// Sealed blocks that their readers still need.
    pub(super) fn pending(&self) -> io::Result<u64> {
        self.read_passed()?;
        Ok(self.ledger.lock().pending())
    }

    /// Whether there are so many of them that it is not worth much to make more of them soon.
    pub(super) fn are_many_pending(&self) -> bool {
        self.ledger.lock().pending() >= MANY_PENDING_BLOCKS
    }

    fn read_passed(&self) -> io::Result<()> {
        let passed = self.own.passed()?;
        self.ledger.lock().own.pass(passed);
        Ok(())
    }

    /// A block of the own journal was prepared in a file that is `bytes` long.
    pub(super) fn prepared(&self, bytes: u64) {
        self.ledger.lock().open_bytes += bytes;
    }

    /// A prepared block of `bytes` is gone.
    pub(super) fn unprepared(&self, bytes: u64) {
        let mut ledger = self.ledger.lock();
        ledger.open_bytes -= bytes.min(ledger.open_bytes);
    }

    /// A prepared block of `prepared` bytes became the sealed block `seq`, of `bytes`.
    pub(super) fn sealed(&self, seq: u64, prepared: u64, bytes: u64) {
        self.unprepared(prepared);
        self.ledger.lock().own.add(seq, bytes);
    }

    /// Looks at other journals if it's time for that, and lets blocks go that are not to be kept any more, a few at a
    /// time.
    pub(super) fn refresh(&self, clock: &dyn Clock) -> io::Result<()> {
        let now_ms = clock.monotonic_ms();
        let soon = std::mem::take(&mut self.ledger.lock().look_soon);
        let mut others = self.others.lock();
        if soon || others.looked_at_ms.is_none_or(|at| now_ms.saturating_sub(at) >= RELIST_MS) {
            others.looked_at_ms = Some(now_ms);
            others.look(&self.root, self.own.id(), now_ms)?;
            let aside_bytes = self.own.quarantined_bytes()?;
            self.ledger.lock().aside_bytes = aside_bytes;
            self.read_passed()?;
            self.note(&others);
            others.to_trim = true;
        }
        if others.to_trim {
            others.to_trim = self.trim(&mut others, clock)?;
        }
        Ok(())
    }

    /// Looks at other journals at the next call of [`Inventory::refresh`], whenever that is.
    pub(super) fn refresh_soon(&self) {
        self.ledger.lock().look_soon = true;
    }

    /// Room for one more block of `block_bytes` within `budget`: passed blocks make place, oldest first. With
    /// `full_disk` a new file can't be had, whatever the budget.
    pub(super) fn room(&self, block_bytes: u64, budget: u64, full_disk: bool) -> io::Result<Room> {
        // Files may be small enough to be useless one by one.
        for removed in 0..=MAX_REMOVED {
            let freed = !full_disk || removed > 0;
            if freed && self.has_room(block_bytes, budget) {
                return Ok(Room::Free);
            }
            self.read_passed()?;
            if self.ledger.lock().pending() >= MAX_PENDING_BLOCKS || removed == MAX_REMOVED {
                break;
            }
            match self.drop_oldest(&mut self.others.lock(), block_bytes)? {
                Gone::Given(path) => return Ok(Room::Recycle(path)),
                Gone::Removed => {}
                Gone::None => break,
            }
        }
        Ok(Room::None)
    }

    fn has_room(&self, block_bytes: u64, budget: u64) -> bool {
        let ledger = self.ledger.lock();
        ledger.bytes() + block_bytes <= budget && ledger.pending() < MAX_PENDING_BLOCKS
    }

    /// Lets blocks go that are too many or too old to be kept. Returns whether there may be more of them.
    fn trim(&self, others: &mut Others, clock: &dyn Clock) -> io::Result<bool> {
        let began_ms = clock.monotonic_ms();
        for _ in 0..MAX_REMOVED {
            let kept = others.kept() + self.ledger.lock().own.kept();
            let too_many = kept > MAX_KEPT_BLOCKS || others.done() > MAX_KEPT_JOURNALS;
            let removed = too_many && !matches!(self.drop_oldest(others, u64::MAX)?, Gone::None);
            if !removed && !self.drop_aged(others, clock.now())? {
                return Ok(false);
            }
            if clock.monotonic_ms().saturating_sub(began_ms) >= MAX_REMOVING_MS {
                break;
            }
        }
        Ok(true)
    }

    /// Gives up the oldest passed block; its file is the caller's if it has `wanted` bytes.
    fn drop_oldest(&self, others: &mut Others, wanted: u64) -> io::Result<Gone> {
        if others.drop_first(|_| true)? {
            self.note(others);
            return Ok(Gone::Removed);
        }
        self.drop_own(wanted)
    }

    /// Removes a passed block that is too old to be kept; `false` = there is none.
    fn drop_aged(&self, others: &mut Others, now: Timestamp) -> io::Result<bool> {
        let is_aged = |sealed: Option<Timestamp>| {
            sealed.is_some_and(|at| now.as_millis().saturating_sub(at.as_millis()) > MAX_KEPT_AGE_MS)
        };
        if others.drop_first(|other| is_aged(other.oldest_sealed_at()))? {
            self.note(others);
            return Ok(true);
        }
        let Some((seq, _)) = self.ledger.lock().own.oldest_kept() else { return Ok(false) };
        let sealed = sealed_at(&self.own, seq, &mut others.own_oldest);
        Ok(is_aged(sealed) && !matches!(self.drop_own(u64::MAX)?, Gone::None))
    }

    fn drop_own(&self, wanted: u64) -> io::Result<Gone> {
        let Some((seq, bytes)) = self.ledger.lock().own.take_oldest_kept() else { return Ok(Gone::None) };
        let path = self.own.file(Name::Block(seq));
        // It may have been put aside.
        let there = path.try_exists()?;
        if there && bytes == wanted {
            return Ok(Gone::Given(path));
        }
        if let Err(error) = fs::remove_file(&path)
            && there
        {
            self.ledger.lock().own.add(seq, bytes);
            return Err(error);
        }
        Ok(Gone::Removed)
    }

    #[cfg(test)]
    pub(super) fn hold_others(&self) -> impl Sized + '_ {
        self.others.lock()
    }

    fn note(&self, others: &Others) {
        let bytes = others.journals.values().map(Listed::bytes).sum();
        let pending = others.journals.values().map(|other| other.blocks.pending()).sum();
        let mut ledger = self.ledger.lock();
        (ledger.others_bytes, ledger.others_pending) = (bytes, pending);
    }
}

impl Others {
    /// Looks at all journals in `root` but `own`. One that can't be looked at stays as it was known.
    fn look(&mut self, root: &Path, own: JournalId, now_ms: u64) -> io::Result<()> {
        let all = JournalDir::all(root)?;
        let mut before = std::mem::take(&mut self.journals);
        for directory in all.into_iter().filter(|directory| directory.id() != own) {
            let id = directory.id();
            let mut listed = before.remove(&id).unwrap_or_else(|| Listed::new(directory));
            listed.look(now_ms);
            self.journals.insert(id, listed);
        }
        self.order = self.journals.keys().copied().collect();
        self.order.sort_by_key(|id| self.journals.get(id).map(Listed::began));
        self.remove_empty()
    }

    /// Removes journals whose last block went before they did.
    fn remove_empty(&mut self) -> io::Result<()> {
        let empty = self.journals.iter().filter(|(_, other)| other.is_empty() && other.is_done());
        let empty: Vec<JournalId> = empty.map(|(id, _)| *id).take(MAX_REMOVED).collect();
        for id in empty {
            let Some(other) = self.journals.get(&id) else { continue };
            if let Some(_lock) = other.directory.try_lock()?
                && other.directory.remove()?
            {
                self.journals.remove(&id);
            }
        }
        Ok(())
    }

    fn kept(&self) -> usize {
        self.journals.values().map(|other| other.blocks.kept()).sum()
    }

    /// Journals of which all was passed, and some is kept.
    fn done(&self) -> usize {
        self.journals.values().filter(|other| other.is_done() && other.blocks.kept() > 0).count()
    }

    /// Removes the oldest passed block of the oldest journal that is `fit`. `false` = there is none.
    fn drop_first(&mut self, mut fit: impl FnMut(&mut Listed) -> bool) -> io::Result<bool> {
        for id in &self.order {
            let Some(other) = self.journals.get_mut(id) else { continue };
            if other.blocks.oldest_kept().is_none() || !fit(other) {
                continue;
            }
            // Of a journal whose process lives, that process lets blocks go.
            let Some(_lock) = other.directory.try_lock()? else { continue };
            other.remove_oldest_kept()?;
            if other.is_done() && other.is_empty() && other.directory.remove()? {
                self.journals.remove(id);
            }
            return Ok(true);
        }
        Ok(false)
    }
}

/// When the block `seq` was sealed, from what is `known` or its file; `None` = it can't be told.
fn sealed_at(directory: &JournalDir, seq: u64, known: &mut Option<(u64, Timestamp)>) -> Option<Timestamp> {
    if let Some((known, at)) = known
        && *known == seq
    {
        return Some(*at);
    }
    let head = read_head(&directory.file(Name::Block(seq))).ok()?;
    let at = block::sealed_at(&head, BlockId { journal: directory.id(), seq }).ok()?;
    *known = Some((seq, at));
    Some(at)
}
