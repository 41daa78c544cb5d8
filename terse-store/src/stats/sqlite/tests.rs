//! What only a SQLite file can show: damaged rows, faults of the disk, full
//! queues, callers that go, processes that are killed.

use std::future::Future;
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;
use terse_core::Timestamp;
use terse_core::click::{BlockId, JournalId};
use terse_core::ports::clicks::{Batch, Bus, Checkpoint, ClickStats, PackedRow, ReadModel, Written};
use terse_core::ports::{DependencyHealth, StoreErrorKind};
use terse_core::stats::{Cell, Partition, Position, Row, RowKey, Span};
use terse_testkit::links::code;

use super::*;
use crate::SqliteStore;
use crate::sqlite_file::group::Pending;

mod copies;
mod damage;
mod faults;
mod processes;

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);

const LOG: Partition = Partition::Stream(1);

struct File {
    directory: TempDir,
}

impl File {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn config(&self) -> SqliteReadModelConfig {
        SqliteReadModelConfig::new(self.directory.path().join("stats.db"))
    }

    fn open(&self) -> Arc<SqliteReadModel> {
        SqliteReadModel::open(self.config()).unwrap()
    }

    async fn attached(&self) -> Arc<SqliteReadModel> {
        let model = self.open();
        model.attach().await.unwrap();
        model
    }

    fn wal_bytes(&self) -> u64 {
        std::fs::metadata(self.directory.path().join("stats.db-wal")).unwrap().len()
    }
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it took too long")
}

/// Runs SQL on the writer's connection, as nobody but a test does.
async fn meddle(model: &SqliteReadModel, sql: &'static str) {
    model.file.write("meddling", move |connection| Ok(connection.execute_batch(sql)?)).await.unwrap();
}

/// A write that keeps the writer until the returned sender is dropped.
fn occupy_writer(model: &SqliteReadModel) -> std::sync::mpsc::Sender<()> {
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let (began, begun) = std::sync::mpsc::channel();
    let work = move |_: &Connection| {
        began.send(()).unwrap();
        gate.recv().unwrap_err();
        Ok(())
    };
    let (job, answer) = Pending::new("occupy", work);
    // Nobody awaits it, but an abandoned job would not be run.
    std::mem::forget(answer);
    model.file.writer.submit(Box::new(job)).unwrap();
    begun.recv_timeout(PATIENCE).unwrap();
    release
}

fn key(text: &str) -> RowKey {
    RowKey { code: code(text), span: Span::All }
}

fn row(clicks: u64) -> Row {
    let mut row = Row::default();
    row.clicks = clicks;
    row
}

fn offset(offset: u64) -> Position {
    Position { epoch: 0, offset }
}

fn checkpoint(number: u64) -> Checkpoint {
    Checkpoint {
        at: offset(number),
        until: Timestamp::from_millis(1),
        anchor: BlockId { journal: JournalId([1; 16]), seq: number },
        passed: vec![7],
    }
}

/// `rows` rows and a checkpoint, all at `number`.
fn step(rows: usize, number: u64) -> Batch {
    let rows =
        (0..rows).map(|n| (key(&format!("code{n}")), PackedRow { at: offset(number), cell: Cell::of(&row(number)) }));
    Batch { rows: rows.collect(), checkpoints: vec![(LOG, checkpoint(number))], ..Batch::default() }
}

/// The number at which all rows stand that [`step`] writes; it must be one for all.
async fn standing_rows(model: &SqliteReadModel, rows: usize) -> u64 {
    let keys: Vec<_> = (0..rows).map(|n| key(&format!("code{n}"))).collect();
    let found = model.load(&keys).await.unwrap();
    let numbers: Vec<u64> = found.into_iter().map(|found| found.map_or(0, |found| found.row.clicks)).collect();
    assert!(numbers.iter().all(|number| *number == numbers[0]), "a part of a batch stands: {numbers:?}");
    numbers[0]
}

/// The number at which all stands that [`step`] writes, while nobody writes.
async fn standing(model: &SqliteReadModel, rows: usize) -> u64 {
    let number = standing_rows(model, rows).await;
    assert_eq!(model.checkpoint(LOG).await.unwrap().map_or(0, |checkpoint| checkpoint.at.offset), number);
    number
}

