//! What the driver's errors mean for callers.
//!
//! The rule for writes: [`StoreErrorKind::Unavailable`] only when it is certain
//! that nothing was or will be written; whatever may have reached a replica is
//! [`StoreErrorKind::UnknownOutcome`].

use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use scylla::frame::types::Consistency;
use terse_core::ports::{StoreError, StoreErrorKind};
use terse_resilience::Rejected;

/// A read failed: whatever it was, nothing is known.
pub(super) fn read(operation: &str, error: ExecutionError) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, format!("{operation} failed")).caused_by(error)
}

/// A write without a condition failed.
pub(super) fn write(operation: &str, error: ExecutionError) -> StoreError {
    if never_executed(&error) { refused(operation, error) } else { unknown(operation, error) }
}

/// A conditional write failed.
///
/// A node tells "unavailable" with the consistency that it could not reach:
/// the serial one before anything was proposed, but the commit's when the
/// proposal was accepted already; the next reader at SERIAL completes it then.
/// "Overloaded" may come that late too.
pub(super) fn conditional(operation: &str, error: ExecutionError) -> StoreError {
    use ExecutionError::LastAttemptError as Attempt;
    use RequestAttemptError::DbError as Told;
    let undecided = match &error {
        Attempt(Told(DbError::Unavailable { consistency, .. }, _)) => {
            !matches!(consistency, Consistency::Serial | Consistency::LocalSerial)
        }
        Attempt(Told(DbError::Overloaded, _)) => true,
        other => !never_executed(other),
    };
    if undecided { unknown(operation, error) } else { refused(operation, error) }
}

fn refused(operation: &str, error: ExecutionError) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, format!("{operation} was refused")).caused_by(error)
}

fn unknown(operation: &str, error: ExecutionError) -> StoreError {
    StoreError::new(StoreErrorKind::UnknownOutcome, format!("{operation} may or may not have happened"))
        .caused_by(error)
}

/// Whether the request surely changed nothing: it never left, or the node that got it said so before executing it.
fn never_executed(error: &ExecutionError) -> bool {
    match error {
        ExecutionError::BadQuery(_)
        | ExecutionError::EmptyPlan
        | ExecutionError::PrepareError(_)
        | ExecutionError::ConnectionPoolError(_)
        | ExecutionError::UseKeyspaceError(_) => true,
        ExecutionError::LastAttemptError(attempt) => match attempt {
            RequestAttemptError::SerializationError(_)
            | RequestAttemptError::CqlRequestSerialization(_)
            | RequestAttemptError::UnableToAllocStreamId => true,
            RequestAttemptError::DbError(told, _) => refused_by_node(told),
            _ => false,
        },
        _ => false,
    }
}

fn refused_by_node(told: &DbError) -> bool {
    matches!(
        told,
        DbError::SyntaxError
            | DbError::Invalid
            | DbError::AuthenticationError
            | DbError::Unauthorized
            | DbError::ConfigError
            | DbError::Unavailable { .. }
            | DbError::Overloaded
            | DbError::IsBootstrapping
            | DbError::Unprepared { .. }
            | DbError::ProtocolError
            | DbError::RateLimitReached { .. }
    )
}

/// What is stored, or answered, can't be understood.
pub(super) fn corrupt(message: impl Into<String>) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt, message)
}

/// Out of reach; nothing was attempted.
pub(super) fn unavailable(message: impl Into<String>) -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, message)
}

/// The breaker let no request through.
pub(super) fn rejected(shard: &str, rejected: Rejected) -> StoreError {
    StoreError { retry_after_ms: rejected.retry_after_ms, ..unavailable(format!("{shard}/quorum: {rejected}")) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use scylla::errors::WriteType;

    use super::*;

    fn told(error: DbError) -> ExecutionError {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, "told".into()))
    }

    fn too_few(consistency: Consistency) -> ExecutionError {
        told(DbError::Unavailable { consistency, required: 2, alive: 1 })
    }

    fn late(write_type: WriteType) -> ExecutionError {
        told(DbError::WriteTimeout { consistency: Consistency::Serial, received: 1, required: 2, write_type })
    }

    #[test]
    fn a_write_that_may_have_reached_a_replica_is_unknown() {
        for error in [
            || ExecutionError::RequestTimeout(Duration::from_secs(1)),
            || late(WriteType::Simple),
            || late(WriteType::Cas),
            || told(DbError::ServerError),
            || told(DbError::Other(0x1700)),
        ] {
            assert_eq!(write("writing", error()).kind, StoreErrorKind::UnknownOutcome);
            assert_eq!(conditional("writing", error()).kind, StoreErrorKind::UnknownOutcome);
            assert_eq!(read("reading", error()).kind, StoreErrorKind::Unavailable, "a read changes nothing");
        }
    }

    #[test]
    fn a_write_that_was_never_executed_is_unavailable() {
        for error in [
            || ExecutionError::EmptyPlan,
            || ExecutionError::LastAttemptError(RequestAttemptError::UnableToAllocStreamId),
            || told(DbError::IsBootstrapping),
            || told(DbError::Invalid),
            || too_few(Consistency::Serial),
        ] {
            assert_eq!(write("writing", error()).kind, StoreErrorKind::Unavailable);
            assert_eq!(conditional("writing", error()).kind, StoreErrorKind::Unavailable);
        }
    }

    #[test]
    fn a_conditional_write_that_failed_at_its_commit_is_unknown() {
        for error in [|| too_few(Consistency::LocalQuorum), || told(DbError::Overloaded)] {
            assert_eq!(write("writing", error()).kind, StoreErrorKind::Unavailable);
            assert_eq!(conditional("writing", error()).kind, StoreErrorKind::UnknownOutcome);
        }
    }

    #[test]
    fn a_rejection_tells_when_to_come_back() {
        let reason = terse_resilience::RejectReason::Open;
        let error = rejected("main", Rejected { reason, retry_after_ms: 321 });
        assert_eq!((error.kind, error.retry_after_ms), (StoreErrorKind::Unavailable, 321));
        assert!(error.message.starts_with("main/quorum: "), "{error}");
    }
}
