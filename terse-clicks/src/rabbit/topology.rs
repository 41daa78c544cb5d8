//! Exchanges, streams and queues, declared by whoever connects. What is there already stays as it is; what is there
//! with other arguments is an error that says which.
//!
//! | name | what |
//! |---|---|
//! | `terse.ID.clicks` | direct exchange; the routing key is the partition's number, or `dead` |
//! | `terse.ID.clicks.0` … | streams, kept by size and never by age |
//! | `terse.ID.clicks.dead` | quorum queue of what nobody can decode; beyond [`MAX_DEAD`] messages partitions wait |
//! | `terse.ID.events` | topic exchange of link events; who wants them binds a queue |

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};

use super::connection::{BrokerConfig, Link, RabbitError};

/// The routing key of the dead-letter queue.
pub(super) const DEAD_KEY: &str = "dead";
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
        bind(link, &channel, stream, config.exchange(), &partition.to_string()).await?;
    }
    queue(link, &channel, &config.dead_queue(), dead_arguments()).await?;
    bind(link, &channel, config.dead_queue(), config.exchange(), DEAD_KEY).await?;
    link.ask(channel.close(200, "declared".into())).await
}

/// Declares what link events need: the log of clicks may be out of order without their knowing.
pub(super) async fn declare_events(link: &Link, config: &BrokerConfig) -> Result<(), RabbitError> {
    let channel = link.channel().await?;
    exchange(link, &channel, &config.events_exchange(), ExchangeKind::Topic).await?;
    link.ask(channel.close(200, "declared".into())).await
}

async fn exchange(link: &Link, channel: &Channel, name: &str, kind: ExchangeKind) -> Result<(), RabbitError> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    link.ask(channel.exchange_declare(name.into(), kind, options, FieldTable::default())).await
}

async fn queue(link: &Link, channel: &Channel, name: &str, arguments: FieldTable) -> Result<(), RabbitError> {
    link.ask(channel.queue_declare(name.into(), QueueDeclareOptions::durable(), arguments)).await.map(drop)
}

async fn bind(link: &Link, channel: &Channel, queue: String, exchange: String, key: &str) -> Result<(), RabbitError> {
    let options = QueueBindOptions::default();
    link.ask(channel.queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default())).await
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

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// What operators import where terse itself may not declare.
    const DEFINITIONS: &str = include_str!("../../../deploy/rabbitmq/definitions.json");

    fn config() -> BrokerConfig {
        BrokerConfig::new("amqp://localhost/%2f", "ID", 8).unwrap()
    }

    fn json(arguments: &FieldTable) -> Value {
        let value = |value: &AMQPValue| match value {
            AMQPValue::LongLongInt(number) => Value::from(*number),
            AMQPValue::LongString(text) => Value::from(text.to_string()),
            other => panic!("{other:?} is in no table of arguments"),
        };
        arguments.inner().iter().map(|(name, argument)| (name.to_string(), value(argument))).collect()
    }

    fn listed<'d>(definitions: &'d Value, kind: &str, field: &str) -> Vec<(&'d str, &'d Value)> {
        let all = definitions[kind].as_array().unwrap();
        all.iter().map(|entry| (entry[field].as_str().unwrap(), entry)).collect()
    }

    #[test]
    fn the_definitions_for_operators_are_what_is_declared() {
        let (config, definitions) = (config(), serde_json::from_str::<Value>(DEFINITIONS).unwrap());
        let exchanges = listed(&definitions, "exchanges", "name");
        let kinds: Vec<_> = exchanges.iter().map(|(name, entry)| (*name, entry["type"].as_str().unwrap())).collect();
        assert_eq!(kinds, [(&*config.exchange(), "direct"), (&*config.events_exchange(), "topic")]);
        let mut expected: Vec<_> =
            (0..8).map(|number| (config.stream(number), json(&stream_arguments(&config).unwrap()))).collect();
        expected.push((config.dead_queue(), json(&dead_arguments())));
        let queues = listed(&definitions, "queues", "name");
        let queues: Vec<_> =
            queues.iter().map(|(name, entry)| ((*name).to_owned(), entry["arguments"].clone())).collect();
        assert_eq!(queues, expected);
        let all = listed(&definitions, "exchanges", "name").into_iter().chain(listed(&definitions, "queues", "name"));
        assert!(all.into_iter().all(|(_, entry)| entry["durable"] == true && entry["auto_delete"] == false));
        let bindings: Vec<_> = listed(&definitions, "bindings", "destination")
            .into_iter()
            .map(|(queue, entry)| (queue.to_owned(), entry["routing_key"].as_str().unwrap().to_owned()))
            .collect();
        let mut expected: Vec<_> = (0..8).map(|number: u16| (config.stream(number), number.to_string())).collect();
        expected.push((config.dead_queue(), DEAD_KEY.to_owned()));
        assert_eq!(bindings, expected);
    }

    #[test]
    fn streams_are_kept_by_size_and_never_by_age() {
        let arguments = json(&stream_arguments(&config()).unwrap());
        assert_eq!(arguments["x-max-length-bytes"], 4_i64 << 30);
        assert!(arguments.get("x-max-age").is_none());
        let mut endless = config();
        endless.stream_bytes = u64::MAX;
        assert!(stream_arguments(&endless).is_err());
    }
}
