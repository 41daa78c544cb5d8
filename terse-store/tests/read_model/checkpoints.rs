//! Checkpoints and retired journals.

use terse_core::ports::clicks::{Batch, Checkpoint};
use terse_core::stats::{Partition, Position};

use crate::backends::{Backend, Model};
use crate::builders::{checkpoint, journal, of_checkpoints, offset, retired, write};

pub(crate) async fn run(backend: &Backend) {
    a_checkpoint_comes_back_as_it_went(backend).await;
    partitions_are_told_apart(backend).await;
    all_checkpoints_are_told(backend).await;
    a_checkpoint_never_goes_back(backend).await;
    a_large_set_of_passed_blocks_comes_back(backend).await;
    a_journal_is_retired_per_partition(backend).await;
    the_later_retirement_stands(backend).await;
    a_retired_partition_has_no_checkpoint(backend).await;
    all_of_it_outlives_the_instance(backend).await;
}

/// The checkpoints of `partitions`, in their order.
async fn listed(model: &dyn Model, partitions: &[Partition]) -> Vec<(Partition, Checkpoint)> {
    let mut found = model.checkpoints().await.unwrap();
    found.retain(|(partition, _)| partitions.contains(partition));
    found.sort_by_key(|(partition, _)| *partition);
    found
}

async fn a_checkpoint_comes_back_as_it_went(backend: &Backend) {
    let model = backend.attached().await;
    let partition = Partition::Stream(100);
    assert_eq!(model.checkpoint(partition).await.unwrap(), None);
    for at in [offset(0), offset(1), Position { epoch: 2, offset: 0 }, Position { epoch: 2, offset: 1 << 39 }] {
        let next = checkpoint(at, 3);
        write(&*model, &of_checkpoints(vec![(partition, next.clone())])).await;
        assert_eq!(model.checkpoint(partition).await.unwrap(), Some(next));
    }
    let mut last = checkpoint(Position { epoch: 3, offset: 0 }, 0);
    (last.anchor.seq, last.passed) = (u64::MAX, vec![]);
    write(&*model, &of_checkpoints(vec![(partition, last.clone())])).await;
    assert_eq!(model.checkpoint(partition).await.unwrap(), Some(last));
}

async fn partitions_are_told_apart(backend: &Backend) {
    let model = backend.attached().await;
    let partitions = [
        Partition::Stream(101),
        Partition::Stream(102),
        Partition::Journal(journal(101)),
        Partition::Journal(journal(102)),
    ];
    let each = partitions.iter().zip(1..).map(|(partition, number)| (*partition, checkpoint(offset(number), 0)));
    write(&*model, &of_checkpoints(each.clone().collect())).await;
    for (partition, expected) in each {
        assert_eq!(model.checkpoint(partition).await.unwrap(), Some(expected), "{partition}");
    }
}

async fn all_checkpoints_are_told(backend: &Backend) {
    let model = backend.attached().await;
    let partitions = [Partition::Stream(110), Partition::Stream(9), Partition::Journal(journal(110))];
    assert_eq!(listed(&*model, &partitions).await, []);
    let mut each: Vec<_> =
        partitions.iter().zip(1..).map(|(partition, number)| (*partition, checkpoint(offset(number), 0))).collect();
    write(&*model, &of_checkpoints(each.clone())).await;
    each.sort_by_key(|(partition, _)| *partition);
    assert_eq!(listed(&*model, &partitions).await, each);
}

async fn a_checkpoint_never_goes_back(backend: &Backend) {
    let model = backend.attached().await;
    let partition = Partition::Stream(111);
    let latest = checkpoint(Position { epoch: 1, offset: 5 }, 9);
    write(&*model, &of_checkpoints(vec![(partition, latest.clone())])).await;
    for earlier in [offset(0), offset(9_999), Position { epoch: 1, offset: 4 }] {
        write(&*model, &of_checkpoints(vec![(partition, checkpoint(earlier, 1))])).await;
        assert_eq!(model.checkpoint(partition).await.unwrap().as_ref(), Some(&latest), "{earlier:?}");
    }
}

