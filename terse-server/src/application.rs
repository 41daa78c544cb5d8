//! The server, put together: every part is made here, in the order of
//! [`Application::build`], and ended in the opposite order.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use terse_cache::ReadThrough;
use terse_core::codegen::{CodeSpace, LeasedCodes};
use terse_core::ports::blocking::HostBlocking;
use terse_core::ports::clicks::ClickStats;
use terse_core::ports::{DependencyHealth, IdempotencyStore, StoreErrorKind};
use terse_core::shorten::IDEMPOTENCY_MS;
use terse_core::time::random_bytes;
use terse_core::{Clock, UrlPolicy};
use terse_http::{Access, Lifecycle, Phase, Server, Settings, State};
use terse_store::{CoreClock, GuardedStats, StatsGuardSettings};

use crate::blocking::{self, Blocking, Hangups};
use crate::broker;
use crate::clicks::{Clicks, Workers};
use crate::config::{AuthMode, Config, HttpConfig, ShutdownConfig};
use crate::data_dir::{self, HttpLock};
use crate::dead_blocks;
use crate::events::Events;
use crate::exit::{Exit, StartError};
use crate::identity::{self, Identity};
use crate::key_directory::{self, KeyDirectory};
use crate::key_uses::KeyUses;
use crate::limits;
use crate::links::Links;
use crate::overload::OverloadHealth;
use crate::shutdown::{self, Grace, LAST_STEPS, Signals};
use crate::stores::{CLOCK_EVERY, Stores, store_failure};
use crate::system;
use crate::tasks::Tasks;
use crate::warm_start::WarmStart;
use crate::world::World;

/// File descriptors that are asked for: connections, and a few files.
const WANTED_FILES: u64 = 65_536;
/// How often shards that are away are tried.
const CONNECT_EVERY: Duration = Duration::from_secs(1);
/// How long one try may take: a store may need all the tables of its schema.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(80);
/// How often it is checked whether ids run low.
const TOP_UP_EVERY: Duration = Duration::from_millis(50);
/// How often idempotency keys that are too old are removed.
const PURGE_EVERY: Duration = Duration::from_secs(60);
/// How many of them in one step.
const PURGE_BATCH: usize = 1_000;
/// How many such steps follow each other at most, so that a step stays short.
const PURGE_BATCHES: usize = 100;

/// A server that is ready to run.
pub struct Application {
    address: SocketAddr,
    shutdown: ShutdownConfig,
    lifecycle: Arc<Lifecycle>,
    server: Server,
    signals: Signals,
    tasks: Tasks,
    stores: Arc<Stores>,
    warm: Option<Arc<WarmStart>>,
    key_uses: Option<Arc<KeyUses>>,
    clicks: Clicks,
    events: Option<Events>,
    _lock: Option<HttpLock>,
}

