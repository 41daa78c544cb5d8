//! The thread that keeps blocks prepared, within the disk budget.
//!
//! For each worker [`SPARE_PER_WORKER`] blocks wait: at 300 MB/s of clicks the thread must look every 7 ms for a worker
//! not to run dry, so it looks every [`BUSY_MS`] while blocks are taken, and every [`REST_MS`] else. When the disk or
//! the budget is full, workers drop clicks and count them; as soon as there is room again, recording goes on.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use terse_core::click::Dropped;

use super::directory::{JournalDir, Name};
use super::exchange::{Exchange, MAX_MAPPED_BLOCKS, SPARE_PER_WORKER};
use super::inventory::{Inventory, Room};
use super::open::Block;

/// Blocks that are prepared besides.
const SPARE_AT_REST: usize = 1;
const BUSY_MS: u64 = 5;
const REST_MS: u64 = 20;

pub(super) struct Preparer {
    pub(super) exchange: Arc<Exchange>,
    pub(super) inventory: Arc<Inventory>,
    pub(super) directory: JournalDir,
    /// As many zeros as a block has bytes.
    pub(super) zeros: Vec<u8>,
    pub(super) budget_bytes: u64,
    /// The next file's number.
    pub(super) number: u64,
    /// What was told last: `None` = all is well.
    pub(super) told: Option<Dropped>,
    /// Whether the log was told that other journals can't be looked at.
    pub(super) blind: bool,
}

impl Preparer {
    /// Prepares blocks until the journal ends.
    pub(super) fn run(mut self) {
        while !self.exchange.is_ending() {
            let busy = self.step();
            thread::park_timeout(Duration::from_millis(if busy { BUSY_MS } else { REST_MS }));
        }
        self.exchange.step_made();
    }

    /// Prepares what is missing. Returns whether anything was.
    pub(super) fn step(&mut self) -> bool {
        let missing = self.missing();
        let outcome = self.prepare(missing);
        match outcome {
            Ok(true) => self.tell(None, None),
            Ok(false) => self.tell(Some(Dropped::Budget), None),
            Err(error) if is_full(&error) => self.tell(Some(Dropped::Budget), Some(&error)),
            Err(error) => self.tell(Some(Dropped::Fault), Some(&error)),
        }
        self.exchange.step_made();
        missing > 0
    }

    fn missing(&self) -> usize {
        let target = SPARE_AT_REST + SPARE_PER_WORKER * self.exchange.workers();
        let room = MAX_MAPPED_BLOCKS.saturating_sub(self.exchange.mapped());
        target.saturating_sub(self.exchange.free()).min(room)
    }

    /// Prepares `missing` blocks; `false` = the budget didn't allow all.
    fn prepare(&mut self, missing: usize) -> io::Result<bool> {
        let refreshed = self.inventory.refresh(&*self.exchange.clock);
        // What is known of other journals is good enough for a while.
        if let Err(error) = &refreshed
            && !self.blind
        {
            tracing::error!(journal = %self.exchange.journal, %error, "what journals take on disk can't be told");
        }
        self.blind = refreshed.is_err();
        self.exchange.seal_late(self.inventory.are_many_pending());
        for _ in 0..missing {
            let block = match self.prepare_one(false) {
                Err(error) if is_full(&error) => self.prepare_one(true),
                prepared => prepared,
            };
            match block? {
                Some(block) => self.exchange.add_free(block),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// One more block. `None` = the budget is used up.
    fn prepare_one(&mut self, full_disk: bool) -> io::Result<Option<Block>> {
        let bytes = self.zeros.len() as u64;
        let room = self.inventory.room(bytes, self.budget_bytes, full_disk)?;
        let path = self.directory.file(Name::Open(self.number));
        self.number += 1;
        let block = match room {
            Room::None => return Ok(None),
            Room::Free => Block::create(path, &self.zeros)?,
            Room::Recycle(old) => Block::recycle(&old, path, &self.zeros)?,
        };
        self.inventory.prepared(bytes);
        Ok(Some(block))
    }

    /// Tells workers why there is no block, and the log when that changes.
    fn tell(&mut self, reason: Option<Dropped>, error: Option<&io::Error>) {
        self.exchange.set_shortage(reason.unwrap_or(Dropped::NoBlock));
        if self.told == reason {
            return;
        }
        self.told = reason;
        let journal = self.exchange.journal;
        match (reason, error) {
            (None, _) => tracing::info!(%journal, "clicks are recorded again"),
            (Some(_), Some(error)) => tracing::error!(%journal, %error, "blocks can't be prepared, clicks are dropped"),
            (Some(_), None) => {
                let bytes = self.budget_bytes;
                tracing::error!(%journal, budget = bytes, "the journals' budget is used up, clicks are dropped");
            }
        }
    }
}

/// Whether the disk is full, or its user's share of it.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
