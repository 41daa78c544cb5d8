//! Reads of a link's days and hours.
//!
//! A range is read in slices of so many spans, some at once: each slice lies in
//! one partition, and its answer has a bounded size whatever clients sent.

use scylla::statement::prepared::PreparedStatement;
use terse_core::ShortCode;
use terse_core::ports::{StoreError, StoreErrorKind};
use terse_core::stats::{Row, Span};

use super::super::session::{Preparer, Use};
use super::super::{fault, levels, rows};
use super::Live;
use super::cells::{self, Spot};

/// Spans of one slice at most. Both periods are multiples of it.
const SPANS_OF_A_SLICE: u32 = 64;
/// Slices of one range that are read at once.
pub(super) const SLICES_AT_ONCE: usize = 8;
/// Most spans of a range; a longer one is refused as overloaded. Ten years have 3,653 days.
const MAX_SPANS: u64 = 10_000;

const READ: &str = "SELECT number, cell FROM {keyspace}.click_rows \
     WHERE code = ? AND kind = ? AND period = ? AND number >= ? AND number <= ?";

pub(super) struct Statements {
    read: PreparedStatement,
}

impl Statements {
    pub(super) async fn prepare(preparer: &Preparer<'_>) -> Result<Self, StoreError> {
        Ok(Self { read: preparer.statement(Use::ListRead, READ).await? })
    }
}

/// Spans of one partition, in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    first: Spot,
    /// The number of the last one.
    last: i64,
}

/// The slices that have the spans from `first` to `last`, both included, in their order; none if `last` comes before.
///
/// # Errors
/// [`StoreErrorKind::Overloaded`] when there are more than [`MAX_SPANS`] between them,
/// [`StoreErrorKind::Corrupt`] when they are of two kinds.
pub(super) fn slices(first: Span, last: Span) -> Result<Vec<Slice>, StoreError> {
    let (kind, first, last): (fn(u32) -> Span, u32, u32) = match (first, last) {
        (Span::All, Span::All) => (|_| Span::All, 0, 0),
        (Span::Day(first), Span::Day(last)) => (Span::Day, first, last),
        (Span::Hour(first), Span::Hour(last)) => (Span::Hour, first, last),
        _ => return Err(fault::corrupt(format!("a range from {first:?} to {last:?}"))),
    };
    if first > last {
        return Ok(Vec::new());
    }
    if u64::from(last - first) >= MAX_SPANS {
        return Err(StoreError::new(StoreErrorKind::Overloaded, format!("a range of more than {MAX_SPANS} spans")));
    }
    let begins = first / SPANS_OF_A_SLICE..=last / SPANS_OF_A_SLICE;
    let slices = begins.map(|slice| {
        let begin = slice * SPANS_OF_A_SLICE;
        let end = begin + (SPANS_OF_A_SLICE - 1);
        Slice { first: Spot::of(kind(begin.max(first))), last: i64::from(end.min(last)) }
    });
    Ok(slices.collect())
}

impl Live {
    /// The rows of `code` in `slice`, in their order.
    pub(super) async fn slice(&self, code: &ShortCode, slice: Slice) -> Result<Vec<(Span, Row)>, StoreError> {
        let Spot { kind, period, number } = slice.first;
        let values = (code.as_str(), kind, period, number, slice.last);
        let found = levels::rows_on(&self.session, "reading clicks over time", &self.spans.read, values).await?;
        rows::all(&found, |(number, cell): (i64, Option<&[u8]>)| {
            Ok((Spot { kind, period, number }.span()?, cells::row(cell)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All spans of `slices`, one by one.
    fn spans_of(slices: &[Slice]) -> Vec<Span> {
        let numbers =
            slices.iter().flat_map(|slice| (slice.first.number..=slice.last).map(move |number| (slice, number)));
        numbers.map(|(slice, number)| Spot { number, ..slice.first }.span().unwrap()).collect()
    }

    #[test]
    fn slices_have_each_span_of_a_range_once_and_lie_in_one_partition_each() {
        for (first, last) in
            [(0, 0), (5, 9), (63, 64), (300, 700), (767, 769), (20_000, 20_365), (u32::MAX - 1, u32::MAX)]
        {
            let days = slices(Span::Day(first), Span::Day(last)).unwrap();
            // That a spot has its span tells that the number lies in the period of its slice.
            assert_eq!(spans_of(&days), (first..=last).map(Span::Day).collect::<Vec<_>>());
            let hours = slices(Span::Hour(first), Span::Hour(last)).unwrap();
            assert_eq!(spans_of(&hours), (first..=last).map(Span::Hour).collect::<Vec<_>>());
            assert!(days.iter().chain(&hours).all(|slice| slice.last - slice.first.number < 64));
        }
    }

    #[test]
    fn a_year_of_days_and_a_month_of_hours_lie_in_two_partitions_at_most() {
        for first in (0..2_000).step_by(7) {
            for range in [
                slices(Span::Day(first), Span::Day(first + 365)).unwrap(),
                slices(Span::Hour(first), Span::Hour(first + 743)).unwrap(),
            ] {
                let mut periods: Vec<i32> = range.iter().map(|slice| slice.first.period).collect();
                periods.dedup();
                assert!(periods.len() <= 2, "{periods:?}");
            }
        }
    }

    #[test]
    fn all_time_is_one_slice() {
        assert_eq!(slices(Span::All, Span::All).unwrap(), [Slice { first: Spot::of(Span::All), last: 0 }]);
    }

    #[test]
    fn a_range_that_is_none_or_too_long_reads_nothing() {
        assert_eq!(slices(Span::Day(8), Span::Day(7)).unwrap(), []);
        let most = u32::try_from(MAX_SPANS).unwrap();
        assert!(slices(Span::Hour(0), Span::Hour(most - 1)).is_ok());
        let refused = slices(Span::Hour(0), Span::Hour(most)).unwrap_err();
        assert_eq!(refused.kind, StoreErrorKind::Overloaded);
        assert_eq!(slices(Span::Day(1), Span::Hour(2)).unwrap_err().kind, StoreErrorKind::Corrupt);
    }
}
