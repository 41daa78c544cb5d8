//! `begin_epoch`.

use terse_core::stats::{Partition, Position};

use crate::backends::Backend;
use crate::builders::{checkpoint, of_checkpoints, write};
use crate::race::race;

pub(crate) async fn run(backend: &Backend) {
    an_epoch_begins_with_its_first_checkpoint(backend).await;
    an_epoch_that_began_stays_as_it_began(backend).await;
    of_many_that_begin_an_epoch_all_hear_of_one_beginning(backend).await;
}

const fn begin_of(epoch: u16) -> Position {
    Position { epoch, offset: 0 }
}

async fn an_epoch_begins_with_its_first_checkpoint(backend: &Backend) {
    let model = backend.attached().await;
    let partition = Partition::Stream(200);
    for epoch in 1..=3 {
        let last = checkpoint(Position { epoch: epoch - 1, offset: 70 }, 1);
        write(&*model, &of_checkpoints(vec![(partition, last)])).await;
        let first = checkpoint(begin_of(epoch), 2);
        assert_eq!(model.begin_epoch(partition, &first).await.unwrap(), Some(first.clone()));
        assert_eq!(model.checkpoint(partition).await.unwrap(), Some(first));
    }
}

async fn an_epoch_that_began_stays_as_it_began(backend: &Backend) {
    let model = backend.attached().await;
    let (partition, other) = (Partition::Stream(201), Partition::Stream(202));
    let first = checkpoint(begin_of(1), 5);
    model.begin_epoch(partition, &first).await.unwrap();
    let again = checkpoint(begin_of(1), 6);
    assert_eq!(model.begin_epoch(partition, &again).await.unwrap(), Some(first.clone()));
    assert_eq!(model.checkpoint(partition).await.unwrap(), Some(first.clone()));
    // The partition went on: its checkpoint doesn't go back.
    let later = checkpoint(Position { epoch: 1, offset: 3 }, 7);
    write(&*model, &of_checkpoints(vec![(partition, later.clone())])).await;
    assert_eq!(model.begin_epoch(partition, &again).await.unwrap(), Some(first));
    assert_eq!(model.checkpoint(partition).await.unwrap(), Some(later));
    assert_eq!(model.begin_epoch(other, &again).await.unwrap(), Some(again), "each partition has its own");
}

async fn of_many_that_begin_an_epoch_all_hear_of_one_beginning(backend: &Backend) {
    let partition = Partition::Stream(203);
    let answers = race(6, |number| {
        let backend = backend.clone();
        async move {
            let first = checkpoint(begin_of(1), number as i64);
            loop {
                let model = backend.attached().await;
                // Superseded ones attach again, and at most five are ahead of each.
                if let Some(begun) = model.begin_epoch(partition, &first).await.unwrap() {
                    return begun;
                }
            }
        }
    })
    .await;
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    let standing = backend.open().await.checkpoint(partition).await.unwrap();
    assert_eq!(standing.as_ref(), Some(&answers[0]));
}
