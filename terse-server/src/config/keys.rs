//! The one table of configuration keys. Flags, environment, file, `--help`,
//! `check-config` and the reference all follow it, so a key that is not here
//! exists nowhere.

use std::time::Duration;

use super::values::{duration_text, size_text};

/// Most web workers.
pub const MAX_WORKERS: usize = 256;
/// Most connections of a worker.
const MAX_CONNECTIONS: u64 = 1_000_000;
/// The longest grace period and drain delay: what is longer is a server that does not stop.
const MAX_GRACE: Duration = Duration::from_secs(3_600);
/// The shortest and the longest time a client may take or a connection may idle.
const CLIENT_WAIT: Range = Range::Time(Duration::from_millis(10), Duration::from_secs(600));
/// The longest age of a cached link: below the hour that a store remembers changes.
const MAX_CACHE_AGE: Duration = Duration::from_secs(1_800);
/// The longest time that an outdated link may stand in for a store.
const MAX_STALE: Duration = Duration::from_secs(7 * 86_400);
/// The longest time that browsers may keep a redirect.
const MAX_REDIRECT_AGE: Duration = Duration::from_secs(365 * 86_400);
/// The least that journals must be able to hold: a few blocks for each worker.
const LEAST_JOURNAL_BYTES: u64 = 16 * MIB;
const MIB: u64 = 1 << 20;

/// Which values a key takes, besides what its form says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// All of the form.
    Any,
    /// Whole numbers, from one to another.
    Number(u64, u64),
    /// Times.
    Time(Duration, Duration),
    /// Sizes, in bytes.
    Size(u64, u64),
}

impl Range {
    /// The range in words; empty for all.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Self::Any => String::new(),
            Self::Number(least, most) => format!("{least} to {most}"),
            Self::Time(least, most) => format!("{} to {}", duration_text(least), duration_text(most)),
            Self::Size(least, most) => format!("{} to {}", size_text(least), size_text(most)),
        }
    }
}

/// One configuration key, its three spellings and what it is for.
pub struct Key {
    /// The name in `terse.toml`.
    pub name: &'static str,
    /// The name as a flag, without the dashes.
    pub flag: &'static str,
    /// The name as an environment variable.
    pub variable: &'static str,
    /// What kind of value it takes, for `--help`.
    pub value: &'static str,
    /// The default; `None` = it follows from other keys.
    pub default: Option<&'static str>,
    /// The default in words, for `--help`.
    pub default_text: &'static str,
    /// What it is for, in one line.
    pub help: &'static str,
    /// Which values it takes.
    pub range: Range,
    /// Whether a value may hold a password: then no message ever repeats it.
    pub secret: bool,
}

impl Key {
    const fn new(
        [name, flag, variable]: [&'static str; 3],
        value: &'static str,
        default: &'static str,
        help: &'static str,
    ) -> Self {
        let (default_text, default, range) = (default, Some(default), Range::Any);
        Self { name, flag, variable, value, default, default_text, help, range, secret: false }
    }

    const fn within(mut self, range: Range) -> Self {
        self.range = range;
        self
    }

    const fn computed(mut self, default_text: &'static str) -> Self {
        self.default = None;
        self.default_text = default_text;
        self
    }

    const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// What it is for, and which values it takes.
    #[must_use]
    pub fn help_with_range(&self) -> String {
        if self.range == Range::Any { self.help.to_owned() } else { format!("{}: {}", self.help, self.range.text()) }
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.name)
    }
}

