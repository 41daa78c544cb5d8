//! The thread that keeps blocks prepared, within the disk budget.
//!
//! For each worker [`SPARE_PER_WORKER`] blocks wait: at 100 MB/s of clicks, which is far more than clients bring about, they
//! last 20 ms. The thread is woken within [`SEAL_CHECK_MS`](terse_core::click::SEAL_CHECK_MS) after a worker took the first of them, and looks
//! again every [`BUSY_MS`] as long as any is missing; else it rests. When the disk or
//! the budget is full, workers drop clicks and count them; as soon as there is room again, recording goes on.
//!
//! [`READY_PER_WORKER`] of them are ready: a store to them finds its page in memory and writable. The kernel writes pages
//! to disk within half a minute and makes them read-only for that; the next store would be a fault that may wait for the
//! file system's journal, on a web worker. So blocks that wait are made ready again every [`READY_EVERY_MS`], which
//! costs nothing unless the kernel has written them, and then makes it write them once more half a minute later.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use terse_core::click::Dropped;

use super::directory::{JournalDir, Name};
use super::exchange::{Exchange, MAX_MAPPED_BLOCKS, READY_PER_WORKER, SPARE_PER_WORKER};
use super::inventory::{Inventory, Room};
use super::open::Block;
use crate::outage::Outage;

/// Blocks that are prepared besides.
const SPARE_AT_REST: usize = 1;
/// Blocks that are ready besides.
const READY_AT_REST: usize = 1;
const BUSY_MS: u64 = 5;
/// How long it rests between steps in which blocks go that are not to be kept.
const TRIM_MS: u64 = 20;
/// How often other journals are looked after when no block is missing.
const REST_MS: u64 = 1_000;
/// How often ready blocks are made so again.
const READY_EVERY_MS: u64 = 2_000;

pub(super) struct Preparer {
    pub(super) exchange: Arc<Exchange>,
    pub(super) inventory: Arc<Inventory>,
    pub(super) directory: JournalDir,
    /// As many zeros as a block has bytes.
    pub(super) zeros: Vec<u8>,
    pub(super) budget_bytes: u64,
    /// The next file's number.
    pub(super) number: u64,
    /// Whether blocks can't be had.
    pub(super) shortage: Outage,
    /// When ready blocks were made so again.
    pub(super) readied_at_ms: u64,
    /// Whether the log was told that other journals can't be looked at.
    pub(super) blind: bool,
}

