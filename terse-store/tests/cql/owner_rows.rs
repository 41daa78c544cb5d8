//! The rows that an owner's list is read from, and claims of one code.

use std::sync::Arc;

use terse_core::ports::{Insert, LinkChange, LinkWriter, StoreError, StoreErrorKind};
use terse_core::{Link, LinkState, Owner, Timestamp, Version};
use terse_testkit::links::{attempt, link};

use crate::cluster::{Keyspace, connected, with_keyspace};

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
async fn of_many_claims_through_two_nodes_one_wins_and_some_may_have_to_come_again() {
    with_keyspace(|keyspace| async move {
        let stores = [connected(&keyspace).await.0, connected(&keyspace).await.0];
        let claims = (0..200_usize).map(|number| {
            let store = Arc::clone(&stores[number % 2]);
            tokio::spawn(async move { store.insert_if_absent(&link("alias"), attempt(number as u128)).await })
        });
        let answers: Vec<_> =
            futures_util::future::join_all(claims).await.into_iter().map(|answer| answer.unwrap()).collect();
        let winners: Vec<_> = (0..200).filter(|number| matches!(answers[*number], Ok(Insert::Created))).collect();
        assert_eq!(winners.len(), 1, "{answers:?}");
        let taken = Insert::Taken { attempt: attempt(winners[0] as u128) };
        // More than may wait for one code are refused at once, unless it is known by then whose it is.
        let allowed = |answer: &Result<Insert, StoreError>| match answer {
            Ok(insert) => *insert == Insert::Created || *insert == taken,
            Err(error) => error.kind == StoreErrorKind::Overloaded,
        };
        assert!(answers.iter().all(allowed), "{answers:?}");
        let refused = answers.iter().filter(|answer| answer.is_err()).count();
        assert!(refused <= 200 - 2 * 17, "{refused} of 200, though 17 at each node may wait");
        for store in &stores {
            assert_eq!(store.insert_if_absent(&link("alias"), attempt(999)).await.unwrap(), taken);
        }
    })
    .await;
}
