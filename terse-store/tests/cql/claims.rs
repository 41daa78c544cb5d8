//! Many claims of one alias at one moment.

use std::sync::Arc;

use terse_core::ports::{Insert, LinkCatalog, LinkWriter};
use terse_testkit::links::{attempt, code, link};

use crate::cluster::{connected, with_shared_keyspace};

const CLAIMS: u128 = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_hundred_claims_of_one_alias_one_wins_and_all_others_learn_that_it_is_taken() {
    with_shared_keyspace(|keyspace| async move {
        let (store, _) = connected(&keyspace).await;
        for text in ["first", "second"] {
            let claims = (1..=CLAIMS).map(|number| {
                let store = Arc::clone(&store);
                tokio::spawn(async move { store.insert_if_absent(&link(text), attempt(number)).await })
            });
            let answers = futures_util::future::join_all(claims).await;
            // Each claim is answered: none is turned away because others wait.
            let answers: Vec<Insert> = answers.into_iter().map(|answer| answer.unwrap().unwrap()).collect();
            let won: Vec<_> = (1..=CLAIMS).zip(&answers).filter(|(_, answer)| **answer == Insert::Created).collect();
            let [(winner, _)] = won.as_slice() else { panic!("{won:?} have won") };
            let taken = Insert::Taken { attempt: attempt(*winner) };
            assert_eq!(answers.iter().filter(|answer| **answer == taken).count() as u128, CLAIMS - 1);
            assert!(store.get(&code(text)).await.unwrap().is_some());
        }
    })
    .await;
}
