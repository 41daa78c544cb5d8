//! The rows of links that were clicked ten million times in a year, up to today.

use std::path::Path;

use serde_json::{Value, json};
use terse_core::click::{BlockId, JournalId};
use terse_core::ports::clicks::{Batch, Bus, PackedRow, ReadModel, Written};
use terse_core::stats::{Cell, Dimension, NEWEST_CLICKS, NewestClick, Position, Row, RowKey, Span};
use terse_core::{Clock, ShortCode, Timestamp};
use terse_server::system::SystemClock;

use crate::local::{open, runtime};
use crate::text;

/// Clicks of a link in all.
const CLICKS: u64 = 10_000_000;
/// Days in which they came, the last one today.
const DAYS: u32 = 365;
/// Hours of a day.
const HOURS: u32 = 24;
/// Days whose hours are asked for at once at most.
const HOURLY_DAYS: u32 = 31;
/// Visitors of a day: so many that they are counted by a sketch.
const VISITORS: u64 = 20_000;
/// How many values there are of each dimension: of the first more than are counted by name.
const VALUES: [u64; Dimension::ALL.len()] = [150, 60, 12, 10, 4, 30];

/// Writes the rows of `codes` into `file`. Tells where the year and the hourly range begin, and how many clicks they have.
pub(crate) fn write(file: &Path, codes: &str) -> Result<Value, String> {
    let codes: Vec<ShortCode> = codes.split(',').map(terse_testkit::links::code).collect();
    let Span::Day(today) = Span::day_of(SystemClock::new().now()) else { return Err("no day".to_owned()) };
    let first = today + 1 - DAYS;
    runtime()?.block_on(async {
        let model = open(file)?;
        model.settle_bus(Bus::Local).await.map_err(text)?;
        model.attach().await.map_err(text)?;
        for day in first..=today {
            put(model.as_ref(), of_all(&codes, |code| rows_of_day(code, day, first))).await?;
        }
        put(model.as_ref(), of_all(&codes, |code| vec![(key(code, Span::All), row(Span::All, CLICKS))])).await?;
        model.close();
        Ok::<_, String>(())
    })?;
    Ok(json!({
        "clicks": CLICKS,
        "year": Span::Day(first).start().to_string(),
        "hours": Span::Day(today + 1 - HOURLY_DAYS).start().to_string(),
        "hourly_clicks_at_least": u64::from(HOURLY_DAYS - 1) * clicks_of(today, first),
    }))
}

async fn put(model: &dyn ReadModel, rows: Vec<(RowKey, PackedRow)>) -> Result<(), String> {
    match model.write(&Batch { rows, ..Batch::default() }).await.map_err(text)? {
        Written::Stands => Ok(()),
        Written::Superseded => Err("superseded, though nobody else is there".to_owned()),
    }
}

fn of_all(codes: &[ShortCode], rows: impl Fn(&ShortCode) -> Vec<(RowKey, Row)>) -> Vec<(RowKey, PackedRow)> {
    let stored = |(key, row)| (key, PackedRow { at: Position::default(), cell: Cell::of(&row) });
    codes.iter().flat_map(|code| rows(code).into_iter().map(stored)).collect()
}

/// Clicks of a day: the first has what is left over.
fn clicks_of(day: u32, first: u32) -> u64 {
    let usual = CLICKS / u64::from(DAYS);
    if day == first { CLICKS - usual * u64::from(DAYS - 1) } else { usual }
}

/// The rows of a day and its hours.
fn rows_of_day(code: &ShortCode, day: u32, first: u32) -> Vec<(RowKey, Row)> {
    let clicks = clicks_of(day, first);
    let usual = clicks / u64::from(HOURS);
    let hours = (0..HOURS).map(|hour| {
        let span = Span::Hour(day * HOURS + hour);
        let clicks = if hour == 0 { clicks - usual * u64::from(HOURS - 1) } else { usual };
        (key(code, span), row(span, clicks))
    });
    [(key(code, Span::Day(day)), row(Span::Day(day), clicks))].into_iter().chain(hours).collect()
}

fn key(code: &ShortCode, span: Span) -> RowKey {
    RowKey { code: code.clone(), span }
}

fn row(span: Span, clicks: u64) -> Row {
    let mut row = Row::default();
    row.clicks = clicks;
    for (dimension, count) in Dimension::ALL.into_iter().zip(VALUES) {
        let mut left = clicks;
        for number in (1..count).rev() {
            // About as popularity goes; the most popular gets what is left.
            let share = (clicks / (number + 1) / 5).min(left);
            row.values_mut(dimension).add(&name(dimension, number), share);
            left -= share;
        }
        row.values_mut(dimension).add(&name(dimension, 0), left);
    }
    match span {
        Span::Day(day) => {
            let visitors = row.visitors.get_or_insert_default();
            let hash = |number: u64| (number + u64::from(day) * VISITORS).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (0..VISITORS).map(hash).for_each(|hash| visitors.add(hash ^ (hash >> 31)));
        }
        Span::All => (0..NEWEST_CLICKS as u64).for_each(|number| row.keep_newest(newest(number))),
        Span::Hour(_) => {}
    }
    row
}

fn newest(number: u64) -> NewestClick {
    let block = BlockId { journal: JournalId([7; 16]), seq: number };
    let values = Dimension::ALL.map(|dimension| name(dimension, number % 4).into());
    NewestClick::new(Timestamp::from_millis(1_767_323_045_000 + number as i64), block, 0, values, false)
}

fn name(dimension: Dimension, number: u64) -> String {
    match dimension {
        Dimension::Referrer => format!("site{number}.example.org"),
        Dimension::Country | Dimension::Language => format!("{number:02x}"),
        _ => format!("Product {number}"),
    }
}
