//! The cache in front of a tiny store of its own, with faults on schedule.

mod blocked;
mod consistency;
mod freshness;
mod interleavings;
mod order;
mod single_flight;
mod two_nodes;
mod two_nodes_interleaved;
mod warm;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use terse_core::ports::{
    AttemptId, Insert, LinkChange, LinkReader, LinkWriter, Lookup, StoreError, StoreErrorKind, Tier, Update,
};
use terse_core::{Link, LinkState, Resolution, ShortCode, Version};
use terse_testkit::{Fault, FaultyStore, Operation, TestClock, When, links};

use crate::{CacheConfig, CachedWriter, ReadThrough};

/// Links in a map, under the contract of the ports.
#[derive(Default)]
struct TinyStore {
    links: Mutex<HashMap<ShortCode, Link>>,
    lagging: Mutex<Option<Resolution>>,
    refreshes: AtomicUsize,
}

impl TinyStore {
    fn version(&self, code: &str) -> u64 {
        self.links.lock().get(code).map_or(0, |link| link.version.0)
    }

    /// From now on look-ups are answered with `link` as an outdated answer.
    fn lag(&self, link: Resolution) {
        *self.lagging.lock() = Some(link);
    }

    /// From now on look-ups are answered at the usual consistency again.
    fn catch_up(&self) {
        *self.lagging.lock() = None;
    }

    fn insert(&self, link: &Link) -> Insert {
        let mut links = self.links.lock();
        if links.contains_key(&link.code) {
            return Insert::Taken { attempt: links::attempt(0) };
        }
        links.insert(link.code.clone(), link.clone());
        Insert::Created
    }

    fn edit(&self, code: &ShortCode, expected: Version, change: &LinkChange) -> Update {
        let mut links = self.links.lock();
        let Some(link) = links.get_mut(code) else { return Update::NotFound };
        if link.version != expected || link.state == LinkState::Deleted {
            return Update::Conflict { current: link.version };
        }
        link.target = change.target.clone();
        link.state = change.state;
        link.version = link.version.next();
        Update::Updated(Box::new(link.clone()))
    }
}

#[async_trait]
impl LinkReader for TinyStore {
    async fn resolve(&self, code: &ShortCode) -> Result<Lookup, StoreError> {
        if let Some(link) = &*self.lagging.lock() {
            return Ok(Lookup { link: Some(link.clone()), tier: Tier::Stale });
        }
        let link = self.links.lock().get(code).map(|link| link.resolution());
        Ok(Lookup { link, tier: Tier::Store })
    }

    async fn refresh(&self, code: &ShortCode) -> Result<Lookup, StoreError> {
        self.refreshes.fetch_add(1, Ordering::SeqCst);
        self.resolve(code).await
    }
}

#[async_trait]
impl LinkWriter for TinyStore {
    async fn insert_if_absent(&self, link: &Link, _attempt: AttemptId) -> Result<Insert, StoreError> {
        Ok(self.insert(link))
    }

    async fn update(&self, code: &ShortCode, expected: Version, change: &LinkChange) -> Result<Update, StoreError> {
        Ok(self.edit(code, expected, change))
    }
}

struct Fixture {
    store: Arc<FaultyStore<TinyStore>>,
    clock: Arc<TestClock>,
    cache: Arc<ReadThrough>,
    writer: CachedWriter,
}

impl Fixture {
    /// With the default bounds, but for patience: a busy machine fails no test.
    fn new() -> Self {
        Self::with(CacheConfig { wait: Duration::from_secs(60), ..CacheConfig::default() })
    }

    fn with(config: CacheConfig) -> Self {
        let store = Arc::new(FaultyStore::new(Arc::new(TinyStore::default())));
        let clock = Arc::new(TestClock::default());
        let cache = ReadThrough::new(Arc::clone(&store) as _, Arc::clone(&clock) as _, config);
        let writer = CachedWriter::new(Arc::clone(&store) as _, Arc::clone(&cache));
        Self { store, clock, cache, writer }
    }

    /// Puts a link into the store, past the cache.
    fn store_link(&self, code: &str) {
        self.store.inner().insert(&links::link(code));
    }

    /// Lets every call of `operation` fail.
    fn fail(&self, operation: Operation, kind: StoreErrorKind) {
        self.store.faults.add(operation, When::Every, Fault::Fail(kind));
    }

    fn reads(&self) -> usize {
        self.store.faults.calls(Operation::Resolve)
    }

    async fn resolve(&self, code: &str) -> Result<Lookup, StoreErrorKind> {
        self.cache.resolve(&links::code(code)).await.map_err(|error| error.kind)
    }

    /// The version that is answered for `code` (0 = none), and by whom.
    async fn answer(&self, code: &str) -> (u64, Tier) {
        version_and_tier(self.resolve(code).await.unwrap())
    }

    /// The same at once from memory.
    fn peek(&self, code: &str) -> Option<(u64, Tier)> {
        self.cache.peek(code).map(version_and_tier)
    }

    async fn create(&self, code: &str) -> Result<Insert, StoreErrorKind> {
        let outcome = self.writer.insert_if_absent(&links::link(code), links::attempt(1)).await;
        outcome.map_err(|error| error.kind)
    }

    /// Edits version `expected` of `code` to be in `state`.
    async fn edit(&self, code: &str, expected: u64, state: LinkState) -> Result<Update, StoreErrorKind> {
        let outcome = self.writer.update(&links::code(code), Version(expected), &change_to(code, state)).await;
        outcome.map_err(|error| error.kind)
    }
}

fn change_to(code: &str, state: LinkState) -> LinkChange {
    LinkChange { state, ..LinkChange::of(&links::link(code)) }
}

fn version_and_tier(found: Lookup) -> (u64, Tier) {
    (found.link.map_or(0, |link| link.version.0), found.tier)
}
