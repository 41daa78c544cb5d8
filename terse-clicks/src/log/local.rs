//! The local bus: the journal directories themselves are the log. A journal is a partition, a block's seq its offset.
//!
//! Whoever reads looks at sealed blocks only, in the order of their seqs. In a journal whose process lives, a seq that
//! is missing is a block that is still written, and is waited for; once a journal has ended, a missing seq is void. A
//! block that can't be read goes to the journal's `quarantine/`, and is skipped from then on. The file `passed` tells
//! the journal's process which blocks it may use again.
//!
//! The read model is the truth of what was counted, and `passed` a hint. So a log that is new lists all journals once,
//! also those that are passed; and what the read model lacks is delivered if it is kept, else told as gone.
//!
//! A file that can't be read holds up its own journal alone: what was found in others is delivered, and the error tells
//! of the partition. A file `passed` that can't be written holds up nothing: its journal keeps its blocks, and it is
//! tried again at each look at the directory.
//!
//! What was put aside comes back when an operator asks for it ([`super::quarantine`]).
//!
//! The relay to a broker reads journals the same way.

mod reader;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use terse_core::Timestamp;
use terse_core::click::{BlockId, JournalId};
use terse_core::ports::clicks::Checkpoint;
use terse_core::stats::Partition;
use tokio::time::Instant;

pub(super) use self::reader::seq_of;
use self::reader::{Reader, look};
use super::quarantine::leave_aside;
use super::returned::{self, Returned};
use super::{Body, ClickLog, Delivery, LogError};
use crate::journal::directory::{JournalDir, Name};
use crate::journal::{self, BlockError, Journal};

/// How often journals of other processes are looked at, in milliseconds.
pub const LOOK_MS: u64 = 50;

/// The journals in a directory, as a log.
pub struct LocalLog {
    root: PathBuf,
    journal: Option<Arc<Journal>>,
    replay: bool,
    reading: BTreeMap<JournalId, Reader>,
    /// Where the last look ended: the others come first in the next.
    last: Option<JournalId>,
    /// Why journals can't be read, to be told after what was found in others, until they are stopped or started; one of
    /// each at most.
    failed: VecDeque<(JournalId, LogError)>,
    /// Journals of which all is noted as passed, and was asked of the read model since this log was made. No more than
    /// there are.
    settled: BTreeSet<JournalId>,
    /// When the directories of those of them last changed of which all is passed: as long as they don't, it stays so.
    over: BTreeMap<JournalId, SystemTime>,
    /// What could not be noted in files `passed`; no more than there are journals.
    unnoted: BTreeMap<JournalId, u64>,
    returned: Returned,
}

impl LocalLog {
    /// The journals in `directory`, the one of this process, if it has one, among them: what it seals is delivered at
    /// once.
    #[must_use]
    pub fn new(directory: &Path, journal: Option<Arc<Journal>>) -> Self {
        Self {
            root: directory.to_owned(),
            journal,
            replay: false,
            reading: BTreeMap::new(),
            last: None,
            failed: VecDeque::new(),
            settled: BTreeSet::new(),
            over: BTreeMap::new(),
            unnoted: BTreeMap::new(),
            returned: Returned::new(directory),
        }
    }

    /// All that the journals in `directory` have kept, for building another read model. What was passed is delivered
    /// too; nothing is noted or put aside.
    #[must_use]
    pub fn for_replay(directory: &Path) -> Self {
        Self { replay: true, ..Self::new(directory, None) }
    }

    /// The first block of `partition` that is kept; above 0, earlier ones are there no more, or were void. `None` =
    /// there is none.
    ///
    /// # Errors
    /// [`LogError::Unreadable`].
    pub fn begins_at(&self, partition: Partition) -> Result<Option<u64>, LogError> {
        first_kept(&JournalDir::of(&self.root, journal_of(partition)?)).map_err(|error| unreadable(partition, &error))
    }

    /// The last block of `partition` that is sealed and kept now. `None` = there is none.
    ///
    /// # Errors
    /// [`LogError::Unreadable`].
    pub fn ends_at(&self, partition: Partition) -> Result<Option<u64>, LogError> {
        let blocks = JournalDir::of(&self.root, journal_of(partition)?).blocks();
        let blocks = blocks.map_err(|error| unreadable(partition, &error))?;
        Ok(blocks.into_iter().rev().find_map(|(name, _)| seq_of(name)))
    }

    /// The readers, the one that was served last at the end.
    fn in_turn(&self) -> Vec<Reader> {
        let after = self.reading.iter().filter(|(id, _)| Some(**id) > self.last);
        let before = self.reading.iter().filter(|(id, _)| Some(**id) <= self.last);
        after.chain(before).map(|(_, reader)| reader.clone()).filter(|reader| !reader.is_done()).collect()
    }

