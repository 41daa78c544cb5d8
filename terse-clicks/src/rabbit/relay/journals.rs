//! Which journals are relayed, and how far each of them is confirmed.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

use terse_core::Timestamp;
use terse_core::click::{BlockId, JournalId};
use terse_core::ports::clicks::Checkpoint;
use terse_core::stats::{Partition, Position};

use super::session::Message;
use crate::journal::directory::JournalDir;
use crate::log::{ClickLog, LogError};
use crate::part::Part;
use crate::rabbit::connection::MAX_PARTITIONS;

/// Most journals that are relayed at a time.
pub const MAX_JOURNALS: usize = 1_024;
/// How often new journals are looked for.
const LOOK_MS: u64 = 500;
/// When a journal is looked at again that can't be relayed: it was made for another number of partitions, or one of its
/// files can't be read.
const ASIDE_MS: u64 = 30_000;

/// The journals of a data directory, as far as they are this relay's.
pub(super) struct Journals {
    root: PathBuf,
    own: Option<JournalId>,
    partitions: u16,
    relayed: BTreeMap<JournalId, Relayed>,
    /// Journals that can't be relayed, and when they are looked at again.
    aside: HashMap<JournalId, u64>,
    now_ms: u64,
    next_look_ms: u64,
}

/// A journal that is relayed.
#[derive(Default)]
struct Relayed {
    /// Of the blocks that are not confirmed, which parts are not.
    waiting: BTreeMap<u64, Parts>,
    /// The last block that was taken.
    last: Option<u64>,
    /// The last block up to which all is noted to be confirmed.
    noted: Option<u64>,
    /// Blocks that came when later ones had been taken or passed: an operator may have had them brought back.
    /// The log is told when they are confirmed.
    late: BTreeSet<u64>,
    /// The last block of the journal, while others of it are not confirmed.
    end: Option<Part>,
    /// Whether its last block was taken.
    ended: bool,
    /// Whether no more of it can be read. What was taken is still to be confirmed; then it is left alone for a while,
    /// and read again from there. To read it again at once would publish the same blocks over and over.
    is_stuck: bool,
}

/// Some of a block's parts, by partition.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Parts([u64; MAX_PARTITIONS as usize / 64]);

impl Parts {
    const NONE: Self = Self([0; MAX_PARTITIONS as usize / 64]);

    fn all(partitions: u16) -> Self {
        let mut all = Self::NONE;
        for partition in 0..usize::from(partitions.min(MAX_PARTITIONS)) {
            all.0[partition / 64] |= 1 << (partition % 64);
        }
        all
    }

    fn remove(&mut self, partition: u16) {
        if let Some(word) = self.0.get_mut(usize::from(partition) / 64) {
            *word &= !(1 << (partition % 64));
        }
    }
}

/// How far a journal is.
enum Noted {
    /// Blocks of it are to come, or to be confirmed.
    Waits,
    /// All of it is confirmed.
    Done,
    /// All that could be taken of it is.
    Stuck,
}

impl Relayed {
    /// A journal of which the first `passed` blocks are: what comes of them was brought back.
    fn behind(passed: u64) -> Self {
        let last = passed.checked_sub(1);
        Self { last, noted: last, ..Self::default() }
    }

    /// Notes how much is confirmed of the journal in `directory`, of which there is nothing left to read if it
    /// `has_ended`.
    async fn note_passed(
        &mut self,
        log: &mut impl ClickLog,
        directory: &JournalDir,
        has_ended: bool,
    ) -> Result<Noted, LogError> {
        let partition = Partition::Journal(directory.id());
        let confirmed = self.confirmed();
        // It goes back while a block is published that was brought back; that was passed all the same.
        if confirmed > self.noted
            && let Some(seq) = confirmed
        {
            log.passed(partition, seq).await?;
            self.noted = confirmed;
        }
        let back: Vec<u64> = self.late.iter().filter(|seq| !self.waiting.contains_key(seq)).copied().collect();
        for seq in back {
            self.late.remove(&seq);
            log.counted(partition, seq).await;
        }
        if !self.waiting.is_empty() {
            return Ok(Noted::Waits);
        }
        if self.ended {
            return Ok(Noted::Done);
        }
        if self.is_stuck {
            return Ok(Noted::Stuck);
        }
        if !has_ended {
            return Ok(Noted::Waits);
        }
        // Its last block can't be read, and was put aside.
        if let Some(end) = directory.ended().map_err(unreadable)? {
            log.passed(partition, end).await?;
        }
        Ok(Noted::Done)
    }

