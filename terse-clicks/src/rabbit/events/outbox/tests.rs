use terse_core::ports::events::LinkEvent;
use terse_testkit::{SeededEntropy, TestClock, links};

use super::*;

impl Outbox {
    /// Writes a frame of `body` that needs nothing, as long as there is room for an intent of it.
    pub(in super::super) async fn fill_for_test(&self, body: &[u8]) -> bool {
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (answer, noted) = oneshot::channel();
        self.order(Order::Intend { number, body: body.to_vec(), noted: answer });
        let filled = noted.await.unwrap();
        self.order(Order::Settle { number, told: None });
        filled
    }
}

#[tokio::test]
async fn what_can_not_be_written_is_dropped_and_what_was_done_is_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(directory.path(), Arc::new(TestClock::default()), &SeededEntropy::new(1)).unwrap();
    let link = links::link("launch");
    let early = outbox.intend(Intent::Create(&link)).await.unwrap();
    // A file that can only be read, in the place of the real one.
    let path = fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().path();
    let real = {
        let mut state = outbox.shared.state.lock();
        std::mem::replace(&mut state.file, Arc::new(EventFile::read_only(&path).unwrap()))
    };
    assert_eq!(outbox.intend(Intent::Create(&link)).await, None);
    assert_eq!(outbox.report().dropped, 1);
    outbox.settle(early, Settled::Happened(LinkEvent::Created(&link)));
    let doubted = async {
        while outbox.doubts(0, 9).is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), doubted).await.unwrap();
    outbox.shared.state.lock().file = real;
    assert_eq!(outbox.doubts(0, 9)[0].0, early.0);
    assert!(outbox.intend(Intent::Create(&link)).await.is_some());
    assert_eq!(outbox.shared.places.available_permits(), MAX_OPEN - 2);
}

fn link() -> terse_core::Link {
    links::link("launch")
}

fn without_writer(directory: &Path) -> (Outbox, Receiver<Order>) {
    Outbox::without_writer(directory, Arc::new(TestClock::default()), &SeededEntropy::new(1)).unwrap()
}

fn write(outbox: &Outbox, orders: &Receiver<Order>) -> usize {
    let group: Vec<_> = orders.try_iter().collect();
    let count = group.len();
    outbox.shared.write(group);
    count
}

/// Notes what is about to be done to `link`, with the test as the writer.
async fn intend(outbox: &Outbox, orders: &Receiver<Order>, link: &terse_core::Link) -> IntentId {
    let written = async {
        write(outbox, orders);
        outbox.shared.sync()
    };
    tokio::join!(outbox.intend(Intent::Create(link)), written).0.unwrap()
}

/// The numbers of the events that wait.
fn waiting(outbox: &Outbox) -> Vec<u64> {
    let frames = outbox.pending(999).unwrap().frames;
    frames.iter().filter(|frame| frame.kind == Kind::Created).map(|frame| frame.number).collect()
}

#[tokio::test]
async fn a_report_waits_for_nobody_who_holds_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let (outbox, orders) = without_writer(directory.path());
    intend(&outbox, &orders, &link()).await;
    let outbox = Arc::new(outbox);
    let held = outbox.shared.state.lock();
    let (told, report) = mpsc::channel();
    let reporting = Arc::clone(&outbox);
    let reporter = thread::spawn(move || told.send(reporting.report()));
    let report = report.recv_timeout(Duration::from_secs(10)).expect("a report, while the file is held");
    assert!(report.open == 1 && report.waiting_bytes > 0, "{report:?}");
    drop(held);
    reporter.join().unwrap().unwrap();
}

