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

// Names are partitions of their own, so those that begin alike are apart: all are looked at, in the order of their tokens.
const FIRST_NAMES: &str = "SELECT name FROM {keyspace}.settings LIMIT ?";
const NEXT_NAMES: &str = "SELECT name FROM {keyspace}.settings WHERE token(name) > token(?) LIMIT ?";
/// Names read at once.
const NAMES_AT_ONCE: usize = 32;
/// Most names that a call of [`SettingsStore::names`] looks at; a deployment has a few, and one for each of the last days.
/// With more it fails.
const MAX_SETTINGS: usize = 10_000;

pub(super) struct Statements {
    get: PreparedStatement,
    get_from_one: PreparedStatement,
    get_serial: PreparedStatement,
    settle: PreparedStatement,
    forget: PreparedStatement,
    first_names: PreparedStatement,
    next_names: PreparedStatement,
}

impl Statements {
    pub(super) async fn prepare(preparer: &Preparer<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            get: preparer.statement(Use::ListRead, GET).await?,
            get_from_one: preparer.statement(Use::SingleReplica, GET).await?,
            get_serial: preparer.statement(Use::SerialRead, GET).await?,
            settle: preparer.statement(Use::Conditional, SETTLE).await?,
            forget: preparer.statement(Use::Conditional, FORGET).await?,
            first_names: preparer.statement(Use::ListRead, FIRST_NAMES).await?,
            next_names: preparer.statement(Use::ListRead, NEXT_NAMES).await?,
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
        let (mut found, mut looked_at) = (Vec::new(), 0);
        let mut last: Option<String> = None;
        while found.len() < limit {
            if looked_at >= MAX_SETTINGS {
                let text = "there are more settings than names are looked for in";
                return Err(StoreError::new(StoreErrorKind::Unavailable, text).although_answered());
            }
            let page = self.names_after(live, last.as_deref()).await?;
            looked_at += page.len();
            last = page.last().filter(|_| page.len() == NAMES_AT_ONCE).cloned();
            found.extend(page.into_iter().filter(|name| name.starts_with(prefix)));
            if last.is_none() {
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }
}

impl CqlStore {
    /// The names that follow `last`, or the first ones; fewer than [`NAMES_AT_ONCE`] are the last of all.
    async fn names_after(&self, live: &Live, last: Option<&str>) -> Result<Vec<String>, StoreError> {
        const OPERATION: &str = "reading the names of settings";
        let limit = NAMES_AT_ONCE as i32;
        let page = match last {
            None => self.quorum_rows(live, OPERATION, &live.settings.first_names, (limit,)).await?,
            Some(last) => self.quorum_rows(live, OPERATION, &live.settings.next_names, (last, limit)).await?,
        };
        rows::all(&page, |(name,): (&str,)| Ok(name.to_owned()))
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
