//! Rate limits as they are out of the box, and as the configuration changes them.

use crate::program::{PATIENCE, Place, Server};

/// How many of `most` creates in a row were made, and the last answer.
fn creates(server: &Server, headers: &[&str], most: usize) -> (usize, String) {
    let headers = [&["Content-Type: application/json"], headers].concat();
    for made in 0..most {
        let (status, answer) = server.request("POST", "/api/v1/links", &headers, "{\"url\":\"https://example.com/\"}");
        if status != 201 {
            return (made, answer.to_lowercase());
        }
    }
    (most, String::new())
}

#[test]
fn an_open_server_lets_an_address_create_20_links_at_once() {
    let place = Place::new();
    let server = place.serve(&[]);
    let (made, refused) = creates(&server, &[], 60);
    // One more comes back each second.
    assert!((20..40).contains(&made), "{made}");
    assert!(refused.starts_with("http/1.1 429 "), "{refused}");
    for header in ["retry-after: 1", "ratelimit-policy: \"create\";q=20;w=20", "ratelimit: \"create\";r=0;t=1"] {
        assert!(refused.contains(header), "{header} is not in {refused}");
    }
    assert_eq!((server.get("/readyz").0, server.get("/api/v1/links").0), (200, 200));
    assert!(server.get("/metrics").1.contains("terse_rate_limited_total{limit=\"create\"} 1"));
    // Nobody here is a trusted proxy.
    assert_eq!(creates(&server, &["X-Forwarded-For: 203.0.113.7"], 3).0, 0);
}

#[test]
fn off_is_off() {
    let place = Place::new().with("TERSE_LIMITS", "off");
    let server = place.serve(&[]);
    assert_eq!(creates(&server, &[], 60), (60, String::new()));
    (0..350).for_each(|n| assert_eq!(server.get(&format!("/none{n}")).0, 404));
}

#[test]
fn the_file_and_trusted_proxies_decide_who_may_do_what() {
    let place = Place::new().with("TERSE_TRUSTED_PROXIES", "127.0.0.0/8");
    place.write(
        "terse.toml",
        "[limits]\nnot_found = 'off'\n[limits.create]\nby = 'address'\nalgorithm = 'fixed-window'\nlimit = 2\nwindow = '365d'",
    );
    let described = place.run(&["check-config"]);
    for line in ["[limits.create]", "algorithm = \"fixed-window\"", "not_found = \"off\"", "[limits.api]"] {
        assert!(described.success().lines().any(|told| told == line), "{line} is not in {}", described.out);
    }
    let server = place.serve(&[]);
    for client in ["203.0.113.7", "203.0.113.8", "192.0.2.1, 203.0.113.9"] {
        assert_eq!(creates(&server, &[&format!("X-Forwarded-For: {client}")], 5).0, 2, "{client}");
    }
    assert_eq!(creates(&server, &["X-Forwarded-For: 198.51.100.1, 203.0.113.9"], 5).0, 0);
    (0..350).for_each(|n| assert_eq!(server.get(&format!("/none{n}")).0, 404));
}

#[test]
fn who_tries_codes_out_of_the_box_is_stopped_after_300() {
    let place = Place::new();
    let server = place.serve(&[]);
    assert_eq!(server.create("known", None), 201);
    let missing = (0..400).take_while(|n| server.get(&format!("/none{n}")).0 == 404).count();
    assert_eq!(missing, 300);
    assert_eq!(server.get("/known").0, 302, "what is in memory is served");
}

#[test]
fn a_quota_lasts_over_a_restart_and_an_admin_sees_who_used_it() {
    let place = Place::new().with("TERSE_AUTH", "keys");
    place.write("terse.toml", "[limits.quota]\nlinks = 3\n");
    let [writer, admin] = ["writer", "admin"].map(|role| {
        let made = place.run(&["keys", "create", "--name", role, "--role", role]);
        let key = made.success().split_whitespace().find(|word| word.starts_with("trs_")).map(str::to_owned);
        format!("Authorization: Bearer {}", key.unwrap_or_else(|| panic!("no key in {}", made.out)))
    });
    let server = place.serve(&[]);
    assert_eq!(creates(&server, &[&writer], 2).0, 2);
    server.signal("TERM");
    assert_eq!(server.end(PATIENCE).0.code(), Some(0));
    let server = place.serve(&[]);
    let (made, refused) = creates(&server, &[&writer], 9);
    assert_eq!(made, 1, "of three, two were made before: {refused}");
    assert!(
        refused.starts_with("http/1.1 429 ") && refused.contains("ratelimit-policy: \"quota\";q=3;w="),
        "{refused}"
    );
    let (status, usage) = server.request("GET", "/api/v1/admin/usage", &[&admin], "");
    assert!(status == 200 && usage.contains("\"links\":3,\"quota\":3,\"refused\":1}"), "{usage}");
    assert_eq!(server.request("GET", "/api/v1/admin/usage", &[&writer], "").0, 403);
}
