//! Link events: what happened to links, told to whoever wants to know, at least once.
//!
//! What is about to be written to a link is noted in an [`Outbox`], a file of its process, synced to the disk before
//! the
//! store is asked; what became of it is noted before the answer leaves. [`EventRelay`] publishes the events that are
//! there to the topic exchange until the broker has confirmed them. An intent whose outcome is not noted, because the
//! process was killed, the power cut, the caller gone or the store silent, is settled by reading the link back, at the
//! earliest [`ASK_AFTER_MS`] later, when no write is under way any more. So every change that stands is told, whether
//! it
//! was answered or not.
//!
//! One window stays open: a cluster may finish a write of unknown outcome later than that, when somebody else touches
//! the link; such a change was answered to nobody. An event may come twice (its `id` tells), and two changes of one
//! link
//! at the same moment may be told in another order than they were made, also those of several servers (`version`
//! tells); a change that had to be read back is told as the link stands by then.
//!
//! | bound | when it is hit |
//! |---|---|
//! | [`MAX_OUTBOX_BYTES`], [`MAX_OPEN`], [`INTEND_MS`] of an outbox | the event is dropped and counted; links aren't |
//! | [`MAX_BATCH`] events under way | the others wait in the outbox |
//! | [`MAX_LEFT`] outboxes of dead processes that are read at a time | the others wait |
//!
//! Events that no queue is bound for are dropped by the broker: whoever wants them binds one first.

mod file;
mod left;
mod outbox;
mod told;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Channel, Confirmation};
use terse_core::ports::{LinkCatalog, StoreError};
use terse_core::{Clock, Entropy, time};
use terse_resilience::SettingsError;
use terse_resilience::backoff::{Backoff, BackoffSettings, Jitter};
use tokio::sync::watch;

use self::file::{Frame, Kind};
use self::left::Left;
pub use self::outbox::{INTEND_MS, MAX_OPEN, MAX_OUTBOX_BYTES, Outbox, OutboxReport};
use self::told::{Noted, Told};
use super::connection::{BrokerConfig, Link, RabbitError};
use super::relay::PERSISTENT;
use super::topology;

/// Most events that are published before their confirms are awaited.
pub const MAX_BATCH: usize = 256;
/// Most outboxes of dead processes that are read at a time.
pub const MAX_LEFT: usize = 16;
/// How long after an intent came into doubt the store is asked: longer than any write of ours can be under way.
pub const ASK_AFTER_MS: u64 = 10_000;
/// How often outboxes are looked for that dead processes left.
const LOOK_MS: u64 = 5_000;
/// Most links that are read back in a step.
const MAX_ASKED: usize = 32;
/// Waits after faults: from 50 ms up to 5 s.
const BACKOFF: BackoffSettings =
    BackoffSettings { base_ms: 50, max_ms: 5_000, jitter: Jitter::Decorrelated, max_attempts: None };

/// What a step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventStep {
    /// Events that were published and confirmed.
    pub sent: usize,
    /// How long to wait before the next step, in milliseconds, because of a fault.
    pub pause_ms: u64,
}

/// Publishes the events in the outboxes of a directory: those of its own process, and those that dead ones left.
pub struct EventRelay {
    config: BrokerConfig,
    directory: PathBuf,
    own: Option<Arc<Outbox>>,
    /// Where links are read back.
    catalog: Arc<dyn LinkCatalog>,
    clock: Arc<dyn Clock>,
    left: Vec<Left>,
    look_at_ms: u64,
    session: Option<(Link, Channel)>,
    backoff: Backoff,
    /// Whether the log was told that links can't be read back.
    told_blind: bool,
    /// Whether the log was told that an outbox can't be looked at.
    told_skipped: bool,
}

