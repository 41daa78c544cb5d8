//! Keys, rows and checkpoints in one line each.

use terse_core::Timestamp;
use terse_core::click::{BlockId, JournalId};
use terse_core::ports::clicks::{Batch, Checkpoint, Retired, StoredRow, Written};
use terse_core::stats::{Dimension, NEWEST_CLICKS, NewestClick, Partition, Position, Row, RowKey, Sketch, Span};
use terse_testkit::links::code;

use crate::backends::Model;

/// Noon of 2026-01-01.
pub(crate) const NOON: Timestamp = Timestamp::from_millis(1_767_268_800_000);

/// Texts that clients send.
const TEXTS: [&str; 8] = [
    "example.com",
    "",
    "<script>alert(1)</script>",
    "=cmd|' /C calc'!A0",
    "' OR 1=1; DROP TABLE clicks; --",
    "\u{0}\u{1f}\r\n",
    "ü\u{202e}\u{1f600}\u{fffd}",
    "%00%ff\\x00",
];

pub(crate) fn key(text: &str, span: Span) -> RowKey {
    RowKey { code: code(text), span }
}

pub(crate) const fn journal(number: u8) -> JournalId {
    JournalId([number; 16])
}

pub(crate) const fn offset(offset: u64) -> Position {
    Position { epoch: 0, offset }
}

/// A row of so many clicks.
pub(crate) fn row(clicks: u64) -> Row {
    let mut row = Row::default();
    (row.enrichment, row.clicks, row.bots) = (1, clicks, clicks / 2);
    row
}

/// A row as large and as hostile as clients can make it.
pub(crate) fn full_row() -> Row {
    let mut row = row(u64::MAX);
    for dimension in Dimension::ALL {
        for number in 0..200_u64 {
            let text = TEXTS[number as usize % TEXTS.len()];
            row.values_mut(dimension).add(&format!("{text}{number}{}", "x".repeat(90)), number << 40);
        }
    }
    let mut visitors = Sketch::default();
    for number in 0..20_000_u64 {
        visitors.add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
    row.visitors = Some(visitors);
    for number in 0..NEWEST_CLICKS as u32 + 10 {
        let values = std::array::from_fn(|place| TEXTS[(place + number as usize) % TEXTS.len()].into());
        let block = BlockId { journal: journal(number as u8), seq: u64::MAX - u64::from(number) };
        row.keep_newest(NewestClick::new(NOON.plus_millis(number.into()), block, number, values, number % 2 == 0));
    }
    row
}

/// `row` as it is stored when it includes the log up to `at`.
pub(crate) fn stored(at: Position, row: Row) -> StoredRow {
    StoredRow { at, row }
}

/// A checkpoint at `at` that was true `minute` minutes past noon.
pub(crate) fn checkpoint(at: Position, minute: i64) -> Checkpoint {
    Checkpoint {
        at,
        until: NOON.plus_millis(minute * 60_000),
        anchor: BlockId { journal: journal(at.offset as u8), seq: at.offset },
        passed: at.offset.to_le_bytes().to_vec(),
    }
}

pub(crate) fn retired(at: Position, minute: i64) -> Retired {
    Retired { at, until: NOON.plus_millis(minute * 60_000), passed: vec![1, 2, minute as u8] }
}

pub(crate) fn of_rows(rows: Vec<(RowKey, StoredRow)>) -> Batch {
    Batch { rows: rows.into_iter().map(|(key, stored)| (key, stored.into())).collect(), ..Batch::default() }
}

pub(crate) fn of_checkpoints(checkpoints: Vec<(Partition, Checkpoint)>) -> Batch {
    Batch { checkpoints, ..Batch::default() }
}

/// Writes `batch`, which must stand.
#[track_caller]
pub(crate) fn write<'a>(model: &'a dyn Model, batch: &'a Batch) -> impl Future<Output = ()> + 'a {
    let caller = std::panic::Location::caller();
    async move { assert_eq!(model.write(batch).await.unwrap(), Written::Stands, "{caller}") }
}

/// The stored row of one key.
pub(crate) async fn load_one(model: &dyn Model, key: &RowKey) -> Option<StoredRow> {
    let mut found = model.load(std::slice::from_ref(key)).await.unwrap();
    assert_eq!(found.len(), 1);
    found.remove(0)
}
