//! Rate limits: `[limits]` of the file, on top of what applies without it.
//!
//! ```toml
//! [limits]
//! keys = 65536                # callers that each limit remembers
//! networks = 16               # times the quota of an address that all addresses in a /48 of IPv6 have together
//! redirect = "off"
//!
//! [limits.create]
//! by = "key"                  # or "address", "both"
//! algorithm = "token-bucket"  # burst, refill, per
//! burst = 100
//! refill = 10
//! per = "1s"
//!
//! [limits.not_found]
//! algorithm = "sliding-window" # or "fixed-window": limit, window; or "leaky-bucket": rate, per, queue
//! limit = 300
//! window = "1m"
//!
//! [limits.quota]              # links a month that each key may create; of each month of the calendar, UTC
//! links = 10000               # or "off", as without this line
//! keys = { a1b2c3d4e5 = 50000, f6g7h8i9j0 = "off" } # those of single keys, by id
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use terse_core::KeyId;
use terse_http::LimitBy;
use terse_resilience::limit::{MAX_KEYS, Rule};
use toml::{Table, Value};

use super::keys::suggestion;
use super::raw::{Source, plain_text};
use super::{AuthMode, values};

/// Callers that a limit remembers; 8 MiB at most for each limit, and as much for the networks around them.
const DEFAULT_KEYS: usize = 65_536;
/// How many /64s of IPv6 it takes to use up the quota of the /48 around them: more than a household has, and few of the
/// 65,536 that anybody can have.
const DEFAULT_NETWORKS: u32 = 16;
/// The most: as many /64s as a /48 has, so that it is never used up before them.
pub(super) const MAX_NETWORKS: u32 = 65_536;
/// The least: fewer are thrown out while they still matter.
pub(super) const LEAST_KEYS: usize = 1_024;

/// The keys of `[limits]`.
pub(super) const NAMES: [&str; 7] = ["keys", "networks", "create", "api", "redirect", "not_found", "quota"];
/// The keys of `[limits.quota]`.
pub(super) const QUOTA_NAMES: [&str; 2] = ["links", "keys"];
/// What a limit can be counted by, and the keys that go with it.
pub(super) const ALGORITHMS: [(&str, &[&str]); 4] = [
    ("token-bucket", &["burst", "refill", "per"]),
    ("sliding-window", &["limit", "window"]),
    ("fixed-window", &["limit", "window"]),
    ("leaky-bucket", &["rate", "per", "queue"]),
];

const BY: [(&str, LimitBy); 3] = [("key", LimitBy::Key), ("address", LimitBy::Address), ("both", LimitBy::Both)];

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitConfig {
    /// What tells callers apart.
    pub by: LimitBy,
    /// How much each may ask for.
    pub rule: Rule,
}

/// Most links of a quota.
pub(super) const MAX_QUOTA: u64 = 1_000_000_000_000;

/// How many links a key may create in a month; `None` = as many as it likes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuotaConfig {
    /// Of a key that isn't named.
    pub links: Option<u64>,
    /// Of those that are.
    pub keys: BTreeMap<KeyId, Option<u64>>,
}

/// The limits; `None` = none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Callers that each limit remembers.
    pub keys: usize,
    /// How many times what one address may ask for all in a /48 of IPv6 may together; 1 to 65,536.
    pub networks: u32,
    /// Creates.
    pub create: Option<LimitConfig>,
    /// All other requests to the API.
    pub api: Option<LimitConfig>,
    /// Redirects.
    pub redirect: Option<LimitConfig>,
    /// Look-ups that find no such link.
    pub not_found: Option<LimitConfig>,
    /// Links a month; `None` = limits are off, and nothing is counted.
    pub quota: Option<QuotaConfig>,
}

impl LimitsConfig {
    /// No limit at all.
    pub(super) fn off() -> Self {
        Self {
            keys: DEFAULT_KEYS,
            networks: DEFAULT_NETWORKS,
            create: None,
            api: None,
            redirect: None,
            not_found: None,
            quota: None,
        }
    }

    /// What applies where the file says nothing. While access is open nobody has
    /// a key, so creates are limited by address, and more tightly.
    pub(crate) fn usual(auth: AuthMode) -> Self {
        let bucket = |burst, refill| Rule::TokenBucket { burst, refill, per: Duration::from_secs(1) };
        let limit = |by, rule| Some(LimitConfig { by, rule });
        Self {
            create: match auth {
                AuthMode::Keys => limit(LimitBy::Key, bucket(100, 10)),
                AuthMode::Open => limit(LimitBy::Address, bucket(20, 1)),
            },
            api: limit(LimitBy::Key, bucket(500, 100)),
            not_found: limit(LimitBy::Address, Rule::SlidingWindow { limit: 300, window: Duration::from_secs(60) }),
            quota: Some(QuotaConfig::default()),
            ..Self::off()
        }
    }

