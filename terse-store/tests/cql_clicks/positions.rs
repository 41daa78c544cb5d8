//! Which of two writers wins: the one that had read more of the log, whenever its write comes.

use std::sync::Arc;

use terse_core::Timestamp;
use terse_core::click::JournalId;
use terse_core::ports::StoreErrorKind;
use terse_core::ports::clicks::{Batch, ClickStats, ReadModel, Retired};
use terse_core::stats::{Partition, Position, Span};
use terse_testkit::links::code;

use crate::cluster::{
    at, checkpoint, checkpoints, connected, key, load, patiently, rows, stored, with_keyspace, write,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rows_come_back_with_the_positions_that_they_include() {
    with_keyspace(|keyspace| async move {
        let model = connected(&keyspace).await;
        let spans = [Span::All, Span::Day(20_000), Span::Day(20_001), Span::Hour(480_000), Span::Hour(u32::MAX)];
        let positions = [Position::default(), at(0, 7), at(3, 0), at(0, (1 << 40) - 1), at(1_023, (1 << 40) - 1)];
        let written: Vec<_> = spans
            .iter()
            .zip(positions)
            .enumerate()
            .map(|(number, (span, at))| (key("abc", *span), stored(at, number as u64 + 1)))
            .collect();
        write(&model, &rows(written.clone())).await;
        let mut keys: Vec<_> = written.iter().map(|(key, _)| key.clone()).collect();
        keys.insert(1, key("abc", Span::Day(1)));
        keys.insert(3, key("abd", Span::All));
        // In the order of the keys, the missing ones too.
        let mut expected: Vec<_> = written.iter().map(|(_, stored)| Some(stored.clone())).collect();
        expected.insert(1, None);
        expected.insert(3, None);
        assert_eq!(patiently(|| model.load(&keys)).await, expected);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_zombie_with_an_older_position_changes_nothing() {
    with_keyspace(|keyspace| async move {
        let (successor, zombie) = (connected(&keyspace).await, connected(&keyspace).await);
        let (row, log) = (key("zombie", Span::All), Partition::Stream(3));
        let steps = [
            (at(0, 5), at(0, 5)),
            (at(0, 4), at(0, 5)),
            (at(0, 9), at(0, 9)),
            // An epoch comes after all of the one before.
            (at(1, 0), at(1, 0)),
            (at(0, 1 << 39), at(1, 0)),
        ];
        for (number, (position, standing)) in steps.into_iter().enumerate() {
            let writer = if number % 2 == 0 { &successor } else { &zombie };
            let batch = Batch {
                rows: vec![(row.clone(), stored(position, position.offset + 100).into())],
                checkpoints: vec![(log, checkpoint(position))],
                retired: vec![(log, JournalId([1; 16]), retired(position))],
                ..Batch::default()
            };
            write(writer, &batch).await;
            for reader in [&successor, &zombie] {
                assert_eq!(load(reader, &row).await, Some(stored(standing, standing.offset + 100)));
                assert_eq!(patiently(|| reader.checkpoint(log)).await, Some(checkpoint(standing)));
                let journal = patiently(|| reader.retired(log, JournalId([1; 16]))).await;
                assert_eq!(journal, Some(retired(standing)));
            }
        }
    })
    .await;
}

fn retired(at: Position) -> Retired {
    Retired { at, until: Timestamp::from_millis(at.offset as i64), passed: vec![at.epoch as u8, at.offset as u8] }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_projectors_that_write_the_same_at_once_write_it_once() {
    with_keyspace(|keyspace| async move {
        let models = [connected(&keyspace).await, connected(&keyspace).await];
        let keys: Vec<_> = (0..40).map(|number| key(&format!("both{number}"), Span::Day(number))).collect();
        // Each walks through the same log in steps of its own.
        let walk = |model: Arc<_>, step: usize| {
            let keys = keys.clone();
            async move {
                for offset in (0..24).step_by(step).chain([24]) {
                    let position = at(0, offset as u64);
                    let batch = keys.iter().map(|key| (key.clone(), stored(position, offset as u64 * 3)));
                    write(&model, &rows(batch)).await;
                }
            }
        };
        tokio::join!(walk(Arc::clone(&models[0]), 2), walk(Arc::clone(&models[1]), 3));
        for model in &models {
            let standing = patiently(|| model.load(&keys)).await;
            assert!(standing.iter().all(|row| *row == Some(stored(at(0, 24), 72))), "{standing:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_something_else_wrote_is_told_as_corrupt() {
    with_keyspace(|keyspace| async move {
        let model = connected(&keyspace).await;
        let (damaged, foreign) = (key("damaged", Span::All), key("foreign", Span::All));
        write(&model, &rows([(damaged.clone(), stored(at(0, 1), 1)), (foreign.clone(), stored(at(0, 1), 1))])).await;
        write(&model, &checkpoints(Partition::Stream(1), at(0, 1))).await;
        let place = "code = 'damaged' AND kind = 0 AND period = 0 AND number = 0";
        keyspace.run(&format!("UPDATE KS.click_rows USING TIMESTAMP 2 SET cell = 0x0199 WHERE {place}")).await;
        // A sound cell, but written at a time: no position would ever win over it.
        let sound = hex(&stored(at(0, 1), 1).row.encode());
        let place = place.replace("damaged", "foreign");
        keyspace.run(&format!("UPDATE KS.click_rows SET cell = {sound} WHERE {place}")).await;
        keyspace.run("UPDATE KS.click_checkpoints SET cell = 0x01 WHERE part = 0 AND log = 'stream/1'").await;
        for key in [damaged, foreign] {
            let error = model.load(std::slice::from_ref(&key)).await.unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Corrupt, "{}: {error}", key.code.as_str());
            let error = model.overall(&key.code).await.unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Corrupt, "{}: {error}", key.code.as_str());
        }
        assert_eq!(
            model.spans(&code("damaged"), Span::All, Span::All).await.unwrap_err().kind,
            StoreErrorKind::Corrupt
        );
        assert_eq!(model.scan(None, 10).await.unwrap_err().kind, StoreErrorKind::Corrupt);
        assert_eq!(model.checkpoint(Partition::Stream(1)).await.unwrap_err().kind, StoreErrorKind::Corrupt);
        assert_eq!(model.checkpoints().await.unwrap_err().kind, StoreErrorKind::Corrupt);
    })
    .await;
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_position_beyond_all_bounds_is_refused_before_it_wins() {
    with_keyspace(|keyspace| async move {
        let model = connected(&keyspace).await;
        let row = key("beyond", Span::All);
        for position in [at(1_024, 0), at(0, 1 << 40)] {
            let error = model.write(&rows([(row.clone(), stored(position, 1))])).await.unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Corrupt, "{error}");
            let error = model.write(&checkpoints(Partition::Stream(1), position)).await.unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Corrupt, "{error}");
        }
        assert_eq!(load(&model, &row).await, None);
        assert_eq!(patiently(|| model.checkpoints()).await, []);
    })
    .await;
}
