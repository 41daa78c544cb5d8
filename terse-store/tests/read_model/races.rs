//! Many at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use terse_core::ports::clicks::{Batch, Bus, Written};
use terse_core::stats::{Partition, Position, Span};
use terse_testkit::links::code;

use crate::backends::Backend;
use crate::builders::{checkpoint, key, load_one, of_rows, offset, row, stored, write};
use crate::race::race;

pub(crate) async fn run(backend: &Backend) {
    batches_of_one_instance_all_stand(backend).await;
    writers_that_supersede_each_other_lose_no_click(backend).await;
    if backend.traits.transactional {
        a_reader_sees_all_of_a_batch_or_none(backend).await;
    }
}

/// Settles the bus for the groups that follow.
pub(crate) async fn run_before_the_bus_is_settled(backend: &Backend) {
    let wanted = [backend.traits.bus, Bus::Streams { partitions: 7 }, Bus::Streams { partitions: 256 }];
    let first = backend.open().await.settle_bus(backend.traits.bus).await.unwrap();
    assert_eq!(first, backend.traits.bus);
    let stands = race(6, |number| {
        let (backend, bus) = (backend.clone(), wanted[number % wanted.len()]);
        async move { backend.open().await.settle_bus(bus).await.unwrap() }
    })
    .await;
    assert!(stands.iter().all(|bus| *bus == backend.traits.bus), "{stands:?}");
}

async fn batches_of_one_instance_all_stand(backend: &Backend) {
    let model = backend.attached().await;
    let written = race(8, |number| {
        let model = Arc::clone(&model);
        async move {
            for step in 0..5 {
                let batch = of_rows(vec![(key(&format!("x-{number}"), Span::All), stored(offset(step), row(step)))]);
                write(&*model, &batch).await;
            }
        }
    })
    .await;
    for number in 0..written.len() {
        let found = load_one(&*model, &key(&format!("x-{number}"), Span::All)).await;
        assert_eq!(found, Some(stored(offset(4), row(4))));
    }
}

/// Each writer counts one click at each turn, by the rules of a projector: read
/// the checkpoint and the row, write both one further, start over if superseded.
async fn writers_that_supersede_each_other_lose_no_click(backend: &Backend) {
    if !backend.traits.transactional {
        return; // Positions order the writers there: each offset has its own click, whoever writes it.
    }
    const TURNS: u64 = 12;
    let log = Partition::Stream(500);
    race(4, |_| {
        let backend = backend.clone();
        async move {
            let model = backend.open().await;
            let mut turns = 0;
            while turns < TURNS {
                model.attach().await.unwrap();
                let at = model.checkpoint(log).await.unwrap().map_or(0, |checkpoint| checkpoint.at.offset);
                let counted = load_one(&*model, &key("x-turns", Span::All)).await.map_or(0, |found| found.row.clicks);
                let batch = Batch {
                    rows: vec![(key("x-turns", Span::All), stored(Position::default(), row(counted + 1)).into())],
                    checkpoints: vec![(log, checkpoint(offset(at + 1), 0))],
                    ..Batch::default()
                };
                turns += u64::from(model.write(&batch).await.unwrap() == Written::Stands);
            }
        }
    })
    .await;
    let model = backend.open().await;
    assert_eq!(model.overall(&code("x-turns")).await.unwrap(), Some(row(4 * TURNS)));
    assert_eq!(model.checkpoint(log).await.unwrap(), Some(checkpoint(offset(4 * TURNS), 0)));
}

async fn a_reader_sees_all_of_a_batch_or_none(backend: &Backend) {
    let (writer, reader) = (backend.attached().await, backend.open().await);
    let keys: Vec<_> = (0..200).map(|number| key(&format!("x-whole{number}"), Span::Day(1))).collect();
    let done = Arc::new(AtomicBool::new(false));
    let reading = {
        let (keys, done) = (keys.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let mut last = None;
            while !done.load(Ordering::SeqCst) {
                let found = reader.load(&keys).await.unwrap();
                let clicks = found[0].as_ref().map(|stored| stored.row.clicks);
                assert!(found.iter().all(|found| found.as_ref().map(|stored| stored.row.clicks) == clicks));
                assert!(last <= clicks, "it went back");
                last = clicks;
            }
            last
        })
    };
    for number in 1..=50 {
        let rows = keys.iter().map(|key| (key.clone(), stored(offset(number), row(number))));
        write(&*writer, &of_rows(rows.collect())).await;
    }
    done.store(true, Ordering::SeqCst);
    assert!(reading.await.unwrap() <= Some(50));
}
