//! The rows that an owner's list is read from, and claims of one code.

use std::sync::Arc;

use terse_core::ports::{Insert, LinkChange, LinkWriter};
use terse_core::{Link, LinkState, Owner, Timestamp, Version};
use terse_testkit::links::{attempt, link};

use crate::cluster::{Keyspace, connected, with_keyspace, with_shared_keyspace};

/// (owner, code) of all rows, sorted.
async fn listed(keyspace: &Keyspace) -> Vec<(String, String)> {
    let rows = keyspace.run("SELECT owner, code FROM KS.links_by_owner").await.into_rows_result().unwrap();
    let mut rows: Vec<_> = rows.rows::<(String, String)>().unwrap().map(Result::unwrap).collect();
    rows.sort();
    rows
}

fn owned(text: &str, owner: &str) -> Link {
    Link { owner: Owner::parse(owner).unwrap(), ..link(text) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_link_is_listed_while_it_is_there() {
    with_keyspace(|keyspace| async move {
        let (store, _) = connected(&keyspace).await;
        let first = owned("listed", "alice");
        store.insert_if_absent(&first, attempt(1)).await.unwrap();
        let row = ("alice".to_owned(), "listed".to_owned());
        assert_eq!(listed(&keyspace).await, std::slice::from_ref(&row));
        // Claims that fail leave nothing behind, and don't take the entry of the link that stands.
        store.insert_if_absent(&owned("listed", "bob"), attempt(2)).await.unwrap();
        store.insert_if_absent(&first, attempt(3)).await.unwrap();
        let later = Link { created_at: Timestamp::from_millis(first.created_at.as_millis() + 1), ..first.clone() };
        store.insert_if_absent(&later, attempt(4)).await.unwrap();
        assert_eq!(listed(&keyspace).await, [row]);
        let deletion = LinkChange { state: LinkState::Deleted, ..LinkChange::of(&first) };
        store.update(&first.code, Version::FIRST, &deletion).await.unwrap();
        assert!(listed(&keyspace).await.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_claims_through_two_nodes_one_wins_and_all_others_learn_that_it_is_taken() {
    with_shared_keyspace(|keyspace| async move {
        let stores = [connected(&keyspace).await.0, connected(&keyspace).await.0];
        let claims = (0..200_usize).map(|number| {
            let store = Arc::clone(&stores[number % 2]);
            tokio::spawn(async move { store.insert_if_absent(&link("alias"), attempt(number as u128)).await })
        });
        let answers = futures_util::future::join_all(claims).await;
        // None is turned away because others wait.
        let answers: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().unwrap()).collect();
        let winners: Vec<_> = (0..200).filter(|number| answers[*number] == Insert::Created).collect();
        assert_eq!(winners.len(), 1, "{answers:?}");
        let taken = Insert::Taken { attempt: attempt(winners[0] as u128) };
        assert!(answers.iter().all(|answer| *answer == Insert::Created || *answer == taken), "{answers:?}");
        for store in &stores {
            assert_eq!(store.insert_if_absent(&link("alias"), attempt(999)).await.unwrap(), taken);
        }
    })
    .await;
}
