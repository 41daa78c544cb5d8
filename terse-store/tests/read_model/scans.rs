//! `scan`.

use terse_core::ports::clicks::StoredRow;
use terse_core::stats::{RowKey, Span};

use crate::backends::{Backend, Model};
use crate::builders::{full_row, key, of_rows, offset, row, stored, write};
use crate::rows::CODES;

pub(crate) async fn run(backend: &Backend) {
    pages_have_each_row_once_and_in_order(backend).await;
    if backend.traits.in_order {
        a_page_begins_right_behind_a_key(backend).await;
    }
    an_empty_page_has_nothing(backend).await;
}

/// All rows, in pages of `limit`.
async fn scan_all(model: &dyn Model, limit: usize) -> Vec<(RowKey, StoredRow)> {
    let mut found: Vec<(RowKey, StoredRow)> = Vec::new();
    loop {
        let page = model.scan(found.last().map(|(key, _)| key), limit).await.unwrap();
        assert!(page.len() <= limit);
        if page.is_empty() {
            return found;
        }
        found.extend(page);
    }
}

async fn pages_have_each_row_once_and_in_order(backend: &Backend) {
    let model = backend.attached().await;
    let spans = [Span::All, Span::Day(7), Span::Day(20_000), Span::Hour(0), Span::Hour(480_000)];
    let keys = CODES.into_iter().flat_map(|code| spans.map(|span| key(&format!("s-{code}"), span)));
    let mut rows: Vec<_> = keys.zip(1..).map(|(key, number)| (key, stored(offset(1), row(number)))).collect();
    rows[7].1.row = full_row();
    write(&*model, &of_rows(rows.clone())).await;
    rows.sort_by(|(one, _), (other, _)| one.cmp(other));
    for limit in [1_000, 333] {
        let mut found = scan_all(&*model, limit).await;
        if !backend.traits.in_order {
            found.sort_by(|(one, _), (other, _)| one.cmp(other));
        }
        assert!(found.is_sorted_by(|(one, _), (next, _)| one < next), "each row once, in the order of their keys");
        found.retain(|(key, _)| key.code.as_str().starts_with("s-"));
        assert!(found == rows, "pages of {limit}");
    }
}

async fn a_page_begins_right_behind_a_key(backend: &Backend) {
    let model = backend.attached().await;
    let keys = [key("scan", Span::All), key("scan", Span::Day(1)), key("scan", Span::Day(2))];
    let rows = keys.iter().map(|key| (key.clone(), stored(offset(1), row(1))));
    write(&*model, &of_rows(rows.collect())).await;
    let page = async |after: &RowKey, limit| {
        let page = model.scan(Some(after), limit).await.unwrap();
        page.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    assert!(page(&keys[0], 2).await == keys[1..]);
    assert!(page(&keys[0], 1).await == keys[1..2]);
    // What isn't there is a place, too.
    assert!(page(&key("scan", Span::Day(0)), 2).await == keys[1..]);
}

async fn an_empty_page_has_nothing(backend: &Backend) {
    let model = backend.attached().await;
    let present = key("scan-some", Span::All);
    write(&*model, &of_rows(vec![(present.clone(), stored(offset(1), row(1)))])).await;
    assert!(model.scan(Some(&present), 0).await.unwrap().is_empty());
    assert!(model.scan(None, 0).await.unwrap().is_empty());
    assert_eq!(model.scan(None, 1).await.unwrap().len(), 1);
}
