//! A Redis that is absent, killed, stopped, or comes back with old data.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use terse_cache::{RedisConfig, SharedCache};
use terse_core::Version;
use terse_resilience::State;

use crate::service::Server;
use crate::setup::{Setup, code, config, eventually, link, raw};

/// What a busy machine may add to a timeout.
const SLACK: Duration = Duration::from_secs(1);
/// Upkeep runs each 200 ms here, the breaker stays open for 4 s at most; the rest is for a busy machine.
const HEALED: Duration = Duration::from_secs(60);

/// A cache whose changes have time, for they are how a test prepares itself.
fn quick(server: &Server) -> RedisConfig {
    RedisConfig { write_timeout: Duration::from_secs(2), ..config(server.address) }
}

/// How long look-ups took until this was ended, without one that failed otherwise than by a miss.
struct Load {
    over: Arc<AtomicBool>,
    callers: Vec<tokio::task::JoinHandle<Duration>>,
}

impl Load {
    fn on(setup: &Setup) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let callers = (0..8).map(|_| {
            let (cache, over) = (Arc::clone(&setup.cache), Arc::clone(&over));
            tokio::spawn(async move {
                let mut longest = Duration::ZERO;
                while !over.load(Ordering::SeqCst) {
                    let began = Instant::now();
                    let read = cache.get(&code("abc")).await;
                    assert!(read.is_none() || read == Some(link("abc", 1)));
                    longest = longest.max(began.elapsed());
                    // An open breaker answers at once, and the others want the processor too.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                longest
            })
        });
        let callers = callers.collect();
        Self { over, callers }
    }

    async fn longest(self) -> Duration {
        self.over.store(true, Ordering::SeqCst);
        let mut longest = Duration::ZERO;
        for caller in self.callers {
            longest = longest.max(caller.await.unwrap());
        }
        longest
    }
}

async fn hits(setup: &Setup) -> bool {
    setup.cache.get(&code("abc")).await.is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_absent_at_start_is_found_when_it_comes() {
    let mut server = Server::start(&[]);
    server.kill();
    let setup = Setup::cold(quick(&server));
    setup.cache.upkeep_once().await;
    assert_eq!(setup.cache.get(&code("abc")).await, None);
    let why = setup.cache.check().await.unwrap_err().to_string();
    assert!(why.to_lowercase().contains("refused"), "{why}");
    server.restart();
    let _upkeep = setup.keep_up();
    eventually(HEALED, || async {
        setup.cache.put(&code("abc"), &link("abc", 1)).await;
        hits(&setup).await
    })
    .await;
    setup.cache.check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_killed_under_load_is_a_miss_until_it_is_back() {
    let mut server = Server::start(&[]);
    let setup = Setup::warm(quick(&server)).await;
    setup.cache.put(&code("abc"), &link("abc", 1)).await;
    let _upkeep = setup.keep_up();
    let load = Load::on(&setup);
    eventually(HEALED, || async { setup.count("get", "hit") > 20 }).await;
    server.kill();
    eventually(HEALED, || async { setup.count("get", "unconnected") > 20 }).await;
    assert!(setup.count("get", "fault") > 0 || setup.cache.connections() == 0);
    server.restart();
    eventually(HEALED, || async {
        setup.cache.put(&code("abc"), &link("abc", 1)).await;
        hits(&setup).await
    })
    .await;
    let longest = load.longest().await;
    assert!(longest < setup.config.get_timeout + SLACK, "{longest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_redis_costs_a_few_timeouts_and_heals_by_itself() {
    let server = Server::start(&[]);
    let setup = Setup::warm(quick(&server)).await;
    setup.cache.put(&code("abc"), &link("abc", 1)).await;
    let _upkeep = setup.keep_up();
    let load = Load::on(&setup);
    eventually(HEALED, || async { setup.count("get", "hit") > 20 }).await;
    server.stop();
    eventually(HEALED, || async { setup.breaker.state() == State::Open || setup.cache.connections() == 0 }).await;
    let timeouts = || setup.count("get", "timeout");
    eventually(HEALED, || async { setup.cache.connections() == 0 }).await;
    let before = timeouts();
    let missed = setup.count("get", "unconnected");
    eventually(HEALED, || async { setup.count("get", "unconnected") > missed + 200 }).await;
    assert_eq!(timeouts(), before, "nobody waits for a Redis that is known to be mute");
    assert!(before < 50, "{before} have waited");
    server.go_on();
    eventually(HEALED, || hits(&setup)).await;
    let longest = load.longest().await;
    assert!(longest < setup.config.get_timeout + SLACK, "{longest:?}");
}

/// That the old link isn't served is the ring's matter; that it can be replaced and dropped is ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_comes_back_with_old_data_takes_the_new() {
    let mut server = Server::start(&[]);
    let setup = Setup::warm(quick(&server)).await;
    for name in ["abc", "other"] {
        setup.cache.put(&code(name), &link(name, 1)).await;
    }
    let mut admin = raw((setup.config.host.as_str(), setup.config.port)).await;
    let _: () = redis::cmd("SAVE").query_async(&mut admin).await.unwrap();
    for name in ["abc", "other"] {
        setup.cache.put(&code(name), &link(name, 2)).await;
    }
    server.restart();
    setup.connect().await;
    let old = setup.cache.get(&code("abc")).await;
    assert_eq!(old, Some(link("abc", 1)));
    setup.cache.drop_older(&code("abc"), Version(2)).await;
    assert_eq!(setup.cache.get(&code("abc")).await, None);
    setup.cache.put(&code("other"), &link("other", 2)).await;
    assert_eq!(setup.cache.get(&code("other")).await, Some(link("other", 2)));
}

/// What a stopped Redis was sent it runs when it wakes, and keeps from there on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_redis_kept_half_an_hour_after_it_was_sent_is_not_taken() {
    let server = Server::start(&[]);
    let patience = Duration::from_secs(5);
    let config = RedisConfig { write_timeout: Duration::from_millis(200), get_timeout: patience, ..quick(&server) };
    let setup = Setup::warm(config).await;
    // Known to Redis already, so that the next change is one request.
    setup.cache.put(&code("other"), &link("other", 1)).await;
    server.stop();
    setup.cache.put(&code("abc"), &link("abc", 1)).await;
    assert_eq!(setup.count("put", "timeout"), 1);
    setup.set_wrong(31 * 60 * 1_000);
    server.go_on();
    let mut raw = setup.raw().await;
    let there = eventually(HEALED, || {
        let mut command = redis::cmd("EXISTS");
        command.arg(setup.key("abc"));
        let mut raw = raw.clone();
        async move { command.query_async::<u64>(&mut raw).await.unwrap() == 1 }
    });
    there.await;
    let ttl_ms: i64 = redis::cmd("PTTL").arg(setup.key("abc")).query_async(&mut raw).await.unwrap();
    assert!(ttl_ms > 26 * 60 * 1_000, "Redis would keep it: {ttl_ms} ms");
    assert_eq!(setup.cache.get(&code("abc")).await, None);
    assert_eq!(setup.count("get", "expired"), 1);
}
