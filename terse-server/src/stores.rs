//! The stores of all shards, opened and migrated.

use std::path::Path;
use std::sync::Arc;

use terse_core::metrics::Metrics;
use terse_core::ports::{ShardStore, StoreError, StoreErrorKind};
use terse_store::{Sharded, SqliteConfig, SqliteStore};

use crate::config::shards::{ShardBackend, ShardConfig};
use crate::config::{Config, StoreConfig};
use crate::exit::{Exit, StartError};

/// The open stores of a deployment.
pub struct Stores {
    shards: Vec<Arc<SqliteStore>>,
    /// All shards as one.
    pub links: Arc<Sharded>,
}

impl Stores {
    /// Opens every shard and brings it to this version's schema.
    ///
    /// # Errors
    /// [`StartError`] for the first shard that can't be opened.
    pub fn open(config: &Config, metrics: &Metrics) -> Result<Self, StartError> {
        if let Some(obstacle) = config.obstacle() {
            return Err(StartError::new(Exit::Unavailable, obstacle));
        }
        let store = &config.store;
        let open = |shard| open_shard(&config.data_dir, store, shard, metrics);
        let shards = store.shards.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let ports = shards.iter().map(|shard| Arc::clone(shard) as Arc<dyn ShardStore>).collect();
        let links = Sharded::new(store.map.clone(), ports).map_err(|error| StartError::new(Exit::Internal, error))?;
        Ok(Self { shards, links: Arc::new(links) })
    }

    /// The first shard, home to settings, keys and leases.
    #[must_use]
    pub fn home(&self) -> &Arc<SqliteStore> {
        &self.shards[0]
    }

    /// The shards behind their port, in the map's order.
    #[must_use]
    pub fn ports(&self) -> Vec<Arc<dyn ShardStore>> {
        self.shards.iter().map(|shard| Arc::clone(shard) as Arc<dyn ShardStore>).collect()
    }

    /// Ends all stores: what was accepted is written. Blocks until then.
    pub fn close(&self) {
        for shard in &self.shards {
            shard.close();
        }
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
    metrics: &Metrics,
) -> Result<Arc<SqliteStore>, StartError> {
    let ShardBackend::Sqlite { file } = &shard.backend else {
        let text = format!("shard '{}' is on {}: this version keeps links on SQLite only", shard.name, shard.backend);
        return Err(StartError::new(Exit::Unavailable, text));
    };
    let mut sqlite = SqliteConfig::new(data_dir.join(file), shard.name.clone());
    sqlite.readers = store.readers;
    SqliteStore::open(sqlite, metrics).map_err(|error| store_failure(&shard.name, &error))
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
        assert!(Arc::ptr_eq(stores.home(), &stores.shards[0]));
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
