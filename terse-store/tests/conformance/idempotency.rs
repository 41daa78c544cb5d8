//! `IdempotencyStore`.

use terse_core::ports::IdempotencyRecord;
use terse_core::{Owner, Timestamp};
use terse_testkit::links::{attempt, code};

use crate::backends::{Held, LinkPorts};
use crate::race::race;

type Store = Held<dyn LinkPorts>;

pub(crate) async fn run(store: Store) {
    an_unknown_key_has_no_record(&store).await;
    a_claimed_key_stands(&store).await;
    keys_are_told_apart(&store).await;
    a_record_expires_only_when_older_than_asked(&store).await;
    only_the_expected_attempt_is_replaced(&store).await;
    of_concurrent_claims_one_wins(&store).await;
    of_concurrent_claims_of_an_expired_key_one_wins(&store).await;
    of_concurrent_replacements_one_wins(&store).await;
    if store.forgets_keys() {
        purging_leaves_to_the_store_what_it_forgets_by_itself(&store).await;
    } else {
        purging_removes_older_records_up_to_the_limit(&store).await;
        concurrent_purges_remove_each_record_once(&store).await;
    }
    a_purge_never_takes_a_fresh_claim(&store).await;
}

/// Records of most checks are younger than any purge of these checks.
const YOUNG: i64 = 1_000_000;

fn record(number: u8, created_ms: i64) -> IdempotencyRecord {
    IdempotencyRecord {
        body_hash: [number; 32],
        code: code(&format!("code{number}")),
        attempt: attempt(u128::from(number)),
        created_at: Timestamp::from_millis(created_ms),
    }
}

fn owner(text: &str) -> Owner {
    Owner::parse(text).unwrap()
}

fn ms(ms: i64) -> Timestamp {
    Timestamp::from_millis(ms)
}

async fn an_unknown_key_has_no_record(store: &Store) {
    assert_eq!(store.find_key(&owner("unknown"), "key").await.unwrap(), None);
}

async fn a_claimed_key_stands(store: &Store) {
    let (owner, first) = (owner("claims"), record(1, YOUNG));
    assert_eq!(store.claim_key(&owner, "key", &first, ms(0)).await.unwrap(), None);
    assert_eq!(store.find_key(&owner, "key").await.unwrap().as_ref(), Some(&first));
    let answer = store.claim_key(&owner, "key", &record(2, YOUNG + 5), ms(0)).await.unwrap();
    assert_eq!(answer.as_ref(), Some(&first));
    // Also one's own record is "one that stands".
    assert_eq!(store.claim_key(&owner, "key", &first, ms(0)).await.unwrap().as_ref(), Some(&first));
    assert_eq!(store.find_key(&owner, "key").await.unwrap(), Some(first));
}

async fn keys_are_told_apart(store: &Store) {
    let long = "k".repeat(255);
    let names = [("a", "b_c"), ("a_b", "c"), ("a", "B_C"), ("a", " "), ("a", "'\"%_"), ("a", &long), ("a", &long[1..])];
    for (number, (name, key)) in (1..).zip(names) {
        assert_eq!(store.claim_key(&owner(name), key, &record(number, YOUNG), ms(0)).await.unwrap(), None, "{key}");
    }
    for (number, (name, key)) in (1..).zip(names) {
        assert_eq!(store.find_key(&owner(name), key).await.unwrap(), Some(record(number, YOUNG)), "{key}");
    }
}

async fn a_record_expires_only_when_older_than_asked(store: &Store) {
    let (owner, old, new) = (owner("expiry"), record(1, YOUNG), record(2, YOUNG + 9));
    assert_eq!(store.claim_key(&owner, "key", &old, ms(0)).await.unwrap(), None);
    assert_eq!(store.claim_key(&owner, "key", &new, ms(YOUNG)).await.unwrap(), Some(old.clone()));
    // Whatever its age, it is found.
    assert_eq!(store.find_key(&owner, "key").await.unwrap(), Some(old));
    assert_eq!(store.claim_key(&owner, "key", &new, ms(YOUNG + 1)).await.unwrap(), None);
    assert_eq!(store.find_key(&owner, "key").await.unwrap(), Some(new));
}

async fn only_the_expected_attempt_is_replaced(store: &Store) {
    let (owner, first, second) = (owner("replaces"), record(1, YOUNG), record(2, YOUNG + 1));
    assert!(!store.replace_key(&owner, "key", first.attempt, &second).await.unwrap());
    assert_eq!(store.find_key(&owner, "key").await.unwrap(), None);
    store.claim_key(&owner, "key", &first, ms(0)).await.unwrap();
    assert!(!store.replace_key(&owner, "key", second.attempt, &second).await.unwrap());
    assert_eq!(store.find_key(&owner, "key").await.unwrap().as_ref(), Some(&first));
    assert!(store.replace_key(&owner, "key", first.attempt, &second).await.unwrap());
    assert_eq!(store.find_key(&owner, "key").await.unwrap(), Some(second));
}

/// One of the racing claims got "yours", all others got what that one wrote.
fn one_won(results: &[Option<IdempotencyRecord>], contender: impl Fn(usize) -> IdempotencyRecord) -> IdempotencyRecord {
    let winners: Vec<_> = (0..results.len()).filter(|number| results[*number].is_none()).collect();
    assert_eq!(winners.len(), 1, "{results:?}");
    let won = contender(winners[0]);
    assert!(results.iter().flatten().all(|standing| *standing == won), "{results:?}");
    won
}

