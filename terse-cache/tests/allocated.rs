//! Holds the estimate of what links in memory take against what is allocated.
//! A binary of its own with one test, so that nothing else allocates meanwhile.

#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;

use async_trait::async_trait;
use terse_cache::{CacheConfig, ReadThrough, Stats};
use terse_core::ports::{LinkReader, Lookup, StoreError, Tier};
use terse_core::{Resolution, ShortCode};
use terse_testkit::{CountingAllocator, TestClock, links};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

/// Slots that the tables shall have, just below a power of two, up to which they grow by doubling, and just above one.
const SLOTS: [usize; 2] = [130_500, 133_000];
/// What the tables are allowed for a link: two slots, and the share of the table of hashes.
const SLOT_BYTES: usize = 2 * 72 + 9;

/// Knows a link for every code, with a target of so many bytes.
struct EveryCode(Resolution);

#[async_trait]
impl LinkReader for EveryCode {
    async fn resolve(&self, _: &ShortCode) -> Result<Lookup, StoreError> {
        // A target of its own, as a store makes it.
        let target = links::target(self.0.target.as_str());
        Ok(Lookup { link: Some(Resolution { target, ..self.0.clone() }), tier: Tier::Store })
    }
}

/// A cache that was asked for many more codes than it may keep, and what it takes.
async fn full(target_bytes: usize, max_links: usize, max_bytes: usize) -> (Stats, usize) {
    let before = ALLOCATOR.live_bytes();
    let target = links::target(&"x".repeat(target_bytes));
    let store = EveryCode(Resolution { target, ..links::resolution("abc", 1) });
    let config = CacheConfig { max_bytes: max_bytes as u64, max_links, ..CacheConfig::default() };
    let cache = ReadThrough::new(Arc::new(store), Arc::new(TestClock::default()), config);
    for n in 0..2 * max_links {
        cache.resolve(&links::code(&format!("c{n:06}"))).await.unwrap();
    }
    (cache.stats(), ALLOCATOR.live_bytes() - before)
}

#[tokio::test]
async fn a_full_cache_has_allocated_no_more_than_it_is_allowed_for_targets_of_any_length() {
    let targets = [(20, 32), (300, 320)];
    for (slots, (target_bytes, block_bytes)) in SLOTS.into_iter().flat_map(|slots| targets.map(|bytes| (slots, bytes)))
    {
        // Half as many as there are links were evicted and are still known, unless that takes more than an eighth.
        let link_bytes = SLOT_BYTES + block_bytes;
        let evicted_per_link = f64::min(0.5, link_bytes as f64 / 7.0 / SLOT_BYTES as f64);
        let links = (slots as f64 / (1.0 + evicted_per_link)) as usize;
        let max_bytes = links * link_bytes + (slots - links) * SLOT_BYTES;
        // What isn't the links': heat, codes without a link and the like.
        let (_, others) = full(target_bytes, links, 1_024).await;
        let (stats, took) = full(target_bytes, links, max_bytes).await;
        let took = took - others;
        assert!(stats.links > links * 95 / 100, "{stats:?}");
        // Full tables have no second slot for a link.
        let unused = if slots == SLOTS[0] { 72 * slots } else { 0 };
        let expected = (max_bytes - unused) * 97 / 100..=max_bytes * 101 / 100 - unused;
        assert!(expected.contains(&took), "{took} of {max_bytes} for {slots} slots, {stats:?}");
    }
}
