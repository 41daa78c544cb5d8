//! The ports on [`Guarded`]: which guard each method passes.

use std::ops::Range;

use async_trait::async_trait;
use terse_core::cursor::Cursor;
use terse_core::ports::{
    AttemptId, ChangeFeed, ChangeMarks, IdempotencyRecord, IdempotencyStore, Insert, KeyStore, Lease, LeaseStore,
    LinkCatalog, LinkChange, LinkReader, LinkWriter, Lookup, MarkPlace, SettingsStore, StoreError, StoreErrorKind,
    StoreHealth, Update,
};
use terse_core::{ApiKey, KeyId, Link, Owner, ShortCode, Timestamp, Version};
use terse_resilience::State;

use super::Guarded;
use super::lane::{Ended, within};
use crate::operation::Operation;

#[async_trait]
impl<S: LinkReader + ?Sized> LinkReader for Guarded<S> {
    /// Passes straight through: it does no I/O.
    fn peek(&self, code: &str) -> Option<Lookup> {
        self.inner.peek(code)
    }

    async fn resolve(&self, code: &ShortCode) -> Result<Lookup, StoreError> {
        self.redirect(Operation::Resolve, || self.inner.resolve(code)).await
    }

    async fn refresh(&self, code: &ShortCode) -> Result<Lookup, StoreError> {
        self.refreshing()?;
        self.redirect(Operation::Resolve, || self.inner.refresh(code)).await
    }
}

#[async_trait]
impl<S: LinkWriter + ?Sized> LinkWriter for Guarded<S> {
    async fn insert_if_absent(&self, link: &Link, attempt: AttemptId) -> Result<Insert, StoreError> {
        self.edit(Operation::Insert, || self.inner.insert_if_absent(link, attempt)).await
    }

    async fn update(&self, code: &ShortCode, expected: Version, change: &LinkChange) -> Result<Update, StoreError> {
        self.edit(Operation::Update, || self.inner.update(code, expected, change)).await
    }
}

#[async_trait]
impl<S: LinkCatalog + ?Sized> LinkCatalog for Guarded<S> {
    async fn get(&self, code: &ShortCode) -> Result<Option<Link>, StoreError> {
        self.look(Operation::Get, || self.inner.get(code)).await
    }

    async fn list(&self, owner: &Owner, after: Option<&Cursor>, limit: usize) -> Result<Vec<Link>, StoreError> {
        self.look(Operation::List, || self.inner.list(owner, after, limit)).await
    }
}

#[async_trait]
impl<S: IdempotencyStore + ?Sized> IdempotencyStore for Guarded<S> {
    async fn find_key(&self, owner: &Owner, key: &str) -> Result<Option<IdempotencyRecord>, StoreError> {
        self.catalog(Operation::FindKey, || self.inner.find_key(owner, key)).await
    }

    async fn claim_key(
        &self,
        owner: &Owner,
        key: &str,
        record: &IdempotencyRecord,
        expired_before: Timestamp,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        self.edit(Operation::ClaimKey, || self.inner.claim_key(owner, key, record, expired_before)).await
    }

    async fn replace_key(
        &self,
        owner: &Owner,
        key: &str,
        expected: AttemptId,
        record: &IdempotencyRecord,
    ) -> Result<bool, StoreError> {
        self.write(Operation::ReplaceKey, || self.inner.replace_key(owner, key, expected, record)).await
    }

    async fn purge_keys(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.upkeep(Operation::PurgeKeys, || self.inner.purge_keys(before, limit)).await
    }
}

#[async_trait]
impl<S: SettingsStore + ?Sized> SettingsStore for Guarded<S> {
    async fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.catalog(Operation::Setting, || self.inner.setting(name)).await
    }

    async fn settle(&self, name: &str, value: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.write(Operation::Settle, || self.inner.settle(name, value)).await
    }

    async fn forget(&self, name: &str) -> Result<(), StoreError> {
        self.write(Operation::Forget, || self.inner.forget(name)).await
    }

    async fn names(&self, prefix: &str, limit: usize) -> Result<Vec<String>, StoreError> {
        self.catalog(Operation::Names, || self.inner.names(prefix, limit)).await
    }
}

