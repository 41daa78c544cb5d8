//! The configuration as `check-config` prints it, and what is worth a warning.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::clicks::BusConfig;
use super::raw::Source;
use super::shards::ShardBackend;
use super::{AuthMode, Config, HttpConfig, keys};

impl Config {
    /// The effective configuration: each key with its value, secrets left out,
    /// and where it comes from, in the form of a `terse.toml`.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let limited = self.shown.iter().find(|shown| shown.key.name == keys::LIMITS.name && shown.value == "on");
        for key in keys::KEYS {
            // The name of the table below, which says it all.
            if limited.is_some() && key.name == keys::LIMITS.name {
                continue;
            }
            let Some(shown) = self.shown.iter().find(|shown| shown.key.name == key.name) else { continue };
            let assignment = format!("{} = {}", key.name, serde_json::Value::String(shown.value.clone()));
            let _ = writeln!(text, "{assignment:<50} # {}", shown.source);
        }
        text.extend(limited.map(|shown| self.limits.describe(&shown.source)));
        if self.shown.iter().any(|shown| shown.key.name == keys::STORE.name) {
            return text;
        }
        for (number, shard) in self.store.shards.iter().enumerate() {
            let store = match &shard.backend {
                ShardBackend::Sqlite { file } => {
                    let name = file.trim_start_matches("links-").trim_end_matches(".sqlite");
                    format!("sqlite:{name}")
                }
                ShardBackend::Cql(address) => address.url.to_string(),
            };
            let _ = write!(
                text,
                "\n[[shard]]\nname = \"{}\"\nslots = \"{}\"\nstore = \"{store}\"\n",
                shard.name,
                self.store.map.slots_text(number)
            );
            if !shard.translate.is_empty() {
                let pairs: Vec<String> =
                    shard.translate.iter().map(|(from, to)| format!("\"{from}\" = \"{to}\"")).collect();
                let _ = writeln!(text, "translate = {{ {} }}", pairs.join(", "));
            }
        }
        text
    }
}

/// What the operator should know, one line each.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = vec![];
    let http = &config.http;
    if http.auth == AuthMode::Open && !http.listen.ip().is_loopback() {
        warnings.push(format!("access is open on {}: everybody who reaches it is an admin", http.listen));
    } else if http.auth == AuthMode::Open && is_proxied(http) {
        let whom = "whoever a proxy lets through is an admin";
        warnings.push(format!("access is open on {}: {whom}; auth = \"keys\" asks for keys", http.listen));
    }
    // The default leads to who tries it out on one machine. Another port, keys or proxies tell of something else.
    let loopback = http.listen.ip().is_loopback() && http.listen.port() == 8080;
    let tried_out = loopback && http.auth == AuthMode::Open && http.trusted_proxies.is_empty();
    if *config.source(&keys::PUBLIC_URL) == Source::Default && !tried_out {
        warnings.push(format!("public_url is not set: short URLs begin with {}", http.public_url.base));
    }
    let shared = config.store.shards.iter().any(|shard| matches!(shard.backend, ShardBackend::Cql(_)));
    if shared && config.clicks.bus == BusConfig::Local {
        warnings.push("clicks are counted for this data directory alone: other servers' don't add up".to_owned());
    }
    if config.shutdown.drain_delay > config.shutdown.grace_period {
        warnings.push("drain_delay is longer than grace_period and will be cut short".to_owned());
    }
    warnings
}

