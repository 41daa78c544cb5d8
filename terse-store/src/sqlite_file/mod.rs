//! What every SQLite file of terse has: its threads, its connections, and how
//! it gets from one schema to the next. What stands in it is its owner's.
//!
//! - One thread writes ([`group`]); a few read, each over a read-only
//!   connection. No statement ever runs on a caller's thread.
//! - Both queues are bounded; a full one refuses at once with
//!   [`StoreErrorKind::Overloaded`].
//! - Each statement of a read is a snapshot taken when it begins, so it sees every write that
//!   was acknowledged before.
//! - Memory is bounded by the connections' page caches, disk beside the file by
//!   the WAL's limits ([`Tuning`]).
//! - A future dropped before its operation began cancels the operation; later, the operation is
//!   carried out and its answer dropped.

pub(crate) mod connection;
pub(crate) mod fault;
pub(crate) mod group;
pub(crate) mod lane;
pub(crate) mod query;
pub(crate) mod schema;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;
use terse_core::ports::{StoreError, StoreErrorKind};
use tokio::sync::oneshot;

use fault::Fault;
use group::{GroupCommit, Job, Pending};
use lane::Lane;
use schema::Schema;

/// What suits one kind of file and not another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    /// Bytes of a page; settled when the file is made.
    pub(crate) page_bytes: u32,
    /// Page cache of the writer. With the readers' it bounds what SQLite keeps in
    /// memory, whatever the size of the file.
    pub(crate) writer_cache_kib: i64,
    /// Page cache of each reader.
    pub(crate) reader_cache_kib: i64,
    /// Most operations of one commit. It bounds how long the first of them waits for the last.
    pub(crate) group_max: usize,
    /// Frames (pages) in the WAL from which on it is moved into the file.
    pub(crate) checkpoint_frames: i64,
    /// When others' reads kept the WAL from starting over after a checkpoint: how many frames later to try again.
    pub(crate) checkpoint_retry_frames: i64,
    /// Frames in the WAL from which on writes are refused as overloaded:
    /// only a read transaction that another process keeps open makes it grow so.
    pub(crate) wal_max_frames: i64,
    /// Beyond these bytes the WAL is cut when it starts over.
    pub(crate) wal_kept_bytes: i64,
    /// Whether deleted bytes are overwritten in the file, at the cost of writing pages that a delete frees.
    pub(crate) secure_delete: bool,
}

/// What makes a file the kind of file that it is.
#[derive(Debug)]
pub(crate) struct FileKind {
    pub(crate) schema: &'static Schema,
    pub(crate) tuning: Tuning,
}

/// How the threads of a file shall be.
#[derive(Clone, Debug)]
pub(crate) struct FileConfig {
    /// The file; it is made if it isn't there, its directory is not.
    pub(crate) path: PathBuf,
    /// What it is called in thread names and logs.
    pub(crate) name: String,
    /// Reader threads; 0 counts as 1.
    pub(crate) readers: usize,
    /// Writes that may wait.
    pub(crate) write_queue: usize,
    /// Reads that may wait.
    pub(crate) read_queue: usize,
}

pub(crate) type ReadJob = Box<dyn FnOnce(&Connection) + Send>;

/// A file and its threads.
pub(crate) struct SqliteFile {
    // Dropped before the writer: the last connection to close empties the WAL, which a reader can't.
    pub(crate) readers: Lane<ReadJob>,
    pub(crate) writer: Lane<Box<dyn Job>>,
    failing: Arc<AtomicBool>,
}

