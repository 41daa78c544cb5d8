//! The ring that spreads links over shards by the slot of their code.
//!
//! What concerns one code asks one shard, so a shard's fault fails its own
//! codes only. A list asks all shards at once. An idempotency key, whose code
//! isn't known when it is looked up, has a slot of its own: a stable hash of
//! owner and key, so that a retry finds it on the same shard.

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::{join_all, try_join_all};
use terse_core::cursor::Cursor;
use terse_core::ports::{
    AttemptId, IdempotencyRecord, IdempotencyStore, Insert, LinkCatalog, LinkChange, LinkReader, LinkWriter, Lookup,
    ShardStore, StoreError, StoreHealth, Update,
};
use terse_core::{Link, Owner, ShortCode, Slot, Timestamp, Version};

use crate::{ShardMap, ShardMapError};

/// Letters of a code that its slot depends on.
const SLOT_LETTERS: usize = 2;

/// Several stores as one.
pub struct Sharded {
    map: ShardMap,
    shards: Vec<Arc<dyn ShardStore>>,
}

impl Sharded {
    /// The stores of `map`'s shards, in its order.
    ///
    /// # Errors
    /// [`ShardMapError::StoreCount`] unless there is one store for each shard.
    pub fn new(map: ShardMap, shards: Vec<Arc<dyn ShardStore>>) -> Result<Self, ShardMapError> {
        if map.names().len() != shards.len() {
            return Err(ShardMapError::StoreCount { shards: map.names().len(), stores: shards.len() });
        }
        Ok(Self { map, shards })
    }

    /// Which slots each shard owns.
    #[must_use]
    pub fn map(&self) -> &ShardMap {
        &self.map
    }

    /// The number of the shard that `code` is on, in the map's order.
    #[must_use]
    pub fn shard_of(&self, code: &ShortCode) -> usize {
        self.map.shard_of(code.slot())
    }

    fn shard(&self, slot: Slot) -> &dyn ShardStore {
        self.shards[self.map.shard_of(slot)].as_ref()
    }

    fn of_code(&self, code: &ShortCode) -> &dyn ShardStore {
        self.shard(code.slot())
    }

    fn of_key(&self, owner: &Owner, key: &str) -> &dyn ShardStore {
        self.shard(key_slot(owner, key))
    }
}

/// The slot of an idempotency key: 64-bit FNV-1a of owner, a zero byte, and
/// key, folded to 12 bits. Records are found by it, so it must never change.
/// <http://www.isthe.com/chongo/tech/comp/fnv/>
fn key_slot(owner: &Owner, key: &str) -> Slot {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let bytes = owner.as_str().bytes().chain([0]).chain(key.bytes());
    let hash = bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    let number = ((hash >> 48) ^ (hash >> 24) ^ hash) % u64::from(Slot::COUNT);
    Slot::new(number as u16).expect("a remainder is below its divisor")
}

#[async_trait]
impl LinkReader for Sharded {
    fn peek(&self, code: &str) -> Option<Lookup> {
        if let [only] = self.shards.as_slice() {
            return only.peek(code);
        }
        // The slot needs the first letters only: so no code is too long to be looked up without an allocation.
        let slot = ShortCode::is_valid(code).then(|| &code[..code.len().min(SLOT_LETTERS)]);
        self.of_code(&ShortCode::parse(slot?).ok()?).peek(code)
    }

    /// The shard's own future, for a box around it would cost each redirect that misses the cache.
    fn resolve<'a, 'b, 'c>(
        &'a self,
        code: &'b ShortCode,
    ) -> Pin<Box<dyn Future<Output = Result<Lookup, StoreError>> + Send + 'c>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        self.of_code(code).resolve(code)
    }

    async fn refresh(&self, code: &ShortCode) -> Result<Lookup, StoreError> {
        self.of_code(code).refresh(code).await
    }
}

#[async_trait]
impl LinkWriter for Sharded {
    async fn insert_if_absent(&self, link: &Link, attempt: AttemptId) -> Result<Insert, StoreError> {
        self.of_code(&link.code).insert_if_absent(link, attempt).await
    }

