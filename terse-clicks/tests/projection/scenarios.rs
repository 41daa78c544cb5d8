//! The scenarios against which each rule of the click log stands.

use std::time::Duration;

use futures_util::FutureExt;
use terse_clicks::log::Body;
use terse_clicks::part::{Part, PartHeader};
use terse_clicks::projector::{MAX_BATCH_ROWS, MAX_PARTITIONS, Projector, ProjectorError};
use terse_core::ShortCode;
use terse_core::ports::clicks::{Bus, ReadModel};
use terse_core::stats::{Partition, Position, RowKey, Span};
use terse_testkit::clicks::{ClickStoreKind, Mishaps};
use tokio::sync::watch;

use crate::lines::logged;
use crate::world::{PERSON, PROGRAM, Told, World, block, clicks, journal, version};

const STREAM: Partition = Partition::Stream(0);
const WEEKS: Duration = Duration::from_secs(60 * 60 * 24 * 30);

fn all(code: &str) -> RowKey {
    RowKey { code: ShortCode::parse(code).unwrap(), span: Span::All }
}

fn both() -> [World; 2] {
    [World::of_streams(3), World::local()]
}

/// What the world's projector reports.
fn report(projector: &Projector) -> terse_clicks::projector::ProgressReport {
    projector.progress().report()
}

#[test]
fn clicks_of_a_block_are_counted() {
    for mut world in both() {
        let told = Told { code: "abc", at_ms: 90_000_000, agent: PROGRAM, visitor: 1 };
        world.publish(&block(journal(1), 0, &[clicks("abc", 3), clicks("x", 2), vec![told]].concat()));
        let projector = world.drain_anew();
        world.check();
        assert_eq!((world.counted("abc"), world.counted("x")), (4, 2));
        let row = &world.store.rows()[&all("abc")];
        assert_eq!((row.clicks, row.bots), (3, 1));
        let report = report(&projector);
        assert_eq!((report.applied, report.faults, report.stopped), (6, 0, 0));
        assert_eq!(report.newest_applied.unwrap().as_millis(), 1_000);
        assert_eq!(report.lag_ms(world.now()), 0);
    }
}

#[test]
fn a1_a_new_start_of_a_process_counts_the_same_sequence_numbers_again() {
    for mut world in both() {
        world.publish(&block(journal(1), 0, &clicks("abc", 3)));
        world.publish(&block(journal(2), 0, &clicks("abc", 3)));
        world.drain_anew();
        assert_eq!(world.counted("abc"), 6);
    }
}

#[test]
fn a2_a_block_that_is_not_the_one_of_its_place_is_put_aside() {
    let mut world = World::local();
    let partition = Partition::Journal(journal(1));
    world.publish(&block(journal(1), 0, &clicks("abc", 3)));
    world.log.push(partition, Body::Part(block(journal(1), 7, &clicks("abc", 3))));
    world.log.push(partition, Body::Part(block(journal(2), 2, &clicks("abc", 3))));
    world.publish(&block(journal(1), 3, &clicks("abc", 1)));
    world.drain_anew();
    assert_eq!(world.counted("abc"), 4);
    assert_eq!(world.log.dead().len(), 2);
}

#[test]
fn a3_a_part_confirmed_late_counts_once() {
    let mut world = World::of_streams(2);
    let late = block(journal(1), 0, &clicks("abc", 3));
    for part in [&block(journal(1), 1, &clicks("abc", 1)), &late, &block(journal(1), 2, &[]), &late] {
        world.publish(part);
    }
    world.drain_anew();
    assert_eq!(world.counted("abc"), 4);
    world.publish(&late);
    world.drain_anew();
    world.check();
    assert_eq!(world.counted("abc"), 4);
}

#[test]
fn a4_a_longer_version_of_a_recovered_block_adds_only_the_records_beyond() {
    for restarts in [false, true] {
        let mut world = World::of_streams(1);
        let told = clicks("abc", 200);
        world.publish(&version(journal(1), 0, &told[..50], true, false));
        if restarts {
            world.drain_anew();
            assert_eq!(world.counted("abc"), 50);
        }
        world.publish(&block(journal(1), 0, &told));
        world.publish(&version(journal(1), 0, &told[..50], true, false));
        world.drain_anew();
        assert_eq!(world.counted("abc"), 200);
        world.check();
    }
}

#[test]
fn a4_a_copy_that_was_recovered_and_retired_leaves_the_original_its_records() {
    let mut world = World::of_streams(1);
    let told = clicks("abc", 200);
    world.publish(&version(journal(1), 0, &told[..50], true, false));
    world.publish(&version(journal(1), 1, &[], true, true));
    world.drain_anew();
    assert!(world.store.retired_of(STREAM, journal(1)).is_some());
    world.publish(&block(journal(1), 0, &told));
    world.publish(&block(journal(1), 1, &clicks("abc", 7)));
    world.publish(&version(journal(1), 2, &[], false, true));
    world.drain_anew();
    assert_eq!(world.counted("abc"), 207);
    world.check();
}

