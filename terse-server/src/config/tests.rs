use std::ffi::OsString;
use std::path::Path;

use super::clicks::{BusConfig, StatsConfig};
use super::*;
use crate::config::keys::KEYS;

/// The three layers above the defaults, as an operator writes them.
#[derive(Default)]
struct Setup<'a> {
    file: &'a str,
    environment: &'a [(&'a str, &'a str)],
    flags: &'a [(&'static Key, &'a str)],
}

impl Setup<'_> {
    fn load(&self) -> Result<Config, StartError> {
        let place = tempfile::tempdir().unwrap();
        if !self.file.is_empty() {
            std::fs::write(place.path().join("terse.toml"), self.file).unwrap();
        }
        self.load_in(place.path())
    }

    fn load_in(&self, directory: &Path) -> Result<Config, StartError> {
        Config::load(Inputs {
            flags: self.flags.iter().map(|(key, text)| (*key, (*text).to_owned())).collect(),
            environment: self.environment.iter().map(|(name, text)| (name.into(), text.into())).collect(),
            working_dir: directory.to_owned(),
            config_file: None,
        })
    }

    fn refused(&self) -> String {
        let error = self.load().err().unwrap_or_else(|| panic!("accepted: {:?} {:?}", self.file, self.environment));
        assert_eq!(error.exit, Exit::Config);
        assert!(!error.message.contains('\n'));
        error.message
    }
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let config = Setup::default().load().unwrap();
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.http.public_url.base, "http://localhost:8080");
    assert_eq!(config.data_dir, Path::new("./data"));
    assert_eq!(config.http.docs_dir.as_deref(), Some(Path::new("./target/book")));
    assert_eq!(config.store.shards[0].backend, ShardBackend::Sqlite { file: "links.sqlite".into() });
    assert_eq!(config.http.auth, AuthMode::Open);
    assert_eq!(config.http.redirect_status, RedirectStatus::Found);
    assert!(config.http.trusted_proxies.is_empty() && config.cache.shared.is_none());
    assert_eq!((&config.clicks.bus, &config.clicks.stats), (&BusConfig::Local, &StatsConfig::Sqlite));
    assert_eq!((config.clicks.journal_bytes, config.clicks.journal_sync), (2 << 30, true));
    assert!(config.clicks.obey_signals && config.clicks.countries.is_none() && config.analytics);
    assert_eq!(config.limits, limits::LimitsConfig::usual(AuthMode::Open));
    assert!(!config.allow_private_targets);
    assert_eq!(config.log.format, LogFormat::Auto);
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn flags_override_environment_overrides_file_overrides_default() {
    let file = "listen = '127.0.0.1:1'";
    let environment = &[("TERSE_LISTEN", "127.0.0.1:2")][..];
    let flags = &[(&keys::LISTEN, "127.0.0.1:3")][..];
    for (file, environment, flags, port, source) in [
        ("", &[][..], &[][..], 8080, "default"),
        (file, &[][..], &[][..], 1, "terse.toml"),
        (file, environment, &[][..], 2, "TERSE_LISTEN"),
        ("", environment, &[][..], 2, "TERSE_LISTEN"),
        (file, &[][..], flags, 3, "--listen"),
        (file, environment, flags, 3, "--listen"),
        ("", &[][..], flags, 3, "--listen"),
    ] {
        let config = Setup { file, environment, flags }.load().unwrap();
        assert_eq!(config.http.listen.port(), port);
        let shown = config.describe();
        let line = shown.lines().find(|line| line.starts_with("listen =")).unwrap();
        assert!(line.ends_with(source), "{line}");
    }
}

