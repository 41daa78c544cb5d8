//! Where redirects note their clicks: a journal, once it could be opened. Until then they are dropped as a fault, and
//! counted.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use terse_clicks::journal::{Counts, Journal, JournalConfig, VisitorKeys};
use terse_core::click::{Click, ClickRecorder, ClickRecording, Dropped};
use terse_core::ports::{StoreError, StoreErrorKind};
use terse_core::{Clock, Entropy};

use super::late::Late;

/// Makes recorders of a journal that may not be there yet. Cloning shares it.
#[derive(Clone)]
pub(super) struct Recording {
    pub(super) journal: Arc<Late<Journal>>,
    dropped: Arc<AtomicU64>,
}

impl Recording {
    /// Will record as `config` says. Nothing is opened yet.
    pub(super) fn new(config: JournalConfig, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        let open = move || {
            let journal = Journal::open(&config, Arc::clone(&clock), entropy.as_ref());
            journal.map_err(|error| {
                let directory = config.directory.display();
                let text = format!("a click journal can't be opened in {directory}: {error}");
                StoreError::new(StoreErrorKind::Unavailable, text).caused_by(error)
            })
        };
        Self { journal: Late::new("the click journal", open), dropped: Arc::default() }
    }

    /// The keys under which visitors are hashed, once there is a journal.
    pub(super) fn visitor_keys(&self) -> Option<VisitorKeys> {
        self.journal.get().map(|journal| journal.visitor_keys().clone())
    }

    /// What was recorded and dropped, before there was a journal too. Blocks on the disk.
    pub(super) fn counts(&self) -> io::Result<Counts> {
        let mut counts = self.journal.get().map_or_else(|| Ok(Counts::default()), |journal| journal.counts())?;
        let faults = Dropped::ALL.iter().position(|reason| *reason == Dropped::Fault);
        if let Some(count) = faults.and_then(|index| counts.dropped.get_mut(index)) {
            *count += self.dropped.load(Ordering::Relaxed);
        }
        Ok(counts)
    }
}

impl ClickRecording for Recording {
    fn of_a_worker(&self) -> Box<dyn ClickRecorder> {
        match self.journal.get() {
            Some(journal) => journal.of_a_worker(),
            None => Box::new(Waiting { recording: self.clone(), recorder: None }),
        }
    }
}

/// The recorder of a worker that started before there was a journal.
struct Waiting {
    recording: Recording,
    recorder: Option<Box<dyn ClickRecorder>>,
}

impl ClickRecorder for Waiting {
    fn record(&mut self, click: &Click<'_>) -> Result<(), Dropped> {
        match &mut self.recorder {
            Some(recorder) => recorder.record(click),
            None => {
                self.recording.dropped.fetch_add(1, Ordering::Relaxed);
                Err(Dropped::Fault)
            }
        }
    }

    /// Between requests, so it is here that the journal's own recorder is taken: it waits for its first blocks, some
    /// milliseconds and at most a second, once.
    fn seal_if_old(&mut self, now_ms: u64) {
        match &mut self.recorder {
            Some(recorder) => recorder.seal_if_old(now_ms),
            None => self.recorder = self.recording.journal.get().map(|journal| journal.of_a_worker()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use terse_testkit::{SeededEntropy, TestClock};

    use super::*;
    use crate::clicks::tests::click;

    const WITHIN: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn clicks_are_dropped_as_a_fault_until_the_journal_opens_and_recorded_from_then_on() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("journal");
        // A file where the directory should be.
        std::fs::write(&directory, b"").unwrap();
        let clock: Arc<dyn Clock> = Arc::new(TestClock::default());
        let recording =
            Recording::new(JournalConfig::new(directory.clone()), Arc::clone(&clock), Arc::new(SeededEntropy::new(1)));
        assert!(recording.journal.open_once(WITHIN).await.is_err());
        let mut recorder = recording.of_a_worker();
        for _ in 0..3 {
            recorder.seal_if_old(0);
            assert_eq!(recorder.record(&click()), Err(Dropped::Fault));
        }
        let counts = recording.counts().unwrap();
        assert_eq!((counts.recorded, counts.dropped.iter().sum::<u64>()), (0, 3));

        std::fs::remove_file(&directory).unwrap();
        recording.journal.open_once(WITHIN).await.unwrap();
        assert_eq!(recorder.record(&click()), Err(Dropped::Fault), "not before the worker has looked");
        recorder.seal_if_old(0);
        assert_eq!(recorder.record(&click()), Ok(()));
        assert_eq!(recording.of_a_worker().record(&click()), Ok(()));
        let counts = recording.counts().unwrap();
        assert_eq!((counts.recorded, counts.dropped), (2, [0, 0, 4]));
        drop(recorder);
        tokio::task::spawn_blocking(move || recording.journal.end().map(|journal| journal.end()))
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
}
