//! The local log over journals.

use std::fs;

use directory::Name;
use terse_core::Timestamp;
use terse_core::ports::clicks::Checkpoint;
use terse_core::stats::Position;

use super::*;
use crate::log::LogError;

const BRIEFLY_MS: u64 = 100;

fn checkpoint(journal: JournalId, offset: u64) -> Checkpoint {
    let anchor = BlockId { journal, seq: offset };
    Checkpoint { at: Position { epoch: 0, offset }, until: Timestamp::from_millis(0), anchor, passed: Vec::new() }
}

/// A journal that ended with a block for each code, and its last one.
fn ended(codes: &[&str]) -> (Setup, JournalId) {
    let setup = Setup::new();
    let journal = setup.open();
    let mut recorder = journal.of_a_worker();
    for code in codes {
        eventually("there is a block", || recorder.record(&setup.click(code)).is_ok());
        recorder.seal_if_old(u64::MAX);
    }
    drop(recorder);
    journal.end().unwrap();
    (setup, journal.id())
}

fn all_codes(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().flat_map(codes).collect()
}

#[test]
fn a_block_that_is_still_written_is_waited_for() {
    let setup = Setup::new();
    let journal = setup.open();
    let (mut first, mut second) = (journal.of_a_worker(), journal.of_a_worker());
    first.record(&setup.click("one")).unwrap();
    setup.record(&mut *second, &["two"]);
    eventually("the second block is sealed", || journal.counts().unwrap().pending == 1);
    let mut log = LocalLog::new(&setup.journals(), None);
    block_on(async {
        log.start(Partition::Journal(journal.id()), None).await.unwrap();
        assert!(log.next(1 << 20, BRIEFLY_MS).await.unwrap().is_empty());
        drop(first);
        let mut deliveries = log.next(1 << 20, WAIT_MS).await.unwrap();
        if deliveries.len() == 1 {
            deliveries.extend(log.next(1 << 20, WAIT_MS).await.unwrap());
        }
        assert_eq!(all_codes(&deliveries), ["one", "two"]);
    });
}

#[test]
fn a_seq_that_an_ended_journal_lacks_is_void() {
    let (setup, id) = ended(&["one", "two", "three"]);
    fs::remove_file(setup.directory(id).file(Name::Block(1))).unwrap();
    let deliveries = read_to_end(&mut LocalLog::new(&setup.journals(), None), id);
    assert_eq!(deliveries.iter().map(|delivery| delivery.offset).collect::<Vec<_>>(), [0, 2, 3]);
}

#[test]
fn reading_goes_on_behind_a_checkpoint() {
    let (setup, id) = ended(&["one", "two", "three"]);
    let partition = Partition::Journal(id);
    let mut log = LocalLog::new(&setup.journals(), None);
    block_on(async {
        log.start(partition, Some(&checkpoint(id, 1))).await.unwrap();
        assert_eq!(log.oldest_waiting(), Some(setup.clock.now()));
        let deliveries = log.next(1 << 20, 0).await.unwrap();
        assert_eq!(deliveries.iter().map(|delivery| delivery.offset).collect::<Vec<_>>(), [2, 3]);
        assert_eq!((log.oldest_waiting(), log.ended()), (None, vec![(partition, id)]));
        log.start(partition, Some(&checkpoint(id, 3))).await.unwrap();
        assert!(log.next(1 << 20, 0).await.unwrap().is_empty());
        assert_eq!(log.ended(), [(partition, id)]);
        log.stop(partition);
        log.start(partition, None).await.unwrap();
        assert_eq!(log.next(1 << 20, 0).await.unwrap().len(), 4, "what was not passed is delivered again");
    });
}

#[test]
fn a_damaged_block_is_put_aside_and_skipped_from_then_on() {
    let (setup, id) = ended(&["one", "two", "three"]);
    let directory = setup.directory(id);
    let mut bytes = fs::read(directory.file(Name::Block(1))).unwrap();
    bytes[150] ^= 1;
    fs::write(directory.file(Name::Block(1)), &bytes).unwrap();
    let partition = Partition::Journal(id);
    let mut log = LocalLog::new(&setup.journals(), None);
    block_on(async {
        log.start(partition, None).await.unwrap();
        let deliveries = log.next(1 << 20, 0).await.unwrap();
        assert_eq!(deliveries.len(), 4, "the others are delivered");
        let Body::Undecodable { bytes: found, reason } = &deliveries[1].body else { panic!("{:?}", deliveries[1]) };
        assert_eq!(
            (found.as_ref(), reason.as_str()),
            (&bytes[..], "sealed, and damaged since: its records are not what was sealed")
        );
        log.dead_letter(&deliveries[1]).await.unwrap();
        assert_eq!(fs::read(directory.quarantined(Name::Block(1))).unwrap(), bytes);
        log.dead_letter(&deliveries[1]).await.unwrap();
        log.start(partition, None).await.unwrap();
        let offsets: Vec<_> = log.next(1 << 20, 0).await.unwrap().iter().map(|delivery| delivery.offset).collect();
        assert_eq!(offsets, [0, 2, 3]);
    });
}