impl Application {
    /// Puts the server together. When this returns, it listens.
    ///
    /// # Errors
    /// [`StartError`] for the first step that fails; nothing is left running.
    pub async fn build(config: Config) -> Result<Self, StartError> {
        let world = World::real();
        let lifecycle = Lifecycle::starting();
        let mut signals = Signals::catch()?;
        let hangups = Hangups::catch()?;
        let blocklist = blocking::check(config.blocklist.as_deref())?;
        raise_file_limit();
        data_dir::create(&config.data_dir)?;
        let lock = lock_if_serving(&config)?;
        let stores = Arc::new(Stores::open(&config, &world)?);
        let reached = async {
            let identity = identity::settle(&config, &stores, world.entropy.as_ref()).await?;
            Ok((identity, keys(&config, &stores, &world).await?))
        };
        let (identity, keys) = tokio::select! {
            reached = reached => reached?,
            // Stores that are away can take a while.
            (name, _) = signals.next() => {
                return Err(StartError::new(Exit::Temporary, format_args!("ended by {name} before it was ready")));
            }
        };
        let keys = Arc::new(keys);
        let (listeners, address) = listen(&config.http)?;
        let codes = Arc::new(codes(&config, address, &stores, &identity, &world));
        let events = Events::open(&config, &identity, &stores, &world)?;
        let links = Links::open(&config, &stores, &identity, &codes, events.as_ref(), &world)?;
        let deployment = identity.deployment_text();
        let blocking = Blocking::open(blocklist, &config, deployment, &links.cache, stores.home(), &world).await;
        let warm = warm_start(&config, &links.cache, &identity, &lifecycle, &world);
        let broker = broker::settings(&config, &identity)?;
        let mut clicks = Clicks::open(&config, broker, &world).await?;
        clicks.start(&config, holder(address), &world)?;
        clicks.prepare(stores.home(), &world).await;
        let told = events.as_ref().map(|events| events.dependency(&world.clock));
        let parts = Parts {
            stores: &stores,
            links: &links,
            blocking: &blocking,
            clicks: &clicks,
            told,
            keys: &keys,
            lifecycle: &lifecycle,
        };
        let state = state(&config, address, parts, &world)?;
        let server = terse_http::serve(listeners, state).map_err(|error| cannot_listen(address, &error))?;
        let mut tasks = tasks(&config, &stores, identity, codes, keys, &world);
        links.run(&mut tasks);
        blocking.run(&mut tasks, hangups);
        let key_uses = config.http.surfaces.api.then(|| Arc::clone(&links.key_uses));
        key_uses.iter().for_each(|uses| uses.run(&mut tasks));
        events.iter().for_each(|events| events.run(&mut tasks, &world));
        dead_blocks::run(&mut tasks, &config, &world);
        clicks.run(&mut tasks, stores.home(), &world);
        warm.iter().for_each(|warm| warm.run(&mut tasks));
        lifecycle.enter(Phase::Ready);
        Ok(Self {
            address,
            shutdown: config.shutdown,
            lifecycle,
            server,
            signals,
            tasks,
            stores,
            warm,
            key_uses,
            clicks,
            events,
            _lock: lock,
        })
    }

    /// The address that is listened on, with its real port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until a signal, then drains and ends everything.
    ///
    /// # Errors
    /// [`StartError`] when the server or a task ended by itself, or a store could not be closed in time.
    pub async fn run_until_stopped(mut self) -> Result<(), StartError> {
        let handle = self.server.handle();
        let mut server = tokio::spawn(self.server);
        let failure = tokio::select! {
            (name, _) = self.signals.next() => {
                tracing::info!(signal = name, "draining");
                None
            }
            task = self.tasks.failed() => Some(format!("the task '{task}' has died")),
            ended = &mut server => Some(match ended {
                Ok(Ok(())) => "the HTTP server ended by itself".to_owned(),
                Ok(Err(error)) => format!("the HTTP server ended by itself: {error}"),
                Err(error) => format!("the HTTP server ended by itself: {error}"),
            }),
        };
        if let Some(text) = &failure {
            tracing::error!(reason = text, "draining after a fault");
        }
        let grace = Grace::begin(self.shutdown.grace_period);
        let end = async {
            let left = shutdown::drain(&self.lifecycle, self.shutdown, grace).await;
            if left > 0 {
                tracing::warn!(requests = left, "the grace period is over; cutting requests in flight");
            }
            let workers = if shutdown::stop(&handle, left).await {
                Workers::Ended
            } else {
                tracing::warn!("the HTTP server did not stop in time");
                Workers::Running
            };
            self.clicks.end(workers, grace, LAST_STEPS).await;
            if let Some(events) = self.events {
                events.end(grace, LAST_STEPS).await;
            }
            let kept = Kept { warm: self.warm, key_uses: self.key_uses };
            end_tasks_and_stores(self.tasks, kept, self.stores, grace).await
        };
        let ended = tokio::select! {
            ended = end => ended,
            (name, code) = self.signals.next() => {
                tracing::warn!(signal = name, "a second signal: ending at once");
                std::process::exit(code);
            }
        };
        match failure {
            Some(text) => Err(StartError::new(Exit::Internal, text)),
            None => ended,
        }
    }
}

/// What is saved for the next start, where this process saves it.
struct Kept {
    warm: Option<Arc<WarmStart>>,
    key_uses: Option<Arc<KeyUses>>,
}

