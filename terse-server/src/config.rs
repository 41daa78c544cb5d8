//! The configuration: raw texts ([`raw`]) become checked values, one struct per
//! concern. Whatever is not in [`keys::KEYS`] is refused, and a bad value is
//! one readable line that never repeats a secret.

pub mod address;
pub mod clicks;
pub mod keys;
pub mod limits;
pub mod raw;
pub mod shards;
mod show;
pub mod tables;
pub mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use terse_http::{RedirectStatus, Surfaces};
use terse_store::ShardMap;

use crate::exit::{Exit, StartError};
use crate::telemetry::{Filter, LogFormat};
use address::RedisAddress;
use clicks::ClickConfig;
use keys::Key;
use limits::LimitsConfig;
use raw::{Inputs, RawConfig, Source};
use shards::{ShardBackend, ShardConfig};
use values::{Cidr, PublicUrl};

/// Who may call the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// Everybody, as one and the same admin.
    Open,
    /// Holders of a key.
    Keys,
}

/// What the HTTP side needs.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The base of short URLs.
    pub public_url: PublicUrl,
    /// Who may call the API.
    pub auth: AuthMode,
    /// The status of redirects.
    pub redirect_status: RedirectStatus,
    /// `max-age` of cacheable redirects, in seconds.
    pub redirect_max_age_s: u32,
    /// Proxies whose forwarded headers are believed.
    pub trusted_proxies: Vec<Cidr>,
    /// What is served: everything, unless `serve --role` says otherwise.
    pub surfaces: Surfaces,
    /// Threads that answer.
    pub workers: usize,
    /// Bounds on what clients may make the server hold.
    pub bounds: terse_http::Bounds,
    /// The directory of the book, which need not be there.
    pub docs_dir: Option<PathBuf>,
}

/// Where links are kept.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Which slots each shard owns.
    pub map: ShardMap,
    /// The shards in the map's order, at least one; the first is home to settings, keys and leases.
    pub shards: Vec<ShardConfig>,
    /// Reading threads per SQLite file.
    pub readers: usize,
    /// Ids leased at once.
    pub code_block: u64,
}

impl StoreConfig {
    /// Whether every shard keeps marks of what changed: a file doesn't.
    #[must_use]
    pub fn is_marked(&self) -> bool {
        self.shards.iter().all(|shard| matches!(shard.backend, ShardBackend::Cql(_)))
    }
}

/// The cache in this process.
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// Links at most.
    pub entries: usize,
    /// Bytes at most.
    pub bytes: u64,
    /// Until a link is looked up again.
    pub max_age: Duration,
    /// How long an aged link may stand in for a store out of reach.
    pub stale_for: Duration,
    /// The cache that nodes share.
    pub shared: Option<RedisAddress>,
}

/// How the program logs.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// What is logged.
    pub filter: Filter,
    /// In which form.
    pub format: LogFormat,
}

/// How the program stops.
#[derive(Clone, Copy, Debug)]
pub struct ShutdownConfig {
    /// How long new requests are still answered.
    pub drain_delay: Duration,
    /// How long everything together may take.
    pub grace_period: Duration,
}

/// The whole configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// HTTP.
    pub http: HttpConfig,
    /// The directory of all files.
    pub data_dir: PathBuf,
    /// Links.
    pub store: StoreConfig,
    /// The cache.
    pub cache: CacheConfig,
    /// Clicks.
    pub clicks: ClickConfig,
    /// Whether this process counts clicks: it does, unless `serve --role` says otherwise.
    pub analytics: bool,
    /// How much callers may ask for.
    pub limits: LimitsConfig,
    /// Whether targets on private addresses are fine.
    pub allow_private_targets: bool,
    /// The file of blocked hosts.
    pub blocklist: Option<PathBuf>,
    /// Logging.
    pub log: LogConfig,
    /// Stopping.
    pub shutdown: ShutdownConfig,
    /// What the operator should know, one line each.
    pub warnings: Vec<String>,
    /// The file that was read.
    pub file: Option<PathBuf>,
    shown: Vec<Shown>,
}

