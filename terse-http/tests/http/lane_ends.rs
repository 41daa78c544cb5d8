//! How connections in the lane end: idle ones, those of clients that send or
//! take nothing, and all of them when the server drains and stops.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use terse_http::{Bounds, Phase};
use terse_testkit::links::link;

use crate::server::{Answer, Choices, Server, read_to_end};

const GET: &[u8] = b"GET /abc HTTP/1.1\r\nHost: a\r\n\r\n";

fn server(bounds: Bounds) -> Server {
    let server = Server::with(Choices { bounds, ..Choices::default() });
    server.reader.known.lock().insert("abc".into(), link("abc").resolution());
    server
}

/// Reads one answer that has no body.
fn redirected(stream: &mut TcpStream) -> Answer {
    let (mut answer, mut letter) = (vec![], [0]);
    while !answer.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut letter).unwrap(), 1, "{}", answer.escape_ascii());
        answer.push(letter[0]);
    }
    Answer::parse(&answer)
}

#[test]
fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let server = server(Bounds { keep_alive: Duration::from_millis(300), ..Bounds::default() });
    let (mut idle, mut busy) = (server.connect(), server.connect());
    idle.write_all(GET).unwrap();
    redirected(&mut idle);
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1_000) {
        busy.write_all(GET).unwrap();
        assert_eq!(redirected(&mut busy).status, 302);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(read_to_end(&mut idle), b"", "it was closed without a word");
    busy.write_all(GET).unwrap();
    assert_eq!(redirected(&mut busy).status, 302);
}

#[test]
fn who_sends_no_head_in_time_is_told_and_one_that_was_answered_is_not() {
    let server = server(Bounds { head_timeout: Duration::from_millis(200), ..Bounds::default() });
    for part in [&b""[..], b"GET /a", &GET[..GET.len() - 2]] {
        let (mut late, began) = (server.connect(), Instant::now());
        late.write_all(part).unwrap();
        let answer = Answer::parse(&read_to_end(&mut late));
        assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
        assert!(answer.header("date").is_some() && began.elapsed() >= Duration::from_millis(190));
    }
    let mut kept = server.connect();
    for _ in 0..2 {
        kept.write_all(GET).unwrap();
        assert_eq!(redirected(&mut kept).status, 302);
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[test]
fn a_client_that_takes_no_answers_is_read_no_further_and_given_up() {
    let times = Duration::from_millis(200);
    let server = server(Bounds { keep_alive: times, body_timeout: times, ..Bounds::default() });
    let mut stream = server.connect();
    // More than all buffers of both sides hold, if the server went on to read without being read from.
    let flood = GET.repeat(4_000_000 / GET.len());
    let mut sent = 0;
    while let Ok(bytes) = stream.write(&flood) {
        sent += bytes;
        assert!(sent < 400_000_000, "the server reads on and on");
    }
    let mut other = server.connect();
    other.write_all(GET).unwrap();
    assert_eq!(redirected(&mut other).status, 302, "others are served");
}

#[test]
fn while_draining_a_redirect_ends_its_connection() {
    let server = server(Bounds::default());
    let mut stream = server.connect();
    stream.write_all(GET).unwrap();
    assert_eq!(redirected(&mut stream).header("connection"), None);
    server.lifecycle.enter(Phase::Draining);
    stream.write_all(GET).unwrap();
    assert_eq!(redirected(&mut stream).header("connection"), Some("close"));
    assert_eq!(read_to_end(&mut stream), b"");
}

#[test]
fn a_graceful_stop_ends_idle_connections_at_once() {
    let server = server(Bounds::default());
    let mut streams = [server.connect(), server.connect(), server.connect()];
    streams[0].write_all(GET).unwrap();
    redirected(&mut streams[0]);
    // Half a head is no request.
    streams[1].write_all(&[GET, b"GET /ab"].concat()).unwrap();
    redirected(&mut streams[1]);
    streams[2].write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    redirected(&mut streams[2]);
    let began = Instant::now();
    let _ = server.handle().stop(true).now_or_never();
    for stream in &mut streams[..2] {
        assert_eq!(read_to_end(stream), b"");
    }
    assert_eq!(read_to_end(&mut streams[2]), b"alive\n");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[test]
fn a_body_that_comes_in_pieces_is_read_to_its_end_and_no_further() {
    let server = server(Bounds::default());
    let body = format!("{{\"url\":\"https://example.com/\",\"title\":\"{}\"}}", "x".repeat(150));
    let head = format!(
        "POST /api/v1/links HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let bytes = [GET, head.as_bytes(), body.as_bytes(), GET].concat();
    let mut stream = server.connect();
    stream.set_nodelay(true).unwrap();
    for piece in bytes.chunks(40) {
        stream.write_all(piece).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let text = String::from_utf8(read_to_end(&mut stream)).unwrap();
    let statuses: Vec<_> = text.split("HTTP/1.1 ").filter_map(|answer| answer.get(..3)).collect();
    assert_eq!(statuses, ["302", "201", "302"], "{text}");
}

#[test]
fn a_body_that_nobody_reads_ends_its_connection() {
    let server = server(Bounds { body_bytes: 100, ..Bounds::default() });
    let head = |target: &str, length: usize| {
        format!(
            "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    for (target, length, status) in [("/abc", 5, 405), ("/api/v1/links", 5_000, 413), ("/a/b", 50, 404)] {
        let body = "x".repeat(length);
        let answers = server.raw([head(target, length).as_bytes(), body.as_bytes(), GET].concat().as_slice());
        let answers = String::from_utf8(answers).unwrap();
        assert!(answers.starts_with(&format!("HTTP/1.1 {status} ")), "{answers}");
        assert!(answers.contains("\r\nconnection: close\r\n"), "{answers}");
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
    }
    // The same when the body's end comes after the answer.
    let mut stream = server.connect();
    stream.write_all([head("/abc", 5).as_bytes(), b"xxx"].concat().as_slice()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 405");
    stream.write_all(b"xx").unwrap();
    let _ = stream.write_all(GET);
    let rest = String::from_utf8(read_to_end(&mut stream)).unwrap();
    assert!(rest.contains("\r\nconnection: close\r\n") && !rest.contains("HTTP/1.1 "), "{rest}");
    assert_eq!(server.recorded.take(), Vec::<String>::new(), "what stood behind was no request");
}