async fn end_tasks_and_stores(tasks: Tasks, kept: Kept, stores: Arc<Stores>, grace: Grace) -> Result<(), StartError> {
    let late = tasks.join(grace.left(LAST_STEPS)).await;
    if !late.is_empty() {
        let late = late.join(", ");
        tracing::warn!(tasks = late, "tasks did not end in time");
    }
    if let Some(uses) = kept.key_uses {
        match tokio::time::timeout(grace.left(LAST_STEPS), uses.save_once()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "keys gain what they created lately"),
            Err(_) => tracing::warn!("no time is left for what keys created"),
        }
    }
    if let Some(warm) = kept.warm {
        match tokio::time::timeout(grace.left(LAST_STEPS), warm.save_once()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let cause = error.source.as_ref().map(ToString::to_string);
                tracing::warn!(%error, cause, "the next start is colder");
            }
            Err(_) => tracing::warn!("no time is left for the warm codes"),
        }
    }
    if tokio::time::timeout(grace.left(LAST_STEPS), stores.settled()).await.is_err() {
        tracing::warn!("no time is left for the marks of edits");
    }
    let closed = tokio::task::spawn_blocking(move || stores.close());
    match tokio::time::timeout(grace.left(LAST_STEPS), closed).await {
        Ok(Ok(())) => {
            tracing::info!("ended");
            Ok(())
        }
        Ok(Err(error)) => Err(StartError::new(Exit::Internal, format_args!("closing the stores failed: {error}"))),
        Err(_) => Err(StartError::new(Exit::Io, "the stores did not close in time")),
    }
}

/// Each connection is a file descriptor; the usual soft limit of 1,024 is hit by a small load test.
fn raise_file_limit() {
    match rlimit::increase_nofile_limit(WANTED_FILES) {
        Ok(limit) => tracing::debug!(limit, "file descriptors"),
        Err(error) => tracing::warn!(%error, "the limit of file descriptors stays as it is"),
    }
}

/// One process serves HTTP from a data directory; analytics alone may run beside it.
fn lock_if_serving(config: &Config) -> Result<Option<HttpLock>, StartError> {
    let serves = config.http.surfaces.redirect || config.http.surfaces.api;
    serves.then(|| data_dir::lock_for_http(&config.data_dir)).transpose()
}

fn codes(config: &Config, address: SocketAddr, stores: &Stores, identity: &Identity, world: &World) -> LeasedCodes {
    let space = CodeSpace::new(identity.permutation_key);
    LeasedCodes::new(space, stores.home().clone(), config.store.code_block, holder(address), Arc::clone(&world.clock))
}

/// How this server is called where it takes leases.
fn holder(address: SocketAddr) -> String {
    format!("{} {address}", system::host_name())
}

/// The keys, read once, so that the first request can be authenticated.
async fn keys(config: &Config, stores: &Stores, world: &World) -> Result<KeyDirectory, StartError> {
    let keys = KeyDirectory::new(Arc::clone(stores.home()), Arc::clone(&world.clock), world.entropy.as_ref());
    match keys.refresh_once().await {
        Err(error) if error.kind == StoreErrorKind::Corrupt => Err(store_failure(&config.store.shards[0].name, &error)),
        // The server starts all the same: it redirects, and keys are asked for again each second.
        Err(error) => {
            tracing::warn!(%error, "the API keys can't be read yet; requests with a key get 503 until then");
            Ok(keys)
        }
        Ok(_) => Ok(keys),
    }
}

/// Listens with a socket for each worker. Returns the real port, too.
fn listen(config: &HttpConfig) -> Result<(Vec<TcpListener>, SocketAddr), StartError> {
    let listeners = terse_http::listen(config.listen, config.workers);
    let listeners = listeners.map_err(|error| cannot_listen(config.listen, &error))?;
    let address = listeners[0].local_addr().map_err(|error| cannot_listen(config.listen, &error))?;
    Ok((listeners, address))
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> StartError {
    StartError::new(Exit::Unavailable, format_args!("cannot listen on {address}: {error}"))
}

/// Only where redirects are answered are there hot codes.
fn warm_start(
    config: &Config,
    cache: &Arc<ReadThrough>,
    identity: &Identity,
    lifecycle: &Arc<Lifecycle>,
    world: &World,
) -> Option<Arc<WarmStart>> {
    let (clock, lifecycle) = (Arc::clone(&world.clock), Arc::clone(lifecycle));
    config.http.surfaces.redirect.then(|| {
        WarmStart::new(Arc::clone(cache), clock, lifecycle, config.data_dir.clone(), identity.deployment_text())
    })
}

/// What the handlers reach of the server's parts.
struct Parts<'a> {
    stores: &'a Stores,
    links: &'a Links,
    blocking: &'a Arc<Blocking>,
    clicks: &'a Clicks,
    /// What health reports tell of link events.
    told: Option<Arc<dyn DependencyHealth>>,
    keys: &'a Arc<KeyDirectory>,
    lifecycle: &'a Arc<Lifecycle>,
}

