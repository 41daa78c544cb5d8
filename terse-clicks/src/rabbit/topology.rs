//! Exchanges, streams and queues, declared by whoever connects. What is there already stays as it is; what is there with
//! other arguments is an error that says which.
//!
//! | name | what |
//! |---|---|
//! | `terse.ID.clicks` | direct exchange; the routing key is the partition's number |
//! | `terse.ID.clicks.0` … | streams, kept by size and never by age |
//! | `terse.ID.clicks.dead` | quorum queue of what nobody can decode, at most [`MAX_DEAD`] messages: beyond, partitions wait |
//! | `terse.ID.events` | topic exchange of link events; who wants them binds a queue |

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};

use super::connection::{BrokerConfig, Link, RabbitError};

/// Most messages in the dead-letter queue. One more is refused, and its partition waits until an operator has looked.
pub(super) const MAX_DEAD: i64 = 10_000;
/// How often a dead letter may be looked at before the queue drops it. Each look counts as a failed delivery, and the
/// queue's own limit since RabbitMQ 4 is 20.
const MAX_LOOKS: i64 = 1_000_000;

/// Declares all of it.
pub(super) async fn declare(link: &Link, config: &BrokerConfig) -> Result<(), RabbitError> {
    let channel = link.channel().await?;
    exchange(link, &channel, &config.exchange(), ExchangeKind::Direct).await?;
    exchange(link, &channel, &config.events_exchange(), ExchangeKind::Topic).await?;
    for partition in 0..config.partitions() {
        let stream = config.stream(partition);
        queue(link, &channel, &stream, stream_arguments(config)?).await?;
        let key = partition.to_string();
        let bound = channel.queue_bind(
            stream.into(),
            config.exchange().into(),
            key.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        link.ask(bound).await?;
    }
    queue(link, &channel, &config.dead_queue(), dead_arguments()).await?;
    link.ask(channel.close(200, "declared".into())).await
}

async fn exchange(link: &Link, channel: &Channel, name: &str, kind: ExchangeKind) -> Result<(), RabbitError> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    link.ask(channel.exchange_declare(name.into(), kind, options, FieldTable::default())).await
}

async fn queue(link: &Link, channel: &Channel, name: &str, arguments: FieldTable) -> Result<(), RabbitError> {
    link.ask(channel.queue_declare(name.into(), QueueDeclareOptions::durable(), arguments)).await.map(drop)
}

fn stream_arguments(config: &BrokerConfig) -> Result<FieldTable, RabbitError> {
    let size = |bytes: u64| {
        i64::try_from(bytes).map_err(|_| RabbitError::Setting(format!("{bytes} bytes are more than a stream can keep")))
    };
    Ok(table([
        ("x-queue-type", AMQPValue::LongString("stream".into())),
        ("x-max-length-bytes", AMQPValue::LongLongInt(size(config.stream_bytes)?)),
        ("x-stream-max-segment-size-bytes", AMQPValue::LongLongInt(size(config.segment_bytes)?)),
    ]))
}

fn dead_arguments() -> FieldTable {
    table([
        ("x-queue-type", AMQPValue::LongString("quorum".into())),
        ("x-delivery-limit", AMQPValue::LongLongInt(MAX_LOOKS)),
        ("x-max-length", AMQPValue::LongLongInt(MAX_DEAD)),
        ("x-overflow", AMQPValue::LongString("reject-publish".into())),
    ])
}

/// A table of arguments or headers.
pub(super) fn table<const N: usize>(entries: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert(name.into(), value);
    }
    table
}
