//! Messages that nobody can decode: put aside by the projector, looked at by an operator.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Confirmation};
use terse_clicks::log::quarantine::Quarantine;
use terse_clicks::rabbit::dead::{Which, discard, list, requeue};

use crate::deployment::{Deployment, PATIENCE, channel, recorder};

fn these(id: &str) -> Which {
    Which::These([id.to_owned()].into())
}

async fn publish(deployment: &Deployment, partition: u16, bytes: &[u8]) {
    let (_connection, channel) = channel().await;
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let (exchange, key) = (deployment.broker.exchange(), partition.to_string());
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let confirm = channel.basic_publish(exchange.into(), key.into(), options, bytes, BasicProperties::default());
    assert_eq!(confirm.await.unwrap().await.unwrap(), Confirmation::Ack(None));
}

#[tokio::test]
async fn what_nobody_can_decode_is_put_aside_and_counting_goes_on() {
    let mut deployment = Deployment::new();
    let journal = deployment.journal();
    let mut worker = recorder(&journal);
    let (mut relay, mut projector) = (deployment.relay(Some(&journal)), deployment.projector());
    deployment.click(&mut *worker, 16, 2);
    deployment.settle(&mut relay, &mut projector).await;
    publish(&deployment, 2, b"hello").await;
    publish(&deployment, 0, b"").await;
    deployment.click(&mut *worker, 16, 2);
    deployment.settle(&mut relay, &mut projector).await;
    assert_eq!(projector.progress().report().dead_letters, 2);
    let mut letters = list(&deployment.broker, 10).await.unwrap();
    letters.sort_by(|a, b| a.id.cmp(&b.id));
    let told: Vec<_> = letters.iter().map(|letter| (letter.id.as_str(), letter.partition, letter.bytes)).collect();
    assert_eq!(told, [("0@1", Some(0), 0), ("2@1", Some(2), 5)]);
    assert!(letters.iter().all(|letter| letter.reason.contains("shorter than the head of a part")), "{letters:?}");
    deployment.clean().await;
}

#[tokio::test]
async fn a_dead_letter_stays_until_somebody_decides() {
    let mut deployment = Deployment::new();
    let mut projector = deployment.projector();
    let mut relay = deployment.relay(None);
    deployment.relay_all(&mut relay).await;
    for number in 0..3 {
        publish(&deployment, 1, format!("message {number}").as_bytes()).await;
    }
    deployment.quiet(&mut relay, &mut projector).await;
    let ids = |letters: Vec<terse_clicks::rabbit::dead::DeadLetter>| -> Vec<String> {
        let mut ids: Vec<_> = letters.into_iter().map(|letter| letter.id).collect();
        ids.sort();
        ids
    };
    for _ in 0..25 {
        assert_eq!(ids(list(&deployment.broker, 10).await.unwrap()), ["1@0", "1@1", "1@2"]);
    }
    assert_eq!(list(&deployment.broker, 2).await.unwrap().len(), 2);
    assert_eq!(discard(&deployment.broker, &these("1@1")).await.unwrap(), ["1@1"]);
    assert!(discard(&deployment.broker, &these("1@1")).await.unwrap().is_empty());
    assert_eq!(ids(list(&deployment.broker, 10).await.unwrap()), ["1@0", "1@2"]);
    assert_eq!(requeue(&deployment.broker, &these("1@2")).await.unwrap(), ["1@2"]);
    // Nobody can decode it now either: it comes back, from another place.
    deployment.quiet(&mut relay, &mut projector).await;
    assert_eq!(ids(list(&deployment.broker, 10).await.unwrap()), ["1@0", "1@3"]);
    assert_eq!(discard(&deployment.broker, &Which::All).await.unwrap().len(), 2);
    assert!(list(&deployment.broker, 10).await.unwrap().is_empty());
    deployment.clean().await;
}

#[tokio::test]
async fn a_message_of_somebody_else_is_told_and_never_published() {
    let mut deployment = Deployment::new();
    let mut relay = deployment.relay(None);
    deployment.relay_all(&mut relay).await;
    let (_connection, channel) = channel().await;
    let queue = deployment.broker.dead_queue();
    let confirm = channel.basic_publish(
        "".into(),
        queue.into(),
        BasicPublishOptions::default(),
        b"stray",
        BasicProperties::default(),
    );
    confirm.await.unwrap().await.unwrap();
    let letters = list(&deployment.broker, 10).await.unwrap();
    assert_eq!((letters.len(), letters[0].partition), (1, None));
    assert!(requeue(&deployment.broker, &Which::All).await.unwrap().is_empty());
    assert_eq!(discard(&deployment.broker, &Which::All).await.unwrap().len(), 1);
    deployment.clean().await;
}

/// Waits for `path`, which another thread makes.
async fn wait_for(path: &Path) {
    let deadline = Instant::now() + PATIENCE;
    while !path.exists() {
        assert!(Instant::now() < deadline, "{}", path.display());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_requeued_block_of_a_journal_is_published_and_counted_once() {
    let mut deployment = Deployment::new();
    let journal = deployment.journal();
    let mut worker = recorder(&journal);
    let (mut relay, mut projector) = (deployment.relay(Some(&journal)), deployment.projector());
    let directory = deployment.journals().join(journal.id().to_string());
    let name = format!("{:020}.block", 0);
    let (block, aside) = (directory.join(&name), directory.join("quarantine").join(&name));
    deployment.click(&mut *worker, 16, 2);
    wait_for(&block).await;
    let whole = fs::read(&block).unwrap();
    let mut damaged = whole.clone();
    damaged[150] ^= 0x40;
    fs::write(&block, damaged).unwrap();
    deployment.click(&mut *worker, 16, 1);
    let deadline = Instant::now() + PATIENCE;
    while !aside.exists() {
        assert!(Instant::now() < deadline, "{:?}", relay.progress().report());
        relay.run_once(20).await;
    }
    deployment.quiet(&mut relay, &mut projector).await;
    assert!(!deployment.is_settled());

    fs::write(&aside, &whole).unwrap();
    let quarantine = Quarantine::new(&deployment.journals());
    quarantine.requeue(&quarantine.list(9).unwrap()[0]).unwrap();
    deployment.settle(&mut relay, &mut projector).await;
    while !quarantine.list(9).unwrap().is_empty() {
        assert!(Instant::now() < deadline, "{:?}", quarantine.list(9));
        relay.run_once(20).await;
    }
    assert!(block.exists(), "it is kept like the others");
    deployment.click(&mut *worker, 16, 3);
    deployment.settle(&mut relay, &mut projector).await;
    drop(worker);
    journal.end().unwrap();
    deployment.settle(&mut relay, &mut projector).await;
    deployment.clean().await;
}
