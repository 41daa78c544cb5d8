//! Answers that are lost, nodes that are silent, and no quorum.

use std::time::{Duration, Instant};

use terse_core::ports::StoreErrorKind;
use terse_core::ports::clicks::{Batch, Bus, ClickStats, ReadModel, Written};
use terse_core::stats::{Dimension, Partition, Span};
use terse_testkit::links::code;
use terse_testkit::{Mode, Proxy};

use crate::cluster::{
    at, checkpoint, checkpoints, connect, connected, key, load, patiently, row, rows, set_replicas, stored, wire,
    with_keyspace, write,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_row_whose_answer_is_lost_stands_once() {
    with_keyspace(|keyspace| async move {
        let wire = wire(keyspace.config());
        let model = connect(wire.config.clone()).await;
        for number in 1..=5_u64 {
            let mut written = stored(at(0, number), number);
            let marker = format!("answer-of-this-one-is-lost-{number}");
            written.row.values_mut(Dimension::Referrer).add(&marker, number);
            wire.cut_once_after(marker.as_bytes());
            let row = key("lost", Span::All);
            write(&model, &rows([(row.clone(), written.clone())])).await;
            assert_eq!(wire.sprung(), number, "the wire was not cut");
            assert_eq!(load(&model, &row).await, Some(written));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_batch_without_answers_fails_in_time_and_stands_when_written_again() {
    with_keyspace(|keyspace| async move {
        let mut wire = wire(keyspace.config());
        wire.config.cluster.limits.write_timeout_ms = 400;
        let model = connect(wire.config.clone()).await;
        let log = Partition::Stream(0);
        let batch = |position, clicks| Batch {
            rows: (0..20).map(|day| (key("again", Span::Day(day)), stored(position, clicks).into())).collect(),
            checkpoints: vec![(log, checkpoint(position))],
            ..Batch::default()
        };
        write(&model, &batch(at(0, 1), 10)).await;
        wire.proxies.iter().for_each(|proxy| proxy.set(Mode::LoseAnswers));
        let began = Instant::now();
        let error = model.write(&batch(at(0, 2), 20)).await.unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert_eq!(error.kind, StoreErrorKind::UnknownOutcome, "{error}");
        wire.proxies.iter().for_each(Proxy::restore);
        // Rows may stand, the checkpoint doesn't: a projector that starts now reads from the one before.
        let reader = connected(&keyspace).await;
        assert_eq!(patiently(|| reader.checkpoint(log)).await, Some(checkpoint(at(0, 1))));
        write(&model, &batch(at(0, 2), 20)).await;
        let days = patiently(async || reader.spans(&code("again"), Span::Day(0), Span::Day(19)).await).await;
        assert!(days.len() == 20 && days.iter().all(|(_, found)| *found == row(20)), "{days:?}");
        assert_eq!(patiently(|| reader.checkpoint(log)).await, Some(checkpoint(at(0, 2))));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_silent_node_stops_neither_projector_nor_statistics() {
    with_keyspace(|keyspace| async move {
        let wire = wire(keyspace.config());
        let model = connect(wire.config.clone()).await;
        let keys: Vec<_> = (0..60).map(|number| key(&format!("silent{number}"), Span::All)).collect();
        let batch = |offset: u64| rows(keys.iter().map(|key| (key.clone(), stored(at(0, offset), offset))));
        write(&model, &batch(1)).await;
        for (silent, offset) in (0..wire.proxies.len()).zip(2..) {
            wire.proxies[silent].set(Mode::Pause);
            let began = Instant::now();
            assert_eq!(model.write(&batch(offset)).await.unwrap(), Written::Stands, "node {silent} is silent");
            let standing = model.load(&keys).await.unwrap();
            assert!(standing.iter().flatten().all(|row| *row == stored(at(0, offset), offset)), "{standing:?}");
            assert_eq!(model.overall(&keys[7].code).await.unwrap(), Some(row(offset)));
            assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
            wire.proxies[silent].restore();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_checkpoint_stands_before_its_rows() {
    with_keyspace(|keyspace| async move {
        let model = connected(&keyspace).await;
        let log = Partition::Stream(0);
        write(&model, &checkpoints(log, at(0, 1))).await;
        // No row can be written any more, and all else can.
        keyspace.run("DROP TABLE KS.click_rows").await;
        let batch = Batch {
            rows: vec![(key("abc", Span::All), stored(at(0, 2), 1).into())],
            checkpoints: vec![(log, checkpoint(at(0, 2)))],
            ..Batch::default()
        };
        assert!(model.write(&batch).await.is_err());
        assert_eq!(patiently(|| model.checkpoint(log)).await, Some(checkpoint(at(0, 1))));
        write(&model, &checkpoints(log, at(0, 3))).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_a_quorum_everything_fails_and_no_number_is_smaller() {
    with_keyspace(|keyspace| async move {
        let model = connected(&keyspace).await;
        let (log, abc) = (Partition::Stream(0), code("abc"));
        let bus = Bus::Streams { partitions: 1 };
        assert_eq!(patiently(|| model.settle_bus(bus)).await, bus);
        let spans = [Span::All, Span::Day(1), Span::Hour(24)];
        write(&model, &rows(spans.map(|span| (key("abc", span), stored(at(0, 1), 7))))).await;
        write(&model, &checkpoints(log, at(0, 1))).await;
        // Of nine replicas three exist: five can't be asked.
        set_replicas(&keyspace, 9, false).await;
        for _ in 0..10 {
            for answer in [
                model.overall(&abc).await.map(drop),
                model.spans(&abc, Span::Day(0), Span::Day(9)).await.map(drop),
                model.as_of(&abc).await.map(drop),
                model.load(&[key("abc", Span::Day(1))]).await.map(drop),
                model.write(&rows([(key("abc", Span::All), stored(at(0, 2), 8))])).await.map(drop),
                model.checkpoint(log).await.map(drop),
                model.scan(None, 10).await.map(drop),
            ] {
                assert_eq!(answer.unwrap_err().kind, StoreErrorKind::Unavailable);
            }
        }
        set_replicas(&keyspace, 3, true).await;
        write(&model, &rows([(key("abc", Span::All), stored(at(0, 2), 8))])).await;
        assert_eq!(patiently(|| model.overall(&abc)).await, Some(row(8)));
    })
    .await;
}
