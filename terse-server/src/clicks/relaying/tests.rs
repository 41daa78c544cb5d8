use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use terse_clicks::journal::JournalConfig;
use terse_clicks::rabbit::{BrokerConfig, Needs, RelayConfig};
use terse_core::ports::StoreError;

use super::*;
use crate::world::World;

const PATIENCE: Duration = Duration::from_secs(30);

struct NoNeeds;

#[async_trait]
impl Needs for NoNeeds {
    async fn first_needed(&self, _: u16) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }
}

/// A directory of journals, and a broker at an address where nobody listens.
struct Place {
    directory: tempfile::TempDir,
    world: World,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), world: World::real() }
    }

    fn journals(&self) -> std::path::PathBuf {
        self.directory.path().join("journal")
    }

    fn recording(&self) -> Recording {
        let config = JournalConfig { partitions: 8, ..JournalConfig::new(self.journals()) };
        Recording::new(config, Arc::clone(&self.world.clock), Arc::clone(&self.world.entropy))
    }

    fn relay(&self) -> impl Fn(Option<Arc<Journal>>) -> Result<Relay, String> + Send + 'static {
        let broker = BrokerConfig::new("amqp://127.0.0.1:1/v", "d", 8).unwrap();
        let (config, world) = (RelayConfig::new(broker, self.journals()), self.world.clone());
        move |journal| {
            let relay = Relay::new(
                config.clone(),
                journal,
                Arc::new(NoNeeds),
                Arc::clone(&world.clock),
                world.entropy.as_ref(),
            );
            relay.map_err(|error| error.to_string())
        }
    }
}

async fn soon(what: &str, mut is_so: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "never: {what}");
}

#[tokio::test]
async fn a_relay_without_a_broker_tries_on_and_ends_soon_however_much_time_there_is() {
    let place = Place::new();
    let recording = place.recording();
    recording.journal.open_once(PATIENCE).await.unwrap();
    let relaying = Relaying::start(place.relay(), RelayOf::Recording(recording.clone())).unwrap();
    let relayed = relaying.relayed();
    soon("it tries", || relayed.report().faults > 1).await;
    assert!(relayed.lives() && !relayed.report().connected);
    let began = Instant::now();
    relaying.end(PATIENCE).await;
    assert!(began.elapsed() < PATIENCE / 4, "{:?}", began.elapsed());
    recording.journal.end().unwrap().end().unwrap();
}

#[tokio::test]
async fn a_relay_that_panics_or_can_not_be_made_is_followed_by_another() {
    let place = Place::new();
    let (births, make) = (Arc::new(AtomicUsize::new(0)), place.relay());
    let born = Arc::clone(&births);
    let recording = place.recording();
    recording.journal.open_once(PATIENCE).await.unwrap();
    let make = move |journal| match born.fetch_add(1, Ordering::SeqCst) {
        0 => panic!("on purpose"),
        1 => Err("no relay".to_owned()),
        _ => make(journal),
    };
    let relaying = Relaying::start(make, RelayOf::Recording(recording)).unwrap();
    let relayed = relaying.relayed();
    soon("a third is born", || births.load(Ordering::SeqCst) == 3).await;
    soon("it lives", || relayed.lives()).await;
    relaying.end(PATIENCE).await;
}

#[tokio::test]
async fn a_journal_that_opens_late_gets_a_relay_that_knows_it() {
    let place = Place::new();
    let (knows, make) = (Arc::new(Mutex::new(Vec::new())), place.relay());
    let known = Arc::clone(&knows);
    let recording = place.recording();
    let make = move |journal: Option<Arc<Journal>>| {
        known.lock().push(journal.as_ref().map(|journal| journal.id()));
        make(journal)
    };
    let relaying = Relaying::start(make, RelayOf::Recording(recording.clone())).unwrap();
    soon("the first is born", || *knows.lock() == [None]).await;
    recording.journal.open_once(PATIENCE).await.unwrap();
    let id = recording.journal.get().unwrap().id();
    soon("the second knows the journal", || *knows.lock() == [None, Some(id)]).await;
    relaying.end(PATIENCE).await;
}

#[tokio::test]
async fn of_several_that_would_relay_what_others_left_one_does_and_the_next_when_it_ends() {
    let place = Place::new();
    let remains = || RelayOf::Remains(place.directory.path().to_owned());
    let first = Relaying::start(place.relay(), remains()).unwrap();
    soon("the first lives", || first.relayed().lives()).await;
    let second = Relaying::start(place.relay(), remains()).unwrap();
    soon("the second stands by", || second.relayed().stands_by()).await;
    assert!(!second.relayed().lives() && !first.relayed().stands_by());
    first.end(PATIENCE).await;
    soon("the second lives", || second.relayed().lives() && !second.relayed().stands_by()).await;
    // One that stands by ends at once.
    let third = Relaying::start(place.relay(), remains()).unwrap();
    soon("the third stands by", || third.relayed().stands_by()).await;
    third.end(PATIENCE).await;
    second.end(PATIENCE).await;
}

#[test]
fn only_what_this_process_recorded_is_worth_the_time_of_its_end() {
    let place = Place::new();
    let (own, remains) = (RelayOf::Recording(place.recording()), RelayOf::Remains(place.journals()));
    assert_eq!((own.drains_for(PATIENCE, true), own.drains_for(PATIENCE, false)), (PATIENCE, UNCONNECTED));
    assert_eq!((remains.drains_for(PATIENCE, true), remains.drains_for(PATIENCE, false)), (UNCONNECTED, UNCONNECTED));
    let short = UNCONNECTED / 2;
    assert_eq!((own.drains_for(short, true), remains.drains_for(short, true)), (short, short));
}

#[test]
fn what_earlier_relays_published_is_told_and_waits_double() {
    let relayed = Relayed::default();
    assert!(!relayed.lives());
    relayed.born(Arc::default());
    assert!(relayed.lives());
    let waits: Vec<u64> = (0..8).map(|_| relayed.died("on purpose").as_secs()).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    assert!(!relayed.lives());
    assert_eq!((relayed.report().published, relayed.report().confirmed), (0, 0));
}
