//! The relay: publishes the parts of sealed blocks, and lets a block's file go when the broker has confirmed all of
//! them.
//!
//! It reads the journals of one data directory as the local bus does: that of its own process while it lives, and
//! those that have ended, whoever wrote them; the journal of another living process is that one's to relay. A part
//! that is not plainly acknowledged is published again: one that came back unroutable after the topology was declared
//! again, one that was refused after a wait, one whose confirm is late or whose connection broke on the next
//! connection. So parts come at least once, and each block is counted once by its journal and sequence number. A
//! journal's last block goes out when all others of it are confirmed.
//!
//! | bound | when it is hit |
//! |---|---|
//! | [`RelayConfig::window_bytes`] read and not confirmed | no more is read; blocks stay on disk, recording goes on |
//! | 1,024 parts under way | more wait in that window |
//! | half of what a stream keeps (`guard`) | nothing is published until a projector has caught up |
//! | the broker asks to be spared | likewise, until it is well again |
//! | [`RelayConfig::confirm_ms`] | the connection is given up |
//! | [`MAX_JOURNALS`] | more journals wait until some are done |
//!
//! [`Relay::run_once`] is one bounded step; [`Relay::run`] repeats it.

mod in_flight;
mod journals;
mod progress;
mod session;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Either, select};
use terse_core::click::JournalId;
use terse_core::stats::Partition;
use terse_core::{Clock, Entropy, time};
use terse_resilience::SettingsError;
use terse_resilience::backoff::{Backoff, BackoffSettings, Jitter};
use tokio::sync::watch;

use self::journals::Journals;
pub use self::journals::MAX_JOURNALS;
pub use self::progress::{RelayProgress, RelayReport};
pub(super) use self::session::{CONTENT_TYPE, PERSISTENT};
use self::session::{Message, Outcome, Session};
use super::connection::{BrokerConfig, RabbitError};
use super::guard::{Guard, Needs};
use crate::journal::Journal;
use crate::log::local::LocalLog;
use crate::log::{Body, ClickLog, Delivery, LogError};

/// Waits after faults: from 50 ms up to 5 s.
const BACKOFF: BackoffSettings =
    BackoffSettings { base_ms: 50, max_ms: 5_000, jitter: Jitter::Decorrelated, max_attempts: None };
/// When a topology that is made otherwise is looked at again.
const TOPOLOGY_RETRY_MS: u64 = 30_000;
/// How long the relay sleeps at most while it may not publish.
const HELD_MS: u64 = 100;

/// What a relay may use.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// The broker.
    pub broker: BrokerConfig,
    /// The directory of all journals.
    pub directory: PathBuf,
    /// About how many bytes of parts are held in memory, published or about to be; at least one block more.
    pub window_bytes: usize,
    /// How long a confirm may take, in milliseconds.
    pub confirm_ms: u64,
}

impl RelayConfig {
    /// The usual settings: 8 MiB, 30 s.
    #[must_use]
    pub fn new(broker: BrokerConfig, directory: PathBuf) -> Self {
        Self { broker, directory, window_bytes: 8 << 20, confirm_ms: 30_000 }
    }
}

/// What a step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayStep {
    /// Blocks taken from journals.
    pub taken: usize,
    /// Parts published, again or for the first time.
    pub published: usize,
    /// Parts confirmed.
    pub confirmed: usize,
    /// Whether nothing is left to do for now: no block waits, and all parts are confirmed.
    pub idle: bool,
    /// How long to wait before the next step, in milliseconds, because of a fault.
    pub pause_ms: u64,
}

/// Publishes the blocks of a data directory.
pub struct Relay {
    config: RelayConfig,
    log: LocalLog,
    journals: Journals,
    guard: Guard,
    clock: Arc<dyn Clock>,
    backoff: Backoff,
    progress: Arc<RelayProgress>,
    session: Option<Session>,
    /// Taken from the log, not yet split.
    taken: VecDeque<Delivery>,
    /// To be published.
    outbox: VecDeque<Message>,
    last_step: RelayStep,
}

/// Why a step could not go on.
enum Fault {
    Log(LogError),
    Broker(RabbitError),
}

