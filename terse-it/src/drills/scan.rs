//! Somebody tries a million codes that nobody has, beside the traffic of links
//! that fit into memory just so.
//!
//! What bounds the store reads: an unknown code is looked up at most once a
//! second, since "no such link" is remembered that long and one flight serves
//! all who want a code; and whatever the number of codes, the bulkhead of the
//! store's reads bounds how many are under way. Memory is bounded by the number of negative entries.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::rush::in_threads;
use super::{Stage, is_refused};
use crate::load::{Kind, Plan, WORKERS, seed};
use crate::metrics::{BULKHEAD_IN_USE, Scrape};
use crate::{Client, Request, Server, Setup, joined};

/// How many points the share of redirects from memory may lose.
const RATIO_POINTS: f64 = 2.0;
/// How much memory a scan may take, in bytes: negative entries, flights and connections.
const MEMORY_GROWTH: u64 = 48 * 1_024 * 1_024;
/// Requests of the load that may be under way at a scrape: their reads are counted before their answers.
const UNDER_WAY: u64 = WORKERS as u64;
/// How long "no such link" is remembered.
const NEGATIVE_FOR: Duration = Duration::from_secs(1);
/// Connections that scan, a thread each.
const SCANNERS: usize = 32;
/// Requests sent at once on one connection.
const PIPELINE: usize = 32;
/// Codes that are tried again and again.
const REPEATED: usize = 200;
/// How long.
const REPEAT_FOR: Duration = Duration::from_secs(3);
const SAMPLE_AGAIN: Duration = Duration::from_millis(100);

/// The most that was seen during the scan.
#[derive(Debug, Default)]
struct Peak {
    resident: u64,
    reads_under_way: u64,
    /// Unknown codes that were refused, not a peak but all of them.
    refused: usize,
}

pub(super) fn scan(stage: &mut Stage<'_>) {
    let (hot, entries, codes) = stage.form.pick((400, "500", 20_000), (8_000, "10000", 1_000_000));
    let server = Setup::new().env("TERSE_CACHE_ENTRIES", entries).start();
    let client = server.client();
    let links = seed(&client, "hot", hot);
    let redirects = stage.form.pick(400, 3_000);
    let load = stage.load(Plan { servers: vec![client.address()], links, redirects, creates: 0, unknown: 0 });
    let lap = Duration::from_secs_f64(hot as f64 / f64::from(redirects));
    load.run_for(2 * lap);
    let (first, before) = (Scrape::of(&client), server.resident_bytes());
    let calm = load.run_for(lap.max(Duration::from_secs(2)));
    let second = Scrape::of(&client);

    let from = load.elapsed();
    let fault = stage.timeline.fault("unknown codes are tried");
    let peak = scan_beside(&server, codes);
    fault.end();
    let scanned = from..load.elapsed();
    let third = Scrape::of(&client);
    let fault = stage.timeline.fault("a few of them again and again");
    let repeated = repeat(stage, &client);
    fault.end();
    let after = load.run_for(lap.max(Duration::from_secs(1)));
    let last = Scrape::of(&client);
    let ledger = load.stop();

    for (name, window) in [("calm", &calm), ("scanned", &scanned), ("after", &after)] {
        stage.report.window(&format!("{name}: redirect"), &ledger.window(Kind::Redirect, window));
    }
    report_reads(stage, [&second, &third], &scanned, codes);
    let mib = |bytes: u64| usize::try_from(bytes / 1_024 / 1_024).unwrap_or(usize::MAX);
    stage.report.count("resident before, MiB", mib(before));
    stage.report.count("resident during the scan at most, MiB", mib(peak.resident));
    stage.report.count("store reads under way at most", usize::try_from(peak.reads_under_way).unwrap_or(usize::MAX));
    ledger.assert_truthful();
    stage.assert_answered(&ledger, Kind::Redirect, &ledger.whole());
    stage.report.count("unknown codes that were refused", peak.refused);
    stage.assert_few_refused("unknown codes", peak.refused, codes);
    let calm_ratio = ratio(&first, &second);
    for (name, ratio) in [("during the scan", ratio(&second, &third)), ("after it", ratio(&repeated, &last))] {
        stage.report.count(&format!("hit ratio {name}, hundredths of a percent"), (ratio * 100.0) as usize);
        assert!(calm_ratio - ratio <= RATIO_POINTS, "the hit ratio {name} is {ratio} %, before it was {calm_ratio} %");
    }
    let growth = peak.resident.saturating_sub(before);
    assert!(growth <= MEMORY_GROWTH, "the scan took {growth} bytes of memory");
}

