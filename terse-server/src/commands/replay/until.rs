//! A log that ends: the front part of another, up to a block of each of its partitions.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use terse_clicks::log::{ClickLog, Delivery, LogError};
use terse_core::Timestamp;
use terse_core::click::JournalId;
use terse_core::ports::clicks::Checkpoint;
use terse_core::stats::Partition;

/// The partitions that are not read to their end yet, with the offset of their last message.
#[derive(Clone)]
pub(super) struct Left(Arc<Mutex<BTreeMap<Partition, u64>>>);

impl Left {
    /// Whether all are read to their end.
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// The first partition that isn't, with the offset of its last message.
    pub(super) fn first(&self) -> Option<(Partition, u64)> {
        self.0.lock().first_key_value().map(|(partition, end)| (*partition, *end))
    }
}

/// The front part of a log.
pub(super) struct Until {
    log: Box<dyn ClickLog>,
    /// The last message of each partition; others are not read.
    ends: BTreeMap<Partition, u64>,
    left: Left,
}

impl Until {
    /// Of `log` the partitions in `ends`, up to these offsets, which are included.
    pub(super) fn new(log: Box<dyn ClickLog>, ends: BTreeMap<Partition, u64>) -> Self {
        let left = Left(Arc::new(Mutex::new(ends.clone())));
        Self { log, ends, left }
    }

    /// What is still to be read, as it changes.
    pub(super) fn left(&self) -> Left {
        self.left.clone()
    }

    fn is_within(&self, partition: Partition, offset: u64) -> bool {
        self.ends.get(&partition).is_some_and(|end| offset <= *end)
    }

    fn finish(&mut self, partition: Partition) {
        self.log.stop(partition);
        self.left.0.lock().remove(&partition);
    }
}

#[async_trait]
impl ClickLog for Until {
    async fn partitions(&mut self) -> Result<Vec<Partition>, LogError> {
        let mut partitions = self.log.partitions().await?;
        partitions.retain(|partition| self.ends.contains_key(partition));
        Ok(partitions)
    }

    /// A partition that is started again is read again.
    async fn start(&mut self, partition: Partition, checkpoint: Option<&Checkpoint>) -> Result<(), LogError> {
        self.log.start(partition, checkpoint).await?;
        match self.ends.get(&partition) {
            Some(end) if checkpoint.is_none_or(|checkpoint| checkpoint.at.offset < *end) => {
                self.left.0.lock().insert(partition, *end);
            }
            _ => self.finish(partition),
        }
        Ok(())
    }

    async fn next(&mut self, most_bytes: usize, wait_ms: u64) -> Result<Vec<Delivery>, LogError> {
        let mut deliveries = self.log.next(most_bytes, wait_ms).await?;
        for Delivery { partition, offset, .. } in &deliveries {
            if !self.is_within(*partition, offset.saturating_add(1)) {
                self.finish(*partition);
            }
        }
        deliveries.retain(|delivery| self.is_within(delivery.partition, delivery.offset));
        // Of these the messages up to their ends are void.
        for (partition, _) in self.log.ended() {
            self.left.0.lock().remove(&partition);
        }
        Ok(deliveries)
    }

    async fn passed(&mut self, partition: Partition, offset: u64) -> Result<(), LogError> {
        self.log.passed(partition, offset).await
    }

    async fn dead_letter(&mut self, delivery: &Delivery) -> Result<(), LogError> {
        self.log.dead_letter(delivery).await
    }

    fn stop(&mut self, partition: Partition) {
        self.log.stop(partition);
    }

    fn ended(&self) -> Vec<(Partition, JournalId)> {
        self.log.ended()
    }