#[test]
fn a5_another_message_at_the_checkpoint_begins_an_epoch_and_counts_the_new_log() {
    for kind in [ClickStoreKind::Positions, ClickStoreKind::Transactions] {
        let mut world = World::new(Bus::Streams { partitions: 1 }, kind, 1);
        for seq in 0..3 {
            world.publish(&block(journal(1), seq, &clicks("abc", 1)));
        }
        world.drain_anew();
        world.log.delete(STREAM);
        for seq in 3..8 {
            world.publish(&block(journal(1), seq, &clicks("abc", 1)));
        }
        world.publish(&block(journal(1), 1, &clicks("abc", 1)));
        let projector = world.drain_anew();
        assert_eq!(world.counted("abc"), 8, "what was passed stays passed");
        assert_eq!(report(&projector).epochs, 1);
        assert_eq!(world.store.checkpoint_of(STREAM).unwrap().at, Position { epoch: 1, offset: 5 });
        let projector = world.drain_anew();
        assert_eq!((world.counted("abc"), report(&projector).epochs), (8, 0));
    }
}

#[test]
fn a5_a_log_shorter_than_the_checkpoint_is_another_log() {
    let mut world = World::of_streams(1);
    for seq in 0..9 {
        world.publish(&block(journal(1), seq, &clicks("abc", 1)));
    }
    world.drain_anew();
    world.log.delete(STREAM);
    world.publish(&block(journal(1), 9, &clicks("abc", 1)));
    world.log.declare(STREAM);
    world.early = 3;
    let projector = world.drain_anew();
    assert_eq!((world.counted("abc"), report(&projector).epochs), (10, 1));
}

#[test]
fn a5_all_projectors_begin_an_epoch_alike() {
    let mut world = World::of_streams(1);
    world.publish(&block(journal(1), 0, &clicks("abc", 1)));
    world.drain_anew();
    world.log.delete(STREAM);
    for seq in 1..5 {
        world.publish(&block(journal(2), seq, &clicks("abc", 1)));
    }
    world.store.let_everyone_lead();
    let (mut first, mut second) = (world.process(), world.process());
    for _ in 0..20 {
        world.step(&mut first);
        world.step(&mut second);
    }
    world.drain(&mut second);
    world.drain(&mut first);
    assert_eq!(world.counted("abc"), 5);
    assert_eq!(world.store.checkpoint_of(STREAM).unwrap().at.epoch, 1);
}

#[test]
fn a5_a_log_that_begins_behind_the_checkpoint_stops_the_partition_with_an_alarm() {
    let mut world = World::of_streams(2);
    let (here, there) = ("abc", "x");
    assert_ne!(Partition::of(here, 2), Partition::of(there, 2));
    let told = [clicks(here, 1), clicks(there, 1)].concat();
    for seq in 0..3 {
        world.publish(&block(journal(1), seq, &told));
    }
    world.drain_anew();
    for seq in 3..9 {
        world.publish(&block(journal(1), seq, &told));
    }
    world.log.forget_before(Partition::of(here, 2), 5);
    let projector = world.drain_anew();
    assert_eq!((world.counted(here), world.counted(there)), (3, 9), "the other partition goes on");
    assert_eq!(report(&projector).stopped, 1);
}

#[test]
fn a5_a_message_at_the_checkpoint_that_only_a_newer_build_can_read_is_no_other_log() {
    let mut world = World::of_streams(1);
    let last = block(journal(1), 2, &clicks("abc", 1));
    for part in [&block(journal(1), 0, &clicks("abc", 1)), &block(journal(1), 1, &clicks("abc", 1)), &last] {
        world.publish(part);
    }
    world.drain_anew();
    // Back to the build before, which doesn't know the format of the last one.
    world.log.take_for(STREAM, 2, Body::Newer(9));
    let projector = world.drain_anew();
    assert_eq!((report(&projector).epochs, report(&projector).stopped), (0, 1), "it waits");
    world.log.take_for(STREAM, 2, Body::Part(last));
    world.publish(&block(journal(1), 3, &clicks("abc", 1)));
    let projector = world.drain_anew();
    assert_eq!((world.counted("abc"), report(&projector).epochs), (4, 0));
}

