//! The stores of all shards: opened, connected, admitted.
//!
//! A SQLite file is opened or stops the start. A keyspace may be away: its
//! shard is connected by [`Shard::connect_once`], again and again until that
//! works, and answers nothing before it is admitted: before it told that it
//! belongs to this deployment and owns the slots that the map gives it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use terse_core::ShortCode;
use terse_core::metrics::Metrics;
use terse_core::ports::{ChangeFeed, HomeStore, SettingsStore, ShardStore, StoreError, StoreErrorKind};
use terse_core::time::random_bytes;
use terse_resilience::{Breaker, Breakers, ConcurrencyLimit, MonotonicClock};
use terse_store::{
    CoreClock, CqlConfig, CqlLimits, CqlStore, GuardSettings, Guarded, Sharded, SqliteConfig, SqliteStore,
    watched_breaker,
};

use crate::config::Config;
use crate::config::address::CqlAddress;
use crate::config::shards::{ShardBackend, ShardConfig};
use crate::exit::{Exit, StartError};
use crate::world::World;

/// How long the first start of all waits for shards to come into reach.
const FIRST_START_WAIT: Duration = Duration::from_secs(30);
/// Between two of its tries.
const TRY_EVERY: Duration = Duration::from_millis(500);

/// How often [`Stores::clock_once`] is to be called: twice before edits would measure for themselves.
pub const CLOCK_EVERY: Duration = Duration::from_secs(5);

/// The open stores of a deployment.
pub struct Stores {
    shards: Vec<Shard>,
    home: Arc<dyn HomeStore>,
    /// All shards as one.
    pub links: Arc<Sharded>,
    /// What tells of other servers' edits, for each shard in the map's order;
    /// `None` = no other server edits it. A shard that is not admitted answers unavailable.
    pub feeds: Vec<Option<Arc<dyn ChangeFeed>>>,
    /// The breakers of all shards' guards.
    pub breakers: Breakers,
    /// How many calls may wait for each shard at once.
    pub loads: Vec<Arc<ConcurrencyLimit>>,
}

/// One shard's store.
pub struct Shard {
    name: String,
    metrics: Arc<Metrics>,
    backend: Backend,
    admitted: AtomicBool,
}

/// What keeps a shard's links.
enum Backend {
    Sqlite(Arc<SqliteStore>),
    Cql(Arc<CqlStore>),
}

/// A shard behind its guards.
struct Guards {
    links: Arc<dyn ShardStore>,
    home: Arc<dyn HomeStore>,
    feed: Option<Arc<dyn ChangeFeed>>,
    breakers: Vec<(String, Arc<Breaker>)>,
    loads: Vec<Arc<ConcurrencyLimit>>,
}

/// A shard that could not be connected.
pub struct Away {
    /// Its number.
    pub shard: usize,
    /// Why.
    pub error: StoreError,
}

/// How long to try to connect what is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Once.
    One,
    /// For 30 s: without the first shard there is nothing to start with.
    FirstStart,
}

impl Shard {
    /// Connects and migrates the store, unless that is done. One bounded step.
    ///
    /// # Errors
    /// [`StoreError`] when it is out of reach.
    pub async fn connect_once(&self) -> Result<(), StoreError> {
        match &self.backend {
            Backend::Sqlite(_) => Ok(()),
            Backend::Cql(store) => store.connect_once().await.map(drop),
        }
    }

    /// The settings that the shard keeps, past its guards: they tell whether it may be admitted.
    #[must_use]
    pub fn settings(&self) -> &dyn SettingsStore {
        match &self.backend {
            Backend::Sqlite(store) => store.as_ref(),
            Backend::Cql(store) => store.as_ref(),
        }
    }

    /// Lets the shard answer.
    pub fn admit(&self) {
        if let Backend::Cql(store) = &self.backend {
            store.admit();
        }
        self.admitted.store(true, Ordering::Release);
    }

    /// Waits for what is still to be written after answers that were given, for the time of one write.
    async fn settled(&self) {
        if let Backend::Cql(store) = &self.backend
            && !store.settled().await
        {
            tracing::warn!("marks of edits could not be written in time");
        }
    }

    /// Measures how far this server's clock is from that of the store, once that is admitted.
    async fn clock_once(&self) -> Result<(), StoreError> {
        let Backend::Cql(store) = &self.backend else { return Ok(()) };
        if !self.admitted.load(Ordering::Acquire) {
            return Ok(());
        }
        let measured = store.clock_once().await;
        if let Some(offset_ms) = store.clock_offset_ms() {
            self.metrics.store_clock_offset(&self.name, offset_ms as f64 / 1_000.0);
        }
        measured
    }

