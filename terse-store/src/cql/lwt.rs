//! Conditional writes (LWT): what they answer, and how one whose outcome is
//! unknown is settled.
//!
//! Cassandra answers `[applied]` alone when the write was applied, and the
//! columns of the condition when not; ScyllaDB answers the old row either way.
//! So only the first column and the names of the others are relied on.
//!
//! A write that timed out may have happened, may still happen, or never will.
//! [`decide`] waits a moment, reads back at SERIAL (which completes
//! what was accepted) and compares the id that the write carries. Unchanged =
//! it is tried again with the same id; at the deadline
//! ([`write_deadline_ms`](super::CqlLimits::write_deadline_ms)) the outcome is
//! told as unknown, never guessed.

use std::time::Duration;

use async_trait::async_trait;
use scylla::client::session::Session;
use scylla::errors::ExecutionError;
use scylla::response::query_result::QueryResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::{CqlTimestamp, CqlValue, Row};
use terse_core::Entropy;
use terse_core::ports::{StoreError, StoreErrorKind};
use terse_core::time::random_bytes;
use terse_resilience::{Backoff, BackoffSettings, Jitter};
use tokio::time::Instant;

use super::{CqlStore, Live, fault};

/// The pauses before reading back: none shorter than the base, and so many as fit before the deadline.
const PAUSES: BackoffSettings =
    BackoffSettings { base_ms: 20, max_ms: 320, jitter: Jitter::Decorrelated, max_attempts: None };

/// What a conditional write answered.
#[derive(Debug, PartialEq)]
pub(super) enum Conditional {
    /// Its condition held; it is done.
    Applied,
    /// Its condition did not hold; nothing changed.
    Refused(Existing),
}

/// What an engine tells of the row that refused a write: the columns of the condition, or all. Empty = no row.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Existing(Vec<(String, CqlValue)>);

impl Existing {
    fn value(&self, column: &str) -> Option<&CqlValue> {
        self.0.iter().find(|(name, _)| name == column).map(|(_, value)| value)
    }

    pub(super) fn blob(&self, column: &str) -> Option<&[u8]> {
        self.value(column)?.as_blob().map(Vec::as_slice)
    }

    pub(super) fn bigint(&self, column: &str) -> Option<i64> {
        self.value(column)?.as_bigint()
    }

    pub(super) fn text(&self, column: &str) -> Option<&str> {
        self.value(column)?.as_text().map(String::as_str)
    }

    pub(super) fn timestamp(&self, column: &str) -> Option<CqlTimestamp> {
        self.value(column)?.as_cql_timestamp()
    }
}

/// Runs a conditional statement once.
pub(super) async fn conditional(
    live: &Live,
    operation: &str,
    statement: &PreparedStatement,
    values: impl SerializeRow,
) -> Result<Conditional, StoreError> {
    conditional_on(&live.session, operation, statement, values).await
}

/// The same on any session.
pub(super) async fn conditional_on(
    session: &Session,
    operation: &str,
    statement: &PreparedStatement,
    values: impl SerializeRow,
) -> Result<Conditional, StoreError> {
    answer_of(operation, session.execute_unpaged(statement, values).await)
}

fn answer_of(operation: &str, answer: Result<QueryResult, ExecutionError>) -> Result<Conditional, StoreError> {
    let answer = answer.map_err(|error| fault::conditional(operation, error))?;
    decoded(answer).map_err(|why| fault::corrupt(format!("{operation}: an answer that can't be understood: {why}")))
}

fn decoded(answer: QueryResult) -> Result<Conditional, String> {
    let rows = answer.into_rows_result().map_err(|error| error.to_string())?;
    let names: Vec<&str> = rows.column_specs().iter().map(|column| column.name()).collect();
    let row: Row = rows.first_row().map_err(|error| error.to_string())?;
    read_row(&names, row.columns)
}

/// Reads `[applied]` from the first column, and what else is there by name.
fn read_row(names: &[&str], columns: Vec<Option<CqlValue>>) -> Result<Conditional, String> {
    let mut columns = names.iter().zip(columns);
    match columns.next() {
        Some((_, Some(CqlValue::Boolean(true)))) => Ok(Conditional::Applied),
        Some((_, Some(CqlValue::Boolean(false)))) => {
            let present = columns.filter_map(|(name, value)| Some(((*name).to_owned(), value?)));
            Ok(Conditional::Refused(Existing(present.collect())))
        }
        other => Err(format!("the first column is {other:?}")),
    }
}

/// A conditional write that finds out for itself whether it happened.
#[async_trait]
pub(super) trait Decision: Sync {
    /// What became of it.
    type Answer: Send;

    /// One try. `again` = an earlier try may have happened. `None` = only reading back can tell.
    async fn try_once(&self, again: bool) -> Result<Option<Self::Answer>, StoreError>;

    /// Reads at SERIAL what stands. `None` = this write did not happen and may be tried again.
    async fn read_back(&self) -> Result<Option<Self::Answer>, StoreError>;
}

