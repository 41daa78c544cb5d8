//! Streams as a log: where reading begins, and what is noticed when a stream is not what it was.

use std::time::Instant;

use lapin::options::{BasicPublishOptions, QueueDeleteOptions};
use lapin::{BasicProperties, Confirmation};
use terse_clicks::log::{Body, ClickLog, Delivery, LogError};
use terse_clicks::rabbit::{Extent, StreamLog, dead, extents};
use terse_core::Timestamp;
use terse_core::click::BlockId;
use terse_core::ports::clicks::Checkpoint;
use terse_core::stats::{Partition, Position};
use terse_testkit::SeededEntropy;

use crate::deployment::{Deployment, PATIENCE, channel, proxy, recorder, through};

const ONE: Partition = Partition::Stream(1);

/// The next deliveries, `count` of them.
async fn deliveries(log: &mut StreamLog, count: usize) -> Vec<Delivery> {
    let mut all = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while all.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} came", all.len());
        all.extend(log.next(1 << 20, 100).await.unwrap());
    }
    all
}

fn block(delivery: &Delivery) -> BlockId {
    match &delivery.body {
        Body::Part(part) => part.header.block,
        other => panic!("no part: {other:?}"),
    }
}

fn checkpoint(delivery: &Delivery) -> Checkpoint {
    let at = Position { epoch: 0, offset: delivery.offset };
    Checkpoint { at, until: Timestamp::from_millis(0), anchor: block(delivery), passed: Vec::new() }
}

/// Publishes so many blocks of a journal, and its end.
async fn publish(deployment: &mut Deployment, blocks: u64) {
    let journal = deployment.journal();
    let mut worker = recorder(&journal);
    for _ in 0..blocks {
        deployment.click(&mut *worker, 8, 1);
    }
    drop(worker);
    journal.end().unwrap();
    let mut relay = deployment.relay(Some(&journal));
    deployment.relay_all(&mut relay).await;
    assert!(relay.finish(PATIENCE).await);
}

async fn delete_stream(deployment: &Deployment, partition: u16) {
    let (_connection, channel) = channel().await;
    let stream = deployment.broker.stream(partition);
    channel.queue_delete(stream.into(), QueueDeleteOptions::default()).await.unwrap();
}

#[tokio::test]
async fn a_stream_is_read_from_its_beginning_in_its_order() {
    let mut deployment = Deployment::new();
    publish(&mut deployment, 4).await;
    let mut log = deployment.stream_log();
    log.start(ONE, None).await.unwrap();
    let read = deliveries(&mut log, 5).await;
    assert_eq!(read.iter().map(|delivery| delivery.offset).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(read.iter().map(|delivery| block(delivery).seq).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert!(log.next(1 << 20, 50).await.unwrap().is_empty());
    deployment.clean().await;
}

#[tokio::test]
async fn reading_goes_on_with_the_message_of_the_checkpoint() {
    let mut deployment = Deployment::new();
    publish(&mut deployment, 4).await;
    let mut log = deployment.stream_log();
    log.start(ONE, None).await.unwrap();
    let before = deliveries(&mut log, 5).await;
    let mut log = deployment.stream_log();
    log.start(ONE, Some(&checkpoint(&before[3]))).await.unwrap();
    let read = deliveries(&mut log, 2).await;
    // What comes before it belongs to the same chunk.
    let from_anchor = read.iter().position(|delivery| delivery.offset == 3).unwrap();
    assert_eq!(block(&read[from_anchor]), block(&before[3]));
    deployment.clean().await;
}

#[tokio::test]
async fn a_stream_that_is_shorter_than_the_checkpoint_is_read_from_its_beginning() {
    let mut deployment = Deployment::new();
    publish(&mut deployment, 4).await;
    let mut log = deployment.stream_log();
    log.start(ONE, None).await.unwrap();
    let before = deliveries(&mut log, 5).await;
    delete_stream(&deployment, 1).await;
    publish(&mut deployment, 1).await;
    let mut log = deployment.stream_log();
    log.start(ONE, Some(&checkpoint(&before[4]))).await.unwrap();
    let read = deliveries(&mut log, 2).await;
    assert_eq!(read.iter().map(|delivery| delivery.offset).collect::<Vec<_>>(), [0, 1]);
    assert_ne!(block(&read[0]).journal, block(&before[0]).journal);
    deployment.clean().await;
}

#[tokio::test]
async fn a_connection_that_breaks_loses_and_repeats_nothing() {
    let proxy = proxy();
    let mut deployment = Deployment::at(&through(&proxy));
    publish(&mut deployment, 2).await;
    let mut log = deployment.stream_log();
    log.start(ONE, None).await.unwrap();
    deliveries(&mut log, 3).await;
    proxy.sever();
    while log.next(1 << 20, 100).await.is_ok() {}
    publish(&mut deployment, 1).await;
    let deadline = Instant::now() + PATIENCE;
    let mut read = Vec::new();
    while read.len() < 2 {
        assert!(Instant::now() < deadline);
        read.extend(log.next(1 << 20, 100).await.unwrap_or_default());
    }
    assert_eq!(read.iter().map(|delivery| delivery.offset).collect::<Vec<_>>(), [3, 4]);
    deployment.clean().await;
}

#[tokio::test]
async fn a_stream_that_is_made_anew_while_it_is_read_is_a_gap() {
    let mut deployment = Deployment::new();
    publish(&mut deployment, 2).await;
    let mut log = deployment.stream_log();
    log.start(ONE, None).await.unwrap();
    deliveries(&mut log, 3).await;
    delete_stream(&deployment, 1).await;
    publish(&mut deployment, 4).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline);
        match log.next(1 << 20, 100).await {
            Err(LogError::Gap { partition, .. }) => break assert_eq!(partition, ONE),
            Err(_) => {}
            Ok(read) => assert!(read.is_empty(), "{read:?}"),
        }
    }
    deployment.clean().await;
}

