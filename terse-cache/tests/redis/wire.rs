//! What the way to Redis can do to a call: cut it, swallow it, delay it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use terse_cache::{RedisConfig, SharedCache};
use terse_resilience::{Forced, State};
use terse_testkit::{Mode, Proxy};

use crate::service::shared;
use crate::setup::{Setup, code, config, eventually, link, patient};

/// What a busy machine may add to a timeout.
const SLACK: Duration = Duration::from_secs(1);

fn proxy() -> Proxy {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    Proxy::start(shared(), any).unwrap()
}

fn holds(chunk: &[u8], word: &[u8]) -> bool {
    chunk.windows(word.len()).any(|window| window == word)
}

#[tokio::test]
async fn without_a_connection_every_call_is_over_at_once() {
    let setup = Setup::cold(config(shared()));
    assert_eq!(setup.cache.connections(), 0);
    let began = Instant::now();
    for _ in 0..1_000 {
        assert_eq!(setup.cache.get(&code("abc")).await, None);
    }
    setup.cache.put(&code("abc"), &link("abc", 1)).await;
    setup.cache.drop_older(&code("abc"), link("abc", 1).version).await;
    assert!(began.elapsed() < SLACK, "{:?}", began.elapsed());
    assert_eq!((setup.count("get", "unconnected"), setup.count("put", "unconnected")), (1_000, 1));
    assert_eq!(setup.count("drop", "unconnected"), 1);
    assert_eq!(setup.breaker.state(), State::Closed, "nothing was asked, so nothing failed");
    assert_eq!(setup.cache.check().await.unwrap_err().to_string(), "not connected");
}

#[tokio::test]
async fn a_connection_that_is_cut_under_a_look_up_is_a_miss_and_is_replaced() {
    let proxy = proxy();
    let setup = Setup::warm(RedisConfig { connections: 1, ..patient(proxy.address()) }).await;
    setup.cache.put(&code("abc"), &link("abc", 1)).await;
    proxy.cut_after(|chunk| holds(chunk, b"GETRANGE"));
    let began = Instant::now();
    assert_eq!(setup.cache.get(&code("abc")).await, None);
    assert!(began.elapsed() < Duration::from_secs(2), "it is noticed, not waited for");
    assert_eq!((proxy.counts().sprung, setup.count("get", "fault")), (1, 1));
    assert_eq!(setup.cache.connections(), 0, "given up at once");
    setup.connect().await;
    assert_eq!(setup.cache.get(&code("abc")).await, Some(link("abc", 1)));
}

#[tokio::test]
async fn a_connection_that_is_cut_under_a_change_leaves_the_change_made_or_not() {
    let proxy = proxy();
    let setup = Setup::warm(RedisConfig { connections: 1, ..patient(proxy.address()) }).await;
    setup.cache.put(&code("abc"), &link("abc", 1)).await;
    proxy.cut_after(|chunk| holds(chunk, b"EVALSHA"));
    setup.cache.put(&code("abc"), &link("abc", 2)).await;
    assert_eq!((proxy.counts().sprung, setup.count("put", "fault")), (1, 1));
    setup.connect().await;
    let held = setup.cache.get(&code("abc")).await.unwrap();
    assert!(held == link("abc", 1) || held == link("abc", 2), "{held:?}");
}

#[tokio::test]
async fn one_connection_that_is_cut_does_not_take_the_other_with_it() {
    let proxy = proxy();
    let setup = Setup::warm(patient(proxy.address())).await;
    setup.cache.put(&code("abc"), &link("abc", 1)).await;
    proxy.cut_after(|chunk| holds(chunk, b"GETRANGE"));
    assert_eq!(setup.cache.get(&code("abc")).await, None);
    assert_eq!(setup.cache.connections(), 1);
    for _ in 0..10 {
        assert_eq!(setup.cache.get(&code("abc")).await, Some(link("abc", 1)));
    }
}

#[tokio::test]
async fn ten_thousand_look_ups_of_a_hung_redis_are_a_few_that_wait_and_all_end_in_time() {
    const CALLS: u64 = 10_000;
    let proxy = proxy();
    let setup = Setup::warm(RedisConfig { get_timeout: Duration::from_millis(50), ..config(proxy.address()) }).await;
    proxy.set(Mode::Pause);
    let abc = code("abc");
    let began = Instant::now();
    let longest = join_all((0..CALLS).map(|_| async {
        assert_eq!(setup.cache.get(&abc).await, None);
        began.elapsed()
    }));
    let longest = longest.await.into_iter().max().unwrap();
    assert!(longest < setup.config.get_timeout + SLACK, "{longest:?}");
    let [waited, full, open] = ["timeout", "full", "open"].map(|result| setup.count("get", result));
    let most = u64::from(setup.config.gets);
    // Places become free with the first timeouts, and the fifth opens the breaker.
    assert!((most..most + 5).contains(&waited), "{waited} have waited");
    assert!(full > 0 && waited + full + open == CALLS, "{full} found it full, {open} open");
    assert_eq!(setup.breaker.state(), State::Open);
}