impl CqlStore {
    /// Carries `decision` out; see [`decide`].
    ///
    /// # Errors
    /// As [`decide`] has them.
    pub(super) async fn decide<D: Decision>(&self, deadline: Instant, decision: &D) -> Result<D::Answer, StoreError> {
        decide(&*self.entropy, deadline, decision).await
    }
}

/// Carries `decision` out until it is known what became of it, or `deadline`,
/// which is that of the whole call.
///
/// # Errors
/// [`StoreErrorKind::UnknownOutcome`] at the deadline; any other kind = nothing happened.
pub(super) async fn decide<D: Decision>(
    entropy: &dyn Entropy,
    deadline: Instant,
    decision: &D,
) -> Result<D::Answer, StoreError> {
    if Instant::now() >= deadline {
        return Err(fault::unavailable("a write's time was up before it could begin"));
    }
    let mut last = StoreError::new(StoreErrorKind::UnknownOutcome, "a write took too long");
    match tokio::time::timeout_at(deadline, settle(entropy, decision, &mut last)).await {
        Ok(answer) => answer,
        Err(_) => Err(last),
    }
}

/// `last` is the newest failure, told when the caller's time is up.
async fn settle<D: Decision>(
    entropy: &dyn Entropy,
    decision: &D,
    last: &mut StoreError,
) -> Result<D::Answer, StoreError> {
    let seed = u64::from_le_bytes(random_bytes(entropy));
    let mut pauses = Backoff::new(PAUSES, seed).map_err(|error| fault::unavailable(error.to_string()))?;
    let mut again = false;
    loop {
        match decision.try_once(again).await {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => {}
            Err(error) if error.kind == StoreErrorKind::Corrupt => return Err(error),
            Err(error) if again || error.kind == StoreErrorKind::UnknownOutcome => *last = still_unknown(error),
            Err(error) => return Err(error),
        }
        again = true;
        loop {
            let pause_ms = pauses.next_wait_ms().unwrap_or(PAUSES.max_ms);
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            match decision.read_back().await {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => break,
                Err(error) if error.kind == StoreErrorKind::Corrupt => return Err(still_unknown(error)),
                Err(error) => *last = still_unknown(error),
            }
        }
    }
}