impl Preparer {
    /// Prepares blocks until the journal ends.
    pub(super) fn run(&mut self) {
        self.exchange.serve();
        while !self.exchange.is_ending() {
            let busy = self.step();
            let rest_ms = match (busy, self.inventory.is_trimming()) {
                (true, _) => BUSY_MS,
                (false, true) => TRIM_MS,
                (false, false) => REST_MS,
            };
            thread::park_timeout(Duration::from_millis(rest_ms));
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
        self.make_ready();
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
                Some(block) => self.exchange.add_spare(block),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// One more block. `None` = the budget is used up, or the disk nearly full.
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

    /// Makes blocks ready for those that workers have taken, and at times those that are ready already.
    fn make_ready(&mut self) {
        let wanted = READY_AT_REST + READY_PER_WORKER * self.exchange.workers();
        while self.exchange.ready() < wanted
            && let Some(block) = self.exchange.take_spare()
        {
            self.make_one_ready(block);
        }
        let now_ms = self.exchange.clock.monotonic_ms();
        if now_ms.saturating_sub(self.readied_at_ms) < READY_EVERY_MS {
            return;
        }
        self.readied_at_ms = now_ms;
        for _ in 0..self.exchange.ready() {
            let Some(block) = self.exchange.take_ready() else { break };
            self.make_one_ready(block);
        }
    }

    /// Makes a block ready, or gives it up: where it can't be, a store to it would end the process.
    fn make_one_ready(&self, mut block: Block) {
        let Err(error) = block.make_ready() else { return self.exchange.add_ready(block) };
        let path = block.path().to_owned();
        tracing::error!(path = %path.display(), %error, "a block can't be written to, and is given up");
        if let Err(error) = block.unmap() {
            tracing::warn!(path = %path.display(), %error, "a block that wasn't used stays");
        }
        self.inventory.unprepared(self.zeros.len() as u64);
        self.exchange.unmapped();
    }

    /// Tells workers why there is no block, and the log when that begins and when it is over.
    fn tell(&mut self, reason: Option<Dropped>, error: Option<&io::Error>) {
        self.exchange.set_shortage(reason.unwrap_or(Dropped::NoBlock));
        let (journal, now_ms) = (self.exchange.journal, self.exchange.clock.monotonic_ms());
        if reason.is_none() {
            if self.shortage.is_over(now_ms) {
                tracing::info!(%journal, "clicks are recorded again");
            }
        } else if self.shortage.begins(now_ms) {
            match error {
                Some(error) if is_full(error) => tracing::error!(
                    %journal, %error,
                    "the disk is full, clicks are dropped: free some of it, or of the user's share",
                ),
                Some(error) => tracing::error!(%journal, %error, "blocks can't be prepared, clicks are dropped"),
                None if self.inventory.is_short() => tracing::error!(
                    %journal,
                    "the disk is nearly full, clicks are dropped: free some of it, or move the data directory to a \
                     larger one",
                ),
                None => tracing::error!(
                    %journal, budget = self.budget_bytes,
                    "the journals' budget is used up, clicks are dropped: see in /health why they are not counted, or \
                     raise journal_bytes",
                ),
            }
        }
    }
}

/// Whether the disk is full, or its user's share of it.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Read as _;
    use std::path::PathBuf;

    use tempfile::TempDir;
    use terse_core::click::{BlockId, JournalId, Signals};
    use terse_core::{Clock, Timestamp, Version};
    use terse_testkit::TestClock;

    use super::super::directory::Lock;
    use super::super::exchange::WorkerCounts;
    use super::*;
    use crate::record::Record;
    use crate::record::texts::Texts;

    const BLOCK_BYTES: usize = 256 << 10;
    const BUDGET_BYTES: u64 = 64 << 20;
    const ID: JournalId = JournalId([7; 16]);

    /// One worker, whose blocks are prepared when a test says so.
    struct Setup {
        root: TempDir,
        clock: Arc<TestClock>,
        preparer: Preparer,
        texts: Texts,
        _worker: Arc<WorkerCounts>,
        _lock: Lock,
    }

    impl Setup {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let clock = Arc::new(TestClock::default());
            let (directory, lock) = JournalDir::create(root.path(), ID).unwrap();
            let exchange = Arc::new(Exchange::new(ID, 1, 200, true, Arc::clone(&clock) as Arc<dyn Clock>));
            let worker = exchange.add_worker();
            let preparer = Preparer {
                inventory: Arc::new(Inventory::new(root.path(), directory.clone())),
                exchange,
                directory,
                zeros: vec![0; BLOCK_BYTES],
                budget_bytes: BUDGET_BYTES,
                number: 0,
                shortage: Outage::default(),
                readied_at_ms: 0,
                blind: false,
            };
            Self { root, clock, preparer, texts: Texts::default(), _worker: worker, _lock: lock }
        }

        fn files(&self) -> Vec<PathBuf> {
            let files = fs::read_dir(self.root.path().join(ID.to_string())).unwrap();
            let files = files.map(|file| file.unwrap().path());
            files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("open-")).collect()
        }

        /// Has the kernel write all blocks to disk, as it does by itself within half a minute.
        fn write_back(&self) {
            for path in self.files() {
                File::open(path).unwrap().sync_data().unwrap();
            }
        }