fn state(config: &Config, address: SocketAddr, parts: Parts<'_>, world: &World) -> Result<State, StartError> {
    let Parts { stores, links, blocking, clicks, told, keys, lifecycle } = parts;
    let counted = clicks.dependencies(&world.clock);
    let own: [Arc<dyn DependencyHealth>; 2] = [Arc::new(OverloadHealth(stores.loads.clone())), blocking.clone()];
    let stats = guarded_stats(clicks, stores, world)?;
    Ok(State {
        shortener: Arc::clone(&links.shortener),
        resolver: links.cache.clone(),
        catalog: stores.links.clone(),
        stats: Arc::clone(&stats) as Arc<dyn ClickStats>,
        recording: clicks.recording(),
        blocking: Arc::clone(blocking) as Arc<dyn HostBlocking>,
        policy: Arc::new(policy(config, &links.cache)),
        access: match config.http.auth {
            AuthMode::Open => Access::Open,
            AuthMode::Keys => Access::Keys(Arc::clone(keys) as Arc<dyn terse_core::access::Authenticator>),
        },
        store_health: stores.links.clone(),
        dependencies: links.dependencies().into_iter().chain(counted).chain(told).chain(own).collect(),
        breakers: links.breakers(stores, &stats)?,
        limits: links.limits(config, world)?,
        lifecycle: Arc::clone(lifecycle),
        metrics: Arc::clone(&world.metrics),
        clock: Arc::clone(&world.clock),
        entropy: Arc::clone(&world.entropy),
        settings: Arc::new(settings(&config.http, address)),
    })
}

/// Which targets are accepted; what is blocked changes with what `cache` blocks.
fn policy(config: &Config, cache: &ReadThrough) -> UrlPolicy {
    let policy = UrlPolicy::new(&config.http.public_url.host, config.allow_private_targets);
    policy.refusing(Arc::clone(cache.blocked()))
}

/// What is known of clicks, for requests: a read model that is slow or away holds none of them for long.
fn guarded_stats(clicks: &Clicks, stores: &Stores, world: &World) -> Result<Arc<GuardedStats>, StartError> {
    let clock = Arc::new(CoreClock(Arc::clone(&world.clock)));
    let seed = u64::from_be_bytes(random_bytes(world.entropy.as_ref()));
    let guarded = GuardedStats::new(clicks.stats(), &StatsGuardSettings::default(), clock, seed, &world.metrics);
    let guarded = guarded.map_err(|error| StartError::new(Exit::Internal, error))?;
    Ok(Arc::new(guarded.giving_way_to(stores.loads.clone())))
}

fn settings(http: &HttpConfig, address: SocketAddr) -> Settings {
    Settings {
        public_url: http.public_url.base.clone(),
        listen: address,
        redirect_status: http.redirect_status,
        redirect_max_age_s: http.redirect_max_age_s,
        surfaces: http.surfaces,
        trusted_proxies: limits::trusted_proxies(http),
        bounds: http.bounds,
        docs_dir: http.docs_dir.clone(),
        release: env!("CARGO_PKG_VERSION"),
    }
}

fn tasks(
    config: &Config,
    stores: &Arc<Stores>,
    identity: Identity,
    codes: Arc<LeasedCodes>,
    keys: Arc<KeyDirectory>,
    world: &World,
) -> Tasks {
    let mut tasks = Tasks::new();
    let (connected, identity) = (Arc::clone(stores), Arc::new(identity));
    let data_dir = config.data_dir.clone();
    tasks.every_within("shard connection", CONNECT_EVERY, CONNECT_TIMEOUT, move || {
        let (stores, identity, data_dir) = (Arc::clone(&connected), Arc::clone(&identity), data_dir.clone());
        async move { identity::admit_once(&data_dir, &stores, &identity).await }
    });
    let clocked = Arc::clone(stores);
    tasks.every("store clock", CLOCK_EVERY, move || {
        let stores = Arc::clone(&clocked);
        async move { stores.clock_once().await }
    });
    tasks.every("key refresh", key_directory::REFRESH_EVERY, move || {
        let keys = Arc::clone(&keys);
        async move { keys.refresh_once().await.map(drop) }
    });
    if config.http.surfaces.api {
        tasks.every("code top-up", TOP_UP_EVERY, move || {
            let codes = Arc::clone(&codes);
            async move { codes.top_up_once().await.map(drop) }
        });
        let (links, clock) = (Arc::clone(&stores.links), Arc::clone(&world.clock));
        tasks.every("idempotency purge", PURGE_EVERY, move || {
            let (links, clock) = (Arc::clone(&links), Arc::clone(&clock));
            async move { purge_once(links.as_ref(), clock.as_ref()).await.map(drop) }
        });
    }
    tasks
}

