//! What it costs to record a click with a browser's headers; `cargo bench -p terse-clicks --bench record`. A number on
//! the command line = so many bursts.
//!
//! Clicks come in bursts that fill some blocks, with pauses in which blocks are prepared, as a worker's do. Printed is
//! what a call costs the worker, the CPU time of the whole process per click, which has preparing, syncing and renaming
//! in it, and how many were dropped. With `recycled` blocks, the files of passed blocks are used again.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use terse_clicks::journal::{DayKey, Journal, JournalConfig, SyncPolicy};
use terse_clicks::log::ClickLog;
use terse_clicks::log::local::LocalLog;
use terse_core::click::{Click, ClickRecorder, ClickRecording, Signals};
use terse_core::stats::Partition;
use terse_core::{Clock, Timestamp, Version};
use terse_testkit::SeededEntropy;

const BURST: u64 = 4_000;
const BURSTS: u64 = 200;
const PAUSE: Duration = Duration::from_millis(20);

struct SystemClock(Instant);

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64)
    }

    fn monotonic_ms(&self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }
}

fn click(at: Timestamp, number: u64) -> Click<'static> {
    const CODES: [&str; 4] = ["2nX9Kq1", "0aB3xYz", "Qw7Er5T", "launch-day"];
    Click {
        at,
        code: CODES[number as usize % CODES.len()],
        version: Version::FIRST,
        client: Some([203, 0, 113, (number % 251) as u8].into()),
        referrer: b"https://www.example.org/a/path?with=a&query=too",
        user_agent: b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
            Chrome/141.0.0.0 Safari/537.36",
        language: b"en-GB,en-US;q=0.9,en;q=0.8,de;q=0.7",
        signals: Signals::default(),
    }
}

fn cpu_ns() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn measure(name: &str, sync: SyncPolicy, recycled: bool) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let clock = Arc::new(SystemClock(Instant::now()));
    let budget_bytes = if recycled { 16 << 20 } else { 2 << 30 };
    let config = JournalConfig { sync, budget_bytes, ..JournalConfig::new(directory.path().join("journal")) };
    let journal = Journal::open(&config, Arc::clone(&clock) as Arc<dyn Clock>, &SeededEntropy::new(1)).unwrap();
    let day = (clock.now().as_millis() / 86_400_000) as u32;
    journal.visitor_keys().set([Some(DayKey { day, key: [7; 16] }), None]);
    let mut recorder = journal.of_a_worker();
    let bursts = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(BURSTS).max(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut log = LocalLog::new(&config.directory, None);
    let (mut spent, mut best) = (Duration::ZERO, Duration::MAX);
    let cpu = cpu_ns();
    for number in 0..bursts {
        let took = burst(&mut *recorder, clock.now());
        spent += took;
        best = best.min(took);
        // What was sealed some bursts ago was read by now.
        let passed = (number * 4).saturating_sub(30);
        runtime.block_on(log.passed(Partition::Journal(journal.id()), passed)).unwrap();
        std::thread::sleep(PAUSE);
    }
    drop(recorder);
    let cpu = (cpu_ns() - cpu) / (bursts * BURST) as f64;
    journal.end().unwrap();
    let counts = journal.counts().unwrap();
    let mean = spent.as_nanos() as f64 / (bursts * BURST) as f64;
    let best = best.as_nanos() as f64 / BURST as f64;
    let dropped: u64 = counts.dropped.iter().sum();
    println!("{name:<34} {mean:>7.1} ns a call (best burst {best:.1}), {cpu:>7.1} ns of CPU, {dropped} dropped");
}

fn burst(recorder: &mut dyn ClickRecorder, at: Timestamp) -> Duration {
    let began = Instant::now();
    for number in 0..BURST {
        // Those that are dropped are counted by the journal.
        let _ = recorder.record(&click(at, number));
    }
    began.elapsed()
}

fn main() {
    measure("new blocks, not synced", SyncPolicy::None, false);
    measure("new blocks, synced when sealed", SyncPolicy::Sealed, false);
    measure("recycled blocks, synced when sealed", SyncPolicy::Sealed, true);
}
