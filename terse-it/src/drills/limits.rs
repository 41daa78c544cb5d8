//! Rate limits under more than they let through: one that two servers share,
//! with Redis killed meanwhile; somebody who tries codes at random; more
//! addresses than a limit has room for.
//!
//! Who asks is told by the header of a trusted proxy, which this machine is, so
//! one machine is many clients.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Stage, is_refused};
use crate::load::{KnownLink, REFUSED_ONE_OF, seed};
use crate::metrics::Scrape;
use crate::redis::Redis;
use crate::{API_LINKS, Client, Connection, Dice, Request, Response, Server, Setup, await_true, code_path};

/// Clients of the one key.
const CLIENTS: usize = 64;
/// How long each rests between two requests: all together ask for many times what they get.
const REST: Duration = Duration::from_millis(40);
/// Units of the shared limit at once, and each second.
const BURST: f64 = 200.0;
const RATE: f64 = 100.0;
/// By how much the servers together may miss the shared limit, quick and full: in a few seconds an answer that is on
/// its way at the end weighs more.
const MISSED: (f64, f64) = (0.05, 0.01);
/// How many times the limit two servers let through while each decides alone.
const ALONE_FACTOR: f64 = 2.0;
/// By when the limit is shared again that could not be while Redis was away.
const SHARED_AGAIN: Duration = Duration::from_secs(30);
/// For how long no process decides alone then.
const CALM: Duration = Duration::from_secs(1);

/// Unknown codes that one client may try in a window.
const TRIES: usize = 300;
const TRIES_WINDOW: Duration = Duration::from_secs(60);
/// Connections of whoever tries codes, or asks from many addresses, a thread each.
const THREADS: usize = 16;
/// Requests sent at once on one of these.
const PIPELINE: usize = 32;
/// Readers behind one address, and how long each rests between two visits.
const READERS: usize = 10;
const READER_RESTS: Duration = Duration::from_millis(20);
/// One of so many visits is of a code that somebody has mistyped: 150 a minute from all of them.
const MISTYPED_ONE_OF: usize = 200;
/// The least time for which the readers read.
const READ_FOR: Duration = Duration::from_secs(2);

/// Requests that an address may make at once, and each second.
const OWN_BURST: f64 = 20.0;
const OWN_RATE: f64 = 10.0;
/// Clients that stay below that.
const MODEST: usize = 8;
const MODEST_RESTS: Duration = Duration::from_millis(150);
/// How much the one asks at once who doesn't: more than it may, on a busy machine too.
const GREEDY_AT_ONCE: usize = 8;
/// How long it rests then.
const GREEDY_RESTS: Duration = Duration::from_millis(5);
/// How much memory a flood of addresses may take: connections, answers and the store's own cache. The limit has its
/// room by then, and 100,000 keys more would take about twice as much.
const FLOOD_GROWTH: u64 = 6 * 1_024 * 1_024;

/// Decisions about a shared limit that a server made alone.
const ALONE: &str = "terse_limits_alone_total";

fn limited(setup: Setup, file: &str) -> Setup {
    setup.env("TERSE_LIMITS", "on").env("TERSE_TRUSTED_PROXIES", "127.0.0.0/8").file(file)
}

fn from_address(request: Request, address: &str) -> Request {
    request.header("X-Forwarded-For", address)
}

/// 429, which tells when to come back and which limit it is.
fn is_limited(answer: &Response) -> bool {
    let told = answer.header("retry-after").is_some() && answer.header("ratelimit-policy").is_some();
    assert!(answer.status != 429 || told, "{answer:?}");
    answer.status == 429
}

fn percent(part: f64, whole: f64) -> usize {
    (100.0 * part / whole).round() as usize
}

/// What one client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// Admitted: a link was made, or would have been if it led anywhere.
    Admitted,
    Limited,
    /// Admitted by the limit, then refused by the store.
    Refused,
}

/// What the clients of the one key want to create. A hundred links a second are too many for a cluster on a machine
/// that also builds and tests; what leads nowhere draws from the limit all the same, and asks no store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Link,
    Nothing,
}

impl Wish {
    fn status(self) -> u16 {
        if self == Self::Link { 201 } else { 422 }
    }

    fn request(self, address: &str, number: usize) -> Request {
        let url = if self == Self::Link { format!("https://example.com/limits/{number}") } else { String::new() };
        from_address(Request::new("POST", API_LINKS).json(&json!({ "url": url })), address)
    }
}

/// All that the clients of one key were told.
struct Answers(Vec<(Duration, Told)>);

impl Answers {
    fn count(&self, window: &Range<Duration>, told: Told) -> usize {
        self.0.iter().filter(|(at, what)| window.contains(at) && *what == told).count()
    }

