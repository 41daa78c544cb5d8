//! Limits that processes share, decided by a real Redis.

use std::sync::Arc;
use std::time::{Duration, Instant};

use terse_cache::{Namespace, RedisConfig};
use terse_resilience::limit::{Draw, Key, QuotaQuestion, Rule, SharedLimiter, SharedQuota};

use terse_testkit::SeededEntropy;

use crate::service::{Server, shared, unique};
use crate::setup::{Setup, config, eventually, patient};

const MINUTE: Duration = Duration::from_secs(60);

fn key(name: &str) -> Key {
    Key::of(&[name.as_bytes()]).unwrap()
}

/// Each rule that can be shared, with a quota of 10 units that takes long to come back.
fn rules() -> [Rule; 3] {
    [
        Rule::TokenBucket { burst: 10, refill: 1, per: MINUTE },
        Rule::SlidingWindow { limit: 10, window: 10 * MINUTE },
        // Longer than a year: no tick comes in between.
        Rule::FixedWindow { limit: 10, window: 365 * 24 * 60 * MINUTE },
    ]
}

async fn draw(limiter: &Arc<dyn SharedLimiter>, who: &str, wanted: u32) -> Draw {
    limiter.draw(&key(who), wanted).await.expect("Redis answers")
}

/// Two processes with the same namespace.
async fn two() -> [Setup; 2] {
    let namespace = Namespace::new(&unique(), None).unwrap();
    let same = || RedisConfig { namespace: namespace.clone(), draw_timeout: MINUTE, ..patient(shared()) };
    [Setup::warm(same()).await, Setup::warm(same()).await]
}

#[tokio::test]
async fn two_processes_draw_from_one_quota() {
    let [one, other] = two().await;
    for rule in rules() {
        let [one, other] = [&one, &other].map(|setup| setup.cache.limiter("create", rule).unwrap());
        let look = draw(&one, "a", 0).await;
        assert_eq!((look.granted, look.remaining, look.more_in), (0, 10, Duration::ZERO), "{rule:?}");
        assert_eq!(draw(&one, "a", 7).await.granted, 7);
        let rest = draw(&other, "a", 7).await;
        assert_eq!((rest.granted, rest.remaining), (3, 0), "{rule:?}");
        for limiter in [&one, &other] {
            let refused = draw(limiter, "a", 1).await;
            assert_eq!((refused.granted, refused.remaining), (0, 0), "{rule:?}");
            assert!(refused.more_in > Duration::from_secs(1), "{rule:?} {refused:?}");
            assert!(refused.more_in <= rule.window() * 11 / 10, "{rule:?} {refused:?}");
        }
        assert_eq!(draw(&other, "b", 1).await.remaining, 9, "another key has a quota of its own");
    }
    assert!(one.count("draw", "granted") >= 6 && other.count("draw", "refused") == 3);
}

#[tokio::test]
async fn limits_of_other_names_rules_and_deployments_do_not_meet() {
    let ([one, _], [foreign, _]) = (two().await, two().await);
    let [bucket, sliding, fixed] = rules();
    let create = one.cache.limiter("create", bucket).unwrap();
    assert_eq!(draw(&create, "a", 10).await.granted, 10);
    let others = [
        one.cache.limiter("api", bucket),
        one.cache.limiter("create", sliding),
        one.cache.limiter("create", fixed),
        foreign.cache.limiter("create", bucket),
    ];
    for other in others {
        assert_eq!(draw(&other.unwrap(), "a", 1).await.remaining, 9);
    }
}

#[tokio::test]
async fn a_leaky_bucket_is_not_shared() {
    let [one, _] = two().await;
    let paced = Rule::LeakyBucket { rate: 1, per: MINUTE, queue: 1 };
    assert!(one.cache.limiter("create", paced).is_none());
}

