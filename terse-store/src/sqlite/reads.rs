//! The reading statements, each one snapshot of the file.

use rusqlite::Connection;
use terse_core::cursor::Cursor;
use terse_core::ports::{IdempotencyRecord, Lease};
use terse_core::{ApiKey, Link, Owner, Resolution, ShortCode};

use super::fault::Fault;
use super::rows;
use crate::sqlite_file::query::{all, first};

const RESOLVE: &str = "SELECT state, version, expires_at, valid_from, target FROM links WHERE code = ?1";

pub(super) fn resolve(connection: &Connection, code: &ShortCode) -> Result<Option<Resolution>, Fault> {
    first(connection, RESOLVE, [code.as_str()], rows::resolution)
}

const GET: &str = "SELECT * FROM links WHERE code = ?1";

pub(super) fn get(connection: &Connection, code: &ShortCode) -> Result<Option<Link>, Fault> {
    first(connection, GET, [code.as_str()], rows::link)
}

// `state <> 3` must stand as in the partial index, or the index can't be used.
const LIST: &str = "SELECT * FROM links WHERE owner = ?1 AND state <> 3 \
     ORDER BY created_at DESC, code DESC LIMIT ?2";
const LIST_AFTER: &str = "SELECT * FROM links WHERE owner = ?1 AND state <> 3 \
     AND (created_at, code) < (?3, ?4) ORDER BY created_at DESC, code DESC LIMIT ?2";

pub(super) fn list(
    connection: &Connection,
    owner: &Owner,
    after: Option<&Cursor>,
    limit: usize,
) -> Result<Vec<Link>, Fault> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    match after {
        None => all(connection, LIST, (owner.as_str(), limit), rows::link),
        Some(cursor) => {
            let params = (owner.as_str(), limit, cursor.created_at.as_millis(), cursor.code.as_str());
            all(connection, LIST_AFTER, params, rows::link)
        }
    }
}

const FIND_KEY: &str = "SELECT * FROM idempotency WHERE owner = ?1 AND key = ?2";

pub(super) fn find_key(connection: &Connection, owner: &Owner, key: &str) -> Result<Option<IdempotencyRecord>, Fault> {
    first(connection, FIND_KEY, (owner.as_str(), key), rows::idempotency_record)
}

pub(super) fn setting(connection: &Connection, name: &str) -> Result<Option<Vec<u8>>, Fault> {
    first(connection, "SELECT value FROM settings WHERE name = ?1", [name], |row| Ok(row.get(0)?))
}

// Compared byte by byte: `LIKE` and `GLOB` have wildcards.
const NAMES: &str = "SELECT name FROM settings WHERE name >= ?1 AND substr(name, 1, length(?1)) = ?1 LIMIT ?2";

pub(super) fn names(connection: &Connection, prefix: &str, limit: usize) -> Result<Vec<String>, Fault> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    all(connection, NAMES, (prefix, limit), |row| Ok(row.get(0)?))
}

const LEASES: &str = "SELECT first_id, end_id, holder, leased_at FROM lease_log \
     WHERE counter = ?1 AND first_id >= ?2 ORDER BY first_id LIMIT ?3";

pub(super) fn leases(connection: &Connection, counter: &str, from: u64, limit: usize) -> Result<Vec<Lease>, Fault> {
    // No counter gets beyond what a signed number holds.
    let Ok(from) = i64::try_from(from) else { return Ok(Vec::new()) };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    all(connection, LEASES, (counter, from, limit), rows::lease)
}

pub(super) fn keys(connection: &Connection) -> Result<Vec<ApiKey>, Fault> {
    all(connection, "SELECT * FROM api_keys ORDER BY created_at, id", [], rows::api_key)
}

pub(super) fn keys_revision(connection: &Connection) -> Result<u64, Fault> {
    let revision: Option<i64> =
        first(connection, "SELECT value FROM api_keys_revision WHERE id = 1", [], |row| Ok(row.get(0)?))?;
    let revision = revision.ok_or_else(|| Fault::corrupt("no revision of the api keys"))?;
    u64::try_from(revision).map_err(|_| Fault::corrupt("a negative revision of the api keys"))
}

/// The cheapest read that still touches the file.
pub(super) fn check(connection: &Connection) -> Result<(), Fault> {
    first(connection, "SELECT count(*) FROM (SELECT 1 FROM settings LIMIT 1)", [], |_| Ok(())).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::super::KIND;
    use super::*;
    use crate::sqlite_file::SqliteFile;
    use crate::sqlite_file::query::assert_searches;

    /// A scan or a sort would make the cost of an answer grow with the table.
    #[test]
    fn every_read_of_what_grows_goes_through_an_index() {
        let directory = tempfile::tempdir().unwrap();
        let connection = SqliteFile::open_migrated(&KIND, &directory.path().join("links.db")).unwrap();
        for (sql, index) in [
            (RESOLVE, "links_by_code (code=?)"),
            (GET, "links_by_code (code=?)"),
            (LIST, "links_by_owner (owner=?)"),
            (LIST_AFTER, "links_by_owner (owner=? AND (created_at,code)<(?,?))"),
            (LEASES, "PRIMARY KEY (counter=? AND first_id>?)"),
            (FIND_KEY, "idempotency_by_key (owner=? AND key=?)"),
        ] {
            assert_searches(&connection, sql, index);
        }
    }
}
