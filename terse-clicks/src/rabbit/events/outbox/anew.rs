//! The file of an outbox, made anew from what is left when much of it was published.
//!
//! What is left is copied and synced beside the writing. The writer waits only while what it wrote meanwhile is taken over,
//! for those who noted it went on: it has to be durable in the new file before that is the outbox.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::super::file::{EventFile, HEAD_BYTES, Kind, NewFile, frame};
use super::{Shared, State};

/// The file is made anew when so much of it was published, and less is left.
const ANEW_BYTES: u64 = 1 << 20;

/// What a new file begins with: what is needed of the one before it, as it stood at some moment.
pub(super) struct Kept {
    file: Arc<EventFile>,
    published: u64,
    len: u64,
    /// Intents before what is published, which are not settled.
    intents: Vec<(u64, Vec<u8>)>,
}

impl Shared {
    /// What a new file begins with, if it is time for one.
    pub(super) fn kept_anew(&self) -> Option<Kept> {
        let state = self.state.lock();
        (state.published >= ANEW_BYTES && state.len - state.published <= state.published).then(|| state.kept())
    }

    /// Puts another file in the place of the one that `kept` is of, with all that is needed of it. What is written
    /// meanwhile is taken over at the end; the writer waits only for that.
    pub(super) fn begin_anew(&self, kept: &Kept) -> io::Result<()> {
        let mut bytes = Vec::new();
        let mut offsets = BTreeMap::new();
        for (number, body) in &kept.intents {
            offsets.insert(*number, HEAD_BYTES + bytes.len() as u64);
            frame(&mut bytes, Kind::Intent, *number, body);
        }
        let published = HEAD_BYTES + bytes.len() as u64;
        bytes.extend(kept.file.bytes(kept.published, kept.len)?);
        let mut new = NewFile::create(&self.directory, &self.id.to_string(), &bytes)?;
        let mut state = self.state.lock();
        // Whoever noted these intents went on, so they have to be durable in the new file before it is the outbox.
        new.append(&kept.file.bytes(kept.len, state.len)?)?;
        state.file = Arc::new(new.place()?);
        for (number, open) in &mut state.open {
            open.offset = offsets.get(number).copied().unwrap_or_else(|| open.offset - kept.published + published);
        }
        state.len = state.len - kept.published + published;
        state.published = published;
        self.note(&state);
        Ok(())
    }
}

impl State {
    /// What is needed of its file, as it stands now.
    pub(super) fn kept(&self) -> Kept {
        let early = self.open.iter().filter(|(_, open)| open.offset < self.published);
        let intents = early.map(|(number, open)| (*number, open.body.clone())).collect();
        Kept { file: Arc::clone(&self.file), published: self.published, len: self.len, intents }
    }
}
