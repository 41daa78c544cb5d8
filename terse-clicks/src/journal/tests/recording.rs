//! How workers record.

use terse_core::Timestamp;

use super::*;

#[test]
fn a_full_block_is_followed_by_the_next() {
    let setup = Setup::new();
    let journal = setup.open();
    let mut recorder = journal.of_a_worker();
    for number in 0..200 {
        // Each time another one, so that each takes its place.
        let hostile = format!("{number}{}", "x".repeat(10_240));
        let referrer = format!("https://{hostile}");
        let (user_agent, referrer, language) = (hostile.as_bytes(), referrer.as_bytes(), hostile.as_bytes());
        recorder.record(&Click { user_agent, referrer, language, ..setup.click("big") }).unwrap();
    }
    drop(recorder);
    journal.end().unwrap();
    let deliveries = read_to_end(&mut LocalLog::new(&setup.journals(), None), journal.id());
    let counts: Vec<_> = deliveries.iter().map(|delivery| codes(delivery).len()).collect();
    assert_eq!(counts.iter().sum::<usize>(), 200);
    assert_eq!(counts.len(), 5, "{counts:?}");
    let offsets: Vec<_> = deliveries.iter().map(|delivery| delivery.offset).collect();
    assert_eq!(offsets, [0, 1, 2, 3, 4]);
}

#[test]
fn a_block_is_sealed_when_it_is_old_and_not_before() {
    let setup = Setup::new();
    let journal = setup.open();
    let mut recorder = journal.of_a_worker();
    recorder.seal_if_old(10_000);
    recorder.record(&setup.click("one")).unwrap();
    recorder.seal_if_old(199);
    recorder.record(&setup.click("two")).unwrap();
    recorder.seal_if_old(200);
    recorder.seal_if_old(400);
    let mut log = LocalLog::new(&setup.journals(), Some(Arc::clone(&journal)));
    block_on(async {
        log.start(Partition::Journal(journal.id()), None).await.unwrap();
        let deliveries = log.next(1 << 20, WAIT_MS).await.unwrap();
        assert_eq!(deliveries.iter().map(codes).collect::<Vec<_>>(), [["one", "two"]]);
    });
}

#[test]
fn an_idle_block_takes_little_of_the_disk() {
    let setup = Setup::new();
    let journal = setup.open();
    let mut recorder = journal.of_a_worker();
    setup.record(&mut *recorder, &["one"]);
    eventually("the block is sealed", || journal.counts().unwrap().pending == 1);
    let sealed = std::fs::metadata(setup.directory(journal.id()).file(directory::Name::Block(0))).unwrap();
    assert_eq!(sealed.len(), 4_096);
}

#[test]
fn clicks_are_counted_also_of_workers_that_are_gone() {
    let setup = Setup::new();
    let journal = setup.open();
    let (mut first, mut second) = (journal.of_a_worker(), journal.of_a_worker());
    setup.record(&mut *first, &["one", "two"]);
    setup.record(&mut *second, &["three"]);
    assert_eq!(journal.counts().unwrap().recorded, 3);
    drop(first);
    assert_eq!(second.record(&setup.click("no/code")), Err(Dropped::Fault));
    setup.record(&mut *second, &["four"]);
    let counts = journal.counts().unwrap();
    assert_eq!((counts.recorded, counts.dropped), (4, [0, 0, 1]));
    drop(second);
    assert_eq!(journal.counts().unwrap().recorded, 4);
    eventually("all are sealed", || journal.counts().unwrap().pending == 3);
}

#[test]
fn a_worker_that_panics_seals_what_it_recorded() {
    let setup = Setup::new();
    let journal = setup.open();
    let worker = Arc::clone(&journal);
    let click = setup.click("one");
    let panicked = thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let mut recorder = worker.of_a_worker();
            recorder.record(&click).unwrap();
            // Without the hook's output.
            std::panic::resume_unwind(Box::new("the worker's end"));
        });
        worker.join()
    });
    assert!(panicked.is_err());
    journal.end().unwrap();
    let deliveries = read_to_end(&mut LocalLog::new(&setup.journals(), None), journal.id());
    assert_eq!(codes(&deliveries[0]), ["one"]);
}

#[test]
fn visitors_are_told_apart_once_there_is_a_key() {
    let setup = Setup::new();
    let journal = setup.open();
    let mut recorder = journal.of_a_worker();
    recorder.record(&setup.click("one")).unwrap();
    let day = (setup.clock.now().as_millis() / 86_400_000) as u32;
    journal.visitor_keys().set([Some(DayKey { day, key: [3; 16] }), None]);
    recorder.record(&setup.click("two")).unwrap();
    recorder.record(&Click { at: Timestamp::from_millis(0), ..setup.click("three") }).unwrap();
    drop(recorder);
    journal.end().unwrap();
    let deliveries = read_to_end(&mut LocalLog::new(&setup.journals(), None), journal.id());
    let visitors: Vec<_> = part(&deliveries[0]).records().map(|(_, record)| record.visitor.is_some()).collect();
    assert_eq!(visitors, [false, true, false]);
}