#[tokio::test]
async fn what_is_written_while_a_file_is_made_anew_is_in_the_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let (outbox, orders) = without_writer(directory.path());
    let link = link();
    let happened = |id| outbox.settle(id, Settled::Happened(LinkEvent::Created(&link)));
    let early = intend(&outbox, &orders, &link).await;
    let sent = intend(&outbox, &orders, &link).await;
    happened(sent);
    write(&outbox, &orders);
    outbox.published(&outbox.pending(999).unwrap()).unwrap();
    let rest = intend(&outbox, &orders, &link).await;
    let kept = outbox.shared.state.lock().kept();
    // Both come while the rest is copied: one of a file that is made from scratch, one of what is copied.
    let late = intend(&outbox, &orders, &link).await;
    for id in [early, rest] {
        happened(id);
    }
    write(&outbox, &orders);
    outbox.shared.begin_anew(&kept).unwrap();
    happened(late);
    write(&outbox, &orders);
    assert_eq!(waiting(&outbox), [early.0, rest.0, late.0]);
    assert_eq!(outbox.report().open, 0);
    outbox.published(&outbox.pending(999).unwrap()).unwrap();
    assert_eq!(outbox.report(), OutboxReport::default());
    let files: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(files.len(), 1, "{files:?}");
}

#[tokio::test]
async fn a_file_that_can_not_be_made_anew_leaves_the_one_before_it_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let (outbox, orders) = without_writer(directory.path());
    let id = intend(&outbox, &orders, &link()).await;
    let kept = outbox.shared.state.lock().kept();
    let path = fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().path();
    // A directory in its place can't be replaced.
    fs::rename(&path, path.with_extension("aside")).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(outbox.shared.begin_anew(&kept).is_err());
    outbox.settle(id, Settled::Happened(LinkEvent::Created(&link())));
    write(&outbox, &orders);
    assert_eq!(waiting(&outbox), [id.0]);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "nothing unfinished stays");
}

#[tokio::test]
async fn a_writer_that_stands_is_told_once_what_the_store_said() {
    let directory = tempfile::tempdir().unwrap();
    let (outbox, orders) = without_writer(directory.path());
    let links: Vec<_> = (0..32).map(|_| link()).collect();
    let noted = async {
        tokio::task::yield_now().await;
        write(&outbox, &orders);
        outbox.shared.sync()
    };
    let intents = futures_util::future::join_all(links.iter().map(|link| outbox.intend(Intent::Create(link))));
    let (ids, _) = tokio::join!(intents, noted);
    for id in ids {
        outbox.settle(id.unwrap(), Settled::Unknown);
    }
    write(&outbox, &orders);
    // The store is asked again and again while the writer stands.
    for _ in 0..ORDERS_PER_PLACE * MAX_OPEN {
        for (number, _) in outbox.doubts(0, 32) {
            outbox.doubt_again(number);
        }
    }
    assert_eq!((write(&outbox, &orders), outbox.report().dropped), (32, 0));
    for (number, _) in outbox.doubts(0, 32) {
        outbox.settle_by_store(number, None);
        outbox.settle_by_store(number, None);
    }
    assert_eq!((write(&outbox, &orders), outbox.report().open), (32, 0));
    assert_eq!(outbox.shared.places.available_permits(), MAX_OPEN);
}

#[tokio::test]
async fn what_was_written_is_told_though_the_disk_has_not_synced_it() {
    let directory = tempfile::tempdir().unwrap();
    // Nobody syncs.
    let (mut outbox, orders) = without_writer(directory.path());
    let shared = Arc::clone(&outbox.shared);
    outbox.writer = Some(thread::spawn(move || shared.run(&orders)));
    let began = std::time::Instant::now();
    let links = [link(), link()];
    let intents = links.iter().map(|link| outbox.intend(Intent::Create(link)));
    let ids = futures_util::future::join_all(intents).await;
    assert!(ids.iter().all(Option::is_some) && began.elapsed() >= Duration::from_millis(INTEND_MS), "{ids:?}");
    let late = outbox.try_intend(Intent::Create(&links[0])).await;
    // Whoever reads the file next finds them all.
    let path = fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().path();
    let file = EventFile::read_only(&path).unwrap();
    let frames = file.frames(HEAD_BYTES, file.len().unwrap(), 9).unwrap().frames;
    let found: Vec<_> = frames.iter().map(|frame| (frame.kind, frame.number)).collect();
    let expected = ids.into_iter().chain([late]).map(|id| (Kind::Intent, id.unwrap().0));
    assert_eq!(found, expected.collect::<Vec<_>>());
    outbox.shared.unsynced.end();
    assert!(outbox.shared.sync() && !outbox.shared.sync());
}
