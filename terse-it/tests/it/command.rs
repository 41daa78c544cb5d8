//! The command line: what is refused in one line, and what each subcommand does.

use std::net::TcpListener;

use terse_it::{Finished, Setup, Stop, run};

/// Asserts exit code 64 and one line that names what is wrong.
#[track_caller]
fn assert_refused(ended: &Finished, named: &str) {
    assert_eq!(ended.code, Some(64), "{ended:?}");
    let lines: Vec<&str> = ended.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    assert_eq!(lines.len(), 1, "{ended:?}");
    assert!(lines[0].to_lowercase().contains(&named.to_lowercase()), "{named:?} in {ended:?}");
    assert!(ended.stdout.trim().is_empty(), "{ended:?}");
}

#[test]
fn unknown_and_bad_variables_are_one_line_and_64() {
    let table = [
        ("TERSE_LISTENN", "127.0.0.1:0", "TERSE_LISTENN"),
        ("TERSE_FOO", "1", "TERSE_FOO"),
        ("TERSE_", "1", "TERSE_"),
        ("TERSE_LISTEN", "nonsense", "listen"),
        ("TERSE_LISTEN", "127.0.0.1:99999", "listen"),
        ("TERSE_LISTEN", "", "listen"),
        ("TERSE_PUBLIC_URL", "ftp://example.com", "public_url"),
        ("TERSE_PUBLIC_URL", "not a url", "public_url"),
        ("TERSE_REDIRECT_STATUS", "200", "redirect_status"),
        ("TERSE_REDIRECT_STATUS", "abc", "redirect_status"),
        ("TERSE_AUTH", "maybe", "auth"),
        ("TERSE_STORE", "postgres://db", "store"),
        ("TERSE_STORE", "cql://", "store"),
        ("TERSE_CACHE", "memcached://x", "cache"),
        ("TERSE_BUS", "kafka://x", "bus"),
        ("TERSE_LIMITS", "sometimes", "limits"),
        ("TERSE_ALLOW_PRIVATE_TARGETS", "perhaps", "allow_private_targets"),
        ("TERSE_TRUSTED_PROXIES", "10.0.0.0/99", "trusted_proxies"),
        ("TERSE_LOG_FORMAT", "xml", "log_format"),
        ("TERSE_PUBLIC_URL_FILE", "/no/such/file", "/no/such/file"),
    ];
    for (name, value, named) in table {
        for command in ["check-config", "serve"] {
            assert_refused(&run(&[command], &[(name, value)]), named);
        }
    }
}

#[test]
fn unknown_and_bad_flags_are_one_line_and_64() {
    let table: [(&[&str], &str); 9] = [
        (&["serve", "--foo"], "--foo"),
        (&["serve", "--role", "wizard"], "wizard"),
        (&["serve", "--listen", "nonsense"], "listen"),
        (&["serve", "surplus"], "surplus"),
        (&["dance"], "dance"),
        (&["keys", "create", "--name", "n", "--role", "king"], "king"),
        (&["keys", "create", "--role", "admin"], "--name"),
        (&["keys", "create", "--name", "n", "--role", "admin", "--expires", "soon"], "expires"),
        (&["serve", "--config", "/no/such/file.toml"], "/no/such/file.toml"),
    ];
    for (arguments, named) in table {
        assert_refused(&run(arguments, &[]), named);
    }
}

#[test]
fn unknown_and_bad_keys_in_the_file_are_one_line_and_64() {
    let table = [
        ("listenn = \"127.0.0.1:0\"", "listenn"),
        ("redirect_status = 200", "redirect_status"),
        ("redirect_status = \"x\"", "redirect_status"),
        ("this is no toml", "terse.toml"),
        ("[[shard]]\nname = \"a\"\nslots = \"0-4094\"\nstore = \"sqlite\"", "4095"),
        ("[[shard]]\nname = \"a\"\nslots = \"0-4095\"\nstore = \"sqlite\"\ncolour = 1", "colour"),
        ("[[shard]]\nname = \"A B\"\nslots = \"0-4095\"\nstore = \"sqlite\"", "name"),
    ];
    for (text, named) in table {
        assert_refused(&Setup::new().file(text).run(&["check-config"]), named);
    }
}

#[test]
fn the_load_tests_variables_are_ignored() {
    let server = Setup::new().env("TERSE_URL", "anything").env("TERSE_KEY", "anything").start();
    assert_eq!(server.client().get("/livez").status, 200);
}

