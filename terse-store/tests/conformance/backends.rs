//! One factory per backend: each makes an empty store.

use std::sync::Arc;
use std::time::Instant;

use terse_core::metrics::Metrics;
use terse_core::ports::{HomeStore, IdempotencyStore, LinkCatalog, LinkReader, LinkWriter, ShardStore, StoreHealth};
use terse_resilience::{ConcurrencySettings, MonotonicClock};
use terse_store::{
    CatalogSettings, GuardSettings, Guarded, LaneSettings, MemoryStore, ShardMap, Sharded, SqliteConfig, SqliteStore,
};

/// The ports that a ring over shards has too.
pub(crate) trait LinkPorts: LinkReader + LinkWriter + LinkCatalog + IdempotencyStore + StoreHealth {}

impl<T: LinkReader + LinkWriter + LinkCatalog + IdempotencyStore + StoreHealth> LinkPorts for T {}

/// An empty store, and what must outlive it. Clones are the same store.
#[derive(Clone)]
pub(crate) struct Backend {
    links: Arc<dyn LinkPorts>,
    home: Option<Arc<dyn HomeStore>>,
    directory: Arc<Option<tempfile::TempDir>>,
    traits: Traits,
}

/// What the suite must know of a backend.
#[derive(Clone, Copy)]
pub(crate) struct Traits {
    /// How many times fewer rounds of a race it runs, because each is dear. Every check runs all the same.
    pub(crate) fewer_rounds: usize,
    /// How many callers at most it lets race at once, for the same reason.
    pub(crate) most_callers: usize,
    /// Whether idempotency records vanish by themselves when they are old, so that a purge has nothing to do.
    pub(crate) forgets_keys: bool,
}

/// A store on memory or on a disk of its own.
const LOCAL: Traits = Traits { fewer_rounds: 1, most_callers: usize::MAX, forgets_keys: false };

/// A port, and what must outlive it: the store ends before its directory goes.
pub(crate) struct Held<P: ?Sized> {
    port: Arc<P>,
    _directory: Arc<Option<tempfile::TempDir>>,
    traits: Traits,
}

impl<P: ?Sized> Clone for Held<P> {
    fn clone(&self) -> Self {
        Self { port: Arc::clone(&self.port), _directory: Arc::clone(&self._directory), traits: self.traits }
    }
}

impl<P: ?Sized> Held<P> {
    /// How many rounds of a race this backend runs where a cheap one runs `rounds`.
    pub(crate) fn rounds(&self, rounds: usize) -> usize {
        rounds.div_ceil(self.traits.fewer_rounds)
    }

    /// How many callers race at once on this backend where a cheap one has `callers`.
    pub(crate) fn callers(&self, callers: usize) -> usize {
        callers.min(self.traits.most_callers)
    }

    /// Whether idempotency records vanish by themselves when they are old.
    pub(crate) fn forgets_keys(&self) -> bool {
        self.traits.forgets_keys
    }
}

impl<P: ?Sized> std::ops::Deref for Held<P> {
    type Target = Arc<P>;
    fn deref(&self) -> &Arc<P> {
        &self.port
    }
}

impl Backend {
    /// A store without a directory.
    pub(crate) fn new(links: Arc<dyn LinkPorts>, home: Option<Arc<dyn HomeStore>>, traits: Traits) -> Self {
        Self { links, home, directory: Arc::new(None), traits }
    }

    /// A store whose files are in `directory`.
    fn on_disk(links: Arc<dyn LinkPorts>, home: Option<Arc<dyn HomeStore>>, directory: tempfile::TempDir) -> Self {
        Self { links, home, directory: Arc::new(Some(directory)), traits: LOCAL }
    }

    /// All ports, borrowed.
    pub(crate) fn ports(&self) -> (&Arc<dyn LinkPorts>, Option<&Arc<dyn HomeStore>>) {
        (&self.links, self.home.as_ref())
    }

