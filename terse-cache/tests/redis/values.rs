//! What lies in Redis: for how long, under which key, and what if it is no link.

use std::collections::BTreeSet;
use std::time::Duration;

use redis::AsyncCommands;
use terse_cache::{MAX_SHARED_TTL, Namespace, RedisConfig, SharedCache};
use terse_core::Version;

use crate::service::{shared, unique};
use crate::setup::{Setup, code, link, patient};

#[tokio::test]
async fn links_live_at_most_30_minutes_and_do_not_die_together() {
    let setup = Setup::warm(patient(shared())).await;
    let mut raw = setup.raw().await;
    let longest = i64::try_from(MAX_SHARED_TTL.as_millis()).unwrap();
    let mut seconds = BTreeSet::new();
    for n in 0..60 {
        let name = format!("code{n}");
        setup.cache.put(&code(&name), &link(&name, 1)).await;
        let ttl_ms: i64 = raw.pttl(setup.key(&name)).await.unwrap();
        assert!((longest * 9 / 10 - 5_000..=longest).contains(&ttl_ms), "{ttl_ms} ms");
        seconds.insert(ttl_ms / 1_000);
    }
    assert!(seconds.len() > 30, "{seconds:?}");
    assert!(seconds.last().unwrap() - seconds.first().unwrap() > 60);
}

#[tokio::test]
async fn a_configured_life_is_kept_to() {
    let setup = Setup::warm(RedisConfig { ttl: Duration::from_secs(2), ..patient(shared()) }).await;
    setup.cache.put(&code("abc"), &link("abc", 1)).await;
    let ttl_ms: i64 = setup.raw().await.pttl(setup.key("abc")).await.unwrap();
    assert!((1..=2_000).contains(&ttl_ms), "{ttl_ms} ms");
}

/// A paused Redis runs what it was sent when it wakes, and counts the time to
/// live from there; or its clock steps back.
#[tokio::test]
async fn a_link_that_was_written_long_ago_is_not_taken_however_long_redis_keeps_it() {
    let setup = Setup::warm(patient(shared())).await;
    let other = Setup::warm(setup.config.clone()).await;
    let ms = i64::try_from(MAX_SHARED_TTL.as_millis()).unwrap();
    for wrong_by in [-ms - 1_000, ms] {
        other.set_wrong(wrong_by);
        other.cache.put(&code("abc"), &link("abc", 1)).await;
        assert_eq!(setup.cache.get(&code("abc")).await, None, "wrong by {wrong_by}");
        assert_eq!(other.cache.get(&code("abc")).await, Some(link("abc", 1)), "by its own clock it is good");
        setup.cache.put(&code("abc"), &link("abc", 1)).await;
        assert_eq!(setup.cache.get(&code("abc")).await, Some(link("abc", 1)), "the same version replaces it");
    }
    assert_eq!(setup.count("get", "expired"), 2);
}

#[tokio::test]
async fn clocks_that_differ_by_seconds_do_not_matter() {
    let setup = Setup::warm(patient(shared())).await;
    let other = Setup::warm(setup.config.clone()).await;
    for wrong_by in [-5_000, 5_000] {
        other.set_wrong(wrong_by);
        other.cache.put(&code("abc"), &link("abc", 1)).await;
        assert_eq!(setup.cache.get(&code("abc")).await, Some(link("abc", 1)));
    }
}

#[tokio::test]
async fn what_is_no_link_is_a_miss_and_makes_room() {
    let setup = Setup::warm(patient(shared())).await;
    let mut raw = setup.raw().await;
    let key = setup.key("abc");
    let garbage: [&[u8]; 5] = [
        b"x",
        b"\0\0\0\0\0\0\0\x01",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\x01garbage",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\0",
        &[0xff; 8_300],
    ];
    for bytes in garbage {
        let mut bytes = bytes.to_vec();
        if let Some(format) = bytes.get_mut(8) {
            *format &= 1; // not one of a later build
        }
        let _: () = raw.set_ex(&key, &bytes, 600).await.unwrap();
        assert_eq!(setup.cache.get(&code("abc")).await, None);
        let there: bool = raw.exists(&key).await.unwrap();
        assert!(!there, "{} bytes were left", bytes.len());
        setup.cache.put(&code("abc"), &link("abc", 1)).await;
        assert_eq!(setup.cache.get(&code("abc")).await, Some(link("abc", 1)));
    }
    assert_eq!(setup.count("get", "unreadable"), garbage.len() as u64);
    assert_eq!(setup.count("get", "fault"), 0, "Redis is not to blame");
}

