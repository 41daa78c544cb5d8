//! One limit that two servers share through Redis, and clients of one key that want far more; Redis is killed
//! meanwhile.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{End, call, from_address, is_limited, joined, limited, told};
use crate::drills::{Form, Stage, is_refused};
use crate::load::{REFUSED_ONE_OF, Timeline};
use crate::metrics::Scrape;
use crate::redis::Redis;
use crate::{API_LINKS, Client, Request, Server, await_true};

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

/// Decisions about a shared limit that a server made alone.
const ALONE: &str = "terse_limits_alone_total";

fn percent(part: f64, whole: f64) -> usize {
    (100.0 * part / whole).round() as usize
}

/// What one client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// Admitted: a link would have been made if it led anywhere.
    Admitted,
    Limited,
    /// Admitted by the limit, then refused by the store.
    Refused,
}

/// What is answered where the limit admits. Sixty-four callers who each wait for a cluster on the same two cores want
/// less than the limit allows; what leads nowhere draws from it all the same, and asks no store.
const ADMITTED: u16 = 422;

fn create(url: &str, address: &str) -> Request {
    from_address(Request::new("POST", API_LINKS).json(&json!({ "url": url })), address)
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

pub(in crate::drills) fn shared(stage: &mut Stage<'_>) {
    let keyspace = stage.cluster().keyspace("limits");
    // What the limit needs is Redis and the servers. The nodes are elsewhere, as they are where it matters.
    let _apart = (stage.form == Form::Full).then(|| stage.cluster().apart(&[]));
    let mut redis = Redis::start();
    let file = "[limits]\napi = 'off'\n[limits.create]\nby = 'address'\nalgorithm = 'token-bucket'\n\
                burst = 200\nrefill = 100\nper = '1s'\n";
    let setup = || limited(Stage::cached(&keyspace), file).env("TERSE_CACHE", &redis.url());
    let servers = [setup().start(), setup().start()];
    let addresses = [servers[0].address(), servers[1].address()];
    addresses.iter().for_each(|address| warm(*address));
    let before = alone(&servers);
    let (began, ended, timeline) = (Instant::now(), AtomicBool::new(false), stage.timeline.clone());
    let _load = timeline.load();
    let (outage, answers) = std::thread::scope(|scope| {
        let end = End(&ended);
        let press = |n: usize| {
            let (address, ended, timeline) = (addresses[n % 2], &ended, &timeline);
            scope.spawn(move || press(timeline, address, began, ended))
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

/// One of the clients of the one key.
fn press(timeline: &Timeline, address: SocketAddr, began: Instant, ended: &AtomicBool) -> Vec<(Duration, Told)> {
    let client = Client::new(address);
    let (mut wire, mut answers) = (client.connect(), Vec::new());
    while !ended.load(Ordering::SeqCst) {
        let asked = Instant::now();
        let answer = call(&mut wire, &create("", "203.0.113.7"));
        timeline.note("create", asked, asked.elapsed(), told(answer.status == ADMITTED, &answer));
        // Who is refused before the body is read gets no further request in on this connection.
        if answer.status == 429 {
            wire = client.connect();
        }
        let told = match answer.status {
            ADMITTED => Told::Admitted,
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
        let fault = stage.timeline.fault("Redis killed");
        redis.kill();
        std::thread::sleep(stage.form.pick(Duration::from_secs(2), Duration::from_secs(20)));
        let restarted = began.elapsed();
        redis.restart();
        fault.end();
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

/// Creates of somebody else, so that the first ones that count are none that prepare anything.
fn warm(address: SocketAddr) {
    let mut wire = Client::new(address).connect();
    for number in 0..40 {
        let answer = call(&mut wire, &create("https://example.com/warm", &format!("192.0.2.{}", number % 4)));
        assert!(answer.status == 201 || is_refused(&answer), "{answer:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn shares_are_rounded() {
        assert_eq!((percent(1.0, 3.0), percent(2.0, 3.0), percent(2.0, 1.0)), (33, 67, 200));
    }
}
