//! Those who wait until what they intend is durable, and the thread that sees to that, beside the writing.
//!
//! A disk may take seconds for a sync while it takes what is written at once. So the writing never waits for a sync: what
//! was written survives the end of its process, also when nobody waits for the disk any more.

use std::mem;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::{MAX_OPEN, Shared};

/// Who waits for a sync.
#[derive(Default)]
pub(super) struct Unsynced {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// At most [`MAX_OPEN`] that still wait: each has an intent that is not settled.
    waiting: Vec<oneshot::Sender<bool>>,
    ended: bool,
}

impl Unsynced {
    /// Adds those whose intents were written.
    pub(super) fn add(&self, noted: impl Iterator<Item = oneshot::Sender<bool>>) {
        let mut state = self.state.lock();
        state.waiting.extend(noted);
        if state.waiting.len() > MAX_OPEN {
            state.waiting.retain(|noted| !noted.is_closed());
        }
        self.changed.notify_one();
    }

    /// Nobody is added any more.
    pub(super) fn end(&self) {
        self.state.lock().ended = true;
        self.changed.notify_one();
    }

    /// All who wait, as soon as there are any; none = it has ended.
    fn next(&self) -> Vec<oneshot::Sender<bool>> {
        let mut state = self.state.lock();
        while state.waiting.is_empty() && !state.ended {
            self.changed.wait(&mut state);
        }
        mem::take(&mut state.waiting)
    }
}

impl Shared {
    /// Syncs until the end.
    pub(super) fn sync_until_end(&self) {
        while self.sync() {}
    }

    /// Waits until somebody waits, then syncs and answers them. False = nobody comes any more.
    pub(super) fn sync(&self) -> bool {
        let waiting = self.unsynced.next();
        if waiting.is_empty() {
            return false;
        }
        // What they wrote is in this file: one that took its place meanwhile has it durably.
        let file = Arc::clone(&self.state.lock().file);
        if let Err(error) = file.file.sync_data() {
            tracing::error!(%error, "link events can't be synced: a power cut may cost some");
        }
        for noted in waiting {
            // Who waited may be gone; then it is settled all the same.
            let _ = noted.send(true);
        }
        true
    }
}
