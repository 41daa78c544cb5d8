//! The ring that answers from memory and reads through on a miss.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use terse_core::ports::{LinkReader, Lookup, StoreError, StoreErrorKind};
use terse_core::{Clock, Resolution, ShortCode, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use crate::flight::{Answer, Flight, Stripe, Stripes, Waiter, WriteBegin};
use crate::landing::{Landed, Untrusted};
use crate::memory::{Memory, millis};
use crate::{CacheConfig, Shards, SharedCache, Stats};

/// How long after it began what a look-up or a write brought is shared. A process
/// that was stopped meanwhile would give an old link a new life in the shared cache.
const SHARE_WITHIN_MS: u64 = 5_000;

/// Answers look-ups from memory while that is fresh, else reads through to the inner reader.
///
/// [`resolve`](LinkReader::resolve) must be called inside a tokio runtime with
/// time enabled: a flight is a task of its own, so that it doesn't end with the
/// one who happened to start it. If the runtime that it runs on goes away, its
/// waiters elsewhere get an error (or a stale link).
pub struct ReadThrough {
    inner: Arc<dyn LinkReader>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) memory: Memory,
    shared: Option<Arc<dyn SharedCache>>,
    pub(crate) stripes: Stripes,
    flights: Arc<Semaphore>,
    max_flights: usize,
    max_waiters: usize,
    pub(crate) wait: Duration,
    doubt_ms: u64,
    max_marks: usize,
    overflows: AtomicU64,
    this: Weak<Self>,
}

/// What a cache shares with other nodes.
pub struct Neighbours {
    /// The cache that nodes share (L2), if there is one.
    pub shared: Option<Arc<dyn SharedCache>>,
    /// Which shards others change, so that their marks must be polled.
    pub shards: Shards,
}

/// What became of a write, as far as memory is concerned.
pub(crate) enum Change {
    /// The link is this now.
    Now(Resolution),
    /// The link is other than was thought, and has at least this version.
    Other(Version),
    /// The link is other than was thought, or can't be told.
    Unknown,
    /// A link of the code exists or may exist; if one was known before, it is unchanged.
    MayExist,
    /// Certainly nothing happened.
    Nothing,
    /// The link may have been changed to this version, or be changed to it yet.
    InDoubt(Version),
}

impl ReadThrough {
    /// An empty cache in front of `inner`, which no other process changes, without a shared cache.
    #[must_use]
    pub fn new(inner: Arc<dyn LinkReader>, clock: Arc<dyn Clock>, config: CacheConfig) -> Arc<Self> {
        Self::with(inner, clock, config, Neighbours { shared: None, shards: Shards::in_step() })
    }

    /// An empty cache in front of `inner` that other nodes may have beside them.
    #[must_use]
    pub fn with(
        inner: Arc<dyn LinkReader>,
        clock: Arc<dyn Clock>,
        config: CacheConfig,
        neighbours: Neighbours,
    ) -> Arc<Self> {
        let max_flights = config.max_flights.min(Semaphore::MAX_PERMITS);
        Arc::new_cyclic(|this| Self {
            inner,
            clock,
            memory: Memory::new(&config, neighbours.shards),
            shared: neighbours.shared,
            stripes: Stripes::new(),
            flights: Arc::new(Semaphore::new(max_flights)),
            max_flights,
            max_waiters: config.max_waiters,
            wait: config.wait,
            doubt_ms: millis(config.doubt_for),
            max_marks: config.max_marks,
            overflows: AtomicU64::new(0),
            this: Weak::clone(this),
        })
    }

