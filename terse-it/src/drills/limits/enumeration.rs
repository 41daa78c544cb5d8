//! Somebody tries codes at random, each time from another address of one network, beside readers behind another one.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{End, THREADS, call, from_address, is_limited, joined, limited, told};
use crate::drills::{Stage, is_refused};
use crate::load::{KnownLink, Timeline, seed};
use crate::metrics::Scrape;
use crate::{Client, Dice, Request, Setup};

/// Unknown codes that one client may try in a window.
const TRIES: usize = 300;
const TRIES_WINDOW: Duration = Duration::from_secs(60);
/// Readers behind one address, and how long each rests between two visits.
const READERS: usize = 10;
const READER_RESTS: Duration = Duration::from_millis(20);
/// One of so many visits is of a code that somebody has mistyped: 150 a minute from all of them.
const MISTYPED_ONE_OF: usize = 200;
/// The least time for which the readers read.
const READ_FOR: Duration = Duration::from_secs(2);

pub(in crate::drills) fn enumeration(stage: &mut Stage<'_>) {
    let (codes, known) = stage.form.pick((3_000, 200), (100_000, 2_000));
    // Half of the links are not in memory, so the readers need the store too.
    let setup = Setup::new().env("TERSE_CACHE_ENTRIES", &(known / 2).to_string());
    let server = limited(setup, "[limits]\ncreate = 'off'\napi = 'off'\n").start();
    let client = server.client();
    let links = seed(&client, "enumerated", known);
    let (before, began) = (Scrape::of(&client), Instant::now());
    let (ended, next, timeline) = (AtomicBool::new(false), AtomicUsize::new(0), stage.timeline.clone());
    let load = timeline.load();
    let (tries, visits) = std::thread::scope(|scope| {
        let end = End(&ended);
        let readers: Vec<_> = (0..READERS)
            .map(|n| {
                scope.spawn({
                    let (timeline, client, links, ended) = (&timeline, &client, &links, &ended);
                    move || read(timeline, client, links, n, ended)
                })
            })
            .collect();
        let fault = timeline.fault("codes tried at random from one network");
        let scanners: Vec<_> = (0..THREADS)
            .map(|n| {
                scope.spawn({
                    let (timeline, client, next) = (&timeline, &client, &next);
                    move || try_codes(timeline, client, n, next, codes)
                })
            })
            .collect();
        let tries = scanners.into_iter().map(joined).fold(Tries::default(), Tries::plus);
        fault.end();
        std::thread::sleep(READ_FOR.saturating_sub(began.elapsed()));
        drop(end);
        let visits: usize = readers.into_iter().map(joined).sum();
        (tries, visits)
    });
    load.end();
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
fn try_codes(timeline: &Timeline, client: &Client, seed: usize, next: &AtomicUsize, codes: usize) -> Tries {
    let (mut wire, mut dice, mut tries) = (client.connect(), Dice::seeded(seed as u64 + 1), Tries::default());
    while next.fetch_add(1, Ordering::Relaxed) < codes {
        let [high, low] = [dice.below(1 << 16), dice.below(1 << 16)];
        let request = Request::new("GET", &format!("/{:07x}", dice.below(1 << 28)));
        let request = request.header("Forwarded", &format!("for=\"[2001:db8:1:2::{high:x}:{low:x}]:4711\""));
        let asked = Instant::now();
        let answer = call(&mut wire, &request);
        timeline.note("unknown code", asked, asked.elapsed(), told(answer.status == 404, &answer));
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
fn read(timeline: &Timeline, client: &Client, links: &[KnownLink], number: usize, ended: &AtomicBool) -> usize {
    let (mut wire, mut visits) = (client.connect(), 0);
    while !ended.load(Ordering::SeqCst) {
        let link = &links[(visits * READERS + number) % links.len()];
        let mistyped = visits % MISTYPED_ONE_OF == MISTYPED_ONE_OF / 2;
        let path = if mistyped { format!("/typo-{number}-{visits}") } else { format!("/{}", link.code) };
        let asked = Instant::now();
        let answer = call(&mut wire, &from_address(Request::new("GET", &path), "198.51.100.7"));
        let right = if mistyped { answer.status == 404 } else { answer.header("location") == Some(&link.target) };
        timeline.note("redirect, of readers", asked, asked.elapsed(), told(right, &answer));
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
