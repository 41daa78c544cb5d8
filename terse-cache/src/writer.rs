//! The ring around the writer that keeps memory in step with what is written.

use std::sync::Arc;

use async_trait::async_trait;
use terse_core::ports::{AttemptId, Insert, LinkChange, LinkWriter, StoreError, StoreErrorKind, Update};
use terse_core::{Link, Resolution, ShortCode, Version};
use tokio::time::timeout;

use crate::flight::WriteBegin;
use crate::read_through::Change;
use crate::shared::EVERY_VERSION_IS_OLDER;
use crate::{ReadThrough, SharedCache};

/// Passes writes on, and brings the cache in step before their answer is known
/// to the caller, also when the caller goes away meanwhile.
///
/// A failed edit that certainly did not happen leaves the link in memory for
/// the case that it can't be read, but has it read again first. An edit that
/// may have happened does not.
pub struct CachedWriter {
    inner: Arc<dyn LinkWriter>,
    cache: Arc<ReadThrough>,
}

impl CachedWriter {
    /// A ring around `inner` that keeps `cache` in step. Every write of this process must go through it.
    #[must_use]
    pub fn new(inner: Arc<dyn LinkWriter>, cache: Arc<ReadThrough>) -> Self {
        Self { inner, cache }
    }
}

/// A write that is going on. However it ends, its drop brings memory in step.
struct Writing<'a> {
    cache: &'a ReadThrough,
    code: &'a ShortCode,
    begin: WriteBegin,
    began_ms: u64,
    /// What to make of it when it is dropped. Until its outcome is known that
    /// is the worst case: the caller went away, the write may happen nevertheless.
    change: Change,
}

impl<'a> Writing<'a> {
    fn begin(cache: &'a ReadThrough, code: &'a ShortCode, unless_it_ends: Change) -> Self {
        let (begin, began_ms) = (cache.write_begins(code), cache.clock().monotonic_ms());
        Self { cache, code, begin, began_ms, change: unless_it_ends }
    }

    /// Ends the write: the shared cache hears of it first, then memory is
    /// brought in step, also if the caller goes away in between.
    async fn end(mut self, change: Change) {
        self.change = change;
        if let Some(shared) = self.cache.shared() {
            // It bounds itself; but the writer's patience isn't in its hands.
            let _ = timeout(self.cache.wait, self.tell(shared)).await;
        }
    }

    async fn tell(&self, shared: &dyn SharedCache) {
        match &self.change {
            Change::Now(link) if link.version > Version::FIRST => self.share(shared, link).await,
            Change::Other(version) | Change::InDoubt(version) => shared.drop_older(self.code, *version).await,
            Change::Unknown => shared.drop_older(self.code, EVERY_VERSION_IS_OLDER).await,
            // It never has anything of a code without a link, and nothing older than the first version.
            Change::Now(_) | Change::MayExist | Change::Nothing => {}
        }
    }
}

impl Writing<'_> {
    /// Shares what a write made, unless that took so long that it may be outdated itself.
    async fn share(&self, shared: &dyn SharedCache, link: &Resolution) {
        if self.cache.may_share(self.began_ms) {
            shared.put(self.code, link).await;
        } else {
            shared.drop_older(self.code, link.version).await;
        }
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let change = std::mem::replace(&mut self.change, Change::Unknown);
        self.cache.write_ends(self.code, self.begin, change);
    }
}

#[async_trait]
impl LinkWriter for CachedWriter {
    async fn insert_if_absent(&self, link: &Link, attempt: AttemptId) -> Result<Insert, StoreError> {
        // An insert never touches a link that exists: whatever goes wrong, only "no such link" has to be forgotten.
        let writing = Writing::begin(&self.cache, &link.code, Change::MayExist);
        let outcome = self.inner.insert_if_absent(link, attempt).await;
        let ended = writing.end(match &outcome {
            Ok(Insert::Created) => Change::Now(link.resolution()),
            Ok(Insert::Taken { .. }) | Err(_) => Change::MayExist,
        });
        ended.await;
        outcome
    }

    async fn update(&self, code: &ShortCode, expected: Version, change: &LinkChange) -> Result<Update, StoreError> {
        let writing = Writing::begin(&self.cache, code, Change::InDoubt(expected.next()));
        let outcome = self.inner.update(code, expected, change).await;
        let ended = writing.end(match &outcome {
            Ok(Update::Updated(link)) => Change::Now(link.resolution()),
            Ok(Update::Conflict { current }) => Change::Other(*current),
            Ok(Update::NotFound) => Change::Unknown,
            Err(error) => match error.kind {
                StoreErrorKind::Unavailable | StoreErrorKind::Overloaded => Change::Nothing,
                StoreErrorKind::UnknownOutcome => Change::InDoubt(expected.next()),
                StoreErrorKind::Corrupt => Change::Unknown,
            },
        });
        ended.await;
        outcome
    }
}
