//! A journal's blocks, as they were listed.

use std::collections::BTreeMap;
use std::io;
use std::time::SystemTime;

use terse_core::Timestamp;

use super::sealed_at;
use crate::journal::directory::{JournalDir, Name, remove_if_there};

/// A directory's time of change may stand still for some milliseconds, so for so long after it was seen to change, it
/// is listed whatever it tells.
const SETTLED_MS: u64 = 1_000;

/// When a journal is tried again of which a file could not be removed, in milliseconds.
const STUCK_MS: u64 = 60_000;

/// The sealed blocks of a journal. All it tells is known without counting.
#[derive(Default)]
pub(super) struct Blocks {
    bytes_of: BTreeMap<u64, u64>,
    bytes: u64,
    passed: u64,
    kept: usize,
}

impl Blocks {
    pub(super) fn add(&mut self, seq: u64, bytes: u64) {
        match self.bytes_of.insert(seq, bytes) {
            Some(before) => self.bytes -= before,
            None => self.kept += usize::from(seq < self.passed),
        }
        self.bytes += bytes;
    }

    /// From now on the first `passed` blocks are needed no more.
    pub(super) fn pass(&mut self, passed: u64) {
        if passed >= self.passed {
            self.kept += self.bytes_of.range(self.passed..passed).count();
        } else {
            self.kept = self.bytes_of.range(..passed).count();
        }
        self.passed = passed;
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Blocks that were passed.
    pub(super) fn kept(&self) -> usize {
        self.kept
    }

    /// Blocks that were not passed.
    pub(super) fn pending(&self) -> u64 {
        (self.bytes_of.len() - self.kept) as u64
    }

    /// The first block that was passed and is kept, with its bytes.
    pub(super) fn oldest_kept(&self) -> Option<(u64, u64)> {
        self.bytes_of.first_key_value().map(|(seq, bytes)| (*seq, *bytes)).filter(|(seq, _)| *seq < self.passed)
    }

    pub(super) fn take_oldest_kept(&mut self) -> Option<(u64, u64)> {
        let (seq, bytes) = self.oldest_kept()?;
        self.bytes_of.remove(&seq);
        self.bytes -= bytes;
        self.kept -= 1;
        Some((seq, bytes))
    }
}

/// A journal of another process.
pub(super) struct Listed {
    pub(super) directory: JournalDir,
    pub(super) blocks: Blocks,
    /// Bytes of other files.
    other_bytes: u64,
    began: SystemTime,
    ended: Option<u64>,
    changed: Option<SystemTime>,
    /// When it was first seen with that time of change.
    changed_ms: u64,
    listed_ms: Option<u64>,
    oldest: Option<(u64, Timestamp)>,
    /// Whether the log was told that it can't be looked at.
    told: bool,
    looked_ms: u64,
    /// When it may be tried again to remove a file of it, after that failed.
    stuck_until_ms: Option<u64>,
}

impl Listed {
    pub(super) fn new(directory: JournalDir) -> Self {
        Self {
            directory,
            blocks: Blocks::default(),
            other_bytes: 0,
            began: SystemTime::UNIX_EPOCH,
            ended: None,
            changed: None,
            changed_ms: 0,
            listed_ms: None,
            oldest: None,
            told: false,
            looked_ms: 0,
            stuck_until_ms: None,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.blocks.bytes() + self.other_bytes
    }

    pub(super) fn began(&self) -> SystemTime {
        self.began
    }

    pub(super) fn is_done(&self) -> bool {
        self.ended.is_some_and(|last| self.blocks.passed > last)
    }

    /// Whether it has neither blocks nor anything that was put aside.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes() == 0 && self.blocks.bytes_of.is_empty()
    }

    /// Looks at the journal again. If it can't be looked at, the log is told once, and what was known stays.
    pub(super) fn look(&mut self, now_ms: u64) {
        self.looked_ms = now_ms;
        let looked = self.try_look(now_ms);
        if let Err(error) = &looked
            && !self.told
        {
            tracing::warn!(journal = %self.directory.id(), %error, "a journal can't be looked at");
        }
        self.told = looked.is_err();
    }

    /// Its blocks are listed if any was added, renamed or removed.
    fn try_look(&mut self, now_ms: u64) -> io::Result<()> {
        let changed = self.directory.changed_at()?;
        if self.changed != changed || changed.is_none() {
            (self.changed, self.changed_ms) = (changed, now_ms);
        }
        if self.listed_ms.is_some_and(|at| at >= self.changed_ms + SETTLED_MS) && self.is_done() {
            // There is no more to pass.
            return Ok(());
        }
        let passed = self.directory.passed()?;
        if self.listed_ms.is_none_or(|at| at < self.changed_ms + SETTLED_MS) {
            self.list()?;
            self.listed_ms = Some(now_ms);
        }
        self.blocks.pass(passed);
        Ok(())
    }

