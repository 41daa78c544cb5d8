//! How journals are recovered whose process is gone.

use std::fs;

use directory::Name;

use super::*;

/// A crash with three blocks: sealed and visible, sealed and not yet renamed, open with one click.
fn crash() -> (Setup, JournalId) {
    let setup = Setup::new();
    let journal = setup.open();
    let (mut first, mut second) = (journal.of_a_worker(), journal.of_a_worker());
    setup.record(&mut *first, &["one", "two"]);
    eventually("the first block is visible", || journal.counts().unwrap().pending == 1);
    second.record(&setup.click("three")).unwrap();
    first.record(&setup.click("four")).unwrap();
    (crashed_copy(&setup, journal.id()), journal.id())
}

fn all_codes(setup: &Setup, id: JournalId) -> Vec<Vec<String>> {
    read_to_end(&mut LocalLog::new(&setup.journals(), None), id).iter().map(codes).collect()
}

#[test]
fn a_crashed_journal_is_brought_to_its_end() {
    let (setup, id) = crash();
    let mut recovery = setup.recovery();
    let recovered = recovery.recover_once().unwrap();
    assert_eq!(recovered, Recovered { journals: 1, blocks: 2, torn_bytes: 0, quarantined: 0 });
    assert!(!recovery.recover_once().unwrap().any(), "once is enough");
    assert!(!setup.recovery().recover_once().unwrap().any(), "for everybody");
    let deliveries = read_to_end(&mut LocalLog::new(&setup.journals(), None), id);
    let found: Vec<_> = deliveries.iter().map(|delivery| codes(delivery).join(" ")).collect();
    assert_eq!(found, ["one two", "three", "four", ""]);
    let marks = deliveries.iter().map(|delivery| part(delivery).header).map(|header| (header.recovered, header.end));
    assert_eq!(marks.collect::<Vec<_>>(), [(false, false), (true, false), (true, false), (true, true)]);
    let names = setup.directory(id).blocks().unwrap();
    assert!(names.iter().all(|(name, _)| matches!(name, Name::Block(_))), "{names:?}");
}

#[test]
fn a_journal_whose_process_lives_is_left_alone() {
    let setup = Setup::new();
    let journal = setup.open();
    let mut recorder = journal.of_a_worker();
    recorder.record(&setup.click("one")).unwrap();
    assert!(!setup.recovery().recover_once().unwrap().any());
    assert!(!journal.recover_once().unwrap().any());
    recorder.record(&setup.click("two")).unwrap();
    drop(recorder);
    journal.end().unwrap();
    assert_eq!(all_codes(&setup, journal.id())[0], ["one", "two"]);
}

#[test]
fn only_one_of_many_recovers_a_journal() {
    let (setup, id) = crash();
    let sum = thread::scope(|scope| {
        let recoverers: Vec<_> = (0..8).map(|_| scope.spawn(|| setup.recovery().recover_once().unwrap())).collect();
        let all = recoverers.into_iter().map(|recoverer| recoverer.join().unwrap());
        all.fold((0, 0, 0), |sum, one| (sum.0 + one.journals, sum.1 + one.blocks, sum.2 + one.quarantined))
    });
    assert_eq!(sum, (1, 2, 0));
    assert_eq!(all_codes(&setup, id).concat(), ["one", "two", "three", "four"]);
}

#[test]
fn a_held_lock_keeps_others_from_recovering() {
    let (setup, id) = crash();
    let lock = setup.directory(id).try_lock().unwrap().unwrap();
    assert!(!setup.recovery().recover_once().unwrap().any());
    drop(lock);
    assert_eq!(setup.recovery().recover_once().unwrap().blocks, 2);
}

#[test]
fn the_journals_own_thread_recovers_others() {
    let (setup, id) = crash();
    let journal = setup.open();
    let mut log = LocalLog::new(&setup.journals(), Some(journal));
    assert_eq!(read_to_end(&mut log, id).len(), 4);
}