    /// The last block up to which all are confirmed.
    fn confirmed(&self) -> Option<u64> {
        match self.waiting.first_key_value() {
            Some((first, _)) => first.checked_sub(1),
            None => self.last,
        }
    }
}

impl Journals {
    pub(super) fn new(root: &Path, own: Option<JournalId>, partitions: u16) -> Self {
        let (relayed, aside) = (BTreeMap::new(), HashMap::new());
        Self { root: root.to_owned(), own, partitions, relayed, aside, now_ms: 0, next_look_ms: 0 }
    }

    /// Journals that can't be relayed now.
    pub(super) fn stopped(&self) -> usize {
        self.aside.len() + self.relayed.values().filter(|relayed| relayed.is_stuck).count()
    }

    /// Starts journals that are there and not yet relayed, if it is time to look. It reads small files. A journal that
    /// can't be started is left alone for a while; the others go on.
    pub(super) async fn look(&mut self, log: &mut impl ClickLog, now_ms: u64) -> Result<(), LogError> {
        self.now_ms = now_ms;
        if now_ms < self.next_look_ms {
            return Ok(());
        }
        let mut listed = log.partitions().await?;
        // The own journal first: it has a place whatever was left by others.
        listed.sort_by_key(|partition| Some(*partition) != self.own.map(Partition::Journal));
        self.aside.retain(|journal, until_ms| *until_ms > now_ms && listed.contains(&Partition::Journal(*journal)));
        for partition in listed {
            let Partition::Journal(journal) = partition else { continue };
            let known = self.relayed.contains_key(&journal) || self.aside.contains_key(&journal);
            if known || self.relayed.len() >= MAX_JOURNALS {
                continue;
            }
            match self.start(log, journal).await {
                Ok(Some(relayed)) => drop(self.relayed.insert(journal, relayed)),
                Ok(None) => {}
                Err(error) => self.put_aside(journal, &error),
            }
        }
        self.next_look_ms = now_ms + LOOK_MS;
        Ok(())
    }

    /// Starts reading `journal` where it is noted to be passed; `None` = it is another process' to relay.
    async fn start(&self, log: &mut impl ClickLog, journal: JournalId) -> Result<Option<Relayed>, LogError> {
        let directory = JournalDir::of(&self.root, journal);
        // Another living process relays its own journal.
        if self.own != Some(journal) && directory.ended().map_err(unreadable)?.is_none() {
            return Ok(None);
        }
        let passed = directory.passed().map_err(unreadable)?;
        log.start(Partition::Journal(journal), resume(journal, passed).as_ref()).await?;
        Ok(Some(Relayed::behind(passed)))
    }

    /// Leaves `journal` alone for a while, with an alarm.
    fn put_aside(&mut self, journal: JournalId, error: &LogError) {
        tracing::error!(%journal, %error, "clicks of a journal can't be published, to be tried again");
        self.relayed.remove(&journal);
        self.aside.insert(journal, self.now_ms + ASIDE_MS);
    }

