//! `/{code}`: what is answered, with which headers, and who was asked.

use std::sync::atomic::Ordering;

use serde_json::Value;
use terse_core::ports::StoreErrorKind;
use terse_core::{Link, LinkState, Timestamp};
use terse_http::{RedirectStatus, Surfaces};
use terse_testkit::links::{link, target};
use terse_testkit::{Fault, Operation, When};

use crate::server::{Answer, Choices, Server};

fn at(text: &str) -> Option<Timestamp> {
    Some(Timestamp::parse(text).unwrap())
}

#[track_caller]
fn assert_found(answer: &Answer, location: &str) {
    assert_eq!(answer.status, 302, "{answer:?}");
    assert_eq!(answer.header("location"), Some(location));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.body, "");
}

#[test]
fn a_link_redirects_to_its_exact_target() {
    let server = Server::start();
    let exact = "https://example.com/a%2fb?x=%C3%A9&empty=#frag~'()";
    server.put(&Link { target: target(exact), ..link("abc") });
    assert_found(&server.get("/abc"), exact);
    assert_found(&server.ask("HEAD", "/abc").send(), exact);
}

#[test]
fn what_memory_knows_is_answered_without_looking_it_up() {
    let server = Server::start();
    server.reader.known.lock().insert("abc".into(), link("abc").resolution());
    assert_found(&server.get("/abc"), "https://example.com/abc");
    assert_eq!(server.store.faults.calls(Operation::Resolve), 0);
    assert_eq!(server.metric("terse_redirects_total{outcome=\"found\",tier=\"l1\"}"), 1.0);
    assert_eq!(server.metric("terse_redirect_seconds_count"), 1.0);
}

#[test]
fn only_permanent_redirects_may_be_cached() {
    let cases = [
        (RedirectStatus::MovedPermanently, 301, "private, max-age=600"),
        (RedirectStatus::Found, 302, "no-store"),
        (RedirectStatus::TemporaryRedirect, 307, "no-store"),
        (RedirectStatus::PermanentRedirect, 308, "private, max-age=600"),
    ];
    for (choice, status, caching) in cases {
        let server = Server::with(Choices { status: choice, ..Choices::default() });
        server.put(&link("abc"));
        let answer = server.get("/abc");
        assert_eq!((answer.status, answer.header("cache-control")), (status, Some(caching)));
        server.get("/other").assert_problem(404, "not_found");
    }
}

#[test]
fn a_link_that_does_not_redirect_says_why() {
    let server = Server::start();
    let past = at("2020-01-01T00:00:00Z");
    let cases = [
        (Link { state: LinkState::Disabled, ..link("off") }, 410, "gone"),
        (Link { state: LinkState::Deleted, ..link("del") }, 410, "gone"),
        (Link { expires_at: past, ..link("old") }, 410, "gone"),
        (Link { state: LinkState::Blocked, ..link("bad") }, 451, "blocked"),
        (Link { valid_from: at("2030-01-01T00:00:00Z"), ..link("new") }, 404, "not_found"),
    ];
    for (link, status, code) in cases {
        server.put(&link);
        server.get(&format!("/{}", link.code)).assert_problem(status, code);
        // The same from memory.
        server.reader.known.lock().insert(link.code.to_string(), link.resolution());
        let answer = server.get(&format!("/{}", link.code));
        answer.assert_problem(status, code);
        assert_eq!(answer.header("location"), None);
    }
    assert_eq!(server.metric("terse_redirects_total{outcome=\"gone\",tier=\"store\"}"), 3.0);
    assert_eq!(server.metric("terse_redirects_total{outcome=\"blocked\",tier=\"l1\"}"), 1.0);
    assert_eq!(server.metric("terse_redirects_total{outcome=\"missing\",tier=\"store\"}"), 1.0);
}

#[test]
fn a_link_expires_while_it_is_in_memory() {
    let server = Server::start();
    let known = Link { expires_at: at("2026-01-02T03:05:05Z"), ..link("abc") };
    server.reader.known.lock().insert("abc".into(), known.resolution());
    assert_eq!(server.get("/abc").status, 302);
    server.clock.advance(std::time::Duration::from_secs(60));
    server.get("/abc").assert_problem(410, "gone");
}