/// A key as `check-config` shows it.
#[derive(Clone, Debug)]
struct Shown {
    key: &'static Key,
    value: String,
    source: Source,
}

impl Config {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// [`StartError`] for the first thing that is wrong, in the order of the keys.
    pub fn load(inputs: Inputs) -> Result<Self, StartError> {
        let raw = RawConfig::read(inputs)?;
        let mut check = Check { raw: &raw, shown: vec![] };
        let http = http(&mut check)?;
        let data_dir = check.key(&keys::DATA_DIR, data_dir)?;
        let store = store(&mut check)?;
        let mut config = Self {
            clicks: clicks::clicks(&mut check, &store.shards)?,
            data_dir,
            store,
            analytics: true,
            cache: cache(&mut check)?,
            limits: limits(&mut check, http.auth)?,
            allow_private_targets: check.key(&keys::ALLOW_PRIVATE_TARGETS, boolean)?,
            blocklist: check.key(&keys::BLOCKLIST, |text| Ok((text != "none").then(|| PathBuf::from(text))))?,
            log: log(&mut check)?,
            shutdown: shutdown(&mut check)?,
            http,
            warnings: vec![],
            file: raw.file.clone(),
            shown: check.shown,
        };
        config.warnings = show::warnings(&config);
        Ok(config)
    }

    /// What a flag or a variable says of `key`, as `check-config` shows it: without a password.
    pub(crate) fn given(&self, key: &Key) -> Option<&str> {
        let shown = self.shown.iter().find(|shown| shown.key.name == key.name)?;
        let elsewhere = matches!(shown.source, Source::Default | Source::File(_));
        (!elsewhere).then_some(shown.value.as_str())
    }

    fn source(&self, key: &Key) -> &Source {
        self.shown.iter().find(|shown| shown.key.name == key.name).map_or(&Source::Default, |shown| &shown.source)
    }
}

/// Turns texts into values and notes what was found, for `check-config`.
struct Check<'a> {
    raw: &'a RawConfig,
    shown: Vec<Shown>,
}

impl Check<'_> {
    /// The checked value of a key that has a default.
    fn key<T>(&mut self, key: &'static Key, read: impl FnOnce(&str) -> Result<T, String>) -> Result<T, StartError> {
        let found = self.optional(key, |text| read(text).map(|value| (value, text.to_owned())))?;
        found.ok_or_else(|| StartError::new(Exit::Internal, format_args!("{} has no default", key.name)))
    }

    /// The checked value of a key, if it has any; `read` also says how to show it.
    fn optional<T>(
        &mut self,
        key: &'static Key,
        read: impl FnOnce(&str) -> Result<(T, String), String>,
    ) -> Result<Option<T>, StartError> {
        let Some(value) = self.raw.get(key) else { return Ok(None) };
        let read = if value.text.is_empty() {
            Err(format!("is empty; leave it out for the default ({})", key.default_text))
        } else {
            read(&value.text)
        };
        let (checked, text) = read.map_err(|fault| StartError::config(blame(key, &value.source, &fault)))?;
        self.show(key, text, value.source.clone());
        Ok(Some(checked))
    }

    /// A whole number within the key's range.
    fn number<T: TryFrom<u64>>(&mut self, key: &'static Key) -> Result<T, StartError> {
        self.key(key, |text| values::number_of(key, text))
    }

    /// A duration within the key's range.
    fn time(&mut self, key: &'static Key) -> Result<Duration, StartError> {
        self.key(key, |text| values::time_of(key, text))
    }

    /// A size within the key's range.
    fn size(&mut self, key: &'static Key) -> Result<u64, StartError> {
        self.key(key, |text| values::size_of(key, text))
    }

    fn show(&mut self, key: &'static Key, value: String, source: Source) {
        self.shown.push(Shown { key, value, source });
    }
}

