//! The exact set of blocks that a partition has passed.
//!
//! Per journal it keeps ranges of sequence numbers. Since every block sends a part to every partition, and late ones
//! come in the end, the ranges of a journal grow together into one. For blocks that a recovery sealed it also keeps
//! how many records were counted: a longer version of such a block, sealed by who wrote it, adds only the records behind.
//!
//! Bound: [`MAX_JOURNALS`]. Journals that ended, and beyond the bound those that were silent longest, move to rows of
//! their own and come back from there when one of their blocks does, so nothing is ever forgotten.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use terse_core::click::{BlockId, JournalId};

use crate::part::PartHeader;

/// Most journals that a partition's checkpoint speaks of.
pub(super) const MAX_JOURNALS: usize = 256;

/// The version of the encoding.
const FORMAT: u8 = 1;

/// The blocks that a partition has passed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Passed {
    journals: BTreeMap<JournalId, Seen>,
    /// Counts what came, to tell who was silent longest.
    came: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    blocks: Blocks,
    last_came: u64,
}

/// The blocks of one journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Blocks {
    /// From, included, to, excluded; in order, apart from each other.
    ranges: Vec<(u64, u64)>,
    /// Of blocks among them that a recovery sealed, how many records they had.
    recovered: BTreeMap<u64, u32>,
    /// Whether the block that ends the journal is among them.
    ended: bool,
}

/// Bytes are no set of blocks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the set of blocks passed can't be read: {0}")]
pub struct PassedError(String);

impl Passed {
    /// Whether it can say by itself which blocks of `journal` were passed.
    pub(super) fn knows(&self, journal: JournalId) -> bool {
        self.journals.contains_key(&journal)
    }

    /// Whether some version of `block` was passed.
    pub(super) fn has(&self, block: BlockId) -> bool {
        self.journals.get(&block.journal).is_some_and(|seen| seen.blocks.has(block.seq))
    }

    /// The index from which the records of this part have not been counted; `None` = all of them were.
    pub(super) fn first_new(&self, header: &PartHeader) -> Option<u32> {
        let blocks = self.journals.get(&header.block.journal).map(|seen| &seen.blocks);
        match blocks {
            Some(blocks) if blocks.has(header.block.seq) => {
                let counted = *blocks.recovered.get(&header.block.seq)?;
                (header.block_records > counted).then_some(counted)
            }
            _ => Some(0),
        }
    }

    /// Adds the block of this part.
    pub(super) fn pass(&mut self, header: &PartHeader) {
        self.came += 1;
        let seen = self.journals.entry(header.block.journal).or_default();
        seen.last_came = self.came;
        seen.blocks.pass(header);
    }

    /// Takes note that nothing more comes of `journal`; returns whether that is news.
    pub(super) fn end(&mut self, journal: JournalId) -> bool {
        let seen = self.journals.entry(journal).or_default();
        !std::mem::replace(&mut seen.blocks.ended, true)
    }

    /// Journals that the next checkpoint need not speak of: those that ended, and those beyond the bound.
    pub(super) fn leaving(&self) -> Vec<JournalId> {
        let (ended, going_on): (Vec<_>, Vec<_>) = self.journals.iter().partition(|(_, seen)| seen.blocks.ended);
        let mut leaving: Vec<JournalId> = ended.into_iter().map(|(journal, _)| *journal).collect();
        if going_on.len() > MAX_JOURNALS {
            let mut by_silence: Vec<_> = going_on.iter().map(|(journal, seen)| (seen.last_came, **journal)).collect();
            by_silence.sort_unstable();
            leaving.extend(by_silence.iter().take(going_on.len() - MAX_JOURNALS).map(|(_, journal)| *journal));
        }
        leaving
    }

    /// What is known of `journal`, for a row of its own.
    pub(super) fn encode_one(&self, journal: JournalId) -> Vec<u8> {
        encoded(&self.journals.get(&journal).map(|seen| &seen.blocks).unwrap_or(&Blocks::default()))
    }

