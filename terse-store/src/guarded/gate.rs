//! How many calls may wait for a shard at once, by how long it takes; and what gives way to what.
//!
//! | shed | when |
//! |---|---|
//! | statistics | a gate of any shard is [`STATS_GIVE_WAY`] percent full |
//! | redirects of what memory has, whose shard's marks can't be read: it is served `stale` | its redirects fill [`REFRESHES_GIVE_WAY`] percent of their gate |
//! | creates, edits, what the API reads of links | the shard's redirects fill [`CREATES_GIVE_WAY`] percent of their gate |
//! | creates and edits | their own gate is full |
//! | redirects | their own gate is full |
//!
//! So statistics go first, then creates, then redirects, and no create ever
//! takes a redirect's place. What is upkeep passes no gate: leases of ids, API
//! keys, settings, marks of changes, health.

use std::sync::Arc;

use prometheus::{IntCounter, IntGauge};
use terse_core::metrics::{Metrics, Shed};
use terse_core::ports::{StoreError, StoreErrorKind};
use terse_resilience::{ConcurrencyLimit, ConcurrencySettings, MonotonicClock, Running, SettingsError};

use super::lane::Ended;

/// How full the gate of redirects is from which on creates to that shard are refused, in percent.
pub(super) const CREATES_GIVE_WAY: u32 = 75;
/// How full the gate of redirects is from which on those of what memory has are refused, in percent. Their answers are at
/// hand, and while a store is asked for more than it can do a look-up takes as long as all that wait for it.
pub(super) const REFRESHES_GIVE_WAY: u32 = 50;
/// How full any gate is from which on statistics are refused, in percent.
pub(super) const STATS_GIVE_WAY: u32 = 50;

/// A limit of calls at once that shows itself as metrics.
pub(super) struct Gate {
    pub(super) name: String,
    pub(super) limit: Arc<ConcurrencyLimit>,
    shed: IntCounter,
    most: IntGauge,
    in_flight: IntGauge,
}

/// A call that was let in.
pub(super) struct Pass<'a> {
    running: Option<Running<'a>>,
    gate: &'a Gate,
}

impl Gate {
    /// # Errors
    /// When a setting is outside its limits.
    pub(super) fn new(
        name: String,
        kind: Shed,
        settings: ConcurrencySettings,
        clock: &Arc<dyn MonotonicClock>,
        metrics: &Metrics,
    ) -> Result<Self, SettingsError> {
        let limit = Arc::new(ConcurrencyLimit::new(settings, Arc::clone(clock))?);
        let (most, in_flight) = metrics.concurrency(&name);
        most.set(i64::from(settings.initial));
        Ok(Self { name, limit, shed: metrics.shed(kind), most, in_flight })
    }

    /// Lets a call in.
    ///
    /// # Errors
    /// [`StoreErrorKind::Overloaded`] when as many run as may.
    pub(super) fn enter(&self) -> Result<Pass<'_>, StoreError> {
        match self.limit.try_acquire() {
            Ok(running) => {
                self.in_flight.inc();
                Ok(Pass { running: Some(running), gate: self })
            }
            Err(reached) => {
                self.shed.inc();
                Err(overloaded(&self.name, &reached))
            }
        }
    }

    /// Refuses a call of this gate's kind while `other` is so full.
    ///
    /// # Errors
    /// [`StoreErrorKind::Overloaded`] while it is.
    pub(super) fn give_way(&self, other: &Self, percent: u32) -> Result<(), StoreError> {
        if !other.limit.is_filled(percent) {
            return Ok(());
        }
        self.shed.inc();
        self.limit.note_shed();
        Err(overloaded(&self.name, &format_args!("{} is too full", other.name)))
    }
}

/// A refusal for too much; nothing was attempted.
pub(super) fn overloaded(name: &str, why: &dyn std::fmt::Display) -> StoreError {
    StoreError::new(StoreErrorKind::Overloaded, format!("{name}: {why}"))
}

impl Pass<'_> {
    /// Tells the limit how the call ended. An answer is one whatever it says;
    /// of a call that the store refused for its own sake nothing is learned.
    pub(super) fn judge<T>(mut self, ended: &Ended<T>) {
        let Some(running) = self.running.take() else { return };
        match ended {
            Ended::TimedOut => running.given_up(),
            Ended::Answered(Ok(_)) => running.answered(),
            Ended::Answered(Err(error)) if error.kind != StoreErrorKind::Overloaded => running.failed(),
            Ended::Answered(Err(_)) => drop(running),
        }
        self.gate.most.set(self.gate.limit.snapshot().limit.cast_signed());
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.gate.in_flight.dec();
    }
}
