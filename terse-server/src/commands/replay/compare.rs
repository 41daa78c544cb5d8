//! Two read models, row by row.
//!
//! What clicks sum up to and which are the newest is compared always; what they were like only between rows that were
//! told apart by the same rules. Of values that found no room in a row only the sum is compared: which ones came first
//! depends on how the blocks of several journals took turns.
//!
//! Bounds: [`PAGE`] rows at a time, [`MAX_LOOKS`] at a row that is being written; the first [`MAX_SHOWN`] differences are
//! told.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use terse_core::ports::StoreError;
use terse_core::ports::clicks::{ReadModel, StoredRow};
use terse_core::stats::{Dimension, MIXED_ENRICHMENT, Partition, Row, RowKey, Span};

use crate::clicks;
use crate::exit::StartError;

/// Rows that are read at once from each.
const PAGE: usize = 256;
/// Differences that are told.
const MAX_SHOWN: usize = 10;
/// How often a row is read again that the deployment may be about to write.
const MAX_LOOKS: u32 = 20;
/// How long to wait before that.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    /// Rows that are equal in all they hold.
    pub(super) equal: u64,
    /// Rows that are equal in their sums, and were told apart by different rules.
    pub(super) equal_in_sum: u64,
    /// Rows that both have and that differ.
    pub(super) unequal: u64,
    /// Rows that only the deployment has.
    pub(super) not_in_log: u64,
    /// Rows that only the log says there should be.
    pub(super) only_in_log: u64,
    /// The first differences.
    pub(super) shown: Vec<String>,
}

impl Comparison {
    /// Rows that should be otherwise.
    pub(super) fn different(&self) -> u64 {
        self.unequal + self.not_in_log + self.only_in_log
    }

    fn show(&mut self, key: &RowKey, difference: &str) {
        if self.shown.len() < MAX_SHOWN {
            self.shown.push(format!("{}: {difference}", name(key)));
        }
    }

    fn add(&mut self, key: &RowKey, live: &StoredRow, fresh: Option<&StoredRow>) {
        let Some(fresh) = fresh else {
            self.not_in_log += 1;
            return self.show(key, &format!("{} clicks of which the log has none", total(&live.row)));
        };
        match difference(live, fresh) {
            Some(difference) => {
                self.unequal += 1;
                self.show(key, &difference);
            }
            None if same_rules(&live.row, &fresh.row) => self.equal += 1,
            None => self.equal_in_sum += 1,
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { equal, equal_in_sum, unequal, not_in_log, only_in_log, shown } = self;
        let rows = equal + equal_in_sum + self.different();
        write!(out, "compared {rows} rows: {} different", self.different())?;
        write!(out, " ({unequal} unequal, {not_in_log} not in the log, {only_in_log} only in the log)")?;
        write!(out, ", {equal} equal, {equal_in_sum} equal in their sums and told apart by other rules")?;
        for difference in shown {
            write!(out, "\n  {difference}")?;
        }
        Ok(())
    }
}

/// How the fresh read model follows one that goes on.
#[async_trait]
pub(super) trait Follow: Send {
    /// The stream that a row's clicks come from.
    fn partition_of(&self, key: &RowKey) -> Partition;

    /// The offset up to which the fresh read model includes a stream; `None` = nothing of it.
    fn reached(&self, partition: Partition) -> Option<u64>;

    /// Whether both stand still: what differs once, differs.
    fn is_at_rest(&self) -> bool {
        false
    }

    /// Brings the fresh read model up to these offsets, and no further.
    ///
    /// # Errors
    /// [`StartError`] when the log does not reach that far.
    async fn follow(&mut self, ends: BTreeMap<Partition, u64>) -> Result<(), StartError>;
}

/// Both read models stand still and include the same.
struct AtRest;

#[async_trait]
impl Follow for AtRest {
    fn partition_of(&self, _: &RowKey) -> Partition {
        Partition::Stream(0)
    }

    fn reached(&self, _: Partition) -> Option<u64> {
        Some(u64::MAX)
    }

    fn is_at_rest(&self) -> bool {
        true
    }

    async fn follow(&mut self, _: BTreeMap<Partition, u64>) -> Result<(), StartError> {
        Ok(())
    }
}

/// Compares what the deployment says with what the log says, both as they stand.
pub(super) async fn compare(live: &dyn ReadModel, fresh: &dyn ReadModel) -> Result<Comparison, StartError> {
    compare_following(live, fresh, &mut AtRest).await
}

/// The same with a deployment that goes on: each of its rows is compared with the fresh one at the offset that the row
/// included when it was read.
pub(super) async fn compare_following(
    live: &dyn ReadModel,
    fresh: &dyn ReadModel,
    follow: &mut dyn Follow,
) -> Result<Comparison, StartError> {
    let mut comparing = Comparing { live, fresh, follow, comparison: Comparison::default() };
    let mut after: Option<RowKey> = None;
    loop {
        let page = live.scan(after.as_ref(), PAGE).await.map_err(failed)?;
        after = page.last().map(|(key, _)| key.clone());
        let is_last = page.len() < PAGE;
        comparing.page(page).await?;
        if is_last {
            break;
        }
    }
    comparing.strangers().await?;
    Ok(comparing.comparison)
}

fn failed(error: StoreError) -> StartError {
    clicks::failed(&error)
}

struct Comparing<'a> {
    live: &'a dyn ReadModel,
    fresh: &'a dyn ReadModel,
    follow: &'a mut dyn Follow,
    comparison: Comparison,
}

