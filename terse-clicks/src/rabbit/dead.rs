//! Messages that nobody can decode: put aside by the projector, looked at by an operator.
//!
//! They wait in a quorum queue until somebody decides. A message that goes back to its stream is counted once if it can
//! be decoded by then: its block was never passed there. A connection of its own is used for each call, so that a
//! connection that reads is never blocked by one that writes.

use std::collections::BTreeSet;

use lapin::message::BasicGetMessage;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation};
use terse_core::stats::Partition;

use super::connection::{BrokerConfig, Link, RabbitError};
use super::relay::{CONTENT_TYPE, PERSISTENT};
use super::topology::{self, DEAD_KEY, MAX_DEAD, table};
use crate::log::{Body, Delivery};
use crate::part::Part;

/// Most characters of a reason that are kept.
const MAX_REASON_LEN: usize = 200;
const PARTITION: &str = "terse-partition";
const OFFSET: &str = "terse-offset";
const REASON: &str = "terse-reason";

/// Most dead letters that there can be.
pub const MAX_LETTERS: usize = MAX_DEAD as usize;

/// A message that nobody could decode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Names it: `<partition>@<offset>`.
    pub id: String,
    /// The stream that it came from; `None` = terse did not put it here.
    pub partition: Option<u16>,
    /// Its offset there.
    pub offset: Option<u64>,
    /// Why it could not be decoded.
    pub reason: String,
    /// How many bytes it has.
    pub bytes: usize,
    /// Clicks in it, if this version can decode it.
    pub clicks: Option<u64>,
}

/// Which dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All of them.
    All,
    /// Those with these ids.
    These(BTreeSet<String>),
}

impl Which {
    fn is(&self, letter: &DeadLetter) -> bool {
        match self {
            Self::All => true,
            Self::These(ids) => ids.contains(&letter.id),
        }
    }
}

/// Lists the dead letters, the oldest first, at most `limit`. They stay where they are.
///
/// # Errors
/// [`RabbitError`].
pub async fn list(config: &BrokerConfig, limit: usize) -> Result<Vec<DeadLetter>, RabbitError> {
    let desk = Desk::open(config).await?;
    let mut letters = Vec::new();
    while letters.len() < limit.min(MAX_DEAD as usize)
        && let Some(message) = desk.next().await?
    {
        letters.push(letter_of(&message));
    }
    desk.close().await?;
    Ok(letters)
}

/// Publishes dead letters again to the streams that they came from, and removes them here once that is confirmed.
/// Returns their ids. One that did not come from a stream stays.
///
/// # Errors
/// [`RabbitError`]; then some may have gone back, and none is lost.
pub async fn requeue(config: &BrokerConfig, which: &Which) -> Result<Vec<String>, RabbitError> {
    let desk = Desk::open(config).await?;
    let mut done = Vec::new();
    for _ in 0..MAX_DEAD {
        let Some(message) = desk.next().await? else { break };
        let letter = letter_of(&message);
        let Some(partition) = letter.partition.filter(|_| which.is(&letter)) else { continue };
        let key = partition.to_string();
        desk.publish(&config.exchange(), &key, &message.delivery.data, FieldTable::default()).await?;
        desk.remove(&message).await?;
        done.push(letter.id);
    }
    desk.close().await?;
    Ok(done)
}

/// Removes dead letters for ever: their clicks are not counted. Returns their ids.
///
/// # Errors
/// [`RabbitError`]; then some may be removed.
pub async fn discard(config: &BrokerConfig, which: &Which) -> Result<Vec<String>, RabbitError> {
    let desk = Desk::open(config).await?;
    let mut done = Vec::new();
    for _ in 0..MAX_DEAD {
        let Some(message) = desk.next().await? else { break };
        let letter = letter_of(&message);
        if which.is(&letter) {
            desk.remove(&message).await?;
            done.push(letter.id);
        }
    }
    desk.close().await?;
    Ok(done)
}

