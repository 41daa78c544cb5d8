//! A clock that only moves when a test moves it.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use terse_core::{Clock, Timestamp};

/// Wall-clock and monotonic time, moved by hand and apart from each other: the
/// wall clock may step back, the monotonic one can't.
#[derive(Debug)]
pub struct TestClock {
    wall_ms: AtomicI64,
    monotonic_ms: AtomicU64,
}

impl TestClock {
    /// A clock whose wall shows `now` and whose monotonic time is 0.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self { wall_ms: AtomicI64::new(now.as_millis()), monotonic_ms: AtomicU64::new(0) }
    }

    /// Lets `by` pass: both times move on (by whole milliseconds).
    pub fn advance(&self, by: Duration) {
        self.wall_ms.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
        self.advance_monotonic(by);
    }

    /// Moves the monotonic time alone, as if the wall clock were being held back.
    pub fn advance_monotonic(&self, by: Duration) {
        self.monotonic_ms.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Sets the wall clock alone, forwards or backwards.
    pub fn set_wall(&self, now: Timestamp) {
        self.wall_ms.store(now.as_millis(), Ordering::SeqCst);
    }
}

/// 2026-01-02T03:04:05Z: what tests call now when it doesn't matter.
impl Default for TestClock {
    fn default() -> Self {
        Self::at(Timestamp::from_millis(1_767_323_045_000))
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.wall_ms.load(Ordering::SeqCst))
    }

    fn monotonic_ms(&self) -> u64 {
        self.monotonic_ms.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes_on_both_clocks() {
        let clock = TestClock::default();
        let before = clock.now();
        clock.advance(Duration::from_millis(1_500));
        assert_eq!(clock.now(), before.plus_millis(1_500));
        assert_eq!(clock.monotonic_ms(), 1_500);
    }

    #[test]
    fn a_wall_clock_stepping_back_leaves_monotonic_time_alone() {
        let clock = TestClock::default();
        clock.advance(Duration::from_secs(10));
        clock.set_wall(Timestamp::parse("2020-01-01T00:00:00Z").unwrap());
        assert_eq!(clock.now().to_string(), "2020-01-01T00:00:00Z");
        assert_eq!(clock.monotonic_ms(), 10_000);
        clock.advance_monotonic(Duration::from_secs(1));
        assert_eq!(clock.now().to_string(), "2020-01-01T00:00:00Z");
        assert_eq!(clock.monotonic_ms(), 11_000);
    }

    #[test]
    fn the_default_is_the_time_that_its_text_says() {
        assert_eq!(TestClock::default().now().to_string(), "2026-01-02T03:04:05Z");
    }
}
