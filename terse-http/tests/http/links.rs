//! Create, read, list, edit and delete over the API.

use serde_json::{Value, json};
use terse_core::ports::StoreErrorKind;
use terse_testkit::{Fault, Operation, When};

use crate::server::Server;

const LINKS: &str = "/api/v1/links";

fn url(n: usize) -> Value {
    json!({"url": format!("https://example.com/{n}")})
}

#[test]
fn a_created_link_is_told_whole_and_redirects_at_once() {
    let server = Server::start();
    server.get("/c1").assert_problem(404, "not_found");
    let body = json!({"url": "https://example.com/a?b=c#d", "title": "A", "tags": ["x", "y", "x"],
        "expires_at": "2030-01-01T01:00:00+01:00", "valid_from": null, "alias": null});
    let answer = server.json("POST", LINKS, &body);
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("location"), Some("/api/v1/links/c1"));
    assert_eq!(answer.header("etag"), Some("\"1\""));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(
        answer.value(),
        json!({"code": "c1", "short_url": "https://go.example.org/c1", "url": "https://example.com/a?b=c#d",
            "title": "A", "tags": ["x", "y"], "state": "active", "created_at": "2026-01-02T03:04:05Z",
            "updated_at": "2026-01-02T03:04:05Z", "expires_at": "2030-01-01T00:00:00Z", "valid_from": null,
            "version": 1})
    );
    assert_eq!(server.get("/c1").header("location"), Some("https://example.com/a?b=c#d"));
}

#[test]
fn an_alias_is_taken_once_and_for_ever() {
    let server = Server::start();
    let body = json!({"url": "https://example.com/", "alias": "My_link-1"});
    assert_eq!(server.create(&body)["code"], "My_link-1");
    server.json("POST", LINKS, &body).assert_problem(409, "alias_taken");
    assert_eq!(server.ask("DELETE", "/api/v1/links/My_link-1").send().status, 204);
    server.json("POST", LINKS, &body).assert_problem(409, "alias_taken");
    server.get("/My_link-1").assert_problem(410, "gone");
    server.get("/api/v1/links/My_link-1").assert_problem(404, "not_found");
}

#[test]
fn all_faults_of_a_body_are_told_at_once() {
    let server = Server::start();
    let body = r#"{"alias": "no spaces", "title": 7, "tags": ["ok", 1], "expires_at": "soon", "valid_from": true,
        "tittle": 1, "alias": "twice"}"#;
    let answer = server.ask("POST", LINKS).json(body).send();
    answer.assert_faults(&[
        "tittle: unknown_field",
        "alias: duplicate_field",
        "title: wrong_type",
        "tags: wrong_type",
        "valid_from: wrong_type",
        "url: required",
        "alias: bad_character",
        "expires_at: bad_time",
    ]);
}

#[test]
fn each_bad_field_has_its_own_word() {
    let server = Server::start();
    let with = |name: &str, value: Value| {
        let mut body = json!({"url": "https://example.com/"});
        body[name] = value;
        server.json("POST", LINKS, &body)
    };
    with("url", json!(null)).assert_faults(&["url: wrong_type"]);
    with("url", json!(["https://example.com/"])).assert_faults(&["url: wrong_type"]);
    with("url", json!("ftp://example.com/")).assert_faults(&["url: unsupported_scheme"]);
    with("url", json!("https://go.example.org/x")).assert_faults(&["url: own_host"]);
    with("url", json!("http://127.0.0.1/")).assert_faults(&["url: not_public"]);
    with("url", json!("https://example.com/\u{0}")).assert_faults(&["url: control_character"]);
    with("alias", json!("")).assert_faults(&["alias: empty"]);
    with("alias", json!("a".repeat(65))).assert_faults(&["alias: too_long"]);
    with("alias", json!("nul\u{0}")).assert_faults(&["alias: bad_character"]);
    with("alias", json!("RoBots.txt")).assert_faults(&["alias: reserved"]);
    with("title", json!("")).assert_faults(&["title: out_of_bounds"]);
    with("title", json!("t".repeat(201))).assert_faults(&["title: out_of_bounds"]);
    with("title", json!("nul\u{0}")).assert_faults(&["title: out_of_bounds"]);
    with("tags", json!("one")).assert_faults(&["tags: wrong_type"]);
    with("tags", json!([""])).assert_faults(&["tags: out_of_bounds"]);
    with("expires_at", json!("2020-01-01T00:00:00Z")).assert_faults(&["expires_at: in_the_past"]);
    with("expires_at", json!("99999-01-01T00:00:00Z")).assert_faults(&["expires_at: bad_time"]);
    with("state", json!("active")).assert_faults(&["state: unknown_field"]);
    let name = "n".repeat(1_000);
    let answer = with(&name, json!(1));
    assert!(answer.body.len() < 600, "a long name is cut: {}", answer.body);
}

