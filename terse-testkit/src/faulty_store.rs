//! A ring around a store that lets its calls go wrong on schedule.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use terse_core::cursor::Cursor;
use terse_core::ports::{
    AttemptId, IdempotencyRecord, IdempotencyStore, Insert, KeyStore, Lease, LeaseStore, LinkCatalog, LinkChange,
    LinkReader, LinkWriter, Lookup, SettingsStore, StoreError, StoreHealth, Update,
};
use terse_core::{ApiKey, KeyId, Link, Owner, ShortCode, Timestamp, Version};

use crate::{Faults, Operation};

/// Wraps `S` and implements those storage ports that `S` does. `peek` passes
/// through uncounted: it does no I/O that could fail.
pub struct FaultyStore<S: ?Sized> {
    inner: Arc<S>,
    /// What goes wrong, and how often each operation was called.
    pub faults: Faults,
}

impl<S: ?Sized> FaultyStore<S> {
    /// A ring around `inner`, with nothing going wrong yet.
    #[must_use]
    pub fn new(inner: Arc<S>) -> Self {
        Self { inner, faults: Faults::default() }
    }

    /// The wrapped store, for what a test prepares or checks without faults.
    #[must_use]
    pub fn inner(&self) -> &Arc<S> {
        &self.inner
    }
}

#[async_trait]
impl<S: LinkReader + ?Sized> LinkReader for FaultyStore<S> {
    fn peek(&self, code: &str) -> Option<Lookup> {
        self.inner.peek(code)
    }

    async fn resolve(&self, code: &ShortCode) -> Result<Lookup, StoreError> {
        self.faults.apply(Operation::Resolve, self.inner.resolve(code)).await
    }

    async fn refresh(&self, code: &ShortCode) -> Result<Lookup, StoreError> {
        self.faults.apply(Operation::Resolve, self.inner.refresh(code)).await
    }
}

#[async_trait]
impl<S: LinkWriter + ?Sized> LinkWriter for FaultyStore<S> {
    async fn insert_if_absent(&self, link: &Link, attempt: AttemptId) -> Result<Insert, StoreError> {
        self.faults.apply(Operation::InsertIfAbsent, self.inner.insert_if_absent(link, attempt)).await
    }

    async fn update(&self, code: &ShortCode, expected: Version, change: &LinkChange) -> Result<Update, StoreError> {
        self.faults.apply(Operation::Update, self.inner.update(code, expected, change)).await
    }
}

#[async_trait]
impl<S: LinkCatalog + ?Sized> LinkCatalog for FaultyStore<S> {
    async fn get(&self, code: &ShortCode) -> Result<Option<Link>, StoreError> {
        self.faults.apply(Operation::Get, self.inner.get(code)).await
    }

    async fn list(&self, owner: &Owner, after: Option<&Cursor>, limit: usize) -> Result<Vec<Link>, StoreError> {
        self.faults.apply(Operation::List, self.inner.list(owner, after, limit)).await
    }
}

#[async_trait]
impl<S: IdempotencyStore + ?Sized> IdempotencyStore for FaultyStore<S> {
    async fn find_key(&self, owner: &Owner, key: &str) -> Result<Option<IdempotencyRecord>, StoreError> {
        self.faults.apply(Operation::FindKey, self.inner.find_key(owner, key)).await
    }

    async fn claim_key(
        &self,
        owner: &Owner,
        key: &str,
        record: &IdempotencyRecord,
        expired_before: Timestamp,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        self.faults.apply(Operation::ClaimKey, self.inner.claim_key(owner, key, record, expired_before)).await
    }

    async fn replace_key(
        &self,
        owner: &Owner,
        key: &str,
        expected: AttemptId,
        record: &IdempotencyRecord,
    ) -> Result<bool, StoreError> {
        self.faults.apply(Operation::ReplaceKey, self.inner.replace_key(owner, key, expected, record)).await
    }

    async fn purge_keys(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.faults.apply(Operation::PurgeKeys, self.inner.purge_keys(before, limit)).await
    }
}

#[async_trait]
impl<S: SettingsStore + ?Sized> SettingsStore for FaultyStore<S> {
    async fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.faults.apply(Operation::Setting, self.inner.setting(name)).await
    }

    async fn settle(&self, name: &str, value: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.faults.apply(Operation::Settle, self.inner.settle(name, value)).await
    }

    async fn forget(&self, name: &str) -> Result<(), StoreError> {
        self.faults.apply(Operation::Forget, self.inner.forget(name)).await
    }

    async fn names(&self, prefix: &str, limit: usize) -> Result<Vec<String>, StoreError> {
        self.faults.apply(Operation::Names, self.inner.names(prefix, limit)).await
    }
}

#[async_trait]
impl<S: LeaseStore + ?Sized> LeaseStore for FaultyStore<S> {
    async fn lease(&self, counter: &str, size: u64, holder: &str, at: Timestamp) -> Result<Range<u64>, StoreError> {
        self.faults.apply(Operation::Lease, self.inner.lease(counter, size, holder, at)).await
    }

    async fn leases(&self, counter: &str, from: u64, limit: usize) -> Result<Vec<Lease>, StoreError> {
        self.faults.apply(Operation::Leases, self.inner.leases(counter, from, limit)).await
    }
}

#[async_trait]
impl<S: KeyStore + ?Sized> KeyStore for FaultyStore<S> {
    async fn add_key(&self, key: &ApiKey) -> Result<(), StoreError> {
        self.faults.apply(Operation::AddKey, self.inner.add_key(key)).await
    }

