//! What becomes of blocks that the disk doesn't take.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicU64, AtomicUsize};

use super::*;
use crate::journal::sealing::MAX_REWRITES;
use directory::Name;

/// The codes of all clicks up to the journal's end.
fn codes_of(setup: &Setup, id: JournalId) -> Vec<String> {
    read_to_end(&mut LocalLog::new(&setup.journals(), None), id).iter().flat_map(codes).collect()
}

#[test]
fn a_sync_that_failed_is_not_asked_for_again_but_the_block_is_written_anew() {
    let setup = Setup::new();
    let (syncs, inode) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
    let (counted, seen) = (Arc::clone(&syncs), Arc::clone(&inode));
    let journal = setup.open_with(move |file| {
        counted.fetch_add(1, Ordering::SeqCst);
        // The kernel says yes from the second time on.
        match seen.swap(file.metadata()?.ino(), Ordering::SeqCst) {
            0 => Err(io::Error::from_raw_os_error(5)),
            _ => Ok(()),
        }
    });
    let mut recorder = journal.of_a_worker();
    setup.record(&mut *recorder, &["one", "two"]);
    eventually("the block is visible", || journal.counts().unwrap().pending == 1);
    assert_eq!(syncs.load(Ordering::SeqCst), 1);
    let visible = std::fs::metadata(setup.directory(journal.id()).file(Name::Block(0))).unwrap();
    assert_ne!(visible.ino(), inode.load(Ordering::SeqCst), "it is another file");
    drop(recorder);
    journal.end().unwrap();
    assert_eq!(codes_of(&setup, journal.id()), ["one", "two"]);
}

#[test]
fn a_block_that_the_disk_has_lost_holds_up_no_other() {
    let setup = Setup::new();
    let mut first = true;
    let journal = setup.open_with(move |file| {
        if !std::mem::replace(&mut first, false) {
            return Ok(());
        }
        // What was written is gone from memory, too.
        file.write_all_at(&[0; 64], 150)?;
        Err(io::Error::from_raw_os_error(5))
    });
    let mut recorder = journal.of_a_worker();
    setup.record(&mut *recorder, &["lost"]);
    setup.record(&mut *recorder, &["kept"]);
    let directory = setup.directory(journal.id());
    eventually("the second block is visible", || directory.file(Name::Block(1)).exists());
    let mut tries = 0;
    eventually("the first is put aside", || {
        tries += 1;
        setup.clock.advance(Duration::from_secs(1));
        directory.quarantined(Name::Block(0)).exists()
    });
    assert!(tries >= MAX_REWRITES, "it may come back for {tries} s");
    drop(recorder);
    eventually("only prepared blocks are mapped", || journal.exchange.mapped() == journal.exchange.free());
    journal.end().unwrap();
    assert_eq!(codes_of(&setup, journal.id()), ["kept"]);
}

#[test]
fn a_thread_that_panics_while_it_seals_loses_no_block() {
    let setup = Setup::new();
    let mut first = true;
    let journal = setup.open_with(move |_| {
        if std::mem::replace(&mut first, false) {
            // Without the hook's output.
            std::panic::resume_unwind(Box::new("on purpose"));
        }
        Ok(())
    });
    let mut recorder = journal.of_a_worker();
    setup.record(&mut *recorder, &["one"]);
    eventually("the thread has panicked", || !journal.is_alive());
    setup.record(&mut *recorder, &["two"]);
    eventually("both blocks are visible", || {
        setup.clock.advance(Duration::from_secs(1));
        journal.counts().unwrap().pending == 2
    });
    drop(recorder);
    journal.end().unwrap();
    assert_eq!(codes_of(&setup, journal.id()), ["one", "two"]);
}

#[test]
fn recovery_believes_no_sync_that_is_asked_for_again() {
    let setup = Setup::new();
    let journal = setup.open();
    let mut recorder = journal.of_a_worker();
    recorder.record(&setup.click("one")).unwrap();
    let copy = crashed_copy(&setup, journal.id());
    let directory = copy.directory(journal.id());
    let open = directory.blocks().unwrap().into_iter().map(|(name, _)| directory.file(name));
    let inode = |path: &std::path::Path| std::fs::metadata(path).unwrap().ino();
    let before: Vec<_> = open.map(|path| inode(&path)).collect();
    let syncs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&syncs);
    let mut recovery = copy.recovery().with_sync(Box::new(move |_| match counted.fetch_add(1, Ordering::SeqCst) {
        0 => Err(io::Error::from_raw_os_error(5)),
        _ => Ok(()),
    }));
    // Nor can it be written anew at first.
    let in_the_way = copy.journals().join(journal.id().to_string()).join("end.new");
    std::fs::create_dir(&in_the_way).unwrap();
    assert!(!recovery.recover_once().unwrap().any());
    std::fs::remove_dir(&in_the_way).unwrap();
    assert_eq!(recovery.recover_once().unwrap().journals, 1);
    assert_eq!(syncs.load(Ordering::SeqCst), 1);
    assert!(!before.contains(&inode(&directory.file(Name::Block(0)))));
    assert_eq!(codes_of(&copy, journal.id()), ["one"]);
}
