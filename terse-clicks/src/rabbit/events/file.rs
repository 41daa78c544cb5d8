//! The file of an outbox.
//!
//! `<id>.events`, locked by its process for life, has 8 bytes of magic, 8 with the offset before which nothing is left
//! to
//! tell, then frames: 4 bytes with the length of the body, 4 with the CRC-32 of the rest, 1 with the kind, 8 with the
//! number of the intent, the body. Numbers are little endian. An intent is noted (its body tells what was about to be
//! tried), then settled: by an event (its body is the JSON), or by a frame that says that nothing happened.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Most bytes of a body: far more than a link can have.
pub(super) const MAX_BODY_BYTES: usize = 256 << 10;
/// Where the first frame begins.
pub(super) const HEAD_BYTES: u64 = 16;
/// What a frame has besides its body.
pub(super) const FRAME_BYTES: usize = 17;
/// Most frames that are read at once.
const MAX_FRAMES: usize = 1_024;
const MAGIC: [u8; 8] = *b"trs-evt2";
const SUFFIX: &str = ".events";
const NEW_PREFIX: &str = "new-";
/// What the names of outboxes end with that can't be read.
const TORN: &str = "torn";

/// What a frame is. The first three are the kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Created,
    Changed,
    Deleted,
    Intent,
    Nothing,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Created, Self::Changed, Self::Deleted, Self::Intent, Self::Nothing];

    /// The routing key of an event, which is its type, too.
    pub(super) const fn event_type(self) -> Option<&'static str> {
        match self {
            Self::Created => Some("link.created.v1"),
            Self::Changed => Some("link.changed.v1"),
            Self::Deleted => Some("link.deleted.v1"),
            Self::Intent | Self::Nothing => None,
        }
    }

    /// A kind that only a newer build knows ends what can be read.
    fn of(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

/// What a file tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) number: u64,
    pub(super) offset: u64,
    pub(super) body: Vec<u8>,
}

impl Frame {
    fn end(&self) -> u64 {
        self.offset + (FRAME_BYTES + self.body.len()) as u64
    }
}

/// Frames, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Frames {
    pub(super) frames: Vec<Frame>,
    /// The offset behind them.
    pub(super) until: u64,
}

/// Appends a frame to `buffer`.
pub(super) fn frame(buffer: &mut Vec<u8>, kind: Kind, number: u64, body: &[u8]) {
    buffer.extend_from_slice(&(body.len() as u32).to_le_bytes());
    buffer.extend_from_slice(&checksum(kind as u8, number, body).to_le_bytes());
    buffer.push(kind as u8);
    buffer.extend_from_slice(&number.to_le_bytes());
    buffer.extend_from_slice(body);
}

fn checksum(kind: u8, number: u64, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[kind]);
    hasher.update(&number.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

/// An outbox whose lock is held.
pub(super) struct EventFile {
    pub(super) file: File,
    path: PathBuf,
}

/// An outbox that has yet to take its place. Locked, under another name until then, so that whoever finds an outbox that
/// is not locked knows its process to be gone. It is removed again if it doesn't get there.
pub(super) struct NewFile {
    /// `None` = it is in its place.
    file: Option<File>,
    len: u64,
    new: PathBuf,
    path: PathBuf,
}

impl NewFile {
    /// Makes the outbox `id` in `directory`, durably. It has these `frames`, of which nothing is told.
    pub(super) fn create(directory: &Path, id: &str, frames: &[u8]) -> io::Result<Self> {
        let (new, path) = (directory.join(format!("{NEW_PREFIX}{id}")), directory.join(format!("{id}{SUFFIX}")));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&new)?;
        let this = Self { file: Some(file), len: HEAD_BYTES + frames.len() as u64, new, path };
        let file = this.file()?;
        file.try_lock()?;
        file.write_all_at(&MAGIC, 0)?;
        file.write_all_at(&HEAD_BYTES.to_le_bytes(), MAGIC.len() as u64)?;
        file.write_all_at(frames, HEAD_BYTES)?;
        file.sync_all()?;
        Ok(this)
    }

    /// Appends `frames`, durably.
    pub(super) fn append(&mut self, frames: &[u8]) -> io::Result<()> {
        if !frames.is_empty() {
            self.file()?.write_all_at(frames, self.len)?;
            self.file()?.sync_all()?;
            self.len += frames.len() as u64;
        }
        Ok(())
    }

    /// Puts it in the place of the outbox of that name, if there is one, durably.
    pub(super) fn place(mut self) -> io::Result<EventFile> {
        fs::rename(&self.new, &self.path)?;
        let file = self.file.take().ok_or(io::ErrorKind::NotFound)?;
        // It is the outbox from here on: whoever went on with the one before would write to a file without a name.
        let directory = self.path.parent().unwrap_or(Path::new("."));
        if let Err(error) = File::open(directory).and_then(|directory| directory.sync_all()) {
            tracing::error!(%error, "the directory of link events can't be synced: a power cut may cost some");
        }
        Ok(EventFile { file, path: self.path.clone() })
    }

    fn file(&self) -> io::Result<&File> {
        self.file.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.file.is_some()
            && let Err(error) = fs::remove_file(&self.new)
        {
            tracing::warn!(path = %self.new.display(), %error, "an outbox that was not finished can't be removed");
        }
    }
}

