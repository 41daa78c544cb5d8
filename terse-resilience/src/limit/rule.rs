//! What limiters go by.

use std::time::Duration;

use crate::SettingsError;
use crate::settings::require;

/// Most units of a limit, a burst or a queue.
const MAX_UNITS: u32 = 1_000_000_000;
/// The longest time that a rule may look at: a leap year. In nanoseconds it leaves room in 64 bits for all sums.
const MAX_TIME: Duration = Duration::from_secs(366 * 86_400);
/// The shortest one.
const MIN_TIME: Duration = Duration::from_millis(1);

/// What a limiter goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Up to `burst` units at once; `refill` units come back evenly each `per`.
    TokenBucket {
        /// Units of a full bucket; at least 1.
        burst: u32,
        /// Units that come back each `per`; at least 1.
        refill: u32,
        /// In which time; 1 ms to 366 days, and so the time in which a bucket fills.
        per: Duration,
    },
    /// At most `limit` units in any `window`. What was used counts up to a tenth of the window longer.
    SlidingWindow {
        /// Units; at least 1.
        limit: u32,
        /// 1 ms to 366 days.
        window: Duration,
    },
    /// At most `limit` units from one tick to the next, one each `window`: in a window of the same length around a
    /// tick up to twice as many.
    FixedWindow {
        /// Units; at least 1.
        limit: u32,
        /// 1 ms to 366 days.
        window: Duration,
    },
    /// Units pass one by one, evenly, `rate` of them each `per`; up to `queue` wait for their turn.
    LeakyBucket {
        /// Units each `per`; at least 1.
        rate: u32,
        /// In which time; 1 ms to 366 days, and so the time for which a full queue waits.
        per: Duration,
        /// Units that may wait; what comes beyond is refused.
        queue: u32,
    },
}

/// `duration` in nanoseconds; the longest one that a rule takes fits many times.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Rule {
    /// Its word in configuration, metrics and keys.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::TokenBucket { .. } => "token-bucket",
            Self::SlidingWindow { .. } => "sliding-window",
            Self::FixedWindow { .. } => "fixed-window",
            Self::LeakyBucket { .. } => "leaky-bucket",
        }
    }

    /// Units that a key has that was never seen.
    #[must_use]
    pub const fn quota(&self) -> u32 {
        match *self {
            Self::TokenBucket { burst, .. } => burst,
            Self::SlidingWindow { limit, .. } | Self::FixedWindow { limit, .. } => limit,
            Self::LeakyBucket { queue, .. } => queue + 1,
        }
    }

    /// In which time all of these come back.
    #[must_use]
    pub fn window(&self) -> Duration {
        match *self {
            Self::SlidingWindow { window, .. } | Self::FixedWindow { window, .. } => window,
            _ => Duration::from_nanos(self.period_ns().saturating_mul(u64::from(self.quota()))),
        }
    }

    /// Nanoseconds in which one unit comes back, rounded up: never faster than it was said. Of a window the mean.
    pub(super) fn period_ns(&self) -> u64 {
        let (units, time) = match *self {
            Self::TokenBucket { refill, per, .. } => (refill, per),
            Self::LeakyBucket { rate, per, .. } => (rate, per),
            Self::SlidingWindow { limit, window } | Self::FixedWindow { limit, window } => (limit, window),
        };
        nanos(time).div_ceil(u64::from(units.max(1))).max(1)
    }

    /// The same in whole microseconds, for those who count in these.
    #[must_use]
    pub fn period_us(&self) -> u64 {
        self.period_ns().div_ceil(1_000)
    }

    /// Whether it is within its limits.
    ///
    /// # Errors
    /// The first setting that is not.
    pub fn check(&self) -> Result<(), SettingsError> {
        let units = |units: u32, setting| require((1..=MAX_UNITS).contains(&units), setting, "be from 1 to 1000000000");
        let time = |time: Duration, setting| {
            require((MIN_TIME..=MAX_TIME).contains(&time), setting, "be from 1 ms to 366 days")
        };
        match *self {
            Self::TokenBucket { burst, refill, per } => {
                units(burst, "burst")?;
                units(refill, "refill")?;
                time(per, "per")?;
                require(self.window() <= MAX_TIME, "burst", "come back within 366 days")
            }
            Self::SlidingWindow { limit, window } | Self::FixedWindow { limit, window } => {
                units(limit, "limit")?;
                time(window, "window")
            }
            Self::LeakyBucket { rate, per, queue } => {
                units(rate, "rate")?;
                time(per, "per")?;
                require(queue < MAX_UNITS, "queue", "be below 1000000000")?;
                require(self.window() <= MAX_TIME, "queue", "pass within 366 days")
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_rule_tells_its_quota_and_in_which_time_that_comes_back() {
        let bucket = Rule::TokenBucket { burst: 100, refill: 10, per: SECOND };
        assert_eq!((bucket.quota(), bucket.window(), bucket.period_us()), (100, 10 * SECOND, 100_000));
        let window = Rule::SlidingWindow { limit: 300, window: 60 * SECOND };
        assert_eq!((window.quota(), window.window(), window.period_us()), (300, 60 * SECOND, 200_000));
        let paced = Rule::LeakyBucket { rate: 5, per: SECOND, queue: 9 };
        assert_eq!((paced.quota(), paced.window()), (10, 2 * SECOND));
    }

    #[test]
    fn a_rate_that_does_not_divide_its_time_is_rounded_down() {
        let third = Rule::TokenBucket { burst: 1, refill: 3, per: SECOND };
        assert_eq!((third.period_ns(), third.period_us()), (333_333_334, 333_334));
    }

    #[test]
    fn each_setting_has_its_limits() {
        let refused = |rule: Rule| rule.check().unwrap_err().setting;
        let bucket = |burst, refill, per| Rule::TokenBucket { burst, refill, per };
        assert_eq!(refused(bucket(0, 1, SECOND)), "burst");
        assert_eq!(refused(bucket(1, 0, SECOND)), "refill");
        assert_eq!(refused(bucket(1, 1, Duration::ZERO)), "per");
        assert_eq!(refused(bucket(367, 1, 86_400 * SECOND)), "burst", "it never fills");
        assert_eq!(refused(Rule::FixedWindow { limit: 0, window: SECOND }), "limit");
        assert_eq!(refused(Rule::SlidingWindow { limit: 1, window: 367 * 86_400 * SECOND }), "window");
        let paced = |rate, queue| Rule::LeakyBucket { rate, per: SECOND, queue };
        assert_eq!(refused(paced(0, 1)), "rate");
        assert_eq!(refused(paced(1, u32::MAX)), "queue");
        assert_eq!(refused(paced(1, MAX_UNITS - 1)), "queue");
        for fine in [bucket(366, 1, 86_400 * SECOND), paced(1, 0), paced(MAX_UNITS, MAX_UNITS - 1)] {
            assert!(fine.check().is_ok(), "{fine:?}");
        }
    }
}
