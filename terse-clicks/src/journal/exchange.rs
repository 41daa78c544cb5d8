//! What workers share with the threads that prepare and seal blocks.
//!
//! Blocks go round: prepared → `spare` → `ready` → a worker → `full` → sealed. Each queue holds more than there can be
//! blocks, so a worker's push never fails and its pop never waits. To a ready block a worker writes without a fault of
//! its pages; a spare one, which it takes when none is ready, can cost it some dozens of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use parking_lot::{Condvar, Mutex};
use terse_core::Clock;
use terse_core::click::{Dropped, JournalId};
use tokio::sync::Notify;

use super::open::Block;
use super::visitor::VisitorKeys;

/// Most blocks that are mapped at a time, be they prepared, written, or waiting to be sealed. Beyond, none is prepared.
pub(super) const MAX_MAPPED_BLOCKS: usize = 1_024;

/// Blocks that are prepared for each worker.
pub(super) const SPARE_PER_WORKER: usize = 4;

/// How many of them are ready.
pub(super) const READY_PER_WORKER: usize = 2;

/// How old a block gets while many wait for their readers, in milliseconds.
pub(super) const LATE_SEAL_AGE_MS: u64 = 5_000;

/// How long a new worker waits for blocks of its own before it starts without.
const FIRST_BLOCK_WAIT: Duration = Duration::from_secs(1);

pub(super) struct Exchange {
    pub(super) journal: JournalId,
    pub(super) partitions: u16,
    seal_age_ms: u64,
    /// Whether blocks get as old as [`LATE_SEAL_AGE_MS`].
    seals_late: AtomicBool,
    pub(super) obey_signals: bool,
    pub(super) keys: VisitorKeys,
    pub(super) clock: Arc<dyn Clock>,
    /// Blocks that are prepared, the memory of which is not at hand.
    spare: ArrayQueue<Block>,
    /// Blocks that are prepared, to be written to at once.
    ready: ArrayQueue<Block>,
    /// Blocks that workers are done with.
    full: ArrayQueue<Block>,
    /// Blocks that are mapped, or not yet sealed.
    mapped: AtomicUsize,
    /// Blocks that workers have.
    taken: AtomicUsize,
    next_seq: AtomicU64,
    /// Why there is no free block, when there is none: an index of [`Dropped::ALL`].
    shortage: AtomicU8,
    ending: AtomicBool,
    /// The threads that prepare and seal, to be woken.
    serving: Mutex<Vec<Thread>>,
    workers: Mutex<Workers>,
    steps: Mutex<u64>,
    /// Tells of a step of the thread that prepares blocks, and when a journal that ends got a block back.
    changed: Condvar,
    /// Tells that a block was sealed.
    pub(super) sealed: Notify,
}

/// What the workers counted.
#[derive(Default)]
struct Workers {
    live: Vec<Arc<WorkerCounts>>,
    /// The counts of workers that are gone.
    gone: Totals,
}

/// What one worker counts; nobody else writes to it.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct WorkerCounts {
    recorded: AtomicU64,
    dropped: [AtomicU64; Dropped::ALL.len()],
}

/// Clicks since the journal was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) recorded: u64,
    pub(super) dropped: [u64; Dropped::ALL.len()],
}

