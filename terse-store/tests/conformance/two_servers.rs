//! Two stores with sessions of their own on one keyspace, as two servers have
//! them: their conditional writes contend on the replicas, where no lock of a
//! process puts them in order.

use std::collections::HashSet;
use std::sync::Arc;

use terse_core::ports::{
    IdempotencyRecord, IdempotencyStore, Insert, KeyStore, LeaseStore, LinkCatalog, LinkChange, LinkReader, LinkWriter,
    SettingsStore, StoreErrorKind, Update,
};
use terse_core::{ApiKey, KeyId, Link, LinkState, Owner, Role, Timestamp, Version};
use terse_testkit::links::{attempt, code, link, target};

use crate::cql::connect;
use crate::patient::Patient;
use crate::race::race;

/// Rounds of each race.
const ROUNDS: usize = 3;
/// Callers of each race, half of them on each server.
const CALLERS: usize = 8;

type Servers = [Arc<Patient>; 2];

pub(crate) async fn run(keyspace: &str) {
    // Both find an empty cluster, and make the schema at the same time.
    let (one, other) = tokio::join!(connect("main", keyspace), connect("main", keyspace));
    let servers = [one, other];
    one_of_them_creates_a_link(&servers).await;
    one_of_them_edits_a_link(&servers).await;
    one_of_them_claims_a_key(&servers).await;
    they_settle_on_one_value(&servers).await;
    their_leases_are_disjoint(&servers).await;
    one_of_them_adds_an_api_key(&servers).await;
    each_sees_at_once_what_the_other_did(&servers).await;
}

/// What one of `CALLERS` racing callers got, each on its server.
async fn on_both<T, R>(servers: &Servers, make: impl Fn(usize, Arc<Patient>) -> R) -> Vec<T>
where
    T: Send + 'static,
    R: Future<Output = T> + Send + 'static,
{
    race(CALLERS, |number| make(number, Arc::clone(&servers[number % 2]))).await
}

async fn one_of_them_creates_a_link(servers: &Servers) {
    for round in 0..ROUNDS {
        let contender = |number: usize| Link {
            target: target(&format!("https://t.example/{number}")),
            ..link(&format!("two-{round}"))
        };
        let results = on_both(servers, |number, server| {
            let link = contender(number);
            async move { server.insert_if_absent(&link, attempt(number as u128)).await.unwrap() }
        })
        .await;
        let winners: Vec<_> = (0..CALLERS).filter(|number| results[*number] == Insert::Created).collect();
        assert_eq!(winners.len(), 1, "{results:?}");
        let lost = Insert::Taken { attempt: attempt(winners[0] as u128) };
        assert!(results.iter().all(|result| *result == Insert::Created || *result == lost), "{results:?}");
        for server in servers {
            assert_eq!(server.get(&contender(0).code).await.unwrap(), Some(contender(winners[0])));
        }
    }
}

async fn one_of_them_edits_a_link(servers: &Servers) {
    for round in 0..ROUNDS {
        let first = link(&format!("edit-{round}"));
        servers[0].insert_if_absent(&first, attempt(1)).await.unwrap();
        let results = on_both(servers, |number, server| {
            let code = first.code.clone();
            let target = target(&format!("https://t.example/{number}"));
            let change = LinkChange { target, ..LinkChange::of(&first) };
            async move { server.update(&code, Version::FIRST, &change).await.unwrap() }
        })
        .await;
        let stored = servers[1].get(&first.code).await.unwrap().unwrap();
        assert_eq!(stored.version, Version(2));
        let made = Update::Updated(Box::new(stored));
        assert_eq!(results.iter().filter(|result| **result == made).count(), 1, "{results:?}");
        let conflict = Update::Conflict { current: Version(2) };
        assert_eq!(results.iter().filter(|result| **result == conflict).count(), CALLERS - 1, "{results:?}");
    }
}

