//! The writing operations. Each is alone in its commit, and if it fails it
//! undoes all that it did.

use rusqlite::Connection;
use terse_core::Timestamp;
use terse_core::click::JournalId;
use terse_core::ports::clicks::{Batch, Bus, Checkpoint, Retired};
use terse_core::stats::{Cell, Partition, RowKey};

use super::super::{is_leased_away, lease_end};
use super::fault::Fault;
use super::{MAX_BATCH_ROWS, MAX_CELL_BYTES, MAX_PASSED_BYTES, reads, rows};
use crate::sqlite_file::query::{self, execute, first};

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

/// A batch on its way to the writer, its rows in the order of the table.
pub(super) struct Ordered {
    rows: Vec<OrderedRow>,
    retired: Vec<(Partition, JournalId, Retired)>,
    checkpoints: Vec<(Partition, Checkpoint)>,
    now: Option<Timestamp>,
}

struct OrderedRow {
    key: RowKey,
    at: i64,
    cell: Cell,
}

impl Ordered {
    /// Orders `batch`; of rows that are in order that is not more than a look at each. Cells are shared, not copied.
    pub(super) fn of(batch: &Batch) -> Result<Self, Fault> {
        check_count(batch.rows.len())?;
        let mut rows = Vec::with_capacity(batch.rows.len());
        for (key, packed) in &batch.rows {
            let bytes = packed.cell.bytes().len();
            if bytes > MAX_CELL_BYTES {
                return Err(Fault::Refused(format!("a row of {bytes} bytes")));
            }
            let at = rows::position_number(packed.at)?;
            rows.push(OrderedRow { key: key.clone(), at, cell: packed.cell.clone() });
        }
        rows.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        Ok(Self { rows, retired: batch.retired.clone(), checkpoints: batch.checkpoints.clone(), now: batch.now })
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

/// The same while no row has a position of its own, as on the local bus: nothing that stands is later. SQLite does it
/// without looking for what stands first.
const ROW_WITHOUT_POSITION: &str = "REPLACE INTO clicks (code, span, at, cell) VALUES (?1, ?2, ?3, ?4)";

/// Rows first, then what was retired, then checkpoints.
pub(super) fn batch(connection: &Connection, batch: &Ordered) -> Result<(), Fault> {
    let positions = reads::head(connection)?.positions;
    let needs_positions = positions || batch.rows.iter().any(|row| row.at != 0);
    if needs_positions && !positions {
        execute(connection, "UPDATE head SET positions = 1 WHERE id = 1", [])?;
    }
    let mut statement = connection.prepare_cached(if needs_positions { ROW } else { ROW_WITHOUT_POSITION })?;
    for row in &batch.rows {
        statement.execute((row.key.code.as_str(), rows::span_number(row.key.span), row.at, row.cell.bytes()))?;
    }
    for (partition, journal, retired) in &batch.retired {
        retire(connection, *partition, *journal, retired)?;
    }
    for (partition, checkpoint) in &batch.checkpoints {
        pass(connection, *partition, checkpoint)?;
    }
    if let Some(now) = batch.now {
        execute(connection, "UPDATE head SET until = min(until, ?1) WHERE id = 1", [now.as_millis()])?;
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
    beginning: &Checkpoint,
) -> Result<Checkpoint, Fault> {
    check_passed(&beginning.passed)?;
    let row = (
        partition.to_string(),
        beginning.at.epoch,
        rows::position_number(beginning.at)?,
        beginning.until.as_millis(),
        beginning.anchor.journal.0,
        beginning.anchor.seq.cast_signed(),
        &beginning.passed,
    );
    execute(connection, BEGIN_EPOCH, row)?;
    let begun = query::first(connection, EPOCH, (partition.to_string(), beginning.at.epoch), rows::checkpoint)?;
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
    let standing = first(connection, "SELECT holder, until FROM lease WHERE id = 1", [], |row| {
        Ok((row.get::<_, String>("holder")?, rows::time(row, "until")?))
    })?;
    if standing.is_some_and(|(other, until)| is_leased_away(&other, until, holder, now, ttl_ms)) {
        return Ok(false);
    }
    execute(connection, LEASE, (holder, lease_end(now, ttl_ms).as_millis()))?;
    Ok(true)
}
