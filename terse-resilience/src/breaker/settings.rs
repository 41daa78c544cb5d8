//! When a breaker trips, how long it stays open, how it probes.

use super::word::{MAX_FAILURES, MAX_PROBES};
use crate::SettingsError;
use crate::settings::require;

/// The most buckets of a window: what a window costs in memory is bounded by it.
pub const MAX_BUCKETS: u8 = 60;

/// When a closed breaker trips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// So many failures without a success between them; the textbook's rule. It
    /// is quick and needs no traffic, and blind to a service that fails four
    /// calls of five.
    Consecutive {
        /// 1 to 16,777,215.
        failures: u32,
    },
    /// A share of failed or slow calls in a sliding window. Sees what fails in
    /// part; of what fails altogether it is convinced only when that outweighs
    /// the good calls in its window.
    Rate(RatePolicy),
    /// Whichever of the two says so first: quick when all fails, not blind when a part does.
    Either {
        /// 1 to 16,777,215.
        failures: u32,
        /// The share.
        rate: RatePolicy,
    },
}

impl Policy {
    /// How many consecutive failures trip it, if any number does.
    pub(super) fn failures(&self) -> Option<u32> {
        match self {
            Self::Consecutive { failures } | Self::Either { failures, .. } => Some(*failures),
            Self::Rate(_) => None,
        }
    }

    /// The share that trips it, if any does.
    pub(super) fn rate(&self) -> Option<&RatePolicy> {
        match self {
            Self::Rate(rate) | Self::Either { rate, .. } => Some(rate),
            Self::Consecutive { .. } => None,
        }
    }
}

/// Trips when a share of the calls that ended in a sliding window failed or was slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RatePolicy {
    /// Length of the window in milliseconds; a multiple of `buckets`.
    pub window_ms: u64,
    /// Steps in which the window slides; 1 to [`MAX_BUCKETS`].
    pub buckets: u8,
    /// With fewer calls in the window it never trips; at least 1.
    pub min_calls: u32,
    /// Trips when so many of a hundred calls failed, or more; 1 to 100.
    pub failure_percent: u8,
    /// Trips for slow calls too; `None` = time taken doesn't matter.
    pub slow: Option<SlowCalls>,
}

/// 50 % of at least 10 calls in 10 s; slow calls don't matter.
impl Default for RatePolicy {
    fn default() -> Self {
        Self { window_ms: 10_000, buckets: 10, min_calls: 10, failure_percent: 50, slow: None }
    }
}

/// When calls are slow, and when too many are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowCalls {
    /// A call that took at least so many milliseconds was slow; at least 1. A slow probe counts as failed.
    pub after_ms: u64,
    /// Trips when so many of a hundred calls were slow, or more; 1 to 100.
    pub percent: u8,
}

/// Limits of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// When it trips.
    pub policy: Policy,
    /// How long it stays open at first, in milliseconds; at least 1.
    pub open_ms: u64,
    /// By how much the open time grows with each opening; at least 1.
    pub open_factor: u32,
    /// It never stays open for longer without a probe, in milliseconds; at least `open_ms`.
    pub max_open_ms: u64,
    /// An open time is shortened by 0 to so many percent, drawn anew each time; 0 to 99.
    pub jitter_percent: u8,
    /// Each such time that it stays closed takes back one growth of the open time, in milliseconds; at least 1.
    pub calm_ms: u64,
    /// Calls let through at once while half-open; 1 to 4,095.
    pub probes: u32,
    /// Probes that must succeed before it closes; 1 to 4,095.
    pub probe_successes: u32,
    /// A call dropped without a verdict after at least so many milliseconds has
    /// failed, and so has a half-open phase whose newest probe is that old and
    /// which has no other probe to grant; at least 1. To be set to the timeout
    /// that is put around the call.
    pub call_limit_ms: u64,
}

/// The textbook's: 5 consecutive failures open it for 30 s, then one probe decides.
impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            policy: Policy::Consecutive { failures: 5 },
            open_ms: 30_000,
            open_factor: 1,
            max_open_ms: 30_000,
            jitter_percent: 0,
            calm_ms: 30_000,
            probes: 1,
            probe_successes: 1,
            call_limit_ms: 30_000,
        }
    }
}