/// A failure after a try that may have happened.
fn still_unknown(error: StoreError) -> StoreError {
    StoreError { kind: StoreErrorKind::UnknownOutcome, ..error }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::super::tests::{store, unconnected};
    use super::*;

    #[test]
    fn pauses_are_sound_and_neither_none_nor_long() {
        PAUSES.check().unwrap();
        let mut pauses = Backoff::new(PAUSES, 1).unwrap();
        assert!((0..100).all(|_| (20..=320).contains(&pauses.next_wait_ms().unwrap())));
    }

    #[test]
    fn cassandra_tells_only_that_it_applied() {
        assert_eq!(read_row(&["[applied]"], vec![Some(CqlValue::Boolean(true))]), Ok(Conditional::Applied));
    }

    #[test]
    fn scylla_tells_the_old_row_also_when_it_applied() {
        let names = ["[applied]", "version", "state"];
        let columns = vec![Some(CqlValue::Boolean(true)), Some(CqlValue::BigInt(1)), None];
        assert_eq!(read_row(&names, columns), Ok(Conditional::Applied));
    }

    #[test]
    fn a_refusal_tells_what_stands_by_name() {
        let names = ["[applied]", "state", "version", "attempt", "created_at", "title"];
        let columns = vec![
            Some(CqlValue::Boolean(false)),
            Some(CqlValue::Text("active".into())),
            Some(CqlValue::BigInt(7)),
            Some(CqlValue::Blob(vec![1, 2])),
            Some(CqlValue::Timestamp(CqlTimestamp(9))),
            None,
        ];
        let Ok(Conditional::Refused(existing)) = read_row(&names, columns) else { panic!("not refused") };
        assert_eq!((existing.text("state"), existing.bigint("version")), (Some("active"), Some(7)));
        assert_eq!(existing.blob("attempt"), Some(&[1, 2][..]));
        assert_eq!(existing.timestamp("created_at"), Some(CqlTimestamp(9)));
        assert_eq!((existing.text("title"), existing.text("version"), existing.bigint("other")), (None, None, None));
    }

    #[test]
    fn a_row_that_is_not_there_tells_nothing() {
        let cassandra = read_row(&["[applied]"], vec![Some(CqlValue::Boolean(false))]);
        let scylla = read_row(&["[applied]", "version"], vec![Some(CqlValue::Boolean(false)), None]);
        for answer in [cassandra, scylla] {
            assert_eq!(answer, Ok(Conditional::Refused(Existing::default())));
        }
    }

    #[test]
    fn an_answer_without_a_verdict_is_not_understood() {
        assert!(read_row(&[], vec![]).is_err());
        assert!(read_row(&["[applied]"], vec![None]).is_err());
        assert!(read_row(&["version"], vec![Some(CqlValue::BigInt(1))]).is_err());
    }

    /// What a scripted write answers, step by step; the last step is repeated.
    struct Script {
        tries: Mutex<Vec<Result<Option<u8>, StoreErrorKind>>>,
        read_backs: Mutex<Vec<Result<Option<u8>, StoreErrorKind>>>,
        log: Mutex<String>,
    }

    fn script(tries: &[Result<Option<u8>, StoreErrorKind>], backs: &[Result<Option<u8>, StoreErrorKind>]) -> Script {
        let reversed = |steps: &[_]| Mutex::new(steps.iter().rev().copied().collect());
        Script { tries: reversed(tries), read_backs: reversed(backs), log: Mutex::default() }
    }

    fn step(steps: &Mutex<Vec<Result<Option<u8>, StoreErrorKind>>>) -> Result<Option<u8>, StoreError> {
        let mut steps = steps.lock();
        let next = if steps.len() > 1 { steps.pop().unwrap() } else { steps[0] };
        next.map_err(|kind| StoreError::new(kind, "scripted"))
    }

    #[async_trait]
    impl Decision for Script {
        type Answer = u8;

        async fn try_once(&self, again: bool) -> Result<Option<u8>, StoreError> {
            self.log.lock().push(if again { 'T' } else { 't' });
            step(&self.tries)
        }

        async fn read_back(&self) -> Result<Option<u8>, StoreError> {
            self.log.lock().push('r');
            step(&self.read_backs)
        }
    }

    const UNKNOWN: Result<Option<u8>, StoreErrorKind> = Err(StoreErrorKind::UnknownOutcome);
    const AWAY: Result<Option<u8>, StoreErrorKind> = Err(StoreErrorKind::Unavailable);
    const CORRUPT: Result<Option<u8>, StoreErrorKind> = Err(StoreErrorKind::Corrupt);

    async fn decided(script: &Script) -> Result<u8, StoreErrorKind> {
        let store = store(unconnected());
        store.decide(store.write_deadline(), script).await.map_err(|error| error.kind)
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_answers_is_not_read_back() {
        let plain = script(&[Ok(Some(1))], &[AWAY]);
        assert_eq!((decided(&plain).await, plain.log.lock().as_str()), (Ok(1), "t"));
        let refused = script(&[AWAY], &[Ok(Some(1))]);
        assert_eq!((decided(&refused).await, refused.log.lock().as_str()), (Err(StoreErrorKind::Unavailable), "t"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_write_is_read_back_until_the_store_answers() {
        let lost = script(&[UNKNOWN], &[AWAY, AWAY, Ok(Some(2))]);
        assert_eq!((decided(&lost).await, lost.log.lock().as_str()), (Ok(2), "trrr"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_did_not_happen_is_tried_again() {
        let lost = script(&[UNKNOWN, UNKNOWN, Ok(Some(3))], &[Ok(None)]);
        assert_eq!((decided(&lost).await, lost.log.lock().as_str()), (Ok(3), "trTrT"));
        let unsure = script(&[UNKNOWN, Ok(None)], &[Ok(None), Ok(Some(4))]);
        assert_eq!((decided(&unsure).await, unsure.log.lock().as_str()), (Ok(4), "trTr"));
    }

    #[tokio::test(start_paused = true)]
    async fn once_a_try_may_have_happened_no_later_failure_denies_it() {
        for (tries, backs) in [(vec![UNKNOWN], vec![AWAY]), (vec![UNKNOWN, AWAY], vec![Ok(None)])] {
            let lost = script(&tries, &backs);
            assert_eq!(decided(&lost).await, Err(StoreErrorKind::UnknownOutcome), "{tries:?} {backs:?}");
        }
        let spoilt = script(&[UNKNOWN], &[CORRUPT]);
        assert_eq!(decided(&spoilt).await, Err(StoreErrorKind::UnknownOutcome));
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_has_no_time_left_is_not_begun() {
        let (store, script) = (store(unconnected()), script(&[UNKNOWN], &[AWAY]));
        let deadline = store.write_deadline();
        tokio::time::advance(Duration::from_millis(store.config.limits.write_deadline_ms)).await;
        let refused = store.decide(deadline, &script).await.unwrap_err();
        assert_eq!((refused.kind, script.log.lock().as_str()), (StoreErrorKind::Unavailable, ""));
    }

    #[tokio::test(start_paused = true)]
    async fn settling_ends_at_the_deadline() {
        let began = tokio::time::Instant::now();
        let never = script(&[UNKNOWN], &[Ok(None)]);
        assert_eq!(decided(&never).await, Err(StoreErrorKind::UnknownOutcome));
        assert_eq!(began.elapsed(), Duration::from_millis(unconnected().limits.write_deadline_ms));
        let tries = never.log.lock().matches(['t', 'T']).count();
        assert!((5..=20).contains(&tries), "{tries} tries");
    }
}
