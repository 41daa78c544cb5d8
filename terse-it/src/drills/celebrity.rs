//! Nine of ten redirects are of one code; the others are of links that memory
//! has no room for, so that Redis is busy and every entry but one comes and
//! goes. The one costs Redis and the store nothing.

use std::time::Duration;

use super::{Stage, ask_until_answered};
use crate::load::{Kind, KnownLink, Load, Plan, seed};
use crate::metrics::Scrape;
use crate::redis::{Monitor, Redis};
use crate::{Request, Server, Setup, Stop, await_true};

/// Of this many redirects one is of another link.
const SHARE: usize = 10;
/// Commands that a refresh of an entry takes: a look-up, and a fill with what its script runs.
const REFRESH_COMMANDS: usize = 4;
/// How long it may take until Redis has all links.
const KEPT_LIMIT: Duration = Duration::from_secs(60);
/// One read of the store per so many redirects of others: in the quick form Redis, stalled like all
/// else on a busy machine, may miss its deadline more often.
const READ_ONE_OF: (usize, usize) = (4, 100);

pub(super) fn celebrity(stage: &mut Stage<'_>) {
    let redis = Redis::start();
    let others = stage.form.pick(300, 3_000);
    let setup = Setup::new().env("TERSE_CACHE", &redis.url());
    let mut server = setup.env("TERSE_CACHE_ENTRIES", &(others / 3).to_string()).start();
    let links = seed(&server.client(), "others", others);
    let celebrity = seed(&server.client(), "celebrity", 1).remove(0);
    // A link that is made goes to memory alone; a killed server has none there.
    server.stop(Stop::AtOnce);
    server.restart();
    // Redis has them all from here on; who is in memory changes all the time.
    fill(&server, &links, &celebrity);
    let load = stage.load(Plan {
        servers: vec![server.address()],
        links: mixed(&celebrity, links),
        redirects: stage.form.pick(500, 4_000),
        creates: 0,
        unknown: 0,
    });
    load.run_for(Duration::from_secs(1));
    measure(stage, &server, &redis, &celebrity, load);
}

/// Asks for all links until a lap costs the store nothing: an entry that is made while Redis is late is not there.
fn fill(server: &Server, links: &[KnownLink], celebrity: &KnownLink) {
    let client = server.client();
    let mut wire = client.connect();
    await_true("all links in redis or memory", KEPT_LIMIT, || {
        let before = Scrape::of(&client).resolves();
        for link in links.iter().chain([celebrity, celebrity]) {
            let answer = ask_until_answered(&mut wire, &Request::new("GET", &format!("/{}", link.code)));
            assert_eq!(answer.header("location"), Some(link.target.as_str()), "{answer:?}");
        }
        Scrape::of(&client).resolves() == before
    });
}

/// The celebrity nine times, then another link, and so on.
fn mixed(celebrity: &KnownLink, others: Vec<KnownLink>) -> Vec<KnownLink> {
    others.into_iter().flat_map(|other| std::iter::repeat_n(celebrity.clone(), SHARE - 1).chain([other])).collect()
}

fn measure(stage: &mut Stage<'_>, server: &Server, redis: &Redis, celebrity: &KnownLink, load: Load) {
    let client = server.client();
    let (before, monitor) = (Scrape::of(&client), Monitor::start(redis, &format!(":link:{}", celebrity.code)));
    let commands_before: u64 = redis.connect().commands().values().sum();
    let fault = stage.timeline.fault("nine of ten ask for one code");
    let window = load.run_for(stage.form.pick(Duration::from_secs(4), Duration::from_secs(30)));
    fault.end();
    let commands: u64 = redis.connect().commands().values().sum::<u64>() - commands_before;
    let (seen, after) = (monitor.end(), Scrape::of(&client));
    let ledger = load.stop();
    let of_one = ledger.window_if(Kind::Redirect, &window, |record| record.code == celebrity.code);
    let of_others = ledger.window_if(Kind::Redirect, &window, |record| record.code != celebrity.code);
    stage.report.window("redirects of the one", &of_one);
    stage.report.window("redirects of others", &of_others);
    stage.report.count("commands to Redis (INFO commandstats)", usize::try_from(commands).unwrap_or(usize::MAX));
    stage.report.count("commands to Redis (MONITOR)", seen.all);
    stage.report.count("commands to Redis for the one", seen.chosen);
    let reads = after.resolves() - before.resolves();
    stage.report.count("store reads", usize::try_from(reads).unwrap_or(usize::MAX));
    for tier in ["l1", "l2", "store"] {
        let found = usize::try_from(after.found(tier) - before.found(tier)).unwrap_or(usize::MAX);
        stage.report.count(&format!("redirects from {tier}"), found);
    }
    ledger.assert_truthful();
    stage.assert_answered(&ledger, Kind::Redirect, &ledger.whole());
    assert!(of_one.requests > 8 * of_others.requests, "the one is not nine of ten: {of_one}, others {of_others}");
    assert!(seen.all > of_others.requests / 4, "Redis was not asked: {seen:?}, others {of_others}");
    // Its entry may grow old once while it is measured, not more: its age limit is half an hour.
    assert!(seen.chosen <= REFRESH_COMMANDS, "{} commands to Redis for the one: {of_one}", seen.chosen);
    let (quick, full) = READ_ONE_OF;
    let most = (of_others.requests / stage.form.pick(quick, full)) as u64 + 1;
    assert!(reads <= most, "{reads} store reads though Redis has all: {of_others}");
}
