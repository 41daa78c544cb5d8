//! The broker goes away, answers late, takes nothing: nothing is lost, and nothing is counted twice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use terse_clicks::rabbit::{Needs, RelayConfig, StreamLog};
use terse_core::ports::{StoreError, StoreErrorKind};
use terse_testkit::{Mode, SeededEntropy};

use crate::deployment::{Deployment, FixedNeeds, PARTITIONS, PATIENCE, channel, proxy, recorder, through};

#[tokio::test]
async fn connections_that_break_while_publishing_lose_and_double_nothing() {
    let proxy = proxy();
    let mut deployment = Deployment::at(&through(&proxy));
    let journal = deployment.journal();
    let mut worker = recorder(&journal);
    let (mut relay, mut projector) = (deployment.relay(Some(&journal)), deployment.projector());
    for round in 0..6 {
        deployment.click(&mut *worker, 16, 30);
        relay.run_once(round).await;
        projector.run_once(0).await.unwrap();
        proxy.sever();
    }
    deployment.settle(&mut relay, &mut projector).await;
    let report = relay.progress().report();
    assert!(report.connections > 1 && report.faults > 0, "{report:?}");
    deployment.clean().await;
}

#[tokio::test]
async fn parts_whose_confirms_are_lost_are_published_again_and_counted_once() {
    let proxy = proxy();
    let mut deployment = Deployment::at(&through(&proxy));
    let journal = deployment.journal();
    let mut worker = recorder(&journal);
    let mut relay = deployment.relay(Some(&journal));
    deployment.relay_all(&mut relay).await;
    // Two blocks of four parts.
    deployment.click(&mut *worker, 16, 30);
    deployment.click(&mut *worker, 16, 30);
    proxy.set(Mode::LoseAnswers);
    let deadline = Instant::now() + PATIENCE;
    while relay.progress().report().published < 8 || proxy.counts().lost_bytes == 0 {
        assert!(Instant::now() < deadline, "{:?} {:?}", relay.progress().report(), proxy.counts());
        relay.run_once(20).await;
    }
    assert_eq!((relay.progress().report().confirmed, deployment.passed(journal.id())), (0, 0));
    proxy.restore();
    let mut projector = deployment.projector();
    deployment.settle(&mut relay, &mut projector).await;
    let report = relay.progress().report();
    assert!(report.published >= 16 && report.confirmed == 8, "{report:?}");
    deployment.clean().await;
}

#[tokio::test]
async fn a_broker_that_stands_still_for_a_while_delays_clicks_only() {
    let proxy = proxy();
    let mut deployment = Deployment::at(&through(&proxy));
    let journal = deployment.journal();
    let mut worker = recorder(&journal);
    let (mut relay, mut projector) = (deployment.relay(Some(&journal)), deployment.projector());
    deployment.click(&mut *worker, 16, 3);
    deployment.settle(&mut relay, &mut projector).await;
    proxy.set(Mode::Pause);
    let held = Instant::now();
    while held.elapsed() < Duration::from_secs(4) {
        deployment.click(&mut *worker, 16, 1);
        relay.run_once(50).await;
        projector.run_once(50).await.unwrap();
    }
    assert!(!deployment.is_settled());
    proxy.restore();
    deployment.settle(&mut relay, &mut projector).await;
    deployment.clean().await;
}

#[tokio::test]
async fn without_a_broker_blocks_wait_on_disk() {
    let proxy = proxy();
    proxy.set(Mode::Cut);
    let mut deployment = Deployment::at(&through(&proxy));
    let journal = deployment.journal();
    let mut worker = recorder(&journal);
    let (mut relay, mut projector) = (deployment.relay(Some(&journal)), deployment.projector());
    deployment.click(&mut *worker, 16, 5);
    for _ in 0..5 {
        let step = relay.run_once(0).await;
        assert!(step.pause_ms > 0 && !step.idle);
        projector.run_once(0).await.unwrap();
    }
    let report = relay.progress().report();
    assert_eq!((report.connected, report.published, deployment.passed(journal.id())), (false, 0, 0));
    proxy.restore();
    deployment.settle(&mut relay, &mut projector).await;
    deployment.clean().await;
}