#[tokio::test]
async fn a_full_write_queue_refuses_at_once() {
    let file = File::new();
    let model = SqliteReadModel::open(SqliteReadModelConfig { write_queue: 1, ..file.config() }).unwrap();
    let release = occupy_writer(&model);
    let now = Timestamp::from_millis(1);
    let lease = |holder: &'static str| model.lease(LOG, holder, now, 5);
    let (one, other, ()) = tokio::join!(soon(lease("one")), soon(lease("other")), async { drop(release) });
    assert!(one.unwrap());
    assert_eq!(other.unwrap_err().kind, StoreErrorKind::Overloaded);
}

#[tokio::test]
async fn a_full_read_queue_refuses_at_once() {
    let file = File::new();
    let model = SqliteReadModel::open(SqliteReadModelConfig { readers: 1, read_queue: 1, ..file.config() }).unwrap();
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let (began, begun) = std::sync::mpsc::channel();
    let occupy = move |_: &Connection| {
        began.send(()).unwrap();
        gate.recv().unwrap_err();
    };
    model.file.readers.submit(Box::new(occupy)).unwrap();
    begun.recv_timeout(PATIENCE).unwrap();
    let code = code("any");
    let (one, other, ()) =
        tokio::join!(soon(model.overall(&code)), soon(model.overall(&code)), async { drop(release) });
    assert_eq!(one.unwrap(), None);
    assert_eq!(other.unwrap_err().kind, StoreErrorKind::Overloaded);
}

#[tokio::test]
async fn a_read_waits_for_no_batch() {
    let file = File::new();
    let model = file.attached().await;
    let release = occupy_writer(&model);
    assert_eq!(soon(model.overall(&code("any"))).await.unwrap(), None);
    assert_eq!(soon(model.checkpoints()).await.unwrap(), []);
    drop(release);
}

#[tokio::test]
async fn what_is_closed_is_unavailable() {
    let file = File::new();
    let model = file.attached().await;
    assert_eq!(model.check().await, Ok(()));
    let closing = Arc::clone(&model);
    tokio::task::spawn_blocking(move || closing.close()).await.unwrap();
    assert_eq!(model.write(&step(1, 1)).await.unwrap_err().kind, StoreErrorKind::Unavailable);
    assert_eq!(model.overall(&code("any")).await.unwrap_err().kind, StoreErrorKind::Unavailable);
    assert!(model.check().await.unwrap_err().contains("ended"));
    assert_eq!(model.name(), "stats");
    // The last connection to close removes the WAL.
    assert!(!file.directory.path().join("stats.db-wal").exists());
}

#[tokio::test]
async fn a_file_that_grew_beyond_its_alarm_is_told_and_still_written() {
    let file = File::new();
    let model = SqliteReadModel::open(SqliteReadModelConfig { alarm_bytes: 200_000, ..file.config() }).unwrap();
    model.attach().await.unwrap();
    assert_eq!(model.check().await, Ok(()));
    assert_eq!(model.write(&step(9_000, 1)).await.unwrap(), Written::Stands);
    let told = model.check().await.unwrap_err();
    assert!(told.contains("more than 200000"), "{told}");
    assert_eq!(model.write(&step(9_000, 2)).await.unwrap(), Written::Stands);
}

#[tokio::test]
async fn a_file_of_the_schema_before_knows_whether_its_rows_have_positions() {
    for (bus, positions) in [("NULL", 0), ("0", 0), ("4", 1)] {
        let file = File::new();
        let connection = Connection::open(file.config().path).unwrap();
        connection.execute_batch(SCHEMA.migrations[0]).unwrap();
        connection.execute_batch(&format!("UPDATE head SET bus = {bus}; PRAGMA user_version = 1")).unwrap();
        connection.pragma_update(None, "application_id", SCHEMA.application_id).unwrap();
        drop(connection);
        let model = file.attached().await;
        let found = |connection: &Connection| Ok(reads::head(connection)?.positions);
        assert_eq!(model.file.read("looking", found).await.unwrap(), positions == 1, "bus {bus}");
    }
}