#[test]
fn every_key_can_be_set_in_every_layer() {
    for key in KEYS {
        let value = match key.default {
            Some(text) => text,
            None if key.name == "auth" => "keys",
            None if key.name == "stats" => "sqlite",
            None => "3",
        };
        let file = format!("{} = \"{value}\"", key.name);
        Setup { file: &file, ..Setup::default() }.load().unwrap();
        Setup { environment: &[(key.variable, value)], ..Setup::default() }.load().unwrap();
        let config = Setup { flags: &[(key, value)], ..Setup::default() }.load().unwrap();
        assert!(config.describe().lines().any(|line| line.ends_with(&format!("# --{}", key.flag))), "{}", key.name);
    }
}

#[test]
fn an_unknown_key_is_refused_wherever_it_stands() {
    let refused = Setup { file: "lisen = 'x'", ..Setup::default() }.refused();
    assert!(refused.ends_with("unknown key 'lisen'; did you mean 'listen'?"), "{refused}");
    let refused = Setup { environment: &[("TERSE_LISTN", "x")], ..Setup::default() }.refused();
    assert_eq!(refused, "unknown environment variable TERSE_LISTN; did you mean 'TERSE_LISTEN'?");
    assert!(Setup { environment: &[("TERSE_LISTN_FILE", "x")], ..Setup::default() }.refused().contains("TERSE_LISTEN"));
    assert!(Setup { file: "[listen]\nport = 1", ..Setup::default() }.refused().contains("'listen' must be"));
    let refused = Setup { file: "[[shard]]\nname='a'\nslot='0-4095'", ..Setup::default() }.refused();
    assert!(refused.contains("number 1: unknown key 'slot'; did you mean 'slots'?"), "{refused}");
    assert!(
        Setup { file: "[[shard]]\nname='a'\nslots='0-4095'", ..Setup::default() }
            .refused()
            .contains("'store' is missing")
    );
    assert!(Setup { file: "[shard]\nname='a'", ..Setup::default() }.refused().contains("[[shard]]"));
}

#[test]
fn variables_of_the_load_tests_and_of_others_are_ignored() {
    let environment = &[("TERSE_URL", "http://x"), ("TERSE_KEY", "trs_"), ("TERSENESS", "1"), ("LISTEN", "x")];
    Setup { environment, ..Setup::default() }.load().unwrap();
}

#[test]
fn a_broken_file_is_told_with_its_line() {
    let refused = Setup { file: "log = 'info'\nlisten = \n", ..Setup::default() }.refused();
    assert!(refused.contains("terse.toml line 2"), "{refused}");
    assert!(!Setup { file: "cache = redis://:s3cret@x", ..Setup::default() }.refused().contains("s3cret"));
}

#[test]
fn a_value_can_come_from_a_file() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("secret");
    std::fs::write(&path, "redis://:s3cret@cache/1\n").unwrap();
    let path = path.to_str().unwrap();
    let config = Setup { environment: &[("TERSE_CACHE_FILE", path)], ..Setup::default() }.load().unwrap();
    let shared = config.cache.shared.as_ref().unwrap();
    assert_eq!(shared.credentials(), Some((None, "s3cret".to_owned())));
    assert!(config.describe().contains(&format!("TERSE_CACHE_FILE ({path})")));
    let both = &[("TERSE_CACHE_FILE", path), ("TERSE_CACHE", "none")];
    assert!(Setup { environment: both, ..Setup::default() }.refused().contains("not both"));
    let missing = Setup { environment: &[("TERSE_CACHE_FILE", "/nowhere/x")], ..Setup::default() }.refused();
    assert!(missing.starts_with("TERSE_CACHE_FILE: cannot read /nowhere/x"), "{missing}");
}

