//! The log, projected onto the read model: every click counted once, whatever dies on the way.
//!
//! The read model is a function of a prefix of the log. A [`Projector`] holds the rows in play, adds to them what the
//! log delivers, and writes absolute totals, then checkpoints; so work that is done again changes nothing:
//!
//! | what happens | what is done |
//! |---|---|
//! | a part comes twice, or a longer version of a recovered block | the exact set of blocks passed (`passed`) says which records are new |
//! | a crash between rows and checkpoint | a stored row says which position it includes; up to there nothing is added to it |
//! | a successor wrote meanwhile | where writes are transactions: rows are forgotten, checkpoints read; else positions order the writers |
//! | a message that nobody can decode | everything up to it is written, it is put aside durably, a checkpoint past it is written |
//! | a part of a newer format | its partition waits for a newer build; others go on |
//! | another message stands at the checkpoint's offset | a new epoch: the log is read from its beginning, and what was passed stays passed |
//! | the log begins behind the checkpoint | the partition stops, with an alarm |
//! | the read model or the log is out of reach | pauses with backoff; nothing is discarded |
//!
//! [`Projector::run_once`] is one bounded step; [`Projector::run`] repeats it. Bounds: [`ProjectorConfig`] for bytes
//! and times, [`MAX_PARTITIONS`], [`MAX_BATCH_ROWS`], [`MAX_BATCH_CLICKS`], [`MAX_BATCH_BYTES`], and in `passed` the
//! journals that a checkpoint speaks of.

mod apply;
mod holding;
mod passed;
mod progress;
mod rows;
mod tally;
mod track;
mod writing;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use terse_core::click::JournalId;
use terse_core::ports::StoreError;
use terse_core::ports::clicks::{Bus, ReadModel};
use terse_core::stats::Partition;
use terse_core::{Clock, Entropy, Timestamp, time};
use terse_resilience::SettingsError;
use terse_resilience::backoff::{Backoff, BackoffSettings, Jitter};
use tokio::sync::watch;

pub use self::passed::{Included, PassedError};
pub use self::progress::{Progress, ProgressReport};
use self::rows::Rows;
use self::track::Track;
use self::writing::Flight;
use crate::enrich::Enrichment;
use crate::log::{ClickLog, Delivery, LogError};
use crate::outage::Outage;

/// Most partitions that one projector reads at a time; more journals wait until some of them were retired or are there
/// no more, and are told as stopped so long.
pub const MAX_PARTITIONS: usize = 1_024;
/// A write has at most so many rows, and those of one part more.
pub const MAX_BATCH_ROWS: usize = 120_000;
/// Clicks that wait to be written are at most so many, and those of one part more.
pub const MAX_BATCH_CLICKS: usize = 250_000;
/// The rows of a write and the clicks that wait to be in them take at most about so many bytes, and those of one part
/// and of a thousand rows that are loaded in one go more. Encoded they take less.
pub const MAX_BATCH_BYTES: usize = 64 << 20;
/// Before clicks wait for more rows than this that are not in play, these are loaded: what they weigh is not known.
const MAX_UNKNOWN_ROWS: usize = 1_024;
/// After so many clicks they are counted in their rows, though not written: each makes its rows up to some KiB heavier.
const MAX_UNSETTLED_CLICKS: usize = 131_072;
/// The same when what clicks were like takes so many bytes: nearly all clicks are like some other.
const MAX_TOLD_BYTES: usize = 16 << 20;
/// Clicks that are later by the clock than now by more than this are counted, but not among the newest of their link:
/// a clock was ahead, and they would be the newest until then.
const MAX_AHEAD_MS: i64 = 24 * 3_600_000;
/// Most rows that are asked for in one go.
const MAX_LOAD_ROWS: usize = 1_024;
/// How often leases and partitions are looked at.
const LOOK_MS: u64 = 500;
/// How often the log is asked what waits in it.
const LAG_MS: u64 = 100;
/// When a partition is tried again that waits or has stopped.
const ASIDE_MS: u64 = 30_000;
/// Rows are written at most so rarely, however long a write takes: with two seconds, clicks were three seconds late at
/// half of the greatest speed, and with one second one in a hundred was just over two seconds late.
const MAX_WRITE_AGE_MS: u64 = 800;
/// A write may take this part of the time: the more clicks there are, the rarer a row is written, and the fewer rows for
/// as many clicks.
const WRITE_SHARE: u64 = 3;
/// Waits after faults: from 50 ms up to 5 s.
const BACKOFF: BackoffSettings =
    BackoffSettings { base_ms: 50, max_ms: 5_000, jitter: Jitter::Decorrelated, max_attempts: None };

