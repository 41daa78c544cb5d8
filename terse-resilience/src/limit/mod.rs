//! Rate limiters: so many units in a time, for each of many keys.
//!
//! | rule | lets through | state of a key |
//! |---|---|---|
//! | [`Rule::TokenBucket`] | a burst, then a steady rate; GCRA by `governor` | when it is full again |
//! | [`Rule::SlidingWindow`] | a limit in any window, wherever that begins | a count for each eleventh of it |
//! | [`Rule::FixedWindow`] | a limit between two ticks, so up to twice that around one | one count |
//! | [`Rule::LeakyBucket`] | a steady rate: what comes early waits its turn | when the next turn is |
//!
//! A limiter is asked with [`RateLimiter::draw`], which grants all units, some
//! or none, and never waits. Only a leaky bucket tells its caller to wait: its
//! queue is nothing but the time until which turns are given away, so it holds
//! no memory; it is bounded by [`MAX_PACE`], and what would wait longer is refused.
//!
//! **Keys are bounded.** A limiter has room for so many, and takes the memory of
//! eight at a time, as keys come. A key for which there is no more room takes the
//! place of one that is as good as new, else of the one that would be so first,
//! among the eight that its hash shares: that one begins anew. So a flood of keys
//! can't use up memory and never makes anybody's limit tighter; who is thrown out
//! gains at most one burst. The hash depends on a seed, so nobody can choose whom
//! to throw out.
//!
//! **Time** comes from the injected clock. One that steps back, or is read by
//! two threads in the wrong order, brings nobody a unit; and what a key has
//! used is taken to have been used by now, so nobody is shut out for longer
//! than the rule says.
//!
//! A limit that several processes share is behind [`SharedLimiter`], and how to
//! bridge its failures is told there. What a key may use in a month is no rate:
//! [`Uses`] counts that.

mod fixed_window;
mod key;
mod leaky_bucket;
mod quota;
mod rule;
mod shared;
mod sliding_window;
mod table;
#[cfg(all(test, not(loom)))]
mod tests;
mod token_bucket;

use std::sync::Arc;
use std::time::Duration;

use self::fixed_window::FixedWindow;
use self::leaky_bucket::LeakyBucket;
use self::sliding_window::SlidingWindow;
use self::table::Table;
use self::token_bucket::TokenBucket;
use crate::{MonotonicClock, SettingsError};

pub use self::key::{Key, MAX_KEY_BYTES};
pub use self::quota::{MAX_USES, QuotaDraw, QuotaQuestion, SharedQuota, SharedQuotaDraw, Use, Uses};
pub use self::rule::{MAX_PACE, Rule};
pub use self::shared::{SharedDraw, SharedLimiter};
pub use self::sliding_window::PARTS;
pub use self::table::{MAX_KEYS, Usage};

/// What came of asking for units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Draw {
    /// Units granted: from none to all that were wanted.
    pub granted: u32,
    /// Units that would be granted on top, now.
    pub remaining: u32,
    /// Until more than `remaining` are; zero when that is all there ever is.
    pub more_in: Duration,
    /// How long to wait before using what was granted; only a leaky bucket says so.
    pub wait: Duration,
}

/// Limits what keys use of something.
pub trait RateLimiter: Send + Sync + 'static {
    /// Takes up to `wanted` units for `key`. With none wanted it only looks.
    /// Never waits. Allocates nothing for a key that it knows; for others only
    /// while there is room that no key ever had.
    fn draw(&self, key: &Key, wanted: u32) -> Draw;

    /// What it goes by.
    fn rule(&self) -> Rule;

    /// How many keys it holds.
    fn usage(&self) -> Usage;
}

/// By how much threads may read the clock in the wrong order: an older time than
/// a state was made at is taken for that time. If it is older still, the clock has stepped back.
const RACE_NS: u64 = 1_000_000_000;

/// `now_ns`, but no older than `state_ns` if a race explains that.
fn not_before(state_ns: u64, now_ns: u64) -> u64 {
    if now_ns < state_ns && state_ns - now_ns <= RACE_NS { state_ns } else { now_ns }
}

/// How far `at_ns` is ahead of now. It can't be by more than `most_ns` unless the clock has stepped back; then by that.
fn ahead(at_ns: u64, now_ns: u64, most_ns: u64) -> u64 {
    let ahead_ns = at_ns.saturating_sub(now_ns);
    if ahead_ns > most_ns.saturating_add(RACE_NS) { most_ns } else { ahead_ns }
}

/// How one key is limited, as a function of its state and the time.
trait Algorithm: Send + Sync + 'static {
    /// What is kept of a key. The default one is a key's that was never seen.
    type State: Copy + Default + Send;

    fn rule(&self) -> Rule;

    /// Takes up to `wanted` units at `now_ns`.
    fn draw(&self, state: &mut Self::State, now_ns: u64, wanted: u32) -> Draw;

    /// From when on `state` is as good as a new one.
    fn idle_at_ns(&self, state: &Self::State) -> u64;
}

/// An algorithm with the states of its keys.
struct Limiter<A: Algorithm> {
    algorithm: A,
    table: Table<A::State>,
    clock: Arc<dyn MonotonicClock>,
}

impl<A: Algorithm> RateLimiter for Limiter<A> {
    fn draw(&self, key: &Key, wanted: u32) -> Draw {
        let now_ns = self.clock.monotonic_ns();
        let idle_at_ns = |state: &A::State| self.algorithm.idle_at_ns(state);
        self.table.with(key, idle_at_ns, |state| self.algorithm.draw(state, now_ns, wanted))
    }

    fn rule(&self) -> Rule {
        self.algorithm.rule()
    }

    fn usage(&self) -> Usage {
        self.table.usage()
    }
}

/// A limiter in this process that goes by `rule`, with room for at least
/// `max_keys`, 8 to [`MAX_KEYS`]. `seed` decides which keys share a place; it
/// must not be known to those who are limited.
///
/// # Errors
/// When a setting is outside its limits.
pub fn local(
    rule: Rule,
    max_keys: usize,
    clock: Arc<dyn MonotonicClock>,
    seed: u64,
) -> Result<Arc<dyn RateLimiter>, SettingsError> {
    rule.check()?;
    Ok(match rule {
        Rule::TokenBucket { .. } => limiter(TokenBucket::new(rule)?, max_keys, clock, seed)?,
        Rule::SlidingWindow { limit, window } => limiter(SlidingWindow::new(limit, window), max_keys, clock, seed)?,
        Rule::FixedWindow { limit, window } => limiter(FixedWindow::new(limit, window), max_keys, clock, seed)?,
        Rule::LeakyBucket { queue, .. } => {
            limiter(LeakyBucket::new(rule, rule.period_ns(), queue), max_keys, clock, seed)?
        }
    })
}

fn limiter<A: Algorithm>(
    algorithm: A,
    max_keys: usize,
    clock: Arc<dyn MonotonicClock>,
    seed: u64,
) -> Result<Arc<dyn RateLimiter>, SettingsError> {
    Ok(Arc::new(Limiter { algorithm, table: Table::new(max_keys, seed)?, clock }))
}