    async fn update(&self, code: &ShortCode, expected: Version, change: &LinkChange) -> Result<Update, StoreError> {
        self.of_code(code).update(code, expected, change).await
    }
}

#[async_trait]
impl LinkCatalog for Sharded {
    async fn get(&self, code: &ShortCode) -> Result<Option<Link>, StoreError> {
        self.of_code(code).get(code).await
    }

    async fn list(&self, owner: &Owner, after: Option<&Cursor>, limit: usize) -> Result<Vec<Link>, StoreError> {
        if let [only] = self.shards.as_slice() {
            return only.list(owner, after, limit).await;
        }
        // Any shard may hold the whole page, so each is asked for one.
        let pages = try_join_all(self.shards.iter().map(|shard| shard.list(owner, after, limit))).await?;
        let mut links: Vec<Link> = pages.into_iter().flatten().collect();
        links.sort_unstable_by(|a, b| (b.created_at, &b.code).cmp(&(a.created_at, &a.code)));
        links.truncate(limit);
        Ok(links)
    }
}

#[async_trait]
impl IdempotencyStore for Sharded {
    async fn find_key(&self, owner: &Owner, key: &str) -> Result<Option<IdempotencyRecord>, StoreError> {
        self.of_key(owner, key).find_key(owner, key).await
    }

    async fn claim_key(
        &self,
        owner: &Owner,
        key: &str,
        record: &IdempotencyRecord,
        expired_before: Timestamp,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        self.of_key(owner, key).claim_key(owner, key, record, expired_before).await
    }

    async fn replace_key(
        &self,
        owner: &Owner,
        key: &str,
        expected: AttemptId,
        record: &IdempotencyRecord,
    ) -> Result<bool, StoreError> {
        self.of_key(owner, key).replace_key(owner, key, expected, record).await
    }

    /// One shard after the other, so that `limit` holds over all. A shard's
    /// fault doesn't keep the others from being purged; it is reported afterwards.
    async fn purge_keys(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let mut removed = 0;
        let mut fault = None;
        for shard in &self.shards {
            match shard.purge_keys(before, limit - removed).await {
                Ok(count) => removed += count.min(limit - removed),
                Err(error) => fault = fault.or(Some(error)),
            }
            if removed == limit {
                break;
            }
        }
        fault.map_or(Ok(removed), Err)
    }
}

#[async_trait]
impl StoreHealth for Sharded {
    async fn check(&self) -> Vec<(String, Result<(), StoreError>)> {
        join_all(self.shards.iter().map(|shard| shard.check())).await.into_iter().flatten().collect()
    }

