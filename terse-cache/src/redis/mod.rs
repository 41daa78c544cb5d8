//! The shared cache on Redis.
//!
//! - A link is one string under `terse:ID:link:CODE`, its version in front (see
//!   `value`). It is kept "only if newer" and dropped "only if older", each in
//!   one step of Redis; a look-up is one command. Nothing ever walks the keys.
//! - A fault is a miss. Around every call are a bulkhead, a breaker and a
//!   timeout, so Redis can cost a redirect [`RedisConfig::get_timeout`], and
//!   after five such redirects nothing.
//! - [`RedisCache::new`] doesn't touch the network and no call ever connects:
//!   [`RedisCache::upkeep_once`], run each second, makes and replaces
//!   connections. Without one, every look-up is a miss at once.
//! - Nothing here decides whether a link may be served: Redis may hold anything
//!   that ever was true, and the ring checks its version. What was put more than
//!   30 minutes ago, by the clock of who put it, is a miss.
//!
//! On the same connections it keeps the limits that processes share (see `limits`).
//!
//! Bounds are the fields of [`RedisConfig`]. Of what callers have given up, a
//! connection's driver holds no more than what was let in until the connection
//! was given up too.

mod config;
mod connections;
mod limit_scripts;
mod limits;
mod scripts;
mod tally;
mod value;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, RedisResult};
use terse_core::metrics::Metrics;
use terse_core::{Clock, Resolution, ShortCode, Timestamp, Version};
use terse_resilience::{Breaker, Bulkhead, Permit, SettingsError};
use tokio::time::timeout;

use crate::SharedCache;
use crate::memory::spread;
use config::millis;
pub use config::{Credentials, MAX_SHARED_TTL, Namespace, RedisConfig};
use connections::{Connection, Connections, is_replicas};
use limit_scripts::LimitScripts;
use scripts::Scripts;
use tally::{Ending, Operation, Tally};
use value::Unreadable;

/// By how much the clocks of two servers may differ before one takes nothing
/// from the other: what seems to be good for longer than [`MAX_SHARED_TTL`] and this
/// was written by a clock that can't be relied on.
const CLOCK_SLACK_MS: i64 = 10_000;
/// Faults are logged at most this often, in milliseconds; all are counted.
const LOG_EVERY_MS: u64 = 10_000;

/// Why Redis is of no use now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheDown(String);

impl fmt::Display for CacheDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CacheDown {}

/// Calls of one kind.
struct Lane {
    bulkhead: Bulkhead,
    timeout: Duration,
}

/// The shared cache on Redis; see the module.
pub struct RedisCache {
    namespace: Namespace,
    ttl_ms: u64,
    connections: Connections,
    gets: Lane,
    writes: Lane,
    draws: Lane,
    breaker: Arc<Breaker>,
    clock: Arc<dyn Clock>,
    scripts: Scripts,
    limit_scripts: LimitScripts,
    tally: Tally,
    /// When a fault was logged last, plus one; 0 = never.
    logged_ms: AtomicU64,
}

impl fmt::Debug for RedisCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCache")
            .field("namespace", &self.namespace)
            .field("connections", &self.connections.count())
            .finish_non_exhaustive()
    }
}

/// What a look-up found.
enum Found {
    Bytes(Vec<u8>),
    /// Something else than a string.
    Foreign,
}

impl RedisCache {
    /// A cache without connections, which [`upkeep_once`](Self::upkeep_once)
    /// makes. `breaker` is to have [`RedisConfig::breaker_settings`].
    ///
    /// # Errors
    /// When a setting is outside its limits.
    pub fn new(
        config: &RedisConfig,
        breaker: Arc<Breaker>,
        clock: Arc<dyn Clock>,
        metrics: &Metrics,
    ) -> Result<Arc<Self>, SettingsError> {
        config.check()?;
        Ok(Arc::new(Self {
            namespace: config.namespace.clone(),
            ttl_ms: millis(config.ttl),
            connections: Connections::new(config)?,
            gets: Lane { bulkhead: Bulkhead::new(config.gets)?, timeout: config.get_timeout },
            writes: Lane { bulkhead: Bulkhead::new(config.writes)?, timeout: config.write_timeout },
            draws: Lane { bulkhead: Bulkhead::new(config.draws)?, timeout: config.draw_timeout },
            breaker,
            clock,
            scripts: Scripts::new(),
            limit_scripts: LimitScripts::new(),
            tally: Tally::new(metrics),
            logged_ms: AtomicU64::new(0),
        }))
    }

    /// Asks every connection for a sign of life, gives up those without, makes
    /// those that lack. To be called about each second, calls not overlapping;
    /// each takes at most twice [`RedisConfig::connect_timeout`]. Connections
    /// live on the runtime that calls this.
    pub async fn upkeep_once(&self) {
        self.connections.upkeep_once().await;
    }

