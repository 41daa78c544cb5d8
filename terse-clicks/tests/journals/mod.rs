//! A directory of journals with blocks of one click each, whose processes have ended.

use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;
use terse_clicks::journal::{Journal, JournalConfig};
use terse_core::click::{Click, ClickRecorder, ClickRecording, JournalId, Signals};
use terse_core::{Clock, Version};
use terse_testkit::{SeededEntropy, TestClock};

pub(crate) struct Journals {
    pub(crate) root: TempDir,
    pub(crate) clock: Arc<TestClock>,
    entropy: SeededEntropy,
}

impl Journals {
    pub(crate) fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap(), clock: Arc::default(), entropy: SeededEntropy::new(3) }
    }

    pub(crate) fn journal(&self) -> Arc<Journal> {
        let config = JournalConfig::new(self.root.path().to_owned());
        Journal::open(&config, Arc::clone(&self.clock) as Arc<dyn Clock>, &self.entropy).unwrap()
    }

    pub(crate) fn directory(&self, journal: JournalId) -> PathBuf {
        self.root.path().join(journal.to_string())
    }

    /// A process that records a block for each code, and ends.
    pub(crate) fn record(&self, codes: &[&str]) -> JournalId {
        let journal = self.journal();
        let mut recorder = journal.of_a_worker();
        codes.iter().for_each(|code| self.click(&mut *recorder, code));
        drop(recorder);
        journal.end().unwrap();
        journal.id()
    }

    /// Records a block with one click.
    pub(crate) fn click(&self, recorder: &mut dyn ClickRecorder, code: &str) {
        let click = Click {
            at: self.clock.now(),
            code,
            version: Version::FIRST,
            client: None,
            referrer: b"",
            user_agent: b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            language: b"",
            signals: Signals::default(),
        };
        recorder.record(&click).unwrap();
        recorder.seal_if_old(u64::MAX);
    }
}
