//! Edits, disables and deletes through one server, and when another one shows
//! them: with Redis between, without it, and with Redis stopped meanwhile.
//!
//! The second server keeps half of the links in memory, so that what it shows
//! comes from memory, from Redis and from the store by turns.

use std::time::{Duration, Instant};

use super::Stage;
use super::watch::{Change, Subject, Taken, Watch, shown};
use crate::load::{Kind, Plan, seed};
use crate::metrics::Scrape;
use crate::redis::Redis;
use crate::{Server, Setup};

/// By when a change has to show on the other server.
const SHOWN_P99: Duration = Duration::from_secs(1);
/// Changes at once.
const WRITERS: usize = 4;
/// How long Redis goes on before it is stopped again.
const BETWEEN_PAUSES: Duration = Duration::from_millis(500);

/// What Redis does during the changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Between {
    Running,
    Absent,
    Paused,
}

pub(super) fn with_redis(stage: &mut Stage<'_>) {
    visible(stage, Between::Running);
}

pub(super) fn without_redis(stage: &mut Stage<'_>) {
    visible(stage, Between::Absent);
}

pub(super) fn with_paused_redis(stage: &mut Stage<'_>) {
    visible(stage, Between::Paused);
}

fn visible(stage: &mut Stage<'_>, between: Between) {
    let began = Instant::now();
    let keyspace = stage.cluster().keyspace("seen");
    let redis = (between != Between::Absent).then(Redis::start);
    let cache = redis.as_ref().map_or_else(|| "none".to_owned(), Redis::url);
    let changes = stage.form.pick(60, 1_000);
    let cached = |setup: Setup| setup.env("TERSE_CACHE", &cache);
    let first = cached(Stage::cached(&keyspace)).start();
    let half = (changes / 2).to_string();
    let second = cached(Stage::cached(&keyspace)).env("TERSE_CACHE_ENTRIES", &half).start();
    stage.report.time("until both servers were ready", began.elapsed());
    let links = seed(&first.client(), "changing", changes);
    // An odd number, so that each server is asked for every link.
    let kept = seed(&first.client(), "kept", stage.form.pick(61, 501));
    let servers = [first.address(), second.address()];
    let subjects = links.into_iter().enumerate().map(|(number, link)| Subject::numbered(number, link)).collect();
    let redirects = stage.form.pick(80, 300);
    let load = stage.load(Plan { servers: servers.to_vec(), links: kept, redirects, creates: 0, unknown: 8 });
    let (threads, rest) = stage.form.pick((2, Duration::from_millis(10)), (3, Duration::from_millis(6)));
    let watch = Watch::start(servers, subjects, threads, rest);
    warm(&watch, [&first, &second]);

    stage.report.time("until all links were made and asked for", began.elapsed());
    let taken = change(stage, &watch, redis.as_ref().filter(|_| between == Between::Paused));
    stage.report.time("until all links were changed", began.elapsed());
    // The second drop of a changed code comes five seconds after it was seen.
    load.run_for(stage.form.pick(Duration::from_millis(6_500), Duration::from_secs(60)));
    let tally = watch.stop();
    let ledger = load.stop();

    report(stage, &taken, [&first, &second]);
    stage.report.count("visits of changing links", tally.visits);
    stage.report.window("other redirects", &ledger.window(Kind::Redirect, &ledger.whole()));
    stage.report.count("visits of changing links that were refused", tally.refused);
    tally.assert_never_back();
    tally.assert_hardly_refused();
    ledger.assert_truthful();
    stage.assert_answered(&ledger, Kind::Redirect, &ledger.whole());
    assert_eq!(taken.len(), changes);
    let [_, p99, _] = shown(&taken);
    stage.assert_within("p99 of a change on the other server", p99, SHOWN_P99);
}

/// Both servers have been asked for every link before the first one is changed.
fn warm(watch: &Watch, servers: [&Server; 2]) {
    for server in servers {
        let client = server.client();
        let mut wire = client.connect();
        for subject in watch.subjects() {
            let request = crate::Request::new("GET", &format!("/{}", subject.link.code));
            let answer = super::ask_until_answered(&mut wire, &request);
            assert_eq!(subject.judge(&answer), super::watch::Shown::Old);
        }
    }
}

fn change(stage: &Stage<'_>, watch: &Watch, paused: Option<&Redis>) -> Vec<Taken> {
    let all: Vec<&Subject> = watch.subjects().iter().collect();
    let Some(redis) = paused else {
        let _changes = stage.timeline.fault("links change");
        return watch.change(&all, WRITERS);
    };
    let batches = stage.form.pick(3, 20);
    let mut taken = Vec::with_capacity(all.len());
    for batch in all.chunks(all.len().div_ceil(batches)) {
        let fault = stage.timeline.fault("Redis stopped, links change");
        let paused = redis.pause();
        taken.extend(watch.change(batch, WRITERS));
        paused.resume();
        fault.end();
        std::thread::sleep(BETWEEN_PAUSES);
    }
    taken
}

fn report(stage: &mut Stage<'_>, taken: &[Taken], servers: [&Server; 2]) {
    for change in [Change::Edit, Change::Disable, Change::Delete] {
        let of_kind: Vec<Taken> = taken.iter().filter(|taken| taken.change == change).copied().collect();
        for (name, time) in ["p50", "p99", "max"].iter().zip(shown(&of_kind)) {
            stage.report.time(&format!("{change:?}: shown by the other server, {name}"), time);
        }
    }
    stage.report.count("changes", taken.len());
    stage.report.count("changes that had to be tried again", taken.iter().filter(|taken| taken.tries > 1).count());
    for (name, server) in ["first", "second"].iter().zip(servers) {
        let scrape = Scrape::of(&server.client());
        for tier in ["l1", "l2", "store", "stale"] {
            let found = usize::try_from(scrape.found(tier)).unwrap_or(usize::MAX);
            stage.report.count(&format!("{name} server: redirects from {tier}"), found);
        }
    }
}
