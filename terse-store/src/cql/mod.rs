//! Links on a cluster that speaks CQL: Apache Cassandra or ScyllaDB.
//!
//! A [`CqlStore`] is made without any I/O and answers "unavailable" until
//! [`CqlStore::connect_once`] has succeeded, so a server starts with any
//! cluster away. From then on the driver keeps its connections by itself.
//!
//! Connected, it answers settings alone, until [`CqlStore::admit`]: they tell
//! whether it is the store that is meant.
//!
//! - Links are written by conditional writes (LWT) only; one whose outcome is
//!   unknown is read back and finished, see [`lwt`].
//! - Rows are read at a quorum; a redirect falls back to one replica, whose
//!   "found" is told as stale and whose "not found" is never believed, see [`levels`].
//! - Every edit writes a mark before and after itself, see [`marks`] and [`owed`];
//!   a server whose clock is off the store's makes none, see [`store_clock`].
//!
//! The read model of clicks ([`read_model`]) has a session and tables of its own, and how these come to be from here.
//!
//! Every wait is bounded by [`CqlLimits`]. Nothing here queues: how many calls
//! run at once is bounded by the guard around the store.

mod catalog;
mod config;
mod connection;
mod dialect;
mod fault;
mod health;
mod idempotency;
mod keys;
mod leases;
mod levels;
mod links;
mod lwt;
mod marks;
mod owed;
mod read_model;
mod rows;
mod schema;
mod session;
mod settings;
mod store_clock;
mod stripes;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use scylla::client::session::Session;
use terse_core::ports::StoreError;
use terse_core::{Clock, Entropy};
use terse_resilience::Breaker;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;

pub use config::{CqlConfig, CqlLimits};
use connection::{Connection, until};
use links::KnownMonths;
use owed::Debts;
pub use read_model::{CqlReadModel, CqlReadModelConfig, ReadModelBounds};
use session::{Preparer, Profiles};
use store_clock::StoreClock;
use stripes::Stripes;

use crate::lenient::Lenience;

/// Links and what belongs to them in one keyspace.
pub struct CqlStore {
    config: CqlConfig,
    quorum: Arc<Breaker>,
    lenience: Lenience,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    connection: Connection<Live>,
    /// Set by `admit`: until then only settings are answered.
    admitted: AtomicBool,
    /// Turns of codes and idempotency keys.
    turns: Stripes,
    /// Turns of leases, settings and API keys: no hot code may keep a server from its next ids.
    home_turns: Stripes,
    known_months: KnownMonths,
    debts: Debts,
    /// Bounds what lists read and remove beyond their entries.
    listing: Semaphore,
}

/// A session, and all statements prepared in it.
struct Live {
    session: Session,
    /// Where the session's connections are served.
    runtime: Handle,
    links: links::Statements,
    marks: marks::Statements,
    catalog: catalog::Statements,
    idempotency: idempotency::Statements,
    settings: settings::Statements,
    leases: leases::Statements,
    keys: keys::Statements,
    health: health::Statements,
    clock: StoreClock,
}

impl CqlStore {
    /// A store that is not connected yet; no I/O. `quorum` is the breaker
    /// `NAME/quorum`, which chooses the consistency of reads.
    #[must_use]
    pub fn new(config: CqlConfig, quorum: Arc<Breaker>, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Arc<Self> {
        let (turns, home_turns) = (Stripes::new(&*entropy), Stripes::new(&*entropy));
        let known_months = KnownMonths::new(config.limits.known_months);
        let debts = Debts::new(config.limits.owed_writes, Duration::from_millis(config.limits.write_timeout_ms));
        let listing = Semaphore::new(config.limits.list_reads_in_all.max(1));
        Arc::new(Self {
            config,
            quorum,
            lenience: Lenience::new(),
            clock,
            entropy,
            connection: Connection::none(),
            admitted: AtomicBool::new(false),
            turns,
            home_turns,
            known_months,
            debts,
            listing,
        })
    }

    /// Connects, brings the keyspace to this release's schema and prepares all
    /// statements, unless that is done already. One bounded step
    /// ([`CqlLimits::startup_timeout_ms`], [`CqlLimits::migration_timeout_ms`]),
    /// to be called again until it succeeds. Tells whether it was this call
    /// that connected; while another one is at it, fails at once.
    ///
    /// # Errors
    /// [`StoreErrorKind::Corrupt`](terse_core::ports::StoreErrorKind::Corrupt) when a newer release wrote the
    /// keyspace; else the cluster could not be reached in time.
    pub async fn connect_once(&self) -> Result<bool, StoreError> {
        self.connection.connect_once(&self.config, Live::connect(&self.config, &*self.clock)).await
    }

    /// Waits until no write owes the mark after it, also those whose callers
    /// went away; at most [`CqlLimits::write_timeout_ms`]. To be awaited before
    /// the runtime ends in which the store was connected. Tells whether all are written.
    pub async fn settled(&self) -> bool {
        self.debts.settled().await
    }

    /// Lets the store answer, after its settings told that it is the one that
    /// is meant: with another's slots it would hide links and free taken aliases.
    pub fn admit(&self) {
        self.admitted.store(true, Ordering::Release);
    }

    /// When a write that begins now must have ended, but for what it still owes then.
    fn write_deadline(&self) -> Instant {
        Instant::now() + Duration::from_millis(self.config.limits.write_deadline_ms)
    }

    /// The session, once the store is connected and admitted.
    fn live(&self) -> Result<&Arc<Live>, StoreError> {
        if !self.admitted.load(Ordering::Acquire) {
            return Err(fault::unavailable(format!("shard '{}' is not admitted yet", self.config.shard)));
        }
        self.connected()
    }

    /// The session, once there is one: for settings, which are asked before the store is admitted.
    fn connected(&self) -> Result<&Arc<Live>, StoreError> {
        self.connection.get(&self.config)
    }
}

impl Live {
    async fn connect(config: &CqlConfig, clock: &dyn Clock) -> Result<Self, StoreError> {
        let opened = connection::open(config, &schema::LINKS, clock.now()).await?;
        let prepared = Self::prepare(opened.session, &opened.profiles, &opened.keyspace);
        let live = until(opened.deadline, config, prepared).await?;
        until(opened.deadline, config, live.clock.measure(&live.session, clock)).await?;
        Ok(live)
    }

    async fn prepare(session: Session, profiles: &Profiles, keyspace: &str) -> Result<Self, StoreError> {
        let preparer = Preparer { session: &session, profiles, keyspace };
        Ok(Self {
            links: links::Statements::prepare(&preparer).await?,
            marks: marks::Statements::prepare(&preparer).await?,
            catalog: catalog::Statements::prepare(&preparer).await?,
            idempotency: idempotency::Statements::prepare(&preparer).await?,
            settings: settings::Statements::prepare(&preparer).await?,
            leases: leases::Statements::prepare(&preparer).await?,
            keys: keys::Statements::prepare(&preparer).await?,
            health: health::Statements::prepare(&preparer).await?,
            clock: StoreClock::new(profiles),
            session,
            runtime: Handle::current(),
        })
    }
}

/// `step` of a write before its conditional write, if it ends by `deadline`.
///
/// # Errors
/// [`StoreErrorKind::Unavailable`](terse_core::ports::StoreErrorKind::Unavailable) if not: nothing has happened.
async fn by<T>(deadline: Instant, step: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let ended = tokio::time::timeout_at(deadline, step).await;
    ended.unwrap_or_else(|_| Err(fault::unavailable("a write's time was up before it could begin")))
}
