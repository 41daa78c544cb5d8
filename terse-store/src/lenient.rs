//! Permits for calls that may not speak against what a breaker watches.
//!
//! A list is slow by nature, and fails for reasons of its own. It takes a
//! permit, so that it's rejected while the breaker is open, and its success
//! counts; all else about it, being cancelled late too, counts as nothing. Of
//! the few probes of a half-open breaker such calls have at most
//! [`LENIENT_PROBES`], so that those that hang can't keep the others from
//! finding that the service is back.

use terse_resilience::{Breaker, Permit, Rejected, State};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Lenient calls that may probe at once; the others are refused.
const LENIENT_PROBES: usize = 1;

/// The probes of one breaker that lenient calls may have.
pub(crate) struct Lenience(Semaphore);

/// Why a lenient call must not be made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The breaker said so.
    Rejected(Rejected),
    /// Another lenient call probes.
    ProbeTaken,
}

impl Lenience {
    pub(crate) fn new() -> Self {
        Self(Semaphore::new(LENIENT_PROBES))
    }

    /// The permit of `breaker` for one lenient call.
    ///
    /// # Errors
    /// [`Refused`] when the call must not be made.
    pub(crate) fn try_acquire<'a>(&'a self, breaker: &'a Breaker) -> Result<Lenient<'a>, Refused> {
        let probe = match breaker.state() {
            State::Closed => None,
            State::Open | State::HalfOpen => Some(self.0.try_acquire().map_err(|_| Refused::ProbeTaken)?),
        };
        let permit = breaker.try_acquire().map_err(Refused::Rejected)?;
        Ok(Lenient { permit: Some(permit), _probe: probe })
    }
}

/// A permit that counts as nothing unless the call succeeds. A plain one
/// counts as a timeout when its call is cancelled late.
#[must_use = "dropping a permit at once abandons the call"]
pub(crate) struct Lenient<'a> {
    permit: Option<Permit<'a>>,
    _probe: Option<SemaphorePermit<'a>>,
}

impl Lenient<'_> {
    /// The service answered.
    pub(crate) fn success(mut self) {
        if let Some(permit) = self.permit.take() {
            permit.success();
        }
    }
}

impl Drop for Lenient<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            permit.ignore();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use terse_resilience::BreakerSettings;
    use terse_testkit::TestClock;

    use super::*;
    use crate::CoreClock;

    /// Opens for 100 ms, then up to three probes, each overdue after 250 ms.
    fn breaker() -> (Breaker, Arc<TestClock>) {
        let clock = Arc::new(TestClock::default());
        let settings = BreakerSettings {
            open_ms: 100,
            max_open_ms: 100,
            probes: 3,
            probe_successes: 2,
            call_limit_ms: 250,
            ..BreakerSettings::default()
        };
        (Breaker::new(settings, Arc::new(CoreClock(clock.clone())), 1).unwrap(), clock)
    }

    fn half_open() -> (Breaker, Arc<TestClock>) {
        let (breaker, clock) = breaker();
        (0..5).for_each(|_| breaker.try_acquire().unwrap().failure());
        assert_eq!(breaker.state(), State::Open);
        clock.advance(Duration::from_millis(100));
        (breaker, clock)
    }

    #[test]
    fn a_lenient_call_that_ends_late_counts_as_nothing() {
        let (breaker, clock) = breaker();
        let lenience = Lenience::new();
        for _ in 0..20 {
            let permit = lenience.try_acquire(&breaker).unwrap();
            clock.advance(Duration::from_secs(60));
            drop(permit);
        }
        let seen = breaker.snapshot();
        assert_eq!((seen.state, seen.counts.ignored, seen.counts.timeouts), (State::Closed, 20, 0));
    }

    #[test]
    fn a_lenient_call_that_probes_late_decides_nothing_and_leaves_probes_for_others() {
        let (breaker, clock) = half_open();
        let lenience = Lenience::new();
        let slow = lenience.try_acquire(&breaker).unwrap();
        assert_eq!(lenience.try_acquire(&breaker).err(), Some(Refused::ProbeTaken));
        clock.advance(Duration::from_millis(800));
        assert_eq!(lenience.try_acquire(&breaker).err(), Some(Refused::ProbeTaken));
        breaker.try_acquire().unwrap().success();
        drop(slow);
        assert_eq!((breaker.state(), breaker.snapshot().probes_in_flight), (State::HalfOpen, 0));
        breaker.try_acquire().unwrap().success();
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn lenient_calls_alone_find_that_the_service_is_back() {
        let (breaker, _) = half_open();
        let lenience = Lenience::new();
        (0..2).for_each(|_| lenience.try_acquire(&breaker).unwrap().success());
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn an_open_breaker_rejects_lenient_calls_too() {
        let (breaker, _) = breaker();
        (0..5).for_each(|_| breaker.try_acquire().unwrap().failure());
        let lenience = Lenience::new();
        for _ in 0..3 {
            let Err(Refused::Rejected(rejected)) = lenience.try_acquire(&breaker) else { panic!("let through") };
            assert_eq!(rejected.retry_after_ms, 100);
        }
    }
}
