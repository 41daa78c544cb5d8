//! Rate limits that processes share, counted in Redis: one script and one key
//! for each decision, the time is that of the server.
//!
//! A decision has a bulkhead and a timeout of its own; connections and breaker
//! are those of the cache. Whatever goes wrong, the answer is "nobody can tell",
//! and the process decides by itself.

use std::sync::Arc;
use std::time::Duration;

use redis::ScriptInvocation;
use redis::aio::MultiplexedConnection;
use terse_core::Entropy;
use terse_core::time::random_bytes;
use terse_resilience::limit::{
    Draw, Key, PARTS, QuotaQuestion, Rule, SharedDraw, SharedLimiter, SharedQuota, SharedQuotaDraw,
};

use super::RedisCache;
use super::tally::{Ending, Operation};

/// How long what was used of a quota is kept after the last unit: longer than its period, a month.
const QUOTA_KEPT: Duration = Duration::from_secs(40 * 86_400);

/// One quota.
struct RedisQuota {
    redis: Arc<RedisCache>,
    name: String,
    /// Tells this process from the others that have the quota.
    process: String,
}

/// One limit.
struct RedisLimiter {
    redis: Arc<RedisCache>,
    name: String,
    rule: Rule,
}

/// What a script tells: units granted, units left, microseconds until there are more.
type Told = (u32, u32, u64);

impl RedisCache {
    /// The limit `name` that goes by `rule`, for all processes that have the same
    /// namespace, name and rule. `None` for a leaky bucket: its callers wait in
    /// their own process.
    #[must_use]
    pub fn limiter(self: &Arc<Self>, name: &str, rule: Rule) -> Option<Arc<dyn SharedLimiter>> {
        let paced = matches!(rule, Rule::LeakyBucket { .. });
        // Another rule keeps something else under its key.
        let name = format!("{name}:{}", rule.name());
        (!paced).then(|| Arc::new(RedisLimiter { redis: Arc::clone(self), name, rule }) as Arc<dyn SharedLimiter>)
    }
}

impl RedisCache {
    /// The quota `name` of a month or less, for all processes that have the same namespace and name. What is counted
    /// alone is told under an id from `entropy`, so each [`Uses`](terse_resilience::limit::Uses) needs one of its own.
    #[must_use]
    pub fn quota(self: &Arc<Self>, name: &str, entropy: &dyn Entropy) -> Arc<dyn SharedQuota> {
        let process = format!("{:032x}", u128::from_be_bytes(random_bytes(entropy)));
        Arc::new(RedisQuota { redis: Arc::clone(self), name: name.to_owned(), process })
    }

    /// Counts how a draw ended, of which so many units were granted.
    fn drawn(&self, granted: Result<u32, Ending>, wanted: u32) {
        let ending = match granted {
            Ok(0) if wanted > 0 => Ending::Refused,
            Ok(_) => Ending::Granted,
            Err(ending) => ending,
        };
        self.tally.count(Operation::Draw, ending);
    }
}

impl RedisQuota {
    async fn ask(&self, key: &Key, asked: QuotaQuestion) -> Option<(u32, u64)> {
        // Each period has a count of its own.
        let key = self.redis.namespace.limit_key(&format!("{}:used:{}", self.name, asked.period), key.as_bytes());
        let mut script = self.redis.limit_scripts.quota.key(&key);
        script.arg(asked.limit).arg(asked.known).arg(asked.alone).arg(asked.wanted);
        script.arg(QUOTA_KEPT.as_millis() as u64).arg(&self.process);
        let decide = |mut driver: MultiplexedConnection| async move { script.invoke_async(&mut driver).await };
        let told: Result<(u32, u64), Ending> = self.redis.call(&self.redis.draws, decide).await;
        self.redis.drawn(told.as_ref().map(|(granted, _)| *granted).map_err(|ending| *ending), asked.wanted);
        told.ok()
    }
}

impl SharedQuota for RedisQuota {
    fn draw<'a>(&'a self, key: &'a Key, question: QuotaQuestion) -> SharedQuotaDraw<'a> {
        Box::pin(self.ask(key, question))
    }
}

impl RedisLimiter {
    /// The script for this rule, with all that it has to know.
    fn script(&self, key: &str, wanted: u32) -> Option<ScriptInvocation<'_>> {
        let scripts = &self.redis.limit_scripts;
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let mut call;
        match self.rule {
            Rule::TokenBucket { burst, .. } => {
                call = scripts.token_bucket.key(key);
                call.arg(self.rule.period_us()).arg(burst).arg(wanted);
            }
            Rule::FixedWindow { limit, window } => {
                call = scripts.fixed_window.key(key);
                call.arg(micros(window)).arg(limit).arg(wanted);
            }
            Rule::SlidingWindow { limit, window } => {
                call = scripts.sliding_window.key(key);
                call.arg(micros(window).div_ceil(PARTS as u64)).arg(limit).arg(wanted).arg(PARTS);
            }
            Rule::LeakyBucket { .. } => return None,
        }
        Some(call)
    }

    async fn ask(&self, key: &Key, wanted: u32) -> Option<Draw> {
        let key = self.redis.namespace.limit_key(&self.name, key.as_bytes());
        let script = self.script(&key, wanted)?;
        let decide = |mut driver: MultiplexedConnection| async move { script.invoke_async::<Told>(&mut driver).await };
        let told = self.redis.call(&self.redis.draws, decide).await;
        self.redis.drawn(told.as_ref().map(|(granted, ..)| *granted).map_err(|ending| *ending), wanted);
        let (granted, remaining, more_in_us) = told.ok()?;
        let more_in = Duration::from_micros(more_in_us);
        Some(Draw { granted: granted.min(wanted), remaining, more_in, wait: Duration::ZERO })
    }
}

impl SharedLimiter for RedisLimiter {
    fn draw<'a>(&'a self, key: &'a Key, wanted: u32) -> SharedDraw<'a> {
        Box::pin(self.ask(key, wanted))
    }
}
