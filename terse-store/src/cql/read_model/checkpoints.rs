//! How far the log was projected, and which journals ended.
//!
//! A checkpoint is one cell with its position as write time, as rows are: one
//! of an earlier position that arrives late loses.

use scylla::statement::prepared::PreparedStatement;
use terse_core::Timestamp;
use terse_core::click::{BlockId, JournalId};
use terse_core::ports::StoreError;
use terse_core::ports::clicks::{Checkpoint, Retired};
use terse_core::stats::Partition;

use super::super::session::{Preparer, Use};
use super::super::{fault, levels, rows};
use super::Live;
use super::cells::{MAX_CELL_BYTES, position, write_time};

/// All checkpoints stand in this partition of their table.
const PART: i32 = 0;
/// Checkpoints read at once.
const CHECKPOINTS_AT_ONCE: usize = 64;
/// The version of both encodings, of checkpoints and of retired journals.
const FORMAT: u8 = 1;
/// Bytes before the set of blocks passed by a checkpoint: format, time, journal, sequence.
const HEAD_BYTES: usize = RETIRED_HEAD_BYTES + 16 + 8;
/// Bytes before the set of blocks passed of a retired journal: format, time.
const RETIRED_HEAD_BYTES: usize = 1 + 8;

const WRITE: &str = "UPDATE {keyspace}.click_checkpoints USING TIMESTAMP ? SET cell = ? WHERE part = ? AND log = ?";
const READ: &str = "SELECT cell, WRITETIME(cell) FROM {keyspace}.click_checkpoints WHERE part = ? AND log = ?";
const READ_AFTER: &str = "SELECT log, cell, WRITETIME(cell) FROM {keyspace}.click_checkpoints \
     WHERE part = ? AND log > ? LIMIT ?";
const RETIRE: &str = "UPDATE {keyspace}.click_retired USING TIMESTAMP ? SET cell = ? WHERE log = ? AND journal = ?";
const RETIRED: &str = "SELECT cell, WRITETIME(cell) FROM {keyspace}.click_retired WHERE log = ? AND journal = ?";

pub(super) struct Statements {
    write: PreparedStatement,
    read: PreparedStatement,
    read_after: PreparedStatement,
    retire: PreparedStatement,
    retired: PreparedStatement,
}

impl Statements {
    pub(super) async fn prepare(preparer: &Preparer<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            write: preparer.statement(Use::Write, WRITE).await?,
            read: preparer.statement(Use::ListRead, READ).await?,
            read_after: preparer.statement(Use::ListRead, READ_AFTER).await?,
            retire: preparer.statement(Use::Write, RETIRE).await?,
            retired: preparer.statement(Use::ListRead, RETIRED).await?,
        })
    }
}

/// The cell of a checkpoint: all but its position.
///
/// # Errors
/// When its set of passed blocks is too large.
pub(super) fn encode(checkpoint: &Checkpoint) -> Result<Vec<u8>, StoreError> {
    let mut cell = begin(checkpoint.until, &checkpoint.passed)?;
    cell.extend_from_slice(&checkpoint.anchor.journal.0);
    cell.extend_from_slice(&checkpoint.anchor.seq.to_be_bytes());
    cell.extend_from_slice(&checkpoint.passed);
    Ok(cell)
}

/// The checkpoint in a cell of this write time.
pub(super) fn decode(cell: Option<&[u8]>, time: Option<i64>) -> Result<Checkpoint, StoreError> {
    let (head, passed) = split::<HEAD_BYTES>(cell)?;
    Ok(Checkpoint {
        at: position(time)?,
        until: until_in(head),
        anchor: BlockId {
            journal: JournalId(std::array::from_fn(|at| head[RETIRED_HEAD_BYTES + at])),
            seq: number_in(head, RETIRED_HEAD_BYTES + 16),
        },
        passed: passed.to_vec(),
    })
}

fn encode_retired(retired: &Retired) -> Result<Vec<u8>, StoreError> {
    let mut cell = begin(retired.until, &retired.passed)?;
    cell.extend_from_slice(&retired.passed);
    Ok(cell)
}

