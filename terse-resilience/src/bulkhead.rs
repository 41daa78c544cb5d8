//! A bulkhead: so many calls at once and no more, so that one slow dependency
//! can't take all workers with it.
//!
//! It has no queue. Whoever finds it full is told at once; whether to wait, and
//! for how long, is the caller's matter.

use std::fmt;

use crate::SettingsError;
use crate::settings::require;
use crate::sync::{AtomicU64, Ordering};

/// Bounds how many calls run at once.
#[derive(Debug)]
pub struct Bulkhead {
    limit: u64,
    in_use: AtomicU64,
    peak: AtomicU64,
    admitted: AtomicU64,
    rejected: AtomicU64,
}

/// All slots were taken; nothing was attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BulkheadFull {
    /// How many slots there are.
    pub limit: u64,
}

impl fmt::Display for BulkheadFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "all {} slots are taken", self.limit)
    }
}

impl std::error::Error for BulkheadFull {}

/// What a bulkhead has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BulkheadSnapshot {
    /// How many slots there are.
    pub limit: u64,
    /// Slots taken now.
    pub in_use: u64,
    /// The most slots that were ever taken at once.
    pub peak: u64,
    /// Calls let in since the start.
    pub admitted: u64,
    /// Calls refused since the start.
    pub rejected: u64,
}

impl Bulkhead {
    /// A bulkhead of `limit` slots.
    ///
    /// # Errors
    /// When `limit` is 0: nothing could ever pass.
    pub fn new(limit: u32) -> Result<Self, SettingsError> {
        require(limit > 0, "limit", "be at least 1")?;
        Ok(Self {
            limit: u64::from(limit),
            in_use: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            admitted: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
        })
    }

    /// Takes a slot, which dropping the guard gives back.
    ///
    /// # Errors
    /// [`BulkheadFull`] when all are taken.
    pub fn try_acquire(&self) -> Result<Slot<'_>, BulkheadFull> {
        let mut taken = self.in_use.load(Ordering::Relaxed);
        loop {
            if taken >= self.limit {
                self.rejected.fetch_add(1, Ordering::Relaxed);
                return Err(BulkheadFull { limit: self.limit });
            }
            match self.in_use.compare_exchange_weak(taken, taken + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now_taken) => taken = now_taken,
            }
        }
        self.admitted.fetch_add(1, Ordering::Relaxed);
        // Looking first keeps the line shared between cores but for new peaks.
        if self.peak.load(Ordering::Relaxed) < taken + 1 {
            self.peak.fetch_max(taken + 1, Ordering::Relaxed);
        }
        Ok(Slot { bulkhead: self })
    }

    /// Counts until now; each exact, all together only when nothing moves.
    #[must_use]
    pub fn snapshot(&self) -> BulkheadSnapshot {
        BulkheadSnapshot {
            limit: self.limit,
            in_use: self.in_use.load(Ordering::Relaxed),
            peak: self.peak.load(Ordering::Relaxed),
            admitted: self.admitted.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed),
        }
    }
}

/// A slot of a [`Bulkhead`], given back on drop.
#[derive(Debug)]
#[must_use = "the slot is given back as soon as this is dropped"]
pub struct Slot<'a> {
    bulkhead: &'a Bulkhead,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.bulkhead.in_use.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Barrier;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bulkhead_lets_in_its_limit_and_not_one_more() {
        let bulkhead = Bulkhead::new(2).unwrap();
        let first = bulkhead.try_acquire().unwrap();
        let _second = bulkhead.try_acquire().unwrap();
        assert_eq!(bulkhead.try_acquire().unwrap_err(), BulkheadFull { limit: 2 });
        drop(first);
        let _third = bulkhead.try_acquire().unwrap();
        let expected = BulkheadSnapshot { limit: 2, in_use: 2, peak: 2, admitted: 3, rejected: 1 };
        assert_eq!(bulkhead.snapshot(), expected);
    }

    #[test]
    fn a_bulkhead_without_slots_is_refused() {
        assert_eq!(Bulkhead::new(0).unwrap_err().to_string(), "limit must be at least 1");
        assert_eq!(BulkheadFull { limit: 3 }.to_string(), "all 3 slots are taken");
    }

    #[test]
    fn a_slot_returns_when_its_call_panics() {
        let bulkhead = Bulkhead::new(1).unwrap();
        let call = std::panic::catch_unwind(|| {
            let _slot = bulkhead.try_acquire().unwrap();
            std::panic::resume_unwind(Box::new("the call broke"));
        });
        assert!(call.is_err());
        assert_eq!(bulkhead.snapshot().in_use, 0);
        assert!(bulkhead.try_acquire().is_ok());
    }

    #[test]
    fn racing_threads_never_exceed_the_limit_and_leak_nothing() {
        const THREADS: usize = 8;
        const LIMIT: u64 = 3;
        let bulkhead = Bulkhead::new(LIMIT as u32).unwrap();
        let held = std::sync::atomic::AtomicU64::new(0);
        let start = Barrier::new(THREADS);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    start.wait();
                    for _ in 0..2_000 {
                        if let Ok(_slot) = bulkhead.try_acquire() {
                            assert!(held.fetch_add(1, Ordering::SeqCst) < LIMIT);
                            held.fetch_sub(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        let seen = bulkhead.snapshot();
        assert_eq!((seen.in_use, seen.admitted + seen.rejected), (0, THREADS as u64 * 2_000));
        assert!(seen.peak <= LIMIT);
    }

    proptest! {
        #[test]
        fn a_bulkhead_counts_like_a_plain_number(
            limit in 1_u32..5, takes in proptest::collection::vec(any::<bool>(), 0..60),
        ) {
            let bulkhead = Bulkhead::new(limit).unwrap();
            let mut slots = Vec::new();
            let mut peak = 0;
            for take in takes {
                if take {
                    let fits = slots.len() < limit as usize;
                    let slot = bulkhead.try_acquire();
                    prop_assert_eq!(slot.is_ok(), fits);
                    slots.extend(slot);
                } else {
                    slots.pop();
                }
                peak = peak.max(slots.len());
                prop_assert_eq!(bulkhead.snapshot().in_use, slots.len() as u64);
                prop_assert_eq!(bulkhead.snapshot().peak, peak as u64);
            }
        }
    }
}
