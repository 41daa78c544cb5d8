//! The thread that brings sealed blocks to disk and makes them visible to readers.
//!
//! A block is synced, then renamed: a reader never sees one that a power cut could take back. What can't be renamed is
//! tried again; the journal's readers wait for it.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::SyncPolicy;
use super::directory::{JournalDir, Name};
use super::exchange::Exchange;
use super::inventory::Inventory;
use super::open::{Block, Sealed};

const BUSY_MS: u64 = 5;
const REST_MS: u64 = 20;
/// How often renames that failed are tried again.
const TRY_EVERY_MS: u64 = 1_000;

pub(super) struct Sealer {
    pub(super) exchange: Arc<Exchange>,
    pub(super) inventory: Arc<Inventory>,
    pub(super) directory: JournalDir,
    pub(super) block_bytes: u64,
    pub(super) sync: SyncPolicy,
    pub(super) stop: Arc<AtomicBool>,
    /// Blocks that could not be renamed. They count as mapped, so there are no more than can be.
    pub(super) unfinished: Vec<Sealed>,
    /// When it is time to try them again.
    pub(super) try_at_ms: u64,
}

impl Sealer {
    /// Seals blocks until told to stop; then those that are left. Returns whether all could be.
    pub(super) fn run(mut self) -> bool {
        while !self.stop.load(Ordering::SeqCst) {
            let busy = self.step();
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
            Ok(Some(sealed)) => return self.finish(sealed),
            Ok(None) => self.inventory.unprepared(self.block_bytes),
            Err(error) => tracing::warn!(journal = %self.exchange.journal, %error, "a block that wasn't used stays"),
        }
        self.exchange.unmapped();
    }

    fn finish_unfinished(&mut self) {
        for sealed in std::mem::take(&mut self.unfinished) {
            self.finish(sealed);
        }
    }

    fn finish(&mut self, sealed: Sealed) {
        match self.publish(&sealed) {
            Ok(bytes) => {
                tracing::debug!(block = %sealed.id, bytes = sealed.used, "block sealed");
                self.inventory.sealed(sealed.id.seq, self.block_bytes, bytes);
                self.exchange.unmapped();
                self.exchange.sealed.notify_waiters();
            }
            Err(error) => {
                tracing::error!(block = %sealed.id, %error, "a sealed block can't be made visible, to be tried again");
                self.unfinished.push(sealed);
            }
        }
    }

    /// Syncs and renames a block; returns the bytes of its file.
    fn publish(&self, sealed: &Sealed) -> io::Result<u64> {
        let bytes = sealed.shrink()?;
        match self.sync {
            SyncPolicy::None => {}
            SyncPolicy::Sealed => sealed.file.sync_data()?,
        }
        fs::rename(&sealed.path, self.directory.file(Name::Block(sealed.id.seq)))?;
        Ok(bytes)
    }
}
