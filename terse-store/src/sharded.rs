//! The ring that spreads links over shards by the slot of their code.
//!
//! What concerns one code asks one shard, so a shard's fault fails its own
//! codes only. A list asks all shards at once. An idempotency key, whose code
//! isn't known when it is looked up, has a slot of its own: a stable hash of
//! owner and key, so that a retry finds it on the same shard.

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

    async fn resolve(&self, code: &ShortCode) -> Result<Lookup, StoreError> {
        self.of_code(code).resolve(code).await
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
}
