//! The wire is cut after a write went out: its writer finds out what became of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use terse_core::Version;
use terse_core::ports::{Insert, LinkCatalog, LinkChange, LinkReader, LinkWriter, StoreErrorKind, Update};
use terse_store::CqlStore;
use terse_testkit::Mode;
use terse_testkit::links::{attempt, link, target};

use crate::cluster::{Wire, connect, unconnected, wire, with_shared_keyspace};

async fn store_on(wire: &Wire) -> Arc<CqlStore> {
    let (store, _) = unconnected(wire.config.clone());
    connect(&store).await;
    store
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_create_whose_answer_is_lost_is_told_truly() {
    with_shared_keyspace(|keyspace| async move {
        let wire = wire(keyspace.config());
        let store = store_on(&wire).await;
        for number in 0..5_u64 {
            let link = link(&format!("lost{number}"));
            let attempt = attempt(0x5151_0000 + u128::from(number));
            // Only the conditional write carries the attempt.
            wire.cut_once_after(&attempt.0);
            let answer = store.insert_if_absent(&link, attempt).await.unwrap();
            assert_eq!(answer, Insert::Created, "an own write was taken for another's");
            assert_eq!(wire.sprung(), number + 1, "the wire was not cut");
            assert_eq!(store.resolve(&link.code).await.unwrap().link.as_ref(), Some(&link.resolution()));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_claim_of_a_taken_code_whose_answer_is_lost_is_taken() {
    with_shared_keyspace(|keyspace| async move {
        let wire = wire(keyspace.config());
        let store = store_on(&wire).await;
        store.insert_if_absent(&link("mine"), attempt(1)).await.unwrap();
        let second = attempt(0x7272_7272);
        wire.cut_once_after(&second.0);
        let answer = store.insert_if_absent(&link("mine"), second).await.unwrap();
        assert_eq!((answer, wire.sprung()), (Insert::Taken { attempt: attempt(1) }, 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_edit_whose_answer_is_lost_is_told_truly() {
    with_shared_keyspace(|keyspace| async move {
        let wire = wire(keyspace.config());
        let store = store_on(&wire).await;
        let first = link("edit");
        store.insert_if_absent(&first, attempt(1)).await.unwrap();
        for version in 1..=5_u64 {
            let text = format!("https://edited.example/unlike-any-other/{version}");
            let change = LinkChange { target: target(&text), ..LinkChange::of(&first) };
            wire.cut_once_after(text.as_bytes());
            let answer = store.update(&first.code, Version(version), &change).await.unwrap();
            let stored = store.get(&first.code).await.unwrap().unwrap();
            assert_eq!(answer, Update::Updated(Box::new(stored)), "an own edit was taken for another's");
            assert_eq!(wire.sprung(), version, "the wire was not cut");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_write_that_nobody_answers_ends_at_its_deadline_as_unknown() {
    with_shared_keyspace(|keyspace| async move {
        let mut wire = wire(keyspace.config());
        let store = store_on(&wire).await;
        store.insert_if_absent(&link("warm"), attempt(1)).await.unwrap();
        wire.config.limits.write_timeout_ms = 500;
        wire.config.limits.write_deadline_ms = 1_500;
        let hasty = store_on(&wire).await;
        hasty.insert_if_absent(&link("warm2"), attempt(1)).await.unwrap();
        // The rows of the owner's list are acknowledged, then every answer is lost.
        let proxies = Arc::clone(&wire.proxies);
        let marker = attempt(0x6363_6363);
        for proxy in &*wire.proxies {
            let (all, marker) = (Arc::downgrade(&proxies), marker.0);
            proxy.cut_after(move |chunk| {
                let hit = chunk.windows(16).any(|window| window == marker);
                if let (true, Some(all)) = (hit, all.upgrade()) {
                    all.iter().for_each(|proxy| proxy.set(Mode::LoseAnswers));
                }
                false
            });
        }
        let began = Instant::now();
        let error = hasty.insert_if_absent(&link("silence"), marker).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::UnknownOutcome, "{error}");
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        wire.proxies.iter().for_each(terse_testkit::Proxy::restore);
        let deadline = Instant::now() + Duration::from_secs(30);
        let answer = loop {
            match store.insert_if_absent(&link("silence"), marker).await {
                Ok(answer) => break answer,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        };
        assert!(matches!(answer, Insert::Taken { attempt } if attempt == marker), "{answer:?}");
    })
    .await;
}