#[test]
fn a5_a_message_at_the_checkpoint_that_was_put_aside_and_can_be_read_now_is_no_other_log() {
    let mut world = World::of_streams(1);
    world.publish(&block(journal(1), 0, &clicks("abc", 1)));
    let part = block(journal(1), 1, &clicks("abc", 1));
    world.log.push(STREAM, Body::Undecodable { bytes: part.encode(), reason: "flags of tomorrow".into() });
    world.drain_anew();
    world.log.take_for(STREAM, 1, Body::Part(part.clone()));
    let projector = world.drain_anew();
    assert_eq!((world.counted("abc"), report(&projector).epochs), (1, 0));
    // An operator has it counted after all.
    world.publish(&part);
    let projector = world.drain_anew();
    assert_eq!((world.counted("abc"), report(&projector).epochs), (2, 0));
}

#[test]
fn a6_what_is_delivered_before_the_checkpoint_is_dropped() {
    let mut world = World::of_streams(1);
    for seq in 0..6 {
        world.publish(&block(journal(1), seq, &clicks("abc", 1)));
    }
    world.log.push(STREAM, Body::Undecodable { bytes: "garbage".into(), reason: "garbage".into() });
    world.drain_anew();
    world.early = 4;
    world.publish(&block(journal(1), 6, &clicks("abc", 1)));
    let projector = world.drain_anew();
    assert_eq!((world.counted("abc"), report(&projector).epochs), (7, 0));
    assert_eq!(world.log.dead().len(), 1, "nor is it put aside twice");
}

#[test]
fn a7_a_projector_that_wakes_beside_its_successor_changes_nothing() {
    for mut world in [
        World::of_streams(1),
        World::new(Bus::Streams { partitions: 1 }, ClickStoreKind::Transactions, 1),
        World::local(),
    ] {
        world.store.let_everyone_lead();
        world.publish(&block(journal(1), 0, &clicks("abc", 1)));
        let mut zombie = world.process();
        world.drain(&mut zombie);
        world.publish(&block(journal(1), 1, &clicks("abc", 1)));
        // It has added the second block, and not written it, when it stops.
        let added = world.step(&mut zombie).unwrap();
        assert_eq!((added.added, added.wrote), (1, false));
        let mut successor = world.process();
        world.drain(&mut successor);
        world.publish(&block(journal(1), 2, &clicks("abc", 1)));
        world.drain(&mut successor);
        world.drain(&mut zombie);
        world.publish(&block(journal(1), 3, &clicks("abc", 1)));
        world.drain(&mut zombie);
        world.drain(&mut successor);
        assert_eq!(world.counted("abc"), 4);
        world.check();
    }
}

#[test]
fn a7_a_zombie_that_missed_the_end_of_a_journal_writes_nothing_without_its_clicks() {
    let mut world = World::of_streams(1);
    world.store.let_everyone_lead();
    world.publish(&block(journal(1), 0, &clicks("abc", 1)));
    let mut zombie = world.process();
    world.drain(&mut zombie);
    // The successor counts a whole other journal and retires it.
    world.publish(&block(journal(2), 0, &clicks("abc", 5)));
    world.publish(&block(journal(1), 1, &clicks("abc", 1)));
    world.publish(&version(journal(2), 1, &[], false, true));
    let mut successor = world.process();
    world.drain(&mut successor);
    assert!(world.store.retired_of(STREAM, journal(2)).is_some());
    // To the zombie that journal is passed, although its rows in play lack it.
    world.drain(&mut zombie);
    world.publish(&block(journal(1), 2, &clicks("abc", 1)));
    world.drain(&mut zombie);
    assert_eq!(world.counted("abc"), 8);
    world.check();
}

#[test]
fn a7_who_lost_the_lease_stops_and_who_gets_it_goes_on() {
    for mut world in both() {
        world.publish(&block(journal(1), 0, &clicks("abc", 1)));
        let (mut first, mut second) = (world.process(), world.process());
        world.drain(&mut first);
        world.drain(&mut second);
        assert_eq!((report(&first).held > 0, report(&second).held), (true, 0));
        // The first sleeps longer than its lease lasts.
        world.clock.advance(Duration::from_millis(world.config.lease_ms));
        world.publish(&block(journal(1), 1, &clicks("abc", 1)));
        world.drain(&mut second);
        world.drain(&mut first);
        assert_eq!((report(&first).held, report(&second).held > 0), (0, true));
        assert_eq!(world.counted("abc"), 2);
        // The second ends in order, and the first need not wait.
        second.finish().now_or_never().unwrap().unwrap();
        world.publish(&block(journal(1), 2, &clicks("abc", 1)));
        world.drain(&mut first);
        assert_eq!(world.counted("abc"), 3);
        world.check();
    }
}

#[test]
fn a7_where_writes_are_transactions_one_lease_is_for_all_streams() {
    let mut world = World::of_streams(3);
    world.config.one_lease = true;
    let (mut first, mut second) = (world.process(), world.process());
    world.publish(&block(journal(1), 0, &clicks("abc", 1)));
    world.drain(&mut first);
    world.drain(&mut second);
    assert_eq!((report(&first).held, report(&second).held), (3, 0));
    world.clock.advance(Duration::from_millis(world.config.lease_ms));
    world.publish(&block(journal(1), 1, &clicks("abc", 1)));
    world.drain(&mut second);
    world.drain(&mut first);
    assert_eq!((report(&first).held, report(&second).held), (0, 3), "all of them, and at once");
    assert_eq!(world.counted("abc"), 2);
    world.check();
}

