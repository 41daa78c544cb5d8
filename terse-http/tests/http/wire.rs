//! What happens on the connection itself: old and odd clients, pipelining, draining.

use std::io::Write;
use std::time::{Duration, Instant};

use terse_http::Phase;
use terse_testkit::links::link;
use terse_testkit::{Fault, Gate, Operation, When};

use crate::server::{Answer, Server, read_to_end};

#[test]
fn http_1_0_is_answered_and_closed() {
    let server = Server::start();
    server.put(&link("abc"));
    let answer = Answer::parse(&server.raw(b"GET /abc HTTP/1.0\r\n\r\n"));
    assert_eq!((answer.status, answer.header("location")), (302, Some("https://example.com/abc")));
    let body = "{\"url\":\"https://example.com/\"}";
    let head = "POST /api/v1/links HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ";
    let created = server.raw(format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes());
    assert_eq!(Answer::parse(&created).status, 201);
    let nameless = Answer::parse(&server.raw(b"GET /api/v1/links HTTP/1.0\r\n\r\n"));
    nameless.assert_problem(421, "misdirected_request");
}

#[test]
fn http_1_0_is_kept_when_it_asks_for_that() {
    let server = Server::start();
    server.reader.known.lock().insert("two".into(), link("two").resolution());
    let kept = "GET /two HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let text = String::from_utf8(server.raw(format!("{kept}{kept}GET /two HTTP/1.0\r\n\r\n").as_bytes())).unwrap();
    let statuses = text.lines().filter(|line| *line == "HTTP/1.0 302 Found").count();
    assert_eq!(statuses, 3, "{text}");
    assert_eq!(text.lines().filter(|line| *line == "connection: keep-alive").count(), 2, "{text}");
}

#[test]
fn every_redirect_carries_the_date_and_its_length() {
    let server = Server::start();
    server.reader.known.lock().insert("two".into(), link("two").resolution());
    for method in ["GET", "HEAD"] {
        let answer = server.ask(method, "/two").send();
        let date = answer.header("date").unwrap();
        assert!(date.ends_with(" GMT") && date.len() == "Sun, 06 Nov 1994 08:49:37 GMT".len(), "{date}");
        assert_eq!((answer.header("content-length"), answer.body.as_str()), (Some("0"), ""));
    }
}

#[test]
fn heads_and_redirects_follow_api_calls_in_one_packet() {
    let server = Server::start();
    server.reader.known.lock().insert("two".into(), link("two").resolution());
    let body = "{\"url\":\"https://example.com/\"}";
    let create = format!(
        "POST /api/v1/links HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let get = "GET /two HTTP/1.1\r\nHost: a\r\n\r\n";
    let head = "HEAD /two HTTP/1.1\r\nHost: a\r\n\r\n";
    let last = "GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let text = server.raw([create.as_str(), get, head, &create, get, last].concat().as_bytes());
    let text = String::from_utf8(text).unwrap();
    let statuses: Vec<_> = text.split("HTTP/1.1 ").filter_map(|answer| answer.get(..3)).collect();
    assert_eq!(statuses, ["201", "302", "302", "201", "302", "200"], "{text}");
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let server = Server::start();
    server.put(&link("one"));
    server.reader.known.lock().insert("two".into(), link("two").resolution());
    let get = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n");
    let requests =
        [get("/one", ""), get("/two", ""), get("/livez", ""), get("/none", ""), get("/two", "Connection: close\r\n")];
    let text = String::from_utf8(server.raw(requests.concat().as_bytes())).unwrap();
    // A body doesn't end in a line feed, so an answer may begin within a line.
    let statuses: Vec<_> = text.split("HTTP/1.1 ").filter_map(|answer| answer.get(..3)).collect();
    assert_eq!(statuses, ["302", "302", "200", "404", "302"], "{text}");
    let targets: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("location: https://example.com/")).collect();
    assert_eq!(targets, ["one", "two", "two"]);
}

#[test]
fn a_connection_is_kept_between_requests() {
    let server = Server::start();
    let body = "{\"url\":\"https://example.com/\"}";
    let create = format!(
        "POST /api/v1/links HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let text =
        server.raw(format!("{create}{create}GET /c2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes());
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text.matches("HTTP/1.1 201").count(), 2, "{text}");
    assert_eq!(text.matches("HTTP/1.1 302").count(), 1, "{text}");
}

#[test]
fn what_is_no_http_is_refused_and_closed() {
    let server = Server::start();
    for nonsense in [
        "GARBAGE\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET /abc HTTP/1.1\r\n\r\n",
        "GET /abc HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "POST /api/v1/links HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        "POST /api/v1/links HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        assert_eq!(Answer::parse(&server.raw(nonsense.as_bytes())).status, 400, "{nonsense:?}");
    }
    let bytes = server.raw(b"GET /\xc3\xbc HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(matches!(Answer::parse(&bytes).status, 400 | 404), "{bytes:?}");
    assert_eq!(server.get("/livez").status, 200);
}

#[test]
fn odd_targets_do_no_harm() {
    let server = Server::start();
    for (line, status) in
        [("OPTIONS * HTTP/1.1", 404), ("GET http://localhost HTTP/1.1", 200), ("GET ?x HTTP/1.1", 400)]
    {
        let request = format!("{line}\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert_eq!(Answer::parse(&server.raw(request.as_bytes())).status, status, "{line}");
    }
    let mut stream = server.connect();
    stream.write_all(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let answer = Answer::parse(&read_to_end(&mut stream));
    assert!((400..500).contains(&answer.status), "{answer:?}");
}

#[test]
fn while_draining_every_answer_ends_its_connection() {
    let server = Server::start();
    server.put(&link("abc"));
    server.lifecycle.enter(Phase::Draining);
    for path in ["/abc", "/none", "/livez", "/api/v1/links", "/a/b", "/%00"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let answer = Answer::parse(&server.raw(request.as_bytes()));
        assert_eq!(answer.header("connection"), Some("close"), "{path}");
    }
    let ready = server.get("/readyz");
    assert_eq!((ready.status, ready.body.as_str()), (503, "draining\n"));
}

#[test]
fn a_request_is_in_flight_until_it_is_answered() {
    let server = Server::start();
    server.put(&link("abc"));
    let gate = Gate::closed();
    server.store.faults.add(Operation::Resolve, When::Every, Fault::HoldCall(gate.clone()));
    let mut stream = server.connect();
    stream.write_all(b"GET /abc HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    await_in_flight(&server, 1);
    server.lifecycle.enter(Phase::Draining);
    gate.open();
    let answer = Answer::parse(&read_to_end(&mut stream));
    assert_eq!((answer.status, answer.header("connection")), (302, Some("close")));
    await_in_flight(&server, 0);
}

#[test]
fn a_client_that_goes_away_is_no_longer_in_flight() {
    let server = Server::start();
    for _ in 0..3 {
        server.get("/none");
        server.get("/livez");
        server.json("POST", "/api/v1/links", &serde_json::json!({}));
    }
    await_in_flight(&server, 0);
}

#[track_caller]
fn await_in_flight(server: &Server, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while server.lifecycle.in_flight() != count {
        assert!(Instant::now() < deadline, "{} in flight", server.lifecycle.in_flight());
        std::thread::yield_now();
    }
}
