//! The book at `/docs/`: its files, and nothing else.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;
use terse_http::Surfaces;

use crate::server::{Answer, Choices, Server, read_to_end};

/// Larger than a piece, and no multiple of one.
const LARGE: usize = 200_001;

/// A directory with the book in `book`, and what must not be served beside it.
fn place() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    let book = place.path().join("book");
    fs::create_dir_all(book.join("patterns")).unwrap();
    fs::create_dir_all(book.join(".git")).unwrap();
    for (name, text) in [
        ("book/index.html", "<p>the book</p>"),
        ("book/patterns/index.html", "<p>patterns</p>"),
        ("book/book.js", "1"),
        ("book/style.css", "p{}"),
        ("book/data.json", "{}"),
        ("book/picture.svg", "<svg/>"),
        ("book/odd.name", "?"),
        ("book/.git/config", "hidden"),
        ("secret.txt", "secret"),
    ] {
        fs::write(place.path().join(name), text).unwrap();
    }
    fs::write(book.join("large.html"), "x".repeat(LARGE)).unwrap();
    symlink(book.join("index.html"), book.join("inside.html")).unwrap();
    symlink(place.path().join("secret.txt"), book.join("outside.html")).unwrap();
    symlink(place.path(), book.join("up")).unwrap();
    symlink(book.join("round.html"), book.join("round.html")).unwrap();
    place
}

fn server(directory: &Path) -> Server {
    Server::with(Choices { docs_dir: Some(directory.to_owned()), ..Choices::default() })
}

fn assert_page(answer: &Answer, content_type: &str) {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some(content_type));
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    let policy = answer.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self' 'unsafe-inline'"), "{policy}");
    assert!(!policy.contains("http") && !policy.contains('*') && !policy.contains("eval"), "{policy}");
}

#[test]
fn the_book_is_served_with_its_content_types() {
    let place = place();
    let server = server(&place.path().join("book"));
    for (path, content_type, body) in [
        ("/docs/", "text/html; charset=utf-8", "<p>the book</p>"),
        ("/docs/index.html?x=1", "text/html; charset=utf-8", "<p>the book</p>"),
        ("/docs/inside.html", "text/html; charset=utf-8", "<p>the book</p>"),
        ("/docs/patterns/", "text/html; charset=utf-8", "<p>patterns</p>"),
        ("/docs/book.js", "text/javascript; charset=utf-8", "1"),
        ("/docs/style.css", "text/css; charset=utf-8", "p{}"),
        ("/docs/data.json", "application/json", "{}"),
        ("/docs/picture.svg", "image/svg+xml", "<svg/>"),
        ("/docs/odd.name", "application/octet-stream", "?"),
        ("/docs/index%2ehtml", "text/html; charset=utf-8", "<p>the book</p>"),
    ] {
        let answer = server.get(path);
        assert_page(&answer, content_type);
        assert_eq!(answer.body, body, "{path}");
    }
    let large = server.get("/docs/large.html");
    assert_eq!((large.body.len(), large.header("content-length")), (LARGE, Some("200001")));
}

#[test]
fn docs_lead_to_their_slash_and_head_has_no_body() {
    let place = place();
    let server = server(&place.path().join("book"));
    let led = server.get("/docs");
    assert_eq!((led.status, led.header("location")), (308, Some("/docs/")));
    let head = server.ask("HEAD", "/docs/large.html").send();
    assert_page(&head, "text/html; charset=utf-8");
    assert_eq!((head.header("content-length"), head.body.as_str()), (Some("200001"), ""));
    let posted = server.ask("POST", "/docs/").send();
    posted.assert_problem(405, "method_not_allowed");
    assert_eq!(posted.header("allow"), Some("GET, HEAD"));
}

