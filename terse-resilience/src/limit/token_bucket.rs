//! The token bucket: a burst, then a steady rate. The decision is `governor`'s
//! (GCRA: a bucket is kept as the time at which it is full again); where that
//! time is kept is ours, for governor's own store never forgets a key.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use governor::{NotUntil, Quota};

use super::{Algorithm, Draw, Rule, ahead};
use crate::SettingsError;

/// A token bucket; see [`Rule::TokenBucket`].
pub(super) struct TokenBucket {
    rule: Rule,
    quota: Quota,
    burst: u32,
    period_ns: u64,
    full_ns: u64,
}

/// When the bucket is full again.
#[derive(Clone, Copy, Default)]
pub(super) struct FullAt(u64);

/// The state of one bucket, counted from now: how long until it is full.
struct OneBucket<'a>(&'a Cell<u64>);

impl StateStore for OneBucket<'_> {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _key: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (outcome, full_in) = decide(Some(Nanos::from(self.0.get())))?;
        self.0.set(full_in.into());
        Ok(outcome)
    }
}

/// It is always now: what is handed to governor is counted from there.
#[derive(Clone, Copy)]
struct Now;

impl Clock for Now {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(0)
    }
}

type Governor<'a> = governor::RateLimiter<NotKeyed, OneBucket<'a>, Now, StateInformationMiddleware>;

impl TokenBucket {
    pub(super) fn new(rule: Rule) -> Result<Self, SettingsError> {
        let (burst, period_ns) = (rule.quota(), rule.period_ns());
        let quota = Quota::with_period(Duration::from_nanos(period_ns)).zip(NonZeroU32::new(burst));
        let (quota, most) = quota.ok_or(SettingsError { setting: "burst", must: "be at least 1" })?;
        let full_ns = period_ns.saturating_mul(u64::from(burst));
        Ok(Self { rule, quota: quota.allow_burst(most), burst, period_ns, full_ns })
    }

    /// Takes all of `units` from `bucket`, or none. Else how many lack.
    fn take(&self, bucket: &Governor<'_>, units: NonZeroU32) -> Result<(), u32> {
        let lacking = |refusal: NotUntil<Nanos>| {
            let wait_ns = Nanos::from(refusal.wait_time_from(Nanos::from(0))).as_u64();
            u32::try_from(wait_ns.div_ceil(self.period_ns)).unwrap_or(u32::MAX)
        };
        if units == NonZeroU32::MIN {
            return bucket.check().map(|_snapshot| ()).map_err(|_refusal| 1);
        }
        match bucket.check_n(units) {
            Ok(Ok(_snapshot)) => Ok(()),
            Ok(Err(refusal)) => Err(lacking(refusal)),
            Err(too_many) => Err(units.get().saturating_sub(too_many.0)),
        }
    }
}

impl Algorithm for TokenBucket {
    type State = FullAt;

    fn rule(&self) -> Rule {
        self.rule
    }

    fn draw(&self, full: &mut FullAt, now_ns: u64, wanted: u32) -> Draw {
        let full_in = Cell::new(ahead(full.0, now_ns, self.full_ns));
        let bucket = Governor::new(self.quota, OneBucket(&full_in), Now);
        let mut granted = wanted.min(self.burst);
        // What lacks of these is left out; the rest is there.
        while let Some(units) = NonZeroU32::new(granted) {
            match self.take(&bucket, units) {
                Ok(()) => break,
                Err(lacking) => granted = granted.saturating_sub(lacking.max(1)),
            }
        }
        let full_in_ns = full_in.get();
        full.0 = now_ns.saturating_add(full_in_ns);
        let left_ns = self.full_ns.saturating_sub(full_in_ns);
        let remaining = u32::try_from(left_ns / self.period_ns).unwrap_or(u32::MAX);
        let more_in_ns = if full_in_ns == 0 { 0 } else { (full_in_ns - 1) % self.period_ns + 1 };
        Draw { granted, remaining, more_in: Duration::from_nanos(more_in_ns), wait: Duration::ZERO }
    }

    fn idle_at_ns(&self, full: &FullAt) -> u64 {
        full.0
    }
}
