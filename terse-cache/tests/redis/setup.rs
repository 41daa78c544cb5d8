//! A cache as the tests use it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::aio::MultiplexedConnection;
use terse_cache::{Namespace, RedisCache, RedisConfig};
use terse_core::metrics::Metrics;
use terse_core::{Clock, Resolution, ShortCode, Timestamp};
use terse_resilience::Breaker;
use terse_testkit::links;

use crate::service::unique;

/// For checks in which nothing is to time out, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The time, with a wall clock that a test may set wrong.
pub(crate) struct SystemClock {
    began: Instant,
    wrong_by_ms: AtomicI64,
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now = Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap());
        now.plus_millis(self.wrong_by_ms.load(Ordering::Relaxed))
    }

    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap()
    }
}

/// A cache and what can be seen of it.
pub(crate) struct Setup {
    pub(crate) cache: Arc<RedisCache>,
    pub(crate) breaker: Arc<Breaker>,
    pub(crate) clock: Arc<SystemClock>,
    pub(crate) config: RedisConfig,
    metrics: Metrics,
}

/// A configuration for the Redis at `address`, in a namespace of its own.
pub(crate) fn config(address: SocketAddr) -> RedisConfig {
    RedisConfig::new(address.ip().to_string(), address.port(), Namespace::new(&unique(), None).unwrap())
}

/// The same with timeouts that nothing reaches.
pub(crate) fn patient(address: SocketAddr) -> RedisConfig {
    RedisConfig { get_timeout: PATIENCE, write_timeout: PATIENCE, connect_timeout: PATIENCE, ..config(address) }
}

impl Setup {
    /// A cache that has not been connected yet.
    pub(crate) fn cold(config: RedisConfig) -> Self {
        let clock = Arc::new(SystemClock { began: Instant::now(), wrong_by_ms: AtomicI64::new(0) });
        let time = Arc::clone(&clock);
        let monotonic = Arc::new(move || time.monotonic_ms());
        let breaker = Arc::new(Breaker::new(config.breaker_settings(), monotonic, 1).unwrap());
        let metrics = Metrics::new();
        let cache = RedisCache::new(&config, Arc::clone(&breaker), clock.clone(), &metrics).unwrap();
        Self { cache, breaker, clock, config, metrics }
    }

    /// A connected one.
    pub(crate) async fn warm(config: RedisConfig) -> Self {
        let setup = Self::cold(config);
        setup.connect().await;
        setup
    }

    /// Upkeep until all connections are there.
    pub(crate) async fn connect(&self) {
        for _ in 0..20 {
            self.cache.upkeep_once().await;
            if self.cache.connections() == self.config.connections as usize {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("not connected: {:?}", self.cache.check().await);
    }

    /// Upkeep again and again, as a server does it but more often.
    pub(crate) fn keep_up(&self) -> Upkeep {
        let cache = Arc::clone(&self.cache);
        Upkeep(tokio::spawn(async move {
            loop {
                cache.upkeep_once().await;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }))
    }

    pub(crate) fn set_wrong(&self, by: i64) {
        self.clock.wrong_by_ms.store(by, Ordering::Relaxed);
    }

    /// How often an operation ended so.
    pub(crate) fn count(&self, operation: &str, result: &str) -> u64 {
        self.metrics.cache_requests(operation, result).get()
    }

    /// The key of `code`, for a look behind.
    pub(crate) fn key(&self, code: &str) -> String {
        let print = format!("{:?}", self.config.namespace);
        let prefix = print.trim_start_matches("Namespace(\"").trim_end_matches("\")");
        format!("{prefix}{code}")
    }

    /// A connection that knows nothing of the cache.
    pub(crate) async fn raw(&self) -> MultiplexedConnection {
        raw((self.config.host.as_str(), self.config.port)).await
    }
}

/// Ends with this.
pub(crate) struct Upkeep(tokio::task::JoinHandle<()>);

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) async fn raw(address: (&str, u16)) -> MultiplexedConnection {
    redis::Client::open(address).unwrap().get_multiplexed_async_connection().await.unwrap()
}

pub(crate) fn code(text: &str) -> ShortCode {
    links::code(text)
}

/// The link of `code` at `version`, whose target tells both.
pub(crate) fn link(code: &str, version: u64) -> Resolution {
    let target = links::target(&format!("https://example.com/{code}/{version}"));
    Resolution { target, ..links::resolution(code, version) }
}

/// Waits until `condition` holds; how long that took.
pub(crate) async fn eventually<F: Future<Output = bool>>(
    limit: Duration,
    mut condition: impl FnMut() -> F,
) -> Duration {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < limit, "not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    began.elapsed()
}