#[async_trait]
impl<S: LeaseStore + ?Sized> LeaseStore for Guarded<S> {
    async fn lease(&self, counter: &str, size: u64, holder: &str, at: Timestamp) -> Result<Range<u64>, StoreError> {
        self.write(Operation::Lease, || self.inner.lease(counter, size, holder, at)).await
    }

    async fn leases(&self, counter: &str, from: u64, limit: usize) -> Result<Vec<Lease>, StoreError> {
        self.catalog(Operation::Leases, || self.inner.leases(counter, from, limit)).await
    }
}

#[async_trait]
impl<S: KeyStore + ?Sized> KeyStore for Guarded<S> {
    async fn add_key(&self, key: &ApiKey) -> Result<(), StoreError> {
        self.write(Operation::AddKey, || self.inner.add_key(key)).await
    }

    async fn keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        self.catalog(Operation::Keys, || self.inner.keys()).await
    }

    async fn revoke_key(&self, id: &KeyId, at: Timestamp) -> Result<bool, StoreError> {
        self.write(Operation::RevokeKey, || self.inner.revoke_key(id, at)).await
    }

    async fn keys_revision(&self) -> Result<u64, StoreError> {
        self.catalog(Operation::KeysRevision, || self.inner.keys_revision()).await
    }
}

#[async_trait]
impl<S: ChangeFeed + ?Sized> ChangeFeed for Guarded<S> {
    async fn marks(
        &self,
        from: Timestamp,
        until: Timestamp,
        after: Option<MarkPlace>,
        limit: usize,
    ) -> Result<ChangeMarks, StoreError> {
        self.poll(|| self.inner.marks(from, until, after, limit)).await
    }
}

#[async_trait]
impl<S: StoreHealth + ?Sized> StoreHealth for Guarded<S> {
    /// A shard whose reads are rejected is down, whatever it would answer: nobody asks it. A look at health takes a probe
    /// then, so that a server to which nobody is sent while it is down hears that the shard is back.
    async fn check(&self) -> Vec<(String, Result<(), StoreError>)> {
        let permit = match self.read.breaker.state() {
            State::Closed => None,
            _ => match self.read.lenient_permit() {
                Ok(permit) => Some(permit),
                Err(rejected) => return vec![(self.shard.clone(), Err(rejected))],
            },
        };
        let _timer = self.timings.start(Operation::Check);
        let checked = tokio::time::timeout(self.check_timeout, self.inner.check()).await;
        let checked = checked.unwrap_or_else(|_| vec![(self.shard.clone(), Err(self.no_answer()))]);
        if let Some(permit) = permit
            && checked.iter().all(|(_, health)| health.is_ok())
        {
            permit.success();
        }
        checked
    }

    /// A shard whose writes are rejected takes none; once they aren't, one is tried. That it succeeds counts. That it
    /// doesn't is told, and counts for nothing: a look has less time than a write, and must not reject those of clients.
    async fn check_writes(&self, doubts: bool) -> Vec<(String, StoreError)> {
        let permit = match self.write.breaker.state() {
            State::Closed => None,
            _ => match self.write.lenient_permit() {
                Ok(permit) => Some(permit),
                Err(rejected) => return vec![(self.shard.clone(), rejected)],
            },
        };
        let doubts = doubts || permit.is_some();
        let tried = within(self.check_timeout, async {
            let failed = self.inner.check_writes(doubts).await;
            failed.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
        });
        let tried = tried.await;
        if let (Some(permit), Ended::Answered(Ok(()))) = (permit, &tried) {
            permit.success();
        }
        let failed = tried.answer(StoreErrorKind::UnknownOutcome, self.check_timeout).err();
        failed.map(|error| (self.shard.clone(), error)).into_iter().collect()
    }
}

impl<S: ?Sized> Guarded<S> {
    fn no_answer(&self) -> StoreError {
        let text = format!("no answer within {} ms", self.check_timeout.as_millis());
        StoreError::new(StoreErrorKind::Unavailable, text)
    }
}
