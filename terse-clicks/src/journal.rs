//! Blocks of clicks on disk: recording, sealing, recovery, the disk budget.
//!
//! A process has one [`Journal`], a directory of its own among those in `journal/`, whose lock it holds for life. Each
//! web worker copies clicks into a memory-mapped block of its own, which survives the end of the process from the
//! moment that a record is committed. The worker alone seals its block, when it is full or old, and gets a prepared one
//! for it. Two threads serve the workers: one prepares blocks, the other syncs and renames sealed ones, which readers
//! find then. A third recovers journals whose process is gone ([`RecoveryThread`]). One that panics is started again.
//!
//! | bound | when it is hit |
//! |---|---|
//! | [`JournalConfig::budget_bytes`], or the disk itself | passed blocks make place, oldest first; else `budget` drops |
//! | prepared blocks of a worker, mapped blocks of a process | clicks are dropped as `no_block` |
//! | texts of a click | they are cut ([`crate::record`]) |
//! | blocks that wait for their readers: 65,536 in all journals | `budget` drops; from 4,096 on blocks are sealed late |
//! | kept blocks, journals of which all was passed, and their age | the oldest are removed |
//! | blocks and journals recovered in a step ([`MAX_RECOVERED`]) | the next step goes on |
//!
//! A power cut can cost the open blocks, and with [`SyncPolicy::None`] sealed ones too; the end of the process costs
//! none. Where the file system writes elsewhere what is written again (btrfs, ZFS, and files copied with reflinks, as `cp`
//! does on XFS unless told `--reflink=never`), a full disk may end the process with SIGBUS. Blocks that wait are looked
//! at for that every two seconds and given up; a block that is being written can't be.

mod block;
pub(crate) mod directory;
mod exchange;
mod inventory;
mod kinds;
mod map;
mod open;
mod preparing;
mod recorder;
mod recovering;
mod recovery;
mod sealing;
mod supervision;
mod visitor;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use terse_core::click::{BlockId, ClickRecorder, ClickRecording, Dropped, JournalId};
use terse_core::time::random_bytes;
use terse_core::{Clock, Entropy};

use self::directory::{JournalDir, Lock};
use self::exchange::Exchange;
use self::inventory::Inventory;
use self::preparing::Preparer;
use self::recorder::Recorder;
use self::sealing::{Sealer, SyncFile};
use self::supervision::Supervised;
use crate::outage::Outage;

pub(crate) use self::block::{BlockError, read, sealed_at, sealed_records};
pub(crate) use self::recovery::{read_bounded, read_head};

pub use self::kinds::{OtherKind, other_kind};
pub use self::recovering::RecoveryThread;
pub use self::recovery::{MAX_RECOVERED, Recovered, Recovery};
pub use self::visitor::{DayKey, VisitorKeys};

/// Fewest bytes of a block: some dozens of the largest records.
pub const MIN_BLOCK_BYTES: usize = 64 << 10;
/// Most bytes of a block.
pub const MAX_BLOCK_BYTES: usize = 4 << 20;
/// How long the end of a journal waits for workers to give their blocks back.
const END_WAIT: Duration = Duration::from_secs(2);

/// When a block is synced to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Never: the operating system writes it in its own time. The end of the process loses nothing, that of the machine
    /// may lose half a minute.
    None,
    /// When it is sealed, before anybody reads it.
    Sealed,
}

/// How a journal is kept.
#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// The directory of all journals, made if absent.
    pub directory: PathBuf,
    /// Bytes of a block, from [`MIN_BLOCK_BYTES`] to [`MAX_BLOCK_BYTES`], brought to whole pages.
    pub block_bytes: usize,
    /// How old a block gets before it is sealed though it isn't full.
    pub seal_age_ms: u64,
    /// Most bytes that all journals in the directory take.
    pub budget_bytes: u64,
    /// When blocks are synced.
    pub sync: SyncPolicy,
    /// How many partitions the click log has; 1 on the local bus.
    pub partitions: u16,
    /// Whether of clicks with `DNT` or `Sec-GPC` neither visitor nor network is recorded.
    pub obey_signals: bool,
}

impl JournalConfig {
    /// The usual journal in `directory`: blocks of 512 KiB sealed after 200 ms and synced then, 2 GiB, one partition.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            block_bytes: 512 << 10,
            seal_age_ms: 200,
            budget_bytes: 2 << 30,
            sync: SyncPolicy::Sealed,
            partitions: 1,
            obey_signals: true,
        }
    }
}

