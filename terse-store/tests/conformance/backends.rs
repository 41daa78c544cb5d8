//! One factory per backend: each makes an empty store.

use std::sync::Arc;

use terse_core::metrics::Metrics;
use terse_core::ports::{HomeStore, IdempotencyStore, LinkCatalog, LinkReader, LinkWriter, ShardStore, StoreHealth};
use terse_store::{MemoryStore, ShardMap, Sharded, SqliteConfig, SqliteStore};

/// The ports that a ring over shards has too.
pub(crate) trait LinkPorts: LinkReader + LinkWriter + LinkCatalog + IdempotencyStore + StoreHealth {}

impl<T: LinkReader + LinkWriter + LinkCatalog + IdempotencyStore + StoreHealth> LinkPorts for T {}

/// An empty store, and what must outlive it.
pub(crate) struct Backend {
    links: Arc<dyn LinkPorts>,
    home: Option<Arc<dyn HomeStore>>,
    directory: Option<tempfile::TempDir>,
}

/// A port, and what must outlive it: the store ends before its directory goes.
pub(crate) struct Held<P: ?Sized> {
    port: Arc<P>,
    _directory: Arc<Option<tempfile::TempDir>>,
}

impl<P: ?Sized> Clone for Held<P> {
    fn clone(&self) -> Self {
        Self { port: Arc::clone(&self.port), _directory: Arc::clone(&self._directory) }
    }
}

impl<P: ?Sized> std::ops::Deref for Held<P> {
    type Target = Arc<P>;
    fn deref(&self) -> &Arc<P> {
        &self.port
    }
}

impl Backend {
    /// All ports, borrowed.
    pub(crate) fn ports(&self) -> (&Arc<dyn LinkPorts>, Option<&Arc<dyn HomeStore>>) {
        (&self.links, self.home.as_ref())
    }

    pub(crate) fn links(self) -> Held<dyn LinkPorts> {
        Held { port: self.links, _directory: Arc::new(self.directory) }
    }

    /// The ports of a deployment's first shard, if this backend has them.
    pub(crate) fn home(self) -> Option<Held<dyn HomeStore>> {
        let directory = Arc::new(self.directory);
        self.home.map(|port| Held { port, _directory: directory })
    }
}

pub(crate) async fn memory() -> Backend {
    let store = Arc::new(MemoryStore::new());
    Backend { links: store.clone(), home: Some(store), directory: None }
}

fn sqlite_file(directory: &tempfile::TempDir, shard: &str) -> Arc<SqliteStore> {
    let config = SqliteConfig::new(directory.path().join(format!("{shard}.db")), shard);
    SqliteStore::open(config, &Metrics::new()).unwrap()
}

pub(crate) async fn sqlite() -> Backend {
    let directory = tempfile::tempdir().unwrap();
    let store = sqlite_file(&directory, "main");
    Backend { links: store.clone(), home: Some(store), directory: Some(directory) }
}

pub(crate) async fn one_shard() -> Backend {
    let ring = Sharded::new(ShardMap::single("main"), vec![Arc::new(MemoryStore::new())]).unwrap();
    Backend { links: Arc::new(ring), home: None, directory: None }
}

/// Interleaved ranges, so that neighbouring codes fall on different shards.
fn three_shards() -> ShardMap {
    ShardMap::parse(&[("a", "0-1200,2500-2600"), ("b", "1201-2499"), ("c", "2601-4095")]).unwrap()
}

pub(crate) async fn three_shards_on_memory() -> Backend {
    let shards = (0..3).map(|_| Arc::new(MemoryStore::new()) as Arc<dyn ShardStore>).collect();
    Backend { links: Arc::new(Sharded::new(three_shards(), shards).unwrap()), home: None, directory: None }
}

pub(crate) async fn three_shards_on_sqlite() -> Backend {
    let directory = tempfile::tempdir().unwrap();
    let map = three_shards();
    let shards = map.names().iter().map(|name| sqlite_file(&directory, name) as Arc<dyn ShardStore>).collect();
    Backend { links: Arc::new(Sharded::new(map, shards).unwrap()), home: None, directory: Some(directory) }
}
