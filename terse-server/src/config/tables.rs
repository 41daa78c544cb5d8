//! The keys of the tables of `terse.toml`. They are in the file alone: no flag and no variable sets them. What reads
//! them is [`raw`](super::raw) and [`limits`](mod@super::limits); tests hold this against what those take.

use terse_resilience::limit::MAX_KEYS;

use super::keys::Range;
use super::limits::{LEAST_KEYS, MAX_NETWORKS, MAX_QUOTA};

/// A table of the file.
pub struct Table {
    /// How it begins there.
    pub header: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Its keys.
    pub keys: &'static [TableKey],
}

/// A key of such a table.
pub struct TableKey {
    /// The name.
    pub name: &'static str,
    /// What kind of value it takes.
    pub value: &'static str,
    /// Which of these.
    pub range: Range,
    /// What applies without it.
    pub default: &'static str,
    /// What it is for.
    pub help: &'static str,
}

/// What a key has that can't be left out.
const NEEDED: &str = "must be there";
/// Which values those have that a rule checks.
const UNITS: Range = Range::Number(1, 1_000_000_000);

const fn key(name: &'static str, value: &'static str, default: &'static str, help: &'static str) -> TableKey {
    TableKey { name, value, range: Range::Any, default, help }
}

const fn number(name: &'static str, range: Range, default: &'static str, help: &'static str) -> TableKey {
    TableKey { name, value: "N", range, default, help }
}

/// All tables.
pub static TABLES: [Table; 5] = [
    Table {
        header: "[limits]",
        about: "Rate limits, on top of what applies without a word. The plain key `limits = \"off\"` switches all off.",
        keys: &[
            number(
                "keys",
                Range::Number(LEAST_KEYS as u64, MAX_KEYS as u64),
                "65536",
                "callers that each limit remembers",
            ),
            number(
                "networks",
                Range::Number(1, MAX_NETWORKS as u64),
                "16",
                "how many times the quota of one address all addresses of a /48 of IPv6 have together",
            ),
            key("create", LIMIT, BELOW, "creates, each item of a batch too"),
            key("api", LIMIT, BELOW, "all else below `/api/v1`"),
            key("redirect", LIMIT, BELOW, "redirects"),
            key("not_found", LIMIT, BELOW, "look-ups of codes that nobody has"),
            key("quota", "[limits.quota]", "off", "links that a key may create in a month of the calendar, UTC"),
        ],
    },
    Table {
        header: "[limits.create], [limits.api], [limits.redirect], [limits.not_found]",
        about: "One limit each. The keys behind `algorithm` are those of the algorithm, and all of them must be there.",
        keys: &[
            key(
                "by",
                "key|address|both",
                "`key` of `create` and `api`, else `address`",
                "what tells callers apart; of `redirect` and `not_found` only `address`",
            ),
            key("algorithm", "token-bucket|sliding-window|fixed-window|leaky-bucket", NEEDED, "how it is counted"),
            number("burst", UNITS, NEEDED, "token bucket: how many at once"),
            number("refill", UNITS, NEEDED, "token bucket: how many come back in `per`"),
            key("per", "TIME", NEEDED, "token bucket, leaky bucket: the time of `refill` or `rate`, `1ms` to `366d`"),
            number("limit", UNITS, NEEDED, "windows: how many in `window`"),
            key("window", "TIME", NEEDED, "windows: how long they are, `1ms` to `366d`"),
            number("rate", UNITS, NEEDED, "leaky bucket: how many pass in `per`"),
            key("queue", "N", NEEDED, "leaky bucket: how many wait; all of them must pass within `10s`"),
        ],
    },
    Table {
        header: "[limits.quota]",
        about: "What keys may create in a month.",
        keys: &[
            number("links", Range::Number(0, MAX_QUOTA), "off", "links of each key, or `\"off\"`"),
            key(
                "keys",
                "{ ID = N, … }",
                "none",
                "links of single keys, by the ids that `terse keys list` shows, or `\"off\"`",
            ),
        ],
    },
    Table {
        header: "[[shard]]",
        about: "Once for each shard, in place of the key `store`. The first has settings, API keys and leases.",
        keys: &[
            key("name", "NAME", NEEDED, "1 to 32 of `a-z`, `0-9` and `-`; a label of metrics"),
            key("slots", "A-B,…", NEEDED, "ranges of slots, of `0` to `4095`; each slot belongs to one shard"),
            key(
                "store",
                "STORE",
                NEEDED,
                "as the key `store`, or `sqlite:NAME` for another file of the data directory",
            ),
            key(
                "translate",
                "{ \"FROM\" = \"TO\", … }",
                "none",
                "addresses that the database tells, and those to use instead",
            ),
        ],
    },
    Table {
        header: "[abuse]",
        about: "Who is not let through.",
        keys: &[key("block_list", "FILE", "none", "the same as the key `blocklist`")],
    },
];

/// What the name of a limit is followed by.
const LIMIT: &str = "\"off\", or a table";
/// Where it says what applies without it.
const BELOW: &str = "see below";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::limits::{ALGORITHMS, LimitsConfig, NAMES, QUOTA_NAMES};
    use crate::config::raw::{ABUSE_BLOCK_LIST, SHARD_KEYS};

    fn names(header: &str) -> Vec<&'static str> {
        let table = TABLES.iter().find(|table| table.header.starts_with(header)).unwrap();
        table.keys.iter().map(|key| key.name).collect()
    }

    #[test]
    fn the_tables_have_the_keys_that_are_read() {
        assert_eq!(names("[limits]"), NAMES);
        assert_eq!(names("[limits.quota]"), QUOTA_NAMES);
        assert_eq!(names("[[shard]]"), SHARD_KEYS);
        assert_eq!(names("[abuse]"), [ABUSE_BLOCK_LIST]);
        let mut of_rules: Vec<&str> = ALGORITHMS.iter().flat_map(|(_, keys)| keys.iter().copied()).collect();
        of_rules.extend(["by", "algorithm"]);
        of_rules.sort_unstable();
        of_rules.dedup();
        let mut told = names("[limits.create]");
        told.sort_unstable();
        assert_eq!(told, of_rules);
    }

    #[test]
    fn algorithms_and_defaults_are_those_of_the_code() {
        let all = |header: &str| TABLES.iter().find(|table| table.header.starts_with(header)).unwrap();
        let words: Vec<&str> = ALGORITHMS.iter().map(|(word, _)| *word).collect();
        assert_eq!(all("[limits.create]").keys[1].value, words.join("|"));
        let off = LimitsConfig::off();
        let limits = all("[limits]").keys;
        assert_eq!((limits[0].default, limits[1].default), (&*off.keys.to_string(), &*off.networks.to_string()));
    }
}
