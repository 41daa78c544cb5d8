//! The ring around one shard's store that keeps its faults in it: bulkhead →
//! breaker → timeout around every call.
//!
//! A shard has two guards, so that creates which can't reach a quorum never
//! block redirects:
//!
//! | guard | passed by | what counts against the shard |
//! |---|---|---|
//! | `NAME/read` | `resolve` | a timeout, [`Unavailable`](StoreErrorKind::Unavailable) |
//! | `NAME/read` | catalog reads | nothing |
//! | none | polls of marks | nothing |
//! | `NAME/write` | every write | a timeout, `Unavailable`, [`UnknownOutcome`](StoreErrorKind::UnknownOutcome) |
//! | `NAME/write` | `purge_keys` | as a write; that it succeeds counts for nothing |
//! | either, unless it is closed | looks at health | nothing |
//!
//! **Catalog reads** are those no redirect waits for: lists, whole links,
//! idempotency keys, settings, API keys, leases. They need a quorum where a
//! redirect is content with one replica, so their failures never trip the guard
//! of the redirects; but while that is open, they are rejected too. They have at most
//! [`CatalogSettings::permits`] of its permits, so that slow lists
//! never starve redirects, and at most one of its probes, so that lists that
//! hang can't keep redirects from finding that the shard is back.
//!
//! **Polls of marks** ([`ChangeFeed`](terse_core::ports::ChangeFeed)) pass neither bulkhead nor breaker of the
//! redirects: what is cached is fresh only while they succeed, so to refuse them
//! when reads are many, or while the shard is thought to be away, would turn
//! hits into reads, and keep entries stale for longer than the shard is. They
//! have a few places of their own, so what they ask of a shard that is away is
//! small, and their timeout is short. No breaker hears of them, nor of their
//! success, for a poll tells nothing of how the next redirect will fare.
//!
//! **What a caller gets.** A full bulkhead:
//! [`Overloaded`](StoreErrorKind::Overloaded). A breaker that rejects:
//! `Unavailable`, to be tried again when the breaker says so. Nothing was
//! attempted either way. A timeout: `Unavailable` for a read, `UnknownOutcome` for a write.
//!
//! Nothing waits here: there is no queue in front of the store. A future that
//! is dropped gives back all that it held. A call that passes costs no
//! allocation but the future's own box.
//!
//! `terse_store_request_seconds` is recorded here, from after the admission to
//! the answer, so that all backends are measured alike.
//!
//! In front of both guards are **gates** ([`ConcurrencyLimit`]) that let fewer
//! calls in when the shard takes longer, and refuse the others at once as
//! [`Overloaded`](StoreErrorKind::Overloaded): `gate.rs` says what goes first.

mod gate;
mod lane;
mod ports;
mod settings;
mod stats;
#[cfg(test)]
mod tests;
mod watch;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use terse_core::metrics::{Metrics, Shed};
use terse_core::ports::{StoreError, StoreErrorKind};
use terse_resilience::{Breaker, ConcurrencyLimit, MonotonicClock, SettingsError};

use crate::operation::{Operation, Timings};
use gate::{CREATES_GIVE_WAY, Gate, REFRESHES_GIVE_WAY};
use lane::{Compartment, Ended, Lane, within};

pub use settings::{CatalogSettings, GuardSettings, LaneSettings, MarksSettings};
pub use stats::{GuardedStats, StatsGuardSettings};
pub use watch::watched_breaker;

/// `S` behind its two guards; implements those storage ports that `S` does.
pub struct Guarded<S: ?Sized> {
    shard: String,
    read: Lane,
    write: Lane,
    redirects: Gate,
    creates: Gate,
    catalog: Compartment,
    catalog_timeout: Duration,
    marks: Compartment,
    marks_timeout: Duration,
    check_timeout: Duration,
    timings: Timings,
    inner: Arc<S>,
}

impl<S: ?Sized> Guarded<S> {
    /// Guards `inner`, the store of `shard`. `seed` spreads the breakers' open
    /// times, and has to differ from shard to shard and from node to node.
    ///
    /// # Errors
    /// The first setting outside its limits.
    pub fn new(
        shard: &str,
        inner: Arc<S>,
        settings: &GuardSettings,
        clock: &Arc<dyn MonotonicClock>,
        seed: u64,
        metrics: &Metrics,
    ) -> Result<Self, SettingsError> {
        settings.check()?;
        let lane = |name: &str, settings, seed| {
            Lane::new(format!("{shard}/{name}"), settings, Arc::clone(clock), seed, metrics)
        };
        let gate = |name: &str, kind, settings| Gate::new(format!("{shard}/{name}"), kind, settings, clock, metrics);
        Ok(Self {
            shard: shard.to_owned(),
            redirects: gate("read", Shed::Redirect, settings.redirects)?,
            creates: gate("write", Shed::Create, settings.creates)?,
            read: lane("read", &settings.read, seed)?,
            write: lane("write", &settings.write, seed.wrapping_add(1))?,
            catalog: Compartment::new(&format!("{shard}/catalog"), settings.catalog.permits, metrics)?,
            catalog_timeout: Duration::from_millis(settings.catalog.timeout_ms),
            marks: Compartment::new(&format!("{shard}/marks"), settings.marks.permits, metrics)?,
            marks_timeout: Duration::from_millis(settings.marks.timeout_ms),
            check_timeout: Duration::from_millis(settings.check_timeout_ms),
            timings: Timings::new(metrics, shard),
            inner,
        })
    }

