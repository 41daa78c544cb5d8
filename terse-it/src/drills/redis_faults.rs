//! Redis is killed and stopped under load, and comes back with what it held
//! before: old values of links that were changed meanwhile. Nobody may be
//! refused for it, and nobody may see an old value, also not through a server
//! that starts when the old value is there.
//!
//! What a server drops from Redis when it is back would hide a server that
//! believes Redis, so the drill puts the old values back, again and again.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::rush::in_threads;
use super::watch::{Shown, Subject, Taken, Watch, shown};
use super::{Form, Stage, ask_until_answered};
use crate::load::{Kind, KnownLink, Load, Plan, seed};
use crate::metrics::Scrape;
use crate::redis::{Kept, Redis};
use crate::{Dice, Request, Server, Setup, await_some, joined};

/// What p99 of redirects may be while Redis is away.
const OUTAGE_P99: Duration = Duration::from_millis(50);
/// By when a change shows everywhere, Redis or not.
const SHOWN_WITHIN: Duration = Duration::from_secs(1);
/// How long a link that was asked for may take to be in Redis.
const KEPT_LIMIT: Duration = Duration::from_secs(20);
/// How many links are changed at a time while Redis is away. Each is then asked for without a pause until it shows,
/// which takes the machine from the redirects that are measured.
const WRITERS: usize = 3;
/// Between two rounds of putting old values back.
const LIE_AGAIN: Duration = Duration::from_millis(20);
/// Between two values that Redis forgets by itself.
const FORGET_AGAIN: Duration = Duration::from_millis(100);
/// How long a server that started late is asked for the changed links.
const ASK_LATE: Duration = Duration::from_secs(1);

/// Two servers, their load, and the links that are changed while Redis is away.
///
/// In a failing drill the load ends before the servers do: fields are dropped in this order.
struct Scene {
    watch: Watch,
    load: Load,
    servers: [Server; 2],
    cached: Setup,
    links: Vec<KnownLink>,
}

pub(super) fn redis_faults(stage: &mut Stage<'_>) {
    let keyspace = stage.cluster().keyspace("redis");
    let mut redis = Redis::start_durable();
    let (count, changed) = stage.form.pick((151, 6), (1_001, 30));
    // A third of the links is in memory, most of the others in Redis, some nowhere.
    let cached =
        |setup: Setup| setup.env("TERSE_CACHE", &redis.url()).env("TERSE_CACHE_ENTRIES", &(count / 3).to_string());
    let servers = [cached(Stage::cached(&keyspace)).start(), cached(Stage::cached(&keyspace)).start()];
    let links = seed(&servers[0].client(), "kept", count);
    let subjects = seed(&servers[0].client(), "changing", 2 * changed);
    servers.iter().for_each(|server| visit_all(server, &links));
    let subjects = subjects.into_iter().enumerate().map(|(number, link)| Subject::numbered(number, link)).collect();
    let addresses = [servers[0].address(), servers[1].address()];
    let redirects = stage.form.pick(100, 300);
    let plan = Plan { servers: addresses.to_vec(), links: links.clone(), redirects, creates: 2, unknown: 8 };
    // Rarely enough that other links push them out of memory between two visits.
    let watch =
        Watch::start(addresses, subjects, 1, stage.form.pick(Duration::from_millis(50), Duration::from_millis(10)));
    let scene = Scene { cached: cached(Stage::cached(&keyspace)), servers, load: stage.load(plan), watch, links };

    let from = scene.load.elapsed();
    forget(&redis, &scene.links, stage.form.pick(Duration::from_secs(2), Duration::from_secs(15)));
    let calm = from..scene.load.elapsed();
    let tiers = ["l1", "l2", "store"].map(|tier| (tier, found(&scene.servers, tier)));
    for (tier, count) in tiers {
        stage.report.count(&format!("redirects from {tier} before the faults"), count);
        assert!(count > 0, "no redirect came from {tier}");
    }
    let killed = kill(stage, &scene, &mut redis, 0..changed);
    let paused = pause(stage, &scene, &redis, changed..2 * changed);

    let tally = scene.watch.stop();
    let ledger = scene.load.stop();
    for (name, window) in [("calm", &calm), ("killed", &killed), ("paused", &paused)] {
        super::nodes::tell(stage, &ledger, name, window);
    }
    stage.report.count("visits of changing links that were refused", tally.refused);
    tally.assert_never_back();
    tally.assert_hardly_refused();
    ledger.assert_truthful();
    stage.assert_answered(&ledger, Kind::Redirect, &ledger.whole());
    for (name, window) in [("killed", &killed), ("paused", &paused)] {
        let p99 = ledger.window(Kind::Redirect, window).p99;
        stage.assert_within(&format!("p99 of redirects with Redis {name}"), p99, OUTAGE_P99);
    }
    ledger.assert_nothing_lost(&addresses);
}

