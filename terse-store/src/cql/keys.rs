//! API keys: all in one partition, each change in one conditional batch with a
//! new revision. Keys are never deleted, so one that was found once is there for ever.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use scylla::DeserializeRow;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlTimestamp;
use terse_core::ports::{KeyStore, StoreError, StoreErrorKind};
use terse_core::time::random_bytes;
use terse_core::{ApiKey, KeyId, Owner, Role, Timestamp};

use super::lwt::{self, Conditional, Decision};
use super::rows::{cql_time, must, optional_time, wrong};
use super::session::{Preparer, Use};
use super::{CqlStore, Live, by, fault, levels, rows};

/// The one partition.
const PART: i32 = 0;
/// Keys read at once.
const KEYS_AT_ONCE: usize = 1_000;
/// All changes of keys take turns: on the replicas they would contend with each other.
const TURN: &str = "api_keys";

const COLUMNS: &str = "id, name, owner, role, secret_hash, created_at, expires_at, revoked_at";
const REVISION: &str = "SELECT DISTINCT part, revision FROM {keyspace}.api_keys WHERE part = ?";
const KEYS: &str = "SELECT {columns} FROM {keyspace}.api_keys WHERE part = ? AND id > ? LIMIT ?";
const KEY: &str = "SELECT {columns} FROM {keyspace}.api_keys WHERE part = ? AND id = ?";
// One statement to the driver, so that it goes to a replica of the partition.
const ADD: &str = "BEGIN UNLOGGED BATCH \
     INSERT INTO {keyspace}.api_keys (part, {columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) IF NOT EXISTS; \
     UPDATE {keyspace}.api_keys SET revision = ? WHERE part = ?; \
     APPLY BATCH";
const REVOKE: &str = "BEGIN UNLOGGED BATCH \
     UPDATE {keyspace}.api_keys SET revoked_at = ? WHERE part = ? AND id = ? IF revoked_at = null; \
     UPDATE {keyspace}.api_keys SET revision = ? WHERE part = ?; \
     APPLY BATCH";

pub(super) struct Statements {
    revision: PreparedStatement,
    keys: PreparedStatement,
    key: PreparedStatement,
    key_serial: PreparedStatement,
    add: PreparedStatement,
    revoke: PreparedStatement,
}

impl Statements {
    pub(super) async fn prepare(preparer: &Preparer<'_>) -> Result<Self, StoreError> {
        let filled = |text: &str| text.replace("{columns}", COLUMNS);
        Ok(Self {
            revision: preparer.statement(Use::ListRead, REVISION).await?,
            keys: preparer.statement(Use::ListRead, &filled(KEYS)).await?,
            key: preparer.statement(Use::ListRead, &filled(KEY)).await?,
            key_serial: preparer.statement(Use::SerialRead, &filled(KEY)).await?,
            add: preparer.statement(Use::Conditional, &filled(ADD)).await?,
            revoke: preparer.statement(Use::Conditional, REVOKE).await?,
        })
    }
}

#[async_trait]
impl KeyStore for CqlStore {
    async fn add_key(&self, key: &ApiKey) -> Result<(), StoreError> {
        let live = self.live()?;
        let deadline = self.write_deadline();
        let _turn = self.home_turns.turn(TURN, deadline).await?;
        let addition = Addition { live, key, revision: self.new_revision(), unsure: AtomicBool::new(false) };
        if self.decide(deadline, &addition).await? {
            return Ok(());
        }
        Err(fault::unavailable(format!("there is a key '{}' already", key.id)).although_answered())
    }

    async fn keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        let live = self.live()?;
        let mut keys: Vec<ApiKey> = Vec::new();
        loop {
            // No id is empty, so this begins with the first one.
            let after = keys.last().map_or("", |key| key.id.as_str());
            let values = (PART, after, KEYS_AT_ONCE as i32);
            let found = self.quorum_rows(live, "reading the api keys", &live.keys.keys, values).await?;
            let page = rows::all(&found, |row: KeyRow<'_>| row.key())?;
            let ended = page.len() < KEYS_AT_ONCE;
            keys.extend(page);
            if ended {
                break;
            }
        }
        // A stable sort: keys of one moment stay in the order of their ids.
        keys.sort_by_key(|key| key.created_at);
        Ok(keys)
    }

