//! Which answer has which protecting header, over all routes. The table in the README says why.

use serde_json::json;
use terse_core::{Link, LinkState};
use terse_testkit::links::link;

use crate::server::{Answer, Server};

/// The headers that this is about.
const NAMES: [&str; 5] =
    ["x-content-type-options", "referrer-policy", "content-security-policy", "x-robots-tag", "cache-control"];

/// What an answer that is no page may do.
const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'";

fn headers(answer: &Answer) -> [Option<&str>; 5] {
    NAMES.map(|name| answer.header(name))
}

#[track_caller]
fn assert_protected(told: &str, answer: &Answer, listed: bool) {
    let [sniffing, referrer, policy, robots, caching] = headers(answer);
    assert_eq!((sniffing, referrer), (Some("nosniff"), Some("no-referrer")), "{told}: {answer:?}");
    assert_eq!(robots, (!listed).then_some("noindex"), "{told}: {answer:?}");
    assert!(caching.is_some(), "{told}: {answer:?}");
    let html = answer.header("content-type").is_some_and(|kind| kind.starts_with("text/html"));
    let policy = policy.unwrap_or_else(|| panic!("{told} has no policy: {answer:?}"));
    assert!(policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{told}: {policy}");
    assert!(policy == NOTHING || html || told.contains("/api/docs/"), "{told}: {policy}");
    assert!(!policy.contains("'unsafe-eval'") && !policy.contains('*'), "{told}: {policy}");
}

fn server() -> Server {
    let server = Server::start();
    server.put(&link("abc"));
    server.put(&Link { state: LinkState::Disabled, ..link("off") });
    server.put(&Link { state: LinkState::Blocked, ..link("blocked") });
    server
}

#[test]
fn every_route_that_the_description_tells_of_is_protected() {
    let server = server();
    let document = server.get("/api/openapi.json").value();
    let mut walked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys().filter(|key| *key != "parameters") {
            let real = path.replace("{code}", "abc").replace("{name}", "main/read");
            if real == "/abc" {
                continue;
            }
            let method = method.to_uppercase();
            let answer = server.ask(&method, &real).json("{}").send();
            assert_protected(&format!("{method} {real}"), &answer, real == "/robots.txt");
            walked += 1;
        }
    }
    assert!(walked >= 20, "{walked}");
}

#[test]
fn pages_files_and_refusals_are_protected() {
    let server = server();
    for path in ["/", "/favicon.ico", "/robots.txt"] {
        assert_protected(path, &server.get(path), true);
    }
    for path in [
        "/api/docs",
        "/api/docs/",
        "/api/docs/swagger-ui.css",
        "/api/nothing",
        "/a/b",
        "/abc+",
        "/off",
        "/blocked",
        "/unknown",
        "/\u{20}",
        "/livez",
        "/api/v1/links/unknown",
    ] {
        for accept in ["text/html", "application/json"] {
            let answer = server.ask("GET", &path.replace(' ', "%20")).header("Accept", accept).send();
            assert_protected(path, &answer, false);
        }
    }
    assert_protected("too long", &server.get(&format!("/{}", "x".repeat(9_000))), false);
    assert_protected("POST /abc", &server.ask("POST", "/abc").send(), false);
    let created = server.ask("POST", "/").header("Sec-Fetch-Site", "same-origin").form("url=https://a.example/").send();
    assert_eq!(created.status, 201);
    assert_protected("POST /", &created, true);
    let deleted = server.ask("DELETE", "/api/v1/links/abc").send();
    assert_eq!(deleted.status, 204);
    assert_protected("204", &deleted, false);
}

#[test]
fn a_redirect_has_what_matters_and_no_more_by_either_way() {
    let server = server();
    let looked_up = server.get("/abc");
    server.reader.known.lock().insert("abc".into(), link("abc").resolution());
    let through_the_lane = server.get("/abc");
    for answer in [&looked_up, &through_the_lane] {
        assert_eq!(answer.status, 302);
        assert_eq!(headers(answer), [None, None, None, Some("noindex"), Some("no-store")]);
        let mut names: Vec<_> = answer.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        let all = ["cache-control", "connection", "content-length", "date", "location", "x-robots-tag"];
        assert_eq!(names, all, "{answer:?}");
    }
}

#[test]
fn the_policy_of_an_answer_is_its_own() {
    let server = Server::start();
    let ask = |path: &str| server.ask("GET", path).header("Accept", "text/html").send();
    let policy = |answer: &Answer| answer.header("content-security-policy").unwrap().to_owned();
    assert_ne!(policy(&ask("/")), policy(&ask("/")), "each page has a nonce of its own");
    assert!(policy(&ask("/api/docs/")).contains("script-src 'self'"));
    server.create(&json!({"url": "https://a.example/", "alias": "a-1"}));
    assert!(policy(&ask("/a-1+")).contains("nonce-"));
}