/// Whether others than programs on this machine are expected, though it listens on loopback.
fn is_proxied(http: &HttpConfig) -> bool {
    let host = http.public_url.host.as_str();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let is_own = host == "localhost" || host.ends_with(".localhost") || address.is_ok_and(|ip| ip.is_loopback());
    !is_own || !http.trusted_proxies.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::Key;
    use crate::config::raw::Inputs;

    fn config(flags: &[(&'static Key, &str)]) -> Config {
        let flags = flags.iter().map(|(key, text)| (*key, (*text).to_owned())).collect();
        Config::load(Inputs { flags, ..Inputs::default() }).unwrap()
    }

    #[test]
    fn every_key_is_described_once_in_the_order_of_the_table() {
        let described = config(&[]).describe();
        let (keys, limits) = described.split_once("\n\n").unwrap();
        let names: Vec<&str> = keys.lines().filter_map(|line| line.split(" = ").next()).collect();
        let expected: Vec<&str> = keys::KEYS.iter().map(|key| key.name).filter(|name| *name != "limits").collect();
        assert_eq!(names, expected);
        assert!(limits.starts_with("[limits] # default\nkeys = 65536\nnetworks = 16\n"), "{limits}");
    }

    #[test]
    fn defaults_that_follow_from_other_keys_are_described_as_they_come_out() {
        let flags = [(&keys::LISTEN, "0.0.0.0:1"), (&keys::STORE, "cql://h/links"), (&keys::BUS, "amqp://h/v")];
        let described = config(&flags).describe();
        assert!(described.contains("auth = \"keys\""), "{described}");
        assert!(described.contains("stats = \"cql://h/links_stats\""), "{described}");
    }

    #[test]
    fn a_value_cannot_break_out_of_its_line() {
        let described = config(&[(&keys::DATA_DIR, "a\"\nlisten = \"x")]).describe();
        assert!(described.contains(r#"data_dir = "a\"\nlisten = \"x""#), "{described}");
        let keys = described.lines().take_while(|line| !line.is_empty());
        assert_eq!(keys.count(), keys::KEYS.len() - 1);
    }

    #[test]
    fn a_described_configuration_can_be_read_back() {
        for limits in ["on", "off"] {
            let described = config(&[(&keys::LIMITS, limits)]).describe();
            let table: toml::Table = toml::from_str(&described).unwrap();
            assert_eq!(table["limits"].is_table(), limits == "on", "{described}");
        }
    }

    #[test]
    fn odd_combinations_are_warned_of() {
        let warned = |flags: &[(&'static Key, &str)], told: &str| {
            let warnings = config(flags).warnings;
            assert!(warnings.len() == 1 && warnings[0].contains(told), "{warnings:?}");
        };
        let told = "short URLs begin with http://localhost:8080";
        warned(&[(&keys::LISTEN, "10.0.0.1:9")], told);
        warned(&[(&keys::LISTEN, "0.0.0.0:8080")], told);
        warned(&[(&keys::AUTH, "keys")], told);
        let proxy = (&keys::TRUSTED_PROXIES, "127.0.0.1/32");
        warned(&[proxy, (&keys::AUTH, "keys")], told);
        let open = config(&[proxy]).warnings;
        assert!(
            open.len() == 2 && open[0].contains("whoever a proxy lets through") && open[1].contains(told),
            "{open:?}"
        );
        warned(&[(&keys::LISTEN, "127.0.0.1:9")], told);
        warned(&[(&keys::STORE, "cql://h/links")], "other servers' don't add up");
        warned(&[(&keys::DRAIN_DELAY, "30s")], "drain_delay is longer than grace_period");
        let url = (&keys::PUBLIC_URL, "https://trs.example");
        warned(&[(&keys::LISTEN, "0.0.0.0:8080"), (&keys::AUTH, "open"), url], "everybody who reaches it is an admin");
        warned(&[url], "whoever a proxy lets through is an admin; auth = \"keys\"");
        assert!(config(&[url, (&keys::AUTH, "keys")]).warnings.is_empty());
        for own in ["http://localhost:9", "http://trs.localhost", "http://127.0.0.1:9", "http://[::1]:9"] {
            let set = [(&keys::LISTEN, "127.0.0.1:9"), (&keys::PUBLIC_URL, own)];
            assert_eq!(config(&set).warnings, Vec::<String>::new(), "{own}");
        }
    }
}
