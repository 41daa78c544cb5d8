//! How the broker is reached, and how long each answer of it is waited for.
//!
//! lapin's own recovery is off: whoever holds a connection that broke opens another one, declares the topology, and
//! goes on from what it knows to be unfinished. A connection's thread ends with it, or at the latest when heartbeats
//! fail.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use lapin::options::ConfirmSelectOptions;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind};

/// Most partitions of a click log.
pub const MAX_PARTITIONS: u16 = 256;
/// Fewest bytes that a stream's retention may be: some of the largest parts, in segments that can be dropped.
const MIN_STREAM_BYTES: u64 = 1 << 20;
/// A connection of which nothing is heard for twice so long is given up, in seconds, unless the address says otherwise.
const HEARTBEAT_S: u16 = 10;
/// Most characters of a deployment's name within the names of exchanges and queues.
const MAX_DEPLOYMENT_LEN: usize = 64;

/// What went wrong with the broker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RabbitError {
    /// The address or a setting is none.
    #[error("{0}")]
    Setting(String),
    /// It is out of reach, or did not answer in time; try again later.
    #[error("the message broker is out of reach: {0}")]
    Unavailable(String),
    /// There are exchanges or queues of our names that are made otherwise. An operator must change one side.
    #[error("the message broker has exchanges or queues made otherwise: {0}")]
    Topology(String),
}

/// How the broker is reached, and what is declared there.
#[derive(Clone)]
pub struct BrokerConfig {
    uri: AMQPUri,
    deployment: String,
    partitions: u16,
    /// How many bytes each stream keeps. Older segments are dropped then: by size, never by age.
    pub stream_bytes: u64,
    /// How many bytes a segment of a stream has: the unit in which it drops what is old.
    pub segment_bytes: u64,
    /// How long an answer of the broker is waited for, in milliseconds.
    pub answer_ms: u64,
}

impl fmt::Debug for BrokerConfig {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = (&self.uri.authority.host, self.uri.authority.port);
        out.debug_struct("BrokerConfig")
            .field("address", &format_args!("{host}:{port}/{}", self.uri.vhost))
            .field("deployment", &self.deployment)
            .field("partitions", &self.partitions)
            .field("stream_bytes", &self.stream_bytes)
            .field("segment_bytes", &self.segment_bytes)
            .field("answer_ms", &self.answer_ms)
            .finish()
    }
}

impl BrokerConfig {
    /// The usual settings for the broker at `uri` (`amqp://[user:password@]host[:port]/vhost`), with the names of
    /// `deployment` and so many `partitions`, 1 to [`MAX_PARTITIONS`]: streams of 4 GiB in segments of 64 MiB.
    ///
    /// # Errors
    /// [`RabbitError::Setting`].
    pub fn new(uri: &str, deployment: &str, partitions: u16) -> Result<Self, RabbitError> {
        let setting = |text: String| RabbitError::Setting(text);
        let address = ipv6_of(uri).map(ToOwned::to_owned);
        // The parser's errors may repeat the address, which may hold a password.
        let mut uri: AMQPUri = uri.parse().map_err(|_| setting("not an address of a message broker".into()))?;
        if let Some(address) = address {
            uri.authority.host = address;
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT_S);
        let named = !deployment.is_empty()
            && deployment.len() <= MAX_DEPLOYMENT_LEN
            && deployment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        if !named {
            return Err(setting(format!("{deployment:?} can't be part of the names of queues")));
        }
        if !(1..=MAX_PARTITIONS).contains(&partitions) {
            return Err(setting(format!("{partitions} partitions: there are 1 to {MAX_PARTITIONS}")));
        }
        let deployment = deployment.to_owned();
        Ok(Self { uri, deployment, partitions, stream_bytes: 4 << 30, segment_bytes: 64 << 20, answer_ms: 5_000 })
    }

    /// How many streams there are.
    #[must_use]
    pub fn partitions(&self) -> u16 {
        self.partitions
    }

    /// The exchange that parts are published to; the routing key is the partition.
    #[must_use]
    pub fn exchange(&self) -> String {
        format!("terse.{}.clicks", self.deployment)
    }

    /// The stream of a partition.
    #[must_use]
    pub fn stream(&self, partition: u16) -> String {
        format!("terse.{}.clicks.{partition}", self.deployment)
    }

    /// The queue of what nobody can decode.
    #[must_use]
    pub fn dead_queue(&self) -> String {
        format!("terse.{}.clicks.dead", self.deployment)
    }

    /// The exchange that link events are published to; the routing key is the event's type.
    #[must_use]
    pub fn events_exchange(&self) -> String {
        format!("terse.{}.events", self.deployment)
    }

    /// Whether the sizes can be.
    ///
    /// # Errors
    /// [`RabbitError::Setting`].
    pub fn check(&self) -> Result<(), RabbitError> {
        if self.stream_bytes < MIN_STREAM_BYTES || self.segment_bytes > self.stream_bytes / 4 {
            let text = format!("streams keep at least {MIN_STREAM_BYTES} bytes, in segments of at most a quarter");
            return Err(RabbitError::Setting(text));
        }
        Ok(())
    }