impl BreakerSettings {
    /// For something that is cheap to ask and missed while it is not: a store, a
    /// cache. Five failures in a row trip it, or half of at least 20 calls in
    /// 10 s, however slow the others are. Probes are few, so asking again early
    /// is cheap: first after 0.5 s, then up to 4 s. A call may take
    /// `call_limit_ms`, the timeout around it.
    #[must_use]
    pub const fn cheap_to_probe(call_limit_ms: u64) -> Self {
        let rate = RatePolicy { window_ms: 10_000, buckets: 10, min_calls: 20, failure_percent: 50, slow: None };
        Self {
            policy: Policy::Either { failures: 5, rate },
            open_ms: 500,
            open_factor: 2,
            max_open_ms: 4_000,
            jitter_percent: 20,
            calm_ms: 10_000,
            probes: 3,
            probe_successes: 2,
            call_limit_ms,
        }
    }

    /// Whether the settings are within their limits.
    ///
    /// # Errors
    /// The first setting that is not.
    pub fn check(&self) -> Result<(), SettingsError> {
        let failures = self.policy.failures().unwrap_or(1);
        require((1..=MAX_FAILURES).contains(&failures), "failures", "be from 1 to 16777215")?;
        self.policy.rate().map_or(Ok(()), RatePolicy::check)?;
        require(self.open_ms >= 1, "open_ms", "be at least 1")?;
        require(self.open_factor >= 1, "open_factor", "be at least 1")?;
        require(self.max_open_ms >= self.open_ms, "max_open_ms", "be at least open_ms")?;
        require(self.jitter_percent <= 99, "jitter_percent", "be at most 99")?;
        require(self.calm_ms >= 1, "calm_ms", "be at least 1")?;
        require((1..=MAX_PROBES).contains(&self.probes), "probes", "be from 1 to 4095")?;
        require((1..=MAX_PROBES).contains(&self.probe_successes), "probe_successes", "be from 1 to 4095")?;
        require(self.call_limit_ms >= 1, "call_limit_ms", "be at least 1")
    }

    /// How long it stays open after `growths` growths, before jitter, in milliseconds.
    pub(super) fn open_time_ms(&self, growths: u32) -> u64 {
        let factor = u64::from(self.open_factor).saturating_pow(growths);
        self.open_ms.saturating_mul(factor).min(self.max_open_ms)
    }

    /// Whether a call of `age_ms` was slow.
    pub(super) fn is_slow(&self, age_ms: u64) -> bool {
        self.policy.rate().and_then(|rate| rate.slow).is_some_and(|slow| age_ms >= slow.after_ms)
    }
}

impl RatePolicy {
    fn check(&self) -> Result<(), SettingsError> {
        require((1..=MAX_BUCKETS).contains(&self.buckets), "buckets", "be from 1 to 60")?;
        let whole = self.window_ms > 0 && self.window_ms.is_multiple_of(u64::from(self.buckets));
        require(whole, "window_ms", "be a multiple of buckets and not 0")?;
        require(self.min_calls >= 1, "min_calls", "be at least 1")?;
        require((1..=100).contains(&self.failure_percent), "failure_percent", "be from 1 to 100")?;
        let Some(slow) = self.slow else { return Ok(()) };
        require(slow.after_ms >= 1, "slow.after_ms", "be at least 1")?;
        require((1..=100).contains(&slow.percent), "slow.percent", "be from 1 to 100")
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_the_textbook_and_valid() {
        let default = BreakerSettings::default();
        default.check().unwrap();
        assert_eq!(default.policy, Policy::Consecutive { failures: 5 });
        assert_eq!((default.open_time_ms(0), default.open_time_ms(9)), (30_000, 30_000));
        let rate = BreakerSettings { policy: Policy::Rate(RatePolicy::default()), ..default };
        rate.check().unwrap();
    }

    #[test]
    fn what_is_cheap_to_probe_is_asked_early_and_never_all_at_once() {
        let settings = BreakerSettings::cheap_to_probe(250);
        settings.check().unwrap();
        assert_eq!((settings.open_time_ms(0), settings.open_time_ms(9)), (500, 4_000));
        assert_eq!((settings.policy.failures(), settings.call_limit_ms), (Some(5), 250));
        let rate = settings.policy.rate().unwrap();
        assert_eq!((rate.min_calls, rate.failure_percent, rate.window_ms), (20, 50, 10_000));
        assert!(!settings.is_slow(u64::MAX), "lists are slow by nature");
        assert!(settings.jitter_percent > 0, "nodes that tripped together don't probe together");
        assert!(settings.probe_successes > 1 && settings.probes >= settings.probe_successes);
    }

    #[test]
    fn the_open_time_grows_to_its_maximum_and_never_overflows() {
        let store = BreakerSettings::cheap_to_probe(250);
        let times: Vec<u64> = (0..6).map(|growths| store.open_time_ms(growths)).collect();
        assert_eq!(times, [500, 1_000, 2_000, 4_000, 4_000, 4_000]);
        let huge = BreakerSettings { open_ms: 3, open_factor: u32::MAX, max_open_ms: u64::MAX, ..store };
        assert_eq!(huge.open_time_ms(u32::MAX), u64::MAX);
        let odd = BreakerSettings { open_factor: 3, ..store };
        assert_eq!(odd.open_time_ms(2), 4_000);
    }

    /// The name of the setting that is refused after `change`.
    fn refused(change: impl Fn(&mut BreakerSettings)) -> &'static str {
        let mut settings = BreakerSettings::default();
        change(&mut settings);
        settings.check().unwrap_err().setting
    }

