//! How links are read and written: the cache ring around the shards, and what
//! keeps it in step with other servers.

use std::sync::Arc;
use std::time::Duration;

use terse_cache::{CachedWriter, MarkPoller, Neighbours, ReadThrough, Shards};
use terse_core::codegen::LeasedCodes;
use terse_core::ports::{DependencyHealth, LinkReader, LinkWriter};
use terse_core::shorten::Shortener;
use terse_resilience::Breakers;

use crate::config::Config;
use crate::exit::{Exit, StartError};
use crate::identity::Identity;
use crate::shared_cache::{self, CacheHealth, SharedCache};
use crate::stores::Stores;
use crate::tasks::Tasks;
use crate::world::World;

/// How often the marks of each shard are polled: an edit made elsewhere shows within a second.
const POLL_EVERY: Duration = Duration::from_millis(250);
/// How long a poll may take. After a start it reads half an hour of marks; what it has read by then it keeps.
const POLL_TIMEOUT: Duration = Duration::from_secs(2);
/// How often connections to the shared cache are looked after.
const UPKEEP_EVERY: Duration = Duration::from_secs(1);

/// Reads and writes links, through the cache.
pub struct Links {
    /// Resolves.
    pub cache: Arc<ReadThrough>,
    /// Creates, edits, deletes.
    pub shortener: Arc<Shortener>,
    shared: Option<SharedCache>,
    /// One for each shard that other servers write to, with the shard's name.
    pollers: Vec<(String, Arc<MarkPoller>)>,
}

impl Links {
    /// Puts the rings around `stores`. Nothing is polled or connected yet.
    ///
    /// # Errors
    /// [`StartError`] when a setting of the shared cache is outside its limits.
    pub fn open(
        config: &Config,
        stores: &Arc<Stores>,
        identity: &Identity,
        codes: &Arc<LeasedCodes>,
        world: &World,
    ) -> Result<Self, StartError> {
        let shared = SharedCache::open(config, identity, world)?;
        let links = &stores.links;
        let neighbours = Neighbours {
            shared: shared.as_ref().map(|shared| Arc::clone(&shared.redis) as Arc<dyn terse_cache::SharedCache>),
            shards: shards(stores),
        };
        let reader = Arc::clone(links) as Arc<dyn LinkReader>;
        let cache = ReadThrough::with(reader, Arc::clone(&world.clock), cache_config(config), neighbours);
        let writer = CachedWriter::new(Arc::clone(links) as Arc<dyn LinkWriter>, Arc::clone(&cache));
        let shortener = Shortener {
            codes: codes.clone(),
            writer: Arc::new(writer),
            catalog: links.clone(),
            idempotency: links.clone(),
            clock: Arc::clone(&world.clock),
            entropy: Arc::clone(&world.entropy),
            metrics: Arc::clone(&world.metrics),
        };
        let pollers = pollers(stores, &cache);
        Ok(Self { cache, shortener: Arc::new(shortener), shared, pollers })
    }

    /// What health reports tell besides the shards.
    #[must_use]
    pub fn dependencies(&self) -> Vec<Arc<dyn DependencyHealth>> {
        let redis = self.shared.iter().map(|shared| Arc::clone(&shared.redis));
        redis.map(|redis| Arc::new(CacheHealth(redis)) as Arc<dyn DependencyHealth>).collect()
    }

    /// All breakers: those of the shards, and that of the shared cache.
    ///
    /// # Errors
    /// [`StartError`] when two have the same name.
    pub fn breakers(&self, stores: &Stores) -> Result<Arc<Breakers>, StartError> {
        let mut breakers = stores.breakers.clone();
        if let Some(shared) = &self.shared {
            let added = breakers.add(shared_cache::NAME, Arc::clone(&shared.breaker));
            added.map_err(|taken| StartError::new(Exit::Internal, taken))?;
        }
        Ok(Arc::new(breakers))
    }

    /// Starts the tasks that keep the cache in step and the shared one connected.
    /// Each shard has one of its own, so that one that hangs holds no other up.
    pub fn run(&self, tasks: &mut Tasks) {
        for (shard, poller) in &self.pollers {
            let poller = Arc::clone(poller);
            tasks.every_within(format!("change marks of {shard}"), POLL_EVERY, POLL_TIMEOUT, move || {
                let poller = Arc::clone(&poller);
                async move { poller.poll_once().await }
            });
        }
        if let Some(shared) = &self.shared {
            let redis = Arc::clone(&shared.redis);
            tasks.every("shared cache", UPKEEP_EVERY, move || {
                let redis = Arc::clone(&redis);
                async move {
                    // It tells itself when it comes out of reach and back.
                    redis.upkeep_once().await;
                    Ok(())
                }
            });
        }
    }
}

fn shards(stores: &Arc<Stores>) -> Shards {
    let polled = stores.feeds.iter().map(Option::is_some).collect();
    let stores = Arc::clone(stores);
    Shards::new(polled, Arc::new(move |code| stores.shard_of(code)))
}

fn pollers(stores: &Stores, cache: &Arc<ReadThrough>) -> Vec<(String, Arc<MarkPoller>)> {
    let feeds = stores.feeds.iter().zip(stores.links.map().names()).enumerate();
    let polled = feeds.filter_map(|(number, (feed, shard))| {
        let poller = MarkPoller::new(cache, number, Arc::clone(feed.as_ref()?));
        Some(((*shard).to_owned(), Arc::new(poller)))
    });
    polled.collect()
}

fn cache_config(config: &Config) -> terse_cache::CacheConfig {
    let config = &config.cache;
    terse_cache::CacheConfig {
        max_bytes: config.bytes,
        max_links: config.entries,
        fresh_for: config.max_age,
        stale_for: config.stale_for,
        ..terse_cache::CacheConfig::default()
    }
}