    /// What the cache holds now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            links: self.memory.links(),
            bytes: self.memory.bytes(),
            marked: self.memory.marked().len(),
            overflows: self.overflows.load(Ordering::Relaxed),
            bypasses: self.memory.marked().bypasses(),
            bypassed: self.memory.marked().bypassed(self.clock.monotonic_ms()),
            flights: self.max_flights - self.flights.available_permits(),
        }
    }

    /// Whether what is remembered of the shard with that number is in step with the store now.
    #[must_use]
    pub fn is_fresh(&self, shard: usize) -> bool {
        self.memory.shards().is_fresh(shard, self.clock.monotonic_ms())
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    pub(crate) fn shared(&self) -> Option<&dyn SharedCache> {
        self.shared.as_deref()
    }

    pub(crate) fn shards(&self) -> &Shards {
        self.memory.shards()
    }

    pub(crate) fn max_marks(&self) -> usize {
        self.max_marks
    }

    /// When an edit whose mark is seen now can't happen any more.
    pub(crate) fn settles_at_ms(&self) -> u64 {
        self.clock.monotonic_ms().saturating_add(self.doubt_ms)
    }

    /// Whether what was asked for at `began_ms` is young enough to be shared now.
    pub(crate) fn may_share(&self, began_ms: u64) -> bool {
        self.clock.monotonic_ms().saturating_sub(began_ms) <= SHARE_WITHIN_MS
    }

    /// Notes that there were more marks than can be read.
    pub(crate) fn count_overflow(&self) {
        self.overflows.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes a mark that is seen now. After that no look-up that began before is
    /// stored or joined, and nothing older is served from memory.
    pub(crate) fn mark_seen(&self, code: &ShortCode, version: Version) {
        let mut stripe = self.stripes.lock(code);
        self.memory.mark(code, version, self.clock.monotonic_ms());
        stripe.detach(code);
    }

    /// Drops once more what a mark outdated.
    pub(crate) fn drop_marked(&self, code: &ShortCode, least: Version) {
        let mut stripe = self.stripes.lock(code);
        self.memory.drop_older(code, least);
        stripe.detach(code);
    }

    /// Notes that a write of `code` begins.
    pub(crate) fn write_begins(&self, code: &ShortCode) -> WriteBegin {
        self.stripes.lock(code).begin_write(code)
    }

    /// Brings memory in step with a write of `code` that ends. After that, no
    /// look-up that began before is stored or joined.
    pub(crate) fn write_ends(&self, code: &ShortCode, begin: WriteBegin, change: Change) {
        let now_ms = self.clock.monotonic_ms();
        let mut stripe = self.stripes.lock(code);
        stripe.detach(code);
        let alone = stripe.end_write(code, begin);
        match change {
            Change::Now(link) => {
                self.memory.acknowledge(code, link.version, now_ms);
                if self.newer(code, &link).is_some() {
                    return;
                }
                let newest = self.memory.is_newest(code, link.version);
                if newest && alone && !stripe.in_doubt(code, now_ms) {
                    self.memory.put(code, &link, now_ms);
                } else {
                    self.memory.forget(code);
                    self.memory.know(code, link.version);
                }
            }
            Change::Other(version) => {
                self.memory.acknowledge(code, version, now_ms);
                self.memory.forget(code);
                self.memory.see(code, version);
            }
            Change::Unknown => {
                self.memory.mark(code, Version::FIRST, now_ms);
                self.memory.forget(code);
            }
            Change::MayExist => self.memory.forget_negative(code),
            Change::Nothing => self.memory.end_freshness(code),
            Change::InDoubt(version) => {
                self.memory.mark(code, version, now_ms);
                self.memory.forget(code);
                stripe.doubt(code, now_ms, now_ms.saturating_add(self.doubt_ms));
            }
        }
    }

    /// What memory knows of `code`, if that is newer than `link`.
    pub(crate) fn newer(&self, code: &ShortCode, link: &Resolution) -> Option<Lookup> {
        let known = self.memory.stale(code.as_str(), self.clock.monotonic_ms())?;
        known.link.as_ref().is_some_and(|known| known.version > link.version).then_some(known)
    }

    /// What memory, or else a flight, says of `code`.
    async fn look_up(&self, code: &ShortCode) -> Result<Lookup, StoreError> {
        if let Some(found) = self.peek(code.as_str()) {
            return Ok(found);
        }
        let answer = match self.board(code) {
            Ok(Boarding::Answered(found)) => return Ok(found),
            Ok(Boarding::Aboard(waiter)) => match timeout(self.wait, waiter.answer()).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_lost)) => Err(unavailable("the look-up ended without an answer")),
                Err(_) => Err(unavailable("the look-up took too long")),
            },
            Err(refused) => Err(refused),
        };
        answer.or_else(|error| self.memory.stale(code.as_str(), self.clock.monotonic_ms()).ok_or(error))
    }

    /// Joins the current flight of `code`, or starts one.
    pub(crate) fn board(&self, code: &ShortCode) -> Result<Boarding, StoreError> {
        let mut stripe = self.stripes.lock(code);
        let now_ms = self.clock.monotonic_ms();
        // The flight that would have been joined may just have ended.
        if let Some(found) = self.memory.fresh(code.as_str(), now_ms) {
            return Ok(Boarding::Answered(found));
        }
        // A change that nobody has told of yet may have been made since it began.
        let joinable = |flight: &&Arc<Flight>| self.memory.in_step(code, flight.began_ms(), now_ms);
        if let Some(flight) = stripe.flight(code).filter(joinable) {
            let waiter = flight.join(self.max_waiters).ok_or_else(|| overloaded("too many wait for one look-up"))?;
            return Ok(Boarding::Aboard(waiter));
        }
        let (waiter, task) = self.prepare(&mut stripe, code, now_ms)?;
        // A runtime that is shutting down drops the task at once, and that needs the lock.
        drop(stripe);
        tokio::spawn(task.run());
        Ok(Boarding::Aboard(waiter))
    }

    fn prepare(&self, stripe: &mut Stripe, code: &ShortCode, now_ms: u64) -> Result<(Waiter, FlightTask), StoreError> {
        let permit =
            Arc::clone(&self.flights).try_acquire_owned().map_err(|_| overloaded("too many look-ups are running"))?;
        let cache = self.this.upgrade().ok_or_else(|| unavailable("the cache is going away"))?;
        let (flight, answer) = Flight::new(now_ms);
        let waiter = flight.join(self.max_waiters).ok_or_else(|| overloaded("nobody may wait for a look-up"))?;
        stripe.begin(code, &flight);
        let task = FlightTask { cache, code: code.clone(), flight, began_ms: now_ms, answer, _permit: permit };
        Ok((waiter, task))
    }
}

