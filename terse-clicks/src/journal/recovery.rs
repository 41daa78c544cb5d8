//! Journals whose process is gone: whoever gets the lock brings them to their end.
//!
//! A block that was being written is sealed behind its last whole record; one that was never begun is removed; one that
//! can't be understood is put aside. Then the journal gets its last block. What a later version of terse wrote is left
//! for that version. One step recovers at most [`MAX_RECOVERED`] blocks and journals, holding the lock, so that another
//! process may go on where this one ends.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use terse_core::Clock;
use terse_core::click::{BlockId, JournalId};

use super::block::{self, BlockError, COMMITTED_AT, HEADER_BYTES, Left, Seal};
use super::directory::{JournalDir, Name, remove_if_there};
use super::sealing::SyncFile;
use super::{MAX_BLOCK_BYTES, SyncPolicy};
use crate::frame;

/// Most blocks and journals that are recovered in one step.
pub const MAX_RECOVERED: usize = 64;
/// How old a directory gets that was to become a journal, before it is removed: making one takes milliseconds.
const UNBORN_AGE: Duration = Duration::from_secs(60);
/// How often it is looked for such directories, in milliseconds.
const UNBORN_EVERY_MS: u64 = 60_000;

/// What a step of recovery did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Journals that were brought to their end.
    pub journals: u64,
    /// Blocks that were sealed, or made visible.
    pub blocks: u64,
    /// Bytes that had been committed and were not whole, cut off.
    pub torn_bytes: u64,
    /// Blocks that were put aside.
    pub quarantined: u64,
}

impl Recovered {
    /// Whether anything was done.
    #[must_use]
    pub fn any(&self) -> bool {
        *self != Self::default()
    }

    /// Whether it is as much as a step may do: there may be more.
    pub(super) fn is_full(&self) -> bool {
        self.blocks + self.quarantined + self.journals >= MAX_RECOVERED as u64
    }
}

/// Recovers journals in one directory.
pub struct Recovery {
    root: PathBuf,
    partitions: u16,
    clock: Arc<dyn Clock>,
    /// Journals that need no recovery any more, or none by this version; no more than there are.
    settled: HashSet<JournalId>,
    /// Journals of which the log was told already that they can't be recovered.
    told: HashSet<JournalId>,
    /// When directories that never became journals were looked for last.
    looked_for_unborn_ms: Option<u64>,
    sync_file: SyncFile,
    /// Blocks of which a sync has failed: the next one would say yes all the same. No more than there are open ones.
    doubtful: HashSet<PathBuf>,
}

/// What became of a journal in a step.
enum Outcome {
    Ended,
    Unfinished,
    OfNewerVersion(u16),
}

impl Recovery {
    /// Of the journals in `root`; one in which not a single block can be read is taken to be of `partitions`.
    #[must_use]
    pub fn new(root: &Path, partitions: u16, clock: Arc<dyn Clock>) -> Self {
        let (settled, told, doubtful) = (HashSet::new(), HashSet::new(), HashSet::new());
        let sync_file = SyncPolicy::Sealed.sync_file();
        Self {
            root: root.to_owned(),
            partitions,
            clock,
            settled,
            told,
            looked_for_unborn_ms: None,
            sync_file,
            doubtful,
        }
    }

    /// With `sync_file` in the place of the call that brings a block to disk.
    #[cfg(test)]
    pub(super) fn with_sync(self, sync_file: SyncFile) -> Self {
        Self { sync_file, ..self }
    }

    pub(super) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// Makes one bounded step. It blocks on the disk.
    ///
    /// # Errors
    /// When the directory can't be listed. A journal that can't be recovered is logged, and tried again.
    pub fn recover_once(&mut self) -> io::Result<Recovered> {
        let mut done = Recovered::default();
        let journals = JournalDir::all(&self.root)?;
        let there: HashSet<_> = journals.iter().map(JournalDir::id).collect();
        self.settled.retain(|id| there.contains(id));
        self.told.retain(|id| there.contains(id));
        self.doubtful.retain(|path| path.exists());
        for journal in journals {
            if self.settled.contains(&journal.id()) {
                continue;
            }
            match self.recover(&journal, &mut done) {
                Ok(()) => {}
                Err(error) if self.told.insert(journal.id()) => {
                    tracing::error!(journal = %journal.id(), %error, "a journal can't be recovered, to be tried again");
                }
                Err(_) => {}
            }
            if done.is_full() {
                break;
            }
        }
        self.remove_unborn()?;
        Ok(done)
    }

