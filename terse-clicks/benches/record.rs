//! What it costs to record a click with a browser's headers, all in all; `cargo bench -p terse-clicks --bench record`.
//! A number on the command line = so many seconds a case; a second one = so many KiB a block.
//!
//! One worker records 100,000 clicks a second, a few hundred at a time. Printed is what a call costs the worker (the
//! mean, and that of the best hundredth of bursts, which no neighbour disturbs), the CPU time that the journal's threads
//! spend per click on preparing, syncing and renaming blocks, both together, bytes on disk per click, and how many were
//! dropped. The clicks come from one browser, or from many browsers, languages and referrers of which some are far more
//! frequent than others. With `recycled` blocks, files of passed blocks are used again.
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

const PER_SECOND: u64 = 100_000;
const BURST: u64 = 200;
const BETWEEN: Duration = Duration::from_micros(BURST * 1_000_000 / PER_SECOND);
const SECONDS: u64 = 8;
/// How often it is told what was passed, in bursts; and how many of the newest blocks are not.
const PASSED_EVERY: u64 = 50;
const NOT_PASSED: u64 = 8;

/// Agents of people, of which nearly all clicks are.
const AGENTS: &str = include_str!("../src/enrich/agents.txt");
/// How many of each there are, where there are many.
const VERSIONS: u64 = 12;
const LANGUAGES: u64 = 40;
const REFERRERS: u64 = 300;

struct SystemClock(Instant);

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64)
    }

    fn monotonic_ms(&self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }
}

/// The headers that browsers send.
struct Headers {
    agents: Vec<String>,
    languages: Vec<String>,
    referrers: Vec<String>,
}

impl Headers {
    fn one() -> Self {
        let agent = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
                     Chrome/141.0.0.0 Safari/537.36";
        Self {
            agents: vec![agent.to_owned()],
            languages: vec!["en-GB,en-US;q=0.9,en;q=0.8,de;q=0.7".to_owned()],
            referrers: vec!["https://www.example.org/a/path?with=a&query=too".to_owned()],
        }
    }

    fn many() -> Self {
        let people: Vec<&str> = AGENTS.lines().filter_map(|line| Some(line.split_once('\t')?.1)).collect();
        let agents =
            (0..VERSIONS).flat_map(|version| people.iter().map(move |agent| format!("{agent} Build/{version}")));
        let language = |number| format!("en-GB,en-US;q=0.9,en;q=0.8,x{number};q=0.7");
        let referrer = |number| format!("https://www.site-{number}.example.org/a/path?with=a&query=too");
        Self {
            agents: agents.collect(),
            languages: (0..LANGUAGES).map(language).collect(),
            referrers: (0..REFERRERS).map(referrer).collect(),
        }
    }

    fn click(&self, at: Timestamp, number: u64) -> Click<'_> {
        const CODES: [&str; 4] = ["2nX9Kq1", "0aB3xYz", "Qw7Er5T", "launch-day"];
        let some = spread(number);
        Click {
            at,
            code: CODES[number as usize % CODES.len()],
            version: Version::FIRST,
            client: Some([203, 0, (some >> 8) as u8, some as u8].into()),
            referrer: pick(&self.referrers, some >> 16).as_bytes(),
            user_agent: pick(&self.agents, some >> 32).as_bytes(),
            language: pick(&self.languages, some >> 48).as_bytes(),
            signals: Signals::default(),
        }
    }
}

/// One of `all`, the first ones much more often: a quarter of the picks falls on the first sixty-fourth.
fn pick(all: &[String], some: u64) -> &str {
    let part = (some & 0xffff) as f64 / 65_536.0;
    &all[(part * part * part * all.len() as f64) as usize]
}

