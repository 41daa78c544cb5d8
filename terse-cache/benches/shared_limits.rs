//! What a decision of each limit that processes share costs: decisions a second
//! through one process with one caller and with 64, and how long one takes.
//! Prints `NAME  RATE per second  MEDIAN p50 us  P99 p99 us`, a line each.
//!
//! Arguments: the address of a Redis, and how many milliseconds each rule is
//! measured. Its keys are in a namespace of its own, and go by themselves.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use terse_cache::{Namespace, RedisCache, RedisConfig};
use terse_core::metrics::Metrics;
use terse_core::{Clock, Timestamp};
use terse_resilience::Breaker;
use terse_resilience::limit::{Key, Rule, SharedLimiter};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CALLERS: u32 = 64;
const WARM_UP: Duration = Duration::from_millis(200);
/// How often connecting is tried, with a pause between.
const CONNECT_TRIES: u32 = 50;
/// For a machine that is busy: what is measured is how long it takes, not what is given up.
const PATIENCE: Duration = Duration::from_secs(5);

struct SystemClock(Instant);

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Timestamp::from_millis(since_epoch.as_millis() as i64)
    }

    fn monotonic_ms(&self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }
}

async fn connected(address: SocketAddr) -> Arc<RedisCache> {
    let name =
        format!("b{}-{:x}", std::process::id(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos());
    let config = RedisConfig {
        draw_timeout: PATIENCE,
        ..RedisConfig::new(address.ip().to_string(), address.port(), Namespace::new(&name, None).unwrap())
    };
    let began = Instant::now();
    let elapsed_ms = Arc::new(move || began.elapsed().as_millis() as u64);
    let breaker = Arc::new(Breaker::new(config.breaker_settings(), elapsed_ms, 1).unwrap());
    let redis = RedisCache::new(&config, breaker, Arc::new(SystemClock(began)), &Metrics::new()).unwrap();
    for _ in 0..CONNECT_TRIES {
        redis.upkeep_once().await;
        if redis.connections() == config.connections as usize {
            return redis;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no connection to {address}: {:?}", redis.check().await);
}

/// How long each decision took from the end of the warm-up until `until`.
async fn decide(limiter: Arc<dyn SharedLimiter>, caller: u32, from: Instant, until: Instant) -> Vec<Duration> {
    let key = Key::of(&[&[9], &caller.to_be_bytes()]).unwrap();
    let mut took = vec![];
    loop {
        let asked = Instant::now();
        limiter.draw(&key, 1).await.expect("Redis decides");
        let now = Instant::now();
        if now >= until {
            return took;
        }
        if asked >= from {
            took.push(now - asked);
        }
    }
}

async fn measure(redis: &Arc<RedisCache>, rule: Rule, callers: u32, window: Duration) {
    let limiter = redis.limiter("bench", rule).expect("a rule that can be shared");
    let from = Instant::now() + WARM_UP;
    let tasks = (0..callers).map(|caller| tokio::spawn(decide(Arc::clone(&limiter), caller, from, from + window)));
    let mut took = vec![];
    for task in tasks.collect::<Vec<_>>() {
        took.extend(task.await.unwrap());
    }
    took.sort_unstable();
    let percentile = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)].as_secs_f64() * 1e6;
    let rate = took.len() as f64 / window.as_secs_f64();
    let name = format!("{}, {callers} callers", rule.name());
    println!("{name:<32}{rate:>10.0} per second {:>10.1} p50 us {:>10.1} p99 us", percentile(50), percentile(99));
}

/// One thread, as one web worker has.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let address = std::env::args().find_map(|word| word.parse::<SocketAddr>().ok()).expect("the address of a Redis");
    let window =
        std::env::args().find_map(|word| word.parse().ok()).map_or(Duration::from_secs(2), Duration::from_millis);
    let redis = connected(address).await;
    let minute = Duration::from_secs(60);
    for rule in [
        Rule::TokenBucket { burst: 100, refill: 10, per: Duration::from_secs(1) },
        Rule::SlidingWindow { limit: 300, window: minute },
        Rule::FixedWindow { limit: 300, window: minute },
    ] {
        for callers in [1, CALLERS] {
            measure(&redis, rule, callers, window).await;
        }
    }
}
