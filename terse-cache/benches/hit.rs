//! What a hit of the cache in process costs, and what links take in memory, with
//! the server's allocator: one hot code, and a million of them in no order.
//!
//! Argument: how many links (1,000,000 unless given; what cargo itself passes is ignored).
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use terse_cache::{CacheConfig, ReadThrough};
use terse_core::ports::{LinkReader, Lookup, StoreError, Tier};
use terse_core::{Clock, ShortCode, Timestamp};
use terse_testkit::links;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LINKS: usize = 1_000_000;
const HITS: usize = 5_000_000;
const ROUNDS: usize = 5;

/// Knows a link of 85 bytes for every code, made when it is asked for.
struct EveryCode;

#[async_trait]
impl LinkReader for EveryCode {
    async fn resolve(&self, code: &ShortCode) -> Result<Lookup, StoreError> {
        let mut link = links::link(code.as_str()).resolution();
        link.target = links::target(&format!("https://example.com/{:x>65}", code.as_str()));
        Ok(Lookup { link: Some(link), tier: Tier::Store })
    }
}

struct RealClock(Instant);

impl Clock for RealClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(0)
    }

    fn monotonic_ms(&self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }
}

fn resident_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1_024.0 / 1e6
}

/// The median of some rounds, in nanoseconds a hit.
fn ns_per_hit(mut hit: impl FnMut(usize)) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            (0..HITS).for_each(&mut hit);
            began.elapsed().as_nanos() as f64 / HITS as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

fn main() {
    let count = std::env::args().skip(1).find_map(|text| text.parse().ok()).unwrap_or(LINKS);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let config = CacheConfig { max_links: count, max_bytes: 512 * count as u64, ..CacheConfig::default() };
    let cache = ReadThrough::new(Arc::new(EveryCode), Arc::new(RealClock(Instant::now())), config);
    let before = resident_mb();
    // In the order of a permutation, as codes are made; and asked for in another.
    let code = |n: usize| format!("{:07}", n * 7_919 % 9_999_991);
    runtime.block_on(async {
        for n in 0..count {
            cache.resolve(&links::code(&code(n))).await.unwrap();
        }
    });
    let grown = resident_mb() - before;
    let stats = cache.stats();
    println!(
        "{} links: {grown:.1} MB more resident, {:.1} bytes a link",
        stats.links,
        grown * 1e6 / stats.links as f64
    );
    let hot = code(count / 2);
    println!("one hot code: {:.1} ns", ns_per_hit(|_| drop(black_box(cache.peek(black_box(&hot))))));
    println!("the same, told the time: {:.1} ns", ns_per_hit(|_| drop(black_box(cache.peek_at(black_box(&hot), 1)))));
    let asked: Vec<String> = (0..count).map(|n| code(n * 611_953 % count)).collect();
    let uniform = ns_per_hit(|n| drop(black_box(cache.peek_at(black_box(&asked[n % count]), 1))));
    println!("any of {count}: {uniform:.1} ns");
}
