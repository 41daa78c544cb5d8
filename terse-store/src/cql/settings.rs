//! Values that a deployment agrees on once: rows that are inserted if absent, never change, and may be removed when
//! nobody uses them any more. Removed bytes leave the disks with the engine's next compactions.

use async_trait::async_trait;
use scylla::response::query_result::QueryRowsResult;
use scylla::statement::prepared::PreparedStatement;
use terse_core::ports::{SettingsStore, StoreError, StoreErrorKind};

use super::lwt::{self, Conditional, Decision};
use super::session::{Preparer, Use};
use super::{CqlStore, Live, by, levels, rows};

pub(super) const GET: &str = "SELECT value FROM {keyspace}.settings WHERE name = ?";
const SETTLE: &str = "INSERT INTO {keyspace}.settings (name, value) VALUES (?, ?) IF NOT EXISTS";
const FORGET: &str = "DELETE FROM {keyspace}.settings WHERE name = ? IF EXISTS";

// A scan of all partitions: there are some dozens.
const NAMES: &str = "SELECT name FROM {keyspace}.settings LIMIT ?";
/// Most settings that a deployment may have for [`SettingsStore::names`] to read them all at once; it has a few, and one
/// for each of the last days. With more, reading names fails.
const MAX_SETTINGS: i32 = 10_000;

pub(super) struct Statements {
    get: PreparedStatement,
    get_from_one: PreparedStatement,
    get_serial: PreparedStatement,
    settle: PreparedStatement,
    forget: PreparedStatement,
    names: PreparedStatement,
}

impl Statements {
    pub(super) async fn prepare(preparer: &Preparer<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            get: preparer.statement(Use::ListRead, GET).await?,
            get_from_one: preparer.statement(Use::SingleReplica, GET).await?,
            get_serial: preparer.statement(Use::SerialRead, GET).await?,
            settle: preparer.statement(Use::Conditional, SETTLE).await?,
            forget: preparer.statement(Use::Conditional, FORGET).await?,
            names: preparer.statement(Use::ListRead, NAMES).await?,
        })
    }
}

#[async_trait]
impl SettingsStore for CqlStore {
    /// What stands never changes while anybody uses it, so one replica that
    /// has it is enough when there is no quorum: a server starts beside a
    /// single one. One that hasn't got it says nothing.
    async fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let live = self.connected()?;
        let failed = match self.quorum_rows(live, "reading a setting", &live.settings.get, (name,)).await {
            Ok(found) => return value(&found),
            Err(failed) => failed,
        };
        let answer =
            levels::rows(live, "reading a setting from one replica", &live.settings.get_from_one, (name,)).await;
        match answer.and_then(|found| value(&found)) {
            Ok(Some(standing)) => Ok(Some(standing)),
            Ok(None) | Err(_) => Err(failed),
        }
    }

    async fn settle(&self, name: &str, value: &[u8]) -> Result<Vec<u8>, StoreError> {
        let live = self.connected()?;
        let deadline = self.write_deadline();
        let _turn = self.home_turns.turn(name, deadline).await?;
        // What stands never changes, so most calls end here.
        match by(deadline, self.setting(name)).await? {
            Some(standing) => Ok(standing),
            None => self.decide(deadline, &Settling { live, name, value }).await,
        }
    }

    async fn forget(&self, name: &str) -> Result<(), StoreError> {
        let live = self.connected()?;
        let deadline = self.write_deadline();
        let _turn = self.home_turns.turn(name, deadline).await?;
        self.decide(deadline, &Forgetting { live, name }).await
    }

    /// Asks a quorum: one replica alone may lack a name, or still have one that was forgotten.
    async fn names(&self, prefix: &str, limit: usize) -> Result<Vec<String>, StoreError> {
        let live = self.connected()?;
        let found =
            self.quorum_rows(live, "reading the names of settings", &live.settings.names, (MAX_SETTINGS + 1,)).await?;
        let names = rows::all(&found, |(name,): (&str,)| Ok(name.to_owned()))?;
        if names.len() > MAX_SETTINGS as usize {
            return Err(StoreError::new(
                StoreErrorKind::Unavailable,
                "there are more settings than can be read at once",
            ));
        }
        Ok(names.into_iter().filter(|name| name.starts_with(prefix)).take(limit).collect())
    }
}

/// A value on its way out.
struct Forgetting<'a> {
    live: &'a Live,
    name: &'a str,
}

#[async_trait]
impl Decision for Forgetting<'_> {
    type Answer = ();

    async fn try_once(&self, _again: bool) -> Result<Option<()>, StoreError> {
        // Applied or not, there is none now.
        lwt::conditional(self.live, "forgetting a setting", &self.live.settings.forget, (self.name,)).await?;
        Ok(Some(()))
    }

    async fn read_back(&self) -> Result<Option<()>, StoreError> {
        let found =
            levels::rows(self.live, "reading a forgotten setting back", &self.live.settings.get_serial, (self.name,));
        Ok(value(&found.await?)?.is_none().then_some(()))
    }
}

/// A value on its way to stand. Which of several attempts it was doesn't matter: what is read is what stands.
struct Settling<'a> {
    live: &'a Live,
    name: &'a str,
    value: &'a [u8],
}

#[async_trait]
impl Decision for Settling<'_> {
    type Answer = Vec<u8>;

    async fn try_once(&self, _again: bool) -> Result<Option<Vec<u8>>, StoreError> {
        let values = (self.name, self.value);
        match lwt::conditional(self.live, "settling a setting", &self.live.settings.settle, values).await? {
            Conditional::Applied => Ok(Some(self.value.to_vec())),
            Conditional::Refused(standing) => Ok(standing.blob("value").map(<[u8]>::to_vec)),
        }
    }

    async fn read_back(&self) -> Result<Option<Vec<u8>>, StoreError> {
        value(&levels::rows(self.live, "reading a setting back", &self.live.settings.get_serial, (self.name,)).await?)
    }
}

/// The value in a row; a row without one was never written.
fn value(found: &QueryRowsResult) -> Result<Option<Vec<u8>>, StoreError> {
    rows::first::<(Option<Vec<u8>>,)>(found)?.map(|(value,)| rows::must(value, "value")).transpose()
}
