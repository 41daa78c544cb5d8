//! All that the handlers need, put together by the server's wiring.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use terse_core::access::Authenticator;
use terse_core::click::ClickRecording;
use terse_core::metrics::Metrics;
use terse_core::ports::blocking::HostBlocking;
use terse_core::ports::clicks::ClickStats;
use terse_core::ports::{DependencyHealth, LinkCatalog, LinkReader, StoreHealth};
use terse_core::shorten::Shortener;
use terse_core::{Clock, Entropy, UrlPolicy};
use terse_resilience::Breakers;

use crate::{Lifecycle, Limits, TrustedProxies};

/// Who may call the API.
#[derive(Clone)]
pub enum Access {
    /// Everybody, as one and the same admin.
    Open,
    /// Holders of a key.
    Keys(Arc<dyn Authenticator>),
}

/// The status that a redirect answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedirectStatus {
    /// 301, with `Cache-Control: private, max-age=N`.
    MovedPermanently,
    /// 302, never cached.
    Found,
    /// 307, never cached.
    TemporaryRedirect,
    /// 308, with `Cache-Control: private, max-age=N`.
    PermanentRedirect,
}

/// Which parts of the contract this process serves; the health family and metrics are always served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surfaces {
    /// `/{code}`.
    pub redirect: bool,
    /// `/api` and `/`.
    pub api: bool,
}

/// Bounds on what clients may make the server hold. Each has a stated answer.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of a create or edit body; beyond: 413.
    pub body_bytes: usize,
    /// Bytes of a batch body; beyond: 413.
    pub batch_bytes: usize,
    /// Bytes of path and query; beyond: 414.
    pub uri_bytes: usize,
    /// Connections per worker; beyond, new ones wait in the kernel's queue
    /// until idle ones have been closed for them, longest idle first. Workers
    /// share no connections: the kernel deals new ones out evenly, so those of
    /// a worker at its bound wait also while another has room.
    pub connections_per_worker: usize,
    /// Of these, connections of one address, or one /64 of IPv6, that is no
    /// trusted proxy; beyond, a new one is closed unanswered.
    pub connections_per_address: usize,
    /// Until a request's head must have arrived; then 408 and the connection is closed.
    pub head_timeout: Duration,
    /// Until a request's body must have arrived; then 408.
    pub body_timeout: Duration,
    /// How long an idle connection is kept. One whose client takes nothing of
    /// its answer is closed after this or `body_timeout`, whichever is longer.
    pub keep_alive: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            body_bytes: 64 * 1024,
            batch_bytes: 12 * 1024 * 1024,
            uri_bytes: 8 * 1024,
            connections_per_worker: 10_000,
            connections_per_address: 1_000,
            head_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(30),
        }
    }
}

/// What the operator configured, as far as HTTP is concerned.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Base of `short_url`, without a trailing slash.
    pub public_url: String,
    /// The address that is listened on; accepted as `Host` in open mode.
    pub listen: std::net::SocketAddr,
    /// The status of redirects.
    pub redirect_status: RedirectStatus,
    /// `max-age` of cacheable redirects, in seconds.
    pub redirect_max_age_s: u32,
    /// What is served.
    pub surfaces: Surfaces,
    /// The proxies whose word is taken for where a request comes from.
    pub trusted_proxies: TrustedProxies,
    /// The bounds.
    pub bounds: Bounds,
    /// The directory of the book at `/docs/`, which need not be there; `None` = no book.
    pub docs_dir: Option<PathBuf>,
    /// The release of terse, as `/health` and OpenAPI tell it.
    pub release: &'static str,
}

/// All that the handlers need. Cloned once per worker.
#[derive(Clone)]
pub struct State {
    /// Creates, edits and deletes.
    pub shortener: Arc<Shortener>,
    /// Resolves for redirects, through the cache.
    pub resolver: Arc<dyn LinkReader>,
    /// Lists whole links.
    pub catalog: Arc<dyn LinkCatalog>,
    /// What was counted of clicks.
    pub stats: Arc<dyn ClickStats>,
    /// Where redirects note their clicks; `None` = nowhere.
    pub recording: Option<Arc<dyn ClickRecording>>,
    /// The hosts that admins block.
    pub blocking: Arc<dyn HostBlocking>,
    /// Which targets are accepted.
    pub policy: Arc<UrlPolicy>,
    /// Who may call.
    pub access: Access,
    /// Whether the store works.
    pub store_health: Arc<dyn StoreHealth>,
    /// What terse can do without, and whether that works.
    pub dependencies: Vec<Arc<dyn DependencyHealth>>,
    /// The breakers that an admin may see and force.
    pub breakers: Arc<Breakers>,
    /// How much callers may ask for.
    pub limits: Arc<Limits>,
    /// The server's phase.
    pub lifecycle: Arc<Lifecycle>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for request ids.
    pub entropy: Arc<dyn Entropy>,
    /// The operator's choices.
    pub settings: Arc<Settings>,
}