    /// Takes back what [`Passed::encode_one`] told of `journal`. `ended` = whether to believe that it has ended.
    ///
    /// # Errors
    /// [`PassedError`].
    pub(super) fn restore(&mut self, journal: JournalId, bytes: &[u8], ended: bool) -> Result<(), PassedError> {
        let mut blocks: Blocks = decoded(bytes)?;
        blocks.check()?;
        blocks.ended &= ended;
        self.came += 1;
        self.journals.insert(journal, Seen { blocks, last_came: self.came });
        Ok(())
    }

    /// Forgets `journals`, which stand in rows of their own now.
    pub(super) fn forget(&mut self, journals: &[JournalId]) {
        for journal in journals {
            self.journals.remove(journal);
        }
    }

    /// The bytes for a checkpoint, without `leaving`. Equal sets have equal bytes.
    pub(super) fn encode(&self, leaving: &[JournalId]) -> Vec<u8> {
        let staying = self.journals.iter().filter(|(journal, _)| !leaving.contains(journal));
        encoded(&staying.map(|(journal, seen)| (journal, &seen.blocks)).collect::<Vec<_>>())
    }

    /// Reads what [`Passed::encode`] wrote.
    ///
    /// # Errors
    /// [`PassedError`].
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, PassedError> {
        let journals: Vec<(JournalId, Blocks)> = decoded(bytes)?;
        for (_, blocks) in &journals {
            blocks.check()?;
        }
        let seen = |(journal, blocks)| (journal, Seen { blocks, last_came: 0 });
        Ok(Self { journals: journals.into_iter().map(seen).collect(), came: 0 })
    }
}

/// Which blocks a read model includes, as its checkpoints and its retired journals tell. Two read models that include
/// the same blocks hold the same clicks.
#[derive(Clone, Debug, Default)]
pub struct Included(BTreeMap<JournalId, Blocks>);

impl Included {
    /// Adds what the checkpoint with this set tells; it knows better than what was retired before.
    ///
    /// # Errors
    /// [`PassedError`].
    pub fn add_checkpoint(&mut self, passed: &[u8]) -> Result<(), PassedError> {
        self.0.extend(Passed::decode(passed)?.journals.into_iter().map(|(journal, seen)| (journal, seen.blocks)));
        Ok(())
    }

    /// Adds what was retired of `journal`.
    ///
    /// # Errors
    /// [`PassedError`].
    pub fn add_retired(&mut self, journal: JournalId, passed: &[u8]) -> Result<(), PassedError> {
        let blocks: Blocks = decoded(passed)?;
        blocks.check()?;
        self.0.insert(journal, blocks);
        Ok(())
    }

    /// The journals of which any block is included, each with the first and the last one.
    pub fn journals(&self) -> impl Iterator<Item = (JournalId, u64, u64)> + '_ {
        self.0.iter().filter_map(|(journal, blocks)| {
            let (first, last) = (blocks.ranges.first()?.0, blocks.ranges.last()?.1 - 1);
            Some((*journal, first, last))
        })
    }

    /// The first block that one includes and the other does not, or not with as many records.
    #[must_use]
    pub fn first_difference(&self, other: &Self) -> Option<BlockId> {
        let none = Blocks::default();
        self.0.keys().chain(other.0.keys()).collect::<std::collections::BTreeSet<_>>().into_iter().find_map(|journal| {
            let blocks = |of: &'_ Self| of.0.get(journal).unwrap_or(&none).clone();
            let seq = blocks(self).first_difference(&blocks(other))?;
            Some(BlockId { journal: *journal, seq })
        })
    }
}

/// Into a vector nothing can fail but a length that isn't known before, and all are.
fn encoded(what: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(what, vec![FORMAT]).unwrap_or_default()
}

