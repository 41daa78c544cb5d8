//! What is settled once, by whoever comes first: the kind of bus, and what each epoch began with.
//!
//! Values are inserted if absent and never change, so of several attempts it
//! doesn't matter which one it was: what is read is what stands.

use async_trait::async_trait;
use scylla::response::query_result::QueryRowsResult;
use scylla::statement::prepared::PreparedStatement;
use terse_core::ports::StoreError;
use terse_core::ports::clicks::{Bus, Checkpoint};
use terse_core::stats::{Partition, Position};

use super::super::lwt::{self, Conditional, Decision};
use super::super::session::{Preparer, Use};
use super::super::{by, fault, levels, rows};
use super::cells::write_time;
use super::{CqlReadModel, Live, checkpoints};

/// The name of the kind of bus.
const BUS: &str = "bus";
/// Most partitions of the log.
const MAX_PARTITIONS: u16 = 256;

const GET: &str = "SELECT value FROM {keyspace}.click_settings WHERE name = ?";
const SETTLE: &str = "INSERT INTO {keyspace}.click_settings (name, value) VALUES (?, ?) IF NOT EXISTS";

pub(super) struct Statements {
    get: PreparedStatement,
    get_serial: PreparedStatement,
    settle: PreparedStatement,
}

impl Statements {
    pub(super) async fn prepare(preparer: &Preparer<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            get: preparer.statement(Use::ListRead, GET).await?,
            get_serial: preparer.statement(Use::SerialRead, GET).await?,
            settle: preparer.statement(Use::Conditional, SETTLE).await?,
        })
    }
}

/// A bus as its setting says it.
///
/// # Errors
/// When rows can't be kept here for it.
fn text_of(bus: Bus) -> Result<String, StoreError> {
    match bus {
        Bus::Streams { partitions: partitions @ 1..=MAX_PARTITIONS } => Ok(format!("streams {partitions}")),
        Bus::Streams { partitions } => Err(fault::corrupt(format!("a click log of {partitions} partitions"))),
        // Its rows carry no positions: nothing would order them.
        Bus::Local => Err(fault::corrupt("the local bus needs a read model on sqlite")),
    }
}

fn bus_in(value: &[u8]) -> Result<Bus, StoreError> {
    let text = String::from_utf8_lossy(value);
    let partitions = text.strip_prefix("streams ").and_then(|number| number.parse().ok());
    match partitions {
        Some(partitions @ 1..=MAX_PARTITIONS) => Ok(Bus::Streams { partitions }),
        _ => Err(fault::corrupt(format!("a read model that is made for '{text}'"))),
    }
}

/// The first checkpoint of an epoch as it is settled: its position, and its cell.
fn first_value(first: &Checkpoint) -> Result<Vec<u8>, StoreError> {
    Ok([&write_time(first.at)?.to_be_bytes()[..], &checkpoints::encode(first)?].concat())
}

fn first_in(value: &[u8]) -> Result<Checkpoint, StoreError> {
    let (time, cell) = value.split_first_chunk().ok_or_else(|| rows::wrong("value"))?;
    checkpoints::decode(Some(cell), Some(i64::from_be_bytes(*time)))
}

fn epoch_name(log: Partition, at: Position) -> String {
    format!("epoch/{}/{log}", at.epoch)
}

impl CqlReadModel {
    /// The kind of bus that stands, which is `bus` if none did.
    pub(super) async fn settled_bus(&self, live: &Live, bus: Bus) -> Result<Bus, StoreError> {
        // What stands is told also to those who ask for what can't.
        if let Some(standing) = live.bus().await? {
            return Ok(standing);
        }
        bus_in(&self.settled(live, BUS, text_of(bus)?.as_bytes()).await?)
    }

    /// The kind of bus that stands, asked for once; `None` = none yet.
    pub(super) async fn known_bus(&self, live: &Live) -> Result<Option<Bus>, StoreError> {
        if let Some(known) = self.bus.get() {
            return Ok(Some(*known));
        }
        let standing = live.bus().await?;
        Ok(standing.map(|standing| *self.bus.get_or_init(|| standing)))
    }