#[tokio::test]
async fn from_the_first_position_on_no_row_goes_back() {
    let file = File::new();
    let model = file.attached().await;
    let one = key("code0");
    let write = async |at: u64, clicks: u64| {
        let packed = PackedRow { at: offset(at), cell: Cell::of(&row(clicks)) };
        let batch = Batch { rows: vec![(one.clone(), packed)], ..Batch::default() };
        assert_eq!(model.write(&batch).await.unwrap(), Written::Stands);
        model.load(std::slice::from_ref(&one)).await.unwrap().remove(0).unwrap().row.clicks
    };
    assert_eq!([write(0, 7).await, write(0, 5).await], [7, 5], "rows without positions are replaced");
    assert_eq!([write(3, 9).await, write(0, 6).await, write(2, 8).await, write(3, 4).await], [9, 9, 9, 4]);
}

#[tokio::test]
async fn a_caller_that_went_before_its_turn_leaves_no_trace() {
    let file = File::new();
    let model = file.attached().await;
    let release = occupy_writer(&model);
    let gone = tokio::time::timeout(Duration::from_millis(20), model.write(&step(3, 1))).await;
    assert!(gone.is_err());
    drop(release);
    assert_eq!(standing(&model, 3).await, 0);
    assert_eq!(soon(model.write(&step(3, 2))).await.unwrap(), Written::Stands, "it has not superseded itself");
    assert_eq!(standing(&model, 3).await, 2);
}

#[tokio::test]
async fn callers_that_go_at_any_time_leave_whole_batches() {
    let file = File::new();
    let model = file.attached().await;
    for number in 1..=150 {
        let given = Duration::from_micros(number * 25);
        let answered = tokio::time::timeout(given, model.write(&step(20, number))).await;
        if let Ok(Ok(Written::Superseded)) = answered {
            // The one before stands though nobody heard of it.
            model.attach().await.unwrap();
        }
        // One that nobody waits for may still be under way.
        let stands = standing_rows(&model, 20).await;
        assert!(stands <= number);
        assert!(!matches!(answered, Ok(Ok(Written::Stands))) || stands == number);
    }
    // Behind all that may still be under way.
    model.lease(LOG, "me", Timestamp::from_millis(1), 1).await.unwrap();
    model.attach().await.unwrap();
    assert_eq!(model.write(&step(20, 200)).await.unwrap(), Written::Stands);
    assert_eq!(standing(&model, 20).await, 200);
}

#[tokio::test]
async fn a_lease_of_a_clock_that_went_wrong_is_not_believed() {
    let file = File::new();
    let model = file.open();
    let (now, later) = (Timestamp::from_millis(1_000_000), Timestamp::from_millis(9_000_000_000));
    assert!(model.lease(LOG, "from the future", later, 5_000).await.unwrap());
    assert!(model.lease(LOG, "me", now, 5_000).await.unwrap());
    assert!(!model.lease(LOG, "from the future", now, 5_000).await.unwrap());
    // However long a lease is wanted, the clock of the next one may be right.
    assert!(model.lease(LOG, "me", now, u64::MAX).await.unwrap());
    let most = now.plus_millis(crate::stats::LEASE_MOST_MS);
    assert!(!model.lease(LOG, "other", most.plus_millis(-1), 1).await.unwrap());
    assert!(model.lease(LOG, "other", most, 1).await.unwrap());
}

#[tokio::test]
async fn batches_keep_the_wal_short() {
    let file = File::new();
    let config = SqliteReadModelConfig { checkpoint_mib: 1, ..file.config() };
    let model = SqliteReadModel::open(config).unwrap();
    model.attach().await.unwrap();
    let mut longest = 0;
    for number in 1..=60 {
        assert_eq!(model.write(&step(2_000, number)).await.unwrap(), Written::Stands);
        longest = longest.max(file.wal_bytes());
    }
    assert!(longest < 3 * 1_024 * 1_024, "the WAL grew to {longest} bytes");
}

#[test]
fn only_so_many_rows_are_written_at_once() {
    writes::check_count(MAX_BATCH_ROWS).unwrap();
    let refused = writes::check_count(MAX_BATCH_ROWS + 1).unwrap_err().into_store_error("writing");
    assert_eq!((refused.kind, refused.answered), (StoreErrorKind::Unavailable, true));
    assert!(refused.message.contains("1000001 rows"), "{refused}");
}
