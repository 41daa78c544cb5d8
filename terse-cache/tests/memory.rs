//! Holds the estimate of what an entry takes against the process's real size.
//! with the server's allocator. A binary of its own with one test, so that nothing else moves that size.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use async_trait::async_trait;
use terse_cache::{CacheConfig, ReadThrough};
use terse_core::ShortCode;
use terse_core::ports::{LinkReader, Lookup, StoreError, Tier};
use terse_testkit::{TestClock, links};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Knows a link for every code, made when it is asked for.
struct EveryCode;

#[async_trait]
impl LinkReader for EveryCode {
    async fn resolve(&self, code: &ShortCode) -> Result<Lookup, StoreError> {
        let mut link = links::link(code.as_str()).resolution();
        link.target = links::target(&format!("https://example.com/some/longer/path/of/a/target/{code}"));
        Ok(Lookup { link: Some(link), tier: Tier::Store })
    }
}

/// Bytes of memory that the process holds.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1_024
}

#[tokio::test]
async fn a_full_cache_takes_about_the_bytes_it_is_allowed() {
    let max_bytes = 48 * 1_024 * 1_024;
    let config = CacheConfig { max_bytes, ..CacheConfig::default() };
    let cache = ReadThrough::new(Arc::new(EveryCode), Arc::new(TestClock::default()), config);
    cache.resolve(&links::code("first")).await.unwrap();
    let before = resident_bytes();
    for n in 0..400_000 {
        cache.resolve(&links::code(&format!("c{n}"))).await.unwrap();
    }
    let (grown, stats) = (resident_bytes() - before, cache.stats());
    let per_link = grown / stats.links as u64;
    // An eighth is for knowing those that were evicted again.
    assert!(stats.bytes <= max_bytes * 7 / 8 && stats.bytes > max_bytes * 8 / 10, "{stats:?}");
    assert!(grown < max_bytes * 11 / 10, "{grown} bytes grown, {per_link} per link, {stats:?}");
    assert!(grown > max_bytes * 6 / 10, "{grown} bytes grown, {per_link} per link: the estimate wastes memory");
}
