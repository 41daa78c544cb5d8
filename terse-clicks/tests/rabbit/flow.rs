//! From the journal through the broker to the read model, when all is well.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lapin::options::QueueDeleteOptions;
use terse_clicks::rabbit::{BrokerConfig, RelayConfig};
use terse_core::stats::Partition;

use crate::deployment::{Deployment, FixedNeeds, PARTITIONS, PATIENCE, address, channel, recorder};

#[tokio::test]
async fn clicks_reach_the_read_model_through_all_streams() {
    let mut deployment = Deployment::new();
    let journal = deployment.journal();
    let mut worker = recorder(&journal);
    let (mut relay, mut projector) = (deployment.relay(Some(&journal)), deployment.projector());
    deployment.click(&mut *worker, 64, 3);
    deployment.settle(&mut relay, &mut projector).await;
    deployment.click(&mut *worker, 64, 20);
    deployment.settle(&mut relay, &mut projector).await;
    let report = relay.progress().report();
    assert_eq!(report.published, report.confirmed);
    assert_eq!(report.published % u64::from(PARTITIONS), 0, "each block has a part for each stream");
    assert_eq!((report.returned, report.refused, report.connections, report.waiting), (0, 0, 1, 0));
    assert!(deployment.passed(journal.id()) >= 2);
    deployment.clean().await;
}

#[tokio::test]
async fn a_journal_that_ends_is_published_to_its_end_and_retired() {
    let mut deployment = Deployment::new();
    let journal = deployment.journal();
    let mut worker = recorder(&journal);
    let (mut relay, mut projector) = (deployment.relay(Some(&journal)), deployment.projector());
    deployment.click(&mut *worker, 8, 5);
    drop(worker);
    journal.end().unwrap();
    deployment.settle(&mut relay, &mut projector).await;
    let blocks = deployment.passed(journal.id());
    assert_eq!(blocks, 2, "the one with clicks and the last one");
    for partition in 0..PARTITIONS {
        let partition = Partition::Stream(partition);
        assert!(deployment.store.retired_of(partition, journal.id()).is_some(), "{partition}");
    }
    assert!(relay.finish(Duration::from_secs(5)).await);
    deployment.clean().await;
}

#[tokio::test]
async fn a_relay_is_not_done_before_it_has_published_what_did_not_fit_in_its_window() {
    let mut deployment = Deployment::new();
    let journal = deployment.journal();
    let mut worker = recorder(&journal);
    for _ in 0..4 {
        deployment.click(&mut *worker, 8, 5);
        // Blocks are prepared in the background.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(worker);
    journal.end().unwrap();
    let config = RelayConfig { window_bytes: 1, ..deployment.relay_config() };
    let relay = deployment.relay_with(config, Some(&journal), Arc::new(FixedNeeds(Ok(None))));
    assert!(relay.finish(PATIENCE).await);
    assert_eq!(deployment.passed(journal.id()), 5, "four blocks and the last one");
    deployment.clean().await;
}

#[tokio::test]
async fn what_a_process_left_is_relayed_by_the_next() {
    let mut deployment = Deployment::new();
    let left = deployment.journal();
    let mut worker = recorder(&left);
    deployment.click(&mut *worker, 8, 5);
    drop(worker);
    left.end().unwrap();
    let journal = deployment.journal();
    let mut worker = recorder(&journal);
    deployment.click(&mut *worker, 8, 2);
    let (mut relay, mut projector) = (deployment.relay(Some(&journal)), deployment.projector());
    deployment.settle(&mut relay, &mut projector).await;
    assert_eq!((deployment.passed(left.id()), deployment.passed(journal.id())), (2, 1));
    deployment.clean().await;
}

#[tokio::test]
async fn the_journal_of_another_living_process_is_left_to_it() {
    let mut deployment = Deployment::new();
    let theirs = deployment.journal();
    let mut worker = recorder(&theirs);
    deployment.click(&mut *worker, 8, 5);
    let mut idle = deployment.relay(None);
    deployment.relay_all(&mut idle).await;
    assert_eq!((idle.progress().report().published, deployment.passed(theirs.id())), (0, 0));
    let (mut relay, mut projector) = (deployment.relay(Some(&theirs)), deployment.projector());
    deployment.settle(&mut relay, &mut projector).await;
    deployment.clean().await;
}

#[tokio::test]
async fn blocks_that_are_relayed_twice_are_counted_once() {
    let mut deployment = Deployment::new();
    let journal = deployment.journal();
    let mut worker = recorder(&journal);
    deployment.click(&mut *worker, 16, 10);
    drop(worker);
    journal.end().unwrap();
    let (mut one, mut other) = (deployment.relay(None), deployment.relay(None));
    let mut projector = deployment.projector();
    // Both have taken the blocks before either has noted them as passed.
    tokio::join!(one.run_once(20), other.run_once(20));
    deployment.relay_all(&mut one).await;
    deployment.settle(&mut other, &mut projector).await;
    let published = [&one, &other].map(|relay| relay.progress().report().published);
    assert_eq!(published[0], published[1], "both have published all of it");
    deployment.clean().await;
}

#[tokio::test]
async fn a_journal_for_another_number_of_streams_waits() {
    let mut deployment = Deployment::new();
    let journal = deployment.journal();
    let mut worker = recorder(&journal);
    deployment.click(&mut *worker, 8, 1);
    let mut config = deployment.relay_config();
    config.broker = BrokerConfig::new(&address(), "other", PARTITIONS + 1).unwrap();
    let names: Vec<String> = (0..=PARTITIONS).map(|partition| config.broker.stream(partition)).collect();
    let needs = Arc::new(FixedNeeds(Ok(None)));
    let mut relay = deployment.relay_with(config, Some(&journal), needs);
    deployment.relay_all(&mut relay).await;
    let report = relay.progress().report();
    assert_eq!((report.published, report.stopped, deployment.passed(journal.id())), (0, 1, 0));
    let (_connection, channel) = channel().await;
    for name in names {
        channel.queue_delete(name.into(), QueueDeleteOptions::default()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_runs_as_a_task_until_it_is_told_to_stop() {
    let mut deployment = Deployment::new();
    let journal = deployment.journal();
    let mut worker = recorder(&journal);
    let (mut relay, mut projector) = (deployment.relay(Some(&journal)), deployment.projector());
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let task = tokio::spawn(async move {
        relay.run(&mut stopped).await;
        relay.finish(Duration::from_secs(5)).await
    });
    deployment.click(&mut *worker, 16, 3);
    let deadline = Instant::now() + PATIENCE;
    while !deployment.is_settled() {
        assert!(Instant::now() < deadline);
        projector.run_once(20).await.unwrap();
    }
    deployment.click(&mut *worker, 16, 1);
    drop(worker);
    journal.end().unwrap();
    stop.send_replace(true);
    assert!(task.await.unwrap(), "what was recorded before the stop is published after it");
    while !deployment.is_settled() {
        assert!(Instant::now() < deadline);
        projector.run_once(20).await.unwrap();
    }
    deployment.clean().await;
}
