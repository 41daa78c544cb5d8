//! Rows: `load` and `write`.

use terse_core::ports::clicks::Batch;
use terse_core::stats::{Position, RowKey, Span};

use crate::backends::Backend;
use crate::builders::{full_row, key, load_one, of_rows, offset, row, stored, write};

/// Codes that are near each other, or look like something else.
pub(crate) const CODES: [&str; 16] =
    ["a", "A", "aa", "aA", "a-", "a_", "-", "_", "--", "0", "00", "0a", "NULL", "SELECT", "1e5", "-1"];

pub(crate) async fn run(backend: &Backend) {
    rows_come_in_the_order_of_their_keys(backend).await;
    a_full_row_comes_back_as_it_went(backend).await;
    neighbours_are_told_apart(backend).await;
    a_later_row_replaces_an_earlier_one(backend).await;
    a_row_never_goes_back(backend).await;
    positions_stand_up_to_their_bounds(backend).await;
    an_empty_batch_stands(backend).await;
    rows_outlive_the_instance(backend).await;
    a_large_batch_stands_whole(backend).await;
}

async fn rows_come_in_the_order_of_their_keys(backend: &Backend) {
    let model = backend.attached().await;
    let (late, early, absent) = (key("r-z", Span::Hour(7)), key("r-a", Span::All), key("r-m", Span::Day(1)));
    assert_eq!(model.load(&[]).await.unwrap(), []);
    assert_eq!(model.load(&[late.clone(), absent.clone()]).await.unwrap(), [None, None]);
    let batch = of_rows(vec![(late.clone(), stored(offset(1), row(1))), (early.clone(), stored(offset(1), row(2)))]);
    write(&*model, &batch).await;
    let keys = [late.clone(), absent, early.clone(), late, early];
    let found = model.load(&keys).await.unwrap();
    let clicks: Vec<_> = found.iter().map(|found| found.as_ref().map(|stored| stored.row.clicks)).collect();
    assert_eq!(clicks, [Some(1), None, Some(2), Some(1), Some(2)]);
}

async fn a_full_row_comes_back_as_it_went(backend: &Backend) {
    let model = backend.attached().await;
    let (key, full) = (key("r-full", Span::All), stored(offset(9), full_row()));
    write(&*model, &of_rows(vec![(key.clone(), full.clone())])).await;
    let found = load_one(&*model, &key).await.unwrap();
    assert_eq!(found, full);
    assert_eq!(found.row.encode(), full.row.encode());
}

async fn neighbours_are_told_apart(backend: &Backend) {
    let model = backend.attached().await;
    let long = "x".repeat(64);
    let spans = [Span::All, Span::Day(0), Span::Day(u32::MAX), Span::Hour(0), Span::Hour(u32::MAX)];
    let codes = CODES.into_iter().chain([long.as_str(), &long[1..]]);
    let keys: Vec<RowKey> = codes.flat_map(|code| spans.map(|span| key(code, span))).collect();
    let rows = keys.iter().enumerate().map(|(number, key)| (key.clone(), stored(offset(1), row(number as u64))));
    write(&*model, &of_rows(rows.collect())).await;
    let found = model.load(&keys).await.unwrap();
    for (number, found) in found.into_iter().enumerate() {
        assert_eq!(found, Some(stored(offset(1), row(number as u64))), "{:?}", keys[number].span);
    }
}

async fn a_later_row_replaces_an_earlier_one(backend: &Backend) {
    let model = backend.attached().await;
    let key = key("r-later", Span::Day(3));
    // From large to small: nothing of the former is left.
    for (number, row) in [full_row(), row(5), full_row(), row(0)].into_iter().enumerate() {
        let next = stored(offset(number as u64), row);
        write(&*model, &of_rows(vec![(key.clone(), next.clone())])).await;
        assert_eq!(load_one(&*model, &key).await, Some(next));
    }
    if backend.traits.transactional {
        // As on the local bus, where all rows are at the same position.
        for clicks in [7, 6, 8] {
            write(&*model, &of_rows(vec![(key.clone(), stored(offset(3), row(clicks)))])).await;
            assert_eq!(load_one(&*model, &key).await, Some(stored(offset(3), row(clicks))));
        }
    }
}

async fn a_row_never_goes_back(backend: &Backend) {
    let model = backend.attached().await;
    let (key, beside) = (key("r-back", Span::All), key("r-beside", Span::All));
    let latest = stored(Position { epoch: 1, offset: 5 }, row(50));
    write(&*model, &of_rows(vec![(key.clone(), latest.clone())])).await;
    for (number, earlier) in [offset(0), offset(9_999), Position { epoch: 1, offset: 4 }].into_iter().enumerate() {
        let next = stored(offset(number as u64), row(number as u64));
        let batch = of_rows(vec![(key.clone(), stored(earlier, row(1))), (beside.clone(), next.clone())]);
        write(&*model, &batch).await;
        assert_eq!(load_one(&*model, &key).await.as_ref(), Some(&latest), "{earlier:?}");
        assert_eq!(load_one(&*model, &beside).await, Some(next), "the rest of the batch stands");
    }
    // The same again changes nothing.
    write(&*model, &of_rows(vec![(key.clone(), latest.clone())])).await;
    assert_eq!(load_one(&*model, &key).await, Some(latest));
}

async fn positions_stand_up_to_their_bounds(backend: &Backend) {
    let model = backend.attached().await;
    let last = Position { epoch: (1 << Position::EPOCH_BITS) - 1, offset: (1 << Position::OFFSET_BITS) - 1 };
    for (text, at) in [("r-first", Position::default()), ("r-offset", offset(last.offset)), ("r-last", last)] {
        let (key, row) = (key(text, Span::All), stored(at, row(1)));
        write(&*model, &of_rows(vec![(key.clone(), row.clone())])).await;
        assert_eq!(load_one(&*model, &key).await, Some(row), "{at:?}");
    }
}

async fn an_empty_batch_stands(backend: &Backend) {
    let model = backend.attached().await;
    write(&*model, &Batch::default()).await;
    write(&*model, &Batch::default()).await;
}

async fn rows_outlive_the_instance(backend: &Backend) {
    let model = backend.attached().await;
    let (key, row) = (key("r-outlive", Span::Hour(1)), stored(offset(4), full_row()));
    write(&*model, &of_rows(vec![(key.clone(), row.clone())])).await;
    drop(model);
    assert_eq!(load_one(&*backend.open().await, &key).await, Some(row));
}

async fn a_large_batch_stands_whole(backend: &Backend) {
    let model = backend.attached().await;
    let count = backend.some_of(100_000);
    // Scattered, as codes are.
    let keys: Vec<_> = (0..count).map(|n| key(&format!("R{:x}", n.wrapping_mul(2_654_435_761)), Span::All)).collect();
    for round in 1..=2 {
        let rows = keys.iter().map(|key| (key.clone(), stored(offset(round), row(round))));
        write(&*model, &of_rows(rows.collect())).await;
        let found = model.load(&keys).await.unwrap();
        assert!(found.iter().all(|found| *found == Some(stored(offset(round), row(round)))));
    }
}