    async fn revoke_key(&self, id: &KeyId, at: Timestamp) -> Result<bool, StoreError> {
        let live = self.live()?;
        let deadline = self.write_deadline();
        let _turn = self.home_turns.turn(TURN, deadline).await?;
        let finding = self.quorum_rows(live, "finding an api key", &live.keys.key, (PART, id.as_str()));
        let found = by(deadline, finding).await?;
        match rows::first::<KeyRow<'_>>(&found)?.map(|row| row.key()).transpose()? {
            None => return Ok(false),
            Some(key) if key.revoked_at.is_some() => return Ok(true),
            Some(_) => {}
        }
        self.decide(deadline, &Revocation { live, id, at, revision: self.new_revision() }).await?;
        Ok(true)
    }

    async fn keys_revision(&self) -> Result<u64, StoreError> {
        let live = self.live()?;
        let found = self.quorum_rows(live, "reading the keys' revision", &live.keys.revision, (PART,)).await?;
        let revision = rows::first::<(i32, Option<i64>)>(&found)?.and_then(|(_, revision)| revision);
        // Without any key there is no revision yet.
        Ok(revision.map_or(0, i64::cast_unsigned))
    }
}

impl CqlStore {
    /// A number that no revision had: random, so that changes need not agree on the next one.
    fn new_revision(&self) -> i64 {
        i64::from_le_bytes(random_bytes(&*self.entropy))
    }
}

/// A key on its way in. The answer is whether it is this key that stands.
struct Addition<'a> {
    live: &'a Live,
    key: &'a ApiKey,
    revision: i64,
    /// Whether a try may have happened that brought no answer. Without one, the
    /// same key found in the row was added by an earlier call.
    unsure: AtomicBool,
}

impl Addition<'_> {
    async fn write(&self) -> Result<Conditional, StoreError> {
        let key = self.key;
        let values = (
            PART,
            key.id.as_str(),
            key.name.as_str(),
            key.owner.as_str(),
            key.role.as_str(),
            &key.secret_hash[..],
            cql_time(key.created_at),
            key.expires_at.map(cql_time),
            key.revoked_at.map(cql_time),
            self.revision,
            PART,
        );
        lwt::conditional(self.live, "adding an api key", &self.live.keys.add, values).await
    }

    /// Whether `found` is this key, revoked since or not.
    fn is_own(&self, found: ApiKey) -> bool {
        self.unsure.load(Ordering::Relaxed) && ApiKey { revoked_at: self.key.revoked_at, ..found } == *self.key
    }
}

