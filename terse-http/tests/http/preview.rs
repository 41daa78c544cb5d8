//! `/{code}+`: what it shows, and what it leaves alone.

use serde_json::json;
use terse_core::ports::StoreErrorKind;
use terse_core::{Link, LinkState, Timestamp};
use terse_http::Surfaces;
use terse_testkit::links::{link, target};
use terse_testkit::{Fault, Operation, When};

use crate::server::{Answer, Choices, Server};

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

fn page(server: &Server, path: &str) -> Answer {
    server.ask("GET", path).header("Accept", BROWSER).send()
}

fn at(text: &str) -> Option<Timestamp> {
    Some(Timestamp::parse(text).unwrap())
}

#[test]
fn a_program_is_told_where_a_link_leads() {
    let server = Server::start();
    server.put(&link("abc"));
    for path in ["/abc+", "/abc%2B", "/abc%2b", "/abc+?x=1"] {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{path}");
        let expected =
            json!({"code": "abc", "short_url": "https://go.example.org/abc", "url": "https://example.com/abc"});
        assert_eq!(answer.value(), expected, "{path}");
        assert_eq!(answer.header("location"), None);
    }
    let head = server.ask("HEAD", "/abc+").header("X-Request-Id", "r7").send();
    assert_eq!((head.status, head.body.as_str(), head.header("x-request-id")), (200, "", Some("r7")));
}

#[test]
fn a_person_gets_a_page_that_is_neither_kept_nor_listed_nor_scripted() {
    let server = Server::start();
    server.put(&Link { target: target("https://example.com:8443/a?b=1&c=2#d"), ..link("abc") });
    let shown = page(&server, "/abc+");
    assert_eq!((shown.status, shown.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(shown.body.contains("https://<strong>example.com:8443</strong>/a?b=1&amp;c=2#d"), "{}", shown.body);
    assert!(shown.body.contains("href=\"https://example.com:8443/a?b=1&amp;c=2#d\" rel=\"noreferrer nofollow\""));
    assert!(shown.body.contains("prefers-color-scheme:dark") && shown.body.contains("width=device-width"));
    assert!(!shown.body.contains("<script"));
    assert_eq!(shown.header("cache-control"), Some("no-store"));
    assert_eq!(shown.header("x-robots-tag"), Some("noindex"));
    assert_eq!(shown.header("referrer-policy"), Some("no-referrer"));
    assert!(shown.header("content-security-policy").unwrap().contains("default-src 'none'"));
}

#[test]
fn a_preview_is_no_click_and_no_redirect() {
    let server = Server::start();
    server.put(&link("abc"));
    server.get("/abc+");
    page(&server, "/abc+");
    server.get("/nothing+");
    assert_eq!(server.recorded.take().len(), 0);
    assert_eq!(server.metric("terse_redirects_total"), 0.0);
    server.get("/abc");
    assert_eq!(server.recorded.take().len(), 1);
}

#[test]
fn a_link_that_leads_nowhere_says_so_as_its_redirect_does() {
    let server = Server::start();
    server.put(&Link { state: LinkState::Disabled, ..link("off") });
    server.put(&Link { state: LinkState::Deleted, ..link("deleted") });
    server.put(&Link { state: LinkState::Blocked, ..link("blocked") });
    server.put(&Link { expires_at: at("2020-01-01T00:00:00Z"), ..link("expired") });
    server.put(&Link { valid_from: at("2090-01-01T00:00:00Z"), ..link("later") });
    for (code, status) in
        [("off", 410), ("deleted", 410), ("blocked", 451), ("expired", 410), ("later", 404), ("unknown", 404)]
    {
        let (preview, redirect) = (server.get(&format!("/{code}+")), server.get(&format!("/{code}")));
        assert_eq!((preview.status, &preview.body), (status, &redirect.body), "{code}");
        let shown = page(&server, &format!("/{code}+"));
        assert!(shown.status == status && !shown.body.contains("example.com"), "{code}: {shown:?}");
    }
    for path in ["/+", "/a+b", "/abc++", "/health+", "/abc+/"] {
        server.get(path).assert_problem(404, "not_found");
    }
    assert_eq!(server.ask("POST", "/off+").send().header("allow"), Some("GET, HEAD"));
}

#[test]
fn what_memory_knows_is_shown_without_looking_it_up_and_a_store_away_is_503() {
    let server = Server::start();
    server.reader.known.lock().insert("abc".into(), link("abc").resolution());
    server.store.faults.add(Operation::Resolve, When::Every, Fault::Fail(StoreErrorKind::Unavailable));
    assert_eq!(server.get("/abc+").status, 200);
    let away = server.get("/other+");
    away.assert_problem(503, "store_unavailable");
    assert_eq!(away.header("retry-after"), Some("1"));
}

#[test]
fn nothing_that_a_target_holds_becomes_markup() {
    let server = Server::start();
    let hostile = [
        "https://example.com/\"><script>alert(1)</script>",
        "https://example.com/'onmouseover='alert(1)",
        "https://example.com/</p></main><style>*{}",
        "https://example.com/<!--",
        "https://example.com/?a=&lt;b&#x3c;",
    ];
    for (n, url) in hostile.into_iter().enumerate() {
        let code = format!("h{n}");
        server.create(&json!({"url": url, "alias": code, "title": "<b>t</b>"}));
        let told = server.get(&format!("/{code}+")).value();
        assert_eq!(told["url"], url, "JSON has it byte for byte");
        let shown = page(&server, &format!("/{code}+")).body;
        let body = &shown[shown.find("<body>").unwrap()..];
        for markup in ["<script", "<style", "<!--", "</p></main><", "<b>", "'onmouseover", "\"><"] {
            let own = body.matches(markup).count();
            let safe = page_of_safe(&server).matches(markup).count();
            assert_eq!(own, safe, "{markup} in the page of {url}: {body}");
        }
    }
}

/// The body of the preview of a harmless link.
fn page_of_safe(server: &Server) -> String {
    server.put(&link("safe"));
    let shown = page(server, "/safe+").body;
    shown[shown.find("<body>").unwrap()..].to_owned()
}

#[test]
fn characters_that_turn_directions_are_shown_encoded() {
    let server = Server::start();
    server.create(&json!({"url": "https://example.com/\u{202e}gpj.exe\u{2066}\u{200f}", "alias": "bidi"}));
    let shown = page(&server, "/bidi+").body;
    assert!(shown.contains("%E2%80%AEgpj.exe%E2%81%A6%E2%80%8F"), "{shown}");
    assert!(
        shown
            .chars()
            .all(|c| !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}'..='\u{200f}'))
    );
    assert_eq!(shown.matches("dir=\"ltr\"").count(), 2);
}

#[test]
fn a_long_target_and_an_idn_host_are_shown_whole() {
    let server = Server::start();
    let long = format!("https://example.com/{}", "x".repeat(2_000));
    server.create(&json!({"url": long, "alias": "long"}));
    assert!(page(&server, "/long+").body.contains(&"x".repeat(2_000)));
    server.create(&json!({"url": "https://b\u{fc}cher.example/", "alias": "idn"}));
    assert!(page(&server, "/idn+").body.contains("<strong>xn--bcher-kva.example</strong>"), "no look-alikes");
}

#[test]
fn a_process_without_redirects_shows_no_previews() {
    let surfaces = Surfaces { redirect: false, api: true };
    let server = Server::with(Choices { surfaces, ..Choices::default() });
    server.put(&link("abc"));
    server.get("/abc+").assert_problem(404, "not_found");
}