impl From<LogError> for Fault {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<RabbitError> for Fault {
    fn from(error: RabbitError) -> Self {
        Self::Broker(error)
    }
}

impl Relay {
    /// A relay of the journals in `config.directory`, among them `journal`, which is this process's. `needs` tells what
    /// projectors still need of the streams. It does nothing before its first step.
    ///
    /// # Errors
    /// Never with the settings as they are.
    pub fn new(
        config: RelayConfig,
        journal: Option<Arc<Journal>>,
        needs: Arc<dyn Needs>,
        clock: Arc<dyn Clock>,
        entropy: &dyn Entropy,
    ) -> Result<Self, SettingsError> {
        let own = journal.as_ref().map(|journal| journal.id());
        Ok(Self {
            log: LocalLog::new(&config.directory, journal),
            journals: Journals::new(&config.directory, own, config.broker.partitions()),
            guard: Guard::new(&config.broker, needs),
            backoff: Backoff::new(BACKOFF, u64::from_le_bytes(time::random_bytes(entropy)))?,
            clock,
            progress: Arc::default(),
            session: None,
            taken: VecDeque::new(),
            outbox: VecDeque::new(),
            last_step: RelayStep::default(),
            config,
        })
    }

    /// What it tells of itself while it works.
    #[must_use]
    pub fn progress(&self) -> Arc<RelayProgress> {
        Arc::clone(&self.progress)
    }

    /// Repeats [`Relay::run_once`] until `stop` says true or is gone.
    pub async fn run(&mut self, stop: &mut watch::Receiver<bool>) {
        const WAIT_MS: u64 = 250;
        while !*stop.borrow_and_update() && stop.has_changed().is_ok() {
            let step = self.run_once(WAIT_MS).await;
            if step.pause_ms > 0 {
                // Either way the loop looks what it was.
                let _ = tokio::time::timeout(Duration::from_millis(step.pause_ms), stop.changed()).await;
            }
        }
    }

    /// Publishes what is there, then ends the connection. Returns whether all was confirmed; what was not stays on disk
    /// for the next relay. It takes `within`, and up to one answer of the broker more.
    pub async fn finish(mut self, within: Duration) -> bool {
        const WAIT_MS: u64 = 50;
        let drained = async {
            loop {
                let step = self.run_once(WAIT_MS).await;
                if step.idle {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(step.pause_ms)).await;
            }
        };
        let drained = tokio::time::timeout(within, drained).await.is_ok();
        if let Some(session) = self.session.take() {
            session.close().await;
        }
        drained
    }

    /// One step: publishes what waits, waits for blocks and confirms at most `wait_ms`, notes what was confirmed. A
    /// fault is logged, and answered by [`RelayStep::pause_ms`]; nothing is lost by it, nor by dropping the future.
    pub async fn run_once(&mut self, wait_ms: u64) -> RelayStep {
        self.last_step = RelayStep::default();
        match self.step(wait_ms).await {
            Ok(()) => {}
            Err(Fault::Log(LogError::Gap { partition, detail })) => self.begin_again(partition, &detail),
            Err(Fault::Log(LogError::Unreadable { partition, detail })) => self.stall(partition, &detail),
            Err(Fault::Log(error)) => self.pause(&error),
            Err(Fault::Broker(error)) => self.lose(&error),
        }
        self.tell_progress();
        self.last_step
    }

    async fn step(&mut self, wait_ms: u64) -> Result<(), Fault> {
        self.journals.look(&mut self.log, self.clock.monotonic_ms()).await?;
        self.connect().await?;
        self.split().await?;
        self.publish().await?;
        let nothing_waits = self.wait(wait_ms).await?;
        self.split().await?;
        self.publish().await?;
        self.journals.note_passed(&mut self.log).await;
        let nothing_in_flight = self.session.as_ref().is_none_or(Session::is_idle);
        self.last_step.idle = nothing_waits && nothing_in_flight && self.outbox.is_empty();
        Ok(())
    }

