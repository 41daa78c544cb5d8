//! How keys, positions, checkpoints and cells stand in rows. What can't be
//! read back is a fault, never "none".

use rusqlite::Row as SqlRow;
use rusqlite::types::ValueRef;
use terse_core::click::{BlockId, JournalId};
use terse_core::ports::clicks::{Bus, Checkpoint, Retired, StoredRow};
use terse_core::stats::{Partition, Position, Row, RowKey, Span};
use terse_core::{ShortCode, Timestamp};

use super::fault::Fault;
use super::{super::MAX_PARTITIONS, MAX_CELL_BYTES};

/// What stands for days and hours above the 32 bits of their numbers.
const DAYS: i64 = 1;
const HOURS: i64 = 2;

/// One number per span, in the order of spans.
pub(super) fn span_number(span: Span) -> i64 {
    match span {
        Span::All => 0,
        Span::Day(number) => DAYS << 32 | i64::from(number),
        Span::Hour(number) => HOURS << 32 | i64::from(number),
    }
}

fn span_of(number: i64) -> Option<Span> {
    let low = (number & i64::from(u32::MAX)) as u32;
    match number >> 32 {
        0 if low == 0 => Some(Span::All),
        DAYS => Some(Span::Day(low)),
        HOURS => Some(Span::Hour(low)),
        _ => None,
    }
}

/// A position as it is stored; one that is out of its bounds is refused, for it would come back as another.
pub(super) fn position_number(position: Position) -> Result<i64, Fault> {
    let number = position.as_number();
    if Position::from_number(number) != position || number >> (Position::OFFSET_BITS + Position::EPOCH_BITS) != 0 {
        return Err(Fault::Refused(format!("a position out of bounds: {position:?}")));
    }
    Ok(number.cast_signed())
}

/// The partition of this name, if a partition has it.
fn partition_of(name: &str) -> Option<Partition> {
    let partition = match name.split_once('/')? {
        ("stream", number) => Partition::Stream(number.parse().ok()?),
        ("journal", id) => Partition::Journal(JournalId::parse(id)?),
        _ => return None,
    };
    // "stream/+1" names none.
    (partition.to_string() == name).then_some(partition)
}

pub(super) fn bus_number(bus: Bus) -> i64 {
    match bus {
        Bus::Local => 0,
        Bus::Streams { partitions } => i64::from(partitions),
    }
}

fn wrong(column: &str) -> Fault {
    Fault::corrupt(format!("a row whose column '{column}' can't be understood"))
}

pub(super) fn number(row: &SqlRow<'_>, column: &'static str) -> Result<i64, Fault> {
    row.get_ref(column)?.as_i64().map_err(|_| wrong(column))
}

fn text<'row>(row: &'row SqlRow<'_>, column: &'static str) -> Result<&'row str, Fault> {
    row.get_ref(column)?.as_str().map_err(|_| wrong(column))
}

fn blob<'row>(row: &'row SqlRow<'_>, column: &'static str) -> Result<&'row [u8], Fault> {
    row.get_ref(column)?.as_blob().map_err(|_| wrong(column))
}

pub(super) fn time(row: &SqlRow<'_>, column: &'static str) -> Result<Timestamp, Fault> {
    let ms = number(row, column)?;
    let time = Timestamp::from_millis(ms);
    // Clamped = out of range = never written.
    if time.as_millis() == ms { Ok(time) } else { Err(wrong(column)) }
}

fn position(row: &SqlRow<'_>) -> Result<Position, Fault> {
    let number = u64::try_from(number(row, "at")?).map_err(|_| wrong("at"))?;
    if number >> (Position::OFFSET_BITS + Position::EPOCH_BITS) == 0 {
        Ok(Position::from_number(number))
    } else {
        Err(wrong("at"))
    }
}

pub(super) fn span(row: &SqlRow<'_>) -> Result<Span, Fault> {
    span_of(number(row, "span")?).ok_or_else(|| wrong("span"))
}

/// The row's key.
pub(super) fn key(row: &SqlRow<'_>) -> Result<RowKey, Fault> {
    let code = ShortCode::parse(text(row, "code")?).map_err(|_| wrong("code"))?;
    Ok(RowKey { code, span: span(row)? })
}

