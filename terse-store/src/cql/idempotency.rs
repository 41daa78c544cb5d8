//! Idempotency keys: one row a key, changed by conditional writes only, and
//! forgotten by the table's TTL an hour after the last server has stopped honouring it.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use scylla::DeserializeRow;
use scylla::response::query_result::QueryRowsResult;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlTimestamp;
use terse_core::ports::{AttemptId, IdempotencyRecord, IdempotencyStore, StoreError, StoreErrorKind};
use terse_core::{Owner, Timestamp};

use super::lwt::{self, Conditional, Decision, Existing};
use super::rows::{cql_time, must, wrong};
use super::session::{Preparer, Use};
use super::{CqlStore, Live, by, levels, rows};

const FIND: &str =
    "SELECT body_hash, code, attempt, created_at FROM {keyspace}.idempotency WHERE owner = ? AND key = ?";
const INSERT: &str = "INSERT INTO {keyspace}.idempotency (owner, key, body_hash, code, attempt, created_at) \
     VALUES (?, ?, ?, ?, ?, ?) IF NOT EXISTS";
// All columns at once, so that all of them expire at once.
const REPLACE: &str = "UPDATE {keyspace}.idempotency SET body_hash = ?, code = ?, attempt = ?, created_at = ? \
     WHERE owner = ? AND key = ? IF attempt = ?";

pub(super) struct Statements {
    find: PreparedStatement,
    find_serial: PreparedStatement,
    insert: PreparedStatement,
    replace: PreparedStatement,
}

impl Statements {
    pub(super) async fn prepare(preparer: &Preparer<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            find: preparer.statement(Use::ListRead, FIND).await?,
            find_serial: preparer.statement(Use::SerialRead, FIND).await?,
            insert: preparer.statement(Use::Conditional, INSERT).await?,
            replace: preparer.statement(Use::Conditional, REPLACE).await?,
        })
    }
}

#[async_trait]
impl IdempotencyStore for CqlStore {
    async fn find_key(&self, owner: &Owner, key: &str) -> Result<Option<IdempotencyRecord>, StoreError> {
        let live = self.live()?;
        let values = (owner.as_str(), key);
        record_in(&self.quorum_rows(live, "finding an idempotency key", &live.idempotency.find, values).await?)
    }

    async fn claim_key(
        &self,
        owner: &Owner,
        key: &str,
        record: &IdempotencyRecord,
        expired_before: Timestamp,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        let live = self.live()?;
        let deadline = self.write_deadline();
        let (turn, standing) = match self.turns.try_turn(key) {
            Some(turn) => (Ok(turn), None),
            // Whoever is at it probably claims the key: then a read is all it needs, and that goes
            // for those too who may not even wait.
            None => (self.turns.turn(key, deadline).await, by(deadline, self.find_key(owner, key)).await?),
        };
        let row = Row { live, owner, key };
        let claim = Claim { row, record, expired_before, expired: Mutex::default(), unsure: AtomicBool::new(false) };
        if let Some(answer) = claim.judge(standing) {
            return Ok(answer);
        }
        let _turn = turn?;
        self.decide(deadline, &claim).await
    }

    async fn replace_key(
        &self,
        owner: &Owner,
        key: &str,
        expected: AttemptId,
        record: &IdempotencyRecord,
    ) -> Result<bool, StoreError> {
        let live = self.live()?;
        let deadline = self.write_deadline();
        let _turn = self.turns.turn(key, deadline).await?;
        self.decide(deadline, &Replacement { row: Row { live, owner, key }, expected, record }).await
    }

    /// Records go by themselves; there is nothing to remove.
    async fn purge_keys(&self, _before: Timestamp, _limit: usize) -> Result<usize, StoreError> {
        Ok(0)
    }
}

/// The row of one key.
struct Row<'a> {
    live: &'a Live,
    owner: &'a Owner,
    key: &'a str,
}

impl Row<'_> {
    async fn insert(&self, record: &IdempotencyRecord) -> Result<Conditional, StoreError> {
        let (hash, code, attempt, created_at) = values(record);
        let values = (self.owner.as_str(), self.key, hash, code, attempt, created_at);
        lwt::conditional(self.live, "claiming an idempotency key", &self.live.idempotency.insert, values).await
    }

    async fn replace(&self, expected: AttemptId, record: &IdempotencyRecord) -> Result<Conditional, StoreError> {
        let (hash, code, attempt, created_at) = values(record);
        let values = (hash, code, attempt, created_at, self.owner.as_str(), self.key, &expected.0[..]);
        lwt::conditional(self.live, "replacing an idempotency key", &self.live.idempotency.replace, values).await
    }

    /// What stands, after everything that was half done is settled.
    async fn read(&self) -> Result<Option<IdempotencyRecord>, StoreError> {
        let values = (self.owner.as_str(), self.key);
        let statement = &self.live.idempotency.find_serial;
        record_in(&levels::rows(self.live, "reading an idempotency key back", statement, values).await?)
    }
}

/// A claim: an insert if there is no record, else the replacement of an expired one.
struct Claim<'a> {
    row: Row<'a>,
    record: &'a IdempotencyRecord,
    expired_before: Timestamp,
    /// The expired record that is to be replaced.
    expired: Mutex<Option<IdempotencyRecord>>,
    /// Whether a try may have happened that brought no answer. Without one, the
    /// same record found in the row was claimed by an earlier call.
    unsure: AtomicBool,
}

