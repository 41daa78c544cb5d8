//! Link events: what the API did to links, published to the message broker by a thread of their own.
//!
//! They are there with a broker (`TERSE_BUS=amqp://…`) and in processes that serve the API; with the local bus there
//! are
//! none, and writing links costs nothing more. `terse_clicks::rabbit::events` says what is promised of them.
//!
//! An outbox that can't be opened keeps nobody from starting: links are changed without, the events are dropped and counted,
//! health tells, and a task tries again. What dead processes left is published meanwhile, which may be what a full disk
//! needs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use terse_clicks::rabbit::events::{EventRelay, MAX_OUTBOX_BYTES, Outbox, OutboxReport};
use terse_core::Clock;
use terse_core::ports::events::{Intent, IntentId, LinkEvents, Settled};
use terse_core::ports::{DependencyHealth, LinkCatalog, LinkWriter, Observation, StoreError, StoreErrorKind};
use terse_core::shorten::TellingWriter;
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};

use crate::broker;
use crate::clicks::Late;
use crate::config::Config;
use crate::exit::{Exit, StartError};
use crate::identity::Identity;
use crate::shutdown::Grace;
use crate::stores::Stores;
use crate::tasks::Tasks;
use crate::world::World;

/// The outboxes of a data directory.
const DIRECTORY: &str = "events";
/// How they are called in health reports.
const NAME: &str = "events";
/// How often gauges are brought up to date.
const GAUGES_EVERY: Duration = Duration::from_millis(500);
/// How long after a relay has died another one follows.
const REVIVE_AFTER: Duration = Duration::from_secs(5);
/// How often opening an outbox is tried again, and how long a try is waited for.
const OPEN_EVERY: Duration = Duration::from_secs(5);
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// For so long dropped events are told, in milliseconds.
const DROPPED_MS: u64 = 60_000;

/// The events of a process that changes links.
pub struct Events {
    outbox: Arc<LateOutbox>,
    state: Arc<EventState>,
    stop: watch::Sender<bool>,
    ended: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

/// An outbox that is there once it could be opened.
struct LateOutbox {
    late: Arc<Late<Outbox>>,
    /// Whether it is there, for who waits for that.
    opened: watch::Sender<bool>,
    /// Changes that were made while it was not.
    missed: AtomicU64,
}

/// What is known of them.
#[derive(Default)]
struct EventState {
    /// Whether the relay has died and no other one follows yet.
    dead: AtomicBool,
    /// How many were dropped when that was looked at last, and when it was first seen that there were so many.
    dropped: AtomicU64,
    dropped_at_ms: AtomicU64,
}

impl Events {
    /// Opens the outbox, if it can be opened, and starts the relay, where `config` asks for events. Nobody waits for the
    /// broker.
    ///
    /// # Errors
    /// [`StartError`] when the address is none of a broker, or the thread can't be made.
    pub fn open(
        config: &Config,
        identity: &Identity,
        stores: &Arc<Stores>,
        world: &World,
    ) -> Result<Option<Self>, StartError> {
        let Some(broker) = broker::settings(config, identity)?.filter(|_| config.http.surfaces.api) else {
            return Ok(None);
        };
        let directory = config.data_dir.join(DIRECTORY);
        let outbox = LateOutbox::new(&directory, world);
        if let Err(error) = outbox.late.try_open() {
            tracing::error!(%error, "starting without link events: they are dropped until their outbox can be opened");
        }
        let (world, catalog) = (world.clone(), Arc::clone(&stores.links));
        let relay = move |own| {
            let (clock, catalog) = (Arc::clone(&world.clock), Arc::clone(&catalog) as Arc<dyn LinkCatalog>);
            EventRelay::new(broker.clone(), &directory, own, catalog, clock, world.entropy.as_ref())
        };
        Self::start(outbox, move |own| relay(own).map_err(|error| error.to_string())).map(Some)
    }

