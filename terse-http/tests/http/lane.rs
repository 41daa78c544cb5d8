//! The lane beneath the HTTP server against the server without it: the same
//! bytes get the same answers and leave the same clicks.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use terse_core::{Link, LinkState, Version};
use terse_http::{Bounds, Network, RedirectStatus, Surfaces, TrustedProxies};
use terse_testkit::links::link;

use crate::server::{Choices, Server, read_to_end};

/// Two servers that differ in nothing but the lane.
struct Pair {
    lane: Server,
    plain: Server,
}

/// What a client got, and what was noted of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcome {
    text: String,
    clicks: Vec<String>,
}

impl Pair {
    fn new() -> Self {
        Self::with(Choices::default)
    }

    fn with(choices: impl Fn() -> Choices) -> Self {
        let server = |lane| {
            let server = Server::with(Choices { lane, ..choices() });
            let known = [
                Link { version: Version(3), ..link("abc") },
                link("two"),
                Link { state: LinkState::Disabled, ..link("off") },
                Link { state: LinkState::Blocked, ..link("bad") },
            ];
            known.iter().for_each(|link| {
                server.reader.known.lock().insert(link.code.as_str().to_owned(), link.resolution());
            });
            server.put(&link("far"));
            server
        };
        Self { lane: server(true), plain: server(false) }
    }

    /// Sends `bytes` to both, after which nothing more comes.
    fn ask(&self, bytes: &[u8]) -> (Outcome, Outcome) {
        (ask(&self.lane, &[bytes]), ask(&self.plain, &[bytes]))
    }

    #[track_caller]
    fn assert_same(&self, bytes: &[u8]) {
        let (lane, plain) = self.ask(bytes);
        assert!(alike(&lane, &plain), "{}\nlane {lane:#?}\nplain {plain:#?}", bytes.escape_ascii());
    }

    fn assert_same_counts(&self) {
        for name in ["terse_redirects_total{outcome=\"found\",tier=\"l1\"}", "terse_clicks_recorded_total"] {
            assert!(self.lane.metric(name) > 0.0);
            assert_eq!(self.lane.metric(name), self.plain.metric(name), "{name}");
        }
        assert_eq!((self.lane.lifecycle.in_flight(), self.plain.lifecycle.in_flight()), (0, 0));
    }
}

/// Sends `parts` one after the other; what comes back until the connection ends.
fn ask(server: &Server, parts: &[&[u8]]) -> Outcome {
    let mut stream = server.connect();
    stream.set_nodelay(true).unwrap();
    for part in parts {
        // Who has been answered for good doesn't read any more.
        let _ = stream.write_all(part);
    }
    let _ = stream.shutdown(Shutdown::Write);
    Outcome { text: normal(&read_to_end(&mut stream)), clicks: server.recorded.take() }
}

/// Answers with the header lines in order and without the date. Lines of bodies don't end in CR LF. What actix tells of
/// a head that it can't read depends on the request before it, though the connection ends in any case.
fn normal(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let (mut lines, mut head): (Vec<String>, Option<usize>) = (vec![], None);
    for line in text.split("\r\n") {
        let line = if line.starts_with("date: ") { "date" } else { line };
        lines.push(line.to_owned());
        match head {
            _ if line.contains("HTTP/1.") => head = Some(lines.len()),
            Some(begin) if line.is_empty() => {
                lines[begin..].sort();
                let unread = ["1 400 Bad Request", "0 400 Bad Request", "1 431 Request Header Fields Too Large"];
                if let Some(status) = unread.iter().find_map(|end| lines[begin - 1].strip_suffix(end)) {
                    lines[begin - 1] = format!("{status}x unread");
                    lines.retain(|line| line != "connection: close");
                }
                head = None;
            }
            _ => {}
        }
    }
    lines.join("\n")
}

/// The same; but where the lane has said that it ends the connection, it may have done so earlier than actix, which goes
/// on to answer what it has read by then (against RFC 9112, section 9.6).
fn alike(lane: &Outcome, plain: &Outcome) -> bool {
    let last = lane.text.rsplit("HTTP/1.").next().unwrap_or_default();
    let ended = last.contains("\nconnection: close\n") || last.starts_with("0 ") && !last.contains("\nconnection: ");
    let answers = |outcome: &Outcome| outcome.text.replace("\nconnection: close\n", "\n");
    lane == plain || ended && answers(plain).starts_with(&answers(lane)) && plain.clicks.starts_with(&lane.clicks)
}

