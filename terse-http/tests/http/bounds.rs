//! Every bound, and what is answered when it is hit.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::json;
use terse_http::Bounds;
use terse_testkit::Operation;

use crate::server::{Answer, Choices, Server, read_to_end};

const LINKS: &str = "/api/v1/links";
const BATCH: &str = "/api/v1/links/batch";

/// A create of whose body only the first byte arrives.
const BEGUN: &str = "POST /api/v1/links HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                     Content-Length: 9\r\n\r\n{";

fn bounded(bounds: Bounds) -> Server {
    Server::with(Choices { bounds, ..Choices::default() })
}

/// A create whose body has exactly `bytes` bytes, all but the link being white space.
fn padded(bytes: usize) -> String {
    let link = "{\"url\":\"https://example.com/\"}";
    format!("{link}{}", " ".repeat(bytes - link.len()))
}

#[test]
fn a_body_may_fill_its_bound_and_no_more() {
    let server = Server::start();
    let limit = Bounds::default().body_bytes;
    assert_eq!(server.ask("POST", LINKS).json(&padded(limit)).send().status, 201);
    server.ask("POST", LINKS).json(&padded(limit + 1)).send().assert_problem(413, "body_too_large");
    server.ask("PATCH", "/api/v1/links/c1").json(&padded(limit + 1)).send().assert_problem(413, "body_too_large");
    // A batch has a bound of its own.
    let item = json!({"url": "https://example.com/"});
    let batch = json!({"items": vec![item; 1_000]}).to_string();
    let batch = format!("{batch}{}", " ".repeat(limit));
    assert_eq!(server.ask("POST", BATCH).json(&batch).send().status, 200);
}

#[test]
fn a_gigabyte_is_refused_at_once_by_its_announcement() {
    let server = Server::start();
    for path in [LINKS, BATCH] {
        let began = Instant::now();
        let mut stream = server.connect();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{{",
            1 << 30
        );
        stream.write_all(head.as_bytes()).unwrap();
        let answer = Answer::parse(&read_to_end(&mut stream));
        answer.assert_problem(413, "body_too_large");
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
}

#[test]
fn a_chunked_body_without_end_is_refused_and_not_read_on() {
    let server = Server::start();
    for path in [LINKS, "/abc", "/api/v1/links/c1/none"] {
        let mut stream = server.connect();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Transfer-Encoding: chunked\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let chunk = [b"4000\r\n".as_slice(), &[b' '; 0x4000], b"\r\n"].concat();
        // The server closes within its linger time; until then the kernel's buffers take some more.
        let sent = (0..1_000_000).take_while(|_| stream.write_all(&chunk).is_ok()).count();
        assert!(sent < 1_000_000, "{path} was read without end");
    }
    assert_eq!(server.store.faults.calls(Operation::InsertIfAbsent), 0);
}

#[test]
fn a_chunked_body_within_its_bound_is_taken() {
    let server = Server::start();
    let body = "1f\r\n{\"url\":\"https://example.com/1\"}\r\n0\r\n\r\n";
    let head = "POST /api/v1/links HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = Answer::parse(&server.raw(format!("{head}{body}").as_bytes()));
    assert_eq!(answer.status, 201, "{answer:?}");
}

#[test]
fn a_body_that_does_not_arrive_in_time_is_408() {
    let server = bounded(Bounds { body_timeout: Duration::from_millis(100), ..Bounds::default() });
    let mut stream = server.connect();
    stream.write_all(BEGUN.as_bytes()).unwrap();
    let answer = Answer::parse(&read_to_end(&mut stream));
    answer.assert_problem(408, "request_timeout");
    assert_eq!(answer.header("connection"), Some("close"));
}

#[test]
fn a_body_that_breaks_off_is_400() {
    let server = Server::start();
    let mut stream = server.connect();
    stream.write_all(BEGUN.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    Answer::parse(&read_to_end(&mut stream)).assert_problem(400, "malformed_json");
}

#[test]
fn a_head_that_does_not_arrive_in_time_is_408_and_the_end() {
    let server = bounded(Bounds { head_timeout: Duration::from_millis(100), ..Bounds::default() });
    let answer = Answer::parse(&server.raw(b"GET /livez HTTP/1.1\r\nHost: loc"));
    assert_eq!(answer.status, 408);
}

#[test]
fn an_idle_connection_is_closed() {
    let server = bounded(Bounds { keep_alive: Duration::from_millis(200), ..Bounds::default() });
    let began = Instant::now();
    let answer = Answer::parse(&server.raw(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    assert_eq!(answer.status, 200);
    assert!(began.elapsed() >= Duration::from_millis(150), "the connection was kept for a while");
}

#[test]
fn a_long_uri_is_414_everywhere() {
    let server = Server::start();
    let limit = Bounds::default().uri_bytes;
    for path in ["/a", "/a?", "/api/v1/links?limit=1&", "/a/", "/"] {
        let long = format!("{path}{}", "x".repeat(limit + 1 - path.len()));
        server.get(&long).assert_problem(414, "uri_too_long");
        let fits = format!("{path}{}", "x".repeat(limit - path.len()));
        assert_ne!(server.get(&fits).status, 414);
    }
}

#[test]
fn too_many_or_too_long_headers_end_the_connection() {
    let server = Server::start();
    let with = |headers: String| {
        Answer::parse(
            &server.raw(format!("GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n").as_bytes()),
        )
    };
    assert_eq!(with("X-Filler: 1\r\n".repeat(90)).status, 200);
    assert_eq!(with("X-Filler: 1\r\n".repeat(97)).status, 431);
    assert_eq!(with(format!("X-Filler: {}\r\n", "x".repeat(200_000))).status, 431);
    assert_eq!(server.get("/livez").status, 200, "other connections go on");
}

#[test]
fn many_faults_are_not_all_told() {
    let server = Server::start();
    let fields: Vec<_> = (0..500).map(|n| format!("\"f{n}\":1")).collect();
    let problem = server.ask("POST", LINKS).json(&format!("{{{}}}", fields.join(","))).send();
    let problem = problem.assert_problem(422, "validation_failed");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 100);
}