async fn a_large_set_of_passed_blocks_comes_back(backend: &Backend) {
    let model = backend.attached().await;
    let partition = Partition::Stream(112);
    let bytes = (0..100_000_u32).map(|number| number as u8).collect();
    let large = Checkpoint { passed: bytes, ..checkpoint(offset(1), 0) };
    write(&*model, &of_checkpoints(vec![(partition, large.clone())])).await;
    assert_eq!(model.checkpoint(partition).await.unwrap(), Some(large));
}

async fn a_journal_is_retired_per_partition(backend: &Backend) {
    let model = backend.attached().await;
    let (one, other) = (Partition::Stream(120), Partition::Stream(121));
    assert_eq!(model.retired(one, journal(120)).await.unwrap(), None);
    let batch = Batch {
        checkpoints: vec![(one, checkpoint(offset(8), 8))],
        retired: vec![(one, journal(120), retired(offset(7), 7)), (other, journal(121), retired(offset(9), 9))],
        ..Batch::default()
    };
    write(&*model, &batch).await;
    assert_eq!(model.retired(one, journal(120)).await.unwrap(), Some(retired(offset(7), 7)));
    assert_eq!(model.retired(other, journal(121)).await.unwrap(), Some(retired(offset(9), 9)));
    assert_eq!(model.retired(one, journal(121)).await.unwrap(), None);
    assert_eq!(model.retired(other, journal(120)).await.unwrap(), None);
    assert_eq!(model.checkpoint(one).await.unwrap(), Some(checkpoint(offset(8), 8)), "a stream goes on");
}

async fn the_later_retirement_stands(backend: &Backend) {
    let model = backend.attached().await;
    let partition = Partition::Stream(122);
    let retire =
        |at| Batch { retired: vec![(partition, journal(122), retired(offset(at), at as i64))], ..Batch::default() };
    for (at, standing) in [(4, 4), (2, 4), (6, 6), (6, 6), (5, 6)] {
        write(&*model, &retire(at)).await;
        let expected = retired(offset(standing), standing as i64);
        assert_eq!(model.retired(partition, journal(122)).await.unwrap(), Some(expected));
    }
}

async fn a_retired_partition_has_no_checkpoint(backend: &Backend) {
    if backend.traits.bus != terse_core::ports::clicks::Bus::Local {
        return; // There, no partition is a journal.
    }
    let model = backend.attached().await;
    let (gone, stays) = (Partition::Journal(journal(130)), Partition::Journal(journal(131)));
    let both = vec![(gone, checkpoint(offset(3), 1)), (stays, checkpoint(offset(3), 1))];
    write(&*model, &of_checkpoints(both)).await;
    let retire = Batch { retired: vec![(gone, journal(130), retired(offset(3), 1))], ..Batch::default() };
    write(&*model, &retire).await;
    assert_eq!(model.checkpoint(gone).await.unwrap(), None);
    assert_eq!(model.retired(gone, journal(130)).await.unwrap(), Some(retired(offset(3), 1)));
    assert_eq!(listed(&*model, &[gone, stays]).await, [(stays, checkpoint(offset(3), 1))]);
}

async fn all_of_it_outlives_the_instance(backend: &Backend) {
    let model = backend.attached().await;
    let partition = Partition::Stream(140);
    let batch = Batch {
        checkpoints: vec![(partition, checkpoint(offset(8), 8))],
        retired: vec![(partition, journal(140), retired(offset(7), 7))],
        ..Batch::default()
    };
    write(&*model, &batch).await;
    drop(model);
    let model = backend.open().await;
    assert_eq!(model.checkpoint(partition).await.unwrap(), Some(checkpoint(offset(8), 8)));
    assert_eq!(model.retired(partition, journal(140)).await.unwrap(), Some(retired(offset(7), 7)));
}
