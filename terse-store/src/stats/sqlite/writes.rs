//! The writing operations. Each is alone in its commit, and if it fails it
//! undoes all that it did.

use rusqlite::Connection;
use terse_core::Timestamp;
use terse_core::click::JournalId;
use terse_core::ports::clicks::{Batch, Bus, Checkpoint, Retired};
use terse_core::stats::{Partition, RowKey};

use super::super::{is_leased_away, lease_end};
use super::fault::Fault;
use super::{MAX_BATCH_ROWS, MAX_CELL_BYTES, MAX_PASSED_BYTES, reads, rows};

/// Runs `sql` once; how many rows it changed.
fn execute(connection: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<usize, Fault> {
    Ok(connection.prepare_cached(sql)?.execute(params)?)
}

/// Runs `work` unless somebody else wrote since the generation `attached`; its result and the generation
/// that it made, `None` = somebody did. A failure undoes the transaction.
pub(super) fn in_turn<T>(
    connection: &Connection,
    attached: i64,
    work: impl FnOnce(&Connection) -> Result<T, Fault>,
) -> Result<Option<(T, i64)>, Fault> {
    let generation = reads::head(connection)?.generation;
    if generation != attached {
        return Ok(None);
    }
    let worked = raise_generation(connection).and_then(|()| work(connection));
    if worked.is_err() && !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK")?;
    }
    worked.map(|result| Some((result, generation + 1)))
}

fn raise_generation(connection: &Connection) -> Result<(), Fault> {
    match execute(connection, "UPDATE head SET generation = generation + 1 WHERE id = 1", [])? {
        1 => Ok(()),
        _ => Err(Fault::corrupt("a file without its head")),
    }
}

/// A batch on its way to the writer, its rows encoded and in the order of the table.
pub(super) struct Encoded {
    rows: Vec<EncodedRow>,
    retired: Vec<(Partition, JournalId, Retired)>,
    checkpoints: Vec<(Partition, Checkpoint)>,
}

struct EncodedRow {
    key: RowKey,
    at: i64,
    cell: Vec<u8>,
}

/// How many rows are encoded before others on this thread get a turn: some milliseconds.
const ROWS_OF_A_TURN: usize = 1_024;

impl Encoded {
    /// Encodes `batch`.
    pub(super) async fn of(batch: &Batch) -> Result<Self, Fault> {
        check_count(batch.rows.len())?;
        let mut rows = Vec::with_capacity(batch.rows.len());
        for turn in batch.rows.chunks(ROWS_OF_A_TURN) {
            for (key, stored) in turn {
                let cell = stored.row.encode();
                if cell.len() > MAX_CELL_BYTES {
                    return Err(Fault::Refused(format!("a row of {} bytes", cell.len())));
                }
                let at = rows::position_number(stored.at)?;
                rows.push(EncodedRow { key: key.clone(), at, cell });
            }
            tokio::task::yield_now().await;
        }
        rows.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        Ok(Self { rows, retired: batch.retired.clone(), checkpoints: batch.checkpoints.clone() })
    }
}

/// Fails when `count` rows are too many for one operation.
pub(super) fn check_count(count: usize) -> Result<(), Fault> {
    if count > MAX_BATCH_ROWS {
        return Err(Fault::Refused(format!("{count} rows at once, where {MAX_BATCH_ROWS} are the most")));
    }
    Ok(())
}

fn check_passed(passed: &[u8]) -> Result<(), Fault> {
    if passed.len() > MAX_PASSED_BYTES {
        return Err(Fault::Refused(format!("a set of blocks passed of {} bytes", passed.len())));
    }
    Ok(())
}

const ROW: &str = "INSERT INTO clicks (code, span, at, cell) VALUES (?1, ?2, ?3, ?4) \
     ON CONFLICT (code, span) DO UPDATE SET at = excluded.at, cell = excluded.cell WHERE excluded.at >= at";

/// Rows first, then what was retired, then checkpoints.
pub(super) fn batch(connection: &Connection, batch: &Encoded) -> Result<(), Fault> {
    let mut statement = connection.prepare_cached(ROW)?;
    for row in &batch.rows {
        statement.execute((row.key.code.as_str(), rows::span_number(row.key.span), row.at, &row.cell))?;
    }
    for (partition, journal, retired) in &batch.retired {
        retire(connection, *partition, *journal, retired)?;
    }
    for (partition, checkpoint) in &batch.checkpoints {
        pass(connection, *partition, checkpoint)?;
    }
    Ok(())
}

