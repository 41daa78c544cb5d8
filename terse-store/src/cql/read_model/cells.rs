//! Rows as cells: where they stand, and the position as their write time.

use scylla::response::query_result::QueryRowsResult;
use scylla::statement::prepared::PreparedStatement;
use terse_core::ports::StoreError;
use terse_core::ports::clicks::{PackedRow, StoredRow};
use terse_core::stats::{Position, Row, RowKey, Span};

use super::super::session::{Preparer, Use};
use super::super::{fault, levels, rows};
use super::Live;

/// Days of a period, see the schema.
pub(super) const DAYS_OF_A_PERIOD: u32 = 384;
/// Hours of a period.
pub(super) const HOURS_OF_A_PERIOD: u32 = 768;
/// Most bytes of a cell; a larger one is refused before it is written. The largest row that the bounds of
/// [`Row`] allow has about a seventh of it.
pub(super) const MAX_CELL_BYTES: usize = 1 << 20;

const ALL: i8 = 0;
const DAY: i8 = 1;
const HOUR: i8 = 2;

const WRITE: &str = "UPDATE {keyspace}.click_rows USING TIMESTAMP ? SET cell = ? \
     WHERE code = ? AND kind = ? AND period = ? AND number = ?";
const READ: &str = "SELECT cell, WRITETIME(cell) FROM {keyspace}.click_rows \
     WHERE code = ? AND kind = ? AND period = ? AND number = ?";

pub(super) struct Statements {
    write: PreparedStatement,
    read: PreparedStatement,
}

impl Statements {
    pub(super) async fn prepare(preparer: &Preparer<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            write: preparer.statement(Use::Write, WRITE).await?,
            read: preparer.statement(Use::ListRead, READ).await?,
        })
    }
}

/// Where a span's row stands among those of its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) kind: i8,
    pub(super) period: i32,
    pub(super) number: i64,
}

impl Spot {
    pub(super) fn of(span: Span) -> Self {
        let (kind, period, number) = match span {
            Span::All => (ALL, 0, 0),
            Span::Day(number) => (DAY, number / DAYS_OF_A_PERIOD, number),
            Span::Hour(number) => (HOUR, number / HOURS_OF_A_PERIOD, number),
        };
        // The last period there is has seven digits.
        Self { kind, period: i32::try_from(period).unwrap_or(i32::MAX), number: i64::from(number) }
    }

    /// The span whose row stands here.
    ///
    /// # Errors
    /// When none does.
    pub(super) fn span(self) -> Result<Span, StoreError> {
        let number = u32::try_from(self.number).map_err(|_| rows::wrong("number"))?;
        let span = match self.kind {
            ALL => Span::All,
            DAY => Span::Day(number),
            HOUR => Span::Hour(number),
            _ => return Err(rows::wrong("kind")),
        };
        if Self::of(span) == self { Ok(span) } else { Err(rows::wrong("period")) }
    }
}

/// The write time of what includes the log up to `at`.
///
/// # Errors
/// When it has no number below 2^50: another position has the same number then.
pub(super) fn write_time(at: Position) -> Result<i64, StoreError> {
    let number = at.as_number();
    match i64::try_from(number) {
        Ok(time) if Position::from_number(number) == at && is_position(time) => Ok(time),
        _ => Err(fault::corrupt(format!("a position beyond all bounds: epoch {}, offset {}", at.epoch, at.offset))),
    }
}

/// The position that a cell of this write time includes.
///
/// # Errors
/// When it is none: then something else wrote the cell, and would win over all positions to come.
pub(super) fn position(write_time: Option<i64>) -> Result<Position, StoreError> {
    match write_time {
        Some(time) if is_position(time) => Ok(Position::from_number(time.unsigned_abs())),
        other => Err(fault::corrupt(format!("a cell whose write time {other:?} is no position of the click log"))),
    }
}

const fn is_position(write_time: i64) -> bool {
    write_time >= 0 && write_time >> (Position::EPOCH_BITS + Position::OFFSET_BITS) == 0
}

/// The row in a cell.
pub(super) fn row(cell: Option<&[u8]>) -> Result<Row, StoreError> {
    let decoded = Row::decode(rows::must(cell, "cell")?);
    decoded.map_err(|error| fault::corrupt("a row of clicks can't be understood").caused_by(error))
}

/// `cell`, if it is not too large.
fn bounded<'c>(key: &RowKey, cell: &'c [u8]) -> Result<&'c [u8], StoreError> {
    if cell.len() > MAX_CELL_BYTES {
        let (code, len) = (key.code.as_str(), cell.len());
        return Err(fault::corrupt(format!("a row of '{code}' has {len} bytes, more than {MAX_CELL_BYTES}")));
    }
    Ok(cell)
}

impl Live {
    /// Writes a row. Where a later position is stored, that stays.
    pub(super) async fn write_row(&self, key: &RowKey, packed: &PackedRow) -> Result<(), StoreError> {
        let (cell, spot) = (bounded(key, packed.cell.bytes())?, Spot::of(key.span));
        let values = (write_time(packed.at)?, cell, key.code.as_str(), spot.kind, spot.period, spot.number);
        let answer = self.session.execute_unpaged(&self.cells.write, values).await;
        answer.map(drop).map_err(|error| fault::write("writing a row of clicks", error))
    }