fn decoded<T: for<'d> Deserialize<'d>>(bytes: &[u8]) -> Result<T, PassedError> {
    match bytes.split_first() {
        Some((&FORMAT, rest)) => postcard::from_bytes(rest).map_err(|error| PassedError(error.to_string())),
        Some((format, _)) => Err(PassedError(format!("its format is {format}"))),
        None => Err(PassedError("it has no bytes".into())),
    }
}

impl Blocks {
    fn has(&self, seq: u64) -> bool {
        let place = self.ranges.partition_point(|(_, to)| *to <= seq);
        self.ranges.get(place).is_some_and(|(from, _)| *from <= seq)
    }

    fn pass(&mut self, header: &PartHeader) {
        let seq = header.block.seq;
        let before = self.has(seq);
        if header.recovered && (!before || self.recovered.contains_key(&seq)) {
            let counted = self.recovered.entry(seq).or_insert(0);
            *counted = header.block_records.max(*counted);
        } else if !header.recovered {
            // Sealed by who wrote it: there is no longer version.
            self.recovered.remove(&seq);
        }
        if !before {
            self.insert(seq);
        }
        self.ended |= header.end;
    }

    /// Adds a sequence number that is not in it.
    fn insert(&mut self, seq: u64) {
        let after = seq.saturating_add(1);
        let place = self.ranges.partition_point(|(_, to)| *to < seq);
        let joins_left = self.ranges.get(place).is_some_and(|(_, to)| *to == seq);
        let right = if joins_left { place + 1 } else { place };
        let joins_right = self.ranges.get(right).is_some_and(|(from, _)| *from == after);
        match (joins_left, joins_right) {
            (true, true) => {
                self.ranges[place].1 = self.ranges[right].1;
                self.ranges.remove(right);
            }
            (true, false) => self.ranges[place].1 = after,
            (false, true) => self.ranges[right].0 = seq,
            (false, false) => self.ranges.insert(place, (seq, after)),
        }
    }

    /// The first seq that only one of them has, or has with another count of records.
    fn first_difference(&self, other: &Self) -> Option<u64> {
        // Where the sets begin to differ, a range of one of them begins or ends.
        let bounds = self.ranges.iter().chain(&other.ranges).flat_map(|(from, to)| [*from, *to]);
        let bound = bounds.filter(|seq| self.has(*seq) != other.has(*seq)).min();
        let counts = self.recovered.keys().chain(other.recovered.keys());
        let count = counts.filter(|seq| self.recovered.get(seq) != other.recovered.get(seq)).min().copied();
        bound.into_iter().chain(count).min()
    }

