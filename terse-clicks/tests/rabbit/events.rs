//! Link events on the broker: at least once, across its outages.

use std::time::{Duration, Instant};

use lapin::Channel;
use lapin::options::{BasicGetOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use tempfile::TempDir;
use terse_clicks::rabbit::events::{EventRelay, LinkEvent, Outbox};
use terse_core::Timestamp;
use terse_testkit::{Mode, SeededEntropy, links};

use crate::deployment::{Deployment, PATIENCE, channel, proxy, through};

/// Binds a queue for the events of `deployment`.
async fn listen(deployment: &Deployment, channel: &Channel, key: &str) -> String {
    let queue = format!("{}.listener", deployment.broker.events_exchange());
    channel.queue_declare(queue.as_str().into(), QueueDeclareOptions::durable(), FieldTable::default()).await.unwrap();
    let exchange = deployment.broker.events_exchange();
    let options = QueueBindOptions::default();
    channel
        .queue_bind(queue.as_str().into(), exchange.into(), key.into(), options, FieldTable::default())
        .await
        .unwrap();
    queue
}

/// All that is in `queue`: routing keys and versions.
async fn heard(channel: &Channel, queue: &str) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    while let Some(message) = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.unwrap() {
        let json: serde_json::Value = serde_json::from_slice(&message.delivery.data).unwrap();
        assert_eq!(json["type"], message.delivery.routing_key.as_str());
        all.push((message.delivery.routing_key.to_string(), json["version"].as_u64().unwrap()));
    }
    all
}

fn at() -> Timestamp {
    Timestamp::from_millis(1_767_323_045_000)
}

fn relay(deployment: &Deployment, directory: &TempDir, own: Option<&std::sync::Arc<Outbox>>) -> EventRelay {
    let entropy = SeededEntropy::new(3);
    EventRelay::new(deployment.broker.clone(), directory.path(), own.cloned(), &entropy).unwrap()
}

/// Steps until so many events were sent.
async fn send(relay: &mut EventRelay, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    let mut sent = 0;
    while sent < count {
        assert!(Instant::now() < deadline, "{sent} of {count} were sent");
        let step = relay.run_once(20).await;
        sent += step.sent;
        tokio::time::sleep(Duration::from_millis(step.pause_ms)).await;
    }
}

#[tokio::test]
async fn events_come_in_their_order_to_who_has_bound_a_queue() {
    let (deployment, directory) = (Deployment::new(), tempfile::tempdir().unwrap());
    let outbox = Outbox::open(directory.path(), &SeededEntropy::new(1)).unwrap();
    let mut relay = relay(&deployment, &directory, Some(&outbox));
    let link = links::link("launch");
    outbox.append(LinkEvent::Created(&link), at()).unwrap();
    send(&mut relay, 1).await;
    let (_connection, channel) = channel().await;
    let queue = listen(&deployment, &channel, "link.*.v1").await;
    for event in [LinkEvent::Created(&link), LinkEvent::Changed(&link), LinkEvent::Deleted(&link)] {
        outbox.append(event, at()).unwrap();
    }
    send(&mut relay, 3).await;
    let version = link.version.0;
    let expected = ["link.created.v1", "link.changed.v1", "link.deleted.v1"].map(|kind| (kind.to_owned(), version));
    assert_eq!(heard(&channel, &queue).await, expected, "not those before the queue was bound");
    assert_eq!(relay.run_once(0).await, Default::default());
    channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    deployment.clean().await;
}

#[tokio::test]
async fn events_wait_while_the_broker_is_away_and_come_when_it_is_back() {
    let proxy = proxy();
    let (deployment, directory) = (Deployment::at(&through(&proxy)), tempfile::tempdir().unwrap());
    let outbox = Outbox::open(directory.path(), &SeededEntropy::new(1)).unwrap();
    let mut relay = relay(&deployment, &directory, Some(&outbox));
    let link = links::link("launch");
    outbox.append(LinkEvent::Created(&link), at()).unwrap();
    send(&mut relay, 1).await;
    let (_connection, channel) = channel().await;
    let queue = listen(&deployment, &channel, "#").await;
    outbox.append(LinkEvent::Changed(&link), at()).unwrap();
    proxy.set(Mode::Cut);
    let step = relay.run_once(0).await;
    assert!(step.sent == 0 && step.pause_ms > 0, "{step:?}");
    // Its process ends; another one finds what it left.
    drop((relay, outbox));
    proxy.restore();
    let mut successor = self::relay(&deployment, &directory, None);
    send(&mut successor, 1).await;
    assert_eq!(heard(&channel, &queue).await, [("link.changed.v1".to_owned(), link.version.0)]);
    successor.run_once(0).await;
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "what was sent is removed");
    channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    deployment.clean().await;
}

#[tokio::test]
async fn events_whose_confirms_are_lost_come_again() {
    let proxy = proxy();
    let (mut deployment, directory) = (Deployment::at(&through(&proxy)), tempfile::tempdir().unwrap());
    deployment.broker.answer_ms = 500;
    let outbox = Outbox::open(directory.path(), &SeededEntropy::new(1)).unwrap();
    let mut relay = relay(&deployment, &directory, Some(&outbox));
    let link = links::link("launch");
    outbox.append(LinkEvent::Created(&link), at()).unwrap();
    send(&mut relay, 1).await;
    let (_connection, channel) = channel().await;
    let queue = listen(&deployment, &channel, "link.created.v1").await;
    outbox.append(LinkEvent::Created(&link), at()).unwrap();
    proxy.set(Mode::LoseAnswers);
    assert_eq!(relay.run_once(0).await.sent, 0);
    proxy.restore();
    send(&mut relay, 1).await;
    let heard = heard(&channel, &queue).await;
    assert!(heard.len() >= 2, "{heard:?}");
    channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    deployment.clean().await;
}