#[test]
fn a_store_fault_is_503_and_never_404() {
    let server = Server::start();
    for kind in [
        StoreErrorKind::Unavailable,
        StoreErrorKind::Overloaded,
        StoreErrorKind::UnknownOutcome,
        StoreErrorKind::Corrupt,
    ] {
        server.store.faults.heal();
        server.store.faults.add(Operation::Resolve, When::Every, Fault::Fail(kind));
        let answer = server.get("/abc");
        let overloaded = kind == StoreErrorKind::Overloaded;
        answer.assert_problem(503, if overloaded { "overloaded" } else { "store_unavailable" });
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    assert_eq!(server.metric("terse_redirects_total{outcome=\"unavailable\",tier=\"none\"}"), 4.0);
}

#[test]
fn what_can_be_no_code_is_404_and_asks_nobody() {
    let server = Server::start();
    let long = format!("/{}", "a".repeat(65));
    let paths = ["/%00", "//x", "/a/b", "/abc/", "/%61bc", "/a.b", "/a%2Fb", "/a~b", "/%C3%BC", "//", "/;", &long];
    for path in paths {
        server.get(path).assert_problem(404, "not_found");
    }
    assert_eq!(server.reader.asked.load(Ordering::SeqCst), 0);
}

#[test]
fn reserved_words_never_reach_the_resolver_in_any_case() {
    let server = Server::start();
    for word in terse_core::code::RESERVED {
        server.get(&format!("/{}", word.to_uppercase())).assert_problem(404, "not_found");
        server.get(&format!("/{word}"));
    }
    for word in ["api", "docs", "admin", "app", "assets", "static", "login"] {
        server.get(&format!("/{word}")).assert_problem(404, "not_found");
    }
    assert_eq!(server.reader.asked.load(Ordering::SeqCst), 0);
}

#[test]
fn other_methods_are_refused_by_name() {
    let server = Server::start();
    server.put(&link("abc"));
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
        let answer = server.ask(method, "/abc").send();
        answer.assert_problem(405, "method_not_allowed");
        assert_eq!(answer.header("allow"), Some("GET, HEAD"));
    }
    assert_eq!(server.reader.asked.load(Ordering::SeqCst), 0);
}

#[test]
fn query_and_host_do_not_matter() {
    let server = Server::start();
    server.put(&link("abc"));
    assert_found(&server.get("/abc?x=1&y"), "https://example.com/abc");
    assert_found(&server.ask("GET", "/abc").header("Host", "evil.example").send(), "https://example.com/abc");
    assert_found(&server.ask("GET", "http://evil.example/abc").send(), "https://example.com/abc");
}

#[test]
fn a_request_id_is_only_echoed() {
    let server = Server::start();
    server.put(&link("abc"));
    let echoed = |path: &str, id: &str| server.ask("GET", path).header("X-Request-Id", id).send();
    assert_eq!(echoed("/abc", "my-id/1").header("x-request-id"), Some("my-id/1"));
    assert_eq!(echoed("/none", "my-id/1").assert_problem(404, "not_found")["request_id"], "my-id/1");
    assert_eq!(server.get("/abc").header("x-request-id"), None);
    assert_eq!(server.get("/none").assert_problem(404, "not_found")["request_id"], Value::Null);
    for unusable in ["two words", "caf\u{e9}", &"x".repeat(129)] {
        assert_eq!(echoed("/abc", unusable).header("x-request-id"), None, "{unusable}");
    }
}

#[test]
fn people_get_a_page_and_programs_get_json() {
    let server = Server::start();
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let page = server.ask("GET", "/none").header("Accept", browser).header("X-Request-Id", "r1").send();
    assert_eq!(page.status, 404);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert_eq!(page.header("x-request-id"), Some("r1"));
    assert!(page.header("content-security-policy").unwrap().contains("default-src 'none'"));
    assert!(page.body.contains("There is nothing here"), "{}", page.body);
    server.store.faults.add(Operation::Resolve, When::Every, Fault::Fail(StoreErrorKind::Unavailable));
    let page = server.ask("GET", "/none").header("Accept", browser).send();
    assert_eq!((page.status, page.header("retry-after")), (503, Some("1")));
    for programs in ["*/*", "application/json, text/html;q=0.5", "text/html;q=0", ""] {
        let answer = server.ask("GET", "/none").header("Accept", programs).send();
        answer.assert_problem(503, "store_unavailable");
    }
}

#[test]
fn the_answer_to_head_has_the_headers_of_get_and_no_body() {
    let server = Server::start();
    for path in ["/none", "/livez", "/api/v1/links", "/api/v1/links/none", "/"] {
        let (get, head) = (server.get(path), server.ask("HEAD", path).send());
        assert_eq!(head.status, get.status);
        assert_eq!(head.body, "");
        for name in ["content-type", "content-length", "cache-control"] {
            assert_eq!(head.header(name), get.header(name), "{name} of {path}");
        }
    }
}

#[test]
fn a_process_without_the_redirect_surface_does_not_redirect() {
    let surfaces = Surfaces { redirect: false, api: true };
    let server = Server::with(Choices { surfaces, ..Choices::default() });
    server.put(&link("abc"));
    server.get("/abc").assert_problem(404, "not_found");
    assert_eq!(server.get("/api/v1/links/abc").status, 200);
    assert_eq!(server.reader.asked.load(Ordering::SeqCst), 0);
}

#[test]
fn a_process_without_the_api_surface_only_redirects() {
    let surfaces = Surfaces { redirect: true, api: false };
    let server = Server::with(Choices { surfaces, ..Choices::default() });
    server.put(&link("abc"));
    assert_eq!(server.get("/abc").status, 302);
    for path in ["/", "/api", "/api/v1/links", "/api/v1/links/abc", "/api/docs/", "/api/openapi.json"] {
        server.get(path).assert_problem(404, "not_found");
    }
    assert_eq!(server.get("/livez").status, 200);
}
