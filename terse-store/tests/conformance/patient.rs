//! A store whose cluster is busy, asked again.
//!
//! A node gives a read half a second and a write one; three of them on one core
//! may need more. What the store says then is right: it is unavailable, and
//! nothing has happened. The suite is about what is answered in the end, so
//! such a call is made again. Had it happened nevertheless, the suite would see
//! the second call answered as one that came too late.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use terse_core::cursor::Cursor;
use terse_core::ports::{
    AttemptId, IdempotencyRecord, IdempotencyStore, Insert, KeyStore, Lease, LeaseStore, LinkCatalog, LinkChange,
    LinkReader, LinkWriter, Lookup, SettingsStore, StoreError, StoreErrorKind, StoreHealth, Tier, Update,
};
use terse_core::{ApiKey, KeyId, Link, Owner, ShortCode, Timestamp, Version};
use terse_store::CqlStore;

/// How long a call that is refused is made again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two of its tries.
const PAUSE: Duration = Duration::from_millis(100);

/// A store that is asked again while it is unavailable.
pub(crate) struct Patient(pub(crate) Arc<CqlStore>);

async fn patiently<T, F>(call: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        match call().await {
            Err(error) if is_away(&error) && Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
            ended => return ended,
        }
    }
}

/// Whether another try may find the cluster less busy; what it has answered stands.
fn is_away(error: &StoreError) -> bool {
    error.kind == StoreErrorKind::Unavailable && !error.answered
}

#[async_trait]
impl LinkReader for Patient {
    /// What one replica says is told as stale, and the suite asks for what a quorum says.
    async fn resolve(&self, code: &ShortCode) -> Result<Lookup, StoreError> {
        patiently(async || match self.0.resolve(code).await? {
            Lookup { tier: Tier::Stale, .. } => Err(StoreError::new(StoreErrorKind::Unavailable, "no quorum in time")),
            lookup => Ok(lookup),
        })
        .await
    }
}

#[async_trait]
impl LinkWriter for Patient {
    async fn insert_if_absent(&self, link: &Link, attempt: AttemptId) -> Result<Insert, StoreError> {
        patiently(|| self.0.insert_if_absent(link, attempt)).await
    }

    async fn update(&self, code: &ShortCode, expected: Version, change: &LinkChange) -> Result<Update, StoreError> {
        patiently(|| self.0.update(code, expected, change)).await
    }
}

#[async_trait]
impl LinkCatalog for Patient {
    async fn get(&self, code: &ShortCode) -> Result<Option<Link>, StoreError> {
        patiently(|| self.0.get(code)).await
    }

    async fn list(&self, owner: &Owner, after: Option<&Cursor>, limit: usize) -> Result<Vec<Link>, StoreError> {
        patiently(|| self.0.list(owner, after, limit)).await
    }
}

#[async_trait]
impl IdempotencyStore for Patient {
    async fn find_key(&self, owner: &Owner, key: &str) -> Result<Option<IdempotencyRecord>, StoreError> {
        patiently(|| self.0.find_key(owner, key)).await
    }

    async fn claim_key(
        &self,
        owner: &Owner,
        key: &str,
        record: &IdempotencyRecord,
        expired_before: Timestamp,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        patiently(|| self.0.claim_key(owner, key, record, expired_before)).await
    }

    async fn replace_key(
        &self,
        owner: &Owner,
        key: &str,
        expected: AttemptId,
        record: &IdempotencyRecord,
    ) -> Result<bool, StoreError> {
        patiently(|| self.0.replace_key(owner, key, expected, record)).await
    }

    async fn purge_keys(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        patiently(|| self.0.purge_keys(before, limit)).await
    }
}

#[async_trait]
impl SettingsStore for Patient {
    async fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        patiently(|| self.0.setting(name)).await
    }

    async fn settle(&self, name: &str, value: &[u8]) -> Result<Vec<u8>, StoreError> {
        patiently(|| self.0.settle(name, value)).await
    }

    async fn forget(&self, name: &str) -> Result<(), StoreError> {
        patiently(|| self.0.forget(name)).await
    }

    async fn names(&self, prefix: &str, limit: usize) -> Result<Vec<String>, StoreError> {
        patiently(|| self.0.names(prefix, limit)).await
    }
}

#[async_trait]
impl LeaseStore for Patient {
    async fn lease(&self, counter: &str, size: u64, holder: &str, at: Timestamp) -> Result<Range<u64>, StoreError> {
        patiently(|| self.0.lease(counter, size, holder, at)).await
    }

    async fn leases(&self, counter: &str, from: u64, limit: usize) -> Result<Vec<Lease>, StoreError> {
        patiently(|| self.0.leases(counter, from, limit)).await
    }
}

#[async_trait]
impl KeyStore for Patient {
    /// Once: "unavailable" is also the answer to an id that is taken.
    async fn add_key(&self, key: &ApiKey) -> Result<(), StoreError> {
        self.0.add_key(key).await
    }

    async fn keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        patiently(|| self.0.keys()).await
    }

    async fn revoke_key(&self, id: &KeyId, at: Timestamp) -> Result<bool, StoreError> {
        patiently(|| self.0.revoke_key(id, at)).await
    }

    async fn keys_revision(&self) -> Result<u64, StoreError> {
        patiently(|| self.0.keys_revision()).await
    }
}

#[async_trait]
impl StoreHealth for Patient {
    async fn check_writes(&self, doubts: bool) -> Vec<(String, StoreError)> {
        self.0.check_writes(doubts).await
    }

    async fn check(&self) -> Vec<(String, Result<(), StoreError>)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let health = self.0.check().await;
            if health.iter().all(|(_, state)| state.is_ok()) || Instant::now() >= deadline {
                return health;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