#[test]
fn nothing_outside_of_the_book_is_served() {
    let place = place();
    let server = server(&place.path().join("book"));
    for path in [
        "/docs/../secret.txt",
        "/docs/%2e%2e/secret.txt",
        "/docs/%2E%2E%2Fsecret.txt",
        "/docs/..%2fsecret.txt",
        "/docs/patterns/../../secret.txt",
        "/docs/patterns/%2e%2e/%2e%2e/secret.txt",
        "/docs/./../secret.txt",
        "/docs/..%5csecret.txt",
        "/docs//etc/passwd",
        "/docs/%2fetc/passwd",
        "/docs/outside.html",
        "/docs/up/secret.txt",
        "/docs/up/book/../secret.txt",
        "/docs/round.html",
        "/docs/.git/config",
        "/docs/%2egit/config",
        "/docs/patterns",
        "/docs/index.html/",
        "/docs/index.html%00.css",
        "/docs/none.html",
    ] {
        let answer = server.get(path);
        answer.assert_problem(404, "not_found");
        assert!(!answer.body.contains("secret\n") && !answer.body.contains("root:"), "{path}");
    }
    let long = server.get(&format!("/docs/{}", "x".repeat(5_000)));
    long.assert_problem(404, "not_found");
}

#[test]
fn a_file_that_the_client_has_is_not_sent_again_until_it_changes() {
    let place = place();
    let file = place.path().join("book/book.js");
    let server = server(&place.path().join("book"));
    let tag = server.get("/docs/book.js").header("etag").unwrap().to_owned();
    for known in [tag.clone(), format!("\"other\", {tag}"), "*".to_owned()] {
        let again = server.ask("GET", "/docs/book.js").header("If-None-Match", &known).send();
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{known}");
        assert_eq!((again.header("etag"), again.header("cache-control")), (Some(&*tag), Some("no-cache")));
    }
    for unknown in ["W/\"other\"", "nonsense"] {
        let again = server.ask("GET", "/docs/book.js").header("If-None-Match", unknown).send();
        assert_eq!(again.status, 200, "{unknown}");
    }
    fs::write(&file, "22").unwrap();
    let changed = server.ask("GET", "/docs/book.js").header("If-None-Match", &tag).send();
    assert_eq!((changed.status, changed.body.as_str()), (200, "22"));
}

#[test]
fn a_book_that_is_not_there_is_not_found_until_it_is() {
    let place = place();
    let server = server(&place.path().join("later"));
    server.get("/docs/").assert_problem(404, "not_found");
    fs::rename(place.path().join("book"), place.path().join("later")).unwrap();
    assert_page(&server.get("/docs/"), "text/html; charset=utf-8");
    for choices in [
        Choices::default(),
        Choices {
            docs_dir: Some(place.path().join("later")),
            surfaces: Surfaces { redirect: true, api: false },
            ..Choices::default()
        },
    ] {
        let without = Server::with(choices);
        without.get("/docs/").assert_problem(404, "not_found");
        without.get("/docs").assert_problem(404, "not_found");
    }
}

#[test]
fn the_start_page_leads_to_the_book_while_it_is_there() {
    let place = place();
    let server = server(&place.path().join("later"));
    let pages = || {
        let post = |form: &str| server.ask("POST", "/").header("Sec-Fetch-Site", "same-origin").form(form).send();
        [(200, server.get("/")), (201, post("url=https%3A%2F%2Fexample.com%2F")), (422, post("url="))]
    };
    let lead = |wanted: bool| {
        for (status, page) in pages() {
            let link = "<a href=\"/docs/\">Book</a>";
            assert_eq!((page.status, page.body.contains(link)), (status, wanted), "{}", page.body);
        }
    };
    lead(false);
    fs::rename(place.path().join("book"), place.path().join("later")).unwrap();
    lead(true);
    fs::remove_file(place.path().join("later/index.html")).unwrap();
    lead(false);
}

#[test]
fn an_open_server_shows_its_book_to_its_own_hosts_only() {
    let place = place();
    let server = server(&place.path().join("book"));
    let foreign = server.ask("GET", "/docs/").header("Host", "evil.example").send();
    foreign.assert_problem(421, "misdirected_request");
}

#[test]
fn a_connection_goes_on_after_a_page_and_redirects_after_it() {
    let place = place();
    let server = server(&place.path().join("book"));
    server.create(&serde_json::json!({"url": "https://example.com/", "alias": "mine"}));
    let mut stream = server.connect();
    stream.write_all(b"GET /docs/large.html HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut page = vec![0; LARGE];
    stream.read_exact(&mut page).unwrap();
    stream.write_all(b"GET /mine HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let rest = String::from_utf8(read_to_end(&mut stream)).unwrap();
    assert!(rest.contains("HTTP/1.1 302") && rest.contains("https://example.com/"), "{}", &rest[..200.min(rest.len())]);
}