#[test]
fn no_secret_is_ever_shown() {
    for (key, value) in [
        (&keys::STORE, "cql://me:s3cret@db/links"),
        (&keys::CACHE, "redis://me:s3cret@cache"),
        (&keys::BUS, "amqp://me:s3cret@bus/terse"),
    ] {
        let config = Setup { flags: &[(key, value)], ..Setup::default() }.load().unwrap();
        let shown = format!("{}{:?}{:?}", config.describe(), config, config.warnings);
        assert!(!shown.contains("s3cret") && !shown.contains("me:s"), "{}", key.name);
        assert!(config.describe().contains("://***@"));
        for broken in
            [format!("x{value}"), format!("{value} "), value.replace("://", ":/"), format!("{value}/x/y?z=s3cret")]
        {
            let refused = Setup { flags: &[(key, &broken)], ..Setup::default() }.refused();
            assert!(!refused.contains("s3cret"), "{refused}");
        }
    }
    let flags = &[(&keys::STATS, "cql://me:s3cret@db/stats"), (&keys::BUS, "amqp://bus")];
    let config = Setup { flags, ..Setup::default() }.load().unwrap();
    assert!(!format!("{}{config:?}", config.describe()).contains("s3cret"));
    let file = "[[shard]]\nname='a'\nslots='0-4095'\nstore='cql://me:s3cret@db/links'";
    let config = Setup { file, ..Setup::default() }.load().unwrap();
    assert!(!format!("{}{config:?}", config.describe()).contains("s3cret"));
}

#[test]
fn access_is_open_on_loopback_and_keyed_elsewhere() {
    let auth = |listen, auth: &[(&str, &str)]| {
        let mut environment = vec![("TERSE_LISTEN", listen)];
        environment.extend(auth);
        let config = Setup { environment: &environment, ..Setup::default() }.load().unwrap();
        (config.http.auth, config.warnings.iter().any(|w| w.contains("access is open")))
    };
    assert_eq!(auth("127.0.0.1:8080", &[]), (AuthMode::Open, false));
    assert_eq!(auth("[::1]:8080", &[]), (AuthMode::Open, false));
    assert_eq!(auth("0.0.0.0:8080", &[]), (AuthMode::Keys, false));
    assert_eq!(auth("192.0.2.1:8080", &[]), (AuthMode::Keys, false));
    assert_eq!(auth("0.0.0.0:8080", &[("TERSE_AUTH", "open")]), (AuthMode::Open, true));
    assert_eq!(auth("127.0.0.1:8080", &[("TERSE_AUTH", "keys")]), (AuthMode::Keys, false));
}

#[test]
fn the_book_is_looked_for_where_it_is_built_unless_told_otherwise() {
    let directory = |text: &str| {
        let config = Setup { environment: &[("TERSE_DOCS_DIR", text)], ..Setup::default() }.load();
        config.map(|config| config.http.docs_dir)
    };
    assert_eq!(directory("/srv/book").unwrap().as_deref(), Some(Path::new("/srv/book")));
    assert_eq!(directory("none").unwrap(), None);
    assert!(directory("a\0b").err().unwrap().message.contains("holds a NUL"));
    assert!(directory("").is_err());
}

#[test]
fn the_read_model_goes_with_the_click_log() {
    let stats = |environment: &[(&str, &str)]| Setup { environment, ..Setup::default() }.load().unwrap().clicks.stats;
    let (bus, store) = (("TERSE_BUS", "amqp://bus/terse"), ("TERSE_STORE", "cql://a,b/links"));
    for environment in [&[][..], &[store], &[bus], &[bus, store, ("TERSE_STATS", "sqlite")]] {
        assert_eq!(stats(environment), StatsConfig::Sqlite, "{environment:?}");
    }
    let beside = stats(&[bus, store]);
    assert!(matches!(&beside, StatsConfig::Cql(address) if address.keyspace == "links_stats"), "{beside:?}");
    let own = stats(&[bus, ("TERSE_STATS", "cql://c/own")]);
    assert!(matches!(&own, StatsConfig::Cql(address) if address.keyspace == "own"), "{own:?}");
    let refused = Setup { environment: &[("TERSE_STATS", "cql://c/own")], ..Setup::default() }.refused();
    assert!(refused.contains("need a message broker"), "{refused}");
}

