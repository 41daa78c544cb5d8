//! Group commit: the one thread that writes.
//!
//! It takes what is waiting, up to [`Tuning::group_max`] operations, runs them in one
//! `BEGIN IMMEDIATE … COMMIT`, and answers each only after the commit has
//! returned from its fsync. While it waits for the disk the next group
//! gathers, so the load itself sets the size of the groups and no timer is
//! needed. An operation that fails leaves its group unharmed; a fault that ends
//! the transaction fails the whole group.
//!
//! After answering, and only then, it moves the WAL into the file when enough
//! has gathered, so no caller waits for its own group's checkpoint.
//!
//! Where deleted bytes are overwritten ([`Tuning::secure_delete`]), the WAL has them still. So it is cut to nothing after
//! an operation that [erases](Pending::erasing), and once after each start, for the last process may have been killed
//! before it did; as soon as nobody reads from it, which is tried every [`WIPE_EVERY`].

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use terse_core::ports::{StoreError, StoreErrorKind};
use tokio::sync::oneshot;

use super::Tuning;
use super::connection::{BUSY_TIMEOUT, open_writer};
use super::fault::{Fault, commit_failure};

/// How often it is tried to cut a WAL that still has what was erased.
const WIPE_EVERY: Duration = Duration::from_secs(1);

/// An operation in the writer's queue.
pub(crate) trait Job: Send {
    /// Whether nothing of what it deletes is to be left.
    fn erases(&self) -> bool;
    /// Whether nobody waits for the answer any more.
    fn is_abandoned(&self) -> bool;
    /// Runs within the group's transaction.
    fn run(&mut self, connection: &Connection);
    /// Why it failed, once it has.
    fn fault(&self) -> Option<String>;
    /// Answers: with its own result, unless a failure undid the group.
    fn answer(self: Box<Self>, failure: Option<&StoreError>);
}

/// The usual [`Job`]: a function and the channel of its answer.
pub(crate) struct Pending<T, F> {
    action: &'static str,
    work: Option<F>,
    erases: bool,
    result: Option<Result<T, StoreError>>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Pending<T, F>
where
    F: FnOnce(&Connection) -> Result<T, Fault>,
{
    pub(crate) fn new(action: &'static str, work: F) -> (Self, oneshot::Receiver<Result<T, StoreError>>) {
        let (answer, receiver) = oneshot::channel();
        (Self { action, work: Some(work), erases: false, result: None, answer }, receiver)
    }

    /// Of what it deletes nothing is to be left.
    pub(crate) fn erasing(self) -> Self {
        Self { erases: true, ..self }
    }
}

impl<T, F> Job for Pending<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T, Fault> + Send,
{
    fn erases(&self) -> bool {
        self.erases
    }

    fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }

    fn run(&mut self, connection: &Connection) {
        if let Some(work) = self.work.take() {
            self.result = Some(work(connection).map_err(|fault| fault.into_store_error(self.action)));
        }
    }

    fn fault(&self) -> Option<String> {
        self.result.as_ref().and_then(|result| result.as_ref().err()).map(|error| error.message.clone())
    }

    fn answer(self: Box<Self>, failure: Option<&StoreError>) {
        let Self { result, answer, .. } = *self;
        let outcome = match (failure, result) {
            (_, Some(Err(own))) => Err(own),
            (Some(failure), _) => Err(failure.clone()),
            (None, Some(Ok(value))) => Ok(value),
            (None, None) => Err(StoreError::new(StoreErrorKind::Unavailable, "the operation was not run")),
        };
        // A caller that has gone doesn't hear of it; the change stands all the same.
        drop(answer.send(outcome));
    }
}

/// The writer thread's state.
pub(crate) struct GroupCommit {
    name: String,
    path: PathBuf,
    tuning: Tuning,
    /// `None` after a fault that left the connection in doubt; the next group opens it again.
    connection: Option<Connection>,
    /// Whether the last group failed; others read it.
    failing: Arc<AtomicBool>,
    wal: Wal,
    /// When it is to be tried to cut the WAL; `None` = nothing in it was erased.
    wipe_at: Option<Instant>,
}