    /// Who drew a unit.
    fn admitted(&self, window: &Range<Duration>) -> f64 {
        (self.count(window, Told::Admitted) + self.count(window, Told::Refused)) as f64
    }
}

pub(super) fn shared(stage: &mut Stage<'_>) {
    let keyspace = stage.cluster().keyspace("limits");
    let mut redis = Redis::start();
    let file = "[limits]\napi = 'off'\n[limits.create]\nby = 'address'\nalgorithm = 'token-bucket'\n\
                burst = 200\nrefill = 100\nper = '1s'\n";
    let setup = || limited(Stage::cached(&keyspace), file).env("TERSE_CACHE", &redis.url());
    let servers = [setup().start(), setup().start()];
    let addresses = [servers[0].address(), servers[1].address()];
    addresses.iter().for_each(|address| warm(*address));
    let wish = stage.form.pick(Wish::Nothing, Wish::Link);
    let before = alone(&servers);
    let (began, ended) = (Instant::now(), AtomicBool::new(false));
    let (outage, answers) = std::thread::scope(|scope| {
        let end = End(&ended);
        let press = |n: usize| {
            let (address, ended) = (addresses[n % 2], &ended);
            scope.spawn(move || press(address, wish, began, ended))
        };
        let clients: Vec<_> = (0..CLIENTS).map(press).collect();
        let outage = Outage::make(stage, &servers, &mut redis, began);
        drop(end);
        (outage, Answers(clients.into_iter().flat_map(joined).collect()))
    });
    let alone = Alone { there: outage.alone - before, all: alone(&servers) - before };
    judge(stage, &outage, &answers, &alone);
}

/// Decisions that the servers made alone: while Redis was there, since it answered too late, and in all.
struct Alone {
    there: u64,
    all: u64,
}

/// Tells all who look at it that it is over, also when whoever holds this fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

pub(super) fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|_| panic!("a client panicked"))
}

pub(super) fn call(wire: &mut Connection, request: &Request) -> Response {
    wire.call(request).unwrap_or_else(|error| panic!("no answer to {request:?}: {error}"))
}

/// Creates of somebody else, so that the first ones that count are none that prepare anything.
fn warm(address: SocketAddr) {
    let mut wire = Client::new(address).connect();
    for number in 0..40 {
        let answer = call(&mut wire, &Wish::Link.request(&format!("192.0.2.{}", number % 4), number));
        assert!(answer.status == 201 || is_refused(&answer), "{answer:?}");
    }
}

/// One of the clients of the one key.
fn press(address: SocketAddr, wish: Wish, began: Instant, ended: &AtomicBool) -> Vec<(Duration, Told)> {
    let client = Client::new(address);
    let (mut wire, mut answers) = (client.connect(), Vec::new());
    while !ended.load(Ordering::SeqCst) {
        let answer = call(&mut wire, &wish.request("203.0.113.7", answers.len()));
        // Who is refused before the body is read gets no further request in on this connection.
        if answer.status == 429 {
            wire = client.connect();
        }
        let told = match answer.status {
            status if status == wish.status() => Told::Admitted,
            429 if is_limited(&answer) => Told::Limited,
            _ if is_refused(&answer) => Told::Refused,
            _ => panic!("a create was answered {answer:?}"),
        };
        answers.push((began.elapsed(), told));
        std::thread::sleep(REST);
    }
    answers
}

/// Decisions that each server made alone, all together.
fn alone(servers: &[Server; 2]) -> u64 {
    servers.iter().map(|server| Scrape::of(&server.client()).sum(ALONE, &[("limit", "create")])).sum()
}

/// Redis there, then killed, then back.
struct Outage {
    there: Range<Duration>,
    away: Range<Duration>,
    /// Decisions that the servers had made alone when it was killed.
    alone: u64,
}

impl Outage {
    fn make(stage: &mut Stage<'_>, servers: &[Server; 2], redis: &mut Redis, began: Instant) -> Self {
        std::thread::sleep(stage.form.pick(Duration::from_secs(4), Duration::from_secs(60)));
        let (killed, alone_there) = (began.elapsed(), alone(servers));
        redis.kill();
        std::thread::sleep(stage.form.pick(Duration::from_secs(2), Duration::from_secs(20)));
        let restarted = began.elapsed();
        redis.restart();
        let back = Instant::now();
        await_true("the limit to be shared again", SHARED_AGAIN, || {
            let before = alone(servers);
            std::thread::sleep(CALM);
            alone(servers) == before
        });
        stage.report.time("until the limit was shared again, a second of it to make sure", back.elapsed());
        Self { there: Duration::ZERO..killed, away: killed..restarted, alone: alone_there }
    }
}

