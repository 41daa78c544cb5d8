//! Requests from more addresses than a limit has room for, beside modest clients and a greedy one.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{End, THREADS, from_address, is_limited, joined, limited, told};
use crate::drills::{Stage, is_refused, rush};
use crate::load::Timeline;
use crate::{Client, Request, Setup, code_path};

/// Requests sent at once on one of these.
const PIPELINE: usize = 32;
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

pub(in crate::drills) fn flood(stage: &mut Stage<'_>) {
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
    let (began, timeline) = (Instant::now(), stage.timeline.clone());
    let load = timeline.load();
    let (modest, greedy, took) = std::thread::scope(|scope| {
        let end = End(&ended);
        let ask = |lane: &'static str, at_once: usize, rest: Duration, address: String| {
            let (asker, path, ended) = (Asker { client: &client, timeline: &timeline, lane }, &path, &ended);
            scope.spawn(move || asker.ask_again(path, &address, at_once, rest, ended))
        };
        let modest = (0..MODEST).map(|n| ask("modest client", 1, MODEST_RESTS, format!("203.0.113.{n}")));
        let modest: Vec<_> = modest.collect();
        let greedy = ask("greedy client", GREEDY_AT_ONCE, GREEDY_RESTS, "198.51.100.66".to_owned());
        let _fault = timeline.fault("requests from ever new addresses");
        ask_from_many(&client, &path, 0..addresses);
        drop(end);
        let took = began.elapsed();
        let modest: Vec<_> = modest.into_iter().map(joined).collect();
        (modest, joined(greedy), took)
    });
    load.end();
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
    rush::in_threads((0..THREADS).collect(), work);
}

/// Somebody with an address of his own.
#[derive(Clone, Copy)]
struct Asker<'a> {
    client: &'a Client,
    timeline: &'a Timeline,
    lane: &'static str,
}

impl Asker<'_> {
    /// Asks from one address until the end, so often `at_once`; returns how many were answered and how many stopped.
    fn ask_again(self, path: &str, address: &str, at_once: usize, rest: Duration, ended: &AtomicBool) -> [usize; 2] {
        let (mut wire, mut counts) = (self.client.connect(), [0; 2]);
        let requests = from_address(Request::new("GET", path), address).bytes("127.0.0.1").repeat(at_once);
        while !ended.load(Ordering::SeqCst) {
            let asked = Instant::now();
            wire.write(&requests).unwrap_or_else(|error| panic!("not sent: {error}"));
            for _ in 0..at_once {
                let answer = wire.receive(false).unwrap_or_else(|error| panic!("no answer: {error}"));
                self.timeline.note(self.lane, asked, asked.elapsed(), told(answer.status == 200, &answer));
                let limited = is_limited(&answer);
                assert!(limited || answer.status == 200 || is_refused(&answer), "{answer:?}");
                counts[usize::from(limited)] += 1;
            }
            std::thread::sleep(rest);
        }
        counts
    }
}
