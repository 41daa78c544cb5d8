//! Reading one journal, block by block.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use terse_core::click::{BlockId, JournalId};
use terse_core::stats::Partition;

use crate::journal::directory::{JournalDir, Name};
use crate::journal::{self, BlockError};
use crate::log::quarantine::is_given_up;
use crate::log::{Body, Delivery, LogError};

/// Most blocks that are put aside or void and are skipped in one look at a journal.
const MAX_SKIPPED: usize = 1_024;

/// How far a journal was read.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) directory: Arc<JournalDir>,
    pub(super) next: u64,
    /// The journal's last block, once known.
    end: Option<u64>,
    /// A block of a newer version was delivered: nothing follows.
    waits: bool,
    replay: bool,
}

/// What a look found: the deliveries, how far the journals were read with them, and which could not be.
#[derive(Default)]
pub(super) struct Found {
    pub(super) deliveries: Vec<Delivery>,
    pub(super) readers: Vec<Reader>,
    pub(super) failed: Vec<(JournalId, LogError)>,
}

/// Reads about `most_bytes`, block by block from each journal in turn.
pub(super) fn look(mut readers: Vec<Reader>, most_bytes: usize) -> Found {
    let mut found = Found::default();
    let mut bytes = 0;
    let mut any = true;
    while any && bytes < most_bytes {
        any = false;
        for mut reader in std::mem::take(&mut readers) {
            if bytes >= most_bytes {
                readers.push(reader);
                continue;
            }
            match reader.read() {
                Ok(Some((delivery, size))) => {
                    any = true;
                    bytes += size;
                    found.deliveries.push(delivery);
                    readers.push(reader);
                }
                Ok(None) => readers.push(reader),
                Err(error) => found.failed.push((reader.directory.id(), error)),
            }
        }
    }
    Found { readers, ..found }
}

impl Reader {
    /// Of the journal in `directory`, from the block `next` on.
    pub(super) fn new(directory: JournalDir, next: u64, replay: bool) -> Self {
        Self { directory: Arc::new(directory), next, end: None, waits: false, replay }
    }

    pub(super) fn id(&self) -> BlockId {
        BlockId { journal: self.directory.id(), seq: self.next }
    }

    pub(super) fn is_done(&self) -> bool {
        self.waits || self.has_ended()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end.is_some_and(|end| self.next > end)
    }

    /// The next block, and the bytes it took.
    fn read(&mut self) -> Result<Option<(Delivery, usize)>, LogError> {
        for _ in 0..MAX_SKIPPED {
            if self.is_done() {
                return Ok(None);
            }
            if let Some(bytes) = self.bytes_of_next()? {
                return Ok(Some(self.deliver(bytes)?));
            }
            if !self.skip()? {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// All bytes of the next block's file, if it is there.
    fn bytes_of_next(&self) -> Result<Option<Bytes>, LogError> {
        match journal::read_bounded(&self.directory.file(Name::Block(self.next))) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.unreadable(&error)),
        }
    }

    fn deliver(&mut self, bytes: Bytes) -> Result<(Delivery, usize), LogError> {
        let id = self.id();
        let size = bytes.len();
        let body = match journal::read(&bytes, id) {
            Ok(part) => {
                if part.header.end {
                    self.end = Some(id.seq);
                }
                Body::Part(part)
            }
            Err(BlockError::Newer(format)) => {
                self.waits = true;
                Body::Newer(format)
            }
            // It was used again while it was read: others have passed it.
            Err(_) if !self.directory.file(Name::Block(id.seq)).exists() => return Err(self.gap()),
            Err(error) => Body::Undecodable { bytes, reason: error.to_string() },
        };
        self.next += 1;
        Ok((Delivery { partition: Partition::Journal(id.journal), offset: id.seq, body }, size))
    }

    /// Goes past a block that never comes. `false` = the next one may come still.
    fn skip(&mut self) -> Result<bool, LogError> {
        let directory = Arc::clone(&self.directory);
        if directory.quarantined(Name::Block(self.next)).exists() || is_given_up(&directory, self.next) {
            self.next += 1;
            return Ok(true);
        }
        let ended = directory.ended().map_err(|error| self.unreadable(&error))?;
        let passed = directory.passed().map_err(|error| self.unreadable(&error))?;
        let was_passed = !self.replay && self.next < passed;
        let Some(end) = ended else {
            return if was_passed { Err(self.gap()) } else { Ok(false) };
        };
        // All that the journal has was there before its end was noted.
        let blocks = directory.blocks().map_err(|error| self.unreadable(&error))?;
        let seqs = || blocks.iter().filter_map(|(name, _)| seq_of(*name));
        if was_passed && seqs().next().is_none_or(|first| first > self.next) {
            return Err(self.gap());
        }
        let end = seqs().next_back().map_or(end, |last| last.max(end));
        self.end = Some(end);
        self.next = seqs().find(|seq| *seq >= self.next).unwrap_or(end + 1);
        Ok(true)
    }

    fn unreadable(&self, error: &io::Error) -> LogError {
        let id = self.id();
        LogError::Unreadable {
            partition: Partition::Journal(id.journal),
            detail: format!("at block {}: {error}", id.seq),
        }
    }

    fn gap(&self) -> LogError {
        let detail = format!("block {} was passed by somebody else and is gone", self.next);
        LogError::Gap { partition: Partition::Journal(self.directory.id()), detail }
    }
}

/// The seq in the name of a sealed block.
pub(in crate::log) fn seq_of(name: Name) -> Option<u64> {
    match name {
        Name::Block(seq) => Some(seq),
        Name::Open(_) => None,
    }
}
