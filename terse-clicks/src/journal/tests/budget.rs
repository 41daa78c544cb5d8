//! What happens when there is no room.

use std::sync::atomic::AtomicU64;

use directory::Name;

use super::*;
use crate::outage::CALM_MS;

const BLOCKS: u64 = 12;

/// A journal with room for [`BLOCKS`] blocks.
fn tight() -> Setup {
    let mut setup = Setup::new();
    setup.config.budget_bytes = BLOCKS * MIN_BLOCK_BYTES as u64;
    setup
}

/// Records until there is no room any more; returns how many clicks were recorded.
fn fill(setup: &Setup, recorder: &mut dyn ClickRecorder) -> u64 {
    let mut recorded = 0;
    eventually("the budget is used up", || {
        loop {
            match recorder.record(&setup.click("one")) {
                Ok(()) => recorded += 1,
                Err(Dropped::NoBlock) => return false,
                Err(reason) => {
                    assert_eq!(reason, Dropped::Budget);
                    return true;
                }
            }
        }
    });
    recorded
}

#[test]
fn clicks_beyond_the_budget_are_dropped_and_counted_and_recording_goes_on_with_room() {
    let setup = tight();
    let journal = setup.open();
    let mut recorder = journal.of_a_worker();
    let recorded = fill(&setup, &mut *recorder);
    let mut log = LocalLog::new(&setup.journals(), Some(Arc::clone(&journal)));
    let partition = Partition::Journal(journal.id());
    let mut read = 0;
    block_on(async {
        log.start(partition, None).await.unwrap();
        let mut passed = 0;
        while read < recorded {
            for delivery in log.next(1 << 20, WAIT_MS).await.unwrap() {
                read += codes(&delivery).len() as u64;
                passed = delivery.offset;
            }
        }
        log.passed(partition, passed).await.unwrap();
    });
    let dropped = journal.counts().unwrap().dropped[Dropped::Budget as usize];
    assert!(dropped > 0);
    eventually("there is room again", || recorder.record(&setup.click("two")).is_ok());
    let counts = journal.counts().unwrap();
    assert_eq!(counts.recorded, recorded + 1);
    assert!(journal.inventory.bytes() <= setup.config.budget_bytes);
    recorder.seal_if_old(u64::MAX);
    block_on(async {
        let deliveries = log.next(1 << 20, WAIT_MS).await.unwrap();
        assert_eq!(codes(&deliveries[0]), ["two"], "a file used again has no old clicks");
    });
    assert!(!setup.directory(journal.id()).file(Name::Block(0)).exists(), "the oldest made place");
}

#[test]
fn what_others_have_not_passed_is_never_removed() {
    let setup = tight();
    let first = setup.open();
    let mut recorder = first.of_a_worker();
    let recorded = fill(&setup, &mut *recorder);
    drop(recorder);
    first.end().unwrap();
    let second = setup.open();
    let mut recorder = second.of_a_worker();
    eventually("there is no room", || recorder.record(&setup.click("two")) == Err(Dropped::Budget));
    let deliveries = read_to_end(&mut LocalLog::new(&setup.journals(), None), first.id());
    assert_eq!(deliveries.iter().map(|delivery| codes(delivery).len() as u64).sum::<u64>(), recorded);
    // Once it is, its blocks go, and in the end the journal.
    setup.directory(first.id()).set_passed(deliveries.last().unwrap().offset + 1).unwrap();
    setup.clock.advance(Duration::from_millis(inventory::RELIST_MS));
    eventually("there is room again", || recorder.record(&setup.click("two")).is_ok());
    fill(&setup, &mut *recorder);
    assert!(setup.directory(first.id()).blocks().unwrap().is_empty());
}

#[test]
fn blocks_of_a_journal_whose_process_lives_are_its_own() {
    let setup = tight();
    let first = setup.open();
    let mut recorder = first.of_a_worker();
    fill(&setup, &mut *recorder);
    setup.directory(first.id()).set_passed(3).unwrap();
    let other = Inventory::new(&setup.journals(), setup.directory(JournalId([9; 16])));
    other.refresh(&*setup.clock).unwrap();
    let room = other.room(MIN_BLOCK_BYTES as u64, setup.config.budget_bytes, false).unwrap();
    assert!(matches!(room, inventory::Room::None));
}

