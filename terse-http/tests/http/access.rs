//! Who may call: keys and roles, and hosts while access is open.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;
use terse_core::Role;
use terse_testkit::Operation;

use crate::server::{Answer, Choices, Keys, Server};

const LINKS: &str = "/api/v1/links";
const BODY: &str = "{\"url\":\"https://example.com/\"}";

fn with_keys() -> (Server, Arc<Keys>) {
    let keys = Arc::new(Keys::default());
    (Server::with(Choices { keys: Some(keys.clone()), ..Choices::default() }), keys)
}

fn bearer(server: &Server, method: &str, path: &str, key: &str) -> Answer {
    server.ask(method, path).header("Authorization", &format!("Bearer {key}")).json(BODY).send()
}

#[test]
fn without_a_valid_key_nothing_is_told() {
    let (server, keys) = with_keys();
    let good = keys.issue("a", Role::Writer).reveal().to_owned();
    let mut mistyped = good.clone();
    mistyped.replace_range(20..21, if &good[20..21] == "x" { "y" } else { "x" });
    let headers = [
        format!("Bearer {mistyped}"),
        "Bearer".into(),
        "Bearer ".into(),
        format!("Basic {good}"),
        good.clone(),
        "Bearer caf\u{e9}".into(),
    ];
    for header in headers {
        let answer = server.ask("GET", LINKS).header("Authorization", &header).send();
        answer.assert_problem(401, "unauthorized");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    for (method, path) in
        [("GET", LINKS), ("POST", LINKS), ("POST", "/api/v1/links/batch"), ("PATCH", "/api/v1/links/x")]
    {
        server.ask(method, path).json(BODY).send().assert_problem(401, "unauthorized");
    }
    let twice = server.ask("GET", LINKS).header("Authorization", &format!("Bearer {good}"));
    twice.header("Authorization", "Bearer x").send().assert_problem(401, "unauthorized");
    assert_eq!(server.ask("GET", LINKS).header("Authorization", &format!("bearer {good}")).send().status, 200);
}

#[test]
fn a_reader_reads_and_no_more() {
    let (server, keys) = with_keys();
    let reader = keys.issue("r", Role::Reader).reveal().to_owned();
    assert_eq!(bearer(&server, "GET", LINKS, &reader).status, 200);
    for (method, path) in
        [("POST", LINKS), ("POST", "/api/v1/links/batch"), ("PATCH", "/api/v1/links/x"), ("DELETE", "/api/v1/links/x")]
    {
        bearer(&server, method, path, &reader).assert_problem(403, "forbidden");
    }
    assert_eq!(server.store.faults.calls(Operation::InsertIfAbsent), 0);
}

#[test]
fn a_foreign_link_is_like_a_missing_one_but_for_an_admin() {
    let (server, keys) = with_keys();
    let [mine, other, admin] =
        [Role::Writer, Role::Writer, Role::Admin].map(|role| keys.issue("k", role).reveal().to_owned());
    assert_eq!(bearer(&server, "POST", LINKS, &mine).status, 201);
    let foreign = bearer(&server, "GET", "/api/v1/links/c1", &other).assert_problem(404, "not_found");
    let missing = bearer(&server, "GET", "/api/v1/links/none", &other).assert_problem(404, "not_found");
    assert_eq!((&foreign["detail"], &foreign["title"]), (&missing["detail"], &missing["title"]));
    bearer(&server, "DELETE", "/api/v1/links/c1", &other).assert_problem(404, "not_found");
    assert_eq!(bearer(&server, "GET", LINKS, &other).value()["items"], json!([]));
    assert_eq!(bearer(&server, "GET", "/api/v1/links/c1", &admin).status, 200);
    let block = |key: &str| {
        let request = server.ask("PATCH", "/api/v1/links/c1").header("Authorization", &format!("Bearer {key}"));
        request.json("{\"state\":\"blocked\"}").send()
    };
    block(&mine).assert_problem(403, "forbidden");
    assert_eq!(block(&admin).status, 200);
}

#[test]
fn keys_that_cannot_be_checked_are_503() {
    let (server, keys) = with_keys();
    let key = keys.issue("a", Role::Writer).reveal().to_owned();
    keys.unavailable.store(true, Ordering::SeqCst);
    let answer = bearer(&server, "GET", LINKS, &key);
    answer.assert_problem(503, "keys_unavailable");
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[test]
fn with_keys_any_host_is_answered() {
    let (server, keys) = with_keys();
    let key = keys.issue("a", Role::Writer).reveal().to_owned();
    let request = server.ask("GET", LINKS).header("Host", "anything.example");
    assert_eq!(request.header("Authorization", &format!("Bearer {key}")).send().status, 200);
}

#[test]
fn while_open_only_ones_own_hosts_are_answered() {
    let server = Server::start();
    let asked = |host: &str, path: &str| server.ask("GET", path).header("Host", host).send();
    let port = server.address.port();
    let own = [
        "localhost",
        "LOCALHOST:1",
        "localhost.",
        "127.0.0.1",
        "127.0.0.1:99",
        "[::1]",
        "[::1]:8080",
        "go.example.org",
        "GO.example.org:443",
        &server.address.to_string(),
        &format!("[::ffff:127.0.0.1]:{port}"),
    ];
    for host in own {
        assert_eq!(asked(host, LINKS).status, 200, "{host}");
        assert_eq!(asked(host, "/").status, 200, "{host}");
    }
    for host in [
        "evil.example",
        "localhost.evil.example",
        "go.example.org.evil.example",
        "192.0.2.1",
        "a@localhost",
        "",
        "lo calhost",
    ] {
        for path in [LINKS, "/", "/api/docs/", "/api/openapi.json", "/%61pi/v1/links"] {
            let answer = asked(host, path);
            assert!(answer.status == 421 || answer.status == 404 && path.contains('%'), "{host} {path}: {answer:?}");
        }
        asked(host, LINKS).assert_problem(421, "misdirected_request");
        let created = server.ask("POST", LINKS).header("Host", host).json(BODY).send();
        created.assert_problem(421, "misdirected_request");
    }
    assert_eq!(server.store.faults.calls(Operation::InsertIfAbsent), 0);
}

#[test]
fn the_host_in_an_absolute_target_counts_too() {
    let server = Server::start();
    assert_eq!(server.ask("GET", &format!("http://localhost{LINKS}")).send().status, 200);
    let foreign = server.ask("GET", &format!("http://evil.example{LINKS}")).send();
    foreign.assert_problem(421, "misdirected_request");
    let both = server.ask("GET", &format!("http://localhost{LINKS}")).header("Host", "evil.example").send();
    both.assert_problem(421, "misdirected_request");
}

#[test]
fn probes_metrics_and_redirects_answer_any_host() {
    let server = Server::start();
    for path in ["/livez", "/readyz", "/health", "/metrics", "/robots.txt"] {
        assert_eq!(server.ask("GET", path).header("Host", "evil.example").send().status, 200, "{path}");
    }
    server.ask("GET", "/none").header("Host", "evil.example").send().assert_problem(404, "not_found");
}

#[test]
fn no_other_origin_may_read_the_api_or_have_it_do_something() {
    let server = Server::start();
    let foreign = |method: &str, path: &str| {
        let request = server.ask(method, path).header("Origin", "https://evil.example");
        request.header("Sec-Fetch-Site", "cross-site")
    };
    let allows = |answer: &Answer| answer.headers.iter().any(|(name, _)| name.starts_with("access-control-"));
    let api = [LINKS, "/api/v1/links/batch", "/api/v1/links/c1", "/api/v1/admin/block", "/api/v1/admin/usage"];
    for path in api.iter().chain(&["/api/v1/admin/breakers/main/read", "/api/openapi.json", "/", "/metrics", "/c1"]) {
        let read = foreign("GET", path).send();
        assert!(!allows(&read), "{path}: {read:?}");
        let preflight = foreign("OPTIONS", path).header("Access-Control-Request-Method", "POST");
        let answer = preflight.header("Access-Control-Request-Headers", "content-type, authorization").send();
        assert!(!allows(&answer) && answer.status >= 400, "{path}: {answer:?}");
    }
    for path in [LINKS, "/api/v1/links/batch", "/api/v1/admin/block"] {
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
            let sent = foreign("POST", path).header("Content-Type", kind).body(BODY).send();
            assert!(!allows(&sent), "{path}: {sent:?}");
            sent.assert_problem(415, "unsupported_media_type");
        }
        foreign("POST", path).body(BODY).send().assert_problem(415, "unsupported_media_type");
    }
    assert_eq!(server.store.faults.calls(Operation::InsertIfAbsent), 0);
}