#[test]
fn what_is_no_json_is_400() {
    let server = Server::start();
    let nested = "[".repeat(60_000);
    let bodies: [&[u8]; 12] = [
        b"",
        b" ",
        b"{",
        b"{\"url\":}",
        b"{\"url\":\"x\"}}",
        b"{'url':1}",
        b"{\"url\":\"\\ud800\"}",
        b"{\"url\":\"\\udc00\\ud800\"}",
        b"{\"url\":\"\xff\"}",
        b"\xef\xbb\xbf{}",
        b"{\"url\":NaN}",
        nested.as_bytes(),
    ];
    for body in bodies {
        let answer = server.ask("POST", LINKS).header("Content-Type", "application/json").body(body).send();
        answer.assert_problem(400, "malformed_json");
    }
}

#[test]
fn a_body_that_is_no_object_is_422() {
    let server = Server::start();
    for body in ["[]", "null", "1", "\"url\"", "true"] {
        server.ask("POST", LINKS).json(body).send().assert_faults(&["body: wrong_type"]);
    }
}

#[test]
fn only_json_is_taken() {
    let server = Server::start();
    let sent = |content_type: &str| {
        server.ask("POST", LINKS).header("Content-Type", content_type).body(url(1).to_string()).send()
    };
    for json in ["application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"] {
        assert_eq!(sent(json).status, 201, "{json}");
    }
    for other in ["text/plain", "application/json; charset=latin1", "application/x-www-form-urlencoded", "json", ""] {
        sent(other).assert_problem(415, "unsupported_media_type");
    }
    let absent = server.ask("POST", LINKS).body(url(1).to_string()).send();
    absent.assert_problem(415, "unsupported_media_type");
    let packed = server.ask("POST", LINKS).header("Content-Encoding", "gzip").json(&url(1).to_string()).send();
    packed.assert_problem(415, "unsupported_media_type");
}