#[test]
fn flags_override_variables_which_override_the_file() {
    let file = Setup::new().file("redirect_status = 307\npublic_url = \"https://file.example\"\n");
    let status = |setup: &Setup| {
        let server = setup.start();
        let client = server.client();
        client.visit(&client.shorten("https://example.com/")).status
    };
    assert_eq!(status(&file), 307);
    assert_eq!(status(&file.clone().env("TERSE_REDIRECT_STATUS", "308")), 308);
    assert_eq!(status(&file.clone().env("TERSE_REDIRECT_STATUS", "308").flag("--redirect-status=301")), 301);
    let server = file.start();
    let link = server.client().create(&serde_json::json!({ "url": "https://example.com/" }));
    assert!(link["short_url"].as_str().unwrap().starts_with("https://file.example/"), "{link}");
}

#[test]
fn values_may_come_from_files() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("status");
    std::fs::write(&path, "307\n").unwrap();
    let server = Setup::new().env("TERSE_REDIRECT_STATUS_FILE", path.to_str().unwrap()).start();
    let client = server.client();
    assert_eq!(client.visit(&client.shorten("https://example.com/")).status, 307);
}

#[test]
fn check_config_tells_the_configuration_and_never_a_password() {
    let told = run(
        &["check-config"],
        &[("TERSE_CACHE", "redis://user:hunter2@10.1.2.3/0"), ("TERSE_PUBLIC_URL", "https://go.example.net")],
    );
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.stdout.contains("go.example.net"), "{told:?}");
    assert!(!format!("{told:?}").contains("hunter2"), "{told:?}");
}

#[test]
fn migrate_runs_again_and_again() {
    let setup = Setup::new();
    for _ in 0..2 {
        let ended = setup.run(&["migrate"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    let server = setup.start();
    server.client().shorten("https://example.com/");
}

#[test]
fn help_and_version_are_answered() {
    for arguments in [["--help"], ["--version"], ["-h"]] {
        let ended = run(&arguments, &[]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(!ended.stdout.is_empty(), "{ended:?}");
    }
    let help = run(&["--help"], &[]).stdout;
    for name in ["serve", "migrate", "check-config", "keys", "shards", "dead", "replay", "estimate", "quiz"] {
        assert!(help.contains(name), "{name} in {help}");
    }
}

#[test]
fn whoever_reads_only_the_beginning_is_answered() {
    // Its reader is gone before it writes.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut program = std::process::Command::new(terse_it::binary());
    let output =
        program.args(["serve", "--help"]).stdout(writer).stderr(std::process::Stdio::piped()).output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn subcommands_that_need_no_server_say_something() {
    for arguments in [
        vec!["shards", "show", "skew"],
        vec!["shards", "show", "abc"],
        vec!["shards", "show", "leases"],
        vec!["dead", "--help"],
        vec!["replay", "--help"],
        vec!["estimate"],
        vec!["quiz"],
    ] {
        let ended = run(&arguments, &[]);
        assert!(!matches!(ended.code, Some(64 | 101) | None), "{arguments:?} is not known: {ended:?}");
        assert!(!ended.stderr.is_empty() || !ended.stdout.is_empty(), "{arguments:?} says nothing");
    }
}

#[test]
fn a_port_in_use_is_told_in_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = run(&["serve"], &[("TERSE_LISTEN", &address)]);
    assert!(!matches!(ended.code, Some(0 | 101) | None), "{ended:?}");
    assert!(ended.stderr.contains(&address), "{ended:?}");
}

#[test]
fn a_start_tells_where_how_protected_and_what_to_try() {
    for (auth, protection) in [("open", "open"), ("keys", "keys")] {
        let mut server = Setup::new().env("TERSE_AUTH", auth).start();
        let address = server.address().to_string();
        let output = server.stop(Stop::Politely).stdout;
        assert!(output.contains(&address), "{output}");
        assert!(output.contains(protection), "{output}");
        let line =
            output.lines().find(|line| line.contains("curl ")).unwrap_or_else(|| panic!("no curl line in {output}"));
        assert!(line.contains(&address) && line.contains("/api/v1/links"), "{line}");
    }
}

#[test]
fn the_curl_line_of_an_open_server_works() {
    let server = Setup::new().start();
    let output = server.output();
    let line = output.lines().find_map(|line| line.find("curl ").map(|at| &line[at..])).unwrap();
    let ran = std::process::Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(ran.status.success(), "{line}: {ran:?}");
    assert_eq!(server.client().all_links(50).len(), 1, "{line}: {ran:?}");
}
