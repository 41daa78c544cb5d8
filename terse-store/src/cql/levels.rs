//! At which consistency rows are read.
//!
//! Rows are read at LOCAL_QUORUM, so that everything acknowledged is seen. The
//! breaker `NAME/quorum` watches these reads and no others: while it is open,
//! nobody waits for a quorum that isn't there. What to do then is the
//! caller's: a redirect asks one replica ([`super::links`]), all else fails.

use scylla::errors::ExecutionError;
use scylla::response::query_result::QueryRowsResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;
use terse_core::ports::StoreError;
use terse_resilience::Permit;

use super::{CqlStore, Live, fault};

impl CqlStore {
    /// Reads at the consistency of `statement`, a quorum, watched by the
    /// quorum breaker. No answer is a fault: what a single replica says is not asked.
    pub(super) async fn quorum_rows(
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
}

/// Reads without the breaker's knowledge, at whatever consistency `statement` has.
pub(super) async fn rows(
    live: &Live,
    operation: &str,
    statement: &PreparedStatement,
    values: impl SerializeRow,
) -> Result<QueryRowsResult, StoreError> {
    rows_of(operation, live.session.execute_unpaged(statement, values).await)
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
