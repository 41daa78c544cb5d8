//! Two read models, row by row.
//!
//! What clicks sum up to and which are the newest is compared always; what they were like only between rows that were
//! told apart by the same rules. Of values that found no room in a row only the sum is compared: which ones came first
//! depends on how the blocks of several journals took turns.
//!
//! Bounds: [`PAGE`] rows at a time, the first [`MAX_SHOWN`] differences are told.

use std::fmt;

use terse_core::ports::StoreError;
use terse_core::ports::clicks::{ReadModel, StoredRow};
use terse_core::stats::{Dimension, MIXED_ENRICHMENT, Row, RowKey, Span};

/// Rows that are read at once from each.
const PAGE: usize = 256;
/// Differences that are told.
const MAX_SHOWN: usize = 10;

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

/// Compares what the deployment says with what the log says.
pub(super) async fn compare(live: &dyn ReadModel, fresh: &dyn ReadModel) -> Result<Comparison, StoreError> {
    let mut comparison = Comparison::default();
    let mut after: Option<RowKey> = None;
    loop {
        let (keys, rows): (Vec<_>, Vec<_>) = live.scan(after.as_ref(), PAGE).await?.into_iter().unzip();
        for ((key, row), other) in keys.iter().zip(&rows).zip(fresh.load(&keys).await?) {
            comparison.add(key, row, other.as_ref());
        }
        if keys.len() < PAGE {
            break;
        }
        after = keys.into_iter().next_back();
    }
    add_strangers(&mut comparison, live, fresh).await?;
    Ok(comparison)
}

/// Adds the rows of `fresh` that `live` doesn't have.
async fn add_strangers(
    comparison: &mut Comparison,
    live: &dyn ReadModel,
    fresh: &dyn ReadModel,
) -> Result<(), StoreError> {
    let mut after: Option<RowKey> = None;
    loop {
        let (keys, rows): (Vec<_>, Vec<_>) = fresh.scan(after.as_ref(), PAGE).await?.into_iter().unzip();
        for ((key, row), other) in keys.iter().zip(&rows).zip(live.load(&keys).await?) {
            if other.is_none() {
                comparison.only_in_log += 1;
                comparison.show(key, &format!("{} clicks that the read model has not", total(&row.row)));
            }
        }
        if keys.len() < PAGE {
            return Ok(());
        }
        after = keys.into_iter().next_back();
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
        return Some(format!("includes {:?}, and {:?} by the log", live.at, fresh.at));
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
