//! One guard for all shards beside a guard for each, while one shard is cut off.

use std::sync::Arc;
use std::time::{Duration, Instant};

use terse_core::Clock;
use terse_core::metrics::Metrics;
use terse_core::ports::{Insert, LinkReader, LinkWriter, ShardStore};
use terse_resilience::MonotonicClock;
use terse_store::{CoreClock, CqlStore, GuardSettings, Guarded, ShardMap, Sharded};
use terse_testkit::links::{attempt, code, link};
use terse_testkit::{Mode, Proxy};

use crate::cluster::{Keyspace, Wire, connect, system_clock, unconnected, wire, with_keyspace};

/// Look-ups of each arrangement, calm and with a shard cut off.
const LOOK_UPS: usize = 450;
/// Between two of them: 100 a second.
const EVERY: Duration = Duration::from_millis(10);
/// A code on each shard; eight of nine look-ups go to the one that is cut off,
/// so that enough of them fail in a row to trip a breaker, whatever came before.
const TURNS: [&str; 9] = ["low", "low", "low", "low", "low", "low", "low", "low", "high"];

/// How the look-ups of the healthy shard went.
struct Healthy {
    asked: usize,
    good: usize,
    p99: Duration,
}

/// "high" and "low" begin with letters of different halves of the slots.
fn halves() -> ShardMap {
    let high = code("high").slot().number();
    let low = code("low").slot().number();
    assert!(high < low, "{high} {low}");
    let (first, second) = (format!("0-{}", low - 1), format!("{low}-4095"));
    ShardMap::parse(&[("healthy", first), ("cut", second)]).unwrap()
}

/// A clock that guards understand.
fn guard_clock() -> Arc<dyn MonotonicClock> {
    let clock: Arc<dyn Clock> = Arc::new(system_clock());
    Arc::new(CoreClock(clock))
}

fn guarded<S: ?Sized>(name: &str, store: Arc<S>) -> Guarded<S> {
    let mut settings = GuardSettings::default();
    // Three nodes on two cores, and other tests beside this one: slowness is not what this is about.
    settings.read.timeout_ms = 5_000;
    Guarded::new(name, store, &settings, &guard_clock(), 1, &Metrics::new()).unwrap()
}

fn a_guard_for_each(stores: &[Arc<CqlStore>; 2]) -> Arc<dyn LinkReader> {
    let ports = stores.iter().map(|store| Arc::new(guarded("own", Arc::clone(store))) as Arc<dyn ShardStore>).collect();
    Arc::new(Sharded::new(halves(), ports).unwrap())
}

fn one_guard_for_all(stores: &[Arc<CqlStore>; 2]) -> Arc<dyn LinkReader> {
    let ports = stores.iter().map(|store| Arc::clone(store) as Arc<dyn ShardStore>).collect();
    Arc::new(guarded("all", Arc::new(Sharded::new(halves(), ports).unwrap())))
}

/// Looks links up at a fixed rate, whether answers come or not.
async fn load(ring: &Arc<dyn LinkReader>) -> Healthy {
    let mut tick = tokio::time::interval(EVERY);
    let mut under_way = Vec::new();
    for text in TURNS.iter().cycle().take(LOOK_UPS) {
        tick.tick().await;
        let ring = Arc::clone(ring);
        let look_up = tokio::spawn(async move {
            let began = Instant::now();
            let found = ring.resolve(&code(text)).await;
            (found.is_ok_and(|found| found.link.is_some()), began.elapsed())
        });
        if *text == "high" {
            under_way.push(look_up);
        }
    }
    let mut ended = Vec::new();
    for look_up in under_way {
        ended.push(look_up.await.unwrap());
    }
    ended.sort_by_key(|(_, took)| *took);
    let good = ended.iter().filter(|(good, _)| *good).count();
    Healthy { asked: ended.len(), good, p99: ended[ended.len() * 99 / 100].1 }
}

async fn shard(keyspace: &Keyspace, text: &str) -> (Wire, Arc<CqlStore>) {
    let wire = wire(keyspace.config());
    let (store, _) = unconnected(wire.config.clone());
    connect(&store).await;
    assert_eq!(store.insert_if_absent(&link(text), attempt(1)).await.unwrap(), Insert::Created);
    (wire, store)
}

#[allow(clippy::print_stdout, reason = "the numbers are to be compared")]
fn tell(arrangement: &str, when: &str, seen: &Healthy) {
    let percent = seen.good as f64 * 100.0 / seen.asked as f64;
    println!("{arrangement}, {when}: {percent:.1} % of {} look-ups answered, p99 {:.1?}", seen.asked, seen.p99);
}

/// The driver takes its time to connect again.
async fn await_back(store: &CqlStore) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while store.resolve(&code("low")).await.is_err() {
        assert!(Instant::now() < deadline, "the shard that was cut off is not back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The promise is that of a guard for each shard; the other arrangement is
/// here to be compared. Run it with `--nocapture` for the numbers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_shard_leaves_the_other_alone_only_with_guards_of_its_own() {
    with_keyspace(|healthy| async move {
        with_keyspace(|cut| async move { compare(&healthy, &cut).await }).await;
    })
    .await;
}

async fn compare(healthy: &Keyspace, cut: &Keyspace) {
    let (_wire, first) = shard(healthy, "high").await;
    let (wire, second) = shard(cut, "low").await;
    let stores = [first, second];
    let mut good = Vec::new();
    for (name, ring) in
        [("a guard for each", a_guard_for_each(&stores)), ("one guard for all", one_guard_for_all(&stores))]
    {
        let calm = load(&ring).await;
        wire.proxies.iter().for_each(|proxy| proxy.set(Mode::Cut));
        let alone = load(&ring).await;
        wire.proxies.iter().for_each(Proxy::restore);
        await_back(&stores[1]).await;
        for (when, seen) in [("calm", &calm), ("the other shard cut", &alone)] {
            tell(name, when, seen);
        }
        assert_eq!(calm.good, calm.asked, "{name}: all is well");
        good.push((alone.good, alone.asked));
    }
    assert_eq!(good[0].0, good[0].1, "a guard for each: the healthy shard noticed");
    assert!(good[1].0 * 2 < good[1].1, "one guard for all did no harm: {good:?}");
}
