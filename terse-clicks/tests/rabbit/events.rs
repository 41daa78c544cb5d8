//! Link events on the broker: at least once, across its outages.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use lapin::Channel;
use lapin::options::{BasicGetOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use tempfile::TempDir;
use terse_clicks::rabbit::events::{ASK_AFTER_MS, EventRelay, Outbox};
use terse_core::cursor::Cursor;
use terse_core::ports::events::{Intent, LinkEvent, LinkEvents, Settled};
use terse_core::ports::{LinkCatalog, StoreError};
use terse_core::{Clock, Link, Owner, ShortCode};
use terse_testkit::{Mode, SeededEntropy, TestClock, links};

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

/// Links as the store tells them.
#[derive(Default)]
struct Links(Mutex<BTreeMap<ShortCode, Link>>);

#[async_trait]
impl LinkCatalog for Links {
    async fn get(&self, code: &ShortCode) -> Result<Option<Link>, StoreError> {
        Ok(self.0.lock().unwrap().get(code).cloned())
    }

    async fn list(&self, _: &Owner, _: Option<&Cursor>, _: usize) -> Result<Vec<Link>, StoreError> {
        Ok(Vec::new())
    }
}

/// A process: its outbox, and the relay of its directory.
struct Process {
    outbox: Arc<Outbox>,
    relay: EventRelay,
    clock: Arc<TestClock>,
}

impl Process {
    fn new(deployment: &Deployment, directory: &TempDir, links: &Arc<Links>, seed: u64) -> Self {
        let (clock, entropy) = (Arc::new(TestClock::default()), SeededEntropy::new(seed));
        let time = || Arc::clone(&clock) as Arc<dyn Clock>;
        let outbox = Outbox::open(directory.path(), time(), &entropy).unwrap();
        let catalog = Arc::clone(links) as Arc<dyn LinkCatalog>;
        let own = Some(Arc::clone(&outbox));
        let broker = deployment.broker.clone();
        let relay = EventRelay::new(broker, directory.path(), own, catalog, time(), &entropy).unwrap();
        Self { outbox, relay, clock }
    }

    async fn tell(&self, event: LinkEvent<'_>) {
        let id = self.outbox.intend(Intent::Create(event.link())).await.unwrap();
        self.outbox.settle(id, Settled::Happened(event));
    }
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
    let mut process = Process::new(&deployment, &directory, &Arc::default(), 1);
    let link = links::link("launch");
    process.tell(LinkEvent::Created(&link)).await;
    send(&mut process.relay, 1).await;
    let (_connection, channel) = channel().await;
    let queue = listen(&deployment, &channel, "link.*.v1").await;
    for event in [LinkEvent::Created(&link), LinkEvent::Changed(&link), LinkEvent::Deleted(&link)] {
        process.tell(event).await;
    }
    send(&mut process.relay, 3).await;
    let version = link.version.0;
    let expected = ["link.created.v1", "link.changed.v1", "link.deleted.v1"].map(|kind| (kind.to_owned(), version));
    assert_eq!(heard(&channel, &queue).await, expected, "not those before the queue was bound");
    assert_eq!(process.relay.run_once(0).await, Default::default());
    assert_eq!((process.outbox.report().told, process.outbox.report().waiting_bytes), (4, 0));
    channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    deployment.clean().await;
}

#[tokio::test]
async fn events_wait_while_the_broker_is_away_and_another_process_tells_them() {
    let proxy = proxy();
    let (deployment, directory) = (Deployment::at(&through(&proxy)), tempfile::tempdir().unwrap());
    let links = Arc::new(Links::default());
    let mut process = Process::new(&deployment, &directory, &links, 1);
    let link = links::link("launch");
    process.tell(LinkEvent::Created(&link)).await;
    send(&mut process.relay, 1).await;
    let (_connection, channel) = channel().await;
    let queue = listen(&deployment, &channel, "#").await;
    process.tell(LinkEvent::Changed(&link)).await;
    proxy.set(Mode::Cut);
    let deadline = Instant::now() + PATIENCE;
    while process.relay.run_once(0).await.pause_ms == 0 {
        assert!(Instant::now() < deadline, "nothing is published, so nothing fails");
    }
    // Its process ends amidst two creates, of which one reached the store; another process finds what it left.
    let (made, missing) = (links::link("made"), links::link("missing"));
    for link in [&made, &missing] {
        process.outbox.intend(Intent::Create(link)).await.unwrap();
    }
    links.0.lock().unwrap().insert(made.code.clone(), made.clone());
    drop(process);
    proxy.restore();
    let mut successor = Process::new(&deployment, &directory, &links, 2);
    send(&mut successor.relay, 1).await;
    assert_eq!(heard(&channel, &queue).await, [("link.changed.v1".to_owned(), link.version.0)]);
    for _ in 0..3 {
        assert_eq!(successor.relay.run_once(0).await.sent, 0, "its writes may be under way");
    }
    successor.clock.advance(Duration::from_millis(ASK_AFTER_MS));
    send(&mut successor.relay, 1).await;
    assert_eq!(heard(&channel, &queue).await, [("link.created.v1".to_owned(), 1)]);
    successor.relay.run_once(0).await;
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "what was told is removed");
    channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    deployment.clean().await;
}

#[tokio::test]
async fn events_whose_confirms_are_lost_come_again_under_the_same_id() {
    let proxy = proxy();
    let (mut deployment, directory) = (Deployment::at(&through(&proxy)), tempfile::tempdir().unwrap());
    deployment.broker.answer_ms = 500;
    let mut process = Process::new(&deployment, &directory, &Arc::default(), 1);
    let link = links::link("launch");
    process.tell(LinkEvent::Created(&link)).await;
    send(&mut process.relay, 1).await;
    let (_connection, channel) = channel().await;
    let queue = listen(&deployment, &channel, "link.created.v1").await;
    proxy.set(Mode::LoseAnswers);
    process.tell(LinkEvent::Created(&link)).await;
    let deadline = Instant::now() + PATIENCE;
    while process.relay.run_once(0).await.pause_ms == 0 {
        assert!(Instant::now() < deadline, "the confirm was lost, and nobody noticed");
    }
    proxy.restore();
    send(&mut process.relay, 1).await;
    let mut ids = Vec::new();
    while let Some(message) = channel.basic_get(queue.as_str().into(), BasicGetOptions { no_ack: true }).await.unwrap()
    {
        let json: serde_json::Value = serde_json::from_slice(&message.delivery.data).unwrap();
        ids.push(json["id"].as_str().unwrap().to_owned());
    }
    assert!(ids.len() >= 2, "{ids:?}");
    ids.dedup();
    assert_eq!(ids.len(), 1);
    channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    deployment.clean().await;
}