/// What a projector may use.
#[derive(Clone, Debug)]
pub struct ProjectorConfig {
    /// What the read model is made for.
    pub bus: Bus,
    /// Who asks for leases: another name for every process.
    pub holder: String,
    /// How many bytes the rows in play may take after a write. Before it they take as much as a write may more
    /// ([`MAX_BATCH_BYTES`]), and while it is done the rows that are written are there once more, encoded.
    pub cache_bytes: usize,
    /// About how many bytes are read from the log at once.
    pub read_bytes: usize,
    /// A click that was read is written at most so much later, in milliseconds, while writes take less than a third of
    /// that; else up to 800.
    pub write_age_ms: u64,
    /// For how long a lease is taken, in milliseconds. It is renewed after a third of that.
    pub lease_ms: u64,
    /// Whether one lease is for all partitions, as on the local bus: for a read model whose writes are transactions, where
    /// two writers would but undo each other's work.
    pub one_lease: bool,
}

impl ProjectorConfig {
    /// The usual settings.
    #[must_use]
    pub fn new(bus: Bus, holder: impl Into<String>) -> Self {
        Self {
            bus,
            holder: holder.into(),
            cache_bytes: 128 << 20,
            read_bytes: 2 << 20,
            write_age_ms: 250,
            lease_ms: 10_000,
            one_lease: bus == Bus::Local,
        }
    }
}

/// Why a projector gives up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProjectorError {
    /// The read model is for another bus, or another number of partitions. Changing them takes drained journals and a
    /// fresh read model.
    #[error("the read model was made for {stands}, not for {asked}")]
    OtherBus {
        /// What it was made for.
        stands: Bus,
        /// What was asked for.
        asked: Bus,
    },
}

/// What a step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Deliveries taken from the log.
    pub taken: usize,
    /// Clicks added to rows.
    pub added: u64,
    /// Whether rows or checkpoints were written.
    pub wrote: bool,
    /// How long to wait before the next step, in milliseconds, because of a fault.
    pub pause_ms: u64,
}

/// Projects a log onto a read model.
pub struct Projector {
    config: ProjectorConfig,
    log: Box<dyn ClickLog>,
    model: Arc<dyn ReadModel>,
    enrichment: Enrichment,
    clock: Arc<dyn Clock>,
    backoff: Backoff,
    outage: Outage,
    progress: Arc<Progress>,
    /// Whether the read model is known to be for this bus.
    settled: bool,
    /// Whether the read model tells of other writers since the checkpoints were read.
    attached: bool,
    /// When each lease was taken or renewed last.
    leases: HashMap<Partition, u64>,
    tracks: BTreeMap<Partition, Track>,
    /// Partitions that are left alone until some time; for ever, if nothing is left of them.
    aside: HashMap<Partition, u64>,
    /// Partitions of which operators were told that they stand still, and why: each once for a reason.
    standing: BTreeSet<(Partition, holding::Stands)>,
    /// How many more there are than [`MAX_PARTITIONS`].
    unstarted: usize,
    next_look_ms: u64,
    rows: Rows,
    /// Taken from the log, not yet added to rows.
    pending: VecDeque<Pending>,
    added_unwritten: u64,
    dirty_since_ms: Option<u64>,
    write_age_ms: u64,
    flight: Option<Flight>,
    last_step: Step,
    /// When the oldest block was sealed that the log has not delivered, and when it was asked.
    waits_in_log: (Option<Timestamp>, u64),
}