impl Claim<'_> {
    /// What `found` means for this claim; `None` = it is still to be made.
    fn judge(&self, found: Option<IdempotencyRecord>) -> Option<Option<IdempotencyRecord>> {
        match found {
            Some(found) if self.unsure.load(Ordering::Relaxed) && found == *self.record => Some(None),
            Some(found) if found.created_at >= self.expired_before => Some(Some(found)),
            other => {
                *self.expired.lock() = other;
                None
            }
        }
    }

    async fn write(&self) -> Result<Conditional, StoreError> {
        let expired = self.expired.lock().as_ref().map(|expired| expired.attempt);
        let written = match expired {
            None => self.row.insert(self.record).await,
            Some(expired) => self.row.replace(expired, self.record).await,
        };
        if written.as_ref().is_err_and(|error| error.kind == StoreErrorKind::UnknownOutcome) {
            self.unsure.store(true, Ordering::Relaxed);
        }
        written
    }
}

#[async_trait]
impl Decision for Claim<'_> {
    type Answer = Option<IdempotencyRecord>;

    async fn try_once(&self, _again: bool) -> Result<Option<Self::Answer>, StoreError> {
        // The insert finds the expired record that the second write replaces.
        for _ in 0..2 {
            let found = match self.write().await? {
                Conditional::Applied => return Ok(Some(None)),
                Conditional::Refused(row) => record_told(&row)?,
            };
            // A refused replacement tells of the condition only: the row is to be read.
            let Some(found) = found else { return Ok(None) };
            if let Some(answer) = self.judge(Some(found)) {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }

    async fn read_back(&self) -> Result<Option<Self::Answer>, StoreError> {
        Ok(self.judge(self.row.read().await?))
    }
}

/// A replacement of the record with the attempt `expected`.
struct Replacement<'a> {
    row: Row<'a>,
    expected: AttemptId,
    record: &'a IdempotencyRecord,
}

#[async_trait]
impl Decision for Replacement<'_> {
    type Answer = bool;

    async fn try_once(&self, again: bool) -> Result<Option<bool>, StoreError> {
        match self.row.replace(self.expected, self.record).await? {
            Conditional::Applied => Ok(Some(true)),
            // An earlier try may be the reason.
            Conditional::Refused(_) if again => Ok(None),
            Conditional::Refused(_) => Ok(Some(false)),
        }
    }

    /// One that stood for a moment and was replaced since is told as not made: it stands no more.
    async fn read_back(&self) -> Result<Option<bool>, StoreError> {
        Ok(match self.row.read().await? {
            Some(found) if found == *self.record => Some(true),
            Some(found) if found.attempt == self.expected => None,
            _ => Some(false),
        })
    }
}

/// The columns of a record, as statements bind them.
fn values(record: &IdempotencyRecord) -> (&[u8], &str, &[u8], CqlTimestamp) {
    (&record.body_hash, record.code.as_str(), &record.attempt.0, cql_time(record.created_at))
}

/// The columns of [`FIND`].
#[derive(DeserializeRow)]
#[scylla(flavor = "enforce_order", skip_name_checks)]
struct RecordRow<'frame> {
    body_hash: Option<&'frame [u8]>,
    code: Option<&'frame str>,
    attempt: Option<&'frame [u8]>,
    created_at: Option<CqlTimestamp>,
}

impl RecordRow<'_> {
    fn record(&self) -> Result<IdempotencyRecord, StoreError> {
        Ok(IdempotencyRecord {
            body_hash: must(self.body_hash, "body_hash")?.try_into().map_err(|_| wrong("body_hash"))?,
            code: rows::code(must(self.code, "code")?)?,
            attempt: rows::attempt(self.attempt)?,
            created_at: rows::time(must(self.created_at, "created_at")?, "created_at")?,
        })
    }
}

fn record_in(found: &QueryRowsResult) -> Result<Option<IdempotencyRecord>, StoreError> {
    rows::first::<RecordRow<'_>>(found)?.map(|row| row.record()).transpose()
}

/// The record in the row that refused an insert, of which engines tell all columns.
fn record_told(row: &Existing) -> Result<Option<IdempotencyRecord>, StoreError> {
    let Some(body_hash) = row.blob("body_hash") else { return Ok(None) };
    let (code, attempt) = (row.text("code"), row.blob("attempt"));
    let told = RecordRow { body_hash: Some(body_hash), code, attempt, created_at: row.timestamp("created_at") };
    told.record().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> RecordRow<'static> {
        RecordRow {
            body_hash: Some(&[1; 32]),
            code: Some("abc"),
            attempt: Some(&[2; 16]),
            created_at: Some(CqlTimestamp(3)),
        }
    }

    #[test]
    fn a_record_comes_back_as_it_went() {
        let record = row().record().unwrap();
        assert_eq!(values(&record), (&[1; 32][..], "abc", &[2; 16][..], CqlTimestamp(3)));
    }

    #[test]
    fn what_was_never_written_is_corrupt_by_column() {
        for (row, column) in [
            (RecordRow { body_hash: None, ..row() }, "body_hash"),
            (RecordRow { body_hash: Some(&[1; 31]), ..row() }, "body_hash"),
            (RecordRow { code: Some("a b"), ..row() }, "code"),
            (RecordRow { attempt: Some(&[]), ..row() }, "attempt"),
            (RecordRow { created_at: Some(CqlTimestamp(-1)), ..row() }, "created_at"),
        ] {
            let error = row.record().unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Corrupt);
            assert!(error.message.contains(&format!("'{column}'")), "{column}: {error}");
        }
    }
}
