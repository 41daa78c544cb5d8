//! One guard: places in a bulkhead, the permits of a breaker, a timeout.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntCounter, IntGauge};
use terse_core::metrics::Metrics;
use terse_core::ports::{StoreError, StoreErrorKind};
use terse_resilience::{Breaker, Bulkhead, MonotonicClock, Permit, Rejected, SettingsError, Slot};

use super::settings::LaneSettings;
use super::watch::watched_breaker;
use crate::lenient::{Lenience, Lenient, Refused};

/// A bulkhead that shows its use as metrics.
pub(super) struct Compartment {
    name: String,
    bulkhead: Bulkhead,
    in_use: IntGauge,
    rejected: IntCounter,
}

/// A place in a [`Compartment`], given back on drop.
pub(super) struct Place<'a> {
    _slot: Slot<'a>,
    in_use: &'a IntGauge,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.in_use.dec();
    }
}

impl Compartment {
    /// A compartment of `permits` places.
    ///
    /// # Errors
    /// When there are none.
    pub(super) fn new(name: &str, permits: u32, metrics: &Metrics) -> Result<Self, SettingsError> {
        let (in_use, rejected) = (metrics.bulkhead_in_use(name), metrics.bulkhead_rejected(name));
        Ok(Self { name: name.to_owned(), bulkhead: Bulkhead::new(permits)?, in_use, rejected })
    }

    /// Takes a place.
    ///
    /// # Errors
    /// [`StoreErrorKind::Overloaded`] when all are taken.
    pub(super) fn enter(&self) -> Result<Place<'_>, StoreError> {
        match self.bulkhead.try_acquire() {
            Ok(slot) => {
                self.in_use.inc();
                Ok(Place { _slot: slot, in_use: &self.in_use })
            }
            Err(full) => {
                self.rejected.inc();
                Err(StoreError::new(StoreErrorKind::Overloaded, format!("{}: {full}", self.name)))
            }
        }
    }
}

/// What became of a call.
pub(super) enum Ended<T> {
    Answered(Result<T, StoreError>),
    TimedOut,
}

/// Awaits `call` for `timeout` at most.
pub(super) async fn within<T>(timeout: Duration, call: impl Future<Output = Result<T, StoreError>>) -> Ended<T> {
    tokio::time::timeout(timeout, call).await.map_or(Ended::TimedOut, Ended::Answered)
}

impl<T> Ended<T> {
    /// The answer; a timeout is an error of `kind`.
    pub(super) fn answer(self, kind: StoreErrorKind, timeout: Duration) -> Result<T, StoreError> {
        let too_late = || StoreError::new(kind, format!("no answer within {} ms", timeout.as_millis()));
        match self {
            Self::Answered(answer) => answer,
            Self::TimedOut => Err(too_late()),
        }
    }

    /// Tells `permit` what the call says about the *store*:
    ///
    /// - An answer is a success, be it "no such link" or "taken".
    /// - [`Corrupt`](StoreErrorKind::Corrupt) is an answer too: the shard was
    ///   reached, and its other rows may be sound. To cut them all off because
    ///   of one would be worse than the fault; and it costs nobody a wait.
    /// - [`Overloaded`](StoreErrorKind::Overloaded) counts as nothing. The
    ///   store's own queue was full, so the store was not asked. A burst that
    ///   overflows it is shed call by call; to open the breaker for it would
    ///   turn a moment's overload into an outage. If the store does hang, the
    ///   calls in its queue time out, and these count.
    /// - All else is a failure, unless the store [answered](StoreError::answered).
    pub(super) fn judge(&self, permit: Permit<'_>) {
        match self {
            Self::TimedOut => permit.timeout(),
            Self::Answered(Ok(_)) => permit.success(),
            Self::Answered(Err(error)) => match error.kind {
                StoreErrorKind::Overloaded => permit.ignore(),
                StoreErrorKind::Corrupt => permit.success(),
                StoreErrorKind::Unavailable | StoreErrorKind::UnknownOutcome if error.answered => permit.success(),
                StoreErrorKind::Unavailable | StoreErrorKind::UnknownOutcome => permit.failure(),
            },
        }
    }
}

/// One guard of a shard.
pub(super) struct Lane {
    pub(super) name: String,
    pub(super) places: Compartment,
    pub(super) breaker: Arc<Breaker>,
    pub(super) timeout: Duration,
    lenience: Lenience,
    /// When a call makes sense again that found no probe left, in milliseconds.
    open_ms: u64,
}

impl Lane {
    /// # Errors
    /// When a setting is outside its limits.
    pub(super) fn new(
        name: String,
        settings: &LaneSettings,
        clock: Arc<dyn MonotonicClock>,
        seed: u64,
        metrics: &Metrics,
    ) -> Result<Self, SettingsError> {
        Ok(Self {
            places: Compartment::new(&name, settings.permits, metrics)?,
            breaker: watched_breaker(&name, settings.breaker(), clock, seed, metrics)?,
            timeout: Duration::from_millis(settings.timeout_ms),
            lenience: Lenience::new(),
            open_ms: settings.breaker.open_ms,
            name,
        })
    }

    /// The breaker's permit for one call.
    ///
    /// # Errors
    /// [`StoreErrorKind::Unavailable`] when the breaker rejects it.
    pub(super) fn permit(&self) -> Result<Permit<'_>, StoreError> {
        self.breaker.try_acquire().map_err(|rejected| self.rejected(&rejected))
    }

    fn rejected(&self, rejected: &Rejected) -> StoreError {
        let error = StoreError::new(StoreErrorKind::Unavailable, format!("{}: {rejected}", self.name));
        StoreError { retry_after_ms: rejected.retry_after_ms, ..error }
    }

    /// The breaker's permit for one call that may not speak against the shard.
    ///
    /// # Errors
    /// [`StoreErrorKind::Unavailable`] when the breaker rejects it, or another such call probes.
    pub(super) fn lenient_permit(&self) -> Result<Lenient<'_>, StoreError> {
        self.lenience.try_acquire(&self.breaker).map_err(|refused| match refused {
            Refused::Rejected(rejected) => self.rejected(&rejected),
            Refused::ProbeTaken => self.no_probe_left(),
        })
    }

    fn no_probe_left(&self) -> StoreError {
        let error = StoreError::new(StoreErrorKind::Unavailable, format!("{}: a probe is under way", self.name));
        StoreError { retry_after_ms: self.open_ms, ..error }
    }
}