    /// Removes what is left of processes that ended while they made their journals, if it is time to look.
    fn remove_unborn(&mut self) -> io::Result<()> {
        let now_ms = self.clock.monotonic_ms();
        if self.looked_for_unborn_ms.is_some_and(|at| now_ms.saturating_sub(at) < UNBORN_EVERY_MS) {
            return Ok(());
        }
        self.looked_for_unborn_ms = Some(now_ms);
        let now = u64::try_from(self.clock.now().as_millis()).unwrap_or(0);
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(now);
        for path in JournalDir::unborn(&self.root)?.into_iter().take(MAX_RECOVERED) {
            if let Err(error) = JournalDir::remove_unborn(&path, now, UNBORN_AGE) {
                tracing::warn!(path = %path.display(), %error, "what never became a journal can't be removed");
            }
        }
        Ok(())
    }

    fn recover(&mut self, journal: &JournalDir, done: &mut Recovered) -> io::Result<()> {
        let id = journal.id();
        if journal.ended()?.is_some() {
            self.settled.insert(id);
            return Ok(());
        }
        let Some(_lock) = journal.try_lock()? else { return Ok(()) };
        // Its process may have ended it in order a moment ago.
        if journal.ended()?.is_some() {
            return Ok(());
        }
        let step = Step {
            journal,
            clock: &*self.clock,
            partitions: self.partitions,
            sync_file: &mut self.sync_file,
            doubtful: &mut self.doubtful,
            next_seq: 0,
        };
        match step.run(done)? {
            Outcome::Unfinished => {}
            Outcome::Ended => {
                self.settled.insert(id);
                done.journals += 1;
                tracing::info!(journal = %id, "a journal whose process is gone was recovered");
            }
            Outcome::OfNewerVersion(format) => {
                self.settled.insert(id);
                tracing::warn!(journal = %id, format, "a journal waits for the newer version that wrote it");
            }
        }
        Ok(())
    }
}

/// One step with one journal, whose lock is held.
struct Step<'a> {
    journal: &'a JournalDir,
    clock: &'a dyn Clock,
    partitions: u16,
    sync_file: &'a mut SyncFile,
    doubtful: &'a mut HashSet<PathBuf>,
    next_seq: u64,
}