#[test]
fn a_torn_block_is_cut_and_kept_as_it_was() {
    let (setup, id) = crash();
    let directory = setup.directory(id);
    let open = |code: &str| {
        let mut blocks = directory.blocks().unwrap().into_iter().filter(|(name, _)| matches!(name, Name::Open(_)));
        let found =
            blocks.find(|(name, _)| fs::read(directory.file(*name)).unwrap().windows(5).any(|w| w == code.as_bytes()));
        found.unwrap().0
    };
    let name = open("three");
    let mut bytes = fs::read(directory.file(name)).unwrap();
    // A second record reached the count, and the disk only in part.
    let committed = u64::from_le_bytes(bytes[COMMITTED_AT..COMMITTED_AT + 8].try_into().unwrap());
    bytes[COMMITTED_AT..COMMITTED_AT + 8].copy_from_slice(&(committed + 100).to_le_bytes());
    fs::write(directory.file(name), &bytes).unwrap();
    let recovered = setup.recovery().recover_once().unwrap();
    assert_eq!(recovered, Recovered { journals: 1, blocks: 2, torn_bytes: 100, quarantined: 0 });
    assert_eq!(all_codes(&setup, id).concat(), ["one", "two", "three", "four"]);
    assert_eq!(fs::read(directory.quarantined(name)).unwrap(), bytes);
}

const COMMITTED_AT: usize = super::super::block::COMMITTED_AT;

#[test]
fn a_block_that_can_not_be_understood_is_put_aside() {
    let (setup, id) = crash();
    let directory = setup.directory(id);
    let garbage = Name::Open(900);
    fs::write(directory.file(garbage), vec![0x5a; 5_000]).unwrap();
    let foreign = crash();
    let (other, _) = foreign.0.directory(foreign.1).blocks().unwrap().pop().unwrap();
    fs::copy(foreign.0.directory(foreign.1).file(other), directory.file(Name::Open(901))).unwrap();
    // Entropy is seeded alike, so the other journal's id is made another one.
    let mut bytes = fs::read(directory.file(Name::Open(901))).unwrap();
    bytes[20] ^= 0xff;
    fs::write(directory.file(Name::Open(901)), bytes).unwrap();
    let recovered = setup.recovery().recover_once().unwrap();
    assert_eq!((recovered.blocks, recovered.quarantined, recovered.journals), (2, 2, 1));
    assert_eq!(fs::read(directory.quarantined(garbage)).unwrap(), vec![0x5a; 5_000]);
    assert_eq!(all_codes(&setup, id).concat(), ["one", "two", "three", "four"]);
}

#[test]
fn a_second_block_of_one_seq_is_put_aside() {
    let (setup, id) = crash();
    let directory = setup.directory(id);
    fs::copy(directory.file(Name::Block(0)), directory.file(Name::Open(900))).unwrap();
    let recovered = setup.recovery().recover_once().unwrap();
    assert_eq!((recovered.blocks, recovered.quarantined), (2, 1));
    assert_eq!(all_codes(&setup, id).concat(), ["one", "two", "three", "four"]);
}

#[test]
fn open_blocks_that_were_passed_are_kept_for_a_read_model_that_was_restored() {
    let (setup, id) = crash();
    setup.directory(id).set_passed(2).unwrap();
    let recovered = setup.recovery().recover_once().unwrap();
    assert_eq!(recovered.blocks, 2);
    let seqs: Vec<_> = setup.directory(id).blocks().unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(seqs, [0, 1, 2, 3].map(Name::Block));
}

#[test]
fn a_journal_that_was_killed_while_it_ended_gets_no_second_end() {
    let (setup, id) = crash();
    let directory = setup.directory(id);
    setup.recovery().recover_once().unwrap();
    assert_eq!(directory.ended().unwrap(), Some(3));
    fs::remove_file(setup.journals().join(id.to_string()).join("ended")).unwrap();
    assert_eq!(setup.recovery().recover_once().unwrap().journals, 1);
    assert_eq!((directory.ended().unwrap(), directory.blocks().unwrap().len()), (Some(3), 4));
}