    fn start(outbox: Arc<LateOutbox>, relay: impl MakeRelay) -> Result<Self, StartError> {
        let failed = |error: std::io::Error| {
            StartError::new(Exit::Internal, format_args!("publishing link events can't be started: {error}"))
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let ((stop, stopped), (told, ended)) = (watch::channel(false), oneshot::channel());
        let state = Arc::new(EventState::default());
        let (shared, own) = (Arc::clone(&state), Arc::clone(&outbox));
        let thread = std::thread::Builder::new().name("link-events".to_owned()).spawn(move || {
            publish(&runtime, relay, stopped, &own, &shared);
            // Nobody listens once the server has given up waiting.
            let _ = told.send(());
        });
        Ok(Self { outbox, state, stop, ended, thread: thread.map_err(failed)? })
    }

    /// `writer`, with all that is written through it told.
    #[must_use]
    pub fn around(&self, writer: Arc<dyn LinkWriter>) -> Arc<dyn LinkWriter> {
        Arc::new(TellingWriter::new(writer, Arc::clone(&self.outbox) as Arc<dyn LinkEvents>))
    }

    /// What health reports tell of them.
    #[must_use]
    pub fn dependency(&self, clock: &Arc<dyn Clock>) -> Arc<dyn DependencyHealth> {
        let (outbox, state, clock) = (Arc::clone(&self.outbox), Arc::clone(&self.state), Arc::clone(clock));
        Arc::new(EventHealth { outbox, state, clock })
    }

    /// Starts the tasks that open the outbox, if it isn't yet, and keep gauges up to date.
    pub fn run(&self, tasks: &mut Tasks, world: &World) {
        let outbox = Arc::clone(&self.outbox);
        tasks.every_within("link events", OPEN_EVERY, 2 * OPEN_WITHIN, move || {
            let outbox = Arc::clone(&outbox);
            async move { outbox.open_once().await }
        });
        let (outbox, state, world) = (Arc::clone(&self.outbox), Arc::clone(&self.state), world.clone());
        tasks.every("link event gauges", GAUGES_EVERY, move || {
            let report = outbox.report();
            let events = |outcome| world.metrics.link_events(outcome);
            for (counter, count) in [(events("told"), report.told), (events("dropped"), report.dropped)] {
                counter.inc_by(count.saturating_sub(counter.get()));
            }
            world.metrics.link_event_bytes().set(i64::try_from(report.waiting_bytes).unwrap_or(i64::MAX));
            state.note_dropped(report.dropped, world.clock.monotonic_ms());
            async { Ok(()) }
        });
    }

    /// Publishes what is there, as far as the broker takes it, and ends. What is left is published after the next
    /// start.
    pub async fn end(self, grace: Grace, least: Duration) {
        self.stop.send_replace(true);
        drop(self.outbox.late.end());
        match tokio::time::timeout(grace.left(least), self.ended).await {
            Ok(_) => {
                if self.thread.join().is_err() {
                    tracing::error!("the thread that publishes link events has panicked");
                }
            }
            Err(_) => tracing::warn!("no time is left for publishing link events; the next start goes on"),
        }
    }
}

impl LateOutbox {
    /// One in `directory`, which nobody has tried to open yet.
    fn new(directory: &Path, world: &World) -> Arc<Self> {
        let (directory, world) = (directory.to_owned(), world.clone());
        let late = Late::new("the outbox of link events", move || {
            Outbox::open(&directory, Arc::clone(&world.clock), world.entropy.as_ref()).map_err(|error| {
                let text = format!("the outbox of link events in {} can't be opened: {error}", directory.display());
                StoreError::new(StoreErrorKind::Unavailable, text).caused_by(error)
            })
        });
        Arc::new(Self { late, opened: watch::Sender::new(false), missed: AtomicU64::new(0) })
    }

    /// Opens it, unless that was done.
    async fn open_once(&self) -> Result<(), StoreError> {
        self.late.open_once(OPEN_WITHIN).await?;
        self.opened.send_if_modified(|opened| !std::mem::replace(opened, true));
        Ok(())
    }

    /// What it tells of itself. Before it is there, all events are dropped.
    fn report(&self) -> OutboxReport {
        let report = self.late.get().map(|outbox| outbox.report()).unwrap_or_default();
        OutboxReport { dropped: report.dropped + self.missed.load(Ordering::Relaxed), ..report }
    }