    /// Takes a block: its parts go to the `outbox`. `false` = its journal can't be relayed, and is left alone for a
    /// while.
    pub(super) fn take(&mut self, block: &Part, outbox: &mut VecDeque<Message>) -> bool {
        let BlockId { journal, seq } = block.header.block;
        if block.header.partitions != self.partitions {
            let (stands, asked) = (block.header.partitions, self.partitions);
            tracing::error!(%journal, stands, asked, "a journal was made for another number of partitions, and waits");
            self.relayed.remove(&journal);
            self.aside.insert(journal, self.now_ms + ASIDE_MS);
            return false;
        }
        let Some(relayed) = self.relayed.get_mut(&journal) else { return true };
        if relayed.last >= Some(seq) {
            relayed.late.insert(seq);
        }
        relayed.last = relayed.last.max(Some(seq));
        relayed.ended |= block.header.end;
        let alone = relayed.waiting.is_empty();
        relayed.waiting.insert(seq, Parts::all(self.partitions));
        if block.header.end && !alone {
            relayed.end = Some(block.clone());
        } else {
            send(block, self.partitions, outbox);
        }
        true
    }

    /// A block was put aside: nothing of it is to be published.
    pub(super) fn skip(&mut self, partition: Partition, seq: u64) {
        if let Partition::Journal(journal) = partition
            && let Some(relayed) = self.relayed.get_mut(&journal)
        {
            relayed.last = relayed.last.max(Some(seq));
        }
    }

    /// The part of `block` for `partition` was confirmed.
    pub(super) fn confirmed(&mut self, block: BlockId, partition: u16, outbox: &mut VecDeque<Message>) {
        let Some(relayed) = self.relayed.get_mut(&block.journal) else { return };
        let Some(left) = relayed.waiting.get_mut(&block.seq) else { return };
        left.remove(partition);
        if *left == Parts::NONE {
            relayed.waiting.remove(&block.seq);
            tracing::debug!(%block, "block confirmed by the broker");
        }
        if relayed.waiting.len() == 1
            && let Some(end) = relayed.end.take()
        {
            send(&end, self.partitions, outbox);
        }
    }

    /// Notes for each journal's process how much of it is confirmed; lets journals go that are done. A journal of which
    /// that can't be told is left alone for a while; the others go on.
    pub(super) async fn note_passed(&mut self, log: &mut impl ClickLog) {
        let ended = log.ended();
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for (journal, relayed) in &mut self.relayed {
            let partition = Partition::Journal(*journal);
            let has_ended = ended.contains(&(partition, *journal));
            match relayed.note_passed(log, &JournalDir::of(&self.root, *journal), has_ended).await {
                Ok(Noted::Waits) => {}
                Ok(Noted::Done) => done.push(*journal),
                Ok(Noted::Stuck) => {
                    self.aside.insert(*journal, self.now_ms + ASIDE_MS);
                    done.push(*journal);
                }
                Err(error) => failed.push((*journal, error)),
            }
        }
        for (journal, error) in &failed {
            log.stop(Partition::Journal(*journal));
            self.put_aside(*journal, error);
        }
        for journal in done {
            log.stop(Partition::Journal(journal));
            self.relayed.remove(&journal);
        }
    }

    /// No more of `journal` can be read now: when all that was taken of it is confirmed, it is left alone for a while.
    pub(super) fn stall(&mut self, journal: JournalId) {
        if let Some(relayed) = self.relayed.get_mut(&journal) {
            relayed.is_stuck = true;
        }
    }

    /// Forgets `journal`; the next look starts it from what is noted.
    pub(super) fn forget(&mut self, journal: JournalId) {
        self.relayed.remove(&journal);
    }
}

fn send(block: &Part, partitions: u16, outbox: &mut VecDeque<Message>) {
    outbox.extend(block.split(partitions).iter().map(Message::of));
}

/// What makes a journal's reader begin behind the blocks that are passed.
fn resume(journal: JournalId, passed: u64) -> Option<Checkpoint> {
    let last = passed.checked_sub(1)?;
    let at = Position { epoch: 0, offset: last };
    let anchor = BlockId { journal, seq: last };
    Some(Checkpoint { at, until: Timestamp::from_millis(0), anchor, passed: Vec::new() })
}

fn unreadable(error: io::Error) -> LogError {
    LogError::Unavailable(error.to_string())
}

#[cfg(test)]
mod tests {
    use terse_core::Version;
    use terse_core::click::Signals;