#[test]
fn a_journal_of_a_newer_version_waits_for_it() {
    let (setup, id) = crash();
    let directory = setup.directory(id);
    let (name, _) = directory.blocks().unwrap().into_iter().find(|(name, _)| matches!(name, Name::Open(_))).unwrap();
    let mut bytes = vec![0; 256];
    bytes[..8].copy_from_slice(b"terseblk");
    bytes[8..10].copy_from_slice(&9_u16.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..48]);
    bytes[48..52].copy_from_slice(&checksum.to_le_bytes());
    fs::write(directory.file(name), &bytes).unwrap();
    setup.recovery().recover_once().unwrap();
    assert_eq!(fs::read(directory.file(name)).unwrap(), bytes);
    assert_eq!(directory.ended().unwrap(), None);
}

#[test]
fn a_step_of_recovery_is_bounded() {
    let (setup, id) = crash();
    let directory = setup.directory(id);
    for number in 0..MAX_RECOVERED as u64 {
        fs::write(directory.file(Name::Open(500 + number)), b"garbage").unwrap();
    }
    let mut recovery = setup.recovery();
    let first = recovery.recover_once().unwrap();
    assert_eq!((first.journals, first.blocks + first.quarantined), (0, MAX_RECOVERED as u64));
    let second = recovery.recover_once().unwrap();
    assert_eq!((second.journals, second.blocks + second.quarantined), (1, 2));
    assert_eq!(all_codes(&setup, id).concat().len(), 4);
}

#[test]
fn a_crash_before_the_first_click_leaves_nothing_behind() {
    let setup = Setup::new();
    let journal = setup.open();
    drop(journal.of_a_worker());
    let copy = crashed_copy(&setup, journal.id());
    assert_eq!(copy.recovery().recover_once().unwrap().journals, 1);
    assert_eq!(fs::read_dir(copy.journals()).unwrap().count(), 0);
}

#[test]
fn a_step_of_recovery_counts_journals_too() {
    let setup = Setup::new();
    let many = MAX_RECOVERED + 6;
    for number in 0..many {
        drop(JournalDir::create(&setup.journals(), JournalId([number as u8; 16])).unwrap());
    }
    let mut recovery = setup.recovery();
    assert_eq!(recovery.recover_once().unwrap().journals, MAX_RECOVERED as u64);
    assert_eq!(recovery.recover_once().unwrap().journals, 6);
}

#[test]
fn a_process_without_a_journal_recovers_others() {
    let (setup, id) = crash();
    let thread = RecoveryThread::start(setup.recovery()).unwrap();
    assert!(thread.is_alive());
    eventually("it is recovered", || setup.directory(id).ended().unwrap().is_some());
    drop(thread);
    assert_eq!(all_codes(&setup, id).concat().len(), 4);
}

#[test]
fn a_journal_tells_whether_its_threads_live() {
    let setup = Setup::new();
    let journal = setup.open();
    assert!(journal.is_alive());
    // Whatever a thread dies of, it is seen.
    journal.exchange.end(Duration::ZERO);
    eventually("the thread that prepares blocks has ended", || !journal.is_alive());
    journal.end().unwrap();
    assert!(!journal.is_alive());
}

#[test]
fn what_never_became_a_journal_is_removed_after_a_minute() {
    let setup = Setup::new();
    let journals = setup.journals();
    let unborn = |number: u8| journals.join(format!("new-{}", JournalId([number; 16])));
    for number in 1..=4 {
        fs::create_dir_all(unborn(number)).unwrap();
    }
    // One whose process was killed before its lock, one after it, one that lives, one with something else in it.
    fs::write(unborn(2).join("lock"), "").unwrap();
    let lives = fs::File::create(unborn(3).join("lock")).unwrap();
    lives.try_lock().unwrap();
    fs::write(unborn(4).join("notes"), "why").unwrap();
    let made = fs::metadata(unborn(4)).unwrap().modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    let ahead = made.as_millis() as i64 - setup.clock.now().as_millis();
    let mut recovery = setup.recovery();
    let mut left = || {
        setup.clock.advance(Duration::from_secs(60));
        assert!(!recovery.recover_once().unwrap().any());
        (1..=4).filter(|number| unborn(*number).exists()).collect::<Vec<u8>>()
    };
    setup.clock.set_wall(setup.clock.now().plus_millis(ahead - 30_000));
    assert_eq!(left(), [1, 2, 3, 4], "they may be in the making");
    assert_eq!(left(), [3, 4]);
    drop(lives);
    assert_eq!(left(), [4]);
}