    /// What the epoch of `first` began with, which is `first` if it had not begun.
    pub(super) async fn epoch_begun(
        &self,
        live: &Live,
        log: Partition,
        first: &Checkpoint,
    ) -> Result<Checkpoint, StoreError> {
        first_in(&self.settled(live, &epoch_name(log, first.at), &first_value(first)?).await?)
    }

    /// The value that stands, which is `value` if none did.
    async fn settled(&self, live: &Live, name: &str, value: &[u8]) -> Result<Vec<u8>, StoreError> {
        let deadline = self.write_deadline();
        match by(deadline, live.setting(name)).await? {
            Some(standing) => Ok(standing),
            None => lwt::decide(&*self.entropy, deadline, &Settling { live, name, value }).await,
        }
    }
}

impl Live {
    /// The kind of bus that stands; `None` = none yet.
    pub(super) async fn bus(&self) -> Result<Option<Bus>, StoreError> {
        self.setting(BUS).await?.map(|value| bus_in(&value)).transpose()
    }

    async fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        value_in(&levels::rows_on(&self.session, "reading what is settled", &self.settled.get, (name,)).await?)
    }
}

/// A value on its way to stand.
struct Settling<'a> {
    live: &'a Live,
    name: &'a str,
    value: &'a [u8],
}

#[async_trait]
impl Decision for Settling<'_> {
    type Answer = Vec<u8>;

    async fn try_once(&self, _again: bool) -> Result<Option<Vec<u8>>, StoreError> {
        let (live, values) = (self.live, (self.name, self.value));
        match lwt::conditional_on(&live.session, "settling a value", &live.settled.settle, values).await? {
            Conditional::Applied => Ok(Some(self.value.to_vec())),
            Conditional::Refused(standing) => Ok(standing.blob("value").map(<[u8]>::to_vec)),
        }
    }

    async fn read_back(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let live = self.live;
        let values = (self.name,);
        let found = levels::rows_on(&live.session, "reading back what is settled", &live.settled.get_serial, values);
        value_in(&found.await?)
    }
}

fn value_in(found: &QueryRowsResult) -> Result<Option<Vec<u8>>, StoreError> {
    rows::first::<(Option<Vec<u8>>,)>(found)?.map(|(value,)| rows::must(value, "value")).transpose()
}

#[cfg(test)]
mod tests {
    use terse_core::Timestamp;
    use terse_core::click::{BlockId, JournalId};
    use terse_core::ports::StoreErrorKind;

    use super::*;

    #[test]
    fn a_bus_comes_back_as_it_was_settled() {
        for partitions in [1, 8, 256] {
            let bus = Bus::Streams { partitions };
            assert_eq!(bus_in(text_of(bus).unwrap().as_bytes()).unwrap(), bus);
        }
    }

    #[test]
    fn what_never_was_settled_is_corrupt() {
        for text in ["", "local", "streams", "streams 0", "streams 257", "streams -1", "streams 8 "] {
            assert_eq!(bus_in(text.as_bytes()).unwrap_err().kind, StoreErrorKind::Corrupt, "{text}");
        }
        for value in [&[][..], &[0; 7], &[0; 8], &[0; 8 + 32]] {
            assert_eq!(first_in(value).unwrap_err().kind, StoreErrorKind::Corrupt);
        }
    }

    #[test]
    fn a_bus_whose_rows_nothing_would_order_is_refused() {
        for bus in [Bus::Local, Bus::Streams { partitions: 0 }, Bus::Streams { partitions: 257 }] {
            assert!(text_of(bus).is_err(), "{bus:?}");
        }
    }

    #[test]
    fn the_beginning_of_an_epoch_comes_back() {
        let first = Checkpoint {
            at: Position { epoch: 3, offset: 0 },
            until: Timestamp::from_millis(5),
            anchor: BlockId { journal: JournalId([7; 16]), seq: 9 },
            passed: vec![1, 2, 3],
        };
        assert_eq!(first_in(&first_value(&first).unwrap()).unwrap(), first);
        assert_ne!(epoch_name(Partition::Stream(1), first.at), epoch_name(Partition::Stream(2), first.at));
    }
}
