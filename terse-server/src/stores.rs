//! The stores of all shards: opened, connected, admitted.
//!
//! A SQLite file is opened or stops the start. A keyspace may be away: its
//! shard is connected by [`Shard::connect_once`], again and again until that
//! works, and answers nothing before it is admitted: before it told that it
//! belongs to this deployment and owns the slots that the map gives it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use terse_core::metrics::Metrics;
use terse_core::ports::{HomeStore, SettingsStore, ShardStore, StoreError, StoreErrorKind};
use terse_store::{Sharded, SqliteConfig, SqliteStore};

use crate::config::shards::{ShardBackend, ShardConfig};
use crate::config::{Config, StoreConfig};
use crate::exit::{Exit, StartError};

/// How long the first start of all waits for shards to come into reach.
const FIRST_START_WAIT: Duration = Duration::from_secs(20);
/// Between two of its tries.
const TRY_EVERY: Duration = Duration::from_millis(500);

/// The open stores of a deployment.
pub struct Stores {
    shards: Vec<Shard>,
    home: Arc<dyn HomeStore>,
    /// All shards as one.
    pub links: Arc<Sharded>,
}

/// One shard's store.
pub struct Shard {
    backend: Backend,
    admitted: AtomicBool,
}

/// What keeps a shard's links.
enum Backend {
    Sqlite(Arc<SqliteStore>),
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
    /// For [`FIRST_START_WAIT`]: without the first shard there is nothing to start with.
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
        }
    }

    /// The settings that the shard keeps, past its guards: they tell whether it may be admitted.
    #[must_use]
    pub fn settings(&self) -> &dyn SettingsStore {
        match &self.backend {
            Backend::Sqlite(store) => store.as_ref(),
        }
    }

    /// Lets the shard answer.
    pub fn admit(&self) {
        self.admitted.store(true, Ordering::Release);
    }

    fn close(&self) {
        match &self.backend {
            Backend::Sqlite(store) => store.close(),
        }
    }
}

impl Stores {
    /// Opens the files of all shards that have one. Nothing is connected yet.
    ///
    /// # Errors
    /// [`StartError`] for the first shard that can't be opened.
    pub fn open(config: &Config, metrics: &Metrics) -> Result<Self, StartError> {
        if let Some(obstacle) = config.obstacle() {
            return Err(StartError::new(Exit::Unavailable, obstacle));
        }
        let store = &config.store;
        let open = |shard| open_shard(&config.data_dir, store, shard, metrics);
        let stores = store.shards.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let ports = stores.iter().map(|shard| Arc::clone(shard) as Arc<dyn ShardStore>).collect();
        let links = Sharded::new(store.map.clone(), ports).map_err(|error| StartError::new(Exit::Internal, error))?;
        let home = Arc::clone(&stores[0]) as Arc<dyn HomeStore>;
        let shard = |store| Shard { backend: Backend::Sqlite(store), admitted: AtomicBool::new(false) };
        Ok(Self { shards: stores.into_iter().map(shard).collect(), home, links: Arc::new(links) })
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
            tokio::time::sleep(TRY_EVERY).await;
        }
    }

    /// Ends all stores: what was accepted is written. Blocks until then.
    pub fn close(&self) {
        self.shards.iter().for_each(Shard::close);
    }
}

/// Opens the first shard alone, for commands that need no links.
///
/// # Errors
/// [`StartError`] when it can't be opened.
pub fn open_home(config: &Config) -> Result<Arc<SqliteStore>, StartError> {
    let metrics = Metrics::new();
    open_shard(&config.data_dir, &config.store, &config.store.shards[0], &metrics)
}

fn open_shard(
    data_dir: &Path,
    store: &StoreConfig,
    shard: &ShardConfig,
    _metrics: &Metrics,
) -> Result<Arc<SqliteStore>, StartError> {
    let ShardBackend::Sqlite { file } = &shard.backend else {
        let text = format!("shard '{}' is on {}: this version keeps links on SQLite only", shard.name, shard.backend);
        return Err(StartError::new(Exit::Unavailable, text));
    };
    let mut sqlite = SqliteConfig::new(data_dir.join(file), shard.name.clone());
    sqlite.readers = store.readers;
    SqliteStore::open(sqlite).map_err(|error| store_failure(&shard.name, &error))
}

/// A store's failure as the end of a command.
#[must_use]
pub fn store_failure(shard: &str, error: &StoreError) -> StartError {
    let exit = match error.kind {
        StoreErrorKind::Corrupt => Exit::Io,
        StoreErrorKind::Unavailable => Exit::Unavailable,
        StoreErrorKind::Overloaded | StoreErrorKind::UnknownOutcome => Exit::Temporary,
    };
    let cause = error.source.as_ref().map(|source| format!(": {source}")).unwrap_or_default();
    StartError::new(exit, format_args!("the store of shard '{shard}' failed: {error}{cause}"))
}

#[cfg(test)]
mod tests {
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
        let stores = Stores::open(&config(place.path(), TWO), &Metrics::new()).unwrap();
        let health = stores.links.check().await;
        let names: Vec<(&str, bool)> = health.iter().map(|(name, state)| (name.as_str(), state.is_ok())).collect();
        assert_eq!(names, [("a", true), ("b", true)]);
        assert!(place.path().join("links-a.sqlite").exists() && place.path().join("links-bee.sqlite").exists());
        stores.close();
        assert!(stores.links.check().await.iter().all(|(_, state)| state.is_err()), "closed stores refuse");
    }

    #[tokio::test]
    async fn a_store_that_is_no_database_is_told_by_shard_and_file() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("links-bee.sqlite"), "no database, whatever its name says ".repeat(200))
            .unwrap();
        let refused = Stores::open(&config(place.path(), TWO), &Metrics::new()).err().unwrap();
        assert_eq!(refused.exit, Exit::Io);
        assert!(refused.message.contains("shard 'b'") && refused.message.contains("links-bee.sqlite"), "{refused}");
    }

    #[tokio::test]
    async fn a_keyspace_is_refused_before_anything_is_opened() {
        let place = tempfile::tempdir().unwrap();
        let file = TWO.replace("sqlite:bee", "cql://me:s3cret@db/links");
        let refused = Stores::open(&config(place.path(), &file), &Metrics::new()).err().unwrap();
        assert_eq!(refused.exit, Exit::Unavailable);
        assert!(refused.message.contains("shard 'b'") && !refused.message.contains("s3cret"), "{refused}");
        assert!(!place.path().join("links-a.sqlite").exists());
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
}