    async fn keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        self.faults.apply(Operation::Keys, self.inner.keys()).await
    }

    async fn revoke_key(&self, id: &KeyId, at: Timestamp) -> Result<bool, StoreError> {
        self.faults.apply(Operation::RevokeKey, self.inner.revoke_key(id, at)).await
    }

    async fn keys_revision(&self) -> Result<u64, StoreError> {
        self.faults.apply(Operation::KeysRevision, self.inner.keys_revision()).await
    }
}

#[async_trait]
impl<S: StoreHealth + ?Sized> StoreHealth for FaultyStore<S> {
    /// A fault shows as one failing shard named `faulty`; with writes, as all shards failing.
    async fn check(&self) -> Vec<(String, Result<(), StoreError>)> {
        let work = async { Ok(self.inner.check().await) };
        match self.faults.apply(Operation::Check, work).await {
            Ok(shards) => shards,
            Err(error) => vec![("faulty".to_owned(), Err(error))],
        }
    }

    async fn check_writes(&self, doubts: bool) -> Vec<(String, StoreError)> {
        let work = async { Ok(self.inner.check_writes(doubts).await) };
        match self.faults.apply(Operation::CheckWrites, work).await {
            Ok(shards) => shards,
            Err(error) => self.inner.check().await.into_iter().map(|(shard, _)| (shard, error.clone())).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures_util::FutureExt;
    use terse_core::ports::StoreErrorKind;

    use super::*;
    use crate::{Fault, When};

    /// Leases that really count, and a store that is well.
    #[derive(Default)]
    struct Counter(AtomicU64);

    #[async_trait]
    impl LeaseStore for Counter {
        async fn lease(&self, _: &str, size: u64, _: &str, _: Timestamp) -> Result<Range<u64>, StoreError> {
            let start = self.0.fetch_add(size, Ordering::SeqCst);
            Ok(start..start + size)
        }

        /// All that was leased, as one record.
        async fn leases(&self, _: &str, _: u64, limit: usize) -> Result<Vec<Lease>, StoreError> {
            let ids = 0..self.0.load(Ordering::SeqCst);
            Ok([Lease { ids, holder: HOLDER.to_owned(), leased_at: AT }].into_iter().take(limit).collect())
        }
    }

    #[async_trait]
    impl StoreHealth for Counter {
        async fn check(&self) -> Vec<(String, Result<(), StoreError>)> {
            vec![("main".to_owned(), Ok(()))]
        }

        async fn check_writes(&self, _: bool) -> Vec<(String, StoreError)> {
            Vec::new()
        }
    }

    const HOLDER: &str = "web1";
    const AT: Timestamp = Timestamp::from_millis(7_000);

    fn lease(store: &FaultyStore<Counter>) -> Result<Range<u64>, StoreErrorKind> {
        store.lease("codes", 10, HOLDER, AT).now_or_never().unwrap().map_err(|error| error.kind)
    }

    #[test]
    fn calls_pass_through_and_are_counted() {
        let store = FaultyStore::new(Arc::new(Counter::default()));
        assert_eq!(lease(&store), Ok(0..10));
        assert_eq!(lease(&store), Ok(10..20));
        assert_eq!(store.faults.calls(Operation::Lease), 2);
    }

    #[test]
    fn a_lost_lease_has_been_handed_out() {
        let store = FaultyStore::new(Arc::new(Counter::default()));
        store.faults.add(Operation::Lease, When::Nth(1), Fault::LoseAnswer);
        assert_eq!(lease(&store), Err(StoreErrorKind::UnknownOutcome));
        assert_eq!(lease(&store), Ok(10..20));
        assert_eq!(store.inner().0.load(Ordering::SeqCst), 20);
    }

    #[test]
    fn a_refused_lease_has_not() {
        let store = FaultyStore::new(Arc::new(Counter::default()));
        store.faults.add(Operation::Lease, When::Nth(1), Fault::Fail(StoreErrorKind::Unavailable));
        assert_eq!(lease(&store), Err(StoreErrorKind::Unavailable));
        assert_eq!(lease(&store), Ok(0..10));
    }

    #[test]
    fn a_read_of_leases_can_fail_too() {
        let store = FaultyStore::new(Arc::new(Counter::default()));
        lease(&store).unwrap();
        let read = || store.leases("codes", 0, 5).now_or_never().unwrap();
        assert_eq!(read().unwrap(), [Lease { ids: 0..10, holder: HOLDER.to_owned(), leased_at: AT }]);
        store.faults.add(Operation::Leases, When::Every, Fault::Fail(StoreErrorKind::Unavailable));
        assert_eq!(read().unwrap_err().kind, StoreErrorKind::Unavailable);
    }

    #[test]
    fn a_fault_of_the_check_is_a_failing_shard() {
        let store = FaultyStore::new(Arc::new(Counter::default()));
        assert!(store.check().now_or_never().unwrap()[0].1.is_ok());
        store.faults.add(Operation::Check, When::Every, Fault::Fail(StoreErrorKind::Unavailable));
        assert!(store.check().now_or_never().unwrap()[0].1.is_err());
    }

    #[test]
    fn a_port_behind_a_pointer_can_be_wrapped() {
        let inner: Arc<dyn LeaseStore> = Arc::new(Counter::default());
        let store = FaultyStore::new(inner);
        assert_eq!(store.lease("codes", 3, HOLDER, AT).now_or_never().unwrap().unwrap(), 0..3);
    }
}
