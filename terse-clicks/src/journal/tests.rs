//! The journal as its workers and its readers see it.

mod budget;
mod ending;
mod reading;
mod recording;
mod recovering;
mod sealing;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use tempfile::TempDir;
use terse_core::click::{Click, ClickRecorder, ClickRecording, JournalId, Signals};
use terse_core::stats::Partition;
use terse_core::{Clock, Version};
use terse_testkit::{SeededEntropy, TestClock};

use super::*;
use crate::log::local::LocalLog;
use crate::log::{Body, ClickLog, Delivery};
use crate::part::Part;

/// A directory of journals under a clock that stands still.
struct Setup {
    root: TempDir,
    clock: Arc<TestClock>,
    entropy: SeededEntropy,
    config: JournalConfig,
}

impl Setup {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let config = JournalConfig { block_bytes: MIN_BLOCK_BYTES, ..JournalConfig::new(root.path().join("journal")) };
        Self { root, clock: Arc::default(), entropy: SeededEntropy::new(1), config }
    }

    fn open(&self) -> Arc<Journal> {
        Journal::open(&self.config, Arc::clone(&self.clock) as Arc<dyn Clock>, &self.entropy).unwrap()
    }

    /// With `sync_file` in the place of the call that brings a block to disk.
    fn open_with(&self, sync_file: impl FnMut(&File) -> io::Result<()> + Send + 'static) -> Arc<Journal> {
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        Journal::open_with(&self.config, clock, &self.entropy, Box::new(sync_file)).unwrap()
    }

    fn journals(&self) -> PathBuf {
        self.root.path().join("journal")
    }

    fn directory(&self, id: JournalId) -> JournalDir {
        JournalDir::of(&self.journals(), id)
    }

    fn recovery(&self) -> Recovery {
        Recovery::new(&self.journals(), 1, Arc::clone(&self.clock) as Arc<dyn Clock>)
    }

    fn click<'a>(&self, code: &'a str) -> Click<'a> {
        Click {
            at: self.clock.now(),
            code,
            version: Version::FIRST,
            client: Some("203.0.113.7".parse().unwrap()),
            referrer: b"https://news.example/story",
            user_agent: b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            language: b"en-GB,en;q=0.5",
            signals: Signals::default(),
        }
    }

    /// Records clicks of these codes and seals them.
    fn record(&self, recorder: &mut dyn ClickRecorder, codes: &[&str]) {
        for code in codes {
            recorder.record(&self.click(code)).unwrap();
        }
        recorder.seal_if_old(self.clock.monotonic_ms() + self.config.seal_age_ms);
    }
}

/// A crash of the journal's process, as its directory shows it: a copy of all files as they are now, nobody's lock
/// held.
fn crashed_copy(setup: &Setup, id: JournalId) -> Setup {
    let copy = Setup { entropy: SeededEntropy::new(2), ..Setup::new() };
    let (from, to) = (setup.journals().join(id.to_string()), copy.journals().join(id.to_string()));
    std::fs::create_dir_all(&to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        // What is renamed meanwhile is in the copy under one name or none, as with any copy of a live directory.
        let _ = std::fs::copy(entry.path(), to.join(entry.file_name()));
    }
    copy
}

/// Waits for what no condition tells of; much longer than it takes.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_millis(WAIT_MS);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "{what} in time");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Waits for deliveries: much longer than anything takes.
const WAIT_MS: u64 = 10_000;

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

fn part(delivery: &Delivery) -> &Part {
    match &delivery.body {
        Body::Part(part) => part,
        other => panic!("no part: {other:?}"),
    }
}

fn codes(delivery: &Delivery) -> Vec<String> {
    part(delivery).records().map(|(_, record)| record.code.to_owned()).collect()
}

/// All deliveries of `journal` from its beginning to its end.
fn read_to_end(log: &mut LocalLog, journal: JournalId) -> Vec<Delivery> {
    block_on(async {
        log.start(Partition::Journal(journal), None).await.unwrap();
        let mut all = Vec::new();
        while log.ended().is_empty() {
            let found = log.next(1 << 20, WAIT_MS).await.unwrap();
            assert!(!found.is_empty() || !log.ended().is_empty(), "the journal doesn't end");
            all.extend(found);
        }
        all
    })
}

#[test]
fn a_recorded_click_is_delivered() {
    let setup = Setup::new();
    let journal = setup.open();
    let mut log = LocalLog::new(&setup.journals(), Some(Arc::clone(&journal)));
    let mut recorder = journal.of_a_worker();
    setup.record(&mut *recorder, &["one", "two", "one"]);
    let partition = Partition::Journal(journal.id());
    block_on(async {
        assert_eq!(log.partitions().await.unwrap(), [partition]);
        log.start(partition, None).await.unwrap();
        let deliveries = log.next(1 << 20, WAIT_MS).await.unwrap();
        assert_eq!(deliveries.len(), 1);
        assert_eq!((deliveries[0].partition, deliveries[0].offset), (partition, 0));
        assert_eq!(codes(&deliveries[0]), ["one", "two", "one"]);
        let header = part(&deliveries[0]).header;
        assert_eq!((header.block.seq, header.block_records, header.recovered, header.end), (0, 3, false, false));
        assert_eq!(header.sealed_at, setup.clock.now());
        let (index, record) = part(&deliveries[0]).records().next().unwrap();
        assert_eq!((index, record.referrer), (0, &b"https://news.example"[..]));
        assert_eq!((record.network, record.visitor), (Some("203.0.113.0".parse().unwrap()), None));
    });
}