/// Where to listen.
pub static LISTEN: Key = Key::new(
    ["listen", "listen", "TERSE_LISTEN"],
    "IP:PORT",
    "127.0.0.1:8080",
    "address to serve HTTP on; port 0 takes any free one",
);
/// The base of short URLs.
pub static PUBLIC_URL: Key = Key::new(
    ["public_url", "public-url", "TERSE_PUBLIC_URL"],
    "URL",
    "http://localhost:8080",
    "base of short URLs; its host is refused as a target",
);
/// Where files are kept.
pub static DATA_DIR: Key = Key::new(
    ["data_dir", "data-dir", "TERSE_DATA_DIR"],
    "DIR",
    "./data",
    "directory of the SQLite files and the node's identity",
);
/// Where the book is.
pub static DOCS_DIR: Key = Key::new(
    ["docs_dir", "docs-dir", "TERSE_DOCS_DIR"],
    "DIR",
    "./target/book",
    "directory of the built book, served under /docs/ while it is there, or none",
);
/// Where links are kept.
pub static STORE: Key = Key::new(
    ["store", "store", "TERSE_STORE"],
    "STORE",
    "sqlite",
    "sqlite, or cql://[user:password@]host[:port],.../keyspace[?replication=N]; more shards: [[shard]] in terse.toml",
)
.secret();
/// Where statistics are kept.
pub static STATS: Key = Key::new(
    ["stats", "stats", "TERSE_STATS"],
    "STORE",
    "",
    "read model of the statistics: sqlite, or cql://[user:password@]host[:port],.../keyspace",
)
.computed("sqlite with the local bus, else beside the store")
.secret();
/// The shared cache.
pub static CACHE: Key = Key::new(
    ["cache", "cache", "TERSE_CACHE"],
    "CACHE",
    "none",
    "cache shared between nodes: none, or redis://[user:password@]host[:port][/db]",
)
.secret();
/// The click log.
pub static BUS: Key = Key::new(
    ["bus", "bus", "TERSE_BUS"],
    "BUS",
    "local",
    "log of clicks: local, or amqp://[user:password@]host[:port][/vhost]",
)
.secret();
/// Who may call the API.
pub static AUTH: Key =
    Key::new(["auth", "auth", "TERSE_AUTH"], "open|keys", "", "who may call the API: everybody, or holders of a key")
        .computed("open on loopback, else keys");
/// The status of redirects.
pub static REDIRECT_STATUS: Key = Key::new(
    ["redirect_status", "redirect-status", "TERSE_REDIRECT_STATUS"],
    "301|302|307|308",
    "302",
    "status of redirects; 301 and 308 may be cached by browsers",
);
/// Peers whose forwarded headers are believed.
pub static TRUSTED_PROXIES: Key = Key::new(
    ["trusted_proxies", "trusted-proxies", "TERSE_TRUSTED_PROXIES"],
    "CIDR,...",
    "none",
    "networks of the proxies whose forwarded headers are believed",
);
/// Rate limits.
pub static LIMITS: Key =
    Key::new(["limits", "limits", "TERSE_LIMITS"], "on|off", "on", "rate limits; off is for load tests");
/// Whether private addresses are fine as targets.
pub static ALLOW_PRIVATE_TARGETS: Key = Key::new(
    ["allow_private_targets", "allow-private-targets", "TERSE_ALLOW_PRIVATE_TARGETS"],
    "true|false",
    "false",
    "allow targets on private addresses (intranets)",
);
/// The file of blocked hosts.
pub static BLOCKLIST: Key = Key::new(
    ["blocklist", "blocklist", "TERSE_BLOCKLIST"],
    "FILE",
    "none",
    "file of hosts that no link may lead to, one a line, or none; read again at SIGHUP",
);
/// What is logged.
pub static LOG: Key = Key::new(
    ["log", "log", "TERSE_LOG"],
    "FILTER",
    "info",
    "what is logged: error, warn, info, debug, trace, or tracing's filter syntax such as info,terse_http=debug",
);
/// How it is logged.
pub static LOG_FORMAT: Key = Key::new(
    ["log_format", "log-format", "TERSE_LOG_FORMAT"],
    "auto|pretty|json",
    "auto",
    "form of log lines; auto is readable on a terminal, else JSON",
);
/// Web workers.
pub static WORKERS: Key = Key::new(["workers", "workers", "TERSE_WORKERS"], "N", "", "threads that answer HTTP")
    .computed("one per core")
    .within(Range::Number(1, MAX_WORKERS as u64));