/// From here on Redis has all links.
fn visit_all(server: &Server, links: &[KnownLink]) {
    let mut wire = server.client().connect();
    for link in links {
        let answer = ask_until_answered(&mut wire, &Request::new("GET", &format!("/{}", link.code)));
        assert_eq!(answer.header("location"), Some(link.target.as_str()), "{answer:?}");
    }
}

fn found(servers: &[Server; 2], tier: &str) -> usize {
    let found: u64 = servers.iter().map(|server| Scrape::of(&server.client()).found(tier)).sum();
    usize::try_from(found).unwrap_or(usize::MAX)
}

fn outage_of(form: Form) -> Duration {
    form.pick(Duration::from_secs(3), Duration::from_secs(10))
}

/// Kill -9, changes, restart with the old values.
fn kill(stage: &mut Stage<'_>, scene: &Scene, redis: &mut Redis, chosen: Range<usize>) -> Range<Duration> {
    let chosen: Vec<&Subject> = scene.watch.subjects()[chosen].iter().collect();
    let old = old_values(redis, &chosen);
    let from = scene.load.elapsed();
    let fault = stage.timeline.fault("Redis killed");
    redis.kill();
    let taken = scene.watch.change(&chosen, WRITERS);
    rest_of(scene, from + outage_of(stage.form));
    if stage.form == Form::Full {
        // Ready without Redis, and with it when it is back.
        assert_new(&scene.cached.start(), &chosen, Duration::ZERO);
    }
    let window = from..scene.load.elapsed();
    redis.restart();
    fault.end();
    let (mut wire, mut came_back) = (redis.connect(), 0);
    for kept in &old {
        came_back += usize::from(wire.kept(&kept.key).is_some_and(|now| now == *kept));
    }
    tell(stage, "killed", &taken, came_back);
    assert_no_lie_is_believed(stage, scene, redis, &old, &chosen, "killed");
    window
}

/// SIGSTOP, changes, SIGCONT with the old values.
fn pause(stage: &mut Stage<'_>, scene: &Scene, redis: &Redis, chosen: Range<usize>) -> Range<Duration> {
    let chosen: Vec<&Subject> = scene.watch.subjects()[chosen].iter().collect();
    let old = old_values(redis, &chosen);
    let mut wires: Vec<_> = old.iter().map(|_| redis.connect()).collect();
    let from = scene.load.elapsed();
    let fault = stage.timeline.fault("Redis stopped");
    let paused = redis.pause();
    let taken = scene.watch.change(&chosen, WRITERS);
    rest_of(scene, from + outage_of(stage.form));
    // They wait in the stopped Redis, beside what the servers may have sent it.
    for (wire, kept) in wires.iter_mut().zip(&old) {
        wire.send(&["DUMP", &kept.key]).unwrap_or_else(|error| panic!("not sent: {error}"));
    }
    let window = from..scene.load.elapsed();
    paused.resume();
    fault.end();
    let is_old = |(wire, kept): (&mut crate::redis::RedisConnection, &Kept)| {
        wire.receive().is_ok_and(|reply| reply == crate::redis::Reply::Value(Some(kept.value.clone())))
    };
    let came_back = wires.iter_mut().zip(&old).map(is_old).filter(|is_old| *is_old).count();
    tell(stage, "paused", &taken, came_back);
    assert_no_lie_is_believed(stage, scene, redis, &old, &chosen, "paused");
    window
}

fn rest_of(scene: &Scene, until: Duration) {
    std::thread::sleep(until.saturating_sub(scene.load.elapsed()));
}

