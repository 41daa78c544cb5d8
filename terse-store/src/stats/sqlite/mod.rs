//! The read model in one SQLite file, `stats.sqlite`: the embedded default.
//!
//! How its threads work, and most bounds, are told in [`crate::sqlite_file`].
//!
//! - **A batch is a transaction**, rows and checkpoints together, in the order
//!   of the keys, so that each page is touched once. A commit has one operation,
//!   for a batch may be large, and its failure undoes it and nothing else.
//! - **It knows its writers** (a paused projector may wake beside its
//!   successor). Each batch finds the file's generation as this instance left
//!   it and raises it, or changes nothing and is superseded. Batches of one
//!   instance take turns.
//! - **`synchronous` is FULL**: when [`Written::Stands`](terse_core::ports::clicks::Written) is answered, the fsync has
//!   been. With NORMAL a power cut takes back the commits since the last checkpoint, yet the blocks that they
//!   included were told to be passed, and may have been recycled by then: clicks would be lost. One fsync
//!   for a batch of some ten thousand rows costs next to nothing.
//! - A cell is what [`Row::encode`](terse_core::stats::Row::encode) makes, at most [`MAX_CELL_BYTES`]; whoever
//!   counts encodes rows, and the reader threads decode them.

mod copy;
mod ports;
mod reads;
mod rows;
#[cfg(test)]
mod tests;
mod writes;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use terse_core::ports::StoreError;
use tokio::sync::Mutex;

use crate::sqlite_file::schema::Schema;
use crate::sqlite_file::{FileConfig, FileKind, SqliteFile, Tuning, connection, fault};

/// Most bytes of a row's cell. A row is at most some 140 KiB encoded; a larger one is refused, and a larger one
/// that stands in the file is corrupt.
const MAX_CELL_BYTES: usize = 256 * 1_024;

/// Most bytes of a set of blocks passed; a larger one is refused.
const MAX_PASSED_BYTES: usize = 16 * 1_024 * 1_024;

/// Most rows of a batch, and keys of a load; with more it is refused. Ten seconds at the greatest speed.
const MAX_BATCH_ROWS: usize = 1_000_000;

const MIB: i64 = 1_024 * 1_024;

/// At how many times the length from which on the WAL is moved writes are refused: only a read transaction that
/// another process keeps open, or a batch of some GiB, makes it grow so.
const WAL_MAX_CHECKPOINTS: i64 = 16;

/// What is in the file.
static SCHEMA: Schema = Schema {
    // "terc".
    application_id: 0x7465_7263,
    migrations: &[
        include_str!("../../../migrations/sqlite_stats/0001_clicks.sql"),
        include_str!("../../../migrations/sqlite_stats/0002_positions.sql"),
    ],
};

/// How a [`SqliteReadModel`] shall be.
#[derive(Clone, Debug)]
pub struct SqliteReadModelConfig {
    /// The file; it is made if it isn't there, its directory is not.
    pub path: PathBuf,
    /// Reader threads, each with a connection of its own; 0 counts as 1. The projector keeps one busy at times.
    pub readers: usize,
    /// Writes that may wait; beyond, they are refused as overloaded.
    pub write_queue: usize,
    /// Reads that may wait; beyond, they are refused as overloaded.
    pub read_queue: usize,
    /// Bytes of a page, a power of two from 512 to 65,536; settled when the file is made.
    pub page_bytes: u32,
    /// Page cache of the writer, in MiB.
    pub writer_cache_mib: u32,
    /// Page cache of each reader, in MiB.
    pub reader_cache_mib: u32,
    /// How long the WAL gets, in MiB, before it is moved into the file: rows that every batch writes are moved once
    /// for many batches. A batch may make it longer; at sixteen times as much, writes are refused as overloaded.
    pub checkpoint_mib: u32,
    /// From how many bytes on the file is told as a fault of health, though it works: a row per link and hour is kept for
    /// ever, and whoever clicks chooses how many links and hours there are. The disk's end would stop counting.
    pub alarm_bytes: u64,
}

impl SqliteReadModelConfig {
    /// Two readers, queues of 64 writes and 256 reads, and settings that were measured to suit.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            readers: 2,
            write_queue: 64,
            read_queue: 256,
            // Smaller ones make rows of a kilobyte overflow; larger ones are written whole for one row, once links
            // have days of old between the rows in play.
            page_bytes: 8_192,
            writer_cache_mib: 64,
            reader_cache_mib: 4,
            checkpoint_mib: 256,
            alarm_bytes: 16 << 30,
        }
    }

    fn kind(&self) -> FileKind {
        let frames = i64::from(self.checkpoint_mib) * MIB / i64::from(self.page_bytes.max(512));
        let tuning = Tuning {
            page_bytes: self.page_bytes,
            writer_cache_kib: i64::from(self.writer_cache_mib) * 1_024,
            reader_cache_kib: i64::from(self.reader_cache_mib) * 1_024,
            group_max: 1,
            checkpoint_frames: frames,
            checkpoint_retry_frames: frames / 4,
            wal_max_frames: frames.saturating_mul(WAL_MAX_CHECKPOINTS),
            wal_kept_bytes: 2 * i64::from(self.checkpoint_mib) * MIB,
            // Nothing in it is a secret that is ever to be destroyed.
            secure_delete: false,
        };
        FileKind { schema: &SCHEMA, tuning }
    }
}

/// A read model in one SQLite file. Implements [`ReadModel`](terse_core::ports::clicks::ReadModel),
/// [`ClickStats`](terse_core::ports::clicks::ClickStats) and
/// [`DependencyHealth`](terse_core::ports::DependencyHealth).
pub struct SqliteReadModel {
    file: SqliteFile,
    /// The file's generation when this instance was attached or wrote last; `None` = it may not write. Locked while
    /// a batch is written: batches of one instance take turns.
    attached: Mutex<Option<i64>>,
    /// As [`SqliteReadModelConfig::alarm_bytes`].
    alarm_bytes: u64,
}

impl SqliteReadModel {
    /// Opens the file of `config`, brings it to this release's schema, and
    /// starts the threads. Blocks for some milliseconds; longer while another process migrates.
    ///
    /// # Errors
    /// [`StoreErrorKind::Corrupt`](terse_core::ports::StoreErrorKind::Corrupt) when the file is no read model of
    /// terse or of a newer release, else [`StoreErrorKind::Unavailable`](terse_core::ports::StoreErrorKind::Unavailable).
    pub fn open(config: SqliteReadModelConfig) -> Result<Arc<Self>, StoreError> {
        let kind = config.kind();
        let SqliteReadModelConfig { path, readers, write_queue, read_queue, alarm_bytes, .. } = config;
        let config = FileConfig { path, name: "stats".to_owned(), readers, write_queue, read_queue };
        Ok(Arc::new(Self { file: SqliteFile::open(&kind, config)?, attached: Mutex::new(None), alarm_bytes }))
    }

    /// Brings the file at `path` to this release's schema, making it if there is none. Harmless when repeated.
    ///
    /// # Errors
    /// As [`SqliteReadModel::open`].
    pub fn migrate(path: &Path) -> Result<(), StoreError> {
        SqliteFile::open_migrated(&SqliteReadModelConfig::new(path).kind(), path).map(drop)
    }

    /// Ends it: what was accepted is done and answered, what comes later is refused as unavailable, and the threads
    /// have ended when this returns. Dropping it does the same. Blocks: not for a web worker.
    pub fn close(&self) {
        self.file.close();
    }
}
