//! Thousands of connections on which nothing happens, or nearly nothing:
//! whoever asks meanwhile doesn't notice, and they don't last.
//!
//! An *idle* connection has had one answer and says nothing more. A *slow* one
//! sends its head a byte at a time; those that are closed for it come again.
//! They have a limit of connections of an address that lets them all in, and
//! one address that is not let in by that.
//!
//! Bounds: [`THREADS`] here for the slow ones, and as many files as connections.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{Stage, rush::in_threads};
use crate::load::{Answer, KnownLink, Timeline, percentile, seed};
use crate::metrics::Scrape;
use crate::{Client, Connection, Request, Setup, await_true};

/// Threads that have the slow ones.
const THREADS: usize = 4;
/// Between two bytes of a slow connection.
const SLOW_REST: Duration = Duration::from_millis(500);
/// How long a client may take for its head, and how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(45));
/// By when half as many slow ones were closed as there are: a busy machine may take long to look at them all.
const CUT_LIMIT: Duration = Duration::from_secs(120);
/// By when all that idle are gone, after that.
const GONE_LIMIT: Duration = Duration::from_secs(30);
/// Files that the drill has open beside its connections, at most.
const OTHER_FILES: usize = 1_000;
/// Readers, how often each asks, and what they are promised.
const READERS: usize = 4;
const READER_RESTS: Duration = Duration::from_millis(4);
const READER_P99: Duration = Duration::from_millis(50);
/// Memory of a connection on which nothing happens, at most.
const IDLE_BYTES: u64 = 4 * 1_024;
const OTHER_BYTES: u64 = 16 * 1_024 * 1_024;

pub(super) fn idle_and_slow(stage: &mut Stage<'_>) {
    let (idle, slow) = stage.form.pick((1_500, 150), (10_000, 1_000));
    let keep_alive = stage.form.pick(KEEP_ALIVE.0, KEEP_ALIVE.1);
    raise_files(idle + slow);
    let seconds = |time: Duration| format!("{}s", time.as_secs());
    let setup = Setup::new().env("TERSE_HEAD_TIMEOUT", &seconds(HEAD_TIMEOUT));
    let setup = setup.env("TERSE_KEEP_ALIVE", &seconds(keep_alive));
    let server = setup.env("TERSE_CONNECTIONS_PER_ADDRESS", &(idle + slow + 100).to_string()).start();
    let (client, address) = (server.client(), server.address());
    let links = seed(&client, "read", 50);
    let readers = Readers { client: &client, links: &links, timeline: &stage.timeline.clone() };
    let alone = percentile(&readers.read_for(stage.form.pick(1, 5)), 99);
    let before = server.resident_bytes();
    let fault = stage.timeline.fault("connections that idle, connections that are slow");
    let began = Instant::now();
    let mut idling = open_idle(&client, idle, &links[0]);
    stage.report.time("until all that idle were there", began.elapsed());
    let (ended, cut) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (times, growth) = std::thread::scope(|scope| {
        // Set when what follows panics, too: the scope waits for its threads.
        let _ends = SetAtEnd(&ended);
        for number in 0..THREADS {
            let (ended, cut) = (&ended, &cut);
            scope.spawn(move || crawl(address, (slow + number) / THREADS, ended, cut));
        }
        let times = readers.read_for(stage.form.pick(4, 20));
        let growth = server.resident_bytes().saturating_sub(before);
        await_true("slow clients to be closed", CUT_LIMIT, || cut.load(Ordering::SeqCst) >= slow / 2);
        (times, growth)
    });
    fault.end();
    let p99 = percentile(&times, 99);
    stage.report.count("connections that idle", idle);
    stage.report.count("slow connections", slow);
    stage.report.count("of these, closed for it and opened again", cut.load(Ordering::SeqCst));
    stage.report.count("redirects of others", times.len());
    stage.report.time("redirects of others without them, p99", alone);
    stage.report.time("redirects of others, p99", p99);
    stage.report.count("memory that they took, KiB", usize::try_from(growth / 1_024).unwrap_or(usize::MAX));
    stage.assert_within("a redirect beside them", p99, READER_P99);
    let most = OTHER_BYTES + IDLE_BYTES * (idle + slow) as u64;
    assert!(growth <= most, "they took {growth} bytes of memory, {most} are bounded");
    await_true("the end of those that idle", keep_alive + GONE_LIMIT, || {
        idling.retain_mut(is_open);
        idling.is_empty()
    });
    assert_eq!(Scrape::of(&client).sum("terse_connections_refused_total", &[]), 0);
    an_address_has_only_so_many(stage);
}