    /// Waits until it is there.
    async fn comes(&self) {
        // Its sender is here.
        let _ = self.opened.subscribe().wait_for(|opened| *opened).await;
    }
}

#[async_trait]
impl LinkEvents for LateOutbox {
    async fn intend(&self, intent: Intent<'_>) -> Option<IntentId> {
        let Some(outbox) = self.late.get() else {
            self.missed.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        outbox.intend(intent).await
    }

    fn settle(&self, id: IntentId, outcome: Settled<'_>) {
        // What was noted was noted in an outbox, which stays.
        if let Some(outbox) = self.late.get() {
            outbox.settle(id, outcome);
        }
    }
}

/// What makes relays, of an outbox of this process's own if there is one.
trait MakeRelay: Fn(Option<Arc<Outbox>>) -> Result<EventRelay, String> + Send + 'static {}

impl<F: Fn(Option<Arc<Outbox>>) -> Result<EventRelay, String> + Send + 'static> MakeRelay for F {}

/// Lives as long as the process: one relay after the other.
fn publish(
    runtime: &Runtime,
    relay: impl MakeRelay,
    mut stopped: watch::Receiver<bool>,
    outbox: &LateOutbox,
    state: &EventState,
) {
    loop {
        // What a panic leaves half done goes with the relay.
        let lived = catch_unwind(AssertUnwindSafe(|| {
            let own = outbox.late.get().cloned();
            let is_late = own.is_none();
            let mut relay = relay(own)?;
            state.dead.store(false, Ordering::Relaxed);
            Ok::<bool, String>(runtime.block_on(async {
                let mut stopped = stopped.clone();
                tokio::select! {
                    () = relay.run(&mut stopped) => {}
                    // Another one publishes that, too; nothing is lost with this one.
                    () = outbox.comes(), if is_late => return false,
                }
                // The last ones, unless the broker is away.
                while relay.run_once(0).await.sent > 0 {}
                true
            }))
        }));
        match lived {
            Ok(Ok(true)) => return,
            Ok(Ok(false)) => continue,
            Ok(Err(why)) => tracing::error!(why, "link events can't be published; trying again"),
            Err(_) => tracing::error!("publishing link events has panicked; trying again"),
        }
        state.dead.store(true, Ordering::Relaxed);
        let ends = async { tokio::time::timeout(REVIVE_AFTER, stopped.wait_for(|stop| *stop)).await.is_ok() };
        if runtime.block_on(ends) {
            return;
        }
    }
}

impl EventState {
    fn note_dropped(&self, dropped: u64, now_ms: u64) {
        if self.dropped.swap(dropped, Ordering::Relaxed) != dropped {
            self.dropped_at_ms.store(now_ms.max(1), Ordering::Relaxed);
        }
    }

    fn are_dropped(&self, now_ms: u64) -> bool {
        let at_ms = self.dropped_at_ms.load(Ordering::Relaxed);
        at_ms > 0 && now_ms.saturating_sub(at_ms) < DROPPED_MS
    }
}

/// Events as health reports see them.
struct EventHealth {
    outbox: Arc<LateOutbox>,
    state: Arc<EventState>,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl DependencyHealth for EventHealth {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn check(&self) -> Result<(), String> {
        self.outbox.late.must().map_err(|error| format!("events are dropped: {}", error.message))?;
        match self.state.dead.load(Ordering::Relaxed) {
            true => Err("publishing them has stopped; it is started again".to_owned()),
            false => Ok(()),
        }
    }

    fn observe(&self) -> Vec<Observation> {
        let report = self.outbox.report();
        let full = report.waiting_bytes > MAX_OUTBOX_BYTES / 2;
        let dropping = self.state.are_dropped(self.clock.monotonic_ms());
        vec![
            Observation {
                name: "waiting",
                value: report.waiting_bytes,
                unit: "bytes",
                trouble: full.then_some("filling"),
                detail: None,
            },
            Observation {
                name: "dropped",
                value: report.dropped,
                unit: "events",
                trouble: dropping.then_some("dropping"),
                detail: None,
            },
        ]
    }
}

#[cfg(test)]
mod tests {
    use terse_clicks::rabbit::BrokerConfig;
    use terse_core::ports::events::{Intent, LinkEvent, Settled};
    use terse_testkit::{TestClock, links};

    use super::*;
    use crate::system::OsEntropy;

    const LEAST: Duration = Duration::from_secs(30);

    fn world() -> World {
        World { clock: Arc::new(TestClock::default()), ..World::real() }
    }

    /// The events of `world` in `directory`, whose broker is away.
    fn events(directory: &Path, world: &World) -> Events {
        let outbox = LateOutbox::new(directory, world);
        let _ = outbox.late.try_open();
        let (time, directory) = (Arc::clone(&world.clock), directory.to_owned());
        let relay = move |own| {
            // Nobody listens there.
            let broker = BrokerConfig::new("amqp://127.0.0.1:1/%2f", "d", 1).unwrap();
            let catalog = Arc::new(terse_store::MemoryStore::new());
            let relay = EventRelay::new(broker, &directory, own, catalog, Arc::clone(&time), &OsEntropy);
            relay.map_err(|error| error.to_string())
        };
        Events::start(outbox, relay).unwrap()
    }