    fn close(&self) {
        match &self.backend {
            Backend::Sqlite(store) => store.close(),
            // Nothing is kept back: what was acknowledged is on a quorum of nodes.
            Backend::Cql(_) => {}
        }
    }
}

impl Stores {
    /// Opens the files of all shards that have one. Nothing is connected yet.
    ///
    /// # Errors
    /// [`StartError`] for the first shard that can't be opened.
    pub fn open(config: &Config, world: &World) -> Result<Self, StartError> {
        let internal = |error: &dyn std::fmt::Display| StartError::new(Exit::Internal, error);
        let (mut shards, mut ports, mut feeds, mut breakers) = (vec![], vec![], vec![], Breakers::new());
        let mut loads = vec![];
        let mut home = None;
        for shard in &config.store.shards {
            let (shard, guards) = open_shard(config, shard, world)?;
            for (name, breaker) in guards.breakers {
                breakers.add(name, breaker).map_err(|error| internal(&error))?;
            }
            shards.push(shard);
            ports.push(guards.links);
            feeds.push(guards.feed);
            loads.extend(guards.loads);
            home.get_or_insert(guards.home);
        }
        let links = Sharded::new(config.store.map.clone(), ports).map_err(|error| internal(&error))?;
        let home = home.ok_or_else(|| internal(&"there is no shard"))?;
        Ok(Self { shards, home, links: Arc::new(links), feeds, breakers, loads })
    }

    /// The first shard, home to settings, keys and leases.
    #[must_use]
    pub fn home(&self) -> &Arc<dyn HomeStore> {
        &self.home
    }

    /// The shards in the map's order.
    #[must_use]
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The number of the shard that `code` is on, in the map's order.
    #[must_use]
    pub fn shard_of(&self, code: &ShortCode) -> usize {
        self.links.shard_of(code)
    }

    /// The numbers of the shards that are not admitted yet.
    #[must_use]
    pub fn waiting(&self) -> Vec<usize> {
        let waits = |shard: &usize| !self.shards[*shard].admitted.load(Ordering::Acquire);
        (0..self.shards.len()).filter(waits).collect()
    }

    /// Connects all shards at once; returns those that stay away. With
    /// [`Patience::FirstStart`] it goes on until the first shard is there or
    /// the wait is over.
    ///
    /// # Errors
    /// [`StartError`] for a shard whose store this release can't work with.
    pub async fn connect(&self, patience: Patience) -> Result<Vec<Away>, StartError> {
        let since = tokio::time::Instant::now();
        let mut told = false;
        loop {
            let outcomes = join_all(self.shards.iter().map(Shard::connect_once)).await;
            let failed = outcomes.into_iter().enumerate();
            let away: Vec<Away> =
                failed.filter_map(|(shard, outcome)| outcome.err().map(|error| Away { shard, error })).collect();
            if let Some(spoilt) = away.iter().find(|away| away.error.kind == StoreErrorKind::Corrupt) {
                return Err(store_failure(&self.links.map().names()[spoilt.shard], &spoilt.error));
            }
            let home_is_away = away.iter().any(|away| away.shard == 0);
            if !home_is_away || patience == Patience::One || since.elapsed() >= FIRST_START_WAIT {
                return Ok(away);
            }
            if !told {
                let (error, limit_s) = (&away[0].error, FIRST_START_WAIT.as_secs());
                let cause = error.source.as_ref().map(ToString::to_string);
                tracing::warn!(%error, cause, limit_s, "the first shard is out of reach; waiting for it");
                told = true;
            }
            tokio::time::sleep(TRY_EVERY).await;
        }
    }

    /// Measures how far this server's clock is from those of the stores in
    /// reach; one that is too far off refuses edits. One bounded step, to be
    /// called each [`CLOCK_EVERY`].
    ///
    /// # Errors
    /// The failure of the first shard whose nodes don't tell the time.
    pub async fn clock_once(&self) -> Result<(), StoreError> {
        join_all(self.shards.iter().map(Shard::clock_once)).await.into_iter().collect()
    }

    /// Waits for what is still to be written after answers that were given, for the time of one write.
    pub async fn settled(&self) {
        join_all(self.shards.iter().map(Shard::settled)).await;
    }

    /// Ends all stores: what was accepted is written. Blocks until then.
    pub fn close(&self) {
        self.shards.iter().for_each(Shard::close);
    }
}

/// The first shard alone, for commands that need no links.
pub struct Home {
    shard: Shard,
    /// Its settings, keys and leases.
    pub store: Arc<dyn HomeStore>,
}