/// What a journal counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Clicks recorded.
    pub recorded: u64,
    /// Clicks dropped, by reason, in the order of [`Dropped::ALL`].
    pub dropped: [u64; Dropped::ALL.len()],
    /// Sealed blocks in all journals of the directory that their reader has not passed.
    pub pending: u64,
}

/// Records the clicks of a process.
pub struct Journal {
    exchange: Arc<Exchange>,
    inventory: Arc<Inventory>,
    recovery: Arc<Mutex<Recovery>>,
    directory: JournalDir,
    running: Mutex<Option<Running>>,
}

/// What a journal has while it isn't ended.
struct Running {
    preparer: Supervised<()>,
    sealer: Supervised<bool>,
    recoverer: RecoveryThread,
    stop: Arc<AtomicBool>,
    lock: Lock,
}

impl Journal {
    /// Makes a journal of its own for this process, and starts its threads. It blocks on the disk.
    ///
    /// # Errors
    /// Why its directory or its threads could not be made.
    pub fn open(config: &JournalConfig, clock: Arc<dyn Clock>, entropy: &dyn Entropy) -> io::Result<Arc<Self>> {
        Self::open_with(config, clock, entropy, config.sync.sync_file())
    }

    fn open_with(
        config: &JournalConfig,
        clock: Arc<dyn Clock>,
        entropy: &dyn Entropy,
        sync_file: SyncFile,
    ) -> io::Result<Arc<Self>> {
        let block_bytes = config.block_bytes.clamp(MIN_BLOCK_BYTES, MAX_BLOCK_BYTES).next_multiple_of(4_096);
        let id = JournalId(random_bytes(entropy));
        let (directory, lock) = JournalDir::create(&config.directory, id)?;
        let exchange =
            Exchange::new(id, config.partitions, config.seal_age_ms, config.obey_signals, Arc::clone(&clock));
        let exchange = Arc::new(exchange);
        let inventory = Arc::new(Inventory::new(&config.directory, directory.clone()));
        let recovery = Recovery::new(&config.directory, config.partitions, Arc::clone(&clock));
        let recovery = Arc::new(Mutex::new(recovery));
        let mut preparer = Preparer {
            exchange: Arc::clone(&exchange),
            inventory: Arc::clone(&inventory),
            directory: directory.clone(),
            zeros: vec![0; block_bytes],
            budget_bytes: config.budget_bytes,
            number: 0,
            shortage: Outage::default(),
            readied_at_ms: 0,
            blind: false,
        };
        let stop = Arc::new(AtomicBool::new(false));
        let mut sealer = Sealer {
            exchange: Arc::clone(&exchange),
            inventory: Arc::clone(&inventory),
            directory: directory.clone(),
            block_bytes: block_bytes as u64,
            sync_file,
            stop: Arc::clone(&stop),
            unfinished: VecDeque::new(),
            try_at_ms: 0,
        };
        let (ended, stopped) = (Arc::clone(&exchange), Arc::clone(&stop));
        let is_ending = move || ended.is_ending();
        let preparer = Supervised::start("terse-blocks", Arc::clone(&clock), is_ending, move || preparer.run())?;
        let is_ending = move || stopped.load(Ordering::SeqCst);
        let sealer = Supervised::start("terse-seal", clock, is_ending, move || sealer.run())?;
        let recoverer = {
            let (exchange, inventory) = (Arc::clone(&exchange), Arc::clone(&inventory));
            RecoveryThread::of(Arc::clone(&recovery), move |_| {
                inventory.refresh_soon();
                exchange.sealed.notify_waiters();
            })?
        };
        let running = Mutex::new(Some(Running { preparer, sealer, recoverer, stop, lock }));
        Ok(Arc::new(Self { exchange, inventory, recovery, directory, running }))
    }

    /// Names it.
    #[must_use]
    pub fn id(&self) -> JournalId {
        self.exchange.journal
    }

    /// The keys under which its workers hash visitors.
    #[must_use]
    pub fn visitor_keys(&self) -> &VisitorKeys {
        &self.exchange.keys
    }

    /// What it counted. It reads some small files.
    ///
    /// # Errors
    /// Why the blocks that are pending could not be counted.
    pub fn counts(&self) -> io::Result<Counts> {
        let totals = self.exchange.totals();
        let pending = self.inventory.pending()?;
        Ok(Counts { recorded: totals.recorded, dropped: totals.dropped, pending })
    }