const RETIRE: &str = "INSERT INTO retired (partition, journal, at, until, passed) VALUES (?1, ?2, ?3, ?4, ?5) \
     ON CONFLICT (partition, journal) DO UPDATE SET at = excluded.at, until = excluded.until, \
     passed = excluded.passed WHERE excluded.at >= at";

fn retire(connection: &Connection, partition: Partition, journal: JournalId, retired: &Retired) -> Result<(), Fault> {
    check_passed(&retired.passed)?;
    let at = rows::position_number(retired.at)?;
    let row = (partition.to_string(), journal.0, at, retired.until.as_millis(), &retired.passed);
    execute(connection, RETIRE, row)?;
    if partition == Partition::Journal(journal) {
        execute(connection, "DELETE FROM checkpoints WHERE partition = ?1", [partition.to_string()])?;
    }
    raise_until(connection, retired.until)
}

const PASS: &str = "INSERT INTO checkpoints (partition, at, until, journal, seq, passed) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (partition) DO UPDATE SET at = excluded.at, \
     until = excluded.until, journal = excluded.journal, seq = excluded.seq, passed = excluded.passed \
     WHERE excluded.at >= at";

fn pass(connection: &Connection, partition: Partition, checkpoint: &Checkpoint) -> Result<(), Fault> {
    check_passed(&checkpoint.passed)?;
    let row = (
        partition.to_string(),
        rows::position_number(checkpoint.at)?,
        checkpoint.until.as_millis(),
        checkpoint.anchor.journal.0,
        checkpoint.anchor.seq.cast_signed(),
        &checkpoint.passed,
    );
    execute(connection, PASS, row)?;
    raise_until(connection, checkpoint.until)
}

fn raise_until(connection: &Connection, until: Timestamp) -> Result<(), Fault> {
    execute(connection, "UPDATE head SET until = max(until, ?1) WHERE id = 1", [until.as_millis()]).map(drop)
}

const BEGIN_EPOCH: &str = "INSERT INTO epochs (partition, epoch, at, until, journal, seq, passed) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (partition, epoch) DO NOTHING";

const EPOCH: &str = "SELECT at, until, journal, seq, passed FROM epochs WHERE partition = ?1 AND epoch = ?2";

/// Begins an epoch, or finds it begun; what it was begun with.
pub(super) fn begin_epoch(
    connection: &Connection,
    partition: Partition,
    first: &Checkpoint,
) -> Result<Checkpoint, Fault> {
    check_passed(&first.passed)?;
    let row = (
        partition.to_string(),
        first.at.epoch,
        rows::position_number(first.at)?,
        first.until.as_millis(),
        first.anchor.journal.0,
        first.anchor.seq.cast_signed(),
        &first.passed,
    );
    execute(connection, BEGIN_EPOCH, row)?;
    let begun = reads::first(connection, EPOCH, (partition.to_string(), first.at.epoch), rows::checkpoint)?;
    let begun = begun.ok_or_else(|| Fault::corrupt("an epoch that was just begun is missing"))?;
    pass(connection, partition, &begun)?;
    Ok(begun)
}

/// Settles the bus unless it is; what stands.
pub(super) fn settle_bus(connection: &Connection, bus: Bus) -> Result<Bus, Fault> {
    execute(connection, "UPDATE head SET bus = ?1 WHERE id = 1 AND bus IS NULL", [rows::bus_number(bus)])?;
    reads::head(connection)?.bus.ok_or_else(|| Fault::corrupt("a bus that was just settled is missing"))
}

const LEASE: &str = "INSERT INTO lease (id, holder, until) VALUES (1, ?1, ?2) \
     ON CONFLICT (id) DO UPDATE SET holder = excluded.holder, until = excluded.until";

/// Takes or renews the file's lease, unless somebody else has it.
pub(super) fn lease(connection: &Connection, holder: &str, now: Timestamp, ttl_ms: u64) -> Result<bool, Fault> {
    let standing = reads::first(connection, "SELECT holder, until FROM lease WHERE id = 1", [], |row| {
        Ok((row.get::<_, String>("holder")?, rows::time(row, "until")?))
    })?;
    if standing.is_some_and(|(other, until)| is_leased_away(&other, until, holder, now, ttl_ms)) {
        return Ok(false);
    }
    execute(connection, LEASE, (holder, lease_end(now, ttl_ms).as_millis()))?;
    Ok(true)
}
