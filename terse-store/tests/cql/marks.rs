//! Every edit tells the other nodes, before and after.

use std::sync::Arc;
use std::time::Duration;

use terse_core::ports::{ChangeFeed, Insert, LinkCatalog, LinkChange, LinkWriter, Update};
use terse_core::{Link, LinkState, Version};
use terse_store::CqlStore;
use terse_testkit::links::{attempt, code, link, target};

use crate::cluster::{connected, now, with_keyspace, with_shared_keyspace};

/// The versions of the marks of `text`, in no order of their own, sorted.
async fn marked(store: &CqlStore, text: &str) -> Vec<u64> {
    let found = store.marks(now().plus_millis(-60_000), now().plus_millis(10_000), None, 1_000).await.unwrap();
    assert_eq!(found.next, None);
    let mut ids: Vec<_> = found.marks.iter().map(|mark| mark.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), found.marks.len(), "two marks with one id");
    let of_link = found.marks.iter().filter(|mark| mark.code == code(text));
    let mut versions: Vec<_> = of_link.map(|mark| mark.version.0).collect();
    versions.sort_unstable();
    versions
}

async fn created(store: &CqlStore, text: &str) -> Link {
    assert_eq!(store.insert_if_absent(&link(text), attempt(1)).await.unwrap(), Insert::Created);
    link(text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_edit_is_marked_before_and_after() {
    with_shared_keyspace(|keyspace| async move {
        let (writer, _) = connected(&keyspace).await;
        let (reader, _) = connected(&keyspace).await;
        let first = created(&writer, "edited").await;
        assert_eq!(marked(&reader, "edited").await, [0; 0], "a new link is cached nowhere");
        let change = LinkChange { target: target("https://new.example/"), ..LinkChange::of(&first) };
        writer.update(&first.code, Version(1), &change).await.unwrap();
        assert_eq!(marked(&reader, "edited").await, [2, 2]);
        let deletion = LinkChange { state: LinkState::Deleted, ..change };
        writer.update(&first.code, Version(2), &deletion).await.unwrap();
        assert_eq!(marked(&reader, "edited").await, [2, 2, 3, 3]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_conflict_is_marked_with_the_version_that_stands() {
    with_shared_keyspace(|keyspace| async move {
        let (store, _) = connected(&keyspace).await;
        let first = created(&store, "conflict").await;
        store.update(&first.code, Version(1), &LinkChange::of(&first)).await.unwrap();
        // Versions that were never there: a mark of what they would have made would keep the link out of every cache.
        for (expected, marks) in [(1, vec![2; 3]), (7, vec![2; 4]), (u64::MAX, vec![2; 5])] {
            let answer = store.update(&first.code, Version(expected), &LinkChange::of(&first)).await.unwrap();
            assert_eq!(answer, Update::Conflict { current: Version(2) });
            assert_eq!(marked(&store, "conflict").await, marks);
        }
        let nothing = store.update(&code("nothing"), Version(1), &LinkChange::of(&first)).await.unwrap();
        assert_eq!(nothing, Update::NotFound);
        assert_eq!(marked(&store, "nothing").await, [0; 0]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_race_of_two_nodes_is_marked_by_both() {
    with_shared_keyspace(|keyspace| async move {
        let (one, _) = connected(&keyspace).await;
        let (other, _) = connected(&keyspace).await;
        for round in 0..8 {
            let text = format!("race{round}");
            let first = created(&one, &text).await;
            let edits = [&one, &other].map(|store: &Arc<CqlStore>| {
                let (store, first) = (Arc::clone(store), first.clone());
                tokio::spawn(
                    async move { store.update(&first.code, Version(1), &LinkChange::of(&first)).await.unwrap() },
                )
            });
            let answers = futures_util::future::join_all(edits).await;
            let won = answers.iter().filter(|answer| matches!(answer.as_ref().unwrap(), Update::Updated(_))).count();
            assert_eq!(won, 1, "{answers:?}");
            let marks = marked(&one, &text).await;
            // The loser wrote one mark before, if it saw version 1 still, and one after in any case.
            assert!((3..=4).contains(&marks.len()) && marks.iter().all(|version| *version == 2), "{marks:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_edit_whose_caller_went_away_is_marked_after_it_too() {
    with_shared_keyspace(|keyspace| async move {
        let (store, _) = connected(&keyspace).await;
        let mut made_alone = 0;
        for number in 0..60_u64 {
            let first = created(&store, &format!("left{number}")).await;
            let (change, code) = (LinkChange::of(&first), first.code.clone());
            let editor = Arc::clone(&store);
            let edit = tokio::spawn(async move { editor.update(&code, Version(1), &change).await });
            // Some callers leave between the conditional write and the mark after it.
            tokio::time::sleep(Duration::from_micros(number * 500)).await;
            edit.abort();
            let left = edit.await.is_err();
            assert!(store.settled().await);
            let stands = store.get(&first.code).await.unwrap().unwrap().version;
            if left && stands == Version(2) {
                made_alone += 1;
                assert_eq!(marked(&store, &format!("left{number}")).await, [2, 2], "left after {number} / 2 ms");
            }
        }
        assert!(made_alone > 0, "no caller left while its edit was being made");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_claim_of_a_taken_code_is_marked_too() {
    with_shared_keyspace(|keyspace| async move {
        let (store, _) = connected(&keyspace).await;
        let first = created(&store, "claimed").await;
        store.update(&first.code, Version(1), &LinkChange::of(&first)).await.unwrap();
        let taken = store.insert_if_absent(&link("claimed"), attempt(2)).await.unwrap();
        assert_eq!(taken, Insert::Taken { attempt: attempt(1) });
        assert_eq!(marked(&store, "claimed").await, [2, 2, 2], "the claim may have completed somebody's edit");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn marks_are_told_up_to_a_limit_and_that_there_are_more() {
    with_keyspace(|keyspace| async move {
        let (store, _) = connected(&keyspace).await;
        let first = created(&store, "many").await;
        for version in 1..=4 {
            store.update(&first.code, Version(version), &LinkChange::of(&first)).await.unwrap();
        }
        let range = (now().plus_millis(-60_000), now().plus_millis(10_000));
        for (limit, complete) in [(7, false), (8, true), (100, true)] {
            let found = store.marks(range.0, range.1, None, limit).await.unwrap();
            assert_eq!((found.marks.len(), found.next.is_none()), (limit.min(8), complete), "{limit}");
        }
        let (mut told, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = store.marks(range.0, range.1, after, 3).await.unwrap();
            told.extend(page.marks.iter().map(|mark| mark.id));
            pages += 1;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let ids: std::collections::HashSet<_> = told.iter().collect();
        assert_eq!((pages, told.len(), ids.len()), (3, 8, 8), "each page goes on where the one before ended");
        let later = store.marks(now().plus_millis(20_000), now().plus_millis(30_000), None, 10).await.unwrap();
        assert_eq!((later.marks.len(), later.next), (0, None));
        let ever = store.marks(terse_core::Timestamp::from_millis(0), now(), None, 100).await.unwrap();
        assert_eq!(ever.marks.len(), 8, "a range of years is as long as a mark's life");
    })
    .await;
}