impl GroupCommit {
    pub(crate) fn new(name: String, path: PathBuf, tuning: Tuning, connection: Connection) -> Self {
        let wipe_at = tuning.secure_delete.then(Instant::now);
        Self {
            name,
            path,
            tuning,
            connection: Some(connection),
            failing: Arc::default(),
            wal: Wal::new(tuning),
            wipe_at,
        }
    }

    /// Whether the last group failed, as it stands at any time.
    pub(crate) fn failing(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.failing)
    }

    /// Works the queue off until it is closed and empty.
    pub(crate) fn run(mut self, queue: &flume::Receiver<Box<dyn Job>>) {
        let mut group = Vec::with_capacity(self.tuning.group_max);
        loop {
            match self.wipe_at.map_or_else(|| Ok(queue.recv()?), |at| queue.recv_deadline(at)) {
                Ok(first) => {
                    group.push(first);
                    group.extend(queue.try_iter().take(self.tuning.group_max.saturating_sub(1)));
                    self.commit_once(&mut group);
                }
                Err(flume::RecvTimeoutError::Timeout) => {}
                Err(flume::RecvTimeoutError::Disconnected) => return,
            }
            self.wipe_once();
        }
    }

    /// Cuts the WAL, if it is time to try.
    fn wipe_once(&mut self) {
        if self.wipe_at.is_none_or(|at| Instant::now() < at) {
            return;
        }
        self.wipe_at = Some(Instant::now() + WIPE_EVERY);
        // The next group opens one that is gone.
        let Some(connection) = &self.connection else { return };
        match self.wal.wipe(connection) {
            Ok(true) => self.wipe_at = None,
            Ok(false) => {}
            Err(error) => tracing::warn!(file = self.name, %error, "the WAL can't be cut, and keeps what was erased"),
        }
    }

    /// Commits one group and answers it, then checkpoints if that is due.
    fn commit_once(&mut self, group: &mut Vec<Box<dyn Job>>) {
        group.retain(|job| !job.is_abandoned());
        if group.is_empty() {
            return;
        }
        let committed = self.commit(group);
        if committed.is_ok() && self.tuning.secure_delete && group.iter().any(|job| job.erases()) {
            self.wipe_at.get_or_insert_with(Instant::now);
        }
        let failure = committed.as_ref().err();
        self.report(failure);
        for job in group.drain(..) {
            job.answer(failure);
        }
        if let Some(connection) = &self.connection {
            self.wal.tend_once(connection, &self.name);
        }
    }

    fn commit(&mut self, group: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
        self.wal.admit()?;
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => open_writer(&self.path, &self.tuning).map_err(|fault| fault.into_store_error("reopening"))?,
        };
        let committed = run_in_transaction(&connection, group);
        if connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok() {
            self.connection = Some(connection);
        }
        committed
    }

    /// Logs the first failure and the recovery, not every group between them.
    fn report(&mut self, failure: Option<&StoreError>) {
        let was_failing = self.failing.swap(failure.is_some(), Ordering::Relaxed);
        match failure {
            Some(error) if !was_failing => tracing::error!(file = self.name, %error, "writes fail"),
            None if was_failing => tracing::info!(file = self.name, "writes succeed again"),
            _ => {}
        }
    }
}

fn run_in_transaction(connection: &Connection, group: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
    execute(connection, "BEGIN IMMEDIATE").map_err(|error| Fault::from(error).into_store_error("beginning"))?;
    for job in group {
        job.run(connection);
        if connection.is_autocommit() {
            // A full disk, say: SQLite has rolled everything back, so nothing of this group happened.
            let why = job.fault().unwrap_or_default();
            let text = format!("a fault rolled the group's transaction back: {why}");
            return Err(StoreError::new(StoreErrorKind::Unavailable, text));
        }
    }
    execute(connection, "COMMIT").map_err(commit_failure)
}

fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(|_| ())
}

/// Keeps the WAL short.
pub(crate) struct Wal {
    tuning: Tuning,
    frames: i64,
    /// From how many frames on the next checkpoint is due.
    due_at: i64,
}

impl Wal {
    pub(crate) fn new(tuning: Tuning) -> Self {
        Self { tuning, frames: 0, due_at: tuning.checkpoint_frames }
    }

    /// Refuses writes while the WAL is too long.
    pub(crate) fn admit(&mut self) -> Result<(), StoreError> {
        if self.frames <= self.tuning.wal_max_frames {
            return Ok(());
        }
        // Nothing is written meanwhile, so the length must be looked up again next time.
        self.due_at = 0;
        let text = "the WAL is too long: another process keeps a read transaction open";
        Err(StoreError::new(StoreErrorKind::Overloaded, text))
    }

    /// Runs a checkpoint if one is due. It is a passive one: it waits for nobody.
    pub(crate) fn tend_once(&mut self, connection: &Connection, name: &str) {
        if let Err(error) = self.try_tend(connection) {
            // The WAL stays as it is, which is safe; the next group tries again.
            tracing::warn!(file = name, %error, "the checkpoint failed");
        }
    }

    fn try_tend(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let (frames, moved) = checkpoint(connection, "PRAGMA wal_checkpoint(NOOP)")?;
        self.frames = frames;
        if frames < self.tuning.checkpoint_frames {
            self.due_at = self.tuning.checkpoint_frames;
        }
        if frames <= self.tuning.wal_max_frames && (frames < self.due_at || frames == moved) {
            return Ok(());
        }
        // When all is moved and nobody reads from the WAL, the next write starts it over.
        let (frames, _) = checkpoint(connection, "PRAGMA wal_checkpoint(PASSIVE)")?;
        self.due_at = frames + self.tuning.checkpoint_retry_frames;
        if frames > self.tuning.wal_max_frames {
            // There is no next write while it is too long.
            self.frames = start_over(connection)?.1;
        }
        Ok(())
    }

    /// Cuts the WAL to nothing; `false` = somebody reads from it.
    fn wipe(&mut self, connection: &Connection) -> rusqlite::Result<bool> {
        let (is_cut, frames) = start_over(connection)?;
        self.frames = frames;
        Ok(is_cut)
    }
}

/// Cuts the WAL to nothing unless somebody reads from it; whether it did, and how many frames it has then. Waits for
/// nobody.
fn start_over(connection: &Connection) -> rusqlite::Result<(bool, i64)> {
    connection.busy_timeout(Duration::ZERO)?;
    let truncated = connection
        .prepare_cached("PRAGMA wal_checkpoint(TRUNCATE)")
        .and_then(|mut statement| statement.query_row([], |row| Ok((row.get::<_, i64>(0)? == 0, row.get(1)?))));
    connection.busy_timeout(BUSY_TIMEOUT)?;
    truncated
}

/// Frames in the WAL, and how many of them are in the file already.
fn checkpoint(connection: &Connection, sql: &str) -> rusqlite::Result<(i64, i64)> {
    connection.prepare_cached(sql)?.query_row([], |row| Ok((row.get(1)?, row.get(2)?)))
}

#[cfg(test)]
mod tests {
    use super::super::example::KIND;
    use super::*;

    fn insert_setting(name: &'static str) -> (Box<dyn Job>, oneshot::Receiver<Result<usize, StoreError>>) {
        let (job, answer) = Pending::new("test", move |connection: &Connection| {
            Ok(connection.execute("INSERT INTO settings (name, value) VALUES (?1, x'00')", [name])?)
        });
        (Box::new(job), answer)
    }

