//! A process that is killed loses no click that it has acknowledged, and no click is there twice.
//!
//! The test starts this binary again as the process that records; it gets its directory on standard input, and
//! acknowledges each click on standard output.

#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use terse_clicks::journal::{Journal, JournalConfig, MIN_BLOCK_BYTES, Recovery};
use terse_clicks::log::local::LocalLog;
use terse_clicks::log::{Body, ClickLog};
use terse_core::click::{Click, ClickRecording, JournalId, Signals};
use terse_core::stats::Partition;
use terse_core::{Clock, Entropy, Timestamp, Version};
use terse_testkit::{SeededEntropy, TestClock};

const WORKERS: usize = 2;
/// The name of the test that records, and what its acknowledgements begin with.
const RECORDING: &str = "child_that_records_until_it_is_killed";
const ACKNOWLEDGED: &str = "ack ";

struct SystemClock(Instant);

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64)
    }

    fn monotonic_ms(&self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }
}

fn click(at: Timestamp, code: &str) -> Click<'_> {
    Click {
        at,
        code,
        version: Version::FIRST,
        client: Some([203, 0, 113, 7].into()),
        referrer: b"https://www.example.org/",
        user_agent: b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        language: b"en-GB,en;q=0.5",
        signals: Signals::default(),
    }
}

/// Records on one worker until its process is killed; says so of each click once it is recorded.
fn record_for_ever(journal: &Journal, clock: &SystemClock, worker: usize) {
    let mut recorder = journal.of_a_worker();
    for number in 0_u64.. {
        let code = format!("w{worker}-{number}");
        if recorder.record(&click(clock.now(), &code)).is_ok() {
            // Nobody reads any more: the test has ended.
            if writeln!(std::io::stdout(), "{ACKNOWLEDGED}{code}").is_err() {
                return;
            }
        }
        if number % 100 == 0 {
            recorder.seal_if_old(clock.monotonic_ms());
        }
    }
}

#[test]
#[ignore = "only as the child of the test below"]
fn child_that_records_until_it_is_killed() {
    let mut input = String::new();
    std::io::stdin().read_line(&mut input).unwrap();
    let Some((seed, directory)) = input.trim_end().split_once(' ') else { return };
    // What the harness has begun to print is no part of the first acknowledgement.
    println!();
    let clock = Arc::new(SystemClock(Instant::now()));
    let config = JournalConfig {
        block_bytes: MIN_BLOCK_BYTES,
        seal_age_ms: 20,
        ..JournalConfig::new(Path::new(directory).to_owned())
    };
    let entropy = SeededEntropy::new(seed.parse().unwrap());
    let journal = Journal::open(&config, Arc::clone(&clock) as Arc<dyn Clock>, &entropy).unwrap();
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (journal, clock) = (&journal, &clock);
            scope.spawn(move || record_for_ever(journal, clock, worker));
        }
    });
}

/// Starts the child, and kills it after so many acknowledgements; returns all that it made.
fn kill_after(acknowledgements: usize, seed: u64, directory: &Path) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", RECORDING, "--ignored", "--nocapture", "--test-threads=1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{seed} {}", directory.display()).unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut acknowledged = Vec::new();
    let mut line = String::new();
    while acknowledged.len() < acknowledgements {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "the child has ended by itself");
        acknowledged.extend(line.trim_end().strip_prefix(ACKNOWLEDGED).map(str::to_owned));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    // The last line may be cut.
    let whole = rest.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    acknowledged.extend(whole.filter_map(|line| line.strip_prefix(ACKNOWLEDGED)).map(str::to_owned));
    acknowledged
}

/// All codes in the journals of `directory`, with how often each was delivered.
fn delivered(directory: &Path, journals: usize) -> HashMap<String, u32> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut log = LocalLog::new(directory, None);
    let mut codes = HashMap::new();
    runtime.block_on(async {
        let mut partitions = log.partitions().await.unwrap();
        partitions.retain(|partition| !log.was_passed(*partition));
        assert_eq!(partitions.len(), journals);
        for partition in partitions {
            log.start(partition, None).await.unwrap();
        }
        while log.ended().len() < journals {
            for delivery in log.next(1 << 20, 1_000).await.unwrap() {
                let Body::Part(part) = delivery.body else { panic!("{:?}", delivery.body) };
                for (_, record) in part.records() {
                    *codes.entry(record.code.to_owned()).or_default() += 1;
                }
            }
        }
    });
    codes
}

#[test]
fn a_killed_process_loses_no_click_that_it_has_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let journals = directory.path().join("journal");
    for (round, acknowledgements) in [1, 300, 3_000, 20_000].into_iter().enumerate() {
        let acknowledged = kill_after(acknowledgements, round as u64, &journals);
        let clock: Arc<dyn Clock> = Arc::new(TestClock::default());
        let mut recovery = Recovery::new(&journals, 1, clock);
        let recovered = recovery.recover_once().unwrap();
        assert_eq!((recovered.journals, recovered.quarantined, recovered.torn_bytes), (1, 0, 0));
        let delivered = delivered(&journals, 1);
        for code in &acknowledged {
            assert_eq!(delivered.get(code), Some(&1), "round {round}: {code}");
        }
        // Each worker may have recorded one more, of which it could not tell any more.
        assert!(delivered.len() <= acknowledged.len() + WORKERS, "round {round}");
        let mut id = [0; 16];
        SeededEntropy::new(round as u64).fill(&mut id);
        let mut log = LocalLog::new(&journals, None);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        // All was read, so that the next round finds its own journal alone.
        runtime.block_on(log.passed(Partition::Journal(JournalId(id)), u64::MAX - 1)).unwrap();
    }
}
