//! The cache that nodes share (L2), as the ring sees it.
//!
//! It may be absent, slow, or hold anything that ever was true: nothing that it
//! says is taken without a look at the least version of the code, and a fault
//! of it is a miss. So no method fails.

use async_trait::async_trait;
use terse_core::{Resolution, ShortCode, Version};

/// A cache that other nodes fill too. Every method is bounded in time.
#[async_trait]
pub trait SharedCache: Send + Sync + 'static {
    /// What it has of `code`; `None` for a miss and for any fault.
    async fn get(&self, code: &ShortCode) -> Option<Resolution>;

    /// Keeps `link`, unless it has a newer version.
    async fn put(&self, code: &ShortCode, link: &Resolution);

    /// Removes what it has of `code` if that is older than `least`.
    async fn drop_older(&self, code: &ShortCode, least: Version);
}

/// Above every version that is ever reached: no link is as new.
pub(crate) const EVERY_VERSION_IS_OLDER: Version = Version(i64::MAX as u64);
