//! What all journals of the data directory take on disk, and which of it can go.
//!
//! The journal's own blocks are noted as they come and go. Other journals are looked at every [`RELIST_MS`], and listed
//! only when something in them changed. Blocks that were passed are kept for replays while there is room, for at most
//! [`MAX_KEPT_AGE_MS`], at most [`MAX_KEPT_BLOCKS`] of at most [`MAX_KEPT_JOURNALS`]; the oldest go first, at most
//! [`MAX_REMOVED`] in a step. Blocks that were not passed never go; with [`MAX_PENDING_BLOCKS`] of them there is no
//! room for another.
//!
//! The last [`RESERVED_BYTES`] of a disk are left to others: the read model needs some to count what waits, links to be
//! edited. On a disk with less, passed blocks are removed rather than used again, and if none is left there is no room.
//!
//! A journal of which a file can't be removed is left alone for a while; the others go on.
//!
//! There are two locks. What several threads ask for is behind one that is never held over the disk; the other journals
//! are behind one that only the thread takes which prepares blocks.

mod listed;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use terse_core::click::{BlockId, JournalId};
use terse_core::{Clock, Timestamp};

use self::listed::{Blocks, Listed};
use super::directory::{JournalDir, Name};
use super::{block, read_head};
use crate::outage::Outage;

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
/// Bytes of a disk that the journals leave free, or a sixteenth of it, if that is less.
pub(super) const RESERVED_BYTES: u64 = 16 << 20;
/// How often other journals are looked at, in milliseconds.
pub(super) const RELIST_MS: u64 = 2_000;
/// Most files that are removed in one step.
pub(super) const MAX_REMOVED: usize = 64;
/// After so many milliseconds a step removes no more.
const MAX_REMOVING_MS: u64 = 5;

pub(super) struct Inventory {
    root: PathBuf,
    own: JournalDir,
    disk: AskDisk,
    /// Whether the disk was found nearly full since the last look at other journals.
    was_short: AtomicBool,
    /// Whether the log was told so.
    shortage: Mutex<Outage>,
    ledger: Mutex<Ledger>,
    others: Mutex<Others>,
}

/// How much room the disk has that a directory is on.
type AskDisk = Box<dyn Fn(&Path) -> io::Result<Disk> + Send + Sync>;

/// Room on a disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Disk {
    /// Bytes that can still be written.
    pub(super) free: u64,
    /// Bytes in all.
    pub(super) all: u64,
}

impl Disk {
    fn of(path: &Path) -> io::Result<Self> {
        let found = rustix::fs::statvfs(path)?;
        Ok(Self {
            free: found.f_bavail.saturating_mul(found.f_frsize),
            all: found.f_blocks.saturating_mul(found.f_frsize),
        })
    }

