//! The ports on [`SqliteStore`]: each method hands owned copies of its
//! arguments to a store thread.

use std::ops::Range;

use async_trait::async_trait;
use terse_core::cursor::Cursor;
use terse_core::ports::{
    AttemptId, IdempotencyRecord, IdempotencyStore, Insert, KeyStore, Lease, LeaseStore, LinkCatalog, LinkChange,
    LinkReader, LinkWriter, Lookup, SettingsStore, StoreError, StoreErrorKind, StoreHealth, Tier, Update,
};
use terse_core::{ApiKey, KeyId, Link, Owner, ShortCode, Timestamp, Version};

use super::{SqliteStore, reads, writes};
use crate::operation::Operation;

#[async_trait]
impl LinkReader for SqliteStore {
    async fn resolve(&self, code: &ShortCode) -> Result<Lookup, StoreError> {
        let code = code.clone();
        let link = self.read(Operation::Resolve, move |connection| reads::resolve(connection, &code)).await?;
        Ok(Lookup { link, tier: Tier::Store })
    }
}

#[async_trait]
impl LinkWriter for SqliteStore {
    async fn insert_if_absent(&self, link: &Link, attempt: AttemptId) -> Result<Insert, StoreError> {
        let link = link.clone();
        self.write(Operation::Insert, move |connection| writes::insert_if_absent(connection, &link, attempt)).await
    }

    async fn update(&self, code: &ShortCode, expected: Version, change: &LinkChange) -> Result<Update, StoreError> {
        let (code, change) = (code.clone(), change.clone());
        self.write(Operation::Update, move |connection| writes::update(connection, &code, expected, &change)).await
    }
}

#[async_trait]
impl LinkCatalog for SqliteStore {
    async fn get(&self, code: &ShortCode) -> Result<Option<Link>, StoreError> {
        let code = code.clone();
        self.read(Operation::Get, move |connection| reads::get(connection, &code)).await
    }

    async fn list(&self, owner: &Owner, after: Option<&Cursor>, limit: usize) -> Result<Vec<Link>, StoreError> {
        let (owner, after) = (owner.clone(), after.cloned());
        self.read(Operation::List, move |connection| reads::list(connection, &owner, after.as_ref(), limit)).await
    }
}

#[async_trait]
impl IdempotencyStore for SqliteStore {
    async fn find_key(&self, owner: &Owner, key: &str) -> Result<Option<IdempotencyRecord>, StoreError> {
        let (owner, key) = (owner.clone(), key.to_owned());
        self.read(Operation::FindKey, move |connection| reads::find_key(connection, &owner, &key)).await
    }

    async fn claim_key(
        &self,
        owner: &Owner,
        key: &str,
        record: &IdempotencyRecord,
        expired_before: Timestamp,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        let (owner, key, record) = (owner.clone(), key.to_owned(), record.clone());
        self.write(Operation::ClaimKey, move |connection| {
            writes::claim_key(connection, &owner, &key, &record, expired_before)
        })
        .await
    }

    async fn replace_key(
        &self,
        owner: &Owner,
        key: &str,
        expected: AttemptId,
        record: &IdempotencyRecord,
    ) -> Result<bool, StoreError> {
        let (owner, key, record) = (owner.clone(), key.to_owned(), record.clone());
        self.write(Operation::ReplaceKey, move |connection| {
            writes::replace_key(connection, &owner, &key, expected, &record)
        })
        .await
    }

    async fn purge_keys(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.write(Operation::PurgeKeys, move |connection| writes::purge_keys(connection, before, limit)).await
    }
}

#[async_trait]
impl SettingsStore for SqliteStore {
    async fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let name = name.to_owned();
        self.read(Operation::Setting, move |connection| reads::setting(connection, &name)).await
    }

    async fn settle(&self, name: &str, value: &[u8]) -> Result<Vec<u8>, StoreError> {
        let (name, value) = (name.to_owned(), value.to_vec());
        self.write(Operation::Settle, move |connection| writes::settle(connection, &name, &value)).await
    }

    async fn forget(&self, name: &str) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.file.erase(Operation::Forget.as_str(), move |connection| writes::forget(connection, &name)).await
    }

    async fn names(&self, prefix: &str, limit: usize) -> Result<Vec<String>, StoreError> {
        let prefix = prefix.to_owned();
        self.read(Operation::Names, move |connection| reads::names(connection, &prefix, limit)).await
    }
}

#[async_trait]
impl LeaseStore for SqliteStore {
    async fn lease(&self, counter: &str, size: u64, holder: &str, at: Timestamp) -> Result<Range<u64>, StoreError> {
        let (counter, holder) = (counter.to_owned(), Lease::holder_text(holder).to_owned());
        self.write(Operation::Lease, move |connection| writes::lease(connection, &counter, size, &holder, at)).await
    }

    async fn leases(&self, counter: &str, from: u64, limit: usize) -> Result<Vec<Lease>, StoreError> {
        let counter = counter.to_owned();
        self.read(Operation::Leases, move |connection| reads::leases(connection, &counter, from, limit)).await
    }
}

#[async_trait]
impl KeyStore for SqliteStore {
    async fn add_key(&self, key: &ApiKey) -> Result<(), StoreError> {
        let key = key.clone();
        self.write(Operation::AddKey, move |connection| writes::add_key(connection, &key)).await
    }

    async fn keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        self.read(Operation::Keys, reads::keys).await
    }

    async fn revoke_key(&self, id: &KeyId, at: Timestamp) -> Result<bool, StoreError> {
        let id = id.clone();
        self.write(Operation::RevokeKey, move |connection| writes::revoke_key(connection, &id, at)).await
    }

    async fn keys_revision(&self) -> Result<u64, StoreError> {
        self.read(Operation::KeysRevision, reads::keys_revision).await
    }
}

#[async_trait]
impl StoreHealth for SqliteStore {
    async fn check(&self) -> Vec<(String, Result<(), StoreError>)> {
        let health = if self.file.writer.is_open() {
            self.read(Operation::Check, reads::check).await
        } else {
            Err(StoreError::new(StoreErrorKind::Unavailable, "the writer has ended"))
        };
        vec![(self.shard.clone(), health)]
    }

    async fn check_writes(&self, doubts: bool) -> Vec<(String, StoreError)> {
        if !doubts && !self.file.writes_fail() {
            return Vec::new();
        }
        let tried = self.write(Operation::Check, writes::touch).await;
        tried.err().map(|error| (self.shard.clone(), error)).into_iter().collect()
    }
}