    pub(super) fn answer(&self) -> Duration {
        Duration::from_millis(self.answer_ms)
    }
}

/// The IPv6 address in `uri`, if there is one: the parser would take `localhost` for it.
fn ipv6_of(uri: &str) -> Option<&str> {
    let authority = uri.split_once("://")?.1.split('/').next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    host.strip_prefix('[')?.split_once(']').map(|(address, _)| address)
}

/// A connection to the broker.
pub(super) struct Link {
    connection: Connection,
    answer: Duration,
}

impl Link {
    /// Connects, as `name` for whoever looks at the broker.
    pub(super) async fn open(config: &BrokerConfig, name: &str) -> Result<Self, RabbitError> {
        config.check()?;
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let mut uri = config.uri.clone();
        uri.query.connection_timeout.get_or_insert(config.answer_ms);
        let connection = answered(config.answer(), Connection::connect_uri(uri, properties)).await?;
        Ok(Self { connection, answer: config.answer() })
    }

    /// A channel.
    pub(super) async fn channel(&self) -> Result<Channel, RabbitError> {
        answered(self.answer, self.connection.create_channel()).await
    }

    /// A channel on which the broker confirms what is published.
    pub(super) async fn confirming(&self) -> Result<Channel, RabbitError> {
        let channel = self.channel().await?;
        answered(self.answer, channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(channel)
    }

    /// Whether it stands, as far as known.
    pub(super) fn is_up(&self) -> bool {
        self.connection.status().connected()
    }

    /// Whether the broker has asked to be spared: its memory or disk is used up.
    pub(super) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// What the broker answers, if it does so in time.
    pub(super) async fn ask<T>(&self, question: impl Future<Output = lapin::Result<T>>) -> Result<T, RabbitError> {
        answered(self.answer, question).await
    }

    /// Ends it in order, as far as the broker answers.
    pub(super) async fn close(self) {
        // The broker notices the end of a connection in any case.
        let _ = self.ask(self.connection.close(200, "done".into())).await;
    }
}

async fn answered<T>(within: Duration, question: impl Future<Output = lapin::Result<T>>) -> Result<T, RabbitError> {
    match tokio::time::timeout(within, question).await {
        Ok(answer) => answer.map_err(|error| fault(&error)),
        Err(_) => Err(RabbitError::Unavailable(format!("no answer within {} ms", within.as_millis()))),
    }
}

/// What lapin's error is to us.
pub(super) fn fault(error: &lapin::Error) -> RabbitError {
    const PRECONDITION_FAILED: u16 = 406;
    match error.kind() {
        ErrorKind::ProtocolError(told) if told.get_id() == PRECONDITION_FAILED => {
            RabbitError::Topology(told.get_message().to_string())
        }
        _ => RabbitError::Unavailable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_shown_nowhere() {
        let config = BrokerConfig::new("amqp://ann:s3cret@broker:5673/terse", "d1", 8).unwrap();
        let shown = format!("{config:?}");
        assert!(shown.contains("broker:5673/terse") && !shown.contains("s3cret") && !shown.contains("ann"), "{shown}");
        let wrong = BrokerConfig::new("amqp//ann:s3cret@broker", "d1", 8).unwrap_err();
        assert_eq!(wrong.to_string(), "not an address of a message broker");
    }

    #[test]
    fn an_ipv6_address_is_no_other_host() {
        let shown = |uri| format!("{:?}", BrokerConfig::new(uri, "d", 1).unwrap());
        assert!(shown("amqp://[2001:db8::7]:5673/v").contains("2001:db8::7:5673/v"));
        assert!(shown("amqp://ann:%5Bx%5D@broker/v").contains("broker:5672/v"));
    }

    #[test]
    fn names_are_those_of_the_deployment() {
        let config = BrokerConfig::new("amqp://localhost/%2f", "k3-X_9", 2).unwrap();
        assert_eq!(config.exchange(), "terse.k3-X_9.clicks");
        assert_eq!([config.stream(0), config.stream(1)], ["terse.k3-X_9.clicks.0", "terse.k3-X_9.clicks.1"]);
        assert_eq!(
            (config.dead_queue(), config.events_exchange()),
            ("terse.k3-X_9.clicks.dead".to_owned(), "terse.k3-X_9.events".to_owned(),)
        );
        for name in ["", "a.b", "a b", "é", &"x".repeat(65)] {
            assert!(BrokerConfig::new("amqp://localhost/%2f", name, 2).is_err(), "{name:?}");
        }
    }

    #[test]
    fn settings_have_bounds() {
        for partitions in [0, MAX_PARTITIONS + 1] {
            assert!(BrokerConfig::new("amqp://localhost/%2f", "d", partitions).is_err());
        }
        let good = BrokerConfig::new("amqp://localhost/%2f", "d", MAX_PARTITIONS).unwrap();
        good.check().unwrap();
        assert!(BrokerConfig { stream_bytes: 1 << 19, ..good.clone() }.check().is_err());
        assert!(BrokerConfig { segment_bytes: good.stream_bytes / 2, ..good }.check().is_err());
    }
}
