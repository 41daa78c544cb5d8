//! The thread that brings sealed blocks to disk and makes them visible to readers.
//!
//! A block is synced, then renamed: a reader never sees one that a power cut could take back. What can't be renamed is
//! tried again; the journal's readers wait for it.
//!
//! A sync that failed is not asked for again: the kernel takes the pages for written then, and says yes. What is still in
//! memory is written to another file, which takes the first one's place. A block that can't be read back whole, or not be
//! written [`MAX_REWRITES`] times, is put aside, so that the blocks behind it are read.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::SyncPolicy;
use super::block;
use super::directory::{JournalDir, Name};
use super::exchange::Exchange;
use super::inventory::Inventory;
use super::open::{Block, Sealed};
use super::preparing::is_full;

/// How often it is looked for blocks after one came, and whether it is time to try one again.
const BUSY_MS: u64 = 20;
/// How often it is looked when none came: workers wake the thread.
const REST_MS: u64 = 500;
/// How often blocks that could not be renamed are tried again.
const TRY_EVERY_MS: u64 = 1_000;
/// How often a block is written anew that could not be synced, full disks not counted, before it is put aside.
pub(super) const MAX_REWRITES: u32 = 60;

/// Brings a file to disk.
pub(super) type SyncFile = Box<dyn FnMut(&File) -> io::Result<()> + Send>;

impl SyncPolicy {
    /// What it asks for when a block is sealed.
    pub(super) fn sync_file(self) -> SyncFile {
        match self {
            Self::None => Box::new(|_| Ok(())),
            Self::Sealed => Box::new(File::sync_data),
        }
    }
}

pub(super) struct Sealer {
    pub(super) exchange: Arc<Exchange>,
    pub(super) inventory: Arc<Inventory>,
    pub(super) directory: JournalDir,
    pub(super) block_bytes: u64,
    pub(super) sync_file: SyncFile,
    pub(super) stop: Arc<AtomicBool>,
    /// Blocks that are not renamed yet. They count as mapped, so there are no more than can be.
    pub(super) unfinished: VecDeque<Unfinished>,
    /// When it is time to try them again.
    pub(super) try_at_ms: u64,
}

/// A block that is to be synced and renamed.
pub(super) struct Unfinished {
    sealed: Sealed,
    /// Whether a sync has failed: what the kernel says of this file is no longer to be believed.
    is_doubtful: bool,
    rewrites: u32,
}

impl Sealer {
    /// Seals blocks until told to stop; then those that are left. Returns whether all could be.
    pub(super) fn run(&mut self) -> bool {
        self.exchange.serve();
        while !self.stop.load(Ordering::SeqCst) {
            let busy = self.step() || !self.unfinished.is_empty();
            self.try_again();
            thread::park_timeout(Duration::from_millis(if busy { BUSY_MS } else { REST_MS }));
        }
        self.step();
        self.finish_unfinished();
        self.unfinished.is_empty()
    }

    /// Seals all blocks that wait for it. Returns whether there were any.
    pub(super) fn step(&mut self) -> bool {
        let mut any = false;
        while let Some(block) = self.exchange.take_full() {
            any = true;
            self.seal(block);
        }
        any
    }

    fn try_again(&mut self) {
        let now_ms = self.exchange.clock.monotonic_ms();
        if now_ms < self.try_at_ms {
            return;
        }
        self.try_at_ms = now_ms + TRY_EVERY_MS;
        self.finish_unfinished();
    }

    fn seal(&mut self, block: Block) {
        match block.unmap() {
            Ok(Some(sealed)) => {
                self.unfinished.push_back(Unfinished { sealed, is_doubtful: false, rewrites: 0 });
                return self.finish_last();
            }
            Ok(None) => self.inventory.unprepared(self.block_bytes),
            Err(error) => tracing::warn!(journal = %self.exchange.journal, %error, "a block that wasn't used stays"),
        }
        self.exchange.unmapped();
    }

    /// Tries each block once.
    fn finish_unfinished(&mut self) {
        for _ in 0..self.unfinished.len() {
            self.unfinished.rotate_left(1);
            self.finish_last();
        }
    }

    /// Tries the last block. It stays where it is until it is done, so that it is not lost if this panics.
    fn finish_last(&mut self) {
        let Some(last) = self.unfinished.back_mut() else { return };
        let seq = last.sealed.id.seq;
        match last.publish(&self.directory, &mut self.sync_file) {
            Ok(Published::Visible(bytes)) => self.inventory.sealed(seq, self.block_bytes, bytes),
            Ok(Published::Aside) => {
                self.inventory.unprepared(self.block_bytes);
                self.inventory.refresh_soon();
            }
            Err(error) => {
                let block = last.sealed.id;
                return tracing::error!(%block, %error, "a sealed block can't be made visible, to be tried again");
            }
        }
        self.unfinished.pop_back();
        self.exchange.unmapped();
        self.exchange.sealed.notify_waiters();
    }
}

/// Where a block is when it is done.
enum Published {
    /// Where readers find it, with the bytes of its file.
    Visible(u64),
    /// Put aside.
    Aside,
}

impl Unfinished {
    /// Syncs and renames the block.
    fn publish(&mut self, directory: &JournalDir, sync_file: &mut SyncFile) -> io::Result<Published> {
        let Sealed { id, file, path, used } = &self.sealed;
        let mut bytes = self.sealed.shrink()?;
        if !self.is_doubtful
            && let Err(error) = sync_file(file)
        {
            tracing::error!(block = %id, %error, "a sealed block can't be synced, and is written anew");
            self.is_doubtful = true;
        }
        if self.is_doubtful {
            if self.rewrites >= MAX_REWRITES {
                tracing::error!(block = %id, "a sealed block can't be brought to disk, and is put aside");
                directory.put_aside(path, Name::Block(id.seq))?;
                return Ok(Published::Aside);
            }
            if let Err(error) = self.rewrite(directory) {
                self.rewrites += u32::from(!is_full(&error));
                return Err(error);
            }
            bytes = *used;
        }
        fs::rename(path, directory.file(Name::Block(id.seq)))?;
        tracing::debug!(block = %id, bytes = used, "block sealed");
        Ok(Published::Visible(bytes))
    }

    /// Puts another file in the place of the block's, with the same bytes, and brings that to disk. The first file stays
    /// open: what was written to it can be read as long as the kernel keeps it.
    fn rewrite(&self, directory: &JournalDir) -> io::Result<()> {
        let Sealed { id, file, path, used } = &self.sealed;
        let mut bytes = vec![0; usize::try_from(*used).unwrap_or(usize::MAX).min(super::MAX_BLOCK_BYTES)];
        file.read_exact_at(&mut bytes, 0)?;
        let bytes = bytes.into();
        block::read(&bytes, *id).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        directory.put(path, &bytes)
    }
}
