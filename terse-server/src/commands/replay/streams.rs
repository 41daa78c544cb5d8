//! From the streams of a message broker, into a file or a keyspace.
//!
//! Here each row says which offset of its stream it includes. So a keyspace can be compared while it goes on: the log is
//! projected up to the checkpoints that stand, and on from there to the offset of each row that is further, exactly. A
//! file is copied at one moment, as with journals. A stream that no longer begins at its first offset, or that began anew
//! ([`Position::epoch`](terse_core::stats::Position)), can't be verified.

use std::collections::BTreeMap;

use async_trait::async_trait;
use terse_clicks::projector::Projector;
use terse_clicks::rabbit::{self, BrokerConfig, Extent, RabbitError, StreamLog};
use terse_core::ports::clicks::{Bus, Checkpoint};
use terse_core::stats::{Partition, RowKey};

use super::compare::{Follow, compare_following};
use super::model::{Copy, Opened, Target, connect, open};
use super::paced::{Pace, Paced};
use super::{check_bus, projector, run, say, verdict};
use crate::broker;
use crate::clicks;
use crate::config::Config;
use crate::config::clicks::StatsConfig;
use crate::exit::{Exit, StartError};
use crate::identity;
use crate::world::World;

/// How often the checkpoints are caught up with before rows are compared: what they are ahead by then is little.
const ROUNDS: u32 = 3;

/// Builds the read model, and compares it if that is wanted.
pub(super) async fn replay(config: &Config, into: &Target, verify: bool) -> Result<(), StartError> {
    let identity = identity::of_existing(config).await?;
    let Some(broker) = broker::settings(config, &identity)? else {
        return Err(StartError::new(Exit::Internal, "there is no broker"));
    };
    let extents = rabbit::extents(&broker).await.map_err(|error| unreachable(&error))?;
    if verify {
        return self::verify(config, into, broker, &extents).await;
    }
    let ends = extents.iter().filter_map(|(number, extent)| Some((Partition::Stream(*number), extent.as_ref()?.last)));
    let mut replayed = Replayed::new(config, broker, into.open().await?).await?;
    replayed.go_to(ends.collect()).await?;
    let clicks = replayed.end().await?;
    say(&built(into, clicks, extents.len()))
}

fn built(into: &Target, clicks: u64, streams: usize) -> String {
    format!("replayed into {into}: clicks {clicks}, streams {streams}")
}

fn unreachable(error: &RabbitError) -> StartError {
    match error {
        RabbitError::Setting(_) | RabbitError::Topology(_) => StartError::config(error),
        RabbitError::Unavailable(_) => StartError::new(Exit::Unavailable, error),
    }
}

async fn verify(
    config: &Config,
    into: &Target,
    broker: BrokerConfig,
    extents: &BTreeMap<u16, Option<Extent>>,
) -> Result<(), StartError> {
    // Dropped last: it removes the copy.
    let (live, _copy) = match &config.clicks.stats {
        StatsConfig::Sqlite => {
            let copy = Copy::of(config, into)?;
            (Opened::Sqlite(open(&copy.path)?), Some(copy))
        }
        StatsConfig::Cql(address) => (Opened::Cql(connect(address).await?), None),
    };
    check_bus(&live, Bus::Streams { partitions: broker.partitions() }).await?;
    let checkpoints = checkpoints(&live).await?;
    check_beginnings(&checkpoints, extents)?;
    let mut replayed = Replayed::new(config, broker, into.open().await?).await?;
    replayed.go_to(ends_of(&checkpoints)).await?;
    for _ in 1..ROUNDS {
        replayed.go_to(ends_of(&self::checkpoints(&live).await?)).await?;
    }
    let (before, now) = (live.read_model(), replayed.fresh.read_model());
    let compared = compare_following(before.as_ref(), now.as_ref(), &mut replayed).await?;
    let clicks = replayed.end().await?;
    live.close();
    say(&built(into, clicks, extents.len()))?;
    say(&compared.to_string())?;
    verdict(&compared)
}

/// The checkpoints of the streams.
async fn checkpoints(model: &Opened) -> Result<BTreeMap<u16, Checkpoint>, StartError> {
    let all = model.read_model().checkpoints().await.map_err(|error| clicks::failed(&error))?;
    let of_streams = all.into_iter().filter_map(|(partition, checkpoint)| match partition {
        Partition::Stream(number) => Some((number, checkpoint)),
        Partition::Journal(_) => None,
    });
    Ok(of_streams.collect())
}

fn ends_of(checkpoints: &BTreeMap<u16, Checkpoint>) -> BTreeMap<Partition, u64> {
    checkpoints.iter().map(|(number, checkpoint)| (Partition::Stream(*number), checkpoint.at.offset)).collect()
}

/// Fails if the log no longer begins where it once did, or is another than it once was.
fn check_beginnings(
    checkpoints: &BTreeMap<u16, Checkpoint>,
    extents: &BTreeMap<u16, Option<Extent>>,
) -> Result<(), StartError> {
    let refused = |number: u16, what: &str| {
        let text = format!(
            "{what}, stream {number}: what was counted can't be verified any more, only built anew without --verify from \
             what is left"
        );
        Err(StartError::new(Exit::Unavailable, text))
    };
    for (number, checkpoint) in checkpoints {
        let extent = extents.get(number).and_then(Option::as_ref);
        if checkpoint.at.epoch > 0 {
            return refused(*number, "the click log began anew");
        }
        if extent.is_none_or(|extent| extent.first > 0) {
            return refused(*number, "the click log no longer begins at its first offset");
        }
    }
    Ok(())
}

/// A read model that is built from the streams, as far as is asked for.
struct Replayed {
    projector: Projector,
    pace: Pace,
    fresh: Opened,
    partitions: u16,
}

impl Replayed {
    async fn new(config: &Config, broker: BrokerConfig, fresh: Opened) -> Result<Self, StartError> {
        let (partitions, pace) = (broker.partitions(), Pace::default());
        let log = StreamLog::for_replay(broker, World::real().entropy.as_ref());
        let log = log.map_err(|error| StartError::new(Exit::Internal, error))?;
        let log = Box::new(Paced::new(Box::new(log), pace.clone()));
        let projector = projector(config, Bus::Streams { partitions }, log, &fresh).await?;
        Ok(Self { projector, pace, fresh, partitions })
    }

    /// Brings the read model up to `ends`.
    async fn go_to(&mut self, ends: BTreeMap<Partition, u64>) -> Result<(), StartError> {
        self.pace.go_to(ends);
        let pace = self.pace.clone();
        run(&mut self.projector, || pace.is_there()).await?;
        match self.pace.first_left() {
            None => Ok(()),
            Some((partition, end)) => {
                let text = format!(
                    "the click log can't be read up to offset {end} of {partition}: the broker went out of reach, or has \
                     it no more"
                );
                Err(StartError::new(Exit::Unavailable, text))
            }
        }
    }

    /// Ends it in order; how many clicks that were.
    async fn end(mut self) -> Result<u64, StartError> {
        self.projector.finish().await.map_err(|error| StartError::new(Exit::Internal, error))?;
        let clicks = self.projector.progress().report().applied;
        self.fresh.close();
        Ok(clicks)
    }
}

#[async_trait]
impl Follow for Replayed {
    fn partition_of(&self, key: &RowKey) -> Partition {
        Partition::of(key.code.as_str(), self.partitions)
    }

    fn reached(&self, partition: Partition) -> Option<u64> {
        self.pace.end(partition)
    }

    async fn follow(&mut self, ends: BTreeMap<Partition, u64>) -> Result<(), StartError> {
        self.go_to(ends).await
    }
}
