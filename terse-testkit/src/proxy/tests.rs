//! The proxy on real sockets, seen from both ends.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Instant;

use super::*;

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(10);
/// Long enough for a byte to have come if it could.
const SILENCE: Duration = Duration::from_millis(60);

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn proxied() -> (TcpListener, Proxy) {
    let service = TcpListener::bind(loopback()).unwrap();
    let proxy = Proxy::start(service.local_addr().unwrap(), loopback()).unwrap();
    (service, proxy)
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Both ends of a connection through the proxy.
fn connect(service: &TcpListener, proxy: &Proxy) -> (TcpStream, TcpStream) {
    let client = patient(TcpStream::connect(proxy.address()).unwrap());
    let (server, _) = service.accept().unwrap();
    (client, patient(server))
}

fn send(to: &mut TcpStream, text: &str) {
    to.write_all(text.as_bytes()).unwrap();
}

fn receive(from: &mut TcpStream, length: usize) -> String {
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn assert_silent(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    let error = stream.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    stream.set_read_timeout(Some(LIMIT)).unwrap();
}

fn assert_reset(stream: &mut TcpStream) {
    let error = stream.read(&mut [0; 64]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

fn await_counts(proxy: &Proxy, holds: impl Fn(Counts) -> bool) {
    let began = Instant::now();
    while !holds(proxy.counts()) {
        assert!(began.elapsed() < LIMIT, "{:?}", proxy.counts());
        thread::yield_now();
    }
}

#[test]
fn bytes_pass_both_ways_and_are_counted() {
    let (service, proxy) = proxied();
    let (mut client, mut server) = connect(&service, &proxy);
    send(&mut client, "question");
    assert_eq!(receive(&mut server, 8), "question");
    send(&mut server, "answer");
    assert_eq!(receive(&mut client, 6), "answer");
    await_counts(&proxy, |counts| {
        let Counts { connections, requested_bytes, answered_bytes, lost_bytes, .. } = counts;
        (connections, requested_bytes, answered_bytes, lost_bytes) == (1, 8, 6, 0)
    });
}

#[test]
fn a_side_that_closes_is_closed_for_the_other_and_may_still_read() {
    let (service, proxy) = proxied();
    let (mut client, mut server) = connect(&service, &proxy);
    send(&mut client, "last words");
    client.shutdown(Shutdown::Write).unwrap();
    let mut heard = String::new();
    server.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "last words");
    send(&mut server, "heard");
    drop(server);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "heard");
    assert_eq!(proxy.counts().cuts, 0);
}

#[test]
fn a_service_that_resets_resets_the_client() {
    let (service, proxy) = proxied();
    let (mut client, server) = connect(&service, &proxy);
    send(&mut client, "unread");
    await_counts(&proxy, |counts| counts.requested_bytes == 6);
    // Closing with unread bytes is a reset.
    server.peek(&mut [0; 1]).unwrap();
    drop(server);
    assert_reset(&mut client);
    assert_eq!(proxy.counts().cuts, 0, "nobody commanded it");
}

#[test]
fn a_cut_resets_both_ends_and_every_new_connection_until_restored() {
    let (service, proxy) = proxied();
    let (mut client, mut server) = connect(&service, &proxy);
    send(&mut client, "x");
    assert_eq!(receive(&mut server, 1), "x");
    proxy.set(Mode::Cut);
    assert_reset(&mut client);
    assert_reset(&mut server);
    let mut late = patient(TcpStream::connect(proxy.address()).unwrap());
    assert_reset(&mut late);
    assert_eq!((proxy.counts().cuts, proxy.counts().refused), (1, 1));
    proxy.restore();
    let (mut client, mut server) = connect(&service, &proxy);
    send(&mut client, "y");
    assert_eq!(receive(&mut server, 1), "y");
}

#[test]
fn a_cut_that_is_restored_at_once_still_cuts() {
    let (service, proxy) = proxied();
    let (mut client, _server) = connect(&service, &proxy);
    proxy.set(Mode::Cut);
    proxy.restore();
    assert_reset(&mut client);
    let (mut client, _server) = connect(&service, &proxy);
    proxy.sever();
    assert_reset(&mut client);
    await_counts(&proxy, |counts| counts.cuts == 2);
    assert_eq!(proxy.mode(), Mode::Pass);
}

#[test]
fn a_pause_holds_bytes_both_ways_and_takes_new_connections() {
    let (service, proxy) = proxied();
    let (mut client, mut server) = connect(&service, &proxy);
    proxy.set(Mode::Pause);
    send(&mut client, "held");
    send(&mut server, "back");
    let (mut second, mut second_server) = connect(&service, &proxy);
    send(&mut second, "too");
    second.shutdown(Shutdown::Write).unwrap();
    for stream in [&mut client, &mut server, &mut second_server] {
        assert_silent(stream);
    }
    proxy.restore();
    assert_eq!(receive(&mut server, 4), "held");
    assert_eq!(receive(&mut client, 4), "back");
    let mut heard = String::new();
    second_server.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "too");
    assert_eq!(proxy.counts().cuts, 0);
}

#[test]
fn a_paused_proxy_holds_a_bounded_amount_and_loses_none_of_it() {
    const MANY: usize = 32 * 1024 * 1024;
    let (service, proxy) = proxied();
    let (mut client, mut server) = connect(&service, &proxy);
    proxy.set(Mode::Pause);
    let pattern = |at: usize| u8::try_from(at % 251).unwrap();
    let writer = thread::spawn(move || {
        let bytes: Vec<u8> = (0..MANY).map(pattern).collect();
        client.write_all(&bytes).unwrap();
    });
    assert_silent(&mut server);
    assert!(!writer.is_finished(), "the sender of more than the bounds has to wait");
    proxy.restore();
    let mut bytes = Vec::with_capacity(MANY);
    server.read_to_end(&mut bytes).unwrap();
    writer.join().unwrap();
    assert_eq!(bytes.len(), MANY);
    assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == pattern(at)));
}