#[test]
fn a8_a_read_model_is_for_one_bus_and_one_number_of_partitions_for_ever() {
    let mut world = World::of_streams(2);
    world.drain_anew();
    for bus in [Bus::Local, Bus::Streams { partitions: 3 }] {
        world.config.bus = bus;
        let refused = world.process().run_once(0).now_or_never().unwrap();
        assert_eq!(refused, Err(ProjectorError::OtherBus { stands: world.bus, asked: bus }));
    }
}

#[test]
fn a8_a_part_of_another_number_of_partitions_is_put_aside() {
    let mut world = World::of_streams(2);
    let whole = block(journal(1), 0, &[clicks("abc", 1), clicks("x", 1)].concat());
    let foreign = [
        whole.split(3).remove(0),
        whole.split(2).remove(1),
        whole.clone(),
        // It says that it belongs here, and a click of it doesn't.
        Part::of_frames(
            PartHeader { partition: 0, partitions: 2, ..whole.header },
            whole.frames().flat_map(|frame| frame.bytes.to_vec()).collect(),
        )
        .unwrap(),
    ];
    for part in &foreign {
        world.log.push(STREAM, Body::Part(part.clone()));
    }
    world.publish(&whole);
    world.drain_anew();
    assert_eq!((world.counted("abc"), world.counted("x")), (1, 1));
    assert_eq!(world.log.dead().len(), foreign.len());
}

#[test]
fn a9_a_dead_letter_is_a_barrier_and_counts_once_when_it_is_requeued() {
    let mut world = World::of_streams(1);
    let one = || clicks("abc", 1);
    world.publish(&block(journal(1), 0, &one()));
    world.log.push(STREAM, Body::Undecodable { bytes: "block 1".into(), reason: "garbage".into() });
    world.publish(&block(journal(1), 2, &one()));
    // It can't be put aside now: nothing behind it may be counted.
    let mut projector = world.process();
    world.step(&mut projector);
    world.drain(&mut projector);
    assert_eq!((world.counted("abc"), world.log.dead().len()), (2, 1));
    world.publish(&block(journal(1), 1, &one()));
    world.publish(&block(journal(1), 1, &one()));
    world.drain_anew();
    assert_eq!((world.counted("abc"), world.log.dead().len()), (3, 1));
}

#[test]
fn a9_nothing_behind_a_message_counts_before_it_is_put_aside() {
    let mut world = World::of_streams(1);
    world.publish(&block(journal(1), 0, &clicks("abc", 1)));
    world.log.push(STREAM, Body::Undecodable { bytes: "block 1".into(), reason: "garbage".into() });
    world.publish(&block(journal(1), 2, &clicks("abc", 1)));
    let mut projector = world.process();
    let mut steps = 0;
    while world.counted("abc") < 2 {
        world.log.suffer(600);
        world.step(&mut projector);
        assert!(world.counted("abc") < 2 || world.log.dead().len() == 1);
        if world.log.dead().is_empty() && world.counted("abc") == 1 {
            let at = world.store.checkpoint_of(STREAM).map(|checkpoint| checkpoint.at.offset);
            assert_eq!(at, Some(0), "rows and checkpoint up to the message stand");
        }
        steps += 1;
        assert!(steps < 1_000);
    }
    assert_eq!(world.log.dead().len(), 1);
}

#[test]
fn a9_nothing_is_put_aside_before_what_is_in_front_of_it_stands() {
    let mut world = World::local();
    let partition = Partition::Journal(journal(1));
    world.publish(&block(journal(1), 0, &clicks("abc", 1)));
    let mut projector = world.process();
    world.drain(&mut projector);
    world.publish(&block(journal(1), 1, &clicks("abc", 1)));
    world.log.push(partition, Body::Undecodable { bytes: "block 2".into(), reason: "garbage".into() });
    world.store.suffer(Mishaps { faults: 1_000, deaths: 0 });
    for _ in 0..30 {
        world.step(&mut projector);
    }
    assert_eq!(world.log.dead().len(), 0, "it isn't known whether any write stands");
    world.store.suffer(Mishaps::default());
    world.drain(&mut projector);
    assert_eq!((world.counted("abc"), world.log.dead().len()), (2, 1));
}

