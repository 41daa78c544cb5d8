//! Workers and their connections: how many there may be, how idle ones end, how the server ends.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use terse_http::{Bounds, Network, listen};
use terse_testkit::links::link;
use terse_testkit::{Fault, Gate, Operation, When};

use crate::server::{Answer, Choices, Server, read_to_end};

const LOCALHOST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
const KEPT: &[u8] = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future);
}

/// Sends a request that keeps its connection, and reads the answer.
fn ask_once(stream: &mut TcpStream) -> Answer {
    stream.write_all(KEPT).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nalive\n") {
        let mut chunk = [0; 1024];
        let read = stream.read(&mut chunk).unwrap();
        assert_ne!(read, 0, "closed after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&chunk[..read]);
    }
    Answer::parse(&answer)
}

#[test]
fn all_workers_listen_on_one_port() {
    let listeners = listen(LOCALHOST, 3).unwrap();
    let address = listeners[0].local_addr().unwrap();
    assert_ne!(address.port(), 0);
    assert!(listeners.iter().all(|listener| listener.local_addr().unwrap() == address));
    // Each connection is some worker's, and none is refused.
    for _ in 0..50 {
        TcpStream::connect(address).unwrap();
    }
}

#[test]
fn a_port_that_is_taken_is_not_shared() {
    for (first, second) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
        let listeners = listen(LOCALHOST, first).unwrap();
        let address = listeners[0].local_addr().unwrap();
        let error = listen(address, second).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse, "{second} workers after {first}");
        drop(listeners);
        listen(address, second).unwrap();
    }
}

#[test]
fn beyond_the_bound_a_connection_waits_for_another_to_end() {
    // None of them counts as idle as long as the test takes.
    let keep_alive = Duration::from_secs(3_600);
    let bounds = Bounds { connections_per_worker: 2, keep_alive, ..Bounds::default() };
    let server = Server::with(Choices { bounds, ..Choices::default() });
    let mut kept = [server.connect(), server.connect()];
    kept.iter_mut().for_each(|stream| assert_eq!(ask_once(stream).status, 200));
    let mut waiting = server.connect();
    waiting.write_all(KEPT).unwrap();
    waiting.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(waiting.read(&mut [0; 1]).is_err(), "it waits in the kernel's queue");
    drop(kept);
    waiting.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(waiting.read(&mut [0; 1]).unwrap(), 1);
}

#[test]
fn an_address_with_too_many_connections_gets_no_other_and_a_trusted_proxy_does() {
    let bounds = Bounds { connections_per_address: 2, ..Bounds::default() };
    let server = Server::with(Choices { bounds, ..Choices::default() });
    let mut kept = [server.connect(), server.connect()];
    kept.iter_mut().for_each(|stream| assert_eq!(ask_once(stream).status, 200));
    assert_eq!(server.connect().read(&mut [0; 1]).unwrap(), 0, "it is closed unanswered");
    assert_eq!(server.state().metrics.connections_refused().get(), 1);
    drop(kept);
    let began = Instant::now();
    let comes_in = || {
        let mut stream = server.connect();
        stream.write_all(KEPT).unwrap();
        matches!(stream.read(&mut [0; 1]), Ok(1))
    };
    while !comes_in() {
        assert!(began.elapsed() < Duration::from_secs(10), "the places of those that ended are not given back");
    }
    let local = Network { address: [127, 0, 0, 1].into(), prefix: 8 };
    let trusted_proxies = [local].into_iter().collect();
    let proxied = Server::with(Choices { bounds, trusted_proxies, ..Choices::default() });
    let mut many: Vec<_> = (0..9).map(|_| proxied.connect()).collect();
    many.iter_mut().for_each(|stream| assert_eq!(ask_once(stream).status, 200));
}

#[test]
fn a_second_request_must_come_whole_in_the_keep_alive_time() {
    let bounds = Bounds { keep_alive: Duration::from_millis(300), ..Bounds::default() };
    let server = Server::with(Choices { bounds, ..Choices::default() });
    let mut stream = server.connect();
    let began = Instant::now();
    ask_once(&mut stream);
    // Letter by letter, a head could otherwise take for ever.
    let slow = b"GET /livez HTTP/1.1\r\nX-Slow: ".iter().chain(std::iter::repeat_n(&b'x', 10_000));
    let sent = slow.take_while(|letter| {
        std::thread::sleep(Duration::from_millis(5));
        stream.write_all(&[**letter]).is_ok()
    });
    assert!(sent.count() < 10_000);
    assert!(began.elapsed() >= Duration::from_millis(250), "{:?}", began.elapsed());
}

#[test]
fn an_answer_that_takes_longer_than_idleness_may_is_waited_for() {
    let bounds = Bounds { keep_alive: Duration::from_millis(100), ..Bounds::default() };
    let server = Server::with(Choices { bounds, ..Choices::default() });
    server.put(&link("abc"));
    let gate = Gate::closed();
    let mut stream = server.connect();
    server.store.faults.add(Operation::Resolve, When::Every, Fault::HoldCall(gate.clone()));
    // Both at once, so that nothing but the held call takes long.
    let held = b"GET /abc HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(&[KEPT, held].concat()).unwrap();
    std::thread::sleep(Duration::from_millis(400));
    gate.open();
    let answers = String::from_utf8(read_to_end(&mut stream)).unwrap();
    let (first, second) = answers.split_once("\r\n\r\nalive\n").unwrap();
    assert!(first.starts_with("HTTP/1.1 200"), "{answers}");
    assert!(second.starts_with("HTTP/1.1 302"), "{answers}");
}

