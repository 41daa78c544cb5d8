//! From where to where streams reach, for whoever reads all that they keep.
//!
//! The broker tells no offsets but those of messages. So the first message of a stream is taken for its beginning, and
//! its last chunk is read until nothing more comes for [`QUIET_MS`], at most [`READ_MS`]: what is published meanwhile may
//! belong to it or not.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::try_join_all;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::AMQPValue;
use tokio::time::Instant;

use super::connection::{BrokerConfig, Link, RabbitError, fault};
use super::stream_log::{PREFETCH, offset_of};
use super::topology::{self, table};

/// How long a first message is waited for, in milliseconds; there is none in an empty stream.
const FIRST_MS: u64 = 2_000;
/// When nothing came for so long, in milliseconds, the last message was read.
const QUIET_MS: u64 = 500;
/// How long the last chunk is read at most, in milliseconds.
const READ_MS: u64 = 5_000;
/// So many streams are looked at at a time.
const LOOKED_AT_ONCE: usize = 16;

/// From where to where a stream reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The offset of the first message that it keeps.
    pub first: u64,
    /// The offset of its last message, or of one that was the last a moment ago.
    pub last: u64,
}

/// How far each stream reaches; `None` = it is empty.
///
/// # Errors
/// [`RabbitError`].
pub async fn extents(config: &BrokerConfig) -> Result<BTreeMap<u16, Option<Extent>>, RabbitError> {
    let link = Link::open(config, "terse replay").await?;
    topology::declare(&link, config).await?;
    let partitions: Vec<u16> = (0..config.partitions()).collect();
    let mut extents = BTreeMap::new();
    for some in partitions.chunks(LOOKED_AT_ONCE) {
        let looks = some.iter().map(|partition| extent(&link, config.stream(*partition)));
        extents.extend(some.iter().copied().zip(try_join_all(looks).await?));
    }
    link.close().await;
    Ok(extents)
}

async fn extent(link: &Link, stream: String) -> Result<Option<Extent>, RabbitError> {
    let Some(first) = offsets(link, &stream, "first", false).await? else { return Ok(None) };
    let last = offsets(link, &stream, "last", true).await?;
    Ok(Some(Extent { first, last: last.map_or(first, |last| last.max(first)) }))
}

/// The offset of the first message from `place` on, or of the last that comes.
async fn offsets(link: &Link, stream: &str, place: &str, to_the_last: bool) -> Result<Option<u64>, RabbitError> {
    let channel = link.channel().await?;
    link.ask(channel.basic_qos(PREFETCH, BasicQosOptions::default())).await?;
    let place = table([("x-stream-offset", AMQPValue::LongString(place.into()))]);
    let consuming = channel.basic_consume(stream.into(), "".into(), BasicConsumeOptions::default(), place);
    let mut consumer = link.ask(consuming).await?;
    let deadline = Instant::now() + Duration::from_millis(READ_MS);
    let (mut found, mut wait_ms) = (None, FIRST_MS);
    while Instant::now() < deadline {
        let delivery = match tokio::time::timeout(Duration::from_millis(wait_ms), consumer.next()).await {
            Ok(Some(Ok(delivery))) => delivery,
            Ok(Some(Err(error))) => return Err(fault(&error)),
            Ok(None) => return Err(RabbitError::Unavailable(format!("reading {stream} was ended by the broker"))),
            Err(_) => break,
        };
        found = Some(offset_of(&delivery.properties).ok_or_else(|| {
            RabbitError::Topology(format!("the queue {stream} delivers messages without offsets: it is no stream"))
        })?);
        if !to_the_last {
            break;
        }
        link.ask(channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default())).await?;
        wait_ms = QUIET_MS;
    }
    link.ask(channel.close(200, "looked".into())).await?;
    Ok(found)
}
