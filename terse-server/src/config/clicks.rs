//! What is recorded of clicks, which way they go, and where they are counted.

use std::path::PathBuf;

use crate::exit::StartError;

use super::address::{AmqpAddress, CqlAddress};
use super::raw::Source;
use super::shards::{ShardBackend, ShardConfig};
use super::{Check, keys, unknown_service, values};

/// The click log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusConfig {
    /// The journal directories themselves.
    Local,
    /// Streams of a message broker.
    Amqp(AmqpAddress),
}

/// Where the read model is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatsConfig {
    /// `stats.sqlite` in the data directory.
    Sqlite,
    /// A keyspace of its own.
    Cql(CqlAddress),
}

/// Clicks.
#[derive(Clone, Debug)]
pub struct ClickConfig {
    /// The click log.
    pub bus: BusConfig,
    /// The read model.
    pub stats: StatsConfig,
    /// Bytes that all journals of the data directory may take; beyond, clicks are dropped and counted.
    pub journal_bytes: u64,
    /// Whether a sealed block is synced to disk before it counts as sealed.
    pub journal_sync: bool,
    /// Whether `DNT` and `Sec-GPC` are obeyed: nothing that could tell visitors apart is recorded then.
    pub obey_signals: bool,
    /// The file that knows the countries of networks.
    pub countries: Option<PathBuf>,
}

/// Reads the keys; `shards` are those of the links.
pub(super) fn clicks(check: &mut Check<'_>, shards: &[ShardConfig]) -> Result<ClickConfig, StartError> {
    let bus = check.optional(&keys::BUS, bus)?.unwrap_or(BusConfig::Local);
    Ok(ClickConfig {
        stats: stats(check, &bus, shards)?,
        bus,
        journal_bytes: check.size(&keys::JOURNAL_BYTES)?,
        journal_sync: check
            .key(&keys::JOURNAL_SYNC, |text| values::one_of(text, &[("sealed", true), ("none", false)]))?,
        obey_signals: check
            .key(&keys::PRIVACY_SIGNALS, |text| values::one_of(text, &[("obey", true), ("ignore", false)]))?,
        countries: check.key(&keys::COUNTRIES, |text| Ok((text != "none").then(|| PathBuf::from(text))))?,
    })
}

/// The bus, and how to show it: without the credentials of a broker.
fn bus(text: &str) -> Result<(BusConfig, String), String> {
    match text {
        "local" => Ok((BusConfig::Local, text.to_owned())),
        text if text.starts_with("amqp:") => {
            AmqpAddress::parse(text).map(|address| (BusConfig::Amqp(address.clone()), address.url.to_string()))
        }
        text => Err(unknown_service("local or amqp://[user:password@]host[:port][/vhost]", text, ["local", "amqp"])),
    }
}

fn stats(check: &mut Check<'_>, bus: &BusConfig, shards: &[ShardConfig]) -> Result<StatsConfig, StartError> {
    let set = check.optional(&keys::STATS, |text| match text {
        "sqlite" => Ok((StatsConfig::Sqlite, text.to_owned())),
        text if text.starts_with("cql:") => {
            CqlAddress::parse(text).map(|address| (StatsConfig::Cql(address.clone()), address.url.to_string()))
        }
        text => {
            Err(unknown_service("sqlite or cql://[user:password@]host[:port],.../keyspace", text, ["sqlite", "cql"]))
        }
    })?;
    match (set, bus) {
        (Some(StatsConfig::Cql(_)), BusConfig::Local) => Err(StartError::config(
            "stats on a keyspace need a message broker (TERSE_BUS): journals on this machine go with stats=sqlite",
        )),
        (Some(set), _) => Ok(set),
        (None, BusConfig::Local) => Ok(told(check, StatsConfig::Sqlite)),
        (None, BusConfig::Amqp(_)) => Ok(told(check, beside(shards))),
    }
}

/// The read model beside the links: a keyspace of its own on the first shard's nodes, or SQLite.
fn beside(shards: &[ShardConfig]) -> StatsConfig {
    match shards.first().map(|shard| &shard.backend) {
        Some(ShardBackend::Cql(links)) => StatsConfig::Cql(links.beside("_stats")),
        _ => StatsConfig::Sqlite,
    }
}

fn told(check: &mut Check<'_>, stats: StatsConfig) -> StatsConfig {
    let text = match &stats {
        StatsConfig::Sqlite => "sqlite".to_owned(),
        StatsConfig::Cql(address) => address.url.to_string(),
    };
    check.show(&keys::STATS, text, Source::Default);
    stats
}