#[test]
fn a_block_put_aside_is_skipped_while_its_journal_lives() {
    let setup = Setup::new();
    let journal = setup.open();
    let mut recorder = journal.of_a_worker();
    setup.record(&mut *recorder, &["one"]);
    setup.record(&mut *recorder, &["two"]);
    eventually("both are sealed", || journal.counts().unwrap().pending == 2);
    setup.directory(journal.id()).quarantine(Name::Block(0)).unwrap();
    let mut log = LocalLog::new(&setup.journals(), None);
    block_on(async {
        log.start(Partition::Journal(journal.id()), None).await.unwrap();
        assert_eq!(all_codes(&log.next(1 << 20, WAIT_MS).await.unwrap()), ["two"]);
    });
}

#[test]
fn a_block_of_a_newer_format_holds_its_journal_and_no_other() {
    let (setup, id) = ended(&["one", "two"]);
    let directory = setup.directory(id);
    let mut bytes = fs::read(directory.file(Name::Block(0))).unwrap();
    bytes[8] = 9;
    let checksum = crc32fast::hash(&bytes[..48]);
    bytes[48..52].copy_from_slice(&checksum.to_le_bytes());
    fs::write(directory.file(Name::Block(0)), &bytes).unwrap();
    let other = setup.open();
    let mut recorder = other.of_a_worker();
    setup.record(&mut *recorder, &["other"]);
    let mut log = LocalLog::new(&setup.journals(), Some(Arc::clone(&other)));
    block_on(async {
        log.start(Partition::Journal(id), None).await.unwrap();
        let deliveries = log.next(1 << 20, 0).await.unwrap();
        assert_eq!(deliveries.len(), 1);
        assert!(matches!(deliveries[0].body, Body::Newer(9)));
        log.start(Partition::Journal(other.id()), None).await.unwrap();
        assert_eq!(all_codes(&log.next(1 << 20, WAIT_MS).await.unwrap()), ["other"]);
        assert!(log.ended().is_empty());
    });
}

#[test]
fn blocks_that_are_gone_and_were_not_read_are_a_gap() {
    let (setup, id) = ended(&["one", "two", "three"]);
    let directory = setup.directory(id);
    let partition = Partition::Journal(id);
    let mut log = LocalLog::new(&setup.journals(), None);
    block_on(async {
        log.passed(partition, 1).await.unwrap();
        log.passed(partition, 0).await.unwrap();
        assert_eq!(directory.passed().unwrap(), 2, "it never goes back");
        log.start(partition, None).await.unwrap();
        fs::remove_file(directory.file(Name::Block(0))).unwrap();
        assert!(matches!(log.next(1 << 20, 0).await, Err(LogError::Gap { .. })));
        let gone = log.start(partition, None).await.unwrap_err();
        assert!(matches!(gone, LogError::Gone { from: 0, until: 1, .. }), "{gone}");
        log.start(partition, Some(&checkpoint(id, 0))).await.unwrap();
        assert_eq!(all_codes(&log.next(1 << 20, 0).await.unwrap()), ["two", "three"]);
    });
}

#[test]
fn a_replay_has_all_that_is_kept_and_changes_nothing() {
    let (setup, id) = ended(&["one", "two", "three"]);
    let directory = setup.directory(id);
    directory.set_passed(4).unwrap();
    fs::remove_file(directory.file(Name::Block(0))).unwrap();
    let partition = Partition::Journal(id);
    block_on(async {
        let mut log = LocalLog::new(&setup.journals(), None);
        log.passed(partition, 3).await.unwrap();
        assert!(log.partitions().await.unwrap().is_empty(), "all of it was passed");
        let mut replay = LocalLog::for_replay(&setup.journals());
        assert_eq!(replay.partitions().await.unwrap(), [partition]);
        assert_eq!(replay.begins_at(partition).unwrap(), Some(1));
        assert_eq!(replay.ends_at(partition).unwrap(), Some(3));
        replay.start(partition, None).await.unwrap();
        let deliveries = replay.next(1 << 20, 0).await.unwrap();
        assert_eq!(all_codes(&deliveries), ["two", "three"]);
        replay.passed(partition, 9).await.unwrap();
        replay.dead_letter(&deliveries[0]).await.unwrap();
        assert_eq!(directory.passed().unwrap(), 4);
        assert_eq!(directory.quarantined_bytes().unwrap(), 0);
    });
}