    /// How many connections there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.count()
    }

    /// Whether Redis answers, within [`RedisConfig::connect_timeout`]. Asks it
    /// whatever the breaker says.
    ///
    /// # Errors
    /// Why it doesn't, for people to read.
    pub async fn check(&self) -> Result<(), CacheDown> {
        let connection = self.connections.pick().ok_or_else(|| CacheDown(self.connections.fault()))?;
        let answer = self.connections.ping(connection.driver()).await.map_err(CacheDown)?;
        answer.map_err(|error| CacheDown(error.to_string()))
    }

    /// Makes one guarded call.
    async fn call<T, F>(&self, lane: &Lane, ask: impl FnOnce(MultiplexedConnection) -> F) -> Result<T, Ending>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let connection = self.connections.pick().ok_or(Ending::Unconnected)?;
        let _slot = lane.bulkhead.try_acquire().map_err(|_| Ending::Full)?;
        let permit = self.breaker.try_acquire().map_err(|_| Ending::Open)?;
        match timeout(lane.timeout, ask(connection.driver())).await {
            Ok(Ok(answer)) => {
                connection.answered();
                permit.success();
                Ok(answer)
            }
            Ok(Err(error)) => {
                self.failed(lane, &connection, permit, &error);
                Err(Ending::Fault)
            }
            Err(_elapsed) => {
                if connection.timed_out(self.clock.monotonic_ms()) {
                    self.connections.lose(&connection, "timeouts in a row");
                }
                permit.timeout();
                Err(Ending::Timeout)
            }
        }
    }

    fn failed(&self, lane: &Lane, connection: &Arc<Connection>, permit: Permit<'_>, error: &RedisError) {
        if error.code().is_none() {
            self.connections.lose(connection, &error.to_string());
            permit.failure();
        } else {
            connection.answered();
            if is_replicas(error) {
                connection.refused_write();
            }
            // A Redis that takes no writes, be it full or a replica, still answers look-ups.
            if std::ptr::eq(lane, &raw const self.gets) { permit.failure() } else { permit.ignore() }
        }
        self.log(error);
    }

    fn log(&self, error: &RedisError) {
        let now_ms = self.clock.monotonic_ms();
        let logged_ms = self.logged_ms.load(Ordering::Relaxed);
        if logged_ms == 0 || now_ms.saturating_sub(logged_ms - 1) >= LOG_EVERY_MS {
            self.logged_ms.store(now_ms.saturating_add(1), Ordering::Relaxed);
            tracing::warn!(%error, "a call to the cache failed");
        }
    }

    /// What is under `key`; what nobody can read is removed.
    async fn look_up(&self, mut driver: MultiplexedConnection, key: &str) -> RedisResult<(Option<Resolution>, Ending)> {
        let Found::Bytes(bytes) = read(&mut driver, key).await? else {
            // The next link that is kept replaces it.
            return Ok((None, Ending::Unreadable));
        };
        if bytes.is_empty() {
            return Ok((None, Ending::Miss));
        }
        match value::decode(&bytes) {
            Ok(value) if self.is_good(value.good_until) => Ok((Some(value.link), Ending::Hit)),
            Ok(_) => Ok((None, Ending::Expired)),
            Err(Unreadable::Later) => Ok((None, Ending::Later)),
            Err(Unreadable::Broken) => {
                let mut drop = self.scripts.drop_exactly.key(key);
                let _removed: u64 = drop.arg(&bytes).arg(READ_BYTES).invoke_async(&mut driver).await?;
                Ok((None, Ending::Unreadable))
            }
        }
    }

    /// Whether what was written to be good until then may be taken now.
    fn is_good(&self, until: Timestamp) -> bool {
        let now = self.clock.now();
        let latest =
            now.plus_millis(i64::try_from(MAX_SHARED_TTL.as_millis()).unwrap_or(i64::MAX)).plus_millis(CLOCK_SLACK_MS);
        now < until && until <= latest
    }

    /// How long `code` is kept: up to a tenth less than the limit, so that what was kept together doesn't expire so.
    fn ttl_ms(&self, code: &ShortCode) -> u64 {
        self.ttl_ms - spread(code) % (self.ttl_ms / 10 + 1)
    }
}

/// Bytes that are read of a value: one more than the longest has, to know a longer one.
const READ_BYTES: usize = value::MAX_BYTES + 1;

/// `GET`, but for the size that it can have. Empty = nothing is there.
async fn read(driver: &mut MultiplexedConnection, key: &str) -> RedisResult<Found> {
    let mut command = redis::cmd("GETRANGE");
    command.arg(key).arg(0).arg(READ_BYTES - 1);
    match driver.send_packed_command(&command).await?.extract_error() {
        Ok(redis::Value::BulkString(bytes)) => Ok(Found::Bytes(bytes)),
        Ok(_) => Ok(Found::Foreign),
        Err(error) if error.code() == Some("WRONGTYPE") => Ok(Found::Foreign),
        Err(error) => Err(error),
    }
}

#[async_trait]
impl SharedCache for RedisCache {
    async fn get(&self, code: &ShortCode) -> Option<Resolution> {
        let key = self.namespace.key(code.as_str());
        let looked_up = self.call(&self.gets, |driver| self.look_up(driver, &key)).await;
        let (link, ending) = looked_up.unwrap_or_else(|ending| (None, ending));
        self.tally.count(Operation::Get, ending);
        link
    }

    async fn put(&self, code: &ShortCode, link: &Resolution) {
        let key = self.namespace.key(code.as_str());
        let ttl_ms = self.ttl_ms(code);
        let good_until = self.clock.now().plus_millis(i64::try_from(ttl_ms).unwrap_or(i64::MAX));
        let mut keep = self.scripts.keep_newest.key(&key);
        keep.arg(value::encode(link, good_until)).arg(ttl_ms);
        let kept = |mut driver| async move { keep.invoke_async::<u64>(&mut driver).await };
        let ending = match self.call(&self.writes, kept).await {
            Ok(0) => Ending::Newer,
            Ok(_) => Ending::Kept,
            Err(ending) => ending,
        };
        self.tally.count(Operation::Put, ending);
    }

    async fn drop_older(&self, code: &ShortCode, least: Version) {
        let mut drop = self.scripts.drop_older.key(self.namespace.key(code.as_str()));
        drop.arg(&value::version_bytes(least)[..]);
        let dropped = |mut driver| async move { drop.invoke_async::<u64>(&mut driver).await };
        let ending = match self.call(&self.writes, dropped).await {
            Ok(0) => Ending::Nothing,
            Ok(_) => Ending::Dropped,
            Err(ending) => ending,
        };
        self.tally.count(Operation::Drop, ending);
    }
}