/// Connections per web worker.
pub static CONNECTIONS_PER_WORKER: Key = Key::new(
    ["connections_per_worker", "connections-per-worker", "TERSE_CONNECTIONS_PER_WORKER"],
    "N",
    "10000",
    "connections a worker holds; further ones wait in the kernel's queue",
)
.within(Range::Number(1, MAX_CONNECTIONS));
/// Connections of one address, per web worker.
pub static CONNECTIONS_PER_ADDRESS: Key = Key::new(
    ["connections_per_address", "connections-per-address", "TERSE_CONNECTIONS_PER_ADDRESS"],
    "N",
    "1000",
    "of these, connections of one address that is no trusted proxy; further ones are closed",
)
.within(Range::Number(1, MAX_CONNECTIONS));
/// Until a request's head must have arrived.
pub static HEAD_TIMEOUT: Key = Key::new(
    ["head_timeout", "head-timeout", "TERSE_HEAD_TIMEOUT"],
    "TIME",
    "5s",
    "until a request's head must have arrived; then 408",
)
.within(CLIENT_WAIT);
/// Until a request's body must have arrived.
pub static BODY_TIMEOUT: Key = Key::new(
    ["body_timeout", "body-timeout", "TERSE_BODY_TIMEOUT"],
    "TIME",
    "10s",
    "until a request's body must have arrived; then 408",
)
.within(CLIENT_WAIT);
/// How long an idle connection is kept.
pub static KEEP_ALIVE: Key = Key::new(
    ["keep_alive", "keep-alive", "TERSE_KEEP_ALIVE"],
    "TIME",
    "30s",
    "how long an idle connection is kept open",
)
.within(CLIENT_WAIT);
/// How long a draining server goes on accepting.
pub static DRAIN_DELAY: Key = Key::new(
    ["drain_delay", "drain-delay", "TERSE_DRAIN_DELAY"],
    "TIME",
    "1s",
    "after SIGTERM, how long new requests are still answered while /readyz says 503",
)
.within(Range::Time(Duration::ZERO, MAX_GRACE));
/// How long shutting down may take.
pub static GRACE_PERIOD: Key = Key::new(
    ["grace_period", "grace-period", "TERSE_GRACE_PERIOD"],
    "TIME",
    "20s",
    "after SIGTERM, how long requests in flight may take before they are cut",
)
.within(Range::Time(Duration::ZERO, MAX_GRACE));
/// `max-age` of cacheable redirects.
pub static REDIRECT_MAX_AGE: Key = Key::new(
    ["redirect_max_age", "redirect-max-age", "TERSE_REDIRECT_MAX_AGE"],
    "TIME",
    "5m",
    "how long browsers may keep a 301 or 308",
)
.within(Range::Time(Duration::ZERO, MAX_REDIRECT_AGE));
/// Links that the cache in process holds.
pub static CACHE_ENTRIES: Key = Key::new(
    ["cache_entries", "cache-entries", "TERSE_CACHE_ENTRIES"],
    "N",
    "400000",
    "links that the cache in this process holds at most",
)
.within(Range::Number(1, 100_000_000));
/// Bytes that the cache in process holds.
pub static CACHE_BYTES: Key = Key::new(
    ["cache_bytes", "cache-bytes", "TERSE_CACHE_BYTES"],
    "SIZE",
    "128MiB",
    "memory that the cache in this process takes at most",
)
.within(Range::Size(MIB, 1 << 40));
/// Until a cached link is looked up again.
pub static CACHE_MAX_AGE: Key = Key::new(
    ["cache_max_age", "cache-max-age", "TERSE_CACHE_MAX_AGE"],
    "TIME",
    "30m",
    "until a cached link is looked up again",
)
.within(Range::Time(Duration::from_secs(1), MAX_CACHE_AGE));
/// How long an aged entry may stand in for a store that is away.
pub static CACHE_STALE_FOR: Key = Key::new(
    ["cache_stale_for", "cache-stale-for", "TERSE_CACHE_STALE_FOR"],
    "TIME",
    "1h",
    "how long a cached link still redirects while the store is out of reach",
)
.within(Range::Time(Duration::ZERO, MAX_STALE));
/// Bytes that journals of clicks take.
pub static JOURNAL_BYTES: Key = Key::new(
    ["journal_bytes", "journal-bytes", "TERSE_JOURNAL_BYTES"],
    "SIZE",
    "2GiB",
    "disk that recorded clicks take at most; beyond, clicks are dropped and counted",
)
.within(Range::Size(LEAST_JOURNAL_BYTES, 1 << 50));
/// When journals are synced.
pub static JOURNAL_SYNC: Key = Key::new(
    ["journal_sync", "journal-sync", "TERSE_JOURNAL_SYNC"],
    "sealed|none",
    "sealed",
    "what of the click journal is synced to disk: each sealed block, or nothing (a power cut then loses more)",
);
/// Whether `DNT` and `Sec-GPC` are obeyed.
pub static PRIVACY_SIGNALS: Key = Key::new(
    ["privacy_signals", "privacy-signals", "TERSE_PRIVACY_SIGNALS"],
    "obey|ignore",
    "obey",
    "of clicks with DNT or Sec-GPC nothing is kept that could tell visitors apart; or it is ignored",
);
/// The file that knows countries.
pub static COUNTRIES: Key = Key::new(
    ["countries", "countries", "TERSE_COUNTRIES"],
    "FILE",
    "none",
    "file in MaxMind's mmdb format that tells the countries of clicks, or none",
);
/// Ids leased at once.
pub static CODE_BLOCK: Key = Key::new(
    ["code_block", "code-block", "TERSE_CODE_BLOCK"],
    "N",
    "10000",
    "ids that this node leases at once; what is unused at shutdown is never used",
)
.within(Range::Number(1, 1_000_000_000));
/// Reading connections per SQLite file.
pub static STORE_READERS: Key =
    Key::new(["store_readers", "store-readers", "TERSE_STORE_READERS"], "N", "4", "threads that read each SQLite file")
        .within(Range::Number(1, 64));

