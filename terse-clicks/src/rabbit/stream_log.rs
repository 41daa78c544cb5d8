//! The streams as the projector's log.
//!
//! Each partition has a channel and a consumer of its own, with at most [`PREFETCH`] messages under way; they are
//! acknowledged when the projector takes them, which says nothing about what was counted: that is in its checkpoints.
//!
//! RabbitMQ does not tell when the offset asked for isn't there: it begins elsewhere, or delivers nothing until the
//! stream gets that long. So a partition is always read *from* a message that is known, the checkpoint's or the last
//! one that was delivered, and that one has to come first:
//!
//! | what comes | what is done |
//! |---|---|
//! | the checkpoint's message, another one, or a later one | it is delivered, and the projector judges |
//! | nothing within [`ANCHOR_MS`] of attaching | the stream is shorter: it is read from its beginning, and the same |
//! | after a reconnection, the message that was delivered last | reading goes on behind it |
//! | another one, a later one, or nothing in that time | [`LogError::Gap`]: the projector begins at its checkpoint |
//!
//! A connection that breaks is made again, with waits that grow; so is a consumer that the broker ended.

mod begin;

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use lapin::message::Delivery as Message;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::AMQPValue;
use lapin::{BasicProperties, Channel, Consumer};
use terse_core::click::JournalId;
use terse_core::ports::clicks::Checkpoint;
use terse_core::stats::Partition;
use terse_core::{Entropy, Timestamp, time};
use terse_resilience::SettingsError;
use terse_resilience::backoff::{Backoff, BackoffSettings, Jitter};
use tokio::time::Instant;

pub(super) use self::begin::offset_argument;
use self::begin::{Begin, Place, print_of};
use super::connection::{BrokerConfig, Link, RabbitError, fault};
use super::dead;
use super::reading::StreamReading;
use super::topology::{self, table};
use crate::log::{Body, ClickLog, Delivery, LogError};
use crate::part::{Part, PartError};

/// Most messages of a partition that are delivered and not taken yet. Each is at most a block.
pub const PREFETCH: u16 = 32;
/// How long after attaching the message that is known is waited for, in milliseconds.
pub const ANCHOR_MS: u64 = 5_000;
/// Waits after faults: from 50 ms up to 5 s.
const BACKOFF: BackoffSettings =
    BackoffSettings { base_ms: 50, max_ms: 5_000, jitter: Jitter::Decorrelated, max_attempts: None };

/// The streams of a broker, as a log.
pub struct StreamLog {
    config: BrokerConfig,
    link: Option<Link>,
    backoff: Backoff,
    /// When the broker may be tried again.
    try_at: Instant,
    reading: BTreeMap<u16, Reader>,
    /// Acknowledged to the broker and not taken by the projector, with their bytes.
    ready: VecDeque<(Delivery, usize)>,
    /// The partition that was served last: others come first.
    last: u16,
    told: Arc<StreamReading>,
    replay: bool,
}

/// How far a partition was read.
struct Reader {
    from: Begin,
    attached: Option<Attached>,
}

/// A consumer.
struct Attached {
    channel: Channel,
    consumer: Consumer,
    /// Until when the message that is known has to come; `None` = it came, or there is none.
    anchor_by: Option<Instant>,
    /// The last message that was received, to be acknowledged with all before it.
    unacknowledged: Option<u64>,
}

impl StreamLog {
    /// The streams of `config`. It connects when it is read.
    ///
    /// # Errors
    /// Never with the settings as they are.
    pub fn new(config: BrokerConfig, entropy: &dyn Entropy) -> Result<Self, SettingsError> {
        Ok(Self {
            config,
            link: None,
            backoff: Backoff::new(BACKOFF, u64::from_le_bytes(time::random_bytes(entropy)))?,
            try_at: Instant::now(),
            reading: BTreeMap::new(),
            ready: VecDeque::new(),
            last: 0,
            told: Arc::default(),
            replay: false,
        })
    }