#[test]
fn journals_take_turns_within_a_bound_of_bytes() {
    let (setup, first) = ended(&["one"; 6]);
    let second = setup.open();
    let mut recorder = second.of_a_worker();
    for _ in 0..3 {
        setup.record(&mut *recorder, &["two"]);
    }
    eventually("all are sealed", || second.counts().unwrap().pending == 7 + 3);
    let mut log = LocalLog::new(&setup.journals(), None);
    block_on(async {
        for id in [first, second.id()] {
            log.start(Partition::Journal(id), None).await.unwrap();
        }
        let mut journals = Vec::new();
        for _ in 0..4 {
            let deliveries = log.next(1, 0).await.unwrap();
            assert_eq!(deliveries.len(), 1);
            journals.push(deliveries[0].partition);
        }
        assert!(journals[0] != journals[1] && journals[0] == journals[2] && journals[1] == journals[3]);
    });
}

#[test]
fn a_call_that_is_given_up_loses_nothing() {
    let (setup, id) = ended(&["one", "two"]);
    let mut log = LocalLog::new(&setup.journals(), None);
    block_on(async {
        log.start(Partition::Journal(id), None).await.unwrap();
        for _ in 0..3 {
            let given_up = tokio::time::timeout(Duration::ZERO, log.next(1 << 20, 0)).await;
            if let Ok(found) = given_up {
                assert_eq!(found.unwrap().len(), 3);
                log.start(Partition::Journal(id), None).await.unwrap();
            }
        }
        assert_eq!(all_codes(&log.next(1 << 20, 0).await.unwrap()), ["one", "two"]);
    });
}

#[test]
fn what_was_passed_is_listed_until_the_read_model_was_asked() {
    let (setup, id) = ended(&["one", "two"]);
    let partition = Partition::Journal(id);
    setup.directory(id).set_passed(3).unwrap();
    let mut log = LocalLog::new(&setup.journals(), None);
    block_on(async {
        for _ in 0..2 {
            assert_eq!(log.partitions().await.unwrap(), [partition]);
        }
        assert!(log.was_passed(partition));
        log.start(partition, None).await.unwrap();
        assert_eq!(all_codes(&log.next(1 << 20, 0).await.unwrap()), ["one", "two"], "a read model may lack it");
        log.stop(partition);
        assert_eq!(log.partitions().await.unwrap(), [partition], "it may have been forgotten before it was written");
        log.start(partition, None).await.unwrap();
        log.passed(partition, 2).await.unwrap();
        log.stop(partition);
        assert!(log.partitions().await.unwrap().is_empty());
    });
}

#[test]
fn of_a_journal_that_is_over_nothing_is_read_as_long_as_it_stays_as_it_is() {
    let (setup, id) = ended(&["one"]);
    let partition = Partition::Journal(id);
    let mut log = LocalLog::new(&setup.journals(), None);
    let path = setup.journals().join(id.to_string());
    block_on(async {
        log.passed(partition, 1).await.unwrap();
        assert!(log.partitions().await.unwrap().is_empty());
        // What is written in place is not seen: nobody writes a smaller number.
        fs::write(path.join("passed"), 0_u64.to_le_bytes()).unwrap();
        assert!(log.partitions().await.unwrap().is_empty());
        // A file that comes or goes is: an older copy was put back.
        let changed = setup.directory(id).changed_at().unwrap().unwrap();
        fs::write(path.join("notes"), "").unwrap();
        fs::File::open(&path).unwrap().set_modified(changed + Duration::from_millis(4)).unwrap();
        assert_eq!(log.partitions().await.unwrap(), [partition]);
    });
}

#[test]
fn a_seq_that_an_ended_journal_lacks_is_void_also_where_it_was_passed() {
    let (setup, id) = ended(&["one", "two", "three"]);
    fs::remove_file(setup.directory(id).file(Name::Block(1))).unwrap();
    setup.directory(id).set_passed(4).unwrap();
    let deliveries = read_to_end(&mut LocalLog::new(&setup.journals(), None), id);
    assert_eq!(deliveries.iter().map(|delivery| delivery.offset).collect::<Vec<_>>(), [0, 2, 3]);
}

#[test]
fn what_is_gone_up_to_the_end_is_told_and_the_journal_is_over() {
    let (setup, id) = ended(&["one", "two"]);
    let partition = Partition::Journal(id);
    setup.directory(id).set_passed(3).unwrap();
    for seq in 0..3 {
        fs::remove_file(setup.directory(id).file(Name::Block(seq))).unwrap();
    }
    let mut log = LocalLog::new(&setup.journals(), None);
    block_on(async {
        let gone = log.start(partition, Some(&checkpoint(id, 0))).await.unwrap_err();
        assert!(matches!(gone, LogError::Gone { from: 1, until: 3, .. }), "{gone}");
        log.start(partition, Some(&checkpoint(id, 2))).await.unwrap();
        assert!(log.next(1 << 20, 0).await.unwrap().is_empty());
        assert_eq!(log.ended(), [(partition, id)]);
    });
}