const METHODS: [&str; 7] = ["GET", "HEAD", "get", "POST", "OPTIONS", "DELETE", "G\u{1}T"];
const TARGETS: [&str; 33] = [
    "/abc",
    "/two",
    "/far",
    "/off",
    "/bad",
    "/none",
    "/abc?",
    "/abc?a=b&c=%20",
    "/abc?a/b?c",
    "/abc?\"<>\"",
    "/abc?[x]",
    "/abc?{x}|^`",
    "/abc#x",
    "/abc?x#y",
    "//abc",
    "/abc/",
    "/abc//",
    "/./abc",
    "/a%62c",
    "/%61bc",
    "/abc%",
    "/abc%00",
    "/",
    "*",
    "abc",
    "?abc",
    "http://localhost/abc",
    "http://other/abc?x",
    "https://localhost",
    "/livez",
    "/API",
    "/a.b",
    "/abc;x",
];
const VERSIONS: [&str; 3] = ["HTTP/1.1", "HTTP/1.0", "HTTP/2.0"];
const CONNECTIONS: [&str; 6] = ["", "close", "keep-alive", "Keep-Alive", "close, x", "upgrade"];

#[test]
fn every_kind_of_line_gets_the_same_answer_in_the_lane() {
    let pair = Pair::new();
    for (number, target) in TARGETS.iter().enumerate() {
        for method in METHODS {
            for version in VERSIONS {
                // All ways to say what becomes of the connection, for those that are redirects at most.
                let connections = if number < 8 { &CONNECTIONS[..] } else { &CONNECTIONS[..2] };
                for connection in connections {
                    let line =
                        if connection.is_empty() { String::new() } else { format!("Connection: {connection}\r\n") };
                    pair.assert_same(
                        format!("{method} {target} {version}\r\nHost: localhost\r\n{line}\r\n").as_bytes(),
                    );
                }
            }
        }
    }
    pair.assert_same_counts();
}

/// Headers beside `Host`, hostile and not.
fn headers() -> Vec<String> {
    let plain = [
        "User-Agent: Mozilla/5.0\r\nReferer: https://a.example/b?c\r\nAccept-Language: de, en;q=0.5",
        "USER-AGENT: x\r\nuser-agent: y\r\nUser-Agent: z",
        "User-Agent:\r\nUser-Agent: second",
        "DNT: 1\r\nSec-GPC: 1\r\nSec-Purpose: prefetch;prerender",
        "dnt: 0\r\nSEC-GPC: 1 \r\npurpose: preview\r\nX-Moz: prefetch\r\nX-Purpose: x",
        "X-Request-Id: abc-123",
        "x-request-id: has space",
        "X-Request-Id: first\r\nX-Request-Id: second",
        "X-Request-Id: \r\nX-Request-Id: second",
        "Accept: text/html",
        "Host: again",
        "host: localhost",
        "Referer: \u{e9}\u{20ac}",
        "Referer:no-space",
        "Referer: \t padded \t",
        "Referer: a\r\n folded",
        "Referer: a\r\n\tfolded",
        "Referer : spaced",
        " Referer: first",
        "Referer\r\n",
        ": nameless",
        "Ref\u{0}erer: x",
        "Referer: nul\u{0}",
        "Referer: bare\rreturn",
        "X: y\nReferer: bare line feed",
        "Content-Length: 0",
        "Content-Length: 00",
        "Content-Length: +0",
        "Content-Length: -1",
        "Content-Length: 0\r\nContent-Length: 0",
        "Content-Length: 0, 0",
        "Content-Length: 5\r\n\r\nhello",
        "Content-Length: 5\r\n\r\nhel",
        "Content-Length: 99999999999999999999",
        "Transfer-Encoding: chunked\r\n\r\n0",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Transfer-Encoding: \u{b}chunked",
        "Expect: 100-continue",
        "Upgrade: websocket\r\nConnection: Upgrade",
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings",
        "Connection: close\r\nConnection: keep-alive",
        "Connection: keep-alive\r\nConnection: close",
        "Connection: ,",
        "X-Forwarded-For: 203.0.113.7",
        "X-Forwarded-For: 1.1.1.1, 203.0.113.7\r\nX-Forwarded-For: 10.0.0.2",
        "x-forwarded-for: 203.0.113.7\r\nForwarded: for=203.0.113.7",
        "Forwarded: for=\"[2001:db8::7]:80\";proto=https, for=10.0.0.2",
        "Forwarded: for=\"open",
        "X-Forwarded-For: \u{fc}",
    ];
    let mut headers: Vec<String> = plain.iter().map(|&text| text.to_owned()).collect();
    headers.extend([1, 47, 48, 90, 95, 96, 97].map(|count| vec!["A: b"; count].join("\r\n")));
    headers.extend([100, 8_000, 16_200, 16_384, 20_000, 140_000].map(|length| format!("A: {}", "x".repeat(length))));
    headers
}