#[test]
fn at_the_bound_a_connection_that_is_idle_makes_room_for_a_new_one() {
    // A step of the keep-alive time, after which a connection is idle, is a quarter of a second.
    let keep_alive = Duration::from_secs(4);
    let bounds = Bounds { connections_per_worker: 2, keep_alive, ..Bounds::default() };
    let server = Server::with(Choices { bounds, ..Choices::default() });
    server.put(&link("abc"));
    let gate = Gate::closed();
    server.store.faults.add(Operation::Resolve, When::Every, Fault::HoldCall(gate.clone()));
    let (mut idle, mut busy) = (server.connect(), server.connect());
    busy.write_all(b"GET /abc HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    ask_once(&mut idle);
    let began = Instant::now();
    let mut new = server.connect();
    assert_eq!(ask_once(&mut new).status, 200);
    assert!(began.elapsed() < keep_alive, "{:?}", began.elapsed());
    assert_eq!(read_to_end(&mut idle), b"");
    gate.open();
    assert_eq!(Answer::parse(&read_to_end(&mut busy)).status, 302, "the busy one went on");
}

/// A list tells this many links, each with a long target: nearly a megabyte.
const LONG_LIST: usize = 100;
/// So many lists fit into no buffer of the kernel's.
const LISTS: usize = 40;

/// A server that waits a second for clients, and has a long list to tell.
fn with_a_long_list() -> Server {
    let second = Duration::from_secs(1);
    let bounds = Bounds { keep_alive: second, body_timeout: second, ..Bounds::default() };
    let server = Server::with(Choices { bounds, ..Choices::default() });
    let long = "x".repeat(8_000);
    for number in 0..LONG_LIST {
        let code = format!("l{number}");
        let target = terse_testkit::links::target(&format!("https://example.com/{long}"));
        server.put(&terse_core::Link { target, ..link(&code) });
    }
    server
}

fn lists(count: usize) -> Vec<u8> {
    let list = format!("GET /api/v1/links?limit={LONG_LIST} HTTP/1.1\r\nHost: localhost\r\n");
    format!("{}{list}Connection: close\r\n\r\n", format!("{list}\r\n").repeat(count - 1)).into_bytes()
}

#[test]
fn an_answer_that_nobody_reads_ends_after_a_while() {
    let server = with_a_long_list();
    let mut stream = server.connect();
    stream.write_all(&lists(LISTS)).unwrap();
    while server.lifecycle.in_flight() == 0 {
        std::thread::yield_now();
    }
    let began = Instant::now();
    // Between two of the answers there is none in flight for a moment.
    let mut ended = 0;
    while ended < 10 {
        assert!(began.elapsed() < Duration::from_secs(10), "it is waited for without end");
        std::thread::sleep(Duration::from_millis(10));
        ended = if server.lifecycle.in_flight() == 0 { ended + 1 } else { 0 };
    }
    let got = read_to_end(&mut stream);
    assert!(got.starts_with(b"HTTP/1.1 200") && got.len() > LONG_LIST * 8_000, "{} bytes", got.len());
    assert!(got.len() < LISTS * LONG_LIST * 8_000, "{} bytes", got.len());
    assert_eq!(server.get("/livez").status, 200);
}

#[test]
fn an_answer_that_is_read_slowly_is_told_to_its_end() {
    let server = with_a_long_list();
    let mut stream = server.connect();
    let began = Instant::now();
    stream.write_all(&lists(LISTS)).unwrap();
    let (mut got, mut chunk) = (0, vec![0; 128 * 1024]);
    loop {
        std::thread::sleep(Duration::from_millis(8));
        match stream.read(&mut chunk).unwrap() {
            0 => break,
            bytes => got += bytes,
        }
    }
    assert!(got > LISTS * LONG_LIST * 8_000, "{got} bytes");
    assert!(began.elapsed() > Duration::from_secs(1), "{:?} is not slow", began.elapsed());
}

#[test]
fn a_graceful_stop_ends_idle_connections_and_lets_requests_finish() {
    let server = Server::start();
    server.put(&link("abc"));
    let mut idle = server.connect();
    ask_once(&mut idle);
    let gate = Gate::closed();
    server.store.faults.add(Operation::Resolve, When::Every, Fault::HoldCall(gate.clone()));
    let mut busy = server.connect();
    busy.write_all(b"GET /abc HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    while server.lifecycle.in_flight() == 0 {
        std::thread::yield_now();
    }
    let stopped = server.handle().stop(true);
    assert_eq!(read_to_end(&mut idle), b"", "the idle one ends at once");
    assert!(TcpStream::connect(server.address).is_err(), "nothing listens any more");
    gate.open();
    let answer = Answer::parse(&read_to_end(&mut busy));
    assert_eq!((answer.status, answer.header("connection")), (302, Some("close")));
    block_on(stopped);
}

#[test]
fn a_stop_that_is_not_graceful_cuts_requests() {
    let server = Server::start();
    server.put(&link("abc"));
    server.store.faults.add(Operation::Resolve, When::Every, Fault::HoldCall(Gate::closed()));
    let mut busy = server.connect();
    busy.write_all(b"GET /abc HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    while server.lifecycle.in_flight() == 0 {
        std::thread::yield_now();
    }
    block_on(server.handle().stop(false));
    assert_eq!(read_to_end(&mut busy), b"");
}

#[test]
fn a_server_that_nobody_awaits_ends_when_it_is_dropped() {
    let server = Server::start();
    let listeners = listen(LOCALHOST, 2).unwrap();
    let address = listeners[0].local_addr().unwrap();
    let other = terse_http::serve(listeners, server.state()).unwrap();
    let handle = other.handle();
    drop(other);
    block_on(handle.stop(false));
    assert_eq!(listen(address, 2).map(|listeners| listeners.len()).unwrap(), 2);
}