    /// Whether so many bytes can be had of it. A file system that tells nothing (one in memory without a bound, say) is
    /// full when writing fails.
    pub(super) fn has_room(self, bytes: u64) -> bool {
        self.all == 0 || self.free >= bytes.saturating_add(RESERVED_BYTES.min(self.all / 16))
    }
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
    /// It is removed, with so many bytes.
    Removed(u64),
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
        let (ledger, others) = (Mutex::default(), Mutex::default());
        let (disk, was_short): (AskDisk, _) = (Box::new(Disk::of), AtomicBool::new(false));
        Self { root: root.to_owned(), own, disk, was_short, shortage: Mutex::default(), ledger, others }
    }

    /// On a disk that has what `disk` tells.
    #[cfg(test)]
    pub(super) fn on_disk(self, disk: impl Fn(&Path) -> io::Result<Disk> + Send + Sync + 'static) -> Self {
        Self { disk: Box::new(disk), ..self }
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
        // In one step: between two there would seem to be room that is not.
        let mut ledger = self.ledger.lock();
        ledger.open_bytes -= prepared.min(ledger.open_bytes);
        ledger.own.add(seq, bytes);
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
            self.tell_shortage(now_ms)?;
        }
        if others.to_trim {
            others.to_trim = self.trim(&mut others, clock)?;
        }
        Ok(())
    }

    /// Whether there may be more blocks to let go than the last call of [`Inventory::refresh`] did.
    pub(super) fn is_trimming(&self) -> bool {
        self.others.lock().to_trim
    }

    /// Looks at other journals at the next call of [`Inventory::refresh`], whenever that is.
    pub(super) fn refresh_soon(&self) {
        self.ledger.lock().look_soon = true;
    }

    /// Room for one more block of `block_bytes` within `budget`: passed blocks make place, oldest first. With
    /// `full_disk` a new file could not be had just now; then more room is made than it takes, for others to use.
    pub(super) fn room(&self, block_bytes: u64, budget: u64, full_disk: bool) -> io::Result<Room> {
        let mut freed = 0;
        // Files may be small enough to be useless one by one.
        for removed in 0..=MAX_REMOVED {
            let is_short = self.is_disk_short(block_bytes)?;
            let is_freed = !full_disk || freed >= RESERVED_BYTES;
            if is_freed && !is_short && self.has_room(block_bytes, budget) {
                return Ok(Room::Free);
            }
            self.read_passed()?;
            if self.ledger.lock().pending() >= MAX_PENDING_BLOCKS || removed == MAX_REMOVED {
                break;
            }
            // A file that is used again is no room for whoever shares the disk.
            let wanted = if full_disk || is_short { u64::MAX } else { block_bytes };
            match self.drop_oldest(&mut self.others.lock(), wanted)? {
                Gone::Given(path) => return Ok(Room::Recycle(path)),
                Gone::Removed(bytes) => freed += bytes,
                Gone::None => break,
            }
        }
        let worth_a_try = freed > 0 && self.has_room(block_bytes, budget) && !self.is_disk_short(block_bytes)?;
        Ok(if worth_a_try { Room::Free } else { Room::None })
    }

    /// Whether the disk has no room for a block besides what is left to others.
    fn is_disk_short(&self, block_bytes: u64) -> io::Result<bool> {
        let disk = (self.disk)(&self.root)?;
        let is_short = !disk.has_room(block_bytes);
        if is_short {
            self.was_short.store(true, Ordering::Relaxed);
        }
        Ok(is_short)
    }

    /// Whether that is why there was no [`room`](Self::room) just now, and not the budget.
    pub(super) fn is_short(&self) -> bool {
        self.was_short.load(Ordering::Relaxed)
    }

    /// Logs when the disk becomes nearly full, and when it has been well for a while.
    fn tell_shortage(&self, now_ms: u64) -> io::Result<()> {
        let directory = self.root.display();
        match self.shortage_changed(now_ms)? {
            Some((true, free)) => tracing::error!(
                %directory, free,
                "the disk is nearly full: clicks get no more of it, and are dropped when nothing that is counted can make \
                 place; free some of it, or move the data directory to a larger one",
            ),
            Some((false, free)) => tracing::info!(%directory, free, "the disk has room for clicks again"),
            None => {}
        }
        Ok(())
    }

    /// Whether the disk has become nearly full or has been well for a while, and what is free. What is freed is used
    /// again, so it would be told each time else.
    pub(super) fn shortage_changed(&self, now_ms: u64) -> io::Result<Option<(bool, u64)>> {
        let was_short = self.was_short.swap(false, Ordering::Relaxed);
        let mut shortage = self.shortage.lock();
        if !was_short && !shortage.is_on() {
            return Ok(None);
        }
        let disk = (self.disk)(&self.root)?;
        // Nobody may have asked for room meanwhile.
        let is_short = was_short || !disk.has_room(0);
        let changed = if is_short { shortage.begins(now_ms) } else { shortage.is_over(now_ms) };
        Ok(changed.then_some((is_short, disk.free)))
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
        if let Some(bytes) = others.drop_first(|_| true) {
            self.note(others);
            return Ok(Gone::Removed(bytes));
        }
        self.drop_own(wanted)
    }

    /// Removes a passed block that is too old to be kept; `false` = there is none.
    fn drop_aged(&self, others: &mut Others, now: Timestamp) -> io::Result<bool> {
        let is_aged = |sealed: Option<Timestamp>| {
            sealed.is_some_and(|at| now.as_millis().saturating_sub(at.as_millis()) > MAX_KEPT_AGE_MS)
        };
        if others.drop_first(|other| is_aged(other.oldest_sealed_at())).is_some() {
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
        Ok(Gone::Removed(bytes))
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
        self.remove_empty();
        Ok(())
    }

    /// Removes journals whose last block went before they did.
    fn remove_empty(&mut self) {
        let empty = self.journals.iter().filter(|(_, other)| other.is_empty() && other.is_done() && !other.rests());
        let empty: Vec<JournalId> = empty.map(|(id, _)| *id).take(MAX_REMOVED).collect();
        for id in empty {
            if self.journals.get_mut(&id).is_some_and(Listed::remove) {
                self.journals.remove(&id);
            }
        }
    }

    /// Those whose blocks can be removed, as far as is known.
    fn removable(&self) -> impl Iterator<Item = &Listed> {
        self.journals.values().filter(|other| !other.is_stuck())
    }

    fn kept(&self) -> usize {
        self.removable().map(|other| other.blocks.kept()).sum()
    }

    /// Journals of which all was passed, and some is kept.
    fn done(&self) -> usize {
        self.removable().filter(|other| other.is_done() && other.blocks.kept() > 0).count()
    }

    /// Removes the oldest passed block of the oldest journal that is `fit`; how many bytes it had. `None` = there is none.
    fn drop_first(&mut self, mut fit: impl FnMut(&mut Listed) -> bool) -> Option<u64> {
        for id in &self.order {
            let Some(other) = self.journals.get_mut(id) else { continue };
            if other.rests() || other.blocks.oldest_kept().is_none() || !fit(other) {
                continue;
            }
            let Some(bytes) = other.drop_oldest_kept() else { continue };
            if other.is_done() && other.is_empty() && other.remove() {
                self.journals.remove(id);
            }
            return Some(bytes);
        }
        None
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