fn judge(stage: &mut Stage<'_>, outage: &Outage, answers: &Answers, alone: &Alone) {
    let all = Duration::ZERO..Duration::MAX;
    let (made, refused) = (answers.count(&all, Told::Admitted), answers.count(&all, Told::Refused));
    let limit = |window: &Range<Duration>| BURST + RATE * (window.end - window.start).as_secs_f64();
    let (first, second) = (answers.admitted(&outage.there), answers.admitted(&outage.away));
    let (there, away) = (limit(&outage.there), limit(&outage.away));
    for (what, count) in [
        ("asked", answers.0.len() as u64),
        ("refused by the store", refused as u64),
        ("with Redis: admitted", first as u64),
        ("with Redis: admitted, hundredths of a percent of the limit", percent(100.0 * first, there) as u64),
        ("with Redis: decided alone, since it answered late", alone.there),
        ("without Redis: admitted", second as u64),
        ("without Redis: admitted, percent of the limit", percent(second, away) as u64),
        ("decided alone", alone.all),
    ] {
        stage.report.count(what, usize::try_from(count).unwrap_or(usize::MAX));
    }
    assert!(refused * REFUSED_ONE_OF <= made, "{refused} creates were refused, {made} were made");
    assert!(alone.all > alone.there, "nobody decided alone while Redis was away");
    // On a machine that others use Redis answers late now and then, and who decides alone then lets through what is
    // more than the shared limit: one unit each. A quiet machine has none of these.
    let missed = stage.form.pick(MISSED.0, MISSED.1);
    let most = there * (1.0 + missed) + alone.there as f64;
    assert!(first >= there * (1.0 - missed) && first <= most, "{first} were admitted, the limit is {there}");
    // Each server lets through what the rule says, and the two are all there are.
    let most = away * ALONE_FACTOR;
    assert!(second > 0.0 && second <= most, "{second} were admitted without Redis, the limit is {away}");
}

pub(super) fn enumeration(stage: &mut Stage<'_>) {
    let (codes, known) = stage.form.pick((3_000, 200), (100_000, 2_000));
    // Half of the links are not in memory, so the readers need the store too.
    let setup = Setup::new().env("TERSE_CACHE_ENTRIES", &(known / 2).to_string());
    let server = limited(setup, "[limits]\ncreate = 'off'\napi = 'off'\n").start();
    let client = server.client();
    let links = seed(&client, "enumerated", known);
    let (before, began) = (Scrape::of(&client), Instant::now());
    let (ended, next) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (tries, visits) = std::thread::scope(|scope| {
        let end = End(&ended);
        let readers: Vec<_> = (0..READERS)
            .map(|n| {
                scope.spawn({
                    let (client, links, ended) = (&client, &links, &ended);
                    move || read(client, links, n, ended)
                })
            })
            .collect();
        let scanners: Vec<_> = (0..THREADS)
            .map(|n| {
                scope.spawn({
                    let (client, next) = (&client, &next);
                    move || try_codes(client, n, next, codes)
                })
            })
            .collect();
        let tries = scanners.into_iter().map(joined).fold(Tries::default(), Tries::plus);
        std::thread::sleep(READ_FOR.saturating_sub(began.elapsed()));
        drop(end);
        let visits: usize = readers.into_iter().map(joined).sum();
        (tries, visits)
    });
    let (took, after) = (began.elapsed(), Scrape::of(&client));
    let reads = usize::try_from(after.resolves() - before.resolves()).unwrap_or(usize::MAX);
    let uncached = after.found("store") - before.found("store");
    stage.report.time("trying codes took", took);
    for (what, count) in [("told that there is none", tries.missing), ("stopped", tries.limited)] {
        stage.report.count(&format!("codes tried: {what}"), count);
    }
    stage.report.count("visits of readers, none of them stopped", visits);
    stage.report.count("of these, from the store", usize::try_from(uncached).unwrap_or(usize::MAX));
    stage.report.count("store reads", reads);
    stage.assert_few_refused("unknown codes", tries.refused, codes);
    let windows = took.as_secs() / TRIES_WINDOW.as_secs() + 1;
    let most = TRIES * usize::try_from(windows).unwrap_or(usize::MAX) + THREADS;
    assert!((TRIES..=most).contains(&tries.missing), "{tries:?}, {most} may be looked up in {took:?}");
    assert!(reads <= tries.missing + tries.refused + visits, "{reads} store reads for {tries:?} and {visits} visits");
    assert!(uncached > 0, "no reader needed the store");
    assert_only_that_network_is_stopped(&client, &links);
}

