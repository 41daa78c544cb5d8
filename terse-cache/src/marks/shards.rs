//! Which shards have a feed to poll, and how lately each was polled.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use terse_core::ShortCode;

use super::FRESH_FOR_MS;

/// A shard's number, as an entry keeps it.
pub(crate) type ShardNumber = u16;

/// The number of no shard: what it is on is never fresh.
pub(crate) const NO_SHARD: ShardNumber = ShardNumber::MAX;

/// Finds the shard of a code.
type ShardOf = Arc<dyn Fn(&ShortCode) -> usize + Send + Sync>;

/// The shards as the cache sees them: whether what it remembers of a shard is
/// in step with the store by itself, as when one process makes all changes, or
/// only as long as that shard's marks are polled.
pub struct Shards {
    /// By shard: until when, inclusive, what is remembered of it counts as fresh (monotonic milliseconds).
    fresh_until_ms: Box<[AtomicU64]>,
    of: ShardOf,
}

impl Shards {
    /// One shard that nobody else changes: nothing is polled.
    #[must_use]
    pub fn in_step() -> Self {
        Self::new(vec![false], Arc::new(|_| 0))
    }

    /// For each shard whether it has a feed to poll, and which shard a code is
    /// on. A shard that is polled is not fresh before its first successful
    /// poll, and neither is a code whose shard is none of these, ever.
    #[must_use]
    pub fn new(polled: Vec<bool>, of: Arc<dyn Fn(&ShortCode) -> usize + Send + Sync>) -> Self {
        let polled = polled.into_iter().take(NO_SHARD.into());
        let fresh_until_ms = polled.map(|polled| if polled { NEVER } else { ALWAYS });
        Self { fresh_until_ms: fresh_until_ms.map(AtomicU64::new).collect(), of }
    }

    /// The shard of `code`.
    pub(crate) fn of(&self, code: &ShortCode) -> ShardNumber {
        ShardNumber::try_from((self.of)(code)).unwrap_or(NO_SHARD)
    }

    /// Whether what is remembered of `shard` is in step with the store at `now_ms`.
    pub(crate) fn fresh(&self, shard: ShardNumber, now_ms: u64) -> bool {
        let until_ms = self.fresh_until_ms.get(usize::from(shard));
        // A mark is noted before the poll that found it counts.
        until_ms.is_some_and(|until_ms| now_ms < until_ms.load(Ordering::Acquire))
    }

    /// The same of the shard with that number among those it was made with.
    pub(crate) fn is_fresh(&self, shard: usize, now_ms: u64) -> bool {
        ShardNumber::try_from(shard).is_ok_and(|shard| self.fresh(shard, now_ms))
    }

    /// Notes that a successful poll of `shard` began at `began_ms`.
    pub(crate) fn polled(&self, shard: usize, began_ms: u64) {
        if let Some(until_ms) = self.fresh_until_ms.get(shard) {
            until_ms.fetch_max(began_ms.saturating_add(FRESH_FOR_MS + 1), Ordering::Release);
        }
    }

    /// Ends the freshness of `shard` until the next successful poll.
    pub(crate) fn fell_behind(&self, shard: usize) {
        if let Some(until_ms) = self.fresh_until_ms.get(shard) {
            until_ms.store(NEVER, Ordering::Release);
        }
    }
}

/// Fresh at no time.
const NEVER: u64 = 0;
/// Fresh at any time.
const ALWAYS: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use terse_testkit::links::code;

    use super::*;

    fn two() -> Shards {
        Shards::new(vec![false, true], Arc::new(|code| code.as_str().len() - 1))
    }

    #[test]
    fn a_shard_is_fresh_for_half_a_second_from_the_begin_of_a_poll() {
        let shards = two();
        assert!(!shards.fresh(1, 0), "before the first poll");
        shards.polled(1, 1_000);
        assert!(shards.fresh(1, 1_500) && shards.is_fresh(1, 1_500));
        assert!(!shards.fresh(1, 1_501) && !shards.is_fresh(1, 1_501));
        assert!(!shards.is_fresh(65_537, 1_500), "no such shard");
        shards.polled(1, 900);
        assert!(shards.fresh(1, 1_500), "a poll that began earlier takes nothing back");
    }

    #[test]
    fn a_shard_that_fell_behind_is_not_fresh_until_it_is_polled() {
        let shards = two();
        shards.polled(1, 1_000);
        shards.fell_behind(1);
        assert!(!shards.fresh(1, 1_000));
        shards.polled(1, 1_100);
        assert!(shards.fresh(1, 1_100));
    }

    #[test]
    fn a_shard_without_a_feed_is_always_fresh_and_one_that_is_unknown_never() {
        let shards = two();
        assert_eq!([shards.of(&code("a")), shards.of(&code("ab")), shards.of(&code("abc"))], [0, 1, 2]);
        assert!(shards.fresh(0, 0) && shards.fresh(0, u64::MAX - 1));
        assert!(!shards.fresh(2, 0));
        shards.polled(2, 0);
        assert!(!shards.fresh(2, 0));
        assert!(Shards::in_step().fresh(Shards::in_step().of(&code("abc")), 7));
    }

    #[test]
    fn no_shard_is_never_fresh_however_many_there_are() {
        let shards = Shards::new(vec![false; 70_000], Arc::new(|_| 65_535));
        assert!(shards.fresh(65_534, 0));
        assert!(!shards.fresh(NO_SHARD, 0) && !shards.fresh(shards.of(&code("abc")), 0));
    }

    #[test]
    fn a_number_too_large_to_keep_is_no_shard() {
        let shards = Shards::new(vec![false], Arc::new(|_| 70_000));
        assert!(!shards.fresh(shards.of(&code("abc")), 0));
    }
}