    pub(crate) fn links(self) -> Held<dyn LinkPorts> {
        Held { port: self.links, _directory: self.directory, traits: self.traits }
    }

    /// The ports of a deployment's first shard, if this backend has them.
    pub(crate) fn home(self) -> Option<Held<dyn HomeStore>> {
        let (directory, traits) = (self.directory, self.traits);
        self.home.map(|port| Held { port, _directory: directory, traits })
    }
}

pub(crate) async fn memory() -> Backend {
    let store = Arc::new(MemoryStore::new());
    Backend::new(store.clone(), Some(store), LOCAL)
}

fn sqlite_file(directory: &tempfile::TempDir, shard: &str) -> Arc<SqliteStore> {
    let config = SqliteConfig::new(directory.path().join(format!("{shard}.db")), shard);
    SqliteStore::open(config).unwrap()
}

pub(crate) async fn sqlite() -> Backend {
    let directory = tempfile::tempdir().unwrap();
    let store = sqlite_file(&directory, "main");
    Backend::on_disk(store.clone(), Some(store), directory)
}

/// Guards as a server has them, but for their patience: the suite is about what
/// is answered, not when, and the disk of a busy machine may hold a write up for seconds.
/// They shed no calls because these take long, for the same reason.
pub(crate) fn patient_guards() -> GuardSettings {
    let usual = GuardSettings::default();
    let always = |calls| ConcurrencySettings { initial: calls, min: calls, max: calls, ..usual.redirects };
    GuardSettings {
        read: LaneSettings { timeout_ms: 120_000, ..usual.read },
        catalog: CatalogSettings { timeout_ms: 120_000, ..usual.catalog },
        write: LaneSettings { timeout_ms: 120_000, ..usual.write },
        check_timeout_ms: 120_000,
        redirects: always(usual.redirects.max),
        creates: always(usual.creates.max),
        ..usual
    }
}

/// `store` behind such guards.
fn guarded<S>(store: Arc<S>) -> Arc<Guarded<S>> {
    let started = Instant::now();
    let clock: Arc<dyn MonotonicClock> = Arc::new(move || started.elapsed().as_millis() as u64);
    Arc::new(Guarded::new("main", store, &patient_guards(), &clock, 7, &Metrics::new()).unwrap())
}

pub(crate) async fn guarded_memory() -> Backend {
    let store = guarded(Arc::new(MemoryStore::new()));
    Backend::new(store.clone(), Some(store), LOCAL)
}

pub(crate) async fn guarded_sqlite() -> Backend {
    let directory = tempfile::tempdir().unwrap();
    let store = guarded(sqlite_file(&directory, "main"));
    Backend::on_disk(store.clone(), Some(store), directory)
}

pub(crate) async fn one_shard() -> Backend {
    let ring = Sharded::new(ShardMap::single("main"), vec![Arc::new(MemoryStore::new())]).unwrap();
    Backend::new(Arc::new(ring), None, LOCAL)
}

/// Interleaved ranges, so that neighbouring codes fall on different shards.
fn three_shards() -> ShardMap {
    ShardMap::parse(&[("a", "0-1200,2500-2600"), ("b", "1201-2499"), ("c", "2601-4095")]).unwrap()
}

pub(crate) async fn three_shards_on_memory() -> Backend {
    let shards = (0..3).map(|_| Arc::new(MemoryStore::new()) as Arc<dyn ShardStore>).collect();
    Backend::new(Arc::new(Sharded::new(three_shards(), shards).unwrap()), None, LOCAL)
}

pub(crate) async fn three_shards_on_sqlite() -> Backend {
    let directory = tempfile::tempdir().unwrap();
    let map = three_shards();
    let shards = map.names().iter().map(|name| sqlite_file(&directory, name) as Arc<dyn ShardStore>).collect();
    Backend::on_disk(Arc::new(Sharded::new(map, shards).unwrap()), None, directory)
}
