//! What a write of a link still owes when its conditional write has ended: the
//! mark after it, and the removal of an entry that leads nowhere.
//!
//! Both are owed on every outcome, also when the caller went away meanwhile. So
//! a task waits for the outcome beside the write, begun before it, and pays
//! even if nobody is left to tell it. It runs where the driver's connections
//! do, so it outlives a web worker too. The caller waits for it, but no longer
//! than a write takes: its answer is known, and a debt that hangs doesn't change it.
//!
//! Bounds: so many debts at once ([`owed_writes`](super::CqlLimits::owed_writes));
//! the next write is refused before it begins. Each ends within the time of its
//! caller and of one write; [`Debts::settled`] waits for all of them.

use std::sync::Arc;
use std::time::Duration;

use terse_core::ports::{StoreError, StoreErrorKind};
use terse_core::{Clock, Entropy, Owner, ShortCode, Timestamp, Version};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

use super::{CqlStore, Live};

/// What is to be written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Owed {
    /// The version of the mark.
    pub(super) mark: Option<Version>,
    /// Whose entry is to be removed, and when its link was, or was to be, created.
    pub(super) unlist: Option<(Owner, Timestamp)>,
}

impl Owed {
    /// A mark of `version`.
    pub(super) fn mark(version: Version) -> Self {
        Self { mark: Some(version), unlist: None }
    }

    /// A mark of the version that was read back. Of the first one there is
    /// nothing to tell: nobody has an older one.
    pub(super) fn mark_of_known(version: Version) -> Self {
        Self { mark: (version > Version::FIRST).then_some(version), unlist: None }
    }

    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// The debts of a store.
pub(super) struct Debts {
    places: Arc<Semaphore>,
    at_most: u32,
    /// How long a caller waits for one.
    patience: Duration,
}

/// What one write will owe. Dropped, it owes what it was said to owe otherwise.
#[must_use = "dropped, it owes what was said at its beginning"]
pub(super) struct Debt {
    outcome: oneshot::Sender<Owed>,
    paid: JoinHandle<()>,
    patience: Duration,
}

impl Debts {
    pub(super) fn new(at_most: u32, patience: Duration) -> Self {
        Self { places: Arc::new(Semaphore::new(at_most as usize)), at_most, patience }
    }

    /// Begins a task on `runtime` that will `pay` what is told, or else `otherwise`.
    ///
    /// # Errors
    /// [`StoreErrorKind::Overloaded`] when there are too many debts.
    fn begin<P, F>(&self, runtime: &Handle, otherwise: Owed, pay: P) -> Result<Debt, StoreError>
    where
        P: FnOnce(Owed) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            StoreError::new(StoreErrorKind::Overloaded, "too many writes still owe the mark after them")
        })?;
        let (outcome, told) = oneshot::channel();
        let paid = runtime.spawn(async move {
            pay(told.await.unwrap_or(otherwise)).await;
            drop(place);
        });
        Ok(Debt { outcome, paid, patience: self.patience })
    }

    /// Waits until nothing is owed; `false` = something still is after a write's time.
    pub(super) async fn settled(&self) -> bool {
        tokio::time::timeout(self.patience, self.places.acquire_many(self.at_most)).await.is_ok()
    }
}

impl Debt {
    /// Tells what is owed, and gives it a write's time to be paid. What is not
    /// paid by then goes on by itself.
    pub(super) async fn settle(self, owed: Owed) {
        let nothing = owed.is_nothing();
        // A task that is gone has ended with its runtime, and the connections with it.
        if self.outcome.send(owed).is_err() {
            tracing::warn!("a mark is missing: the store has ended");
        } else if !nothing && tokio::time::timeout(self.patience, self.paid).await.is_err() {
            tracing::warn!("the mark after a write takes long");
        }
    }
}

/// Who pays the debts of one write.
struct Payer {
    live: Arc<Live>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    shard: String,
    code: ShortCode,
}

impl Payer {
    async fn pay(self, owed: Owed) {
        futures_util::join!(self.mark(owed.mark), self.unlist(owed.unlist));
    }

