//! How many rows a second are written and read; run by hand, on a machine that has nothing else to do:
//! `cargo test -p terse-store --test cql_clicks -- --ignored --nocapture rates`.
#![allow(clippy::print_stderr)]

use std::time::Instant;

use terse_core::ports::clicks::{ClickStats, ReadModel};
use terse_core::stats::{Dimension, Row, RowKey, Span};
use terse_store::CqlReadModel;
use terse_testkit::links::code;

use crate::cluster::{Keyspace, at, connect, key, rows, stored, with_keyspace};

/// Codes of a batch, each with three rows.
const CODES: u32 = 1_000;
/// Batches written one after the other.
const BATCHES: u64 = 8;
/// Rows at once, in turns.
const AT_ONCE: [usize; 3] = [16, 64, 256];
/// Reads of a link's year.
const YEARS: u32 = 50;

/// A row as a link of some thousand clicks has it: about a KiB, and visitors if it is of a day.
fn usual(span: Span, clicks: u64) -> Row {
    let mut row = Row::default();
    row.clicks = clicks;
    for (dimension, count) in Dimension::ALL.into_iter().zip([30, 20, 6, 5, 3, 10]) {
        for number in 0..count {
            row.values_mut(dimension).add(&format!("value-{number}.example"), clicks + number);
        }
    }
    if matches!(span, Span::Day(_)) {
        let visitors = row.visitors.get_or_insert_default();
        (0..40_u64).for_each(|number| visitors.add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    }
    row
}

/// A batch of three rows per code, at position `offset`.
fn batch(offset: u64) -> Vec<(RowKey, Row)> {
    let spans = [Span::All, Span::Day(20_000), Span::Hour(480_000)];
    let keys = (0..CODES).flat_map(|number| spans.map(|span| key(&format!("rate{number}"), span)));
    keys.map(|key| (key.clone(), usual(key.span, offset))).collect()
}

async fn written_per_second(keyspace: &Keyspace, at_once: usize, from: u64) -> f64 {
    let mut config = keyspace.config();
    config.bounds.writes_at_once = at_once;
    let model: std::sync::Arc<CqlReadModel> = connect(config).await;
    let mut spent = 0.0;
    for offset in from..from + BATCHES {
        let rows = rows(batch(offset).into_iter().map(|(key, row)| {
            let mut stored = stored(at(0, offset), 0);
            stored.row = row;
            (key, stored)
        }));
        let began = Instant::now();
        model.write(&rows).await.unwrap();
        spent += began.elapsed().as_secs_f64();
    }
    f64::from(CODES) * 3.0 * BATCHES as f64 / spent
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, of some minutes"]
async fn rates_of_rows() {
    with_keyspace(|keyspace| async move {
        let bytes: usize = batch(1).iter().map(|(_, row)| row.encode().len()).sum();
        eprintln!("a row has {} bytes on average", bytes / (CODES as usize * 3));
        let mut from = 1;
        for round in 0..2 {
            for at_once in AT_ONCE {
                let rate = written_per_second(&keyspace, at_once, from).await;
                eprintln!("round {round}: {at_once} at once: {rate:.0} rows a second written");
                from += BATCHES;
            }
        }
        let model = connect(keyspace.config()).await;
        let keys: Vec<_> = batch(1).into_iter().map(|(key, _)| key).collect();
        let began = Instant::now();
        assert!(model.load(&keys).await.unwrap().iter().all(Option::is_some));
        eprintln!("{:.0} rows a second loaded", keys.len() as f64 / began.elapsed().as_secs_f64());
        years(&model).await;
    })
    .await;
}

async fn years(model: &CqlReadModel) {
    let days = |days: std::ops::Range<u32>| {
        rows(days.map(|day| {
            let mut stored = stored(at(0, 1), 0);
            stored.row = usual(Span::Day(day), 27_000);
            (key("year", Span::Day(day)), stored)
        }))
    };
    model.write(&days(20_000..20_366)).await.unwrap();
    let mut times = Vec::new();
    for _ in 0..YEARS {
        let began = Instant::now();
        let found = model.spans(&code("year"), Span::Day(20_000), Span::Day(20_365)).await.unwrap();
        assert_eq!(found.len(), 366);
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let rank = |part: usize| times[times.len() * part / 100];
    eprintln!("a year of days: median {:?}, p90 {:?}, longest {:?}", rank(50), rank(90), times[times.len() - 1]);
}