/// Why a step could not go on.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("{0}")]
    Broker(#[from] RabbitError),
    #[error("the outbox can't be read: {0}")]
    Disk(#[from] io::Error),
}

impl EventRelay {
    /// A relay of the outboxes in `directory`, among them `own`; `catalog` tells of links what became of them.
    ///
    /// # Errors
    /// Never with the settings as they are.
    pub fn new(
        config: BrokerConfig,
        directory: &Path,
        own: Option<Arc<Outbox>>,
        catalog: Arc<dyn LinkCatalog>,
        clock: Arc<dyn Clock>,
        entropy: &dyn Entropy,
    ) -> Result<Self, SettingsError> {
        Ok(Self {
            config,
            directory: directory.to_owned(),
            own,
            catalog,
            clock,
            left: Vec::new(),
            look_at_ms: 0,
            session: None,
            backoff: Backoff::new(BACKOFF, u64::from_le_bytes(time::random_bytes(entropy)))?,
            told_blind: false,
            told_skipped: false,
        })
    }

    /// Repeats [`EventRelay::run_once`] until `stop` says true or is gone.
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

    /// One step: publishes a batch of each outbox, waiting for events at most `wait_ms` and for the broker as long as
    /// it
    /// may take to answer. A fault is logged, and answered by [`EventStep::pause_ms`]; nothing is lost by it, nor by
    /// dropping the future. It reads files, so it is for a thread that may wait for them.
    pub async fn run_once(&mut self, wait_ms: u64) -> EventStep {
        match self.step(wait_ms).await {
            Ok(sent) => {
                if self.backoff.attempts() > 0 && sent > 0 {
                    tracing::info!("link events are published again");
                }
                if sent > 0 {
                    self.backoff.reset();
                }
                EventStep { sent, pause_ms: 0 }
            }
            Err(error) => {
                if self.backoff.attempts() == 0 {
                    tracing::warn!(%error, "link events are not published now; they stay on disk");
                }
                self.session = None;
                EventStep { sent: 0, pause_ms: self.backoff.next_wait_ms().unwrap_or(BACKOFF.max_ms).max(1) }
            }
        }
    }

    async fn step(&mut self, wait_ms: u64) -> Result<usize, Fault> {
        let mut sent = 0;
        if let Some(own) = self.own.clone() {
            sent += self.send(&own).await?;
            self.settle_doubts(&own).await;
        }
        sent += self.send_what_was_left().await?;
        if let Some(own) = &self.own {
            own.count_told(sent);
        }
        if sent == 0 {
            let wait = Duration::from_millis(wait_ms);
            match &self.own {
                // Either way it is time to look again.
                Some(own) => drop(tokio::time::timeout(wait, own.appended()).await),
                None => tokio::time::sleep(wait).await,
            }
        }
        Ok(sent)
    }

    /// Publishes a batch of this process's events.
    async fn send(&mut self, own: &Outbox) -> Result<usize, Fault> {
        let pending = own.pending(MAX_BATCH)?;
        if pending.frames.is_empty() {
            return Ok(0);
        }
        let sent = self.publish(pending.frames.iter().filter_map(event_of)).await?;
        own.published(&pending)?;
        Ok(sent)
    }

    /// Reads back what became of this process's intents that are in doubt.
    async fn settle_doubts(&mut self, own: &Outbox) {
        for (number, body) in own.doubts(ASK_AFTER_MS, MAX_ASKED) {
            match self.ask(&body, &own.event_id(number)).await {
                Some(told) => own.settle_by_store(number, told),
                None => own.doubt_again(number),
            }
        }
    }

    /// Publishes a batch of each outbox that a dead process left. One of which all was sent is removed; one whose file
    /// can't be used rests, and holds no other up.
    async fn send_what_was_left(&mut self) -> Result<usize, Fault> {
        let now_ms = self.clock.monotonic_ms();
        self.look_for_left(now_ms);
        let (mut sent, mut number) = (0, 0);
        while number < self.left.len() {
            if now_ms < self.left[number].rests_until_ms {
                number += 1;
                continue;
            }
            let mut left = self.left.swap_remove(number);
            let done = self.send_left(&mut left).await;
            match &done {
                Ok((_, true)) => continue,
                Err(Fault::Disk(error)) => left.rest(now_ms + LOOK_MS, error),
                _ => left.rests_until_ms = 0,
            }
            self.left.push(left);
            let last = self.left.len() - 1;
            self.left.swap(number, last);
            number += 1;
            match done {
                Ok((events, _)) => sent += events,
                Err(Fault::Disk(_)) => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(sent)
    }

    /// Looks for outboxes that dead processes left, if it is time.
    fn look_for_left(&mut self, now_ms: u64) {
        if now_ms < self.look_at_ms || self.left.len() >= MAX_LEFT {
            return;
        }
        let mut skipped = None;
        while self.left.len() < MAX_LEFT {
            let found = Left::find(&self.directory, now_ms + ASK_AFTER_MS, |path, error| {
                skipped = Some((path.to_owned(), error));
            });
            let Some(left) = found else {
                self.look_at_ms = now_ms + LOOK_MS;
                break;
            };
            self.left.push(left);
        }
        if let Some((path, error)) = &skipped
            && !self.told_skipped
        {
            tracing::warn!(path = %path.display(), %error, "what may be link events of a dead process can't be looked at");
        }
        self.told_skipped = skipped.is_some();
    }

    /// Publishes a batch of `left`; how many events that were, and whether that was all, and its file is removed.
    async fn send_left(&mut self, left: &mut Left) -> Result<(usize, bool), Fault> {
        let pending = left.pending(MAX_BATCH)?;
        if !pending.frames.is_empty() {
            let sent = self.publish(pending.frames.iter().filter_map(event_of)).await?;
            left.published(pending)?;
            return Ok((sent, false));
        }
        let doubts = left.doubts(MAX_ASKED);
        let now_ms = self.clock.monotonic_ms();
        if doubts.is_empty() {
            left.remove()?;
            return Ok((0, true));
        }
        if now_ms < left.ask_at_ms {
            return Ok((0, false));
        }
        let (mut settled, mut events) = (Vec::new(), Vec::new());
        for (number, body) in doubts {
            match self.ask(&body, &left.event_id(number)).await {
                Some(told) => {
                    settled.push(number);
                    events.extend(told);
                }
                None => left.ask_at_ms = now_ms + ASK_AFTER_MS,
            }
        }
        let sent = self.publish(events.iter().map(|told| (told.kind, told.json.as_slice()))).await?;
        left.settled(&settled)?;
        Ok((sent, false))
    }

    /// What is to be told of the intent in `body`, whose event is called `id`; `None` = the store can't tell now.
    async fn ask(&mut self, body: &[u8], id: &str) -> Option<Option<Told>> {
        let noted = Noted::decode(body);
        let Some((noted, code)) = noted.and_then(|noted| noted.code().map(|code| (noted, code))) else {
            tracing::error!(id, "what was about to be done to a link can't be read, and is not told");
            return Some(None);
        };
        let link = self.catalog.get(&code).await;
        self.note_blindness(link.as_ref().err());
        match noted.judge(link.ok()?.as_ref(), id) {
            Ok(told) => Some(told),
            Err(error) => {
                tracing::error!(id, %error, "a link event can't be written, and is dropped");
                Some(None)
            }
        }
    }

    /// Logs when links can't be read back, once.
    fn note_blindness(&mut self, error: Option<&StoreError>) {
        if let Some(error) = error
            && !self.told_blind
        {
            tracing::warn!(%error, "links can't be read, so some of their events wait");
        }
        self.told_blind = error.is_some();
    }

    /// Publishes events, and waits until all are confirmed. Returns how many.
    async fn publish<'a>(&mut self, events: impl Iterator<Item = (Kind, &'a [u8])>) -> Result<usize, RabbitError> {
        let mut events = events.peekable();
        if events.peek().is_none() {
            return Ok(0);
        }
        let (link, channel) = match self.session.take().filter(|(link, _)| link.is_up()) {
            Some(session) => session,
            None => self.connect().await?,
        };
        let exchange = self.config.events_exchange();
        let mut confirms = Vec::new();
        for (key, json) in events.filter_map(|(kind, json)| Some((kind.event_type()?, json))) {
            let properties =
                BasicProperties::default().with_content_type("application/json".into()).with_delivery_mode(PERSISTENT);
            // Nobody may want it: that is no fault, so it isn't mandatory.
            let options = BasicPublishOptions::default();
            let publishing = channel.basic_publish(exchange.as_str().into(), key.into(), options, json, properties);
            confirms.push(link.ask(publishing).await?);
        }
        let sent = confirms.len();
        for confirm in confirms {
            match link.ask(confirm).await? {
                Confirmation::Ack(None) => {}
                other => return Err(RabbitError::Unavailable(format!("an event was not taken: {other:?}"))),
            }
        }
        self.session = Some((link, channel));
        Ok(sent)
    }

    async fn connect(&self) -> Result<(Link, Channel), RabbitError> {
        let link = Link::open(&self.config, "terse events").await?;
        topology::declare_events(&link, &self.config).await?;
        let channel = link.confirming().await?;
        Ok((link, channel))
    }
}

/// The event in a frame, if it is one.
fn event_of(frame: &Frame) -> Option<(Kind, &[u8])> {
    frame.kind.event_type().map(|_| (frame.kind, frame.body.as_slice()))
}

#[cfg(test)]
mod tests;