#[test]
fn a_full_disk_gets_room_from_passed_blocks_only() {
    let setup = Setup::new();
    let journal = setup.open();
    let mut recorder = journal.of_a_worker();
    for _ in 0..3 {
        setup.record(&mut *recorder, &["one"]);
    }
    eventually("all are sealed", || journal.counts().unwrap().pending == 3);
    let bytes = MIN_BLOCK_BYTES as u64;
    let room = || journal.inventory.room(bytes, u64::MAX, true).unwrap();
    assert!(matches!(room(), inventory::Room::None));
    setup.directory(journal.id()).set_passed(2).unwrap();
    assert!(matches!(room(), inventory::Room::Free), "small files were removed, and it is worth another try");
    let left = setup.directory(journal.id()).blocks().unwrap();
    assert!(!left.iter().any(|(name, _)| matches!(name, Name::Block(0 | 1))), "{left:?}");
    assert!(setup.directory(journal.id()).file(Name::Block(2)).exists());
}

/// A journal that no process writes to, with an inventory of its own.
fn idle(setup: &Setup) -> (JournalDir, Lock, Inventory) {
    let (directory, lock) = JournalDir::create(&setup.journals(), JournalId([9; 16])).unwrap();
    let inventory = Inventory::new(&setup.journals(), directory.clone());
    (directory, lock, inventory)
}

#[test]
fn passed_blocks_are_kept_within_their_bound_and_go_a_few_at_a_time() {
    let setup = Setup::new();
    let (directory, _lock, inventory) = idle(&setup);
    let bound = inventory::MAX_KEPT_BLOCKS as u64;
    let step = inventory::MAX_REMOVED as u64;
    let many = bound + 3 * step + 10;
    for seq in 0..many {
        inventory.sealed(seq, 0, 1);
    }
    inventory.refresh(&*setup.clock).unwrap();
    assert_eq!(inventory.bytes(), many, "what was not passed stays");
    directory.set_passed(many).unwrap();
    setup.clock.advance(Duration::from_millis(inventory::RELIST_MS));
    for left in [bound + 2 * step + 10, bound + step + 10, bound + 10, bound, bound] {
        inventory.refresh(&*setup.clock).unwrap();
        assert_eq!(inventory.bytes(), left);
    }
}

#[test]
fn sealing_does_not_wait_while_other_journals_are_looked_at() {
    let setup = Setup::new();
    let (_, _lock, inventory) = idle(&setup);
    let looking = inventory.hold_others();
    inventory.prepared(10);
    inventory.sealed(0, 10, 4);
    inventory.refresh_soon();
    assert_eq!((inventory.bytes(), inventory.pending().unwrap()), (4, 1));
    drop(looking);
}

#[test]
fn too_many_blocks_that_wait_are_no_room_whatever_the_budget() {
    let setup = Setup::new();
    let (directory, _lock, inventory) = idle(&setup);
    for seq in 0..inventory::MAX_PENDING_BLOCKS {
        assert!(inventory.are_many_pending() == (seq >= inventory::MANY_PENDING_BLOCKS));
        inventory.sealed(seq, 0, 1);
    }
    let room = || inventory.room(1, u64::MAX, false).unwrap();
    assert!(matches!(room(), inventory::Room::None));
    directory.set_passed(1).unwrap();
    let _first = room();
    assert!(matches!(room(), inventory::Room::Free));
}

#[test]
fn blocks_get_older_while_many_wait() {
    let setup = Setup::new();
    let journal = setup.open();
    let mut recorder = journal.of_a_worker();
    for seq in 0..inventory::MANY_PENDING_BLOCKS {
        journal.inventory.sealed(1_000 + seq, 0, 1);
    }
    eventually("many wait", || journal.exchange.seal_age_ms() == exchange::LATE_SEAL_AGE_MS);
    setup.record(&mut *recorder, &["one"]);
    assert_eq!(journal.exchange.taken(), 1, "it is still written");
    recorder.seal_if_old(setup.clock.monotonic_ms() + exchange::LATE_SEAL_AGE_MS);
    assert_eq!(journal.exchange.taken(), 0);
    setup.directory(journal.id()).set_passed(10_000).unwrap();
    setup.clock.advance(Duration::from_millis(inventory::RELIST_MS));
    eventually("few wait", || journal.exchange.seal_age_ms() == setup.config.seal_age_ms);
}

