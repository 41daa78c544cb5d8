//! A file of events that are not published yet.
//!
//! `<id>.events`, locked by its process for life, has 8 bytes of magic, 8 with the offset up to which all was sent,
//! then events, each behind 4 bytes with its length, 4 with the CRC-32 of the rest, 1 with its kind. Numbers are
//! little endian. It is written through to the operating system, not to the disk: the end of the process loses
//! nothing, that of the machine may lose half a minute. When all was sent, it begins anew.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use terse_core::click::JournalId;
use terse_core::{Entropy, Timestamp, time};
use tokio::sync::Notify;

use super::LinkEvent;

/// Most bytes of events of one process that wait to be published.
pub const MAX_OUTBOX_BYTES: u64 = 64 << 20;
/// An outbox of which all was sent begins anew when it has so many bytes.
const ANEW_BYTES: u64 = 1 << 20;
/// Most bytes of one event: far more than a link can have.
const MAX_EVENT_BYTES: usize = 256 << 10;
const MAGIC: [u8; 8] = *b"trs-evts";
const HEAD_BYTES: u64 = 16;
const FRAME_BYTES: usize = 9;
const SUFFIX: &str = ".events";
const NEW_PREFIX: &str = "new-";
/// What the names of outboxes end with that can't be read.
const TORN: &str = "torn";