    #[test]
    fn each_setting_has_its_limits() {
        assert_eq!(refused(|s| s.policy = Policy::Consecutive { failures: 0 }), "failures");
        assert_eq!(refused(|s| s.policy = Policy::Consecutive { failures: MAX_FAILURES + 1 }), "failures");
        let either = |failures, rate| Policy::Either { failures, rate };
        let unsound = RatePolicy { min_calls: 0, ..RatePolicy::default() };
        assert_eq!(refused(|s| s.policy = either(0, RatePolicy::default())), "failures");
        assert_eq!(refused(|s| s.policy = either(1, unsound)), "min_calls");
        assert_eq!(refused(|s| s.open_ms = 0), "open_ms");
        assert_eq!(refused(|s| s.open_factor = 0), "open_factor");
        assert_eq!(refused(|s| s.max_open_ms = s.open_ms - 1), "max_open_ms");
        assert_eq!(refused(|s| s.jitter_percent = 100), "jitter_percent");
        assert_eq!(refused(|s| s.calm_ms = 0), "calm_ms");
        assert_eq!(refused(|s| s.probes = 0), "probes");
        assert_eq!(refused(|s| s.probes = MAX_PROBES + 1), "probes");
        assert_eq!(refused(|s| s.probe_successes = 0), "probe_successes");
        assert_eq!(refused(|s| s.probe_successes = MAX_PROBES + 1), "probe_successes");
        assert_eq!(refused(|s| s.call_limit_ms = 0), "call_limit_ms");
    }

    /// The name of the setting of a rate policy that is refused after `change`.
    fn rate_refused(change: impl Fn(&mut RatePolicy)) -> &'static str {
        let mut rate = RatePolicy { slow: Some(SlowCalls { after_ms: 100, percent: 50 }), ..RatePolicy::default() };
        rate.check().unwrap();
        change(&mut rate);
        refused(|settings| settings.policy = Policy::Rate(rate))
    }

    #[test]
    fn each_setting_of_the_rate_policy_has_its_limits() {
        assert_eq!(rate_refused(|r| r.buckets = 0), "buckets");
        assert_eq!(rate_refused(|r| r.buckets = MAX_BUCKETS + 1), "buckets");
        assert_eq!(rate_refused(|r| r.window_ms = 0), "window_ms");
        assert_eq!(rate_refused(|r| r.window_ms = 10_001), "window_ms");
        assert_eq!(rate_refused(|r| r.min_calls = 0), "min_calls");
        assert_eq!(rate_refused(|r| r.failure_percent = 0), "failure_percent");
        assert_eq!(rate_refused(|r| r.failure_percent = 101), "failure_percent");
        assert_eq!(rate_refused(|r| r.slow = Some(SlowCalls { after_ms: 0, percent: 50 })), "slow.after_ms");
        assert_eq!(rate_refused(|r| r.slow = Some(SlowCalls { after_ms: 1, percent: 0 })), "slow.percent");
        assert_eq!(rate_refused(|r| r.slow = Some(SlowCalls { after_ms: 1, percent: 101 })), "slow.percent");
    }

    #[test]
    fn a_call_is_slow_from_its_threshold_on_and_only_where_slow_calls_matter() {
        let slow = Some(SlowCalls { after_ms: 100, percent: 50 });
        let policy = Policy::Rate(RatePolicy { slow, ..RatePolicy::default() });
        let settings = BreakerSettings { policy, ..Default::default() };
        assert_eq!((settings.is_slow(99), settings.is_slow(100)), (false, true));
        assert!(!BreakerSettings::default().is_slow(u64::MAX));
    }
}
