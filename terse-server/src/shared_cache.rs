//! The cache that nodes share: where it is, what its keys begin with, and what
//! the rest of the server has of it.

use std::sync::Arc;

use async_trait::async_trait;
use terse_cache::{Credentials, Namespace, RedisCache, RedisConfig};
use terse_core::ports::DependencyHealth;
use terse_core::time::random_bytes;
use terse_resilience::Breaker;
use terse_store::{CoreClock, watched_breaker};

use crate::config::Config;
use crate::config::address::RedisAddress;
use crate::exit::{Exit, StartError};
use crate::identity::Identity;
use crate::world::World;

/// What the cache is called in health reports, and its breaker everywhere.
pub const NAME: &str = "cache";

/// The shared cache and its breaker.
pub struct SharedCache {
    /// The cache.
    pub redis: Arc<RedisCache>,
    /// The breaker around it.
    pub breaker: Arc<Breaker>,
}

impl SharedCache {
    /// The cache that `config` names, not connected yet.
    ///
    /// # Errors
    /// [`StartError`] when a setting of it is outside its limits.
    pub fn open(config: &Config, identity: &Identity, world: &World) -> Result<Option<Self>, StartError> {
        let Some(address) = &config.cache.shared else { return Ok(None) };
        let internal = |error: terse_resilience::SettingsError| StartError::new(Exit::Internal, error);
        let redis = redis_config(address, namespace(config, identity, world)?);
        let clock = Arc::new(CoreClock(Arc::clone(&world.clock)));
        let seed = u64::from_be_bytes(random_bytes(world.entropy.as_ref()));
        let breaker = watched_breaker(NAME, redis.breaker_settings(), clock, seed, &world.metrics).map_err(internal)?;
        let cache = RedisCache::new(&redis, Arc::clone(&breaker), Arc::clone(&world.clock), &world.metrics);
        Ok(Some(Self { redis: cache.map_err(internal)?, breaker }))
    }
}

fn redis_config(address: &RedisAddress, namespace: Namespace) -> RedisConfig {
    let credentials = address.credentials().map(|(user, password)| Credentials { user, password });
    RedisConfig { db: address.db, credentials, ..RedisConfig::new(address.host.clone(), address.port, namespace) }
}

/// What keys begin with. A SQLite file keeps no change marks: what an earlier
/// run left in Redis can't be told from what has changed since. So each run
/// that has such a file has keys of its own.
fn namespace(config: &Config, identity: &Identity, world: &World) -> Result<Namespace, StartError> {
    let id = identity.short_text();
    let start = (!config.store.is_marked()).then(|| u64::from_be_bytes(random_bytes(world.entropy.as_ref())));
    Namespace::new(&id, start).map_err(|error| StartError::new(Exit::Internal, error))
}

/// The cache as health reports see it.
pub struct CacheHealth(pub Arc<RedisCache>);

#[async_trait]
impl DependencyHealth for CacheHealth {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn check(&self) -> Result<(), String> {
        self.0.check().await.map_err(|down| down.to_string())
    }
}