fn tell(stage: &mut Stage<'_>, how: &str, taken: &[Taken], came_back: usize) {
    let [_, _, max] = shown(taken);
    stage.report.count(&format!("{how}: links changed meanwhile"), taken.len());
    stage.report.time(&format!("{how}: a change shown by the other server, max"), max);
    stage.report.count(&format!("{how}: old values in Redis when it was back"), came_back);
    stage.assert_within("a change during the outage", max, SHOWN_WITHIN);
}

/// What Redis holds of links before they are changed.
fn old_values(redis: &Redis, subjects: &[&Subject]) -> Vec<Kept> {
    let mut wire = redis.connect();
    let value = |subject: &&Subject| {
        let pattern = format!("*:link:{}", subject.link.code);
        let kept = await_some(&format!("{pattern} in redis"), KEPT_LIMIT, || wire.kept(&pattern));
        assert!(kept.holds(&subject.link.target), "{kept:?} is not of {subject:?}");
        kept
    };
    subjects.iter().map(value).collect()
}

/// Servers old and new show nothing old while the old values are put back all the time.
fn assert_no_lie_is_believed(
    stage: &mut Stage<'_>,
    scene: &Scene,
    redis: &Redis,
    old: &[Kept],
    chosen: &[&Subject],
    how: &str,
) {
    let time = stage.form.pick(Duration::from_millis(1_500), Duration::from_secs(10));
    let ended = AtomicBool::new(false);
    let (there, laps) = std::thread::scope(|scope| {
        let liar = scope.spawn(|| lie(redis, old, &ended));
        // Set also when this fails: the liar is joined before the failure is told.
        let end = End(&ended);
        let laps = in_threads(scene.servers.iter().collect(), |server| ask_without_memory(scene, server, chosen, time));
        let late = scene.cached.start();
        assert_new(&late, chosen, ASK_LATE);
        drop(end);
        (joined(liar.join()), laps)
    });
    stage.report.count(&format!("{how}: laps, all of them asked for out of memory"), laps.iter().sum());
    stage.report.count(&format!("{how}: old values put back and found in Redis"), there.iter().sum());
    assert!(there.iter().all(|count| *count > 0), "an old value never was in Redis: {there:?}");
}

/// Pushes the changed links out of memory by asking for all others, then asks for them: returns how often.
fn ask_without_memory(scene: &Scene, server: &Server, chosen: &[&Subject], time: Duration) -> usize {
    let (began, mut laps) = (Instant::now(), 0);
    while laps == 0 || began.elapsed() < time {
        visit_all(server, &scene.links);
        assert_new(server, chosen, Duration::ZERO);
        laps += 1;
    }
    laps
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Puts the old values back until it is ended; returns how often each was found right after.
fn lie(redis: &Redis, old: &[Kept], ended: &AtomicBool) -> Vec<usize> {
    let (mut wire, mut there) = (redis.connect(), vec![0; old.len()]);
    while !ended.load(Ordering::SeqCst) {
        for (kept, count) in old.iter().zip(&mut there) {
            wire.put_back(kept);
            *count += usize::from(wire.kept(&kept.key).is_some_and(|now| now == *kept));
        }
        std::thread::sleep(LIE_AGAIN);
    }
    there
}

/// Asks a server for all of `chosen`, at least once each: every answer is new.
fn assert_new(server: &Server, chosen: &[&Subject], time: Duration) {
    let mut wire = server.client().connect();
    let began = Instant::now();
    loop {
        for subject in chosen {
            let request = Request::new("GET", &format!("/{}", subject.link.code));
            let answer = ask_until_answered(&mut wire, &request);
            assert_eq!(subject.judge(&answer), Shown::New, "{subject:?} through {}", server.address());
        }
        if began.elapsed() >= time {
            return;
        }
        std::thread::sleep(crate::LOOK_AGAIN);
    }
}

/// For so long Redis forgets a link now and then, as it does when it is full.
fn forget(redis: &Redis, links: &[KnownLink], time: Duration) {
    let (mut wire, mut dice, began) = (redis.connect(), Dice::seeded(5), Instant::now());
    while began.elapsed() < time {
        let link = &links[usize::try_from(dice.below(links.len() as u64)).unwrap_or_default()];
        if let Some(kept) = wire.kept(&format!("*:link:{}", link.code)) {
            let forgotten = wire.call(&["UNLINK", &kept.key]);
            assert!(forgotten.is_ok(), "{forgotten:?}");
        }
        std::thread::sleep(FORGET_AGAIN);
    }
}
