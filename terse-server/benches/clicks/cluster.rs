//! Streams of a broker, as they would lie in memory, counted on a cluster.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::Value;
use terse_clicks::log::{Body, ClickLog, Delivery, LogError};
use terse_clicks::part::{Part, PartHeader};
use terse_clicks::record::{Record, network_of};
use terse_core::click::{BlockId, Click, JournalId};
use terse_core::ports::clicks::{Bus, Checkpoint, ReadModel};
use terse_core::stats::Partition;
use terse_core::{Clock, Timestamp};
use terse_server::system::{OsEntropy, SystemClock};
use terse_store::{CqlReadModel, CqlReadModelConfig};

use crate::load::Load;
use crate::local::{compare, count, projector, runtime};
use crate::text;

/// How many streams there are.
const PARTITIONS: u16 = 8;
/// Clicks of a block of 256 KiB, about.
const CLICKS_PER_BLOCK: usize = 1_500;
/// Longest wait for the cluster to make a keyspace and its tables.
const CONNECT_LIMIT: Duration = Duration::from_secs(90);
/// Between two tries.
const CONNECT_EVERY: Duration = Duration::from_millis(200);
const JOURNAL: JournalId = JournalId([1; 16]);

/// How many clicks a second are counted in `keyspace` on `hosts`, and how many rows are written for each.
pub(crate) fn project(hosts: &str, replication: u8, keyspace: &str, clicks: u64) -> Result<Value, String> {
    let mut load = Load::new();
    let streams = Streams::of(&mut load, clicks as usize);
    runtime()?.block_on(async {
        let model = connected(hosts, replication, keyspace).await?;
        let bus = Bus::Streams { partitions: PARTITIONS };
        let mut projector = projector(bus, Box::new(streams), Arc::clone(&model) as Arc<dyn ReadModel>)?;
        let measured = count(&mut projector, clicks).await?;
        compare(model.as_ref(), &load).await?;
        projector.finish().await.map_err(text)?;
        Ok(measured)
    })
}

/// The read model in `keyspace` on `hosts`, which is made if it isn't there.
pub(crate) async fn connected(hosts: &str, replication: u8, keyspace: &str) -> Result<Arc<CqlReadModel>, String> {
    let mut config = CqlReadModelConfig::new(hosts.split(',').map(str::to_owned).collect(), keyspace);
    config.cluster.replication = replication;
    let model = CqlReadModel::new(config, Arc::new(SystemClock::new()), Arc::new(OsEntropy));
    let begun = Instant::now();
    loop {
        match model.connect_once().await {
            Ok(_) => return Ok(model),
            Err(error) if begun.elapsed() > CONNECT_LIMIT => return Err(text(error)),
            Err(_) => tokio::time::sleep(CONNECT_EVERY).await,
        }
    }
}

/// The messages of all streams, read from front to back.
struct Streams {
    messages: HashMap<u16, Vec<Part>>,
    /// How far each stream was read that was started.
    next: HashMap<u16, usize>,
}

impl Streams {
    /// The streams of one journal of so many clicks.
    fn of(load: &mut Load, clicks: usize) -> Self {
        let mut messages: HashMap<u16, Vec<Part>> = HashMap::new();
        let at = SystemClock::new().now();
        for (seq, first) in (0..clicks).step_by(CLICKS_PER_BLOCK).enumerate() {
            let drawn: Vec<_> = (first..clicks.min(first + CLICKS_PER_BLOCK)).map(|_| load.draw()).collect();
            drawn.iter().for_each(|drawn| load.count(*drawn));
            let clicked: Vec<Click<'_>> = drawn.iter().map(|drawn| load.click(*drawn, at)).collect();
            for partition in 0..PARTITIONS {
                messages.entry(partition).or_default().push(part(seq as u64, partition, &clicked, at));
            }
        }
        Self { messages, next: HashMap::new() }
    }
}

/// What of a block belongs to `partition`.
fn part(seq: u64, partition: u16, clicks: &[Click<'_>], sealed_at: Timestamp) -> Part {
    let header = PartHeader {
        block: BlockId { journal: JOURNAL, seq },
        partition,
        partitions: PARTITIONS,
        block_records: clicks.len() as u32,
        recovered: false,
        end: false,
        sealed_at,
    };
    let here = |click: &Click<'_>| Partition::of(click.code, PARTITIONS) == Partition::Stream(partition);
    let records = clicks.iter().enumerate().filter(|(_, click)| here(click));
    Part::new(header, records.map(|(index, click)| (index as u32, record(click))))
}

fn record<'a>(click: &Click<'a>) -> Record<'a> {
    let visitor = click.client.map(|client| match client {
        std::net::IpAddr::V4(client) => u64::from(client.to_bits()).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        std::net::IpAddr::V6(client) => client.to_bits() as u64,
    });
    Record {
        at: click.at,
        code: click.code,
        version: click.version,
        network: click.client.map(network_of),
        visitor,
        referrer: click.referrer,
        user_agent: click.user_agent,
        language: click.language,
        signals: click.signals,
    }
}

#[async_trait]
impl ClickLog for Streams {
    async fn partitions(&mut self) -> Result<Vec<Partition>, LogError> {
        Ok((0..PARTITIONS).map(Partition::Stream).collect())
    }

    async fn start(&mut self, partition: Partition, _: Option<&Checkpoint>) -> Result<(), LogError> {
        if let Partition::Stream(number) = partition {
            self.next.insert(number, 0);
        }
        Ok(())
    }

    async fn next(&mut self, most_bytes: usize, _: u64) -> Result<Vec<Delivery>, LogError> {
        let (mut bytes, mut taken) = (0, Vec::new());
        loop {
            let before = taken.len();
            for (number, next) in &mut self.next {
                let Some(part) = self.messages.get(number).and_then(|parts| parts.get(*next)) else { continue };
                let (partition, offset) = (Partition::Stream(*number), *next as u64);
                bytes += part.frames_len();
                taken.push(Delivery { partition, offset, body: Body::Part(part.clone()) });
                *next += 1;
            }
            if bytes >= most_bytes || taken.len() == before {
                break;
            }
        }
        if taken.is_empty() {
            // The end of all streams: what is left to do is the projector's, which would ask again at once.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(taken)
    }

    async fn passed(&mut self, _: Partition, _: u64) -> Result<(), LogError> {
        Ok(())
    }

    async fn dead_letter(&mut self, delivery: &Delivery) -> Result<(), LogError> {
        Err(LogError::Unavailable(format!("there is nothing to put aside, but {}", delivery.partition)))
    }

    fn stop(&mut self, partition: Partition) {
        if let Partition::Stream(number) = partition {
            self.next.remove(&number);
        }
    }

    fn ended(&self) -> Vec<(Partition, JournalId)> {
        Vec::new()
    }

    fn oldest_waiting(&self) -> Option<Timestamp> {
        None
    }
}
