//! Who projects which partition: conditional writes, one row per partition.
//!
//! A lease is compared by the holders' clocks; nothing is wrong when two think
//! that they have it. Since holder and end are both in the condition, a lease
//! that somebody renewed meanwhile is not taken away by what was read before.

use async_trait::async_trait;
use parking_lot::Mutex;
use scylla::response::query_result::QueryRowsResult;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlTimestamp;
use terse_core::Timestamp;
use terse_core::ports::{Lease, StoreError};
use terse_core::stats::Partition;

use super::super::lwt::{self, Conditional, Decision, Existing};
use super::super::rows::{self, cql_time, must};
use super::super::session::{Preparer, Use};
use super::super::{by, levels};
use super::{CqlReadModel, Live};
use crate::stats::is_leased_away;

const GET: &str = "SELECT holder, until FROM {keyspace}.click_leases WHERE log = ?";
const TAKE: &str = "INSERT INTO {keyspace}.click_leases (log, holder, until) VALUES (?, ?, ?) IF NOT EXISTS";
const RENEW: &str =
    "UPDATE {keyspace}.click_leases SET holder = ?, until = ? WHERE log = ? IF holder = ? AND until = ?";

pub(super) struct Statements {
    get: PreparedStatement,
    get_serial: PreparedStatement,
    take: PreparedStatement,
    renew: PreparedStatement,
}

impl Statements {
    pub(super) async fn prepare(preparer: &Preparer<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            get: preparer.statement(Use::ListRead, GET).await?,
            get_serial: preparer.statement(Use::SerialRead, GET).await?,
            take: preparer.statement(Use::Conditional, TAKE).await?,
            renew: preparer.statement(Use::Conditional, RENEW).await?,
        })
    }
}

/// A lease as it stands.
#[derive(Clone, Debug, PartialEq)]
struct Standing {
    holder: String,
    until: CqlTimestamp,
}

impl CqlReadModel {
    pub(super) async fn leased(
        &self,
        live: &Live,
        partition: Partition,
        holder: &str,
        now: Timestamp,
        ttl_ms: u64,
    ) -> Result<bool, StoreError> {
        let deadline = self.write_deadline();
        let log = partition.to_string();
        // May be outdated: the condition of the write tells.
        let reading = levels::rows_on(&live.session, "reading a lease", &live.leases.get, (log.as_str(),));
        let standing = Mutex::new(standing_in(&by(deadline, reading).await?)?);
        let until = now.plus_millis(i64::try_from(ttl_ms).unwrap_or(i64::MAX));
        let (holder, now, until) = (Lease::holder_text(holder), cql_time(now), cql_time(until));
        lwt::decide(&*self.entropy, deadline, &Leasing { live, log, holder, now, until, standing }).await
    }
}

/// A lease on its way.
struct Leasing<'a> {
    live: &'a Live,
    log: String,
    holder: &'a str,
    now: CqlTimestamp,
    until: CqlTimestamp,
    /// As last read.
    standing: Mutex<Option<Standing>>,
}

/// What a lease that stands means for who wants it.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// It may be taken.
    Free,
    /// It is the one that was asked for.
    Had,
    /// Somebody else has it.
    Refused,
}

impl Standing {
    fn verdict(&self, holder: &str, now: CqlTimestamp, until: CqlTimestamp) -> Verdict {
        match self.holder == holder {
            true if self.until == until => Verdict::Had,
            true => Verdict::Free,
            false if self.keeps(holder, now, until) => Verdict::Refused,
            false => Verdict::Free,
        }
    }
}

impl Standing {
    /// Whether it keeps `asker` from a lease from `now` until `until`.
    fn keeps(&self, asker: &str, now: CqlTimestamp, until: CqlTimestamp) -> bool {
        let ttl_ms = u64::try_from(until.0.saturating_sub(now.0)).unwrap_or(0);
        let at = |time: CqlTimestamp| Timestamp::from_millis(time.0);
        is_leased_away(&self.holder, at(self.until), asker, at(now), ttl_ms)
    }
}

impl Leasing<'_> {
    async fn write(&self, standing: Option<&Standing>) -> Result<Conditional, StoreError> {
        let (session, statements, log) = (&self.live.session, &self.live.leases, self.log.as_str());
        match standing {
            None => {
                let values = (log, self.holder, self.until);
                lwt::conditional_on(session, "taking a lease", &statements.take, values).await
            }
            Some(standing) => {
                let values = (self.holder, self.until, log, standing.holder.as_str(), standing.until);
                lwt::conditional_on(session, "renewing a lease", &statements.renew, values).await
            }
        }
    }

    /// Takes over what stands, and tells the answer if that is one.
    fn judge(&self, standing: Option<Standing>) -> Option<bool> {
        let verdict = standing.as_ref().map_or(Verdict::Free, |it| it.verdict(self.holder, self.now, self.until));
        *self.standing.lock() = standing;
        match verdict {
            Verdict::Free => None,
            Verdict::Had => Some(true),
            Verdict::Refused => Some(false),
        }
    }
}

#[async_trait]
impl Decision for Leasing<'_> {
    type Answer = bool;

    async fn try_once(&self, _again: bool) -> Result<Option<bool>, StoreError> {
        let standing = self.standing.lock().clone();
        if let Some(answer) = self.judge(standing.clone()) {
            return Ok(Some(answer));
        }
        match self.write(standing.as_ref()).await? {
            Conditional::Applied => Ok(Some(true)),
            Conditional::Refused(existing) => Ok(self.judge(standing_of(&existing))),
        }
    }

    async fn read_back(&self) -> Result<Option<bool>, StoreError> {
        let live = self.live;
        let values = (self.log.as_str(),);
        let found = levels::rows_on(&live.session, "reading a lease back", &live.leases.get_serial, values).await?;
        Ok(self.judge(standing_in(&found)?))
    }
}

/// The lease that refused a write; a row that isn't there tells nothing.
fn standing_of(existing: &Existing) -> Option<Standing> {
    Some(Standing { holder: existing.text("holder")?.to_owned(), until: existing.timestamp("until")? })
}

fn standing_in(found: &QueryRowsResult) -> Result<Option<Standing>, StoreError> {
    let row = rows::first::<(Option<String>, Option<CqlTimestamp>)>(found)?;
    row.map(|(holder, until)| Ok(Standing { holder: must(holder, "holder")?, until: must(until, "until")? }))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_free_when_it_ended_or_is_ones_own() {
        let standing = Standing { holder: "a".into(), until: CqlTimestamp(100) };
        for (holder, now, until, expected) in [
            ("a", 50, 150, Verdict::Free),
            ("a", 50, 100, Verdict::Had),
            ("b", 50, 150, Verdict::Refused),
            ("b", 99, 100, Verdict::Refused),
            ("b", 100, 200, Verdict::Free),
            ("b", 101, 201, Verdict::Free),
            // Made by a clock that was ahead, or before this one went back.
            ("b", 10, 40, Verdict::Refused),
            ("b", 9, 39, Verdict::Free),
        ] {
            let verdict = standing.verdict(holder, CqlTimestamp(now), CqlTimestamp(until));
            assert_eq!(verdict, expected, "{holder} at {now}");
        }
    }
}