impl EventFile {
    /// The outboxes in `directory`, one after the other: what is locked now because its process is gone and nobody else
    /// reads it; `None` for others.
    pub(super) fn of_dead_processes(
        directory: &Path,
    ) -> io::Result<impl Iterator<Item = (PathBuf, io::Result<Option<Self>>)>> {
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            entries => Some(entries?),
        };
        let directory = directory.to_owned();
        Ok(entries.into_iter().flatten().map(move |entry| match entry {
            Ok(entry) => (entry.path(), Self::of_a_dead_process(entry.path())),
            Err(error) => (directory.clone(), Err(error)),
        }))
    }

    fn of_a_dead_process(path: PathBuf) -> io::Result<Option<Self>> {
        if !path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(SUFFIX)) {
            return Ok(None);
        }
        let file = match File::options().read(true).write(true).open(&path) {
            // Sent and removed by somebody else since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        match file.try_lock() {
            // Its process may have put another file in its place while it was opened.
            Ok(()) => Ok(is_still(&file, &path)?.then_some(Self { file, path })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Where it lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What the outbox is called.
    pub(super) fn id(&self) -> String {
        self.path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// The bytes of the file.
    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Up to `most` frames from `offset` on, and before the offset `len`. What is torn, and all behind it, is none.
    pub(super) fn frames(&self, offset: u64, len: u64, most: usize) -> io::Result<Frames> {
        let mut frames = Frames { frames: Vec::new(), until: offset };
        while frames.frames.len() < most.min(MAX_FRAMES) {
            let Some(frame) = self.frame(frames.until, len)? else { break };
            frames.until = frame.end();
            frames.frames.push(frame);
        }
        Ok(frames)
    }

    fn frame(&self, offset: u64, len: u64) -> io::Result<Option<Frame>> {
        if offset < HEAD_BYTES || offset.saturating_add(FRAME_BYTES as u64) > len {
            return Ok(None);
        }
        let mut head = [0; FRAME_BYTES];
        self.file.read_exact_at(&mut head, offset)?;
        let [l0, l1, l2, l3, c0, c1, c2, c3, kind, number @ ..] = head;
        let (bytes, number) = (u32::from_le_bytes([l0, l1, l2, l3]) as usize, u64::from_le_bytes(number));
        if bytes > MAX_BODY_BYTES || offset + (FRAME_BYTES + bytes) as u64 > len {
            return Ok(None);
        }
        let mut body = vec![0; bytes];
        self.file.read_exact_at(&mut body, offset + FRAME_BYTES as u64)?;
        if u32::from_le_bytes([c0, c1, c2, c3]) != checksum(kind, number, &body) {
            return Ok(None);
        }
        Ok(Kind::of(kind).map(|kind| Frame { kind, number, offset, body }))
    }

    /// The bytes from `offset` up to `len`.
    pub(super) fn bytes(&self, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(len.saturating_sub(offset)).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// The offset before which nothing is left to tell. Of a file that doesn't begin as outboxes do, that is its
    /// beginning.
    pub(super) fn told_until(&self) -> io::Result<u64> {
        let mut head = [0; HEAD_BYTES as usize];
        match self.file.read_exact_at(&mut head, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
            read => read?,
        }
        let [magic @ .., a, b, c, d, e, f, g, h] = head;
        Ok(if magic == MAGIC { u64::from_le_bytes([a, b, c, d, e, f, g, h]) } else { 0 })
    }

    /// Notes that before `offset` nothing is left to tell. After a power cut some of it may be told again.
    pub(super) fn note_told(&self, offset: u64) -> io::Result<()> {
        self.file.write_all_at(&offset.to_le_bytes(), MAGIC.len() as u64)
    }

    /// Removes the file. With something in it behind `until`, which can't be read, it is kept, under another name.
    pub(super) fn remove(&self, until: u64) -> io::Result<()> {
        let done = if until < self.len()? {
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

#[cfg(test)]
impl EventFile {
    /// What lies at `path`, to be read alone.
    pub(super) fn read_only(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, path: path.to_owned() })
    }
}

/// Whether `file` is what lies at `path`.
fn is_still(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        found => Ok(found?.ino() == file.metadata()?.ino()),
    }
}