#[test]
fn a9_a_newer_format_waits_and_other_partitions_go_on() {
    let mut world = World::of_streams(2);
    let (here, there) = ("abc", "x");
    let told = [clicks(here, 1), clicks(there, 1)].concat();
    world.publish(&block(journal(1), 0, &told));
    world.log.push(Partition::of(here, 2), Body::Newer(2));
    world.publish(&block(journal(1), 1, &told));
    let projector = world.drain_anew();
    assert_eq!((world.counted(here), world.counted(there)), (1, 2));
    assert_eq!((report(&projector).stopped, world.log.dead().len()), (1, 0));
    // A newer build has the lease at once.
    let now = world.now();
    let writer = world.store.writer();
    let lease = writer.lease(Partition::of(here, 2), "newer build", now, 1_000);
    assert!(lease.now_or_never().unwrap().unwrap());
}

#[test]
fn a10_a_journal_that_ended_leaves_the_checkpoint_and_is_known_after_weeks() {
    let mut world = World::of_streams(1);
    let blocks = [block(journal(1), 0, &clicks("abc", 3)), version(journal(1), 1, &[], false, true)];
    blocks.iter().for_each(|part| world.publish(part));
    world.publish(&block(journal(2), 0, &clicks("abc", 1)));
    world.drain_anew();
    let checkpoint = world.store.checkpoint_of(STREAM).unwrap();
    assert!(!checkpoint.passed.windows(16).any(|bytes| bytes == journal(1).0), "the checkpoint speaks of it");
    assert!(checkpoint.passed.windows(16).any(|bytes| bytes == journal(2).0));
    assert!(world.store.retired_of(STREAM, journal(1)).is_some());
    world.clock.advance(WEEKS);
    blocks.iter().for_each(|part| world.publish(part));
    world.drain_anew();
    assert_eq!(world.counted("abc"), 4);
    world.check();
}

#[test]
fn a10_a_part_of_a_journal_that_was_retired_in_the_same_batch_is_known() {
    let mut world = World::of_streams(1);
    let blocks = [block(journal(1), 0, &clicks("abc", 3)), version(journal(1), 1, &[], false, true)];
    for _ in 0..9 {
        blocks.iter().for_each(|part| world.publish(part));
        // It makes the projector write, and so retire the journal, while more of the batch is pending.
        world.log.push(STREAM, Body::Undecodable { bytes: "garbage".into(), reason: "garbage".into() });
    }
    world.drain_anew();
    assert_eq!(world.counted("abc"), 3);
}

#[test]
fn a10_a_checkpoint_stays_small_however_many_journals_never_end() {
    let mut world = World::of_streams(1);
    let number = |n: u16| terse_core::click::JournalId(u128::from(n).to_be_bytes());
    for n in 0..1_000 {
        world.publish(&block(number(n), 0, &clicks("abc", 1)));
    }
    world.drain_anew();
    let bytes = world.store.checkpoint_of(STREAM).unwrap().passed.len();
    assert!(bytes < 256 * 32, "{bytes} bytes");
    for n in (0..1_000).step_by(7) {
        world.publish(&block(number(n), 0, &clicks("abc", 1)));
    }
    world.drain_anew();
    assert_eq!(world.counted("abc"), 1_000);
}

#[test]
fn a10_a_journal_on_the_local_bus_has_no_checkpoint_after_its_end() {
    let mut world = World::local();
    let partition = Partition::Journal(journal(1));
    world.publish(&block(journal(1), 0, &clicks("abc", 3)));
    world.publish(&version(journal(1), 1, &[], false, true));
    world.publish(&block(journal(2), 0, &clicks("abc", 1)));
    let mut projector = world.process();
    world.drain(&mut projector);
    assert_eq!((world.store.checkpoints_len(), report(&projector).held), (1, 1));
    assert_eq!(world.log.passed(partition), Some(1));
    assert!(world.store.retired_of(partition, journal(1)).is_some());
    // It is still there after a restart, or is there again.
    drop(projector);
    world.drain_anew();
    assert_eq!(world.counted("abc"), 4);
    world.check();
}

#[test]
fn a10_a_death_between_retiring_a_journal_and_telling_its_log_leaves_nothing_behind() {
    let mut world = World::local();
    let partition = Partition::Journal(journal(1));
    for seq in 0..3 {
        world.publish(&block(journal(1), seq, &clicks("abc", 1)));
    }
    world.drain_anew();
    world.publish(&version(journal(1), 3, &[], false, true));
    world.clock.advance(Duration::from_millis(world.config.lease_ms));
    let mut projector = world.process();
    assert_eq!(world.step(&mut projector).unwrap().taken, 1);
    world.log.suffer(1_000);
    while world.store.retired_of(partition, journal(1)).is_none() {
        world.step(&mut projector);
    }
    assert_eq!(world.log.passed(partition), Some(2), "the log was not told");
    drop(projector);
    world.log.suffer(0);
    // What was passed was used again, so the journal can't be read from its beginning.
    world.log.forget_before(partition, 2);
    let projector = world.drain_anew();
    assert_eq!((world.counted("abc"), world.log.passed(partition)), (3, Some(3)));
    let report = report(&projector);
    assert_eq!((report.stopped, report.held), (0, 0));
}