impl SqliteFile {
    /// Opens the file of `config`, brings it to this release's schema, and
    /// starts the threads. Blocks for some milliseconds; longer while another process migrates.
    ///
    /// # Errors
    /// [`StoreErrorKind::Corrupt`] when the file is no database of this kind or of a
    /// newer release, else [`StoreErrorKind::Unavailable`].
    pub(crate) fn open(kind: &FileKind, config: FileConfig) -> Result<Self, StoreError> {
        let connection = Self::open_migrated(kind, &config.path)?;
        let mut readers = Vec::new();
        for _ in 0..config.readers.max(1) {
            let reader = connection::open_reader(&config.path, &kind.tuning);
            let reader = reader.map_err(|fault| opening(fault, &config.path))?;
            readers.push(move |queue: &flume::Receiver<ReadJob>| read_all(&reader, queue));
        }
        let group = GroupCommit::new(config.name.clone(), config.path.clone(), kind.tuning, connection);
        let started = |error: std::io::Error| {
            StoreError::new(StoreErrorKind::Unavailable, format!("a store thread did not start: {error}"))
                .caused_by(error)
        };
        let failing = group.failing();
        let write = move |queue: &flume::Receiver<Box<dyn Job>>| group.run(queue);
        Ok(Self {
            failing,
            writer: Lane::start(format!("{}/write", config.name), config.write_queue, vec![write]).map_err(started)?,
            readers: Lane::start(format!("{}/read", config.name), config.read_queue, readers).map_err(started)?,
        })
    }

    /// Brings the file at `path` to this release's schema, making it if there is none. Harmless when repeated.
    ///
    /// # Errors
    /// As [`SqliteFile::open`].
    pub(crate) fn open_migrated(kind: &FileKind, path: &Path) -> Result<Connection, StoreError> {
        let opened = connection::open_writer(path, &kind.tuning).and_then(|mut connection| {
            schema::migrate(&mut connection, kind.schema)?;
            Ok(connection)
        });
        opened.map_err(|fault| opening(fault, path))
    }

    /// Whether the last write failed of which the file, and not its caller, is to blame: a full disk, say.
    pub(crate) fn writes_fail(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Does and answers what was accepted, refuses what comes later, and waits for the threads to end. Blocks.
    pub(crate) fn close(&self) {
        self.readers.close();
        self.writer.close();
    }

    /// Has the writer run `work` and answer after its group's commit.
    pub(crate) async fn write<T, F>(&self, action: &'static str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        let (job, answer) = Pending::new(action, work);
        self.submit(job, answer).await
    }

    /// The same for `work` that deletes what is to leave no trace: the WAL is cut soon after.
    pub(crate) async fn erase<T, F>(&self, action: &'static str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        let (job, answer) = Pending::new(action, work);
        self.submit(job.erasing(), answer).await
    }

    async fn submit<T>(
        &self,
        job: impl Job + 'static,
        answer: oneshot::Receiver<Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.writer.submit(Box::new(job))?;
        answer.await.unwrap_or_else(|_| {
            Err(StoreError::new(StoreErrorKind::UnknownOutcome, "the writer ended before it answered"))
        })
    }

    /// Has a reader run `work`.
    pub(crate) async fn read<T, F>(&self, action: &'static str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        let (sender, answer) = oneshot::channel();
        self.readers.submit(Box::new(move |connection| {
            if !sender.is_closed() {
                let result = work(connection).map_err(|fault| fault.into_store_error(action));
                // The caller may have gone meanwhile.
                drop(sender.send(result));
            }
        }))?;
        answer.await.unwrap_or_else(|_| {
            Err(StoreError::new(StoreErrorKind::Unavailable, "the reader ended before it answered"))
        })
    }
}

fn read_all(connection: &Connection, queue: &flume::Receiver<ReadJob>) {
    while let Ok(job) = queue.recv() {
        job(connection);
    }
}

fn opening(fault: Fault, path: &Path) -> StoreError {
    fault.into_store_error(&format!("opening {}", path.display()))
}

/// A kind of file for the tests of this module.
#[cfg(test)]
mod example {
    use super::{FileKind, Schema, Tuning};

    pub(super) static KIND: FileKind = FileKind {
        schema: &Schema {
            application_id: 0x7465_7374,
            migrations: &[
                "CREATE TABLE settings (name TEXT PRIMARY KEY, value BLOB)",
                "CREATE TABLE leases (counter TEXT PRIMARY KEY, next_id INTEGER)",
            ],
        },
        tuning: Tuning {
            page_bytes: 8_192,
            writer_cache_kib: 512,
            reader_cache_kib: 256,
            group_max: 16,
            checkpoint_frames: 64,
            checkpoint_retry_frames: 16,
            wal_max_frames: 1_024,
            wal_kept_bytes: 1_048_576,
            secure_delete: true,
        },
    };
}