    /// Recovers journals whose process is gone, one bounded step. The journal's own thread does so every second, so
    /// this is for a start that wants to be done with it. It blocks on the disk.
    ///
    /// # Errors
    /// As [`Recovery::recover_once`].
    pub fn recover_once(&self) -> io::Result<Recovered> {
        let recovered = self.recovery.lock().recover_once()?;
        if recovered.any() {
            self.inventory.refresh_soon();
        }
        Ok(recovered)
    }

    /// Ends the journal in order: seals all that was recorded, writes the last block, gives the lock back. Workers have
    /// dropped their recorders before; one that hasn't gets two seconds to give its block back, and else leaves the
    /// journal to be recovered. It blocks on the disk. Ending again does nothing.
    ///
    /// # Errors
    /// Why it could not be ended; then it is recovered like that of a process that was killed.
    pub fn end(&self) -> io::Result<()> {
        let Some(running) = self.running.lock().take() else { return Ok(()) };
        let given_back = self.exchange.end(END_WAIT);
        let outcome = running.join(&self.exchange, given_back, || self.write_end());
        self.exchange.sealed.notify_waiters();
        outcome
    }

    fn write_end(&self) -> io::Result<()> {
        let seq = self.exchange.seqs_taken();
        if seq == 0 {
            return self.directory.remove().map(|_| ());
        }
        let id = BlockId { journal: self.id(), seq };
        let end = block::end_block(id, self.exchange.partitions, self.exchange.clock.now(), false);
        self.directory.end(seq, &end)
    }

    /// Whether all its threads do their work: none that panicked within the last minute, whereupon it was started again.
    /// A journal that was ended is not alive.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.running.lock().as_ref().is_some_and(Running::is_alive)
    }

    /// The block `seq`, which was put aside, is among the passed ones that it keeps again.
    pub(crate) fn keeps(&self, seq: u64, bytes: u64) {
        self.inventory.sealed(seq, 0, bytes);
    }

    /// Waits until a block was sealed in this process, from when the future was made.
    pub(crate) fn sealed(&self) -> tokio::sync::futures::Notified<'_> {
        self.exchange.sealed.notified()
    }
}

const LEFT: &str = "blocks of the click journal were not sealed in time; they are recovered later";

impl Running {
    fn is_alive(&self) -> bool {
        self.preparer.is_alive() && self.sealer.is_alive() && self.recoverer.is_alive()
    }

    /// Ends the threads, and then, if all blocks are `given_back` and sealed, `finish`es the journal.
    fn join(self, exchange: &Exchange, given_back: bool, finish: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let prepared = self.preparer.join();
        self.stop.store(true, Ordering::SeqCst);
        let sealed = self.sealer.join();
        let outcome = match (prepared, sealed) {
            (Some(()), Some(true)) if given_back => remove_unused(exchange).and_then(|()| finish()),
            (Some(()), Some(_)) => Err(io::Error::other(LEFT)),
            _ => Err(io::Error::other("a thread of the click journal has panicked")),
        };
        drop(self.recoverer);
        // Only now may somebody else recover it. A worker that still has a block keeps the lock with its process.
        if given_back {
            drop(self.lock)
        } else {
            std::mem::forget(self.lock)
        }
        outcome
    }
}

fn remove_unused(exchange: &Exchange) -> io::Result<()> {
    while let Some(unused) = exchange.take_unused() {
        unused.unmap()?;
    }
    Ok(())
}

impl ClickRecording for Journal {
    fn of_a_worker(&self) -> Box<dyn ClickRecorder> {
        let counts = self.exchange.add_worker();
        if let Some(running) = &*self.running.lock() {
            running.preparer.wake();
        }
        self.exchange.await_preparation();
        Box::new(Recorder::new(Arc::clone(&self.exchange), counts))
    }
}

/// A journal that was not ended is left as a killed process would leave it, but for its threads.
impl Drop for Journal {
    fn drop(&mut self) {
        let Some(running) = self.running.get_mut().take() else { return };
        let given_back = self.exchange.end(Duration::ZERO);
        if let Err(error) = running.join(&self.exchange, given_back, || Ok(())) {
            tracing::warn!(journal = %self.exchange.journal, %error, "a journal was left in disorder");
        }
    }
}

/// The last block of a journal, for tests of those who read it.
#[cfg(test)]
pub(crate) fn end_block_of(id: BlockId, partitions: u16) -> [u8; block::HEADER_BYTES] {
    block::end_block(id, partitions, terse_core::Timestamp::from_millis(1), false)
}

#[cfg(test)]
mod tests;
