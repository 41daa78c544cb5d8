//! A retry budget: retries are a share of calls, so that retrying can't
//! multiply the load on something that is failing because of load.
//!
//! Every call pays in a share of a retry, every retry takes a whole one out.
//! What is saved is bounded. Beside it a floor of so many retries a second,
//! for the times with few calls. After Finagle's `RetryBudget`, with a bound
//! on savings in place of its sliding window.
//!
//! In any span: retries ≤ `max_saved` + `percent` % of the calls
//! + `floor_per_second` × (seconds + 1).

use std::fmt;
use std::sync::Arc;

use crate::settings::require;
use crate::sync::{AtomicU64, Mutex, Ordering, lock};
use crate::{MonotonicClock, SettingsError};

/// One retry in the units of the balance: a call pays in `percent` of these.
const RETRY: u64 = 100;
/// One retry in the units of the floor: a millisecond brings `floor_per_second` of these.
const FLOOR_RETRY: u64 = 1_000;

/// Limits of a [`RetryBudget`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudgetSettings {
    /// Retries per hundred calls; 0 to 100.
    pub percent: u8,
    /// Retries a second that are allowed whatever the calls; may be 0.
    pub floor_per_second: u32,
    /// Retries that can be saved up from calls; at least 1.
    pub max_saved: u32,
}

impl RetryBudgetSettings {
    /// Whether the settings are within their limits.
    ///
    /// # Errors
    /// The first setting that is not.
    pub fn check(&self) -> Result<(), SettingsError> {
        require(self.percent <= 100, "percent", "be at most 100")?;
        require(self.max_saved >= 1, "max_saved", "be at least 1")
    }
}

/// 10 % of the calls, 1 a second at least, 100 saved at most.
impl Default for RetryBudgetSettings {
    fn default() -> Self {
        Self { percent: 10, floor_per_second: 1, max_saved: 100 }
    }
}

/// The floor's own bucket: full at the start, holding one second's worth.
#[derive(Debug)]
struct Floor {
    balance: u64,
    refilled_ms: u64,
}

/// Decides whether a failed call may be tried again.
pub struct RetryBudget {
    settings: RetryBudgetSettings,
    clock: Arc<dyn MonotonicClock>,
    balance: AtomicU64,
    floor: Mutex<Floor>,
    granted: AtomicU64,
    refused: AtomicU64,
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryBudget").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What a retry budget has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryBudgetSnapshot {
    /// Whole retries saved up from calls now.
    pub saved: u64,
    /// Retries granted since the start.
    pub granted: u64,
    /// Retries refused since the start.
    pub refused: u64,
}

impl RetryBudget {
    /// A budget with nothing saved but one second's floor.
    ///
    /// # Errors
    /// When a setting is outside its limits.
    pub fn new(settings: RetryBudgetSettings, clock: Arc<dyn MonotonicClock>) -> Result<Self, SettingsError> {
        settings.check()?;
        let balance = u64::from(settings.floor_per_second) * FLOOR_RETRY;
        let floor = Mutex::new(Floor { balance, refilled_ms: clock.monotonic_ms() });
        let zero = || AtomicU64::new(0);
        Ok(Self { settings, clock, balance: zero(), floor, granted: zero(), refused: zero() })
    }

    /// A first attempt is made (retries don't count as calls): its share is paid in.
    pub fn record_call(&self) {
        let (share, max) = (u64::from(self.settings.percent), u64::from(self.settings.max_saved) * RETRY);
        // Looking first keeps the line shared between cores while the savings are full, as they mostly are.
        let _ = self.change_balance(|balance| (balance < max).then(|| (balance + share).min(max)));
    }

    /// Takes one retry out; `false` = give up and report the failure.
    #[must_use]
    pub fn try_retry(&self) -> bool {
        let granted = self.change_balance(|balance| balance.checked_sub(RETRY)) || self.take_from_floor();
        let counter = if granted { &self.granted } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        granted
    }

