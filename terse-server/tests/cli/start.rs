//! Starts: what is made, kept, refused.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use crate::program::{PATIENCE, Place};

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
    let ran = std::process::Command::new("sh").args(["-c", attempt]).current_dir("/").output().unwrap();
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