    use super::*;
    use crate::journal::directory::Name;
    use crate::log::Body;
    use crate::log::local::LocalLog;
    use crate::log::quarantine::Quarantine;
    use crate::part::PartHeader;
    use crate::record::Record;

    const ID: JournalId = JournalId([5; 16]);

    fn block(seq: u64, codes: &[&str], end: bool) -> Part {
        let record = |code| Record {
            at: Timestamp::from_millis(1),
            code,
            version: Version(1),
            network: None,
            visitor: None,
            referrer: b"",
            user_agent: b"",
            language: b"",
            signals: Signals::default(),
        };
        let header = PartHeader {
            block: BlockId { journal: ID, seq },
            partition: 0,
            partitions: 3,
            block_records: codes.len() as u32,
            recovered: false,
            end,
            sealed_at: Timestamp::from_millis(2),
        };
        Part::new(header, (0..).zip(codes.iter().map(|code| record(code))))
    }

    /// Relays one journal to three streams.
    struct World {
        journals: Journals,
        outbox: VecDeque<Message>,
    }

    impl World {
        fn new() -> Self {
            let mut journals = Journals::new(Path::new("/nowhere"), Some(ID), 3);
            journals.relayed.insert(ID, Relayed::default());
            Self { journals, outbox: VecDeque::new() }
        }

        fn take(&mut self, block: &Part) {
            assert!(self.journals.take(block, &mut self.outbox));
        }

        /// What is to be published, as (seq, partition).
        fn publish(&mut self) -> Vec<(u64, u16)> {
            self.outbox.drain(..).map(|message| (message.block.seq, message.partition)).collect()
        }

        fn confirm(&mut self, seq: u64, partition: u16) -> Option<u64> {
            self.journals.confirmed(BlockId { journal: ID, seq }, partition, &mut self.outbox);
            self.confirmed()
        }

        fn confirmed(&self) -> Option<u64> {
            self.journals.relayed[&ID].confirmed()
        }
    }

    #[test]
    fn every_block_has_a_part_for_every_stream() {
        let mut world = World::new();
        world.take(&block(0, &["one"], false));
        world.take(&block(1, &[], false));
        assert_eq!(world.publish(), [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]);
    }

    #[test]
    fn a_block_is_passed_when_all_its_parts_and_all_blocks_before_it_are_confirmed() {
        let mut world = World::new();
        for seq in [3, 4, 6] {
            world.take(&block(seq, &["one", "two"], false));
        }
        assert_eq!(world.confirmed(), Some(2), "those before the first are void, or were passed before");
        for partition in [2, 0] {
            assert_eq!(world.confirm(3, partition), Some(2));
        }
        for partition in 0..3 {
            assert_eq!(world.confirm(4, partition), Some(2), "the block before it is not whole");
        }
        assert_eq!(world.confirm(3, 1), Some(5), "up to the next that is not");
        for partition in 0..3 {
            world.confirm(6, partition);
        }
        assert_eq!(world.confirmed(), Some(6));
    }

    #[test]
    fn a_part_that_is_confirmed_twice_does_not_stand_for_another() {
        let mut world = World::new();
        world.take(&block(0, &["one"], false));
        for partition in [0, 0, 0, 1, 1] {
            assert_eq!(world.confirm(0, partition), None);
        }
        assert_eq!(world.confirm(0, 2), Some(0));
        assert_eq!(world.confirm(0, 2), Some(0));
        assert_eq!(world.confirm(99, 2), Some(0), "of a block that isn't known");
    }

    #[test]
    fn the_last_block_goes_out_when_all_others_are_confirmed() {
        let mut world = World::new();
        world.take(&block(0, &["one"], false));
        world.take(&block(1, &["one"], false));
        world.take(&block(2, &[], true));
        assert_eq!(world.publish().len(), 6);
        for (seq, partition) in [(1, 0), (1, 1), (1, 2), (0, 0), (0, 1)] {
            world.confirm(seq, partition);
            assert!(world.publish().is_empty());
        }
        world.confirm(0, 2);
        assert_eq!(world.publish(), [(2, 0), (2, 1), (2, 2)]);
        assert_eq!(world.confirmed(), Some(1));
        for partition in 0..3 {
            world.confirm(2, partition);
        }
        assert_eq!(world.confirmed(), Some(2));
    }

