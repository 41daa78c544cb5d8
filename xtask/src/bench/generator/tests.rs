use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::*;
use crate::bench::wire::Get;

/// Asks for one code again and again, at most `left` times, and counts the answers.
struct Repeat {
    get: Get,
    left: u64,
    checked: u64,
}

impl Repeat {
    fn times(left: u64) -> Self {
        Self { get: Get::default(), left, checked: 0 }
    }
}

impl Workload for Repeat {
    fn request(&mut self, out: &mut Vec<u8>) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        self.get.write(b"abcdefg", out);
        Some(self.left)
    }

    fn check(&mut self, _: u64, answer: &Answer<'_>) -> Result<()> {
        if answer.status != 200 {
            bail!("status {}", answer.status);
        }
        self.checked += 1;
        Ok(())
    }
}

/// Serves one connection: answers each request with `answer`, after `stall` if it is number `stalled`.
fn serve_one(answer: &'static [u8], stalled: u64, stall: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 4096];
        let mut number = 0;
        while stream.read(&mut buffer).is_ok_and(|read| read > 0) {
            number += 1;
            if number == stalled {
                thread::sleep(stall);
            }
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    });
    address
}

fn load(pace: Pace, window_ms: u64) -> Load {
    Load {
        connections: 1,
        kind: Connections::Kept,
        pace,
        warm_up: Duration::ZERO,
        window: Duration::from_millis(window_ms),
    }
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

#[test]
fn requests_are_due_evenly_from_the_start() {
    let start = Instant::now();
    let mut schedule = Schedule { start, per_second: 1_000, total: 3, sent: 0 };
    assert_eq!(schedule.take(start), Some(start));
    assert_eq!(schedule.take(start), None);
    let late = start + Duration::from_millis(50);
    assert_eq!(schedule.take(late), Some(start + Duration::from_millis(1)));
    assert_eq!(schedule.take(late), Some(start + Duration::from_millis(2)));
    assert_eq!(schedule.take(late), None, "only as many as planned");
}

#[test]
fn a_stall_counts_for_every_request_that_it_delayed() {
    // 100 ms without an answer in a second at 1,000/s: a tenth of all requests were
    // due during the stall, so the worst twentieth waited for at least 45 ms.
    let address = serve_one(OK, 300, Duration::from_millis(100));
    let mut workload = Repeat::times(u64::MAX);
    let open = load(Pace::Open { per_second: 1_000 }, 1_000);
    let outcome = drive(address, &open, &mut workload, &mut || Ok(())).unwrap();
    assert_eq!((outcome.answers, workload.checked), (1_000, 1_000));
    assert!(outcome.latencies.percentile_ms(95.0) > 45.0, "{} ms", outcome.latencies.percentile_ms(95.0));
    assert!((outcome.per_second() - 1_000.0).abs() < 1.0);
}

#[test]
fn a_closed_loop_sees_a_stall_once() {
    let address = serve_one(OK, 300, Duration::from_millis(100));
    let mut workload = Repeat::times(1_000);
    let outcome = drive(address, &load(Pace::Closed, 20_000), &mut workload, &mut || Ok(())).unwrap();
    assert_eq!(outcome.answers, 1_000);
    assert!(outcome.latencies.percentile_ms(100.0) > 95.0);
    assert!(outcome.latencies.percentile_ms(95.0) < 45.0, "{} ms", outcome.latencies.percentile_ms(95.0));
}

#[test]
fn the_window_has_a_beginning_and_an_end_and_warm_up_is_not_counted() {
    let address = serve_one(OK, 0, Duration::ZERO);
    let mut workload = Repeat::times(u64::MAX);
    let mut edges = 0;
    let load = Load { warm_up: Duration::from_millis(200), ..load(Pace::Closed, 50) };
    let outcome = drive(address, &load, &mut workload, &mut || {
        edges += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(edges, 2);
    assert!(outcome.answers < workload.checked, "{} of {}", outcome.answers, workload.checked);
    assert!(outcome.seconds >= 0.05);
}

#[test]
fn wrong_answers_end_the_run() {
    let run = |answer| {
        let address = serve_one(answer, 0, Duration::ZERO);
        let mut workload = Repeat::times(10);
        drive(address, &load(Pace::Closed, 1_000), &mut workload, &mut || Ok(())).err().unwrap().to_string()
    };
    assert_eq!(run(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"), "status 500");
    assert_eq!(
        run(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
        "the server closes connections"
    );
    assert_eq!(run(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nmore"), "bytes after the answer");
    assert_eq!(run(b"HTTP/1.1 200 OK\r\n\r\n"), "answer without a content length");
}

#[test]
fn a_server_that_hangs_up_ends_the_run() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || drop(listener.accept()));
    let error = drive(address, &load(Pace::Closed, 1_000), &mut Repeat::times(1), &mut || Ok(())).err().unwrap();
    // Depending on when the end is seen, by a read or by a write.
    let text = error.to_string();
    assert!(text == "the server closed a connection" || text.contains("ing a"), "{text}");
}

/// Sends one request that no socket buffer holds, and expects an answer that no first buffer holds.
struct Large;

impl Workload for Large {
    fn request(&mut self, out: &mut Vec<u8>) -> Option<u64> {
        out.extend(vec![b'x'; 16 * 1024 * 1024]);
        Some(0)
    }

    fn check(&mut self, _: u64, answer: &Answer<'_>) -> Result<()> {
        assert_eq!(answer.body.len(), 1_000_000);
        bail!("seen")
    }
}

#[test]
fn requests_and_answers_larger_than_the_buffers_pass() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = vec![0; 16 * 1024 * 1024];
        stream.read_exact(&mut request).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n").unwrap();
        stream.write_all(&vec![b'y'; 1_000_000]).unwrap();
        drop(stream.read(&mut request));
    });
    let error = drive(address, &load(Pace::Closed, 20_000), &mut Large, &mut || Ok(())).err().unwrap();
    assert_eq!(error.to_string(), "seen");
}

#[test]
fn a_load_that_ends_in_its_warm_up_is_an_error() {
    let address = serve_one(OK, 0, Duration::ZERO);
    let load = Load { warm_up: Duration::from_secs(20), ..load(Pace::Closed, 50) };
    let error = drive(address, &load, &mut Repeat::times(3), &mut || Ok(())).err().unwrap();
    assert_eq!(error.to_string(), "the load ended before its window began");
}

#[test]
fn a_server_that_stalls_beyond_warm_up_and_window_has_a_window_all_the_same() {
    let address = serve_one(OK, 1, Duration::from_millis(200));
    let load = Load { warm_up: Duration::from_millis(1), ..load(Pace::Closed, 1) };
    let outcome = drive(address, &load, &mut Repeat::times(u64::MAX), &mut || Ok(())).unwrap();
    assert!(outcome.seconds >= 0.001);
}

const CLOSING: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// Answers one request on each connection with `answer` and closes it; of
/// number `spoilt`, counted from 1, it closes the connection without an answer.
/// Returns how many connections it took, too.
fn serve_many(answer: &'static [u8], spoilt: u64) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let taken = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&taken);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
            let read = stream.read(&mut [0; 4096]);
            if read.is_ok_and(|read| read > 0) && number != spoilt {
                drop(stream.write_all(answer));
            }
        }
    });
    (address, taken)
}