    /// The same for building another read model: nothing is put aside.
    ///
    /// # Errors
    /// As [`StreamLog::new`].
    pub fn for_replay(config: BrokerConfig, entropy: &dyn Entropy) -> Result<Self, SettingsError> {
        Ok(Self { replay: true, ..Self::new(config, entropy)? })
    }

    /// What it tells of itself while it is read.
    #[must_use]
    pub fn reading(&self) -> Arc<StreamReading> {
        Arc::clone(&self.told)
    }

    /// Sees to it that there is a connection, and that all partitions are attached that are read.
    async fn attach(&mut self) -> Result<(), RabbitError> {
        if self.link.as_ref().is_some_and(|link| !link.is_up()) {
            return Err(RabbitError::Unavailable("the connection has ended".into()));
        }
        if self.link.is_none() {
            let link = Link::open(&self.config, "terse projector").await?;
            topology::declare(&link, &self.config).await?;
            self.link = Some(link);
            self.told.connected();
        }
        let Some(link) = &self.link else { return Ok(()) };
        for (partition, reader) in &mut self.reading {
            if reader.attached.is_none() {
                reader.attached = Some(Attached::new(link, &self.config.stream(*partition), reader.from).await?);
            }
        }
        Ok(())
    }

    /// Gives the connection up, to be made again after a wait.
    fn lose(&mut self, error: &RabbitError) {
        if self.backoff.attempts() == 0 {
            tracing::warn!(%error, "the streams of clicks can't be read; trying again");
        }
        let wait_ms = self.backoff.next_wait_ms().unwrap_or(BACKOFF.max_ms);
        self.try_at = Instant::now() + Duration::from_millis(wait_ms);
        for reader in self.reading.values_mut() {
            reader.attached = None;
        }
        self.link = None;
        self.told.lost();
    }