/// A fault with the name under which the operator set the key.
fn blame(key: &Key, source: &Source, fault: &str) -> String {
    match source {
        Source::File(path) => format!("{}: {}: {fault}", path.display(), key.name),
        source => format!("{source}: {fault}"),
    }
}

fn data_dir(text: &str) -> Result<PathBuf, String> {
    if text.contains('\0') { Err("holds a NUL".to_owned()) } else { Ok(PathBuf::from(text)) }
}

fn docs_dir(text: &str) -> Result<Option<PathBuf>, String> {
    if text == "none" { Ok(None) } else { data_dir(text).map(Some) }
}

fn boolean(text: &str) -> Result<bool, String> {
    values::one_of(text, &[("true", true), ("false", false)])
}

fn http(check: &mut Check<'_>) -> Result<HttpConfig, StartError> {
    const STATUSES: [(&str, RedirectStatus); 4] = [
        ("301", RedirectStatus::MovedPermanently),
        ("302", RedirectStatus::Found),
        ("307", RedirectStatus::TemporaryRedirect),
        ("308", RedirectStatus::PermanentRedirect),
    ];
    let listen = check.key(&keys::LISTEN, values::socket_address)?;
    Ok(HttpConfig {
        listen,
        public_url: check.key(&keys::PUBLIC_URL, values::public_url)?,
        auth: auth(check, listen)?,
        redirect_status: check.key(&keys::REDIRECT_STATUS, |text| values::one_of(text, &STATUSES))?,
        redirect_max_age_s: check.key(&keys::REDIRECT_MAX_AGE, |text| {
            let age = values::time_of(&keys::REDIRECT_MAX_AGE, text)?;
            Ok(u32::try_from(age.as_secs()).unwrap_or(u32::MAX))
        })?,
        trusted_proxies: check.key(&keys::TRUSTED_PROXIES, values::networks)?,
        surfaces: Surfaces { redirect: true, api: true },
        workers: workers(check)?,
        bounds: bounds(check)?,
        docs_dir: check.key(&keys::DOCS_DIR, docs_dir)?,
    })
}

fn auth(check: &mut Check<'_>, listen: SocketAddr) -> Result<AuthMode, StartError> {
    const MODES: [(&str, AuthMode); 2] = [("open", AuthMode::Open), ("keys", AuthMode::Keys)];
    let set = check.optional(&keys::AUTH, |text| Ok((values::one_of(text, &MODES)?, text.to_owned())))?;
    Ok(set.unwrap_or_else(|| {
        let (word, mode) = if listen.ip().is_loopback() { MODES[0] } else { MODES[1] };
        check.show(&keys::AUTH, word.to_owned(), Source::Default);
        mode
    }))
}

fn workers(check: &mut Check<'_>) -> Result<usize, StartError> {
    let set = check.optional(&keys::WORKERS, |text| Ok((values::number_of(&keys::WORKERS, text)?, text.to_owned())))?;
    Ok(set.unwrap_or_else(|| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from).min(keys::MAX_WORKERS);
        check.show(&keys::WORKERS, cores.to_string(), Source::Default);
        cores
    }))
}

fn bounds(check: &mut Check<'_>) -> Result<terse_http::Bounds, StartError> {
    Ok(terse_http::Bounds {
        connections_per_worker: check.number(&keys::CONNECTIONS_PER_WORKER)?,
        connections_per_address: check.number(&keys::CONNECTIONS_PER_ADDRESS)?,
        head_timeout: check.time(&keys::HEAD_TIMEOUT)?,
        body_timeout: check.time(&keys::BODY_TIMEOUT)?,
        keep_alive: check.time(&keys::KEEP_ALIVE)?,
        ..terse_http::Bounds::default()
    })
}

