//! A link that expires at an instant: 302 before it, 410 from it on, by the
//! clock of the machine, which drill and servers share. One server has the
//! links in memory; the other one keeps a single entry, and is asked for two
//! links by turns, so that it asks Redis and the store.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::rush::in_threads;
use super::{Stage, is_refused};
use crate::metrics::Scrape;
use crate::redis::Redis;
use crate::{API_LINKS, Client, Request, code_of, now_ms, rfc3339};

/// How far ahead a link's end is set: time to make it and to ask for it.
const AHEAD_MS: i64 = 5_000;
/// When making the links took longer, the round begins anew: too little is left to ask before the end.
const SET_UP_MS: i64 = AHEAD_MS / 2;
/// How often a round begins at most.
const ROUND_TRIES: usize = 8;
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
    /// Refused with `Retry-After`.
    refused: usize,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.before += other.before;
        self.after += other.after;
        self.between += other.between;
        self.refused += other.refused;
        self.first_after = self.first_after.max(other.first_after);
    }

    fn asked(&self) -> usize {
        self.before + self.after + self.between + self.refused
    }
}

pub(super) fn expiry(stage: &mut Stage<'_>) {
    let (keyspace, redis) = (stage.cluster().keyspace("expiry"), Redis::start());
    let cached = Stage::cached(&keyspace).env("TERSE_CACHE", &redis.url()).start();
    let uncached = Stage::uncached(&keyspace).env("TERSE_CACHE", &redis.url()).start();
    let clients = [("in memory", cached.client()), ("not in memory", uncached.client())];
    let rounds = stage.form.pick(2, 20);
    let mut tallies = [Tally::default(), Tally::default()];
    for round in 0..rounds {
        let (codes, end_ms) = set_up(&clients[0].1, round);
        let end = UNIX_EPOCH + Duration::from_millis(u64::try_from(end_ms).unwrap_or_default());
        let askers: Vec<usize> = (0..2 * ASKERS).collect();
        let seen = in_threads(askers, |asker| (asker % 2, ask(&clients[asker % 2].1, &codes, end)));
        for (server, tally) in seen {
            tallies[server].add(tally);
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
        stage.report.count(&format!("{name}: refused"), tally.refused);
        stage.assert_few_refused(name, tally.refused, tally.asked());
        assert!(tally.before > 0 && tally.after > 0, "{name}: {tally:?}");
    }
}

fn target(round: usize, link: usize) -> String {
    format!("https://example.com/expiry/{round}/{link}")
}

/// Makes the links of a round; returns their codes and their end, most of the time to which is left.
fn set_up(client: &Client, round: usize) -> (Vec<String>, i64) {
    for _ in 0..ROUND_TRIES {
        let end_ms = now_ms() + AHEAD_MS;
        let codes: Option<Vec<String>> = (0..2).map(|link| make(client, round, link, end_ms)).collect();
        match codes {
            Some(codes) if end_ms - now_ms() >= AHEAD_MS - SET_UP_MS => return (codes, end_ms),
            _ => {}
        }
    }
    panic!("round {round}: {ROUND_TRIES} times it took longer than {SET_UP_MS} ms to make two links, or was refused")
}

/// A link's code; `None` when it was refused, or its end was past before it was made.
fn make(client: &Client, round: usize, link: usize, end_ms: i64) -> Option<String> {
    let answer = client.post(API_LINKS, &json!({ "url": target(round, link), "expires_at": rfc3339(end_ms) }));
    let too_late = answer.status == 422 && now_ms() >= end_ms - SET_UP_MS;
    (!too_late && !is_refused(&answer)).then(|| code_of(&answer.expect(201).json()))
}

/// Asks for the links by turns from before the end until after it; fails at the first answer that is not true.
fn ask(client: &Client, codes: &[String], end: SystemTime) -> Tally {
    let mut tally = Tally::default();
    let mut wire = client.connect();
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
            _ if is_refused(&answer) => tally.refused += 1,
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
        if number + 1 == codes.len() {
            std::thread::sleep((end - AROUND).duration_since(SystemTime::now()).unwrap_or_default());
            // A new one: the server closes a connection that says nothing for so long.
            wire = client.connect();
        } else {
            std::thread::sleep(ASK_AGAIN);
        }
    }
    tally
}