    async fn look(&mut self, most_bytes: usize) -> Result<Vec<Delivery>, LogError> {
        let readers = self.in_turn();
        if readers.is_empty() {
            return Ok(Vec::new());
        }
        let found = tokio::task::spawn_blocking(move || look(readers, most_bytes)).await;
        let found = found.map_err(|error| LogError::Unavailable(error.to_string()))?;
        // Only now: whoever gives up this call while the look goes on gets the same deliveries from the next one.
        if let Some(Delivery { partition: Partition::Journal(id), .. }) = found.deliveries.last() {
            self.last = Some(*id);
        }
        for reader in found.readers {
            self.reading.insert(reader.directory.id(), reader);
        }
        for (id, error) in found.failed {
            self.reading.remove(&id);
            self.failed.push_back((id, error));
        }
        Ok(found.deliveries)
    }

    /// Why the first of the journals that can't be read can't be. It stays until that is stopped: whoever is told so
    /// may
    /// be given up before.
    fn failure(&self) -> Result<(), LogError> {
        self.failed.front().map_or(Ok(()), |(_, error)| Err(error.clone()))
    }

    /// Whether all of the journal is noted as passed, as far as can be told. Of one that is as it was when that was
    /// asked
    /// last, only the time of its last change is read: there may be a thousand of them.
    fn is_over(&mut self, journal: &JournalDir) -> bool {
        let id = journal.id();
        let changed = journal.changed_at().unwrap_or(None);
        if changed.is_some() && self.over.get(&id).copied() == changed {
            return true;
        }
        self.over.remove(&id);
        let over = is_over(journal).unwrap_or(false);
        if over && let Some(changed) = changed {
            self.over.insert(id, changed);
        }
        over
    }

    /// A block that was put aside and is to be counted now, if it can be delivered.
    async fn bring_back(&mut self) -> Option<Delivery> {
        let id = self.returned.next().filter(|_| !self.replay)?;
        let root = self.root.clone();
        // Whoever gives up this call gets it from the next one.
        let read = tokio::task::spawn_blocking(move || returned::read(&root, id)).await.ok()?;
        if read.is_some() {
            self.returned.delivers(id);
        } else {
            self.returned.done(id);
        }
        read
    }

    /// Notes that the first `blocks` blocks of the journal are passed, now or as soon as it can be.
    fn note(&mut self, journal: JournalId, blocks: u64) {
        let directory = JournalDir::of(&self.root, journal);
        let noted = directory.passed().and_then(|passed| match passed >= blocks {
            true => Ok(()),
            false => directory.set_passed(blocks),
        });
        match noted {
            Ok(()) => drop(self.unnoted.remove(&journal)),
            Err(error) => {
                if self.unnoted.insert(journal, blocks).is_none() {
                    tracing::error!(%journal, blocks, %error, "passed blocks can't be noted, and stay on disk");
                }
            }
        }
    }
}

#[async_trait]
impl ClickLog for LocalLog {
    async fn partitions(&mut self) -> Result<Vec<Partition>, LogError> {
        let mut partitions = Vec::new();
        let journals = JournalDir::all(&self.root).map_err(unavailable)?;
        // One that is gone had nothing left to read.
        let there: BTreeSet<_> = journals.iter().map(JournalDir::id).collect();
        self.reading.retain(|id, _| there.contains(id));
        self.settled.retain(|id| there.contains(id));
        self.over.retain(|id, _| there.contains(id));
        for (id, blocks) in std::mem::take(&mut self.unnoted) {
            if there.contains(&id) {
                self.unnoted.insert(id, blocks);
                self.note(id, blocks);
            }
        }
        if !self.replay {
            self.returned.look();
        }
        for journal in journals {
            // One that can't be asked is listed: starting it tells why.
            let over = self.settled.contains(&journal.id()) && self.is_over(&journal);
            if self.replay || !over || self.reading.contains_key(&journal.id()) || self.returned.has(journal.id()) {
                partitions.push(Partition::Journal(journal.id()));
            }
        }
        Ok(partitions)
    }

    async fn start(&mut self, partition: Partition, checkpoint: Option<&Checkpoint>) -> Result<(), LogError> {
        let directory = JournalDir::of(&self.root, journal_of(partition)?);
        let unreadable = |error| unreadable(partition, &error);
        let mut next = checkpoint.map_or(0, |checkpoint| checkpoint.at.offset + 1);
        let first = first_kept(&directory).map_err(unreadable)?;
        let passed = directory.passed().map_err(unreadable)?;
        if self.replay {
            next = next.max(first.unwrap_or(0));
        } else if next < passed && first.is_none_or(|first| first > next) {
            return Err(LogError::Gone { partition, from: next, until: first.unwrap_or(passed).min(passed) });
        }
        let id = directory.id();
        let reader = Reader::new(directory, next, self.replay);
        self.failed.retain(|(failed, _)| *failed != id);
        self.reading.insert(id, reader);
        self.returned.forget(id);
        if let Some(checkpoint) = checkpoint {
            self.returned.includes(id, checkpoint.at.offset);
        }
        Ok(())
    }

