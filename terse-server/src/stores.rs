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
