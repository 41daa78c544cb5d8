//! How long to wait before the next attempt: exponential, bounded, with jitter,
//! so that callers who failed together don't return together.
//!
//! Jitter after "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).

use crate::SettingsError;
use crate::random::SplitMix64;
use crate::settings::require;

/// How waits are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jitter {
    /// Not at all: the exponential time itself.
    None,
    /// From 0 to the exponential time. Spreads best.
    Full,
    /// From the base to three times the wait before. Never shorter than the base.
    Decorrelated,
}

/// Limits of a [`Backoff`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffSettings {
    /// The first exponential time, in milliseconds; at least 1.
    pub base_ms: u64,
    /// No wait is longer, in milliseconds; at least `base_ms`.
    pub max_ms: u64,
    /// How waits are spread.
    pub jitter: Jitter,
    /// After so many waits there is none; `None` = goes on for ever, which is
    /// for one supervised connection and not for the calls of users.
    pub max_attempts: Option<u32>,
}

impl BackoffSettings {
    /// Whether the settings are within their limits.
    ///
    /// # Errors
    /// The first setting that is not.
    pub fn check(&self) -> Result<(), SettingsError> {
        require(self.base_ms >= 1, "base_ms", "be at least 1")?;
        require(self.max_ms >= self.base_ms, "max_ms", "be at least base_ms")
    }
}

/// 100 ms doubling to 10 s, full jitter, 5 attempts.
impl Default for BackoffSettings {
    fn default() -> Self {
        Self { base_ms: 100, max_ms: 10_000, jitter: Jitter::Full, max_attempts: Some(5) }
    }
}

/// The waits between the attempts of one operation.
#[derive(Clone, Debug)]
pub struct Backoff {
    settings: BackoffSettings,
    random: SplitMix64,
    attempts: u32,
    /// The exponential time or, with decorrelated jitter, the wait before.
    step_ms: u64,
}

impl Backoff {
    /// Waits of `settings`, spread by `seed`.
    ///
    /// # Errors
    /// When a setting is outside its limits.
    pub fn new(settings: BackoffSettings, seed: u64) -> Result<Self, SettingsError> {
        settings.check()?;
        Ok(Self { settings, random: SplitMix64::new(seed), attempts: 0, step_ms: settings.base_ms })
    }

    /// How long to wait before the next attempt, in milliseconds, at most
    /// `max_ms`; `None` when the attempts are used up.
    pub fn next_wait_ms(&mut self) -> Option<u64> {
        if self.settings.max_attempts.is_some_and(|max| self.attempts >= max) {
            return None;
        }
        self.attempts = self.attempts.saturating_add(1);
        let BackoffSettings { base_ms, max_ms, jitter, .. } = self.settings;
        let exponential_ms = self.step_ms;
        Some(match jitter {
            Jitter::None | Jitter::Full => {
                self.step_ms = exponential_ms.saturating_mul(2).min(max_ms);
                if jitter == Jitter::Full { self.random.between(0, exponential_ms) } else { exponential_ms }
            }
            Jitter::Decorrelated => {
                self.step_ms = self.random.between(base_ms, exponential_ms.saturating_mul(3)).min(max_ms);
                self.step_ms
            }
        })
    }

    /// How many waits were given out since the start or the last reset.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Begins anew, after a success.
    pub fn reset(&mut self) {
        self.attempts = 0;
        self.step_ms = self.settings.base_ms;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings(jitter: Jitter) -> BackoffSettings {
        BackoffSettings { base_ms: 100, max_ms: 1_000, jitter, max_attempts: Some(6) }
    }

    fn waits(jitter: Jitter, seed: u64) -> Vec<u64> {
        let mut backoff = Backoff::new(settings(jitter), seed).unwrap();
        std::iter::from_fn(|| backoff.next_wait_ms()).collect()
    }

    #[test]
    fn waits_double_up_to_the_maximum_and_end_with_the_attempts() {
        assert_eq!(waits(Jitter::None, 1), [100, 200, 400, 800, 1_000, 1_000]);
    }

    #[test]
    fn full_jitter_spreads_from_nothing_to_the_exponential_time() {
        let mut lows = 0;
        for seed in 0..200 {
            for (wait, exponential) in waits(Jitter::Full, seed).into_iter().zip(waits(Jitter::None, seed)) {
                assert!(wait <= exponential);
                lows += u32::from(wait < exponential / 2);
            }
        }
        assert!((500..700).contains(&lows), "{lows} of 1,200 in the lower half");
    }

    #[test]
    fn decorrelated_jitter_stays_between_base_and_three_times_the_wait_before() {
        let mut longest = 0;
        for seed in 0..200 {
            let mut before = 100;
            for wait in waits(Jitter::Decorrelated, seed) {
                assert!((100..=1_000.min(before * 3)).contains(&wait), "{wait} after {before}");
                before = wait;
                longest = longest.max(wait);
            }
        }
        assert_eq!(longest, 1_000);
    }

    #[test]
    fn two_seeds_do_not_return_together() {
        for jitter in [Jitter::Full, Jitter::Decorrelated] {
            assert_eq!(waits(jitter, 5), waits(jitter, 5));
            assert_ne!(waits(jitter, 5), waits(jitter, 6));
        }
    }

    #[test]
    fn a_reset_begins_anew() {
        let mut backoff = Backoff::new(settings(Jitter::None), 1).unwrap();
        while backoff.next_wait_ms().is_some() {}
        assert_eq!(backoff.attempts(), 6);
        backoff.reset();
        assert_eq!((backoff.attempts(), backoff.next_wait_ms()), (0, Some(100)));
    }

    #[test]
    fn without_a_limit_the_attempts_never_end() {
        let endless = BackoffSettings { max_attempts: None, ..settings(Jitter::None) };
        let mut backoff = Backoff::new(endless, 1).unwrap();
        assert!((0..10_000).all(|_| backoff.next_wait_ms().is_some()));
        assert_eq!(backoff.next_wait_ms(), Some(1_000));
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let refused = |base_ms, max_ms| {
            let settings = BackoffSettings { base_ms, max_ms, ..BackoffSettings::default() };
            Backoff::new(settings, 1).unwrap_err().setting
        };
        assert_eq!(refused(0, 10), "base_ms");
        assert_eq!(refused(11, 10), "max_ms");
        assert!(BackoffSettings::default().check().is_ok());
    }

    proptest! {
        #[test]
        fn no_wait_exceeds_the_maximum_whatever_the_settings(
            base_ms in 1_u64..=u64::MAX, extra in any::<u64>(), seed in any::<u64>(), which in 0_usize..3,
        ) {
            let jitter = [Jitter::None, Jitter::Full, Jitter::Decorrelated][which];
            let max_ms = base_ms.saturating_add(extra);
            let settings = BackoffSettings { base_ms, max_ms, jitter, max_attempts: Some(80) };
            let mut backoff = Backoff::new(settings, seed).unwrap();
            let mut given = 0;
            while let Some(wait) = backoff.next_wait_ms() {
                prop_assert!(wait <= max_ms);
                prop_assert!(jitter == Jitter::Full || wait >= base_ms);
                given += 1;
            }
            prop_assert_eq!(given, 80);
        }
    }
}