    #[test]
    fn the_last_block_of_a_journal_without_others_goes_out_at_once() {
        let mut world = World::new();
        world.take(&block(0, &[], true));
        assert_eq!(world.publish().len(), 3);
    }

    #[test]
    fn a_block_that_was_put_aside_holds_nothing_up() {
        let mut world = World::new();
        world.journals.skip(Partition::Journal(ID), 0);
        assert_eq!(world.confirmed(), Some(0));
        world.take(&block(1, &["one"], false));
        world.journals.skip(Partition::Journal(ID), 2);
        assert_eq!(world.confirmed(), Some(0));
        for partition in 0..3 {
            world.confirm(1, partition);
        }
        assert_eq!(world.confirmed(), Some(2));
    }

    #[test]
    fn a_journal_for_another_number_of_streams_is_left_alone() {
        let mut world = World::new();
        let mut other = block(0, &["one"], false);
        other.header.partitions = 4;
        assert!(!world.journals.take(&other, &mut world.outbox));
        assert!(world.publish().is_empty() && world.journals.stopped() == 1);
    }

    /// Ended journals with these numbers in a directory, each with one block and an end, and a log of them.
    fn directory(numbers: &[u8]) -> (tempfile::TempDir, LocalLog) {
        let root = tempfile::tempdir().unwrap();
        for number in numbers {
            let id = JournalId([*number; 16]);
            let (journal, _lock) = JournalDir::create(root.path(), id).unwrap();
            let end = crate::journal::end_block_of(BlockId { journal: id, seq: 0 }, 3);
            journal.end(0, &end).unwrap();
        }
        let log = LocalLog::new(root.path(), None);
        (root, log)
    }

    #[tokio::test]
    async fn a_journal_that_can_not_be_read_holds_up_no_other() {
        let (root, mut log) = directory(&[1, 2, 3]);
        let ended = root.path().join(JournalId([1; 16]).to_string()).join("ended");
        std::fs::remove_file(&ended).unwrap();
        std::fs::create_dir(&ended).unwrap();
        let mut journals = Journals::new(root.path(), None, 3);
        journals.look(&mut log, 0).await.unwrap();
        assert_eq!((journals.relayed.len(), journals.stopped()), (2, 1));
        // And once all of one is read, and its end can't be told any more.
        for delivery in log.next(1 << 20, 0).await.unwrap() {
            assert!(matches!(delivery.body, Body::Part(_)));
            journals.skip(delivery.partition, delivery.offset);
        }
        let ended = root.path().join(JournalId([2; 16]).to_string()).join("ended");
        std::fs::remove_file(&ended).unwrap();
        std::fs::create_dir(&ended).unwrap();
        journals.note_passed(&mut log).await;
        assert_eq!((journals.relayed.len(), journals.stopped()), (0, 2), "the third is done");
        let passed = |number| JournalDir::of(root.path(), JournalId([number; 16])).passed().unwrap();
        assert_eq!((passed(2), passed(3)), (1, 1));
        // Later it is looked at again.
        std::fs::remove_dir(&ended).unwrap();
        std::fs::write(&ended, 0_u64.to_le_bytes()).unwrap();
        journals.look(&mut log, ASIDE_MS + LOOK_MS).await.unwrap();
        assert_eq!((journals.relayed.len(), journals.stopped()), (1, 1), "the first is still as it was");
    }

    #[tokio::test]
    async fn what_was_taken_of_a_stuck_journal_is_confirmed_before_it_is_left_alone() {
        let (root, mut log) = directory(&[5]);
        let mut world = World::new();
        world.journals.root = root.path().to_owned();
        world.take(&block(0, &["one"], false));
        world.journals.stall(ID);
        world.journals.note_passed(&mut log).await;
        assert_eq!((world.journals.relayed.len(), world.journals.stopped()), (1, 1));
        for partition in 0..3 {
            world.confirm(0, partition);
        }
        world.journals.note_passed(&mut log).await;
        assert_eq!((world.journals.relayed.len(), world.journals.stopped()), (0, 1));
        assert_eq!(JournalDir::of(root.path(), ID).passed().unwrap(), 1, "it is read again from there");
    }

