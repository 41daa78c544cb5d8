//! An outbox that a dead process left.
//!
//! Its events are published as they stand. What it had only intended is read back from the store, once no write of that
//! process can be under way any more.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::file::{EventFile, Frames, Kind};

pub(super) struct Left {
    file: EventFile,
    len: u64,
    /// The offset up to which all events are published.
    published: u64,
    /// The intents that are not settled: where they stand, and what they are.
    open: BTreeMap<u64, (u64, Vec<u8>)>,
    /// When the store may be asked about them, in monotonic milliseconds.
    pub(super) ask_at_ms: u64,
    /// Until when it is left alone because its file could not be read or written, in monotonic milliseconds; 0 = it
    /// could.
    pub(super) rests_until_ms: u64,
}

impl Left {
    /// One of those in `directory` that nobody reads. The store is to be asked from `ask_at_ms` on. What can't be looked at
    /// is handed to `skipped`, and holds no other up.
    pub(super) fn find(directory: &Path, ask_at_ms: u64, mut skipped: impl FnMut(&Path, io::Error)) -> Option<Self> {
        let files = EventFile::of_dead_processes(directory).map_err(|error| skipped(directory, error)).ok()?;
        for (path, file) in files {
            match file.and_then(|file| file.map(|file| Self::of(file, ask_at_ms)).transpose()) {
                Ok(Some(left)) => return Some(left),
                Ok(None) => {}
                Err(error) => skipped(&path, error),
            }
        }
        None
    }

    fn of(file: EventFile, ask_at_ms: u64) -> io::Result<Self> {
        let (len, published) = (file.len()?, file.told_until()?);
        Ok(Self { file, len, published, open: BTreeMap::new(), ask_at_ms, rests_until_ms: 0 })
    }

    /// Leaves it alone until `until_ms`, because of `error`.
    pub(super) fn rest(&mut self, until_ms: u64, error: &io::Error) {
        if self.rests_until_ms == 0 {
            let path = self.file.path().display();
            tracing::warn!(%path, %error, "link events that a dead process left wait: their outbox can't be used");
        }
        self.rests_until_ms = until_ms;
    }

    /// Up to `most` frames that are not published.
    pub(super) fn pending(&self, most: usize) -> io::Result<Frames> {
        self.file.frames(self.published, self.len, most)
    }

    /// Notes that all events in `frames` are published.
    pub(super) fn published(&mut self, frames: Frames) -> io::Result<()> {
        self.published = frames.until;
        for frame in frames.frames {
            match frame.kind {
                Kind::Intent => drop(self.open.insert(frame.number, (frame.offset, frame.body))),
                _ => drop(self.open.remove(&frame.number)),
            }
        }
        self.note()
    }

    /// Up to `most` intents that are not settled, once all events are published.
    pub(super) fn doubts(&self, most: usize) -> Vec<(u64, Vec<u8>)> {
        self.open.iter().take(most).map(|(number, (_, body))| (*number, body.clone())).collect()
    }

    /// Notes that these intents are settled, and what came of them published.
    pub(super) fn settled(&mut self, numbers: &[u64]) -> io::Result<()> {
        for number in numbers {
            self.open.remove(number);
        }
        self.note()
    }

    fn note(&self) -> io::Result<()> {
        let needed = self.open.values().map(|(offset, _)| *offset).fold(self.published, u64::min);
        self.file.note_told(needed)
    }

    /// What the event of the intent `number` is called.
    pub(super) fn event_id(&self, number: u64) -> String {
        format!("{}-{number}", self.file.id())
    }

    /// Removes its file, of which nothing is left to tell.
    pub(super) fn remove(&self) -> io::Result<()> {
        self.file.remove(self.published)
    }
}
