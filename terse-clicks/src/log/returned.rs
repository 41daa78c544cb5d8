//! Blocks that an operator has asked to be counted after all.
//!
//! They come behind all that stands before them: a block is delivered once its journal's reader is past it and the read
//! model includes what was delivered up to there. From then on nothing but the set of blocks passed says whether it is
//! counted. It stays where it is until it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use terse_core::click::{BlockId, JournalId};
use terse_core::stats::Partition;

use super::quarantine::{self, Quarantine};
use super::{Body, Delivery};
use crate::journal;
use crate::journal::directory::{JournalDir, Name};

/// Most of them that are known at a time; the others are looked for when these are done with.
const MAX_RETURNED: usize = 256;

/// The blocks that were asked for in the journals of a directory.
pub(super) struct Returned {
    root: PathBuf,
    /// How often something was decided when that was looked at last.
    seen: Option<u64>,
    waiting: BTreeMap<JournalId, BTreeSet<u64>>,
    /// Those of them that are delivered, and not told as counted.
    delivered: BTreeSet<(JournalId, u64)>,
    /// The last offset of started journals that the read model includes.
    included: BTreeMap<JournalId, u64>,
}

impl Returned {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            seen: None,
            waiting: BTreeMap::new(),
            delivered: BTreeSet::new(),
            included: BTreeMap::new(),
        }
    }

    /// Looks for blocks that were asked for, if anything was decided since the last look. It reads one small file.
    pub(super) fn look(&mut self) {
        let quarantine = Quarantine::new(&self.root);
        let looked = quarantine.requests().and_then(|requests| {
            if self.seen != Some(requests) {
                self.waiting = quarantine.requeued(MAX_RETURNED)?;
                self.seen = Some(requests);
            }
            Ok(())
        });
        if let Err(error) = looked {
            tracing::warn!(%error, "blocks that are to be counted again can't be looked for");
        }
    }

    /// Whether any block of `journal` is to be counted again.
    pub(super) fn has(&self, journal: JournalId) -> bool {
        self.waiting.contains_key(&journal)
    }

    /// The read model includes `journal` up to `offset`, and what it was told to include before.
    pub(super) fn includes(&mut self, journal: JournalId, offset: u64) {
        let included = self.included.entry(journal).or_insert(offset);
        *included = offset.max(*included);
    }

    /// Nothing of `journal` is read any more: what was delivered of it comes again.
    pub(super) fn forget(&mut self, journal: JournalId) {
        self.included.remove(&journal);
        self.delivered.retain(|(delivered, _)| *delivered != journal);
    }

    /// The next block that can be delivered now.
    pub(super) fn next(&self) -> Option<BlockId> {
        let ready = |journal: &JournalId, seq: &u64| {
            self.included.get(journal).is_some_and(|included| seq <= included)
                && !self.delivered.contains(&(*journal, *seq))
        };
        self.waiting.iter().find_map(|(journal, seqs)| {
            let seq = seqs.iter().find(|seq| ready(journal, seq))?;
            Some(BlockId { journal: *journal, seq: *seq })
        })
    }

    /// Notes that `id` is delivered.
    pub(super) fn delivers(&mut self, id: BlockId) {
        self.delivered.insert((id.journal, id.seq));
    }

    /// Whether `id` is one of them that was delivered.
    pub(super) fn is_delivered(&self, id: BlockId) -> bool {
        self.delivered.contains(&(id.journal, id.seq))
    }

    /// Lets `id` go: it is among the other blocks again, or aside.
    pub(super) fn done(&mut self, id: BlockId) {
        self.delivered.remove(&(id.journal, id.seq));
        if let Some(seqs) = self.waiting.get_mut(&id.journal) {
            seqs.remove(&id.seq);
            if seqs.is_empty() {
                self.waiting.remove(&id.journal);
            }
        }
        if self.waiting.is_empty() {
            // There may be more than are known at a time.
            self.seen = None;
        }
    }
}

/// Reads the block `id`, which is aside. `None` = it isn't any more.
pub(super) fn read(root: &Path, id: BlockId) -> Option<Delivery> {
    let path = JournalDir::of(root, id.journal).quarantined(Name::Block(id.seq));
    let bytes = journal::read_bounded(&path).ok()?.into();
    let body = match journal::read(&bytes, id) {
        Ok(part) => Body::Part(part),
        // Also one of a newer format: its journal is not to wait for it.
        Err(error) => Body::Undecodable { bytes, reason: error.to_string() },
    };
    Some(Delivery { partition: Partition::Journal(id.journal), offset: id.seq, body })
}

/// Puts the block `id`, which is counted, back among the others. Returns its bytes, if it was moved.
pub(super) fn keep(root: &Path, id: BlockId) -> Option<u64> {
    match quarantine::put_back(&JournalDir::of(root, id.journal), id.seq) {
        Ok(bytes) => {
            tracing::info!(block = %id, "a block that was put aside is counted");
            bytes
        }
        Err(error) => {
            tracing::error!(block = %id, %error, "a block is counted, and can't be put back among the others");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_included_stays_so_until_the_journal_is_forgotten() {
        let journal = JournalId([3; 16]);
        let mut returned = Returned::new(Path::new("/nowhere"));
        returned.waiting.insert(journal, BTreeSet::from([2, 5, 8]));
        assert_eq!(returned.next(), None, "nothing is known to be included");
        returned.includes(journal, 7);
        // As one tells whose block 2 is under way.
        returned.delivers(BlockId { journal, seq: 2 });
        returned.includes(journal, 1);
        assert_eq!(returned.next(), Some(BlockId { journal, seq: 5 }));
        returned.delivers(BlockId { journal, seq: 5 });
        assert_eq!(returned.next(), None, "the read model is not past 8");
        returned.forget(journal);
        returned.includes(journal, 1);
        assert_eq!(returned.next(), None, "2 is not included any more");
    }
}
