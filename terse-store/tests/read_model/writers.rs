//! Several writers: a projector that was paused wakes beside its successor.

use terse_core::ports::clicks::{Batch, Written};
use terse_core::stats::{Partition, Position, Span};

use crate::backends::Backend;
use crate::builders::{checkpoint, journal, key, load_one, of_rows, offset, retired, row, stored, write};

pub(crate) async fn run(backend: &Backend) {
    what_a_zombie_writes_changes_nothing(backend).await;
    if backend.traits.transactional {
        whoever_is_not_attached_is_superseded(backend).await;
        a_superseded_instance_writes_again_when_attached_again(backend).await;
        of_two_that_are_attached_the_first_to_write_goes_on(backend).await;
        reading_and_leasing_supersede_nobody(backend).await;
    }
}

/// A batch that moves all there is to move, as a projector at `number` would write it.
fn everything(text: &str, number: u64) -> Batch {
    let log = Partition::Stream(400);
    Batch {
        rows: vec![(key(text, Span::All), stored(offset(number), row(number)).into())],
        checkpoints: vec![(log, checkpoint(offset(number), number as i64))],
        retired: vec![(log, journal(number as u8), retired(offset(number), 1))],
        ..Batch::default()
    }
}

async fn what_a_zombie_writes_changes_nothing(backend: &Backend) {
    let (log, at) = (Partition::Stream(401), |offset| Position { epoch: 1, offset });
    let step = |number: u64| Batch {
        rows: vec![(key("w-zombie", Span::All), stored(at(number), row(number)).into())],
        checkpoints: vec![(log, checkpoint(at(number), number as i64))],
        ..Batch::default()
    };
    let (zombie, successor) = (backend.attached().await, backend.attached().await);
    write(&*zombie, &step(1)).await;
    successor.attach().await.unwrap();
    for number in 2..6 {
        write(&*successor, &step(number)).await;
    }
    // It goes on where it was, up to where its successor is.
    for number in 2..6 {
        let written = zombie.write(&step(number)).await.unwrap();
        assert_eq!(written == Written::Superseded, backend.traits.transactional);
        assert_eq!(load_one(&*successor, &key("w-zombie", Span::All)).await, Some(stored(at(5), row(5))));
        assert_eq!(successor.checkpoint(log).await.unwrap(), Some(checkpoint(at(5), 5)));
    }
    write(&*successor, &step(6)).await;
}

async fn whoever_is_not_attached_is_superseded(backend: &Backend) {
    let model = backend.open().await;
    assert_eq!(model.write(&everything("w-never", 1)).await.unwrap(), Written::Superseded);
    assert_eq!(load_one(&*model, &key("w-never", Span::All)).await, None);
    let first = checkpoint(Position { epoch: 1, offset: 0 }, 1);
    assert_eq!(model.begin_epoch(Partition::Stream(402), &first).await.unwrap(), None);
    assert_eq!(model.checkpoint(Partition::Stream(402)).await.unwrap(), None);
}

async fn a_superseded_instance_writes_again_when_attached_again(backend: &Backend) {
    let (one, other) = (backend.attached().await, backend.attached().await);
    let mut number = 10;
    for _ in 0..3 {
        for (writer, beside) in [(&one, &other), (&other, &one)] {
            writer.attach().await.unwrap();
            number += 1;
            write(&**writer, &everything("w-again", number)).await;
            let late = everything("w-again", number + 50);
            // Not even when tried again: it has to attach.
            for _ in 0..2 {
                assert_eq!(beside.write(&late).await.unwrap(), Written::Superseded);
            }
            assert_eq!(
                load_one(&**beside, &key("w-again", Span::All)).await,
                Some(stored(offset(number), row(number)))
            );
            assert_eq!(beside.retired(Partition::Stream(400), journal(number as u8 + 50)).await.unwrap(), None);
        }
    }
}

async fn of_two_that_are_attached_the_first_to_write_goes_on(backend: &Backend) {
    let (one, other) = (backend.attached().await, backend.attached().await);
    for number in 100..105 {
        write(&*other, &everything("w-first", number)).await;
        assert_eq!(one.write(&everything("w-first", number + 50)).await.unwrap(), Written::Superseded);
    }
    let first = checkpoint(Position { epoch: 1, offset: 0 }, 1);
    assert_eq!(one.begin_epoch(Partition::Stream(403), &first).await.unwrap(), None);
    // Beginning an epoch is writing, too.
    one.attach().await.unwrap();
    assert_eq!(one.begin_epoch(Partition::Stream(403), &first).await.unwrap(), Some(first));
    assert_eq!(other.write(&everything("w-first", 180)).await.unwrap(), Written::Superseded);
}

async fn reading_and_leasing_supersede_nobody(backend: &Backend) {
    let (writer, reader) = (backend.attached().await, backend.open().await);
    write(&*writer, &of_rows(vec![(key("w-reader", Span::All), stored(offset(1), row(1)))])).await;
    reader.attach().await.unwrap();
    reader.settle_bus(backend.traits.bus).await.unwrap();
    reader.lease(Partition::Stream(404), "reader", crate::builders::NOON, 1).await.unwrap();
    reader.load(&[key("w-reader", Span::All)]).await.unwrap();
    reader.scan(None, 5).await.unwrap();
    reader.checkpoints().await.unwrap();
    write(&*writer, &of_rows(vec![(key("w-reader", Span::All), stored(offset(2), row(2)))])).await;
}
