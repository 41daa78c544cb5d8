//! The writing operations. Each runs within the transaction of its group and
//! leaves that transaction either with its whole change or with none of it:
//! by one writing statement (SQLite undoes a failed one), or in a savepoint.

use std::ops::Range;

use rusqlite::Connection;
use terse_core::ports::{AttemptId, IdempotencyRecord, Insert, LinkChange, Update};
use terse_core::{ApiKey, KeyId, Link, LinkState, Owner, ShortCode, Timestamp, Version};

use super::fault::Fault;
use super::{reads, rows};
use crate::sqlite_file::query::{execute, first};

/// Runs several writing statements as one.
fn in_savepoint<T>(connection: &Connection, work: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, Fault> {
    execute(connection, "SAVEPOINT operation", [])?;
    let result = work(connection);
    // A fault such as a full disk may have ended the whole transaction, and the savepoint with it.
    if result.is_err() && !connection.is_autocommit() {
        execute(connection, "ROLLBACK TO operation", [])?;
    }
    if !connection.is_autocommit() {
        execute(connection, "RELEASE operation", [])?;
    }
    result
}

fn stored_version(version: Version) -> Result<i64, Fault> {
    i64::try_from(version.0).map_err(|_| Fault::Refused("a version beyond 2^63".to_owned()))
}

/// What [`touch`] makes the file longer by, unless pages of it are free.
const TOUCHED_BYTES: usize = 8_192;
/// The setting that [`touch`] makes and removes.
const TOUCHED: &str = "health-probe";

/// Writes something that changes nothing, with as much room as a link takes at most.
pub(super) fn touch(connection: &Connection) -> Result<(), Fault> {
    in_savepoint(connection, |connection| {
        let values = (TOUCHED, vec![0_u8; TOUCHED_BYTES]);
        execute(connection, "INSERT OR REPLACE INTO settings (name, value) VALUES (?1, ?2)", values)?;
        execute(connection, "DELETE FROM settings WHERE name = ?1", [TOUCHED]).map(drop)
    })
}

const INSERT: &str = "INSERT INTO links (version, state, created_at, updated_at, expires_at, valid_from, attempt, \
     code, owner, title, tags, target) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) \
     ON CONFLICT (code) DO NOTHING";

pub(super) fn insert_if_absent(connection: &Connection, link: &Link, attempt: AttemptId) -> Result<Insert, Fault> {
    let row = (
        stored_version(link.version)?,
        rows::state_number(link.state),
        link.created_at.as_millis(),
        link.updated_at.as_millis(),
        link.expires_at.map(Timestamp::as_millis),
        link.valid_from.map(Timestamp::as_millis),
        attempt.0,
        link.code.as_str(),
        link.owner.as_str(),
        link.title.as_ref().map(|title| title.as_str()),
        rows::tags_text(&link.tags),
        link.target.as_str(),
    );
    if execute(connection, INSERT, row)? == 1 {
        return Ok(Insert::Created);
    }
    let attempt = first(connection, "SELECT attempt FROM links WHERE code = ?1", [link.code.as_str()], rows::attempt)?
        .ok_or_else(|| Fault::corrupt("an index entry without a row"))?;
    Ok(Insert::Taken { attempt })
}

const UPDATE: &str = "UPDATE links SET target = ?2, title = ?3, tags = ?4, state = ?5, expires_at = ?6, \
     valid_from = ?7, updated_at = ?8, version = ?9 WHERE code = ?1";

/// The group holds the write lock, so nothing changes between reading the link and writing it.
pub(super) fn update(
    connection: &Connection,
    code: &ShortCode,
    expected: Version,
    change: &LinkChange,
) -> Result<Update, Fault> {
    let Some(link) = reads::get(connection, code)? else { return Ok(Update::NotFound) };
    if link.version != expected || link.state == LinkState::Deleted {
        return Ok(Update::Conflict { current: link.version });
    }
    let link = changed(link, change);
    let row = (
        code.as_str(),
        link.target.as_str(),
        link.title.as_ref().map(|title| title.as_str()),
        rows::tags_text(&link.tags),
        rows::state_number(link.state),
        link.expires_at.map(Timestamp::as_millis),
        link.valid_from.map(Timestamp::as_millis),
        link.updated_at.as_millis(),
        stored_version(link.version)?,
    );
    match execute(connection, UPDATE, row)? {
        1 => Ok(Update::Updated(Box::new(link))),
        _ => Err(Fault::corrupt("a link that could be read but not changed")),
    }
}

fn changed(link: Link, change: &LinkChange) -> Link {
    Link {
        target: change.target.clone(),
        title: change.title.clone(),
        tags: change.tags.clone(),
        state: change.state,
        expires_at: change.expires_at,
        valid_from: change.valid_from,
        updated_at: change.updated_at,
        version: link.version.next(),
        ..link
    }
}

const CLAIM_KEY: &str = "INSERT INTO idempotency (owner, key, body_hash, code, attempt, created_at) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (owner, key) DO UPDATE SET \
     body_hash = excluded.body_hash, code = excluded.code, attempt = excluded.attempt, \
     created_at = excluded.created_at";

pub(super) fn claim_key(
    connection: &Connection,
    owner: &Owner,
    key: &str,
    record: &IdempotencyRecord,
    expired_before: Timestamp,
) -> Result<Option<IdempotencyRecord>, Fault> {
    if let Some(standing) = reads::find_key(connection, owner, key)?
        && standing.created_at >= expired_before
    {
        return Ok(Some(standing));
    }
    let row =
        (owner.as_str(), key, record.body_hash, record.code.as_str(), record.attempt.0, record.created_at.as_millis());
    execute(connection, CLAIM_KEY, row)?;
    Ok(None)
}

const REPLACE_KEY: &str = "UPDATE idempotency SET body_hash = ?4, code = ?5, attempt = ?6, created_at = ?7 \
     WHERE owner = ?1 AND key = ?2 AND attempt = ?3";

pub(super) fn replace_key(
    connection: &Connection,
    owner: &Owner,
    key: &str,
    expected: AttemptId,
    record: &IdempotencyRecord,
) -> Result<bool, Fault> {
    let row = (
        owner.as_str(),
        key,
        expected.0,
        record.body_hash,
        record.code.as_str(),
        record.attempt.0,
        record.created_at.as_millis(),
    );
    Ok(execute(connection, REPLACE_KEY, row)? == 1)
}

const PURGE_KEYS: &str = "DELETE FROM idempotency WHERE id IN \
     (SELECT id FROM idempotency WHERE created_at < ?1 ORDER BY created_at LIMIT ?2)";

pub(super) fn purge_keys(connection: &Connection, before: Timestamp, limit: usize) -> Result<usize, Fault> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    execute(connection, PURGE_KEYS, (before.as_millis(), limit))
}