#[test]
fn every_kind_of_header_gets_the_same_answer_and_leaves_the_same_click() {
    let network = |address: &str, prefix| Network { address: address.parse().unwrap(), prefix };
    let proxies = || TrustedProxies::from_iter([network("127.0.0.0", 8), network("10.0.0.0", 8)]);
    let pairs = [Pair::new(), Pair::with(|| Choices { trusted_proxies: proxies(), ..Choices::default() })];
    for pair in pairs {
        for header in headers() {
            for line in ["GET /abc HTTP/1.1", "HEAD /abc HTTP/1.1", "GET /abc HTTP/1.0", "GET /none HTTP/1.1"] {
                for host in ["Host: localhost\r\n", ""] {
                    pair.assert_same(format!("{line}\r\n{host}{header}\r\n\r\n").as_bytes());
                }
            }
        }
        pair.assert_same_counts();
    }
}

#[test]
fn every_kind_of_framing_gets_the_same_answer() {
    let pair = Pair::new();
    let get = "GET /abc HTTP/1.1\r\nHost: a\r\n\r\n";
    for text in [
        "",
        "\r\n",
        "\r\n\r\n",
        "\n",
        "G",
        "GET",
        "GET /abc",
        "GET /abc HTTP/1.1\r\nHost: a\r\n",
        "GET /abc\r\n\r\n",
        "GET /abc HTTP/1.1\nHost: a\n\n",
        "GET /abc HTTP/1.1\r\nHost: a\n\r\n",
        "GET  /abc HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /abc  HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET\t/abc HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /abc HTTP/1.1 \r\nHost: a\r\n\r\n",
        " GET /abc HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /abc HTTP/1.1\r\n\r\n",
        "GET /abc HTTP/1.0\r\n\r\n",
        "GET /abc HTTP/1.1\r\nHost:\r\n\r\n",
        "GET /abc HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET /abc http/1.1\r\nHost: a\r\n\r\n",
        "GET /abc HTTP/1.11\r\nHost: a\r\n\r\n",
        "GET /abc HTTP/0.9\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}",
        "GET /\u{fc} HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        pair.assert_same(text.as_bytes());
        pair.assert_same(format!("\r\n{text}").as_bytes());
        pair.assert_same(format!("{get}{text}").as_bytes());
        pair.assert_same(format!("{text}{get}").as_bytes());
        pair.assert_same(format!("{get}\r\n{get}{text}{get}").as_bytes());
    }
    assert_eq!(pair.lane.lifecycle.in_flight(), 0);
}

