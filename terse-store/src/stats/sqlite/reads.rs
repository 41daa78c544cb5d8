//! The reading statements, each one snapshot of the file.

use rusqlite::{Connection, Row as SqlRow};
use terse_core::click::JournalId;
use terse_core::ports::clicks::{Bus, Checkpoint, Retired, StoredRow};
use terse_core::stats::{Partition, Row, RowKey, Span};
use terse_core::{ShortCode, Timestamp};

use super::fault::Fault;
use super::rows;
use crate::sqlite_file::query::{all, first};

/// What the file says of itself.
pub(super) struct Head {
    pub(super) generation: i64,
    pub(super) bus: Option<Bus>,
    /// Whether rows may have positions of their own.
    pub(super) positions: bool,
    /// The latest of all checkpoints that ever stood, but for those that a clock told that was ahead.
    pub(super) until: Option<Timestamp>,
}

pub(super) fn head(connection: &Connection) -> Result<Head, Fault> {
    let head = first(connection, "SELECT generation, until, bus, positions FROM head WHERE id = 1", [], |row| {
        let until = Some(rows::time(row, "until")?).filter(|until| until.as_millis() > 0);
        let (generation, positions) = (rows::number(row, "generation")?, rows::number(row, "positions")? != 0);
        Ok(Head { generation, bus: rows::bus(row)?, positions, until })
    })?;
    head.ok_or_else(|| Fault::corrupt("a file without its head"))
}

/// How large the file is without its WAL, in bytes.
pub(super) fn file_bytes(connection: &Connection) -> Result<u64, Fault> {
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (pages, each) = (number("page_count")?, number("page_size")?);
    Ok(pages.saturating_mul(each).cast_unsigned())
}

const CHECKPOINT: &str = "SELECT at, until, journal, seq, passed FROM checkpoints WHERE partition = ?1";

pub(super) fn checkpoint(connection: &Connection, partition: Partition) -> Result<Option<Checkpoint>, Fault> {
    first(connection, CHECKPOINT, [partition.to_string()], rows::checkpoint)
}

pub(super) fn checkpoints(connection: &Connection) -> Result<Vec<(Partition, Checkpoint)>, Fault> {
    let decode = |row: &SqlRow<'_>| Ok((rows::partition(row)?, rows::checkpoint(row)?));
    let mut found = all(connection, "SELECT partition, at, until, journal, seq, passed FROM checkpoints", [], decode)?;
    found.sort_by_key(|(partition, _)| *partition);
    Ok(found)
}

const RETIRED: &str = "SELECT at, until, passed FROM retired WHERE partition = ?1 AND journal = ?2";

pub(super) fn retired(
    connection: &Connection,
    partition: Partition,
    journal: JournalId,
) -> Result<Option<Retired>, Fault> {
    first(connection, RETIRED, (partition.to_string(), journal.0), rows::retired)
}

const RETIRED_JOURNALS: &str = "SELECT partition, journal, at, until, passed FROM retired \
     WHERE (partition, journal) > (?1, ?2) AND partition < 'journal0' ORDER BY partition, journal LIMIT ?3";

/// Up to `limit` retired journals that are partitions by themselves, after `after`.
pub(super) fn retired_journals(
    connection: &Connection,
    after: Option<JournalId>,
    limit: usize,
) -> Result<Vec<(JournalId, Retired)>, Fault> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let (partition, journal) = match after {
        Some(id) => (Partition::Journal(id).to_string(), id.0),
        None => ("journal/".to_owned(), [0; 16]),
    };
    let decode = |row: &SqlRow<'_>| Ok((rows::journal(row)?, rows::retired(row)?));
    all(connection, RETIRED_JOURNALS, (partition, journal, limit), decode)
}

const LOAD: &str = "SELECT at, cell FROM clicks WHERE code = ?1 AND span = ?2";

/// The rows of `keys`, in their order, all of one snapshot. They are looked up in the order of the table.
pub(super) fn load(connection: &Connection, keys: &[RowKey]) -> Result<Vec<Option<StoredRow>>, Fault> {
    let snapshot = connection.unchecked_transaction()?;
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_unstable_by_key(|place| &keys[*place]);
    let mut found = vec![None; keys.len()];
    let mut statement = snapshot.prepare_cached(LOAD)?;
    for place in order {
        let key = &keys[place];
        let mut rows = statement.query((key.code.as_str(), rows::span_number(key.span)))?;
        found[place] = rows.next()?.map(rows::stored).transpose()?;
    }
    Ok(found)
}

const SCAN: &str = "SELECT code, span, at, cell FROM clicks WHERE (code, span) > (?1, ?2) ORDER BY code, span LIMIT ?3";

/// Up to `limit` rows after `after`.
pub(super) fn scan(
    connection: &Connection,
    after: Option<&RowKey>,
    limit: usize,
) -> Result<Vec<(RowKey, StoredRow)>, Fault> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    // Before all codes, of which none is empty.
    let (code, span) = after.map_or(("", 0), |key| (key.code.as_str(), rows::span_number(key.span)));
    all(connection, SCAN, (code, span, limit), |row| Ok((rows::key(row)?, rows::stored(row)?)))
}

pub(super) fn overall(connection: &Connection, code: &ShortCode) -> Result<Option<Row>, Fault> {
    first(connection, LOAD, (code.as_str(), rows::span_number(Span::All)), rows::cell)
}

const SPANS: &str = "SELECT span, cell FROM clicks WHERE code = ?1 AND span BETWEEN ?2 AND ?3 ORDER BY span";

pub(super) fn spans(
    connection: &Connection,
    code: &ShortCode,
    first: Span,
    last: Span,
) -> Result<Vec<(Span, Row)>, Fault> {
    let range = (code.as_str(), rows::span_number(first), rows::span_number(last));
    all(connection, SPANS, range, |row| Ok((rows::span(row)?, rows::cell(row)?)))
}

pub(super) fn as_of(connection: &Connection, code: &ShortCode) -> Result<Option<Timestamp>, Fault> {
    let head = head(connection)?;
    match head.bus {
        None => Ok(None),
        Some(Bus::Local) => Ok(head.until),
        Some(Bus::Streams { partitions }) => {
            let partition = Partition::of(code.as_str(), partitions).to_string();
            first(connection, "SELECT until FROM checkpoints WHERE partition = ?1", [partition], |row| {
                rows::time(row, "until")
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::SqliteReadModelConfig;
    use super::*;
    use crate::sqlite_file::SqliteFile;
    use crate::sqlite_file::query::assert_searches;

    /// A scan or a sort would make the cost of an answer grow with the table.
    #[test]
    fn every_read_of_what_grows_goes_through_an_index() {
        let directory = tempfile::tempdir().unwrap();
        let config = SqliteReadModelConfig::new(directory.path().join("stats.db"));
        let connection = SqliteFile::open_migrated(&config.kind(), &config.path).unwrap();
        for (sql, index) in [
            (LOAD, "PRIMARY KEY (code=? AND span=?)"),
            (SPANS, "PRIMARY KEY (code=? AND span>? AND span<?)"),
            (SCAN, "PRIMARY KEY ((code,span)>(?,?))"),
            (CHECKPOINT, "(partition=?)"),
            (RETIRED, "(partition=? AND journal=?)"),
            (RETIRED_JOURNALS, "((partition,journal)>(?,?)"),
        ] {
            assert_searches(&connection, sql, index);
        }
    }
}