/// What came of trying codes.
#[derive(Clone, Copy, Debug, Default)]
struct Tries {
    missing: usize,
    limited: usize,
    refused: usize,
}

impl Tries {
    fn plus(self, other: Self) -> Self {
        Self {
            missing: self.missing + other.missing,
            limited: self.limited + other.limited,
            refused: self.refused + other.refused,
        }
    }
}

/// Tries codes while there are some, each from another address of one network.
fn try_codes(client: &Client, seed: usize, next: &AtomicUsize, codes: usize) -> Tries {
    let (mut wire, mut dice, mut tries) = (client.connect(), Dice::seeded(seed as u64 + 1), Tries::default());
    while next.fetch_add(1, Ordering::Relaxed) < codes {
        let [high, low] = [dice.below(1 << 16), dice.below(1 << 16)];
        let request = Request::new("GET", &format!("/{:07x}", dice.below(1 << 28)));
        let request = request.header("Forwarded", &format!("for=\"[2001:db8:1:2::{high:x}:{low:x}]:4711\""));
        let answer = call(&mut wire, &request);
        match answer.status {
            404 => tries.missing += 1,
            429 if is_limited(&answer) => tries.limited += 1,
            _ if is_refused(&answer) => tries.refused += 1,
            _ => panic!("an unknown code was answered {answer:?}"),
        }
    }
    tries
}

/// One of the readers behind an address; returns how many visits it made.
fn read(client: &Client, links: &[KnownLink], number: usize, ended: &AtomicBool) -> usize {
    let (mut wire, mut visits) = (client.connect(), 0);
    while !ended.load(Ordering::SeqCst) {
        let link = &links[(visits * READERS + number) % links.len()];
        let mistyped = visits % MISTYPED_ONE_OF == MISTYPED_ONE_OF / 2;
        let path = if mistyped { format!("/typo-{number}-{visits}") } else { format!("/{}", link.code) };
        let answer = call(&mut wire, &from_address(Request::new("GET", &path), "198.51.100.7"));
        let right = if mistyped { answer.status == 404 } else { answer.header("location") == Some(&link.target) };
        assert!(right || is_refused(&answer), "a reader was answered {answer:?}");
        visits += 1;
        std::thread::sleep(READER_RESTS);
    }
    visits
}

/// Another address of the network that was stopped is, but for what is in memory; the network beside it is not.
fn assert_only_that_network_is_stopped(client: &Client, links: &[KnownLink]) {
    let from = |path: &str, address: &str| client.send(from_address(Request::new("GET", path), address));
    assert!(is_limited(&from("/never-tried", "2001:db8:1:2:ffff::9")));
    let known = format!("/{}", links[0].code);
    assert_eq!(from(&known, "198.51.100.8").status, 302);
    assert_eq!(from(&known, "2001:db8:1:2:ffff::9").status, 302, "it is in memory");
    assert_eq!(from("/never-tried", "2001:db8:1:3::9").status, 404);
}

pub(super) fn flood(stage: &mut Stage<'_>) {
    let (keys, addresses) = stage.form.pick((1_024, 8_000), (4_096, 100_000));
    let file = format!(
        "[limits]\nkeys = {keys}\ncreate = 'off'\n[limits.api]\nby = 'address'\nalgorithm = 'token-bucket'\n\
         burst = 20\nrefill = 10\nper = '1s'\n"
    );
    let server = limited(Setup::new(), &file).start();
    let client = server.client();
    let path = code_path(&client.shorten("https://example.com/flooded"));
    // Whatever a busy server needs it has by now; these are further addresses still.
    ask_from_many(&client, &path, addresses..addresses + keys);
    let (before, ended) = (server.resident_bytes(), AtomicBool::new(false));
    let began = Instant::now();
    let (modest, greedy, took) = std::thread::scope(|scope| {
        let end = End(&ended);
        let ask = |at_once: usize, rest: Duration, address: String| {
            let (client, path, ended) = (&client, &path, &ended);
            scope.spawn(move || ask_again(client, path, &address, at_once, rest, ended))
        };
        let modest: Vec<_> = (0..MODEST).map(|n| ask(1, MODEST_RESTS, format!("203.0.113.{n}"))).collect();
        let greedy = ask(GREEDY_AT_ONCE, GREEDY_RESTS, "198.51.100.66".to_owned());
        ask_from_many(&client, &path, 0..addresses);
        drop(end);
        let took = began.elapsed();
        let modest: Vec<_> = modest.into_iter().map(joined).collect();
        (modest, joined(greedy), took)
    });
    let growth = server.resident_bytes().saturating_sub(before);
    let [served, stopped] = [0, 1].map(|which| modest.iter().map(|counts| counts[which]).sum::<usize>());
    stage.report.count("addresses", addresses);
    stage.report.count("of these a limit remembers", keys);
    stage.report.time("the flood took", took);
    stage.report.count("memory that it took, KiB", usize::try_from(growth / 1_024).unwrap_or(usize::MAX));
    stage.report.count("requests of modest clients", served);
    stage.report.count("requests of a greedy one that were answered", greedy[0]);
    stage.report.count("requests of a greedy one that were stopped", greedy[1]);
    assert_eq!(stopped, 0, "of modest clients, {served} requests were answered");
    let most = OWN_BURST + OWN_RATE * took.as_secs_f64();
    assert!(greedy[1] > 0 && greedy[0] as f64 <= most + 2.0, "{greedy:?} in {took:?}: the flood made room for more");
    assert!(growth <= FLOOD_GROWTH, "{addresses} addresses took {growth} bytes of memory");
}