/// Puts a message aside, durably.
pub(super) async fn put(config: &BrokerConfig, delivery: &Delivery) -> Result<(), RabbitError> {
    let (bytes, reason) = match &delivery.body {
        Body::Undecodable { bytes, reason } => (bytes.clone(), reason.clone()),
        Body::Part(part) => (part.encode(), "refused by its reader".to_owned()),
        Body::Newer(format) => {
            return Err(RabbitError::Setting(format!("a part of format {format} waits for a newer build")));
        }
    };
    let Partition::Stream(partition) = delivery.partition else {
        return Err(RabbitError::Setting(format!("{} is not a stream", delivery.partition)));
    };
    let headers = table([
        (PARTITION, AMQPValue::LongLongInt(partition.into())),
        (OFFSET, AMQPValue::LongLongInt(i64::try_from(delivery.offset).unwrap_or(i64::MAX))),
        (REASON, AMQPValue::LongString(reason.chars().take(MAX_REASON_LEN).collect::<String>().into())),
    ]);
    let desk = Desk::open(config).await?;
    desk.publish(&config.exchange(), DEAD_KEY, &bytes, headers).await?;
    desk.close().await
}

/// A connection for dealing with dead letters. What was taken from the queue and not removed is back there when it
/// ends.
struct Desk {
    link: Link,
    channel: Channel,
    queue: String,
}

impl Desk {
    async fn open(config: &BrokerConfig) -> Result<Self, RabbitError> {
        let link = Link::open(config, "terse dead letters").await?;
        topology::declare(&link, config).await?;
        let channel = link.confirming().await?;
        Ok(Self { link, channel, queue: config.dead_queue() })
    }

    async fn next(&self) -> Result<Option<BasicGetMessage>, RabbitError> {
        self.link.ask(self.channel.basic_get(self.queue.as_str().into(), BasicGetOptions::default())).await
    }

    async fn publish(&self, exchange: &str, key: &str, bytes: &[u8], headers: FieldTable) -> Result<(), RabbitError> {
        let properties = BasicProperties::default()
            .with_content_type(CONTENT_TYPE.into())
            .with_delivery_mode(PERSISTENT)
            .with_headers(headers);
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let publishing = self.channel.basic_publish(exchange.into(), key.into(), options, bytes, properties);
        let confirm = self.link.ask(publishing).await?;
        match self.link.ask(confirm).await? {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(returned)) => {
                Err(RabbitError::Unavailable(format!("the message came back: {}", returned.reply_text)))
            }
            other => Err(RabbitError::Unavailable(format!("the message was not taken: {other:?}"))),
        }
    }

    async fn remove(&self, message: &BasicGetMessage) -> Result<(), RabbitError> {
        self.link.ask(self.channel.basic_ack(message.delivery.delivery_tag, BasicAckOptions::default())).await
    }

    /// Gives back what was taken and not removed, and waits until it is.
    async fn close(self) -> Result<(), RabbitError> {
        let all = BasicNackOptions { multiple: true, requeue: true };
        self.link.ask(self.channel.basic_nack(0, all)).await?;
        self.link.ask(self.channel.close(200, "done".into())).await?;
        self.link.close().await;
        Ok(())
    }
}

fn letter_of(message: &BasicGetMessage) -> DeadLetter {
    let headers = message.delivery.properties.headers().clone().unwrap_or_default();
    let number = |name: &str| match headers.inner().get(name) {
        Some(AMQPValue::LongLongInt(number)) => u64::try_from(*number).ok(),
        _ => None,
    };
    let partition = number(PARTITION).and_then(|number| u16::try_from(number).ok());
    let offset = number(OFFSET);
    let reason = match headers.inner().get(REASON) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        _ => "put here by somebody else".to_owned(),
    };
    let id = match (partition, offset) {
        (Some(partition), Some(offset)) => format!("{partition}@{offset}"),
        _ => format!("unknown@{}", message.delivery.delivery_tag),
    };
    let bytes = message.delivery.data.len();
    let part = Part::decode(&message.delivery.data.clone().into());
    let clicks = part.ok().map(|part| part.records().count() as u64);
    DeadLetter { id, partition, offset, reason, bytes, clicks }
}