    /// Whether its ranges are in order and apart, as all that is done with them takes for granted.
    fn check(&self) -> Result<(), PassedError> {
        let whole = self.ranges.iter().all(|(from, to)| from < to);
        let apart = self.ranges.is_sorted_by(|(_, to), (from, _)| to < from);
        if whole && apart { Ok(()) } else { Err(PassedError("its ranges are out of order".into())) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use terse_core::Timestamp;

    use super::*;

    fn journal(number: u16) -> JournalId {
        JournalId(u128::from(number).to_be_bytes())
    }

    fn header(journal_number: u16, seq: u64, block_records: u32, recovered: bool) -> PartHeader {
        PartHeader {
            block: BlockId { journal: journal(journal_number), seq },
            partition: 0,
            partitions: 1,
            block_records,
            recovered,
            end: false,
            sealed_at: Timestamp::from_millis(1),
        }
    }

    fn again(passed: &Passed) -> Passed {
        Passed::decode(&passed.encode(&[])).unwrap()
    }

    #[test]
    fn a_block_is_passed_once() {
        let mut passed = Passed::default();
        let block = header(1, 4, 10, false);
        assert_eq!(passed.first_new(&block), Some(0));
        passed.pass(&block);
        assert_eq!(passed.first_new(&block), None);
        assert!(passed.has(block.block) && passed.knows(block.block.journal));
        assert_eq!(passed.first_new(&header(1, 5, 10, false)), Some(0));
        assert_eq!(passed.first_new(&header(2, 4, 10, false)), Some(0));
        assert!(!passed.knows(journal(2)));
    }

    #[test]
    fn a_longer_version_of_a_recovered_block_adds_the_records_behind() {
        let mut passed = Passed::default();
        passed.pass(&header(1, 0, 50, true));
        let passed = &mut again(&passed);
        assert_eq!(passed.first_new(&header(1, 0, 50, true)), None);
        assert_eq!(passed.first_new(&header(1, 0, 30, true)), None);
        assert_eq!(passed.first_new(&header(1, 0, 80, true)), Some(50));
        passed.pass(&header(1, 0, 80, true));
        passed.pass(&header(1, 0, 30, true));
        assert_eq!(passed.first_new(&header(1, 0, 200, false)), Some(80));
        passed.pass(&header(1, 0, 200, false));
        for version in [header(1, 0, 200, false), header(1, 0, 300, true)] {
            assert_eq!(passed.first_new(&version), None, "who wrote it has sealed it");
        }
        passed.pass(&header(1, 0, 50, true));
        assert_eq!(again(passed).first_new(&header(1, 0, 300, true)), None);
    }

    #[test]
    fn journals_that_ended_leave_and_come_back() {
        let mut passed = Passed::default();
        passed.pass(&header(1, 0, 50, true));
        passed.pass(&PartHeader { end: true, ..header(1, 1, 0, true) });
        passed.pass(&header(2, 0, 1, false));
        assert_eq!(passed.leaving(), [journal(1)]);
        let row = passed.encode_one(journal(1));
        let mut rest = Passed::decode(&passed.encode(&passed.leaving())).unwrap();
        passed.forget(&[journal(1)]);
        assert!(!passed.knows(journal(1)) && !rest.knows(journal(1)) && rest.knows(journal(2)));
        rest.restore(journal(1), &row, true).unwrap();
        assert_eq!(rest.first_new(&header(1, 0, 70, false)), Some(50));
        assert_eq!(rest.leaving(), [journal(1)]);
        rest.restore(journal(1), &row, false).unwrap();
        assert_eq!(rest.leaving(), []);
    }

    #[test]
    fn beyond_the_bound_those_leave_that_were_silent_longest() {
        let mut passed = Passed::default();
        for number in 0..MAX_JOURNALS as u16 + 2 {
            passed.pass(&header(number, 0, 1, false));
        }
        passed.pass(&header(0, 1, 1, false));
        assert_eq!(passed.leaving(), [journal(1), journal(2)]);
        passed.forget(&passed.leaving());
        assert_eq!(passed.leaving(), []);
    }

    #[test]
    fn the_bytes_of_format_1_stay_as_they_are() {
        let mut passed = Passed::default();
        passed.pass(&header(1, 300, 7, true));
        let mut expected = vec![1, 1];
        expected.extend(journal(1).0);
        expected.extend([1, 0xac, 2, 0xad, 2, 1, 0xac, 2, 7, 0]);
        assert_eq!(passed.encode(&[]), expected);
    }

    #[test]
    fn bytes_that_are_no_set_are_told() {
        let mut bytes = Passed::default().encode(&[]);
        assert_eq!(Passed::decode(&bytes), Ok(Passed::default()));
        bytes[0] = 9;
        for bytes in [&bytes[..], &[], &[1], &[1, 200]] {
            assert!(Passed::decode(bytes).is_err(), "{bytes:?}");
        }
        for ranges in [vec![(3, 3)], vec![(3, 2)], vec![(0, 2), (2, 3)], vec![(5, 6), (1, 2)]] {
            let blocks = Blocks { ranges, ..Blocks::default() };
            assert!(Passed::default().restore(journal(1), &encoded(&blocks), true).is_err());
            assert!(Passed::decode(&encoded(&vec![(journal(1), blocks)])).is_err());
        }
    }

    fn included(passed: &Passed) -> Included {
        let mut included = Included::default();
        included.add_checkpoint(&passed.encode(&[])).unwrap();
        included
    }

    #[test]
    fn what_two_read_models_include_differs_from_some_block_on() {
        let (mut one, mut other) = (Passed::default(), Passed::default());
        let differ = |one: &Passed, other: &Passed| {
            let (one, other) = (included(one), included(other));
            assert_eq!(one.first_difference(&other), other.first_difference(&one));
            one.first_difference(&other).map(|block| (u128::from_be_bytes(block.journal.0), block.seq))
        };
        for seq in [0, 1, 2, 5] {
            one.pass(&header(1, seq, 1, false));
            other.pass(&header(1, seq, 1, false));
        }
        assert_eq!(differ(&one, &other), None);
        one.pass(&header(2, 4, 1, false));
        assert_eq!(differ(&one, &other), Some((2, 4)));
        other.pass(&header(1, 3, 1, false));
        assert_eq!(differ(&one, &other), Some((1, 3)));
        one.pass(&header(1, 3, 50, true));
        other.pass(&header(2, 4, 1, false));
        assert_eq!(differ(&one, &other), Some((1, 3)), "a recovered block may have a longer version");
        one.pass(&header(1, 3, 60, false));
        assert_eq!(differ(&one, &other), None);
    }

    #[test]
    fn what_is_included_is_told_by_checkpoints_and_by_retired_journals() {
        let mut passed = Passed::default();
        for block in [header(1, 3, 1, false), header(1, 7, 1, false), header(2, 0, 1, false)] {
            passed.pass(&block);
        }
        let mut told = Included::default();
        told.add_retired(journal(1), &passed.encode_one(journal(1))).unwrap();
        told.add_retired(journal(3), &Passed::default().encode_one(journal(3))).unwrap();
        assert_eq!(told.journals().collect::<Vec<_>>(), [(journal(1), 3, 7)], "journal 3 has no block");
        passed.end(journal(2));
        told.add_checkpoint(&passed.encode(&[])).unwrap();
        assert_eq!(told.journals().collect::<Vec<_>>(), [(journal(1), 3, 7), (journal(2), 0, 0)]);
        assert!(told.add_checkpoint(&[9]).is_err() && told.add_retired(journal(1), &[]).is_err());
    }

    #[test]
    fn the_last_sequence_number_is_no_trouble() {
        let mut passed = Passed::default();
        passed.pass(&header(1, u64::MAX - 1, 1, false));
        passed.pass(&header(1, u64::MAX, 1, false));
        assert!(passed.has(BlockId { journal: journal(1), seq: u64::MAX - 1 }));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

        #[test]
        fn the_ranges_are_the_set(
            seqs in prop::collection::vec(0..40_u64, 0..60),
            bytes in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let (mut passed, mut set) = (Passed::default(), BTreeSet::new());
            for seq in seqs {
                let block = header(1, seq, 1, false);
                prop_assert_eq!(passed.first_new(&block).is_none(), set.contains(&seq));
                passed.pass(&block);
                set.insert(seq);
            }
            let read = again(&passed);
            prop_assert_eq!(read.encode(&[]), passed.encode(&[]));
            for seq in 0..42 {
                prop_assert_eq!(read.has(BlockId { journal: journal(1), seq }), set.contains(&seq));
            }
            let gaps = (1..41).filter(|seq| set.contains(seq) && !set.contains(&(seq - 1))).count();
            let ranges = passed.journals.get(&journal(1)).map_or(0, |seen| seen.blocks.ranges.len());
            prop_assert_eq!(ranges, gaps + usize::from(set.contains(&0)), "ranges that touch are one");
            let _ = Passed::decode(&bytes);
        }
    }
}
