//! Requests that no well-behaved client sends, byte by byte. The server
//! answers or closes within its bounds, never panics, and serves the next one.

use std::time::{Duration, Instant};

use serde_json::json;
use terse_it::{API_LINKS, Client, Connection, Request, Response, Server, Setup};

/// A server whose timeouts are short enough to be waited for.
fn quick_server() -> Server {
    Setup::new().env("TERSE_HEAD_TIMEOUT", "2s").env("TERSE_BODY_TIMEOUT", "2s").start()
}

/// What the server answers to these bytes; `None` when it closes without an answer.
fn answer_to(client: &Client, bytes: &[u8]) -> Option<Response> {
    let mut connection = client.connect();
    connection.patience(Duration::from_secs(8)).unwrap();
    // The server may have answered and closed before all was written.
    let _ = connection.write(bytes);
    connection.receive(false).ok()
}

fn status_of(client: &Client, bytes: &[u8]) -> u16 {
    answer_to(client, bytes).map_or(0, |answer| answer.status)
}

#[track_caller]
fn assert_alive(client: &Client) {
    let code = client.shorten("https://example.com/still-here");
    assert_eq!(client.target(&code), "https://example.com/still-here");
}

#[test]
fn odd_paths_are_404_and_touch_nothing() {
    let server = Setup::new().start();
    let client = server.client();
    let code = client.shorten("https://example.com/");
    let paths = [
        "/%00",
        "//x",
        "/a/b",
        &format!("//{code}"),
        &format!("/{code}/"),
        &format!("/{code}%00"),
        &format!("/./{code}"),
        "/%2e%2e",
        "/..",
        "/../etc/passwd",
        "/%",
        "/%zz",
        "/a%2fb",
        "/a\\b",
        "/~",
        "/\u{e9}",
        "/%C3%A9",
        "/x.php",
        "/;",
        &format!("/{}", "a".repeat(65)),
        &format!("/{}", "a".repeat(4_000)),
    ];
    for path in paths {
        let status = status_of(&client, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        assert!(matches!(status, 404 | 400), "{path}: {status}");
    }
    for path in ["/%00", "//x", "/a/b"] {
        assert_eq!(client.get(path).status, 404, "{path}");
    }
    let queried = client.get(&format!("/{code}?utm=1")).expect(302);
    assert_eq!(queried.header("location"), Some("https://example.com/"));
    assert_alive(&client);
}

#[test]
fn requests_of_other_forms_are_understood() {
    let server = Setup::new().start();
    let client = server.client();
    let code = client.shorten("https://example.com/");
    let old = answer_to(&client, format!("GET /{code} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
    assert_eq!(old.status, 302);
    let mut connection = client.connect();
    connection.write(b"GET /livez HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(connection.receive(false).unwrap().status, 200);
    connection.patience(Duration::from_secs(5)).unwrap();
    assert!(connection.drain(1_000), "an HTTP/1.0 connection is closed after its answer");
    let absolute = format!("GET http://localhost/{code} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(status_of(&client, absolute.as_bytes()), 302);
    let lower = status_of(&client, format!("get /{code} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
    assert!(matches!(lower, 400 | 405 | 501 | 0), "methods are case-sensitive: {lower}");
    assert_alive(&client);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Setup::new().start();
    let client = server.client();
    let codes: Vec<String> = (0..20).map(|n| client.shorten(&format!("https://example.com/{n}"))).collect();
    let mut connection = client.connect();
    let mut all = Vec::new();
    for code in &codes {
        all.extend(Request::new("GET", &format!("/{code}")).bytes("localhost"));
        all.extend(Request::new("GET", "/unknown").bytes("localhost"));
        let body = json!({ "url": format!("https://example.org/{code}") });
        all.extend(Request::new("POST", API_LINKS).json(&body).bytes("localhost"));
    }
    connection.write(&all).unwrap();
    for (n, code) in codes.iter().enumerate() {
        let redirect = connection.receive(false).unwrap();
        assert_eq!(redirect.header("location"), Some(format!("https://example.com/{n}").as_str()));
        assert_eq!(connection.receive(false).unwrap().status, 404);
        let created = connection.receive(false).unwrap().expect(201);
        assert_eq!(created.json()["url"], format!("https://example.org/{code}"));
    }
}

#[test]
fn a_connection_is_usable_after_every_refusal_that_does_not_close_it() {
    let server = Setup::new().start();
    let client = server.client();
    let mut connection = client.connect();
    for request in [
        Request::new("POST", API_LINKS).body("application/json", "{broken"),
        Request::new("POST", API_LINKS).body("text/plain", "hello"),
        Request::new("POST", "/livez").body("text/plain", "x".repeat(1_000)),
        Request::new("PUT", API_LINKS).json(&json!({})),
        Request::new("POST", "/api/v1/nothing").json(&json!({})),
        Request::new("GET", "/unknown").body("text/plain", "a body on GET"),
    ] {
        let answer = connection.call(&request).unwrap();
        assert!((400..500).contains(&answer.status), "{request:?}: {answer:?}");
        if answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            connection = client.connect();
        }
    }
    assert_eq!(connection.call(&Request::new("GET", "/livez")).unwrap().status, 200);
}

#[test]
fn a_missing_host_does_no_harm() {
    let server = Setup::new().start();
    let client = server.client();
    let status = status_of(&client, format!("GET {API_LINKS} HTTP/1.1\r\n\r\n").as_bytes());
    assert!(matches!(status, 400 | 421), "{status}");
    let body = "{\"url\":\"https://example.com/\"}";
    let length = body.len();
    for hosts in ["", "Host: \r\n", "Host: localhost\r\nHost: evil.example\r\n", "Host: a b\r\n", "Host: \u{1}\r\n"] {
        let head = format!("POST {API_LINKS} HTTP/1.1\r\n{hosts}Content-Type: application/json\r\n");
        let request = format!("{head}Content-Length: {length}\r\n\r\n{body}");
        let status = status_of(&client, request.as_bytes());
        assert!(matches!(status, 400 | 421), "{hosts:?}: {status}");
    }
    assert!(client.all_links(50).is_empty());
    assert_alive(&client);
}

#[test]
fn malformed_heads_are_refused() {
    let server = Setup::new().start();
    let client = server.client();
    let body = "{\"url\":\"https://example.com/\"}";
    let post = format!("POST {API_LINKS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n");
    let heads = [
        "\r\n\r\n\r\n\r\nnonsense\r\n\r\n".to_owned(),
        "GET / HTTP/9.9\r\nHost: localhost\r\n\r\n".to_owned(),
        "GET /livez\r\n\r\n".to_owned(),
        "GET  /livez  HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "GET /livez HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n".to_owned(),
        "GET /livez HTTP/1.1\r\nHost: localhost\r\nBad Name: x\r\n\r\n".to_owned(),
        "GET /livez HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}".to_owned() + &"\0".repeat(200) + "\r\n\r\n",
        format!("{post}Content-Length: -1\r\n\r\n{body}"),
        format!("{post}Content-Length: x\r\n\r\n{body}"),
        format!("{post}Content-Length: 30\r\nContent-Length: 31\r\n\r\n{body}"),
        format!("{post}Content-Length: 99999999999999999999999\r\n\r\n{body}"),
        format!("{post}Content-Length: 30\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\nzz\r\n{body}\r\n0\r\n\r\n"),
        format!("{post}Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{body}\r\n0\r\n\r\n"),
        format!("{post}Transfer-Encoding: gzip\r\nContent-Length: 30\r\n\r\n{body}"),
    ];
    for head in heads {
        let status = status_of(&client, head.as_bytes());
        assert!(status == 0 || (400..502).contains(&status) && status != 500, "{head:?}: {status}");
    }
    assert!(client.all_links(50).is_empty());
    assert_alive(&client);
}

#[test]
fn floods_of_headers_and_huge_uris_are_cut() {
    let server = quick_server();
    let client = server.client();
    let many: String = (0..20_000).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let floods = [
        format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"),
        format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "y".repeat(2_000_000)),
        format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "u".repeat(2_000_000)),
        format!("{} / HTTP/1.1\r\nHost: localhost\r\n\r\n", "M".repeat(2_000_000)),
    ];
    for flood in &floods {
        let began = Instant::now();
        let status = status_of(&client, flood.as_bytes());
        assert!(status == 0 || (400..500).contains(&status), "{}…: {status}", &flood[..40]);
        assert!(began.elapsed() < Duration::from_secs(8), "{}…", &flood[..40]);
    }
    for (path, expected) in
        [(format!("/{}", "u".repeat(9_000)), 414), (format!("{API_LINKS}?cursor={}", "u".repeat(9_000)), 414)]
    {
        assert_eq!(client.get(&path).status, expected, "a URI of 9,000 bytes");
    }
    let modest: String = (0..60).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let request = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{modest}\r\n");
    assert_eq!(status_of(&client, request.as_bytes()), 200, "60 headers are fine");
    assert_alive(&client);
}

#[test]
fn a_gigabyte_is_refused_before_it_is_sent() {
    // Nobody waits for the body here: that would take longer than an answer may.
    let server = Setup::new().env("TERSE_HEAD_TIMEOUT", "30s").env("TERSE_BODY_TIMEOUT", "30s").start();
    let client = server.client();
    let own = format!("Origin: http://{}\r\n", client.address());
    let json = "Content-Type: application/json\r\n".to_owned();
    let form = format!("Content-Type: application/x-www-form-urlencoded\r\n{own}");
    for (path, headers) in [(API_LINKS, &json), (&format!("{API_LINKS}/batch"), &json), ("/", &form)] {
        for length in ["1073741824", "18446744073709551615"] {
            let head = format!("POST {path} HTTP/1.1\r\nHost: {}\r\n{headers}", client.address());
            let answer = answer_to(&client, format!("{head}Content-Length: {length}\r\n\r\n{{").as_bytes());
            let answer = answer.unwrap_or_else(|| panic!("{path}, {length}: no answer"));
            assert_eq!(answer.status, 413, "{path}, {length}: {answer:?}");
        }
    }
    assert_alive(&client);
}

#[test]
fn an_endless_chunked_body_is_refused_at_its_bound_and_cut_soon() {
    let server = quick_server();
    let client = server.client();
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    for (path, status) in [(API_LINKS.to_owned(), 413), (format!("{API_LINKS}/batch"), 413), ("/livez".to_owned(), 405)]
    {
        let mut connection = client.connect();
        let mut reader = connection.split().unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n");
        connection.write(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).unwrap();
        let began = Instant::now();
        let answer = std::thread::spawn(move || reader.receive(false));
        // The server may go on reading for a moment, so that its answer isn't lost to a reset.
        while connection.write(chunk.as_bytes()).is_ok() {
            assert!(began.elapsed() < Duration::from_secs(6), "{path} is still read after {:?}", began.elapsed());
        }
        assert_eq!(answer.join().unwrap().unwrap().status, status, "{path}");
    }
    assert_alive(&client);
}

/// Sends `bytes` one by one, `pause` apart; returns how long until the server
/// closed, and its answer if it gave one.
fn drip(client: &Client, start: &[u8], bytes: &[u8], limit: Duration) -> (Duration, Option<u16>) {
    let mut connection: Connection = client.connect();
    connection.patience(Duration::from_millis(150)).unwrap();
    let began = Instant::now();
    let _ = connection.write(start);
    for byte in bytes.iter().cycle() {
        assert!(began.elapsed() < limit, "still open after {limit:?}");
        // A write after the close fails only once the reset has arrived.
        let written = connection.write(&[*byte]);
        match connection.receive(false) {
            Ok(answer) => return (began.elapsed(), Some(answer.status)),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => return (began.elapsed(), None),
        }
        if written.is_err() {
            return (began.elapsed(), None);
        }
    }
    (began.elapsed(), None)
}

#[test]
fn slow_heads_and_bodies_are_cut_at_their_timeout() {
    let server = quick_server();
    let client = server.client();
    let body = format!("POST {API_LINKS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n");
    let counted = format!("{body}Content-Length: 1000\r\n\r\n");
    let chunked = format!("{body}Transfer-Encoding: chunked\r\n\r\n");
    let limit = Duration::from_secs(7);
    let cases: [(&str, &[u8], &[u8]); 4] = [
        ("head", b"GET /livez HTTP/1.1\r\nHost: localhost\r\n", b"X: y\r\n"),
        ("request line", b"G", b"E"),
        ("body", counted.as_bytes(), b" "),
        ("chunked body", chunked.as_bytes(), b"1\r\n \r\n"),
    ];
    std::thread::scope(|scope| {
        for (what, start, bytes) in cases {
            let client = &client;
            scope.spawn(move || {
                let (took, status) = drip(client, start, bytes, limit);
                assert!(matches!(status, None | Some(408)), "{what}: {status:?}");
                assert!(took > Duration::from_secs(1), "{what}: cut after {took:?}");
            });
        }
    });
    assert_alive(&client);
}

#[test]
fn silent_connections_are_closed() {
    let server = Setup::new().env("TERSE_HEAD_TIMEOUT", "1s").env("TERSE_KEEP_ALIVE", "1s").start();
    let client = server.client();
    let mut silent = client.connect();
    let mut idle = client.connect();
    assert_eq!(idle.call(&Request::new("GET", "/livez")).unwrap().status, 200);
    for (what, connection) in [("silent", &mut silent), ("idle", &mut idle)] {
        connection.patience(Duration::from_secs(6)).unwrap();
        assert!(connection.drain(10_000), "the {what} connection stays open");
    }
}

#[test]
fn unknown_methods_are_refused() {
    let server = Setup::new().start();
    let client = server.client();
    let code = client.shorten("https://example.com/");
    for method in ["BREW", "TRACE", "CONNECT", "PROPFIND", "X", "GETGET"] {
        for path in ["/livez".to_owned(), format!("/{code}"), API_LINKS.to_owned()] {
            let status = status_of(&client, format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
            assert!(matches!(status, 405 | 400 | 404 | 501), "{method} {path}: {status}");
        }
    }
    assert_alive(&client);
}

#[test]
fn clients_that_leave_in_the_middle_do_no_harm() {
    let server = Setup::new().start();
    let client = server.client();
    let code = client.shorten("https://example.com/");
    let whole = Request::new("POST", API_LINKS).json(&json!({ "url": "https://example.com/left" })).bytes("localhost");
    for cut in (1..whole.len()).step_by(7) {
        client.connect().write(&whole[..cut]).unwrap();
    }
    for _ in 0..100 {
        client.connect().write(format!("GET /{code} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
        client.connect().write(&whole).unwrap();
    }
    assert_alive(&client);
}