#[tokio::test]
async fn an_open_breaker_makes_a_miss_within_microseconds() {
    let proxy = proxy();
    let setup = Setup::warm(config(proxy.address())).await;
    proxy.set(Mode::Pause);
    let began = Instant::now();
    let mut asked = 0_u32;
    while setup.breaker.state() == State::Closed {
        assert_eq!(setup.cache.get(&code("abc")).await, None);
        asked += 1;
    }
    assert_eq!(asked, 5);
    assert!(began.elapsed() < asked * setup.config.get_timeout + SLACK, "{:?}", began.elapsed());
    let began = Instant::now();
    for _ in 0..1_000 {
        assert_eq!(setup.cache.get(&code("abc")).await, None);
    }
    // A thousand timeouts would be many times this.
    assert!(began.elapsed() < SLACK, "{:?} for 1,000", began.elapsed());
    assert!(setup.count("get", "open") > 900);
}

/// With the breaker held closed, so that nothing but this rule protects Redis.
#[tokio::test]
async fn a_mute_connection_is_given_up_and_no_mute_one_takes_its_place() {
    let proxy = proxy();
    let brief = Duration::from_millis(200);
    let quick =
        RedisConfig { connect_timeout: brief, write_timeout: Duration::from_secs(5), ..config(proxy.address()) };
    let setup = Setup::warm(RedisConfig { connections: 1, ..quick }).await;
    setup.cache.put(&code("abc"), &link("abc", 1)).await;
    setup.breaker.force(Some(Forced::Closed));
    proxy.set(Mode::Pause);
    let lost = eventually(Duration::from_secs(60), || async {
        assert_eq!(setup.cache.get(&code("abc")).await, None);
        setup.cache.connections() == 0
    });
    assert!(lost.await >= Duration::from_millis(300), "a short pause is no reason");
    let before = proxy.counts().connections;
    let began = Instant::now();
    setup.cache.upkeep_once().await;
    assert!(began.elapsed() < 2 * brief + SLACK, "{:?}", began.elapsed());
    assert_eq!(proxy.counts().connections, before + 1, "it was tried");
    assert_eq!(setup.cache.connections(), 0, "accepted, but it doesn't answer");
    assert_eq!(setup.cache.check().await.unwrap_err().to_string(), "no answer within 200 ms");
    proxy.restore();
    setup.connect().await;
    eventually(Duration::from_secs(60), || async { setup.cache.get(&code("abc")).await == Some(link("abc", 1)) }).await;
}

#[tokio::test]
async fn upkeep_finds_a_connection_that_died_while_nobody_used_it() {
    let proxy = proxy();
    let brief = Duration::from_millis(200);
    let setup = Setup::warm(RedisConfig { connect_timeout: brief, ..config(proxy.address()) }).await;
    proxy.set(Mode::Pause);
    let began = Instant::now();
    setup.cache.upkeep_once().await;
    assert!(began.elapsed() < 2 * brief + SLACK, "all side by side: {:?}", began.elapsed());
    assert_eq!(setup.cache.connections(), 0);
    proxy.restore();
    proxy.sever();
    setup.connect().await;
    proxy.sever();
    setup.connect().await;
    setup.cache.check().await.unwrap();
}

#[tokio::test]
async fn answers_that_come_late_belong_to_nobody_else() {
    const LATE: usize = 4;
    let proxy = proxy();
    let get_timeout = Duration::from_millis(150);
    let (connections, write_timeout) = (1, Duration::from_secs(5));
    let setup = Setup::warm(RedisConfig { connections, get_timeout, write_timeout, ..config(proxy.address()) }).await;
    let names: Vec<String> = (0..40).map(|n| format!("code{n}")).collect();
    for name in &names {
        setup.cache.put(&code(name), &link(name, 7)).await;
    }
    setup.breaker.force(Some(Forced::Closed));
    let connections = proxy.counts().connections;
    for _ in 0..3 {
        proxy.set(Mode::Delay(get_timeout * 2));
        let late = names[..LATE].iter().map(|name| async { setup.cache.get(&code(name)).await });
        assert!(join_all(late).await.iter().all(Option::is_none));
        proxy.set(Mode::Pass);
        let mut hits = 0;
        while hits < 100 {
            for name in &names[LATE..] {
                let read = setup.cache.get(&code(name)).await;
                assert!(read.is_none() || read == Some(link(name, 7)), "{name}: {read:?}");
                hits += u32::from(read.is_some());
            }
        }
    }
    assert!(setup.count("get", "timeout") >= 3 * LATE as u64);
    assert_eq!(proxy.counts().connections, connections, "all of it on one connection");
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_its_place_and_the_connection_in_order() {
    let proxy = proxy();
    let setup = Setup::warm(RedisConfig { connections: 1, gets: 1, ..patient(proxy.address()) }).await;
    setup.cache.put(&code("abc"), &link("abc", 1)).await;
    proxy.set(Mode::Pause);
    let gone = tokio::time::timeout(Duration::from_millis(50), setup.cache.get(&code("xyz"))).await;
    assert!(gone.is_err());
    proxy.restore();
    assert_eq!(setup.cache.get(&code("abc")).await, Some(link("abc", 1)), "its place is free, its answer not ours");
    assert_eq!(setup.count("get", "full"), 0);
}
