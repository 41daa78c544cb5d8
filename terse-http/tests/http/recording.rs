//! Clicks: which redirects are noted, and what of their requests.

use std::time::{Duration, Instant};

use terse_core::click::Dropped;
use terse_core::{Link, LinkState, Version};
use terse_testkit::links::link;

use crate::server::Server;

fn server() -> Server {
    let server = Server::start();
    server.put(&Link { version: Version(3), ..link("abc") });
    server
}

#[test]
fn a_redirect_is_noted_with_what_its_request_tells() {
    let server = server();
    let request = server
        .ask("GET", "/abc?x=1")
        .header("Referer", "https://news.example/a?b")
        .header("User-Agent", "Mozilla/5.0")
        .header("Accept-Language", "de, en;q=0.5")
        .header("DNT", "1")
        .header("Sec-GPC", "1")
        .header("Sec-Purpose", "prefetch;prerender");
    assert_eq!(request.send().status, 302);
    let whole = "abc v3 127.0.0.1 [https://news.example/a?b] [Mozilla/5.0] [de, en;q=0.5] dnt+gpc+ahead";
    assert_eq!(server.recorded.take(), [whole]);
    assert_eq!(server.get("/abc").status, 302);
    assert_eq!(server.recorded.take(), ["abc v3 127.0.0.1 [] [] [] "]);
}

#[test]
fn headers_that_say_no_are_not_taken_for_yes_and_of_several_the_first_counts() {
    let server = server();
    let request = server
        .ask("GET", "/abc")
        .header("DNT", "0")
        .header("Sec-GPC", "0")
        .header("Purpose", "document")
        .header("User-Agent", "first")
        .header("User-Agent", "second");
    request.send();
    assert_eq!(server.recorded.take(), ["abc v3 127.0.0.1 [] [first] [] "]);
}

#[test]
fn hostile_bytes_are_handed_on_as_they_are() {
    let server = server();
    let answer = server.raw(b"GET /abc HTTP/1.1\r\nHost: x\r\nReferer: \xff\xfe=cmd\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with(b"HTTP/1.1 302 "));
    assert_eq!(server.recorded.take(), ["abc v3 127.0.0.1 [\\xff\\xfe=cmd] [] [] "]);
}

#[test]
fn only_redirects_that_were_followed_are_clicks() {
    let server = server();
    server.put(&Link { state: LinkState::Disabled, ..link("off") });
    server.put(&Link { state: LinkState::Blocked, ..link("bad") });
    for (method, path, status) in [
        ("HEAD", "/abc", 302),
        ("GET", "/none", 404),
        ("GET", "/off", 410),
        ("GET", "/bad", 451),
        ("POST", "/abc", 405),
    ] {
        assert_eq!(server.ask(method, path).send().status, status, "{method} {path}");
    }
    assert_eq!(server.recorded.take(), Vec::<String>::new());
    assert_eq!(server.metric("terse_clicks_recorded_total"), 0.0);
}

#[test]
fn a_click_that_is_dropped_harms_no_redirect_and_is_counted_as_dropped() {
    let server = server();
    *server.recorded.full.lock() = Some(Dropped::Budget);
    assert_eq!(server.get("/abc").status, 302);
    *server.recorded.full.lock() = None;
    assert_eq!(server.get("/abc").status, 302);
    assert_eq!(server.metric("terse_clicks_dropped_total{reason=\"budget\"}"), 1.0);
    assert_eq!(server.metric("terse_clicks_recorded_total"), 1.0);
}

#[test]
fn a_worker_looks_after_its_block_without_clicks_and_gives_it_back_at_its_end() {
    let server = server();
    let recorded = server.recorded.clone();
    // Whoever answers has begun.
    assert_eq!((server.get("/livez").status, recorded.open()), (200, 1));
    let (before, begun) = (recorded.looks(), Instant::now());
    while recorded.looks() < before + 2 {
        assert!(begun.elapsed() < Duration::from_secs(5), "nobody looks after the block");
        std::thread::yield_now();
    }
    drop(server);
    assert_eq!(recorded.open(), 0);
}