async fn one_of_them_claims_a_key(servers: &Servers) {
    let owner = Owner::parse("two").unwrap();
    let record = |number: usize, created_ms: i64| IdempotencyRecord {
        body_hash: [number as u8; 32],
        code: code(&format!("code{number}")),
        // No two attempts have one id: by it a record is told from the one that it replaces.
        attempt: attempt(number as u128 + (created_ms as u128) * 1_000),
        created_at: Timestamp::from_millis(created_ms),
    };
    for round in 0..ROUNDS {
        let key = format!("claim-{round}");
        // The second time over, what the first left is expired.
        for (created_ms, expired_ms) in [(1_000, 0), (2_000, 1_001)] {
            let results = on_both(servers, |number, server| {
                let (owner, key, record) = (owner.clone(), key.clone(), record(number, created_ms));
                let expired = Timestamp::from_millis(expired_ms);
                async move { server.claim_key(&owner, &key, &record, expired).await.unwrap() }
            })
            .await;
            let winners: Vec<_> = (0..CALLERS).filter(|number| results[*number].is_none()).collect();
            assert_eq!(winners.len(), 1, "{results:?}");
            let won = record(winners[0], created_ms);
            assert!(results.iter().flatten().all(|standing| *standing == won), "{results:?}");
            assert_eq!(servers[0].find_key(&owner, &key).await.unwrap(), Some(won));
        }
    }
}

async fn they_settle_on_one_value(servers: &Servers) {
    for round in 0..ROUNDS {
        let name = format!("two-{round}");
        let results = on_both(servers, |number, server| {
            let name = name.clone();
            async move { server.settle(&name, &[number as u8]).await.unwrap() }
        })
        .await;
        let distinct: HashSet<_> = results.iter().collect();
        assert_eq!(distinct.len(), 1, "{results:?}");
    }
}

async fn their_leases_are_disjoint(servers: &Servers) {
    let results = on_both(servers, |number, server| async move {
        let mut ranges = Vec::new();
        for _ in 0..ROUNDS {
            let at = Timestamp::from_millis(number as i64);
            ranges.push(server.lease("two", 10, &number.to_string(), at).await.unwrap());
        }
        ranges
    })
    .await;
    let mut given: Vec<_> = results.into_iter().flatten().collect();
    given.sort_by_key(|range| range.start);
    assert!(given.windows(2).all(|two| two[0].end <= two[1].start), "{given:?}");
    // Everything that was given is on record; what is on record beside it is a gap.
    let recorded: Vec<_> = servers[0].leases("two", 0, 1_000).await.unwrap().into_iter().map(|of| of.ids).collect();
    assert!(given.iter().all(|range| recorded.contains(range)), "{given:?} {recorded:?}");
    assert!(recorded.windows(2).all(|two| two[0].end == two[1].start), "{recorded:?}");
}

async fn one_of_them_adds_an_api_key(servers: &Servers) {
    let key = |number: usize| ApiKey {
        id: KeyId::parse("key0000001").unwrap(),
        name: number.to_string(),
        owner: Owner::parse("two").unwrap(),
        role: Role::Writer,
        secret_hash: [number as u8; 32],
        created_at: Timestamp::from_millis(1),
        expires_at: None,
        revoked_at: None,
    };
    let before = servers[1].keys_revision().await.unwrap();
    let results = on_both(servers, |number, server| {
        let key = key(number);
        async move { server.add_key(&key).await.map_err(|error| error.kind) }
    })
    .await;
    let winners: Vec<_> = (0..CALLERS).filter(|number| results[*number].is_ok()).collect();
    assert_eq!(winners.len(), 1, "{results:?}");
    assert!(results.iter().flatten().count() == 1 && results.contains(&Err(StoreErrorKind::Unavailable)));
    assert_eq!(servers[1].keys().await.unwrap(), [key(winners[0])]);
    assert_ne!(servers[1].keys_revision().await.unwrap(), before);
}

async fn each_sees_at_once_what_the_other_did(servers: &Servers) {
    for round in 0..ROUNDS * 2 {
        let (writer, reader) = (&servers[round % 2], &servers[(round + 1) % 2]);
        let first = link(&format!("seen-{round}"));
        writer.insert_if_absent(&first, attempt(1)).await.unwrap();
        assert_eq!(reader.resolve(&first.code).await.unwrap().link.as_ref(), Some(&first.resolution()));
        let deleted = LinkChange { state: LinkState::Deleted, ..LinkChange::of(&first) };
        reader.update(&first.code, Version::FIRST, &deleted).await.unwrap();
        let state = writer.resolve(&first.code).await.unwrap().link.unwrap().state;
        assert_eq!(state, LinkState::Deleted);
        assert!(!writer.list(&first.owner, None, 100).await.unwrap().iter().any(|of| of.code == first.code));
    }
}