    fn oldest_waiting(&self) -> Option<Timestamp> {
        self.log.oldest_waiting()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use terse_clicks::log::Body;

    use super::*;

    /// A log of some messages, which delivers all that is started at once.
    #[derive(Default)]
    struct Messages {
        of: BTreeMap<Partition, Vec<u64>>,
        started: BTreeMap<Partition, u64>,
        ended: Vec<(Partition, JournalId)>,
    }

    #[async_trait]
    impl ClickLog for Messages {
        async fn partitions(&mut self) -> Result<Vec<Partition>, LogError> {
            Ok(self.of.keys().copied().collect())
        }

        async fn start(&mut self, partition: Partition, checkpoint: Option<&Checkpoint>) -> Result<(), LogError> {
            self.started.insert(partition, checkpoint.map_or(0, |checkpoint| checkpoint.at.offset + 1));
            Ok(())
        }

        async fn next(&mut self, _: usize, _: u64) -> Result<Vec<Delivery>, LogError> {
            let mut deliveries = Vec::new();
            for (partition, next) in &mut self.started {
                for offset in self.of[partition].iter().copied().filter(|offset| *offset >= *next) {
                    let body = Body::Undecodable { bytes: Bytes::new(), reason: String::new() };
                    deliveries.push(Delivery { partition: *partition, offset, body });
                }
                *next = u64::MAX;
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
            self.started.remove(&partition);
        }

        fn ended(&self) -> Vec<(Partition, JournalId)> {
            self.ended.clone()
        }

        fn oldest_waiting(&self) -> Option<Timestamp> {
            None
        }
    }

    fn partition(number: u8) -> Partition {
        Partition::Journal(JournalId([number; 16]))
    }

    async fn until(messages: Messages, ends: &[(u8, u64)]) -> Until {
        let ends = ends.iter().map(|(number, end)| (partition(*number), *end)).collect();
        let mut log = Until::new(Box::new(messages), ends);
        for partition in log.partitions().await.unwrap() {
            log.start(partition, None).await.unwrap();
        }
        log
    }

    async fn offsets(log: &mut Until) -> Vec<(Partition, u64)> {
        log.next(1, 0).await.unwrap().into_iter().map(|delivery| (delivery.partition, delivery.offset)).collect()
    }

    #[tokio::test]
    async fn a_partition_is_read_up_to_its_end_and_others_not_at_all() {
        let of = [(partition(1), vec![0, 1, 2, 3]), (partition(2), vec![0])].into();
        let mut log = until(Messages { of, ..Messages::default() }, &[(1, 2)]).await;
        let left = log.left();
        assert!(!left.is_empty());
        assert_eq!(offsets(&mut log).await, [0, 1, 2].map(|offset| (partition(1), offset)));
        assert!(left.is_empty());
        assert_eq!(offsets(&mut log).await, [], "it was stopped");
    }

    #[tokio::test]
    async fn an_end_that_is_void_is_reached_by_the_message_behind_it_or_by_the_end_of_the_log() {
        let of: BTreeMap<_, _> = [(partition(1), vec![0, 5])].into();
        let mut log = until(Messages { of: of.clone(), ..Messages::default() }, &[(1, 3)]).await;
        assert_eq!(offsets(&mut log).await, [(partition(1), 0)]);
        assert!(log.left().is_empty());
        let ended = vec![(partition(1), JournalId([1; 16]))];
        let mut log = until(Messages { of, ended, ..Messages::default() }, &[(1, 9)]).await;
        assert_eq!(offsets(&mut log).await.len(), 2);
        assert!(log.left().is_empty());
    }

    #[tokio::test]
    async fn what_does_not_come_is_left_and_what_is_begun_anew_too() {
        let of = [(partition(1), vec![0, 1])].into();
        let mut log = until(Messages { of, ..Messages::default() }, &[(1, 1), (2, 0)]).await;
        assert_eq!(offsets(&mut log).await.len(), 2);
        assert_eq!(log.left().first(), Some((partition(2), 0)), "journal 2 is not there");
        log.finish(partition(2));
        assert!(log.left().is_empty());
        log.start(partition(1), None).await.unwrap();
        assert!(!log.left().is_empty());
        assert_eq!(offsets(&mut log).await.len(), 2);
        assert!(log.left().is_empty());
    }
}
