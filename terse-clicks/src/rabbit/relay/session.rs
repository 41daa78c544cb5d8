//! One connection of a relay, and what is under way on it.

use bytes::Bytes;
use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Channel};
use terse_core::click::BlockId;

use super::in_flight::{self, InFlight, confirm_of};
use crate::part::Part;
use crate::rabbit::connection::{BrokerConfig, Link, RabbitError};
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

pub(super) struct Session {
    pub(super) link: Link,
    channel: Channel,
    in_flight: InFlight,
    /// Whether streams may be gone since they were declared.
    doubtful: bool,
    /// When the broker asked to be spared last: nothing is late before it has had its time.
    blocked_ms: u64,
}

impl Message {
    pub(super) fn of(part: &Part) -> Self {
        Self::new(part.header.block, part.header.partition, part.encode())
    }

    pub(super) fn new(block: BlockId, partition: u16, body: Bytes) -> Self {
        Self { block, partition, body }
    }

    /// What the broker calls it.
    pub(super) fn identity(&self) -> String {
        format!("{}/{}", self.block, self.partition)
    }

    pub(super) fn bytes(&self) -> usize {
        self.body.len()
    }

    fn properties(&self) -> BasicProperties {
        BasicProperties::default()
            .with_content_type(CONTENT_TYPE.into())
            .with_delivery_mode(PERSISTENT)
            .with_message_id(self.identity().into())
    }
}

impl Session {
    /// Connects and declares the topology.
    pub(super) async fn open(config: &BrokerConfig) -> Result<Self, RabbitError> {
        let link = Link::open(config, "terse relay").await?;
        topology::declare(&link, config).await?;
        let channel = link.confirming().await?;
        Ok(Self { link, channel, in_flight: InFlight::default(), doubtful: false, blocked_ms: 0 })
    }

    pub(super) fn is_up(&self) -> bool {
        self.link.is_up() && self.channel.status().connected()
    }

    /// Whether it should be ended: its confirms say nothing any more, and the broker would take parts again.
    pub(super) fn is_spent(&self) -> bool {
        self.in_flight.is_distrusted() && !self.link.is_blocked()
    }

    /// Whether nothing that was published waits.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight() == 0
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.in_flight.bytes()
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

    /// Publishes `message`. `false` = as much as may be is under way, or the broker asks to be spared; then it may come
    /// twice.
    pub(super) async fn publish(
        &mut self,
        config: &BrokerConfig,
        message: &Message,
        now_ms: u64,
    ) -> Result<bool, RabbitError> {
        if self.in_flight.len() >= in_flight::MOST {
            return Ok(false);
        }
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let (exchange, key) = (config.exchange(), message.partition.to_string());
        let publishing =
            self.channel.basic_publish(exchange.into(), key.into(), options, &message.body, message.properties());
        let confirm = match self.link.ask(publishing).await {
            Ok(confirm) => confirm,
            Err(_) if self.link.is_up() && self.link.is_blocked() => {
                // Its confirm, if there will be one, may swallow what came back of another part.
                self.in_flight.distrust();
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let message = Message { body: message.body.clone(), ..*message };
        self.in_flight.add(message, confirm_of(confirm), now_ms);
        Ok(true)
    }

    /// The next messages of which it is known what became of them. Waits for one; for ever, if nothing is under way.
    pub(super) async fn concluded(&mut self) -> Vec<(Message, Outcome)> {
        std::future::poll_fn(|context| self.in_flight.poll(context)).await
    }

    /// For how long the oldest message has waited for its confirm while the broker would take some, in milliseconds.
    pub(super) fn longest_wait_ms(&mut self, now_ms: u64) -> u64 {
        if self.link.is_blocked() {
            self.blocked_ms = now_ms;
        }
        let oldest_ms = self.in_flight.oldest_ms().unwrap_or(now_ms);
        now_ms.saturating_sub(oldest_ms.max(self.blocked_ms))
    }

    /// What was published and is not confirmed, in its order.
    pub(super) fn unconfirmed(self) -> impl DoubleEndedIterator<Item = Message> {
        self.in_flight.into_messages()
    }

    pub(super) async fn close(self) {
        self.link.close().await;
    }
}