/// How one gets an answer.
pub(crate) enum Boarding {
    /// It is in memory by now.
    Answered(Lookup),
    /// It is to be waited for.
    Aboard(Waiter),
}

/// A flight's own task. However it ends, the flight is no longer current and its waiters are released.
struct FlightTask {
    cache: Arc<ReadThrough>,
    code: ShortCode,
    flight: Arc<Flight>,
    began_ms: u64,
    answer: watch::Sender<Option<Answer>>,
    _permit: OwnedSemaphorePermit,
}

impl FlightTask {
    async fn run(self) {
        let look_up = timeout(self.cache.wait, self.look_up()).await;
        let landed = look_up.unwrap_or_else(|_| self.land(Err(unavailable("the look-up took too long"))));
        self.answer.send_replace(Some(landed.answer));
        // Nobody waits for this; and it is bounded, since the flight counts until it is done.
        if let (Some(shared), Some(link)) = (self.cache.shared(), landed.to_share)
            && self.cache.may_share(self.began_ms)
        {
            shared.put(&self.code, &link).await;
        }
    }

    /// Asks what lies behind this process's memory: the shared cache, then the inner reader.
    async fn look_up(&self) -> Landed {
        if let Some(answer) = self.ask_shared().await {
            return Landed { answer: Ok(answer), to_share: None };
        }
        // With an answer at hand that was fresh a moment ago, the store need not be pressed for another.
        let inner = &self.cache.inner;
        self.land(if self.cache.memory.was_fresh_lately(self.code.as_str(), self.began_ms) {
            inner.refresh(&self.code).await
        } else {
            inner.resolve(&self.code).await
        })
    }

    /// Asks the shared cache, if it may be trusted. What it has that is outdated goes from it.
    async fn ask_shared(&self) -> Option<Lookup> {
        let shared = self.cache.shared()?;
        if !self.cache.asks_shared(&self.code) {
            return None;
        }
        let link = shared.get(&self.code).await?;
        match self.cache.land_shared(&self.code, &self.flight, self.began_ms, &link) {
            Ok(found) => Some(found),
            Err(Untrusted { least }) => {
                if link.version < least {
                    shared.drop_older(&self.code, least).await;
                }
                None
            }
        }
    }

    fn land(&self, answer: Answer) -> Landed {
        self.cache.land(&self.code, &self.flight, self.began_ms, answer)
    }
}

impl Drop for FlightTask {
    fn drop(&mut self) {
        if self.answer.borrow().is_none() {
            self.cache.stripes.lock(&self.code).end(&self.code, &self.flight);
            tracing::warn!(code = %self.code, "a look-up ended without an answer");
        }
    }
}

#[async_trait]
impl LinkReader for ReadThrough {
    fn peek(&self, code: &str) -> Option<Lookup> {
        self.peek_at(code, self.clock.monotonic_ms())
    }

    fn peek_at(&self, code: &str, now_ms: u64) -> Option<Lookup> {
        self.memory.fresh(code, now_ms)
    }

    async fn resolve(&self, code: &ShortCode) -> Result<Lookup, StoreError> {
        // What comes from memory has been judged already. Flights carry links as they are.
        self.look_up(code).await.map(|found| self.memory.blocked().judged(found))
    }

    async fn resolve_near(&self, code: &ShortCode) -> Option<Lookup> {
        self.near(code).await.map(|found| self.memory.blocked().judged(found))
    }
}

pub(crate) fn unavailable(message: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, message)
}

fn overloaded(message: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Overloaded, message)
}
