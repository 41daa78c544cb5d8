//! What can go wrong in a statement, and how callers get to know it.

use rusqlite::ErrorCode;
use terse_core::ports::{StoreError, StoreErrorKind};

/// A failed statement or an undecodable row.
#[derive(Debug)]
pub(crate) enum Fault {
    /// SQLite refused or failed.
    Sqlite(rusqlite::Error),
    /// A row holds what terse never writes; the text says what.
    Corrupt(String),
    /// The request contradicts what is stored; nothing was changed.
    Refused(String),
}

impl Fault {
    /// `what` of a row can't be understood.
    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt(what.into())
    }

    /// This fault as the ports tell it, having happened during `action`.
    pub(crate) fn into_store_error(self, action: &str) -> StoreError {
        match self {
            Self::Sqlite(error) => {
                let text = format!("{action} failed in sqlite: {error}{}", advice(&error));
                StoreError::new(kind_of(&error), text).caused_by(error)
            }
            Self::Corrupt(what) => StoreError::new(StoreErrorKind::Corrupt, format!("{action} found {what}")),
            // The file works; what was asked can't be.
            Self::Refused(why) => {
                StoreError::new(StoreErrorKind::Unavailable, format!("{action} was refused: {why}")).although_answered()
            }
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// What an operator can do about a fault, to stand behind it.
pub(crate) fn advice(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => {
            "; free some of the disk that the data directory is on, or of the user's share: writes go on by themselves"
        }
        Some(ErrorCode::ReadOnly) => "; the data directory and its files must be writable for the user of the server",
        _ => "",
    }
}

/// The kind of a failed statement. Within a transaction nothing has happened
/// yet, so it is never an unknown outcome.
fn kind_of(error: &rusqlite::Error) -> StoreErrorKind {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => match failure.code {
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => StoreErrorKind::Corrupt,
            _ => StoreErrorKind::Unavailable,
        },
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::Utf8Error(..) => StoreErrorKind::Corrupt,
        _ => StoreErrorKind::Unavailable,
    }
}

/// A `COMMIT` that failed, and was rolled back in this process.
///
/// With a full disk, a lock or a read-only file the commit record was never
/// written whole: it did not happen. After any other fault (a failed fsync
/// above all) the record may be in the file, and a crash before the next
/// commit overwrites it would bring the transaction back: unknown.
pub(crate) fn commit_failure(error: rusqlite::Error) -> StoreError {
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::ReadOnly) => StoreErrorKind::Unavailable,
        _ => StoreErrorKind::UnknownOutcome,
    };
    StoreError::new(kind, format!("the commit failed: {error}{}", advice(&error))).caused_by(error)
}

/// Whether `error` is another connection's lock.
pub(crate) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    fn failure(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[test]
    fn statement_faults_never_leave_the_outcome_open() {
        for (code, kind) in [
            (ffi::SQLITE_FULL, StoreErrorKind::Unavailable),
            (ffi::SQLITE_IOERR_WRITE, StoreErrorKind::Unavailable),
            (ffi::SQLITE_BUSY, StoreErrorKind::Unavailable),
            (ffi::SQLITE_CORRUPT, StoreErrorKind::Corrupt),
            (ffi::SQLITE_NOTADB, StoreErrorKind::Corrupt),
        ] {
            assert_eq!(Fault::from(failure(code)).into_store_error("insert").kind, kind, "{code}");
        }
    }

    #[test]
    fn a_failed_commit_is_unknown_unless_its_record_cannot_be_whole() {
        for (code, kind) in [
            (ffi::SQLITE_FULL, StoreErrorKind::Unavailable),
            (ffi::SQLITE_BUSY, StoreErrorKind::Unavailable),
            (ffi::SQLITE_READONLY, StoreErrorKind::Unavailable),
            (ffi::SQLITE_IOERR_FSYNC, StoreErrorKind::UnknownOutcome),
            (ffi::SQLITE_IOERR_WRITE, StoreErrorKind::UnknownOutcome),
            (ffi::SQLITE_NOMEM, StoreErrorKind::UnknownOutcome),
        ] {
            assert_eq!(commit_failure(failure(code)).kind, kind, "{code}");
        }
    }

    #[test]
    fn errors_keep_their_cause_and_name_the_action() {
        let error = Fault::from(failure(ffi::SQLITE_FULL)).into_store_error("insert");
        assert!(error.message.starts_with("insert failed in sqlite"), "{error}");
        assert!(std::error::Error::source(&error).is_some());
        assert!(error.message.contains("free some of the disk"), "{error}");
        assert!(commit_failure(failure(ffi::SQLITE_FULL)).message.contains("free some of the disk"));
        assert!(!commit_failure(failure(ffi::SQLITE_BUSY)).message.contains("disk"));
        assert_eq!(Fault::corrupt("state 9").into_store_error("get").message, "get found state 9");
    }
}
