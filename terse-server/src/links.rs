//! How links are read and written: the cache ring around the shards, and what
//! keeps it in step with other servers.

use std::sync::Arc;
use std::time::Duration;

use terse_cache::{CachedWriter, MarkPoller, Neighbours, ReadThrough, Shards};
use terse_core::codegen::LeasedCodes;
use terse_core::ports::{DependencyHealth, LinkReader, LinkWriter};
use terse_core::shorten::Shortener;
use terse_http::Limits;
use terse_resilience::Breakers;
use terse_store::GuardedStats;

use crate::cache_gauges::{self, Polled};
use crate::config::Config;
use crate::events::Events;
use crate::exit::{Exit, StartError};
use crate::identity::Identity;
use crate::key_uses::KeyUses;
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
    /// What keys created this month.
    pub key_uses: Arc<KeyUses>,
    shared: Option<SharedCache>,
    /// One for each shard that other servers write to, with the shard's name.
    pollers: Vec<(String, Arc<MarkPoller>)>,
}

impl Links {
    /// Puts the rings around `stores`, and around all of them that of `events`, if there are any. Nothing is polled or
    /// connected yet.
    ///
    /// # Errors
    /// [`StartError`] when a setting of the shared cache is outside its limits, or `world` shows another cache already.
    pub fn open(
        config: &Config,
        stores: &Arc<Stores>,
        identity: &Identity,
        codes: &Arc<LeasedCodes>,
        events: Option<&Events>,
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
        let writer: Arc<dyn LinkWriter> = Arc::new(writer);
        let shortener = Shortener {
            codes: codes.clone(),
            writer: events.map_or(Arc::clone(&writer), |events| events.around(writer)),
            catalog: links.clone(),
            idempotency: links.clone(),
            clock: Arc::clone(&world.clock),
            entropy: Arc::clone(&world.entropy),
            metrics: Arc::clone(&world.metrics),
        };
        let polled = polled(stores);
        let pollers = pollers(stores, &cache, &polled);
        cache_gauges::show(&world.metrics, &cache, polled)?;
        let clock = Arc::clone(&world.clock);
        let key_uses = KeyUses::open(config.data_dir.clone(), identity.deployment_text(), clock)?;
        Ok(Self { cache, shortener: Arc::new(shortener), key_uses, shared, pollers })
    }

    /// What health reports tell besides the shards.
    #[must_use]
    pub fn dependencies(&self) -> Vec<Arc<dyn DependencyHealth>> {
        let redis = self.shared.iter().map(|shared| Arc::clone(&shared.redis));
        redis.map(|redis| Arc::new(CacheHealth(redis)) as Arc<dyn DependencyHealth>).collect()
    }

    /// The rate limits.
    ///
    /// # Errors
    /// As [`crate::limits::limits`].
    pub fn limits(&self, config: &Config, world: &World) -> Result<Arc<Limits>, StartError> {
        let redis = self.shared.as_ref().map(|shared| &shared.redis);
        crate::limits::limits(config, redis, self.key_uses.uses(), world).map(Arc::new)
    }

    /// All breakers: those of the shards, that of the shared cache, and that of `stats`.
    ///
    /// # Errors
    /// [`StartError`] when two have the same name.
    pub fn breakers(&self, stores: &Stores, stats: &GuardedStats) -> Result<Arc<Breakers>, StartError> {
        let mut breakers = stores.breakers.clone();
        let cache = self.shared.iter().map(|shared| (shared_cache::NAME, &shared.breaker));
        for (name, breaker) in cache.chain([stats.breaker()]) {
            let added = breakers.add(name, Arc::clone(breaker));
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

/// The shards that other servers write to.
fn polled(stores: &Stores) -> Vec<Polled> {
    let shards = stores.feeds.iter().zip(stores.links.map().names()).enumerate();
    shards.filter(|(_, (feed, _))| feed.is_some()).map(|(number, (_, name))| (number, (*name).to_owned())).collect()
}

fn pollers(stores: &Stores, cache: &Arc<ReadThrough>, polled: &[Polled]) -> Vec<(String, Arc<MarkPoller>)> {
    let pollers = polled.iter().filter_map(|(number, shard)| {
        let feed = Arc::clone(stores.feeds.get(*number)?.as_ref()?);
        Some((shard.clone(), Arc::new(MarkPoller::new(cache, *number, feed))))
    });
    pollers.collect()
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

#[cfg(test)]
mod tests {
    use terse_core::codegen::CodeSpace;

    use super::*;
    use crate::config::raw::Inputs;

    const MIXED: &str = "[[shard]]\nname='a'\nslots='0-2047'\nstore='sqlite'\n\
                         [[shard]]\nname='b'\nslots='2048-4095'\nstore='cql://127.0.0.1:1/nowhere'";

    #[tokio::test]
    async fn metrics_show_the_cache_and_the_shards_that_other_servers_change() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("terse.toml"), MIXED).unwrap();
        let inputs = Inputs { working_dir: place.path().to_owned(), ..Inputs::default() };
        let mut config = Config::load(inputs).unwrap();
        config.data_dir = place.path().to_owned();
        let world = World::real();
        let stores = Arc::new(Stores::open(&config, &world).unwrap());
        let identity = Identity { deployment: [1; 16], permutation_key: [2; 16] };
        let (space, clock) = (CodeSpace::new(identity.permutation_key), Arc::clone(&world.clock));
        let codes = Arc::new(LeasedCodes::new(space, stores.home().clone(), 10, "here".to_owned(), clock));
        let links = Links::open(&config, &stores, &identity, &codes, None, &world).unwrap();
        let shown = world.metrics.encode().unwrap();
        for line in ["terse_cache_links 0", "terse_cache_bypassed 0", "terse_marks_fresh{shard=\"b\"} 0"] {
            assert!(shown.lines().any(|told| told == line), "{line} is not in\n{shown}");
        }
        assert!(!shown.contains("terse_marks_fresh{shard=\"a\"}"), "nobody else changes a file");
        drop(links);
        assert!(!world.metrics.encode().unwrap().contains("terse_cache_links"));
        stores.close();
    }
}