    /// The row of `key`, and the position that it includes.
    pub(super) async fn stored(&self, key: &RowKey) -> Result<Option<StoredRow>, StoreError> {
        let spot = Spot::of(key.span);
        let values = (key.code.as_str(), spot.kind, spot.period, spot.number);
        stored_in(&levels::rows_on(&self.session, "reading a row of clicks", &self.cells.read, values).await?)
    }
}

fn stored_in(found: &QueryRowsResult) -> Result<Option<StoredRow>, StoreError> {
    let Some((cell, time)) = rows::first::<(Option<&[u8]>, Option<i64>)>(found)? else { return Ok(None) };
    Ok(Some(StoredRow { at: position(time)?, row: row(cell)? }))
}

#[cfg(test)]
mod tests {
    use terse_core::Timestamp;
    use terse_core::click::{BlockId, JournalId};
    use terse_core::ports::StoreErrorKind;
    use terse_core::stats::{Dimension, MAX_VALUE_BYTES, MAX_VALUES, NEWEST_CLICKS, NewestClick};
    use terse_testkit::links::code;

    use super::*;

    #[test]
    fn every_span_has_a_spot_of_its_own_and_is_found_again() {
        let numbers = [0, 1, 383, 384, 767, 768, 20_000, 480_000, u32::MAX];
        let spans = numbers.iter().flat_map(|&number| [Span::Day(number), Span::Hour(number)]).chain([Span::All]);
        for span in spans {
            assert_eq!(Spot::of(span).span().unwrap(), span);
        }
        assert_eq!(Spot::of(Span::Day(768)), Spot { kind: DAY, period: 2, number: 768 });
        assert_eq!(Spot::of(Span::Hour(768)), Spot { kind: HOUR, period: 1, number: 768 });
    }

    #[test]
    fn a_spot_where_no_row_is_written_is_corrupt() {
        for (kind, period, number) in [(3, 0, 0), (-1, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 384), (2, 0, -1)] {
            let error = Spot { kind, period, number }.span().unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Corrupt);
        }
    }

    #[test]
    fn positions_are_write_times_below_two_to_the_fifty() {
        let last = Position { epoch: 1_023, offset: (1 << 40) - 1 };
        for at in [Position::default(), Position { epoch: 0, offset: 7 }, Position { epoch: 3, offset: 0 }, last] {
            assert_eq!(position(Some(write_time(at).unwrap())).unwrap(), at);
        }
        assert_eq!(write_time(last).unwrap(), (1 << 50) - 1);
    }

    #[test]
    fn a_position_that_another_one_would_be_taken_for_is_refused() {
        for at in [Position { epoch: 1_024, offset: 0 }, Position { epoch: 0, offset: 1 << 40 }] {
            assert_eq!(write_time(at).unwrap_err().kind, StoreErrorKind::Corrupt);
        }
    }

    #[test]
    fn a_cell_that_something_else_wrote_is_corrupt() {
        // A write time as clients and tools give it: microseconds.
        for time in [None, Some(-1), Some(1 << 50), Some(1_767_323_045_000_000)] {
            assert_eq!(position(time).unwrap_err().kind, StoreErrorKind::Corrupt, "{time:?}");
        }
    }

    #[test]
    fn a_damaged_cell_is_corrupt() {
        for cell in [None, Some(&[][..]), Some(&[99, 1, 2][..]), Some(&[1][..])] {
            assert_eq!(row(cell).unwrap_err().kind, StoreErrorKind::Corrupt);
        }
        let mut sound = Row::default();
        sound.merge_counts(&largest(Span::Hour(1)));
        assert_eq!(row(Some(&sound.encode())).unwrap(), sound);
    }

    /// A row of `span` that no bound leaves room to grow.
    fn largest(span: Span) -> Row {
        let mut row = Row::default();
        (row.clicks, row.bots, row.enrichment) = (u64::MAX, u64::MAX, u16::MAX);
        for dimension in Dimension::ALL {
            for number in 0..=MAX_VALUES {
                let value = format!("{number:x>MAX_VALUE_BYTES$}");
                row.values_mut(dimension).add(&value, u64::MAX / 1_000);
            }
        }
        if matches!(span, Span::Day(_)) {
            let visitors = row.visitors.get_or_insert_default();
            (0..50_000_u64).for_each(|number| visitors.add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        }
        if span == Span::All {
            for index in 0..NEWEST_CLICKS as u32 {
                let block = BlockId { journal: JournalId([0xff; 16]), seq: u64::MAX };
                let values = std::array::from_fn(|_| "v".repeat(MAX_VALUE_BYTES).into());
                row.keep_newest(NewestClick::new(Timestamp::from_millis(i64::MAX), block, index, values, true));
            }
        }
        row
    }

    #[test]
    fn the_largest_row_has_room_in_a_cell() {
        for span in [Span::All, Span::Day(20_000), Span::Hour(480_000)] {
            let cell = largest(span).encode();
            assert!(cell.len() * 6 < MAX_CELL_BYTES, "{span:?}: {} bytes", cell.len());
        }
    }

    #[test]
    fn a_row_that_is_too_large_is_refused() {
        let key = RowKey { code: code("abc"), span: Span::All };
        assert!(bounded(&key, &[0; MAX_CELL_BYTES]).is_ok());
        let refused = bounded(&key, &[0; MAX_CELL_BYTES + 1]).unwrap_err();
        assert_eq!(refused.kind, StoreErrorKind::Corrupt);
        assert!(refused.message.contains("'abc'"), "{refused}");
    }
}