/// All keys, in the order of `--help` and `check-config`.
pub static KEYS: [&Key; 35] = [
    &LISTEN,
    &PUBLIC_URL,
    &DATA_DIR,
    &DOCS_DIR,
    &STORE,
    &STATS,
    &CACHE,
    &BUS,
    &AUTH,
    &REDIRECT_STATUS,
    &TRUSTED_PROXIES,
    &LIMITS,
    &ALLOW_PRIVATE_TARGETS,
    &BLOCKLIST,
    &LOG,
    &LOG_FORMAT,
    &WORKERS,
    &CONNECTIONS_PER_WORKER,
    &CONNECTIONS_PER_ADDRESS,
    &HEAD_TIMEOUT,
    &BODY_TIMEOUT,
    &KEEP_ALIVE,
    &DRAIN_DELAY,
    &GRACE_PERIOD,
    &REDIRECT_MAX_AGE,
    &CACHE_ENTRIES,
    &CACHE_BYTES,
    &CACHE_MAX_AGE,
    &CACHE_STALE_FOR,
    &JOURNAL_BYTES,
    &JOURNAL_SYNC,
    &PRIVACY_SIGNALS,
    &COUNTRIES,
    &CODE_BLOCK,
    &STORE_READERS,
];

/// What may follow the name of any variable: the value is then read from the file it names.
pub const FILE_SUFFIX: &str = "_FILE";

/// Variables that belong to the load tests.
pub const FOREIGN_VARIABLES: [&str; 2] = ["TERSE_URL", "TERSE_KEY"];

/// The word of `known` that `word` was probably meant to be, if any is close.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_ascii_lowercase();
    let distance = |candidate: &str| strsim::damerau_levenshtein(&lower, &candidate.to_ascii_lowercase());
    let (best, away) = known.into_iter().map(|k| (k, distance(k))).min_by_key(|(_, away)| *away)?;
    // A third of the letters wrong is a different word.
    (away <= best.len().max(3) / 3).then_some(best)
}

/// `; did you mean 'X'?`, or nothing.
#[must_use]
pub fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, known).map(|best| format!("; did you mean '{best}'?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_times_and_sizes_have_a_range_and_nothing_else_has() {
        for key in KEYS {
            let fits = match key.range {
                Range::Any => !["N", "TIME", "SIZE"].contains(&key.value),
                Range::Number(..) => key.value == "N",
                Range::Time(..) => key.value == "TIME",
                Range::Size(..) => key.value == "SIZE",
            };
            assert!(fits, "{}", key.name);
        }
    }

    #[test]
    fn a_range_is_told_as_its_values_are_written() {
        assert_eq!(WORKERS.range.text(), "1 to 256");
        assert_eq!(HEAD_TIMEOUT.range.text(), "10ms to 10m");
        assert_eq!(CACHE_BYTES.range.text(), "1MiB to 1024GiB");
        assert_eq!(
            (LISTEN.range.text(), Range::Time(Duration::ZERO, MAX_STALE).text()),
            (String::new(), "0ms to 7d".into())
        );
    }

    #[test]
    fn the_three_spellings_of_a_key_agree() {
        for key in KEYS {
            assert_eq!(key.flag, key.name.replace('_', "-"));
            assert_eq!(key.variable, format!("TERSE_{}", key.name.to_uppercase()));
        }
    }

    #[test]
    fn no_key_can_be_mistaken_for_the_file_form_of_another() {
        for key in KEYS {
            assert!(!key.variable.ends_with(FILE_SUFFIX), "{}", key.variable);
            assert!(!FOREIGN_VARIABLES.contains(&key.variable));
            assert_eq!(KEYS.iter().filter(|other| other.name == key.name).count(), 1);
        }
    }

    #[test]
    fn a_suggestion_is_made_for_a_slip_but_not_for_another_word() {
        let names = || KEYS.iter().map(|key| key.name);
        assert_eq!(nearest("lisen", names()), Some("listen"));
        assert_eq!(nearest("PUBLIC_URI", names()), Some("public_url"));
        assert_eq!(nearest("trusted_proxy", names()), Some("trusted_proxies"));
        assert_eq!(nearest("zzzzzz", names()), None);
        assert_eq!(nearest("x", names()), None);
        assert_eq!(suggestion("sqlit", ["sqlite"]), "; did you mean 'sqlite'?");
        assert_eq!(suggestion("postgres", ["sqlite"]), "");
    }
}
