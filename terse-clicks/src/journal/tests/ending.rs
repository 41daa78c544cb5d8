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
}

#[test]
fn a_journal_without_a_click_leaves_nothing_behind() {
    let setup = Setup::new();
    let journal = setup.open();
    drop(journal.of_a_worker());
    journal.end().unwrap();
    assert_eq!(std::fs::read_dir(setup.journals()).unwrap().count(), 0);
}