fn decode_retired(cell: Option<&[u8]>, time: Option<i64>) -> Result<Retired, StoreError> {
    let (head, passed) = split::<RETIRED_HEAD_BYTES>(cell)?;
    Ok(Retired { at: position(time)?, until: until_in(head), passed: passed.to_vec() })
}

/// What both cells begin with, and room for all of it.
fn begin(until: Timestamp, passed: &[u8]) -> Result<Vec<u8>, StoreError> {
    if passed.len() > MAX_CELL_BYTES {
        let len = passed.len();
        return Err(fault::corrupt(format!("a set of blocks of {len} bytes, more than {MAX_CELL_BYTES}")));
    }
    let mut cell = Vec::with_capacity(HEAD_BYTES + passed.len());
    cell.push(FORMAT);
    cell.extend_from_slice(&until.as_millis().to_be_bytes());
    Ok(cell)
}

fn split<const HEAD: usize>(cell: Option<&[u8]>) -> Result<(&[u8; HEAD], &[u8]), StoreError> {
    let parts = rows::must(cell, "cell")?.split_first_chunk::<HEAD>();
    parts.filter(|(head, _)| head.first() == Some(&FORMAT)).ok_or_else(|| rows::wrong("cell"))
}

fn until_in(head: &[u8]) -> Timestamp {
    Timestamp::from_millis(number_in(head, 1).cast_signed())
}

fn number_in(head: &[u8], from: usize) -> u64 {
    u64::from_be_bytes(std::array::from_fn(|at| head[from + at]))
}

/// The partition whose name this is.
fn partition(log: &str) -> Result<Partition, StoreError> {
    let stream = log.strip_prefix("stream/").and_then(|number| number.parse().ok()).map(Partition::Stream);
    let journal = || log.strip_prefix("journal/").and_then(JournalId::parse).map(Partition::Journal);
    stream.or_else(journal).filter(|partition| partition.to_string() == log).ok_or_else(|| rows::wrong("log"))
}

impl Live {
    /// Writes a checkpoint. Where one of a later position is stored, that stays.
    pub(super) async fn write_checkpoint(&self, log: Partition, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        let values = (write_time(checkpoint.at)?, encode(checkpoint)?, PART, log.to_string());
        let answer = self.session.execute_unpaged(&self.checkpoints.write, values).await;
        answer.map(drop).map_err(|error| fault::write("writing a checkpoint", error))
    }

    pub(super) async fn checkpoint(&self, log: Partition) -> Result<Option<Checkpoint>, StoreError> {
        let values = (PART, log.to_string());
        let found = levels::rows_on(&self.session, "reading a checkpoint", &self.checkpoints.read, values).await?;
        let row = rows::first::<(Option<&[u8]>, Option<i64>)>(&found)?;
        row.map(|(cell, time)| decode(cell, time)).transpose()
    }

    pub(super) async fn checkpoints(&self) -> Result<Vec<(Partition, Checkpoint)>, StoreError> {
        let mut all = Vec::new();
        let mut after = String::new();
        loop {
            let values = (PART, after.as_str(), CHECKPOINTS_AT_ONCE as i32);
            let statement = &self.checkpoints.read_after;
            let found = levels::rows_on(&self.session, "reading checkpoints", statement, values).await?;
            let page = rows::all(&found, |(log, cell, time): (&str, Option<&[u8]>, Option<i64>)| {
                Ok((partition(log)?, decode(cell, time)?))
            })?;
            let last = page.last().filter(|_| page.len() == CHECKPOINTS_AT_ONCE).map(|(log, _)| log.to_string());
            all.extend(page);
            match last {
                Some(last) => after = last,
                None => return Ok(all),
            }
        }
    }

    /// Retires `journal`. Where it was retired at a later position, that stays.
    pub(super) async fn retire(&self, log: Partition, journal: JournalId, retired: &Retired) -> Result<(), StoreError> {
        let values = (write_time(retired.at)?, encode_retired(retired)?, log.to_string(), &journal.0[..]);
        let answer = self.session.execute_unpaged(&self.checkpoints.retire, values).await;
        answer.map(drop).map_err(|error| fault::write("retiring a journal", error))
    }