impl Home {
    /// Opens and connects it.
    ///
    /// # Errors
    /// [`StartError`] when it can't be opened or is out of reach.
    pub async fn open(config: &Config) -> Result<Self, StartError> {
        let first = &config.store.shards[0];
        let (shard, guards) = open_shard(config, first, &World::real())?;
        shard.connect_once().await.map_err(|error| store_failure(&first.name, &error))?;
        shard.admit();
        Ok(Self { shard, store: guards.home })
    }

    /// Ends the store: what was accepted is written. Blocks until then.
    pub fn close(&self) {
        self.shard.close();
    }
}

/// Opens the store of `shard` and puts guards around it.
fn open_shard(config: &Config, shard: &ShardConfig, world: &World) -> Result<(Shard, Guards), StartError> {
    let (backend, guards) = match &shard.backend {
        ShardBackend::Sqlite { file } => {
            let mut sqlite = SqliteConfig::new(config.data_dir.join(file), shard.name.clone());
            sqlite.readers = config.store.readers;
            let store = SqliteStore::open(sqlite).map_err(|error| store_failure(&shard.name, &error))?;
            let guarded = guard(&shard.name, Arc::clone(&store), world)?;
            (Backend::Sqlite(store), Guards::new(&guarded, None))
        }
        ShardBackend::Cql(address) => {
            let quorum = quorum_breaker(&shard.name, world)?;
            let cql = cql_config(shard, address);
            let (clock, entropy) = (Arc::clone(&world.clock), Arc::clone(&world.entropy));
            let store = CqlStore::new(cql, Arc::clone(&quorum), clock, entropy);
            let guarded = guard(&shard.name, Arc::clone(&store), world)?;
            let mut guards = Guards::new(&guarded, Some(guarded.clone() as Arc<dyn ChangeFeed>));
            guards.breakers.push((quorum_name(&shard.name), quorum));
            (Backend::Cql(store), guards)
        }
    };
    let (name, metrics) = (shard.name.clone(), Arc::clone(&world.metrics));
    Ok((Shard { name, metrics, backend, admitted: AtomicBool::new(false) }, guards))
}

fn guard<S>(shard: &str, store: Arc<S>, world: &World) -> Result<Arc<Guarded<S>>, StartError> {
    Guarded::new(shard, store, &GuardSettings::default(), &clock(world), seed(world), &world.metrics)
        .map(Arc::new)
        .map_err(|error| StartError::new(Exit::Internal, error))
}

impl Guards {
    fn new<S: ShardStore + HomeStore>(guarded: &Arc<Guarded<S>>, feed: Option<Arc<dyn ChangeFeed>>) -> Self {
        let named = guarded.breakers().map(|(name, breaker)| (name.to_owned(), Arc::clone(breaker)));
        let loads = guarded.loads().map(|(_, limit)| Arc::clone(limit)).collect();
        Self { links: guarded.clone(), home: guarded.clone(), feed, breakers: named.collect(), loads }
    }
}

/// The breaker that chooses at which consistency `shard` is read.
fn quorum_breaker(shard: &str, world: &World) -> Result<Arc<Breaker>, StartError> {
    let mut settings = GuardSettings::default().read.breaker;
    settings.call_limit_ms = CqlLimits::default().read_timeout_ms;
    watched_breaker(&quorum_name(shard), settings, clock(world), seed(world), &world.metrics)
        .map_err(|error| StartError::new(Exit::Internal, error))
}

fn quorum_name(shard: &str) -> String {
    format!("{shard}/quorum")
}

fn clock(world: &World) -> Arc<dyn MonotonicClock> {
    Arc::new(CoreClock(Arc::clone(&world.clock)))
}

/// A number of its own for each breaker of each node, so that they don't probe in step.
fn seed(world: &World) -> u64 {
    u64::from_le_bytes(random_bytes(world.entropy.as_ref()))
}

fn cql_config(shard: &ShardConfig, address: &CqlAddress) -> CqlConfig {
    CqlConfig {
        credentials: address.credentials(),
        replication: address.replication,
        translate: shard.translate.clone(),
        ..CqlConfig::new(shard.name.clone(), address.hosts(), address.keyspace.clone())
    }
}