impl Comparing<'_> {
    /// Compares rows of the deployment. Those that are further than the fresh read model wait until it has come there;
    /// those of which it is further, since they were being written, are read again.
    async fn page(&mut self, mut rows: Vec<(RowKey, StoredRow)>) -> Result<(), StartError> {
        let mut looks = self.looks();
        while !rows.is_empty() {
            let keys: Vec<RowKey> = rows.iter().map(|(key, _)| key.clone()).collect();
            let others = self.fresh.load(&keys).await.map_err(failed)?;
            let (mut ahead, mut behind) = (Vec::new(), Vec::new());
            for ((key, row), other) in rows.into_iter().zip(others) {
                let is_ahead = self.follow.reached(self.follow.partition_of(&key)).is_none_or(|at| at < row.at.offset);
                if is_ahead {
                    ahead.push((key, row));
                } else if looks > 0 && other.as_ref().is_some_and(|other| other.at > row.at) {
                    behind.push((key, row));
                } else {
                    self.comparison.add(&key, &row, other.as_ref());
                }
            }
            self.follow(&ahead).await?;
            if !behind.is_empty() {
                looks -= 1;
                tokio::time::sleep(LOOK_AGAIN).await;
                let keys: Vec<RowKey> = behind.iter().map(|(key, _)| key.clone()).collect();
                let again = self.live.load(&keys).await.map_err(failed)?;
                ahead.extend(behind.into_iter().zip(again).map(|((key, row), again)| (key, again.unwrap_or(row))));
            }
            rows = ahead;
        }
        Ok(())
    }

    /// Brings the fresh read model to the first of these rows of each stream.
    async fn follow(&mut self, ahead: &[(RowKey, StoredRow)]) -> Result<(), StartError> {
        let mut ends: BTreeMap<Partition, u64> = BTreeMap::new();
        for (key, row) in ahead {
            let end = ends.entry(self.follow.partition_of(key)).or_insert(row.at.offset);
            *end = row.at.offset.min(*end);
        }
        if ends.is_empty() { Ok(()) } else { self.follow.follow(ends).await }
    }

    /// Adds the rows of the fresh read model that the deployment's doesn't have.
    async fn strangers(&mut self) -> Result<(), StartError> {
        let mut after: Option<RowKey> = None;
        loop {
            let page = self.fresh.scan(after.as_ref(), PAGE).await.map_err(failed)?;
            after = page.last().map(|(key, _)| key.clone());
            let is_last = page.len() < PAGE;
            for (key, row) in self.missing(page).await? {
                self.comparison.only_in_log += 1;
                self.comparison.show(&key, &format!("{} clicks that the read model has not", total(&row.row)));
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Those of `rows` that the deployment doesn't have, nor gets in a while.
    async fn missing(&self, mut rows: Vec<(RowKey, StoredRow)>) -> Result<Vec<(RowKey, StoredRow)>, StartError> {
        for look in (0..=self.looks()).rev() {
            let keys: Vec<RowKey> = rows.iter().map(|(key, _)| key.clone()).collect();
            let there = self.live.load(&keys).await.map_err(failed)?;
            rows = rows.into_iter().zip(there).filter(|(_, there)| there.is_none()).map(|(row, _)| row).collect();
            if rows.is_empty() {
                break;
            }
            if look > 0 {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
        Ok(rows)
    }

    fn looks(&self) -> u32 {
        if self.follow.is_at_rest() { 0 } else { MAX_LOOKS }
    }
}

/// A row as people name it.
fn name(key: &RowKey) -> String {
    let start = key.span.start().to_string();
    let code = key.code.as_str();
    match key.span {
        Span::All => format!("{code}, all time"),
        Span::Day(_) => format!("{code}, day {}", start.split('T').next().unwrap_or(&start)),
        Span::Hour(_) => format!("{code}, hour {start}"),
    }
}

fn total(row: &Row) -> u64 {
    row.clicks.saturating_add(row.bots)
}

fn same_rules(one: &Row, other: &Row) -> bool {
    one.enrichment == other.enrichment && one.enrichment != MIXED_ENRICHMENT
}

/// In what `fresh` differs from `live`; `None` = in nothing that can be compared.
fn difference(live: &StoredRow, fresh: &StoredRow) -> Option<String> {
    if live.at != fresh.at {
        return Some(format!("includes {}, and {} by the log", live.at, fresh.at));
    }
    let (live, fresh) = (&live.row, &fresh.row);
    if total(live) != total(fresh) {
        return Some(format!("{} clicks, {} by the log", total(live), total(fresh)));
    }
    let newest =
        |row: &Row| row.newest().iter().map(|click| (click.at(), click.block, click.index)).collect::<Vec<_>>();
    if newest(live) != newest(fresh) {
        return Some("other newest clicks".to_owned());
    }
    if same_rules(live, fresh) { difference_in_kind(live, fresh) } else { None }
}

/// In what two rows differ whose clicks were told apart by the same rules.
fn difference_in_kind(live: &Row, fresh: &Row) -> Option<String> {
    if live.bots != fresh.bots {
        return Some(format!("{} clicks of programs, {} by the log", live.bots, fresh.bots));
    }
    for dimension in Dimension::ALL {
        let (live, fresh) = (live.values(dimension), fresh.values(dimension));
        let all_named = live.other() == 0 && fresh.other() == 0;
        if live.total() != fresh.total() || (all_named && live != fresh) {
            return Some(format!("another {dimension:?}").to_lowercase());
        }
    }
    if live.visitors != fresh.visitors {
        return Some("other visitors".to_owned());
    }
    (live.newest() != fresh.newest()).then(|| "newest clicks told otherwise".to_owned())
}

#[cfg(test)]
mod tests;