#[test]
fn settings_of_the_operator_hold_in_the_lane() {
    use RedirectStatus::{Found, MovedPermanently, PermanentRedirect, TemporaryRedirect};
    let requests = ["GET /abc HTTP/1.1\r\nHost: a\r\n\r\n", "HEAD /abc HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"];
    let ask = |pair: &Pair| requests.iter().for_each(|request| pair.assert_same(request.repeat(2).as_bytes()));
    for status in [MovedPermanently, Found, TemporaryRedirect, PermanentRedirect] {
        ask(&Pair::with(|| Choices { status, ..Choices::default() }));
    }
    ask(&Pair::with(|| Choices { surfaces: Surfaces { redirect: false, api: true }, ..Choices::default() }));
    let bounds = Bounds { keep_alive: std::time::Duration::ZERO, ..Bounds::default() };
    ask(&Pair::with(|| Choices { bounds, ..Choices::default() }));
    let bounds = Bounds { uri_bytes: 10, ..Bounds::default() };
    let pair = Pair::with(|| Choices { bounds, ..Choices::default() });
    for target in ["/abc", "/abc?12345", "/abc?123456"] {
        pair.assert_same(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    }
    let pair = Pair::new();
    for server in [&pair.lane, &pair.plain] {
        server.lifecycle.enter(terse_http::Phase::Draining);
    }
    requests.iter().for_each(|request| pair.assert_same(request.as_bytes()));
}

/// Requests that say by themselves what their answers' ids are.
fn mixed() -> Vec<String> {
    let get = |target: &str, more: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\nX-Request-Id: 7\r\n{more}\r\n");
    let create = |url: &str| {
        let body = format!("{{\"url\":\"{url}\"}}");
        format!(
            "POST /api/v1/links HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: 8\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    vec![
        get("/abc", "User-Agent: one\r\n"),
        get("/abc", ""),
        get("/livez", ""),
        "HEAD /two HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        get("/none", ""),
        get("/two", "Referer: https://a.example/\r\n"),
        get("/far", ""),
        get("/abc", "Content-Length: 0\r\n"),
        "GET /two HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_owned(),
        get("/off", "Accept: application/json\r\n"),
        get("/abc", ""),
        create("not a url"),
        get("/abc", "User-Agent: behind a body\r\n"),
        get("/robots.txt", ""),
        create(""),
        "DELETE /abc HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        get("/abc", ""),
        get("/two", ""),
        get("/favicon.ico", ""),
        get("/abc", "Connection: close\r\n"),
    ]
}

/// What `requests` get that come one at a time, each over a connection of its own. (In a pipeline, actix answers in the
/// version of the last request that it has read, and by its wish for the connection.)
fn singly(server: &Server, requests: &[String]) -> Vec<Outcome> {
    requests.iter().map(|request| ask(server, &[request.as_bytes()])).collect()
}

fn together(outcomes: &[Outcome]) -> Outcome {
    let text = outcomes.iter().map(|outcome| outcome.text.as_str()).collect();
    Outcome { text, clicks: outcomes.iter().flat_map(|outcome| outcome.clicks.clone()).collect() }
}

#[test]
fn pipelines_of_all_lengths_get_the_answers_of_their_requests() {
    let (pair, requests) = (Pair::new(), mixed());
    let answers = singly(&pair.plain, &requests);
    for begin in 0..requests.len() {
        for end in begin + 1..=requests.len() {
            let pipelined = ask(&pair.lane, &[requests[begin..end].concat().as_bytes()]);
            assert_eq!(pipelined, together(&answers[begin..end]), "{begin} to {end}");
        }
    }
    assert_eq!(pair.lane.lifecycle.in_flight(), 0);
}

#[test]
fn long_pipelines_are_answered_to_their_end() {
    let (pair, requests) = (Pair::new(), mixed());
    let answers = singly(&pair.plain, &requests[..11]);
    let pipelined = ask(&pair.lane, &[requests[..11].concat().repeat(300).as_bytes()]);
    assert_eq!(pipelined, together(&vec![answers; 300].concat()));
}

#[test]
fn pipelines_that_are_cut_anywhere_get_the_same_answers() {
    let (pair, requests) = (Pair::new(), mixed());
    let (whole, bytes) = (together(&singly(&pair.plain, &requests)), requests.concat().into_bytes());
    assert_eq!(whole.clicks.len(), 11, "{whole:#?}");
    for at in 0..bytes.len() {
        let (first, second) = bytes.split_at(at);
        let cut = ask(&pair.lane, &[first, second]);
        assert_eq!(cut, whole, "cut at {at}");
    }
    let bytes: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(ask(&pair.lane, &bytes), whole, "byte by byte");
}

#[test]
fn whatever_comes_is_answered_alike() {
    let pair = Pair::new();
    let position = any::<prop::sample::Index>();
    let change = (position, 0..4_u8, prop_oneof![any::<u8>(), proptest::sample::select(&b"\r\n :/?%,\t0"[..])]);
    let inputs = (0..3_usize, prop::sample::select(mixed()), prop::collection::vec(change, 0..4));
    let mut runner = TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    let checked = runner.run(&inputs, |(before, request, changes)| {
        let mut bytes = request.into_bytes();
        for (position, how, byte) in changes {
            let at = position.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let bytes = [mixed()[0].repeat(before).into_bytes(), bytes].concat();
        let (lane, plain) = pair.ask(&bytes);
        prop_assert!(alike(&lane, &plain), "{}\nlane {:#?}\nplain {:#?}", bytes.escape_ascii(), lane, plain);
        Ok(())
    });
    checked.unwrap();
}

/// Sends a request for `target` and reads the head of its answer.
fn once(stream: &mut TcpStream, target: &str) -> String {
    stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
    let (mut answer, mut chunk) = (vec![], [0; 4_096]);
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = stream.read(&mut chunk).unwrap();
        assert_ne!(read, 0, "the connection is kept");
        answer.extend_from_slice(&chunk[..read]);
    }
    String::from_utf8(answer).unwrap()
}

#[test]
fn a_connection_outlives_what_the_lane_hands_on() {
    let pair = Pair::new();
    let mut stream = pair.lane.connect();
    for target in ["/abc", "/none", "/abc", "/livez", "/far", "/abc", "/off", "/abc"] {
        let answer = once(&mut stream, target);
        assert!(!answer.contains("connection: close"), "{target} {answer}");
        assert_eq!(answer.starts_with("HTTP/1.1 302 "), matches!(target, "/abc" | "/far"), "{target} {answer}");
    }
    assert_eq!(pair.lane.lifecycle.in_flight(), 0);
}