    /// These limits with what `table` says of them.
    ///
    /// # Errors
    /// What is wrong with it, with the place.
    pub(super) fn with(mut self, table: Table) -> Result<Self, String> {
        for (name, value) in table {
            let group = match name.as_str() {
                "keys" => {
                    let text = plain_text(&value).unwrap_or_default();
                    let keys = values::number(&text, LEAST_KEYS, MAX_KEYS);
                    self.keys = keys.map_err(|fault| format!("[limits]: keys {fault}"))?;
                    continue;
                }
                "networks" => {
                    let text = plain_text(&value).unwrap_or_default();
                    let networks = values::number(&text, 1, MAX_NETWORKS);
                    self.networks = networks.map_err(|fault| format!("[limits]: networks {fault}"))?;
                    continue;
                }
                "quota" => {
                    let Value::Table(table) = value else {
                        return Err("[limits]: quota must be a table [limits.quota]".to_owned());
                    };
                    self.quota = Some(quota(table).map_err(|fault| format!("[limits.quota]: {fault}"))?);
                    continue;
                }
                "create" => &mut self.create,
                "api" => &mut self.api,
                "redirect" => &mut self.redirect,
                "not_found" => &mut self.not_found,
                unknown => return Err(format!("[limits]: unknown key '{unknown}'{}", suggestion(unknown, NAMES))),
            };
            let by = if name == "create" || name == "api" { LimitBy::Key } else { LimitBy::Address };
            *group = match value {
                Value::String(off) if off == "off" => None,
                Value::Table(table) => Some(limit(table, by).map_err(|fault| format!("[limits.{name}]: {fault}"))?),
                _ => return Err(format!("[limits]: {name} must be \"off\" or a table [limits.{name}]")),
            };
            let keyless = matches!(name.as_str(), "redirect" | "not_found");
            if keyless && group.is_some_and(|limit| limit.by != LimitBy::Address) {
                return Err(format!("[limits.{name}]: by must be address: a redirect has no key"));
            }
        }
        Ok(self)
    }

    /// The limits in the form of a `terse.toml`, and where it comes from that they are on.
    pub(crate) fn describe(&self, source: &Source) -> String {
        let mut text = format!("\n[limits] # {source}\nkeys = {}\nnetworks = {}\n", self.keys, self.networks);
        let groups =
            [("create", self.create), ("api", self.api), ("redirect", self.redirect), ("not_found", self.not_found)];
        let (on, off): (Vec<_>, Vec<_>) = groups.into_iter().partition(|(_, limit)| limit.is_some());
        for (name, _) in off {
            let _ = writeln!(text, "{name} = \"off\"");
        }
        if let Some(quota) = &self.quota {
            text.push_str(&quota.describe());
        }
        for (name, limit) in on.into_iter().filter_map(|(name, limit)| Some((name, limit?))) {
            let by = BY.iter().find(|(_, by)| *by == limit.by).map_or("", |(word, _)| word);
            let _ = write!(text, "\n[limits.{name}]\nby = \"{by}\"\nalgorithm = \"{}\"\n", limit.rule.name());
            let _ = match limit.rule {
                Rule::TokenBucket { burst, refill, per } => {
                    writeln!(text, "burst = {burst}\nrefill = {refill}\nper = \"{}\"", values::duration_text(per))
                }
                Rule::SlidingWindow { limit, window } | Rule::FixedWindow { limit, window } => {
                    writeln!(text, "limit = {limit}\nwindow = \"{}\"", values::duration_text(window))
                }
                Rule::LeakyBucket { rate, per, queue } => {
                    writeln!(text, "rate = {rate}\nper = \"{}\"\nqueue = {queue}", values::duration_text(per))
                }
            };
        }
        text
    }
}

impl QuotaConfig {
    fn describe(&self) -> String {
        let shown = |links: Option<u64>| links.map_or("\"off\"".to_owned(), |links| links.to_string());
        let mut text = format!("\n[limits.quota]\nlinks = {}\n", shown(self.links));
        if !self.keys.is_empty() {
            text.push_str("\n[limits.quota.keys]\n");
        }
        for (key, links) in &self.keys {
            let _ = writeln!(text, "{key} = {}", shown(*links));
        }
        text
    }
}

/// Reads the quotas.
fn quota(table: Table) -> Result<QuotaConfig, String> {
    let mut quota = QuotaConfig::default();
    for (name, value) in table {
        match (name.as_str(), value) {
            ("links", value) => quota.links = links("links", &value)?,
            ("keys", Value::Table(keys)) => {
                for (id, value) in keys {
                    let key = KeyId::parse(&id).map_err(|fault| format!("'{id}' is none of a key: {fault}"))?;
                    quota.keys.insert(key, links(&id, &value)?);
                }
            }
            ("keys", _) => return Err("keys must be a table of ids".to_owned()),
            (unknown, _) => return Err(format!("unknown key '{unknown}'{}", suggestion(unknown, QUOTA_NAMES))),
        }
    }
    Ok(quota)
}

