//! `ClickStats`.

use terse_core::ports::StoreErrorKind;
use terse_core::ports::clicks::{Batch, Bus};
use terse_core::stats::{Partition, Position, Span};
use terse_testkit::links::code;

use crate::backends::Backend;
use crate::builders::{
    NOON, checkpoint, full_row, journal, key, of_checkpoints, of_rows, offset, retired, row, stored, write,
};

pub(crate) async fn run(backend: &Backend) {
    all_time_is_one_row(backend).await;
    spans_come_in_order_with_both_ends(backend).await;
    a_range_has_no_other_code_and_no_other_kind(backend).await;
    a_range_of_all_time_is_that_row(backend).await;
    a_range_backwards_is_empty(backend).await;
    a_range_of_two_kinds_or_without_end_is_refused(backend).await;
    a_year_is_told_whole(backend).await;
    it_tells_of_when_its_numbers_are_true(backend).await;
}

/// Nothing is known yet, and that is no fault.
pub(crate) async fn before_the_bus_is_settled(backend: &Backend) {
    let model = backend.open().await;
    assert_eq!(model.as_of(&code("nothing")).await.unwrap(), None);
    assert_eq!(model.overall(&code("nothing")).await.unwrap(), None);
    assert_eq!(model.spans(&code("nothing"), Span::Day(0), Span::Day(9)).await.unwrap(), []);
    assert_eq!(model.checkpoints().await.unwrap(), []);
    assert!(model.scan(None, 10).await.unwrap().is_empty());
}

async fn all_time_is_one_row(backend: &Backend) {
    let model = backend.attached().await;
    assert_eq!(model.overall(&code("t-all")).await.unwrap(), None);
    let rows = vec![
        (key("t-all", Span::All), stored(offset(1), full_row())),
        (key("t-all", Span::Day(0)), stored(offset(1), row(1))),
    ];
    write(&*model, &of_rows(rows)).await;
    assert_eq!(model.overall(&code("t-all")).await.unwrap(), Some(full_row()));
    assert_eq!(backend.open().await.overall(&code("t-all")).await.unwrap(), Some(full_row()));
    assert_eq!(model.overall(&code("t-al")).await.unwrap(), None);
}

async fn spans_come_in_order_with_both_ends(backend: &Backend) {
    let model = backend.attached().await;
    for (text, span) in [("t-days", Span::Day as fn(u32) -> Span), ("t-hours", Span::Hour)] {
        // 767 and 768 lie in different blocks of any power of two up to 256.
        let numbers = [u32::MAX, 768, 0, 767, 20_454, 769, 700];
        let rows = numbers.iter().map(|n| (key(text, span(*n)), stored(offset(1), row(u64::from(*n)))));
        write(&*model, &of_rows(rows.collect())).await;
        for (first, last, expected) in [
            (700, 769, &[700, 767, 768, 769][..]),
            (701, 768, &[767, 768]),
            (768, 768, &[768]),
            (770, 7_000, &[]),
            (u32::MAX, u32::MAX, &[u32::MAX]),
            (0, 1, &[0]),
        ] {
            let found = model.spans(&code(text), span(first), span(last)).await.unwrap();
            let expected: Vec<_> = expected.iter().map(|n| (span(*n), row(u64::from(*n)))).collect();
            assert_eq!(found, expected, "{first} to {last}");
        }
    }
}

async fn a_range_has_no_other_code_and_no_other_kind(backend: &Backend) {
    let model = backend.attached().await;
    let mine = [key("t-one", Span::Day(5)), key("t-one", Span::Day(6))];
    let foreign = ["t-one_", "t-on", "t-One", "T-one", "t-one-"].map(|text| key(text, Span::Day(5)));
    let kinds = [key("t-one", Span::All), key("t-one", Span::Hour(5))];
    let all = mine.iter().chain(&foreign).chain(&kinds).cloned();
    write(&*model, &of_rows(all.zip(1..).map(|(key, n)| (key, stored(offset(1), row(n)))).collect())).await;
    let found = model.spans(&code("t-one"), Span::Day(0), Span::Day(9_000)).await.unwrap();
    assert_eq!(found, [(Span::Day(5), row(1)), (Span::Day(6), row(2))]);
}

