//! Links in one SQLite file: the embedded default, and one shard of several.
//!
//! How its threads work, and its bounds, are told in [`crate::sqlite_file`]. A group of writes shares one commit.

mod ports;
mod reads;
mod rows;
#[cfg(test)]
mod tests;
mod writes;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;
use terse_core::ports::StoreError;

use crate::operation::Operation;
use crate::sqlite_file::schema::Schema;
use crate::sqlite_file::{FileConfig, FileKind, SqliteFile, Tuning, fault};
use fault::Fault;

/// The file of links.
static KIND: FileKind = FileKind {
    schema: &Schema {
        // "ters".
        application_id: 0x7465_7273,
        migrations: &[
            include_str!("../../migrations/sqlite/0001_links.sql"),
            include_str!("../../migrations/sqlite/0002_lease_log.sql"),
        ],
    },
    tuning: Tuning {
        page_bytes: 4_096,
        writer_cache_kib: 4_096,
        // Commits empty it, so more would not help.
        reader_cache_kib: 512,
        group_max: 256,
        // 8 MiB: enough that pages written often are moved once, little enough that it takes milliseconds.
        checkpoint_frames: 2_048,
        checkpoint_retry_frames: 512,
        // 1 GiB.
        wal_max_frames: 262_144,
        wal_kept_bytes: 32 * 1_024 * 1_024,
        // Settings hold keys that are destroyed.
        secure_delete: true,
    },
};

/// How a [`SqliteStore`] shall be.
#[derive(Clone, Debug)]
pub struct SqliteConfig {
    /// The file; it is made if it isn't there, its directory is not.
    pub path: PathBuf,
    /// The shard's name, in metrics, health and thread names.
    pub shard: String,
    /// Reader threads, each with a connection of its own; 0 counts as 1.
    pub readers: usize,
    /// Writes that may wait; beyond, they are refused as overloaded.
    pub write_queue: usize,
    /// Reads that may wait; beyond, they are refused as overloaded.
    pub read_queue: usize,
}

impl SqliteConfig {
    /// Two readers, and queues of 4,096.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, shard: impl Into<String>) -> Self {
        Self { path: path.into(), shard: shard.into(), readers: 2, write_queue: 4_096, read_queue: 4_096 }
    }
}

/// A store in one SQLite file. Implements
/// [`ShardStore`](terse_core::ports::ShardStore) and
/// [`HomeStore`](terse_core::ports::HomeStore).
pub struct SqliteStore {
    shard: String,
    file: SqliteFile,
}

impl SqliteStore {
    /// Opens the file of `config`, brings it to this release's schema, and
    /// starts the threads. Blocks for some milliseconds; longer while another process migrates.
    ///
    /// # Errors
    /// [`StoreErrorKind::Corrupt`](terse_core::ports::StoreErrorKind::Corrupt) when the file is no database of terse
    /// or of a newer release, else [`StoreErrorKind::Unavailable`](terse_core::ports::StoreErrorKind::Unavailable).
    pub fn open(config: SqliteConfig) -> Result<Arc<Self>, StoreError> {
        let SqliteConfig { path, shard, readers, write_queue, read_queue } = config;
        let config = FileConfig { path, name: shard.clone(), readers, write_queue, read_queue };
        Ok(Arc::new(Self { file: SqliteFile::open(&KIND, config)?, shard }))
    }

    /// Brings the file at `path` to this release's schema, making it if there is none. Harmless when repeated.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub fn migrate(path: &Path) -> Result<(), StoreError> {
        SqliteFile::open_migrated(&KIND, path).map(drop)
    }

    /// Ends the store: what was accepted is done and answered, what comes
    /// later is refused as unavailable, and the threads have ended when this
    /// returns. Dropping the store does the same. Blocks: not for a web worker.
    pub fn close(&self) {
        self.file.close();
    }

    /// Has the writer run `work` and answer after its group's commit.
    async fn write<T, F>(&self, operation: Operation, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        self.file.write(operation.as_str(), work).await
    }

    /// Has a reader run `work`.
    async fn read<T, F>(&self, operation: Operation, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        self.file.read(operation.as_str(), work).await
    }
}