    /// Takes what there is, about `most_bytes`, from all partitions in turn. Pending = nothing yet. What was known
    /// already is taken, too: the broker sends no more before it is acknowledged.
    fn poll_messages(&mut self, context: &mut Context<'_>, most_bytes: usize) -> Poll<Result<(), Trouble>> {
        let mut bytes = 0;
        let after = self.last.wrapping_add(1);
        let turn: Vec<u16> = self.reading.range(after..).chain(self.reading.range(..after)).map(|(p, _)| *p).collect();
        let (mut any, mut received) = (true, false);
        while any && bytes < most_bytes {
            any = false;
            for partition in &turn {
                let Some(reader) = self.reading.get_mut(partition) else { continue };
                let Poll::Ready(message) = reader.poll(context) else { continue };
                (any, received) = (true, true);
                let Some(delivery) = reader.take(*partition, message?, &self.config)? else { continue };
                self.last = *partition;
                bytes += delivery.1;
                self.ready.push_back(delivery);
                if bytes >= most_bytes {
                    break;
                }
            }
        }
        if received { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Acknowledges what was received, so that more comes.
    async fn acknowledge(&mut self) -> Result<(), RabbitError> {
        let Some(link) = &self.link else { return Ok(()) };
        for attached in self.reading.values_mut().filter_map(|reader| reader.attached.as_mut()) {
            if let Some(tag) = attached.unacknowledged.take() {
                link.ask(attached.channel.basic_ack(tag, BasicAckOptions { multiple: true })).await?;
            }
        }
        Ok(())
    }

    /// Partitions whose known message did not come.
    fn check_anchors(&mut self) -> Result<(), LogError> {
        let now = Instant::now();
        for (partition, reader) in &mut self.reading {
            let late = reader.attached.as_ref().and_then(|attached| attached.anchor_by).is_some_and(|by| by <= now);
            if !late {
                continue;
            }
            reader.attached = None;
            match reader.from {
                Begin::First => {}
                Begin::Checkpoint(offset) => {
                    tracing::error!(
                        partition,
                        offset,
                        "the stream has no message there: it is read from its beginning"
                    );
                    reader.from = Begin::First;
                }
                Begin::Behind { offset, .. } => {
                    let detail = format!("the message at {offset}, which was delivered, is there no more");
                    return Err(LogError::Gap { partition: Partition::Stream(*partition), detail });
                }
            }
        }
        Ok(())
    }

    /// Until when to wait for messages, so that nothing else is late.
    fn wake_at(&self, deadline: Instant) -> Instant {
        let anchors = self.reading.values().filter_map(|reader| reader.attached.as_ref()?.anchor_by);
        anchors.fold(deadline, Instant::min)
    }

    async fn receive(&mut self, most_bytes: usize, deadline: Instant) -> Result<(), Trouble> {
        self.attach().await?;
        self.check_anchors()?;
        // What was attached again because of that.
        self.attach().await?;
        let wake_at = self.wake_at(deadline);
        let messages = std::future::poll_fn(|context| self.poll_messages(context, most_bytes));
        match tokio::time::timeout_at(wake_at, messages).await {
            Ok(received) => received?,
            Err(_) => return Ok(()),
        }
        self.backoff.reset();
        Ok(self.acknowledge().await?)
    }

    fn take_ready(&mut self, most_bytes: usize) -> Vec<Delivery> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while bytes < most_bytes
            && let Some((delivery, size)) = self.ready.pop_front()
        {
            bytes += size;
            taken.push(delivery);
        }
        taken
    }

    fn forget(&mut self, partition: u16) {
        self.reading.remove(&partition);
        self.ready.retain(|(delivery, _)| delivery.partition != Partition::Stream(partition));
    }
}

/// Why nothing could be received.
enum Trouble {
    Broker(RabbitError),
    Log(LogError),
}

impl From<RabbitError> for Trouble {
    fn from(error: RabbitError) -> Self {
        Self::Broker(error)
    }
}

impl From<LogError> for Trouble {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl Attached {
    async fn new(link: &Link, stream: &str, from: Begin) -> Result<Self, RabbitError> {
        let channel = link.channel().await?;
        link.ask(channel.basic_qos(PREFETCH, BasicQosOptions::default())).await?;
        let offset = table([("x-stream-offset", from.argument())]);
        let consuming = channel.basic_consume(stream.into(), "".into(), BasicConsumeOptions::default(), offset);
        let consumer = link.ask(consuming).await?;
        let anchor_by = (from != Begin::First).then(|| Instant::now() + Duration::from_millis(ANCHOR_MS));
        Ok(Self { channel, consumer, anchor_by, unacknowledged: None })
    }
}

impl Reader {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Message, RabbitError>> {
        let Some(attached) = &mut self.attached else { return Poll::Pending };
        Pin::new(&mut attached.consumer).poll_next(context).map(|message| match message {
            Some(Ok(message)) => Ok(message),
            Some(Err(error)) => Err(fault(&error)),
            None => Err(RabbitError::Unavailable("reading a stream was ended by the broker".into())),
        })
    }

