//! What statistics and comparisons read.

use std::collections::BTreeMap;

use terse_core::ports::clicks::{Batch, ClickStats, ReadModel};
use terse_core::stats::{Partition, RowKey, Span};
use terse_testkit::links::code;

use crate::cluster::{at, checkpoint, connected, key, patiently, row, rows, stored, with_keyspace, write};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn spans_come_in_order_across_partitions_and_slices() {
    with_keyspace(|keyspace| async move {
        let model = connected(&keyspace).await;
        // Around the ends of slices (64) and of periods (384 days, 768 hours).
        let numbers = [0_u32, 63, 64, 100, 383, 384, 385, 767, 768, 800, 1_151, 1_152];
        let days =
            numbers.iter().map(|&number| (key("abc", Span::Day(number)), stored(at(0, 1), 1_000 + u64::from(number))));
        let hours = numbers.iter().map(|&number| (key("abc", Span::Hour(number)), stored(at(0, 1), u64::from(number))));
        let others = [(key("abd", Span::Day(64)), stored(at(0, 1), 5)), (key("abc", Span::All), stored(at(0, 1), 6))];
        write(&model, &rows(days.chain(hours).chain(others))).await;
        let (all, abc) = (code("abc"), &code("abc"));
        for (first, last) in [(0, 1_152), (1, 1_151), (64, 64), (65, 99), (383, 384), (800, 2_000)] {
            let within = || numbers.iter().copied().filter(|number| (first..=last).contains(number));
            let days = patiently(|| model.spans(abc, Span::Day(first), Span::Day(last))).await;
            let expected: Vec<_> = within().map(|number| (Span::Day(number), row(1_000 + u64::from(number)))).collect();
            assert_eq!(days, expected, "days {first} to {last}");
            let hours = patiently(|| model.spans(abc, Span::Hour(first), Span::Hour(last))).await;
            let expected: Vec<_> = within().map(|number| (Span::Hour(number), row(u64::from(number)))).collect();
            assert_eq!(hours, expected, "hours {first} to {last}");
        }
        assert_eq!(patiently(|| model.spans(abc, Span::Day(9), Span::Day(8))).await, []);
        assert_eq!(patiently(|| model.overall(&all)).await, Some(row(6)));
        assert_eq!(patiently(async || model.overall(&code("abd")).await).await, None);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_scan_finds_each_row_once_however_it_is_cut() {
    with_keyspace(|keyspace| async move {
        let model = connected(&keyspace).await;
        assert_eq!(patiently(|| model.scan(None, 10)).await, []);
        // Codes as they may be, and more rows in a partition than one answer has.
        let codes = ["a", "A", "0", "zz-_9", &"x".repeat(64)];
        let mut written: BTreeMap<RowKey, _> = codes
            .iter()
            .flat_map(|text| {
                [Span::All, Span::Day(7), Span::Day(8), Span::Day(400), Span::Hour(7)].map(|span| key(text, span))
            })
            .enumerate()
            .map(|(number, key)| (key, stored(at(0, number as u64), number as u64)))
            .collect();
        written.extend((0..250).map(|hour| (key("many", Span::Hour(hour)), stored(at(1, 1), u64::from(hour)))));
        write(&model, &rows(written.clone())).await;
        for limit in [1_000, 275, 100, 99, 7] {
            let mut found = BTreeMap::new();
            let mut after: Option<RowKey> = None;
            loop {
                let page = patiently(|| model.scan(after.as_ref(), limit)).await;
                assert!(page.len() <= limit);
                after = page.last().map(|(key, _)| key.clone());
                let ended = page.len() < limit;
                for (key, stored) in page {
                    assert!(found.insert(key, stored).is_none(), "found twice by {limit}");
                }
                if ended {
                    break;
                }
            }
            assert_eq!(found, written, "by {limit}");
        }
        assert_eq!(patiently(|| model.scan(None, 0)).await, []);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_checkpoints_are_read_however_many() {
    with_keyspace(|keyspace| async move {
        let model = connected(&keyspace).await;
        let written: BTreeMap<_, _> =
            (0..150).map(|number| (Partition::Stream(number), checkpoint(at(0, u64::from(number))))).collect();
        let batch = Batch { checkpoints: written.clone().into_iter().collect(), ..Batch::default() };
        write(&model, &batch).await;
        let found = patiently(|| model.checkpoints()).await;
        assert_eq!(found.len(), written.len());
        assert_eq!(BTreeMap::from_iter(found), written);
        assert_eq!(patiently(|| model.checkpoint(Partition::Stream(150))).await, None);
    })
    .await;
}