/// The share of redirects between two scrapes that came from memory, in percent.
fn ratio(before: &Scrape, after: &Scrape) -> f64 {
    let found = after.found_by_any() - before.found_by_any();
    assert!(found > 0, "no link was asked for");
    100.0 * (after.found("l1") - before.found("l1")) as f64 / found as f64
}

/// Each code was read at most once, beside the few links that memory did not have.
fn report_reads(stage: &mut Stage<'_>, [before, after]: [&Scrape; 2], scanned: &Range<Duration>, codes: usize) {
    let seconds = (scanned.end - scanned.start).as_secs_f64();
    let reads = after.resolves() - before.resolves();
    let missed = (after.found_by_any() - before.found_by_any()) - (after.found("l1") - before.found("l1"));
    stage.report.count("unknown codes tried", codes);
    stage.report.count("unknown codes a second", (codes as f64 / seconds) as usize);
    stage.report.count("store reads a second during the scan", (reads as f64 / seconds) as usize);
    let most = codes as u64 + missed + UNDER_WAY;
    assert!(reads <= most, "{reads} store reads for {codes} unknown codes and {missed} links");
}

/// Tries the codes; returns the most memory and store reads that were seen meanwhile.
fn scan_beside(server: &Server, codes: usize) -> Peak {
    let (client, ended) = (server.client(), AtomicBool::new(false));
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut peak = Peak::default();
            while !ended.load(Ordering::SeqCst) {
                peak.resident = peak.resident.max(server.resident_bytes());
                let under_way = Scrape::of(&client).sum(BULKHEAD_IN_USE, &[]);
                peak.reads_under_way = peak.reads_under_way.max(under_way);
                std::thread::sleep(SAMPLE_AGAIN);
            }
            peak
        });
        let scanners = (0..SCANNERS).map(|_| scope.spawn(|| scan_all(&client, &next, codes))).collect::<Vec<_>>();
        let ended_all: Vec<_> = scanners.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        ended.store(true, Ordering::SeqCst);
        let refused = ended_all.into_iter().map(joined).sum();
        let peak = joined(sampler.join());
        Peak { refused, ..peak }
    })
}

/// Tries codes while there are some; returns how many were refused.
fn scan_all(client: &Client, next: &AtomicUsize, codes: usize) -> usize {
    let (mut wire, mut refused) = (client.connect(), 0);
    loop {
        let from = next.fetch_add(PIPELINE, Ordering::Relaxed);
        if from >= codes {
            return refused;
        }
        let batch = from..codes.min(from + PIPELINE);
        let requests: Vec<u8> = batch.clone().flat_map(|number| unknown(number).bytes("127.0.0.1")).collect();
        wire.write(&requests).unwrap_or_else(|error| panic!("not sent: {error}"));
        for number in batch {
            let answer = wire.receive(false).unwrap_or_else(|error| panic!("no answer: {error}"));
            refused += usize::from(is_refused(&answer));
            assert!(answer.status == 404 || is_refused(&answer), "unknown code {number}: {answer:?}");
        }
    }
}

fn unknown(number: usize) -> Request {
    Request::new("GET", &format!("/scan-{number}"))
}

/// The same few codes again and again: each is read once in the time that its absence is remembered.
fn repeat(stage: &mut Stage<'_>, client: &Client) -> Scrape {
    let (before, began) = (Scrape::of(client), Instant::now());
    let counts = in_threads((0..4).collect(), |_: usize| {
        let (mut wire, mut asked, mut refused) = (client.connect(), 0, 0);
        while began.elapsed() < REPEAT_FOR {
            let number = asked % REPEATED;
            let answer = wire.call(&Request::new("GET", &format!("/again-{number}")));
            let answer = answer.unwrap_or_else(|error| panic!("no answer: {error}"));
            refused += usize::from(is_refused(&answer));
            assert!(answer.status == 404 || is_refused(&answer), "{answer:?}");
            asked += 1;
        }
        (asked, refused)
    });
    let asked = counts.iter().map(|(asked, _)| asked).sum();
    let refused = counts.iter().map(|(_, refused)| refused).sum();
    stage.assert_few_refused("the same unknown codes", refused, asked);
    let (after, took) = (Scrape::of(client), began.elapsed());
    let reads = after.resolves() - before.resolves();
    let missed = (after.found_by_any() - before.found_by_any()) - (after.found("l1") - before.found("l1"));
    stage.report.count("the same unknown codes asked for", asked);
    stage.report.count("store reads for them", usize::try_from(reads - missed.min(reads)).unwrap_or(usize::MAX));
    let lives = (took.as_secs_f64() / NEGATIVE_FOR.as_secs_f64()).ceil() as u64 + 1;
    let most = REPEATED as u64 * lives + missed + UNDER_WAY;
    assert!(reads <= most, "{reads} store reads for {REPEATED} codes in {took:?}, {most} at most");
    after
}
