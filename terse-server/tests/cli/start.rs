//! Starts: what is made, kept, refused.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use crate::program::{PATIENCE, Place, within_a_second};

#[test]
fn the_greeting_tells_the_real_address_and_a_line_that_works() {
    let place = Place::new();
    let server = place.serve(&[]);
    assert_ne!(server.address.port(), 0);
    assert!(server.greeting[1].contains("open on loopback"));
    let attempt = server.greeting[2].strip_prefix("Try: ").unwrap();
    assert!(attempt.contains(&format!("http://{}/api/v1/links", server.address)), "{attempt}");
    let ran = std::process::Command::new("sh").args(["-c", attempt]).output().unwrap();
    assert!(String::from_utf8_lossy(&ran.stdout).contains("\"short_url\""), "{ran:?}");
    assert_eq!(server.get("/readyz").0, 200);
}

#[test]
fn the_line_to_try_works_with_keys_too() {
    let place = Place::new();
    let server = place.serve(&["--auth", "keys"]);
    assert!(server.greeting[1].contains("keys create"));
    let attempt = server.greeting[2].strip_prefix("Try: ").unwrap();
    let mut shell = std::process::Command::new("sh");
    // What names the tests' tools would be refused as unknown configuration.
    std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TERSE_")).for_each(|(name, _)| {
        shell.env_remove(name);
    });
    let ran = shell.args(["-c", attempt]).current_dir("/").output().unwrap();
    assert!(String::from_utf8_lossy(&ran.stdout).contains("\"short_url\""), "{ran:?}");
}

#[test]
fn a_second_start_keeps_links_settings_and_the_sequence_of_codes() {
    let place = Place::new();
    let server = place.serve(&[]);
    assert_eq!(server.create("kept", None), 201);
    let identity = std::fs::read(place.path().join("data/identity.json")).unwrap();
    server.signal("TERM");
    assert!(server.end(PATIENCE).0.success());
    let server = place.serve(&[]);
    let (status, answer) = server.get("/kept");
    assert_eq!(status, 302);
    assert!(answer.to_lowercase().contains("location: https://example.com/kept"), "{answer}");
    assert_eq!(server.create("kept", None), 409);
    assert_eq!(std::fs::read(place.path().join("data/identity.json")).unwrap(), identity);
}

#[test]
fn files_are_readable_by_their_owner_alone() {
    let place = Place::new();
    std::fs::create_dir(place.path().join("data")).unwrap();
    let _server = place.serve(&[]);
    for entry in std::fs::read_dir(place.path().join("data")).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o077;
        assert_eq!(mode, 0, "{:?}", entry.file_name());
    }
}

#[test]
fn one_server_at_a_time_uses_a_data_directory() {
    let place = Place::new();
    let server = place.serve(&[]);
    let refused = place.run(&["serve", "--listen", "127.0.0.1:0"]);
    let line = refused.refusal(75);
    assert!(line.contains("another terse serves from the data directory") && line.contains("./data"), "{line}");
    place.run(&["keys", "list"]).success();
    place.run(&["migrate"]).success();
    assert_eq!(server.get("/livez").0, 200);
}

#[test]
fn a_port_in_use_is_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = Place::new().run(&["serve", "--listen", &address]);
    assert!(ended.refusal(69).contains(&format!("cannot listen on {address}")), "{}", ended.err);
}

#[test]
fn a_data_directory_that_cannot_be_made_is_one_line() {
    let place = Place::new();
    place.write("data", "");
    assert!(place.run(&["serve", "--listen", "127.0.0.1:0"]).refusal(73).contains("data directory ./data"));
}

#[test]
fn a_file_that_is_no_store_is_one_line() {
    let place = Place::new();
    std::fs::create_dir(place.path().join("data")).unwrap();
    place.write("data/links.sqlite", &"this is not a database ".repeat(500));
    let ended = place.run(&["serve", "--listen", "127.0.0.1:0"]);
    assert!(ended.refusal(74).contains("links.sqlite"), "{}", ended.err);
}

#[test]
fn a_shard_map_that_changed_is_refused() {
    let place = Place::new();
    let shards = |split: u16| {
        format!(
            "[[shard]]\nname='a'\nslots='0-{}'\nstore='sqlite'\n\
             [[shard]]\nname='b'\nslots='{split}-4095'\nstore='sqlite'",
            split - 1
        )
    };
    place.write("terse.toml", &shards(2048));
    let server = place.serve(&[]);
    assert_eq!((server.create("0a", None), server.create("zz", None)), (201, 201));
    server.signal("TERM");
    assert!(server.end(PATIENCE).0.success());
    place.write("terse.toml", &shards(2000));
    assert!(place.run(&["serve", "--listen", "127.0.0.1:0"]).refusal(64).contains("owns the slots 0-2047"));
    assert!(place.run(&["migrate"]).refusal(64).contains("owns the slots 0-2047"));
    place.write("terse.toml", &shards(2048));
    let server = place.serve(&[]);
    assert_eq!((server.get("/0a").0, server.get("/zz").0), (302, 302));
}