#[tokio::test]
async fn parts_without_a_stream_come_back_until_there_is_one() {
    let mut deployment = Deployment::new();
    let journal = deployment.journal();
    let mut worker = recorder(&journal);
    let (mut relay, mut projector) = (deployment.relay(Some(&journal)), deployment.projector());
    deployment.relay_all(&mut relay).await;
    let (_connection, channel) = channel().await;
    // Again and again: which confirm brings a part that came back is the broker's and the driver's choice.
    for round in 0..3 * PARTITIONS {
        let partition = round % PARTITIONS;
        let (stream, exchange) = (deployment.broker.stream(partition), deployment.broker.exchange());
        let key = partition.to_string();
        channel.queue_unbind(stream.into(), exchange.into(), key.into(), FieldTable::default()).await.unwrap();
        deployment.click(&mut *worker, 16, 5);
        deployment.settle(&mut relay, &mut projector).await;
    }
    assert!(relay.progress().report().returned >= u64::from(3 * PARTITIONS));
    deployment.clean().await;
}

#[tokio::test]
async fn a_topology_that_is_made_otherwise_is_told_and_left_alone() {
    let deployment = Deployment::new();
    let (_connection, channel) = channel().await;
    let stream = deployment.broker.stream(0);
    channel.queue_declare(stream.clone().into(), QueueDeclareOptions::durable(), FieldTable::default()).await.unwrap();
    let mut deployment = deployment;
    let mut relay = deployment.relay(None);
    let step = relay.run_once(0).await;
    assert!(step.pause_ms >= 10_000, "no crash loop: {step:?}");
    let mut log = StreamLog::new(deployment.broker.clone(), &SeededEntropy::new(1)).unwrap();
    use terse_clicks::log::ClickLog as _;
    log.start(terse_core::stats::Partition::Stream(0), None).await.unwrap();
    let error = log.next(1, 1_000).await.unwrap_err().to_string();
    assert!(error.contains("inequivalent arg") && error.contains(&stream), "{error}");
    deployment.clean().await;
}

#[tokio::test]
async fn nothing_is_published_beyond_half_of_what_streams_keep() {
    let mut deployment = Deployment::new();
    deployment.broker.stream_bytes = 1 << 20;
    deployment.broker.segment_bytes = 256 << 10;
    let journal = deployment.journal();
    let mut worker = recorder(&journal);
    let needs: Arc<dyn Needs> = Arc::new(FixedNeeds(Ok(None)));
    // A block at a time, so that each message is a chunk: how long a stream is is known but for its last chunk.
    let config = RelayConfig { window_bytes: 1, ..deployment.relay_config() };
    let mut blind = deployment.relay_with(config.clone(), Some(&journal), needs);
    let mut clicked = 0;
    while clicked < 60 {
        deployment.click(&mut *worker, 4, 400);
        clicked += 1;
        // Blocks are prepared in the background.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let deadline = Instant::now() + PATIENCE;
    while !blind.progress().report().held {
        assert!(Instant::now() < deadline, "{:?}", blind.progress().report());
        blind.run_once(20).await;
    }
    for _ in 0..20 {
        blind.run_once(20).await;
    }
    let (passed, report) = (deployment.passed(journal.id()), blind.progress().report());
    assert!((8..50).contains(&passed) && report.held, "{passed}: {report:?}");
    blind.run_once(1_100).await;
    assert_eq!(blind.progress().report(), report, "it stays so while no projector comes");
    // Those that come after it have published nothing, and know how much stands there all the same.
    for _ in 0..3 {
        let needs = Arc::new(FixedNeeds(Ok(None)));
        blind = deployment.relay_with(config.clone(), Some(&journal), needs);
        for _ in 0..20 {
            blind.run_once(20).await;
        }
        assert!(blind.progress().report().held, "{:?}", blind.progress().report());
    }
    let more = deployment.passed(journal.id()) - passed;
    assert!(more <= passed / 4, "{more} more blocks than the {passed} that half of a stream has room for");
    // With a projector that catches up all of it goes through.
    let (mut relay, mut projector) = (deployment.relay(Some(&journal)), deployment.projector());
    drop(blind);
    deployment.settle(&mut relay, &mut projector).await;
    deployment.clean().await;
}

#[tokio::test]
async fn nothing_is_published_before_the_checkpoints_can_be_read() {
    let mut deployment = Deployment::new();
    let journal = deployment.journal();
    let mut worker = recorder(&journal);
    deployment.click(&mut *worker, 4, 1);
    let needs = Arc::new(FixedNeeds(Err(StoreError::new(StoreErrorKind::Unavailable, "no quorum".to_owned()))));
    let mut relay = deployment.relay_with(deployment.relay_config(), Some(&journal), needs);
    for _ in 0..3 {
        relay.run_once(20).await;
    }
    let report = relay.progress().report();
    assert!(report.held && report.published == 0 && report.connected, "{report:?}");
    deployment.clean().await;
}