#[async_trait]
impl Decision for Addition<'_> {
    type Answer = bool;

    async fn try_once(&self, again: bool) -> Result<Option<bool>, StoreError> {
        match self.write().await {
            Ok(Conditional::Applied) => Ok(Some(true)),
            // An earlier try may be the reason.
            Ok(Conditional::Refused(_)) if again => Ok(None),
            Ok(Conditional::Refused(_)) => Ok(Some(false)),
            Err(error) => {
                self.unsure.fetch_or(error.kind == StoreErrorKind::UnknownOutcome, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    async fn read_back(&self) -> Result<Option<bool>, StoreError> {
        Ok(read_back(self.live, &self.key.id).await?.map(|found| self.is_own(found)))
    }
}

/// A revocation of a key that exists. Whose it was in the end doesn't matter: the first one stands.
struct Revocation<'a> {
    live: &'a Live,
    id: &'a KeyId,
    at: Timestamp,
    revision: i64,
}

#[async_trait]
impl Decision for Revocation<'_> {
    type Answer = ();

    async fn try_once(&self, _again: bool) -> Result<Option<()>, StoreError> {
        let values = (cql_time(self.at), PART, self.id.as_str(), self.revision, PART);
        // Refused = revoked already.
        lwt::conditional(self.live, "revoking an api key", &self.live.keys.revoke, values).await.map(|_| Some(()))
    }

    async fn read_back(&self) -> Result<Option<()>, StoreError> {
        Ok(read_back(self.live, self.id).await?.and_then(|found| found.revoked_at).map(|_| ()))
    }
}

async fn read_back(live: &Live, id: &KeyId) -> Result<Option<ApiKey>, StoreError> {
    let found = levels::rows(live, "reading an api key back", &live.keys.key_serial, (PART, id.as_str())).await?;
    rows::first::<KeyRow<'_>>(&found)?.map(|row| row.key()).transpose()
}

/// The columns of [`COLUMNS`].
#[derive(DeserializeRow)]
#[scylla(flavor = "enforce_order", skip_name_checks)]
struct KeyRow<'frame> {
    id: &'frame str,
    name: Option<&'frame str>,
    owner: Option<&'frame str>,
    role: Option<&'frame str>,
    secret_hash: Option<&'frame [u8]>,
    created_at: Option<CqlTimestamp>,
    expires_at: Option<CqlTimestamp>,
    revoked_at: Option<CqlTimestamp>,
}

impl KeyRow<'_> {
    fn key(&self) -> Result<ApiKey, StoreError> {
        Ok(ApiKey {
            id: KeyId::parse(self.id).map_err(|_| wrong("id"))?,
            name: must(self.name, "name")?.to_owned(),
            owner: Owner::parse(must(self.owner, "owner")?).map_err(|_| wrong("owner"))?,
            role: self.role.and_then(Role::parse).ok_or_else(|| wrong("role"))?,
            secret_hash: must(self.secret_hash, "secret_hash")?.try_into().map_err(|_| wrong("secret_hash"))?,
            created_at: rows::time(must(self.created_at, "created_at")?, "created_at")?,
            expires_at: optional_time(self.expires_at, "expires_at")?,
            revoked_at: optional_time(self.revoked_at, "revoked_at")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> KeyRow<'static> {
        KeyRow {
            id: "key0000001",
            name: Some("ci"),
            owner: Some("alice"),
            role: Some("writer"),
            secret_hash: Some(&[3; 32]),
            created_at: Some(CqlTimestamp(1)),
            expires_at: None,
            revoked_at: Some(CqlTimestamp(2)),
        }
    }

    #[test]
    fn a_sound_row_is_a_key() {
        let key = row().key().unwrap();
        assert_eq!((key.id.as_str(), key.name.as_str(), key.owner.as_str()), ("key0000001", "ci", "alice"));
        assert_eq!((key.role, key.secret_hash, key.expires_at), (Role::Writer, [3; 32], None));
        assert_eq!(key.revoked_at, Some(Timestamp::from_millis(2)));
    }

    #[test]
    fn what_was_never_written_is_corrupt_by_column() {
        for (row, column) in [
            (KeyRow { id: "short", ..row() }, "id"),
            (KeyRow { name: None, ..row() }, "name"),
            (KeyRow { owner: Some(""), ..row() }, "owner"),
            (KeyRow { role: Some("Writer"), ..row() }, "role"),
            (KeyRow { role: None, ..row() }, "role"),
            (KeyRow { secret_hash: Some(&[3; 31]), ..row() }, "secret_hash"),
            (KeyRow { created_at: None, ..row() }, "created_at"),
            (KeyRow { expires_at: Some(CqlTimestamp(-1)), ..row() }, "expires_at"),
            (KeyRow { revoked_at: Some(CqlTimestamp(i64::MAX)), ..row() }, "revoked_at"),
        ] {
            let error = row.key().unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Corrupt);
            assert!(error.message.contains(&format!("'{column}'")), "{column}: {error}");
        }
    }
}