async fn a_range_of_all_time_is_that_row(backend: &Backend) {
    let model = backend.attached().await;
    assert_eq!(model.spans(&code("t-ever"), Span::All, Span::All).await.unwrap(), []);
    write(&*model, &of_rows(vec![(key("t-ever", Span::All), stored(offset(1), row(3)))])).await;
    assert_eq!(model.spans(&code("t-ever"), Span::All, Span::All).await.unwrap(), [(Span::All, row(3))]);
}

async fn a_range_backwards_is_empty(backend: &Backend) {
    let model = backend.open().await;
    assert_eq!(model.spans(&code("t-days"), Span::Day(769), Span::Day(700)).await.unwrap(), []);
}

async fn a_range_of_two_kinds_or_without_end_is_refused(backend: &Backend) {
    let model = backend.open().await;
    let kind = async |first, last| model.spans(&code("t-days"), first, last).await.unwrap_err().kind;
    assert_eq!(kind(Span::Hour(0), Span::Hour(u32::MAX)).await, StoreErrorKind::Overloaded);
    assert_eq!(kind(Span::Day(0), Span::Hour(1)).await, StoreErrorKind::Corrupt);
}

async fn a_year_is_told_whole(backend: &Backend) {
    let model = backend.attached().await;
    let days: Vec<_> = (20_454..20_819).map(|day| (Span::Day(day), row(u64::from(day)))).collect();
    let rows = days.iter().map(|(span, row)| (key("t-year", *span), stored(offset(1), row.clone())));
    write(&*model, &of_rows(rows.collect())).await;
    assert_eq!(model.spans(&code("t-year"), Span::Day(20_454), Span::Day(20_818)).await.unwrap(), days);
}

async fn it_tells_of_when_its_numbers_are_true(backend: &Backend) {
    let model = backend.attached().await;
    let as_of = async |text| model.as_of(&code(text)).await.unwrap();
    let minute = |minute: i64| Some(NOON.plus_millis(minute * 60_000));
    match backend.traits.bus {
        Bus::Streams { partitions } => {
            // Two codes of two partitions.
            let (one, other) = ("t-asof", ["t-asof2", "t-asof3", "t-asof4"]);
            let home = Partition::of(one, partitions);
            let other = other.into_iter().find(|text| Partition::of(text, partitions) != home).unwrap();
            let at = |number| Position { epoch: 9, offset: number };
            let both = vec![(home, checkpoint(at(1), 500)), (Partition::of(other, partitions), checkpoint(at(1), 600))];
            write(&*model, &of_checkpoints(both)).await;
            assert_eq!((as_of(one).await, as_of(other).await), (minute(500), minute(600)));
            write(&*model, &of_checkpoints(vec![(home, checkpoint(at(2), 700))])).await;
            assert_eq!((as_of(one).await, as_of(other).await), (minute(700), minute(600)));
        }
        Bus::Local => {
            // Each journal has clicks of all codes: the latest block tells.
            let (old, new) = (Partition::Journal(journal(210)), Partition::Journal(journal(211)));
            write(&*model, &of_checkpoints(vec![(new, checkpoint(offset(1), 900))])).await;
            write(&*model, &of_checkpoints(vec![(old, checkpoint(offset(1), 800))])).await;
            assert_eq!(as_of("t-asof").await, minute(900));
            let retire = Batch { retired: vec![(new, journal(211), retired(offset(1), 900))], ..Batch::default() };
            write(&*model, &retire).await;
            assert_eq!(as_of("t-any").await, minute(900), "it doesn't go back when a journal is retired");
            let told = |at: u64, until: i64, now: i64| Batch {
                now: Some(NOON.plus_millis(now * 60_000)),
                ..of_checkpoints(vec![(old, checkpoint(offset(at), until))])
            };
            write(&*model, &told(2, 90_000, 90_000)).await;
            assert_eq!(as_of("t-any").await, minute(90_000));
            write(&*model, &told(3, 950, 960)).await;
            assert_eq!(as_of("t-any").await, minute(960), "the clock had been ahead");
            write(&*model, &told(4, 961, 1_000)).await;
            assert_eq!(as_of("t-any").await, minute(961));
        }
    }
}