/// Sets it when it is dropped.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// One address takes no more than its share, and another is let in beside it.
fn an_address_has_only_so_many(stage: &mut Stage<'_>) {
    const EACH: usize = 20;
    let setup = Setup::new().env("TERSE_CONNECTIONS_PER_ADDRESS", &EACH.to_string()).env("TERSE_WORKERS", "1");
    // Those that are let in say nothing, and shall stay.
    let server = setup.env("TERSE_HEAD_TIMEOUT", "60s").start();
    let mut all: Vec<TcpStream> = (0..3 * EACH).map(|_| connect(server.address())).collect();
    await_true("the end of those that are too many", GONE_LIMIT, || {
        all.retain_mut(is_open);
        all.len() <= EACH
    });
    assert_eq!(all.len(), EACH);
    drop(all);
    let client = server.client();
    let refused = || {
        let mut wire = Connection::open(client.address()).ok()?;
        let text = wire.call(&Request::new("GET", "/metrics")).ok()?.text();
        let line = text.lines().find_map(|line| line.strip_prefix("terse_connections_refused_total "))?;
        line.parse::<usize>().ok()
    };
    // The places of those that are gone are given back soon after.
    let refused = crate::await_some("an answer", GONE_LIMIT, refused);
    stage.report.count("connections of one address that were refused", refused);
    assert!(refused >= 2 * EACH, "{refused}");
}

fn raise_files(connections: usize) {
    let needed = (connections + OTHER_FILES) as u64;
    let limit = rlimit::increase_nofile_limit(needed);
    assert!(
        limit.as_ref().is_ok_and(|limit| *limit >= needed),
        "{connections} connections need a limit of {needed} open files (ulimit -n), it is {limit:?}"
    );
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("not connected: {error}"));
    stream.set_nonblocking(true).unwrap_or_else(|error| panic!("not set: {error}"));
    stream
}

/// Connections that have had one answer each.
fn open_idle(client: &Client, count: usize, link: &KnownLink) -> Vec<TcpStream> {
    let request = Request::new("GET", &format!("/{}", link.code)).bytes("127.0.0.1");
    let open = |count: usize| -> Vec<TcpStream> {
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            let mut stream =
                TcpStream::connect(client.address()).unwrap_or_else(|error| panic!("not connected: {error}"));
            stream.write_all(&request).unwrap_or_else(|error| panic!("not sent: {error}"));
            let mut answer = [0; 1_024];
            let read = stream.read(&mut answer).unwrap_or_else(|error| panic!("no answer: {error}"));
            assert!(answer[..read].starts_with(b"HTTP/1.1 302"), "{}", String::from_utf8_lossy(&answer[..read]));
            stream.set_nonblocking(true).unwrap_or_else(|error| panic!("not set: {error}"));
            all.push(stream);
        }
        all
    };
    let parts = (0..THREADS).map(|number| (count + number) / THREADS).collect();
    in_threads(parts, open).into_iter().flatten().collect()
}

/// Whether nobody has closed it, nor said why.
fn is_open(stream: &mut TcpStream) -> bool {
    loop {
        match stream.read(&mut [0; 1_024]) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

/// Sends heads a byte at a time on `count` connections; one that is closed is opened again.
fn crawl(address: SocketAddr, count: usize, ended: &AtomicBool, cut: &AtomicUsize) {
    const HEAD: &[u8] = b"GET /nobody HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ";
    let mut all: Vec<(TcpStream, usize)> = (0..count).map(|_| (connect(address), 0)).collect();
    while !ended.load(Ordering::SeqCst) {
        for (stream, sent) in &mut all {
            let byte = HEAD.get(*sent).copied().unwrap_or(b'x');
            if is_open(stream) && stream.write(&[byte]).is_ok() {
                *sent += 1;
            } else {
                cut.fetch_add(1, Ordering::SeqCst);
                (*stream, *sent) = (connect(address), 0);
            }
        }
        std::thread::sleep(SLOW_REST);
    }
}

/// A few readers of links.
struct Readers<'a> {
    client: &'a Client,
    links: &'a [KnownLink],
    timeline: &'a Timeline,
}

impl Readers<'_> {
    /// How long redirects take that they ask for meanwhile, sorted.
    fn read_for(&self, seconds: u64) -> Vec<Duration> {
        let until = Instant::now() + Duration::from_secs(seconds);
        let _load = self.timeline.load();
        let read = |number: usize| {
            let (mut wire, mut times) = (self.client.connect(), Vec::new());
            while Instant::now() < until {
                let link = &self.links[(number + times.len() * READERS) % self.links.len()];
                let began = Instant::now();
                let answer = wire.call(&Request::new("GET", &format!("/{}", link.code)));
                let answer = answer.unwrap_or_else(|error| panic!("no answer: {error}"));
                let good = answer.header("location") == Some(&link.target);
                let came = if good { Answer::Answered } else { Answer::Failed };
                self.timeline.note("redirect", began, began.elapsed(), came);
                assert!(good, "{link:?} was answered {answer:?}");
                times.push(began.elapsed());
                std::thread::sleep(READER_RESTS);
            }
            times
        };
        let mut times: Vec<Duration> = in_threads((0..READERS).collect(), read).into_iter().flatten().collect();
        times.sort_unstable();
        times
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_connection_is_open_until_the_other_side_closes_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut here = connect(listener.local_addr().unwrap());
        let (mut there, _) = listener.accept().unwrap();
        assert!(is_open(&mut here));
        there.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").unwrap();
        drop(there);
        await_true("its end", Duration::from_secs(10), || !is_open(&mut here));
    }
}
