//! Links in one SQLite file: the embedded default, and one shard of several.
//!
//! - One thread writes, in groups ([`group`]); [`SqliteConfig::readers`]
//!   threads read, each over a read-only connection. No statement ever runs on
//!   a caller's thread.
//! - Both queues are bounded; a full one refuses at once with
//!   [`StoreErrorKind::Overloaded`].
//! - Each read is a snapshot taken when it begins, so it sees every write that
//!   was acknowledged before.
//! - Memory is bounded by the connections' page caches, disk beside the file by
//!   the WAL's limits.
//! - A future dropped before its operation began cancels the operation; later, the operation is
//!   carried out and its answer dropped.

mod connection;
mod fault;
mod group;
mod lane;
mod ports;
mod reads;
mod rows;
mod schema;
#[cfg(test)]
mod tests;
mod writes;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;
use terse_core::ports::{StoreError, StoreErrorKind};
use tokio::sync::oneshot;

use crate::operation::Operation;
use fault::Fault;
use group::{GroupCommit, Job, Pending};
use lane::Lane;

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

type ReadJob = Box<dyn FnOnce(&Connection) + Send>;

/// A store in one SQLite file. Implements
/// [`ShardStore`](terse_core::ports::ShardStore) and
/// [`HomeStore`](terse_core::ports::HomeStore).
pub struct SqliteStore {
    shard: String,
    // Dropped before the writer: the last connection to close empties the WAL, which a reader can't.
    readers: Lane<ReadJob>,
    writer: Lane<Box<dyn Job>>,
}

impl SqliteStore {
    /// Opens the file of `config`, brings it to this release's schema, and
    /// starts the threads. Blocks for some milliseconds; longer while another process migrates.
    ///
    /// # Errors
    /// [`StoreErrorKind::Corrupt`] when the file is no database of terse or of a
    /// newer release, else [`StoreErrorKind::Unavailable`].
    pub fn open(config: SqliteConfig) -> Result<Arc<Self>, StoreError> {
        let connection = open_migrated(&config.path)?;
        let mut readers = Vec::new();
        for _ in 0..config.readers.max(1) {
            let reader = connection::open_reader(&config.path).map_err(|fault| opening(fault, &config.path))?;
            readers.push(move |queue: &flume::Receiver<ReadJob>| read_all(&reader, queue));
        }
        let group = GroupCommit::new(config.shard.clone(), config.path.clone(), connection);
        let started = |error: std::io::Error| {
            StoreError::new(StoreErrorKind::Unavailable, format!("a store thread did not start: {error}"))
                .caused_by(error)
        };
        let write = move |queue: &flume::Receiver<Box<dyn Job>>| group.run(queue);
        Ok(Arc::new(Self {
            writer: Lane::start(format!("{}/write", config.shard), config.write_queue, vec![write]).map_err(started)?,
            readers: Lane::start(format!("{}/read", config.shard), config.read_queue, readers).map_err(started)?,
            shard: config.shard,
        }))
    }

    /// Brings the file at `path` to this release's schema, making it if there is none. Harmless when repeated.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub fn migrate(path: &Path) -> Result<(), StoreError> {
        open_migrated(path).map(drop)
    }

    /// Ends the store: what was accepted is done and answered, what comes
    /// later is refused as unavailable, and the threads have ended when this
    /// returns. Dropping the store does the same. Blocks: not for a web worker.
    pub fn close(&self) {
        self.readers.close();
        self.writer.close();
    }

    /// Has the writer run `work` and answer after its group's commit.
    async fn write<T, F>(&self, operation: Operation, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        let (job, answer) = Pending::new(operation.as_str(), work);
        self.writer.submit(Box::new(job))?;
        answer.await.unwrap_or_else(|_| {
            Err(StoreError::new(StoreErrorKind::UnknownOutcome, "the writer ended before it answered"))
        })
    }

    /// Has a reader run `work`.
    async fn read<T, F>(&self, operation: Operation, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        let (sender, answer) = oneshot::channel();
        self.readers.submit(Box::new(move |connection| {
            if !sender.is_closed() {
                let result = work(connection).map_err(|fault| fault.into_store_error(operation.as_str()));
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

fn open_migrated(path: &Path) -> Result<Connection, StoreError> {
    let opened = connection::open_writer(path).and_then(|mut connection| {
        schema::migrate(&mut connection)?;
        Ok(connection)
    });
    opened.map_err(|fault| opening(fault, path))
}

fn opening(fault: Fault, path: &Path) -> StoreError {
    fault.into_store_error(&format!("opening {}", path.display()))
}