    pub(super) async fn retired(&self, log: Partition, journal: JournalId) -> Result<Option<Retired>, StoreError> {
        let values = (log.to_string(), &journal.0[..]);
        let statement = &self.checkpoints.retired;
        let found = levels::rows_on(&self.session, "looking for a retired journal", statement, values).await?;
        let row = rows::first::<(Option<&[u8]>, Option<i64>)>(&found)?;
        row.map(|(cell, time)| decode_retired(cell, time)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use terse_core::ports::StoreErrorKind;
    use terse_core::stats::Position;

    use super::*;

    fn checkpoint(passed: Vec<u8>) -> Checkpoint {
        Checkpoint {
            at: Position { epoch: 2, offset: 77 },
            until: Timestamp::from_millis(1_767_323_045_123),
            anchor: BlockId { journal: JournalId([0xa5; 16]), seq: u64::MAX - 1 },
            passed,
        }
    }

    #[test]
    fn a_checkpoint_comes_back() {
        for passed in [vec![], vec![7], vec![9; 5_000]] {
            let written = checkpoint(passed);
            let cell = encode(&written).unwrap();
            assert_eq!(decode(Some(&cell), Some(write_time(written.at).unwrap())).unwrap(), written);
        }
    }

    #[test]
    fn the_bytes_of_a_checkpoint_are_what_they_were() {
        let small = Checkpoint { until: Timestamp::from_millis(1), ..checkpoint(vec![0xee]) };
        let mut expected = vec![1, 0, 0, 0, 0, 0, 0, 0, 1];
        expected.extend([0xa5; 16]);
        expected.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xee]);
        assert_eq!(encode(&small).unwrap(), expected);
    }

    #[test]
    fn a_retired_journal_comes_back_or_is_corrupt() {
        let at = Position { epoch: 1, offset: 3 };
        let retired = Retired { at, until: Timestamp::from_millis(1_767_323_045_123), passed: vec![4; 2_000] };
        let (cell, time) = (encode_retired(&retired).unwrap(), Some(write_time(at).unwrap()));
        assert_eq!(decode_retired(Some(&cell), time).unwrap(), retired);
        for (cell, time) in [(None, time), (Some(&cell[..8]), time), (Some(&cell[1..]), time), (Some(&cell[..]), None)]
        {
            assert_eq!(decode_retired(cell, time).unwrap_err().kind, StoreErrorKind::Corrupt);
        }
    }

    #[test]
    fn a_checkpoint_that_can_not_be_understood_is_corrupt() {
        let cell = encode(&checkpoint(vec![1])).unwrap();
        let newer = [&[9], &cell[1..]].concat();
        for (cell, time) in [
            (None, Some(1)),
            (Some(&[][..]), Some(1)),
            (Some(&cell[..HEAD_BYTES - 1]), Some(1)),
            (Some(&newer[..]), Some(1)),
            (Some(&cell[..]), Some(1_767_323_045_000_000)),
            (Some(&cell[..]), None),
        ] {
            assert_eq!(decode(cell, time).unwrap_err().kind, StoreErrorKind::Corrupt);
        }
    }

    #[test]
    fn a_checkpoint_without_bounds_is_refused() {
        assert!(encode(&checkpoint(vec![0; MAX_CELL_BYTES])).is_ok());
        assert_eq!(encode(&checkpoint(vec![0; MAX_CELL_BYTES + 1])).unwrap_err().kind, StoreErrorKind::Corrupt);
    }

    #[test]
    fn partitions_are_known_by_their_names() {
        for known in [Partition::Stream(0), Partition::Stream(255), Partition::Journal(JournalId([3; 16]))] {
            assert_eq!(partition(&known.to_string()).unwrap(), known);
        }
        for unknown in ["", "stream/", "stream/-1", "stream/007", "stream/+7", "stream/65536", "journal/ff", "epoch/1"]
        {
            assert_eq!(partition(unknown).unwrap_err().kind, StoreErrorKind::Corrupt, "{unknown}");
        }
    }
}