#[test]
fn a10_a_longer_version_of_a_retired_journal_adds_its_records_on_the_local_bus() {
    let mut world = World::local();
    let told = clicks("abc", 20);
    world.publish(&version(journal(1), 0, &told[..5], true, false));
    world.publish(&version(journal(1), 1, &[], true, true));
    world.drain_anew();
    assert_eq!(world.counted("abc"), 5);
    world.log.delete(Partition::Journal(journal(1)));
    world.publish(&block(journal(1), 0, &told));
    for seq in 1..20 {
        world.publish(&block(journal(1), seq, &clicks("abc", 1)));
    }
    world.publish(&version(journal(1), 20, &[], false, true));
    world.config.read_bytes = 1;
    world.drain_anew();
    assert_eq!(world.counted("abc"), 39);
    world.check();
}

#[test]
fn a11_missing_sequence_numbers_of_a_recovered_journal_stall_nothing() {
    let mut world = World::local();
    for seq in [0, 2, 7] {
        world.publish(&block(journal(1), seq, &clicks("abc", 1)));
    }
    world.publish(&version(journal(1), 9, &[], true, true));
    let projector = world.drain_anew();
    assert_eq!((world.counted("abc"), report(&projector).held), (3, 0));
}

#[test]
fn a11_a_journal_without_an_end_block_is_retired_when_the_log_says_that_nothing_is_left() {
    let mut world = World::local();
    world.publish(&block(journal(1), 0, &clicks("abc", 1)));
    world.log.declare(Partition::Journal(journal(2)));
    let mut projector = world.process();
    world.drain(&mut projector);
    assert_eq!(report(&projector).held, 2);
    world.log.end(journal(1));
    world.log.end(journal(2));
    world.drain(&mut projector);
    assert_eq!((report(&projector).held, world.store.checkpoints_len()), (0, 0));
    assert!(world.store.retired_of(Partition::Journal(journal(2)), journal(2)).is_some());
}

#[test]
fn a12_rows_say_by_which_rules_their_clicks_were_told_apart() {
    let mut world = World::of_streams(1);
    world.publish(&block(journal(1), 0, &clicks("abc", 1)));
    world.drain_anew();
    assert_eq!(world.store.rows()[&all("abc")].enrichment, world.model().rows()[&all("abc")].enrichment);
    assert_ne!(world.store.rows()[&all("abc")].enrichment, 0);
}

#[test]
fn a12_the_newest_clicks_are_the_same_in_whichever_order_they_came() {
    let told: Vec<Told> = (0..150).map(|n| Told { code: "abc", at_ms: n % 40, agent: PERSON, visitor: 1 }).collect();
    let blocks: Vec<Part> = (0..).zip(told.chunks(10)).map(|(seq, told)| block(journal(1), seq, told)).collect();
    let (mut forth, mut back) = (World::of_streams(1), World::of_streams(1));
    blocks.iter().for_each(|part| forth.publish(part));
    blocks.iter().rev().for_each(|part| back.publish(part));
    forth.drain_anew();
    back.drain_anew();
    let newest = |world: &World| world.store.rows()[&all("abc")].newest().to_vec();
    assert_eq!(newest(&forth), newest(&back));
    assert_eq!(newest(&forth).len(), 100);
}

#[test]
fn a_clock_that_was_ahead_is_not_believed_for_ever() {
    let mut world = World::local();
    let ahead = world.now().plus_millis(30 * 24 * 3_600_000);
    let told = [Told { code: "abc", at_ms: ahead.as_millis(), agent: PERSON, visitor: 1 }; 3];
    let mut part = block(journal(1), 0, &told);
    part.header.sealed_at = ahead;
    world.publish(&part);
    let mut projector = world.process();
    world.drain(&mut projector);
    assert_eq!(world.counted("abc"), 3, "they are counted");
    assert_eq!(world.store.rows()[&all("abc")].newest().len(), 0, "they would be the newest for a month");
    let until = |world: &World| world.store.checkpoint_of(Partition::Journal(journal(1))).unwrap().until;
    assert!(until(&world) <= world.now(), "{}", until(&world));
    assert!(report(&projector).newest_applied.unwrap() <= world.now());
    world.publish(&block(journal(1), 1, &clicks("abc", 2)));
    world.drain(&mut projector);
    assert_eq!(world.store.rows()[&all("abc")].newest().len(), 2);
}