#[test]
fn an_idempotency_key_makes_a_retry_find_its_link() {
    let server = Server::start();
    let sent = |key: &str, body: &str| server.ask("POST", LINKS).header("Idempotency-Key", key).json(body).send();
    let first = sent("k 1", r#"{"url":"https://example.com/"}"#);
    let again = sent("k 1", r#"{"url":"https://example.com/"}"#);
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.body, again.body);
    // The hash is over the raw bytes: another spelling of the same JSON is another body.
    sent("k 1", r#"{"url": "https://example.com/"}"#).assert_problem(422, "idempotency_key_reused");
    assert_ne!(sent("k2", r#"{"url":"https://example.com/"}"#).value()["code"], first.value()["code"]);
}

#[test]
fn an_unusable_idempotency_key_is_refused() {
    let server = Server::start();
    let sent = |key: &str| server.ask("POST", LINKS).header("Idempotency-Key", key).json(&url(1).to_string()).send();
    sent("").assert_faults(&["Idempotency-Key: out_of_bounds"]);
    sent(&"k".repeat(256)).assert_faults(&["Idempotency-Key: out_of_bounds"]);
    sent("caf\u{e9}").assert_faults(&["Idempotency-Key: bad_character"]);
    assert_eq!(sent(&"k".repeat(255)).status, 201);
    let twice = server.ask("POST", LINKS).header("Idempotency-Key", "a").header("Idempotency-Key", "a");
    twice.json(&url(1).to_string()).send().assert_faults(&["Idempotency-Key: duplicate_field"]);
}

#[test]
fn a_list_is_walked_page_by_page() {
    let server = Server::start();
    for n in 1..=5 {
        server.create(&url(n));
        server.clock.advance(std::time::Duration::from_millis(10));
    }
    let mut path = format!("{LINKS}?limit=2");
    let mut seen = Vec::new();
    loop {
        let answer = server.get(&path);
        assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
        let page = answer.value();
        let items = page["items"].as_array().unwrap();
        assert!(!items.is_empty() && items.len() <= 2);
        seen.extend(items.iter().map(|link| link["code"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("{LINKS}?cursor={cursor}&limit=2"),
            None => break,
        }
    }
    assert_eq!(seen, ["c5", "c4", "c3", "c2", "c1"]);
    assert_eq!(server.get(LINKS).value()["items"].as_array().unwrap().len(), 5);
    let last = server.get(&format!("{LINKS}?limit=5")).value();
    assert_eq!(last["next_cursor"], Value::Null, "a full last page has no successor");
}

#[test]
fn a_list_takes_no_nonsense() {
    let server = Server::start();
    let asked = |query: &str| server.get(&format!("{LINKS}?{query}"));
    for limit in ["0", "201", "-1", "+5", "1.5", "ten", "", "99999999999999999999", "0x10", "%20"] {
        asked(&format!("limit={limit}")).assert_faults(&["limit: out_of_bounds"]);
    }
    asked("limit=5&limit=6").assert_faults(&["limit: duplicate_field"]);
    asked("page=2&offset=1&limit=x").assert_faults(&[
        "page: unknown_field",
        "offset: unknown_field",
        "limit: out_of_bounds",
    ]);
    asked("limit=%ff").assert_faults(&["query: malformed"]);
    for cursor in ["", "x", "1.", ".abc", "zz.abc", "-1.abc", "1.a%00b"] {
        asked(&format!("cursor={cursor}")).assert_problem(400, "bad_cursor");
    }
    assert_eq!(asked("limit=200").status, 200);
    assert_eq!(asked("limit=%31").status, 200, "escapes are decoded");
}

#[test]
fn a_link_is_read_again_only_when_it_changed() {
    let server = Server::start();
    let link = server.create(&url(1));
    let answer = server.get("/api/v1/links/c1");
    assert_eq!((answer.status, answer.header("etag")), (200, Some("\"1\"")));
    assert_eq!(answer.value(), link);
    let known = |tags: &str| server.ask("GET", "/api/v1/links/c1").header("If-None-Match", tags).send();
    for tags in ["\"1\"", "W/\"1\"", "\"7\", \"1\"", "*"] {
        let answer = known(tags);
        assert_eq!((answer.status, answer.header("etag")), (304, Some("\"1\"")), "{tags}");
        assert_eq!(answer.body, "");
    }
    assert_eq!(known("\"2\", \"01\"").status, 200);
    known("1").assert_problem(400, "malformed_header");
    for unknown in ["/api/v1/links/none", "/api/v1/links/no%20code", "/api/v1/links/%00"] {
        server.get(unknown).assert_problem(404, "not_found");
    }
}

#[test]
fn an_edit_keeps_what_is_absent_and_clears_what_is_null() {
    let server = Server::start();
    server.create(&json!({"url": "https://example.com/", "title": "T", "tags": ["x"],
        "expires_at": "2030-01-01T00:00:00Z", "valid_from": "2026-01-01T00:00:00Z"}));
    let edit = |body: &Value| server.json("PATCH", "/api/v1/links/c1", body);
    let answer = edit(&json!({"url": "https://example.net/"}));
    assert_eq!((answer.status, answer.header("etag")), (200, Some("\"2\"")));
    let link = answer.value();
    assert_eq!(
        (&link["title"], &link["tags"], &link["url"]),
        (&json!("T"), &json!(["x"]), &json!("https://example.net/"))
    );
    assert_eq!(server.get("/c1").header("location"), Some("https://example.net/"));
    let link = edit(&json!({"title": null, "tags": null, "expires_at": null, "valid_from": null})).value();
    for name in ["title", "expires_at", "valid_from"] {
        assert_eq!(link[name], Value::Null, "{name}");
    }
    assert_eq!((&link["tags"], &link["version"]), (&json!([]), &json!(3)));
    let unchanged = edit(&json!({}));
    assert_eq!((unchanged.status, unchanged.header("etag")), (200, Some("\"3\"")));
}

#[test]
fn a_link_is_switched_off_and_on_and_blocked() {
    let server = Server::start();
    server.create(&url(1));
    for (state, status) in [("disabled", 410), ("blocked", 451), ("active", 302)] {
        let answer = server.json("PATCH", "/api/v1/links/c1", &json!({"state": state}));
        assert_eq!((answer.status, &answer.value()["state"]), (200, &json!(state)));
        assert_eq!(server.get("/c1").status, status);
    }
}

#[test]
fn a_bad_edit_names_its_faults() {
    let server = Server::start();
    server.create(&url(1));
    let edit = |body: &Value| server.json("PATCH", "/api/v1/links/c1", body);
    edit(&json!({"url": null, "state": null})).assert_faults(&["url: wrong_type", "state: wrong_type"]);
    edit(&json!({"state": "deleted"})).assert_faults(&["state: bad_value"]);
    edit(&json!({"alias": "new", "code": "x"})).assert_faults(&["alias: unknown_field", "code: unknown_field"]);
    edit(&json!({"expires_at": "2020-01-01T00:00:00Z"})).assert_faults(&["expires_at: in_the_past"]);
    edit(&json!([])).assert_faults(&["body: wrong_type"]);
    let plain = server.ask("PATCH", "/api/v1/links/c1").body("{}").send();
    plain.assert_problem(415, "unsupported_media_type");
    server.json("PATCH", "/api/v1/links/none", &json!({})).assert_problem(404, "not_found");
    assert_eq!(server.get("/api/v1/links/c1").value()["version"], 1);
}

#[test]
fn if_match_guards_edits_and_deletions() {
    let server = Server::start();
    server.create(&url(1));
    let path = "/api/v1/links/c1";
    let guarded =
        |method: &str, tags: &str| server.ask(method, path).header("If-Match", tags).json("{\"title\":\"x\"}").send();
    for other in ["\"2\"", "W/\"1\"", "\"1x\"", "\"01\"", "\"2\", W/\"1\""] {
        guarded("PATCH", other).assert_problem(412, "version_conflict");
        guarded("DELETE", other).assert_problem(412, "version_conflict");
    }
    for nonsense in ["1", "", "\"1", "\"1\" \"2\"", "*, \"1\"", "W/*"] {
        guarded("PATCH", nonsense).assert_problem(400, "malformed_header");
        guarded("DELETE", nonsense).assert_problem(400, "malformed_header");
    }
    assert_eq!(guarded("PATCH", "\"9\", \"1\"").header("etag"), Some("\"2\""));
    guarded("PATCH", "\"1\"").assert_problem(412, "version_conflict");
    assert_eq!(guarded("DELETE", "*").status, 204);
}

#[test]
fn a_deleted_link_is_gone_on_the_very_next_request() {
    let server = Server::start();
    server.create(&url(1));
    let answer = server.ask("DELETE", "/api/v1/links/c1").send();
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    server.get("/c1").assert_problem(410, "gone");
    for method in ["GET", "DELETE"] {
        server.ask(method, "/api/v1/links/c1").send().assert_problem(404, "not_found");
    }
    assert_eq!(server.get(LINKS).value()["items"], json!([]));
}

#[test]
fn a_store_fault_is_503_on_every_operation() {
    let server = Server::start();
    server.create(&url(1));
    for operation in [Operation::Get, Operation::List, Operation::InsertIfAbsent, Operation::Update] {
        server.store.faults.add(operation, When::Every, Fault::Fail(StoreErrorKind::Unavailable));
    }
    let path = "/api/v1/links/c1";
    let answers = [
        server.get(path),
        server.get(LINKS),
        server.json("POST", LINKS, &url(2)),
        server.json("PATCH", path, &json!({"title": "x"})),
        server.ask("DELETE", path).send(),
    ];
    for answer in answers {
        answer.assert_problem(503, "store_unavailable");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
}

#[test]
fn what_a_store_says_of_itself_does_not_reach_clients() {
    let server = Server::start();
    server.store.faults.add(Operation::List, When::Every, Fault::Fail(StoreErrorKind::Corrupt));
    let answer = server.get(LINKS);
    answer.assert_problem(503, "store_unavailable");
    assert!(!answer.body.contains("on schedule"), "{}", answer.body);
}

#[test]
fn other_methods_are_405_with_what_is_allowed() {
    let server = Server::start();
    let cases = [
        ("PUT", LINKS, "GET, HEAD, POST"),
        ("DELETE", LINKS, "GET, HEAD, POST"),
        ("OPTIONS", LINKS, "GET, HEAD, POST"),
        ("POST", "/api/v1/links/c1", "GET, HEAD, PATCH, DELETE"),
        ("TRACE", "/api/v1/links/c1", "GET, HEAD, PATCH, DELETE"),
        ("GET", "/api/v1/links/batch", "POST"),
        ("PUT", "/api/v1/links/batch", "POST"),
        ("PATCH", "/api/v1/links/batch", "POST"),
        ("POST", "/api/openapi.json", "GET, HEAD"),
        ("POST", "/metrics", "GET, HEAD"),
        ("PUT", "/", "GET, HEAD, POST"),
    ];
    for (method, path, allow) in cases {
        let answer = server.ask(method, path).send();
        answer.assert_problem(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
    }
}

#[test]
fn a_link_may_be_called_batch() {
    let server = Server::start();
    let made = server.create(&json!({"url": "https://example.com/", "alias": "batch"}));
    let path = "/api/v1/links/batch";
    assert_eq!(server.get(path).value(), made);
    assert_eq!(server.json("PATCH", path, &json!({"title": "x"})).value()["version"], 2);
    let put = server.ask("PUT", path).send();
    put.assert_problem(405, "method_not_allowed");
    assert_eq!(put.header("allow"), Some("GET, HEAD, POST, PATCH, DELETE"));
    assert_eq!(server.ask("DELETE", path).send().status, 204);
    server.get(path).assert_problem(405, "method_not_allowed");
}

#[test]
fn what_is_not_served_is_404() {
    let server = Server::start();
    server.create(&url(1));
    for path in ["/api/v1/links/c1/", "/api/v1/links/c1/stats/", "/api/v1/admin", "/api/v2", "/api/v1/links/"] {
        server.get(path).assert_problem(404, "not_found");
    }
}

#[test]
fn a_request_id_is_made_or_echoed() {
    let server = Server::start();
    let made = server.get(LINKS).header("x-request-id").unwrap().to_owned();
    assert_eq!(made.len(), 32);
    assert_ne!(server.get(LINKS).header("x-request-id").unwrap(), made);
    let echoed = server.ask("GET", LINKS).header("X-Request-Id", "abc-1").send();
    assert_eq!(echoed.header("x-request-id"), Some("abc-1"));
    let long = server.ask("GET", LINKS).header("X-Request-Id", &"x".repeat(129)).send();
    assert_eq!(long.header("x-request-id").unwrap().len(), 32);
}
