//! The rate limits, put together from the configuration.

use std::sync::Arc;

use terse_cache::RedisCache;
use terse_core::time::random_bytes;
use terse_http::{Limit, Limits, Network, Quotas, TrustedProxies};
use terse_resilience::limit::{Rule, Uses, local};
use terse_store::CoreClock;

use crate::config::limits::LimitConfig;
use crate::config::{Config, HttpConfig};
use crate::exit::{Exit, StartError};
use crate::world::World;

/// The limits that `config` names. They are shared through `redis` where
/// several servers can have the same links: a file belongs to one alone. What
/// keys create is counted in `uses`.
///
/// # Errors
/// [`StartError`] when a setting is outside its limits.
pub fn limits(
    config: &Config,
    redis: Option<&Arc<RedisCache>>,
    uses: &Arc<Uses>,
    world: &World,
) -> Result<Limits, StartError> {
    let redis = redis.filter(|_| config.store.is_marked());
    let limit = |name: &'static str, limit: Option<LimitConfig>| -> Result<Option<Limit>, StartError> {
        let Some(LimitConfig { by, rule }) = limit else { return Ok(None) };
        let limiter = |rule: Rule| {
            let seed = u64::from_be_bytes(random_bytes(world.entropy.as_ref()));
            let clock = Arc::new(CoreClock(Arc::clone(&world.clock)));
            let limiter = local(rule, config.limits.keys, clock, seed);
            limiter.map_err(|error| StartError::new(Exit::Internal, error))
        };
        let (here, networks) = (limiter(rule)?, limiter(rule.times(config.limits.networks))?);
        let shared = redis.and_then(|redis| redis.limiter(name, rule));
        Ok(Some(Limit::new(name, by, here, shared, &world.metrics).with_networks(networks)))
    };
    let quotas = config.limits.quota.as_ref().map(|quota| {
        let own = quota.keys.iter().map(|(key, links)| (key.clone(), *links)).collect();
        let shared = redis.map(|redis| redis.quota("quota", world.entropy.as_ref()));
        Quotas::new(quota.links, own, Arc::clone(uses), shared, &world.metrics)
    });
    Ok(Limits {
        create: limit("create", config.limits.create)?,
        api: limit("api", config.limits.api)?,
        redirect: limit("redirect", config.limits.redirect)?,
        not_found: limit("not_found", config.limits.not_found)?,
        quotas,
    })
}

/// The proxies that `http` trusts.
#[must_use]
pub fn trusted_proxies(http: &HttpConfig) -> TrustedProxies {
    http.trusted_proxies.iter().map(|cidr| Network { address: cidr.first, prefix: cidr.prefix }).collect()
}
