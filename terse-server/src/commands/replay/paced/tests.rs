use bytes::Bytes;

use super::*;

/// From which offset a partition was begun.
type Start = (Partition, Option<u64>);

/// Streams of some messages, each of which delivers a few at a time.
#[derive(Default)]
struct Messages {
    of: BTreeMap<Partition, u64>,
    next: BTreeMap<Partition, u64>,
    starts: Arc<Mutex<Vec<Start>>>,
}

const AT_ONCE: u64 = 100;

#[async_trait]
impl ClickLog for Messages {
    async fn partitions(&mut self) -> Result<Vec<Partition>, LogError> {
        Ok(self.of.keys().copied().collect())
    }

    /// As streams do, it delivers the message of the checkpoint once more.
    async fn start(&mut self, partition: Partition, checkpoint: Option<&Checkpoint>) -> Result<(), LogError> {
        let from = checkpoint.map(|checkpoint| checkpoint.at.offset);
        self.starts.lock().push((partition, from));
        self.next.insert(partition, from.unwrap_or(0));
        Ok(())
    }

    async fn next(&mut self, _: usize, _: u64) -> Result<Vec<Delivery>, LogError> {
        let mut deliveries = Vec::new();
        for (partition, next) in &mut self.next {
            let end = (*next + AT_ONCE).min(self.of[partition]);
            for offset in *next..end {
                let body = Body::Undecodable { bytes: Bytes::new(), reason: String::new() };
                deliveries.push(Delivery { partition: *partition, offset, body });
            }
            *next = end;
        }
        Ok(deliveries)
    }

    async fn passed(&mut self, _: Partition, _: u64) -> Result<(), LogError> {
        Ok(())
    }

    async fn dead_letter(&mut self, _: &Delivery) -> Result<(), LogError> {
        Ok(())
    }

    fn stop(&mut self, partition: Partition) {
        self.next.remove(&partition);
    }

    fn ended(&self) -> Vec<(Partition, JournalId)> {
        Vec::new()
    }

    fn oldest_waiting(&self) -> Option<Timestamp> {
        None
    }
}

const ONE: Partition = Partition::Stream(1);
const TWO: Partition = Partition::Stream(2);

async fn paced(of: &[(Partition, u64)], pace: &Pace) -> (Paced, Arc<Mutex<Vec<(Partition, Option<u64>)>>>) {
    let messages = Messages { of: of.iter().copied().collect(), ..Messages::default() };
    let starts = Arc::clone(&messages.starts);
    let mut log = Paced::new(Box::new(messages), pace.clone());
    for partition in log.partitions().await.unwrap() {
        log.start(partition, None).await.unwrap();
    }
    (log, starts)
}

/// What comes until all is there, or some steps brought nothing; of each partition what is new behind `seen`.
async fn offsets(log: &mut Paced, pace: &Pace, seen: &mut BTreeMap<Partition, u64>) -> Vec<(Partition, u64)> {
    let mut new = Vec::new();
    for _ in 0..100 {
        for Delivery { partition, offset, .. } in log.next(1, 0).await.unwrap() {
            assert!(pace.end(partition).is_some_and(|end| offset <= end), "{partition} {offset} is beyond");
            let next = seen.entry(partition).or_default();
            assert!(offset <= *next, "{partition} {offset} leaves some out behind {next}");
            if offset == *next {
                *next += 1;
                new.push((partition, offset));
            }
        }
        if pace.is_there() {
            break;
        }
    }
    new
}

#[tokio::test]
async fn a_log_goes_as_far_as_it_is_told_and_later_on_from_there() {
    let pace = Pace::default();
    pace.go_to([(ONE, 2), (TWO, 0)]);
    let (mut log, starts) = paced(&[(ONE, 10), (TWO, 10), (Partition::Stream(3), 10)], &pace).await;
    assert!(!pace.is_there());
    let mut seen = BTreeMap::new();
    assert_eq!(offsets(&mut log, &pace, &mut seen).await, [(ONE, 0), (ONE, 1), (ONE, 2), (TWO, 0)]);
    pace.go_to([(ONE, 1), (TWO, 3)]);
    assert_eq!(pace.end(ONE), Some(2), "it goes on, never back");
    assert_eq!(offsets(&mut log, &pace, &mut seen).await, [(TWO, 1), (TWO, 2), (TWO, 3)]);
    assert_eq!(starts.lock().len(), 3, "nothing was read twice");
}

#[tokio::test]
async fn no_more_is_held_back_than_the_bound_and_nothing_is_left_out() {
    let pace = Pace::default();
    pace.go_to([(ONE, 0), (TWO, 1_999)]);
    let (mut log, starts) = paced(&[(ONE, 2_000), (TWO, 2_000)], &pace).await;
    let mut seen = BTreeMap::new();
    assert_eq!(offsets(&mut log, &pace, &mut seen).await.len(), 2_001);
    assert!(log.held[&ONE].messages.len() <= MAX_HELD);
    let mut expected = 1;
    for end in [10, 300, 700, 1_999] {
        pace.go_to([(ONE, end)]);
        expected += offsets(&mut log, &pace, &mut seen).await.len();
        assert_eq!((expected as u64, pace.is_there()), (end + 1, true));
    }
    assert!(starts.lock().iter().any(|(partition, from)| *partition == ONE && from.is_some()), "it was read again");
}

#[tokio::test]
async fn what_does_not_come_is_told() {
    let pace = Pace::default();
    pace.go_to([(ONE, 10)]);
    let (mut log, _) = paced(&[(ONE, 5)], &pace).await;
    assert_eq!(offsets(&mut log, &pace, &mut BTreeMap::new()).await.len(), 5);
    assert_eq!(pace.first_left(), Some((ONE, 10)));
}
