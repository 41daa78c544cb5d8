//! What limiters go by.

use std::time::Duration;

use crate::SettingsError;
use crate::settings::require;

/// Most units of a limit, a burst or a queue.
const MAX_UNITS: u32 = 1_000_000_000;
/// The longest time that a rule may look at: a leap year. In nanoseconds it leaves room in 64 bits for all sums.
const MAX_TIME: Duration = Duration::from_secs(366 * 86_400);
/// The longest that a leaky bucket makes a unit wait: whoever waits holds a connection, and a drain waits along.
pub const MAX_PACE: Duration = Duration::from_secs(10);
/// The shortest time that a rule may look at.
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
        /// In which time; 1 ms to 366 days.
        per: Duration,
        /// Units that may wait, the last of them for [`MAX_PACE`] at most; what comes beyond is refused.
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

    /// The time from one unit's turn to the next one's; `None` = the rule lets through at once what it grants.
    #[must_use]
    pub fn pace(&self) -> Option<Duration> {
        matches!(self, Self::LeakyBucket { .. }).then(|| Duration::from_nanos(self.period_ns()))
    }

    /// The rule for `factor` such keys together, as far as its limits allow: in the same time `factor` times as much.
    #[must_use]
    pub fn times(self, factor: u32) -> Self {
        let more = |units: u32| units.saturating_mul(factor.max(1)).min(MAX_UNITS);
        match self {
            Self::TokenBucket { burst, refill, per } => {
                Self::TokenBucket { burst: more(burst), refill: more(refill), per }
            }
            Self::SlidingWindow { limit, window } => Self::SlidingWindow { limit: more(limit), window },
            Self::FixedWindow { limit, window } => Self::FixedWindow { limit: more(limit), window },
            Self::LeakyBucket { rate, per, queue } => {
                let rate = more(rate);
                let period_ns = Self::LeakyBucket { rate, per, queue: 0 }.period_ns();
                let most = u32::try_from(nanos(MAX_PACE) / period_ns).unwrap_or(u32::MAX);
                Self::LeakyBucket { rate, per, queue: (more(queue.saturating_add(1)) - 1).min(most) }
            }
        }
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
                let pace_ns = self.period_ns().saturating_mul(u64::from(queue));
                require(pace_ns <= nanos(MAX_PACE), "queue", "pass within 10 seconds")
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
    fn only_a_leaky_bucket_has_turns() {
        let leaky = Rule::LeakyBucket { rate: 20, per: Duration::from_secs(1), queue: 4 };
        assert_eq!(leaky.pace(), Some(Duration::from_millis(50)));
        let window = Duration::from_secs(1);
        for rule in [
            Rule::TokenBucket { burst: 5, refill: 20, per: window },
            Rule::SlidingWindow { limit: 5, window },
            Rule::FixedWindow { limit: 5, window },
        ] {
            assert_eq!(rule.pace(), None, "{rule:?}");
        }
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
        assert_eq!(refused(Rule::LeakyBucket { rate: 1, per: 367 * 86_400 * SECOND, queue: 0 }), "per");
        for fine in [bucket(366, 1, 86_400 * SECOND), paced(1, 0), paced(MAX_UNITS, MAX_UNITS - 1)] {
            assert!(fine.check().is_ok(), "{fine:?}");
        }
    }

    #[test]
    fn a_leaky_bucket_in_which_a_request_would_wait_for_long_is_refused() {
        let paced = |rate, per, queue| Rule::LeakyBucket { rate, per, queue }.check();
        let fault = paced(1, SECOND, 1_000).unwrap_err();
        assert_eq!(fault.to_string(), "queue must pass within 10 seconds");
        assert_eq!((paced(1, SECOND, 10), paced(10, SECOND, 100)), (Ok(()), Ok(())), "the last waits for the longest");
        assert!(paced(1, SECOND, 11).is_err() && paced(10, SECOND, 101).is_err() && paced(1, 11 * SECOND, 1).is_err());
        assert_eq!(paced(1, 3_600 * SECOND, 0), Ok(()), "nobody waits");
    }

    #[test]
    fn a_rule_for_many_keys_has_so_many_times_the_quota_in_the_same_time() {
        let bucket = Rule::TokenBucket { burst: 100, refill: 10, per: SECOND };
        assert_eq!(bucket.times(16), Rule::TokenBucket { burst: 1_600, refill: 160, per: SECOND });
        let window = Rule::SlidingWindow { limit: 300, window: 60 * SECOND };
        assert_eq!(window.times(16), Rule::SlidingWindow { limit: 4_800, window: 60 * SECOND });
        let ticks = Rule::FixedWindow { limit: 3, window: SECOND };
        assert_eq!(ticks.times(2), Rule::FixedWindow { limit: 6, window: SECOND });
        let paced = Rule::LeakyBucket { rate: 5, per: SECOND, queue: 9 };
        assert_eq!(paced.times(16), Rule::LeakyBucket { rate: 80, per: SECOND, queue: 159 });
        for rule in [bucket, window, ticks, paced] {
            assert_eq!((rule.times(1), rule.times(0)), (rule, rule));
        }
    }

    #[test]
    fn a_rule_for_many_keys_stays_within_its_limits() {
        let days = 366 * 86_400 * SECOND;
        for rule in [
            Rule::TokenBucket { burst: MAX_UNITS, refill: MAX_UNITS, per: days },
            Rule::TokenBucket { burst: 366, refill: 1, per: 86_400 * SECOND },
            Rule::SlidingWindow { limit: MAX_UNITS, window: days },
            Rule::LeakyBucket { rate: 1, per: SECOND, queue: 10 },
            Rule::LeakyBucket { rate: MAX_UNITS, per: 10 * SECOND, queue: MAX_UNITS - 1 },
            Rule::LeakyBucket { rate: 1, per: days, queue: 0 },
        ] {
            for factor in [1, 2, 16, u32::MAX] {
                assert_eq!(rule.times(factor).check(), Ok(()), "{factor} times {rule:?}");
            }
        }
    }
}
