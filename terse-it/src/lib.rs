//! Drives the binary `terse` from outside: starts it on a port and a directory
//! of its own, speaks HTTP with it, ends it politely or not, starts it again.
//!
//! Nothing here depends on terse's own crates (but for the proxy of the test
//! kit): the tests are written from the contract, and what they use must not
//! share a fault with what they test.
//!
//! Bounds: a start is given [`START_LIMIT`], an answer [`ANSWER_LIMIT`], an exit
//! [`EXIT_LIMIT`]; a test that waits longer fails and prints the server's log.
#![allow(clippy::missing_panics_doc)] // Failing loudly is what a test harness is for.

pub mod broker;
mod browser;
mod client;
pub mod cluster;
pub mod drills;
pub mod load;
pub mod metrics;
pub mod pages;
mod ports;
mod process;
pub mod redis;
mod wire;

pub use browser::{Browser, Tab};
pub use client::{API_LINKS, Client, code_of, code_path};
pub use process::{EXIT_LIMIT, Finished, PausedServer, START_LIMIT, Server, Setup, Stop, binary, run};
pub use wire::{ANSWER_LIMIT, Connection, Request, Response};

use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long to rest between two looks at a condition.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

static HEAVY: Mutex<()> = Mutex::new(());

/// The turn of a test that needs the machine's cores for itself. Such tests run one after another.
pub fn heavy_turn() -> MutexGuard<'static, ()> {
    HEAVY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a thread gives that has ended. If it panicked so does this, with the same words: they say what did not hold.
fn joined<T>(ended: std::thread::Result<T>) -> T {
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Looks at a condition until it gives a value; panics after `limit`, saying what was awaited.
pub fn await_some<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(began.elapsed() < limit, "waited {limit:?} in vain for: {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Looks at a condition until it holds; panics after `limit`, saying what was awaited.
pub fn await_true(what: &str, limit: Duration, mut look: impl FnMut() -> bool) {
    await_some(what, limit, || look().then_some(()));
}

/// Looks at what is left of something until nothing is; panics after `limit`, saying what is.
pub fn await_none<T: Debug>(what: &str, limit: Duration, mut left: impl FnMut() -> Vec<T>) {
    let began = Instant::now();
    loop {
        let left = left();
        if left.is_empty() {
            return;
        }
        assert!(began.elapsed() < limit, "waited {limit:?} in vain for {what}: {} are left, {left:?}", left.len());
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Milliseconds since 1970, by the clock that the server reads too.
#[must_use]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The RFC 3339 text of a time in milliseconds since 1970.
#[must_use]
pub fn rfc3339(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map(|time| time.to_string()).unwrap_or_default()
}

/// The time of an RFC 3339 text in milliseconds since 1970.
#[must_use]
#[track_caller]
pub fn millis(text: &str) -> i64 {
    let time: jiff::Timestamp = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
    time.as_millisecond()
}

/// A small generator for test data: the same numbers for the same seed (xorshift64*, Vigna 2016).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice with a seed; 0 is taken as 1.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(seed.max(1))
    }

    /// A number below `limit`, which must not be 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "in vain for both: 1 are left, [2]")]
    fn what_is_still_missing_in_the_end_is_told() {
        let mut looks = 0;
        await_none("both", Duration::from_millis(20), || {
            looks += 1;
            if looks == 1 { vec![1, 2] } else { vec![2] }
        });
    }

    #[test]
    fn a_time_is_written_as_rfc_3339() {
        assert_eq!(rfc3339(1_767_323_045_678), "2026-01-02T03:04:05.678Z");
        assert_eq!(millis("2026-01-02T03:04:05.67Z"), 1_767_323_045_670);
    }

    #[test]
    fn waiting_ends_when_the_condition_holds() {
        let mut looks = 0;
        await_true("the third look", Duration::from_secs(5), || {
            looks += 1;
            looks == 3
        });
        assert_eq!(looks, 3);
    }

    #[test]
    #[should_panic(expected = "in vain for: nothing")]
    fn waiting_in_vain_fails() {
        await_true("nothing", Duration::from_millis(20), || false);
    }

    #[test]
    fn dice_fall_alike_for_one_seed() {
        let (mut one, mut other) = (Dice::seeded(7), Dice::seeded(7));
        for _ in 0..100 {
            let fallen = one.below(10);
            assert_eq!(fallen, other.below(10));
            assert!(fallen < 10);
        }
    }
}