#[tokio::test]
async fn units_come_back_when_it_was_said_and_no_sooner() {
    let [one, _] = two().await;
    let second = Duration::from_secs(1);
    for rule in [
        Rule::TokenBucket { burst: 5, refill: 5, per: second },
        Rule::SlidingWindow { limit: 5, window: second },
        Rule::FixedWindow { limit: 5, window: second },
    ] {
        let limiter = one.cache.limiter("create", rule).unwrap();
        // A window may tick between the two.
        eventually(MINUTE, || async { draw(&limiter, "a", 5).await.granted < 5 }).await;
        let (asked, refused) = (Instant::now(), draw(&limiter, "a", 1).await);
        if refused.granted > 0 {
            continue;
        }
        eventually(MINUTE, || async { draw(&limiter, "a", 0).await.remaining > 0 }).await;
        assert!(asked.elapsed() >= refused.more_in, "{rule:?}: {refused:?} after {:?}", asked.elapsed());
        assert!(asked.elapsed() < refused.more_in + second, "{rule:?}: {refused:?} after {:?}", asked.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_processes_let_through_is_within_a_hundredth_of_the_shared_limit() {
    let [one, other] = two().await;
    let rule = Rule::TokenBucket { burst: 300, refill: 500, per: Duration::from_secs(1) };
    let began = Instant::now();
    let lasting = Duration::from_secs(4);
    let clients = (0..32).map(|n| {
        let limiter = [&one, &other][n % 2].cache.limiter("create", rule).unwrap();
        tokio::spawn(async move {
            let mut granted = 0;
            while began.elapsed() < lasting {
                let drawn = draw(&limiter, "a", 1).await;
                granted += drawn.granted;
                if drawn.granted == 0 {
                    tokio::time::sleep(drawn.more_in.min(Duration::from_millis(5))).await;
                }
            }
            granted
        })
    });
    let mut granted = 0;
    for client in clients.collect::<Vec<_>>() {
        granted += client.await.unwrap();
    }
    let most = 300.0 + 500.0 * began.elapsed().as_secs_f64();
    let share = f64::from(granted) / most;
    assert!((0.99..=1.001).contains(&share), "{granted} of {most}");
}

#[tokio::test]
async fn a_redis_that_has_forgotten_the_scripts_is_told_them_again() {
    let server = Server::start(&[]);
    let setup = Setup::warm(RedisConfig { draw_timeout: MINUTE, ..patient(server.address) }).await;
    for rule in rules() {
        let limiter = setup.cache.limiter("create", rule).unwrap();
        assert_eq!(draw(&limiter, "a", 1).await.remaining, 9);
        let mut admin = setup.raw().await;
        let _: () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut admin).await.unwrap();
        assert_eq!(draw(&limiter, "a", 1).await.remaining, 8, "{rule:?}");
    }
}

#[tokio::test]
async fn each_decision_has_one_key_that_goes_by_itself() {
    let server = Server::start(&[]);
    let setup = Setup::warm(RedisConfig { draw_timeout: MINUTE, ..patient(server.address) }).await;
    let mut admin = setup.raw().await;
    for (n, rule) in rules().into_iter().enumerate() {
        let limiter = setup.cache.limiter("create", rule).unwrap();
        draw(&limiter, "a", 0).await;
        assert_eq!(keys(&mut admin).await.len(), n, "a look leaves nothing");
        draw(&limiter, "a", 3).await;
        assert_eq!(keys(&mut admin).await.len(), n + 1);
    }
    let quota = setup.cache.quota("create", &SeededEntropy::new(1));
    assert_eq!(ask(&quota, 7, 0, 2, 1).await, (1, 3));
    assert_eq!(keys(&mut admin).await.len(), rules().len() + 1, "a quota has one key, too");
    for key in keys(&mut admin).await {
        assert!(key.starts_with("terse:t") && key.contains(":limit:create:") && key.ends_with(":61"), "{key}");
        let ttl_ms: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut admin).await.unwrap();
        assert!(ttl_ms > 0, "{key}");
    }
}

async fn keys(admin: &mut redis::aio::MultiplexedConnection) -> Vec<String> {
    redis::cmd("KEYS").arg("*").query_async(admin).await.unwrap()
}

/// What a clock that stepped back, or somebody else, has left under a key.
#[tokio::test]
async fn a_state_from_the_future_shuts_nobody_out_and_one_that_is_none_is_forgotten() {
    let server = Server::start(&[]);
    let setup = Setup::warm(RedisConfig { draw_timeout: MINUTE, ..patient(server.address) }).await;
    let mut admin = setup.raw().await;
    let second = Duration::from_secs(1);
    let rule = Rule::TokenBucket { burst: 5, refill: 50, per: second };
    let bucket = setup.cache.limiter("create", rule).unwrap();
    draw(&bucket, "a", 1).await;
    let key = keys(&mut admin).await.remove(0);
    let _: () = redis::cmd("SET").arg(&key).arg("99999999999999999").query_async(&mut admin).await.unwrap();
    assert_eq!(draw(&bucket, "a", 1).await.granted, 0, "as if it had used up all just now");
    eventually(5 * second, || async { draw(&bucket, "a", 0).await.remaining == 5 }).await;
    let _: () = redis::cmd("SET").arg(&key).arg("garbage").query_async(&mut admin).await.unwrap();
    assert_eq!(draw(&bucket, "a", 1).await.remaining, 4);

    let window = Rule::SlidingWindow { limit: 5, window: second };
    let sliding = setup.cache.limiter("sliding", window).unwrap();
    draw(&sliding, "a", 1).await;
    let key = keys(&mut admin).await.into_iter().find(|key| key.contains("sliding")).unwrap();
    let _: () = redis::cmd("HSET").arg(&key).arg("99999999999").arg(4).query_async(&mut admin).await.unwrap();
    assert_eq!(draw(&sliding, "a", 1).await.granted, 0);
    eventually(5 * second, || async { draw(&sliding, "a", 0).await.remaining == 5 }).await;

    let window = Rule::FixedWindow { limit: 5, window: second };
    let fixed = setup.cache.limiter("fixed", window).unwrap();
    draw(&fixed, "a", 1).await;
    let key = keys(&mut admin).await.into_iter().find(|key| key.contains("fixed:fixed")).unwrap();
    let _: () = redis::cmd("SET").arg(&key).arg("99999999999 5").query_async(&mut admin).await.unwrap();
    assert_eq!(draw(&fixed, "a", 1).await.granted, 0);
    eventually(5 * second, || async { draw(&fixed, "a", 0).await.remaining == 5 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_gone_or_mute_leaves_the_decision_to_the_process_in_time() {
    let mut server = Server::start(&[]);
    let setup = Setup::warm(config(server.address)).await;
    let limiter = setup.cache.limiter("create", rules()[0]).unwrap();
    eventually(MINUTE, || async { limiter.draw(&key("a"), 1).await.is_some() }).await;
    server.stop();
    for _ in 0..50 {
        let asked = Instant::now();
        assert_eq!(limiter.draw(&key("a"), 1).await, None);
        assert!(asked.elapsed() < setup.config.draw_timeout + Duration::from_secs(1), "{:?}", asked.elapsed());
    }
    assert!(setup.count("draw", "timeout") < 50, "the breaker spares the others the wait");
    server.go_on();
    server.kill();
    for _ in 0..50 {
        assert_eq!(limiter.draw(&key("a"), 1).await, None);
    }
    server.restart();
    let _upkeep = setup.keep_up();
    eventually(MINUTE, || async { limiter.draw(&key("a"), 1).await.is_some() }).await;
}

/// What a quota answers who knows of all that was used.
async fn ask(quota: &Arc<dyn SharedQuota>, period: u32, known: u64, alone: u64, wanted: u32) -> (u32, u64) {
    let question = QuotaQuestion { period, limit: 10, known, alone, wanted };
    quota.draw(&key("a"), question).await.expect("Redis answers")
}

/// The quota as two processes have it.
fn quotas(setups: &[Setup; 2]) -> [Arc<dyn SharedQuota>; 2] {
    [0, 1].map(|n| setups[n].cache.quota("quota", &SeededEntropy::new(n as u64)))
}

#[tokio::test]
async fn two_processes_have_one_quota_a_period() {
    let setups = two().await;
    let [one, other] = quotas(&setups);
    assert_eq!(ask(&one, 7, 0, 0, 6).await, (6, 6));
    assert_eq!(ask(&other, 7, 0, 0, 6).await, (4, 10));
    assert_eq!(ask(&one, 7, 6, 0, 1).await, (0, 10));
    assert_eq!(ask(&one, 8, 0, 0, 1).await, (1, 1), "another period");
}

#[tokio::test]
async fn a_quota_learns_what_processes_know_that_it_forgot_or_was_not_told() {
    let setups = two().await;
    let [one, other] = quotas(&setups);
    assert_eq!(ask(&one, 7, 3, 2, 0).await, (0, 5), "it has lost its memory, and two were granted alone");
    assert_eq!(ask(&other, 7, 3, 1, 1).await, (1, 7));
    assert_eq!(ask(&one, 7, 5, 11, 1).await, (0, 16), "more than there are: granted alone by several");
}

#[tokio::test]
async fn what_was_granted_alone_counts_once_however_often_and_late_it_is_told() {
    let setups = two().await;
    let [one, other] = quotas(&setups);
    assert_eq!(ask(&one, 7, 2, 3, 0).await, (0, 5));
    assert_eq!(ask(&one, 7, 2, 3, 0).await, (0, 5), "the answer was lost");
    assert_eq!(ask(&one, 7, 2, 5, 1).await, (1, 8), "two more");
    assert_eq!(ask(&one, 7, 2, 3, 0).await, (0, 8), "it was overtaken");
    assert_eq!(ask(&other, 7, 2, 1, 0).await, (0, 9), "what another process granted is another's");
}

#[tokio::test]
async fn a_quota_answers_nothing_without_a_connection() {
    let setup = Setup::cold(patient(shared()));
    let question = QuotaQuestion { period: 7, limit: 10, known: 0, alone: 0, wanted: 1 };
    assert_eq!(setup.cache.quota("quota", &SeededEntropy::new(1)).draw(&key("a"), question).await, None);
}
