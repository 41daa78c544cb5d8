//! Link events: what happened to links, told to whoever wants to know.
//!
//! An event is appended to an [`Outbox`], a file of its process, after the change was committed and before it is
//! answered; [`EventRelay`] publishes what is there to the topic exchange until the broker has confirmed it. So each
//! change that was answered is told at least once, also across kills of the process and of the broker; one whose
//! process died between commit and answer may not be. An event may come twice (its `id` tells), and events of one
//! link that were written by several servers may come in another order than its versions (`version` tells).
//!
//! | bound | when it is hit |
//! |---|---|
//! | [`outbox::MAX_OUTBOX_BYTES`] of a process's events | the newest is dropped and counted; links are unharmed |
//! | [`MAX_BATCH`] events under way | the others wait in the outbox |
//!
//! Events that no queue is bound for are dropped by the broker: whoever wants them binds one first.

mod outbox;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Channel, Confirmation};
use serde::Serialize;
use terse_core::{Entropy, Link as ShortLink, Timestamp, time};
use terse_resilience::SettingsError;
use terse_resilience::backoff::{Backoff, BackoffSettings, Jitter};
use tokio::sync::watch;
use tokio::time::Instant;

pub use self::outbox::{MAX_OUTBOX_BYTES, Outbox, OutboxError};
use self::outbox::{Pending, Reader};
use super::connection::{BrokerConfig, Link, RabbitError};
use super::relay::PERSISTENT;
use super::topology;

/// Most events that are published before their confirms are awaited.
pub const MAX_BATCH: usize = 256;
/// How often outboxes are looked for that dead processes left.
const LOOK: Duration = Duration::from_secs(5);
/// Waits after faults: from 50 ms up to 5 s.
const BACKOFF: BackoffSettings =
    BackoffSettings { base_ms: 50, max_ms: 5_000, jitter: Jitter::Decorrelated, max_attempts: None };

/// What happened to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEvent<'a> {
    /// It was made.
    Created(&'a ShortLink),
    /// It was edited, or its state was changed.
    Changed(&'a ShortLink),
    /// It was deleted; the link as it stands now.
    Deleted(&'a ShortLink),
}

/// The kinds of events: their types, which are the routing keys, too.
const TYPES: [&str; 3] = ["link.created.v1", "link.changed.v1", "link.deleted.v1"];

impl<'a> LinkEvent<'a> {
    fn kind(&self) -> u8 {
        match self {
            Self::Created(_) => 0,
            Self::Changed(_) => 1,
            Self::Deleted(_) => 2,
        }
    }

    fn link(&self) -> &'a ShortLink {
        match self {
            Self::Created(link) | Self::Changed(link) | Self::Deleted(link) => link,
        }
    }

    /// The JSON of the event `id`, which happened at `at`. Of a deleted link only its code and version are told.
    fn json(&self, id: &str, at: Timestamp) -> serde_json::Result<Vec<u8>> {
        let link = self.link();
        let facts = (!matches!(self, Self::Deleted(_))).then(|| Facts {
            url: link.target.as_str(),
            title: link.title.as_ref().map(|title| title.as_str()),
            tags: link.tags.as_slice(),
            state: link.state.as_str(),
            created_at: link.created_at.to_string(),
            updated_at: link.updated_at.to_string(),
            expires_at: link.expires_at.map(|at| at.to_string()),
            valid_from: link.valid_from.map(|at| at.to_string()),
        });
        serde_json::to_vec(&Event {
            kind: TYPES[usize::from(self.kind())],
            id,
            at: at.to_string(),
            code: link.code.as_str(),
            version: link.version.0,
            link: facts,
        })
    }
}

#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    at: String,
    code: &'a str,
    version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<Facts<'a>>,
}

