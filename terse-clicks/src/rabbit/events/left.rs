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
}

impl Left {
    /// One of those in `directory` that nobody reads. The store is to be asked from `ask_at_ms` on.
    pub(super) fn find(directory: &Path, ask_at_ms: u64) -> io::Result<Option<Self>> {
        let Some(file) = EventFile::of_a_dead_process(directory)? else { return Ok(None) };
        let (len, published) = (file.len()?, file.told_until()?);
        Ok(Some(Self { file, len, published, open: BTreeMap::new(), ask_at_ms }))
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

    /// Removes it, of which nothing is left to tell.
    pub(super) fn remove(self) -> io::Result<()> {
        self.file.remove(self.published)
    }
}