/// The row of a link in its column `cell`.
pub(super) fn cell(row: &SqlRow<'_>) -> Result<Row, Fault> {
    let bytes = blob(row, "cell")?;
    if bytes.len() > MAX_CELL_BYTES {
        return Err(wrong("cell"));
    }
    Row::decode(bytes).map_err(|error| Fault::corrupt(format!("a cell that is no row: {error}")))
}

/// A row with the columns `at` and `cell`.
pub(super) fn stored(row: &SqlRow<'_>) -> Result<StoredRow, Fault> {
    Ok(StoredRow { at: position(row)?, row: cell(row)? })
}

pub(super) fn journal(row: &SqlRow<'_>) -> Result<JournalId, Fault> {
    <[u8; 16]>::try_from(blob(row, "journal")?).map(JournalId).map_err(|_| wrong("journal"))
}

pub(super) fn partition(row: &SqlRow<'_>) -> Result<Partition, Fault> {
    partition_of(text(row, "partition")?).ok_or_else(|| wrong("partition"))
}

/// A row of `checkpoints` or `epochs`.
pub(super) fn checkpoint(row: &SqlRow<'_>) -> Result<Checkpoint, Fault> {
    Ok(Checkpoint {
        at: position(row)?,
        until: time(row, "until")?,
        anchor: BlockId { journal: journal(row)?, seq: number(row, "seq")?.cast_unsigned() },
        passed: blob(row, "passed")?.to_vec(),
    })
}

/// A row of `retired`.
pub(super) fn retired(row: &SqlRow<'_>) -> Result<Retired, Fault> {
    Ok(Retired { at: position(row)?, until: time(row, "until")?, passed: blob(row, "passed")?.to_vec() })
}

/// The column `bus`; `None` = not settled.
pub(super) fn bus(row: &SqlRow<'_>) -> Result<Option<Bus>, Fault> {
    let number = match row.get_ref("bus")? {
        ValueRef::Null => return Ok(None),
        value => value.as_i64().map_err(|_| wrong("bus"))?,
    };
    match u16::try_from(number) {
        Ok(0) => Ok(Some(Bus::Local)),
        Ok(partitions @ 1..=MAX_PARTITIONS) => Ok(Some(Bus::Streams { partitions })),
        _ => Err(wrong("bus")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_numbered_in_their_order() {
        let spans = [
            Span::All,
            Span::Day(0),
            Span::Day(1),
            Span::Day(u32::MAX),
            Span::Hour(0),
            Span::Hour(7),
            Span::Hour(u32::MAX),
        ];
        assert!(spans.is_sorted_by(|one, next| one < next && span_number(*one) < span_number(*next)));
        for span in spans {
            assert_eq!(span_of(span_number(span)), Some(span));
        }
        for number in [-1, 1, (DAYS << 32) - 1, 3 << 32, i64::MIN, i64::MAX] {
            assert_eq!(span_of(number), None, "{number}");
        }
    }

    #[test]
    fn only_positions_within_their_bounds_are_stored() {
        let last = Position { epoch: (1 << Position::EPOCH_BITS) - 1, offset: (1 << Position::OFFSET_BITS) - 1 };
        for position in [Position::default(), Position { epoch: 3, offset: 9 }, last] {
            let number = position_number(position).unwrap();
            assert_eq!(Position::from_number(number.cast_unsigned()), position);
        }
        for position in [
            Position { epoch: 1 << Position::EPOCH_BITS, offset: 0 },
            Position { epoch: 0, offset: 1 << Position::OFFSET_BITS },
        ] {
            assert!(matches!(position_number(position), Err(Fault::Refused(_))), "{position:?}");
        }
    }

    #[test]
    fn partitions_are_found_by_their_names_and_by_nothing_else() {
        for partition in [
            Partition::Stream(0),
            Partition::Stream(u16::MAX),
            Partition::Journal(JournalId([0; 16])),
            Partition::Journal(JournalId([0xfe; 16])),
        ] {
            assert_eq!(partition_of(&partition.to_string()), Some(partition));
        }
        for name in
            ["", "stream", "stream/", "stream/+1", "stream/01", "stream/65536", "journal/1", "queue/1", "stream/1/2"]
        {
            assert_eq!(partition_of(name), None, "{name}");
        }
    }
}
