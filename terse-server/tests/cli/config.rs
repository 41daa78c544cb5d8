//! Configuration and command line, as an operator meets them.

use crate::program::Place;

#[test]
fn every_bad_value_is_one_line_and_exit_code_64() {
    for (variable, value, told) in [
        ("TERSE_LISTEN", "8080", "must be an address and a port"),
        ("TERSE_LISTEN", "", "is empty"),
        ("TERSE_PUBLIC_URL", "trs.example", "must begin with http:// or https://"),
        ("TERSE_PUBLIC_URL", "https://trs.example/s", "no path, query or fragment"),
        ("TERSE_DATA_DIR", "", "is empty"),
        ("TERSE_STORE", "sqlit", "did you mean 'sqlite'?"),
        ("TERSE_STORE", "postgres://u:s3cret@h/d", "must be sqlite or cql://"),
        ("TERSE_STORE", "cql://h", "needs a keyspace"),
        ("TERSE_STORE", "cql://h/k?replication=x", "replication"),
        ("TERSE_STATS", "cql://h:port/k", "port"),
        ("TERSE_STATS", "mysql", "must be sqlite or cql://"),
        ("TERSE_CACHE", "memcached://h", "must be none or redis://"),
        ("TERSE_CACHE", "redis://u:s3cret@h/db", "database number"),
        ("TERSE_BUS", "kafka", "must be local or amqp://"),
        ("TERSE_BUS", "amqp://u:s3cret@/v", "needs a host"),
        ("TERSE_AUTH", "opne", "did you mean 'open'?"),
        ("TERSE_REDIRECT_STATUS", "303", "must be one of 301, 302, 307, 308"),
        ("TERSE_TRUSTED_PROXIES", "10.0.0.1/8", "did you mean '10.0.0.0/8'?"),
        ("TERSE_LIMITS", "maybe", "must be one of on, off"),
        ("TERSE_ALLOW_PRIVATE_TARGETS", "yes", "must be one of true, false"),
        ("TERSE_LOG", "inof", "did you mean 'info'?"),
        ("TERSE_LOG", "terse=loud", "is not a log filter"),
        ("TERSE_LOG_FORMAT", "xml", "must be one of auto, pretty, json"),
        ("TERSE_WORKERS", "0", "from 1 to 256"),
        ("TERSE_GRACE_PERIOD", "20", "must be a time such as"),
        ("TERSE_CACHE_BYTES", "64", "must be a size such as"),
    ] {
        for command in ["serve", "check-config"] {
            let ended = Place::new().with(variable, value).run(&[command]);
            let line = ended.refusal(64);
            assert!(line.starts_with(&format!("terse: {variable}: ")) && line.contains(told), "{line}");
            assert!(!line.contains("s3cret"), "{line}");
        }
        let flag = format!("--{}={value}", variable["TERSE_".len()..].to_lowercase().replace('_', "-"));
        let ended = Place::new().run(&["serve", &flag]);
        assert!(ended.refusal(64).contains(told), "{flag}: {}", ended.err);
    }
}

#[test]
fn an_unknown_key_is_one_line_and_exit_code_64_in_all_three_places() {
    let line = Place::new().with("TERSE_LISTN", "x").run(&["serve"]);
    assert!(line.refusal(64).contains("did you mean 'TERSE_LISTEN'?"));
    let line = Place::new().run(&["serve", "--listn", "x"]);
    assert!(line.refusal(64).contains("did you mean '--listen'?"), "{}", line.err);
    let place = Place::new();
    place.write("terse.toml", "listn = 'x'");
    assert!(place.run(&["serve"]).refusal(64).contains("did you mean 'listen'?"));
    place.write("other.toml", "[listen");
    assert!(place.run(&["serve", "--config", "other.toml"]).refusal(64).contains("other.toml line 1"));
    assert!(place.run(&["serve", "--config", "absent.toml"]).refusal(64).contains("cannot read absent.toml"));
}

#[test]
fn usage_errors_are_one_line_and_exit_code_64() {
    let place = Place::new();
    for arguments in [
        &["serf"][..],
        &["serve", "now"],
        &["serve", "--role", "everything"],
        &["serve", "--listen"],
        &["keys", "create", "--name", "x"],
        &["keys", "create", "--name", "x", "--role", "root"],
        &["keys", "create", "--name", "x", "--role", "admin", "--expires", "tomorrow"],
        &["keys", "revoke"],
        &["keys", "revoke", "short"],
        &["dead", "bury"],
    ] {
        assert!(place.run(arguments).refusal(64).starts_with("terse: "), "{arguments:?}");
    }
    let ended = place.run(&[]);
    assert_eq!(ended.code, Some(64));
    assert!(ended.err.contains("Usage: terse") && ended.out.is_empty());
}

