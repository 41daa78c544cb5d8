//! `KeyStore`.

use terse_core::ports::HomeStore;
use terse_core::{ApiKey, KeyId, Owner, Role, Timestamp};

use crate::backends::Held;
use crate::race::race;

type Store = Held<dyn HomeStore>;

pub(crate) async fn run(store: Store) {
    a_store_without_keys_has_none(&store).await;
    every_part_of_a_key_comes_back(&store).await;
    keys_come_oldest_first(&store).await;
    the_revision_changes_with_every_change(&store).await;
    a_revocation_is_for_ever(&store).await;
    a_used_id_is_refused(&store).await;
    of_concurrent_revocations_one_sets_the_time(&store).await;
    of_concurrent_adds_of_one_id_one_wins(&store).await;
    concurrent_adds_are_all_there(&store).await;
}

fn id(number: usize) -> KeyId {
    KeyId::parse(&format!("key{number:07}")).unwrap()
}

fn key(number: usize) -> ApiKey {
    ApiKey {
        id: id(number),
        name: format!("key '{number}' – \"ü\""),
        owner: Owner::parse(&format!("owner{number}")).unwrap(),
        role: [Role::Admin, Role::Writer, Role::Reader][number % 3],
        secret_hash: [number as u8; 32],
        created_at: Timestamp::from_millis(number as i64),
        expires_at: (number % 2 == 1).then(|| Timestamp::from_millis(9_000_000)),
        revoked_at: None,
    }
}

async fn find(store: &Store, id: &KeyId) -> Option<ApiKey> {
    let mut keys = store.keys().await.unwrap();
    keys.retain(|key| key.id == *id);
    assert!(keys.len() <= 1, "{keys:?}");
    keys.pop()
}

async fn a_store_without_keys_has_none(store: &Store) {
    assert_eq!(store.keys().await.unwrap(), []);
    assert!(!store.revoke_key(&id(0), Timestamp::from_millis(1)).await.unwrap());
    assert_eq!(store.keys().await.unwrap(), []);
}

async fn every_part_of_a_key_comes_back(store: &Store) {
    for number in 100..103 {
        store.add_key(&key(number)).await.unwrap();
        assert_eq!(find(store, &id(number)).await, Some(key(number)));
    }
    let revoked = ApiKey { revoked_at: Some(Timestamp::from_millis(7)), ..key(103) };
    store.add_key(&revoked).await.unwrap();
    assert_eq!(find(store, &id(103)).await, Some(revoked));
}

async fn keys_come_oldest_first(store: &Store) {
    for (number, at) in [(200, 50), (201, 40), (202, 60)] {
        store.add_key(&ApiKey { created_at: Timestamp::from_millis(at), ..key(number) }).await.unwrap();
    }
    store.revoke_key(&id(200), Timestamp::from_millis(99)).await.unwrap();
    let keys = store.keys().await.unwrap();
    assert!(keys.is_sorted_by_key(|key| key.created_at), "{keys:?}");
    let ours: Vec<_> = keys.into_iter().map(|key| key.id).filter(|of| (200..203).any(|n| *of == id(n))).collect();
    assert_eq!(ours, [id(201), id(200), id(202)]);
}

async fn the_revision_changes_with_every_change(store: &Store) {
    let mut seen = vec![store.keys_revision().await.unwrap()];
    for number in 300..305 {
        store.add_key(&key(number)).await.unwrap();
        seen.push(store.keys_revision().await.unwrap());
        store.revoke_key(&id(number), Timestamp::from_millis(1)).await.unwrap();
        seen.push(store.keys_revision().await.unwrap());
    }
    assert!(seen.windows(2).all(|two| two[0] != two[1]), "{seen:?}");
    assert_eq!(store.keys_revision().await.unwrap(), *seen.last().unwrap(), "nothing changed");
}

async fn a_revocation_is_for_ever(store: &Store) {
    store.add_key(&key(400)).await.unwrap();
    let first = Timestamp::from_millis(1_000);
    assert!(store.revoke_key(&id(400), first).await.unwrap());
    for later in [2_000, 500] {
        assert!(store.revoke_key(&id(400), Timestamp::from_millis(later)).await.unwrap());
        assert_eq!(find(store, &id(400)).await, Some(ApiKey { revoked_at: Some(first), ..key(400) }));
    }
    assert!(!store.revoke_key(&id(499), first).await.unwrap());
    assert_eq!(find(store, &id(499)).await, None);
}

async fn a_used_id_is_refused(store: &Store) {
    store.add_key(&key(500)).await.unwrap();
    store.revoke_key(&id(500), Timestamp::from_millis(5)).await.unwrap();
    let before = find(store, &id(500)).await;
    let refused = store.add_key(&ApiKey { role: Role::Admin, ..key(500) }).await.unwrap_err();
    assert!(refused.answered, "it would count as a failure of the store: {refused}");
    assert_eq!(find(store, &id(500)).await, before, "a revoked key came back");
}

async fn of_concurrent_revocations_one_sets_the_time(store: &Store) {
    for round in 600..600 + store.rounds(40) {
        store.add_key(&key(round)).await.unwrap();
        let results = race(2, |number| {
            let store = store.clone();
            async move {
                assert!(store.revoke_key(&id(round), Timestamp::from_millis(10 + number as i64)).await.unwrap());
                find(&store, &id(round)).await.unwrap().revoked_at.unwrap()
            }
        })
        .await;
        assert_eq!(results[0], results[1], "the time of a revocation changed");
        assert_eq!(find(store, &id(round)).await.unwrap().revoked_at, Some(results[0]));
    }
}

async fn of_concurrent_adds_of_one_id_one_wins(store: &Store) {
    for round in 700..700 + store.rounds(20) {
        let contender = |number: usize| ApiKey { name: number.to_string(), ..key(round) };
        let results = race(4, |number| {
            let (store, key) = (store.clone(), contender(number));
            async move { store.add_key(&key).await }
        })
        .await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        let winner = results.iter().position(Result::is_ok).unwrap();
        assert_eq!(find(store, &id(round)).await, Some(contender(winner)));
    }
}

async fn concurrent_adds_are_all_there(store: &Store) {
    let before = store.keys_revision().await.unwrap();
    let callers = store.callers(40);
    race(callers, |number| {
        let store = store.clone();
        async move { store.add_key(&key(800 + number)).await.unwrap() }
    })
    .await;
    for number in 800..800 + callers {
        assert_eq!(find(store, &id(number)).await, Some(key(number)));
    }
    assert_ne!(store.keys_revision().await.unwrap(), before);
}