#[test]
fn lost_answers_are_requests_that_arrive_and_the_connection_ends_with_the_mode() {
    let (service, proxy) = proxied();
    let (mut client, mut server) = connect(&service, &proxy);
    let (mut idle, mut idle_server) = connect(&service, &proxy);
    proxy.set(Mode::LoseAnswers);
    send(&mut client, "question");
    assert_eq!(receive(&mut server, 8), "question");
    send(&mut server, "answer");
    assert_silent(&mut client);
    send(&mut server, "again");
    await_counts(&proxy, |counts| counts.lost_bytes == 11);
    proxy.restore();
    assert_reset(&mut client);
    send(&mut idle_server, "fine");
    assert_eq!(receive(&mut idle, 4), "fine", "a connection that lost nothing goes on");
    await_counts(&proxy, |counts| counts.cuts == 1);
}

#[test]
fn delayed_bytes_come_late_and_not_one_after_another() {
    const DELAY: Duration = Duration::from_millis(400);
    let (service, proxy) = proxied();
    let (mut client, mut server) = connect(&service, &proxy);
    proxy.set(Mode::Delay(DELAY));
    let began = Instant::now();
    for n in 0..10 {
        send(&mut client, "x");
        await_counts(&proxy, |_| began.elapsed() > Duration::from_millis(n));
    }
    assert_eq!(receive(&mut server, 10), "x".repeat(10));
    let took = began.elapsed();
    assert!(took >= DELAY && took < DELAY * 9, "{took:?}");
}