async fn of_concurrent_claims_one_wins(store: &Store) {
    let contender = |number: usize| record(number as u8, YOUNG + number as i64);
    for (writers, rounds) in [(2, 40), (50, 3)] {
        let writers = store.callers(writers);
        for round in 0..store.rounds(rounds) {
            let (owner, key) = (owner("claimrace"), format!("{writers}-{round}"));
            let results = race(writers, |number| {
                let (store, owner, key) = (store.clone(), owner.clone(), key.clone());
                async move { store.claim_key(&owner, &key, &contender(number), ms(0)).await.unwrap() }
            })
            .await;
            let won = one_won(&results, contender);
            assert_eq!(store.find_key(&owner, &key).await.unwrap(), Some(won));
        }
    }
}

async fn of_concurrent_claims_of_an_expired_key_one_wins(store: &Store) {
    let contender = |number: usize| record(number as u8, YOUNG + 100 + number as i64);
    for round in 0..store.rounds(20) {
        let (owner, key) = (owner("expiredrace"), round.to_string());
        store.claim_key(&owner, &key, &record(99, YOUNG), ms(0)).await.unwrap();
        let results = race(4, |number| {
            let (store, owner, key) = (store.clone(), owner.clone(), key.clone());
            async move { store.claim_key(&owner, &key, &contender(number), ms(YOUNG + 50)).await.unwrap() }
        })
        .await;
        let won = one_won(&results, contender);
        assert_eq!(store.find_key(&owner, &key).await.unwrap(), Some(won));
    }
}

async fn of_concurrent_replacements_one_wins(store: &Store) {
    for round in 0..store.rounds(40) {
        let (owner, key, first) = (owner("replacerace"), round.to_string(), record(50, YOUNG));
        store.claim_key(&owner, &key, &first, ms(0)).await.unwrap();
        let results = race(2, |number| {
            let (store, owner, key, expected) = (store.clone(), owner.clone(), key.clone(), first.attempt);
            async move { store.replace_key(&owner, &key, expected, &record(number as u8, YOUNG)).await.unwrap() }
        })
        .await;
        assert_eq!(results.iter().filter(|won| **won).count(), 1, "{results:?}");
        let winner = results.iter().position(|won| *won).unwrap();
        assert_eq!(store.find_key(&owner, &key).await.unwrap(), Some(record(winner as u8, YOUNG)));
    }
}

async fn claim_aged(store: &Store, owner: &Owner, ages: impl Iterator<Item = i64>) {
    for age in ages {
        assert_eq!(store.claim_key(owner, &age.to_string(), &record(1, age), ms(0)).await.unwrap(), None);
    }
}

async fn kept(store: &Store, owner: &Owner, ages: impl Iterator<Item = i64>) -> Vec<i64> {
    let mut kept = Vec::new();
    for age in ages {
        if store.find_key(owner, &age.to_string()).await.unwrap().is_some() {
            kept.push(age);
        }
    }
    kept
}

async fn purging_removes_older_records_up_to_the_limit(store: &Store) {
    let owner = owner("purges");
    claim_aged(store, &owner, 100..120).await;
    assert_eq!(store.purge_keys(ms(100), 100).await.unwrap(), 0);
    assert_eq!(store.purge_keys(ms(110), 4).await.unwrap(), 4);
    assert_eq!(kept(store, &owner, 100..120).await.len(), 16);
    assert_eq!(store.purge_keys(ms(110), 0).await.unwrap(), 0);
    assert_eq!(store.purge_keys(ms(110), 100).await.unwrap(), 6);
    assert_eq!(kept(store, &owner, 100..120).await, (110..120).collect::<Vec<_>>());
    assert_eq!(store.purge_keys(ms(110), 100).await.unwrap(), 0);
    assert_eq!(store.purge_keys(ms(120), usize::MAX).await.unwrap(), 10);
}

/// That it does forget them is shown by each such backend's own tests.
async fn purging_leaves_to_the_store_what_it_forgets_by_itself(store: &Store) {
    let owner = owner("forgets");
    claim_aged(store, &owner, 100..105).await;
    assert_eq!(store.purge_keys(ms(200), usize::MAX).await.unwrap(), 0);
    assert_eq!(kept(store, &owner, 100..105).await, (100..105).collect::<Vec<_>>());
}

async fn concurrent_purges_remove_each_record_once(store: &Store) {
    let owner = owner("purgerace");
    claim_aged(store, &owner, 100..150).await;
    let results = race(4, |_| {
        let store = store.clone();
        async move { store.purge_keys(ms(150), 20).await.unwrap() }
    })
    .await;
    assert_eq!(results.iter().sum::<usize>(), 50, "{results:?}");
    assert_eq!(kept(store, &owner, 100..150).await, [0; 0]);
}

/// A key whose old record is purged while it is claimed anew: the new record stands.
async fn a_purge_never_takes_a_fresh_claim(store: &Store) {
    for round in 0..store.rounds(40) {
        let (owner, key) = (owner("purgeclaim"), round.to_string());
        store.claim_key(&owner, &key, &record(1, 100), ms(0)).await.unwrap();
        race(2, |racer| {
            let (store, owner, key) = (store.clone(), owner.clone(), key.clone());
            async move {
                if racer == 0 {
                    store.purge_keys(ms(200), 1_000).await.unwrap();
                } else {
                    let answer = store.claim_key(&owner, &key, &record(2, YOUNG), ms(200)).await.unwrap();
                    assert_eq!(answer, None);
                }
            }
        })
        .await;
        assert_eq!(store.find_key(&owner, &key).await.unwrap(), Some(record(2, YOUNG)));
    }
}
