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
use terse_resilience::limit::{Draw, Key, PARTS, Rule, SharedDraw, SharedLimiter};

use super::RedisCache;
use super::tally::{Ending, Operation};

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
        let ending = match &told {
            Ok((0, ..)) if wanted > 0 => Ending::Refused,
            Ok(_) => Ending::Granted,
            Err(ending) => *ending,
        };
        self.redis.tally.count(Operation::Draw, ending);
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