    /// What is saved, and counts until now.
    #[must_use]
    pub fn snapshot(&self) -> RetryBudgetSnapshot {
        RetryBudgetSnapshot {
            saved: self.balance.load(Ordering::Relaxed) / RETRY,
            granted: self.granted.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    /// Sets the balance to what `change` makes of it; `false` = it declined.
    fn change_balance(&self, change: impl Fn(u64) -> Option<u64>) -> bool {
        let mut balance = self.balance.load(Ordering::Relaxed);
        while let Some(wanted) = change(balance) {
            match self.balance.compare_exchange_weak(balance, wanted, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(current) => balance = current,
            }
        }
        false
    }

    fn take_from_floor(&self) -> bool {
        let per_second = u64::from(self.settings.floor_per_second);
        let now_ms = self.clock.monotonic_ms();
        let mut floor = lock(&self.floor);
        // An older time than before brings nothing and takes nothing back.
        let elapsed_ms = now_ms.saturating_sub(floor.refilled_ms);
        floor.refilled_ms = floor.refilled_ms.max(now_ms);
        let refill = elapsed_ms.saturating_mul(per_second);
        floor.balance = floor.balance.saturating_add(refill).min(per_second * FLOOR_RETRY);
        match floor.balance.checked_sub(FLOOR_RETRY) {
            Some(rest) => {
                floor.balance = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::test_clock::TestClock;

    fn budget(percent: u8, floor_per_second: u32, max_saved: u32) -> (RetryBudget, Arc<TestClock>) {
        let clock = TestClock::at(5_000);
        let settings = RetryBudgetSettings { percent, floor_per_second, max_saved };
        (RetryBudget::new(settings, clock.clone()).unwrap(), clock)
    }

    fn retries(budget: &RetryBudget) -> usize {
        (0..100_000).take_while(|_| budget.try_retry()).count()
    }

    #[test]
    fn a_tenth_of_the_calls_may_be_retried() {
        let (budget, _) = budget(10, 0, 1_000);
        (0..505).for_each(|_| budget.record_call());
        assert_eq!(budget.snapshot().saved, 50);
        assert_eq!(retries(&budget), 50);
        (0..5).for_each(|_| budget.record_call());
        assert_eq!(retries(&budget), 1);
        assert_eq!(budget.snapshot(), RetryBudgetSnapshot { saved: 0, granted: 51, refused: 2 });
    }

    #[test]
    fn less_than_a_whole_retry_grants_none() {
        let (budget, _) = budget(33, 0, 10);
        (0..3).for_each(|_| budget.record_call());
        assert!(!budget.try_retry(), "0.99 of a retry is none");
        budget.record_call();
        assert_eq!(retries(&budget), 1);
    }

    #[test]
    fn savings_are_bounded() {
        let (budget, _) = budget(50, 0, 7);
        (0..10_000).for_each(|_| budget.record_call());
        assert_eq!((budget.snapshot().saved, retries(&budget)), (7, 7));
    }

    #[test]
    fn the_floor_allows_some_retries_without_calls_and_holds_one_second() {
        let (budget, clock) = budget(10, 4, 10);
        assert_eq!(retries(&budget), 4);
        clock.advance(249);
        assert_eq!(retries(&budget), 0);
        clock.advance(1);
        assert_eq!(retries(&budget), 1);
        clock.advance(3_600_000);
        assert_eq!(retries(&budget), 4);
    }

    #[test]
    fn an_older_time_neither_brings_nor_takes_retries() {
        let (budget, clock) = budget(0, 2, 1);
        assert_eq!(retries(&budget), 2);
        clock.set(0);
        assert_eq!(retries(&budget), 0);
        clock.set(5_500);
        assert_eq!(retries(&budget), 1, "half a second after the newest time that was seen");
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let check = |percent, max_saved| RetryBudgetSettings { percent, floor_per_second: 0, max_saved }.check();
        assert_eq!(check(101, 1).unwrap_err().setting, "percent");
        assert_eq!(check(10, 0).unwrap_err().setting, "max_saved");
        assert!(RetryBudgetSettings::default().check().is_ok());
    }

    #[test]
    fn racing_threads_share_one_balance() {
        let (budget, _) = budget(10, 0, 1_000);
        (0..1_000).for_each(|_| budget.record_call());
        let granted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| retries(&budget))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(granted, 100);
    }

    proptest! {
        #[test]
        fn retries_never_exceed_share_floor_and_savings(
            percent in 0_u8..=100, floor in 0_u32..5, max_saved in 1_u32..20,
            steps in proptest::collection::vec((0_u8..3, 0_u64..2_000), 1..200),
        ) {
            let (budget, clock) = budget(percent, floor, max_saved);
            let (mut calls, mut passed_ms, mut granted) = (0_u64, 0_u64, 0_u64);
            for (what, ms) in steps {
                match what {
                    0 => { calls += 1; budget.record_call(); }
                    1 => { passed_ms += ms; clock.advance(ms); }
                    _ => granted += u64::from(budget.try_retry()),
                }
                let floor_grants = u64::from(floor) * (1_000 + passed_ms) / 1_000;
                prop_assert!(granted <= calls * u64::from(percent) / 100 + floor_grants);
                prop_assert!(budget.snapshot().saved <= u64::from(max_saved));
                prop_assert_eq!(budget.snapshot().granted, granted);
            }
        }
    }
}
