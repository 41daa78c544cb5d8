//! The rows of links that were clicked ten million times in a year, up to today.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use terse_core::click::{BlockId, JournalId};
use terse_core::ports::clicks::{Batch, Bus, Checkpoint, PackedRow, ReadModel, Written};
use terse_core::stats::{Cell, Dimension, NEWEST_CLICKS, NewestClick, Partition, Position, Row, RowKey, Span};
use terse_core::{Clock, ShortCode, Timestamp};
use terse_server::broker::PARTITIONS;
use terse_server::system::SystemClock;

use crate::cluster::connected;
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

/// How often a write is tried that a cluster refuses, which is busy at times, and how long is waited in between.
const WRITE_TRIES: u32 = 10;
const WRITE_PAUSE: Duration = Duration::from_millis(500);

/// The days in which the links were clicked.
#[derive(Clone, Copy)]
struct Days {
    first: u32,
    today: u32,
}

/// Writes the rows of `codes` into `file`. Tells where the year and the hourly range begin, and how many clicks they
/// have.
pub(crate) fn write(file: &Path, codes: &str) -> Result<Value, String> {
    let days = Days::until_today()?;
    runtime()?.block_on(async {
        let model = open(file)?;
        fill(model.as_ref(), Bus::Local, &parsed(codes), days).await?;
        model.close();
        Ok::<_, String>(())
    })?;
    Ok(days.told())
}

/// The same in `keyspace` on `hosts`, as the projector of a server's streams writes them.
pub(crate) fn write_to_cluster(hosts: &str, replication: u8, keyspace: &str, codes: &str) -> Result<Value, String> {
    let days = Days::until_today()?;
    runtime()?.block_on(async {
        let model = connected(hosts, replication, keyspace).await?;
        fill(model.as_ref(), Bus::Streams { partitions: PARTITIONS }, &parsed(codes), days).await
    })?;
    Ok(days.told())
}

impl Days {
    fn until_today() -> Result<Self, String> {
        let Span::Day(today) = Span::day_of(SystemClock::new().now()) else { return Err("no day".to_owned()) };
        Ok(Self { first: today + 1 - DAYS, today })
    }

    /// What is known of the rows that are written.
    fn told(self) -> Value {
        json!({
            "clicks": CLICKS,
            "year": Span::Day(self.first).start().to_string(),
            "hours": Span::Day(self.today + 1 - HOURLY_DAYS).start().to_string(),
            "hourly_clicks_at_least": u64::from(HOURLY_DAYS - 1) * clicks_of(self.today, self.first),
        })
    }
}

fn parsed(codes: &str) -> Vec<ShortCode> {
    codes.split(',').map(terse_testkit::links::code).collect()
}

async fn fill(model: &dyn ReadModel, bus: Bus, codes: &[ShortCode], days: Days) -> Result<(), String> {
    let stands = model.settle_bus(bus).await.map_err(text)?;
    if stands != bus {
        return Err(format!("the read model is for {stands}"));
    }
    model.attach().await.map_err(text)?;
    let at = match bus {
        Bus::Local => Position::default(),
        Bus::Streams { .. } => Position { epoch: 0, offset: 1 },
    };
    for day in days.first..=days.today {
        let rows = of_all(codes, at, |code| rows_of_day(code, day, days.first));
        put(model, Batch { rows, ..Batch::default() }).await?;
    }
    let rows = of_all(codes, at, |code| vec![(key(code, Span::All), row(Span::All, CLICKS))]);
    put(model, Batch { rows, checkpoints: checkpoints(bus, at), ..Batch::default() }).await
}

/// How far each stream was counted. Journals that have ended have none.
fn checkpoints(bus: Bus, at: Position) -> Vec<(Partition, Checkpoint)> {
    let Bus::Streams { partitions } = bus else { return Vec::new() };
    let anchor = BlockId { journal: JournalId([7; 16]), seq: 0 };
    let until = SystemClock::new().now();
    let checkpoint = |number| (Partition::Stream(number), Checkpoint { at, until, anchor, passed: Vec::new() });
    (0..partitions).map(checkpoint).collect()
}

async fn put(model: &dyn ReadModel, batch: Batch) -> Result<(), String> {
    let mut tries = 1;
    loop {
        match model.write(&batch).await {
            Ok(Written::Stands) => return Ok(()),
            Ok(Written::Superseded) => return Err("superseded, though nobody else is there".to_owned()),
            Err(error) if tries == WRITE_TRIES => return Err(text(error)),
            // The same rows once more change nothing.
            Err(_) => tokio::time::sleep(WRITE_PAUSE).await,
        }
        tries += 1;
    }
}

fn of_all(
    codes: &[ShortCode],
    at: Position,
    rows: impl Fn(&ShortCode) -> Vec<(RowKey, Row)>,
) -> Vec<(RowKey, PackedRow)> {
    let stored = |(key, row)| (key, PackedRow { at, cell: Cell::of(&row) });
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