/// Asks once from each of these addresses: nobody is stopped who asks for the first time.
fn ask_from_many(client: &Client, path: &str, addresses: Range<usize>) {
    let next = AtomicUsize::new(addresses.start);
    let work = |_| {
        let mut wire = client.connect();
        loop {
            let from = next.fetch_add(PIPELINE, Ordering::Relaxed);
            if from >= addresses.end {
                return;
            }
            let batch = from..addresses.end.min(from + PIPELINE);
            // Each in a /48 of its own: these have limits, too.
            let request = |n: usize| {
                from_address(Request::new("GET", path), &format!("2001:{:x}:{:x}::1", 0xdb8 + (n >> 16), n & 0xffff))
            };
            let requests: Vec<u8> = batch.clone().flat_map(|n| request(n).bytes("127.0.0.1")).collect();
            wire.write(&requests).unwrap_or_else(|error| panic!("not sent: {error}"));
            for n in batch {
                let answer = wire.receive(false).unwrap_or_else(|error| panic!("no answer: {error}"));
                assert!(answer.status == 200 || is_refused(&answer), "address {n}: {answer:?}");
            }
        }
    };
    super::rush::in_threads((0..THREADS).collect(), work);
}

/// Asks from one address until the end, so often `at_once`; returns how many were answered and how many stopped.
fn ask_again(
    client: &Client,
    path: &str,
    address: &str,
    at_once: usize,
    rest: Duration,
    ended: &AtomicBool,
) -> [usize; 2] {
    let (mut wire, mut counts) = (client.connect(), [0; 2]);
    let requests = from_address(Request::new("GET", path), address).bytes("127.0.0.1").repeat(at_once);
    while !ended.load(Ordering::SeqCst) {
        wire.write(&requests).unwrap_or_else(|error| panic!("not sent: {error}"));
        for _ in 0..at_once {
            let answer = wire.receive(false).unwrap_or_else(|error| panic!("no answer: {error}"));
            let limited = is_limited(&answer);
            assert!(limited || answer.status == 200 || is_refused(&answer), "{answer:?}");
            counts[usize::from(limited)] += 1;
        }
        std::thread::sleep(rest);
    }
    counts
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[&str]) -> Response {
        let headers = headers.iter().map(|name| ((*name).to_owned(), "1".to_owned())).collect();
        Response { status, headers, body: vec![] }
    }

    #[test]
    fn who_was_refused_by_the_store_was_admitted_by_the_limit() {
        let at = Duration::from_secs;
        let answers =
            [(1, Told::Admitted), (2, Told::Limited), (3, Told::Refused), (4, Told::Admitted), (9, Told::Admitted)];
        let answers = Answers(answers.map(|(second, told)| (at(second), told)).to_vec());
        assert_eq!(answers.admitted(&(at(1)..at(9))), 3.0);
        assert_eq!(answers.count(&(at(1)..at(9)), Told::Limited), 1);
    }

    #[test]
    fn a_429_tells_its_limit_and_when_to_come_back() {
        assert!(is_limited(&answer(429, &["Retry-After", "RateLimit-Policy"])));
        assert!(!is_limited(&answer(404, &[])));
        for headers in [&["Retry-After"][..], &["RateLimit-Policy"], &[]] {
            assert!(std::panic::catch_unwind(|| is_limited(&answer(429, headers))).is_err(), "{headers:?}");
        }
    }

    #[test]
    fn shares_are_rounded() {
        assert_eq!((percent(1.0, 3.0), percent(2.0, 3.0), percent(2.0, 1.0)), (33, 67, 200));
    }
}