#[test]
fn the_chosen_request_arrives_and_its_connection_is_cut_before_the_answer() {
    let (service, proxy) = proxied();
    let (mut client, mut server) = connect(&service, &proxy);
    let (mut other, mut other_server) = connect(&service, &proxy);
    proxy.cut_after(|chunk| chunk.starts_with(b"SET"));
    send(&mut client, "GET a");
    assert_eq!(receive(&mut server, 5), "GET a");
    send(&mut server, "1");
    assert_eq!(receive(&mut client, 1), "1");
    send(&mut client, "SET a 2");
    assert_eq!(receive(&mut server, 7), "SET a 2");
    assert_reset(&mut client);
    send(&mut server, "done");
    assert_eq!(server.read(&mut [0; 1]).unwrap(), 0, "the service sees a client that went away");
    drop(server);
    await_counts(&proxy, |counts| (counts.lost_bytes, counts.sprung, counts.cuts) == (4, 1, 1));
    send(&mut other, "SET b 3");
    assert_eq!(receive(&mut other_server, 7), "SET b 3");
    send(&mut other_server, "ok");
    assert_eq!(receive(&mut other, 2), "ok", "one request is chosen, not all like it");
}

#[test]
fn the_nth_request_can_be_chosen_and_a_choice_is_forgotten_when_restored() {
    let (service, proxy) = proxied();
    let (mut client, mut server) = connect(&service, &proxy);
    let mut seen = 0;
    proxy.cut_after(move |_| {
        seen += 1;
        seen == 2
    });
    proxy.restore();
    for _ in 0..3 {
        send(&mut client, "x");
        assert_eq!(receive(&mut server, 1), "x");
    }
    let mut seen = 0;
    proxy.cut_after(move |_| {
        seen += 1;
        seen == 2
    });
    send(&mut client, "1");
    assert_eq!(receive(&mut server, 1), "1");
    send(&mut server, "a");
    assert_eq!(receive(&mut client, 1), "a");
    send(&mut client, "2");
    assert_eq!(receive(&mut server, 1), "2");
    assert_reset(&mut client);
}

#[test]
fn a_service_that_is_away_resets_the_client_and_is_found_when_it_comes() {
    let (service, proxy) = proxied();
    let address = proxy.upstream();
    drop(service);
    let mut client = patient(TcpStream::connect(proxy.address()).unwrap());
    assert_reset(&mut client);
    await_counts(&proxy, |counts| counts.unreachable == 1);
    let service = TcpListener::bind(address).unwrap();
    let (mut client, mut server) = connect(&service, &proxy);
    send(&mut client, "x");
    assert_eq!(receive(&mut server, 1), "x");
}

#[test]
fn one_connection_too_many_is_refused_until_another_ends() {
    let service = TcpListener::bind(loopback()).unwrap();
    let proxy = Proxy::bounded(service.local_addr().unwrap(), loopback(), 2).unwrap();
    let (first, first_server) = connect(&service, &proxy);
    let _second = connect(&service, &proxy);
    let mut third = patient(TcpStream::connect(proxy.address()).unwrap());
    assert_reset(&mut third);
    assert_eq!(proxy.counts().refused, 1);
    drop((first, first_server));
    let began = Instant::now();
    let taken = |proxy: &Proxy| {
        let mut late = patient(TcpStream::connect(proxy.address()).unwrap());
        late.set_read_timeout(Some(SILENCE)).unwrap();
        late.read(&mut [0; 1]).unwrap_err().kind() == ErrorKind::WouldBlock
    };
    while !taken(&proxy) {
        assert!(began.elapsed() < LIMIT, "no place became free");
    }
}

#[test]
fn dropping_the_proxy_ends_its_connections_and_frees_its_address() {
    let (service, proxy) = proxied();
    let (mut client, mut server) = connect(&service, &proxy);
    proxy.set(Mode::Pause);
    send(&mut client, "never read");
    let address = proxy.address();
    drop(proxy);
    for end in [&mut client, &mut server] {
        // A polite end or a reset, according to what was still unread.
        let ended = end.read(&mut [0; 1]);
        assert!(matches!(&ended, Ok(0)) || ended.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
    }
    drop(TcpListener::bind(address).unwrap());
}

#[test]
fn an_address_that_is_taken_is_an_error() {
    let (service, _proxy) = proxied();
    let taken = service.local_addr().unwrap();
    assert_eq!(Proxy::start(taken, taken).unwrap_err().kind(), ErrorKind::AddrInUse);
}
