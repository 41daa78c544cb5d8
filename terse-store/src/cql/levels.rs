//! At which consistency rows are read.
//!
//! Rows are read at LOCAL_QUORUM, so that everything acknowledged is seen.
//! While the breaker `NAME/quorum` is open, nobody waits for a quorum that
//! isn't there. What to do then is the caller's: a redirect asks one replica
//! ([`super::links`]), all else fails.
//!
//! Only point reads, those of redirects and of the health check, tell the
//! breaker of failures: they are alike and have one short timeout. Lists and
//! other reads of the API are slow by nature, and one owner's tombstones say
//! nothing of the quorum; of them it hears successes alone ([`crate::lenient`]).

use scylla::client::session::Session;
use scylla::errors::ExecutionError;
use scylla::response::query_result::QueryRowsResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;
use terse_core::ports::StoreError;
use terse_resilience::{Permit, RejectReason, Rejected};

use super::{CqlStore, Live, fault};
use crate::lenient::Refused;

/// When a read makes sense again that found no probe left, in milliseconds.
const PROBE_RETRY_MS: u64 = 500;

impl CqlStore {
    /// Reads one row for those who wait for it as a redirect does, at a quorum;
    /// the quorum breaker is told how that ended.
    pub(super) async fn point_rows(
        &self,
        live: &Live,
        operation: &str,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<QueryRowsResult, StoreError> {
        let permit = self.quorum.try_acquire().map_err(|rejected| fault::rejected(&self.config.shard, rejected))?;
        let answer = live.session.execute_unpaged(statement, values).await;
        tell(permit, answer.as_ref().err());
        rows_of(operation, answer)
    }

    /// Reads at the consistency of `statement`, a quorum, if the quorum breaker
    /// lets it through; it is told of success only.
    pub(super) async fn quorum_rows(
        &self,
        live: &Live,
        operation: &str,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<QueryRowsResult, StoreError> {
        rows_of(operation, self.leniently(live.session.execute_unpaged(statement, values)).await?)
    }

    /// Runs `read` if the quorum breaker lets it through.
    async fn leniently<T, E>(&self, read: impl Future<Output = Result<T, E>>) -> Result<Result<T, E>, StoreError> {
        let permit = self.lenience.try_acquire(&self.quorum).map_err(|refused| {
            let none_left = Rejected { reason: RejectReason::ProbesTaken, retry_after_ms: PROBE_RETRY_MS };
            let rejected = if let Refused::Rejected(rejected) = refused { rejected } else { none_left };
            fault::rejected(&self.config.shard, rejected)
        })?;
        let answer = read.await;
        if answer.is_ok() {
            permit.success();
        }
        Ok(answer)
    }
}

/// Reads without the breaker's knowledge, at whatever consistency `statement` has.
pub(super) async fn rows(
    live: &Live,
    operation: &str,
    statement: &PreparedStatement,
    values: impl SerializeRow,
) -> Result<QueryRowsResult, StoreError> {
    rows_on(&live.session, operation, statement, values).await
}

/// The same on any session.
pub(super) async fn rows_on(
    session: &Session,
    operation: &str,
    statement: &PreparedStatement,
    values: impl SerializeRow,
) -> Result<QueryRowsResult, StoreError> {
    rows_of(operation, session.execute_unpaged(statement, values).await)
}

fn rows_of(
    operation: &str,
    answer: Result<scylla::response::query_result::QueryResult, ExecutionError>,
) -> Result<QueryRowsResult, StoreError> {
    let answer = answer.map_err(|error| fault::read(operation, error))?;
    answer.into_rows_result().map_err(|error| fault::corrupt(format!("{operation}: no rows")).caused_by(error))
}

/// Ends a read at a quorum. That there is no row is a success.
fn tell(permit: Permit<'_>, error: Option<&ExecutionError>) {
    match error {
        None => permit.success(),
        Some(ExecutionError::RequestTimeout(_)) => permit.timeout(),
        // What was asked was wrong; the nodes are well.
        Some(ExecutionError::BadQuery(_)) => permit.ignore(),
        Some(_) => permit.failure(),
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::Arc;
    use std::time::Duration;

    use futures_util::FutureExt;
    use terse_core::Clock;
    use terse_core::ports::StoreErrorKind;
    use terse_resilience::{Breaker, BreakerSettings, Forced, State};
    use terse_testkit::{SeededEntropy, TestClock};

    use super::super::tests::unconnected;
    use super::*;
    use crate::CoreClock;

    /// A store whose quorum breaker takes a call of 250 ms for hung, its breaker and its clock.
    fn store() -> (Arc<CqlStore>, Arc<Breaker>, Arc<TestClock>) {
        let clock = Arc::new(TestClock::default());
        let shared: Arc<dyn Clock> = clock.clone();
        let settings = BreakerSettings { open_ms: 100, probes: 3, call_limit_ms: 250, ..BreakerSettings::default() };
        let quorum = Arc::new(Breaker::new(settings, Arc::new(CoreClock(Arc::clone(&shared))), 1).unwrap());
        let store = CqlStore::new(unconnected(), Arc::clone(&quorum), shared, Arc::new(SeededEntropy::new(1)));
        (store, quorum, clock)
    }

    #[tokio::test]
    async fn lists_that_fail_slowly_leave_the_quorum_breaker_closed() {
        let (store, quorum, clock) = store();
        for _ in 0..50 {
            let clock = Arc::clone(&clock);
            let list = async move {
                clock.advance(Duration::from_millis(800));
                Err::<(), _>("too many tombstones")
            };
            assert!(store.leniently(list).await.unwrap().is_err());
        }
        let seen = quorum.snapshot();
        assert_eq!((seen.state, seen.counts.failures, seen.counts.timeouts), (State::Closed, 0, 0));
        store.leniently(ready(Ok::<_, ()>(()))).await.unwrap().unwrap();
        assert_eq!(quorum.snapshot().counts.successes, 1);
    }

    #[tokio::test]
    async fn a_list_that_is_cancelled_late_counts_as_nothing() {
        let (store, quorum, clock) = store();
        for _ in 0..10 {
            let list = store.leniently(pending::<Result<(), ()>>());
            let mut list = Box::pin(list);
            assert!(list.as_mut().now_or_never().is_none(), "it hangs");
            clock.advance(Duration::from_millis(800));
        }
        let seen = quorum.snapshot();
        assert_eq!((seen.state, seen.counts.ignored, seen.counts.timeouts), (State::Closed, 10, 0));
    }

    #[tokio::test]
    async fn lists_that_hang_leave_probes_for_redirects() {
        let (store, quorum, clock) = store();
        (0..5).for_each(|_| quorum.try_acquire().unwrap().failure());
        clock.advance(Duration::from_millis(100));
        let mut list = Box::pin(store.leniently(pending::<Result<(), ()>>()));
        assert!(list.as_mut().now_or_never().is_none());
        let refused = store.leniently(ready(Ok::<_, ()>(()))).await.unwrap_err();
        assert_eq!((refused.kind, refused.retry_after_ms), (StoreErrorKind::Unavailable, PROBE_RETRY_MS));
        clock.advance(Duration::from_millis(800));
        drop(list);
        assert_eq!(quorum.state(), State::HalfOpen, "the list decided nothing");
        quorum.try_acquire().unwrap().success();
        assert_eq!(quorum.state(), State::Closed);
    }

    #[tokio::test]
    async fn no_list_is_read_while_there_is_no_quorum() {
        let (store, quorum, _) = store();
        quorum.force(Some(Forced::Open));
        let refused = store.leniently(ready(Ok::<_, ()>(()))).await.unwrap_err();
        assert_eq!(refused.kind, StoreErrorKind::Unavailable);
        assert!(refused.message.starts_with("main/quorum: "), "{refused}");
    }
}
