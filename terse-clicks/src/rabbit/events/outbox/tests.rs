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