/// A link as the API tells it.
#[derive(Serialize)]
struct Facts<'a> {
    url: &'a str,
    title: Option<&'a str>,
    tags: &'a [String],
    state: &'static str,
    created_at: String,
    updated_at: String,
    expires_at: Option<String>,
    valid_from: Option<String>,
}

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
    left: Option<Reader>,
    look_at: Instant,
    session: Option<(Link, Channel)>,
    backoff: Backoff,
}

/// Why a step could not go on.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("{0}")]
    Broker(#[from] RabbitError),
    #[error("the outbox can't be read: {0}")]
    Disk(#[from] std::io::Error),
}

impl EventRelay {
    /// A relay of the outboxes in `directory`, among them `own`.
    ///
    /// # Errors
    /// Never with the settings as they are.
    pub fn new(
        config: BrokerConfig,
        directory: &Path,
        own: Option<Arc<Outbox>>,
        entropy: &dyn Entropy,
    ) -> Result<Self, SettingsError> {
        Ok(Self {
            config,
            directory: directory.to_owned(),
            own,
            left: None,
            look_at: Instant::now(),
            session: None,
            backoff: Backoff::new(BACKOFF, u64::from_le_bytes(time::random_bytes(entropy)))?,
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

    /// One step: publishes a batch, waiting for events at most `wait_ms` and for the broker as long as it may take to
    /// answer. A fault is logged, and answered by [`EventStep::pause_ms`]; nothing is lost by it, nor by dropping the
    /// future.
    pub async fn run_once(&mut self, wait_ms: u64) -> EventStep {
        match self.step(wait_ms).await {
            Ok(sent) => {
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
        if let Some(own) = self.own.clone() {
            let pending = own.pending(MAX_BATCH)?;
            if !pending.events.is_empty() {
                self.publish(&pending).await?;
                own.sent(&pending)?;
                return Ok(pending.events.len());
            }
        }
        let sent = self.send_what_was_left().await?;
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

    /// Publishes a batch of what a dead process left. An outbox of which all was sent is removed.
    async fn send_what_was_left(&mut self) -> Result<usize, Fault> {
        if self.left.is_none() && Instant::now() >= self.look_at {
            self.left = Reader::of_a_dead_process(&self.directory)?;
            if self.left.is_none() {
                self.look_at = Instant::now() + LOOK;
            }
        }
        let Some(left) = self.left.take() else { return Ok(0) };
        let pending = left.pending(MAX_BATCH)?;
        if pending.events.is_empty() {
            left.remove()?;
            return Ok(0);
        }
        let published = self.publish(&pending).await;
        if published.is_ok() {
            left.sent(&pending)?;
        }
        self.left = Some(left);
        published?;
        Ok(pending.events.len())
    }

    async fn publish(&mut self, pending: &Pending) -> Result<(), RabbitError> {
        let (link, channel) = match self.session.take().filter(|(link, _)| link.is_up()) {
            Some(session) => session,
            None => {
                let link = Link::open(&self.config, "terse events").await?;
                topology::declare(&link, &self.config).await?;
                let channel = link.confirming().await?;
                (link, channel)
            }
        };
        let mut confirms = Vec::with_capacity(pending.events.len());
        for event in &pending.events {
            let properties =
                BasicProperties::default().with_content_type("application/json".into()).with_delivery_mode(PERSISTENT);
            let (exchange, key) = (self.config.events_exchange(), TYPES.get(usize::from(event.kind)));
            // Of a kind that a newer build wrote: it is that build's to publish.
            let Some(key) = key else { continue };
            // Nobody may want it: that is no fault, so it isn't mandatory.
            let options = BasicPublishOptions::default();
            let publishing = channel.basic_publish(exchange.into(), (*key).into(), options, &event.json, properties);
            confirms.push(link.ask(publishing).await?);
        }
        for confirm in confirms {
            match link.ask(confirm).await? {
                Confirmation::Ack(None) => {}
                other => return Err(RabbitError::Unavailable(format!("an event was not taken: {other:?}"))),
            }
        }
        self.session = Some((link, channel));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
