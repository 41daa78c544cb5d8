//! API keys, from the command line to a running server.

use crate::program::{PATIENCE, Place, within_a_second};

fn create(place: &Place, more: &[&str]) -> String {
    let arguments: Vec<&str> = ["keys", "create", "--name", "test"].iter().chain(more).copied().collect();
    let ended = place.run(&arguments);
    let lines: Vec<&str> = ended.success().lines().collect();
    assert_eq!(lines.len(), 1, "only the key goes to stdout: {lines:?}");
    assert!(lines[0].starts_with("trs_") && !ended.err.contains(lines[0]));
    lines[0].to_owned()
}

fn id(key: &str) -> &str {
    key.split('_').nth(1).unwrap()
}

#[test]
fn keys_made_or_revoked_beside_a_running_server_count_within_a_second() {
    let place = Place::new();
    let server = place.serve(&["--auth", "keys"]);
    assert_eq!(server.create("none", None), 401);
    let key = create(&place, &["--role", "writer"]);
    assert!(within_a_second(|| server.create("made", Some(&key)) == 201));
    let ended = place.run(&["keys", "revoke", id(&key)]);
    ended.success();
    assert!(within_a_second(|| server.create("revoked", Some(&key)) == 401));
    assert_eq!(server.get("/made").0, 302);
}

#[test]
fn a_key_made_before_the_first_start_works_at_once() {
    let place = Place::new();
    let key = create(&place, &["--role", "admin"]);
    let server = place.serve(&["--auth", "keys"]);
    assert_eq!(server.create("first", Some(&key)), 201);
    let mut wrong = key.clone();
    wrong.replace_range(4..5, if key.as_bytes()[4] == b'x' { "y" } else { "x" });
    assert_eq!(server.create("second", Some(&wrong)), 401);
}

#[test]
fn the_list_shows_every_key_with_its_state() {
    let place = Place::new();
    let keys = [
        create(&place, &["--role", "admin"]),
        create(&place, &["--role", "writer", "--expires", "30d", "--owner", "team-1"]),
        create(&place, &["--role", "reader", "--expires", "2099-01-31T12:00:00Z"]),
    ];
    place.run(&["keys", "revoke", id(&keys[0])]).success();
    place.run(&["keys", "revoke", id(&keys[0])]).success();
    let ended = place.run(&["keys", "list"]);
    let lines: Vec<Vec<&str>> = ended.success().lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["ID", "NAME", "OWNER", "ROLE", "CREATED", "EXPIRES", "STATE"]);
    let cells = |key: &str| lines.iter().find(|cells| cells[0] == id(key)).unwrap().clone();
    assert_eq!((cells(&keys[0])[3], cells(&keys[0])[6]), ("admin", "revoked"));
    assert_eq!((cells(&keys[1])[2], cells(&keys[1])[6]), ("team-1", "active"));
    assert_eq!((cells(&keys[2])[3], cells(&keys[2])[5]), ("reader", "2099-01-31T12:00:00Z"));
    for key in &keys {
        assert!(!ended.out.contains(&key[15..47]), "a secret is listed");
    }
    assert!(place.run(&["keys", "revoke", "0000000000"]).refusal(64).contains("there is no key '0000000000'"));
}

#[test]
fn a_key_ends_at_its_expiry() {
    let place = Place::new();
    let key = create(&place, &["--role", "writer", "--expires", "2s"]);
    let server = place.serve(&["--auth", "keys"]);
    assert_eq!(server.create("before", Some(&key)), 201);
    let expired = || server.create("after", Some(&key)) == 401;
    assert!(within_a_second(expired) || within_a_second(expired) || within_a_second(expired));
    assert!(place.run(&["keys", "list"]).success().contains("expired"));
}

#[test]
fn roles_and_owners_of_keys_hold() {
    let place = Place::new();
    let owned = |role: &str| create(&place, &["--role", role, "--owner", "team"]);
    let (writer, reader) = (owned("writer"), owned("reader"));
    let (stranger, admin) = (create(&place, &["--role", "reader"]), create(&place, &["--role", "admin"]));
    let server = place.serve(&["--auth", "keys"]);
    assert_eq!(server.create("ours", Some(&writer)), 201);
    assert_eq!(server.create("theirs", Some(&reader)), 403);
    let read =
        |key: &str| server.request("GET", "/api/v1/links/ours", &[&format!("Authorization: Bearer {key}")], "").0;
    assert_eq!((read(&writer), read(&reader), read(&stranger), read(&admin)), (200, 200, 404, 200));
}

#[test]
fn a_key_never_appears_in_the_log() {
    let place = Place::new();
    let key = create(&place, &["--role", "writer"]);
    let server = place.serve(&["--auth", "keys", "--log", "trace"]);
    assert_eq!(server.create("logged", Some(&key)), 201);
    let forged = format!("{}x", &key[..key.len() - 1]);
    assert_eq!(server.create("refused", Some(&forged)), 401);
    server.signal("TERM");
    let log = server.end(PATIENCE).1;
    assert!(log.iter().any(|line| line.contains("/api/v1/links")), "{log:?}");
    // The id may be logged, the secret part never.
    assert!(log.iter().all(|line| !line.contains(&key[15..40])), "{log:?}");
}

#[test]
fn keys_are_made_listed_and_revoked_without_a_server() {
    let place = Place::new();
    place.run(&["migrate"]).success();
    assert_eq!(place.run(&["keys", "list"]).success().lines().count(), 1);
    let made = || place.run(&["keys", "create", "--name", "x", "--role", "reader", "--data-dir", "elsewhere"]);
    let first = made();
    assert!(
        first.success().starts_with("trs_") && first.err.contains("the data directory elsewhere is new"),
        "{}",
        first.err
    );
    assert!(!made().err.contains("is new"));
    let key = create(&place, &["--role", "reader", "--data-dir", "elsewhere"]);
    assert_eq!(place.run(&["keys", "list"]).success().lines().count(), 1);
    let listed = place.run(&["keys", "list", "--data-dir", "elsewhere"]);
    assert!(listed.success().contains(id(&key)));
    let refused = place.run(&["keys", "create", "--name", "a\nb", "--role", "admin"]);
    assert!(refused.refusal(64).contains("--name: must be 1 to 100 characters"));
    let refused = place.run(&["keys", "create", "--name", "x", "--role", "admin", "--expires", "2020-01-01T00:00:00Z"]);
    assert!(refused.refusal(64).contains("is not in the future"));
}
