//! How a server ends.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::program::{PATIENCE, Place, Server, status_of};

/// The contract: an idle server exits 0 within this.
const IDLE_END: Duration = Duration::from_secs(5);

/// Sends a request on a connection that stays open, and reads the answer.
fn ask(stream: &mut TcpStream, path: &str) -> String {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = vec![0; 4_096];
    let read = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..read]).to_lowercase()
}

fn until_draining(server: &Server) {
    let deadline = Instant::now() + PATIENCE;
    while server.get("/readyz").0 != 503 {
        assert!(Instant::now() < deadline, "the server does not drain");
    }
}

#[test]
fn an_idle_server_exits_0_within_five_seconds_of_a_signal() {
    for signal in ["TERM", "INT"] {
        let server = Place::new().serve(&[]);
        server.signal(signal);
        let (status, log) = server.end(IDLE_END);
        assert_eq!(status.code(), Some(0), "{log:?}");
        assert!(log.iter().any(|line| line.contains("draining") && line.contains(signal)), "{log:?}");
    }
}

#[test]
fn idle_keep_alive_connections_do_not_hold_it_up() {
    let server = Place::new().serve(&[]);
    let mut used = server.connect();
    assert_eq!(status_of(&ask(&mut used, "/livez")), 200);
    let _silent = server.connect();
    server.signal("TERM");
    assert_eq!(server.end(IDLE_END).0.code(), Some(0));
}

#[test]
fn a_draining_server_says_so_and_still_answers() {
    let server = Place::new().serve(&["--drain-delay", "2s"]);
    assert_eq!(server.create("drained", None), 201);
    let mut kept = server.connect();
    assert!(!ask(&mut kept, "/livez").contains("connection: close"));
    server.signal("TERM");
    until_draining(&server);
    assert_eq!(server.get("/drained").0, 302);
    assert_eq!(server.get("/livez").0, 200);
    assert!(ask(&mut kept, "/livez").contains("connection: close"));
    assert_eq!(server.end(IDLE_END).0.code(), Some(0));
}

#[test]
fn a_request_in_flight_is_answered_before_the_end() {
    let server = Place::new().serve(&["--drain-delay", "100ms"]);
    let mut slow = server.connect();
    let body = r#"{"url":"https://example.com/slow","alias":"slow"}"#;
    let head = format!(
        "POST /api/v1/links HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    slow.write_all(head.as_bytes()).unwrap();
    slow.write_all(&body.as_bytes()[..10]).unwrap();
    // The server has taken the connection once it answers on a later one.
    assert_eq!(server.get("/livez").0, 200);
    server.signal("TERM");
    until_draining(&server);
    // Well past the drain delay: from here on only the request itself holds the server.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(server.get("/readyz").0, 503);
    slow.write_all(&body.as_bytes()[10..]).unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert_eq!(status_of(&answer), 201, "{answer}");
    assert_eq!(server.end(IDLE_END).0.code(), Some(0));
}

#[test]
fn the_grace_period_bounds_a_request_that_never_ends() {
    let server = Place::new().serve(&["--drain-delay", "0s", "--grace-period", "1s", "--body-timeout", "60s"]);
    let mut stuck = server.connect();
    let head = "POST /api/v1/links HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Content-Length: 99\r\n\r\n{";
    stuck.write_all(head.as_bytes()).unwrap();
    assert_eq!(server.get("/livez").0, 200);
    server.signal("TERM");
    let (status, log) = server.end(IDLE_END);
    assert_eq!(status.code(), Some(0));
    assert!(log.iter().any(|line| line.contains("cutting requests in flight")), "{log:?}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let server = Place::new().serve(&["--drain-delay", "15s"]);
    server.signal("TERM");
    until_draining(&server);
    server.signal("INT");
    let began = Instant::now();
    let (status, _) = server.end(IDLE_END);
    assert_eq!(status.code(), Some(130));
    // The drain delay would take longer.
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn logs_are_json_without_a_terminal_and_readable_on_demand() {
    let server = Place::new().serve(&[]);
    server.signal("TERM");
    for line in server.end(IDLE_END).1 {
        assert!(line.starts_with('{') && line.ends_with('}'), "{line}");
    }
    let server = Place::new().with("TERSE_LOG_FORMAT", "pretty").serve(&["--log", "info"]);
    server.signal("TERM");
    let log = server.end(IDLE_END).1;
    assert!(log.iter().any(|line| line.contains("INFO") && line.contains("draining")), "{log:?}");
    assert!(log.iter().all(|line| !line.starts_with('{')));
}

/// Creates links, each on a connection of its own, until none is accepted any
/// more. Returns the aliases that were answered 201, and answers that were cut.
fn create_until_the_end(address: SocketAddr, client: usize, started: &AtomicBool) -> (Vec<String>, Vec<String>) {
    let (mut created, mut cut) = (vec![], vec![]);
    for number in 0.. {
        let alias = format!("c{client}-{number}");
        let body = format!(r#"{{"url":"https://example.com/{alias}","alias":"{alias}"}}"#);
        let Ok(mut stream) = TcpStream::connect(address) else { break };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let sent = write!(
            stream,
            "POST /api/v1/links HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut answer = String::new();
        // A connection that the kernel took but no worker ever read was never a request in flight.
        if sent.is_err() || stream.read_to_string(&mut answer).is_err() || answer.is_empty() {
            break;
        }
        if !answer.ends_with('}') {
            cut.push(answer);
        } else if status_of(&answer) == 201 {
            created.push(alias);
            started.store(true, Ordering::SeqCst);
        }
    }
    (created, cut)
}

#[test]
fn every_create_that_was_answered_while_ending_is_kept_and_no_answer_is_cut() {
    let place = Place::new();
    let server = place.serve(&["--drain-delay", "300ms", "--log", "warn"]);
    let started: [AtomicBool; 4] = Default::default();
    let results: Vec<_> = std::thread::scope(|scope| {
        let clients: Vec<_> = started
            .iter()
            .enumerate()
            .map(|(client, started)| {
                let address = server.address;
                scope.spawn(move || create_until_the_end(address, client, started))
            })
            .collect();
        let deadline = Instant::now() + PATIENCE;
        while !started.iter().all(|started| started.load(Ordering::SeqCst)) {
            assert!(Instant::now() < deadline, "no client gets started");
            std::thread::sleep(Duration::from_millis(5));
        }
        server.signal("TERM");
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert_eq!(server.end(IDLE_END).0.code(), Some(0));
    let server = place.serve(&["--log", "warn"]);
    for (created, cut) in results {
        assert_eq!(cut, Vec::<String>::new());
        for alias in created {
            let (status, answer) = server.get(&format!("/{alias}"));
            assert!(status == 302 && answer.contains(&format!("https://example.com/{alias}\r\n")), "{alias}: {answer}");
        }
    }
}

#[test]
fn no_connection_is_taken_once_it_has_ended() {
    let place = Place::new();
    let server = place.serve(&["--drain-delay", "0s"]);
    let address = server.address;
    server.signal("TERM");
    assert_eq!(server.end(IDLE_END).0.code(), Some(0));
    assert!(TcpStream::connect(address).is_err());
    // The port and the data directory are free for the next server at once.
    let next = place.run_to_greeting(&["serve", "--listen", &address.to_string()]);
    assert_eq!(next.address, address);
}