/// A store's failure as the end of a command.
#[must_use]
pub fn store_failure(shard: &str, error: &StoreError) -> StartError {
    let exit = match error.kind {
        StoreErrorKind::Corrupt => Exit::Io,
        StoreErrorKind::Unavailable => Exit::Unavailable,
        StoreErrorKind::Overloaded | StoreErrorKind::UnknownOutcome => Exit::Temporary,
    };
    let told = error.to_string();
    let cause = error.source.as_ref().map(ToString::to_string).filter(|cause| !told.contains(cause));
    let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
    // The text of a cluster begins with its shard's name.
    let prefix = format!("shard '{shard}': ");
    let told = told.strip_prefix(&prefix).unwrap_or(&told);
    StartError::new(exit, format_args!("the store of shard '{shard}' failed: {told}{cause}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use terse_core::Timestamp;
    use terse_core::ports::StoreHealth;

    use super::*;
    use crate::config::raw::Inputs;

    fn config(directory: &Path, file: &str) -> Config {
        std::fs::write(directory.join("terse.toml"), file).unwrap();
        let mut config = Config::load(Inputs { working_dir: directory.to_owned(), ..Inputs::default() }).unwrap();
        config.data_dir = directory.to_owned();
        config
    }

    const TWO: &str = "[[shard]]\nname='a'\nslots='0-2047'\nstore='sqlite'\n\
                       [[shard]]\nname='b'\nslots='2048-4095'\nstore='sqlite:bee'";

    #[tokio::test]
    async fn each_shard_is_a_file_of_its_own() {
        let place = tempfile::tempdir().unwrap();
        let stores = Stores::open(&config(place.path(), TWO), &World::real()).unwrap();
        let health = stores.links.check().await;
        let names: Vec<(&str, bool)> = health.iter().map(|(name, state)| (name.as_str(), state.is_ok())).collect();
        assert_eq!(names, [("a", true), ("b", true)]);
        assert!(place.path().join("links-a.sqlite").exists() && place.path().join("links-bee.sqlite").exists());
        stores.close();
        assert!(stores.links.check().await.iter().all(|(_, state)| state.is_err()), "closed stores refuse");
    }

    #[tokio::test]
    async fn a_shard_that_other_servers_edit_has_a_feed_and_one_that_is_away_says_so() {
        let place = tempfile::tempdir().unwrap();
        let mixed = "[[shard]]\nname='a'\nslots='0-2047'\nstore='sqlite'\n\
                     [[shard]]\nname='b'\nslots='2048-4095'\nstore='cql://127.0.0.1:1/nowhere'";
        let stores = Stores::open(&config(place.path(), mixed), &World::real()).unwrap();
        let [None, Some(feed)] = stores.feeds.as_slice() else { panic!("one feed, that of the second shard") };
        let away = feed.marks(Timestamp::from_millis(0), Timestamp::from_millis(1), None, 1).await.unwrap_err();
        assert_eq!(away.kind, StoreErrorKind::Unavailable, "{away}");
        let on = |code| stores.shard_of(&ShortCode::parse(code).unwrap());
        assert_eq!((on("0abc"), on("zabc")), (0, 1));
        stores.clock_once().await.unwrap();
        stores.close();
    }

    #[tokio::test]
    async fn a_store_that_is_no_database_is_told_by_shard_and_file() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("links-bee.sqlite"), "no database, whatever its name says ".repeat(200))
            .unwrap();
        let refused = Stores::open(&config(place.path(), TWO), &World::real()).err().unwrap();
        assert_eq!(refused.exit, Exit::Io);
        assert!(refused.message.contains("shard 'b'") && refused.message.contains("links-bee.sqlite"), "{refused}");
    }

    #[test]
    fn a_failure_is_told_with_its_cause_and_the_exit_code_of_its_kind() {
        for (kind, exit) in [
            (StoreErrorKind::Unavailable, Exit::Unavailable),
            (StoreErrorKind::Overloaded, Exit::Temporary),
            (StoreErrorKind::UnknownOutcome, Exit::Temporary),
            (StoreErrorKind::Corrupt, Exit::Io),
        ] {
            let error = StoreError::new(kind, "reading").caused_by(std::io::Error::other("disk on fire"));
            let failure = store_failure("a", &error);
            assert_eq!(failure.exit, exit);
            assert_eq!(failure.message, "the store of shard 'a' failed: reading: disk on fire");
        }
    }

    #[test]
    fn a_failure_tells_its_cause_and_its_shard_once() {
        let failure = |text: &str| {
            let error = StoreError::new(StoreErrorKind::Unavailable, text.to_owned());
            store_failure("a", &error.caused_by(std::io::Error::other("disk on fire"))).message
        };
        assert_eq!(failure("reading: disk on fire"), "the store of shard 'a' failed: reading: disk on fire");
        assert_eq!(failure("shard 'a': reading"), "the store of shard 'a' failed: reading: disk on fire");
        let advised = "the store of shard 'a' failed: reading: disk on fire; put it out";
        assert_eq!(failure("reading: disk on fire; put it out"), advised);
    }
}