    async fn connect(&mut self) -> Result<(), RabbitError> {
        if let Some(session) = &self.session
            && !session.is_up()
        {
            return Err(RabbitError::Unavailable("the connection has ended".into()));
        }
        if self.session.as_ref().is_some_and(Session::is_spent) {
            return Err(RabbitError::Unavailable("the broker asked to be spared, and is well again".into()));
        }
        if self.session.is_none() {
            self.session = Some(Session::open(&self.config.broker).await?);
            self.progress.connected();
        }
        let Some(session) = &mut self.session else { return Ok(()) };
        if session.link.is_blocked() {
            // It reads nothing from who publishes, and so answers nothing either.
            return Ok(());
        }
        session.declare_again(&self.config.broker).await?;
        self.guard.look(&session.link, &self.config.broker, self.clock.monotonic_ms()).await
    }

    /// Splits the blocks that were taken.
    async fn split(&mut self) -> Result<(), Fault> {
        while let Some(delivery) = self.taken.front() {
            match &delivery.body {
                Body::Part(part) => {
                    if !self.journals.take(part, &mut self.outbox) {
                        let partition = delivery.partition;
                        self.log.stop(partition);
                        self.taken.retain(|delivery| delivery.partition != partition);
                        continue;
                    }
                }
                Body::Undecodable { .. } => {
                    // If it can't be put aside, it stays the first, or its journal is stuck.
                    self.log.dead_letter(delivery).await?;
                    self.journals.skip(delivery.partition, delivery.offset);
                }
                Body::Newer(format) => {
                    let journal = delivery.partition;
                    tracing::warn!(%journal, format, "blocks wait for a newer build to relay them");
                }
            }
            self.taken.pop_front();
        }
        Ok(())
    }

    /// Publishes what waits, as far as it may.
    async fn publish(&mut self) -> Result<(), RabbitError> {
        let Some(session) = &mut self.session else { return Ok(()) };
        while let Some(message) = self.outbox.front() {
            let now_ms = self.clock.monotonic_ms();
            if session.link.is_blocked() || !self.guard.allows(message.partition, message.bytes(), now_ms) {
                break;
            }
            if !session.publish(&self.config.broker, message, now_ms).await? {
                break;
            }
            self.guard.published(message.partition, message.bytes());
            self.outbox.pop_front();
            self.last_step.published += 1;
            self.progress.published();
        }
        Ok(())
    }

    fn held_bytes(&self) -> usize {
        let outbox: usize = self.outbox.iter().map(Message::bytes).sum();
        outbox + self.session.as_ref().map_or(0, Session::bytes)
    }

    /// Waits for a block or a confirm, and takes what there is of both. Whether the journals were asked and have none.
    async fn wait(&mut self, wait_ms: u64) -> Result<bool, Fault> {
        let room = self.config.window_bytes.saturating_sub(self.held_bytes());
        let Some(session) = &mut self.session else { return Ok(false) };
        let wait_ms = if self.outbox.is_empty() { wait_ms } else { wait_ms.min(HELD_MS) };
        let (mut outcomes, mut nothing_waits) = (Vec::new(), false);
        if room == 0 || !self.outbox.is_empty() {
            let some = tokio::time::timeout(Duration::from_millis(wait_ms), session.concluded()).await;
            outcomes.extend(some.into_iter().flatten());
        } else {
            let blocks = std::pin::pin!(self.log.next(room, wait_ms));
            match select(blocks, std::pin::pin!(session.concluded())).await {
                Either::Left((taken, _)) => {
                    let taken = taken?;
                    nothing_waits = taken.is_empty();
                    self.last_step.taken = taken.len();
                    self.taken.extend(taken);
                }
                Either::Right((some, _)) => outcomes.extend(some),
            }
        }
        // And what else is known by now.
        outcomes.extend(session.concluded().now_or_never().into_iter().flatten());
        let mut broken = None;
        for outcome in outcomes {
            broken = self.conclude(outcome).or(broken);
        }
        broken.map_or_else(|| self.check_patience(), |error| Err(error.into()))?;
        Ok(nothing_waits)
    }