    fn list(&mut self) -> io::Result<()> {
        let (began, ended) = (self.directory.began_at()?, self.directory.ended()?);
        let mut other_bytes = self.directory.quarantined_bytes()?;
        let mut blocks = Blocks::default();
        for (name, bytes) in self.directory.blocks()? {
            match name {
                Name::Block(seq) => blocks.add(seq, bytes),
                Name::Open(_) => other_bytes += bytes,
            }
        }
        (self.began, self.ended, self.other_bytes, self.blocks) = (began, ended, other_bytes, blocks);
        Ok(())
    }

    /// When its oldest kept block was sealed; `None` = it can't be told.
    pub(super) fn oldest_sealed_at(&mut self) -> Option<Timestamp> {
        let (seq, _) = self.blocks.oldest_kept()?;
        sealed_at(&self.directory, seq, &mut self.oldest)
    }

    /// Whether a file of it could not be removed.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck_until_ms.is_some()
    }

    /// Whether it is not to be tried yet to remove a file of it.
    pub(super) fn rests(&self) -> bool {
        self.stuck_until_ms.is_some_and(|until_ms| self.looked_ms < until_ms)
    }

    /// Removes its oldest kept block; how many bytes that had. `None` = it has none, its process lives, which lets its
    /// blocks go itself, or it can't be removed now.
    pub(super) fn drop_oldest_kept(&mut self) -> Option<u64> {
        let (seq, bytes) = self.blocks.oldest_kept()?;
        let path = self.directory.file(Name::Block(seq));
        let removed = self.locked(|_| remove_if_there(&path).map(|()| true));
        removed.then(|| {
            self.blocks.take_oldest_kept();
            bytes
        })
    }

    /// Removes the journal; whether it is gone.
    pub(super) fn remove(&mut self) -> bool {
        self.locked(JournalDir::remove)
    }

    /// Does `work` with the journal's lock; what it tells, or `false` if somebody else has the lock, or it failed. Of that
    /// the log is told once.
    fn locked(&mut self, work: impl FnOnce(&JournalDir) -> io::Result<bool>) -> bool {
        let done = match self.directory.try_lock() {
            Ok(Some(_lock)) => work(&self.directory),
            Ok(None) => return false,
            Err(error) => Err(error),
        };
        match done {
            Ok(done) => {
                self.stuck_until_ms = None;
                done
            }
            Err(error) => {
                if self.stuck_until_ms.is_none() {
                    tracing::error!(journal = %self.directory.id(), %error, "files of a journal can't be removed");
                }
                self.stuck_until_ms = Some(self.looked_ms + STUCK_MS);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use terse_core::click::JournalId;

    use super::*;

    #[test]
    fn what_is_told_of_blocks_is_what_counting_tells() {
        let mut blocks = Blocks::default();
        for seq in [3, 0, 7, 4, 9] {
            blocks.add(seq, 10 + seq);
        }
        blocks.add(7, 1);
        for passed in [0, 4, 5, 20, 4, 0, 8] {
            blocks.pass(passed);
            blocks.add(passed, 5);
            blocks.add(passed.saturating_sub(1), 6);
            let kept = blocks.bytes_of.range(..passed).count();
            assert_eq!((blocks.kept(), blocks.pending()), (kept, (blocks.bytes_of.len() - kept) as u64));
            assert_eq!(blocks.bytes(), blocks.bytes_of.values().sum::<u64>());
        }
        let mut taken = Vec::new();
        while let Some((seq, _)) = blocks.take_oldest_kept() {
            taken.push(seq);
        }
        assert!(taken.is_sorted() && taken.iter().all(|seq| *seq < 8), "{taken:?}");
        assert_eq!((blocks.kept(), blocks.bytes()), (0, blocks.bytes_of.values().sum::<u64>()));
    }

    #[test]
    fn a_change_is_seen_though_the_clock_of_the_disk_stood_still() {
        let root = tempfile::tempdir().unwrap();
        let (directory, _lock) = JournalDir::create(root.path(), JournalId([7; 16])).unwrap();
        let path = directory.file(Name::Block(0));
        let mut listed = Listed::new(directory.clone());
        listed.look(1_000);
        let changed = listed.changed.unwrap();
        fs::write(&path, "block").unwrap();
        fs::File::open(path.parent().unwrap()).unwrap().set_modified(changed).unwrap();
        listed.look(1_100);
        assert_eq!(listed.blocks.pending(), 1);
        fs::remove_file(&path).unwrap();
        fs::File::open(path.parent().unwrap()).unwrap().set_modified(changed).unwrap();
        listed.look(3_100);
        assert_eq!(listed.blocks.pending(), 0, "once more when it has settled");
    }
}