    async fn next(&mut self, most_bytes: usize, wait_ms: u64) -> Result<Vec<Delivery>, LogError> {
        self.failure()?;
        if let Some(delivery) = self.bring_back().await {
            return Ok(vec![delivery]);
        }
        let deadline = Instant::now() + Duration::from_millis(wait_ms);
        let journal = self.journal.clone();
        loop {
            let mut sealed = pin!(journal.as_ref().map(|journal| journal.sealed()));
            // What is sealed from here on is noticed.
            if let Some(sealed) = sealed.as_mut().as_pin_mut() {
                sealed.enable();
            }
            let deliveries = self.look(most_bytes).await?;
            if deliveries.is_empty() {
                self.failure()?;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if !deliveries.is_empty() || left.is_zero() {
                return Ok(deliveries);
            }
            let wait = left.min(Duration::from_millis(LOOK_MS));
            match sealed.as_pin_mut() {
                // Either way it is time to look again.
                Some(sealed) => drop(tokio::time::timeout(wait, sealed).await),
                None => tokio::time::sleep(wait).await,
            }
        }
    }

    async fn passed(&mut self, partition: Partition, offset: u64) -> Result<(), LogError> {
        if self.replay {
            return Ok(());
        }
        let journal = journal_of(partition)?;
        self.note(journal, offset + 1);
        self.returned.includes(journal, offset);
        if is_over(&JournalDir::of(&self.root, journal)).unwrap_or(false) {
            self.settled.insert(journal);
        }
        Ok(())
    }

    fn was_passed(&self, partition: Partition) -> bool {
        journal_of(partition).is_ok_and(|id| is_over(&JournalDir::of(&self.root, id)).unwrap_or(false))
    }

    async fn dead_letter(&mut self, delivery: &Delivery) -> Result<(), LogError> {
        let directory = JournalDir::of(&self.root, journal_of(delivery.partition)?);
        let id = BlockId { journal: directory.id(), seq: delivery.offset };
        let reason = match &delivery.body {
            Body::Undecodable { reason, .. } => reason.clone(),
            Body::Part(_) => "refused by its reader".to_owned(),
            Body::Newer(format) => BlockError::Newer(*format).to_string(),
        };
        tracing::error!(block = %id, reason, "a block can't be counted");
        if self.replay {
            return Ok(());
        }
        if self.returned.is_delivered(id) {
            let left = tokio::task::spawn_blocking(move || leave_aside(&directory, id.seq)).await;
            self.returned.done(id);
            return left.map_err(io::Error::other).flatten().map_err(|error| unreadable(delivery.partition, &error));
        }
        let put_aside = tokio::task::spawn_blocking(move || directory.quarantine(Name::Block(id.seq))).await;
        let put_aside = put_aside.map_err(|error| LogError::Unavailable(error.to_string()))?;
        put_aside.map_err(|error| LogError::Unreadable {
            partition: delivery.partition,
            detail: format!("block {} can't be put aside: {error}", id.seq),
        })
    }

    fn brings_back(&self, partition: Partition) -> bool {
        journal_of(partition).is_ok_and(|id| self.returned.has(id))
    }

    async fn counted(&mut self, partition: Partition, offset: u64) {
        let Ok(journal) = journal_of(partition) else { return };
        let id = BlockId { journal, seq: offset };
        if !self.returned.is_delivered(id) {
            return;
        }
        let root = self.root.clone();
        let kept = tokio::task::spawn_blocking(move || returned::keep(&root, id)).await;
        if let (Ok(Some(bytes)), Some(own)) = (kept, self.journal.as_ref().filter(|own| own.id() == journal)) {
            own.keeps(offset, bytes);
        }
        self.returned.done(id);
    }

    fn stop(&mut self, partition: Partition) {
        if let Partition::Journal(id) = partition {
            self.returned.forget(id);
            self.reading.remove(&id);
            self.failed.retain(|(failed, _)| *failed != id);
        }
    }

    fn ended(&self) -> Vec<(Partition, JournalId)> {
        let ended = self.reading.iter().filter(|(id, reader)| reader.has_ended() && !self.returned.has(**id));
        ended.map(|(id, _)| (Partition::Journal(*id), *id)).collect()
    }

    /// It reads the beginning of one file per journal that is read.
    fn oldest_waiting(&self) -> Option<Timestamp> {
        let waiting = self.reading.values().filter(|reader| !reader.is_done()).filter_map(|reader| {
            let head = journal::read_head(&reader.directory.file(Name::Block(reader.next))).ok()?;
            journal::sealed_at(&head, reader.id()).ok()
        });
        waiting.min()
    }
}

fn first_kept(directory: &JournalDir) -> io::Result<Option<u64>> {
    Ok(directory.blocks()?.into_iter().find_map(|(name, _)| seq_of(name)))
}

/// Whether the journal has ended, and its reader needs nothing of it.
fn is_over(directory: &JournalDir) -> io::Result<bool> {
    let Some(end) = directory.ended()? else { return Ok(false) };
    Ok(directory.passed()? > end)
}

fn journal_of(partition: Partition) -> Result<JournalId, LogError> {
    match partition {
        Partition::Journal(id) => Ok(id),
        Partition::Stream(_) => Err(LogError::Unavailable(format!("{partition} is not in a directory of journals"))),
    }
}

fn unavailable(error: io::Error) -> LogError {
    LogError::Unavailable(error.to_string())
}

fn unreadable(partition: Partition, error: &io::Error) -> LogError {
    LogError::Unreadable { partition, detail: error.to_string() }
}