/// Why an event was not noted.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// So many wait already.
    #[error("{MAX_OUTBOX_BYTES} bytes of link events wait to be published")]
    Full,
    /// The disk failed.
    #[error("the outbox can't be written: {0}")]
    Disk(#[from] io::Error),
    /// It can't be written as JSON.
    #[error("the event can't be written: {0}")]
    Json(#[from] serde_json::Error),
}

/// An event that waits.
pub(super) struct Waiting {
    pub(super) kind: u8,
    pub(super) json: Vec<u8>,
}

/// Events that wait, in their order.
pub(super) struct Pending {
    pub(super) events: Vec<Waiting>,
    /// The offset behind them.
    until: u64,
}

/// The outbox of this process.
pub struct Outbox {
    id: JournalId,
    reader: Reader,
    state: Mutex<State>,
    appended: Notify,
    dropped: AtomicU64,
}

struct State {
    /// The offset behind the last event.
    len: u64,
    /// How many events there were.
    number: u64,
}

/// A file of events, whose lock is held.
pub(super) struct Reader {
    file: File,
    path: PathBuf,
}

impl Outbox {
    /// Makes an outbox for this process in `directory`, which is made if absent. It blocks on the disk.
    ///
    /// # Errors
    /// Why it could not be made.
    pub fn open(directory: &Path, entropy: &dyn Entropy) -> io::Result<Arc<Self>> {
        fs::create_dir_all(directory)?;
        let id = JournalId(time::random_bytes(entropy));
        // Under another name until it is locked, so that whoever finds one that is not knows its process to be gone.
        let (new, path) = (directory.join(format!("{NEW_PREFIX}{id}")), directory.join(format!("{id}{SUFFIX}")));
        let file = File::options().read(true).write(true).create_new(true).open(&new)?;
        file.try_lock()?;
        let reader = Reader { file, path };
        reader.begin()?;
        fs::rename(&new, &reader.path)?;
        Ok(Arc::new(Self {
            id,
            reader,
            state: Mutex::new(State { len: HEAD_BYTES, number: 0 }),
            appended: Notify::new(),
            dropped: AtomicU64::new(0),
        }))
    }

    /// Notes an event that happened at `at`. It is to be called after the change was committed, and before it is
    /// answered; it takes some microseconds, and doesn't wait for the disk.
    ///
    /// # Errors
    /// [`OutboxError`]; then the event is dropped, and counted.
    pub fn append(&self, event: LinkEvent<'_>, at: Timestamp) -> Result<(), OutboxError> {
        let noted = self.try_append(event, at);
        match noted {
            Ok(()) => self.appended.notify_one(),
            Err(_) => drop(self.dropped.fetch_add(1, Ordering::Relaxed)),
        }
        noted
    }

    fn try_append(&self, event: LinkEvent<'_>, at: Timestamp) -> Result<(), OutboxError> {
        let mut state = self.state.lock();
        let json = event.json(&format!("{}-{}", self.id, state.number), at)?;
        let mut frame = Vec::with_capacity(FRAME_BYTES + json.len());
        frame.extend_from_slice(&(json.len() as u32).to_le_bytes());
        frame.extend_from_slice(&checksum(event.kind(), &json).to_le_bytes());
        frame.push(event.kind());
        frame.extend_from_slice(&json);
        if state.len + frame.len() as u64 > MAX_OUTBOX_BYTES || json.len() > MAX_EVENT_BYTES {
            return Err(OutboxError::Full);
        }
        self.reader.file.write_all_at(&frame, state.len)?;
        state.len += frame.len() as u64;
        state.number += 1;
        Ok(())
    }

    /// How many events were dropped.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until an event is appended, or was since the last wait.
    pub(super) async fn appended(&self) {
        self.appended.notified().await;
    }

    /// Up to `most` events that were not sent.
    pub(super) fn pending(&self, most: usize) -> io::Result<Pending> {
        let len = self.state.lock().len;
        self.reader.up_to(len, most)
    }

    /// Notes that `pending` was sent.
    pub(super) fn sent(&self, pending: &Pending) -> io::Result<()> {
        self.reader.sent(pending)?;
        let mut state = self.state.lock();
        if pending.until == state.len && state.len >= ANEW_BYTES {
            // Should the process end in between, what was sent lies behind the end: so all was.
            self.reader.file.set_len(HEAD_BYTES)?;
            self.reader.begin()?;
            state.len = HEAD_BYTES;
        }
        Ok(())
    }
}

impl Reader {
    /// One of the outboxes in `directory` whose process is gone.
    pub(super) fn of_a_dead_process(directory: &Path) -> io::Result<Option<Self>> {
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            if !path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(SUFFIX)) {
                continue;
            }
            let file = match File::options().read(true).write(true).open(&path) {
                // Sent and removed by somebody else since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            match file.try_lock() {
                Ok(()) => return Ok(Some(Self { file, path })),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Writes the head of an outbox without events.
    fn begin(&self) -> io::Result<()> {
        let mut head = [0; HEAD_BYTES as usize];
        head[..8].copy_from_slice(&MAGIC);
        head[8..].copy_from_slice(&HEAD_BYTES.to_le_bytes());
        self.file.write_all_at(&head, 0)
    }

    /// Up to `most` events that were not sent, of all that is in the file.
    pub(super) fn pending(&self, most: usize) -> io::Result<Pending> {
        self.up_to(self.file.metadata()?.len(), most)
    }

    /// Up to `most` events that were not sent before the offset `len`. What is torn, and all behind it, is none.
    fn up_to(&self, len: u64, most: usize) -> io::Result<Pending> {
        let mut pending = Pending { events: Vec::new(), until: self.first_unsent()? };
        if pending.until < HEAD_BYTES {
            return Ok(pending);
        }
        while pending.events.len() < most && pending.until.saturating_add(FRAME_BYTES as u64) <= len {
            let mut head = [0; FRAME_BYTES];
            self.file.read_exact_at(&mut head, pending.until)?;
            let [l0, l1, l2, l3, c0, c1, c2, c3, kind] = head;
            let bytes = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
            let end = pending.until + (FRAME_BYTES + bytes) as u64;
            if bytes > MAX_EVENT_BYTES || end > len {
                break;
            }
            let mut json = vec![0; bytes];
            self.file.read_exact_at(&mut json, pending.until + FRAME_BYTES as u64)?;
            if u32::from_le_bytes([c0, c1, c2, c3]) != checksum(kind, &json) {
                break;
            }
            pending.events.push(Waiting { kind, json });
            pending.until = end;
        }
        Ok(pending)
    }

    /// The offset up to which all was sent. Of a file that doesn't begin as outboxes do, that is its beginning.
    fn first_unsent(&self) -> io::Result<u64> {
        let mut head = [0; HEAD_BYTES as usize];
        match self.file.read_exact_at(&mut head, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
            read => read?,
        }
        let [magic @ .., a, b, c, d, e, f, g, h] = head;
        Ok(if magic == MAGIC { u64::from_le_bytes([a, b, c, d, e, f, g, h]) } else { 0 })
    }

    /// Notes that `pending` was sent.
    pub(super) fn sent(&self, pending: &Pending) -> io::Result<()> {
        self.file.write_all_at(&pending.until.to_le_bytes(), MAGIC.len() as u64)
    }

    /// Removes the file, of which nothing is left to send. What can't be read in it is kept, under another name.
    pub(super) fn remove(self) -> io::Result<()> {
        let len = self.file.metadata()?.len();
        let done = if self.first_unsent()? < len {
            let torn = self.path.with_extension(TORN);
            tracing::error!(outbox = %torn.display(), "link events that can't be read are put aside");
            fs::rename(&self.path, torn)
        } else {
            fs::remove_file(&self.path)
        };
        match done {
            // Somebody else has seen to it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }
}

fn checksum(kind: u8, json: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[kind]);
    hasher.update(json);
    hasher.finalize()
}