    /// What the projector gets of `message`, and its bytes.
    fn take(
        &mut self,
        partition: u16,
        message: Message,
        config: &BrokerConfig,
    ) -> Result<Option<(Delivery, usize)>, Trouble> {
        let Some(offset) = offset_of(&message.properties) else {
            let queue = config.stream(partition);
            let text = format!("the queue {queue} delivers messages without offsets: it is no stream");
            return Err(RabbitError::Topology(text).into());
        };
        let Some(attached) = &mut self.attached else { return Ok(None) };
        attached.unacknowledged = Some(message.delivery_tag);
        let place = self.from.place(attached.anchor_by.is_some(), offset, &message.data);
        if let Begin::Behind { offset: known, .. } | Begin::Checkpoint(known) = self.from
            && offset >= known
        {
            attached.anchor_by = None;
        }
        match place {
            Place::Known => Ok(None),
            Place::Gap => {
                self.attached = None;
                let detail = format!("offset {offset} does not follow what was delivered: the stream was made anew");
                Err(LogError::Gap { partition: Partition::Stream(partition), detail }.into())
            }
            Place::Next => {
                self.from = Begin::Behind { offset, print: print_of(&message.data) };
                attached.anchor_by = None;
                let size = message.data.len();
                let body = body_of(message.data.into());
                Ok(Some((Delivery { partition: Partition::Stream(partition), offset, body }, size)))
            }
        }
    }
}

fn body_of(bytes: Bytes) -> Body {
    match Part::decode(&bytes) {
        Ok(part) => Body::Part(part),
        Err(PartError::Newer(format)) => Body::Newer(format),
        Err(error @ PartError::Damaged(_)) => Body::Undecodable { bytes, reason: error.to_string() },
    }
}

/// Where a message lies in its stream.
pub(super) fn offset_of(properties: &BasicProperties) -> Option<u64> {
    match properties.headers().as_ref()?.inner().get("x-stream-offset")? {
        AMQPValue::LongLongInt(offset) => u64::try_from(*offset).ok(),
        _ => None,
    }
}

fn unavailable(error: &RabbitError) -> LogError {
    LogError::Unavailable(error.to_string())
}

fn number_of(partition: Partition) -> Result<u16, LogError> {
    match partition {
        Partition::Stream(number) => Ok(number),
        Partition::Journal(_) => Err(LogError::Unavailable(format!("{partition} is not a stream"))),
    }
}

#[async_trait]
impl ClickLog for StreamLog {
    async fn partitions(&mut self) -> Result<Vec<Partition>, LogError> {
        Ok((0..self.config.partitions()).map(Partition::Stream).collect())
    }

    async fn start(&mut self, partition: Partition, checkpoint: Option<&Checkpoint>) -> Result<(), LogError> {
        let number = number_of(partition)?;
        self.forget(number);
        let from = checkpoint.map_or(Begin::First, |checkpoint| Begin::Checkpoint(checkpoint.at.offset));
        self.reading.insert(number, Reader { from, attached: None });
        Ok(())
    }

    async fn next(&mut self, most_bytes: usize, wait_ms: u64) -> Result<Vec<Delivery>, LogError> {
        let deadline = Instant::now() + Duration::from_millis(wait_ms);
        while self.ready.is_empty() && !self.reading.is_empty() {
            tokio::time::sleep_until(self.try_at.min(deadline)).await;
            if self.try_at > Instant::now() {
                break;
            }
            match self.receive(most_bytes, deadline).await {
                Ok(()) => {}
                Err(Trouble::Log(error)) => return Err(error),
                Err(Trouble::Broker(error)) => {
                    self.lose(&error);
                    if self.ready.is_empty() {
                        return Err(unavailable(&error));
                    }
                }
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        if self.reading.is_empty() {
            tokio::time::sleep_until(deadline).await;
        }
        Ok(self.take_ready(most_bytes))
    }

    /// The checkpoint itself is what relays read.
    async fn passed(&mut self, _: Partition, _: u64) -> Result<(), LogError> {
        Ok(())
    }

    async fn dead_letter(&mut self, delivery: &Delivery) -> Result<(), LogError> {
        if self.replay {
            return Ok(());
        }
        dead::put(&self.config, delivery).await.map_err(|error| unavailable(&error))
    }

    fn stop(&mut self, partition: Partition) {
        if let Partition::Stream(number) = partition {
            self.forget(number);
        }
    }

    /// On streams the journals' own last blocks tell.
    fn ended(&self) -> Vec<(Partition, JournalId)> {
        Vec::new()
    }

    /// Of what was delivered. What still lies in the streams can't be seen from here.
    fn oldest_waiting(&self) -> Option<Timestamp> {
        let sealed = self.ready.iter().filter_map(|(delivery, _)| match &delivery.body {
            Body::Part(part) => Some(part.header.sealed_at),
            _ => None,
        });
        sealed.min()
    }
}

#[cfg(test)]
mod tests;
