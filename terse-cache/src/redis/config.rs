//! What bounds the calls to Redis, and where it is.

use std::fmt;
use std::time::Duration;

use terse_resilience::{BreakerSettings, SettingsError};

/// No value is taken from Redis later than this after it was written. Change
/// marks are remembered longer, so no value outlives the memory of its change.
pub const MAX_SHARED_TTL: Duration = Duration::from_secs(30 * 60);
/// Most connections: one carries tens of thousands of requests a second.
const MAX_CONNECTIONS: u32 = 64;
/// Most letters of a deployment's short id.
const MAX_ID_LEN: usize = 64;

/// A user (`None` = the default one) and password, which no print shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user; `None` = the default one.
    pub user: Option<String>,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What the keys begin with: `terse:ID:link:`, or `terse:ID.START:link:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace(String);

impl Namespace {
    /// The keys of the deployment with the short id `id`, 1 to 64 of
    /// `[A-Za-z0-9_-]`. With `start` the keys of one run of a process alone: in
    /// front of a store without change marks nothing that an earlier run left may be trusted.
    ///
    /// # Errors
    /// When `id` is no such text.
    pub fn new(id: &str, start: Option<u64>) -> Result<Self, SettingsError> {
        let sound = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        let sound = (1..=MAX_ID_LEN).contains(&id.len()) && id.bytes().all(sound);
        require(sound, "namespace", "be 1 to 64 of A-Z, a-z, 0-9, '_' and '-'")?;
        // No id holds a dot, so no deployment has the keys of another's run.
        Ok(Self(match start {
            Some(start) => format!("terse:{id}.{start:016x}:link:"),
            None => format!("terse:{id}:link:"),
        }))
    }

    /// The key of what `who` uses of the limit `name`: `terse:ID:limit:NAME:` and who that is in hexadecimal.
    pub(super) fn limit_key(&self, name: &str, who: &[u8]) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let owner = self.0.strip_suffix("link:").unwrap_or(&self.0);
        let mut key = format!("{owner}limit:{name}:");
        let digits = who.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        key.extend(digits.map(char::from));
        key
    }

    /// The key of `code`.
    pub(super) fn key(&self, code: &str) -> String {
        let mut key = String::with_capacity(self.0.len() + code.len());
        key.push_str(&self.0);
        key.push_str(code);
        key
    }
}

/// Where Redis is, and the bounds of what is asked of it. Each has a stated answer when it is hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisConfig {
    /// Host name or address, IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The database's number.
    pub db: u16,
    /// User and password, if it wants them.
    pub credentials: Option<Credentials>,
    /// What the keys begin with.
    pub namespace: Namespace,
    /// Connections, each shared by many requests; 1 to 64.
    pub connections: u32,
    /// Look-ups that wait for Redis at once; at least 1. Beyond, a look-up is a miss at once.
    pub gets: u32,
    /// How long a look-up waits; then it is a miss. A redirect waits for it.
    pub get_timeout: Duration,
    /// Changes (kept and dropped links) that wait for Redis at once; at least 1. Beyond, they are left out.
    pub writes: u32,
    /// How long a change waits; then it counts as not made, though it may be made yet.
    pub write_timeout: Duration,
    /// Decisions of rate limits that wait for Redis at once; at least 1. Beyond, each process decides by itself.
    pub draws: u32,
    /// How long such a decision waits; then the process decides by itself. A create waits for it.
    pub draw_timeout: Duration,
    /// How long connecting, or an answer to a sign of life, may take; then the connection is given up.
    pub connect_timeout: Duration,
    /// How long a link is kept at most; up to [`MAX_SHARED_TTL`]. Each code's own time is up to a tenth shorter.
    pub ttl: Duration,
}

impl RedisConfig {
    /// The defaults for the Redis at `host` and `port`:
    ///
    /// - two connections: requests that meet on one go out in one write, so
    ///   fewer cost less; one more, so that the loss of one is not the loss of all;
    /// - 30 ms for a look-up: a store answers most reads within 20 ms, so a Redis
    ///   slower than that is no help, and the redirects that meet a hung Redis
    ///   before the breaker opens still end within 50 ms;
    /// - 256 look-ups at once serve 250,000 a second at 1 ms each; 10,000 callers
    ///   of a hung Redis are 256 that wait, until five of them have timed out;
    /// - 100 ms for a change, which no redirect waits for, and 128 at once: links
    ///   that are not kept cost one more read of the store each;
    /// - 30 ms for a decision of a rate limit, 256 at once, as for a look-up.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16, namespace: Namespace) -> Self {
        Self {
            host: host.into(),
            port,
            db: 0,
            credentials: None,
            namespace,
            connections: 2,
            gets: 256,
            get_timeout: Duration::from_millis(30),
            writes: 128,
            write_timeout: Duration::from_millis(100),
            draws: 256,
            draw_timeout: Duration::from_millis(30),
            connect_timeout: Duration::from_millis(500),
            ttl: MAX_SHARED_TTL,
        }
    }

    /// How the breaker around the calls shall be.
    #[must_use]
    pub fn breaker_settings(&self) -> BreakerSettings {
        BreakerSettings::cheap_to_probe(millis(self.get_timeout.max(self.write_timeout).max(self.draw_timeout)))
    }

    /// Whether the settings are within their limits.
    ///
    /// # Errors
    /// The first setting that is not.
    pub fn check(&self) -> Result<(), SettingsError> {
        require(!self.host.is_empty(), "host", "not be empty")?;
        require((1..=MAX_CONNECTIONS).contains(&self.connections), "connections", "be from 1 to 64")?;
        require(self.gets >= 1, "gets", "be at least 1")?;
        require(self.writes >= 1, "writes", "be at least 1")?;
        require(self.draws >= 1, "draws", "be at least 1")?;
        let timeouts = [
            ("get_timeout", self.get_timeout),
            ("write_timeout", self.write_timeout),
            ("draw_timeout", self.draw_timeout),
            ("connect_timeout", self.connect_timeout),
        ];
        for (setting, timeout) in timeouts {
            require(millis(timeout) >= 1, setting, "be at least 1 ms")?;
        }
        let ttl = Duration::from_secs(1)..=MAX_SHARED_TTL;
        require(ttl.contains(&self.ttl), "ttl", "be from 1 s to 30 minutes")
    }
}

/// Whole milliseconds of `duration`.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn require(holds: bool, setting: &'static str, must: &'static str) -> Result<(), SettingsError> {
    if holds { Ok(()) } else { Err(SettingsError { setting, must }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> RedisConfig {
        RedisConfig::new("127.0.0.1", 6_379, Namespace::new("d1", None).unwrap())
    }

    #[test]
    fn the_defaults_are_the_documented_ones_and_valid() {
        let default = config();
        default.check().unwrap();
        assert!((2..=4).contains(&default.connections));
        assert_eq!((millis(default.get_timeout), millis(default.write_timeout)), (30, 100));
        assert_eq!(default.ttl, MAX_SHARED_TTL);
        assert!(default.credentials.is_none());
    }

    #[test]
    fn the_breaker_asks_again_early_and_lets_calls_take_their_time() {
        let settings = config().breaker_settings();
        settings.check().unwrap();
        assert_eq!((settings.open_ms, settings.open_factor, settings.max_open_ms), (500, 2, 4_000));
        assert_eq!(settings.call_limit_ms, 100, "the longer of the two timeouts");
        assert!(settings.jitter_percent > 0);
    }

    #[test]
    fn keys_name_the_deployment_and_the_code() {
        assert_eq!(Namespace::new("d1", None).unwrap().key("Abc-9_"), "terse:d1:link:Abc-9_");
        assert_eq!(Namespace::new("d1", Some(0xbeef)).unwrap().key("a"), "terse:d1.000000000000beef:link:a");
        assert_eq!(Namespace::new("d1", None).unwrap().limit_key("create", &[1, 0xff]), "terse:d1:limit:create:01ff");
    }

    #[test]
    fn an_id_can_not_reach_into_the_keys_of_another() {
        for id in ["", "a:b", "a.b", "a b", "a*", "\u{e4}", &"a".repeat(65)] {
            assert_eq!(Namespace::new(id, None).unwrap_err().setting, "namespace", "{id}");
        }
        assert!(Namespace::new(&"a".repeat(64), Some(u64::MAX)).is_ok());
    }

    #[test]
    fn no_print_shows_the_password() {
        let mut secret = config();
        secret.credentials = Some(Credentials { user: Some("alice".to_owned()), password: "hunter2".to_owned() });
        let print = format!("{secret:?}");
        assert!(!print.contains("hunter2") && !print.contains("alice"), "{print}");
        assert!(print.contains("127.0.0.1"));
    }

    #[test]
    fn each_setting_has_its_limits() {
        let refused = |change: &dyn Fn(&mut RedisConfig)| {
            let mut changed = config();
            change(&mut changed);
            changed.check().unwrap_err().setting
        };
        assert_eq!(refused(&|c| c.host.clear()), "host");
        assert_eq!(refused(&|c| c.connections = 0), "connections");
        assert_eq!(refused(&|c| c.connections = 65), "connections");
        assert_eq!(refused(&|c| c.gets = 0), "gets");
        assert_eq!(refused(&|c| c.writes = 0), "writes");
        assert_eq!(refused(&|c| c.draws = 0), "draws");
        assert_eq!(refused(&|c| c.draw_timeout = Duration::ZERO), "draw_timeout");
        assert_eq!(refused(&|c| c.get_timeout = Duration::from_micros(999)), "get_timeout");
        assert_eq!(refused(&|c| c.write_timeout = Duration::ZERO), "write_timeout");
        assert_eq!(refused(&|c| c.connect_timeout = Duration::ZERO), "connect_timeout");
        assert_eq!(refused(&|c| c.ttl = MAX_SHARED_TTL + Duration::from_millis(1)), "ttl");
        assert_eq!(refused(&|c| c.ttl = Duration::ZERO), "ttl");
    }
}
