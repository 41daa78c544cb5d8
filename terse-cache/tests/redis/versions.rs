//! The newest version wins, whoever writes when.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use terse_cache::SharedCache;
use terse_core::Version;
use terse_testkit::SeededEntropy;

use crate::service::{Server, shared};
use crate::setup::{Setup, code, link, patient};

#[tokio::test]
async fn a_link_comes_back_as_it_was_put() {
    let setup = Setup::warm(patient(shared())).await;
    assert_eq!(setup.cache.get(&code("abc")).await, None);
    setup.cache.put(&code("abc"), &link("abc", 3)).await;
    assert_eq!(setup.cache.get(&code("abc")).await, Some(link("abc", 3)));
    assert_eq!((setup.count("get", "miss"), setup.count("put", "kept"), setup.count("get", "hit")), (1, 1, 1));
    setup.cache.check().await.unwrap();
}

#[tokio::test]
async fn an_older_version_never_replaces_a_newer_one() {
    let setup = Setup::warm(patient(shared())).await;
    // Where doubles, signs and strings of a script would go wrong.
    let versions = [1, 2, 255, 256, u64::from(u32::MAX), 1 << 32, 1 << 53, (1 << 53) + 1, i64::MAX as u64];
    for (older, newer) in versions.iter().zip(&versions[1..]) {
        let name = format!("c{older}");
        let code = code(&name);
        setup.cache.put(&code, &link(&name, *newer)).await;
        setup.cache.put(&code, &link(&name, *older)).await;
        assert_eq!(setup.cache.get(&code).await.unwrap().version, Version(*newer), "{older} after {newer}");
        setup.cache.drop_older(&code, Version(*newer)).await;
        assert!(setup.cache.get(&code).await.is_some(), "it is as new as that");
        setup.cache.put(&code, &link(&name, *newer)).await;
    }
    let pairs = versions.len() as u64 - 1;
    assert_eq!((setup.count("put", "newer"), setup.count("put", "kept")), (pairs, 2 * pairs));
    assert_eq!(setup.count("drop", "nothing"), pairs);
    for older in &versions[..versions.len() - 1] {
        setup.cache.drop_older(&code(&format!("c{older}")), Version(u64::MAX)).await;
    }
    assert_eq!(setup.count("drop", "dropped"), pairs);
}

#[tokio::test]
async fn what_is_older_is_dropped_and_what_is_not_there_does_no_harm() {
    let setup = Setup::warm(patient(shared())).await;
    setup.cache.drop_older(&code("abc"), Version(5)).await;
    setup.cache.put(&code("abc"), &link("abc", 4)).await;
    setup.cache.drop_older(&code("abc"), Version(4)).await;
    assert!(setup.cache.get(&code("abc")).await.is_some());
    setup.cache.drop_older(&code("abc"), Version(5)).await;
    assert_eq!(setup.cache.get(&code("abc")).await, None);
    setup.cache.put(&code("abc"), &link("abc", 1)).await;
    assert_eq!(setup.cache.get(&code("abc")).await, Some(link("abc", 1)), "the cache itself remembers no version");
}

/// Eight writers on two caches put the same versions, each in another order,
/// while others read: what is read never goes back, and the last is the newest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_writers_leave_the_newest_and_readers_never_go_back() {
    const VERSIONS: u64 = 60;
    let setup = Setup::warm(patient(shared())).await;
    let other = Setup::warm(setup.config.clone()).await;
    let over = Arc::new(AtomicBool::new(false));
    let readers = [&setup, &other].map(|from| {
        let (cache, over) = (Arc::clone(&from.cache), Arc::clone(&over));
        tokio::spawn(async move {
            let (mut newest, mut reads) = (0, 0_u32);
            while !over.load(Ordering::SeqCst) {
                let Some(read) = cache.get(&code("abc")).await else { continue };
                assert!(read.version.0 >= newest, "{} after {newest}", read.version.0);
                assert_eq!(read, link("abc", read.version.0));
                (newest, reads) = (read.version.0, reads + 1);
            }
            reads
        })
    });
    let writers = (0..8).map(|writer| {
        let cache = Arc::clone(if writer % 2 == 0 { &setup.cache } else { &other.cache });
        tokio::spawn(async move {
            let random = SeededEntropy::new(writer);
            let mut versions: Vec<u64> = (1..=VERSIONS).collect();
            versions.sort_by_cached_key(|_| random.next_u64());
            for version in versions {
                cache.put(&code("abc"), &link("abc", version)).await;
            }
        })
    });
    for writer in join_all(writers).await {
        writer.unwrap();
    }
    over.store(true, Ordering::SeqCst);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
    assert_eq!(setup.cache.get(&code("abc")).await.unwrap().version, Version(VERSIONS));
    assert!(setup.count("put", "newer") > 0, "some came late");
}

#[tokio::test]
async fn a_redis_that_forgot_the_scripts_gets_them_again() {
    let server = Server::start(&[]);
    let setup = Setup::warm(patient(server.address)).await;
    for version in 1..=3 {
        let _: () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut setup.raw().await).await.unwrap();
        setup.cache.put(&code("abc"), &link("abc", version)).await;
        assert_eq!(setup.cache.get(&code("abc")).await, Some(link("abc", version)));
    }
    let _: () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut setup.raw().await).await.unwrap();
    setup.cache.drop_older(&code("abc"), Version(4)).await;
    assert_eq!(setup.cache.get(&code("abc")).await, None);
    assert_eq!((setup.count("put", "fault"), setup.count("drop", "fault")), (0, 0));
}
