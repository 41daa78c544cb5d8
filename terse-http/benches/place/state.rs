//! What every server of this measurement has in common: one link in a memory
//! store, behind the real cache that has read it already, and the real clock.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustix::time::{ClockId, clock_gettime};
use terse_cache::{CacheConfig, ReadThrough};
use terse_core::codegen::CodeSource;
use terse_core::metrics::Metrics;
use terse_core::ports::blocking::{BlockChange, HostBlocking};
use terse_core::ports::clicks::ClickStats;
use terse_core::ports::{LinkReader, LinkWriter, StoreError, StoreErrorKind};
use terse_core::shorten::Shortener;
use terse_core::stats::{Row, Span};
use terse_core::{BlockedHost, Clock, ShortCode, Timestamp, UrlPolicy};
use terse_http::{Access, Bounds, Lifecycle, Limits, Phase, RedirectStatus, Settings, State, Surfaces, TrustedProxies};
use terse_resilience::Breakers;
use terse_store::MemoryStore;
use terse_testkit::{SeededEntropy, links};

/// The code of the only link.
pub(crate) const CODE: &str = "abcdefg";

/// The server's clock, as the binary has it.
struct BootClock;

impl BootClock {
    fn since_boot() -> Duration {
        let time = clock_gettime(ClockId::Boottime);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
    }
}

impl Clock for BootClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(0)
    }

    fn monotonic_ms(&self) -> u64 {
        u64::try_from(Self::since_boot().as_millis()).unwrap_or(u64::MAX)
    }

    fn monotonic_ns(&self) -> u64 {
        u64::try_from(Self::since_boot().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Nobody creates a link here or asks what was counted.
struct Unasked;

fn unasked<T>() -> Result<T, StoreError> {
    Err(StoreError::new(StoreErrorKind::Unavailable, "redirects alone are measured"))
}

#[async_trait]
impl HostBlocking for Unasked {
    fn hosts(&self) -> Vec<BlockedHost> {
        Vec::new()
    }

    fn covers(&self, _: &BlockedHost) -> bool {
        false
    }

    fn of_file(&self) -> usize {
        0
    }

    async fn change(&self, _: &BlockedHost, _: bool) -> Result<BlockChange, StoreError> {
        unasked()
    }
}

#[async_trait]
impl CodeSource for Unasked {
    async fn next_code(&self) -> Result<ShortCode, StoreError> {
        unasked()
    }
}

#[async_trait]
impl ClickStats for Unasked {
    async fn overall(&self, _: &ShortCode) -> Result<Option<Row>, StoreError> {
        unasked()
    }

    async fn spans(&self, _: &ShortCode, _: Span, _: Span) -> Result<Vec<(Span, Row)>, StoreError> {
        unasked()
    }

    async fn as_of(&self, _: &ShortCode) -> Result<Option<Timestamp>, StoreError> {
        unasked()
    }
}

/// All that terse's handlers need, for a server that listens on `listen`. No click is recorded: it would cost the same
/// in each place.
///
/// # Errors
/// When the link can't be stored or read.
pub(crate) async fn state(listen: SocketAddr) -> Result<State, StoreError> {
    let (store, clock) = (Arc::new(MemoryStore::new()), Arc::new(BootClock));
    store.insert_if_absent(&links::link(CODE), links::attempt(1)).await?;
    let cache = ReadThrough::new(store.clone(), clock.clone(), CacheConfig::default());
    cache.resolve(&links::code(CODE)).await?;
    let (metrics, entropy) = (Arc::new(Metrics::new()), Arc::new(SeededEntropy::new(7)));
    let lifecycle = Lifecycle::starting();
    lifecycle.enter(Phase::Ready);
    let shortener = Shortener {
        codes: Arc::new(Unasked),
        writer: store.clone(),
        catalog: store.clone(),
        idempotency: store.clone(),
        clock: clock.clone(),
        entropy: entropy.clone(),
        metrics: metrics.clone(),
    };
    Ok(State {
        shortener: Arc::new(shortener),
        resolver: cache,
        catalog: store.clone(),
        stats: Arc::new(Unasked),
        recording: None,
        blocking: Arc::new(Unasked),
        policy: Arc::new(UrlPolicy::new("go.example.org", false)),
        access: Access::Open,
        store_health: store,
        dependencies: vec![],
        breakers: Arc::new(Breakers::new()),
        limits: Arc::new(Limits::default()),
        lifecycle,
        metrics,
        clock,
        entropy,
        settings: Arc::new(settings(listen)),
    })
}

fn settings(listen: SocketAddr) -> Settings {
    Settings {
        public_url: "https://go.example.org".to_owned(),
        listen,
        redirect_status: RedirectStatus::Found,
        redirect_max_age_s: 600,
        surfaces: Surfaces { redirect: true, api: true },
        trusted_proxies: TrustedProxies::default(),
        bounds: Bounds::default(),
        docs_dir: None,
        release: "bench",
    }
}
