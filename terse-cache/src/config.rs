//! What bounds the cache, and what it holds.

use std::time::Duration;

/// The cache's bounds. Each has a stated answer when it is hit.
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// Bytes that links in memory may take, with all overhead and the room that tables grow ahead of their need;
    /// beyond, the coldest are evicted. Up to an eighth of them is for knowing a link that was evicted when it comes
    /// back. What an allocator keeps to itself, some percent, comes on top.
    pub max_bytes: u64,
    /// Links in memory; beyond, the coldest are evicted.
    pub max_links: usize,
    /// Negative entries in memory; beyond, the coldest are evicted.
    pub max_negative: usize,
    /// How long a link is answered from memory at most; then it is read again.
    /// Each code's own limit is up to a tenth shorter, so that links that were
    /// loaded together don't expire together.
    pub fresh_for: Duration,
    /// How long "no such link" is answered from memory at most.
    pub negative_for: Duration,
    /// Answers in memory that the inner reader itself called stale; beyond, the coldest are evicted.
    pub max_outdated: usize,
    /// How long such an answer is repeated from memory, as stale; then the inner reader is asked again.
    pub outdated_for: Duration,
    /// Edited codes whose newest version is remembered beyond the link, so that
    /// no outdated answer undoes it; beyond, the coldest are evicted.
    pub max_least: usize,
    /// Codes that changed within half an hour whose least version is remembered;
    /// beyond, the one that changed longest ago is forgotten and the shared cache bypassed for half an hour.
    pub max_marked: usize,
    /// Marks that one read of a shard's changes may bring; with more, nothing
    /// remembered of the shard is fresh until they can be read.
    pub max_marks: usize,
    /// How long after its age limit a link is still served when it can't be read; then the failure is the answer.
    pub stale_for: Duration,
    /// How long one waits for a look-up; then it counts as failed.
    pub wait: Duration,
    /// How many wait for one flight; more are refused as overload.
    pub max_waiters: usize,
    /// How many flights run at once; more are refused as overload.
    pub max_flights: usize,
    /// How long after a write with an unknown outcome, or a mark of one that was
    /// announced, it is to be expected yet. As long, what is older isn't kept in memory; then for a second at a time.
    pub doubt_for: Duration,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            max_bytes: 128 * 1024 * 1024,
            max_links: 400_000,
            max_negative: 10_000,
            fresh_for: Duration::from_secs(30 * 60),
            negative_for: Duration::from_secs(1),
            max_outdated: 4_096,
            outdated_for: Duration::from_millis(500),
            max_least: 16_384,
            max_marked: 65_536,
            max_marks: 32_768,
            stale_for: Duration::from_secs(3_600),
            wait: Duration::from_secs(1),
            max_waiters: 20_000,
            max_flights: 4_096,
            doubt_for: Duration::from_secs(5),
        }
    }
}

/// What the cache holds at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Links in memory, fresh or not.
    pub links: usize,
    /// Bytes that they take, by estimate, without what is known of evicted ones.
    pub bytes: u64,
    /// Codes that changed within half an hour whose least version is remembered.
    pub marked: usize,
    /// Reads of changes that there were too many of, since the start.
    pub overflows: u64,
    /// How often the shared cache began to be bypassed, since the start.
    pub bypasses: u64,
    /// Whether it is bypassed now.
    pub bypassed: bool,
    /// Look-ups that are running.
    pub flights: usize,
}
