//! Recording a click allocates nothing on the worker's thread, also when one block is full and the next is taken.

#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;

use terse_clicks::journal::{DayKey, Journal, JournalConfig, MIN_BLOCK_BYTES};
use terse_core::click::{Click, ClickRecording, Signals};
use terse_core::{Clock, Version};
use terse_testkit::{CountingAllocator, SeededEntropy, TestClock};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

/// Clicks of some 180 bytes: these fill several blocks, and fewer than are prepared.
const CLICKS: u64 = 1_200;

/// What an agent begins with; each click is by another one.
const AGENT: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
                     Chrome/141.0.0.0 Safari/537.36";

#[test]
fn recording_allocates_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock::default());
    let block_bytes = MIN_BLOCK_BYTES;
    let config = JournalConfig { block_bytes, ..JournalConfig::new(directory.path().join("journal")) };
    let journal = Journal::open(&config, Arc::clone(&clock) as Arc<dyn Clock>, &SeededEntropy::new(1)).unwrap();
    let mut recorder = journal.of_a_worker();
    let day = (clock.now().as_millis() / 86_400_000) as u32;
    journal.visitor_keys().set([Some(DayKey { day, key: [7; 16] }), None]);
    let agents: Vec<String> = (0..CLICKS).map(|number| format!("{AGENT} Build/{number}")).collect();
    let mut record = |agent: &String| {
        let click = Click {
            at: clock.now(),
            code: "2nX9Kq1",
            version: Version::FIRST,
            client: Some([203, 0, 113, 7].into()),
            referrer: b"https://www.example.org/a/path?with=a&query=too",
            user_agent: agent.as_bytes(),
            language: b"en-GB,en-US;q=0.9,en;q=0.8,de;q=0.7",
            signals: Signals::default(),
        };
        recorder.record(&click).is_ok()
    };
    let before = CountingAllocator::of_this_thread();
    let recorded = agents.iter().map(&mut record).filter(|recorded| *recorded).count();
    recorder.seal_if_old(u64::MAX);
    assert_eq!(CountingAllocator::of_this_thread() - before, 0);
    assert_eq!(recorded as u64, CLICKS);
    drop(recorder);
    journal.end().unwrap();
    let blocks = std::fs::read_dir(config.directory.join(journal.id().to_string())).unwrap();
    let blocks = blocks.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "block"));
    assert!(blocks.count() > 4, "blocks were exchanged while it was counted");
}