/// A delivery that was taken.
struct Pending {
    delivery: Delivery,
    /// Whether its partition knows if it was passed: its journal is in the set, or was looked up.
    is_known: bool,
}

/// Why a step could not go on.
#[derive(Debug)]
enum Fault {
    Store(StoreError),
    Log(LogError),
    Set(Partition, PassedError),
    Over(ProjectorError),
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<LogError> for Fault {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl Projector {
    /// A projector of `log` onto `model`. It does nothing before its first step.
    ///
    /// # Errors
    /// Never with the settings as they are.
    pub fn new(
        config: ProjectorConfig,
        log: Box<dyn ClickLog>,
        model: Arc<dyn ReadModel>,
        enrichment: Enrichment,
        clock: Arc<dyn Clock>,
        entropy: &dyn Entropy,
    ) -> Result<Self, SettingsError> {
        let backoff = Backoff::new(BACKOFF, u64::from_le_bytes(time::random_bytes(entropy)))?;
        Ok(Self {
            rows: Rows::new(config.bus),
            write_age_ms: config.write_age_ms,
            config,
            log,
            model,
            enrichment,
            clock,
            backoff,
            outage: Outage::default(),
            progress: Arc::default(),
            settled: false,
            attached: false,
            leases: HashMap::new(),
            tracks: BTreeMap::new(),
            aside: HashMap::new(),
            standing: BTreeSet::new(),
            unstarted: 0,
            next_look_ms: 0,
            pending: VecDeque::new(),
            added_unwritten: 0,
            dirty_since_ms: None,
            flight: None,
            last_step: Step::default(),
            waits_in_log: (None, 0),
        })
    }

    /// What it tells of itself while it works.
    #[must_use]
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Repeats [`Projector::run_once`] until `stop` says true or is gone, then writes what was added and gives its leases
    /// back.
    ///
    /// # Errors
    /// [`ProjectorError`].
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), ProjectorError> {
        const WAIT_MS: u64 = 250;
        while !*stop.borrow_and_update() && stop.has_changed().is_ok() {
            let step = self.run_once(WAIT_MS).await?;
            if step.pause_ms > 0 {
                // Either way the loop looks what it was.
                let _ = tokio::time::timeout(Duration::from_millis(step.pause_ms), stop.changed()).await;
            }
        }
        self.finish().await
    }

    /// One step: takes what the log has, waiting for it at most `wait_ms`, adds it, and writes if it is time. A fault is
    /// logged, and answered by [`Step::pause_ms`]; nothing is lost by it, nor by dropping the future.
    ///
    /// # Errors
    /// [`ProjectorError`].
    pub async fn run_once(&mut self, wait_ms: u64) -> Result<Step, ProjectorError> {
        self.last_step = Step::default();
        let done = self.step(wait_ms).await;
        self.conclude(done)
    }

    /// Writes what was added, whether it is time or not.
    ///
    /// # Errors
    /// [`ProjectorError`].
    pub async fn write_now(&mut self) -> Result<Step, ProjectorError> {
        self.last_step = Step::default();
        self.land(false);
        let done = self.write().await;
        self.conclude(done)
    }

    /// Writes what was added and gives the leases back. What can't be written now, the next projector adds again.
    ///
    /// # Errors
    /// [`ProjectorError`].
    pub async fn finish(&mut self) -> Result<(), ProjectorError> {
        self.write_now().await?;
        let released = self.release_all().await;
        self.conclude(released).map(|_| ())
    }

    fn conclude(&mut self, done: Result<(), Fault>) -> Result<Step, ProjectorError> {
        match done {
            Ok(()) => {
                if self.outage.is_over(self.clock.monotonic_ms()) {
                    tracing::info!("clicks are counted again");
                }
                self.backoff.reset();
            }
            Err(Fault::Over(error)) => return Err(error),
            Err(Fault::Set(partition, error)) => self.stop(partition, &error.to_string()),
            Err(Fault::Log(LogError::Gap { partition, detail } | LogError::Unreadable { partition, detail })) => {
                self.stop(partition, &detail);
            }
            Err(Fault::Log(error)) => self.pause(&error),
            Err(Fault::Store(error)) => self.pause(&error),
        }
        self.tell_progress();
        Ok(self.last_step)
    }

    fn pause(&mut self, error: &(dyn std::error::Error + 'static)) {
        if self.outage.begins(self.clock.monotonic_ms()) {
            tracing::warn!(error, "clicks are not counted now; trying again");
        }
        self.progress.fault();
        self.last_step.pause_ms = self.backoff.next_wait_ms().unwrap_or(BACKOFF.max_ms).max(1);
    }

    async fn step(&mut self, wait_ms: u64) -> Result<(), Fault> {
        self.land(false);
        self.settle().await?;
        if self.is_time_to_write() {
            self.write().await?;
        }
        self.look().await?;
        if self.pending.is_empty() {
            let wait_ms = self.wait_ms(wait_ms);
            let taken = self.take(wait_ms).await?;
            self.last_step.taken = taken.len();
            self.pending.extend(taken.into_iter().map(|delivery| Pending { delivery, is_known: false }));
        }
        self.add_pending().await?;
        if self.is_time_to_write() {
            self.write().await?;
        }
        Ok(())
    }

    async fn take(&mut self, wait_ms: u64) -> Result<Vec<Delivery>, Fault> {
        match self.log.next(self.config.read_bytes, wait_ms).await {
            Err(error @ (LogError::Unreadable { .. } | LogError::Gap { .. })) => {
                // Its partition is forgotten next; what was found up to there stays counted.
                self.write().await?;
                Err(error.into())
            }
            taken => Ok(taken?),
        }
    }

    /// How long the log may be waited for, so that nothing else is late.
    fn wait_ms(&self, most_ms: u64) -> u64 {
        let now_ms = self.clock.monotonic_ms();
        let until_write = self.dirty_since_ms.map(|since| (since + self.write_age_ms).saturating_sub(now_ms));
        let until_look = self.next_look_ms.saturating_sub(now_ms);
        most_ms.min(until_look).min(until_write.unwrap_or(u64::MAX))
    }

    async fn settle(&mut self) -> Result<(), Fault> {
        if self.settled {
            return Ok(());
        }
        let (asked, stands) = (self.config.bus, self.model.settle_bus(self.config.bus).await?);
        if stands != asked {
            return Err(Fault::Over(ProjectorError::OtherBus { stands, asked }));
        }
        self.settled = true;
        Ok(())
    }

    fn tell_progress(&mut self) {
        let now_ms = self.clock.monotonic_ms();
        if now_ms.saturating_sub(self.waits_in_log.1) >= LAG_MS {
            self.waits_in_log = (self.log.oldest_waiting(), now_ms);
        }
        let unwritten = self.tracks.values().filter_map(|track| track.first_unwritten.map(|(_, sealed)| sealed));
        let pending = self.pending.iter().filter_map(|pending| pending.sealed_at());
        let oldest = unwritten.chain(pending).chain(self.waits_in_log.0).min();
        let stopped = self.aside.values().filter(|until_ms| **until_ms != u64::MAX).count();
        self.progress.holds(self.tracks.len(), stopped + self.unstarted, oldest);
        self.progress.keeps(self.rows.bytes());
    }
}

impl Pending {
    fn sealed_at(&self) -> Option<Timestamp> {
        match &self.delivery.body {
            crate::log::Body::Part(part) => Some(part.header.sealed_at),
            _ => None,
        }
    }
}

/// The journal that a partition is, on the local bus.
fn own_journal(partition: Partition) -> Option<JournalId> {
    match partition {
        Partition::Journal(journal) => Some(journal),
        Partition::Stream(_) => None,
    }
}
