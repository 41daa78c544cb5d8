use compact_str::CompactString;
use terse_core::click::{BlockId, JournalId};
use terse_core::ports::clicks::{Batch, Written};
use terse_core::stats::{MAX_VALUES, NewestClick, Position};
use terse_core::{ShortCode, Timestamp};
use terse_store::MemoryReadModel;

use super::*;

const RULES: u16 = 3;

fn key(code: &str, span: Span) -> RowKey {
    RowKey { code: ShortCode::parse(code).unwrap(), span }
}

fn click(index: u32, browser: &str) -> NewestClick {
    let values = ["example.org", "DE", browser, "Linux", "desktop", "de"].map(CompactString::from);
    let block = BlockId { journal: JournalId([7; 16]), seq: 0 };
    NewestClick::new(Timestamp::from_millis(1_700_000_000_000), block, index, values, false)
}

/// A row of `clicks` people and one program, as the rules `rules` told them apart.
fn row(clicks: u64, rules: u16) -> Row {
    let mut row = Row::default();
    (row.clicks, row.bots, row.enrichment) = (clicks, 1, rules);
    for dimension in Dimension::ALL {
        row.values_mut(dimension).add("a", clicks);
    }
    row.keep_newest(click(0, "Firefox"));
    row.visitors.get_or_insert_default().add(1);
    row
}

async fn model(rows: impl IntoIterator<Item = (RowKey, Row)>) -> std::sync::Arc<dyn ReadModel> {
    let model = std::sync::Arc::new(MemoryReadModel::new());
    model.attach().await.unwrap();
    let rows = rows.into_iter().map(|(key, row)| (key, StoredRow { at: Position::default(), row }.into())).collect();
    assert_eq!(model.write(&Batch { rows, ..Batch::default() }).await.unwrap(), Written::Stands);
    model
}

async fn compared(
    live: impl IntoIterator<Item = (RowKey, Row)>,
    fresh: impl IntoIterator<Item = (RowKey, Row)>,
) -> Comparison {
    compare(model(live).await.as_ref(), model(fresh).await.as_ref()).await.unwrap()
}

/// What is told of a row `live` where the log says `fresh`.
fn told(live: &Row, fresh: &Row) -> Option<String> {
    let stored = |row: &Row| StoredRow { at: Position::default(), row: row.clone() };
    difference(&stored(live), &stored(fresh))
}

#[tokio::test]
async fn equal_read_models_have_no_difference() {
    let rows = || (0..3 * PAGE as u64 / 2).map(|n| (key(&format!("code{n:05}"), Span::Day(1)), row(n, RULES)));
    let found = compared(rows(), rows()).await;
    assert_eq!(found, Comparison { equal: 3 * PAGE as u64 / 2, ..Comparison::default() });
    assert_eq!(found.different(), 0);
    assert_eq!(compared([], []).await, Comparison::default());
}

#[tokio::test]
async fn each_row_that_differs_is_counted_and_the_first_are_named() {
    let many = 2 * MAX_SHOWN as u64;
    let rows = |more: u64| (0..many).map(move |n| (key(&format!("c{n:02}"), Span::All), row(5 + more, RULES)));
    let found = compared(rows(1), rows(0)).await;
    assert_eq!((found.unequal, found.shown.len()), (many, MAX_SHOWN));
    assert_eq!(found.shown[0], "c00, all time: 7 clicks, 6 by the log");
}

#[tokio::test]
async fn rows_that_only_one_has_are_differences() {
    let one = (key("both", Span::All), row(1, RULES));
    let live = [one.clone(), (key("live", Span::Day(20_000)), row(2, RULES))];
    let found = compared(live, [one, (key("log", Span::Hour(480_001)), row(3, RULES))]).await;
    assert_eq!((found.equal, found.not_in_log, found.only_in_log, found.different()), (1, 1, 1, 2));
    assert_eq!(found.shown[0], "live, day 2024-10-04: 3 clicks of which the log has none");
    assert_eq!(found.shown[1], "log, hour 2024-10-04T01:00:00Z: 4 clicks that the read model has not");
    let text = found.to_string();
    assert!(
        text.starts_with("compared 3 rows: 2 different (0 unequal, 1 not in the log, 1 only in the log)"),
        "{text}"
    );
}

#[tokio::test]
async fn what_clicks_were_like_is_compared_only_between_rows_of_the_same_rules() {
    let mut other = row(2, RULES + 1);
    other.bots = 0;
    other.clicks = 3;
    other.values_mut(Dimension::Browser).add("b", 1);
    let found = compared([(key("a", Span::All), row(2, RULES))], [(key("a", Span::All), other.clone())]).await;
    assert_eq!((found.equal_in_sum, found.different()), (1, 0));
    other.enrichment = RULES;
    assert!(told(&row(2, RULES), &other).is_some());
    // Rows of mixed rules say the same of themselves, and need not be alike.
    other.enrichment = MIXED_ENRICHMENT;
    assert_eq!(told(&row(2, MIXED_ENRICHMENT), &other), None);
    other.clicks += 1;
    assert_eq!(told(&row(2, MIXED_ENRICHMENT), &other).unwrap(), "3 clicks, 4 by the log", "sums always are");
}

#[test]
fn everything_that_a_row_holds_can_differ() {
    let live = row(2, RULES);
    assert_eq!(told(&live, &live), None);
    let changed = |change: &dyn Fn(&mut Row)| {
        let mut fresh = live.clone();
        change(&mut fresh);
        told(&live, &fresh).unwrap()
    };
    assert_eq!(changed(&|row| (row.clicks, row.bots) = (1, 2)), "1 clicks of programs, 2 by the log");
    for dimension in Dimension::ALL {
        let text = changed(&|row| row.values_mut(dimension).add("b", 1));
        assert!(text.starts_with("another ") && text.contains(&format!("{dimension:?}").to_lowercase()), "{text}");
    }
    assert_eq!(changed(&|row| row.visitors.get_or_insert_default().add(u64::MAX)), "other visitors");
    assert_eq!(changed(&|row| row.keep_newest(click(1, "Firefox"))), "other newest clicks");
    let stored = |offset| StoredRow { at: Position { epoch: 0, offset }, row: live.clone() };
    assert!(difference(&stored(1), &stored(2)).unwrap().starts_with("includes "));
}

#[test]
fn a_newest_click_that_is_told_otherwise_is_a_difference() {
    let (mut live, mut fresh) = (Row::default(), Row::default());
    for (row, browser) in [(&mut live, "Firefox"), (&mut fresh, "Chrome")] {
        row.enrichment = RULES;
        row.clicks = 1;
        row.keep_newest(click(0, browser));
    }
    assert_eq!(told(&live, &fresh).unwrap(), "newest clicks told otherwise");
    fresh.enrichment = RULES + 1;
    assert_eq!(told(&live, &fresh), None);
}

#[test]
fn of_values_beyond_the_bound_only_the_sum_is_compared() {
    let crowded = |order: &mut dyn Iterator<Item = usize>| {
        let mut row = Row::default();
        row.told_by(RULES);
        order.for_each(|n| row.values_mut(Dimension::Referrer).add(&format!("host{n:03}"), 1));
        row
    };
    let (first, mut last) = (crowded(&mut (0..=MAX_VALUES)), crowded(&mut (0..=MAX_VALUES).rev()));
    assert_ne!(first, last);
    assert_eq!(told(&first, &last), None, "which found room depends on whose turn it was");
    last.values_mut(Dimension::Referrer).add("host000", 1);
    assert_eq!(told(&first, &last).unwrap(), "another referrer");
}