#[test]
fn a_crash_between_rows_and_checkpoint_counts_nothing_twice() {
    let mut world = World::of_streams(1);
    world.publish(&block(journal(1), 0, &clicks("abc", 3)));
    world.drain_anew();
    let before = world.store.checkpoint_of(STREAM);
    world.publish(&block(journal(1), 1, &clicks("abc", 2)));
    world.drain_anew();
    for checkpoint in [before, None] {
        world.store.set_checkpoint(STREAM, checkpoint);
        world.drain_anew();
        assert_eq!(world.counted("abc"), 5);
    }
    world.check();
}

#[test]
fn a_fault_of_the_read_model_pauses_and_discards_nothing() {
    for mut world in both() {
        let mut projector = world.process();
        world.publish(&block(journal(1), 0, &clicks("abc", 1)));
        world.drain(&mut projector);
        world.publish(&block(journal(1), 1, &clicks("abc", 3)));
        world.store.suffer(Mishaps { faults: 1_000, deaths: 0 });
        let mut paused = 0;
        for _ in 0..50 {
            let step = world.step(&mut projector).unwrap();
            assert!(step.pause_ms <= 5_000);
            paused += u32::from(step.pause_ms > 0);
        }
        assert!(paused > 40, "{paused} of 50 steps paused");
        assert!(report(&projector).lag_ms(world.now()) > 0);
        world.store.suffer(Mishaps::default());
        world.drain(&mut projector);
        assert_eq!(world.counted("abc"), 4);
        world.check();
    }
}

#[test]
fn a_read_model_that_fails_and_works_by_turns_is_told_once_and_its_end_once() {
    let mut world = World::of_streams(1);
    let mut projector = world.process();
    let lines = logged(|| {
        for seq in 0..50 {
            world.publish(&block(journal(1), seq, &clicks("abc", 1)));
            world.store.suffer(Mishaps { faults: 1_000 * u64::from(seq % 2 == 0), deaths: 0 });
            for _ in 0..10 {
                world.step(&mut projector);
            }
        }
        world.store.suffer(Mishaps::default());
        for _ in 0..400 {
            world.step(&mut projector);
        }
    });
    assert_eq!(lines, ["clicks are not counted now; trying again", "clicks are counted again"]);
    assert_eq!(world.counted("abc"), 50);
}

#[test]
fn a_partition_that_stands_still_is_told_once_however_often_it_is_tried() {
    let mut world = World::of_streams(1);
    for seq in 0..3 {
        world.publish(&block(journal(1), seq, &clicks("abc", 1)));
    }
    world.drain_anew();
    for seq in 3..9 {
        world.publish(&block(journal(1), seq, &clicks("abc", 1)));
    }
    world.log.forget_before(Partition::Stream(0), 5);
    let lines = logged(|| {
        let mut projector = world.drain_anew();
        for _ in 0..1_000 {
            world.step(&mut projector);
        }
        assert_eq!(report(&projector).stopped, 1);
    });
    assert_eq!(lines, ["clicks of this partition are not counted; an operator must look"]);
}

#[test]
fn a_partition_that_waits_and_then_stops_is_told_of_as_stopped_too_and_once() {
    let mut world = World::of_streams(1);
    for seq in 0..3 {
        world.publish(&block(journal(1), seq, &clicks("abc", 1)));
    }
    world.drain_anew();
    world.log.push(STREAM, Body::Newer(2));
    for seq in 3..9 {
        world.publish(&block(journal(1), seq, &clicks("abc", 1)));
    }
    let lines = logged(|| {
        let mut projector = world.drain_anew();
        world.log.forget_before(STREAM, 5);
        for _ in 0..1_000 {
            world.step(&mut projector);
        }
        assert_eq!(report(&projector).stopped, 1);
    });
    let waits = "clicks of this partition are in a newer format and wait for a newer build";
    assert_eq!(lines, [waits, "clicks of this partition are not counted; an operator must look"]);
}

#[test]
fn a_step_that_is_cancelled_loses_nothing() {
    for mut world in both() {
        let mut projector = world.process();
        world.store.suffer(Mishaps { deaths: 500, faults: 0 });
        let mut cancelled = 0;
        for seq in 0..20 {
            world.publish(&block(journal(1), seq, &clicks("abc", 3)));
            cancelled += (0..5).filter(|_| world.step(&mut projector).is_none()).count();
        }
        assert!(cancelled > 10, "{cancelled} of 100 steps were cancelled");
        world.store.suffer(Mishaps::default());
        world.drain(&mut projector);
        assert_eq!(world.counted("abc"), 60);
        world.check();
    }
}

#[test]
fn rows_are_written_when_they_are_a_quarter_second_old() {
    let mut world = World::of_streams(1);
    let mut projector = world.process();
    world.drain(&mut projector);
    world.publish(&block(journal(1), 0, &clicks("abc", 3)));
    let wrote: Vec<bool> = (0..4).map(|_| world.step(&mut projector).unwrap().wrote).collect();
    assert_eq!(wrote, [false, false, false, true], "a step is 100 ms");
    world.publish(&block(journal(1), 1, &clicks("abc", 1)));
    world.step(&mut projector);
    assert!(projector.write_now().now_or_never().unwrap().unwrap().wrote, "or when it is told to");
    assert_eq!(world.counted("abc"), 4);
}