fn churn(connections: usize, window_ms: u64) -> Load {
    Load { connections, kind: Connections::Renewed, ..load(Pace::Closed, window_ms) }
}

#[test]
fn with_churn_each_request_has_a_connection_of_its_own() {
    let (address, taken) = serve_many(CLOSING, 0);
    let mut workload = Repeat::times(100);
    let outcome = drive(address, &churn(4, 20_000), &mut workload, &mut || Ok(())).unwrap();
    assert_eq!((outcome.answers, outcome.connections, workload.checked), (100, 100, 100));
    assert_eq!(taken.load(Ordering::SeqCst), 100, "none is made that no request needs");
    assert_eq!(outcome.latencies.len(), 100);
}

#[test]
fn with_churn_connections_of_the_warm_up_are_not_counted() {
    let (address, taken) = serve_many(CLOSING, 0);
    let load = Load { warm_up: Duration::from_millis(100), ..churn(2, 100) };
    let outcome = drive(address, &load, &mut Repeat::times(u64::MAX), &mut || Ok(())).unwrap();
    assert!(outcome.connections < taken.load(Ordering::SeqCst), "{}", outcome.connections);
    assert!(outcome.connections.abs_diff(outcome.answers) <= 2, "{} for {}", outcome.connections, outcome.answers);
}

#[test]
fn a_server_that_keeps_what_it_was_asked_to_close_ends_the_run() {
    let (address, _) = serve_many(OK, 0);
    let error = drive(address, &churn(1, 1_000), &mut Repeat::times(9), &mut || Ok(())).err().unwrap();
    assert_eq!(error.to_string(), "the server keeps connections that it was asked to close");
}

#[test]
fn with_churn_a_connection_closed_without_an_answer_ends_the_run() {
    let (address, _) = serve_many(CLOSING, 3);
    let error = drive(address, &churn(1, 1_000), &mut Repeat::times(9), &mut || Ok(())).err().unwrap();
    assert_eq!(error.to_string(), "the server closed a connection");
}

/// Answers three requests on each connection: it closes it with the third, saying so if `tells`.
fn serve_three(tells: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            for number in 1..=3 {
                if !stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {
                    break;
                }
                drop(stream.write_all(if number == 3 && tells { CLOSING } else { OK }));
            }
        }
    });
    address
}

#[test]
fn a_connection_that_the_server_ends_is_made_anew_where_it_may() {
    let offered = |address, times| {
        let load = Load { kind: Connections::Offered, ..load(Pace::Closed, 20_000) };
        drive(address, &load, &mut Repeat::times(times), &mut || Ok(()))
    };
    let outcome = offered(serve_three(true), 10).unwrap();
    assert_eq!((outcome.answers, outcome.connections), (10, 3), "the first was made before the window");
    let kept = serve_one(OK, 0, Duration::ZERO);
    assert_eq!(offered(kept, 50).unwrap().connections, 0, "one that is kept is not made anew");
    let error = offered(serve_many(OK, 1).0, 10).err().unwrap().to_string();
    assert_eq!(error, "the server closed a connection", "not while it owes an answer");
}

#[test]
fn a_connection_that_ends_while_nothing_is_asked_on_it_is_made_anew_later() {
    let load = Load { kind: Connections::Offered, ..load(Pace::Open { per_second: 5 }, 1_000) };
    let outcome = drive(serve_three(false), &load, &mut Repeat::times(u64::MAX), &mut || Ok(())).unwrap();
    assert_eq!((outcome.answers, outcome.connections), (5, 1));
}

#[test]
fn kept_connections_are_made_once() {
    let address = serve_one(OK, 0, Duration::ZERO);
    let mut workload = Repeat::times(50);
    let outcome = drive(address, &load(Pace::Closed, 20_000), &mut workload, &mut || Ok(())).unwrap();
    assert_eq!((outcome.answers, outcome.connections), (50, 0), "before the window");
}