#[test]
fn passed_blocks_are_kept_for_a_week() {
    let setup = Setup::new();
    let journal = setup.open();
    let mut recorder = journal.of_a_worker();
    setup.record(&mut *recorder, &["one"]);
    drop(recorder);
    journal.end().unwrap();
    let other = setup.open();
    let mut recorder = other.of_a_worker();
    setup.record(&mut *recorder, &["two"]);
    setup.record(&mut *recorder, &["three"]);
    eventually("both are sealed", || other.counts().unwrap().pending == 2 + 2);
    setup.directory(journal.id()).set_passed(2).unwrap();
    setup.directory(other.id()).set_passed(1).unwrap();
    let week = Duration::from_millis(inventory::MAX_KEPT_AGE_MS as u64);
    setup.clock.advance(week);
    eventually("all is looked at", || other.counts().unwrap().pending == 1);
    assert!(setup.directory(other.id()).file(Name::Block(0)).exists());
    setup.clock.advance(Duration::from_millis(inventory::RELIST_MS));
    eventually("what is older is gone", || {
        !setup.directory(other.id()).file(Name::Block(0)).exists()
            && !setup.journals().join(journal.id().to_string()).exists()
    });
    assert!(setup.directory(other.id()).file(Name::Block(1)).exists(), "what was not passed stays");
}

#[test]
fn a_journal_that_is_done_and_has_no_blocks_any_more_is_removed() {
    let setup = Setup::new();
    let (_own, _lock, inventory) = idle(&setup);
    let (directory, lock) = JournalDir::create(&setup.journals(), JournalId([3; 16])).unwrap();
    directory.end(0, b"the end").unwrap();
    std::fs::remove_file(directory.file(Name::Block(0))).unwrap();
    directory.set_passed(1).unwrap();
    drop(lock);
    inventory.refresh(&*setup.clock).unwrap();
    assert_eq!(JournalDir::all(&setup.journals()).unwrap().len(), 1);
}

/// An ended journal of two blocks, passed, whose process is gone.
fn passed(setup: &Setup, number: u8) -> JournalDir {
    let (directory, _lock) = JournalDir::create(&setup.journals(), JournalId([number; 16])).unwrap();
    std::fs::write(directory.file(Name::Block(0)), vec![0; MIN_BLOCK_BYTES]).unwrap();
    directory.end(1, &end_block_of(BlockId { journal: directory.id(), seq: 1 }, 1)).unwrap();
    directory.set_passed(2).unwrap();
    directory
}

#[test]
fn a_journal_whose_files_can_not_be_removed_holds_up_no_other() {
    let setup = Setup::new();
    let (_own, _lock, inventory) = idle(&setup);
    let (stuck, other) = (passed(&setup, 1), passed(&setup, 2));
    // Not even root removes a directory that has something in it as if it were a file.
    std::fs::remove_file(stuck.file(Name::Block(0))).unwrap();
    std::fs::create_dir_all(stuck.file(Name::Block(0)).join("in the way")).unwrap();
    inventory.refresh(&*setup.clock).unwrap();
    let bytes = MIN_BLOCK_BYTES as u64;
    // The budget has no room before the other's block is gone.
    let budget = inventory.bytes();
    assert!(matches!(inventory.room(bytes, budget, false).unwrap(), inventory::Room::Free));
    assert!(!other.file(Name::Block(0)).exists());
    assert!(matches!(inventory.room(bytes, 0, false).unwrap(), inventory::Room::None), "and nothing fails");
    assert_eq!(JournalDir::all(&setup.journals()).unwrap().len(), 2, "the other is gone as a whole");
    // A minute later it is tried again.
    std::fs::remove_dir_all(stuck.file(Name::Block(0))).unwrap();
    for _ in 0..2 {
        setup.clock.advance(Duration::from_secs(60));
        inventory.refresh(&*setup.clock).unwrap();
        assert!(matches!(inventory.room(bytes, 0, false).unwrap(), inventory::Room::None));
    }
    assert_eq!(JournalDir::all(&setup.journals()).unwrap().len(), 1);
}