    async fn until(fits: impl AsyncFn() -> bool) {
        let waits = async {
            while !fits().await {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(LEAST, waits).await.unwrap();
    }

    #[tokio::test]
    async fn a_broker_that_is_away_holds_up_neither_changes_nor_the_end() {
        let place = tempfile::tempdir().unwrap();
        let world = world();
        let events = events(place.path(), &world);
        let link = links::link("launch");
        let id = events.outbox.intend(Intent::Create(&link)).await.unwrap();
        events.outbox.settle(id, Settled::Happened(LinkEvent::Created(&link)));
        until(async || events.outbox.report().open == 0).await;
        let health = events.dependency(&world.clock);
        assert_eq!((health.name(), health.check().await), ("events", Ok(())));
        let told = health.observe();
        assert!(told[0].value > 0 && told.iter().all(|told| told.trouble.is_none()), "{told:?}");
        events.end(Grace::begin(LEAST), LEAST).await;
    }

    #[tokio::test]
    async fn a_relay_that_can_not_be_made_is_told_and_tried_again() {
        let place = tempfile::tempdir().unwrap();
        let world = world();
        let outbox = LateOutbox::new(place.path(), &world);
        outbox.late.try_open().unwrap();
        let events = Events::start(outbox, |_| panic!("on purpose")).unwrap();
        let health = events.dependency(&world.clock);
        until(async || health.check().await.is_err_and(|told| told.contains("has stopped"))).await;
        events.end(Grace::begin(LEAST), LEAST).await;
    }

    #[tokio::test]
    async fn a_start_does_without_an_outbox_and_opens_it_later() {
        let place = tempfile::tempdir().unwrap();
        let (directory, world) = (place.path().join("events"), world());
        std::fs::write(&directory, b"no directory").unwrap();
        let events = events(&directory, &world);
        let link = links::link("launch");
        assert_eq!(events.outbox.intend(Intent::Create(&link)).await, None);
        let health = events.dependency(&world.clock);
        assert!(health.check().await.is_err_and(|told| told.contains("events are dropped")));
        assert_eq!(events.outbox.report(), OutboxReport { dropped: 1, ..OutboxReport::default() });

        // The task that tries again finds it mended.
        std::fs::remove_file(&directory).unwrap();
        let mut tasks = Tasks::new();
        events.run(&mut tasks, &world);
        until(async || health.check().await.is_ok()).await;
        let id = events.outbox.intend(Intent::Create(&link)).await.unwrap();
        events.outbox.settle(id, Settled::Happened(LinkEvent::Created(&link)));
        until(async || events.outbox.report().open == 0).await;
        let report = events.outbox.report();
        assert!(report.dropped == 1 && report.waiting_bytes > 0, "{report:?}");
        assert!(tasks.join(LEAST).await.is_empty());
        events.end(Grace::begin(LEAST), LEAST).await;
    }

    #[tokio::test]
    async fn a_relay_without_an_outbox_is_followed_by_one_with_it() {
        let place = tempfile::tempdir().unwrap();
        let (directory, world) = (place.path().join("events"), world());
        std::fs::write(&directory, b"no directory").unwrap();
        let outbox = LateOutbox::new(&directory, &world);
        assert!(outbox.late.try_open().is_err());
        let (told, made) = std::sync::mpsc::channel();
        let (time, elsewhere) = (Arc::clone(&world.clock), place.path().join("none"));
        let relay = move |own: Option<Arc<Outbox>>| {
            told.send(own.is_some()).unwrap();
            let broker = BrokerConfig::new("amqp://127.0.0.1:1/%2f", "d", 1).unwrap();
            let catalog = Arc::new(terse_store::MemoryStore::new());
            let relay = EventRelay::new(broker, &elsewhere, own, catalog, Arc::clone(&time), &OsEntropy);
            relay.map_err(|error| error.to_string())
        };
        let events = Events::start(outbox, relay).unwrap();
        assert_eq!(made.recv_timeout(LEAST), Ok(false));
        std::fs::remove_file(&directory).unwrap();
        events.outbox.open_once().await.unwrap();
        assert_eq!(made.recv_timeout(LEAST), Ok(true));
        events.end(Grace::begin(LEAST), LEAST).await;
    }

    #[test]
    fn dropped_events_are_told_for_a_minute() {
        let state = EventState::default();
        state.note_dropped(0, 0);
        assert!(!state.are_dropped(0));
        state.note_dropped(3, 1_000);
        state.note_dropped(3, 30_000);
        assert!(state.are_dropped(1_000 + DROPPED_MS - 1) && !state.are_dropped(1_000 + DROPPED_MS));
    }
}