    /// The edit is done by now, and the mark before it stands: a failure is logged only.
    async fn mark(&self, version: Option<Version>) {
        let Some(version) = version else { return };
        let marked = self.live.mark(&self.code, version, &*self.clock, &*self.entropy).await;
        if let Err(error) = marked {
            tracing::warn!(shard = self.shard, code = %self.code, %error, "the mark after a write is missing");
        }
    }

    /// Removes an entry that leads to no link. A failure is logged only: lists skip such entries.
    async fn unlist(&self, entry: Option<(Owner, Timestamp)>) {
        let Some((owner, created_at)) = entry else { return };
        if let Err(error) = self.live.unlist(&owner, created_at, &self.code).await {
            tracing::warn!(shard = self.shard, code = %self.code, %error, "an entry stays in its list");
        }
    }
}

impl CqlStore {
    /// A debt of a write of `code`, which owes `otherwise` if it is not told what came of it.
    ///
    /// # Errors
    /// [`StoreErrorKind::Overloaded`] when there are too many debts.
    pub(super) fn owe(&self, live: &Arc<Live>, code: &ShortCode, otherwise: Owed) -> Result<Debt, StoreError> {
        let payer = Payer {
            live: Arc::clone(live),
            clock: Arc::clone(&self.clock),
            entropy: Arc::clone(&self.entropy),
            shard: self.config.shard.clone(),
            code: code.clone(),
        };
        self.debts.begin(&live.runtime, otherwise, |owed| payer.pay(owed))
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use parking_lot::Mutex;
    use tokio::time::Instant;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(800);

    type Paid = Arc<Mutex<Vec<Owed>>>;

    fn begin(debts: &Debts, paid: &Paid) -> Result<Debt, StoreError> {
        let paid = Arc::clone(paid);
        debts.begin(&Handle::current(), Owed::mark(Version(2)), |owed| async move { paid.lock().push(owed) })
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_owed_is_paid_before_the_answer() {
        let (debts, paid) = (Debts::new(1, PATIENCE), Paid::default());
        begin(&debts, &paid).unwrap().settle(Owed::mark(Version(7))).await;
        assert_eq!(*paid.lock(), [Owed::mark(Version(7))]);
        assert!(debts.settled().await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_goes_away_after_its_write_leaves_the_mark() {
        let (debts, paid) = (Debts::new(1, PATIENCE), Paid::default());
        let debt = begin(&debts, &paid).unwrap();
        let caller = tokio::spawn(async move {
            let _debt = debt;
            pending::<()>().await;
        });
        tokio::task::yield_now().await;
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        assert!(debts.settled().await);
        assert_eq!(*paid.lock(), [Owed::mark(Version(2))]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_goes_away_while_it_settles_leaves_what_it_told() {
        let (debts, paid) = (Debts::new(1, PATIENCE), Paid::default());
        let debt = begin(&debts, &paid).unwrap();
        // Polled once, and gone.
        assert!(futures_util::FutureExt::now_or_never(debt.settle(Owed::mark(Version(7)))).is_none());
        assert!(debts.settled().await);
        assert_eq!(*paid.lock(), [Owed::mark(Version(7))]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_mark_that_hangs_holds_no_answer_back_for_longer_than_a_write() {
        let debts = Debts::new(2, PATIENCE);
        let began = Instant::now();
        let debt = debts.begin(&Handle::current(), Owed::default(), |_| pending()).unwrap();
        debt.settle(Owed::mark(Version(7))).await;
        assert_eq!(began.elapsed(), PATIENCE);
        assert!(!debts.settled().await);
        // Nothing owed is nothing to wait for.
        let debt = debts.begin(&Handle::current(), Owed::default(), |_| pending()).unwrap();
        let began = Instant::now();
        debt.settle(Owed::default()).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_debts_may_stand_and_the_next_write_is_refused() {
        let (debts, paid) = (Debts::new(2, PATIENCE), Paid::default());
        let (_first, second) = (begin(&debts, &paid).unwrap(), begin(&debts, &paid).unwrap());
        assert_eq!(begin(&debts, &paid).err().unwrap().kind, StoreErrorKind::Overloaded);
        second.settle(Owed::mark(Version(3))).await;
        assert!(begin(&debts, &paid).is_ok());
    }
}