#[tokio::test]
async fn a_stream_that_is_made_anew_between_two_projectors_is_counted_in_a_new_epoch() {
    let mut deployment = Deployment::new();
    let journal = deployment.journal();
    let mut worker = recorder(&journal);
    let (mut relay, mut projector) = (deployment.relay(Some(&journal)), deployment.projector());
    deployment.click(&mut *worker, 16, 4);
    deployment.settle(&mut relay, &mut projector).await;
    projector.finish().await.unwrap();
    delete_stream(&deployment, 2).await;
    deployment.click(&mut *worker, 16, 4);
    let mut projector = deployment.projector();
    deployment.settle(&mut relay, &mut projector).await;
    assert_eq!(relay.progress().report().returned, 1, "the part for which there was no stream came back");
    assert_eq!(projector.progress().report().epochs, 1);
    assert_eq!(deployment.store.checkpoint_of(Partition::Stream(2)).unwrap().at.epoch, 1);
    deployment.clean().await;
}

#[tokio::test]
async fn streams_tell_from_where_to_where_they_reach() {
    let mut deployment = Deployment::new();
    let empty = extents(&deployment.broker).await.unwrap();
    assert!(empty.len() == usize::from(deployment.broker.partitions()) && empty.values().all(Option::is_none));
    publish(&mut deployment, 4).await;
    let reach = extents(&deployment.broker).await.unwrap();
    assert!(reach.values().all(|extent| *extent == Some(Extent { first: 0, last: 4 })), "{reach:?}");
    deployment.clean().await;
}

#[tokio::test]
async fn a_replay_puts_nothing_aside() {
    let deployment = Deployment::new();
    let mut log = StreamLog::for_replay(deployment.broker.clone(), &SeededEntropy::new(1)).unwrap();
    let body = Body::Undecodable { bytes: "hello".into(), reason: "no part".to_owned() };
    log.dead_letter(&Delivery { partition: ONE, offset: 0, body }).await.unwrap();
    assert!(extents(&deployment.broker).await.is_ok(), "it declares what is asked for next");
    assert!(dead::list(&deployment.broker, 10).await.unwrap().is_empty());
    deployment.clean().await;
}

#[tokio::test]
async fn a_log_tells_whether_it_has_a_connection() {
    let proxy = proxy();
    let mut deployment = Deployment::at(&through(&proxy));
    publish(&mut deployment, 1).await;
    let mut log = deployment.stream_log();
    let reading = log.reading();
    log.start(ONE, None).await.unwrap();
    assert!(!reading.report().connected);
    deliveries(&mut log, 2).await;
    assert!(reading.report().connected);
    proxy.sever();
    while log.next(1 << 20, 100).await.is_ok() {}
    let report = reading.report();
    assert!(!report.connected && report.faults > 0, "{report:?}");
    deployment.clean().await;
}

#[tokio::test]
async fn a_message_that_is_no_part_is_delivered_as_undecodable() {
    let mut deployment = Deployment::new();
    publish(&mut deployment, 0).await;
    let (_connection, channel) = channel().await;
    channel.confirm_select(lapin::options::ConfirmSelectOptions::default()).await.unwrap();
    let (exchange, options) = (deployment.broker.exchange(), BasicPublishOptions::default());
    let confirm = channel.basic_publish(exchange.into(), "1".into(), options, b"hello", BasicProperties::default());
    assert_eq!(confirm.await.unwrap().await.unwrap(), Confirmation::Ack(None));
    let mut log = deployment.stream_log();
    log.start(ONE, None).await.unwrap();
    let read = deliveries(&mut log, 1).await;
    assert!(matches!(&read[0].body, Body::Undecodable { bytes, .. } if bytes == "hello"), "{read:?}");
    deployment.clean().await;
}