#[test]
fn roles_decide_what_is_served() {
    let place = Place::new();
    let server = place.serve(&[]);
    assert_eq!(server.create("role", None), 201);
    server.signal("TERM");
    server.end(PATIENCE);
    for (role, redirect, api) in [("redirect", 302, 404), ("api", 404, 200), ("analytics", 404, 404)] {
        let server = place.serve(&["--role", role]);
        assert_eq!(server.get("/role").0, redirect, "{role}");
        assert_eq!(server.get("/api/v1/links").0, api, "{role}");
        for path in ["/livez", "/readyz", "/health", "/metrics"] {
            assert_eq!(server.get(path).0, 200, "{role} {path}");
        }
        server.signal("TERM");
        assert!(server.end(PATIENCE).0.success());
    }
}

#[test]
fn migrating_first_changes_nothing_for_the_server() {
    let place = Place::new();
    let migrated = place.run(&["migrate"]);
    let deployment = migrated.success().lines().last().unwrap().to_owned();
    assert!(migrated.out.contains("shard 'main' on sqlite (links.sqlite)"), "{}", migrated.out);
    let server = place.serve(&[]);
    assert_eq!(server.create("migrated", None), 201);
    assert_eq!(place.run(&["migrate"]).success().lines().last(), Some(deployment.as_str()));
    assert_eq!(server.get("/migrated").0, 302);
}

#[test]
fn settings_reach_the_answers() {
    let place = Place::new();
    place.write("terse.toml", "redirect_status = 308\nredirect_max_age = '90s'\npublic_url = 'https://trs.example'");
    let server = place.serve(&["--allow-private-targets", "true"]);
    let body = r#"{"url":"http://10.1.2.3/","alias":"inside"}"#;
    let (status, answer) = server.request("POST", "/api/v1/links", &["Content-Type: application/json"], body);
    assert_eq!(status, 201, "{answer}");
    assert!(answer.contains("https://trs.example/inside"), "{answer}");
    let (status, answer) = server.get("/inside");
    assert_eq!(status, 308);
    assert!(answer.to_lowercase().contains("cache-control: private, max-age=90"), "{answer}");
    let body = r#"{"url":"https://trs.example/x"}"#;
    assert_eq!(server.request("POST", "/api/v1/links", &["Content-Type: application/json"], body).0, 422);
}

#[test]
fn a_killed_server_leaves_nothing_that_hinders_the_next() {
    let place = Place::new();
    let server = place.serve(&[]);
    assert_eq!(server.create("killed", None), 201);
    server.signal("KILL");
    assert!(!server.end(PATIENCE).0.success());
    assert_eq!(place.serve(&[]).get("/killed").0, 302);
}

#[test]
fn a_cache_out_of_reach_is_warned_of_and_does_not_hinder_serving() {
    let place = Place::new().with("TERSE_CACHE", "redis://u:s3cret@127.0.0.1:1");
    let server = place.serve(&[]);
    assert_eq!(server.get("/readyz").0, 200);
    let mut log = vec![server.logged("the cache is out of reach; redirects go on without it")];
    assert!(log[0].contains("WARN"), "{log:?}");
    server.signal("TERM");
    log.extend(server.end(PATIENCE).1);
    assert!(log.iter().all(|line| !line.contains("s3cret")));
}

#[test]
fn of_many_servers_that_start_at_once_exactly_one_serves() {
    let place = Place::new();
    // Long enough that none has ended before all have tried.
    let mut children: Vec<_> =
        (0..6).map(|_| place.spawn(&["serve", "--listen", "127.0.0.1:0", "--drain-delay", "0s"])).collect();
    let deadline = std::time::Instant::now() + PATIENCE;
    let refused = |children: &mut Vec<crate::program::Running>| children.iter_mut().filter_map(|c| c.code()).count();
    while refused(&mut children) < 5 {
        assert!(std::time::Instant::now() < deadline, "the servers are not refused");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let codes: Vec<i32> = children.iter_mut().filter_map(|child| child.code()).collect();
    assert_eq!(codes, [75; 5]);
}

#[test]
fn a_server_comes_up_while_keys_are_made_beside_it() {
    let place = Place::new();
    std::thread::scope(|scope| {
        let commands: Vec<_> = (0..6)
            .map(|number| {
                let (place, name) = (&place, format!("key-{number}"));
                scope.spawn(move || place.run(&["keys", "create", "--role", "writer", "--name", &name]))
            })
            .collect();
        let server = place.serve(&["--auth", "keys"]);
        for command in commands {
            let ended = command.join().unwrap();
            let key = ended.success().trim().to_owned();
            let alias = &key[4..14];
            assert!(within_a_second(|| server.create(alias, Some(&key)) == 201), "{key}");
        }
    });
    assert_eq!(place.run(&["keys", "list"]).success().lines().count(), 7);
}