/// Removes idempotency keys that are too old, in batches, at most [`PURGE_BATCHES`]. Returns how many.
async fn purge_once(store: &dyn IdempotencyStore, clock: &dyn Clock) -> Result<usize, terse_core::ports::StoreError> {
    let before = clock.now().plus_millis(-IDEMPOTENCY_MS);
    let mut purged = 0;
    for _ in 0..PURGE_BATCHES {
        let batch = store.purge_keys(before, PURGE_BATCH).await?;
        purged += batch;
        if batch < PURGE_BATCH {
            break;
        }
    }
    Ok(purged)
}

#[cfg(test)]
mod tests {
    use terse_core::ports::{AttemptId, IdempotencyRecord};
    use terse_core::{Owner, ShortCode};
    use terse_store::MemoryStore;
    use terse_testkit::TestClock;

    use super::*;
    use crate::config::keys::{DATA_DIR, DRAIN_DELAY, LISTEN};
    use crate::config::raw::Inputs;

    fn config(data_dir: &std::path::Path) -> Config {
        let flags = vec![
            (&LISTEN, "127.0.0.1:0".to_owned()),
            (&DRAIN_DELAY, "0s".to_owned()),
            (&DATA_DIR, data_dir.display().to_string()),
        ];
        Config::load(Inputs { flags, working_dir: data_dir.to_owned(), ..Inputs::default() }).unwrap()
    }

    #[tokio::test]
    async fn a_task_that_dies_ends_the_server_with_an_error() {
        let place = tempfile::tempdir().unwrap();
        let mut application = Application::build(config(place.path())).await.unwrap();
        assert_ne!(application.address().port(), 0);
        application.tasks.every("doomed", Duration::from_secs(1), || async { panic!("on purpose") });
        let error = application.run_until_stopped().await.unwrap_err();
        assert_eq!((error.exit, error.message.as_str()), (Exit::Internal, "the task 'doomed' has died"));
        // Everything was given back: the lock, the port, the store.
        Application::build(config(place.path())).await.unwrap();
    }

    #[tokio::test]
    async fn a_start_that_fails_gives_back_what_it_took() {
        let place = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut wrong = config(place.path());
        wrong.http.listen = taken.local_addr().unwrap();
        assert_eq!(Application::build(wrong).await.err().map(|e| e.exit), Some(Exit::Unavailable));
        Application::build(config(place.path())).await.unwrap();
    }

    #[tokio::test]
    async fn old_idempotency_keys_are_purged_in_batches_and_young_ones_kept() {
        let (store, clock) = (MemoryStore::new(), TestClock::default());
        let record = |age_ms: i64| IdempotencyRecord {
            body_hash: [0; 32],
            code: ShortCode::parse("abc").unwrap(),
            attempt: AttemptId([0; 16]),
            created_at: clock.now().plus_millis(-age_ms),
        };
        let long_ago = clock.now().plus_millis(-10 * IDEMPOTENCY_MS);
        for number in 0..PURGE_BATCH + 5 {
            let key = format!("old-{number}");
            store.claim_key(&Owner::open(), &key, &record(IDEMPOTENCY_MS + 1), long_ago).await.unwrap();
        }
        store.claim_key(&Owner::open(), "young", &record(IDEMPOTENCY_MS - 1), long_ago).await.unwrap();
        assert_eq!(purge_once(&store, &clock).await.ok(), Some(PURGE_BATCH + 5));
        assert!(store.find_key(&Owner::open(), "young").await.unwrap().is_some());
        assert_eq!(purge_once(&store, &clock).await.ok(), Some(0));
    }
}