    /// An ended journal with an end at `blocks`, all of it relayed, in which these blocks were put aside and are asked
    /// for again.
    fn drained(blocks: u64, requeued: &[u64]) -> (tempfile::TempDir, JournalDir) {
        let root = tempfile::tempdir().unwrap();
        let (directory, _lock) = JournalDir::create(root.path(), ID).unwrap();
        let bytes = |seq| crate::journal::end_block_of(BlockId { journal: ID, seq }, 3);
        for seq in 0..blocks {
            directory.put(&directory.file(Name::Block(seq)), &bytes(seq)).unwrap();
        }
        directory.end(blocks, &bytes(blocks)).unwrap();
        directory.set_passed(blocks + 1).unwrap();
        for seq in requeued {
            directory.quarantine(Name::Block(*seq)).unwrap();
        }
        let quarantine = Quarantine::new(root.path());
        quarantine.list(9).unwrap().iter().for_each(|dead| quarantine.requeue(dead).unwrap());
        (root, directory)
    }

    /// Has all published and confirmed that the log delivers, one block after the other; returns their seqs.
    async fn relay_one_by_one(journals: &mut Journals, log: &mut LocalLog) -> Vec<u64> {
        let mut seqs = Vec::new();
        let mut outbox = VecDeque::new();
        for _ in 0..9 {
            for delivery in log.next(1 << 20, 0).await.unwrap() {
                let Body::Part(mut block) = delivery.body else { panic!("{} is unreadable", delivery.offset) };
                // None of them is the last.
                block.header.end = false;
                assert!(journals.take(&block, &mut outbox));
                seqs.push(delivery.offset);
            }
            // It is asked while the block is under way, too.
            journals.note_passed(log).await;
            for message in std::mem::take(&mut outbox) {
                journals.confirmed(message.block, message.partition, &mut outbox);
            }
            journals.note_passed(log).await;
        }
        seqs
    }

    #[tokio::test]
    async fn all_blocks_of_a_drained_journal_that_were_asked_for_are_published_once() {
        let (root, directory) = drained(5, &[1, 3, 4]);
        let mut log = LocalLog::new(root.path(), None);
        let mut journals = Journals::new(root.path(), None, 3);
        journals.look(&mut log, 0).await.unwrap();
        assert_eq!(journals.relayed.len(), 1);
        assert_eq!(relay_one_by_one(&mut journals, &mut log).await, [1, 3, 4]);
        assert!(Quarantine::new(root.path()).list(9).unwrap().is_empty(), "they are among the others again");
        assert_eq!((journals.relayed.len(), directory.passed().unwrap()), (0, 6), "its place is free");
        journals.look(&mut log, LOOK_MS).await.unwrap();
        assert_eq!((journals.relayed.len(), journals.stopped()), (0, 0), "and nothing of it is left to do");
    }

    #[test]
    fn parts_are_kept_apart_up_to_the_last() {
        for partitions in [1, 63, 64, 65, MAX_PARTITIONS] {
            let mut parts = Parts::all(partitions);
            for partition in 0..partitions {
                assert!(parts != Parts::NONE, "{partition} of {partitions}");
                parts.remove(partition);
                parts.remove(partition);
            }
            assert!(parts == Parts::NONE, "{partitions}");
        }
        let mut one = Parts::all(1);
        one.remove(1);
        one.remove(u16::MAX);
        assert!(one != Parts::NONE);
    }

    #[test]
    fn reading_goes_on_behind_what_was_passed() {
        assert_eq!(resume(ID, 0), None);
        assert_eq!(resume(ID, 7).map(|checkpoint| checkpoint.at.offset), Some(6));
    }
}