/// Links a month: a number, or "off".
fn links(name: &str, value: &Value) -> Result<Option<u64>, String> {
    let text = plain_text(value).unwrap_or_default();
    if text == "off" {
        return Ok(None);
    }
    values::number(&text, 0, MAX_QUOTA).map(Some).map_err(|fault| format!("{name} {fault}"))
}

/// The values of one limit that were not used yet.
struct Fields(Table);

impl Fields {
    fn text(&mut self, name: &str) -> Result<String, String> {
        let value = self.0.remove(name).ok_or_else(|| format!("'{name}' is missing"))?;
        plain_text(&value).ok_or_else(|| format!("'{name}' must be a text or a number"))
    }

    fn units(&mut self, name: &str) -> Result<u32, String> {
        values::number(&self.text(name)?, 0, u32::MAX).map_err(|fault| format!("{name} {fault}"))
    }

    fn time(&mut self, name: &str) -> Result<Duration, String> {
        values::duration(&self.text(name)?).map_err(|fault| format!("{name} {fault}"))
    }
}

/// Reads one limit, which is `by` that unless it says otherwise.
fn limit(table: Table, by: LimitBy) -> Result<LimitConfig, String> {
    let mut fields = Fields(table);
    let by = match fields.0.contains_key("by") {
        true => values::one_of(&fields.text("by")?, &BY).map_err(|fault| format!("by {fault}"))?,
        false => by,
    };
    let words = ALGORITHMS.map(|(word, _)| (word, word));
    let algorithm = fields.text("algorithm")?;
    let algorithm = values::one_of(&algorithm, &words).map_err(|fault| format!("algorithm {fault}"))?;
    let known = ALGORITHMS.iter().find(|(word, _)| *word == algorithm).map_or(&[][..], |(_, known)| known);
    if let Some(unknown) = fields.0.keys().find(|name| !known.contains(&name.as_str())) {
        let close = suggestion(unknown, known.iter().copied());
        return Err(format!("a {algorithm} has no '{unknown}'{close}"));
    }
    let rule = match algorithm {
        "token-bucket" => Rule::TokenBucket {
            burst: fields.units("burst")?,
            refill: fields.units("refill")?,
            per: fields.time("per")?,
        },
        "sliding-window" => Rule::SlidingWindow { limit: fields.units("limit")?, window: fields.time("window")? },
        "fixed-window" => Rule::FixedWindow { limit: fields.units("limit")?, window: fields.time("window")? },
        _ => Rule::LeakyBucket { rate: fields.units("rate")?, per: fields.time("per")?, queue: fields.units("queue")? },
    };
    rule.check().map_err(|fault| fault.to_string())?;
    Ok(LimitConfig { by, rule })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<LimitsConfig, String> {
        LimitsConfig::usual(AuthMode::Keys).with(toml::from_str(text).unwrap())
    }

    fn bucket(burst: u32, refill: u32) -> Rule {
        Rule::TokenBucket { burst, refill, per: Duration::from_secs(1) }
    }

    #[test]
    fn what_applies_without_a_word_depends_on_who_may_call() {
        let (keys, open) = (LimitsConfig::usual(AuthMode::Keys), LimitsConfig::usual(AuthMode::Open));
        assert_eq!(keys.create, Some(LimitConfig { by: LimitBy::Key, rule: bucket(100, 10) }));
        assert_eq!(open.create, Some(LimitConfig { by: LimitBy::Address, rule: bucket(20, 1) }));
        assert_eq!((keys.redirect, keys.networks), (None, 16));
        let window = Rule::SlidingWindow { limit: 300, window: Duration::from_secs(60) };
        assert_eq!(keys.not_found, Some(LimitConfig { by: LimitBy::Address, rule: window }));
        for config in [keys, open] {
            for limit in [config.create, config.api, config.not_found].into_iter().flatten() {
                assert!(limit.rule.check().is_ok());
            }
        }
    }

    #[test]
    fn the_file_changes_what_it_names_and_nothing_else() {
        let read = read(
            "keys = 2048\nnetworks = 4\nnot_found = 'off'\n[create]\nby = 'both'\nalgorithm = 'leaky-bucket'\n\
             rate = 5\nper = '2s'\nqueue = 9\n[redirect]\nalgorithm = 'fixed-window'\nlimit = 1000\nwindow = '1m'",
        );
        let read = read.unwrap();
        let paced = Rule::LeakyBucket { rate: 5, per: Duration::from_secs(2), queue: 9 };
        assert_eq!(read.create, Some(LimitConfig { by: LimitBy::Both, rule: paced }));
        let window = Rule::FixedWindow { limit: 1_000, window: Duration::from_secs(60) };
        assert_eq!(read.redirect, Some(LimitConfig { by: LimitBy::Address, rule: window }));
        assert_eq!((read.keys, read.networks, read.not_found), (2_048, 4, None));
        assert_eq!(read.api, LimitsConfig::usual(AuthMode::Keys).api);
    }

    #[test]
    fn faults_are_told_with_their_place() {
        for (text, told) in [
            ("craete = 'off'", "[limits]: unknown key 'craete'; did you mean 'create'?"),
            ("keys = 1", "[limits]: keys must be a whole number from 1024"),
            ("networks = 0", "[limits]: networks must be a whole number from 1 to 65536"),
            (
                "[redirect]\nalgorithm = 'leaky-bucket'\nrate = 1\nper = '1s'\nqueue = 1000",
                "[limits.redirect]: queue must pass within 10 seconds",
            ),
            ("create = 'on'", "[limits]: create must be \"off\" or a table"),
            ("[api]\nby = 'ip'\nalgorithm = 'token-bucket'", "[limits.api]: by must be one of key, address, both"),
            ("[api]\nlimit = 1", "[limits.api]: 'algorithm' is missing"),
            ("[api]\nalgorithm = 'bucket'", "[limits.api]: algorithm must be one of token-bucket, "),
            (
                "[api]\nalgorithm = 'token-bucket'\nburts = 1",
                "[limits.api]: a token-bucket has no 'burts'; did you mean 'burst'?",
            ),
            ("[api]\nalgorithm = 'fixed-window'\nlimit = 1", "[limits.api]: 'window' is missing"),
            ("[api]\nalgorithm = 'fixed-window'\nlimit = 0\nwindow = '1s'", "[limits.api]: limit must be from 1 to "),
            ("[api]\nalgorithm = 'fixed-window'\nlimit = -1\nwindow = '1s'", "[limits.api]: limit must be a whole"),
            ("[api]\nalgorithm = 'fixed-window'\nlimit = 1\nwindow = 's'", "[limits.api]: window must be a time such"),
            (
                "[redirect]\nby = 'key'\nalgorithm = 'fixed-window'\nlimit = 1\nwindow = '1s'",
                "[limits.redirect]: by must be address: a redirect has no key",
            ),
        ] {
            let fault = read(text).unwrap_err();
            assert!(fault.starts_with(told), "{text}: {fault}");
        }
    }

    #[test]
    fn quotas_are_those_of_all_keys_and_of_single_ones() {
        assert_eq!(read("").unwrap().quota, Some(QuotaConfig::default()), "none, and counted");
        assert_eq!(LimitsConfig::off().quota, None);
        let quota = read("[quota]\nlinks = 1000\nkeys = { abcdefghij = 5, 0123456789 = 'off' }").unwrap().quota;
        let quota = quota.unwrap();
        let of = |id: &str| quota.keys.get(&KeyId::parse(id).unwrap());
        assert_eq!((quota.links, of("abcdefghij"), of("0123456789")), (Some(1_000), Some(&Some(5)), Some(&None)));
        for (text, told) in [
            ("quota = 5", "[limits]: quota must be a table [limits.quota]"),
            ("[quota]\nlinks = -1", "[limits.quota]: links must be a whole number from 0 to 1000000000000"),
            ("[quota]\nlnks = 1", "[limits.quota]: unknown key 'lnks'; did you mean 'links'?"),
            ("[quota]\nkeys = 1", "[limits.quota]: keys must be a table of ids"),
            ("[quota.keys]\nshort = 1", "[limits.quota]: 'short' is none of a key: a key's id is 10 of"),
            ("[quota.keys]\nabcdefghij = 'on'", "[limits.quota]: abcdefghij must be a whole number"),
        ] {
            let fault = read(text).unwrap_err();
            assert!(fault.starts_with(told), "{text}: {fault}");
        }
    }

    #[test]
    fn the_description_reads_back_as_the_same_limits() {
        for config in [
            LimitsConfig::usual(AuthMode::Keys),
            LimitsConfig::usual(AuthMode::Open),
            LimitsConfig::off(),
            read("networks = 65536").unwrap(),
            read("[quota]\nlinks = 1000\nkeys = { abcdefghij = 5, 0123456789 = 'off' }").unwrap(),
            read("[redirect]\nalgorithm = 'leaky-bucket'\nrate = 5\nper = '2s'\nqueue = 9").unwrap(),
        ] {
            let mut table: Table = toml::from_str(&config.describe(&Source::Default)).unwrap();
            let Some(Value::Table(limits)) = table.remove("limits") else { panic!("no [limits]") };
            assert_eq!(LimitsConfig::off().with(limits).unwrap(), config);
        }
    }
}