impl Step<'_> {
    fn run(mut self, done: &mut Recovered) -> io::Result<Outcome> {
        let blocks = self.journal.blocks()?;
        self.next_seq = self.journal.passed()?;
        for (name, _) in &blocks {
            if done.is_full() {
                return Ok(Outcome::Unfinished);
            }
            match name {
                Name::Open(_) => {
                    if let Some(format) = self.settle(*name, done)? {
                        return Ok(Outcome::OfNewerVersion(format));
                    }
                }
                Name::Block(seq) => self.saw(*seq),
            }
        }
        for (name, _) in self.journal.quarantined_blocks()? {
            if let Name::Block(seq) = name {
                self.saw(seq);
            }
        }
        self.end(done)
    }

    fn saw(&mut self, seq: u64) {
        self.next_seq = self.next_seq.max(seq + 1);
    }

    /// Settles what becomes of an open block. Returns its format if that is a newer one.
    fn settle(&mut self, name: Name, done: &mut Recovered) -> io::Result<Option<u16>> {
        let path = self.journal.file(name);
        let bytes = read_bounded(&path)?;
        let left = block::recover(&bytes, self.journal.id(), self.clock.now());
        match left {
            Ok(Left::Free) => remove_if_there(&path)?,
            Ok(Left::Empty(id)) => {
                self.saw(id.seq);
                remove_if_there(&path)?;
            }
            // Also one that its reader had passed: the read model may have been restored since.
            Ok(Left::Sealed(id)) => {
                self.sync(&path)?;
                self.publish(name, id, done)?;
            }
            Ok(Left::Open { id, seal, torn }) => {
                self.cut(name, id, &seal, torn, done)?;
                self.publish(name, id, done)?;
            }
            Err(BlockError::Newer(format)) => return Ok(Some(format)),
            Err(error) => self.put_aside(name, &error.to_string(), done)?,
        }
        Ok(None)
    }

    /// Seals a block behind its last whole record. One that was torn by more than the end of its process is kept as it
    /// was, besides.
    fn cut(&mut self, name: Name, id: BlockId, seal: &Seal, torn: u64, done: &mut Recovered) -> io::Result<()> {
        let path = self.journal.file(name);
        if torn > 0 {
            tracing::error!(block = %id, records = seal.records, torn, "a block was torn, and is cut and put aside");
            self.journal.copy_aside(name)?;
            done.torn_bytes += torn;
        }
        let file = File::options().write(true).open(&path)?;
        file.write_all_at(&seal.bytes(frame::seed(id)), COMMITTED_AT as u64)?;
        file.set_len(HEADER_BYTES as u64 + seal.length)?;
        self.sync(&path)
    }

    /// Brings a block's file to disk. If that failed once, by writing it anew: a second sync would say yes though nothing
    /// was written.
    fn sync(&mut self, path: &Path) -> io::Result<()> {
        if !self.doubtful.contains(path) {
            let Err(error) = (self.sync_file)(&File::open(path)?) else { return Ok(()) };
            tracing::error!(path = %path.display(), %error, "a block can't be synced, and is written anew");
            self.doubtful.insert(path.to_owned());
        }
        self.journal.put(path, &read_bounded(path)?)?;
        self.doubtful.remove(path);
        Ok(())
    }

    fn publish(&mut self, name: Name, id: BlockId, done: &mut Recovered) -> io::Result<()> {
        self.saw(id.seq);
        let path = self.journal.file(Name::Block(id.seq));
        if path.try_exists()? {
            return self.put_aside(name, "there is another block of its seq", done);
        }
        fs::rename(self.journal.file(name), path)?;
        done.blocks += 1;
        Ok(())
    }

    fn put_aside(&self, name: Name, reason: &str, done: &mut Recovered) -> io::Result<()> {
        let file = self.journal.quarantined(name);
        tracing::error!(file = %file.display(), reason, "a block can't be recovered and is put aside");
        done.quarantined += 1;
        self.journal.quarantine(name)
    }

    /// Gives the journal its last block. One that never had any is removed.
    fn end(self, done: &Recovered) -> io::Result<Outcome> {
        if self.next_seq == 0 && done.quarantined == 0 && self.journal.quarantined_bytes()? == 0 {
            self.journal.remove()?;
            return Ok(Outcome::Ended);
        }
        if let Some(last) = self.end_that_stands()? {
            self.journal.note_end(last)?;
            return Ok(Outcome::Ended);
        }
        let id = BlockId { journal: self.journal.id(), seq: self.next_seq };
        let partitions = self.partitions_of_the_journal()?;
        self.journal.end(id.seq, &block::end_block(id, partitions, self.clock.now(), true))?;
        Ok(Outcome::Ended)
    }

    /// The seq of the journal's last block, if that was written before its process ended.
    fn end_that_stands(&self) -> io::Result<Option<u64>> {
        let Some(seq) = self.next_seq.checked_sub(1) else { return Ok(None) };
        match read_head(&self.journal.file(Name::Block(seq))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            head => Ok(block::is_end(&head?, BlockId { journal: self.journal.id(), seq }).then_some(seq)),
        }
    }

    /// What the journal's blocks say; what was configured, if none can be read.
    fn partitions_of_the_journal(&self) -> io::Result<u16> {
        for (name, _) in self.journal.blocks()? {
            if let Name::Block(seq) = name
                && let Some(found) = block::partitions(
                    &read_head(&self.journal.file(name))?,
                    BlockId { journal: self.journal.id(), seq },
                )
            {
                return Ok(found);
            }
        }
        Ok(self.partitions)
    }
}

/// A block's file, as far as blocks can go.
pub(crate) fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BLOCK_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The beginning of a block's file.
pub(crate) fn read_head(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(HEADER_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}
