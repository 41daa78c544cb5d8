//! A link that expires at an instant: 302 before it, 410 from it on, by the
//! clock of the machine, which drill and servers share. One server has the
//! links in memory; the other one keeps a single entry, and is asked for two
//! links by turns, so that it asks Redis and the store.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::Stage;
use super::rush::in_threads;
use crate::metrics::Scrape;
use crate::redis::Redis;
use crate::{Client, Request, code_of, now_ms, rfc3339};

/// How far ahead a link's end is set: time to make it and to ask for it.
const AHEAD_MS: i64 = 1_500;
/// From how long before the end until how long after it servers are asked all the time.
const AROUND: Duration = Duration::from_millis(400);
/// Between two requests of one asker.
const ASK_AGAIN: Duration = Duration::from_millis(2);
/// Askers for each server, on a connection each.
const ASKERS: usize = 2;

/// How often each answer was given, in a time before the end and after it.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    before: usize,
    after: usize,
    /// Sent before the end and answered after it: both answers are true.
    between: usize,
    /// From the end to the sending of the first request after it.
    first_after: Duration,
}

pub(super) fn expiry(stage: &mut Stage<'_>) {
    let (keyspace, redis) = (stage.cluster().keyspace("expiry"), Redis::start());
    let cached = Stage::cached(&keyspace).env("TERSE_CACHE", &redis.url()).start();
    let uncached = Stage::uncached(&keyspace).env("TERSE_CACHE", &redis.url()).start();
    let clients = [("in memory", cached.client()), ("not in memory", uncached.client())];
    let rounds = stage.form.pick(3, 20);
    let mut tallies = [Tally::default(), Tally::default()];
    for round in 0..rounds {
        let end_ms = now_ms() + AHEAD_MS;
        let codes: Vec<String> = (0..2).map(|link| make(&clients[0].1, round, link, end_ms)).collect();
        let end = UNIX_EPOCH + Duration::from_millis(u64::try_from(end_ms).unwrap_or_default());
        let askers: Vec<usize> = (0..2 * ASKERS).collect();
        let seen = in_threads(askers, |asker| (asker % 2, ask(&clients[asker % 2].1, &codes, end)));
        for (server, tally) in seen {
            tallies[server].before += tally.before;
            tallies[server].after += tally.after;
            tallies[server].between += tally.between;
            tallies[server].first_after = tallies[server].first_after.max(tally.first_after);
        }
    }
    for ((name, client), tally) in clients.iter().zip(tallies) {
        stage.report.count(&format!("{name}: 302 before the end"), tally.before);
        stage.report.count(&format!("{name}: answers under way at the end"), tally.between);
        stage.report.count(&format!("{name}: 410 from the end on"), tally.after);
        stage.report.time(&format!("{name}: the end to the first 410 asked for, at most"), tally.first_after);
        let scrape = Scrape::of(client);
        for tier in ["l1", "l2", "store"] {
            let answered = scrape.sum(crate::metrics::REDIRECTS, &[("tier", tier)]);
            stage
                .report
                .count(&format!("{name}: answered from {tier}"), usize::try_from(answered).unwrap_or(usize::MAX));
        }
        assert!(tally.before > 0 && tally.after > 0, "{name}: {tally:?}");
    }
}

fn target(round: usize, link: usize) -> String {
    format!("https://example.com/expiry/{round}/{link}")
}

fn make(client: &Client, round: usize, link: usize, end_ms: i64) -> String {
    code_of(&client.create(&json!({ "url": target(round, link), "expires_at": rfc3339(end_ms) })))
}

/// Asks for the links by turns from before the end until after it; fails at the first answer that is not true.
fn ask(client: &Client, codes: &[String], end: SystemTime) -> Tally {
    let mut tally = Tally::default();
    let mut wire = client.connect();
    let early = (end - AROUND).duration_since(SystemTime::now()).unwrap_or_default();
    // Before that each link is asked for once, so that memory has it.
    for number in 0_usize.. {
        let code = &codes[number % codes.len()];
        let sent = SystemTime::now();
        let answer = wire.call(&Request::new("GET", &format!("/{code}")));
        let received = SystemTime::now();
        let answer = answer.unwrap_or_else(|error| panic!("no answer: {error}"));
        match answer.status {
            302 if sent < end && received < end => tally.before += 1,
            302 | 410 if sent < end && received >= end => tally.between += 1,
            410 if sent >= end => {
                let late = sent.duration_since(end).unwrap_or_default();
                tally.first_after = if tally.after == 0 { late } else { tally.first_after };
                tally.after += 1;
            }
            status => {
                panic!("{status} for {code}, sent {sent:?}, received {received:?}, its end is {end:?}: {answer:?}")
            }
        }
        if sent >= end + AROUND {
            return tally;
        }
        std::thread::sleep(if number + 1 == codes.len() { early } else { ASK_AGAIN });
    }
    tally
}
