//! How journals end.

use super::*;

#[test]
fn a_journal_that_ended_says_so_in_its_last_block() {
    let setup = Setup::new();
    let journal = setup.open();
    let mut recorder = journal.of_a_worker();
    setup.record(&mut *recorder, &["one"]);
    recorder.record(&setup.click("two")).unwrap();
    drop(recorder);
    journal.end().unwrap();
    journal.end().unwrap();
    let deliveries = read_to_end(&mut LocalLog::new(&setup.journals(), None), journal.id());
    assert_eq!(
        deliveries.iter().map(codes).collect::<Vec<_>>(),
        [vec!["one".to_owned()], vec!["two".to_owned()], vec![]]
    );
    let ends: Vec<_> = deliveries.iter().map(|delivery| part(delivery).header.end).collect();
    assert_eq!(ends, [false, false, true]);
    let open = setup.directory(journal.id()).blocks().unwrap();
    assert!(open.iter().all(|(name, _)| matches!(name, directory::Name::Block(_))), "{open:?}");
    assert!(setup.directory(journal.id()).try_lock().unwrap().is_some(), "the lock is free");
}

#[test]
fn a_journal_without_a_click_leaves_nothing_behind() {
    let setup = Setup::new();
    let journal = setup.open();
    drop(journal.of_a_worker());
    journal.end().unwrap();
    assert_eq!(std::fs::read_dir(setup.journals()).unwrap().count(), 0);
}

#[test]
fn a_worker_that_goes_on_gets_time_to_give_its_block_back() {
    let setup = Setup::new();
    let journal = setup.open();
    let mut recorder = journal.of_a_worker();
    recorder.record(&setup.click("one")).unwrap();
    thread::scope(|scope| {
        let ending = scope.spawn(|| journal.end());
        eventually("the journal ends", || journal.exchange.is_ending());
        // The open block still takes clicks; its next look at the time seals it.
        recorder.record(&setup.click("two")).unwrap();
        recorder.seal_if_old(0);
        ending.join().unwrap().unwrap();
    });
    assert_eq!(recorder.record(&setup.click("three")), Err(Dropped::NoBlock));
    let deliveries = read_to_end(&mut LocalLog::new(&setup.journals(), None), journal.id());
    assert_eq!(codes(&deliveries[0]), ["one", "two"]);
}

#[test]
fn a_worker_that_keeps_its_block_leaves_the_journal_to_recovery() {
    let setup = Setup::new();
    let journal = setup.open();
    let mut recorder = journal.of_a_worker();
    recorder.record(&setup.click("one")).unwrap();
    assert!(journal.end().is_err());
    let recovered = setup.recovery().recover_once().unwrap();
    assert!(!recovered.any(), "its process still lives: {recovered:?}");
    assert_eq!(setup.directory(journal.id()).ended().unwrap(), None);
}
