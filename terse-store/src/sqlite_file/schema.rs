//! The schema, its versions, and how a file gets from one to the next.
//!
//! `PRAGMA user_version` counts the migrations that a file has had. All that
//! are missing run in one transaction which holds the write lock from its
//! start, so of several processes that start at once one migrates and the
//! others wait for it; running it again changes nothing.

use rusqlite::{Connection, TransactionBehavior};

use super::fault::Fault;

/// What a file of one kind must have.
#[derive(Debug)]
pub(crate) struct Schema {
    /// Marks the file as one of this kind, so that a foreign database given by mistake is left alone.
    pub(crate) application_id: i64,
    /// The migrations in order; a release only ever adds to the end.
    pub(crate) migrations: &'static [&'static str],
}

/// Brings the file of `connection` to this release's schema.
pub(crate) fn migrate(connection: &mut Connection, schema: &Schema) -> Result<(), Fault> {
    // One snapshot: another process may migrate between two statements, and half of what it did looks foreign.
    let snapshot = connection.transaction()?;
    if applied(&snapshot, schema)? == schema.migrations.len() {
        return Ok(());
    }
    drop(snapshot);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have migrated while this one waited for the lock.
    let done = applied(&transaction, schema)?;
    for migration in &schema.migrations[done..] {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "application_id", schema.application_id)?;
    transaction.pragma_update(None, "user_version", schema.migrations.len() as i64)?;
    Ok(transaction.commit()?)
}

/// How many migrations the file has had; refuses files that are not ours to change.
fn applied(connection: &Connection, schema: &Schema) -> Result<usize, Fault> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let fresh = version == 0 && application == 0 && tables == 0;
    if application != schema.application_id && !fresh {
        return Err(Fault::corrupt("a database that is not one of terse"));
    }
    let known = schema.migrations.len();
    match usize::try_from(version) {
        Ok(version) if version <= known => Ok(version),
        _ => Err(Fault::corrupt(format!(
            "schema version {version}, but this release knows versions up to {known}: it was written by a newer one"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Barrier};

    use super::super::connection::open_writer;
    use super::super::example::KIND;
    use super::*;

    fn tables(connection: &Connection) -> i64 {
        connection.query_row("SELECT count(*) FROM sqlite_schema WHERE type = 'table'", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn migrating_again_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = open_writer(&directory.path().join("file.db"), &KIND.tuning).unwrap();
        migrate(&mut connection, KIND.schema).unwrap();
        let before = tables(&connection);
        migrate(&mut connection, KIND.schema).unwrap();
        assert_eq!(tables(&connection), before);
        assert_eq!(applied(&connection, KIND.schema).unwrap(), KIND.schema.migrations.len());
    }

    #[test]
    fn threads_that_open_and_migrate_at_once_make_one_schema() {
        for _ in 0..20 {
            let directory = tempfile::tempdir().unwrap();
            let path = Arc::new(directory.path().join("file.db"));
            let barrier = Arc::new(Barrier::new(8));
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    let (path, barrier) = (Arc::clone(&path), Arc::clone(&barrier));
                    std::thread::spawn(move || {
                        barrier.wait();
                        let mut connection = open_writer(&path, &KIND.tuning).unwrap();
                        migrate(&mut connection, KIND.schema).unwrap();
                        tables(&connection)
                    })
                })
                .collect();
            let counts: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            assert!(counts.iter().all(|count| *count == counts[0] && *count > 0), "{counts:?}");
        }
    }

    #[test]
    fn a_newer_schema_is_refused_by_number() {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = open_writer(&directory.path().join("file.db"), &KIND.tuning).unwrap();
        migrate(&mut connection, KIND.schema).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        let refused = migrate(&mut connection, KIND.schema).unwrap_err().into_store_error("migrate");
        assert!(refused.message.contains("version 99"), "{refused}");
        assert_eq!(refused.kind, terse_core::ports::StoreErrorKind::Corrupt);
    }

    #[test]
    fn a_foreign_database_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = open_writer(&directory.path().join("other.db"), &KIND.tuning).unwrap();
        connection.execute_batch("CREATE TABLE recipes (name TEXT)").unwrap();
        assert!(matches!(migrate(&mut connection, KIND.schema), Err(Fault::Corrupt(_))));
        assert_eq!(tables(&connection), 1);
    }

    #[test]
    fn a_failing_migration_leaves_the_file_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = open_writer(&directory.path().join("file.db"), &KIND.tuning).unwrap();
        connection.pragma_update(None, "application_id", KIND.schema.application_id).unwrap();
        // Stands in the way of the last migration.
        connection.execute_batch("CREATE TABLE leases (x)").unwrap();
        assert!(migrate(&mut connection, KIND.schema).is_err());
        assert_eq!(tables(&connection), 1);
        assert_eq!(applied(&connection, KIND.schema).unwrap(), 0);
    }
}
