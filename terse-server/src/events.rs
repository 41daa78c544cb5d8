//! Link events: what the API did to links, published to the message broker by a thread of their own.
//!
//! They are there with a broker (`TERSE_BUS=amqp://…`) and in processes that serve the API; with the local bus there
//! are
//! none, and writing links costs nothing more. `terse_clicks::rabbit::events` says what is promised of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use terse_clicks::rabbit::events::{EventRelay, MAX_OUTBOX_BYTES, Outbox};
use terse_core::Clock;
use terse_core::ports::events::LinkEvents;
use terse_core::ports::{DependencyHealth, LinkCatalog, LinkWriter, Observation};
use terse_core::shorten::TellingWriter;
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};

use crate::broker;
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
/// For so long dropped events are told, in milliseconds.
const DROPPED_MS: u64 = 60_000;

/// The events of a process that changes links.
pub struct Events {
    outbox: Arc<Outbox>,
    state: Arc<EventState>,
    stop: watch::Sender<bool>,
    ended: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
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
    /// Opens the outbox and starts the relay, where `config` asks for events. Nobody waits for the broker.
    ///
    /// # Errors
    /// [`StartError`] when the address is none of a broker, or the outbox or the thread can't be made.
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
        let outbox = Outbox::open(&directory, Arc::clone(&world.clock), world.entropy.as_ref());
        let outbox = outbox.map_err(|error| {
            StartError::new(Exit::CannotCreate, format_args!("link events: {}: {error}", directory.display()))
        })?;
        let (own, world, catalog) = (Arc::clone(&outbox), world.clone(), Arc::clone(&stores.links));
        let relay = move || {
            let (clock, catalog) = (Arc::clone(&world.clock), Arc::clone(&catalog) as Arc<dyn LinkCatalog>);
            let own = Some(Arc::clone(&own));
            EventRelay::new(broker.clone(), &directory, own, catalog, clock, world.entropy.as_ref())
        };
        Self::start(outbox, move || relay().map_err(|error| error.to_string())).map(Some)
    }

    fn start(
        outbox: Arc<Outbox>,
        relay: impl Fn() -> Result<EventRelay, String> + Send + 'static,
    ) -> Result<Self, StartError> {
        let failed = |error: std::io::Error| {
            StartError::new(Exit::Internal, format_args!("publishing link events can't be started: {error}"))
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let ((stop, stopped), (told, ended)) = (watch::channel(false), oneshot::channel());
        let state = Arc::new(EventState::default());
        let shared = Arc::clone(&state);
        let thread = std::thread::Builder::new().name("link-events".to_owned()).spawn(move || {
            publish(&runtime, relay, stopped, &shared);
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

    /// Starts the task that keeps gauges up to date.
    pub fn run(&self, tasks: &mut Tasks, world: &World) {
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

/// Lives as long as the process: one relay after the other.
fn publish(
    runtime: &Runtime,
    relay: impl Fn() -> Result<EventRelay, String>,
    mut stopped: watch::Receiver<bool>,
    state: &EventState,
) {
    loop {
        // What a panic leaves half done goes with the relay.
        let lived = catch_unwind(AssertUnwindSafe(|| {
            let mut relay = relay()?;
            state.dead.store(false, Ordering::Relaxed);
            runtime.block_on(async {
                relay.run(&mut stopped.clone()).await;
                // The last ones, unless the broker is away.
                while relay.run_once(0).await.sent > 0 {}
            });
            Ok::<(), String>(())
        }));
        match lived {
            Ok(Ok(())) => return,
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
    outbox: Arc<Outbox>,
    state: Arc<EventState>,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl DependencyHealth for EventHealth {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn check(&self) -> Result<(), String> {
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
            },
            Observation {
                name: "dropped",
                value: report.dropped,
                unit: "events",
                trouble: dropping.then_some("dropping"),
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

    fn events(directory: &std::path::Path) -> (Events, Arc<dyn Clock>) {
        let clock: Arc<dyn Clock> = Arc::new(TestClock::default());
        let outbox = Outbox::open(directory, Arc::clone(&clock), &OsEntropy).unwrap();
        let (own, time, directory) = (Arc::clone(&outbox), Arc::clone(&clock), directory.to_owned());
        let relay = move || {
            // Nobody listens there.
            let broker = BrokerConfig::new("amqp://127.0.0.1:1/%2f", "d", 1).unwrap();
            let catalog = Arc::new(terse_store::MemoryStore::new());
            let (own, time) = (Some(Arc::clone(&own)), Arc::clone(&time));
            EventRelay::new(broker, &directory, own, catalog, time, &OsEntropy).map_err(|error| error.to_string())
        };
        (Events::start(outbox, relay).unwrap(), clock)
    }

    #[tokio::test]
    async fn a_broker_that_is_away_holds_up_neither_changes_nor_the_end() {
        let place = tempfile::tempdir().unwrap();
        let (events, clock) = events(place.path());
        let link = links::link("launch");
        let id = events.outbox.intend(Intent::Create(&link)).await.unwrap();
        events.outbox.settle(id, Settled::Happened(LinkEvent::Created(&link)));
        let written = async {
            while events.outbox.report().open > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), written).await.unwrap();
        let health = events.dependency(&clock);
        assert_eq!((health.name(), health.check().await), ("events", Ok(())));
        let told = health.observe();
        assert!(told[0].value > 0 && told.iter().all(|told| told.trouble.is_none()), "{told:?}");
        let least = Duration::from_secs(30);
        events.end(Grace::begin(least), least).await;
    }

    #[tokio::test]
    async fn a_relay_that_can_not_be_made_is_told_and_tried_again() {
        let place = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(TestClock::default());
        let outbox = Outbox::open(place.path(), Arc::clone(&clock), &OsEntropy).unwrap();
        let events = Events::start(outbox, || panic!("on purpose")).unwrap();
        let health = events.dependency(&clock);
        let told = async {
            while health.check().await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), told).await.unwrap();
        let least = Duration::from_secs(30);
        events.end(Grace::begin(least), least).await;
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
