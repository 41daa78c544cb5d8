//! The page at `/` and its form.

use std::sync::Arc;

use serde_json::json;
use terse_core::Role;
use terse_core::ports::StoreErrorKind;
use terse_testkit::{Fault, Operation, When};

use crate::server::{Answer, Choices, Keys, Server};

fn post(server: &Server, body: &str) -> Answer {
    server.ask("POST", "/").header("Sec-Fetch-Site", "same-origin").form(body).send()
}

#[track_caller]
fn assert_page(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    let policy = answer.header("content-security-policy").unwrap();
    let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert_eq!(nonce.len(), 32);
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(answer.body.contains(&format!("<style nonce=\"{nonce}\">")));
    assert!(answer.body.contains(&format!("<script nonce=\"{nonce}\">")));
}

#[test]
fn the_page_has_a_form_and_leads_to_the_api() {
    let server = Server::start();
    let page = server.get("/");
    assert_page(&page, 200);
    assert!(page.body.contains("<form method=\"post\" action=\"/\">"));
    assert!(page.body.contains("href=\"/api/docs/\""));
    assert!(!page.body.contains("type=\"password\""), "an open server asks for no key");
    assert_ne!(server.get("/").header("content-security-policy"), page.header("content-security-policy"));
}

#[test]
fn the_form_shortens_without_javascript() {
    let server = Server::start();
    let page = post(&server, "token=t&url=+https%3A%2F%2Fexample.com%2F%3Fa%3D1%26b%3D2%0A&alias=mine");
    assert_page(&page, 201);
    assert_eq!(page.header("location"), Some("/api/v1/links/mine"));
    assert!(page.body.contains("value=\"https://go.example.org/mine\""), "{}", page.body);
    assert!(page.body.contains("https://example.com/?a=1&amp;b=2"), "{}", page.body);
    assert_eq!(server.get("/mine").header("location"), Some("https://example.com/?a=1&b=2"));
}

#[test]
fn sending_one_form_twice_makes_one_link() {
    let server = Server::start();
    let body = "token=t1&url=https%3A%2F%2Fexample.com%2F&alias=";
    assert_eq!(post(&server, body).header("location"), post(&server, body).header("location"));
    assert_eq!(server.get("/api/v1/links").value()["items"].as_array().unwrap().len(), 1);
    post(&server, "token=t2&url=https%3A%2F%2Fexample.com%2F&alias=");
    assert_eq!(server.get("/api/v1/links").value()["items"].as_array().unwrap().len(), 2);
}

#[test]
fn faults_are_told_on_the_page_under_their_status() {
    let server = Server::start();
    let page = post(&server, "url=ftp%3A%2F%2Fexample.com&alias=no+spaces");
    assert_page(&page, 422);
    assert!(page.body.contains("role=\"alert\"") && page.body.contains("The alias may only hold"), "{}", page.body);
    assert!(page.body.contains("value=\"ftp://example.com\" aria-invalid=\"true\""), "{}", page.body);
    assert_page(&post(&server, "alias=x"), 422);
    assert_page(&post(&server, "url=%ff"), 422);
    assert_page(&post(&server, "url=https%3A%2F%2Fexample.com%2F&alias=taken"), 201);
    let taken = post(&server, "url=https%3A%2F%2Fexample.com%2F%3F&alias=taken");
    assert_page(&taken, 409);
    assert!(taken.body.contains("The alias is taken"));
    server.store.faults.add(Operation::InsertIfAbsent, When::Every, Fault::Fail(StoreErrorKind::Unavailable));
    let down = post(&server, "url=https%3A%2F%2Fexample.com%2F");
    assert_page(&down, 503);
    assert_eq!(down.header("retry-after"), Some("1"));
}

#[test]
fn what_was_typed_is_escaped_wherever_it_comes_back() {
    let server = Server::start();
    let typed = "%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E%27%60%26";
    let page = post(&server, &format!("url={typed}&alias={typed}"));
    assert_page(&page, 422);
    assert!(!page.body.contains("<script>"), "{}", page.body);
    assert!(page.body.contains("&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&#39;&#96;&amp;"), "{}", page.body);
}

#[test]
fn a_form_on_a_foreign_site_is_refused() {
    let server = Server::start();
    let own = format!("http://{}", server.address);
    let sent = |headers: &[(&str, &str)]| {
        let mut request = server.ask("POST", "/").header("Host", &server.address.to_string());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.form("url=https%3A%2F%2Fexample.com%2F").send().status
    };
    assert_eq!(sent(&[("Sec-Fetch-Site", "same-origin")]), 201);
    assert_eq!(sent(&[("Sec-Fetch-Site", "none")]), 201);
    assert_eq!(sent(&[("Origin", &own)]), 201);
    assert_eq!(sent(&[("Origin", "https://go.example.org")]), 201);
    for foreign in [
        &[][..],
        &[("Sec-Fetch-Site", "cross-site")],
        &[("Sec-Fetch-Site", "same-site")],
        &[("Sec-Fetch-Site", "cross-site"), ("Origin", &own)],
        &[("Origin", "null")],
        &[("Origin", "https://evil.example")],
        &[("Origin", "https://go.example.org.evil.example")],
        &[("Origin", "")],
    ] {
        assert_eq!(sent(foreign), 403, "{foreign:?}");
    }
    let wrong_host = server.ask("POST", "/").header("Host", "evil.example").header("Sec-Fetch-Site", "same-origin");
    wrong_host.form("url=https%3A%2F%2Fexample.com%2F").send().assert_problem(421, "misdirected_request");
}

#[test]
fn only_a_form_is_taken_and_only_a_small_one() {
    let server = Server::start();
    let own = || server.ask("POST", "/").header("Sec-Fetch-Site", "same-origin");
    assert_page(&own().json(&json!({"url": "https://example.com/"}).to_string()).send(), 415);
    assert_page(&own().body("url=https%3A%2F%2Fexample.com%2F").send(), 415);
    assert_page(&own().form(&format!("url={}", "x".repeat(70_000))).send(), 413);
    assert_page(&own().form(&"a=1&".repeat(100)).send(), 422);
}

#[test]
fn with_keys_the_form_asks_for_one_and_never_shows_it() {
    let keys = Arc::new(Keys::default());
    let [writer, reader] = [Role::Writer, Role::Reader].map(|role| keys.issue("k", role).reveal().to_owned());
    let server = Server::with(Choices { keys: Some(keys), ..Choices::default() });
    assert!(server.get("/").body.contains("name=\"key\" type=\"password\""));
    let sent = |key: &str| post(&server, &format!("url=https%3A%2F%2Fexample.com%2F&key={key}"));
    let wrong = sent("trs_wrong_secret");
    assert_page(&wrong, 401);
    assert!(!wrong.body.contains("trs_wrong_secret"), "{}", wrong.body);
    assert!(wrong.body.contains("value=\"https://example.com/\""), "what else was typed is kept");
    assert_page(&sent(""), 401);
    assert_page(&sent(&reader), 403);
    let created = sent(&writer);
    assert_page(&created, 201);
    assert!(!created.body.contains(&writer));
}