#[tokio::test]
async fn what_is_no_string_is_a_miss_and_is_replaced_or_dropped() {
    let setup = Setup::warm(patient(shared())).await;
    let mut raw = setup.raw().await;
    let _: () = raw.rpush(setup.key("abc"), "x").await.unwrap();
    for _ in 0..10 {
        assert_eq!(setup.cache.get(&code("abc")).await, None);
    }
    setup.cache.put(&code("abc"), &link("abc", 1)).await;
    assert_eq!(setup.cache.get(&code("abc")).await, Some(link("abc", 1)), "and the breaker is closed");
    let _: () = raw.rpush(setup.key("list"), "x").await.unwrap();
    setup.cache.drop_older(&code("list"), Version(1)).await;
    let there: bool = raw.exists(setup.key("list")).await.unwrap();
    assert!(!there);
}

/// Two builds share a Redis while one replaces the other.
#[tokio::test]
async fn a_value_of_a_later_build_is_left_alone_unless_it_is_older() {
    let setup = Setup::warm(patient(shared())).await;
    let (mut raw, key) = (setup.raw().await, setup.key("abc"));
    let later = b"\0\0\0\0\0\0\0\x05\x02 whatever is to come".to_vec();
    let _: () = raw.set_ex(&key, &later, 600).await.unwrap();
    assert_eq!(setup.cache.get(&code("abc")).await, None);
    assert_eq!(setup.count("get", "later"), 1);
    for version in [4, 5] {
        setup.cache.put(&code("abc"), &link("abc", version)).await;
        setup.cache.drop_older(&code("abc"), Version(version)).await;
        let held: Vec<u8> = raw.get(&key).await.unwrap();
        assert_eq!(held, later, "after version {version}");
    }
    setup.cache.put(&code("abc"), &link("abc", 6)).await;
    assert_eq!(setup.cache.get(&code("abc")).await, Some(link("abc", 6)));
    let _: () = raw.set_ex(&key, &later, 600).await.unwrap();
    setup.cache.drop_older(&code("abc"), Version(6)).await;
    assert_eq!(setup.cache.get(&code("abc")).await, None, "an edit reaches values of all builds");
}

#[tokio::test]
async fn what_would_stay_for_ever_stands_in_nobodys_way() {
    let setup = Setup::warm(patient(shared())).await;
    let mut raw = setup.raw().await;
    let _: () = raw.set(setup.key("abc"), b"\xff\xff\xff\xff\xff\xff\xff\xff\x09").await.unwrap();
    setup.cache.put(&code("abc"), &link("abc", 1)).await;
    assert_eq!(setup.cache.get(&code("abc")).await, Some(link("abc", 1)));
}

#[tokio::test]
async fn namespaces_and_runs_see_nothing_of_each_other() {
    let id = unique();
    let mut setups = Vec::new();
    for (id, start) in [(id.clone(), None), (id.clone(), Some(1)), (id.clone(), Some(2)), (format!("{id}x"), None)] {
        let namespace = Namespace::new(&id, start).unwrap();
        setups.push(Setup::warm(RedisConfig { namespace, ..patient(shared()) }).await);
    }
    for (version, setup) in (1..).zip(&setups) {
        assert_eq!(setup.cache.get(&code("abc")).await, None);
        setup.cache.put(&code("abc"), &link("abc", version)).await;
    }
    setups[0].cache.drop_older(&code("abc"), Version(9)).await;
    assert_eq!(setups[0].cache.get(&code("abc")).await, None);
    for (version, setup) in (1..).zip(&setups).skip(1) {
        assert_eq!(setup.cache.get(&code("abc")).await, Some(link("abc", version)));
    }
}