        /// Faults of this thread while it fills the next block, as a worker does.
        fn faults_of_a_block(&mut self) -> u64 {
            let exchange = &self.preparer.exchange;
            let mut block = exchange.take_free().unwrap();
            block.begin(BlockId { journal: ID, seq: exchange.take_seq() }, 1, Timestamp::from_millis(0));
            let record = Record {
                at: Timestamp::from_millis(0),
                code: "abc",
                version: Version::FIRST,
                network: None,
                visitor: Some(1),
                referrer: b"https://news.example",
                user_agent: b"curl/8.10.1",
                language: b"en",
                signals: Signals::default(),
            };
            let before = faults();
            while block.append(&record, &mut self.texts) {}
            let faults = faults() - before;
            block.seal(Timestamp::from_millis(0));
            exchange.give_back(block);
            faults
        }
    }

    /// Faults of this thread so far, with the disk and without. Nothing is allocated, for that may be a fault.
    fn faults() -> u64 {
        let mut bytes = [0; 2_048];
        let len = File::open("/proc/thread-self/stat").unwrap().read(&mut bytes).unwrap();
        let stat = std::str::from_utf8(&bytes[..len]).unwrap();
        // The tenth and the twelfth in the whole line, whose second has brackets.
        let mut numbers = stat.rsplit_once(')').unwrap().1.split_whitespace().skip(7);
        let mut number = |skipped| numbers.nth(skipped).unwrap().parse::<u64>().unwrap();
        number(0) + number(1)
    }

    #[test]
    fn a_worker_takes_no_fault_however_long_its_block_has_waited() {
        let mut setup = Setup::new();
        setup.preparer.step();
        // What the code itself needs is in memory then.
        setup.faults_of_a_block();
        assert_eq!(setup.faults_of_a_block(), 0, "of a block that was just made ready");
        setup.preparer.step();
        setup.write_back();
        assert!(setup.faults_of_a_block() > 0, "pages that were written to disk are as they were");
        setup.clock.advance(Duration::from_millis(READY_EVERY_MS));
        setup.preparer.step();
        for _ in 0..READY_PER_WORKER {
            assert_eq!(setup.faults_of_a_block(), 0);
        }
    }

    #[test]
    fn blocks_that_were_taken_are_followed_by_ready_ones() {
        let mut setup = Setup::new();
        setup.preparer.step();
        let ready = READY_AT_REST + READY_PER_WORKER;
        assert_eq!(setup.preparer.exchange.ready(), ready);
        for _ in 0..=ready {
            setup.faults_of_a_block();
        }
        assert_eq!((setup.preparer.exchange.ready(), setup.preparer.exchange.free()), (0, SPARE_PER_WORKER - ready));
        setup.preparer.step();
        assert_eq!(setup.preparer.exchange.ready(), ready);
        assert_eq!(setup.preparer.exchange.free(), SPARE_AT_REST + SPARE_PER_WORKER);
    }

    #[test]
    fn a_block_that_cannot_be_written_to_any_more_is_given_up() {
        let mut setup = Setup::new();
        setup.preparer.step();
        let (free, bytes) = (setup.preparer.exchange.free(), setup.preparer.inventory.bytes());
        // A store to a page behind the end of its file ends the process, as one that can't be allocated does.
        for path in setup.files() {
            File::options().write(true).open(path).unwrap().set_len(0).unwrap();
        }
        setup.clock.advance(Duration::from_millis(READY_EVERY_MS));
        // The ready ones are given up, then those that were to follow, and then all is as it was.
        for _ in 0..3 {
            setup.preparer.step();
        }
        assert_eq!((setup.preparer.exchange.free(), setup.preparer.inventory.bytes()), (free, bytes));
        assert_eq!(setup.preparer.exchange.mapped(), free);
        for _ in 0..setup.preparer.exchange.ready() {
            assert_eq!(setup.preparer.exchange.take_ready().map(|mut block| block.make_ready().is_ok()), Some(true));
        }
    }
}