#[test]
fn a_write_has_a_bounded_number_of_rows() {
    let mut world = World::of_streams(1);
    world.config.read_bytes = 64 << 20;
    let codes: Vec<String> = (0..60_000).map(|n| format!("c{n}")).collect();
    let codes: Vec<&'static str> = codes.iter().map(|code| &*code.clone().leak()).collect();
    for (seq, codes) in (0..).zip(codes.chunks(1_000)) {
        let told: Vec<Told> = codes.iter().map(|code| Told { code, at_ms: 5, agent: PERSON, visitor: 1 }).collect();
        world.publish(&block(journal(1), seq, &told));
    }
    world.drain_anew();
    let (rows, largest) = (world.store.rows().len(), world.store.largest_batch());
    assert_eq!(rows, 180_000);
    assert!(largest <= MAX_BATCH_ROWS + 3_000, "{largest} rows in one write");
}

#[test]
fn rows_that_do_not_fit_in_memory_are_loaded_again() {
    for mut world in both() {
        const CACHE_BYTES: usize = 4 << 10;
        world.config.cache_bytes = CACHE_BYTES;
        for seq in 0..40 {
            let code = ["a", "b", "c", "d", "e", "f", "g", "h"][seq as usize % 8];
            world.publish(&block(journal(1), seq, &clicks(code, 5)));
        }
        let kept = report(&world.drain_anew()).row_bytes;
        world.check();
        assert!(kept <= CACHE_BYTES as u64, "{kept} bytes of rows are kept");
        world.config.cache_bytes = 1 << 20;
        world.publish(&block(journal(1), 40, &["a", "b", "c", "d", "e", "f", "g", "h"].map(|c| clicks(c, 1)).concat()));
        let kept = report(&world.drain_anew()).row_bytes;
        world.check();
        assert!(kept > 2 * CACHE_BYTES as u64, "all of them don't fit: they take {kept} bytes");
    }
}

/// Journals by number, more than [`journal`] tells apart.
fn numbered(number: usize) -> terse_core::click::JournalId {
    terse_core::click::JournalId((number as u128 + 1).to_be_bytes())
}

#[test]
fn journals_that_vanish_leave_room_for_others() {
    let mut world = World::local();
    for number in 0..MAX_PARTITIONS {
        world.log.declare(Partition::Journal(numbered(number)));
    }
    let mut projector = world.process();
    world.drain(&mut projector);
    assert_eq!((report(&projector).held, report(&projector).stopped), (MAX_PARTITIONS as u64, 0));
    for number in 0..MAX_PARTITIONS {
        world.log.delete(Partition::Journal(numbered(number)));
    }
    world.publish(&block(numbered(MAX_PARTITIONS), 0, &clicks("abc", 3)));
    world.drain(&mut projector);
    assert_eq!(world.counted("abc"), 3);
    assert_eq!((report(&projector).held, report(&projector).stopped), (1, 0));
}

#[test]
fn journals_for_which_there_is_no_room_are_told_as_stopped() {
    let mut world = World::local();
    for number in 0..MAX_PARTITIONS + 2 {
        world.publish(&block(numbered(number), 0, &clicks("abc", 1)));
    }
    let mut projector = world.process();
    world.drain(&mut projector);
    assert_eq!(report(&projector).stopped, 2);
    assert_eq!(world.counted("abc"), MAX_PARTITIONS as u64);
    for number in 0..2 {
        world.log.end(numbered(number));
    }
    world.drain(&mut projector);
    assert_eq!(report(&projector).stopped, 0);
    assert_eq!(world.counted("abc"), MAX_PARTITIONS as u64 + 2);
}

#[test]
fn what_was_added_is_written_when_the_projector_is_told_to_stop() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut world = World::of_streams(1);
    world.publish(&block(journal(1), 0, &clicks("abc", 3)));
    let mut projector = world.process();
    let step = world.step(&mut projector).unwrap();
    assert_eq!((step.added, step.wrote), (3, false));
    let (stop, stopped) = watch::channel(true);
    runtime.block_on(projector.run(stopped)).unwrap();
    drop(stop);
    assert_eq!(world.counted("abc"), 3);
    let free = world.store.writer();
    let lease = free.lease(STREAM, "successor", world.now(), 1_000);
    assert!(lease.now_or_never().unwrap().unwrap(), "its lease was given back");
}

#[test]
fn a_projector_without_its_owner_stops() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut world = World::of_streams(1);
    let (stop, stopped) = watch::channel(false);
    drop(stop);
    assert_eq!(runtime.block_on(world.process().run(stopped)), Ok(()));
}
