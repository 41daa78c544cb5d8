//! What is decided by conditional writes: the kind of bus, the beginnings of epochs, leases.

use futures_util::future::join_all;
use terse_core::Timestamp;
use terse_core::ports::StoreErrorKind;
use terse_core::ports::clicks::{Bus, ClickStats, ReadModel};
use terse_core::stats::Partition;
use terse_testkit::links::code;

use crate::cluster::{at, checkpoint, checkpoints, connected, patiently, with_keyspace, write};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_several_numbers_of_partitions_one_stands_for_ever() {
    with_keyspace(|keyspace| async move {
        let models = join_all((0..4).map(|_| connected(&keyspace))).await;
        assert_eq!(patiently(async || models[0].as_of(&code("abc")).await).await, None, "nothing is settled yet");
        assert_eq!(models[0].settle_bus(Bus::Local).await.unwrap_err().kind, StoreErrorKind::Corrupt);
        let wanted = |number| Bus::Streams { partitions: 8 + number as u16 };
        let settling = models
            .iter()
            .enumerate()
            .map(|(number, model)| async move { patiently(|| model.settle_bus(wanted(number))).await });
        let standing = join_all(settling).await;
        assert!((0..4).any(|number| wanted(number) == standing[0]), "{standing:?}");
        assert!(standing.iter().all(|bus| *bus == standing[0]), "{standing:?}");
        let late = connected(&keyspace).await;
        // Also to whoever asks for what can't be settled here.
        for bus in [Bus::Local, Bus::Streams { partitions: 1 }, standing[0]] {
            assert_eq!(patiently(|| late.settle_bus(bus)).await, standing[0]);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn statistics_are_of_the_time_of_their_partition() {
    with_keyspace(|keyspace| async move {
        let model = connected(&keyspace).await;
        let bus = Bus::Streams { partitions: 4 };
        assert_eq!(patiently(|| model.settle_bus(bus)).await, bus);
        let log = Partition::of("abc", 4);
        assert_eq!(patiently(async || model.as_of(&code("abc")).await).await, None, "nothing was projected");
        write(&model, &checkpoints(log, at(0, 77))).await;
        let other = (0..).map(|number| format!("x{number}")).find(|text| Partition::of(text, 4) != log).unwrap();
        // A server that never settled anything learns the number of partitions by itself.
        let reader = connected(&keyspace).await;
        for model in [&model, &reader] {
            assert_eq!(patiently(async || model.as_of(&code("abc")).await).await, Some(checkpoint(at(0, 77)).until));
            assert_eq!(patiently(async || model.as_of(&code(&other)).await).await, None);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_epoch_begins_once_whoever_finds_the_log_anew() {
    with_keyspace(|keyspace| async move {
        let models = join_all((0..3).map(|_| connected(&keyspace))).await;
        let log = Partition::Stream(2);
        write(&models[0], &checkpoints(log, at(0, 900))).await;
        let first = |number: usize| {
            let mut first = checkpoint(at(1, 0));
            first.anchor.seq = number as u64;
            first
        };
        let beginning = models.iter().enumerate().map(|(number, model)| async move {
            patiently(async || model.begin_epoch(log, &first(number)).await).await.unwrap()
        });
        let begun = join_all(beginning).await;
        assert!((0..3).any(|number| first(number) == begun[0]), "{begun:?}");
        assert!(begun.iter().all(|one| *one == begun[0]), "{begun:?}");
        assert_eq!(patiently(|| models[2].checkpoint(log)).await.as_ref(), Some(&begun[0]));
        // Begun again by a late one, after the epoch went on: it stays where it is.
        write(&models[0], &checkpoints(log, at(1, 5))).await;
        assert_eq!(patiently(async || models[1].begin_epoch(log, &first(7)).await).await.as_ref(), Some(&begun[0]));
        assert_eq!(patiently(|| models[1].checkpoint(log)).await, Some(checkpoint(at(1, 5))));
        // The next one, and other partitions, begin for themselves.
        for (log, position) in [(log, at(2, 0)), (Partition::Stream(3), at(1, 0))] {
            let first = checkpoint(position);
            assert_eq!(patiently(|| models[0].begin_epoch(log, &first)).await.as_ref(), Some(&first));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lease_has_one_holder_until_it_ends() {
    with_keyspace(|keyspace| async move {
        let models = join_all((0..3).map(|_| connected(&keyspace))).await;
        let log = Partition::Stream(0);
        let ask = |number: usize, now_ms: i64| {
            let model = &models[number];
            async move {
                let now = Timestamp::from_millis(now_ms);
                patiently(async || model.lease(log, &format!("holder{number}"), now, 1_000).await).await
            }
        };
        let granted = join_all((0..3).map(|number| ask(number, 10_000))).await;
        assert_eq!(granted.iter().filter(|granted| **granted).count(), 1, "{granted:?}");
        let holder = granted.iter().position(|granted| *granted).unwrap();
        let other = (holder + 1) % 3;
        assert!(ask(holder, 10_500).await, "renewed until 11,500");
        assert!(!ask(other, 11_499).await);
        assert!(ask(other, 11_500).await, "it had ended");
        assert!(!ask(holder, 11_600).await);
        // Each partition has a lease of its own.
        let now = Timestamp::from_millis(11_600);
        assert!(patiently(|| models[holder].lease(Partition::Stream(1), "x", now, 1_000)).await);
        // Of many who find it ended one gets it.
        let granted = join_all((0..3).map(|number| ask(number, 20_000))).await;
        assert_eq!(granted.iter().filter(|granted| **granted).count(), 1, "{granted:?}");
    })
    .await;
}
