//! One connection of a relay: what was published on it and is not confirmed.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Channel, Confirmation};
use terse_core::click::BlockId;

use crate::part::Part;
use crate::rabbit::connection::{BrokerConfig, Link, RabbitError, fault};
use crate::rabbit::topology;

/// Told to brokers as the kind of a part.
pub(crate) const CONTENT_TYPE: &str = "application/vnd.terse.part";
/// AMQP's number for messages that outlive the broker.
pub(crate) const PERSISTENT: u8 = 2;

/// A part to be published.
pub(super) struct Message {
    pub(super) block: BlockId,
    pub(super) partition: u16,
    body: Bytes,
}

/// What became of a message.
pub(super) enum Outcome {
    /// It stands in its stream.
    Confirmed,
    /// No stream took it.
    Returned(String),
    /// The broker could not take it.
    Refused,
    /// The connection broke.
    Lost(RabbitError),
}

type Confirm = Pin<Box<dyn Future<Output = (u64, lapin::Result<Confirmation>)> + Send>>;

pub(super) struct Session {
    pub(super) link: Link,
    channel: Channel,
    confirms: FuturesUnordered<Confirm>,
    /// By the order in which they were published, with when.
    published: BTreeMap<u64, (Message, u64)>,
    bytes: usize,
    next: u64,
    /// Whether streams may be gone since they were declared.
    doubtful: bool,
    /// When the broker asked to be spared last: nothing is late before it has had its time.
    blocked_ms: u64,
}

impl Message {
    pub(super) fn of(part: &Part) -> Self {
        Self { block: part.header.block, partition: part.header.partition, body: part.encode() }
    }

    pub(super) fn bytes(&self) -> usize {
        self.body.len()
    }

    fn properties(&self) -> BasicProperties {
        BasicProperties::default()
            .with_content_type(CONTENT_TYPE.into())
            .with_delivery_mode(PERSISTENT)
            .with_message_id(format!("{}/{}", self.block, self.partition).into())
    }
}

impl Session {
    /// Connects and declares the topology.
    pub(super) async fn open(config: &BrokerConfig) -> Result<Self, RabbitError> {
        let link = Link::open(config, "terse relay").await?;
        topology::declare(&link, config).await?;
        let channel = link.confirming().await?;
        Ok(Self {
            link,
            channel,
            confirms: FuturesUnordered::new(),
            published: BTreeMap::new(),
            bytes: 0,
            next: 0,
            doubtful: false,
            blocked_ms: 0,
        })
    }

    pub(super) fn is_up(&self) -> bool {
        self.link.is_up() && self.channel.status().connected()
    }

    /// Whether nothing that was published waits.
    pub(super) fn is_idle(&self) -> bool {
        self.published.is_empty()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.published.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A part came back: before more is published, the topology is declared again.
    pub(super) fn topology_is_doubtful(&mut self) {
        self.doubtful = true;
    }

    pub(super) async fn declare_again(&mut self, config: &BrokerConfig) -> Result<(), RabbitError> {
        if self.doubtful {
            topology::declare(&self.link, config).await?;
            self.doubtful = false;
        }
        Ok(())
    }

    /// Publishes `message`. `false` = the broker asks to be spared; then it may come twice.
    pub(super) async fn publish(
        &mut self,
        config: &BrokerConfig,
        message: &Message,
        now_ms: u64,
    ) -> Result<bool, RabbitError> {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let (exchange, key) = (config.exchange(), message.partition.to_string());
        let publishing =
            self.channel.basic_publish(exchange.into(), key.into(), options, &message.body, message.properties());
        let confirm = match self.link.ask(publishing).await {
            Ok(confirm) => confirm,
            Err(_) if self.link.is_up() && self.link.is_blocked() => return Ok(false),
            Err(error) => return Err(error),
        };
        let number = self.next;
        self.next += 1;
        self.confirms.push(Box::pin(async move { (number, confirm.await) }));
        self.bytes += message.bytes();
        let message = Message { body: message.body.clone(), ..*message };
        self.published.insert(number, (message, now_ms));
        Ok(true)
    }

    /// The next message of which it is known what became of it. Waits for it; for ever, if nothing is under way.
    pub(super) async fn confirmed(&mut self) -> (Message, Outcome) {
        loop {
            match self.confirms.next().await {
                Some(confirm) => {
                    if let Some(outcome) = self.outcome(confirm) {
                        return outcome;
                    }
                }
                None => std::future::pending().await,
            }
        }
    }

    /// All others of which it is known now.
    pub(super) fn confirmed_now(&mut self, outcomes: &mut Vec<(Message, Outcome)>) {
        while let Some(Some(confirm)) = self.confirms.next().now_or_never() {
            outcomes.extend(self.outcome(confirm));
        }
    }

    fn outcome(&mut self, (number, confirm): (u64, lapin::Result<Confirmation>)) -> Option<(Message, Outcome)> {
        let (message, _) = self.published.remove(&number)?;
        self.bytes -= message.bytes();
        let outcome = match confirm {
            Ok(Confirmation::Ack(None)) => Outcome::Confirmed,
            Ok(Confirmation::Ack(Some(returned))) => Outcome::Returned(returned.reply_text.to_string()),
            Ok(Confirmation::Nack(_)) => Outcome::Refused,
            Ok(Confirmation::NotRequested) => {
                Outcome::Lost(RabbitError::Unavailable("the channel doesn't confirm".into()))
            }
            Err(error) => Outcome::Lost(fault(&error)),
        };
        Some((message, outcome))
    }

    /// For how long the oldest message has waited for its confirm while the broker would take some, in milliseconds.
    pub(super) fn longest_wait_ms(&mut self, now_ms: u64) -> u64 {
        if self.link.is_blocked() {
            self.blocked_ms = now_ms;
        }
        let oldest_ms = self.published.first_key_value().map_or(now_ms, |(_, (_, at_ms))| *at_ms);
        now_ms.saturating_sub(oldest_ms.max(self.blocked_ms))
    }

    /// What was published and is not confirmed, in its order.
    pub(super) fn unconfirmed(self) -> impl DoubleEndedIterator<Item = Message> {
        self.published.into_values().map(|(message, _)| message)
    }

    pub(super) async fn close(self) {
        self.link.close().await;
    }
}