    /// Does what follows from an outcome. Returns why the connection is no good any more, if so.
    fn conclude(&mut self, (message, outcome): (Message, Outcome)) -> Option<RabbitError> {
        match outcome {
            Outcome::Confirmed => {
                self.journals.confirmed(message.block, message.partition, &mut self.outbox);
                self.last_step.confirmed += 1;
                self.progress.confirmed();
                if self.backoff.attempts() > 0 {
                    tracing::info!("clicks are published again");
                }
                self.backoff.reset();
            }
            Outcome::Returned(reason) => {
                self.progress.returned();
                tracing::warn!(block = %message.block, partition = message.partition, reason, "a part came back");
                self.outbox.push_front(message);
                if let Some(session) = &mut self.session {
                    session.topology_is_doubtful();
                }
                self.last_step.pause_ms = self.next_pause_ms();
            }
            Outcome::Refused => {
                self.progress.refused();
                tracing::warn!(block = %message.block, partition = message.partition, "a part was refused");
                self.outbox.push_front(message);
                self.last_step.pause_ms = self.next_pause_ms();
            }
            Outcome::Lost(error) => {
                self.outbox.push_front(message);
                return Some(error);
            }
        }
        None
    }

    fn check_patience(&mut self) -> Result<(), Fault> {
        let now_ms = self.clock.monotonic_ms();
        let Some(session) = &mut self.session else { return Ok(()) };
        if session.longest_wait_ms(now_ms) > self.config.confirm_ms {
            let text = format!("a part was not confirmed within {} ms", self.config.confirm_ms);
            return Err(RabbitError::Unavailable(text).into());
        }
        Ok(())
    }

    fn next_pause_ms(&mut self) -> u64 {
        self.backoff.next_wait_ms().unwrap_or(BACKOFF.max_ms).max(1)
    }

    fn pause(&mut self, error: &dyn std::error::Error) {
        if self.backoff.attempts() == 0 {
            tracing::warn!(error = %error, "clicks are not published now; they stay on disk");
        }
        self.progress.fault();
        self.last_step.pause_ms = self.next_pause_ms();
    }

    /// Gives the connection up. What was not confirmed is published on the next one, the oldest first.
    fn lose(&mut self, error: &RabbitError) {
        self.pause(error);
        if let Some(session) = self.session.take() {
            for message in session.unconfirmed().rev() {
                self.outbox.push_front(message);
            }
        }
        self.guard.forget();
        if let RabbitError::Topology(_) | RabbitError::Setting(_) = error {
            tracing::error!(%error, "clicks can't be published; an operator must look");
            self.last_step.pause_ms = TOPOLOGY_RETRY_MS;
        }
    }

    /// Reads a journal again from where it is noted to be passed.
    fn begin_again(&mut self, partition: Partition, why: &str) {
        tracing::warn!(%partition, why, "a journal is read again from what is noted");
        self.log.stop(partition);
        if let Some(journal) = journal_of(partition) {
            self.journals.forget(journal);
            self.taken.retain(|delivery| delivery.partition != partition);
            self.outbox.retain(|message| message.block.journal != journal);
        }
        self.progress.fault();
    }

    /// No more of a journal can be read now. What was taken before is published and confirmed; then the journal is left
    /// alone for a while, and read again from there.
    fn stall(&mut self, partition: Partition, why: &str) {
        tracing::error!(%partition, why, "no more of a journal can be published, to be tried again");
        self.log.stop(partition);
        self.taken.retain(|delivery| delivery.partition != partition);
        if let Some(journal) = journal_of(partition) {
            self.journals.stall(journal);
        }
        self.progress.fault();
    }

    fn tell_progress(&self) {
        let in_flight = self.session.as_ref().map_or(0, Session::in_flight);
        let blocked = self.session.as_ref().is_some_and(|session| session.link.is_blocked());
        let connected = self.session.as_ref().is_some_and(Session::is_up);
        // While the broker asks to be spared, nobody looks how far clicks are counted.
        let held = !blocked && self.guard.holds(self.clock.monotonic_ms());
        self.progress.stands(self.outbox.len() + in_flight, connected, blocked, held, self.journals.stopped());
    }
}

fn journal_of(partition: Partition) -> Option<JournalId> {
    match partition {
        Partition::Journal(journal) => Some(journal),
        Partition::Stream(_) => None,
    }
}