#[test]
fn the_last_of_the_disk_is_left_to_others() {
    let setup = Setup::new();
    let (directory, _lock, inventory) = idle(&setup);
    let bytes = MIN_BLOCK_BYTES as u64;
    let free = Arc::new(AtomicU64::new(inventory::RESERVED_BYTES + bytes));
    let asked = Arc::clone(&free);
    let inventory =
        inventory.on_disk(move |_| Ok(inventory::Disk { free: asked.load(Ordering::SeqCst), all: 1 << 40 }));
    for seq in 0..3 {
        std::fs::write(directory.file(Name::Block(seq)), vec![0; MIN_BLOCK_BYTES]).unwrap();
        inventory.sealed(seq, 0, bytes);
    }
    let room = |full_disk| inventory.room(bytes, u64::MAX, full_disk).unwrap();
    assert!(matches!(room(false), inventory::Room::Free) && !inventory.is_short());
    assert!(matches!(inventory.room(bytes, 0, false).unwrap(), inventory::Room::None) && !inventory.is_short());
    free.fetch_sub(1, Ordering::SeqCst);
    assert!(matches!(room(false), inventory::Room::None), "what was not passed stays");
    assert!(inventory.is_short(), "and it is not the budget");
    assert_eq!(directory.blocks().unwrap().len(), 3);
    directory.set_passed(2).unwrap();
    assert!(matches!(room(false), inventory::Room::None), "nothing that was passed is used again");
    assert_eq!(directory.blocks().unwrap().len(), 1, "the disk gets it back");
    free.fetch_add(1, Ordering::SeqCst);
    assert!(matches!(room(false), inventory::Room::Free));
    // A share that is used up is not seen by asking the disk.
    directory.set_passed(3).unwrap();
    assert!(matches!(room(true), inventory::Room::Free), "there may be room now");
    assert!(directory.blocks().unwrap().is_empty());
    assert!(matches!(room(true), inventory::Room::None));
}

#[test]
fn a_disk_that_is_nearly_full_by_turns_is_told_once_and_its_end_once() {
    let setup = Setup::new();
    let (_directory, _lock, inventory) = idle(&setup);
    let bytes = MIN_BLOCK_BYTES as u64;
    let free = Arc::new(AtomicU64::new(1 << 40));
    let asked = Arc::clone(&free);
    let inventory =
        inventory.on_disk(move |_| Ok(inventory::Disk { free: asked.load(Ordering::SeqCst), all: 1 << 40 }));
    let looks = |free_bytes: u64, at_ms: u64| {
        free.store(free_bytes, Ordering::SeqCst);
        inventory.room(bytes, u64::MAX, false).unwrap();
        inventory.shortage_changed(at_ms).unwrap()
    };
    assert_eq!(looks(1 << 40, 0), None);
    let told: Vec<_> = (0..100).filter_map(|turn| looks((turn % 2) << 30, 1_000 * turn)).collect();
    assert_eq!(told, [(true, 0)]);
    free.store(0, Ordering::SeqCst);
    assert_eq!(inventory.shortage_changed(200_000).unwrap(), None, "nobody asks for room, and there is none");
    assert_eq!(looks(1 << 30, 200_000 + CALM_MS - 1), None);
    assert_eq!(looks(1 << 30, 200_000 + CALM_MS), Some((false, 1 << 30)));
}

#[test]
fn of_a_small_disk_less_is_left() {
    let disk = |free| inventory::Disk { free, all: 16 << 20 };
    assert!(disk(2 << 20).has_room(1 << 20));
    assert!(!disk((2 << 20) - 1).has_room(1 << 20));
    assert!(inventory::Disk { free: 0, all: 0 }.has_room(1 << 20), "some tell nothing");
}

#[test]
fn a_full_disk_gives_place_to_whoever_shares_it() {
    let setup = Setup::new();
    let (directory, _lock, inventory) = idle(&setup);
    let bytes = MIN_BLOCK_BYTES as u64;
    let many = inventory::RESERVED_BYTES / bytes + 10;
    for seq in 0..many {
        inventory.sealed(seq, 0, bytes);
    }
    directory.set_passed(many).unwrap();
    // The files need not be there to be counted; a step removes only so many.
    while !matches!(inventory.room(bytes, u64::MAX, true).unwrap(), inventory::Room::Free) {}
    let kept = inventory.bytes() / bytes;
    assert!(kept <= many - inventory::MAX_REMOVED as u64, "{kept} are kept of {many}");
}