#[test]
fn a_noted_end_before_the_last_block_hides_nothing() {
    let (setup, id) = ended(&["one", "two", "three"]);
    setup.directory(id).note_end(0).unwrap();
    fs::remove_file(setup.directory(id).file(Name::Block(0))).unwrap();
    let deliveries = read_to_end(&mut LocalLog::new(&setup.journals(), None), id);
    assert_eq!(all_codes(&deliveries), ["two", "three"]);
}

/// Makes reading `path` fail, whoever asks: there is a directory of its name.
fn obstruct(path: &std::path::Path) {
    fs::remove_file(path).ok();
    fs::create_dir(path).unwrap();
}

#[test]
fn a_file_that_can_not_be_read_holds_up_its_own_journal_alone() {
    for obstructed in ["00000000000000000001.block", "ended"] {
        let (setup, bad) = ended(&["bad", "bad"]);
        let good = setup.open();
        let mut recorder = good.of_a_worker();
        setup.record(&mut *recorder, &["one"]);
        setup.record(&mut *recorder, &["two"]);
        eventually("both are sealed", || good.counts().unwrap().pending >= 2);
        if obstructed == "ended" {
            fs::remove_file(setup.directory(bad).file(Name::Block(1))).unwrap();
        }
        obstruct(&setup.journals().join(bad.to_string()).join(obstructed));
        let mut log = LocalLog::new(&setup.journals(), None);
        block_on(async {
            let listed = log.partitions().await.unwrap();
            assert_eq!(listed.len(), 2, "{obstructed}");
            for partition in listed {
                log.start(partition, None).await.unwrap();
            }
            let (mut found, mut failed) = (Vec::new(), Vec::new());
            while found.len() < 3 || failed.is_empty() {
                match log.next(1 << 20, WAIT_MS).await {
                    Ok(deliveries) => found.extend(all_codes(&deliveries)),
                    Err(LogError::Unreadable { partition, .. }) => {
                        assert!(log.next(1 << 20, WAIT_MS).await.is_err(), "it stays so until it is heard");
                        log.stop(partition);
                        failed.push(partition);
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            found.sort();
            assert_eq!(found, ["bad", "one", "two"], "{obstructed}");
            assert_eq!(failed, [Partition::Journal(bad)]);
            setup.record(&mut *recorder, &["three"]);
            assert_eq!(all_codes(&log.next(1 << 20, WAIT_MS).await.unwrap()), ["three"]);
        });
    }
}

#[test]
fn what_can_not_be_noted_as_passed_holds_up_nothing_and_is_noted_later() {
    let (setup, id) = ended(&["one"]);
    let partition = Partition::Journal(id);
    let passed = setup.journals().join(id.to_string()).join("passed");
    obstruct(&passed);
    let mut log = LocalLog::new(&setup.journals(), None);
    block_on(async {
        log.start(partition, None).await.unwrap_err();
        log.passed(partition, 1).await.unwrap();
        fs::remove_dir(&passed).unwrap();
        assert_eq!(setup.directory(id).passed().unwrap(), 0);
        log.partitions().await.unwrap();
        assert_eq!(setup.directory(id).passed().unwrap(), 2);
    });
}

#[test]
fn a_block_that_can_not_be_put_aside_holds_up_its_own_journal_alone() {
    let (setup, id) = ended(&["one"]);
    fs::write(setup.directory(id).file(Name::Block(0)), vec![0x5a; 5_000]).unwrap();
    fs::write(setup.journals().join(id.to_string()).join("quarantine"), "no directory").unwrap();
    let partition = Partition::Journal(id);
    let mut log = LocalLog::new(&setup.journals(), None);
    block_on(async {
        log.start(partition, None).await.unwrap();
        let deliveries = log.next(1 << 20, 0).await.unwrap();
        let refused = log.dead_letter(&deliveries[0]).await.unwrap_err();
        assert!(matches!(refused, LogError::Unreadable { partition: other, .. } if other == partition), "{refused}");
    });
}

#[test]
fn a_stream_is_no_journal() {
    let setup = Setup::new();
    let mut log = LocalLog::new(&setup.journals(), None);
    block_on(async {
        assert!(log.partitions().await.unwrap().is_empty());
        assert!(log.start(Partition::Stream(1), None).await.is_err());
        assert!(log.next(1 << 20, 0).await.unwrap().is_empty());
    });
}