fn store(check: &mut Check<'_>) -> Result<StoreConfig, StartError> {
    let (map, shards) = if check.raw.shards.is_empty() {
        check
            .optional(&keys::STORE, |text| {
                let shards = shards::single(text)?;
                let shown = match &shards.1[0].backend {
                    ShardBackend::Cql(address) => address.url.to_string(),
                    ShardBackend::Sqlite { .. } => text.to_owned(),
                };
                Ok((shards, shown))
            })?
            .ok_or_else(|| StartError::new(Exit::Internal, "store has no default"))?
    } else {
        shards_of_file(check)?
    };
    Ok(StoreConfig {
        map,
        shards,
        readers: check.number(&keys::STORE_READERS)?,
        code_block: check.number(&keys::CODE_BLOCK)?,
    })
}

fn shards_of_file(check: &Check<'_>) -> Result<shards::Shards, StartError> {
    let file = check.raw.file.as_ref().map_or_else(String::new, |path| format!("{}: ", path.display()));
    match check.raw.get(&keys::STORE) {
        // Either would silently hide the links of the other.
        Some(store) if store.source != Source::Default => Err(StartError::config(format_args!(
            "{file}[[shard]] and {} exclude each other",
            blame_name(&store.source)
        ))),
        _ => shards::several(&check.raw.shards).map_err(|fault| StartError::config(format_args!("{file}{fault}"))),
    }
}

fn blame_name(source: &Source) -> String {
    if matches!(source, Source::File(_)) { "store".to_owned() } else { source.to_string() }
}

/// The fault of a value that may hold a password: only its scheme is compared, nothing repeated.
fn unknown_service(expected: &str, text: &str, known: [&str; 2]) -> String {
    let scheme = text.split(':').next().unwrap_or_default();
    format!("must be {expected}{}", keys::suggestion(scheme, known))
}

fn cache(check: &mut Check<'_>) -> Result<CacheConfig, StartError> {
    let shared = check.optional(&keys::CACHE, |text| match text {
        "none" => Ok((None, text.to_owned())),
        text if text.starts_with("redis:") => {
            RedisAddress::parse(text).map(|address| (Some(address.clone()), address.url.to_string()))
        }
        text => Err(unknown_service("none or redis://[user:password@]host[:port][/db]", text, ["none", "redis"])),
    })?;
    Ok(CacheConfig {
        entries: check.number(&keys::CACHE_ENTRIES)?,
        bytes: check.size(&keys::CACHE_BYTES)?,
        max_age: check.time(&keys::CACHE_MAX_AGE)?,
        stale_for: check.time(&keys::CACHE_STALE_FOR)?,
        shared: shared.flatten(),
    })
}

fn limits(check: &mut Check<'_>, auth: AuthMode) -> Result<LimitsConfig, StartError> {
    let on = check.key(&keys::LIMITS, |text| values::one_of(text, &[("on", true), ("off", false)]))?;
    let file = check.raw.file.as_ref().map_or_else(String::new, |path| format!("{}: ", path.display()));
    let limits = LimitsConfig::usual(auth).with(check.raw.limits.clone());
    let limits = limits.map_err(|fault| StartError::config(format_args!("{file}{fault}")))?;
    Ok(if on { limits } else { LimitsConfig::off() })
}

fn log(check: &mut Check<'_>) -> Result<LogConfig, StartError> {
    const FORMATS: [(&str, LogFormat); 3] =
        [("auto", LogFormat::Auto), ("pretty", LogFormat::Pretty), ("json", LogFormat::Json)];
    Ok(LogConfig {
        filter: check.key(&keys::LOG, Filter::parse)?,
        format: check.key(&keys::LOG_FORMAT, |text| values::one_of(text, &FORMATS))?,
    })
}

fn shutdown(check: &mut Check<'_>) -> Result<ShutdownConfig, StartError> {
    Ok(ShutdownConfig { drain_delay: check.time(&keys::DRAIN_DELAY)?, grace_period: check.time(&keys::GRACE_PERIOD)? })
}

#[cfg(test)]
mod tests;