/// Numbers that are spread evenly: the steps of splitmix64.
fn spread(number: u64) -> u64 {
    let z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The numbers on the command line.
fn arguments() -> impl Iterator<Item = usize> {
    std::env::args().filter_map(|word| word.parse().ok())
}

fn cpu_ns(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// What the journal's threads have spent so far; this is called on the worker's.
fn background_ns() -> f64 {
    cpu_ns(ClockId::ProcessCPUTime) - cpu_ns(ClockId::ThreadCPUTime)
}

/// Tells what was read.
struct Passing {
    log: LocalLog,
    runtime: tokio::runtime::Runtime,
    passed: u64,
}

impl Passing {
    fn of(config: &JournalConfig) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        Self { log: LocalLog::new(&config.directory, None), runtime, passed: 0 }
    }

    fn pass(&mut self, journal: &Journal) {
        self.passed += journal.counts().unwrap().pending.saturating_sub(NOT_PASSED);
        if let Some(last) = self.passed.checked_sub(1) {
            self.runtime.block_on(self.log.passed(Partition::Journal(journal.id()), last)).unwrap();
        }
    }
}

fn measure(name: &str, headers: &Headers, sync: SyncPolicy, recycled: bool) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let clock = Arc::new(SystemClock(Instant::now()));
    let budget_bytes = if recycled { 16 << 20 } else { 2 << 30 };
    let mut config = JournalConfig { sync, budget_bytes, ..JournalConfig::new(directory.path().join("journal")) };
    config.block_bytes = arguments().nth(1).map_or(config.block_bytes, |kib| kib << 10);
    let journal = Journal::open(&config, Arc::clone(&clock) as Arc<dyn Clock>, &SeededEntropy::new(1)).unwrap();
    let day = (clock.now().as_millis() / 86_400_000) as u32;
    journal.visitor_keys().set([Some(DayKey { day, key: [7; 16] }), None]);
    let mut recorder = journal.of_a_worker();
    let seconds = arguments().next().map_or(SECONDS, |seconds| seconds as u64).max(1);
    let mut passing = recycled.then(|| Passing::of(&config));
    let bursts = seconds * PER_SECOND / BURST;
    let mut took: Vec<f64> = Vec::with_capacity(bursts as usize);
    let (began, before) = (Instant::now(), background_ns());
    for number in 0..bursts {
        std::thread::sleep((began + BETWEEN * number as u32).saturating_duration_since(Instant::now()));
        let clicks: Vec<Click<'_>> = (0..BURST).map(|n| headers.click(clock.now(), number * BURST + n)).collect();
        took.push(burst(&mut *recorder, &clicks).as_nanos() as f64 / BURST as f64);
        recorder.seal_if_old(clock.monotonic_ms());
        if let Some(passing) = passing.as_mut().filter(|_| number % PASSED_EVERY == 0) {
            passing.pass(&journal);
        }
    }
    drop(recorder);
    let background = (background_ns() - before) / (bursts * BURST) as f64;
    journal.end().unwrap();
    let dropped: u64 = journal.counts().unwrap().dropped.iter().sum();
    let mean = took.iter().sum::<f64>() / bursts as f64;
    took.sort_by(f64::total_cmp);
    let best = took[took.len() / 100];
    let both = mean + background;
    let disk =
        if recycled { String::new() } else { format!(", {:.1} bytes", disk_bytes(&config) / (bursts * BURST) as f64) };
    println!(
        "{name:<36} {mean:>6.1} ns a call (best {best:.1}) + {background:>6.1} ns of CPU behind = {both:>6.1} ns{disk}, \
         {dropped} dropped"
    );
}

fn disk_bytes(config: &JournalConfig) -> f64 {
    let journals = std::fs::read_dir(&config.directory).unwrap().map(|entry| entry.unwrap().path());
    let files = journals.flat_map(|journal| std::fs::read_dir(journal).unwrap());
    files.map(|file| file.unwrap().metadata().unwrap().len() as f64).sum()
}

fn burst(recorder: &mut dyn ClickRecorder, clicks: &[Click<'_>]) -> Duration {
    let began = Instant::now();
    for click in clicks {
        // Those that are dropped are counted by the journal.
        let _ = recorder.record(click);
    }
    began.elapsed()
}

fn main() {
    let (one, many) = (Headers::one(), Headers::many());
    measure("one browser, new, not synced", &one, SyncPolicy::None, false);
    for (texts, headers) in [("one browser", &one), ("many browsers", &many)] {
        measure(&format!("{texts}, new blocks"), headers, SyncPolicy::Sealed, false);
        measure(&format!("{texts}, recycled blocks"), headers, SyncPolicy::Sealed, true);
    }
}