#[test]
fn check_config_shows_each_key_with_its_source_and_no_secret() {
    let place = Place::new().with("TERSE_LISTEN", "0.0.0.0:80").with("TERSE_AUTH", "open").with("TERSE_URL", "x");
    place.write("cache", "redis://me:s3cret@cache:6379\n");
    place.write("terse.toml", "public_url = 'https://trs.example'\nlisten = '127.0.0.1:1'");
    let place = place.with("TERSE_CACHE_FILE", "cache");
    let ended = place.run(&["check-config", "--log", "debug"]);
    let line = |name: &str| {
        let start = format!("{name} = ");
        let line = ended.success().lines().find(|line| line.starts_with(&start)).unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("listen"), r#"listen = "0.0.0.0:80" # TERSE_LISTEN"#);
    assert!(line("public_url").starts_with(r#"public_url = "https://trs.example" # "#));
    assert!(line("public_url").ends_with("terse.toml"));
    assert_eq!(line("log"), r#"log = "debug" # --log"#);
    assert_eq!(line("cache"), r#"cache = "redis://***@cache:6379" # TERSE_CACHE_FILE (cache)"#);
    assert_eq!(line("store"), r#"store = "sqlite" # default"#);
    assert!(ended.err.contains("warning: access is open on 0.0.0.0:80"), "{}", ended.err);
    assert!(!format!("{}{}", ended.out, ended.err).contains("s3cret"));
    assert!(!place.path().join("data").exists(), "checking changes nothing");
}

#[test]
fn the_help_names_every_key_of_the_contract() {
    let place = Place::new();
    let help = place.run(&["serve", "--help"]);
    for key in [
        "LISTEN",
        "PUBLIC_URL",
        "DATA_DIR",
        "STORE",
        "STATS",
        "CACHE",
        "BUS",
        "AUTH",
        "REDIRECT_STATUS",
        "TRUSTED_PROXIES",
        "LIMITS",
        "ALLOW_PRIVATE_TARGETS",
        "LOG",
        "LOG_FORMAT",
    ] {
        let flag = format!("--{}", key.to_lowercase().replace('_', "-"));
        assert!(help.success().contains(&format!("TERSE_{key} ")) && help.out.contains(&flag), "{key}");
    }
    let help = place.run(&["--help"]);
    for command in ["serve", "migrate", "check-config", "keys", "shards", "dead", "replay", "estimate", "quiz"] {
        assert!(help.success().contains(&format!("\n  {command} ")), "{command}");
    }
    assert_eq!(place.run(&["--version"]).success().trim(), concat!("terse ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn an_estimate_and_a_quiz_need_no_store_and_no_configuration() {
    let place = Place::new().with("TERSE_STORE", "no such store");
    assert!(place.run(&["estimate"]).success().contains("redirects"));
    assert!(place.run(&["quiz", "--seed", "7"]).success().ends_with("0 of 0 right (seed 7)\n"), "nobody answers");
    assert!(place.run(&["estimate", "--links", "many"]).refusal(64).contains("--links must be a number"));
    assert!(place.run(&["quiz", "--step", "6"]).refusal(64).contains("--step"));
    assert!(!place.path().join("data").exists());
}

#[test]
fn where_all_clicks_could_be_counted_nothing_is_listed_as_dead() {
    let place = Place::new();
    place.run(&["migrate"]).success();
    let listed = place.run(&["dead", "list"]);
    assert_eq!((listed.success(), listed.err.as_str()), ("", "there is nothing that could not be counted\n"));
}

#[test]
fn where_no_server_was_nothing_is_told_of_its_data() {
    let place = Place::new();
    for arguments in [
        &["dead", "list"][..],
        &["dead", "requeue", "--all"],
        &["dead", "discard", "--all", "--yes"],
        &["replay", "--into", "fresh.sqlite"],
        &["keys", "list"],
        &["keys", "revoke", "0000000000"],
    ] {
        let ended = place.run(arguments);
        assert!(ended.refusal(64).contains("no data directory ./data"), "{arguments:?}: {}", ended.err);
    }
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "nothing was made");
}

#[test]
fn a_store_out_of_reach_is_told_without_its_password() {
    let ended = Place::new().with("TERSE_STORE", "cql://me:s3cret@127.0.0.1:1/links").run(&["keys", "list"]);
    let told = ended.refusal(69);
    assert!(told.contains("127.0.0.1:1") && !told.contains("s3cret"), "{}", ended.err);
}