    fn writer(directory: &tempfile::TempDir) -> GroupCommit {
        let path = directory.path().join("file.db");
        let mut connection = open_writer(&path, &KIND.tuning).unwrap();
        super::super::schema::migrate(&mut connection, KIND.schema).unwrap();
        GroupCommit::new("main".to_owned(), path, KIND.tuning, connection)
    }

    #[test]
    fn a_connection_in_doubt_is_opened_anew() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = writer(&directory);
        writer.connection = None;
        let (job, mut answer) = insert_setting("one");
        writer.commit_once(&mut vec![job]);
        assert_eq!(answer.try_recv().unwrap().unwrap(), 1);
        assert!(writer.connection.is_some());
    }

    #[test]
    fn a_connection_that_cannot_be_opened_fails_the_group_and_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = writer(&directory);
        writer.connection = None;
        let there = std::mem::replace(&mut writer.path, directory.path().join("absent/file.db"));
        let (job, mut answer) = insert_setting("one");
        writer.commit_once(&mut vec![job]);
        assert_eq!(answer.try_recv().unwrap().unwrap_err().kind, StoreErrorKind::Unavailable);
        assert!(writer.failing.load(Ordering::Relaxed));

        writer.path = there;
        let (job, mut answer) = insert_setting("one");
        writer.commit_once(&mut vec![job]);
        assert_eq!(answer.try_recv().unwrap().unwrap(), 1);
        assert!(!writer.failing.load(Ordering::Relaxed));
    }

    #[test]
    fn a_wal_that_can_not_be_cut_is_tried_again_after_a_while() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = writer(&directory);
        let wal = directory.path().join("file.db-wal");
        let (job, _answer) = insert_setting("one");
        writer.commit_once(&mut vec![job]);
        let reader = super::super::connection::open_reader(&writer.path, &KIND.tuning).unwrap();
        reader.execute_batch("BEGIN; SELECT * FROM settings").unwrap();
        let (job, _answer) = insert_setting("two");
        writer.commit_once(&mut vec![job]);
        let connection = writer.connection.take();
        for (name, connection) in [("without a connection", None), ("beside a reader", connection)] {
            writer.connection = connection;
            writer.wipe_at = Some(Instant::now());
            writer.wipe_once();
            assert!(writer.wipe_at.is_some_and(|at| at > Instant::now()), "{name}");
            assert!(std::fs::metadata(&wal).unwrap().len() > 0, "{name}");
        }
        reader.execute_batch("COMMIT").unwrap();
        writer.wipe_at = Some(Instant::now());
        writer.wipe_once();
        assert!(writer.wipe_at.is_none() && std::fs::metadata(&wal).unwrap().len() == 0);
        assert_eq!(writer.wal.frames, 0);
    }

    #[test]
    fn a_group_has_a_greatest_size() {
        let directory = tempfile::tempdir().unwrap();
        let writer = writer(&directory);
        let reader = super::super::connection::open_reader(&writer.path, &KIND.tuning).unwrap();
        let (sender, queue) = flume::unbounded();
        // The operation after a full group already sees that group committed.
        let mut answers = Vec::new();
        for number in 0..=KIND.tuning.group_max {
            let (job, answer) = Pending::new("test", move |connection: &Connection| {
                Ok(connection.execute("INSERT INTO leases (counter, next_id) VALUES (?1, 0)", [number.to_string()])?)
            });
            sender.send(Box::new(job) as Box<dyn Job>).unwrap();
            answers.push(answer);
        }
        let (job, mut seen) = Pending::new("test", move |_: &Connection| {
            Ok(reader.query_row("SELECT count(*) FROM leases", [], |row| row.get::<_, i64>(0))?)
        });
        sender.send(Box::new(job)).unwrap();
        drop(sender);
        writer.run(&queue);
        assert_eq!(seen.try_recv().unwrap().unwrap(), KIND.tuning.group_max as i64);
        assert!(answers.iter_mut().all(|answer| answer.try_recv().unwrap().is_ok()));
    }
}