const SETTLE: &str = "INSERT INTO settings (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING";

pub(super) fn settle(connection: &Connection, name: &str, value: &[u8]) -> Result<Vec<u8>, Fault> {
    execute(connection, SETTLE, (name, value))?;
    reads::setting(connection, name)?.ok_or_else(|| Fault::corrupt("a setting that was just written is missing"))
}

const FORGET: &str = "DELETE FROM settings WHERE name = ?1";

pub(super) fn forget(connection: &Connection, name: &str) -> Result<(), Fault> {
    execute(connection, FORGET, [name]).map(drop)
}

const LEASE: &str = "INSERT INTO leases (counter, next_id) VALUES (?1, ?2) \
     ON CONFLICT (counter) DO UPDATE SET next_id = excluded.next_id";

const LOG_LEASE: &str = "INSERT INTO lease_log (counter, first_id, end_id, holder, leased_at) \
     VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (counter, first_id) DO NOTHING";

pub(super) fn lease(
    connection: &Connection,
    counter: &str,
    size: u64,
    holder: &str,
    at: Timestamp,
) -> Result<Range<u64>, Fault> {
    let next =
        first(connection, "SELECT next_id FROM leases WHERE counter = ?1", [counter], |row| Ok(row.get::<_, i64>(0)?))?;
    let start = u64::try_from(next.unwrap_or(0)).map_err(|_| Fault::corrupt("a negative id in a lease"))?;
    let end = start.checked_add(size).and_then(|end| i64::try_from(end).ok());
    let end = end.ok_or_else(|| Fault::Refused(format!("the counter '{counter}' has run out of ids")))?;
    let ids = start..end.unsigned_abs();
    if ids.is_empty() {
        return Ok(ids);
    }
    in_savepoint(connection, |connection| {
        execute(connection, LEASE, (counter, end))?;
        let row = (counter, end - size.cast_signed(), end, holder, at.as_millis());
        if execute(connection, LOG_LEASE, row)? == 0 {
            // Handing these ids out again would make codes that exist.
            return Err(Fault::corrupt(format!("the counter '{counter}' went back: id {start} is leased already")));
        }
        Ok(ids)
    })
}

const ADD_KEY: &str = "INSERT INTO api_keys (id, name, owner, role, secret_hash, created_at, expires_at, revoked_at) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (id) DO NOTHING";

pub(super) fn add_key(connection: &Connection, key: &ApiKey) -> Result<(), Fault> {
    let row = (
        key.id.as_str(),
        &key.name,
        key.owner.as_str(),
        key.role.as_str(),
        key.secret_hash,
        key.created_at.as_millis(),
        key.expires_at.map(Timestamp::as_millis),
        key.revoked_at.map(Timestamp::as_millis),
    );
    in_savepoint(connection, |connection| {
        if execute(connection, ADD_KEY, row)? == 0 {
            return Err(Fault::Refused(format!("there is a key '{}' already", key.id)));
        }
        raise_keys_revision(connection)
    })
}

const REVOKE_KEY: &str = "UPDATE api_keys SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL";

pub(super) fn revoke_key(connection: &Connection, id: &KeyId, at: Timestamp) -> Result<bool, Fault> {
    in_savepoint(connection, |connection| {
        if execute(connection, REVOKE_KEY, (id.as_str(), at.as_millis()))? == 1 {
            raise_keys_revision(connection)?;
            return Ok(true);
        }
        let known = first(connection, "SELECT 1 FROM api_keys WHERE id = ?1", [id.as_str()], |_| Ok(()))?;
        Ok(known.is_some())
    })
}

fn raise_keys_revision(connection: &Connection) -> Result<(), Fault> {
    match execute(connection, "UPDATE api_keys_revision SET value = value + 1 WHERE id = 1", [])? {
        1 => Ok(()),
        _ => Err(Fault::corrupt("no revision of the api keys")),
    }
}