    /// The guarded store.
    #[must_use]
    pub fn inner(&self) -> &Arc<S> {
        &self.inner
    }

    /// The breakers by name: `SHARD/read` and `SHARD/write`.
    pub fn breakers(&self) -> impl Iterator<Item = (&str, &Arc<Breaker>)> {
        [&self.read, &self.write].into_iter().map(|lane| (lane.name.as_str(), &lane.breaker))
    }

    /// How many calls may run at once and do, by name: redirects as `SHARD/read`, creates as `SHARD/write`.
    pub fn loads(&self) -> impl Iterator<Item = (&str, &Arc<ConcurrencyLimit>)> {
        [&self.redirects, &self.creates].into_iter().map(|gate| (gate.name.as_str(), &gate.limit))
    }

    /// Runs a read that a redirect waits for.
    async fn redirect<T, F>(&self, operation: Operation, call: impl FnOnce() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let pass = self.redirects.enter()?;
        let ended = self.judged(&self.read, operation, call).await?;
        pass.judge(&ended);
        ended.answer(StoreErrorKind::Unavailable, self.read.timeout)
    }

    /// Refuses to read again what memory has, unless redirects of what it has not leave room for it.
    fn refreshing(&self) -> Result<(), StoreError> {
        self.redirects.give_way(&self.redirects, REFRESHES_GIVE_WAY)
    }

    /// Runs a write that a client waits for, while redirects leave room for it.
    async fn edit<T, F>(&self, operation: Operation, call: impl FnOnce() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        self.creates.give_way(&self.redirects, CREATES_GIVE_WAY)?;
        let pass = self.creates.enter()?;
        let ended = self.judged(&self.write, operation, call).await?;
        pass.judge(&ended);
        ended.answer(StoreErrorKind::UnknownOutcome, self.write.timeout)
    }

    /// Runs a read that a client of the API waits for, while redirects leave room for it.
    async fn look<T, F>(&self, operation: Operation, call: impl FnOnce() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        self.creates.give_way(&self.redirects, CREATES_GIVE_WAY)?;
        self.catalog(operation, call).await
    }

    /// Runs a write of this server's own.
    async fn write<T, F>(&self, operation: Operation, call: impl FnOnce() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let ended = self.judged(&self.write, operation, call).await?;
        ended.answer(StoreErrorKind::UnknownOutcome, self.write.timeout)
    }

    /// Runs a write of which a success tells nothing: where records expire by
    /// themselves it asks nobody, and would vouch each minute for a shard that is away.
    async fn upkeep<T, F>(&self, operation: Operation, call: impl FnOnce() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let _place = self.write.places.enter()?;
        let permit = self.write.permit()?;
        let _timer = self.timings.start(operation);
        let ended = within(self.write.timeout, call()).await;
        match ended {
            Ended::Answered(Ok(_)) => permit.ignore(),
            _ => ended.judge(permit),
        }
        ended.answer(StoreErrorKind::UnknownOutcome, self.write.timeout)
    }

    /// Runs `call` behind `lane`, whose breaker judges how it ends.
    async fn judged<T, F>(
        &self,
        lane: &Lane,
        operation: Operation,
        call: impl FnOnce() -> F,
    ) -> Result<Ended<T>, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let _place = lane.places.enter()?;
        let permit = lane.permit()?;
        let _timer = self.timings.start(operation);
        let ended = within(lane.timeout, call()).await;
        ended.judge(permit);
        Ok(ended)
    }

    /// Runs a read that no redirect waits for.
    async fn catalog<T, F>(&self, operation: Operation, call: impl FnOnce() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let _share = self.catalog.enter()?;
        let _place = self.read.places.enter()?;
        let permit = self.read.lenient_permit()?;
        let _timer = self.timings.start(operation);
        let ended = within(self.catalog_timeout, call()).await;
        if let Ended::Answered(Ok(_)) = ended {
            permit.success();
        }
        ended.answer(StoreErrorKind::Unavailable, self.catalog_timeout)
    }

    /// Runs a read of marks past the guards, in a place of its own.
    async fn poll<T, F>(&self, call: impl FnOnce() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let _place = self.marks.enter()?;
        let _timer = self.timings.start(Operation::Marks);
        within(self.marks_timeout, call()).await.answer(StoreErrorKind::Unavailable, self.marks_timeout)
    }
}
