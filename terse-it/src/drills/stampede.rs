//! Ten thousand callers want one code that no memory has, all at once; and a
//! hot entry reaches its age limit under load.
//!
//! All connections are open beforehand, one for each request, since requests
//! on one connection are answered one after another. The server is stopped
//! while they are written, so that it finds all of them waiting. Behind a SQLite
//! file that is the whole of it. Behind the cluster the wires delay the one
//! read as well, so that the others have to wait for it and not just find its answer.

use std::time::{Duration, Instant};

use serde_json::json;
use terse_testkit::Mode;

use super::rush::Rush;
use super::{FIRST_START_LIMIT, Stage, Wires, shards_file};
use crate::load::{Kind, KnownLink, Plan};
use crate::metrics::Scrape;
use crate::redis::{Monitor, Redis};
use crate::{Request, Response, Server, Setup, Stop, await_true, code_of};

/// Requests at once, as the promise says; the quick form asks fewer.
const CALLERS: usize = 10_000;
/// The delay of every message of the store: a tenth of a second for a read, below every timeout of the server.
const DELAY: Duration = Duration::from_millis(50);
/// The age limit of the hot entry.
const MAX_AGE: Duration = Duration::from_secs(1);
/// How long a started server may take to know what was changed before.
const TRUST_LIMIT: Duration = Duration::from_secs(20);
/// A code's own age limit is up to a tenth shorter.
const SHORTEST_AGE: f64 = 0.9;

/// Behind a SQLite file, in a process of one tier.
pub(super) fn stampede(stage: &mut Stage<'_>) {
    let setup = Setup::new().env("TERSE_HEAD_TIMEOUT", "60s").env("TERSE_CONNECTIONS_PER_ADDRESS", "10000");
    let mut server = setup.start();
    let links = make(&server, stage.form.pick(2, 5));
    forget_all(&mut server);
    for (round, link) in links.iter().enumerate() {
        let reads = rush(stage, &server, link, round);
        assert_eq!(reads, 1, "{link:?} was read {reads} times");
    }
    expiry_under_load(stage);
}

/// Behind the cluster with slow wires and Redis between.
pub(super) fn stampede_slow(stage: &mut Stage<'_>) {
    let (wires, keyspace) = (Wires::to(stage.cluster()), stage.cluster().keyspace("rush"));
    let redis = Redis::start();
    let file = shards_file(&[wires.shard("main", "0-4095", &keyspace)]);
    let setup = Setup::new()
        .ready_within(FIRST_START_LIMIT)
        .file(&file)
        .env("TERSE_HEAD_TIMEOUT", "60s")
        .env("TERSE_CONNECTIONS_PER_ADDRESS", "10000");
    let mut server = setup.env("TERSE_CACHE", &redis.url()).start();
    let links = make(&server, stage.form.pick(1, 5));
    let known = make(&server, 1);
    forget_all(&mut server);
    await_trust(&server, &known[0]);
    let mut wire = redis.connect();
    for (round, link) in links.iter().enumerate() {
        let flushed = wire.call(&["FLUSHALL"]);
        assert!(flushed.is_ok(), "{flushed:?}");
        let monitor = Monitor::start(&redis, &format!(":link:{}", link.code));
        wires.set(Mode::Delay(DELAY));
        let reads = rush(stage, &server, link, round);
        wires.restore();
        let commands = monitor.end().chosen;
        stage.report.count(&format!("round {round}: commands to Redis for the code"), commands);
        assert_eq!(reads, 1, "{link:?} was read {reads} times");
        // One look-up, one fill: the fill's script shows with the commands that it runs.
        assert!(commands <= 6, "{commands} commands to Redis for {link:?}");
    }
}

fn make(server: &Server, count: usize) -> Vec<KnownLink> {
    let link = |number: usize| {
        let target = format!("https://example.com/rush/{number}");
        let code = code_of(&server.client().create(&json!({ "url": target })));
        KnownLink { code, target }
    };
    (0..count).map(link).collect()
}

/// A killed server saves nothing that it could start warm with.
fn forget_all(server: &mut Server) {
    server.stop(Stop::AtOnce);
    server.restart();
}

/// Until the server has read the marks of changes it keeps nothing, and asks Redis for nothing.
fn await_trust(server: &Server, link: &KnownLink) {
    let client = server.client();
    await_true("answers from memory", TRUST_LIMIT, || {
        assert_eq!(client.target(&link.code), link.target);
        Scrape::of(&client).found("l1") > 0
    });
}

/// All want one code at once; returns how many store reads that took.
fn rush(stage: &mut Stage<'_>, server: &Server, link: &KnownLink, round: usize) -> u64 {
    let (client, callers) = (server.client(), stage.form.pick(CALLERS / 5, CALLERS));
    let mut rush = Rush::open(&client, callers);
    let before = Scrape::of(&client);
    let began = Instant::now();
    let answers = rush.at_once(server, &Request::new("GET", &format!("/{}", link.code)));
    let took = began.elapsed();
    let after = Scrape::of(&client);
    let is_good = |answer: &&Response| answer.status == 302 && answer.header("location") == Some(&link.target);
    let bad: Vec<&Response> = answers.iter().filter(|answer| !is_good(answer)).take(3).collect();
    assert!(bad.is_empty() && answers.len() == callers, "of {} answers some are wrong: {bad:?}", answers.len());
    stage.report.count(&format!("round {round}: requests at once"), callers);
    stage.report.time(&format!("round {round}: from the first sent to the last answered"), took);
    for tier in ["l1", "l2", "store", "stale"] {
        let found = usize::try_from(after.found(tier) - before.found(tier)).unwrap_or(usize::MAX);
        stage.report.count(&format!("round {round}: answered from {tier}"), found);
    }
    after.resolves() - before.resolves()
}

/// One store read for each time that the hot entry grows old, whatever the load.
fn expiry_under_load(stage: &mut Stage<'_>) {
    let server = Setup::new().env("TERSE_CACHE_MAX_AGE", "1s").start();
    let (client, links) = (server.client(), make(&server, 1));
    assert_eq!(client.target(&links[0].code), links[0].target);
    let redirects = stage.form.pick(400, 3_000);
    let load = stage.load(Plan { servers: vec![client.address()], links, redirects, creates: 0, unknown: 0 });
    let (before, began) = (Scrape::of(&client), Instant::now());
    let fault = stage.timeline.fault("the entry grows old each second");
    let window = load.run_for(stage.form.pick(Duration::from_secs(5), Duration::from_secs(30)));
    fault.end();
    let (after, took) = (Scrape::of(&client), began.elapsed());
    let ledger = load.stop();
    let reads = after.resolves() - before.resolves();
    let lives = took.as_secs_f64() / MAX_AGE.as_secs_f64();
    stage.report.window("a hot entry that grows old each second", &ledger.window(Kind::Redirect, &window));
    stage.report.count("store reads for it", usize::try_from(reads).unwrap_or(usize::MAX));
    ledger.assert_truthful();
    stage.assert_answered(&ledger, Kind::Redirect, &ledger.whole());
    let most = (lives / SHORTEST_AGE).ceil() + 1.0;
    assert!((reads as f64) <= most, "{reads} store reads in {took:?}, at most {most} lives of an entry");
    assert!(reads as f64 >= lives / 2.0, "{reads} store reads in {took:?}: the age limit is not kept");
}
