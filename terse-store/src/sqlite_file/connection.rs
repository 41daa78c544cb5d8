//! Opening the file: every setting that a connection of terse has, by name.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::Tuning;
use super::fault::{Fault, is_busy};

/// How long a connection waits for another process' lock.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Prepared statements kept per connection; more than there are statements.
const STATEMENTS_KEPT: usize = 64;

/// How often the switch to WAL is tried while other processes do the same.
const WAL_SWITCH_TRIES: usize = 100;

/// A connection that writes. Makes the file if there is none.
pub(crate) fn open_writer(path: &Path, tuning: &Tuning) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    set_up(&connection, tuning.writer_cache_kib)?;
    // Heeded by a file without pages only.
    connection.pragma_update(None, "page_size", tuning.page_bytes)?;
    switch_to_wal(&connection)?;
    // FULL: a commit returns after its fsync.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", tuning.wal_kept_bytes)?;
    // Asked back, for the answer is a row.
    connection.pragma_update_and_check(None, "secure_delete", tuning.secure_delete, |row| row.get::<_, i64>(0))?;
    // The writer thread runs the checkpoints itself, after it has answered.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(connection)
}

/// A connection that can't write, for a file that exists.
pub(crate) fn open_reader(path: &Path, tuning: &Tuning) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    set_up(&connection, tuning.reader_cache_kib)?;
    Ok(connection)
}

fn set_up(connection: &Connection, cache_kib: i64) -> Result<(), Fault> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    // A negative size is in KiB, a positive one in pages.
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(())
}

/// The switch is the one statement that fails at once instead of waiting when
/// another process holds a lock. `BEGIN IMMEDIATE` does wait for it, so each
/// failed try is followed by one.
fn switch_to_wal(connection: &Connection) -> Result<(), Fault> {
    let mut last = None;
    for _ in 0..WAL_SWITCH_TRIES {
        let switched = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0));
        match switched {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => return Err(Fault::Refused(format!("the file system allows journal mode '{mode}' only"))),
            Err(error) if is_busy(&error) => last = Some(error),
            Err(error) => return Err(error.into()),
        }
        match connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK") {
            Err(error) if !is_busy(&error) => return Err(error.into()),
            _ => {}
        }
    }
    Err(last.map_or_else(|| Fault::Refused("the switch to WAL was never tried".to_owned()), Fault::from))
}

#[cfg(test)]
mod tests {
    use super::super::example::KIND;
    use super::*;

    fn pragma(connection: &Connection, name: &str) -> String {
        connection
            .pragma_query_value(None, name, |row| {
                row.get_ref(0).map(|value| match value {
                    rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                    other => other.as_str().unwrap().to_owned(),
                })
            })
            .unwrap()
    }

    #[test]
    fn every_commit_of_the_writer_is_durable() {
        let directory = tempfile::tempdir().unwrap();
        let writer = open_writer(&directory.path().join("file.db"), &KIND.tuning).unwrap();
        assert_eq!(pragma(&writer, "journal_mode"), "wal");
        assert_eq!(pragma(&writer, "synchronous"), "2");
        assert_eq!(pragma(&writer, "journal_size_limit"), KIND.tuning.wal_kept_bytes.to_string());
        assert_eq!(pragma(&writer, "secure_delete"), "1");
        assert_eq!(pragma(&writer, "busy_timeout"), BUSY_TIMEOUT.as_millis().to_string());
        assert_eq!(pragma(&writer, "page_size"), KIND.tuning.page_bytes.to_string());
        assert_eq!(pragma(&writer, "cache_size"), (-KIND.tuning.writer_cache_kib).to_string());
    }

    #[test]
    fn a_reader_cannot_write() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file.db");
        let _writer = open_writer(&path, &KIND.tuning).unwrap();
        let reader = open_reader(&path, &KIND.tuning).unwrap();
        let refused = reader.execute_batch("CREATE TABLE intruder (x)").unwrap_err();
        assert_eq!(refused.sqlite_error_code(), Some(rusqlite::ErrorCode::ReadOnly));
    }
}
