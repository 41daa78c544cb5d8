//! What admins block, over a restart.

use crate::program::{PATIENCE, Place, Server, within_a_second};

const JSON: &str = "Content-Type: application/json";

/// Two shards, of which this is the first one's store.
fn shards(first: &str) -> String {
    format!(
        "[[shard]]\nname='a'\nslots='0-2047'\nstore='{first}'\n[[shard]]\nname='b'\nslots='2048-4095'\nstore='sqlite'"
    )
}

fn post(server: &Server, path: &str, body: &str, expected: u16) {
    let (status, answer) = server.request("POST", path, &[JSON], body);
    assert_eq!(status, expected, "{answer}");
}

#[test]
fn what_admins_blocked_counts_after_a_restart_while_the_first_shard_is_away() {
    let place = Place::new();
    place.write("terse.toml", &shards("sqlite"));
    let server = place.serve(&["--drain-delay", "0s"]);
    for (alias, host) in [("zevil", "www.evil.example"), ("zgood", "good.example")] {
        post(&server, "/api/v1/links", &format!(r#"{{"url":"https://{host}/","alias":"{alias}"}}"#), 201);
    }
    post(&server, "/api/v1/admin/block", r#"{"host":"evil.example"}"#, 200);
    let file = place.path().join("data/blocked-hosts");
    let kept = || std::fs::read_to_string(&file).is_ok_and(|text| text.contains("evil.example"));
    assert!(within_a_second(kept));
    server.signal("KILL");
    assert_eq!(server.end(PATIENCE).0.code(), None);
    place.write("terse.toml", &shards("cql://127.0.0.1:1/nowhere"));
    let server = place.serve(&[]);
    assert_eq!((server.get("/zevil").0, server.get("/zgood").0), (451, 302), "at the first request");
    let health = server.get("/health").1;
    let told = r#"{"name":"blocked_hosts:admins","status":"degraded","reason":"unread","observedValue":1"#;
    assert!(health.contains(told), "{health}");
    assert!(server.get("/metrics").1.contains("\nterse_blocked_hosts_known 0\n"));
}