#[test]
fn limits_stand_in_the_file_and_one_word_switches_all_of_them_off() {
    let file = "[limits]\napi = 'off'\n[limits.create]\nalgorithm = 'fixed-window'\nlimit = 5\nwindow = '1h'";
    let config = Setup { file, ..Setup::default() }.load().unwrap();
    let usual = limits::LimitsConfig::usual(AuthMode::Open);
    assert_eq!((config.limits.api, config.limits.not_found), (None, usual.not_found));
    assert_eq!(config.limits.create.map(|limit| limit.rule.quota()), Some(5));
    let off = [("TERSE_LIMITS", "off")];
    for file in [file, "", "limits = 'off'", "limits = 'on'"] {
        let config = Setup { file, environment: &off, ..Setup::default() }.load().unwrap();
        assert_eq!((config.limits, config.warnings), (limits::LimitsConfig::off(), vec![]));
    }
    let keys = Setup { environment: &[("TERSE_AUTH", "keys")], ..Setup::default() }.load().unwrap();
    assert_eq!(keys.limits, limits::LimitsConfig::usual(AuthMode::Keys));
    let refused = Setup { file: "[limits.crate]\nlimit = 5", ..Setup::default() }.refused();
    assert!(refused.contains("terse.toml: [limits]: unknown key 'crate'; did you mean 'create'?"), "{refused}");
}

#[test]
fn shards_stand_in_the_file_and_exclude_a_store() {
    let file = "[[shard]]\nname='a'\nslots='0-2047'\nstore='sqlite'\n\
                [[shard]]\nname='b'\nslots='2048-4095'\nstore='cql://me:pw@db/k'\n\
                translate={'10.0.0.1:9042'='127.0.0.1:9142'}";
    let config = Setup { file, ..Setup::default() }.load().unwrap();
    assert_eq!(config.store.map.names(), ["a", "b"]);
    assert_eq!(config.store.shards[0].backend, ShardBackend::Sqlite { file: "links-a.sqlite".into() });
    assert_eq!(config.store.shards[1].translate.len(), 1);
    let shown = config.describe();
    assert!(shown.contains("slots = \"2048-4095\"\nstore = \"cql://***@db/k\""), "{shown}");
    let refused = Setup { file, environment: &[("TERSE_STORE", "sqlite")], ..Setup::default() }.refused();
    assert!(refused.contains("[[shard]] and TERSE_STORE exclude each other"), "{refused}");
    let whole = format!("store='sqlite'\n{file}");
    assert!(Setup { file: &whole, ..Setup::default() }.refused().contains("[[shard]] and store exclude"));
}

#[test]
fn numbers_booleans_and_lists_may_be_written_as_such() {
    let file =
        "redirect_status = 301\nallow_private_targets = true\ntrusted_proxies = ['10.0.0.0/8', '::1']\nworkers = 2";
    let config = Setup { file, ..Setup::default() }.load().unwrap();
    assert_eq!(config.http.redirect_status, RedirectStatus::MovedPermanently);
    assert!(config.allow_private_targets);
    assert_eq!((config.http.trusted_proxies.len(), config.http.workers), (2, 2));
    assert!(Setup { file: "trusted_proxies = []", ..Setup::default() }.load().unwrap().http.trusted_proxies.is_empty());
}

#[test]
fn an_environment_that_is_not_utf_8_is_refused_by_name() {
    use std::os::unix::ffi::OsStringExt;
    let environment = vec![(OsString::from("TERSE_LISTEN"), OsString::from_vec(vec![0xff]))];
    let refused = Config::load(Inputs { environment, ..Inputs::default() }).err().unwrap();
    assert_eq!(refused.message, "TERSE_LISTEN: is not UTF-8");
}

#[test]
fn the_description_can_be_loaded_again() {
    let first = Setup { environment: &[("TERSE_LISTEN", "127.0.0.1:99")], ..Setup::default() }.load().unwrap();
    let file = first.describe();
    let again = Setup { file: &file, ..Setup::default() }.load().unwrap();
    assert_eq!(again.http.listen.port(), 99);
}