    async fn check_writes(&self, doubts: bool) -> Vec<(String, StoreError)> {
        join_all(self.shards.iter().map(|shard| shard.check_writes(doubts))).await.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use terse_core::ports::{AttemptId, StoreErrorKind};
    use terse_testkit::links::{attempt, code, link};
    use terse_testkit::{Fault, FaultyStore, Operation, When};

    use super::*;
    use crate::{MemoryStore, SqliteConfig, SqliteStore};

    type Faulty = Arc<FaultyStore<MemoryStore>>;

    /// Codes of digits on the first shard, all others on the second.
    fn two_shards() -> (Sharded, [Faulty; 2]) {
        let map = ShardMap::parse(&[("digits", "0-639"), ("letters", "640-4095")]).unwrap();
        let faulty = [(); 2].map(|()| Arc::new(FaultyStore::new(Arc::new(MemoryStore::new()))));
        let ports = faulty.iter().map(|shard| Arc::clone(shard) as Arc<dyn ShardStore>).collect();
        (Sharded::new(map, ports).unwrap(), faulty)
    }

    fn record(created_ms: i64) -> IdempotencyRecord {
        let created_at = Timestamp::from_millis(created_ms);
        IdempotencyRecord { body_hash: [1; 32], code: code("code"), attempt: AttemptId([1; 16]), created_at }
    }

    /// Records that moved could not be found again: these numbers must stay.
    #[test]
    fn idempotency_keys_keep_their_slots() {
        for (owner, key, slot) in [
            ("open", "key", 848),
            ("open", "", 2769),
            ("a", "b", 2660),
            ("0123456789", "6f1c2f3e-8a53-4d3b-9f5e-2d1a7c1b0e11", 3134),
        ] {
            assert_eq!(key_slot(&Owner::parse(owner).unwrap(), key).number(), slot, "{owner} {key}");
        }
    }

    #[test]
    fn idempotency_keys_spread_over_the_slots() {
        let mut counts = [0_u32; 16];
        for number in 0..16_000 {
            counts[usize::from(key_slot(&Owner::open(), &number.to_string()).number() / 256)] += 1;
        }
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }

    #[test]
    fn each_shard_needs_one_store() {
        let error = Sharded::new(ShardMap::single("main"), Vec::new()).err().unwrap();
        assert_eq!(error.to_string(), "the map has 1 shards, but there are 0 stores");
    }

    #[tokio::test]
    async fn a_link_lives_on_the_shard_of_its_slot_alone() {
        let (ring, shards) = two_shards();
        for (text, home) in [("0abc", 0), ("9", 0), ("Abc", 1), ("_", 1)] {
            ring.insert_if_absent(&link(text), attempt(1)).await.unwrap();
            for (number, shard) in shards.iter().enumerate() {
                let found = shard.inner().get(&code(text)).await.unwrap().is_some();
                assert_eq!(found, number == home, "{text}");
            }
        }
    }

    #[tokio::test]
    async fn a_fault_of_one_shard_fails_its_own_codes_only() {
        let (ring, shards) = two_shards();
        for text in ["0mine", "other"] {
            ring.insert_if_absent(&link(text), attempt(1)).await.unwrap();
        }
        for operation in [Operation::Resolve, Operation::InsertIfAbsent, Operation::List, Operation::Check] {
            shards[0].faults.add(operation, When::Every, Fault::Fail(StoreErrorKind::Unavailable));
        }
        assert_eq!(ring.resolve(&code("0mine")).await.unwrap_err().kind, StoreErrorKind::Unavailable);
        assert!(ring.resolve(&code("other")).await.unwrap().link.is_some());
        assert!(ring.insert_if_absent(&link("0new"), attempt(1)).await.is_err());
        assert_eq!(ring.insert_if_absent(&link("new"), attempt(1)).await.unwrap(), Insert::Created);
        // A list without the links of one shard would be a wrong answer.
        assert_eq!(ring.list(&Owner::open(), None, 10).await.unwrap_err().kind, StoreErrorKind::Unavailable);
        let health: Vec<bool> = ring.check().await.into_iter().map(|(_, health)| health.is_ok()).collect();
        assert_eq!(health, [false, true]);
    }

    #[tokio::test]
    async fn a_fault_of_one_shard_leaves_the_others_purged() {
        let (ring, shards) = two_shards();
        for shard in &shards {
            let claimed = shard.inner().claim_key(&Owner::open(), "key", &record(1), Timestamp::from_millis(0)).await;
            assert_eq!(claimed.unwrap(), None);
        }
        shards[0].faults.add(Operation::PurgeKeys, When::Every, Fault::Fail(StoreErrorKind::Unavailable));
        ring.purge_keys(Timestamp::from_millis(9), 100).await.unwrap_err();
        assert!(shards[0].inner().find_key(&Owner::open(), "key").await.unwrap().is_some());
        assert!(shards[1].inner().find_key(&Owner::open(), "key").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn health_names_the_shards() {
        let directory = tempfile::tempdir().unwrap();
        let map = ShardMap::parse(&[("east", "0-2047"), ("west", "2048-4095")]).unwrap();
        let open = |name: &String| {
            let config = SqliteConfig::new(directory.path().join(name), name.as_str());
            SqliteStore::open(config).unwrap() as Arc<dyn ShardStore>
        };
        let shards = map.names().iter().map(open).collect();
        let ring = Sharded::new(map, shards).unwrap();
        let names: Vec<String> = ring.check().await.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["east", "west"]);
    }
}
