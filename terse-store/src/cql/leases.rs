//! Ranges of ids: the row of a lease and the counter's `next` change in one
//! conditional batch of one partition, so that no id is leased twice and each
//! lease is on record. A lease whose answer is lost stays on record and is
//! used by nobody: a gap.

use std::ops::Range;

use async_trait::async_trait;
use parking_lot::Mutex;
use scylla::response::query_result::QueryRowsResult;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlTimestamp;
use terse_core::Timestamp;
use terse_core::ports::{Lease, LeaseStore, StoreError};

use super::lwt::{self, Conditional, Decision};
use super::rows::{cql_time, must, wrong};
use super::session::{Preparer, Use};
use super::{CqlStore, Live, by, fault, levels, rows};

/// Leases read at once.
const LEASES_AT_ONCE: usize = 1_000;

const NEXT: &str = "SELECT DISTINCT counter, next FROM {keyspace}.leases WHERE counter = ?";
const LEASES: &str = "SELECT first, end, holder, leased_at FROM {keyspace}.leases \
     WHERE counter = ? AND first >= ? LIMIT ?";
// One statement to the driver, so that it goes to a replica of the counter.
const LEASE: &str = "BEGIN UNLOGGED BATCH \
     UPDATE {keyspace}.leases SET next = ? WHERE counter = ? IF next = ?; \
     INSERT INTO {keyspace}.leases (counter, first, end, holder, leased_at) VALUES (?, ?, ?, ?, ?); \
     APPLY BATCH";

pub(super) struct Statements {
    next: PreparedStatement,
    next_serial: PreparedStatement,
    lease: PreparedStatement,
    leases: PreparedStatement,
}

impl Statements {
    pub(super) async fn prepare(preparer: &Preparer<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            next: preparer.statement(Use::ListRead, NEXT).await?,
            next_serial: preparer.statement(Use::SerialRead, NEXT).await?,
            lease: preparer.statement(Use::Conditional, LEASE).await?,
            leases: preparer.statement(Use::ListRead, LEASES).await?,
        })
    }
}

#[async_trait]
impl LeaseStore for CqlStore {
    async fn lease(&self, counter: &str, size: u64, holder: &str, at: Timestamp) -> Result<Range<u64>, StoreError> {
        let live = self.live()?;
        let deadline = self.write_deadline();
        let _turn = self.home_turns.turn(counter, deadline).await?;
        // May be outdated: the condition of the write tells.
        let reading = self.quorum_rows(live, "reading a counter", &live.leases.next, (counter,));
        let found = by(deadline, reading).await?;
        let next = Mutex::new(next_in(&found)?);
        let holder = Lease::holder_text(holder);
        self.decide(deadline, &Leasing { live, counter, size, holder, at, next }).await
    }

    async fn leases(&self, counter: &str, from: u64, limit: usize) -> Result<Vec<Lease>, StoreError> {
        let live = self.live()?;
        let mut leases: Vec<Lease> = Vec::new();
        let mut from = i64::try_from(from).ok();
        while let Some(first) = from.filter(|_| leases.len() < limit) {
            let wanted = (limit - leases.len()).min(LEASES_AT_ONCE);
            let values = (counter, first, wanted as i32);
            let found = self.quorum_rows(live, "reading leases", &live.leases.leases, values).await?;
            let page = rows::all(&found, lease_in)?;
            // The next lease begins where the last one ends, or later.
            let last = page.last().filter(|_| page.len() == wanted);
            from = last.and_then(|last| i64::try_from(last.ids.end).ok());
            leases.extend(page);
        }
        Ok(leases)
    }
}

/// A lease on its way. One whose outcome is unknown is not looked for: the next ids will do.
struct Leasing<'a> {
    live: &'a Live,
    counter: &'a str,
    size: u64,
    holder: &'a str,
    at: Timestamp,
    /// The first id that is not leased, as last read; `None` = no id of this counter ever was.
    next: Mutex<Option<i64>>,
}

impl Leasing<'_> {
    /// The ids that follow `next`.
    fn ids(&self, next: Option<i64>) -> Result<Range<i64>, StoreError> {
        let first = next.unwrap_or(0);
        let end = i64::try_from(self.size).ok().and_then(|size| first.checked_add(size));
        // The nodes did answer: asked again, they would say the same.
        let none_left = || fault::unavailable(format!("the counter '{}' has run out of ids", self.counter));
        Ok(first..end.ok_or_else(|| none_left().although_answered())?)
    }

    async fn write(&self, next: Option<i64>, ids: &Range<i64>) -> Result<Conditional, StoreError> {
        let (counter, at) = (self.counter, cql_time(self.at));
        let values = (ids.end, counter, next, counter, ids.start, ids.end, self.holder, at);
        lwt::conditional(self.live, "leasing ids", &self.live.leases.lease, values).await
    }
}

#[async_trait]
impl Decision for Leasing<'_> {
    type Answer = Range<u64>;

    async fn try_once(&self, _again: bool) -> Result<Option<Range<u64>>, StoreError> {
        let next = *self.next.lock();
        let ids = self.ids(next)?;
        let leased = Some(ids.start.unsigned_abs()..ids.end.unsigned_abs());
        // No ids are no lease: there is nothing to write.
        if ids.is_empty() {
            return Ok(leased);
        }
        match self.write(next, &ids).await? {
            Conditional::Applied => Ok(leased),
            Conditional::Refused(_) => Ok(None),
        }
    }

    async fn read_back(&self) -> Result<Option<Range<u64>>, StoreError> {
        let statement = &self.live.leases.next_serial;
        let found = levels::rows(self.live, "reading a counter back", statement, (self.counter,)).await?;
        *self.next.lock() = next_in(&found)?;
        Ok(None)
    }
}

fn next_in(found: &QueryRowsResult) -> Result<Option<i64>, StoreError> {
    let next = rows::first::<(&str, Option<i64>)>(found)?.and_then(|(_, next)| next);
    if next.is_some_and(|next| next < 0) { Err(wrong("next")) } else { Ok(next) }
}

/// A row of [`LEASES`].
fn lease_in(
    (first, end, holder, leased_at): (i64, Option<i64>, Option<String>, Option<CqlTimestamp>),
) -> Result<Lease, StoreError> {
    let id = |value: i64, column| u64::try_from(value).map_err(|_| wrong(column));
    Ok(Lease {
        ids: id(first, "first")?..id(must(end, "end")?, "end")?,
        holder: must(holder, "holder")?,
        leased_at: rows::time(must(leased_at, "leased_at")?, "leased_at")?,
    })
}

#[cfg(test)]
mod tests {
    use terse_core::ports::StoreErrorKind;

    use super::*;

    #[test]
    fn a_lease_comes_back_or_is_corrupt() {
        let row = |first, end| (first, end, Some("web1".to_owned()), Some(CqlTimestamp(7)));
        let lease = lease_in(row(10, Some(20))).unwrap();
        assert_eq!(lease, Lease { ids: 10..20, holder: "web1".to_owned(), leased_at: Timestamp::from_millis(7) });
        for (spoilt, column) in [
            (row(-1, Some(20)), "first"),
            (row(10, None), "end"),
            (row(10, Some(-20)), "end"),
            ((10, Some(20), None, Some(CqlTimestamp(7))), "holder"),
            ((10, Some(20), Some(String::new()), None), "leased_at"),
        ] {
            let error = lease_in(spoilt).unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Corrupt);
            assert!(error.message.contains(&format!("'{column}'")), "{column}: {error}");
        }
    }
}
