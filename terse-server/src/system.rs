//! The real clock, the real randomness and the host's name; tests hand in their own.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use terse_core::{Clock, Entropy, Timestamp};

/// The clocks of the operating system.
///
/// Monotonic time goes on while the machine is suspended, which `Instant`'s
/// doesn't: what was cached before is as old as it really is.
#[derive(Debug)]
pub struct SystemClock {
    started: Duration,
}

impl SystemClock {
    /// A clock whose monotonic time begins now.
    #[must_use]
    pub fn new() -> Self {
        Self { started: since_boot(ClockId::Boottime) }
    }

    fn elapsed(&self) -> Duration {
        since_boot(ClockId::Boottime).saturating_sub(self.started)
    }
}

fn since_boot(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn monotonic_ns(&self) -> u64 {
        u64::try_from(self.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The random generator of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    /// # Panics
    /// When the system has no randomness to give: nothing that is secret can be made then.
    #[allow(clippy::expect_used)]
    fn fill(&self, buffer: &mut [u8]) {
        getrandom::fill(buffer).expect("the operating system gives random bytes");
    }
}

/// The name that this host gives itself, for people to read.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_has_a_name() {
        assert!(!host_name().is_empty());
    }

    #[test]
    fn nanoseconds_are_finer_than_milliseconds() {
        let clock = SystemClock::new();
        assert!((0..1_000).any(|_| !clock.monotonic_ns().is_multiple_of(1_000_000)));
    }

    #[test]
    fn the_clock_tells_this_century_and_goes_forward() {
        let clock = SystemClock::new();
        assert!(clock.now() > Timestamp::parse("2026-01-01T00:00:00Z").unwrap());
        let before = clock.monotonic_ms();
        std::thread::sleep(Duration::from_millis(3));
        let after = clock.monotonic_ms();
        assert!(after >= before + 2, "{before}, {after}");
        assert!(clock.monotonic_ns() / 1_000_000 >= after, "both begin at the same time");
    }

    #[test]
    fn random_bytes_differ_each_time() {
        let (mut first, mut second) = ([0; 32], [0; 32]);
        OsEntropy.fill(&mut first);
        OsEntropy.fill(&mut second);
        assert_ne!(first, second);
        assert_ne!(first, [0; 32]);
    }
}
