//! All rows, for comparing two read models.
//!
//! A cluster keeps partitions in the order of their tokens, so that is the
//! order of a scan: first what is left of the partition of the key to go on
//! after, then the partitions that follow.

use scylla::response::query_result::QueryRowsResult;
use scylla::statement::prepared::PreparedStatement;
use terse_core::ports::StoreError;
use terse_core::ports::clicks::StoredRow;
use terse_core::stats::RowKey;

use super::super::session::{Preparer, Use};
use super::super::{levels, rows};
use super::Live;
use super::cells::{self, Spot};

/// Rows of one answer at most.
const ROWS_AT_ONCE: usize = 100;

const FIRST: &str = "SELECT code, kind, period, number, cell, WRITETIME(cell) FROM {keyspace}.click_rows LIMIT ?";
const WITHIN: &str = "SELECT code, kind, period, number, cell, WRITETIME(cell) FROM {keyspace}.click_rows \
     WHERE code = ? AND kind = ? AND period = ? AND number > ? LIMIT ?";
const BEYOND: &str = "SELECT code, kind, period, number, cell, WRITETIME(cell) FROM {keyspace}.click_rows \
     WHERE token(code, kind, period) > token(?, ?, ?) LIMIT ?";

pub(super) struct Statements {
    first: PreparedStatement,
    within: PreparedStatement,
    beyond: PreparedStatement,
}

impl Statements {
    pub(super) async fn prepare(preparer: &Preparer<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            first: preparer.statement(Use::ListRead, FIRST).await?,
            within: preparer.statement(Use::ListRead, WITHIN).await?,
            beyond: preparer.statement(Use::ListRead, BEYOND).await?,
        })
    }
}

/// A row and its key.
type Found = (RowKey, StoredRow);

impl Live {
    /// Up to `limit` rows after `after`, in the order of this read model.
    pub(super) async fn scan(&self, after: Option<&RowKey>, limit: usize) -> Result<Vec<Found>, StoreError> {
        let mut all: Vec<Found> = Vec::new();
        if let Some(key) = after {
            all = self.rest(key, limit).await?;
        }
        while all.len() < limit {
            let wanted = (limit - all.len()).min(ROWS_AT_ONCE);
            let last = all.last().map(|(key, _)| key).or(after);
            let page = self.beyond(last, wanted).await?;
            let Some((cut, _)) = page.last().filter(|_| page.len() == wanted) else {
                all.extend(page);
                break;
            };
            // The last partition may have been cut by the limit.
            let cut = cut.clone();
            all.extend(page);
            all.extend(self.rest(&cut, limit - all.len()).await?);
        }
        Ok(all)
    }

    /// Up to `limit` rows that follow `key` in its partition.
    async fn rest(&self, key: &RowKey, limit: usize) -> Result<Vec<Found>, StoreError> {
        let mut all: Vec<Found> = Vec::new();
        let spot = Spot::of(key.span);
        let mut number = spot.number;
        while all.len() < limit {
            let wanted = (limit - all.len()).min(ROWS_AT_ONCE);
            let values = (key.code.as_str(), spot.kind, spot.period, number, wanted as i32);
            let page = found_in(&levels::rows_on(&self.session, "scanning rows", &self.scan.within, values).await?)?;
            let last = page.last().filter(|_| page.len() == wanted).map(|(key, _)| Spot::of(key.span).number);
            all.extend(page);
            match last {
                Some(last) => number = last,
                None => break,
            }
        }
        Ok(all)
    }

    /// Up to `limit` rows of the partitions that follow that of `key`; of all if there is none.
    async fn beyond(&self, key: Option<&RowKey>, limit: usize) -> Result<Vec<Found>, StoreError> {
        let found = match key {
            None => levels::rows_on(&self.session, "scanning rows", &self.scan.first, (limit as i32,)).await?,
            Some(key) => {
                let spot = Spot::of(key.span);
                let values = (key.code.as_str(), spot.kind, spot.period, limit as i32);
                levels::rows_on(&self.session, "scanning rows", &self.scan.beyond, values).await?
            }
        };
        found_in(&found)
    }
}

fn found_in(found: &QueryRowsResult) -> Result<Vec<Found>, StoreError> {
    rows::all(found, |(code, kind, period, number, cell, time): Columns<'_>| {
        let key = RowKey { code: rows::code(code)?, span: Spot { kind, period, number }.span()? };
        Ok((key, StoredRow { at: cells::position(time)?, row: cells::row(cell)? }))
    })
}

/// The columns of all three statements.
type Columns<'frame> = (&'frame str, i8, i32, i64, Option<&'frame [u8]>, Option<i64>);