/// Adds one to a number that only this thread writes: cheaper than an atomic addition.
fn count(number: &AtomicU64) {
    number.store(number.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

impl WorkerCounts {
    pub(super) fn recorded(&self) {
        count(&self.recorded);
    }

    pub(super) fn dropped(&self, reason: Dropped) {
        count(&self.dropped[reason as usize]);
    }

    fn add_to(&self, totals: &mut Totals) {
        totals.recorded += self.recorded.load(Ordering::Relaxed);
        for (total, count) in totals.dropped.iter_mut().zip(&self.dropped) {
            *total += count.load(Ordering::Relaxed);
        }
    }
}

impl Exchange {
    pub(super) fn new(
        journal: JournalId,
        partitions: u16,
        seal_age_ms: u64,
        obey_signals: bool,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            journal,
            partitions,
            seal_age_ms,
            seals_late: AtomicBool::new(false),
            obey_signals,
            keys: VisitorKeys::new(),
            clock,
            spare: ArrayQueue::new(MAX_MAPPED_BLOCKS),
            ready: ArrayQueue::new(MAX_MAPPED_BLOCKS),
            full: ArrayQueue::new(MAX_MAPPED_BLOCKS),
            mapped: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
            next_seq: AtomicU64::new(0),
            shortage: AtomicU8::new(Dropped::NoBlock as u8),
            ending: AtomicBool::new(false),
            serving: Mutex::default(),
            workers: Mutex::default(),
            steps: Mutex::new(0),
            changed: Condvar::new(),
            sealed: Notify::new(),
        }
    }

    /// From now on the calling thread is woken when workers have exchanged blocks.
    pub(super) fn serve(&self) {
        let mut serving = self.serving.lock();
        let this = thread::current();
        if serving.iter().all(|other| other.id() != this.id()) {
            serving.push(this);
        }
    }

    /// Wakes the threads that prepare and seal.
    pub(super) fn wake(&self) {
        self.serving.lock().iter().for_each(Thread::unpark);
    }

    /// How old a block gets before it is sealed though it isn't full.
    pub(super) fn seal_age_ms(&self) -> u64 {
        let late = self.seals_late.load(Ordering::Relaxed);
        if late { self.seal_age_ms.max(LATE_SEAL_AGE_MS) } else { self.seal_age_ms }
    }

    /// From now on blocks get older before they are sealed, or do not.
    pub(super) fn seal_late(&self, late: bool) {
        self.seals_late.store(late, Ordering::Relaxed);
    }

    /// The seq of the next block that takes one.
    pub(super) fn take_seq(&self) -> u64 {
        self.next_seq.fetch_add(1, Ordering::Relaxed)
    }

    /// How many blocks have taken a seq.
    pub(super) fn seqs_taken(&self) -> u64 {
        self.next_seq.load(Ordering::Acquire)
    }

    /// A prepared block, for a worker.
    pub(super) fn take_free(&self) -> Result<Block, Dropped> {
        // Counted before the end is looked at: whoever ends the journal waits for this block, or it isn't taken.
        self.taken.fetch_add(1, Ordering::SeqCst);
        if self.is_ending() {
            self.given_back();
            return Err(Dropped::NoBlock);
        }
        self.ready.pop().or_else(|| self.spare.pop()).ok_or_else(|| {
            self.given_back();
            Dropped::ALL[usize::from(self.shortage.load(Ordering::Relaxed))]
        })
    }

    /// Takes a block from a worker, to be sealed on disk; one that was never begun is taken back.
    pub(super) fn give_back(&self, block: Block) {
        let queue = if block.is_begun() || self.is_ending() { &self.full } else { &self.spare };
        let pushed = queue.push(block).is_ok();
        debug_assert!(pushed, "the queues hold all blocks that can be mapped");
        self.given_back();
    }

    fn given_back(&self) {
        self.taken.fetch_sub(1, Ordering::SeqCst);
        if self.is_ending() {
            drop(self.steps.lock());
            self.changed.notify_all();
        }
    }

    /// The next block to be sealed on disk.
    pub(super) fn take_full(&self) -> Option<Block> {
        self.full.pop()
    }

    /// The next prepared block, to be given up.
    pub(super) fn take_unused(&self) -> Option<Block> {
        self.spare.pop().or_else(|| self.ready.pop())
    }

    /// Puts a newly prepared block where workers find it.
    pub(super) fn add_spare(&self, block: Block) {
        self.mapped.fetch_add(1, Ordering::AcqRel);
        self.set_shortage(Dropped::NoBlock);
        let pushed = self.spare.push(block).is_ok();
        debug_assert!(pushed, "the queues hold all blocks that can be mapped");
    }

    /// The next spare block, to be made ready.
    pub(super) fn take_spare(&self) -> Option<Block> {
        self.spare.pop()
    }

    /// The block that has been ready for longest, to be made ready again.
    pub(super) fn take_ready(&self) -> Option<Block> {
        self.ready.pop()
    }

    /// Puts a block that was made ready where workers find it first.
    pub(super) fn add_ready(&self, block: Block) {
        let pushed = self.ready.push(block).is_ok();
        debug_assert!(pushed, "the queues hold all blocks that can be mapped");
    }

    /// How many blocks are ready.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// A block is sealed, or gone.
    pub(super) fn unmapped(&self) {
        self.mapped.fetch_sub(1, Ordering::AcqRel);
    }

    /// How many blocks are mapped.
    pub(super) fn mapped(&self) -> usize {
        self.mapped.load(Ordering::Acquire)
    }

    /// How many blocks workers have.
    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    /// How many blocks are prepared.
    pub(super) fn free(&self) -> usize {
        self.spare.len() + self.ready.len()
    }

    /// Tells workers why there is no block, should there be none.
    pub(super) fn set_shortage(&self, reason: Dropped) {
        self.shortage.store(reason as u8, Ordering::Relaxed);
    }

    /// Adds a worker.
    pub(super) fn add_worker(&self) -> Arc<WorkerCounts> {
        let counts = Arc::new(WorkerCounts::default());
        self.workers.lock().live.push(Arc::clone(&counts));
        counts
    }

    /// Waits until blocks were prepared, or could not be, since the call.
    pub(super) fn await_preparation(&self) {
        let mut steps = self.steps.lock();
        // The step that goes on may have begun before the call.
        let awaited = *steps + 2;
        let enough = |steps: &mut u64| *steps < awaited && self.free() < SPARE_PER_WORKER && !self.is_ending();
        if self.changed.wait_while_for(&mut steps, enough, FIRST_BLOCK_WAIT).timed_out() {
            tracing::warn!(journal = %self.journal, "no block was prepared in time for a new worker");
        }
    }

    /// A step of preparing blocks was made.
    pub(super) fn step_made(&self) {
        *self.steps.lock() += 1;
        self.changed.notify_all();
    }

    /// Removes a worker that is gone; its counts stay.
    pub(super) fn remove_worker(&self, counts: &Arc<WorkerCounts>) {
        let mut workers = self.workers.lock();
        counts.add_to(&mut workers.gone);
        workers.live.retain(|live| !Arc::ptr_eq(live, counts));
    }

    /// How many workers record.
    pub(super) fn workers(&self) -> usize {
        self.workers.lock().live.len()
    }

    /// What was recorded and dropped.
    pub(super) fn totals(&self) -> Totals {
        let workers = self.workers.lock();
        let mut totals = workers.gone;
        workers.live.iter().for_each(|worker| worker.add_to(&mut totals));
        totals
    }

    /// Whether the journal ends: no block is begun any more.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    /// Ends the journal, and waits up to `wait` until workers have given all blocks back. Returns whether they have.
    pub(super) fn end(&self, wait: Duration) -> bool {
        self.ending.store(true, Ordering::SeqCst);
        let mut steps = self.steps.lock();
        let waiting = |_: &mut u64| self.taken.load(Ordering::SeqCst) > 0;
        !self.changed.wait_while_for(&mut steps, waiting, wait).timed_out()
    }
}
